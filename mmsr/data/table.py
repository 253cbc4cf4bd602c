"""A manifest's file as it is, every column and value, for commands that write a changed copy of it.

    csv | tsv | jsonl | parquet | xlsx ─► columns, rows as typed ─► csv | tsv | jsonl | parquet | xlsx

`mmsr.data.manifest` reads what the model uses, and checks it; here nothing is interpreted, renamed or left
out but blank rows, so that a copy keeps the columns of which mmsr knows nothing. Read the file through
`examine_manifest` first: what is wrong in it is told there.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")


@dataclass(frozen=True)
class Table:
    """A file's rows.

    Attributes:
        columns: Names in the file's order; in jsonl in the order in which they first occur.
        rows: Values by column, as typed: text from csv and tsv, anything from the others.
        numbers: Row of each as `mmsr.data.manifest` counts them.
        schema: Types of a parquet file's columns, by which a parquet copy keeps them.
    """

    columns: list[str]
    rows: list[dict[str, Any]]
    numbers: list[int]
    schema: pyarrow.Schema | None = None

    def filled(self, column: str, values: Mapping[int, str | None]) -> Table:
        """The table with a column's values, by row number; other rows keep theirs, None in a new column."""
        rows = [
            {**row, column: values.get(number, row.get(column))}
            for number, row in zip(self.numbers, self.rows, strict=True)
        ]
        return replace(self, columns=list(dict.fromkeys([*self.columns, column])), rows=rows)

    def moved(self, column: str, here: Path, there: Path) -> Table:
        """The table with a column's relative paths, relative to one folder, as seen from another."""

        def seen(path: object) -> object:
            if not isinstance(path, str) or not path.strip() or "://" in path or os.path.isabs(path):
                return path
            return os.path.relpath(os.path.join(os.path.abspath(here), path), os.path.abspath(there))

        if column not in self.columns:
            return self
        return replace(self, rows=[{**row, column: seen(row.get(column))} for row in self.rows])


def read_table(path: Path) -> Table:
    """Read a file that `examine_manifest` has read without a fault.

    Raises:
        ValueError: The file's ending is none of `ENDINGS`.
    """
    suffix = checked_ending(path)
    if suffix == ".parquet":
        table = pyarrow.parquet.read_table(path)
        rows = table.to_pylist()
        return Table(table.column_names, rows, list(range(1, len(rows) + 1)), table.schema)
    numbered = [(number, row) for number, row in _READERS[suffix](path) if not _is_blank(row)]
    columns = list(dict.fromkeys(name for _, row in numbered for name in row))
    return Table(columns, [row for _, row in numbered], [number for number, _ in numbered])


def write_table(path: Path, table: Table) -> None:
    """Write a table in the format that the ending names; the file appears whole, by rename.

    Where the format has no type for a value it is written as text, lists and objects as JSON, and a whole
    float as an integer, as a manifest reads it.

    Raises:
        ValueError: The file's ending is none of `ENDINGS`.
    """
    suffix = checked_ending(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}{suffix}")  # openpyxl reads the format off the name
    try:
        _WRITERS[suffix](half, table)
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)


def checked_ending(path: Path) -> str:
    """A file's ending in lower case.

    Raises:
        ValueError: It is none of `ENDINGS`.
    """
    suffix = path.suffix.lower()
    if suffix not in ENDINGS:
        raise ValueError(f"{path} has the ending {path.suffix!r}; accepted: {', '.join(ENDINGS)}")
    return suffix


def _is_blank(row: Mapping[str, object]) -> bool:
    return all(value is None or (isinstance(value, str) and not value.strip()) for value in row.values())


def _read_delimited(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=_DELIMITERS[path.suffix.lower()], strict=True)
        header = _names(next(reader))
        for number, values in enumerate(reader, start=2):
            yield number, dict(zip(header, values, strict=True)) if values else {}


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            yield number, json.loads(line) if line.strip() else {}


def _read_xlsx(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    rows = book.worksheets[0].iter_rows(values_only=True)
    cells = list(next(rows))
    while cells and cells[-1] is None:  # formatting alone can make a sheet wider
        cells.pop()
    header = _names(cells)
    for number, values in enumerate(rows, start=2):
        yield number, dict(zip(header, values, strict=False))
    book.close()


def _names(header: Sequence[object]) -> list[str]:
    """Column names; one without a name is called by its place, as a manifest calls it."""
    return [str(name) if str(name or "").strip() else f"column {i}" for i, name in enumerate(header, start=1)]


def _write_delimited(path: Path, table: Table) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=_DELIMITERS[path.suffix.lower()], lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows(_cells(table.rows, table.columns))


def _write_jsonl(path: Path, table: Table) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for row in table.rows:
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def _write_parquet(path: Path, table: Table) -> None:
    known = {} if table.schema is None else {field.name: field for field in table.schema}
    columns = {}
    for name in table.columns:
        values = [row.get(name) for row in table.rows]
        if name in known:
            columns[name] = pyarrow.array(values, known[name].type)
        else:  # as a manifest has it
            columns[name] = pyarrow.array([_cell(value) for value in values], pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def _write_xlsx(path: Path, table: Table) -> None:
    try:
        import openpyxl
    except ImportError as error:
        raise ValueError(f"{path} needs openpyxl to be written: pip install 'mmsr[xlsx]'") from error
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet()
    sheet.append(table.columns)
    for values in _cells(table.rows, table.columns):
        sheet.append(values)
    book.save(path)


def _cells(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[list[str | None]]:
    return ([_cell(row.get(name)) for name in columns] for row in rows)


def _cell(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)


_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_READERS: dict[str, Callable[[Path], Iterator[tuple[int, dict[str, Any]]]]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_jsonl,
    ".xlsx": _read_xlsx,
}
_WRITERS: dict[str, Callable[[Path, Table], None]] = {
    ".csv": _write_delimited,
    ".tsv": _write_delimited,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
    ".xlsx": _write_xlsx,
}
