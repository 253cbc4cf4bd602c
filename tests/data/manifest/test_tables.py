"""A manifest's file as it is: every format into every other, with each column and value."""

import re
import zipfile

import pyarrow
import pyarrow.parquet
import pytest

from mmsr.data.manifest.manifest import load_manifest
from mmsr.data.manifest.tables import ENDINGS, Table, read_table, write_table


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
