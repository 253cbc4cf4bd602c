"""Excel's xlsx files by openpyxl, with what it would leave out or change without a word.

    file ─► first visible sheet ─► rows of values, each with the issues of its cells

A formula that no program has computed, an error such as #N/A, and merged cells are issues that name the cell,
as `Sheet!B2`. XlsxWriter gives such a formula the value 0, and asks for a calculation on loading. Characters
that XML cannot hold are written as `_xHHHH_` as Excel writes them (ECMA-376 part 1, 22.4.2.4, ST_Xstring),
and read back.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree.ElementTree import Element, iterparse

from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.cell.text import Text
from openpyxl.reader.excel import ExcelReader
from openpyxl.utils import get_column_letter, range_boundaries
from openpyxl.utils.cell import coordinate_to_tuple
from openpyxl.xml.constants import SHARED_STRINGS

MOST_ROWS, MOST_COLUMNS, MOST_CHARACTERS = 1_048_576, 16_384, 32_767  # Excel's
_ESCAPE = re.compile(r"_x([0-9a-fA-F]{4})_")
_TO_ESCAPE = re.compile("[\x00-\x08\x0b-\x1f\ufffe\uffff]|_(?=x[0-9a-fA-F]{4}_)")
_TO_SCAN = re.compile(rb"<(?:\w+:)?(?:f|mergeCell)[\s/>]")
_PENDING = re.compile(rb"""<(?:\w+:)?calcPr\s[^>]*fullCalcOnLoad\s*=\s*["'](?:1|true)["']""")
_PIECE = 2**20  # bytes


@dataclass(frozen=True)
class Row:
    """A row of a sheet.

    Attributes:
        number: Its number, from 1.
        values: Its values; leading zeros that a cell's format shows are in them.
        issues: Place from 0, code and problem of cells.
    """

    number: int
    values: list[Any]
    issues: list[tuple[int, str, str]]


@dataclass
class _Scan:
    """What openpyxl does not tell of a sheet that is read row by row."""

    uncomputed: dict[int, dict[int, str]] = field(default_factory=dict)  # formulas by row and column, from 1
    merged: dict[int, list[tuple[int, int, str]]] = field(default_factory=dict)  # columns and name, by row


class _Reader(ExcelReader):
    """openpyxl's reader without its replacement of `x005F_`, which loses what is escaped."""

    def read_strings(self) -> None:
        """Read the texts that several cells may share."""
        part = self.package.find(SHARED_STRINGS)
        if part is None:
            return
        with self.archive.open(part.PartName[1:]) as source:
            for _, node in iterparse(source):
                if _name(node) == "si":
                    self.shared_strings.append(Text.from_tree(node).content)
                    node.clear()

    def read_chartsheet(self, sheet: object, rel: object) -> None:
        """Leave out a chart's sheet, which has no rows."""


class Sheet:
    """The first visible worksheet of a book.

    Args:
        file: The xlsx file.

    Attributes:
        name: Its name.
        sheets: Number of worksheets of the book.

    Raises:
        Exception: Almost any, if the file is broken.
    """

    def __init__(self, file: BinaryIO) -> None:
        reader = _Reader(file, read_only=True, data_only=True)
        reader.read()
        sheets = reader.wb.worksheets
        if not sheets:
            raise ValueError("it has no worksheet")
        self._sheet = next((sheet for sheet in sheets if sheet.sheet_state == "visible"), sheets[0])
        self._sheet.reset_dimensions()  # the stated ones may be too small
        self.name: str = self._sheet.title
        self.sheets = len(sheets)
        paths = {sheet.name: relation.target for sheet, relation in reader.parser.find_sheets()}
        # openpyxl takes an absent attribute for true
        pending = _PENDING.search(reader.archive.read(reader.parser.workbook_part_name)) is not None
        self._scan = _scanned(reader.archive, paths[self.name], pending=pending)

    def rows(self) -> Iterator[Row]:
        """The rows, the header first."""
        for number, cells in enumerate(self._sheet.iter_rows(), start=1):
            values: list[Any] = []
            issues: list[tuple[int, str, str]] = []
            for place, cell in enumerate(cells):
                value = cell.value
                if value is not None and cell.data_type == "e":
                    problem = f"{self._cell(number, place)} holds the error {value}; accepted: a value"
                    issues.append((place, "cell-error", problem))
                values.append(_value(cell))
            for column, formula in self._scan.uncomputed.get(number, {}).items():
                shown = f"={formula[:60]}" if formula else "which another cell has"
                problem = (
                    f"{self._cell(number, column - 1)} holds a formula without its value ({shown});"
                    " accepted: values, as Excel or LibreOffice writes them on saving the file"
                )
                issues.append((column - 1, "formula-uncomputed", problem))
            for first, last, name in self._scan.merged.get(number, ()):
                if first <= len(values) and str(values[first - 1] or "").strip():
                    problem = f"{self.name}!{name} is merged cells; accepted: a value in each cell"
                    issues += ((place, "cells-merged", problem) for place in range(first - 1, last))
            yield Row(number, values, issues)

    def _cell(self, number: int, place: int) -> str:
        return f"{self.name}!{get_column_letter(place + 1)}{number}"


def _value(cell: Any) -> Any:
    """A cell's value: text with its escapes decoded, and a whole number with the zeros that are shown."""
    value = cell.value
    if isinstance(value, str):
        return _ESCAPE.sub(_decoded, value) if "_x" in value else value
    if type(value) is int and value >= 0 and re.fullmatch("00+", shown := cell.number_format or ""):
        return f"{value:0{len(shown)}d}"
    return value


def _decoded(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return match[0] if "\ud800" <= character <= "\udfff" else character


def _scanned(archive: Any, path: str, *, pending: bool) -> _Scan:
    """Formulas without values and merged cells, which a second pass finds if there can be any."""
    found = _Scan()
    with archive.open(path) as source:
        kept = b""
        while piece := source.read(_PIECE):
            if _TO_SCAN.search(kept + piece):
                break
            kept = piece[-32:]
        else:
            return found
    row = column = 0
    with archive.open(path) as source:
        for event, node in iterparse(source, events=("start", "end")):
            name = _name(node)
            if event == "start":
                if name == "row":
                    row, column = int(float(node.get("r", row + 1))), 0
                continue
            if name == "c":
                column = coordinate_to_tuple(node.get("r"))[1] if node.get("r") else column + 1
                if (formula := _uncomputed(node, pending=pending)) is not None:
                    found.uncomputed.setdefault(row, {})[column] = formula
                node.clear()
            elif name == "row":
                node.clear()
            elif name == "mergeCell":
                first, top, last, bottom = range_boundaries(node.get("ref"))
                if (first, top) != (last, bottom):
                    found.merged.setdefault(top, []).append((first, last, str(node.get("ref"))))
    return found


def _uncomputed(cell: Element, *, pending: bool) -> str | None:
    """The formula of a cell without its value; None if it has a value, which may be empty text.

    Of a book whose calculation is `pending`, 0 is no value.
    """
    parts = {_name(part): part for part in cell}
    value = parts["v"].text or "" if "v" in parts else None
    has_value = value is not None if cell.get("t") == "str" else bool(value)
    if "f" not in parts or (has_value and not (pending and value == "0")):
        return None
    return parts["f"].text or ""


def _name(node: Element) -> str:
    return node.tag.rpartition("}")[2]


def limits(columns: Sequence[str], rows: Sequence[Sequence[str | None]]) -> Iterator[tuple[int, str, str]]:
    """What of a table xlsx cannot hold: row number (0 for the table), column and problem."""
    if len(rows) >= MOST_ROWS:
        yield 0, "", f"has {len(rows):,} rows; accepted by xlsx: {MOST_ROWS - 1:,} below the header"
    if len(columns) > MOST_COLUMNS:
        yield 0, "", f"has {len(columns):,} columns; accepted by xlsx: {MOST_COLUMNS:,}"
    for number, values in enumerate(rows, start=2):
        for name, value in zip(columns, values, strict=True):
            if value is not None and len(value) > MOST_CHARACTERS // 7:  # an escape has seven characters
                length = len(_escaped(value).encode("utf-16-le", "surrogatepass")) // 2
                if length > MOST_CHARACTERS:
                    yield number, name, f"has {length:,} characters; accepted by xlsx: {MOST_CHARACTERS:,}"


def write_sheet(path: Path, rows: Iterable[Sequence[str | None]]) -> None:
    """Write a book with one sheet of text."""
    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sheet")
    for values in rows:
        cells = [WriteOnlyCell(sheet, None if value is None else _escaped(value)) for value in values]
        for cell in cells:
            if cell.value is not None:
                cell.data_type = "s"  # text that begins with = is no formula
        sheet.append(cells)
    book.save(path)


def _escaped(text: str) -> str:
    return _TO_ESCAPE.sub(lambda match: f"_x{ord(match[0]):04X}_", text)
