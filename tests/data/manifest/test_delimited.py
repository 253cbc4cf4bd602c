"""csv and tsv as other programs write them: read as they are meant, or refused by name."""

import csv
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from mmsr.data.manifest.check.table import check_manifest
from mmsr.data.manifest.manifest import ManifestError, load_manifest, stream_manifest
from mmsr.data.manifest.tables import read_table

ReadAlike = Callable[..., list[str | None]]


def test_a_long_cell_is_read(tmp_path: Path, read_alike: ReadAlike):
    long = ("word " * 300_000).strip()
    (path := tmp_path / "long-cell.csv").write_text(
        f'id,text,label\na,"{long}",negative\nb,{long},positive\n'
    )
    assert read_alike(path) == [long, long]
    assert [row["text"] for row in read_table(path).rows] == [long, long]
    assert not [issue for issue in check_manifest(path).issues if issue.code == "quote-stray"]
    path = path.rename(tmp_path / "long-cell.tsv")
    path.write_text(f'id\ttext\na\t"{long}"\n')
    assert read_alike(path) == [long]


def test_a_cell_that_no_text_has_the_length_of_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mmsr.data.manifest.delimited.LONGEST_CELL", 1000)
    (path := tmp_path / "m.csv").write_text("id,text\na," + "w" * 1001 + "\nb,so\n")
    before = csv.field_size_limit()
    try:
        with pytest.raises(ManifestError, match=r"m.csv, row 2: cannot be read \(field larger than"):
            load_manifest(path)
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize("ending", ["csv", "tsv"])
@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_any_usual_delimiter_is_read(
    tmp_path: Path, read_alike: ReadAlike, caplog: pytest.LogCaptureFixture, mark: str, ending: str
):
    path = tmp_path / f"m.{ending}"
    texts = ["one, two; three | four", 'he said "so"', "two\nlines", "", "0,5;1,5"]
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=mark, quoting=csv.QUOTE_ALL)
        writer.writerows([["id", "text", "asr_text"], *([n, text, "x"] for n, text in enumerate(texts))])
    with caplog.at_level(logging.WARNING):
        assert read_alike(path) == [text or None for text in texts]
    own = mark == {"csv": ",", "tsv": "\t"}[ending]
    assert own == (f"m.{ending}: is read as separated by {mark!r}" not in caplog.text)
    assert read_table(path).columns == ["id", "text", "asr_text"]


@pytest.mark.parametrize(
    ("header", "rows", "columns"),
    [
        ('id,text,"mood (sad; angry; glad)"', "1,a;b;c,x", ["id", "text", "mood (sad; angry; glad)"]),
        ("text", "well; then, | so\n", ["text"]),
        ("id,text", "1,a; b\n2,c; d", ["id", "text"]),
        ("id;text", "1;a, b, c\n2;a, b", ["id", "text"]),
        ("id,text,a|b", "1,so,x", ["id", "text", "a|b"]),
    ],
)
def test_a_delimiter_inside_names_or_texts_divides_nothing(
    tmp_path: Path, header: str, rows: str, columns: list[str]
):
    (path := tmp_path / "m.csv").write_text(f"{header}\n{rows}\n")
    if columns == ["text"]:
        with pytest.raises(ManifestError, match="row 2: has 2 values; accepted: 1"):
            read_table(path)
    else:
        assert read_table(path).columns == columns


def test_a_line_that_names_the_delimiter_is_no_row(tmp_path: Path, read_alike: ReadAlike):
    path = tmp_path / "m.csv"
    for first in ("sep=;", '"sep=;"', "SEP=;;;"):
        path.write_bytes(f"{first}\r\nid;text\r\n1;so, so\r\n2;\r\n".encode("utf-8-sig"))
        with pytest.raises(ManifestError, match="m.csv, row 3, column audio: no audio"):
            load_manifest(path)
        path.write_bytes(f"{first}\r\nid;text\r\n1;so, so\r\n".encode("utf-8-sig"))
        assert read_alike(path) == ["so, so"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marks_and_line_ends_of_any_system(tmp_path: Path, read_alike: ReadAlike, encoding: str, end: str):
    content = end.join(["id\ttext\tlabel", "1\tschön\tneutral", '2\t"das, so"\tneutral', ""])
    (path := tmp_path / "m.csv").write_bytes(content.encode(encoding))
    assert read_alike(path) == ["schön", "das, so"]


def test_utf_16_without_its_mark_is_named(tmp_path: Path):
    for encoding in ("utf-16-le", "utf-16-be"):
        (path := tmp_path / "m.csv").write_bytes("id,text\n1,a\n".encode(encoding))
        with pytest.raises(ManifestError, match=r"m.csv: has NUL bytes in its first line, as UTF-16"):
            load_manifest(path)
        assert [issue.code for issue in check_manifest(path).issues] == ["not-utf-8"]


def test_nul_bytes_are_a_fault_of_their_row(tmp_path: Path):
    (path := tmp_path / "m.csv").write_bytes(b"id,text\n1,fine words\n2,th\0is\n3,good words\n\0\0\0\0\0\0")
    checked = check_manifest(path, audio=False)
    assert [(issue.row, issue.code) for issue in checked.issues] == [(3, "text-nul"), (5, "text-nul")]
    assert "m.csv, row 3: has NUL characters in value 2" in str(checked.issues[0])
    for read in (load_manifest, lambda path: list(stream_manifest(path)), read_table):
        with pytest.raises(ManifestError, match="row 3: has NUL characters"):
            read(path)


@pytest.mark.parametrize("content", ["id,text,\n1,so,\n2,no,\n", "id,text\n1,so,,\n2,no,\n,,,,\n"])
def test_delimiters_at_the_end_are_no_values(tmp_path: Path, read_alike: ReadAlike, content: str):
    (path := tmp_path / "m.csv").write_text(content)
    assert read_alike(path) == ["so", "no"]
    path.write_text("id,text\n1,so,,x\n2\n")
    with pytest.raises(ManifestError) as error:
        load_manifest(path)
    assert [issue.row for issue in error.value.issues] == [2, 3]


def test_spaces_and_marks_around_names(tmp_path: Path, read_alike: ReadAlike):
    (path := tmp_path / "m.csv").write_text(
        '\ufeff\ufeffid , text, label\n1,so, neutral\n2, "a, b", neutral\n'
    )
    assert read_alike(path) == ["so", "a, b"] and read_alike(path, "label") == ["neutral"] * 2
    path.write_text("id, text,text\n1,a,b\n")
    with pytest.raises(ManifestError, match="m.csv, row 1, column text: is in the header twice"):
        load_manifest(path)
    path.write_text("\n1,a,b\n")
    with pytest.raises(ManifestError, match="m.csv: has nothing in row 1; accepted: a header"):
        load_manifest(path)


@pytest.mark.parametrize(
    ("content", "what"), [(b"PK\x03\x04", "an xlsx or zip file"), (b"PAR1", "a parquet file")]
)
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_another_format_under_a_text_s_ending_is_named(
    tmp_path: Path, ending: str, content: bytes, what: str
):
    (path := tmp_path / f"m.{ending}").write_bytes(content + bytes(100))
    with pytest.raises(ManifestError, match=f"m.{ending}: is {what} by its content"):
        load_manifest(path)
