"""EmoDB, RAVDESS and IEMOCAP: file names and annotation sheets, and folds by speaker."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mmsr.data.corpora import CORPORA
from mmsr.data.corpora.conversion import convert
from mmsr.data.loading.splits import speaker_fold
from mmsr.data.manifest.manifest import load_manifest


def test_emodb_reads_speaker_sentence_and_emotion_from_the_name(emodb: Path, converted: Any) -> None:
    done = converted("emodb", emodb)
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
    emotions = converted("emodb", emodb, labels="emotion")
    assert set(emotions.column("label")) == set(emotions.record["protocol"]["labels"])
    assert len(set(emotions.column("label"))) == 7


@pytest.mark.parametrize("name", ["emodb", "ravdess", "iemocap"])
def test_column_fold_is_what_the_training_program_cuts(
    name: str, request: pytest.FixtureRequest, converted: Any
) -> None:
    done = converted(name, request.getfixturevalue(name), labels="emotion")
    folds = done.record["protocol"]["folds"]
    assert sorted(set(done.column("fold")), key=int) == [str(fold) for fold in range(folds)]
    for fold in range(folds):
        parts = speaker_fold(done.loaded, fold=fold, folds=folds, dev_speakers=1)
        ids = [row["id"] for row in done.rows.values() if row["fold"] == str(fold)]
        assert [done.loaded[row]["id"] for row in parts["test"]] == ids


@pytest.fixture
def ravdess(root: Path, tone: Any) -> Path:
    for actor in range(1, 25):
        tone(root / f"Actor_{actor:02d}" / f"03-01-01-01-01-01-{actor:02d}.wav")
    for emotion in range(2, 9):
        tone(root / "Actor_12" / f"03-01-{emotion:02d}-02-02-01-12.flac")
    return root


def test_ravdess_reads_the_seven_codes(
    ravdess: Path, caplog: pytest.LogCaptureFixture, converted: Any
) -> None:
    done = converted("ravdess", ravdess)
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
    assert len(set(converted("ravdess", ravdess, labels="emotion").column("label"))) == 8


def test_ravdess_leaves_out_song_and_video_and_says_so(
    ravdess: Path, tone: Any, write: Any, converted: Any
) -> None:
    tone(ravdess / "Actor_01" / "03-02-03-01-01-01-01.wav")
    write(ravdess / "Actor_01" / "01-01-03-01-01-01-01.mp4", "no matter what")
    done = converted("ravdess", ravdess, labels="emotion")
    assert sorted(gap.where for gap in done.done.left_out) == [
        "Actor_01/01-01-03-01-01-01-01.mp4",
        "Actor_01/03-02-03-01-01-01-01.wav",
    ]
    assert sum(done.record["counts"]["read"].values()) == len(done.rows) + 2


def test_each_recording_comes_once(ravdess: Path, tone: Any, refused: Any) -> None:
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


@pytest.fixture
def iemocap(root: Path, tone: Any, write: Any) -> Path:
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


def test_iemocap_keeps_the_four_classes_and_names_its_sentiments(iemocap: Path, converted: Any) -> None:
    done = converted("iemocap", iemocap)
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
    emotions = converted("iemocap", iemocap, labels="emotion")
    assert Counter(emotions.column("label")) == {"angry": 5, "happy": 10, "neutral": 5, "sad": 5}
    assert emotions.record["protocol"]["fold_by"] == "session"


def test_iemocap_leaves_out_a_missing_recording_and_names_a_broken_line(
    iemocap: Path, write: Any, converted: Any, refused: Any
) -> None:
    (iemocap / "Session2/sentences/wav/Ses02F_impro01/Ses02F_impro01_F000.wav").unlink()
    done = converted("iemocap", iemocap)
    (gap,) = (gap for gap in done.done.left_out if gap.detail)
    assert gap.where == "Session2/dialog/EmoEvaluation/Ses02F_impro01.txt, row 3"
    assert gap.detail.startswith(
        "Session2/sentences/wav/Ses02F_impro01/Ses02F_impro01_F000.wav: does not exist"
    )
    sheet_ = iemocap / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
    write(sheet_, sheet_.read_text(encoding="utf-8") + "\n[7.1 - 8.2]\tSes01F_impro01_F007\tneu")
    message = refused("iemocap", iemocap)
    assert "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt, row 21" in message
    assert message.count("accepted") == 1
