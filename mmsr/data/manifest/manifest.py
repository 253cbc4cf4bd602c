"""Manifests: the tables of utterances for training, prediction and evaluation.

    csv | tsv | jsonl | parquet | xlsx | Hub dataset ─► chunks of columns ─► checks ─► datasets.Dataset

Every value is text and is not changed: `007` is no number, and `NA` is not missing. Checks run over whole
columns, and a table of more than 64 MB is kept on disk and mapped into memory, so that a million rows open in
seconds. Audio is a path or a URL (`mmsr.data.storage`), decoded when it is used.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, time, timedelta
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets.table import InMemoryTable

from mmsr.data.manifest.issues import Issue, ManifestError
from mmsr.data.manifest.tables import Chunk, Column, Part, as_list, cell_text, chunks, is_blank, parts
from mmsr.data.storage import digest, missing, resolve, shown
from mmsr.languages import language_code
from mmsr.records import Utterance, read_chunks, read_soft_label

logger = logging.getLogger(__name__)

COLUMNS = ("id", "audio", "text", "asr_text", "label", "rationale", "language", "speaker", "split", "kind")
DURATION = "duration"  # optional: seconds of audio
ASR_WORDS = "asr_words"  # optional: a recogniser's words with their times, as JSON
SOFT_LABEL = "soft_label"  # optional: the probability of each label, or annotators' votes, as JSON
OPTIONAL = (DURATION, ASR_WORDS, SOFT_LABEL)
_UTTERANCE = ("audio", "text", "asr_text")  # a row needs one of them
_READ = (*COLUMNS, *OPTIONAL)
_ORDER = ("audio", *(column for column in _READ if column != "audio"))  # of the issues of a row
_FEATURES = datasets.Features(
    {column: datasets.Value("string") for column in COLUMNS}
    | {DURATION: datasets.Value("float64")}
    | {name: datasets.Value("string") for name in (ASR_WORDS, SOFT_LABEL)}
)
_IN_MEMORY = 64 * 2**20  # bytes; a larger table is kept on disk
_SHOWN_LABELS = 20
_scratch: list[tempfile.TemporaryDirectory[str]] = []  # of tables on disk; removed at exit

Row = dict[str, Any]


@dataclass(frozen=True)
class ExaminedManifest:
    """A manifest's rows and its issues.

    Attributes:
        rows: The usable rows; a value with an issue is None.
        numbers: Number `[n]` of each of these rows as seen in its file (`mmsr.data.manifest.tables`).
        issues: Every issue, those of the table first, then by row.
        columns: All columns of the file.
        name: Name of the file in messages, with the sheet of a book of several.
    """

    rows: datasets.Dataset
    numbers: np.ndarray
    issues: tuple[Issue, ...]
    columns: tuple[str, ...]
    name: str


def load_manifest(
    source: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    label_map: Mapping[str, str] | None = None,
    check_audio: bool = True,
    require: Sequence[str] = (),
) -> datasets.Dataset:
    """Read and check a manifest.

    Rows have exactly the columns `COLUMNS`, each text or None: a blank value and a missing column are None;
    `audio` is an absolute path or a URL; a missing `id` is `<file's stem>-<row number>`. A column `duration`
    (seconds of audio) is kept as numbers, and `asr_words` (`mmsr.records.read_chunks`) and `soft_label`
    (`mmsr.records.read_soft_label`) as their JSON, where the file has them. Other columns are dropped.
    Dropped columns and the number of blank rows are logged.

    Args:
        source: A csv, tsv, jsonl, parquet or xlsx file (its first visible sheet), as a path or a URL that
            fsspec knows; or a folder or id of a dataset in the Hub's format (`owner/name`,
            `owner/name:config`), whose splits become the column `split`. Text files are UTF-8, or UTF-16 with
            its mark; `mmsr.data.manifest.delimited` tells the delimiter of a csv.
        labels: The label set. Other labels are issues; a number that is not a label is an index.
        split: Return only rows of this split. All rows are checked.
        columns: Where a column has another name in the file, `{"rationale": "human_justification"}`.
        label_map: Labels by their name in the file, `{"pos": "positive"}`. A name that no row has is logged.
        check_audio: Whether a missing audio file is an issue. URLs are not requested.
        require: Columns in which a missing value is an issue.

    Raises:
        ManifestError: The file cannot be read or has issues, or no row is in `split`.
    """
    examined = examine_manifest(
        source,
        labels=labels,
        columns=columns,
        label_map=label_map,
        check_audio=check_audio,
        require=require,
    )
    if examined.issues:
        raise ManifestError(examined.issues)
    if split is None:
        return examined.rows
    chosen = rows_with(examined.rows, "split", [split])
    if not len(chosen):
        accepted = ", ".join(distinct(examined.rows, "split")) or "none, since no row names a split"
        problem = f"no row is in {split!r}; accepted: {accepted}"
        raise ManifestError([Issue(os.path.basename(source), None, "split", problem, code="split-empty")])
    return examined.rows.select(chosen)


def examine_manifest(
    source: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    label_map: Mapping[str, str] | None = None,
    check_audio: bool = True,
    require: Sequence[str] = (),
) -> ExaminedManifest:
    """Read a manifest and return its issues instead of raising them.

    Arguments and rows as of `load_manifest`.

    Raises:
        ManifestError: The file cannot be read at all.
    """
    table = _Table(source, labels, columns or {}, label_map or {}, check_audio, require)
    for part in map(table.begin, parts(source)):
        broken: list[Issue] = []
        for chunk in chunks(part, table.wanted, broken):
            table.keep(*table.take(chunk))
        table.add(broken)
    return table.finish()


def stream_manifest(
    source: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    label_map: Mapping[str, str] | None = None,
    check_audio: bool = False,
    require: Sequence[str] = (),
) -> Iterator[Row]:
    """Read a manifest row by row, for one that fits neither in memory nor on disk.

    Arguments and rows as of `load_manifest`, except that audio inside a table comes as bytes, and that ids
    and unused names of `label_map` are not checked.

    Yields:
        Rows, `{column: text or None}`, with the optional columns that the file has, `duration` as a number.

    Raises:
        ManifestError: The file cannot be read; or a chunk of rows has issues, before its first row.
    """
    for part in parts(source):
        if split is not None and part.split not in (None, split):
            continue
        table = _Table(source, labels, columns or {}, label_map or {}, check_audio, require)
        broken: list[Issue] = []
        for chunk in chunks(table.begin(part), table.wanted, broken, stream=True):
            rows, numbers = table.take(chunk)
            table.add(broken)
            if issues := table.issues(len(numbers), streamed=True):
                raise ManifestError(issues)
            rows = rows.drop_columns(table.lacking)
            for row in rows.to_pylist():
                if split is not None and row["split"] != split:
                    continue
                yield {**row, "audio": chunk.inline.get(row["audio"], row["audio"])}


def utterances(rows: datasets.Dataset) -> list[Utterance]:
    """A manifest's rows as records in memory."""
    return [Utterance.from_row(row) for row in rows.to_list()]


def column_of(rows: datasets.Dataset, column: str) -> pa.ChunkedArray:
    """A column `[n]` in Arrow; `datasets` would gather selected rows one by one, sixty times slower."""
    values = rows.data.column(column)
    return values if rows._indices is None else values.take(rows._indices.column(0))


def distinct(rows: datasets.Dataset, column: str) -> list[str]:
    """A column's distinct values, sorted, without None."""
    return sorted(value for value in pc.unique(column_of(rows, column)).to_pylist() if value is not None)


def rows_with(rows: datasets.Dataset, column: str, values: Sequence[str]) -> np.ndarray:
    """Numbers `[n]` of the rows whose value in a column is one of `values`."""
    wanted = pa.array(list(values), pa.string())
    return np.flatnonzero(pc.is_in(column_of(rows, column), value_set=wanted).to_numpy())


def rows_in_languages(rows: datasets.Dataset, languages: Sequence[str]) -> tuple[datasets.Dataset, list[str]]:
    """The rows in these languages, however rows write them, and the languages that no row is in."""
    codes = {name: language_code(name) for name in distinct(rows, "language")}
    wanted = {*map(language_code, languages)}
    absent = [name for name in languages if language_code(name) not in codes.values()]
    return rows.select(rows_with(rows, "language", [name for name in codes if codes[name] in wanted])), absent


def fingerprint(dataset: datasets.Dataset) -> str:
    """16 hex digits that identify data by their content: the rows, in order, and the bytes of their audio.

    Soft labels count where there are any. Names and folders of audio files do not. (The id of a row without
    `id` has the manifest's name.)

    Raises:
        OSError: An audio file cannot be read.
    """
    digest = hashlib.sha256()
    columns = [*COLUMNS, *(name for name in (SOFT_LABEL,) if name in dataset.column_names)]
    for batch in dataset.with_format("arrow").select_columns(columns).iter(10_000):
        for name in columns:
            values = batch[name].combine_chunks()
            if name == "audio" and values.null_count < len(values):
                with ThreadPoolExecutor() as pool:
                    values = pa.array(list(pool.map(_digest, values.to_pylist())), pa.string())
            lengths = pc.fill_null(pc.binary_length(values), -1)
            digest.update(lengths.to_numpy().astype("<i8").tobytes())
            whole = pa.ListArray.from_arrays([0, len(values)], pc.fill_null(values, ""))
            digest.update(pc.binary_join(whole, "")[0].as_buffer())
    return digest.hexdigest()[:16]


def _digest(reference: str | None) -> str | None:
    return None if reference is None else digest(reference).hex()


class _Table:
    """Checks a table's columns chunk by chunk, and collects the rows and their issues."""

    def __init__(
        self,
        source: str | os.PathLike[str],
        labels: Sequence[str] | None,
        columns: Mapping[str, str],
        label_map: Mapping[str, str],
        check_audio: bool,
        require: Sequence[str],
    ):
        self.name = shown(os.path.basename(os.fspath(source)))
        place = os.path.abspath(source)
        if shown(place) != place:  # references to its audio could not be written as text
            problem = f"{shown(place)} is not UTF-8; accepted: a file and folders with names in UTF-8"
            raise ManifestError([Issue(self.name, None, None, problem, code="name-not-utf-8")])
        self.labels = None if labels is None else list(labels)
        for column in (*columns, *require):
            if column not in _READ:
                problem = f"is no manifest column; accepted: {', '.join(COLUMNS)}"
                raise ManifestError([Issue(self.name, None, column, problem, code="column-unknown")])
        for called, label in label_map.items():
            if self.labels is not None and label not in self.labels:
                problem = f"label_map says that {called!r} is {label!r}; accepted: {', '.join(self.labels)}"
                raise ManifestError([Issue(self.name, None, "label", problem, code="label-unknown")])
        self.label_map = label_map
        self.source_of = {column: columns.get(column, column) for column in _READ}
        self.renamed = columns
        self.check_audio = check_audio
        self.require = require
        self.found: dict[str, None] = {}  # the file's columns, in order
        self.called: dict[str, None] = {}  # the file's labels, in order
        self.blank = 0
        self._spool = _Spool()
        self._place = -1  # of the part that is read
        self._taken: list[tuple[int, Part, np.ndarray]] = []  # place, part and row numbers of each chunk
        self._issues: list[tuple[tuple[int, int, int], Issue]] = []  # with place, row and rank

    def begin(self, part: Part) -> Part:
        """Begin to read a part; returns it with the name of its column of audio."""
        self.source_of["audio"] = self.renamed.get("audio", part.audio_column)
        self._part, self._place = replace(part, audio_column=self.source_of["audio"]), self._place + 1
        return self._part

    @property
    def wanted(self) -> frozenset[str]:
        """Names of the file's columns that are read."""
        return frozenset(self.source_of.values())

    @property
    def lacking(self) -> list[str]:
        """The optional columns that the file does not have."""
        return [column for column in OPTIONAL if self.source_of[column] not in self.found]

    def add(self, issues: Sequence[Issue]) -> None:
        """Keep issues of the part's reader."""
        self._issues += [((self._place, issue.row or 0, -1), issue) for issue in issues]

    def take(self, chunk: Chunk) -> tuple[pa.Table, np.ndarray]:
        """Check a chunk; returns its rows that are not blank, and their numbers `[n]`."""
        self.found.update(dict.fromkeys(chunk.names))
        self._called = chunk.called or self._part.name
        self.name = chunk.called or self.name
        given = {name: chunk.columns[key] for name, key in self.source_of.items() if key in chunk.columns}
        numbers = chunk.numbers
        blank = np.full(len(numbers), chunk.whole)  # unknown if columns were left out
        for values in chunk.columns.values() if chunk.whole else ():
            blank &= _blank(values)
        if blank.any():
            self.blank += int(blank.sum())
            numbers = numbers[~blank]
            given = {column: _only(values, ~blank) for column, values in given.items()}
        part, self._numbers, report = self._part, numbers, self._report
        texts = dict.fromkeys(_READ, pa.nulls(len(numbers), pa.string()))
        if SOFT_LABEL in given:
            given[SOFT_LABEL] = _objects_as_json(given[SOFT_LABEL])
        texts |= {column: _as_text(values, column, report) for column, values in given.items()}
        if part.split is not None and texts["split"].null_count == len(numbers):
            texts["split"] = pa.array([part.split] * len(numbers), pa.string())
        empty = np.logical_and.reduce([_nulls(texts[column]) for column in _UTTERANCE])
        report(empty, "audio", "no audio and no text; accepted: at least one of the two", "row-empty")
        for column in self.require:
            problem = f"is missing; accepted: {self._accepted(column)}"
            report(_nulls(texts[column]), column, problem, "value-missing")
        made = pc.binary_join_element_wise(part.stem, pa.array(numbers).cast(pa.string()), "-")
        texts["id"] = pc.coalesce(texts["id"], made)
        texts["audio"] = self._audio(texts["audio"])
        texts["label"] = self._label(texts["label"])
        columns: dict[str, pa.Array] = {**texts, DURATION: _durations(texts[DURATION], report)}
        columns[ASR_WORDS] = _timed_words(texts[ASR_WORDS], report)
        columns[SOFT_LABEL] = self._soft_label(texts[SOFT_LABEL], columns["label"])
        return pa.table(columns, schema=_FEATURES.arrow_schema), numbers

    def _report(self, rows: np.ndarray, column: str, problem: str | Callable[[int], str], code: str) -> None:
        """Add an issue for each row of the chunk where `rows [n]` is true."""
        rank = _ORDER.index(column)
        for row in np.flatnonzero(rows).tolist():
            number, text = int(self._numbers[row]), problem if isinstance(problem, str) else problem(row)
            issue = Issue(self._called, number, column, text, code=code)
            self._issues.append(((self._place, number, rank), issue))

    def keep(self, rows: pa.Table, numbers: np.ndarray) -> None:
        """Add checked rows to the table."""
        self._spool.write(rows)
        self._taken.append((self._place, self._part, numbers))

    def issues(self, rows: int, *, streamed: bool = False) -> tuple[Issue, ...]:
        """Issues so far in order, those of the whole table instead of their repetition in each row.

        Args:
            rows: Number of the rows so far.
            streamed: Whether more rows may follow, so that none is no issue.
        """
        ordered = [issue for _, issue in sorted(self._issues, key=lambda entry: entry[0])]
        if not rows:
            problem = "has no rows; accepted: at least one"
            none = [Issue(self.name, None, None, problem, code="table-empty")]
            return tuple(ordered or ([] if streamed else none))
        found = ", ".join(self.found)
        absent = {column for column in COLUMNS if self.source_of[column] not in self.found}
        repeated: set[str | None] = set(absent.intersection((*self.renamed, *self.require)))
        whole = []
        for column in COLUMNS:
            if column in repeated:
                problem = f"{self.source_of[column]!r} is not in the file; found: {found}"
                whole.append(Issue(self.name, None, column, problem, code="column-missing"))
        if absent.issuperset(_UTTERANCE):
            problem = f"none of {', '.join(_UTTERANCE)} is in the file; found: {found}"
            problem += f"; accepted: {', '.join(COLUMNS)}"
            whole.append(Issue(self.name, None, None, problem, code="column-missing"))
            repeated.add("audio")  # the column of `row-empty`
        return (*whole, *(issue for issue in ordered if issue.column not in repeated))

    def finish(self) -> ExaminedManifest:
        """All rows and issues."""
        rows = self._spool.finish()
        rows = rows.remove_columns(self.lacking)
        numbers = [numbers for _, _, numbers in self._taken]
        self._check_identities(rows)
        wanted = self.wanted
        issues = self.issues(len(rows))
        dropped = [column for column in self.found if column not in wanted]
        if dropped and not issues:  # else their names stand beside the issues, or matter less
            logger.warning("%s: columns not used: %s", self.name, ", ".join(dropped))
        if vain := [label for label in self.label_map if label not in self.called]:
            there = ", ".join(map(repr, list(self.called)[:_SHOWN_LABELS])) or "none"
            there += " ..." if len(self.called) > _SHOWN_LABELS else ""
            message = "%s: label_map names %s, which no row has; labels there: %s"
            logger.warning(message, self.name, ", ".join(map(repr, vain)), there)
        if self.blank:
            logger.warning("%s: %d blank rows left out", self.name, self.blank)
        return ExaminedManifest(
            rows=rows,
            numbers=np.concatenate(numbers) if numbers else np.zeros(0, dtype=np.int64),
            issues=issues,
            columns=tuple(self.found),
            name=self.name,
        )

    def _check_identities(self, rows: datasets.Dataset) -> None:
        if not len(rows) or pc.count_distinct(rows.data.column("id")).as_py() == len(rows):
            return
        identities = rows["id"][:]
        places = [(place, part, int(n)) for place, part, numbers in self._taken for n in numbers]
        first: dict[str, tuple[int, Part, int]] = {}
        for identity, (place, part, number) in zip(identities, places, strict=True):
            other, holder, row = first.setdefault(identity, (place, part, number))
            if (other, row) != (place, number):
                where = "" if other == place else f" of {holder.name}"
                problem = f"{identity!r} is the id of row {row}{where} too; accepted: each id once"
                issue = Issue(part.name, number, "id", problem, code="id-twice")
                self._issues.append(((place, number, _ORDER.index("id")), issue))

    def _audio(self, audio: pa.Array) -> pa.Array:
        """Absolute references."""
        given = audio.to_pylist()
        resolved = [None if value is None else resolve(value, self._part.folder) for value in given]
        if self.check_audio:
            asked = list(dict.fromkeys(value for value in resolved if value is not None))
            with ThreadPoolExecutor() as pool:
                reasons = dict(zip(asked, pool.map(missing, asked), strict=True))
            why = [None if value is None else reasons[value] for value in resolved]
            accepted = f"accepted: {self._accepted('audio')}"
            lost = np.array([reason is not None for reason in why], dtype=bool)
            self._report(lost, "audio", lambda row: f"{given[row]!r} {why[row]}; {accepted}", "audio-missing")
        return pa.array(resolved, pa.string())

    def _label(self, label: pa.Array) -> pa.Array:
        """Each label as a name of the label set, from a name, a name of `label_map`, or an index."""
        encoded = label.dictionary_encode()
        names = encoded.dictionary.to_pylist()
        self.called |= dict.fromkeys(names)
        known = [self._known(name) for name in names]
        code = pc.fill_null(encoded.indices, len(names)).to_numpy()
        unknown = np.array([*(name is None for name in known), False])  # the last for no label
        problem = f"is unknown; accepted: {self._accepted('label')}"
        self._report(unknown[code], "label", lambda row: f"{names[code[row]]!r} {problem}", "label-unknown")
        return pa.array(known, pa.string()).take(encoded.indices)

    def _soft_label(self, texts: pa.Array, label: pa.Array) -> pa.Array:
        """Probabilities of labels of the label set as their JSON, None where they are none."""
        given = texts.to_pylist() if texts.null_count < len(texts) else []
        read: list[str | None] = [None] * len(texts)
        problems: dict[int, str] = {}
        for row, text in enumerate(given):
            if text is None:
                continue
            try:
                soft = read_soft_label(text)
                names = {name: self._known(name) for name in soft}
                if unknown := [name for name, known in names.items() if known is None]:
                    raise ValueError(f"label {unknown[0]!r}; accepted: {self._accepted('label')}")
                if not label[row].is_valid:
                    raise ValueError("probabilities and no label; accepted: the row's label beside them")
                read[row] = json.dumps({names[name]: share for name, share in soft.items()})
            except ValueError as error:
                problems[row] = str(error)
        wrong = np.isin(np.arange(len(texts)), list(problems))
        self._report(wrong, SOFT_LABEL, lambda row: f"has {problems[row]}", "soft-label-invalid")
        return pa.array(read, pa.string())

    def _known(self, label: str) -> str | None:
        label = self.label_map.get(label, label)
        if self.labels is None or label in self.labels:
            return label
        if label.isdecimal() and int(label) < len(self.labels):
            return self.labels[int(label)]
        return None

    def _accepted(self, column: str) -> str:
        if column == "audio":
            return "a path relative to the manifest's folder"
        if column == "label" and self.labels:
            return f"{', '.join(self.labels)}, or their indices 0 to {len(self.labels) - 1}"
        return "text"


class _Spool:
    """Collects tables in memory, or on disk if they are large."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._path: str | None = None
        self._writer: pa.RecordBatchStreamWriter | None = None

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        self._tables.append(table)
        if self._writer is None and sum(table.nbytes for table in self._tables) > _IN_MEMORY:
            if not _scratch:
                _scratch.append(tempfile.TemporaryDirectory(prefix="mmsr-", ignore_cleanup_errors=True))
            descriptor, self._path = tempfile.mkstemp(suffix=".arrow", dir=_scratch[0].name)
            os.close(descriptor)
            self._writer = pa.ipc.new_stream(self._path, table.schema)
        if self._writer is not None:
            for kept in self._tables:
                self._writer.write_table(kept)
            self._tables.clear()

    def finish(self) -> datasets.Dataset:
        """All rows."""
        if self._writer is not None and self._path is not None:
            self._writer.close()
            return datasets.Dataset.from_file(self._path)
        table = pa.concat_tables(self._tables or [_FEATURES.arrow_schema.empty_table()])
        return datasets.Dataset(InMemoryTable(table))


def _objects_as_json(values: Column) -> list[Any]:
    """Objects, such as those of a jsonl, as JSON; their empty fields are those of other rows."""
    return [
        json.dumps({name: one for name, one in value.items() if one is not None})
        if isinstance(value, dict)
        else value
        for value in as_list(values)
    ]


def _as_text(values: Column, column: str, report: Callable[..., None]) -> pa.Array:
    """Values as text, as a person writes them: 3.0 of a spreadsheet or a float column is 3."""
    if isinstance(values, pa.Array) and pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if isinstance(values, pa.Array) and (pa.types.is_integer(values.type) or _is_text(values.type)):
        text = values.cast(pa.string())
        return pc.if_else(pc.equal(pc.utf8_trim_whitespace(text), ""), None, text)
    plain = as_list(values)
    kinds = (list, dict, bytes, *(_MADE_OF_WORDS if column in _WORDS else ()))
    no_text = np.array([isinstance(value, kinds) for value in plain], dtype=bool)

    def problem(row: int) -> str:
        value = plain[row]
        if isinstance(value, _MADE_OF_WORDS):
            made = "true or false" if isinstance(value, bool) else "a date or time"
            return f"holds {made} ({value}), which a spreadsheet makes of typed words; accepted: text"
        return f"holds a {type(value).__name__}; accepted: text"

    report(no_text, column, problem, "value-no-text")
    texts = [
        None if no or is_blank(value) else cell_text(value) for value, no in zip(plain, no_text, strict=True)
    ]
    return pa.array(texts, pa.string())


_WORDS = ("audio", "text", "asr_text", "rationale")
_MADE_OF_WORDS = (bool, date, time, timedelta)  # a datetime is a date


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _blank(values: Column) -> np.ndarray:
    """Which values `[n]` are missing or blank."""
    if isinstance(values, pa.Array) and _is_text(values.type):
        blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(values), ""), True)
        return blank.to_numpy(zero_copy_only=False)
    if isinstance(values, pa.Array) and not pa.types.is_floating(values.type):
        return _nulls(values)
    return np.array([is_blank(value) for value in as_list(values)], dtype=bool)


def _nulls(values: pa.Array) -> np.ndarray:
    return values.is_null().to_numpy(zero_copy_only=False)


def _only(values: Column, kept: np.ndarray) -> Column:
    if isinstance(values, pa.Array):
        return values.filter(pa.array(kept))
    return [value for value, keep in zip(values, kept, strict=True) if keep]


def _durations(texts: pa.Array, report: Callable[..., None]) -> pa.Array:
    """Durations as numbers."""
    given = texts.to_pylist() if texts.null_count < len(texts) else []
    seconds = np.full(len(texts), np.nan)
    for row, text in enumerate(given):
        try:
            seconds[row] = np.nan if text is None else float(text)
        except ValueError:
            seconds[row] = -1.0
    wrong = (seconds < 0) | np.isinf(seconds)
    accepted = "accepted: seconds, 0 or more, with a decimal point"
    report(wrong, DURATION, lambda row: f"is {given[row]!r}; {accepted}", "duration-no-number")
    return pa.array(seconds, mask=np.isnan(seconds) | wrong)


def _timed_words(texts: pa.Array, report: Callable[..., None]) -> pa.Array:
    """A recogniser's words as their JSON, None where it is none."""
    given = texts.to_pylist() if texts.null_count < len(texts) else []
    problems: dict[int, str] = {}
    for row, text in enumerate(given):
        try:
            read_chunks(text)
        except ValueError as error:
            problems[row] = str(error)
    wrong = np.isin(np.arange(len(texts)), list(problems))
    report(wrong, ASR_WORDS, lambda row: f"has {problems[row]}", "asr-words-invalid")
    return pc.if_else(pa.array(wrong), None, texts)
