"""What an adapter is made of: the corpus on disk that it reads, and the utterances that it gives.

    Source (files, tables, clips; counts what is read) ─► Corpus.read ─► Utterance, Utterance, ...

An adapter reads through `Source`, which counts: a row that is neither given nor left out with a reason is an
error. The issues of single rows are collected and raised together.
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

from mmsr.data.manifest.manifest import Issue

SENTIMENTS = ("negative", "neutral", "positive")

#: Names of splits in the paths of corpora.
SPLIT_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "val", "valid", "validation"), "dev"),
    "test": "test",
}

#: Endings of recordings that libsndfile decodes, and of those whose sound ffmpeg has to take out.
SOUND = frozenset({".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".au", ".w64", ".caf"})
VIDEO = frozenset({".mp4", ".m4a", ".aac", ".avi", ".mkv", ".mov", ".webm", ".wma", ".flv"})

# C1 control characters are no text: they are cp1252's punctuation, decoded as if it were Latin-1.
_CP1252 = {
    code: bytes([code]).decode("cp1252")
    for code in range(0x80, 0xA0)
    if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}


class CorpusError(ValueError):
    """A corpus that cannot be converted; the message is one line, with what was expected."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a corpus is evaluated, which results on it carry.

    Attributes:
        name: What a table of results calls it.
        labels: The label set; empty where it is whatever the source holds.
        metrics: What its papers report, the first being the one to compare by.
        splits: Values of the manifest's column `split`, where rows are in fixed splits.
        folds: How many values the manifest's column `fold` has, from 0, where each is the test set in turn.
        fold_by: What keeps together in a fold. Where it is the speaker, the training program's
            `--data.folds` of the same number cuts the same folds.
        label_of: The corpus's own label to ours; another of the corpus's labels is outside the protocol.
            Empty where the labels are ours already.
        rows: How many rows the published corpus has under this protocol, where that is known.
        source: The paper that it is from.
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
    """A part of a recording, in seconds. A file that is no longer than the part is the part already."""

    path: Path
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One row of the manifest to be, as an adapter gives it.

    Attributes:
        where: Its place in the source, for messages: a file, or a file and a row.
        audio: A recording, a part of one, or an encoded file's bytes.
        label: In the corpus's own words where the protocol has a `label_of`.
        more: Columns of the corpus's own, such as `emotion`, `score`, `fold`, which stand behind ours.
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
    """A published corpus: where it comes from, its layout on disk, and how it is read.

    Attributes:
        name: What `mmsr data convert --from` calls it.
        read: The adapter.
        layout: Which files are expected, for messages.
        home: Where the corpus comes from.
        licence: Its terms.
        protocols: By the value of `--labels`, the default first.
        text_alone: Whether a row whose recording is missing or broken stays, with its text alone.
        version: Of the adapter: another version makes other rows of the same source.
    """

    name: str
    read: Callable[["Source"], Iterable[Utterance]]
    layout: str
    home: str
    licence: str = "see its home"
    protocols: Mapping[str, Protocol]
    text_alone: bool = False
    version: int = 1


@dataclass(frozen=True)
class LeftOut:
    """Something of the source that the manifest lacks: a row, or the audio of a row.

    Attributes:
        what: `row`, or `audio` where the row is there with its text alone.
        where: Its place in the source.
        reason: Why.
    """

    what: Literal["row", "audio"]
    where: str
    reason: str


class Source:
    """A corpus on disk, as its adapter reads it.

    Args:
        root: Its folder.
        corpus: Which corpus it should be.
        labels: Key of the corpus's protocol to follow.

    Attributes:
        read: Rows or recordings read so far, by file or folder. Each has to be given or left out.
        left_out: What the adapter left out.
        issues: What is wrong with single rows; nothing is written where there are any.
        notes: What a person should know about the whole.
    """

    def __init__(self, root: Path, corpus: Corpus, labels: str):
        self.root = root
        self.corpus = corpus
        self.labels = labels
        self.read: Counter[str] = Counter()
        self.left_out: list[LeftOut] = []
        self.issues: list[Issue] = []
        self.notes: list[str] = []

    @property
    def protocol(self) -> Protocol:
        """The protocol to follow."""
        return self.corpus.protocols[self.labels]

    def name(self, path: Path) -> str:
        """A path as messages call it: as it lies below the root."""
        return path.relative_to(self.root).as_posix()

    def issue(self, place: str, problem: str, *, row: int | None = None, column: str | None = None) -> None:
        """Note what is wrong with a row or file, and what is accepted; the conversion then fails."""
        self.issues.append(Issue(place, row, column, problem))

    def leave_out(self, where: str, reason: str) -> None:
        """Note a row that the manifest will lack."""
        self.left_out.append(LeftOut("row", where, reason))

    def wrong_layout(self, missing: str) -> CorpusError:
        """The error of a source that does not hold what was looked for."""
        return CorpusError(
            f"{self.root}: {missing}; accepted: {self.corpus.layout};"
            f" {self.corpus.name} is had from {self.corpus.home}"
        )

    def paths(self, endings: Collection[str], *, below: Path | None = None) -> list[Path]:
        """Files with one of these endings anywhere below a folder, sorted; hidden ones are not files here.

        (`._name` are the shadows that archives made on a Mac bring along.)
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
        """Files anywhere below the root whose path ends as this glob pattern.

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
        """The one file of this name, wherever below the root.

        Raises:
            CorpusError: There is none, or several.
        """
        found = self.files(name)
        if len(found) > 1:
            places = " and ".join(self.name(path) for path in found[:2])
            raise self.wrong_layout(f"{name} is there {len(found)} times, as {places}")
        return found[0]

    def recordings(self) -> Iterator[Path]:
        """Every recording below the root, where recordings are the corpus's rows; they are counted.

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
        """Recordings by their path without ending (`video/3`), below the first of these folders.

        The folders are spellings of one place. What libsndfile reads goes before video.
        Empty where none of the folders is there.
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
        """Rows of a csv file, counted, with their numbers as a person sees them (the header is row 1).

        The file is UTF-8, or else cp1252; in both, cp1252's punctuation that was decoded as control
        characters on the way is put right. Values are stripped.

        Raises:
            CorpusError: A column is missing, or the file is no csv.
        """
        name = self.name(path)
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
        """A text file's content: UTF-8, or else cp1252, with or without a byte order mark."""
        content = path.read_bytes()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("latin-1")  # cp1252 but for the characters below
            self.notes.append(f"{self.name(path)} is not UTF-8 and was read as cp1252")
        else:
            if strays := len(re.findall("[\x80-\x9f]", text)):
                self.notes.append(f"{self.name(path)}: {strays} characters of cp1252's punctuation put right")
        return text.translate(_CP1252)

    def number(self, value: str, place: str, *, row: int, column: str) -> float | None:
        """A value as a finite number, or None and an issue."""
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not abs(number) < float("inf"):
            self.issue(place, f"{value!r} is no number; accepted: a finite number", row=row, column=column)
            return None
        return number
