"""MELD, CMU-MOSI, CMU-MOSEI and SLUE-VoxCeleb: tables, clips, and parts of recordings."""

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from mmsr.data.corpora.multimodal import bin_score

RATE = 16_000
MELD_HEADER = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
)
MELD_FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}


@pytest.fixture
def meld(root: Path, tone: Any, write: Any) -> Path:
    for split, folder in MELD_FOLDERS.items():
        lines = [
            MELD_HEADER,
            '1,"Oh, you\x92re here",Chandler,surprise,positive,0,0,8,21,"00:16:16,059","00:16:21,731"',
            '2,No,The Interviewer,neutral,neutral,0,1,8,21,"00:16:16,059","00:16:21,731"',
        ]
        write(root / f"{split}_sent_emo.csv", "\r\n".join(lines) + "\r\n")
        for turn in range(2):
            tone(root / folder / f"dia0_utt{turn}.wav")
    return root


def test_meld_reads_the_three_tables(meld: Path, converted: Any) -> None:
    done = converted("meld", meld)
    assert done.column("split") == ["train", "train", "dev", "dev", "test", "test"]
    assert done.column("label") == ["positive", "neutral"] * 3
    row = done.rows["meld-dev-dia0_utt0"]
    assert row["text"] == "Oh, you’re here"  # cp1252's apostrophe, decoded as a control character
    assert (row["speaker"], row["emotion"]) == ("Chandler", "surprise")
    assert any("train_sent_emo.csv: 1 characters" in note for note in done.record["notes"])
    assert converted("meld", meld, labels="emotion").column("label") == ["surprise", "neutral"] * 3
    assert done.record["protocol"]["metrics"][0] == "weighted_f1"


def test_meld_saved_as_cp1252_reads_the_same(meld: Path, converted: Any) -> None:
    table = meld / "test_sent_emo.csv"
    table.write_bytes(table.read_text(encoding="utf-8").encode("latin-1"))
    done = converted("meld", meld)
    assert done.rows["meld-test-dia0_utt0"]["text"] == "Oh, you’re here"
    assert "test_sent_emo.csv is not UTF-8 and was read as cp1252" in done.record["notes"]


def test_meld_keeps_the_rows_of_broken_and_missing_clips(
    meld: Path, caplog: pytest.LogCaptureFixture, write: Any, converted: Any
) -> None:
    write(meld / "train_splits" / "dia0_utt0.wav", "broken")
    (meld / "dev_splits_complete" / "dia0_utt1.wav").unlink()
    done = converted("meld", meld)
    assert len(done.rows) == 6 and done.record["counts"]["audio_missing"] == 2
    assert [name for name, row in done.rows.items() if not row["audio"]] == [
        "meld-train-dia0_utt0",
        "meld-dev-dia0_utt1",
    ]
    left_out = (done.folder / "left_out.csv").read_text(encoding="utf-8")
    assert "train_sent_emo.csv, row 2" in left_out and "dia0_utt1" in left_out
    assert "meld: 2 rows without audio, with their text alone (train_sent_emo.csv, row 2, " in caplog.text


def test_meld_faults_name_file_row_and_column(meld: Path, write: Any, refused: Any) -> None:
    table = meld / "dev_sent_emo.csv"
    write(table, table.read_text(encoding="utf-8").replace("neutral,neutral", "neutral,meh") + "3,short\n")
    message = refused("meld", meld)
    assert "dev_sent_emo.csv, row 3, column Sentiment: 'meh' is unknown; accepted: negative" in message
    assert "dev_sent_emo.csv, row 4: has 2 values; accepted: 11" in message
    write(table, "Utterance,Speaker\nhello,Ross\n")
    assert "dev_sent_emo.csv, row 1: no column Emotion" in refused("meld", meld)


def film(sound: Path, path: Path) -> None:
    """A film of one picture with the sound of a file."""
    with av.open(str(sound)) as source, av.open(str(path), "w") as out:
        pictures = out.add_stream("mpeg4", rate=5, width=16, height=16, pix_fmt="yuv420p")
        heard = out.add_stream("aac", rate=source.streams.audio[0].rate, layout="mono")
        picture = av.VideoFrame(16, 16, "yuv420p")
        picture.pts, picture.time_base = 0, Fraction(1, 5)
        out.mux([*pictures.encode(picture), *pictures.encode(None)])
        for frame in source.decode(audio=0):
            out.mux(heard.encode(frame))
        out.mux(heard.encode(None))


def test_the_sound_of_a_video_is_taken_out(meld: Path, write: Any, converted: Any) -> None:
    clip = meld / "train_splits" / "dia0_utt0.wav"
    for name in ("train_splits/dia0_utt0.mp4", "dev_splits_complete/dia0_utt0.mp4"):
        film(clip, meld / name)
    (meld / "dev_splits_complete" / "dia0_utt0.wav").unlink()
    write(meld / "test_splits" / "dia0_utt0.mp4", "broken")
    done = converted("meld", meld)
    assert done.rows["meld-train-dia0_utt0"]["audio"].endswith("train_splits/dia0_utt0.wav")
    assert done.rows["meld-dev-dia0_utt0"]["audio"] == "audio/meld-dev-dia0_utt0.flac"
    assert soundfile.info(done.folder / "audio" / "meld-dev-dia0_utt0.flac").samplerate == RATE


@pytest.fixture
def mosi(root: Path, tone: Any, write: Any) -> Path:
    lines = ["video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode"]
    for clip, (score, mode) in enumerate([(-2.6, "train"), (-0.4, "valid"), (0, "test"), (0.2, "test")]):
        lines.append(f'v1,{clip},"so, well",{score},0,0,0,x,{mode}')
        tone(root / "Raw" / "v1" / f"{clip}.wav")
    write(root / "label.csv", "\n".join(lines))
    return root


@pytest.mark.parametrize("name", ["cmu-mosi", "cmu-mosei"])
def test_mosi_and_mosei_cut_the_score_as_the_papers_do(name: str, mosi: Path, converted: Any) -> None:
    done = converted(name, mosi)
    assert done.column("label") == ["negative", "negative", "neutral", "positive"]
    assert done.column("split") == ["train", "dev", "test", "test"]
    assert done.column("score") == ["-2.6", "-0.4", "0", "0.2"]
    assert set(done.column("speaker")) == {"v1"} and all(done.column("audio"))
    nonnegative = converted(name, mosi, labels="acc2_nonnegative")
    assert nonnegative.column("label") == ["negative", "negative", "non-negative", "non-negative"]
    assert converted(name, mosi, labels="acc7").column("label") == ["-3", "0", "0", "0"]
    two = converted(name, mosi, labels="acc2")
    assert two.column("label") == ["negative", "negative", "positive"]
    assert [gap.where for gap in two.done.left_out] == ["label.csv, row 4"]


def test_scores_are_cut_at_the_borders() -> None:
    assert [bin_score(score, "acc7") for score in (-3, -2.5, -1.5, 0.5, 1.5, 3)] == [
        *("-3", "-2", "-2"),
        *("0", "2", "3"),
    ]
    assert bin_score(0.0, "sentiment") == "neutral" and bin_score(0.0, "acc2_nonnegative") == "non-negative"


def test_mosi_names_scores_and_splits_that_are_none(mosi: Path, write: Any, refused: Any) -> None:
    write(
        mosi / "label.csv",
        "video_id,clip_id,text,label,mode\nv1,0,a,4,train\nv1,1,b,nan,train\nv1,2,c,1,later\n",
    )
    lines = refused("cmu-mosi", mosi).split("\n")
    assert lines[0] == "label.csv, row 2, column label: '4' is no score; accepted: -3 to 3"
    assert lines[1] == "label.csv, row 3, column label: 'nan' is no number; accepted: a finite number"
    assert lines[2] == "label.csv, row 4, column mode: 'later' is unknown; accepted: train, valid, test"


def test_without_any_recording_text_stands_alone(mosi: Path, converted: Any) -> None:
    shutil.rmtree(mosi / "Raw")
    done = converted("cmu-mosi", mosi)
    assert done.column("audio") == [""] * 4
    assert done.record["notes"] == ["no recordings in Raw, wav or audio: the rows have text alone"]


@pytest.fixture
def slue(root: Path, tone: Any, write: Any) -> Path:
    header = "id\tnormalized_text\tspeaker_id\tsentiment\tstart_second\tend_second"
    for part in ("fine-tune", "dev"):
        lines = [header]
        for number, label in enumerate(("Positive", "Neutral", "Negative", "Disagreement")):
            lines.append(f"id1_{part}_{number}\twell {number}\tid1\t{label}\t0.2\t0.5")
            tone(root / f"{part}_raw" / f"id1_{part}_{number}.flac", seconds=1)
        write(root / f"slue-voxceleb_{part}.tsv", "\n".join(lines))
    write(root / "slue-voxceleb_test_blind.tsv", "id\tstart_second\tend_second\nid2_test_0\t0\t0.3")
    tone(root / "test_raw" / "id2_test_0.flac", seconds=0.3)
    return root


def test_slue_cuts_what_was_annotated(slue: Path, converted: Any) -> None:
    done = converted("slue-voxceleb", slue)
    assert done.column("label") == ["positive", "neutral", "negative"] * 2 + [""]
    assert done.column("split") == ["train"] * 3 + ["dev"] * 3 + ["test"]
    row = done.rows["id1_fine-tune_0"]
    assert (row["audio"], row["text"], row["speaker"]) == ("audio/id1_fine-tune_0.flac", "well 0", "id1")
    whole, rate = soundfile.read(slue / "fine-tune_raw" / "id1_fine-tune_0.flac")
    cut, _ = soundfile.read(done.folder / row["audio"])
    np.testing.assert_array_equal(cut, whole[int(0.2 * rate) : int(0.5 * rate)])
    assert not done.rows["id2_test_0"]["audio"].startswith("audio/")  # is no longer than its part
    assert done.rows["id2_test_0"]["speaker"] == "id2"
    assert done.record["counts"]["left_out"] == {"its annotators gave disagreement": 2}
    assert done.record["protocol"]["metrics"][0] == "macro_f1"


def test_slue_leaves_out_a_part_that_is_not_in_the_recording(slue: Path, write: Any, converted: Any) -> None:
    table = slue / "slue-voxceleb_dev.tsv"
    write(table, table.read_text(encoding="utf-8").replace("0.2\t0.5", "0.9\t1.4", 1))
    done = converted("slue-voxceleb", slue)
    assert "id1_dev_0" not in done.rows and len(done.rows) == 6
    left_out = (done.folder / "left_out.csv").read_text(encoding="utf-8")
    assert '"slue-voxceleb_dev.tsv, row 2",' in left_out and "no part 0.9 to 1.4 s in 1.00 s" in left_out
