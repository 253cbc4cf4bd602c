"""Checks of a manifest's rows, columns and splits: `mmsr data check`.

    manifest ─► examine_manifest ─► Arrow columns ─┬─► table checks ─┐
                                                   └─► audio files ──┴─► issues ─► forgiven | errors, warnings

Every issue has a stable code of `CODES`, by which it is counted, allowed and documented. Checks run over
whole columns, so that a million rows take seconds; Python objects are made only for issues.
"""

import difflib
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute as pc

from mmsr.data.manifest.check.audio import AudioFile, examine_audio, short_name
from mmsr.data.manifest.check.codes import CODES
from mmsr.data.manifest.delimited import encoding_of
from mmsr.data.manifest.issues import Issue, ManifestError
from mmsr.data.manifest.manifest import COLUMNS, DURATION, OPTIONAL, examine_manifest
from mmsr.data.manifest.sentences import codes, letters, numbered, telling_sentences
from mmsr.data.storage import is_url
from mmsr.languages import CHINESE, guess_language, is_language_code, language_code, unified
from mmsr.records import Progress

LABELS = ("negative", "neutral", "positive")
SPLITS = ("train", "dev", "test")
MAX_SECONDS = 60.0  # of an utterance; twice Whisper's window


@dataclass(frozen=True)
class CheckedManifest:
    """A manifest and its issues.

    Attributes:
        name: The manifest's name in messages.
        table: Its usable rows, with the columns `mmsr.data.manifest.manifest.COLUMNS`; labels by name.
        numbers: Row numbers `[n]` as seen in the file.
        labels: The label set.
        seconds: Length `[n]` of each row's audio, NaN if unknown.
        issues: Issues that are not allowed, those of the table first, then by row.
        forgiven: Issues with an allowed code.
    """

    name: str
    table: pyarrow.Table
    numbers: np.ndarray
    labels: tuple[str, ...]
    seconds: np.ndarray
    issues: tuple[Issue, ...]
    forgiven: tuple[Issue, ...] = ()

    @property
    def errors(self) -> int:
        """Number of errors."""
        return sum(issue.severity == "error" for issue in self.issues)

    @property
    def warnings(self) -> int:
        """Number of warnings."""
        return len(self.issues) - self.errors


def check_manifest(
    source: str | os.PathLike[str],
    *,
    labels: Sequence[str] = LABELS,
    columns: dict[str, str] | None = None,
    label_map: dict[str, str] | None = None,
    require: Sequence[str] = (),
    audio: bool = True,
    max_seconds: float = MAX_SECONDS,
    allow: Sequence[str] = (),
    strict: bool = False,
    progress: Progress | None = None,
) -> CheckedManifest:
    """Find every issue of a manifest and its audio files.

    Args:
        source: A csv, tsv, jsonl, parquet or xlsx file.
        labels: The label set.
        columns: Where a column has another name in the file, `{"rationale": "human_justification"}`.
        label_map: Labels by their name in the file, `{"pos": "positive"}`.
        require: Columns in which a missing value is an issue.
        audio: Whether to decode the audio files.
        max_seconds: Longer audio is an issue.
        allow: Codes that are allowed.
        strict: Whether warnings are errors.
        progress: Called with "audio", audio files decoded and their number.

    Raises:
        ManifestError: The file cannot be read at all.
        ValueError: There is no such code.
    """
    for code in allow:
        if code not in CODES:
            hint = _meant(code, tuple(CODES))
            raise ValueError(f"--allow {code} is no code{hint}; accepted: {', '.join(CODES)}")
    name = os.fspath(source)
    try:
        examined = examine_manifest(
            source, columns=columns, label_map=label_map, check_audio=False, require=require
        )
    except ManifestError as error:
        if not all(issue.code in CODES for issue in error.issues):
            raise
        issues = _undecodable(name) or [
            replace(issue, file=os.path.basename(issue.file)) for issue in error.issues
        ]
        none = pyarrow.table({column: pyarrow.array([], pyarrow.string()) for column in COLUMNS})
        manifest = _Manifest(name, none, np.zeros(0, dtype=np.int64), tuple(labels), {})
        return _sorted_out(manifest, issues, allow=allow, strict=strict)
    rows = examined.rows.with_format("arrow")[:]
    manifest = _Manifest(name, rows, examined.numbers, tuple(labels), columns or {}, called=examined.name)
    issues = list(examined.issues)
    issues += _check_blank(manifest, {issue.row for issue in issues})
    issues += _check_columns(manifest, examined.columns)
    issues += (issue for check in _TABLE_CHECKS for issue in check(manifest))
    if audio:
        manifest.files = examine_audio(manifest.codes("audio")[1], manifest.folder, progress=progress)
    issues += _check_audio(manifest, max_seconds)
    issues += _check_durations(manifest)
    issues += _check_same_audio(manifest)
    return _sorted_out(manifest, issues, allow=allow, strict=strict)


def _sorted_out(
    manifest: "_Manifest", issues: Sequence[Issue], *, allow: Sequence[str], strict: bool
) -> CheckedManifest:
    """The result, with issues sorted by row, else in the order of the checks."""
    ordered = sorted(issues, key=lambda issue: -1 if issue.row is None else issue.row)
    counted = [
        replace(issue, severity="error" if strict else CODES[issue.code].severity)
        for issue in ordered
        if issue.code not in allow
    ]
    named = manifest.table.set_column(COLUMNS.index("label"), "label", manifest.labelled)
    return CheckedManifest(
        name=manifest.name,
        table=named,
        numbers=manifest.numbers,
        labels=manifest.labels,
        seconds=manifest.seconds,
        issues=tuple(counted),
        forgiven=tuple(issue for issue in ordered if issue.code in allow),
    )


# ---------------------------------------------------------------------- the table's columns


@dataclass
class _Manifest:
    """The usable rows as Arrow columns, and values that several checks need."""

    source: str
    table: pyarrow.Table
    numbers: np.ndarray
    labels: tuple[str, ...]
    renamed: dict[str, str]
    called: str = ""  # with the sheet of a book of several
    files: dict[str, AudioFile] = field(default_factory=dict)  # by path, once decoded
    _coded: dict[str, tuple[np.ndarray, list[str]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name in messages."""
        return self.called or os.path.basename(self.source.rstrip("/"))

    @property
    def folder(self) -> str:
        """The folder to which its audio paths are relative."""
        return os.path.dirname(os.path.abspath(self.source))

    def issue(
        self, code: str, problem: str, *, row: int | np.integer | None = None, column: str | None = None
    ) -> Issue:
        """An issue; `row` counts the table's rows from 0."""
        number = None if row is None else int(self.numbers[row])
        return Issue(self.name, number, column, problem, code, CODES[code].severity)

    def each(
        self, rows: Iterable[int], column: str, code: str, problem: str, *, quote: bool = False
    ) -> Iterator[Issue]:
        """An issue in each of some rows; `quote` puts the row's value in front of the problem."""
        for row in rows:
            text = f"{_short(self.value(column, row))} {problem}" if quote else problem
            yield self.issue(code, text, row=row, column=column)

    def value(self, column: str, row: int | np.integer) -> str:
        """A value."""
        return self.table[column][int(row)].as_py()

    def codes(self, column: str) -> tuple[np.ndarray, list[str]]:
        """A column as numbers `[n]` of its distinct values, -1 for None, and these values."""
        if column not in self._coded:
            self._coded[column] = codes(self.table[column])
        return self._coded[column]

    def rows_by_value(self, column: str) -> Iterator[tuple[str, np.ndarray]]:
        """Each distinct value and its rows."""
        codes, values = self.codes(column)
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(len(values) + 1))
        for place, value in enumerate(values):
            yield value, order[bounds[place] : bounds[place + 1]]

    @cached_property
    def labelled(self) -> pyarrow.ChunkedArray:
        """The labels, indices by name, unknown ones unchanged."""
        codes, values = self.codes("label")
        return _taken([_by_index(value, self.labels) for value in values], codes)

    @cached_property
    def splits(self) -> tuple[np.ndarray, list[str]]:
        """As `codes("split")`, with misspelt names corrected."""
        numbers, names = self.codes("split")
        return codes(_taken([_meant_split(name) or name for name in names], numbers))

    @cached_property
    def sentences(self) -> pyarrow.ChunkedArray:
        """The sentence of each row `[n]`; None if it is too short to identify the row."""
        return telling_sentences(self.table["text"])

    @cached_property
    def decoded(self) -> np.ndarray:
        """Length of each row's audio `[n]` in seconds as decoded, or NaN."""
        if not self.files:
            return np.full(len(self.table), np.nan)
        codes, values = self.codes("audio")
        lengths = [self.files[value].seconds for value in values]
        return np.array([*lengths, None], dtype=float)[codes]  # the last for -1

    @cached_property
    def durations(self) -> np.ndarray:
        """Length of each row's audio `[n]` in seconds by the table, or NaN."""
        if DURATION not in self.table.column_names:
            return np.full(len(self.table), np.nan)
        return pc.fill_null(self.table[DURATION], np.nan).to_numpy()

    @property
    def seconds(self) -> np.ndarray:
        """Length of each row's audio `[n]` in seconds, as decoded or else by the table, or NaN."""
        return np.where(np.isnan(self.decoded), self.durations, self.decoded)


def _taken(values: Sequence[str | None], codes: np.ndarray) -> pyarrow.ChunkedArray:
    """The values at `codes`, None at -1."""
    indices = pyarrow.array(codes, mask=codes < 0)
    return pyarrow.chunked_array([pyarrow.array(values, pyarrow.string()).take(indices)])


def _rows_where(condition: pyarrow.ChunkedArray) -> np.ndarray:
    """Rows in which a condition holds."""
    return np.flatnonzero(pc.fill_null(condition, False).to_numpy())


def _by_index(label: str, labels: Sequence[str]) -> str:
    """A label's name from its index; other values unchanged."""
    if label not in labels and label.isdecimal() and int(label) < len(labels):
        return labels[int(label)]
    return label


def _near(name: str, accepted: Sequence[str]) -> str | None:
    """The accepted name that differs only in case, spaces or Unicode form."""
    plain = {_plain(known): known for known in accepted}
    return plain.get(_plain(name))


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()


def _meant(name: str, accepted: Sequence[str]) -> str:
    """A hint at the most similar accepted name, or nothing."""
    plain = {_plain(known): known for known in accepted}
    close = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.75)
    return f", {plain[close[0]]!r} is near" if close else ""


# ---------------------------------------------------------------------- the file and its rows


def _undecodable(source: str) -> list[Issue]:
    """The lines of a text file that are not UTF-8."""
    if is_url(source) or not source.lower().endswith((".csv", ".tsv", ".jsonl")):
        return []

    content = Path(source).read_bytes()
    if encoding_of(content[:4]) != "utf-8-sig":
        return []
    problems: list[tuple[int | None, str]] = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            there = line.decode("cp1252", errors="replace")[max(0, error.start - 10) : error.start + 10]
            byte = f"byte {line[error.start]:#04x} in {there!r}, if Windows-1252"
            problems.append((number, f"is not UTF-8 ({byte})"))
    name, accepted = os.path.basename(source), "accepted: text saved as UTF-8"
    return [Issue(name, row, None, f"{problem}; {accepted}", "not-utf-8") for row, problem in problems]


def _check_columns(manifest: _Manifest, found: Sequence[str]) -> Iterator[Issue]:
    """Columns that are not read, while one of similar name is missing."""
    used = {manifest.renamed.get(column, column) for column in (*COLUMNS, *OPTIONAL)}
    absent = [column for column in COLUMNS if manifest.renamed.get(column, column) not in found]
    for name in found:
        if name not in used and (close := difflib.get_close_matches(_plain(name), absent, n=1, cutoff=0.8)):
            problem = f"{name!r} is no column, but {close[0]!r} is; accepted: {', '.join(COLUMNS)}"
            yield manifest.issue("column-misspelt", problem, column=name)


def _check_blank(manifest: _Manifest, reported: set[int | None]) -> Iterator[Issue]:
    """Rows that were left out without an issue: they were blank."""
    if (np.diff(manifest.numbers) < 1).any():
        return  # several files
    first = 2 if manifest.source.lower().endswith((".csv", ".tsv", ".xlsx")) else 1  # below the header
    last = int(manifest.numbers[-1]) if len(manifest.numbers) else 0
    there = np.zeros(last + 1, dtype=bool)
    there[manifest.numbers] = True
    for number in (first + np.flatnonzero(~there[first:])).tolist():
        if number not in reported:
            problem = "is blank; accepted: rows with audio or text"
            yield Issue(manifest.name, number, None, problem, "row-blank")


def _check_rows(manifest: _Manifest) -> Iterator[Issue]:
    """Rows that are repeated under another id."""
    keys, _ = numbered(manifest.table["audio"])
    texts, _ = numbered(manifest.sentences)  # without audio, only long texts identify an utterance
    keys = np.where(keys >= 0, keys, np.where(texts >= 0, texts + len(keys), -1))
    alike = np.flatnonzero(_repeated(keys))
    if not len(alike):
        return
    rows = manifest.table.take(alike).drop_columns(["id"])
    columns = rows.column_names
    again = rows.append_column("row", pyarrow.array(alike)).group_by(columns, use_threads=False)
    for same in again.aggregate([("row", "list")])["row_list"].to_pylist():
        first, *others = sorted(same)
        for row in others:
            problem = f"is row {manifest.numbers[first]} again but for the id; accepted: each utterance once"
            yield manifest.issue("row-duplicate", problem, row=row)


def _repeated(keys: np.ndarray) -> np.ndarray:
    """Which keys `[n]` occur more than once; -1 does not count."""
    if not len(keys) or keys.max() < 0:
        return np.zeros(len(keys), dtype=bool)
    return (keys >= 0) & (np.bincount(keys + 1)[keys + 1] > 1)


def _check_names(manifest: _Manifest) -> Iterator[Issue]:
    """Spaces around names. For labels and splits see `label-misspelt` and `split-misspelt`."""
    for column in ("language", "speaker", "kind"):
        for value, rows in manifest.rows_by_value(column):
            if value != value.strip():
                problem = f"{value!r} has spaces around it; accepted: {value.strip()!r}"
                yield from manifest.each(rows, column, "whitespace", problem)


# ---------------------------------------------------------------------- labels, languages, splits


def _check_labels(manifest: _Manifest) -> Iterator[Issue]:
    accepted = f"{', '.join(manifest.labels)}, or their indices 0 to {len(manifest.labels) - 1}"
    for value, rows in manifest.rows_by_value("label"):
        if _by_index(value, manifest.labels) in manifest.labels:
            continue
        if near := _near(value, manifest.labels):
            code, problem = "label-misspelt", f"{value!r} is no label, but {near!r} is; accepted: {accepted}"
        else:
            hint = _meant(value, manifest.labels)
            code, problem = "label-unknown", f"{value!r} is unknown{hint}; accepted: {accepted}"
        yield from manifest.each(rows, "label", code, problem)
    unlabelled = pc.is_null(manifest.table["label"])
    explained = _rows_where(pc.and_(unlabelled, pc.is_valid(manifest.table["rationale"])))
    problem = "explains no label; accepted: a rationale beside a label"
    yield from manifest.each(explained, "rationale", "rationale-without-label", problem, quote=True)
    for split, rows in _splits(manifest):
        given = manifest.codes("label")[0][rows] >= 0
        if given.any():
            where = f" of split {split!r}" if split else ""
            problem = f"is missing, while {given.sum():,} rows{where} have one; accepted: a label in each"
            yield from manifest.each(rows[~given], "label", "label-missing", problem)


def _check_languages(manifest: _Manifest) -> Iterator[Issue]:
    for value, rows in manifest.rows_by_value("language"):
        if is_language_code(value):
            continue
        meant = guess_language(_plain(value))
        hint = f", {meant!r} is meant" if meant else ""
        problem = f"{value!r} is no ISO 639 code{hint}; accepted: vi, en, zh, de, fr and others of ISO 639"
        yield from manifest.each(rows, "language", "language-unknown", problem)
    han = pc.match_substring_regex(manifest.table["text"], r"\p{Han}")
    latin = pc.match_substring_regex(manifest.table["text"], r"\p{Latin}{2}")

    def spoken(codes: Collection[str]) -> pyarrow.ChunkedArray:
        names = [name for name in manifest.codes("language")[1] if language_code(name) in codes]
        return pc.is_in(manifest.table["language"], pyarrow.array(names, pyarrow.string()))

    wrong = pc.or_(
        pc.and_(spoken(CHINESE), pc.and_(latin, pc.invert(han))),
        pc.and_(spoken(("vi", "en", "de", "fr")), pc.and_(han, pc.invert(latin))),
    )
    for row in _rows_where(wrong):
        text, language = _short(manifest.value("text", row)), manifest.value("language", row)
        problem = f"{text} is not written in {language!r}; accepted: the language that is spoken"
        yield manifest.issue("language-script", problem, row=row, column="language")


def _meant_split(name: str) -> str | None:
    """The usual split that a name is or misspells; test2 is a name of its own, tets is not."""
    plain = _plain(name)
    close = difflib.get_close_matches(plain, SPLITS, n=1, cutoff=0.75) if plain.isalpha() else []
    return close[0] if close else None


def _check_splits(manifest: _Manifest) -> Iterator[Issue]:
    codes, names = manifest.codes("split")
    for value, rows in manifest.rows_by_value("split"):
        if value in SPLITS:
            continue
        if near := _meant_split(value):
            problem = f"{value!r} is no split, but {near!r} is; accepted: {', '.join(SPLITS)}"
            yield from manifest.each(rows, "split", "split-misspelt", problem)
        else:
            accepted = f"{', '.join(SPLITS)}, or --data.train_split, .dev_split, .test_split when training"
            share = f" ({len(rows):,} of {len(codes):,} rows)" if len(rows) > 1 else ""
            problem = f"{value!r} is unknown{share}; accepted: {accepted}"
            yield manifest.issue("split-unknown", problem, row=rows[0], column="split")
    if not names:
        return
    problem = f"is missing, while others have one; accepted: {', '.join(SPLITS)}"
    yield from manifest.each(np.flatnonzero(codes < 0), "split", "split-missing", problem)
    for split in SPLITS:
        if split not in manifest.splits[1]:
            problem = f"no row is in {split!r}; found: {', '.join(names)}; accepted: {', '.join(SPLITS)}"
            yield manifest.issue("split-absent", problem, column="split")


# ---------------------------------------------------------------------- leaks and balance

_RARE, _RARE_OF = 0.01, 100  # a class below this share is rare, in a split with at least so many labels


def _splits(manifest: _Manifest) -> Iterator[tuple[str, np.ndarray]]:
    """Each split and its rows; without splits the whole table under the name ""."""
    numbers, names = manifest.splits
    for place, name in enumerate(names):
        yield name, np.flatnonzero(numbers == place)
    if not names:
        yield "", np.arange(len(manifest.table))


def _spread(
    manifest: _Manifest, keys: np.ndarray, values: np.ndarray, names: Sequence[str]
) -> Iterator[tuple[int, int, str]]:
    """Keys that occur with several values; -1 does not count.

    Yields:
        Key, first row of its second value, and all its values in words.
    """
    rows = np.flatnonzero((keys >= 0) & (values >= 0))
    width = max(1, len(names))
    pairs = keys[rows].astype(np.int64) * width + values[rows]
    pairs, first, counts = np.unique(pairs, return_index=True, return_counts=True)
    key, value = np.divmod(pairs, width)
    _, starts, lengths = np.unique(key, return_index=True, return_counts=True)
    for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
        there = sorted(range(start, start + length), key=lambda pair: first[pair])
        words = [
            f"{names[value[pair]]} ({counts[pair]:,} rows, first row {manifest.numbers[rows[first[pair]]]})"
            for pair in there
        ]
        where = " and ".join(words).replace("(1 rows, first row", "(row")
        yield int(key[start]), int(rows[first[there[1]]]), where


def _check_speakers(manifest: _Manifest) -> Iterator[Issue]:
    heard = manifest.codes("audio")[0] >= 0
    nameless = np.flatnonzero(heard & (manifest.codes("speaker")[0] < 0))
    if not len(nameless):
        return
    count, where = "no row has one", None
    if len(nameless) < heard.sum():
        count, where = f"is missing in {len(nameless):,} of {heard.sum():,} rows with audio", nameless[0]
    problem = f"{count}, so rows cannot be split by speaker; accepted: a speaker in each"
    yield manifest.issue("speaker-missing", problem, row=where, column="speaker")


def _check_leaks(manifest: _Manifest) -> Iterator[Issue]:
    splits, names = manifest.splits
    speakers, speaker_names = manifest.codes("speaker")
    for speaker, row, where in _spread(manifest, speakers, splits, names):
        problem = f"{speaker_names[speaker]!r} is in {where}; accepted: each speaker in one split"
        yield manifest.issue("speaker-in-two-splits", problem, row=row, column="speaker")
    sentences, texts = numbered(manifest.sentences)
    shared = list(_spread(manifest, sentences, splits, names))
    spoken = manifest.table.column("audio").null_count < len(manifest.table)
    if shared and len(shared) >= len(texts) / 2 and spoken:  # without audio it is a leak
        problem = (
            f"{len(shared):,} of {len(texts):,} sentences are in two splits: the corpus is read from a script"
            ", and its text tells nothing of unseen sentences; accepted: each sentence in one split"
        )
        yield manifest.issue("texts-scripted", problem, column="text")
        return
    for sentence, row, where in shared:
        problem = f"{_short(texts[sentence].as_py())} is in {where}; accepted: each sentence in one split"
        yield manifest.issue("text-in-two-splits", problem, row=row, column="text")


def _check_balance(manifest: _Manifest) -> Iterator[Issue]:
    labels, names = codes(manifest.labelled)
    everywhere = manifest.codes("language")[1]
    for split, rows in _splits(manifest):
        where = f"split {split!r}" if split else "the manifest"
        given = labels[rows][labels[rows] >= 0]
        counts = dict(zip(names, np.bincount(given, minlength=len(names)).tolist(), strict=True))
        for label in manifest.labels if len(given) else ():
            count = counts.get(label, 0)
            if not count:
                problem = f"{where} has no row of {label!r} among {len(given):,} with labels"
                yield manifest.issue("class-absent", f"{problem}; accepted: some of each", column="label")
            elif len(given) >= _RARE_OF and count < _RARE * len(given):
                problem = f"{where} has {count:,} of {len(given):,} rows of {label!r}; accepted: at least 1 %"
                yield manifest.issue("class-rare", problem, column="label")
        here = {
            language_code(everywhere[code])
            for code in set(manifest.codes("language")[0][rows].tolist()) - {-1}
        }
        if here:
            for language in dict.fromkeys(unified(everywhere)):
                if language_code(language) not in here:
                    problem = f"{where} has no row in {language!r}; accepted: each language in each split"
                    yield manifest.issue("language-absent", problem, column="language")
    same = pc.fill_null(manifest.table["audio"], "")
    utterances, _ = numbered(pc.if_else(pc.equal(same, ""), manifest.sentences, same))
    for _, row, where in _spread(manifest, utterances, labels, names):
        problem = f"the same utterance is {where}; accepted: one label for one utterance"
        yield manifest.issue("label-conflict", problem, row=row, column="label")


# ---------------------------------------------------------------------- text

# Tab and line breaks are text; U+200C and U+200D join letters in many scripts.
_CONTROL = "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\u009f\u00ad\u200b\u2028\u2029\u202a-\u202e\u2060\ufeff]"
# A UTF-8 lead byte and what Windows-1252 shows for the byte after it.
_MOJIBAKE = (
    "[\u00c2-\u00f4]"
    "[\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]"
)
_TEXTS = ("text", "asr_text", "rationale")


def _check_texts(manifest: _Manifest) -> Iterator[Issue]:
    for column in _TEXTS:
        texts = manifest.table[column]
        if texts.null_count == len(texts):
            continue
        for row in _rows_where(pc.match_substring(texts, "\ufffd")):
            text = _short(manifest.value(column, row), "\ufffd")
            problem = f"{text} has lost letters (U+FFFD); accepted: the text as it was before"
            yield manifest.issue("text-replacement", problem, row=row, column=column)
        for row in _rows_where(pc.match_substring_regex(texts, _CONTROL)):
            text = manifest.value(column, row)
            points = sorted({f"U+{ord(character):04X}" for character in re.findall(_CONTROL, text)})
            problem = f"{_short(text)} has control characters ({', '.join(points)})"
            problem += "; accepted: text without them"
            yield manifest.issue("text-control", problem, row=row, column=column)
        foreign = _rows_where(pc.invert(pc.string_is_ascii(texts)))
        for row in foreign[_rows_where(pc.match_substring_regex(texts.take(foreign), _MOJIBAKE))]:
            text = manifest.value(column, row)
            if (mended := _mended(text)) != text:
                problem = f"{_short(text)} is UTF-8 read as Windows-1252; accepted: {_short(mended)}"
                yield manifest.issue("text-mojibake", problem, row=row, column=column)
        yield from _check_forms(manifest, column, foreign)
        if column != "rationale":
            yield from _check_words(manifest, column)


def _check_forms(manifest: _Manifest, column: str, foreign: np.ndarray) -> Iterator[Issue]:
    """Unicode forms in the rows that are not ASCII."""
    texts = manifest.table[column]
    written = texts.take(foreign)
    apart = foreign[_rows_where(pc.not_equal(written, pc.utf8_normalize(written, form="NFC")))]
    if not len(apart):
        return
    composed = foreign[_rows_where(pc.not_equal(written, pc.utf8_normalize(written, form="NFD")))]
    together = len(np.setdiff1d(composed, apart))
    if not together:
        problem = f"{len(apart):,} rows are in a decomposed Unicode form"
        yield manifest.issue("text-form", f"{problem}; accepted: NFC, as keyboards write it", column=column)
        return
    problem = f"is not in Unicode NFC, while {together:,} rows are; accepted: NFC in all"
    yield from manifest.each(apart, column, "text-form", problem, quote=True)


def _check_words(manifest: _Manifest, column: str) -> Iterator[Issue]:
    texts = manifest.table[column]
    rows = _rows_where(pc.invert(pc.match_substring_regex(texts, r"[\pL\pN]")))
    problem = "has no letter and no digit; accepted: words, or no value"
    yield from manifest.each(rows, column, "text-wordless", problem, quote=True)
    rows = _rows_where(pc.match_substring_regex(texts, r"^\s*[a-zA-Z]\s*$"))
    yield from manifest.each(rows, column, "text-short", "is a single letter; accepted: words", quote=True)


def _mended(text: str) -> str:
    """A text whose parts that are UTF-8 read as Windows-1252 are decoded again."""

    def read_again(match: re.Match[str]) -> str:
        try:
            return b"".join(map(_windows_byte, match.group())).decode()
        except UnicodeError:
            return match.group()

    return re.sub("[^\x00-\x7f]+", read_again, text)


def _windows_byte(character: str) -> bytes:
    try:
        return character.encode("cp1252")
    except UnicodeEncodeError:
        return character.encode("latin-1")  # five bytes that Windows-1252 does not define


def _short(text: str, around: str = "") -> str:
    """A text quoted for a message: at most 40 characters, from before the first `around`."""
    start = max(0, text.find(around) - 20) if len(text) > 40 and around else 0
    part = text[start : start + 40]
    return repr(("..." if start else "") + part + ("..." if start + 40 < len(text) else ""))


# ---------------------------------------------------------------------- audio

_FASTEST = 40.0  # letters a second, three for a Han character; fast synthetic speech has 29, fast readers 35
_SLOWEST, _SILENCE = 1.0, 5.0  # letters a second, without so many seconds of silence
_SHORTEST = 0.1  # seconds; a syllable takes more
# Largest error of a duration in seconds and as a share, since lossy formats are padded.
_OFF, _OFF_SHARE = 0.1, 0.02


def _check_audio(manifest: _Manifest, max_seconds: float) -> Iterator[Issue]:
    """Issues of audio files in each row that names them, and the speed of speech."""
    for path, rows in manifest.rows_by_value("audio") if manifest.files else ():
        file = manifest.files[path]
        issues = list(file.issues)
        if file.seconds is not None and file.seconds > max_seconds:
            accepted = f"at most {max_seconds:g} s (--max-seconds)"
            issues.append(("audio-long", f"lasts {file.seconds:.1f} s; accepted: {accepted}"))
        elif file.seconds is not None and file.seconds < _SHORTEST:
            issues.append(("audio-short", f"lasts {file.seconds:.3f} s; accepted: at least {_SHORTEST:g} s"))
        for code, problem in issues:
            yield from manifest.each(rows, "audio", code, f"{file.name!r} {problem}")
    written = letters(manifest.table["text"])
    written = np.where(written > 0, written, letters(manifest.table["asr_text"]))
    seconds = manifest.seconds
    with np.errstate(invalid="ignore", divide="ignore"):
        fast = np.flatnonzero((written > 2) & (written > _FASTEST * seconds))
        slow = np.flatnonzero((written > 0) & (seconds > _SILENCE + written / _SLOWEST))
    for code, rows in (("speech-too-fast", fast), ("speech-too-slow", slow)):
        for row in rows:
            text = manifest.value("text", row) or manifest.value("asr_text", row)
            speed = f"{_short(text)} in {seconds[row]:.1f} s of audio is {written[row] / seconds[row]:.1f}"
            accepted = f"{_SLOWEST:g} to {_FASTEST:g} (a Chinese character counts three)"
            problem = f"{speed} letters a second; accepted: {accepted}"
            yield manifest.issue(code, problem, row=row, column="text")


def _check_durations(manifest: _Manifest) -> Iterator[Issue]:
    """Durations that are not the audio's length."""
    given, lasts = manifest.durations, manifest.decoded
    for row in np.flatnonzero(np.abs(given - lasts) > np.maximum(_OFF, _OFF_SHARE * lasts)):
        name = short_name(manifest.value("audio", row), manifest.folder)
        accepted = f"its length, to within {_OFF:g} s or {_OFF_SHARE:.0%}"
        problem = f"is {given[row]:g} s, but {name!r} lasts {lasts[row]:.2f} s; accepted: {accepted}"
        yield manifest.issue("duration-wrong", problem, row=row, column=DURATION)


def _check_same_audio(manifest: _Manifest) -> Iterator[Issue]:
    """The same audio in two rows: the same bytes, or the same path if the file was not read."""
    keys, _ = numbered(manifest.table["audio"])
    if manifest.files:
        codes, paths = manifest.codes("audio")
        keys, _ = numbered(_taken([manifest.files[path].content for path in paths], codes))

    def name(row: int | np.integer) -> str:
        return short_name(manifest.value("audio", row), manifest.folder)

    leaking = np.zeros(len(keys) + 1, dtype=bool)  # the last for -1
    for key, row, where in _spread(manifest, keys, *manifest.splits):
        leaking[key] = True
        problem = f"the same audio as {name(row)!r} is in {where}; accepted: each sound in one split"
        yield manifest.issue("audio-in-two-splits", problem, row=row, column="audio")
    rows = np.flatnonzero(_repeated(keys) & ~leaking[keys])
    _, first, which = np.unique(keys[rows], return_index=True, return_inverse=True)
    for place, earlier in zip(rows, rows[first[which]], strict=True):
        if place != earlier:
            known, again = name(earlier), name(place)
            same = "is" if known == again else "has the same bytes as"
            row = manifest.numbers[earlier]
            problem = f"{again!r} {same} {known!r} of row {row}; accepted: each sound once"
            yield manifest.issue("audio-duplicate", problem, row=place, column="audio")


_TABLE_CHECKS: tuple[Callable[[_Manifest], Iterator[Issue]], ...] = (
    _check_rows,
    _check_names,
    _check_labels,
    _check_languages,
    _check_splits,
    _check_speakers,
    _check_leaks,
    _check_texts,
    _check_balance,
)
