import csv
import json
import logging
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import openpyxl
import pandas
import pytest
import soundfile

from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.data.manifest.manifest import (
    COLUMNS,
    ManifestError,
    examine_manifest,
    fingerprint,
    load_manifest,
    stream_manifest,
    utterances,
)
from mmsr.data.storage import read_bytes
from mmsr.records import Utterance

LABELS = ["negative", "neutral", "positive"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "audio").mkdir()
    for name, level in (("a", 0.1), ("b", 0.2)):
        soundfile.write(tmp_path / "audio" / f"{name}.wav", np.full(160, level), 16000)
    return tmp_path


def write(path: Path, text: str, **options: Any) -> Path:
    path.write_text(text, **{"encoding": "utf-8", **options})
    return path


def faults(path: Path, **options: Any) -> list[str]:
    with pytest.raises(ManifestError) as error:
        load_manifest(path, **options)
    return str(error.value).split("\n")


ROWS: list[dict[str, Any]] = [
    {"id": "007", "audio": "audio/a.wav", "text": "NA", "label": "2", "speaker": "1.0"},
    {"id": "null", "audio": "audio/b.wav", "text": "2024-01-31", "label": "negative", "speaker": "nan"},
    {"id": "1e5", "audio": None, "text": 'đa "dạng", ja', "label": None, "speaker": "None"},
]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    frame = pandas.DataFrame(rows, dtype=object)
    if path.suffix in (".csv", ".tsv"):
        frame.to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_excel(path, index=False)
    return path


ENDINGS = ["csv", "tsv", "jsonl", "parquet", "xlsx"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_reads_the_same_and_guesses_nothing(folder: Path, ending: str):
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
def test_numbers_are_text_as_a_person_writes_them(tmp_path: Path, ending: str):
    rows = [{"id": 7, "text": "x", "label": 0}, {"id": 8, "text": "y", "label": 1}]
    dataset = load_manifest(write_rows(tmp_path / f"m.{ending}", rows), labels=LABELS)
    assert dataset["id"][:] == ["7", "8"]
    assert dataset["label"][:] == ["negative", "neutral"]


def test_numbers_with_gaps_in_a_float_column_are_still_indices(tmp_path: Path):
    frame = pandas.DataFrame({"text": ["a", "b"], "label": [1, None]})
    assert frame["label"].dtype == float
    frame.to_parquet(tmp_path / "m.parquet")
    assert load_manifest(tmp_path / "m.parquet", labels=LABELS)["label"][:] == ["neutral", None]


def test_a_label_that_is_a_number_stays_itself(tmp_path: Path):
    path = write(tmp_path / "m.csv", "text,label\na,1\nb,2\n")
    assert load_manifest(path, labels=["1", "2"])["label"][:] == ["1", "2"]
    assert load_manifest(path)["label"][:] == ["1", "2"]
    assert faults(path, labels=["only", "two"]) == [
        "m.csv, row 3, column label: '2' is unknown; accepted: only, two, or their indices 0 to 1"
    ]


def test_blank_values_are_none_and_missing_ids_are_made(tmp_path: Path):
    dataset = load_manifest(write(tmp_path / "mine.csv", 'id,text,label\n,a,\nx,"  b ", \n'))
    assert dataset["id"][:] == ["mine-2", "x"]
    assert dataset["text"][:] == ["a", "  b "]
    assert dataset["label"][:] == [None, None]


def test_a_byte_order_mark_quoted_line_breaks_and_any_line_end_are_read(tmp_path: Path):
    path = write(tmp_path / "m.csv", '\ufeffid,text\r\n1,"two\nlines"\r\n2,"a ""word"", no"\r\n', newline="")
    assert load_manifest(path)["text"][:] == ["two\nlines", 'a "word", no']


def test_absolute_audio_paths_stay(folder: Path):
    path = write(folder / "m.csv", f"audio\n{folder}/audio/a.wav\n./audio/../audio/b.wav\n")
    dataset = load_manifest(path)
    assert dataset["audio"][:] == [str(folder / "audio/a.wav"), str(folder / "audio/b.wav")]


def test_a_relative_manifest_gives_absolute_audio(folder: Path, monkeypatch: pytest.MonkeyPatch):
    write(folder / "m.csv", "audio\naudio/a.wav\n")
    monkeypatch.chdir(folder)
    assert load_manifest("m.csv")["audio"][:] == [str(folder / "audio/a.wav")]


def test_faults_are_all_told_at_once(folder: Path):
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
        "manifest.csv, row 5, column audio: 'audio' is not a file;"
        " accepted: a path relative to the manifest's folder",
    ]


def test_many_faults_are_counted(tmp_path: Path):
    path = write(tmp_path / "m.csv", "audio\n" + "".join(f"{i}.wav\n" for i in range(50)))
    with pytest.raises(ManifestError) as error:
        load_manifest(path)
    lines = str(error.value).split("\n")
    assert len(lines) == 21
    assert lines[19].startswith("m.csv, row 21, column audio: '19.wav' does not exist")
    assert lines[20] == "m.csv: 30 more faults, 50 in all"
    assert len(error.value.issues) == 50 and error.value.issues[49].row == 51
    again = pickle.loads(pickle.dumps(error.value))
    assert str(again) == str(error.value) and again.issues == error.value.issues


def test_audio_need_not_be_there_if_it_is_not_asked_for(tmp_path: Path):
    path = write(tmp_path / "m.csv", "audio\nno.wav\n")
    assert load_manifest(path, check_audio=False)["audio"][:] == [str(tmp_path / "no.wav")]


def test_audio_on_another_machine_is_not_asked_for(tmp_path: Path):
    path = write(tmp_path / "m.csv", "audio\nhttps://host/a.wav\nfoo://host/a.wav\n")
    assert faults(path) == [
        "m.csv, row 3, column audio: 'foo://host/a.wav' is a URL of an unknown kind;"
        " accepted: a path relative to the manifest's folder"
    ]
    path = write(tmp_path / "m.csv", "audio\nhttps://host/a.wav\nhf://datasets/x/y/a.wav\n")
    assert load_manifest(path)["audio"][:] == ["https://host/a.wav", "hf://datasets/x/y/a.wav"]


@pytest.mark.parametrize(
    ("ending", "row"), [("csv", 3), ("tsv", 3), ("xlsx", 3), ("jsonl", 2), ("parquet", 2)]
)
def test_row_numbers_are_those_seen_in_the_file(tmp_path: Path, ending: str, row: int):
    path = write_rows(
        tmp_path / f"m.{ending}", [{"text": "a", "audio": None}, {"text": "b", "audio": "x.wav"}]
    )
    assert faults(path) == [
        f"m.{ending}, row {row}, column audio: 'x.wav' does not exist;"
        " accepted: a path relative to the manifest's folder"
    ]


def test_blank_rows_are_counted_and_keep_the_numbering(tmp_path: Path, caplog: pytest.LogCaptureFixture):
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


def test_columns_can_be_renamed_and_others_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
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


@pytest.mark.parametrize("ending", ["csv", "xlsx"])
def test_a_data_frame_s_index_is_a_column_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str
):
    path = tmp_path / f"m.{ending}"
    frame = pandas.DataFrame({"text": ["a", "b"]})
    frame.to_csv(path) if ending == "csv" else frame.to_excel(path)
    with caplog.at_level(logging.WARNING):
        assert load_manifest(path)["text"][:] == ["a", "b"]
    assert [record.getMessage() for record in caplog.records] == [f"m.{ending}: columns not used: column 1"]


def test_one_column_may_serve_twice(tmp_path: Path):
    path = write(tmp_path / "m.csv", "asr\na\n")
    dataset = load_manifest(path, columns={"text": "asr", "asr_text": "asr"})
    assert dataset["text"][:] == dataset["asr_text"][:] == ["a"]


def test_a_table_without_utterances_names_the_columns(tmp_path: Path):
    path = write(tmp_path / "m.csv", "sentence;label\n" + "a;0\n" * 30)
    assert faults(path) == [
        "m.csv: none of audio, text, asr_text is in the file; found: sentence;label;"
        f" accepted: {', '.join(COLUMNS)}"
    ]


def test_required_columns(tmp_path: Path):
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


def test_splits(tmp_path: Path):
    path = write(tmp_path / "m.csv", "text,split\na,train\nb,test\nc,\nd,train\n")
    assert load_manifest(path, split="train")["text"][:] == ["a", "d"]
    assert len(load_manifest(path)) == 4
    assert faults(path, split="dev") == ["m.csv, column split: no row is in 'dev'; accepted: test, train"]
    path = write(tmp_path / "n.csv", "text\na\n")
    assert faults(path, split="dev") == [
        "n.csv, column split: no row is in 'dev'; accepted: none, since no row names a split"
    ]


def test_files_that_cannot_be_read(tmp_path: Path):
    accepted = ".csv, .tsv, .jsonl, .parquet, .xlsx"
    path = tmp_path / "no.csv"
    assert faults(path) == [f"{path}: does not exist; accepted: a manifest file ({accepted})"]
    path = write(tmp_path / "m.yaml", "a: 1")
    assert faults(path) == [f"{path}: has the ending '.yaml'; accepted: {accepted}"]
    (path := tmp_path / "f.csv").mkdir()
    assert faults(path) == [
        f"{path}: is an empty folder; accepted: a manifest file ({accepted}), or a folder or id of a dataset"
        " in the Hub's format"
    ]
    path = write(tmp_path / "e.csv", "")
    assert faults(path) == [f"{path}: is empty; accepted: a header and at least one row"]
    path = write(tmp_path / "h.csv", "text,label\n")
    assert faults(path, require=("label",)) == ["h.csv: has no rows; accepted: at least one"]
    path = write(tmp_path / "latin.csv", "text\ncafé\n", encoding="latin-1")
    assert faults(path) == [f"{path}: is not UTF-8 (byte 0xe9); accepted: text saved as UTF-8"]
    for ending in ("parquet", "xlsx"):
        path = write(tmp_path / f"broken.{ending}", "no such thing")
        (line,) = faults(path)
        assert line.startswith(f"{path}: is no {ending} file (")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(tmp_path: Path):
    path = write(tmp_path / "m.csv", "text\na\n")
    path.chmod(0)
    assert faults(path) == [f"{path}: cannot be read: Permission denied"]


def test_headers_and_rows_must_fit(tmp_path: Path):
    path = write(tmp_path / "m.csv", "id,text\n1\n2,b,c\n3,d\n")
    assert faults(path) == [
        "m.csv, row 2: has 1 values; accepted: 2, as the header has",
        "m.csv, row 3: has 3 values; accepted: 2, as the header has",
    ]
    assert faults(write(tmp_path / "m.csv", "text,text\na,b\n")) == [
        "m.csv, row 1, column text: is in the header twice; accepted: each column once"
    ]


PAIRED = "accepted: quotes around a whole cell, those inside it doubled"


def test_a_stray_quote_is_told_with_its_row_and_merges_none(tmp_path: Path):
    begun, ended = '1\t"Oh no\ten\n', '3\tshe said so"\ten\n'
    inside, last = '4\t"Well" he said\ten\n', '5\t"last\ten\n6\tb\tvi\n'
    path = write(tmp_path / "m.tsv", "id\ttext\tlanguage\n" + begun + ended + inside + last)
    assert faults(path) == [
        f"m.tsv, row 2: cannot be read (a quote would make one row of 2 lines): {begun.strip()!r}; {PAIRED}",
        f"m.tsv, row 4: cannot be read ('\\t' expected after '\"'): {inside.strip()!r}; {PAIRED}",
        f"m.tsv, row 5: cannot be read (unexpected end of data): {last[:10]!r}; {PAIRED}",
    ]
    assert examine_manifest(path).rows["id"][:] == ["3", "6"]
    path = write(tmp_path / "r.tsv", "id\ttext\tlanguage\n" + begun + "2\tnot again\n" + inside)
    assert [line.split(": ")[0] for line in faults(path)] == [f"r.tsv, row {row}" for row in (2, 3, 4)]
    path = write(tmp_path / "m.csv", 'text\na\n"open, "so\nb\n"open\n')
    assert faults(path) == [
        f"m.csv, row 3: cannot be read (',' expected after '\"'): '\"open, \"so'; {PAIRED}",
        f"m.csv, row 5: cannot be read (unexpected end of data): '\"open'; {PAIRED}",
    ]
    path = write(tmp_path / "h.tsv", 'id\t"text\n1\ta\n')
    assert faults(path) == [f"h.tsv, row 1: cannot be read (unexpected end of data): 'id\\t\"text'; {PAIRED}"]


def test_a_quoted_tsv_is_read_as_it_was_written(tmp_path: Path):
    texts = ["one\ntwo", 'says "so",\tand\ngoes', "a\t\tb\n\nc\t", '"', 'it"s', "a\r\nb", '"whole"']
    with open(tmp_path / "m.tsv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows(
            [["id", "text", "language"], *([str(n), text, "en"] for n, text in enumerate(texts))]
        )
        writer.writerow(["7", "after", "en"])
    rows = load_manifest(tmp_path / "m.tsv")
    assert rows["text"][:] == [*texts, "after"] and rows["id"][:] == [str(number) for number in range(8)]
    write(tmp_path / "one.tsv", 'text\n"a\nb"\nc\n')
    assert load_manifest(tmp_path / "one.tsv")["text"][:] == ["a\nb", "c"]


def test_jsonl_faults(tmp_path: Path):
    path = write(tmp_path / "m.jsonl", '{"text": \n["a"]\n{"text": "a", "speaker": ["b"]}\n')
    assert faults(path) == [
        "m.jsonl, row 1: is not JSON (Expecting value); accepted: one object a line",
        "m.jsonl, row 2: holds a list; accepted: one JSON object a line",
        "m.jsonl, row 3, column speaker: holds a list; accepted: text",
    ]


def test_half_of_a_character_is_told_with_its_row(tmp_path: Path):
    lines = [
        r'{"text": "good \ud83d\ude00 \ud55c \u00e9", "speaker": "\uD834\uDD1E"}',
        r'{"text": "the doctor was very kind to us\ud83d and so were all of the others"}',
        r'{"text": "a", "speaker": "\uDE00\uD83D", "note": "\ud800"}',
        r'{"text": "not used", "note": "\ud800"}',
    ]
    path = write(tmp_path / "m.jsonl", "\n".join(lines) + "\n")
    accepted = r"has half of a character; accepted: both of its \u escapes, or neither"
    assert faults(path) == [
        rf"m.jsonl, row 2, column text: ' was very kind to us\ud83d and so were all of ' {accepted}",
        rf"m.jsonl, row 3, column speaker: '\ude00\ud83d' {accepted}",
    ]
    rows = examine_manifest(path).rows
    assert rows["text"][:] == ["good 😀 한 é", "not used"] and rows["speaker"][:] == ["𝄞", None]


def test_xlsx_sheets_and_stray_values(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    book = openpyxl.Workbook()
    for row in (["text", "label", None], ["a", 0.0, None], [None, None, None], ["b", 1, "stray"]):
        book.active.append(row)
    book.create_sheet("notes")
    book.save(tmp_path / "m.xlsx")
    with caplog.at_level(logging.WARNING):
        assert faults(tmp_path / "m.xlsx", labels=LABELS) == [
            "m.xlsx, row 4: has values beyond the header; accepted: 2 values"
        ]
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["m.xlsx: of 2 sheets, only 'Sheet' is read", "m.xlsx: 1 blank rows left out"]


def test_a_changed_file_is_read_again_and_nothing_is_written(tmp_path: Path):
    path = write(tmp_path / "m.csv", "text\nold\n")
    stat = path.stat()
    assert load_manifest(path)["text"][:] == ["old"]
    write(path, "text\nnew\n")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same name, size and time
    assert load_manifest(path)["text"][:] == ["new"]
    assert os.listdir(tmp_path) == ["m.csv"]


def test_reading_is_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    load_manifest(write(tmp_path / "m.csv", "text,split\na,x\n"), split="x")
    assert capsys.readouterr() == ("", "")


def test_labels_under_other_names(tmp_path: Path):
    path = write(tmp_path / "m.csv", "text,label\na,pos\nb,neutral\nc,bad\n")
    names = {"pos": "positive", "bad": "negative"}
    expected = ["positive", "neutral", "negative"]
    assert load_manifest(path, labels=LABELS, label_map=names)["label"][:] == expected
    assert faults(path, labels=LABELS, label_map={"pos": "good"}) == [
        "m.csv, column label: label_map says that 'pos' is 'good'; accepted: negative, neutral, positive"
    ]


def test_a_label_map_s_names_that_no_row_has_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
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


def test_durations_are_numbers_and_there_only_if_given(tmp_path: Path):
    path = write(tmp_path / "m.csv", "text,seconds\na,1.25\nb,\n")
    rows = load_manifest(path, columns={"duration": "seconds"})
    assert rows.column_names == [*COLUMNS, "duration"] and rows["duration"][:] == [1.25, None]
    path = write(tmp_path / "m.csv", "text,duration\na,-1\nb,long\n")
    assert faults(path) == [
        "m.csv, row 2, column duration: is '-1'; accepted: seconds, 0 or more",
        "m.csv, row 3, column duration: is 'long'; accepted: seconds, 0 or more",
    ]


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
def test_audio_in_an_archive(folder: Path, ending: str):
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


def test_a_table_and_its_audio_at_a_url(folder: Path):
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


def with_audio_inside(folder: Path) -> datasets.Dataset:
    rows: dict[str, list[Any]] = {"text": ["x", "y", "z"], "label": [2, 0, 1]}
    inside = [(folder / "audio" / f"{name}.wav").read_bytes() for name in "ab"]
    rows["audio"] = [{"bytes": inside[0], "path": "a.wav"}, None, {"bytes": inside[1], "path": None}]
    kinds = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=LABELS)}
    plain = {"audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}}
    made = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds | plain))
    # as the Hub's files have it; made in two steps, because encoding audio would want another decoder
    return made.cast(datasets.Features(kinds | {"audio": datasets.Audio(decode=False)}))


def check_audio_inside(rows: datasets.Dataset, folder: Path) -> None:
    assert rows["text"][:] == ["x", "y", "z"] and rows["label"][:] == ["positive", "negative", "neutral"]
    assert rows["audio"][1] is None
    for row, name in ((0, "a"), (2, "b")):
        assert read_bytes(rows["audio"][row]) == (folder / "audio" / f"{name}.wav").read_bytes()
    assert Audio()(rows["audio"][2]) == pytest.approx(0.2, abs=1e-4)
    again = pickle.loads(pickle.dumps(rows))
    assert fingerprint(again) == fingerprint(rows)


def test_audio_inside_a_parquet_file(folder: Path):
    with_audio_inside(folder).to_parquet(folder / "m.parquet")
    check_audio_inside(load_manifest(folder / "m.parquet", labels=LABELS), folder)


def test_a_folder_in_the_hub_s_format(folder: Path):
    (hub := folder / "hub").mkdir()
    (hub / "data").mkdir()
    for split in ("train", "test"):
        with_audio_inside(folder).to_parquet(hub / "data" / f"{split}-00000-of-00001.parquet")
    rows = load_manifest(hub, labels=LABELS)
    assert rows["split"][:] == ["train"] * 3 + ["test"] * 3
    assert rows["id"][:2] == ["train-00000-of-00001-1", "train-00000-of-00001-2"]
    check_audio_inside(load_manifest(hub, labels=LABELS, split="test"), folder)


def test_a_hub_folder_of_tables_guesses_nothing_and_names_the_file(folder: Path):
    (hub := folder / "hub").mkdir()
    write(hub / "train.csv", "id,text,label\n007,a,0\n008,b,5\n")
    write(hub / "test.csv", "id,text,label\n007,c,1\n")
    assert faults(hub, labels=LABELS) == [
        "train.csv, row 3, column label: '5' is unknown; accepted: negative, neutral, positive,"
        " or their indices 0 to 2",
        "test.csv, row 2, column id: '007' is the id of row 2 of train.csv too; accepted: each id once",
    ]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_the_readme_of_a_hub_folder_says_what_numbers_stand_for(folder: Path, ending: str):
    (hub := folder / "hub").mkdir()
    names = "\n".join(
        f"            '{i}': {name}" for i, name in enumerate(("positive", "negative", "neutral"))
    )
    card = "---\ndataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: label\n    dtype:\n"
    write(hub / "README.md", f"{card}      class_label:\n        names:\n{names}\n---\n")
    write_rows(hub / f"train.{ending}", [{"text": "a", "label": 0}, {"text": "b", "label": 2}])
    assert load_manifest(hub, labels=LABELS)["label"][:] == ["positive", "neutral"]


def test_files_of_one_name_in_a_hub_folder_give_each_row_its_id(folder: Path):
    for split in ("train", "test"):
        (folder / "hub" / split).mkdir(parents=True)
        write(folder / "hub" / split / "data.csv", "text,label\na,0\nb,9\n")
    assert faults(folder / "hub", labels=LABELS) == [
        f"{split}/data.csv, row 3, column label: '9' is unknown; accepted: negative, neutral, positive,"
        " or their indices 0 to 2"
        for split in ("train", "test")
    ]
    rows = load_manifest(folder / "hub")
    assert rows["id"][:] == ["train-data-2", "train-data-3", "test-data-2", "test-data-3"]


def test_a_hub_folder_of_audio_files(folder: Path):
    for split in ("train", "test"):
        (to := folder / "hub" / split).mkdir(parents=True)
        for name in "ab":
            shutil.copy(folder / "audio" / f"{name}.wav", to / f"{split}-{name}.wav")
    assert "without metadata.csv; accepted: a manifest, which `mmsr data convert" in faults(folder / "hub")[0]
    for split in ("train", "test"):
        text = f"file_name,label\n{split}-a.wav,0\n{split}-b.wav,2\n"
        write(folder / "hub" / split / "metadata.csv", text)
    rows = load_manifest(folder / "hub", labels=LABELS)
    assert rows["split"][:] == ["train", "train", "test", "test"]
    assert rows["label"][:] == ["negative", "positive"] * 2
    assert rows["audio"][3] == str(folder / "hub" / "test" / "test-b.wav")
    assert Audio()(rows["audio"][0]).shape == (160,)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_stream_gives_the_same_rows(folder: Path, ending: str):
    path = write_rows(folder / f"m.{ending}", ROWS)
    assert list(stream_manifest(path, labels=LABELS)) == load_manifest(path, labels=LABELS).to_list()


def test_a_stream_brings_the_audio_inside_a_table(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mmsr.data.manifest.tables._STREAMED", 2)
    with_audio_inside(folder).to_parquet(folder / "m.parquet")
    rows = list(stream_manifest(folder / "m.parquet", labels=LABELS))
    inside = [(folder / "audio" / f"{name}.wav").read_bytes() for name in "ab"]
    assert [row["audio"] for row in rows] == [inside[0], None, inside[1]]
    assert [row["label"] for row in rows] == ["positive", "negative", "neutral"]
    assert [row["id"] for row in rows] == ["m-1", "m-2", "m-3"]


def test_a_stream_is_refused_before_its_faulty_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mmsr.data.manifest.tables._CHUNK", 2)
    path = write(tmp_path / "m.csv", "text,label\na,0\nb,1\nc,0\nd,7\n")
    rows = stream_manifest(path, labels=LABELS)
    assert [next(rows)["text"], next(rows)["text"]] == ["a", "b"]
    with pytest.raises(ManifestError, match="m.csv, row 5, column label: '7' is unknown"):
        next(rows)


def test_a_large_table_is_kept_on_disk_and_is_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch):
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


def test_fingerprint_is_of_the_content(folder: Path, tmp_path_factory: pytest.TempPathFactory):
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
