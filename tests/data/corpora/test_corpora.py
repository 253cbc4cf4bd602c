"""Each corpus's layout in small, with real recordings: rows, labels, protocols, and faults by name."""

import csv
import io
import json
import logging
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from mmsr.cli.main import main
from mmsr.data.corpora import CORPORA, Corpus, CorpusError, Protocol, Source, Utterance, convert
from mmsr.data.corpora.multimodal import bin_score
from mmsr.data.loading.splits import speaker_fold
from mmsr.data.manifest.manifest import ManifestError, load_manifest

RATE = 16_000


def tone(path: Path, seconds: float = 0.1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.1 * np.sin(np.arange(int(seconds * RATE)) / 10)
    soundfile.write(path, wave, RATE)
    return path


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)
    return path


def sheet(path: Path, header: list[str], rows: list[list[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    for values in (header, *rows):
        book.active.append(values)
    book.save(path)
    return path


class Converted:
    """A conversion's rows with all columns, its record, and what the manifest's reader makes of them."""

    def __init__(self, name: str | Corpus, source: Path, **options: Any):
        corpus = CORPORA[name] if isinstance(name, str) else name
        out = source.parent / f"out-{len(os.listdir(source.parent))}"
        done = convert(corpus, source, out, **options)
        self.folder, self.done = out, done
        with open(out / "manifest.csv", encoding="utf-8", newline="") as file:
            self.rows = {row["id"]: row for row in csv.DictReader(file)}
        self.record = json.loads((out / "corpus.json").read_text(encoding="utf-8"))
        self.loaded = load_manifest(out / "manifest.csv", labels=self.record["protocol"]["labels"])
        assert list(self.loaded["id"]) == list(self.rows)

    def column(self, name: str) -> list[str]:
        return [row[name] for row in self.rows.values()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def refused(name: str, source: Path, **options: Any) -> str:
    """Convert what cannot be converted; nothing may be left of it. Returns the message."""
    before = sorted(os.listdir(source.parent))
    with pytest.raises((CorpusError, ManifestError)) as error:
        convert(CORPORA[name], source, source.parent / "refused", **options)
    assert sorted(os.listdir(source.parent)) == before
    return str(error.value)


# ---------------------------------------------------------------------- EmoDB


EMODB_SPEAKERS = ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16")


@pytest.fixture
def emodb(root: Path) -> Path:
    for letter in "WLEAFTN":
        tone(root / "wav" / f"03a01{letter}a.wav")
    for speaker in EMODB_SPEAKERS[1:]:
        tone(root / "wav" / f"{speaker}b10Nb.wav")
    tone(root / "wav" / "._03a01Fa.wav")  # a shadow made by a Mac
    return root


def test_emodb_reads_speaker_sentence_and_emotion_from_the_name(emodb: Path) -> None:
    done = Converted("emodb", emodb)
    assert len(done.rows) == 16
    assert {name: row["label"] for name, row in done.rows.items() if name.startswith("03")} == {
        **{f"03a01{letter}a": "negative" for letter in "WLEAT"},
        "03a01Na": "neutral",
        "03a01Fa": "positive",
    }
    row = done.rows["03a01Fa"]
    assert row["text"] == "Der Lappen liegt auf dem Eisschrank."
    assert (row["speaker"], row["language"], row["emotion"], row["fold"]) == (
        "emodb03",
        "de",
        "happiness",
        "0",
    )
    assert float(row["duration"]) == pytest.approx(0.1, abs=0.001)
    assert done.record["protocol"]["metrics"] == ["uar", "accuracy"]
    assert done.record["protocol"]["source"].startswith("doi:")
    emotions = Converted("emodb", emodb, labels="emotion")
    assert set(emotions.column("label")) == set(emotions.record["protocol"]["labels"])
    assert len(set(emotions.column("label"))) == 7


@pytest.mark.parametrize("name", ["emodb", "ravdess", "iemocap"])
def test_column_fold_is_what_the_training_program_cuts(name: str, request: pytest.FixtureRequest) -> None:
    done = Converted(name, request.getfixturevalue(name), labels="emotion")
    folds = done.record["protocol"]["folds"]
    assert sorted(set(done.column("fold")), key=int) == [str(fold) for fold in range(folds)]
    for fold in range(folds):
        parts = speaker_fold(done.loaded, fold=fold, folds=folds, dev_speakers=1)
        ids = [row["id"] for row in done.rows.values() if row["fold"] == str(fold)]
        assert [done.loaded[row]["id"] for row in parts["test"]] == ids


# ---------------------------------------------------------------------- RAVDESS


@pytest.fixture
def ravdess(root: Path) -> Path:
    for actor in range(1, 25):
        tone(root / f"Actor_{actor:02d}" / f"03-01-01-01-01-01-{actor:02d}.wav")
    for emotion in range(2, 9):
        tone(root / "Actor_12" / f"03-01-{emotion:02d}-02-02-01-12.flac")
    return root


def test_ravdess_reads_the_seven_codes(ravdess: Path, caplog: pytest.LogCaptureFixture) -> None:
    done = Converted("ravdess", ravdess)
    labels = {name[6:8]: row["label"] for name, row in done.rows.items() if row["speaker"] == "ravdess12"}
    assert labels == {
        **{"01": "neutral", "02": "neutral", "03": "positive"},
        **dict.fromkeys(("04", "05", "06", "07"), "negative"),
    }
    row = done.rows["03-01-06-02-02-01-12"]
    assert row["text"] == "Dogs are sitting by the door" and row["intensity"] == "strong"
    assert row["emotion"] == "fearful" and row["fold"] == "2"
    assert done.record["counts"]["left_out"] == {
        "label surprised is not in the protocol RAVDESS speech, sentiment from seven emotions, six folds of"
        " four actors": 1
    }
    assert "Actor_12/03-01-08-02-02-01-12.flac" in (done.folder / "left_out.csv").read_text(encoding="utf-8")
    assert (
        "Actor_12/03-01-08-02-02-01-12.flac" in caplog.text and "1248 in the published corpus" in caplog.text
    )
    assert len(set(Converted("ravdess", ravdess, labels="emotion").column("label"))) == 8


def test_ravdess_leaves_out_song_and_video_and_says_so(ravdess: Path) -> None:
    tone(ravdess / "Actor_01" / "03-02-03-01-01-01-01.wav")
    write(ravdess / "Actor_01" / "01-01-03-01-01-01-01.mp4", "no matter what")
    done = Converted("ravdess", ravdess, labels="emotion")
    assert sorted(gap.where for gap in done.done.left_out) == [
        "Actor_01/01-01-03-01-01-01-01.mp4",
        "Actor_01/03-02-03-01-01-01-01.wav",
    ]
    assert sum(done.record["counts"]["read"].values()) == len(done.rows) + 2


def test_each_recording_comes_once(ravdess: Path) -> None:
    tone(ravdess / "copies" / "03-01-01-01-01-01-01.wav")
    message = refused("ravdess", ravdess)
    assert "copies/03-01-01-01-01-01-01.wav" in message and "Actor_01/03-01-01-01-01-01-01.wav" in message


def test_real_ravdess_has_the_labels_of_its_manifest(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "ravdess16k"
    done = convert(CORPORA["ravdess"], folder, tmp_path / "out")
    ours = {Path(row["audio"]).name: row for row in load_manifest(done.manifest)}
    theirs = {Path(row["audio"]).name: row for row in load_manifest(folder / "manifest.csv")}
    columns = ("text", "label", "language", "speaker")
    assert len(ours) == 832
    assert {name: [row[column] for column in columns] for name, row in ours.items()} == {
        name: [row[column] for column in columns] for name, row in theirs.items()
    }


# ---------------------------------------------------------------------- IEMOCAP


@pytest.fixture
def iemocap(root: Path) -> Path:
    emotions = ("ang", "hap", "exc", "sad", "neu", "fru")
    for session in range(1, 6):
        folder = root / f"Session{session}"
        dialogue = f"Ses0{session}F_impro01"
        lines, words = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""], []
        for turn, emotion in enumerate(emotions):
            name = f"{dialogue}_{'FM'[turn % 2]}{turn:03d}"
            lines += [f"[{turn}.2901 - {turn}.8235]\t{name}\t{emotion}\t[2.5000, 3.0000, 2.5000]"]
            lines += ["C-E2:\tNeutral;\t()", ""]
            words.append(f"{name} [00{turn}.2901-00{turn}.8235]: Excuse me {emotion}.")
            tone(folder / "sentences" / "wav" / dialogue / f"{name}.wav")
        write(folder / "dialog" / "EmoEvaluation" / f"{dialogue}.txt", "\n".join(lines))
        write(folder / "dialog" / "EmoEvaluation" / f"._{dialogue}.txt", "shadow")
        write(folder / "dialog" / "transcriptions" / f"{dialogue}.txt", "\n".join([*words, "M: [laughter]"]))
    return root


def test_iemocap_keeps_the_four_classes_and_names_its_sentiments(iemocap: Path) -> None:
    done = Converted("iemocap", iemocap)
    assert Counter(done.column("label")) == {"negative": 10, "neutral": 5, "positive": 10}
    assert done.record["protocol"]["label_of"]["exc"] == "positive"
    assert sum(done.record["counts"]["left_out"].values()) == 5
    row = done.rows["Ses03F_impro01_M001"]
    assert (row["speaker"], row["kind"], row["fold"], row["emotion"]) == (
        "iemocap3M",
        "improvised",
        "2",
        "hap",
    )
    assert row["text"] == "Excuse me hap." and row["valence"] == "2.5000"
    emotions = Converted("iemocap", iemocap, labels="emotion")
    assert Counter(emotions.column("label")) == {"angry": 5, "happy": 10, "neutral": 5, "sad": 5}
    assert emotions.record["protocol"]["fold_by"] == "session"


def test_iemocap_names_a_broken_line_and_a_missing_recording(iemocap: Path) -> None:
    sheet_ = iemocap / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
    write(sheet_, sheet_.read_text(encoding="utf-8") + "\n[7.1 - 8.2]\tSes01F_impro01_F007\tneu")
    (iemocap / "Session2/sentences/wav/Ses02F_impro01/Ses02F_impro01_F000.wav").unlink()
    message = refused("iemocap", iemocap)
    assert "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt, row 21" in message
    assert "Ses02F_impro01_F000.wav: does not exist" in message and message.count("accepted") == 2


# ---------------------------------------------------------------------- MELD

MELD_HEADER = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
)
MELD_FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}


@pytest.fixture
def meld(root: Path) -> Path:
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


def test_meld_reads_the_three_tables(meld: Path) -> None:
    done = Converted("meld", meld)
    assert done.column("split") == ["train", "train", "dev", "dev", "test", "test"]
    assert done.column("label") == ["positive", "neutral"] * 3
    row = done.rows["meld-dev-dia0_utt0"]
    assert row["text"] == "Oh, you’re here"  # cp1252's apostrophe, decoded as a control character
    assert (row["speaker"], row["emotion"]) == ("Chandler", "surprise")
    assert any("train_sent_emo.csv: 1 characters" in note for note in done.record["notes"])
    assert Converted("meld", meld, labels="emotion").column("label") == ["surprise", "neutral"] * 3
    assert done.record["protocol"]["metrics"][0] == "weighted_f1"


def test_meld_saved_as_cp1252_reads_the_same(meld: Path) -> None:
    table = meld / "test_sent_emo.csv"
    table.write_bytes(table.read_text(encoding="utf-8").encode("latin-1"))
    done = Converted("meld", meld)
    assert done.rows["meld-test-dia0_utt0"]["text"] == "Oh, you’re here"
    assert "test_sent_emo.csv is not UTF-8 and was read as cp1252" in done.record["notes"]


def test_meld_keeps_the_rows_of_broken_and_missing_clips(
    meld: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(meld / "train_splits" / "dia0_utt0.wav", "broken")
    (meld / "dev_splits_complete" / "dia0_utt1.wav").unlink()
    done = Converted("meld", meld)
    assert len(done.rows) == 6 and done.record["counts"]["audio_missing"] == 2
    assert [name for name, row in done.rows.items() if not row["audio"]] == [
        "meld-train-dia0_utt0",
        "meld-dev-dia0_utt1",
    ]
    left_out = (done.folder / "left_out.csv").read_text(encoding="utf-8")
    assert "train_sent_emo.csv, row 2" in left_out and "dia0_utt1" in left_out
    assert "meld: 2 without audio" in caplog.text


def test_meld_faults_name_file_row_and_column(meld: Path) -> None:
    table = meld / "dev_sent_emo.csv"
    write(table, table.read_text(encoding="utf-8").replace("neutral,neutral", "neutral,meh") + "3,short\n")
    message = refused("meld", meld)
    assert "dev_sent_emo.csv, row 3, column Sentiment: 'meh' is unknown; accepted: negative" in message
    assert "dev_sent_emo.csv, row 4: has 2 values; accepted: 11" in message
    write(table, "Utterance,Speaker\nhello,Ross\n")
    assert "dev_sent_emo.csv, row 1: no column Emotion" in refused("meld", meld)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_the_sound_of_a_video_is_taken_out(meld: Path) -> None:
    clip = meld / "train_splits" / "dia0_utt0.wav"
    video = ["-f", "lavfi", "-i", "color=size=16x16:duration=0.1", "-i", str(clip), "-shortest"]
    for name in ("train_splits/dia0_utt0.mp4", "dev_splits_complete/dia0_utt0.mp4"):
        subprocess.run(["ffmpeg", "-v", "error", "-nostdin", *video, str(meld / name)], check=True)
    (meld / "dev_splits_complete" / "dia0_utt0.wav").unlink()
    write(meld / "test_splits" / "dia0_utt0.mp4", "broken")
    done = Converted("meld", meld)
    assert done.rows["meld-train-dia0_utt0"]["audio"].endswith("train_splits/dia0_utt0.wav")
    assert done.rows["meld-dev-dia0_utt0"]["audio"] == "audio/meld-dev-dia0_utt0.flac"
    assert soundfile.info(done.folder / "audio" / "meld-dev-dia0_utt0.flac").samplerate == RATE


# ---------------------------------------------------------------------- CMU-MOSI, CMU-MOSEI


@pytest.fixture
def mosi(root: Path) -> Path:
    lines = ["video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode"]
    for clip, (score, mode) in enumerate([(-2.6, "train"), (-0.4, "valid"), (0, "test"), (0.2, "test")]):
        lines.append(f'v1,{clip},"so, well",{score},0,0,0,x,{mode}')
        tone(root / "Raw" / "v1" / f"{clip}.wav")
    write(root / "label.csv", "\n".join(lines))
    return root


@pytest.mark.parametrize("name", ["cmu-mosi", "cmu-mosei"])
def test_mosi_and_mosei_cut_the_score_as_the_papers_do(name: str, mosi: Path) -> None:
    done = Converted(name, mosi)
    assert done.column("label") == ["negative", "negative", "neutral", "positive"]
    assert done.column("split") == ["train", "dev", "test", "test"]
    assert done.column("score") == ["-2.6", "-0.4", "0", "0.2"]
    assert set(done.column("speaker")) == {"v1"} and all(done.column("audio"))
    nonnegative = Converted(name, mosi, labels="acc2_nonnegative")
    assert nonnegative.column("label") == ["negative", "negative", "non-negative", "non-negative"]
    assert Converted(name, mosi, labels="acc7").column("label") == ["-3", "0", "0", "0"]
    two = Converted(name, mosi, labels="acc2")
    assert two.column("label") == ["negative", "negative", "positive"]
    assert [gap.where for gap in two.done.left_out] == ["label.csv, row 4"]


def test_scores_are_cut_at_the_borders() -> None:
    assert [bin_score(score, "acc7") for score in (-3, -2.5, -1.5, 0.5, 1.5, 3)] == [
        *("-3", "-2", "-2"),
        *("0", "2", "3"),
    ]
    assert bin_score(0.0, "sentiment") == "neutral" and bin_score(0.0, "acc2_nonnegative") == "non-negative"


def test_mosi_names_scores_and_splits_that_are_none(mosi: Path) -> None:
    write(
        mosi / "label.csv",
        "video_id,clip_id,text,label,mode\nv1,0,a,4,train\nv1,1,b,nan,train\nv1,2,c,1,later\n",
    )
    lines = refused("cmu-mosi", mosi).split("\n")
    assert lines[0] == "label.csv, row 2, column label: '4' is no score; accepted: -3 to 3"
    assert lines[1] == "label.csv, row 3, column label: 'nan' is no number; accepted: a finite number"
    assert lines[2] == "label.csv, row 4, column mode: 'later' is unknown; accepted: train, valid, test"


def test_without_any_recording_text_stands_alone(mosi: Path) -> None:
    shutil.rmtree(mosi / "Raw")
    done = Converted("cmu-mosi", mosi)
    assert done.column("audio") == [""] * 4
    assert done.record["notes"] == ["no recordings in Raw, wav or audio: the rows have text alone"]


# ---------------------------------------------------------------------- SLUE-VoxCeleb


@pytest.fixture
def slue(root: Path) -> Path:
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


def test_slue_cuts_what_was_annotated(slue: Path) -> None:
    done = Converted("slue-voxceleb", slue)
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


def test_slue_names_a_part_that_is_not_in_the_recording(slue: Path) -> None:
    table = slue / "slue-voxceleb_dev.tsv"
    write(table, table.read_text(encoding="utf-8").replace("0.2\t0.5", "0.9\t1.4", 1))
    message = refused("slue-voxceleb", slue)
    assert (
        "slue-voxceleb_dev.tsv, row 2, column audio" in message
        and "no part 0.9 to 1.4 s in 1.00 s" in message
    )


# ---------------------------------------------------------------------- folders


def test_folders_are_labels_and_splits(root: Path) -> None:
    tone(root / "train" / "happy" / "a.wav")
    write(root / "train" / "happy" / "a.txt", " so good \n")
    tone(root / "valid" / "sad" / "a.flac")
    write(root / "valid" / "sad" / "lost.txt", "no recording")
    done = Converted("folder", root)
    assert done.column("label") == ["happy", "sad"] == done.record["protocol"]["labels"]
    assert done.column("split") == ["train", "dev"] and done.column("text") == ["so good", ""]
    assert list(done.rows) == ["train-happy-a", "valid-sad-a"]
    assert done.record["notes"] == ["valid/sad/lost.txt has no recording beside it"]


def test_folders_without_splits(root: Path) -> None:
    tone(root / "happy" / "a.wav")
    tone(root / "sad" / "b.wav")
    done = Converted("folder", root)
    assert done.column("label") == ["happy", "sad"] and done.column("split") == ["", ""]


@pytest.mark.parametrize("place", ["a.wav", "train/a.wav", "anna/happy/a.wav", "x/train/happy/a.wav"])
def test_folders_of_another_depth_are_named(root: Path, place: str) -> None:
    tone(root / "happy" / "b.wav")
    tone(root / place)
    message = refused("folder", root)
    assert message.startswith(f"{place}: ") and "accepted: " in message and "LABEL/" in message


# ---------------------------------------------------------------------- Sentiment Reasoning

HEADER = ["Unnamed: 0", "human_justification", "label", "text"]
LANGUAGES = {"": "vi", "_eng": "en", "_zh": "zh", "_german": "de", "_fr": "fr"}


@pytest.fixture
def spreadsheets(root: Path) -> Path:
    for ending in LANGUAGES:
        rows = [[n, f"vì {n}", n % 3, f"câu {n}{ending}"] for n in range(6)]
        sheet(root / f"train{ending}.xlsx", HEADER, rows)
    sheet(root / "test.xlsx", HEADER, [[n, f"vì {n}", n % 3, f"thử {n}"] for n in range(3)])
    sheet(
        root / "test_asr.xlsx", ["asr", "label", "text"], [[f"nghe {n}", n % 3, f"thử {n}"] for n in range(3)]
    )
    return root


def test_the_paper_s_spreadsheets_lose_no_row(spreadsheets: Path) -> None:
    done = Converted("sentiment-reasoning", spreadsheets)
    counts = done.record["counts"]
    assert counts["language"] == {"vi": 9, "en": 6, "zh": 6, "de": 6, "fr": 6}
    assert counts["split"] == {"train": 30, "test": 3} and sum(counts["read"].values()) == 33
    row = done.rows["en-train-2"]
    assert (row["text"], row["label"], row["rationale"]) == ("câu 0_eng", "negative", "vì 0")
    # The translations of a row stand together.
    numbers = [name.rpartition("-")[2] for name, row in done.rows.items() if row["split"] == "train"]
    assert numbers == [str(number) for number in range(2, 8) for _ in LANGUAGES]
    assert [row["asr_text"] for row in done.rows.values() if row["split"] == "test"] == [
        f"nghe {n}" for n in range(3)
    ]


def test_asr_transcripts_of_other_rows_stay_apart(spreadsheets: Path) -> None:
    rows = [[f"nghe {n}", n % 3, f"khác {n}"] for n in range(2)]
    sheet(spreadsheets / "test_asr.xlsx", ["asr", "label", "text"], rows)
    done = Converted("sentiment-reasoning", spreadsheets)
    assert done.record["counts"]["split"] == {"train": 30, "test": 3, "test_asr": 2}
    assert "test_asr.xlsx, row 2" in done.record["notes"][0]


def test_spreadsheet_faults_name_file_row_and_column(spreadsheets: Path) -> None:
    sheet(spreadsheets / "train.xlsx", HEADER, [[0, "vì", 7, "câu"], [1, "vì", 1, None]])
    message = refused("sentiment-reasoning", spreadsheets)
    assert "train.xlsx, row 2, column label: '7' is unknown; accepted: negative, neutral, positive" in message
    assert "train.xlsx, row 3, column text: is missing" in message
    sheet(spreadsheets / "train.xlsx", ["a", "b"], [[0, 1]])
    assert "train.xlsx, column text: 'text' is not in the file" in refused(
        "sentiment-reasoning", spreadsheets
    )
    sheet(spreadsheets / "more.xlsx", HEADER, [[0, "vì", 1, "câu"]])
    message = refused("sentiment-reasoning", spreadsheets)
    assert (
        "more.xlsx names no single split and language (found: neither); accepted: train, dev or test" in message
    )


def hub_table(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def encoded(form: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.full(800, 0.1), RATE, format=form)
    return file.getvalue()


def test_the_hub_dataset_brings_its_audio(root: Path) -> None:
    for language, form in (("Vietnamese", "FLAC"), ("English", "WAV")):
        for shard in range(2):
            hub_table(
                root / language / f"train-0000{shard}-of-00002.parquet",
                [
                    {
                        "text": f"{language} {shard} {n}",
                        "label": n,
                        "human_justification": "vì",
                        "audio": {"bytes": encoded(form), "path": "x"},
                    }
                    for n in range(3)
                ],
            )
    done = Converted("sentiment-reasoning", root)
    assert list(done.rows)[:4] == ["en-train-1", "vi-train-1", "en-train-2", "vi-train-2"]
    row = done.rows["vi-train-4"]
    assert (row["text"], row["label"], row["audio"]) == (
        "Vietnamese 1 0",
        "negative",
        "audio/vi-train-4.flac",
    )
    assert (done.folder / row["audio"]).read_bytes() == encoded("FLAC")
    assert done.rows["en-train-4"]["audio"] == "audio/en-train-4.wav"
    assert Counter(done.column("label")) == {"negative": 4, "neutral": 4, "positive": 4}


def test_hub_faults_are_named(root: Path) -> None:
    path = root / "data" / "train-00000-of-00001.parquet"
    hub_table(path, [{"text": "a", "label": 1}, {"text": "b", "label": 3}])
    message = refused("sentiment-reasoning", root)
    assert "data/train-00000-of-00001.parquet, row 2, column label: 3 is unknown" in message
    hub_table(path, [{"transcript": "a", "label": 1}])
    message = refused("sentiment-reasoning", root)
    assert "no column text; found: transcript, label" in message
    path.write_bytes(b"no parquet")
    assert "train-00000-of-00001.parquet: cannot be read" in refused("sentiment-reasoning", root)


def test_real_spreadsheets_lose_no_row(shared_data: Path, tmp_path: Path) -> None:
    done = convert(CORPORA["sentiment-reasoning"], shared_data / "sentiment-reasoning", tmp_path / "out")
    assert done.left_out == ()
    rows = load_manifest(done.manifest, labels=["negative", "neutral", "positive"])
    assert Counter(zip(rows["language"], rows["label"], strict=True)) == {
        (language, label): count
        for language in ("vi", "en")
        for label, count in (("negative", 1694), ("neutral", 2844), ("positive", 1157))
    }
    assert all(rows["text"]) and all(rows["rationale"])


# ---------------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", CORPORA)
def test_a_source_of_another_layout_is_told_what_was_looked_for(name: str, root: Path) -> None:
    write(root / "README", "nothing here")
    message = refused(name, root)
    assert str(root) in message and "\n" not in message
    assert CORPORA[name].layout in message and CORPORA[name].home in message
    with pytest.raises(CorpusError, match="is no folder; accepted: "):
        convert(CORPORA[name], root / "nowhere", root.parent / "out")


@pytest.mark.parametrize("name", CORPORA)
def test_every_protocol_is_a_frozen_object_with_its_source(name: str) -> None:
    for protocol in CORPORA[name].protocols.values():
        assert protocol.metrics and protocol.source
        assert set(protocol.label_of.values()) in (set(), set(protocol.labels))
        with pytest.raises(AttributeError):
            protocol.name = "another"  # type: ignore[misc]


def test_recordings_stay_where_they_are_unless_copied(emodb: Path) -> None:
    done = Converted("emodb", emodb)
    assert not (done.folder / "audio").exists()
    assert done.rows["03a01Fa"]["audio"] == "../source/wav/03a01Fa.wav"
    copied = Converted("emodb", emodb, copy=True)
    assert copied.rows["03a01Fa"]["audio"] == "audio/03a01Fa.wav"
    assert (copied.folder / "audio" / "03a01Fa.wav").read_bytes() == (
        emodb / "wav" / "03a01Fa.wav"
    ).read_bytes()


def test_broken_recordings_are_all_named_and_nothing_is_written(emodb: Path) -> None:
    write(emodb / "wav" / "03a01Fa.wav", "broken")
    soundfile.write(emodb / "wav" / "03a01Wa.wav", np.zeros(0), RATE)
    tone(emodb / "wav" / "03x99Fa.wav")
    message = refused("emodb", emodb, copy=True)
    assert "wav/03a01Fa.wav, column audio" in message and "holds no audio" in message
    assert "wav/03a01Wa.wav, column audio" in message and "length zero" in message
    assert "wav/03x99Fa.wav: is no EmoDB name; accepted: " in message


def test_a_folder_that_is_taken_stays_as_it_is(emodb: Path, tmp_path: Path) -> None:
    taken = write(tmp_path / "mine" / "notes.txt", "precious").parent
    with pytest.raises(CorpusError, match="exists already; accepted: a new folder"):
        convert(CORPORA["emodb"], emodb, taken)
    assert os.listdir(taken) == ["notes.txt"]
    with pytest.raises(
        CorpusError, match="labels 'moods' is no protocol of emodb; accepted: sentiment, emotion"
    ):
        convert(CORPORA["emodb"], emodb, tmp_path / "out", labels="moods")


def read_mine(source: Source) -> Iterator[Utterance]:
    for path in source.recordings():
        speaker, emotion, _ = path.stem.split("_")
        yield Utterance(id=path.stem, where=source.name(path), audio=path, label=emotion, speaker=speaker)


MINE = {"emotion": Protocol(name="mine", labels=("happy", "sad"), metrics=("uar",), source="doi:1")}


def test_one_function_and_one_line_add_a_corpus(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tone(root / "anna_happy_3.wav")
    tone(root / "ben_sad_1.wav")
    mine = Corpus(name="mine", read=read_mine, layout="SPEAKER_EMOTION_N.wav", home="us", protocols=MINE)
    monkeypatch.setitem(CORPORA, "mine", mine)
    out = root.parent / "out"
    main(["data", "convert", "--from", "mine", "--source", str(root), "--out", str(out)])
    rows = load_manifest(out / "manifest.csv", labels=["happy", "sad"])
    assert list(zip(rows["speaker"], rows["label"], strict=True)) == [("anna", "happy"), ("ben", "sad")]
    assert "label: happy 1, sad 1" in capsys.readouterr().out


def test_an_adapter_that_loses_rows_is_found_out(root: Path) -> None:
    def forgetful(source: Source) -> Iterator[Utterance]:
        yield from (utterance for utterance in read_mine(source) if utterance.label != "sad")

    tone(root / "anna_happy_3.wav")
    tone(root / "ben_sad_1.wav")
    corpus = Corpus(name="mine", read=forgetful, layout="x", home="us", protocols=MINE)
    with pytest.raises(CorpusError, match="2 rows were read, but 1 are in the manifest and 0 left out"):
        convert(corpus, root, root.parent / "out")
    assert not (root.parent / "out").exists()


def test_the_command_line_takes_from_and_copy(
    emodb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--source", str(emodb), "--out", str(out), "--copy", "--labels", "emotion"]
    main(["data", "convert", "--from", "emodb", *arguments])
    printed = capsys.readouterr()
    assert "16 rows read, 16 written, 0 left out" in printed.out and "neutral 10" in printed.out
    assert "--data.folds 10" in printed.err  # all ten speakers are there, so these are the protocol's folds
    assert sorted(os.listdir(out)) == ["audio", "corpus.json", "left_out.csv", "manifest.csv"]
    for arguments, expected in (
        (["--from", "emodn"], "--from emodn is no known corpus; accepted: sentiment-reasoning, emodb"),
        (["--from=emodb"], "out exists already"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["data", "convert", *arguments, "--source", str(emodb), "--out", str(out)])
        assert stop.value.code == 2 and expected in capsys.readouterr().err


def test_the_manifest_s_reader_tells_of_our_own_columns_once(
    emodb: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = convert(CORPORA["emodb"], emodb, tmp_path / "out")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        load_manifest(done.manifest)
    assert caplog.messages == ["manifest.csv: columns not used: emotion, fold"]
