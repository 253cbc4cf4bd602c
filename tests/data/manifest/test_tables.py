"""Table files: every format into every other, with each column and value."""

import csv
import logging
import os
import pickle
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import openpyxl
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsr.data.audio.decoding import Audio
from mmsr.data.manifest.manifest import (
    ManifestError,
    examine_manifest,
    fingerprint,
    load_manifest,
    stream_manifest,
)
from mmsr.data.manifest.tables import (
    ENDINGS,
    Table,
    check_table,
    check_table_output,
    column_names,
    read_table,
    write_table,
)
from mmsr.data.storage import read_bytes

LABELS = ["negative", "neutral", "positive"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("first", ENDINGS)
def test_text_goes_from_every_format_to_every_format(tmp_path, first, ending):
    rows = [{"id": "007", "text": 'a, "b"\nc\tđ'}, {"id": "x", "text": "NA"}]
    write_table(tmp_path / f"a{first}", Table(["id", "text"], rows, [0, 0]))
    write_table(tmp_path / f"b{ending}", read_table(tmp_path / f"a{first}"))
    back = read_table(tmp_path / f"b{ending}")
    assert back.columns == ["id", "text"] and back.rows == rows
    assert back.numbers == ([1, 2] if ending in (".jsonl", ".parquet") else [2, 3])
    assert len(list(tmp_path.iterdir())) == len({f"a{first}", f"b{ending}"})


@pytest.mark.parametrize("text", ["one\ntwo\tthree", "\ta\n\nb\t", 'a "b"\nc\td', "\n"])
def test_a_tsv_s_lines_in_a_cell_are_no_rows(tmp_path, text):
    rows = [{"id": "1", "text": text}, {"id": "2", "text": "after"}]
    write_table(path := tmp_path / "m.tsv", Table(["id", "text"], rows, []))
    assert read_table(path).rows == rows


def test_types_stay_where_the_format_has_them(tmp_path):
    table = pyarrow.table({"score": [1.0, None], "tags": [["a"], []]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    filled = read_table(tmp_path / "a.parquet").filled("asr_text", {1: "hello"})
    write_table(tmp_path / "b.parquet", filled)
    copy = pyarrow.parquet.read_table(tmp_path / "b.parquet")
    assert copy.select(["score", "tags"]).equals(table) and copy["asr_text"].to_pylist() == ["hello", None]
    write_table(tmp_path / "b.csv", filled)
    assert (tmp_path / "b.csv").read_text() == 'score,tags,asr_text\n1,"[""a""]",hello\n,[],\n'


def test_blank_rows_are_left_out_and_numbers_stay(tmp_path):
    (tmp_path / "a.csv").write_text("id,text\n\nx,hello\n,\ny,there\n")
    assert read_table(tmp_path / "a.csv").numbers == [3, 5]


AWKWARD = [
    "NA",
    "null",
    "None",
    "nan",
    "no",
    "nein",
    "true",
    "007",
    "1e5",
    "1.0",
    "-",
    "#N/A",
    "=1+1",
    "'tis",
]
PIECES = [
    '"',
    "'",
    ",",
    ";",
    "\t",
    "|",
    "\n",
    "\r",
    "\r\n",
    " ",
    "\\",
    "_x000D_",
    "_x005F_",
    "\u2028",
    "\x85",
]
PIECES += ["\ufeff", "\x01", "\x1f", "\ufffe", "\uffff", "\U0001f600", "e\u0301", "sep=;", "\u200f", "word"]
TEXTS = (
    st.sampled_from(AWKWARD)
    | st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
)


@pytest.mark.parametrize("ending", ENDINGS)
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(texts=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=25))
def test_any_text_comes_back_as_it_was_in_check_load_and_stream(tmp_path, read_alike, ending, texts):
    rows = [
        {"id": str(n), "text": text, "speaker": who, "asr_text": "x"} for n, (text, who) in enumerate(texts)
    ]
    write_table(path := tmp_path / f"m{ending}", Table(["id", "text", "speaker", "asr_text"], rows, []))
    for place, column in enumerate(("text", "speaker")):
        expected = [pair[place] if pair[place].strip() else None for pair in texts]
        assert read_alike(path, column) == expected
    back = read_table(path)
    assert [{name: row[name] or "" for name in row} for row in back.rows] == rows
    write_table(again := tmp_path / f"again{ending}", back)
    assert read_table(again).rows == back.rows


@pytest.mark.parametrize("ending", ENDINGS)
def test_words_that_look_like_values_stay_words(tmp_path, read_alike, write_rows, ending):
    rows = [{"id": text, "text": text, "label": text} for text in AWKWARD if text != "#N/A"]
    write_table(path := tmp_path / f"m{ending}", Table(["id", "text", "label"], rows, []))
    for column in ("id", "text", "label"):
        assert read_alike(path, column) == [row["id"] for row in rows]
    if ending != ".xlsx":  # pandas makes formulas of it
        write_rows(path, rows)
        assert read_alike(path) == [row["id"] for row in rows]


def test_missing_numbers_are_no_words_in_a_copy(tmp_path):
    table = pyarrow.table({"id": ["a", "b"], "text": ["so", "no"], "score": [np.nan, np.inf]})
    pyarrow.parquet.write_table(table, tmp_path / "m.parquet")
    for ending, values in ((".csv", ["", "inf"]), (".jsonl", [None, "inf"]), (".xlsx", [None, "inf"])):
        write_table(path := tmp_path / f"m{ending}", read_table(tmp_path / "m.parquet"))
        assert [row["score"] for row in read_table(path).rows] == values


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".xlsx"])
def test_a_row_that_cannot_be_read_is_not_left_out_of_a_copy(tmp_path, write, ending):
    contents = {".csv": "id,text\na\n", ".tsv": "id\ttext\na\n", ".jsonl": '{"id": "a"}\n{\n'}
    path = tmp_path / f"m{ending}"
    if ending == ".xlsx":
        book = openpyxl.Workbook()
        for row in (["id"], ["a", "beyond"]):
            book.active.append(row)
        book.save(path)
    else:
        write(path, contents[ending])
    with pytest.raises(ManifestError, match=f"m{ending}, row 2: "):
        read_table(path)


def test_columns_of_one_name_are_refused_in_every_format(tmp_path, write, faults):
    accepted = "accepted: each"
    path = write(
        tmp_path / "m.jsonl", '{"text": "a:b", "text": "c"}\n{"text": "d: :", "label": {"text": 1}}\n'
    )
    assert faults(path)[0] == f"m.jsonl, row 1, column text: is twice in the object; {accepted} name once"
    assert [issue.row for issue in examine_manifest(path).issues] == [1, 2]
    table = pyarrow.table([["a"], ["b"]], names=["text", "text"])
    pyarrow.parquet.write_table(table, path := tmp_path / "m.parquet")
    assert faults(path) == [f"m.parquet, column text: is in the header twice; {accepted} column once"]
    with pytest.raises(ManifestError, match="twice"):
        read_table(path)


def test_json_that_is_no_object_a_line_is_named(tmp_path, write, faults):
    (line,) = faults(write(tmp_path / "m.jsonl", '\ufeff\n [{"text": "a"},\n{"text": "b"}]\n'))
    assert line.endswith("m.jsonl: is one JSON array; accepted: one JSON object a line, without [ ] and ,")
    (line,) = faults(write(tmp_path / "m.json", '[{"text": "a"}]'))
    assert line.endswith("accepted: .csv, .tsv, .jsonl, .parquet, .xlsx (.jsonl has one JSON object a line)")
    path = write(tmp_path / "m.jsonl", '{"text": ' + "9" * 5000 + '}\n{"text": ' + "[" * 100_000 + "\n")
    assert [line.partition(" (")[0] for line in faults(path)] == [
        f"m.jsonl, row {row}: is not JSON" for row in (1, 2)
    ]


def test_jsonl_of_any_system_is_read(tmp_path, read_alike):
    lines = [
        '{"id": "007", "text": "a\u2028b"}',
        "",
        '{"id": 1e5, "text": "NA"}',
        '{"text": NaN, "asr_text": "x"}',
    ]
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        for end in ("\n", "\r\n", "\r"):
            (path := tmp_path / "m.jsonl").write_bytes((end.join(lines) + end).encode(encoding))
            assert read_alike(path) == ["a\u2028b", "NA", None]
            assert read_alike(path, "id") == ["007", "100000", "m-4"]


@pytest.mark.parametrize("name", ["m.parquet", "m.PARQUET"])
def test_what_a_format_cannot_hold_is_refused_before_it_is_written(tmp_path, name):
    inside = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({"id": ["a"], "audio": pyarrow.array([None], inside)})
    pyarrow.parquet.write_table(table, path := tmp_path / name)
    for ending in (".csv", ".jsonl", ".xlsx", ".tsv"):
        with pytest.raises(ManifestError, match=rf"b{ending}, column audio: audio inside .* in .parquet"):
            check_table(tmp_path / f"b{ending}", read_table(path))
    check_table(tmp_path / "b.parquet", read_table(path))
    for ending in (".csv", ".tsv"):
        with pytest.raises(ManifestError, match=rf"b{ending}, row 7, column text: has NUL characters"):
            write_table(tmp_path / f"b{ending}", Table(["text"], [{"text": "a\0b"}], [7]))
    write_table(tmp_path / "b.jsonl", Table(["text"], [{"text": "a\0b"}], [7]))
    assert read_table(tmp_path / "b.jsonl").rows == [{"text": "a\0b"}]


def test_an_output_is_refused_before_the_work(tmp_path, monkeypatch):
    with pytest.raises(ManifestError, match="has the ending '.doc'"):
        check_table_output(tmp_path / "m.doc")
    with pytest.raises(ValueError, match="is a folder"):
        (tmp_path / "d.csv").mkdir()
        check_table_output(tmp_path / "d.csv")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ValueError, match=r"m.xlsx needs openpyxl: pip install 'mmsr\[xlsx\]'"):
        check_table_output(tmp_path / "m.xlsx")
    check_table_output(tmp_path / "m.csv")


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".xlsx"])
def test_the_names_of_columns_are_read_without_the_rows(tmp_path, ending):
    write_table(path := tmp_path / f"m{ending}", Table(["id", "text"], [{"id": "a", "text": "b"}], []))
    assert column_names(path) == ["id", "text"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_columns_can_be_left_out(tmp_path, ending):
    rows = [{"id": "1", "fold": "3"}, {"id": "2", "fold": "4"}]
    write_table(path := tmp_path / f"m{ending}", Table(["id", "fold"], rows, []))
    table = read_table(path, without=["id", "text"])
    assert table.columns == ["fold"] and table.rows == [{"fold": "3"}, {"fold": "4"}]
    none = read_table(path, without=["id", "fold"])
    assert none.columns == [] and none.rows == [{}, {}] and none.numbers == table.numbers


def test_paths_are_seen_from_the_other_folder(tmp_path):
    table = Table(
        ["audio"], [{"audio": "a/b.wav"}, {"audio": "/c.wav"}, {"audio": "s3://d/e.wav"}], [1, 2, 3]
    )
    moved = table.moved("audio", tmp_path / "here", tmp_path / "there" / "deep")
    assert [row["audio"] for row in moved.rows] == ["../../here/a/b.wav", "/c.wav", "s3://d/e.wav"]


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a.txt: has the ending '.txt'; accepted: .csv, .tsv"):
        write_table(tmp_path / "a.txt", Table([], [], []))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "text", ["=1+1", "=) thanks a lot", "one\rtwo", "\rone", '"Hello" she said', "a\r\nb"]
)
def test_awkward_text_comes_back_as_it_was(tmp_path, ending, text):
    write_table(path := tmp_path / f"m{ending}", Table(["text"], [{"text": text}, {"text": "after"}], []))
    expected = text.replace("\r\n", "\n").replace("\r", "\n") if ending == ".xlsx" else text
    assert [row["text"] for row in read_table(path).rows] in ([text, "after"], [expected, "after"])
    assert len(load_manifest(path)) == 2


def test_a_sheet_whose_stated_dimension_is_out_of_date_is_read_whole(tmp_path):
    write_table(path := tmp_path / "m.xlsx", Table(["text"], [{"text": f"row {i}"} for i in range(5)], []))
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    stale = b'<dimension ref="A1:A2"/><sheetData>'
    assert b"<sheetData>" in parts[sheet]
    cleaned = re.sub(rb"<dimension[^>]*/>", b"", parts[sheet])
    parts[sheet] = cleaned.replace(b"<sheetData>", stale, 1)
    with zipfile.ZipFile(path, "w") as book:
        for name, content in parts.items():
            book.writestr(name, content)
    assert len(load_manifest(path)) == 5


def test_audio_inside_a_table_is_copied_to_parquet_alone(tmp_path):
    rows = [{"text": "x", "audio": {"bytes": b"RIFF", "path": None}}]
    for ending in (".csv", ".jsonl", ".xlsx"):
        with pytest.raises(ValueError, match="audio inside a table goes into parquet alone"):
            write_table(tmp_path / f"m{ending}", Table(["text", "audio"], rows, []))
    assert not list(tmp_path.iterdir())


def test_a_byte_order_mark_quoted_line_breaks_and_any_line_end_are_read(
    write: Callable[..., Path], tmp_path: Path
):
    path = write(tmp_path / "m.csv", '\ufeffid,text\r\n1,"two\nlines"\r\n2,"a ""word"", no"\r\n', newline="")
    assert load_manifest(path)["text"][:] == ["two\nlines", 'a "word", no']


@pytest.mark.parametrize(
    ("ending", "row"), [("csv", 3), ("tsv", 3), ("xlsx", 3), ("jsonl", 2), ("parquet", 2)]
)
def test_row_numbers_are_those_seen_in_the_file(
    faults: Callable[..., list[str]], write_rows: Callable[..., Path], tmp_path: Path, ending: str, row: int
):
    path = write_rows(
        tmp_path / f"m.{ending}", [{"text": "a", "audio": None}, {"text": "b", "audio": "x.wav"}]
    )
    assert faults(path) == [
        f"m.{ending}, row {row}, column audio: 'x.wav' does not exist;"
        " accepted: a path relative to the manifest's folder"
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


def test_files_that_cannot_be_read(
    write: Callable[..., Path], faults: Callable[..., list[str]], tmp_path: Path
):
    accepted = ".csv, .tsv, .jsonl, .parquet, .xlsx"
    path = tmp_path / "no.csv"
    assert faults(path) == [f"{path}: no such file; accepted: a manifest file ({accepted})"]
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
def test_a_file_without_permission(
    write: Callable[..., Path], faults: Callable[..., list[str]], tmp_path: Path
):
    path = write(tmp_path / "m.csv", "text\na\n")
    path.chmod(0)
    assert faults(path) == [f"{path}: cannot be read: Permission denied"]


def test_headers_and_rows_must_fit(
    write: Callable[..., Path], faults: Callable[..., list[str]], tmp_path: Path
):
    path = write(tmp_path / "m.csv", "id,text\n1\n2,b,c\n3,d\n")
    assert faults(path) == [
        "m.csv, row 2: has 1 values; accepted: 2, as the header has",
        "m.csv, row 3: has 3 values; accepted: 2, as the header has",
    ]
    assert faults(write(tmp_path / "m.csv", "text,text\na,b\n")) == [
        "m.csv, row 1, column text: is in the header twice; accepted: each column once"
    ]


PAIRED = "accepted: quotes around a whole cell, those inside it doubled"


def test_a_stray_quote_is_told_with_its_row_and_merges_none(
    write: Callable[..., Path], faults: Callable[..., list[str]], tmp_path: Path
):
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


def test_a_quoted_tsv_is_read_as_it_was_written(write: Callable[..., Path], tmp_path: Path):
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


def test_jsonl_faults(write: Callable[..., Path], faults: Callable[..., list[str]], tmp_path: Path):
    path = write(tmp_path / "m.jsonl", '{"text": \n["a"]\n{"text": "a", "speaker": ["b"]}\n')
    assert faults(path) == [
        "m.jsonl, row 1: is not JSON (Expecting value); accepted: one object a line",
        "m.jsonl, row 2: holds a list; accepted: one JSON object a line",
        "m.jsonl, row 3, column speaker: holds a list; accepted: text",
    ]


def test_half_of_a_character_is_told_with_its_row(
    write: Callable[..., Path], faults: Callable[..., list[str]], tmp_path: Path
):
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


def test_xlsx_sheets_and_stray_values(
    faults: Callable[..., list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    book = openpyxl.Workbook()
    for row in (["text", "label", None], ["a", 0.0, None], [None, None, None], ["b", 1, "stray"]):
        book.active.append(row)
    book.create_sheet("notes")
    book.save(tmp_path / "m.xlsx")
    with caplog.at_level(logging.WARNING):
        assert faults(tmp_path / "m.xlsx", labels=LABELS) == [
            "m.xlsx, sheet 'Sheet', row 4: has values beyond the header; accepted: 2 values"
        ]
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "m.xlsx: of 2 sheets, only 'Sheet' is read",
        "m.xlsx, sheet 'Sheet': 1 blank rows left out",
    ]


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


@pytest.mark.parametrize("audio", ["audio", "sound"])
def test_bytes_of_parquet_are_text_but_in_the_column_of_audio(tmp_path: Path, audio: str):
    columns = {"text": [b"hello", None], audio: [b"RIFF", b"RIFF"], "rationale": [b"\xff\xfe", b"so"]}
    columns["label"] = pyarrow.array(["a", "b"]).dictionary_encode()
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "m.parquet")
    found = examine_manifest(tmp_path / "m.parquet", columns={"audio": audio})
    assert found.rows["text"][:] == ["hello", None] and found.rows["label"][:] == ["a", "b"]
    assert all(reference.startswith("arrow://") for reference in found.rows["audio"])
    assert [(issue.row, issue.column, issue.problem) for issue in found.issues] == [
        (1, "rationale", "holds a bytes; accepted: text")
    ]
    pyarrow.parquet.write_table(pyarrow.table({"text": [b"hello", b"you"]}), tmp_path / "n.parquet")
    assert [row["text"] for row in stream_manifest(tmp_path / "n.parquet")] == ["hello", "you"]


def test_a_folder_in_the_hub_s_format(folder: Path):
    (hub := folder / "hub").mkdir()
    (hub / "data").mkdir()
    for split in ("train", "test"):
        with_audio_inside(folder).to_parquet(hub / "data" / f"{split}-00000-of-00001.parquet")
    rows = load_manifest(hub, labels=LABELS)
    assert rows["split"][:] == ["train"] * 3 + ["test"] * 3
    assert rows["id"][:2] == ["train-00000-of-00001-1", "train-00000-of-00001-2"]
    check_audio_inside(load_manifest(hub, labels=LABELS, split="test"), folder)


def test_a_hub_folder_of_tables_guesses_nothing_and_names_the_file(
    write: Callable[..., Path], faults: Callable[..., list[str]], folder: Path
):
    (hub := folder / "hub").mkdir()
    write(hub / "train.csv", "id,text,label\n007,a,0\n008,b,5\n")
    write(hub / "test.csv", "id,text,label\n007,c,1\n")
    assert faults(hub, labels=LABELS) == [
        "train.csv, row 3, column label: '5' is unknown; accepted: negative, neutral, positive,"
        " or their indices 0 to 2",
        "test.csv, row 2, column id: '007' is the id of row 2 of train.csv too; accepted: each id once",
    ]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_the_readme_of_a_hub_folder_says_what_numbers_stand_for(
    write: Callable[..., Path], write_rows: Callable[..., Path], folder: Path, ending: str
):
    (hub := folder / "hub").mkdir()
    names = "\n".join(
        f"            '{i}': {name}" for i, name in enumerate(("positive", "negative", "neutral"))
    )
    card = "---\ndataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: label\n    dtype:\n"
    write(hub / "README.md", f"{card}      class_label:\n        names:\n{names}\n---\n")
    write_rows(hub / f"train.{ending}", [{"text": "a", "label": 0}, {"text": "b", "label": 2}])
    assert load_manifest(hub, labels=LABELS)["label"][:] == ["positive", "neutral"]


def test_files_of_one_name_in_a_hub_folder_give_each_row_its_id(
    write: Callable[..., Path], faults: Callable[..., list[str]], folder: Path
):
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


def test_a_hub_folder_of_audio_files(
    write: Callable[..., Path], faults: Callable[..., list[str]], folder: Path
):
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


def test_a_stream_brings_the_audio_inside_a_table(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mmsr.data.manifest.tables._STREAMED", 2)
    with_audio_inside(folder).to_parquet(folder / "m.parquet")
    rows = list(stream_manifest(folder / "m.parquet", labels=LABELS))
    inside = [(folder / "audio" / f"{name}.wav").read_bytes() for name in "ab"]
    assert [row["audio"] for row in rows] == [inside[0], None, inside[1]]
    assert [row["label"] for row in rows] == ["positive", "negative", "neutral"]
    assert [row["id"] for row in rows] == ["m-1", "m-2", "m-3"]
