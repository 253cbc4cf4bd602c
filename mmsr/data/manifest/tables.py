"""Table files: csv, tsv, jsonl, parquet, xlsx and datasets in the Hub's format.

    file | URL | folder or id of a Hub dataset ─► parts (one file each, perhaps with a split) ─► chunks
    file ─► Table (every column and value unchanged) ─► file, for commands that write a changed copy

Text tables are parsed by `delimited` and `spreadsheets`, since the readers of `datasets` guess types, fill or
cut ragged rows and lose row numbers. Audio inside a table (the Hub's `Audio` columns, or plain bytes) becomes
a reference to an Arrow file in the cache of `datasets`.

Row numbers are those that a person sees on opening the file: in csv, tsv and xlsx the header is row 1 (a cell
with line breaks is one row), in jsonl the first line, in parquet and Hub datasets the first row.
"""

import csv
import glob
import itertools
import json
import logging
import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, time
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import datasets
import fsspec  # type: ignore[import-untyped]
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from mmsr.data.manifest.delimited import DELIMITERS, NUL, open_text, records
from mmsr.data.manifest.issues import Issue, ManifestError, unreadable
from mmsr.data.storage import inside_stream, is_url, row_of_table, seen_from
from mmsr.extras import check_installed, install, is_installed, needed_for
from mmsr.files import atomic_write, check_output
from mmsr.messages import no_such_file

logger = logging.getLogger(__name__)

_CHUNK = 65_536  # rows
_STREAMED = 256  # rows with audio inside
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # the JSON escape of half a character
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")

Column: TypeAlias = pa.Array | Sequence[object]


@dataclass(frozen=True)
class Part:
    """One file of a table.

    Attributes:
        source: Path or URL.
        split: Split by the layout of a Hub dataset.
        dataset: The rows, if only `datasets` can read them.
        audio_column: Name of the column that has the audio.
        class_names: Names of the numbers in a column, from the dataset's README.
        called: Name in messages, if the file's name is ambiguous.
    """

    source: str
    split: str | None = None
    dataset: datasets.Dataset | None = None
    audio_column: str = "audio"
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    called: str | None = None

    @property
    def name(self) -> str:
        """Name in messages; with the folder if each folder has a file of this name."""
        if self.called is not None:
            return self.called
        folder, name = os.path.split(self.source.rstrip("/"))
        return f"{os.path.basename(folder)}/{name}" if name.startswith("metadata.") else name or self.source

    @property
    def stem(self) -> str:
        """Prefix of the ids of rows without an id."""
        if self.called is not None:
            return os.path.splitext(self.called)[0].replace("/", "-").removesuffix("-metadata")
        return os.path.splitext(self.name)[0].removesuffix("/metadata")

    @property
    def folder(self) -> str:
        """Folder to which its paths are relative."""
        if is_url(self.source):
            return self.source.rpartition("/")[0]
        path = os.path.abspath(self.source)
        return path if os.path.isdir(path) else os.path.dirname(path)


@dataclass(frozen=True)
class Chunk:
    """Some rows of a table.

    Attributes:
        numbers: Number `[n]` of each row as seen in the file.
        columns: Values `[n]` of each column, as an Arrow array or Python values.
        whole: Whether `columns` are all columns of the file.
        names: All columns of the file.
        called: Name of the file in messages, with the sheet of a book of several.
        inline: Audio of a streamed chunk by its reference.
    """

    numbers: np.ndarray
    columns: Mapping[str, Column]
    whole: bool
    names: Sequence[str]
    called: str | None = None
    inline: Mapping[str, bytes] = field(default_factory=dict)


def parts(source: str | os.PathLike[str]) -> list[Part]:
    """The files of a table: itself, or those of a Hub dataset (a folder, `ID` or `ID:CONFIGURATION`).

    Raises:
        ManifestError: It does not exist or has an unknown format.
    """
    name = os.fspath(source)
    known = _ending(name) in _READERS
    if known and (os.path.isfile(name) or is_url(name)):
        return [Part(name)]
    if not os.path.isfile(name):
        place, _, configuration = name.removeprefix("hf://datasets/").partition(":")
        if os.path.isdir(name):
            place, configuration = os.path.abspath(name), ""
        if os.path.isdir(place) or (_HUB_ID.fullmatch(place) and _ending(place) not in _READERS):
            return _hub_parts(name, place, configuration or None)
    if known:
        problem = no_such_file(name).removeprefix(f"{name}: ")
        raise unreadable(name, f"{problem}; accepted: a manifest file ({_ACCEPTED})")
    hint = " (.jsonl has one JSON object a line)" if _ending(name) == ".json" else ""
    raise unreadable(name, f"has the ending {_ending(name)!r}; accepted: {_ACCEPTED}{hint}")


def _hub_parts(name: str, place: str, configuration: str | None) -> list[Part]:
    """Files of a dataset in the Hub's format, or its rows if its files are no tables."""
    try:
        builder = datasets.load_dataset_builder(place, name=configuration)
        groups = (builder.config.data_files or {}).items()
        files = [(str(split), str(file)) for split, group in groups for file in group]
        metadata = [(split, file) for split, file in files if os.path.basename(file).startswith("metadata.")]
        tables = metadata or files
        if tables and all(_ending(file) in _READERS for _, file in tables):
            ambiguous = len({os.path.basename(file) for _, file in tables}) < len(tables)
            local = ambiguous and not is_url(files[0][1])  # train/data.csv and test/data.csv
            root = os.path.commonpath([file for _, file in files]) if local else None
            return [
                Part(
                    file,
                    split,
                    audio_column="file_name" if metadata else "audio",
                    class_names=_class_names(builder.info.features or {}),
                    called=None if root is None else os.path.relpath(file, root),
                )
                for split, file in tables
            ]
        if builder.name == "audiofolder":
            problem = "is a folder of audio files without metadata.csv"
            accepted = "a manifest, which `mmsr data convert --from folder` makes of it"
            raise unreadable(name, f"{problem}; accepted: {accepted}")
        loaded = datasets.load_dataset(place, name=configuration)
    except ManifestError:
        raise
    except (OSError, ValueError, ImportError, datasets.exceptions.DatasetsError) as error:
        if os.path.isdir(place) and not os.listdir(place):
            problem = "is an empty folder"
        else:
            problem = f"cannot be read as a dataset ({' '.join(str(error).split())[:300]})"
        accepted = f"a manifest file ({_ACCEPTED}), or a folder or id of a dataset in the Hub's format"
        raise unreadable(name, f"{problem}; accepted: {accepted}") from error
    return [Part(place, str(split), rows) for split, rows in loaded.items()]


def chunks(
    part: Part, wanted: Collection[str] | None, issues: list[Issue], *, stream: bool = False
) -> Iterator[Chunk]:
    """Read a part.

    The first chunk of csv, tsv and xlsx has the names of the columns and no rows.

    Args:
        part: One of `parts`.
        wanted: Columns to read; others may be left out. None for all.
        issues: Receives the issues of single rows.
        stream: Whether audio inside the table comes with the chunk instead of an Arrow file.

    Raises:
        ManifestError: The file cannot be read at all.
    """
    if part.dataset is not None:
        yield from _of_dataset(part, wanted)
        return
    if not is_url(part.source) and not os.path.getsize(part.source):
        raise unreadable(part.source, "is empty; accepted: a header and at least one row")
    try:
        with fsspec.open(part.source, "rb") as file:
            reader = _READERS[_ending(part.source)]
            for chunk in reader(part, file, issues, wanted=wanted, stream=stream):
                if part.class_names and _ending(part.source) != ".parquet":
                    named = {
                        name: _named(values, part.class_names.get(name))
                        for name, values in chunk.columns.items()
                    }
                    chunk = replace(chunk, columns=named)
                yield chunk
    except ManifestError:
        raise
    except UnicodeDecodeError as error:
        byte = f"byte {error.object[error.start]:#04x}"
        problem = f"is not {error.encoding.upper()} ({byte}); accepted: text saved as UTF-8"
        raise unreadable(part.source, problem, code="not-utf-8") from error
    except (OSError, ImportError) as error:  # ImportError: the package of a kind of URL
        reason = getattr(error, "strerror", None) or error
        raise unreadable(part.source, f"cannot be read: {reason}") from error


def as_list(values: Column) -> Sequence[object]:
    """A column's Python values."""
    return values.to_pylist() if isinstance(values, pa.Array) else values


def is_blank(value: object) -> bool:
    """Whether a value is None, NaN or only spaces."""
    return (
        value is None
        or (isinstance(value, str) and not value.strip())
        or (isinstance(value, float) and math.isnan(value))
    )


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


# ---------------------------------------------------------------------- rows of text


def _read_delimited(part: Part, file: BinaryIO, issues: list[Issue], **_: object) -> Iterator[Chunk]:
    read = enumerate(records(part.source, file, _ending(part.source)), start=1)
    first = next(read, (1, None))[1]
    if first is not None and first.code is not None:
        raise ManifestError([Issue(part.name, 1, None, first.problem, code=first.code)])
    header = _names(part.name, first.values if first is not None else [])
    yield _of_rows([], header)
    while some := list(itertools.islice(read, _CHUNK)):
        kept = []
        for number, record in some:
            values = _fitted(record.values, len(header))
            if record.code is not None:
                issues.append(Issue(part.name, number, None, record.problem, code=record.code))
            elif len(values) != len(header):
                problem = f"has {len(values)} values; accepted: {len(header)}, as the header has"
                issues.append(Issue(part.name, number, None, problem, code="ragged-row"))
            else:
                kept.append((number, values))
        columns = list(zip(*(values for _, values in kept), strict=True)) or [()] * len(header)
        yield Chunk(
            np.array([number for number, _ in kept], dtype=np.int64),
            {name: pa.array(column, pa.string()) for name, column in zip(header, columns, strict=True)},
            whole=True,
            names=header,
        )


def _fitted(values: list[str], width: int) -> list[str]:
    """The values without empty ones beyond the header; a row of nothing is blank, however long."""
    if len(values) == width:
        return values
    if not any(values):
        return [""] * width
    return values[:width] if not any(values[width:]) else values


def _read_jsonl(
    part: Part, file: BinaryIO, issues: list[Issue], *, wanted: Collection[str] | None, **_: object
) -> Iterator[Chunk]:
    text, head = open_text(part.source, file)
    if head.lstrip("\ufeff \t\r\n").startswith("["):
        raise unreadable(
            part.source, "is one JSON array; accepted: one JSON object a line, without [ ] and ,"
        )
    lines = enumerate(text, start=1)
    names: dict[str, None] = {}
    while some := list(itertools.islice(lines, _CHUNK)):
        rows: list[tuple[int, dict[str, object]]] = []
        for number, line in some:
            row, found = _json_row(line, wanted)
            names.update(dict.fromkeys(row))
            issues += (Issue(part.name, number, name, problem, code=code) for name, problem, code in found)
            if not found:
                rows.append((number, row))
        yield _of_rows(rows, list(names))


def _json_row(
    line: str, wanted: Collection[str] | None
) -> tuple[dict[str, object], list[tuple[str | None, str, str]]]:
    """A line's values, and its issues as column, problem and code."""
    try:
        values = json.loads(line) if line.strip() else {}
        if not isinstance(values, dict):
            problem = f"holds a {type(values).__name__}; accepted: one JSON object a line"
            return {}, [(None, problem, "ragged-row")]
        if line.count(":") > len(values):  # colons in a text, or a name twice
            json.loads(line, object_pairs_hook=_once)
    except _TwiceError as error:
        return {}, [(str(error), "is twice in the object; accepted: each name once", "column-twice")]
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        return {}, [(None, f"is not JSON ({reason}); accepted: one object a line", "ragged-row")]
    accepted = "accepted: both of its \\u escapes, or neither"
    halved = _halved(values, wanted) if _SURROGATE.search(line) else ()
    return values, [
        (name, f"{near!r} has half of a character; {accepted}", "text-surrogate") for name, near in halved
    ]


class _TwiceError(ValueError):
    """A name that is twice in a JSON object."""


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return values


def _halved(values: Mapping[str, object], wanted: Collection[str] | None) -> Iterator[tuple[str, str]]:
    """Columns with an unpaired surrogate, and the text around it."""
    for name, value in values.items():
        text = str(value)
        if (wanted is None or name in wanted) and (half := re.search("[\ud800-\udfff]", text)):
            yield name, text[max(0, half.start() - 20) : half.end() + 20]


def _read_xlsx(
    part: Part, file: BinaryIO, issues: list[Issue], *, wanted: Collection[str] | None, **_: object
) -> Iterator[Chunk]:
    if not is_installed("openpyxl"):
        raise unreadable(part.source, f"needs openpyxl to be read: {install('openpyxl')}")
    from mmsr.data.manifest.spreadsheets import Sheet

    try:
        sheet = Sheet(file)
        called = part.name
        if sheet.sheets > 1:
            logger.warning("%s: of %d sheets, only %r is read", part.name, sheet.sheets, sheet.name)
            called = f"{part.name}, sheet {sheet.name!r}"
        rows = sheet.rows()
        first = next(rows, None)
        cells = [] if first is None else first.values
        while cells and is_blank(cells[-1]):  # formatted cells without a value
            cells.pop()
        told = () if first is None else first.issues
        if faults := [Issue(called, 1, None, problem, code=code) for _, code, problem in told]:
            raise ManifestError(faults)
        header = _names(called, cells)
        yield replace(_of_rows([], header), called=called)
        while some := list(itertools.islice(rows, _CHUNK)):
            kept: list[tuple[int, dict[str, object]]] = []
            for row in some:
                found = []
                for place, code, problem in row.issues:
                    name = header[place] if place < len(header) else None
                    # a copy of all columns keeps an error as text, but would lose the others
                    if code != "cell-error" if wanted is None else name in wanted:
                        found.append(Issue(called, row.number, name, problem, code=code))
                if any(not is_blank(value) for value in row.values[len(header) :]):
                    problem = f"has values beyond the header; accepted: {len(header)} values"
                    issues.append(Issue(called, row.number, None, problem, code="ragged-row"))
                issues += found
                if not found:
                    named = itertools.zip_longest(header, row.values[: len(header)])
                    kept.append((row.number, dict(named)))
            yield replace(_of_rows(kept, header), called=called)
    except ManifestError:
        raise
    except Exception as error:  # a broken zip, xml or sheet shows as almost any exception
        raise unreadable(part.source, f"is no xlsx file ({error})") from error


def _of_rows(rows: Sequence[tuple[int, Mapping[str, object]]], names: Sequence[str]) -> Chunk:
    return Chunk(
        np.array([number for number, _ in rows], dtype=np.int64),
        {name: [values.get(name) for _, values in rows] for name in names},
        whole=True,
        names=list(names),
    )


def _names(called: str, header: Sequence[object]) -> list[str]:
    """A header's column names; one without a name, such as a data frame's index, is named by its place."""
    names = ["" if name is None else str(name).strip("\ufeff").strip() for name in header]
    if not any(names):
        raise unreadable(called, "has nothing in row 1; accepted: a header, and rows below it")
    names = [name or f"column {place}" for place, name in enumerate(names, start=1)]
    _check_names(called, names, row=1)
    return names


def _check_names(called: str, names: Sequence[str], *, row: int | None) -> None:
    """Refuse columns of the same name."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        problem = "is in the header twice; accepted: each column once"
        raise ManifestError([Issue(called, row, name, problem, code="column-twice") for name in twice])


# ---------------------------------------------------------------------- Arrow columns


def _read_parquet(
    part: Part, file: BinaryIO, issues: list[Issue], *, wanted: Collection[str] | None, stream: bool
) -> Iterator[Chunk]:
    try:
        table = pyarrow.parquet.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise unreadable(part.source, f"is no parquet file ({error})") from error
    schema = table.schema_arrow
    _check_names(part.name, schema.names, row=None)
    wanted = schema.names if wanted is None else wanted
    files = {name for name in wanted if name in schema.names and _holds_files(part, schema.field(name))}
    if files and not stream:
        # single rows can be read from an Arrow file, not from a parquet file
        held = datasets.Dataset.from_parquet(glob.escape(part.source))
        yield from _of_dataset(replace(part, dataset=held), wanted)
        return
    used = [name for name in schema.names if name in wanted]
    names = {**part.class_names, **_class_names(datasets.Features.from_arrow_schema(schema))}
    number = 1
    for batch in table.iter_batches(batch_size=_STREAMED if files else _CHUNK, columns=used):
        inline: dict[str, bytes] = {}
        columns: dict[str, Column] = {}
        for name, column in zip(used, batch.columns, strict=True):
            if name in files:
                references = [inside_stream(name, number + row) for row in range(len(batch))]
                columns[name] = _references(column, references)
                values = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
                inline |= zip(references, values.to_pylist(), strict=True)
            else:
                columns[name] = _named(_decoded(column), names.get(name))
        whole = len(used) == len(schema.names)
        numbers = np.arange(number, number + len(batch))
        yield Chunk(numbers, columns, whole=whole, names=schema.names, inline=inline)
        number += len(batch)


def _of_dataset(part: Part, wanted: Collection[str] | None) -> Iterator[Chunk]:
    """Rows that `datasets` holds in Arrow files, with references to the audio inside."""
    rows = part.dataset
    assert rows is not None
    used = [name for name in rows.column_names if wanted is None or name in wanted]
    names = {**part.class_names, **_class_names(rows.features)}
    first = 0
    for file in [entry["filename"] for entry in rows.cache_files]:
        table = datasets.Dataset.from_file(file).data
        for start in range(0, len(table), _CHUNK):
            some = table.slice(start, min(_CHUNK, len(table) - start))
            columns: dict[str, Column] = {}
            for name in used:
                column = some.column(name)
                if _holds_files(part, pa.field(name, column.type)):  # gigabytes, which are not copied
                    references = [row_of_table(file, name, start + row) for row in range(len(column))]
                    columns[name] = _references(column, references)
                else:
                    columns[name] = _named(_decoded(pa.concat_arrays(column.chunks)), names.get(name))
            yield Chunk(
                np.arange(first + start + 1, first + start + len(some) + 1),
                columns,
                whole=len(used) == len(rows.column_names),
                names=rows.column_names,
            )
        first += len(table)


def _class_names(features: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Names of the numbers in the Hub's class columns."""
    return {name: kind.names for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)}


def _named(column: Column, names: Sequence[str] | None) -> Column:
    if names is None:
        return column
    return [_class_name(value, names) for value in as_list(column)]


def _class_name(value: object, names: Sequence[str]) -> object:
    """A number's name; None for -1, the Hub's withheld label; other values unchanged."""
    text = str(value).strip()
    if text == "-1":
        return None
    return names[int(text)] if text.isdecimal() and int(text) < len(names) else value


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether values of this type hold files, as plain bytes or as the Hub's audio and images."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and holds_bytes(field.type) for field in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _holds_files(part: Part, field_: pa.Field) -> bool:
    """Whether a column holds files: bytes alone may be text, but in the column of the audio."""
    return holds_bytes(field_.type) and (field_.name == part.audio_column or pa.types.is_struct(field_.type))


def _decoded(column: pa.Array) -> Column:
    """Bytes that are UTF-8 as text, since not every program says that its bytes are text."""
    if not holds_bytes(column.type):
        return column
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        return [value if value is None else _text_or_bytes(value) for value in column.to_pylist()]


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _references(column: pa.Array | pa.ChunkedArray, references: Sequence[str]) -> list[str | None]:
    """For each value the reference to its bytes, or its path if it has no bytes, or None."""
    bytes_, paths = column, [None] * len(column)
    if pa.types.is_struct(column.type):
        bytes_ = pc.struct_field(column, "bytes")
        if column.type.get_field_index("path") >= 0:
            paths = pc.struct_field(column, "path").to_pylist()
    held = pc.is_valid(bytes_).to_pylist()
    return [
        reference if inside else path for reference, inside, path in zip(references, held, paths, strict=True)
    ]


_READERS: dict[str, Callable[..., Iterator[Chunk]]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".xlsx": _read_xlsx,
}
ENDINGS = tuple(_READERS)
_ACCEPTED = ", ".join(ENDINGS)


# ---------------------------------------------------------------------- copies with every column


@dataclass(frozen=True)
class Table:
    """A file's rows.

    Attributes:
        columns: Names in the order of the file.
        rows: Values by column: text from csv and tsv, any type from the others.
        numbers: Row number of each as seen in the file.
        schema: Types of a parquet file's columns, for a parquet copy.
    """

    columns: list[str]
    rows: list[dict[str, Any]]
    numbers: list[int]
    schema: pa.Schema | None = None

    def filled(self, column: str, values: Mapping[int, str | None]) -> "Table":
        """The table with values of a column set by row number; a new column is None elsewhere."""
        rows = [
            {**row, column: values.get(number, row.get(column))}
            for number, row in zip(self.numbers, self.rows, strict=True)
        ]
        return replace(self, columns=list(dict.fromkeys([*self.columns, column])), rows=rows)

    def moved(self, column: str, here: Path, there: Path) -> "Table":
        """The table with a column's relative paths, made relative to `there` instead of `here`."""

        def seen(path: object) -> object:
            return seen_from(path, here, there) if isinstance(path, str) and path.strip() else path

        if column not in self.columns:
            return self
        return replace(self, rows=[{**row, column: seen(row.get(column))} for row in self.rows])


def read_table(path: Path, *, without: Collection[str] = ()) -> Table:
    """Read a file, every column and value unchanged, but for the columns `without`.

    Raises:
        ManifestError: The file or a row of it cannot be read, or its ending is unknown.
    """
    if checked_ending(path) == ".parquet":
        try:
            schema = pyarrow.parquet.read_schema(path)
            _check_names(path.name, schema.names, row=None)
            table = pyarrow.parquet.read_table(path, columns=[n for n in schema.names if n not in without])
        except (pa.ArrowInvalid, OSError) as error:
            raise unreadable(os.fspath(path), f"is no parquet file ({error})") from error
        rows = table.to_pylist()
        return Table(table.column_names, rows, list(range(1, len(rows) + 1)), table.schema)
    part = Part(os.fspath(path))
    columns: dict[str, None] = {}
    kept: list[tuple[int, dict[str, Any]]] = []
    issues: list[Issue] = []
    for chunk in chunks(part, None, issues):
        columns |= dict.fromkeys(name for name in chunk.names if name not in without)
        for number, *row in zip(chunk.numbers.tolist(), *map(as_list, chunk.columns.values()), strict=True):
            if not all(is_blank(value) for value in row):
                named = zip(chunk.columns, row, strict=True)
                kept.append((number, {name: value for name, value in named if name not in without}))
    if issues:
        raise ManifestError(issues)
    return Table(list(columns), [row for _, row in kept], [number for number, _ in kept])


def column_names(path: Path) -> list[str]:
    """The columns of a csv, tsv or xlsx file.

    Raises:
        ManifestError: The file cannot be read, or its ending is unknown.
    """
    checked_ending(path)
    return list(next(chunks(Part(os.fspath(path)), (), [])).names)


def read_column(path: str | os.PathLike[str], column: str) -> dict[str, str]:
    """Read one column of a file, by the column `id`, without blank values.

    Raises:
        ManifestError: The file cannot be read, or its ending is unknown.
        ValueError: The file lacks the column, or `id`.
    """
    table = read_table(Path(path))
    for name in ("id", column):
        if name not in table.columns:
            raise ValueError(f"{path} has no column {name}; its columns: {', '.join(table.columns)}")
    return {str(row["id"]): str(row[column]) for row in table.rows if row[column]}


def write_table(path: Path, table: Table) -> None:
    """Write a table in the format of the path's ending; the file appears whole, by a rename.

    A value for which the format has no type is written as text: lists and objects as JSON, whole floats as
    integers.

    Raises:
        ManifestError: The ending is unknown, or the format cannot hold a value.
    """
    suffix = checked_ending(path)
    check_table(path, table)
    with atomic_write(path) as half:
        _WRITERS[suffix](half, table)


def check_table_output(path: Path, *, inputs: Sequence[str | os.PathLike[str]] = ()) -> None:
    """Refuse a file that `write_table` could not write, before the work for it begins.

    Raises:
        ValueError: Its ending is unknown, a package for it is missing, or see `check_output`.
    """
    if checked_ending(path) == ".xlsx":
        check_installed(str(path), "openpyxl")
    check_output(path, inputs=inputs)


def check_table(path: Path, table: Table) -> None:
    """Refuse a table that the format of the path's ending cannot hold, before more work is done for it.

    Raises:
        ManifestError: It has audio inside, or text that is too long, or more rows than the format allows.
    """
    suffix, name, columns = checked_ending(path), path.name, set(table.columns)
    if suffix == ".parquet":
        return
    for field_ in table.schema or ():
        if field_.name in columns and holds_bytes(field_.type):
            raise ManifestError([Issue(name, None, field_.name, _INSIDE)])
    for number, row in zip(table.numbers or itertools.count(1), table.rows, strict=False):
        for column, value in ((column, row.get(column)) for column in table.columns):
            if isinstance(value, bytes) or (isinstance(value, dict) and _has_bytes(value)):
                raise ManifestError([Issue(name, number, column, _INSIDE)])
            if isinstance(value, str) and suffix in DELIMITERS and NUL in value:
                problem = "has NUL characters, which a text table cannot hold; accepted: text without them"
                raise ManifestError([Issue(name, number, column, problem)])
    if suffix == ".xlsx":
        from mmsr.data.manifest.spreadsheets import limits

        other = f"; or another format: {', '.join(end for end in ENDINGS if end != suffix)}"
        found = limits(table.columns, _cells(table)[1:])
        if issues := [Issue(name, row or None, column or None, text + other) for row, column, text in found]:
            raise ManifestError(issues)


def _has_bytes(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_bytes, value.values()))
    return isinstance(value, bytes)


def checked_ending(path: Path) -> str:
    """A file's ending in lower case.

    Raises:
        ManifestError: It is unknown.
    """
    if (ending := path.suffix.lower()) not in _READERS:
        raise unreadable(os.fspath(path), f"has the ending {path.suffix!r}; accepted: {_ACCEPTED}")
    return ending


def _write_delimited(path: Path, table: Table) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = _cells(table)
        delimiter = DELIMITERS[path.suffix.lower()]
        # the csv module leaves a lone carriage return unquoted; in a tsv, only a quoted header tells that a
        # cell with line breaks is not several rows
        breaks = "\r\n" if delimiter == "\t" else "\r"
        broken = any(mark in value for row in rows for value in row if value for mark in breaks)
        quoting: Literal[0, 1] = csv.QUOTE_ALL if broken else csv.QUOTE_MINIMAL
        csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=quoting).writerows(rows)


def _write_jsonl(path: Path, table: Table) -> None:
    columns = set(table.columns)
    with open(path, "w", encoding="utf-8") as file:
        for row in table.rows:
            plain = {name: _json_number(value) for name, value in row.items() if name in columns}
            file.write(json.dumps(plain, ensure_ascii=False, default=_plain) + "\n")


def _json_number(value: object) -> object:
    """A value that JSON has: no NaN, which is a missing value, and no infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _write_parquet(path: Path, table: Table) -> None:
    types = {field.name: field.type for field in table.schema or ()}
    columns = {}
    for name in table.columns:
        values = [row.get(name) if name in types else cell_text(row.get(name)) for row in table.rows]
        columns[name] = pa.array(values, types.get(name, pa.string()))
    pyarrow.parquet.write_table(pa.table(columns), path)


def _write_xlsx(path: Path, table: Table) -> None:
    with needed_for(str(path)):
        from mmsr.data.manifest.spreadsheets import write_sheet
    write_sheet(path, _cells(table))


def _cells(table: Table) -> list[list[str | None]]:
    """The header and the rows as text."""
    return [[*table.columns], *([cell_text(row.get(name)) for name in table.columns] for row in table.rows)]


def cell_text(value: object) -> str | None:
    """A value as a person writes it: a whole float as an integer, a date without its time, NaN as nothing."""
    if isinstance(value, str):
        return value
    if is_blank(value):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime) and value.tzinfo is None and value.time() == time():
        return str(value.date())
    if isinstance(value, (list, dict, bytes)):
        return json.dumps(value, ensure_ascii=False, default=_plain)
    return str(value)


def _plain(value: object) -> str:
    """A value without a JSON type, as text."""
    if isinstance(value, bytes):
        raise ValueError(_INSIDE)
    return str(value)


_INSIDE = "audio inside a table goes into parquet alone; accepted: a copy that ends in .parquet"
_WRITERS: dict[str, Callable[[Path, Table], None]] = {
    ".csv": _write_delimited,
    ".tsv": _write_delimited,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
    ".xlsx": _write_xlsx,
}
