import json
import logging
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import pandas
import pytest
import soundfile

from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.data.manifest.manifest import (
    COLUMNS,
    ManifestError,
    fingerprint,
    load_manifest,
    stream_manifest,
    utterances,
)
from mmsr.data.storage import read_bytes
from mmsr.records import Utterance

LABELS = ["negative", "neutral", "positive"]


ROWS: list[dict[str, Any]] = [
    {"id": "007", "audio": "audio/a.wav", "text": "NA", "label": "2", "speaker": "1.0"},
    {"id": "null", "audio": "audio/b.wav", "text": "2024-01-31", "label": "negative", "speaker": "nan"},
    {"id": "1e5", "audio": None, "text": 'đa "dạng", ja', "label": None, "speaker": "None"},
]


ENDINGS = ["csv", "tsv", "jsonl", "parquet", "xlsx"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_reads_the_same_and_guesses_nothing(
    write_rows: Callable[..., Path], folder: Path, ending: str
):
    dataset = load_manifest(write_rows(folder / f"m.{ending}", ROWS), labels=LABELS)
    assert isinstance(dataset, datasets.Dataset)
    assert tuple(dataset.column_names) == COLUMNS
    assert all(feature.dtype == "string" for feature in dataset.features.values())
    assert dataset["id"][:] == ["007", "null", "1e5"]
    assert dataset["text"][:] == ["NA", "2024-01-31", 'đa "dạng", ja']
    assert dataset["label"][:] == ["positive", "negative", None]
    assert dataset["speaker"][:] == ["1.0", "nan", "None"]
    assert dataset["audio"][:] == [str(folder / "audio/a.wav"), str(folder / "audio/b.wav"), None]
    assert dataset["rationale"][:] == [None, None, None]


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "xlsx"])
def test_numbers_are_text_as_a_person_writes_them(
    write_rows: Callable[..., Path], tmp_path: Path, ending: str
):
    rows = [{"id": 7, "text": "x", "label": 0}, {"id": 8, "text": "y", "label": 1}]
    dataset = load_manifest(write_rows(tmp_path / f"m.{ending}", rows), labels=LABELS)
    assert dataset["id"][:] == ["7", "8"]
    assert dataset["label"][:] == ["negative", "neutral"]


def test_numbers_with_gaps_in_a_float_column_are_still_indices(tmp_path: Path):
    frame = pandas.DataFrame({"text": ["a", "b"], "label": [1, None]})
    assert frame["label"].dtype == float
    frame.to_parquet(tmp_path / "m.parquet")
    assert load_manifest(tmp_path / "m.parquet", labels=LABELS)["label"][:] == ["neutral", None]


def test_a_label_that_is_a_number_stays_itself(
    write: Callable[..., Path], faults: Callable[..., list[str]], tmp_path: Path
):
    path = write(tmp_path / "m.csv", "text,label\na,1\nb,2\n")
    assert load_manifest(path, labels=["1", "2"])["label"][:] == ["1", "2"]
    assert load_manifest(path)["label"][:] == ["1", "2"]
    assert faults(path, labels=["only", "two"]) == [
        "m.csv, row 3, column label: '2' is unknown; accepted: only, two, or their indices 0 to 1"
    ]


def test_blank_values_are_none_and_missing_ids_are_made(write: Callable[..., Path], tmp_path: Path):
    dataset = load_manifest(write(tmp_path / "mine.csv", 'id,text,label\n,a,\nx,"  b ", \n'))
    assert dataset["id"][:] == ["mine-2", "x"]
    assert dataset["text"][:] == ["a", "  b "]
    assert dataset["label"][:] == [None, None]


def test_absolute_audio_paths_stay(write: Callable[..., Path], folder: Path):
    path = write(folder / "m.csv", f"audio\n{folder}/audio/a.wav\n./audio/../audio/b.wav\n")
    dataset = load_manifest(path)
    assert dataset["audio"][:] == [str(folder / "audio/a.wav"), str(folder / "audio/b.wav")]


def test_a_relative_manifest_gives_absolute_audio(
    write: Callable[..., Path], folder: Path, monkeypatch: pytest.MonkeyPatch
):
    write(folder / "m.csv", "audio\naudio/a.wav\n")
    monkeypatch.chdir(folder)
    assert load_manifest("m.csv")["audio"][:] == [str(folder / "audio/a.wav")]


def test_faults_are_all_told_at_once(
    write: Callable[..., Path], faults: Callable[..., list[str]], folder: Path
):
    text = "id,audio,text,label\nu1,audio/a.wav,a,happy\nu2,x.wav,b,neutral\nu1,,,3\nu3,audio,c,\n"
    assert faults(write(folder / "manifest.csv", text), labels=LABELS) == [
        "manifest.csv, row 2, column label: 'happy' is unknown; accepted: negative, neutral, positive,"
        " or their indices 0 to 2",
        "manifest.csv, row 3, column audio: 'x.wav' does not exist;"
        " accepted: a path relative to the manifest's folder",
        "manifest.csv, row 4, column audio: no audio and no text; accepted: at least one of the two",
        "manifest.csv, row 4, column id: 'u1' is the id of row 2 too; accepted: each id once",
        "manifest.csv, row 4, column label: '3' is unknown; accepted: negative, neutral, positive,"
        " or their indices 0 to 2",
        "manifest.csv, row 5, column audio: 'audio' is not a file, but a folder;"
        " accepted: a path relative to the manifest's folder",
    ]


def test_audio_need_not_be_there_if_it_is_not_asked_for(write: Callable[..., Path], tmp_path: Path):
    path = write(tmp_path / "m.csv", "audio\nno.wav\n")
    assert load_manifest(path, check_audio=False)["audio"][:] == [str(tmp_path / "no.wav")]


def test_audio_on_another_machine_is_not_asked_for(
    write: Callable[..., Path], faults: Callable[..., list[str]], tmp_path: Path
):
    path = write(tmp_path / "m.csv", "audio\nhttps://host/a.wav\nfoo://host/a.wav\n")
    assert faults(path) == [
        "m.csv, row 3, column audio: 'foo://host/a.wav' is a URL of an unknown kind;"
        " accepted: a path relative to the manifest's folder"
    ]
    path = write(tmp_path / "m.csv", "audio\nhttps://host/a.wav\nhf://datasets/x/y/a.wav\n")
    assert load_manifest(path)["audio"][:] == ["https://host/a.wav", "hf://datasets/x/y/a.wav"]


def test_blank_rows_are_counted_and_keep_the_numbering(
    write: Callable[..., Path],
    faults: Callable[..., list[str]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    path = write(tmp_path / "m.csv", "id,text\n1,a\n\n,\n1,b\n")
    assert faults(path) == ["m.csv, row 5, column id: '1' is the id of row 2 too; accepted: each id once"]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert len(load_manifest(write(tmp_path / "m.jsonl", '{"text": "a"}\n\n{"text": "b"}\n'))) == 2
    assert [record.getMessage() for record in caplog.records] == ["m.jsonl: 1 blank rows left out"]


def test_selected_rows_are_utterances(tmp_path: Path):
    (tmp_path / "m.csv").write_text("id,text,speaker\na,one,\nb,two,s\n")
    table = load_manifest(tmp_path / "m.csv")
    assert utterances(table.select([1])) == [Utterance(id="b", text="two", speaker="s")]
    assert [row.speaker for row in utterances(table)] == [None, "s"]


def test_columns_can_be_renamed_and_others_are_named(
    write: Callable[..., Path],
    faults: Callable[..., list[str]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    path = write(tmp_path / "m.csv", "text,human_justification,label,note\na,because,0,n\n")
    with caplog.at_level(logging.WARNING):
        dataset = load_manifest(path, labels=LABELS, columns={"rationale": "human_justification"})
    assert dataset["rationale"][:] == ["because"]
    assert [record.getMessage() for record in caplog.records] == ["m.csv: columns not used: note"]
    assert faults(path, columns={"rationale": "why"}) == [
        "m.csv, column rationale: 'why' is not in the file; found: text, human_justification, label, note"
    ]
    assert faults(path, columns={"human_justification": "rationale"}) == [
        f"m.csv, column human_justification: is no manifest column; accepted: {', '.join(COLUMNS)}"
    ]


def test_one_column_may_serve_twice(write: Callable[..., Path], tmp_path: Path):
    path = write(tmp_path / "m.csv", "asr\na\n")
    dataset = load_manifest(path, columns={"text": "asr", "asr_text": "asr"})
    assert dataset["text"][:] == dataset["asr_text"][:] == ["a"]


def test_a_table_without_utterances_names_the_columns(
    write: Callable[..., Path], faults: Callable[..., list[str]], tmp_path: Path
):
    path = write(tmp_path / "m.csv", "sentence;label\n" + "a;0\n" * 30)
    assert faults(path) == [
        "m.csv: none of audio, text, asr_text is in the file; found: sentence, label;"
        f" accepted: {', '.join(COLUMNS)}"
    ]


def test_required_columns(write: Callable[..., Path], faults: Callable[..., list[str]], tmp_path: Path):
    path = write(tmp_path / "m.csv", "text,label\na,0\nb,\n")
    assert faults(path, labels=LABELS, require=("label",)) == [
        "m.csv, row 3, column label: is missing;"
        " accepted: negative, neutral, positive, or their indices 0 to 2"
    ]
    assert faults(path, require=("speaker",)) == [
        "m.csv, column speaker: 'speaker' is not in the file; found: text, label"
    ]
    assert faults(path, require=("mood",)) == [
        f"m.csv, column mood: is no manifest column; accepted: {', '.join(COLUMNS)}"
    ]
    path = write(tmp_path / "m.jsonl", '{"text": "a"}\n{"text": "b", "label": "x"}\n')
    assert faults(path, require=("label",)) == ["m.jsonl, row 1, column label: is missing; accepted: text"]


def test_splits(write: Callable[..., Path], faults: Callable[..., list[str]], tmp_path: Path):
    path = write(tmp_path / "m.csv", "text,split\na,train\nb,test\nc,\nd,train\n")
    assert load_manifest(path, split="train")["text"][:] == ["a", "d"]
    assert len(load_manifest(path)) == 4
    assert faults(path, split="dev") == ["m.csv, column split: no row is in 'dev'; accepted: test, train"]
    path = write(tmp_path / "n.csv", "text\na\n")
    assert faults(path, split="dev") == [
        "n.csv, column split: no row is in 'dev'; accepted: none, since no row names a split"
    ]


def test_a_changed_file_is_read_again_and_nothing_is_written(write: Callable[..., Path], tmp_path: Path):
    path = write(tmp_path / "m.csv", "text\nold\n")
    stat = path.stat()
    assert load_manifest(path)["text"][:] == ["old"]
    write(path, "text\nnew\n")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same name, size and time
    assert load_manifest(path)["text"][:] == ["new"]
    assert os.listdir(tmp_path) == ["m.csv"]


def test_reading_is_quiet(write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    load_manifest(write(tmp_path / "m.csv", "text,split\na,x\n"), split="x")
    assert capsys.readouterr() == ("", "")


def test_labels_under_other_names(
    write: Callable[..., Path], faults: Callable[..., list[str]], tmp_path: Path
):
    path = write(tmp_path / "m.csv", "text,label\na,pos\nb,neutral\nc,bad\n")
    names = {"pos": "positive", "bad": "negative"}
    expected = ["positive", "neutral", "negative"]
    assert load_manifest(path, labels=LABELS, label_map=names)["label"][:] == expected
    assert faults(path, labels=LABELS, label_map={"pos": "good"}) == [
        "m.csv, column label: label_map says that 'pos' is 'good'; accepted: negative, neutral, positive"
    ]


def test_a_label_map_s_names_that_no_row_has_are_told(
    write: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = write(tmp_path / "m.csv", "text,label\na,pos\nb,neg\nc,\nd,neg\n")
    with caplog.at_level(logging.WARNING):
        load_manifest(path, label_map={"pos": "positive", "Neg": "negative", "mid": "neutral"})
    assert caplog.messages == [
        "m.csv: label_map names 'Neg', 'mid', which no row has; labels there: 'pos', 'neg'"
    ]
    caplog.clear()
    load_manifest(path, label_map={"pos": "positive", "neg": "negative"})
    assert caplog.messages == []
    write(path, "text\na\n")
    load_manifest(path, label_map={"pos": "positive"})
    assert caplog.messages == ["m.csv: label_map names 'pos', which no row has; labels there: none"]
    caplog.clear()
    write(path, "text,label\n" + "".join(f"a,{number}\n" for number in range(21)))
    load_manifest(path, label_map={"pos": "positive"})
    assert caplog.messages[0].endswith(" labels there: " + ", ".join(f"'{n}'" for n in range(20)) + " ...")


def test_durations_are_numbers_and_there_only_if_given(
    write: Callable[..., Path], faults: Callable[..., list[str]], tmp_path: Path
):
    path = write(tmp_path / "m.csv", "text,seconds\na,1.25\nb,\n")
    rows = load_manifest(path, columns={"duration": "seconds"})
    assert rows.column_names == [*COLUMNS, "duration"] and rows["duration"][:] == [1.25, None]
    path = write(tmp_path / "m.csv", 'text,duration\na,-1\nb,"1,5"\n')
    assert faults(path) == [
        "m.csv, row 2, column duration: is '-1'; accepted: seconds, 0 or more, with a decimal point",
        "m.csv, row 3, column duration: is '1,5'; accepted: seconds, 0 or more, with a decimal point",
    ]


def test_words_with_times_are_kept_and_there_only_if_given(
    write: Callable[..., Path], faults: Callable[..., list[str]], tmp_path: Path
):
    words = '[{"text": "so", "start": 0.5, "end": 1}]'
    cell = words.replace('"', '""')
    path = write(tmp_path / "m.csv", f'text,asr_words\nso,"{cell}"\nno,\n')
    rows = load_manifest(path)
    assert rows.column_names == [*COLUMNS, "asr_words"] and rows["asr_words"][:] == [words, None]
    (first, _) = utterances(rows)
    assert first.model_input().asr_words == words and first.model_input(audio=None).asr_words is None
    plain = write(tmp_path / "plain.csv", "text\nso\nno\n")
    assert "asr_words" not in load_manifest(plain).column_names
    path = write(
        tmp_path / "m.csv", 'text,asr_words\nso,so\nno,"[{""text"": ""no"", ""start"": 2, ""end"": 1}]"\n'
    )
    accepted = 'has no words with times; accepted: [{"text": "hello", "start": 0.52, "end": 0.9}, ...]'
    assert faults(path) == [f"m.csv, row {row}, column asr_words: {accepted}" for row in (2, 3)]


def test_soft_targets_are_shares_of_known_labels(
    write: Callable[..., Path], faults: Callable[..., list[str]], tmp_path: Path
):
    votes = [
        {"text": "a", "label": "pos", "votes": {"pos": 3, "1": 1}},
        {"text": "b", "label": "neutral", "votes": None},
    ]
    path = write(tmp_path / "m.jsonl", "\n".join(map(json.dumps, votes)))
    known = {"labels": ["negative", "neutral", "positive"], "label_map": {"pos": "positive"}}
    rows = load_manifest(path, columns={"soft_label": "votes"}, **known)
    assert [one and json.loads(one) for one in rows["soft_label"]] == [
        {"positive": 0.75, "neutral": 0.25},
        None,
    ]
    assert fingerprint(rows) != fingerprint(rows.remove_columns("soft_label"))
    (streamed, _) = stream_manifest(path, columns={"soft_label": "votes"}, **known)
    assert streamed["soft_label"] == rows["soft_label"][0]
    wrong = ['{"negative": -1}', '{"neutral": 0}', "0.5", '{"calm": 1}', '{"negative": 1}']
    labels = ["negative"] * 4 + [""]
    cells = [one.replace('"', '""') for one in wrong]
    text = "\n".join(f'x,{label},"{cell}"' for label, cell in zip(labels, cells, strict=True))
    path = write(tmp_path / "m.csv", f"text,label,soft_label\n{text}\n")
    accepted = 'has no probabilities or votes; accepted: {"negative": 0.7, "neutral": 0.3}'
    assert faults(path, labels=known["labels"]) == [
        *(f"m.csv, row {row}, column soft_label: {accepted}" for row in (2, 3, 4)),
        "m.csv, row 5, column soft_label: has label 'calm'; accepted: negative, neutral, positive, or their "
        "indices 0 to 2",
        "m.csv, row 6, column soft_label: has probabilities and no label; accepted: the row's label beside "
        "them",
    ]


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
def test_audio_in_an_archive(
    write: Callable[..., Path], faults: Callable[..., list[str]], folder: Path, ending: str
):
    shutil.make_archive(str(folder / "clips"), {"tar.gz": "gztar"}.get(ending, ending), folder / "audio")
    kind = ending.partition(".")[0]
    member = f"{kind}://a.wav::clips.{ending}"
    rows = load_manifest(write(folder / "m.csv", f"audio\n{member}\n"))
    assert rows["audio"][:] == [f"{kind}://a.wav::{folder}/clips.{ending}"]
    assert read_bytes(rows["audio"][0]) == (folder / "audio" / "a.wav").read_bytes()
    text = f"audio\n{member}\n{kind}://c.wav::clips.{ending}\n{kind}://a.wav::none.{ending}\n"
    lines = faults(write(folder / "m.csv", text))
    accepted = "accepted: a path relative to the manifest's folder"
    assert lines == [
        f"m.csv, row 3, column audio: '{kind}://c.wav::clips.{ending}' is not in the archive; {accepted}",
        f"m.csv, row 4, column audio: '{kind}://a.wav::none.{ending}' is in an archive that does not exist"
        f" ({folder}/none.{ending}); {accepted}",
    ]


def test_a_table_and_its_audio_at_a_url(faults: Callable[..., list[str]], folder: Path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/here/m.csv", b"audio,text\na.wav,x\n")
    memory.pipe("/here/a.wav", (folder / "audio" / "a.wav").read_bytes())
    rows = load_manifest("memory://here/m.csv")
    assert rows["audio"][:] == ["memory://here/a.wav"] and rows["id"][:] == ["m-2"]
    assert Audio()(rows["audio"][0]).shape == (160,)
    assert Audio.duration(rows["audio"][0]) == 0.01
    assert faults("memory://here/n.csv")[0].startswith("memory://here/n.csv: cannot be read: ")
    with pytest.raises(AudioError, match="memory://here/b.wav: cannot be read"):
        Audio()("memory://here/b.wav")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_stream_gives_the_same_rows(write_rows: Callable[..., Path], folder: Path, ending: str):
    path = write_rows(folder / f"m.{ending}", ROWS)
    assert list(stream_manifest(path, labels=LABELS)) == load_manifest(path, labels=LABELS).to_list()


def test_a_stream_is_refused_before_its_faulty_rows(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mmsr.data.manifest.tables._CHUNK", 2)
    path = write(tmp_path / "m.csv", "text,label\na,0\nb,1\nc,0\nd,7\n")
    rows = stream_manifest(path, labels=LABELS)
    assert [next(rows)["text"], next(rows)["text"]] == ["a", "b"]
    with pytest.raises(ManifestError, match="m.csv, row 5, column label: '7' is unknown"):
        next(rows)


def test_a_large_table_is_kept_on_disk_and_is_the_same(
    faults: Callable[..., list[str]],
    write_rows: Callable[..., Path],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    path = write_rows(folder / "m.csv", [{**row, "id": f"{i}"} for i, row in enumerate(ROWS * 50)])
    small = load_manifest(path, labels=LABELS)
    monkeypatch.setattr("mmsr.data.manifest.manifest._IN_MEMORY", 1000)
    monkeypatch.setattr("mmsr.data.manifest.tables._CHUNK", 7)
    large = load_manifest(path, labels=LABELS)
    assert large.cache_files and not small.cache_files
    assert large.to_list() == small.to_list()
    assert pickle.loads(pickle.dumps(large)).to_list() == small.to_list()
    assert fingerprint(large) == fingerprint(small)
    write_rows(folder / "m.csv", ROWS * 7)
    lines = faults(path, labels=LABELS)
    assert lines[0] == "m.csv, row 5, column id: '007' is the id of row 2 too; accepted: each id once"


def test_fingerprint_is_of_the_content(
    write: Callable[..., Path], folder: Path, tmp_path_factory: pytest.TempPathFactory
):
    text = "id,audio,text\n1,audio/a.wav,x\n2,audio/b.wav,\n3,,y\n"
    here = fingerprint(load_manifest(write(folder / "m.csv", text)))
    assert len(here) == 16 and int(here, 16) >= 0
    elsewhere = tmp_path_factory.mktemp("other")
    shutil.copytree(folder / "audio", elsewhere / "sound")
    path = write(elsewhere / "n.csv", text.replace("audio/", "sound/"))
    assert fingerprint(load_manifest(path)) == here
    soundfile.write(elsewhere / "sound" / "a.wav", np.zeros(160), 16000)
    assert fingerprint(load_manifest(path)) != here
    assert fingerprint(load_manifest(write(folder / "m.csv", text.replace("y", "z")))) != here
    swapped = "id,audio,text\n1,audio/b.wav,x\n2,audio/a.wav,\n3,,y\n"
    assert fingerprint(load_manifest(write(folder / "m.csv", swapped))) != here


@pytest.mark.skipif(os.name != "posix", reason="names that are bytes")
@pytest.mark.parametrize("place", [b"caf\xe9/m.csv", b"caf\xe9.csv"])
def test_a_name_that_is_not_utf_8_is_refused_in_words(tmp_path: Path, place: bytes):
    path = tmp_path / os.fsdecode(place)
    path.parent.mkdir(exist_ok=True)
    path.write_text("audio\na.wav\n")
    with pytest.raises(
        ManifestError, match=r"caf\\xe9.* is not UTF-8; accepted: a file and folders with names"
    ):
        load_manifest(path)
