"""A folder for each label, in a folder for each split or without."""

from pathlib import Path
from typing import Any

import pytest

from mmsr.cli.main import main
from mmsr.data.manifest.manifest import load_manifest


def test_folders_are_labels_and_splits(root: Path, tone: Any, write: Any, converted: Any) -> None:
    tone(root / "train" / "happy" / "a.wav")
    write(root / "train" / "happy" / "a.txt", " so good \n")
    tone(root / "valid" / "sad" / "a.flac")
    write(root / "valid" / "sad" / "lost.txt", "no recording")
    done = converted("folder", root)
    assert done.column("label") == ["happy", "sad"] == done.record["protocol"]["labels"]
    assert done.column("split") == ["train", "dev"] and done.column("text") == ["so good", ""]
    assert list(done.rows) == ["train-happy-a", "valid-sad-a"]
    assert done.record["notes"] == ["valid/sad/lost.txt has no recording beside it"]


def test_folders_without_splits(root: Path, tone: Any, converted: Any) -> None:
    tone(root / "happy" / "a.wav")
    tone(root / "sad" / "b.wav")
    done = converted("folder", root)
    assert done.column("label") == ["happy", "sad"] and done.column("split") == ["", ""]


def test_recordings_outside_of_folders_have_no_labels(
    root: Path, tone: Any, write: Any, converted: Any
) -> None:
    for name in ("b.wav", "a.mp3"):
        tone(root / name)
    write(root / "a.txt", "so good")
    done = converted("folder", root)
    assert done.column("label") == ["", ""] and done.column("text") == ["so good", ""]
    assert done.record["protocol"]["labels"] == []
    assert done.record["notes"] == ["no recording is in a folder, so none has a label"]


def test_folders_may_be_no_labels(root: Path, tone: Any, converted: Any) -> None:
    for name in ("monday/anna/a.wav", "monday/b.wav", "train/c.wav", "d.wav"):
        tone(root / name)
    done = converted("folder", root, labels="none")
    assert list(done.rows) == ["d", "monday-anna-a", "monday-b", "train-c"]
    assert set(done.column("label")) == set(done.column("split")) == {""} and not done.record["notes"]


@pytest.mark.parametrize("place", ["a.wav", "train/a.wav", "anna/happy/a.wav", "x/train/happy/a.wav"])
def test_folders_of_another_depth_are_named(root: Path, place: str, tone: Any, refused: Any) -> None:
    tone(root / "happy" / "b.wav")
    tone(root / place)
    message = refused("folder", root)
    assert message.startswith(f"{place}: ") and "accepted: " in message and "LABEL/" in message


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-16", "Thank you doctor"),
        ("utf-16-le", "Thank you doctor"),
        ("utf-32", "Thank you doctor"),
        ("utf-8-sig", "cảm ơn bác sĩ"),
        ("gb18030", "谢谢医生"),
        ("big5", "謝謝醫生"),
        ("cp932", "ありがとうございます"),
        ("cp1252", "Très bien, merci docteur"),
    ],
)
def test_transcripts_are_in_any_encoding(
    root: Path, encoding: str, text: str, tone: Any, write: Any, converted: Any
) -> None:
    tone(root / "positive" / "a.wav")
    write(root / "positive" / "a.TXT", f" {text}\n", encoding)
    done = converted("folder", root)
    assert done.column("text") == [text] == list(done.loaded["text"])
    marked = encoding in ("utf-16", "utf-32", "utf-8-sig")
    assert len(done.done.notes) == (0 if marked else 1)
    assert marked or done.done.notes[0].startswith(
        f"1 of the transcripts are not UTF-8 and were read as {encoding}"
    )


def test_a_single_word_is_in_the_encoding_of_its_neighbours(
    root: Path, tone: Any, write: Any, converted: Any, refused: Any
) -> None:
    texts = {"a": "感冒", "b": "谢谢医生，您真好。", "c": "Thank you"}
    for name, text in texts.items():
        tone(root / "neutral" / f"{name}.wav")
        write(root / "neutral" / f"{name}.txt", text, "gb18030")
    assert converted("folder", root).column("text") == list(texts.values())
    (root / "neutral" / "b.txt").unlink()
    assert "neutral/a.txt, line 1, column text: is not UTF-8 (byte 0xb8)" in refused("folder", root)
    message = refused("folder", root, language="zh")
    assert "neutral/a.txt, column text: is not UTF-8, and may be gb18030 ('感冒') or big5" in message


def test_the_language_and_the_encoding_may_be_told(
    root: Path, tone: Any, write: Any, converted: Any, refused: Any
) -> None:
    tone(root / "positive" / "a.wav")
    write(root / "positive" / "a.txt", "Спасибо, доктор", "cp1251")
    message = refused("folder", root)
    assert message == (
        "positive/a.txt, line 1, column text: is not UTF-8 (byte 0xd1); accepted: UTF-8, a byte-order mark,"
        " or --encoding with its name (--language helps to find it)"
    )
    done = converted("folder", root, language="ru")
    assert done.column("text") == ["Спасибо, доктор"] and done.column("language") == ["ru"]
    assert converted("folder", root, encoding="cp1251").column("text") == ["Спасибо, доктор"]
    with pytest.raises(ValueError) as refusal:
        converted("folder", root, encoding="cp12510")
    assert str(refusal.value).startswith("encoding 'cp12510' is unknown; accepted: a name such as utf-8")
    (root / "positive" / "a.txt").write_bytes("Thank you".encode("utf-16")[:-1])
    assert "a.txt, byte 16, column text: is not utf-16-le, its byte-order mark says" in refused(
        "folder", root
    )
    assert "encoding 'cp1251' with emodb, which is known; accepted: of the corpus folder" in refused(
        "emodb", root, encoding="cp1251"
    )


def test_a_broken_recording_is_left_out(root: Path, tone: Any, write: Any, converted: Any) -> None:
    tone(root / "sad" / "a.wav")
    write(root / "sad" / "b.wav", "broken")
    write(root / "sad" / "b.txt", "with words")
    done = converted("folder", root)
    assert list(done.rows) == ["sad-a"]
    assert 'row,sad/b.wav,"its recording is missing or broken: holds no audio' in (
        done.folder / "left_out.csv"
    ).read_text(encoding="utf-8")


def test_several_faults_are_told_without_a_manifest(
    root: Path, tone: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("sad/a.wav", "b.wav", "anna/happy/c.wav"):
        tone(root / place)
    with pytest.raises(SystemExit):
        main(["data", "convert", str(root), "--from", "folder", "--out", str(root.parent / "out")])
    error = capsys.readouterr().err
    assert "anna/happy/c.wav: is in no label's folder" in error
    assert "(1 more: b.wav)" in error and "data check" not in error  # there is no manifest to check


def test_two_transcripts_of_a_recording_are_refused(root: Path, tone: Any, write: Any, refused: Any) -> None:
    tone(root / "sad" / "a.wav")
    write(root / "sad" / "a.TXT", "one")
    write(root / "sad" / "a.txt", "two")
    assert "sad/a.txt, column text: is beside a.TXT; accepted: one transcript" in refused("folder", root)


def test_the_command_takes_language_and_encoding(
    root: Path, tone: Any, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tone(root / "positive" / "a.wav")
    write(root / "positive" / "a.txt", "感冒", "gb18030")
    command = ["data", "convert", str(root), "--from", "folder", "--out", str(root.parent / "out")]
    with pytest.raises(SystemExit):
        main([*command, "--language", "zh"])
    assert "may be gb18030 ('感冒') or big5hkscs" in capsys.readouterr().err
    main([*command, "--language", "zh", "--encoding", "gb18030"])
    (row,) = load_manifest(root.parent / "out" / "manifest.csv").to_list()
    assert (row["text"], row["language"]) == ("感冒", "zh")


@pytest.mark.parametrize(
    ("expression", "speakers"),
    [
        ("^(\\d+)_", ["1001", "1002"]),
        ("(?P<emotion>[A-Z]+)_XX|_(?P<speaker>none)", ["", ""]),  # the named group, which is optional here
        (r"^\d+", ["1001", "1002"]),
        ("([^/]+)/[^/]*$", ["angry", "calm"]),  # of the path
    ],
)
def test_speakers_are_found_in_names(
    root: Path, expression: str, speakers: list[str], tone: Any, converted: Any
) -> None:
    tone(root / "angry" / "1001_DFA_ANG_XX.wav")
    tone(root / "calm" / "1002_DFA_NEU_XX.wav")
    done = converted("folder", root, speaker_from=expression)
    assert done.column("speaker") == speakers
    assert done.record["counts"]["speakers"] == len({name for name in speakers if name})


def test_a_name_without_a_speaker_costs_its_speaker_alone(
    root: Path, tone: Any, converted: Any, refused: Any
) -> None:
    tone(root / "angry" / "1001_DFA_ANG_XX.wav")
    tone(root / "angry" / "noise.wav")
    done = converted("folder", root, speaker_from="^([0-9]+)_")
    assert done.column("speaker") == ["1001", ""]
    assert done.record["notes"] == [
        "recordings without a speaker: 1 of 2, whose names do not match --speaker-from '^([0-9]+)_'"
        " (noise.wav); rows without a speaker cannot be split by speaker"
    ]
    assert refused("folder", root, speaker_from="^([a-z]+)_") == (
        "--speaker-from '^([a-z]+)_' matches none of the 2 names (1001_DFA_ANG_XX.wav, noise.wav);"
        " accepted: an expression that finds the speaker in them, such as '^([^_]+)_'"
    )
    message = refused("folder", root, speaker_from="(")
    assert "speaker-from '(' is no regular expression (missing )," in message
    assert "speaker-from '(.)' with emodb, which is known" in refused("emodb", root, speaker_from="(.)")


def test_the_command_names_speakers(root: Path, tone: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("angry/1001_a.wav", "angry/1001_b.wav", "calm/1002_a.wav"):
        tone(root / name)
    out = root.parent / "out"
    main(["data", "convert", str(root), "--from", "folder", "--out", str(out), "--speaker-from", "^([^_]+)_"])
    assert "speakers: 2\n" in capsys.readouterr().out
    assert load_manifest(out / "manifest.csv")["speaker"][:] == ["1001", "1001", "1002"]
