"""The parts of an adapter: the corpus on disk that it reads, and the utterances that it yields.

    Source (files, tables, clips; counts rows) ─► Corpus.read ─► Utterance, Utterance, ...

An adapter reads through `Source`, which counts: each row has to be yielded or left out with a reason. The
issues of single rows are collected and raised together.
"""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mmsr.data.encodings import DecodedText, EncodingError, decode_text, known_encoding
from mmsr.data.manifest.delimited import LONGEST_CELL
from mmsr.data.manifest.manifest import Issue
from mmsr.data.storage import shown

SENTIMENTS = ("negative", "neutral", "positive")

#: Split by its name in the paths of corpora.
SPLIT_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "val", "valid", "validation"), "dev"),
    "test": "test",
}

#: Endings of files of sound, and of those whose sound is extracted, which may hold a film.
SOUND = frozenset({".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".au", ".w64", ".caf"})
VIDEO = frozenset({".mp4", ".m4a", ".aac", ".amr", ".3gp", ".avi", ".mkv", ".mov", ".webm", ".wma", ".flv"})

# C1 control characters in a text are punctuation of cp1252 that was decoded as Latin-1.
_CP1252 = {
    code: bytes([code]).decode("cp1252")
    for code in range(0x80, 0xA0)
    if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}


class CorpusError(ValueError):
    """A corpus that cannot be converted; the message is one line, with what was expected."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a corpus is evaluated.

    Attributes:
        name: Name in tables of results.
        labels: The label set; empty for the labels that the source has.
        metrics: Metrics of its papers, the one to compare by first.
        splits: Values of the manifest's column `split`, if rows are in fixed splits.
        folds: Number of values of the manifest's column `fold`, from 0; each is the test set in turn.
        fold_by: Groups that folds do not cut. For `speaker`, `mmsr fit --data.folds` of the same number gives
            the same folds.
        label_of: The corpus's own label to ours; other rows are left out. Empty if they are the same.
        rows: Rows of the published corpus under this protocol, if known.
        source: The paper.
    """

    name: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    splits: tuple[str, ...] = ()
    folds: int | None = None
    fold_by: str | None = None
    label_of: Mapping[str, str] = field(default_factory=dict)
    rows: int | None = None
    source: str


@dataclass(frozen=True)
class Segment:
    """A part of a recording, in seconds. A file that is shorter than the part is used whole."""

    path: Path
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """A row of the new manifest, as an adapter yields it.

    Attributes:
        where: Its place in the source, for messages: a file, or a file and a row.
        audio: A recording, a part of one, or an encoded file's bytes.
        label: A key of the protocol's `label_of`, if it has one.
        more: Further columns, such as `emotion`, `score` or `fold`.
    """

    id: str
    where: str
    audio: Path | Segment | bytes | None = None
    text: str | None = None
    asr_text: str | None = None
    label: str | None = None
    rationale: str | None = None
    language: str | None = None
    speaker: str | None = None
    split: str | None = None
    kind: str | None = None
    more: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A published corpus: its source, its layout on disk, and its reader.

    Attributes:
        name: Value of `mmsr data convert --from`.
        read: The adapter.
        layout: Expected files, for messages.
        home: Where to get the corpus.
        licence: Its terms.
        protocols: By the value of `--labels`, the default first.
        text_alone: Whether a row with a missing or broken recording is kept as text.
        own: Whether the files are the user's, who may name their language and encoding.
        version: Of the adapter: another version makes other rows of the same source.
    """

    name: str
    read: Callable[["Source"], Iterable[Utterance]]
    layout: str
    home: str
    licence: str = "see its home"
    protocols: Mapping[str, Protocol]
    text_alone: bool = False
    own: bool = False
    version: int = 1


@dataclass(frozen=True)
class LeftOut:
    """A row of the source that the manifest lacks (`what` is `row`), or whose audio it lacks (`audio`).

    Attributes:
        where: Its place in the source.
        reason: Why, in the same words for all rows of a kind.
        detail: What is wrong with this one, if that is not said yet.
    """

    what: Literal["row", "audio"]
    where: str
    reason: str
    detail: str = ""

    @property
    def told(self) -> str:
        """Reason and detail."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


def _compiled(expression: str) -> re.Pattern[str]:
    """A regular expression.

    Raises:
        CorpusError: It is none.
    """
    try:
        return re.compile(expression)
    except re.error as error:
        raise CorpusError(
            f"speaker-from {expression!r} is no regular expression ({error}); accepted: such as '^([^_]+)_'"
        ) from None


class Source:
    """A corpus on disk, for its adapter.

    Args:
        root: Its folder.
        corpus: The corpus.
        labels: Key of the protocol.
        language: Language of the texts, if the user names it.
        encoding: Encoding of the texts, if the user names it.
        speaker_from: Regular expression that finds the speaker in a recording's name (see `speaker`).

    Attributes:
        read: Number of rows or recordings read so far, by file or folder.
        left_out: Rows that the adapter left out, with reasons.
        issues: Issues of the layout and of tables; with any of them nothing is written.
        notes: Remarks on the source, for the user.
    """

    def __init__(
        self,
        root: Path,
        corpus: Corpus,
        labels: str,
        *,
        language: str | None = None,
        encoding: str | None = None,
        speaker_from: str | None = None,
    ):
        self.root = root
        self._speaker_from = None if speaker_from is None else _compiled(speaker_from)
        self._unmatched: list[str] = []  # names in which no speaker is found
        self._matched = 0
        self.corpus = corpus
        self.labels = labels
        self.language = language
        self.encoding = encoding
        self.read: Counter[str] = Counter()
        self.left_out: list[LeftOut] = []
        self.issues: list[Issue] = []
        self.notes: list[str] = []

    @property
    def protocol(self) -> Protocol:
        """The chosen protocol."""
        return self.corpus.protocols[self.labels]

    def name(self, path: Path) -> str:
        """A path relative to the root, for messages."""
        return path.relative_to(self.root).as_posix()

    def speaker(self, path: Path) -> str | None:
        """The speaker in a recording's name, or in its path below the root if the expression has a `/`.

        It is the group `speaker`, else the first group, else the whole match. A recording whose name does not
        match has no speaker (see `check_speakers`), nor has one whose group has no part in the match.
        """
        if self._speaker_from is None:
            return None
        place = self.name(path)
        name = place if "/" in self._speaker_from.pattern else path.name
        match = self._speaker_from.search(name)
        if match is None:
            self._unmatched.append(name)
            return None
        self._matched += 1
        group = "speaker" if "speaker" in self._speaker_from.groupindex else min(1, self._speaker_from.groups)
        return match[group] or None

    def check_speakers(self) -> None:
        """Note recordings whose names the expression for speakers does not match.

        Raises:
            CorpusError: It matches none.
        """
        if self._speaker_from is None or not self._unmatched:
            return
        count, given = len(self._unmatched), f"--speaker-from {self._speaker_from.pattern!r}"
        examples = ", ".join(map(shown, self._unmatched[:3])) + (", ..." if count > 3 else "")
        if not self._matched:
            raise CorpusError(
                f"{given} matches none of the {count:,} names ({examples}); accepted: an expression that"
                " finds the speaker in them, such as '^([^_]+)_'"
            )
        self.notes.append(
            f"recordings without a speaker: {count:,} of {count + self._matched:,}, whose names do not match"
            f" {given} ({examples}); rows without a speaker cannot be split by speaker"
        )

    def issue(self, place: str, problem: str, *, row: int | None = None, column: str | None = None) -> None:
        """Add an issue of a row or file, so that the conversion fails."""
        self.issues.append(Issue(place, row, column, problem))

    def leave_out(self, where: str, reason: str, detail: str = "") -> None:
        """Leave a row out of the manifest; see `LeftOut`."""
        self.left_out.append(LeftOut("row", where, reason, detail))

    def wrong_layout(self, missing: str) -> CorpusError:
        """The error of a source that lacks expected files."""
        return CorpusError(
            f"{self.root}: {missing}; accepted: {self.corpus.layout};"
            f" {self.corpus.name} is had from {self.corpus.home}"
        )

    def paths(self, endings: Collection[str], *, below: Path | None = None) -> list[Path]:
        """Files with one of these endings anywhere below a folder, sorted.

        Hidden files are left out: archives made on a Mac hold a `._name` for each file.
        """
        top = self.root if below is None else below
        found = []
        for folder, folders, files in os.walk(top, followlinks=True):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [
                Path(folder, name)
                for name in files
                if not name.startswith(".") and os.path.splitext(name)[1].lower() in endings
            ]
        return sorted(found)

    def files(self, pattern: str) -> list[Path]:
        """Files below the root whose path ends with a glob pattern.

        Raises:
            CorpusError: There is none.
        """
        found = sorted(
            path for path in self.root.rglob(pattern) if path.is_file() and not path.name.startswith(".")
        )
        if not found:
            raise self.wrong_layout(f"no {pattern} in it or below")
        return found

    def file(self, name: str) -> Path:
        """The only file of a name below the root.

        Raises:
            CorpusError: There is none, or several.
        """
        found = self.files(name)
        if len(found) > 1:
            places = " and ".join(self.name(path) for path in found[:2])
            raise self.wrong_layout(f"{name} is there {len(found)} times, as {places}")
        return found[0]

    def recordings(self) -> Iterator[Path]:
        """Every recording below the root, counted as a row.

        Raises:
            CorpusError: There is none.
        """
        found = self.paths(SOUND | VIDEO)
        if not found:
            raise self.wrong_layout("no recording in it or below")
        for path in found:
            self.read[self.name(path.parent)] += 1
            yield path

    def clips(self, *folders: str) -> dict[str, Path]:
        """Recordings by their path without ending (`video/3`), in the first of these folders that exists.

        An audio file goes before a video of the same name. Empty if none of the folders exists.
        """
        top = next(
            (path for name in folders for path in sorted(self.root.rglob(name)) if path.is_dir()), None
        )
        if top is None:
            return {}
        video, sound = self.paths(VIDEO, below=top), self.paths(SOUND, below=top)
        return {path.relative_to(top).with_suffix("").as_posix(): path for path in (*video, *sound)}

    def table(
        self, path: Path, *, require: Collection[str], delimiter: str = ","
    ) -> Iterator[tuple[int, dict[str, str]]]:
        """Rows of a csv file, counted, with their numbers (the header is row 1); values are stripped.

        Raises:
            CorpusError: A column is missing, or the file is no csv.
        """
        name = self.name(path)
        csv.field_size_limit(LONGEST_CELL)
        reader = csv.reader(io.StringIO(self.text(path), newline=""), delimiter=delimiter, strict=True)
        try:
            header = [column.strip() for column in next(reader, [])]
            if absent := [column for column in require if column not in header]:
                raise CorpusError(
                    f"{path}, row 1: no column {', '.join(absent)}; found: {', '.join(header) or 'nothing'};"
                    f" accepted: {', '.join(require)}"
                )
            for number, values in enumerate(reader, start=2):
                self.read[name] += 1
                if not any(value.strip() for value in values):
                    self.leave_out(f"{name}, row {number}", "blank row")
                elif len(values) != len(header):
                    self.issue(
                        name, f"has {len(values)} values; accepted: {len(header)}, as the header", row=number
                    )
                else:
                    yield number, {key: value.strip() for key, value in zip(header, values, strict=True)}
        except csv.Error as error:
            raise CorpusError(
                f"{path}, line {reader.line_num}: cannot be read ({error}); accepted: valid csv"
            ) from error

    def text(self, path: Path) -> str:
        """A text file's content, in UTF-8 or cp1252; wrongly decoded punctuation of cp1252 is corrected."""
        content = path.read_bytes()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("latin-1")  # cp1252 except for the characters translated below
            self.notes.append(f"{self.name(path)} is not UTF-8 and was read as cp1252")
        else:
            if strays := len(re.findall("[\x80-\x9f]", text)):
                self.notes.append(f"{self.name(path)}: {strays} characters of cp1252's punctuation corrected")
        return text.translate(_CP1252)

    def transcripts(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Texts of files in any encoding (see `decode_text`); what cannot be read is an issue.

        A file that may be in several encodings is in that of the others, if they have one.
        """
        encoding = None if self.encoding is None else known_encoding(self.encoding)
        found: dict[Path, DecodedText] = {}
        failed: dict[Path, EncodingError] = {}
        for path in paths:
            try:
                found[path] = decode_text(
                    path.read_bytes(), self.name(path), language=self.language, encoding=encoding
                )
            except EncodingError as error:
                failed[path] = error
        encodings = {decoded.encoding for decoded in found.values() if decoded.guessed}
        for path, failure in failed.items():
            alike = [reading for reading in failure.readings if {reading.encoding} == encodings]
            if alike:
                found[path] = alike[0]
            else:
                place, _, problem = str(failure).partition(": ")
                self.issue(place, problem, column="text")
        for encoding in sorted(encodings):
            files = [
                path for path, decoded in found.items() if decoded.encoding == encoding and decoded.guessed
            ]
            self.notes.append(
                f"{len(files):,} of the transcripts are not UTF-8 and were read as {encoding}, such as"
                f" {self.name(files[0])} ({found[files[0]].sample});"
                " if that is wrong, give --encoding or --language"
            )
        return {path: decoded.text for path, decoded in found.items()}

    def number(self, value: str, place: str, *, row: int, column: str) -> float | None:
        """A value as a finite number; None, with an issue, if it is none."""
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not abs(number) < float("inf"):
            self.issue(place, f"{value!r} is no number; accepted: a finite number", row=row, column=column)
            return None
        return number
