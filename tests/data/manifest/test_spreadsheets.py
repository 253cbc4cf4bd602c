"""xlsx as people make it: what is seen is read, and what cannot be is named by its cell."""

import datetime
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from openpyxl.cell.rich_text import CellRichText, TextBlock
from openpyxl.cell.text import InlineFont

from mmsr.data.manifest.check.table import check_manifest
from mmsr.data.manifest.manifest import ManifestError, load_manifest, stream_manifest
from mmsr.data.manifest.spreadsheets import MOST_CHARACTERS
from mmsr.data.manifest.tables import Table, read_table, write_table

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
SHEET, BOOK = "xl/worksheets/sheet1.xml", "xl/workbook.xml"
ReadAlike = Callable[..., list[str | None]]


def book(path: Path, *rows: list[Any], title: str = "Sheet") -> openpyxl.Workbook:
    made = openpyxl.Workbook()
    made.active.title = title
    for row in rows:
        made.active.append(row)
    made.save(path)
    return made


def rewrite(path: Path, change: Callable[[dict[str, str]], None]) -> None:
    """Change the members of an xlsx, as text."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name).decode() for name in archive.namelist()}
    before = dict(members)
    change(members)
    assert members != before
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def refusals(path: Path) -> list[str]:
    """The lines by which load and stream refuse, and which check tells too."""
    with pytest.raises(ManifestError) as loaded:
        load_manifest(path, check_audio=False)
    with pytest.raises(ManifestError) as streamed:
        list(stream_manifest(path))
    assert str(streamed.value) == str(loaded.value)
    lines = str(loaded.value).split("\n")
    assert set(lines) <= {str(issue) for issue in check_manifest(path, audio=False).issues}
    return lines


def test_formulas_without_values_are_named_by_their_cells(tmp_path: Path):
    header = ["id", "audio", "text", "label"]
    row = ["a", '=CONCATENATE("plain",".wav")', "so bad", '=IF(1>0,"negative","positive")']
    book(path := tmp_path / "formulas.xlsx", header, ["b", "b.wav", "so", "neutral"], row)
    accepted = "accepted: values, as Excel or LibreOffice writes them on saving the file"
    assert refusals(path) == [
        "formulas.xlsx, row 3, column audio: Sheet!B3 holds a formula without its value"
        f' (=CONCATENATE("plain",".wav")); {accepted}',
        "formulas.xlsx, row 3, column label: Sheet!D3 holds a formula without its value"
        f' (=IF(1>0,"negative","positive")); {accepted}',
    ]
    codes = [issue.code for issue in check_manifest(path, audio=False).issues if issue.row == 3]
    assert codes == ["formula-uncomputed"] * 2
    with pytest.raises(ManifestError, match="Sheet!B3"):  # a copy would lose them
        read_table(path)
    book(path, ["id", "text", "=A1"], ["a", "so", "x"])
    assert "formulas.xlsx, row 1: Sheet!C1 holds a formula" in refusals(path)[0]


def test_a_formula_s_placeholder_is_no_value(tmp_path: Path, read_alike: ReadAlike):
    book(path := tmp_path / "m.xlsx", ["text"], ["=A9"])
    formula = '<c r="A2"{kind}><f>A9</f>{value}</c>'

    def computed_as(kind: str, value: str) -> None:
        def change(members: dict[str, str]) -> None:
            given = re.sub('<c r="A2".*?</c>', formula.format(kind=kind, value=value), members[SHEET])
            members[SHEET] = given + "<!-- changed -->"

        rewrite(path, change)

    computed_as("", "<v>0</v>")  # XlsxWriter, which asks for a calculation on loading
    assert "Sheet!A2 holds a formula without its value (=A9)" in refusals(path)[0]
    computed_as(' t="str"', "")
    assert "Sheet!A2 holds a formula without its value (=A9)" in refusals(path)[0]
    computed_as(' t="str"', "<v>so</v>")
    assert read_alike(path) == ["so"]
    computed_as("", "<v>0</v>")
    rewrite(path, lambda members: members.update({BOOK: members[BOOK].replace(' fullCalcOnLoad="1"', "")}))
    assert read_alike(path) == ["0"]  # Excel's own


def test_a_formula_in_a_column_that_is_not_read_hinders_copies_alone(tmp_path: Path, read_alike: ReadAlike):
    book(path := tmp_path / "m.xlsx", ["id", "text", "words"], ["a", "so bad", "=LEN(B2)"])
    assert read_alike(path) == ["so bad"]
    with pytest.raises(ManifestError, match="row 2, column words: Sheet!C2 holds a formula"):
        read_table(path)


def test_computed_formulas_are_read(tmp_path: Path, read_alike: ReadAlike):
    book(path := tmp_path / "m.xlsx", ["id", "text", "asr_text"], ["a", "=A2", '=IF(1>0,"","x")'])

    def compute(members: dict[str, str]) -> None:  # as Excel saves them: a text, and one that is empty
        sheet = members[SHEET].replace("><f>A2</f><v></v>", ' t="str"><f>A2</f><v>so_x000D_bad</v>')
        formula = '><f>IF(1&gt;0,"","x")</f><v></v>'
        assert formula in sheet
        members[SHEET] = sheet.replace(formula, f' t="str"{formula}')

    rewrite(path, compute)
    assert read_alike(path) == ["so\rbad"] and read_alike(path, "asr_text") == [None]
    assert read_table(path).rows[0]["text"] == "so\rbad"


def test_errors_are_named_by_their_cells(tmp_path: Path):
    book(path := tmp_path / "m.xlsx", ["id", "text", "label", "note"], ["a", "#N/A", "#REF!", "#NAME?"])
    assert refusals(path) == [
        "m.xlsx, row 2, column text: Sheet!B2 holds the error #N/A; accepted: a value",
        "m.xlsx, row 2, column label: Sheet!C2 holds the error #REF!; accepted: a value",
    ]
    write_table(path, Table(["text"], [{"text": "#N/A"}], []))  # as a word
    assert load_manifest(path)["text"][:] == ["#N/A"]


def test_merged_cells_are_named(tmp_path: Path, read_alike: ReadAlike):
    rows = (["id", "text", "label"], ["a", "so bad", "negative"], ["b", "too bad", None], [None, None, None])
    made = book(path := tmp_path / "m.xlsx", *rows)
    made.active.merge_cells("A4:C5")  # nothing is in them
    made.save(path)
    assert read_alike(path, "label") == ["negative", None]
    made.active.merge_cells("C2:C3")
    made.save(path)
    assert refusals(path) == [
        "m.xlsx, row 2, column label: Sheet!C2:C3 is merged cells; accepted: a value in each cell"
    ]


def test_the_sheet_that_is_read_is_the_first_that_is_seen_and_named(
    tmp_path: Path, read_alike: ReadAlike, caplog: pytest.LogCaptureFixture
):
    made = book(path := tmp_path / "m.xlsx", ["text"], ["hidden"], title="Old")
    made.active.sheet_state = "hidden"
    made.create_chartsheet("Chart", 0)
    for title, text in (("Data", "seen"), ("More", "not read")):
        sheet = made.create_sheet(title)
        sheet.append(["text"])
        sheet.append([text])
    made.active = made["Data"]
    made.save(path)
    assert read_alike(path) == ["seen"]
    assert "m.xlsx: of 3 sheets, only 'Data' is read" in caplog.text
    assert [row["text"] for row in read_table(path).rows] == ["seen"]
    made["Data"]["A2"] = "=1+1"
    made.save(path)
    (line,) = refusals(path)
    assert line.startswith("m.xlsx, sheet 'Data', row 2, column text: Data!A2 holds a formula")
    made["Data"]["A1"] = made["Data"]["A2"] = "wrong"
    made.save(path)
    assert refusals(path)[0].startswith("m.xlsx, sheet 'Data': none of audio, text, asr_text is in the file")


def test_numbers_and_names_are_read_as_they_are_shown(tmp_path: Path, read_alike: ReadAlike):
    day, noon = datetime.datetime(2024, 1, 2), datetime.datetime(2024, 1, 2, 12)
    ids = [1.0, 2, 0.5, "007", 7, "1e5", day, noon, True, 12345678901234]
    made = book(path := tmp_path / "m.xlsx", ["id", "text"], *([id_, "so"] for id_ in ids))
    made.active["A6"].number_format = "0000"
    made.save(path)
    expected = ["1", "2", "0.5", "007", "0007", "1e5", "2024-01-02", "2024-01-02 12:00:00", "True"]
    assert read_alike(path, "id") == [*expected, "12345678901234"]
    write_table(tmp_path / "copy.csv", read_table(path))
    assert load_manifest(tmp_path / "copy.csv")["id"][:] == [*expected, "12345678901234"]


@pytest.mark.parametrize("value", [True, False, datetime.datetime(2024, 1, 2), datetime.time(1, 2)])
def test_words_that_became_dates_or_truth_values_are_told(tmp_path: Path, value: object):
    book(path := tmp_path / "m.xlsx", ["id", "text", "asr_text"], ["a", value, "so"])
    (line,) = refusals(path)
    assert line.startswith("m.xlsx, row 2, column text: holds ") and "which a spreadsheet makes" in line


def test_rich_text_and_escapes_are_read_as_they_are_shown(tmp_path: Path, read_alike: ReadAlike):
    rich = CellRichText("so ", TextBlock(InlineFont(b=True), "bad"), " it is")
    texts = [rich, "'tis", "a_x000D_\nb", "_x005F_x000D_", "_x005f_x0041_", "_xD83D_", "x005F_", " a "]
    book(path := tmp_path / "m.xlsx", ["text", None, None], *([text, None, None] for text in texts), [None])
    expected = ["so bad it is", "'tis", "a\r\nb", "_x000D_", "_x0041_", "_xD83D_", "x005F_", " a "]
    assert read_alike(path) == expected

    def share(members: dict[str, str]) -> None:  # in a table of texts, as Excel writes them
        items = "".join(f"<si><t xml:space='preserve'>{text}</t></si>" for text in ["text", *map(str, texts)])
        members["xl/sharedStrings.xml"] = f"<sst xmlns='{MAIN}'>{items}</sst>"
        kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
        part = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{kind}"/></Types>'
        members["[Content_Types].xml"] = members["[Content_Types].xml"].replace("</Types>", part)
        cells = "".join(f'<row r="{n + 1}"><c r="A{n + 1}" t="s"><v>{n}</v></c></row>' for n in range(9))
        members[SHEET] = f"<worksheet xmlns='{MAIN}'><sheetData>{cells}</sheetData></worksheet>"

    rewrite(path, share)
    assert read_alike(path) == expected


def test_what_xlsx_cannot_hold_is_told_and_nothing_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "m.xlsx"
    write_table(path, Table(["text"], [{"text": "w" * MOST_CHARACTERS}, {"text": "\x01" * 4681}], []))
    assert read_table(path).rows == [{"text": "w" * MOST_CHARACTERS}, {"text": "\x01" * 4681}]
    before = path.read_bytes()
    for text in ("w" * (MOST_CHARACTERS + 1), "😀" * 16_384, "\x01" * 4682):
        with pytest.raises(ManifestError, match=r"m.xlsx, row 3, column text: has 32,7\d\d characters; acc"):
            write_table(path, Table(["text"], [{"text": "so"}, {"text": text}], [2, 3]))
    monkeypatch.setattr("mmsr.data.manifest.spreadsheets.MOST_ROWS", 3)
    with pytest.raises(
        ManifestError, match=r"m.xlsx: has 3 rows; accepted by xlsx: 2 .*another format: .csv"
    ):
        write_table(path, Table(["text"], [{"text": "so"}] * 3, []))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
