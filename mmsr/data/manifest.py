"""A manifest: the table of utterances that training, prediction and evaluation read.

    csv | tsv | jsonl | parquet | xlsx ─► rows as typed ─► checks, one fault per line ─► datasets.Dataset

Every value is text and stays what it was: nothing guesses that `007` is a number or that `NA` is missing.
The table is parsed here rather than by `datasets`, whose readers guess types, fill or cut ragged rows, lose
row numbers and keep a cache; what comes out is a `datasets.Dataset` in memory.

Row numbers in messages are those that a person sees on opening the file: in csv, tsv and xlsx the header is
row 1 (a cell with line breaks is still one row), in jsonl the first line, in parquet the first row.
"""

import csv
import hashlib
import itertools
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import datasets
import numpy as np
import pyarrow.parquet

logger = logging.getLogger(__name__)

COLUMNS = ("id", "audio", "text", "asr_text", "label", "rationale", "language", "speaker", "split", "kind")
_UTTERANCE = ("audio", "text", "asr_text")  # a row needs one of them
_FEATURES = datasets.Features({column: datasets.Value("string") for column in COLUMNS})
_SHOWN_FAULTS = 20

Row = dict[str, str | None]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a manifest.

    Attributes:
        file: Name of the manifest.
        row: Row as seen in the file (module docstring), None for the table as a whole.
        column: Column's name, None for the row as a whole.
        problem: What is wrong, with the value, and what is accepted.
        code: Its kind, such as `label-unknown`, by which a check counts, filters and forgives.
        severity: A manifest with an error is refused, one with warnings is not.
    """

    file: str
    row: int | None
    column: str | None
    problem: str
    code: str = ""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        row = f", row {self.row}" if self.row is not None else ""
        column = f", column {self.column}" if self.column is not None else ""
        return f"{self.file}{row}{column}: {self.problem}"


class ManifestError(ValueError):
    """A manifest that cannot be used; the message has one line per fault, the first 20 and then a count.

    Attributes:
        faults: Every fault found, in the order of the rows.
    """

    def __init__(self, faults: Sequence[Fault]):
        self.faults = tuple(faults)
        lines = [str(fault) for fault in self.faults[:_SHOWN_FAULTS]]
        if (more := len(self.faults) - _SHOWN_FAULTS) > 0:
            lines.append(f"{self.faults[0].file}: {more} more faults, {len(self.faults)} in all")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type["ManifestError"], tuple[tuple[Fault, ...]]]:
        return type(self), (self.faults,)


@dataclass(frozen=True)
class ExaminedManifest:
    """What a manifest holds, and what is wrong in it.

    Attributes:
        rows: The rows that can be used so far as they can; a value with a fault is None.
        numbers: Number `[n]` of each of these rows as seen in the file (module docstring).
        faults: Every fault, those of the table first, then in the order of the rows.
    """

    rows: datasets.Dataset
    numbers: np.ndarray
    faults: tuple[Fault, ...]


def load_manifest(
    source: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    check_audio: bool = True,
    require: Sequence[str] = (),
) -> datasets.Dataset:
    """Read and check a manifest whole.

    Every row has exactly the columns `COLUMNS`, each text or None: a blank value is None, so is a column that
    the file lacks; `audio` is an absolute path; a missing `id` is `<file's stem>-<row number>`. Columns with
    other names are dropped, which is logged once; so is the number of blank rows.

    Args:
        source: A csv, tsv, jsonl, parquet or xlsx file (its first sheet). Text files are UTF-8.
        labels: The label set. Other labels are faults; a number that is not a label itself is its index.
        split: Keep the rows of this split alone. All rows are checked nevertheless.
        columns: Where a column has another name in the file, `{"rationale": "human_justification"}`.
        check_audio: Whether a missing audio file is a fault.
        require: Columns in which a missing value is a fault.

    Raises:
        ManifestError: The file cannot be read, or has faults; or no row is in `split`.
    """
    examined = examine_manifest(
        source, labels=labels, columns=columns, check_audio=check_audio, require=require
    )
    if examined.faults:
        raise ManifestError(examined.faults)
    return examined.rows if split is None else _in_split(examined.rows, split, Path(source))


def examine_manifest(
    source: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    check_audio: bool = True,
    require: Sequence[str] = (),
) -> ExaminedManifest:
    """Read a manifest whole, and say what is wrong in it instead of raising.

    Arguments and rows are `load_manifest`'s.

    Raises:
        ManifestError: The file cannot be read at all.
    """
    path = Path(source)
    rows = _Rows(path, labels=labels, columns=columns or {}, check_audio=check_audio, require=require)
    taken = ((number, rows.take(number, values)) for number, values in _read(path, rows.faults))
    table = [(number, row) for number, row in taken if row is not None]
    rows.check_table()
    values = {column: [row[column] for _, row in table] for column in COLUMNS}
    return ExaminedManifest(
        rows=datasets.Dataset.from_dict(values, features=_FEATURES),
        numbers=np.array([number for number, _ in table], dtype=np.int64),
        faults=tuple(rows.faults),
    )


def speaker_fold(
    rows: datasets.Dataset, *, fold: int, folds: int = 4, dev_speakers: int = 2, source: str = "manifest"
) -> dict[str, list[int]]:
    """Split rows by speaker: the sorted speakers are cut into `folds` runs, of which one is the test split.

    The `dev_speakers` speakers after it, cyclically, are the development split, the others the training
    split.

    `source` is the manifest's name in errors.

    Returns:
        Row numbers of `train`, `dev` and `test`.

    Raises:
        ManifestError: A row has no speaker, or there are too few speakers.
        ValueError: There is no such fold.
    """
    if not 0 <= fold < folds:
        raise ValueError(f"fold is {fold}; accepted: 0 to {folds - 1}, since folds is {folds}")
    column = rows["speaker"]
    if nameless := sum(speaker is None for speaker in column):
        problem = f"is missing in {nameless} rows; accepted: a speaker in each, for folds"
        raise ManifestError([Fault(source, None, "speaker", problem)])
    speakers = sorted(set(column))
    start, stop = (len(speakers) * part // folds for part in (fold, fold + 1))
    others = speakers[stop:] + speakers[:start]  # from the fold's end on, around
    if len(speakers) < folds or len(others) <= dev_speakers:
        problem = (
            f"has {len(speakers)} speakers; accepted: enough for {folds} folds,"
            f" {dev_speakers} development speakers and one to train on"
        )
        raise ManifestError([Fault(source, None, "speaker", problem)])
    chosen = {"train": others[dev_speakers:], "dev": others[:dev_speakers], "test": speakers[start:stop]}
    return {
        split: [row for row, speaker in enumerate(column) if speaker in names]
        for split, names in chosen.items()
    }


def fingerprint(dataset: datasets.Dataset) -> str:
    """Identify data by their content: 16 hex digits over the rows, in order, and their audio files' bytes.

    Where the audio files lie and what they are called does not count, so the same data in another folder or
    on another machine have the same fingerprint.

    Raises:
        OSError: An audio file cannot be read.
    """
    with ThreadPoolExecutor() as pool:
        paths = {path for path in dataset["audio"] if path is not None}
        sums = dict(zip(paths, pool.map(_file_digest, paths), strict=True))
    digest = hashlib.sha256()
    for row in dataset:
        content = {**row, "audio": sums.get(row["audio"])}
        digest.update(json.dumps(content, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()[:16]


def _file_digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _in_split(rows: datasets.Dataset, split: str, path: Path) -> datasets.Dataset:
    chosen = [row for row, name in enumerate(rows["split"]) if name == split]
    if not chosen:
        found = sorted({name for name in rows["split"] if name is not None})
        accepted = ", ".join(found) or "none, since no row names a split"
        raise ManifestError(
            [Fault(path.name, None, "split", f"no row is in {split!r}; accepted: {accepted}")]
        )
    return rows.select(chosen)


class _Rows:
    """Turns a table's raw rows into checked ones, one at a time, and collects the faults of the whole."""

    def __init__(
        self,
        path: Path,
        *,
        labels: Sequence[str] | None,
        columns: Mapping[str, str],
        check_audio: bool,
        require: Sequence[str],
    ):
        for name in (*columns, *require):
            if name not in COLUMNS:
                problem = f"is no manifest column; accepted: {', '.join(COLUMNS)}"
                raise ManifestError([Fault(path.name, None, name, problem)])
        self.path = path
        self.folder = os.path.abspath(path.parent)
        self.labels = None if labels is None else list(labels)
        self.source_of = {column: columns.get(column, column) for column in COLUMNS}
        self.renamed = dict(columns)
        self.check_audio = check_audio
        self.require = require
        self.faults: list[Fault] = []
        self.found: dict[str, None] = {}  # the file's columns, in order
        self.first_row_of: dict[str, int] = {}
        self.taken = 0
        self.blank = 0

    def take(self, number: int, values: Mapping[str, object]) -> Row | None:
        """The row with exactly `COLUMNS`, or None where it is blank."""
        self.found.update(dict.fromkeys(values))
        if all(_is_blank(value) for value in values.values()):
            self.blank += 1
            return None
        self.taken += 1
        row: Row = {
            column: self._text(number, column, values.get(name)) for column, name in self.source_of.items()
        }
        if all(row[column] is None for column in _UTTERANCE):
            self._fault(number, "audio", "no audio and no text; accepted: at least one of the two")
        for column in self.require:
            if row[column] is None:
                self._fault(number, column, f"is missing; accepted: {self._accepted(column)}")
        row["id"] = self._identity(number, row["id"])
        row["audio"] = self._audio(number, row["audio"])
        row["label"] = self._label(number, row["label"])
        return row

    def check_table(self) -> None:
        """Add the faults of the table as a whole, each in place of its echoes in every row."""
        name, found = self.path.name, ", ".join(self.found)
        if not self.taken and not self.faults:
            self.faults.append(Fault(name, None, None, "has no rows; accepted: at least one"))
        absent = {column for column in COLUMNS if self.source_of[column] not in self.found}
        reported = absent.intersection((*self.renamed, *self.require)) if self.taken else set()
        faults = [
            Fault(name, None, column, f"{self.source_of[column]!r} is not in the file; found: {found}")
            for column in COLUMNS
            if column in reported
        ]
        if self.taken and absent.issuperset(_UTTERANCE):
            problem = f"none of {', '.join(_UTTERANCE)} is in the file; found: {found}"
            faults.append(Fault(name, None, None, f"{problem}; accepted: {', '.join(COLUMNS)}"))
            reported.add("audio")  # where each row was told that it has neither
        self.faults[:] = faults + [fault for fault in self.faults if fault.column not in reported]
        if dropped := [column for column in self.found if column not in self.source_of.values()]:
            logger.warning("%s: columns not used: %s", name, ", ".join(dropped))
        if self.blank:
            logger.warning("%s: %d blank rows left out", name, self.blank)

    def _fault(self, number: int, column: str, problem: str) -> None:
        self.faults.append(Fault(self.path.name, number, column, problem))

    def _text(self, number: int, column: str, value: object) -> str | None:
        """A value as a person wrote it: 3.0 from a spreadsheet's or a table's float column is 3."""
        if _is_blank(value):
            return None
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        if isinstance(value, (list, dict, bytes)):
            self._fault(number, column, f"holds a {type(value).__name__}; accepted: text")
            return None
        return str(value)

    def _identity(self, number: int, identity: str | None) -> str:
        identity = f"{self.path.stem}-{number}" if identity is None else identity
        first = self.first_row_of.setdefault(identity, number)
        if first != number:
            self._fault(number, "id", f"{identity!r} is the id of row {first} too; accepted: each id once")
        return identity

    def _audio(self, number: int, audio: str | None) -> str | None:
        if audio is None:
            return None
        accepted = self._accepted("audio")
        if "://" in audio:
            self._fault(number, "audio", f"{audio!r} is a URL; accepted: {accepted}")
            return None
        path = os.path.normpath(os.path.join(self.folder, audio))
        if self.check_audio and not os.path.isfile(path):
            state = "is not a file" if os.path.exists(path) else "does not exist"
            self._fault(number, "audio", f"{audio!r} {state}; accepted: {accepted}")
        return path

    def _label(self, number: int, label: str | None) -> str | None:
        if label is None or self.labels is None or label in self.labels:
            return label
        if label.isdecimal() and int(label) < len(self.labels):
            return self.labels[int(label)]
        self._fault(number, "label", f"{label!r} is unknown; accepted: {self._accepted('label')}")
        return None

    def _accepted(self, column: str) -> str:
        if column == "audio":
            return "a path relative to the manifest's folder"
        if column == "label" and self.labels:
            return f"{', '.join(self.labels)}, or their indices 0 to {len(self.labels) - 1}"
        return "text"


def _is_blank(value: object) -> bool:
    return (
        value is None
        or (isinstance(value, str) and not value.strip())
        or (isinstance(value, float) and math.isnan(value))  # how data frames write a missing number
    )


# Each reader yields the row number that a person sees and the row's values by column. What is wrong with one
# row goes to `faults`; a file that cannot be read at all raises.
_RawRows = Iterator[tuple[int, Mapping[str, object]]]


def _read(path: Path, faults: list[Fault]) -> _RawRows:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        accepted = ", ".join(_READERS)
        raise _unreadable(path, f"has the ending {path.suffix!r}; accepted: {accepted}")
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise _unreadable(path, f"{state}; accepted: a manifest file ({', '.join(_READERS)})")
    if not path.stat().st_size:
        raise _unreadable(path, "is empty; accepted: a header and at least one row")
    try:
        yield from reader(path, faults)
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 (byte {error.object[error.start]:#04x}); accepted: text saved as UTF-8"
        raise _unreadable(path, problem) from error
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror or error}") from error


def _unreadable(path: Path, problem: str) -> ManifestError:
    return ManifestError([Fault(str(path), None, None, problem)])


def _read_csv(path: Path, faults: list[Fault]) -> _RawRows:
    return _read_delimited(path, ",", faults)


def _read_tsv(path: Path, faults: list[Fault]) -> _RawRows:
    return _read_delimited(path, "\t", faults)


def _read_delimited(path: Path, delimiter: str, faults: list[Fault]) -> _RawRows:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = _names(path, next(reader, []))
            for number, values in enumerate(reader, start=2):
                if not values:
                    yield number, {}
                elif len(values) == len(header):
                    yield number, dict(zip(header, values, strict=True))
                else:
                    problem = f"has {len(values)} values; accepted: {len(header)}, as the header has"
                    faults.append(Fault(path.name, number, None, problem))
        except csv.Error as error:
            problem = f"line {reader.line_num} cannot be read ({error}); accepted: valid csv"
            raise _unreadable(path, problem) from error


def _read_jsonl(path: Path, faults: list[Fault]) -> _RawRows:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            try:
                values = json.loads(line) if line.strip() else {}
            except json.JSONDecodeError as error:
                problem = f"is not JSON ({error.msg}); accepted: one object a line"
                faults.append(Fault(path.name, number, None, problem))
                continue
            if isinstance(values, dict):
                yield number, values
            else:
                problem = f"holds a {type(values).__name__}; accepted: one JSON object a line"
                faults.append(Fault(path.name, number, None, problem))


def _read_parquet(path: Path, faults: list[Fault]) -> _RawRows:
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise _unreadable(path, f"is no parquet file ({error})") from error
    with file:
        rows = (values for batch in file.iter_batches() for values in batch.to_pylist())
        yield from enumerate(rows, start=1)


def _read_xlsx(path: Path, faults: list[Fault]) -> _RawRows:
    try:
        import openpyxl
    except ImportError as error:
        raise _unreadable(path, "needs openpyxl to be read: pip install 'mmsr[xlsx]'") from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        if len(book.sheetnames) > 1:
            sheets = len(book.sheetnames)
            logger.warning("%s: of %d sheets, only %r is read", path.name, sheets, book.sheetnames[0])
        rows = book.worksheets[0].iter_rows(values_only=True)
        cells = list(next(rows, ()))
        while cells and _is_blank(cells[-1]):  # formatting alone can make a sheet wider
            cells.pop()
        header = _names(path, cells)
        for number, values in enumerate(rows, start=2):
            if any(not _is_blank(value) for value in values[len(header) :]):
                problem = f"has values beyond the header; accepted: {len(header)} values"
                faults.append(Fault(path.name, number, None, problem))
            yield number, dict(itertools.zip_longest(header, values[: len(header)]))
        book.close()
    except ManifestError:
        raise
    except Exception as error:  # a broken zip, xml or sheet shows as almost any exception
        raise _unreadable(path, f"is no xlsx file ({error})") from error


def _names(path: Path, header: Sequence[object]) -> list[str]:
    """A header's column names; one without a name, as a data frame's index, is called by its place."""
    names = [
        f"column {place}" if _is_blank(name) else str(name) for place, name in enumerate(header, start=1)
    ]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        problem = "is in the header twice; accepted: each column once"
        raise ManifestError([Fault(path.name, 1, name, problem) for name in twice])
    return names


_READERS: dict[str, Callable[[Path, list[Fault]], _RawRows]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".xlsx": _read_xlsx,
}
