"""Convert a published corpus to a manifest, whole or not at all.

    Corpus.read(Source) ─► Utterance ─► label of the protocol ─► audio file ─► DIR/manifest.csv
                                                                              DIR/corpus.json
                                                                              DIR/left_out.csv, DIR/audio/

`corpus.json` describes the manifest (protocol, counts, terms, command); evaluations copy it beside their
metrics. Every row of the source is in the manifest, or in `left_out.csv` with a reason: a recording that
cannot be read costs its own row, or only its audio where the corpus has use for the text alone.
"""

import dataclasses
import errno
import functools
import hashlib
import io
import itertools
import json
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from mmsr.data.audio.containers import read_headers
from mmsr.data.audio.decoding import Audio, AudioError, Decoded
from mmsr.data.audio.reading import seconds_of
from mmsr.data.corpora.source import (
    VIDEO,
    Corpus,
    CorpusError,
    LeftOut,
    Protocol,
    Segment,
    Source,
    Utterance,
)
from mmsr.data.manifest.manifest import COLUMNS, ManifestError, examine_manifest
from mmsr.data.manifest.tables import Table, write_table
from mmsr.data.storage import shown
from mmsr.files import atomic_write, check_output
from mmsr.records import Progress

logger = logging.getLogger(__name__)

_AT_ONCE = 64  # rows whose audio is in memory at a time
_UNREADABLE = "its recording is missing or broken"
_SHOWN_PLACES = 3
_LONGER = 0.1  # seconds by which a file may be longer than a segment and still be that segment
# Where the name of a container is not the usual ending.
_ENDING = {"RF64": "wav", "BW64": "wav", "Matroska": "mkv", "ASF": "wma", "SPHERE": "sph", "unknown": "audio"}


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion.

    Attributes:
        manifest: Path of the manifest.
        record: Content of corpus.json.
        left_out: Rows or audio that the manifest lacks.
        notes: Remarks on the source, for the user.
    """

    manifest: Path
    record: dict[str, Any]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def convert(
    corpus: Corpus,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    labels: str | None = None,
    copy: bool = False,
    language: str | None = None,
    encoding: str | None = None,
    speaker_from: str | None = None,
    command: str | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """Convert a published corpus on disk to a folder with a manifest.

    The manifest names recordings by their relative paths. Audio that is no file in the source (bytes in a
    table, a part of a recording, the audio of a video) is written to `audio/`.

    Args:
        corpus: The corpus, such as `CORPORA["emodb"]`.
        source: Its folder.
        out: A new folder.
        labels: Key of the protocol, such as `sentiment`; by default the corpus's first.
        copy: Copy all recordings to `audio/`.
        language: Language of a folder's transcripts, for the rows and to tell encodings apart.
        encoding: Encoding of a folder's transcripts; see `decode_text`.
        speaker_from: Regular expression that finds the speaker in the name of a folder's recording; see
            `Source.speaker`.
        command: The command line, for corpus.json.
        progress: Called with the corpus, the rows done and all rows.

    Raises:
        CorpusError: The source has another layout, `out` exists, the protocol is unknown, or a published
            corpus is given a language, an encoding or `speaker_from`.
        ManifestError: The layout or a table has issues; nothing is written. Recordings that cannot be read
            are no issue: they are left out.
    """
    root, out = Path(os.path.abspath(source)), Path(os.path.abspath(out))
    labels = next(iter(corpus.protocols)) if labels is None else labels
    if labels not in corpus.protocols:
        raise CorpusError(
            f"labels {labels!r} is no protocol of {corpus.name}; accepted: {', '.join(corpus.protocols)}"
        )
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CorpusError(f"{out} exists already; accepted: a new folder")
    given = {"speaker-from": speaker_from, "encoding": encoding, "language": language}
    for what, value in given.items():
        if value is not None and not corpus.own:
            raise CorpusError(
                f"{what} {value!r} with {corpus.name}, which is known; accepted: of the corpus folder"
            )
    check_output(out, folder=True)
    reader = Source(root, corpus, labels, language=language, encoding=encoding, speaker_from=speaker_from)
    if not root.is_dir():
        raise reader.wrong_layout("is no folder")
    with atomic_write(out) as unfinished:
        unfinished.mkdir()
        rows = list(_rows(reader, _AudioFiles(unfinished, copy=copy), progress))
        _check_account(reader, rows)
        protocol = reader.protocol
        if not protocol.labels:
            found = sorted({row["label"] for row in rows if row["label"]})
            protocol = dataclasses.replace(protocol, labels=tuple(found))
        record = _record(reader, rows, protocol, place=os.fspath(source), command=command)
        _write(unfinished, rows, reader.left_out, record)
        issues = examine_manifest(unfinished / "manifest.csv", labels=protocol.labels).issues
        if issues:
            raise ManifestError(issues)
    _log_left_out(reader, record)
    return Conversion(out / "manifest.csv", record, tuple(reader.left_out), tuple(reader.notes))


# ---------------------------------------------------------------------- rows


def _rows(source: Source, files: "_AudioFiles", progress: Progress | None) -> Iterator[dict[str, str]]:
    """Rows of the manifest; their audio files are written."""
    kept = _kept(source)
    done = 0
    with ThreadPoolExecutor() as pool:
        while part := list(itertools.islice(kept, _AT_ONCE)):
            for utterance, (audio, seconds, error) in zip(part, pool.map(files.place, part), strict=True):
                where = shown(utterance.where)
                if error is not None:  # by the recording's name in the source, if it is not the row's
                    error = error.replace(f"{source.root}{os.sep}", "", 1).removeprefix(f"{where}: ")
                if error is not None and source.corpus.text_alone and utterance.text:
                    source.left_out.append(LeftOut("audio", where, _UNREADABLE, error))
                elif error is not None:
                    source.leave_out(where, _UNREADABLE, error)
                    continue
                values = {column: getattr(utterance, column) for column in COLUMNS} | {"audio": audio}
                values |= {"duration": seconds if seconds is None else f"{seconds:.3f}"} | dict(
                    utterance.more
                )
                yield {column: "" if value is None else shown(str(value)) for column, value in values.items()}
            done += len(part)
            if progress:
                progress(source.corpus.name, done, max(done, source.read.total()))


def _kept(source: Source) -> Iterator[Utterance]:
    """The adapter's utterances under the protocol, with its labels."""
    place_of: dict[str, str] = {}
    label_of = source.protocol.label_of
    for utterance in source.corpus.read(source):
        first = place_of.setdefault(utterance.id, utterance.where)
        if first != utterance.where:
            source.issue(
                utterance.where,
                f"{utterance.id!r} is the id of {first} too; accepted: each recording once",
                column="id",
            )
        elif label_of and utterance.label not in label_of:
            source.leave_out(
                utterance.where, f"label {utterance.label} is not in the protocol {source.protocol.name}"
            )
        else:
            label = label_of[str(utterance.label)] if label_of else utterance.label
            yield dataclasses.replace(utterance, label=label)


def _check_account(source: Source, rows: list[dict[str, str]]) -> None:
    """Raise an error for rows with issues, and if a row is neither written nor left out with a reason."""
    if source.issues:
        raise ManifestError(source.issues, listed_by=None)
    if not rows:
        first = {gap.reason: gap for gap in reversed(source.left_out)}  # of each reason
        told = (f"{gap.where}: {gap.detail}" if gap.detail else gap.reason for gap in first.values())
        reasons = "; ".join(sorted(told)) or "it has none"
        raise source.wrong_layout(f"no row to write ({reasons})")
    left_out = sum(gap.what == "row" for gap in source.left_out)
    if source.read.total() != len(rows) + left_out:
        raise CorpusError(
            f"{source.root}: {source.read.total()} rows were read, but {len(rows)} are in the manifest and"
            f" {left_out} left out with a reason; accepted: an adapter {source.corpus.name} that accounts for"
            " each"
        )


# ---------------------------------------------------------------------- audio


class _AudioFiles:
    """Gives each utterance's audio a file that the manifest can name.

    Args:
        folder: The manifest's unfinished folder, beside its final one, so that relative paths stay right.
        copy: Copy recordings that are files already.
    """

    def __init__(self, folder: Path, *, copy: bool):
        self.folder = folder
        self.copy = copy

    def place(self, utterance: Utterance) -> tuple[str | None, float | None, str | None]:
        """The manifest's `audio`, its seconds, and its issue."""
        try:
            path = self._file(utterance)
            if path is None:
                return None, None, None
            seconds = seconds_of(path)
        except AudioError as error:
            return None, None, str(error)
        except (OSError, RuntimeError) as error:  # of reading and writing; a disk that is full ends all
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            return None, None, f"{shown(utterance.where)}: cannot be read ({shown(str(error))})"
        try:
            name = os.path.relpath(path, self.folder)
        except ValueError:  # on another drive
            name = str(path)
        return Path(name).as_posix(), seconds, None

    def _file(self, utterance: Utterance) -> Path | None:
        audio = utterance.audio
        if isinstance(audio, bytes):
            try:
                seconds_of(audio)
            except AudioError as error:  # in place of "1234 bytes of audio"
                reason = str(error).partition(": ")[2]
                raise AudioError(f"{utterance.where}: {reason}", code=error.code) from error
            container = read_headers(io.BytesIO(audio))[0].container
            ending = _ENDING.get(container, container.lower())
            path = self._new(utterance, f".{ending}")
            path.write_bytes(audio)
            return path
        if isinstance(audio, Segment):
            if Audio.duration(audio.path) > audio.end - audio.start + _LONGER:
                return self._cut(audio, self._new(utterance, ".flac"))
            audio = audio.path
        if audio is None:
            return None
        if audio.suffix.lower() in VIDEO:
            path = self._new(utterance, ".flac")
            soundfile.write(path, Audio()(audio), 16000)
            return path
        if self.copy or shown(audio) != str(audio):  # a manifest is UTF-8, and cannot name it
            seconds_of(audio)  # a broken file is not copied
            return Path(shutil.copyfile(audio, self._new(utterance, audio.suffix.lower())))
        return audio

    def _new(self, utterance: Utterance, ending: str) -> Path:
        folder = self.folder / "audio"
        folder.mkdir(exist_ok=True)
        name = re.sub(r"[^\w.-]", "_", utterance.id)
        if name != utterance.id:  # another id may give the same name
            name += f"-{hashlib.sha256(utterance.id.encode(errors='surrogateescape')).hexdigest()[:8]}"
        return folder / (name + ending)

    @staticmethod
    def _cut(segment: Segment, path: Path) -> Path:
        decoded = _decoded(segment.path)
        rate, count = decoded.sampling_rate, len(decoded.samples)
        start, end = (round(seconds * rate) for seconds in (segment.start, segment.end))
        if not 0 <= start < end <= count + _LONGER * rate:
            raise AudioError(
                f"{segment.path}: no part {segment.start} to {segment.end} s in"
                f" {count / rate:.2f} s; accepted: start before end, within the file"
            )
        soundfile.write(path, decoded.samples[start:end], rate)
        return path


@functools.lru_cache(maxsize=2)
def _decoded(path: Path) -> Decoded:
    """A recording at its own rate; its segments follow one another."""
    return Audio(None).decode(path)


# ---------------------------------------------------------------------- files


def _record(
    source: Source, rows: list[dict[str, str]], protocol: Protocol, *, place: str, command: str | None
) -> dict[str, Any]:
    """The content of corpus.json."""
    corpus = source.corpus
    gaps = {what: [gap for gap in source.left_out if gap.what == what] for what in ("row", "audio")}
    counts: dict[str, Any] = {
        "read": dict(source.read),
        "rows": len(rows),
        "left_out": dict(Counter(gap.reason for gap in gaps["row"])),
        "audio_missing": len(gaps["audio"]),
        "audio": sum(bool(row["audio"]) for row in rows),
        "text": sum(bool(row["text"]) for row in rows),
    }
    for column in ("label", "split", "language", "kind", "fold"):
        found = Counter(row[column] for row in rows if row.get(column))
        counts[column] = {value: found[value] for value in sorted(found)}
    counts["speakers"] = len({row["speaker"] for row in rows if row["speaker"]})
    return {
        "corpus": corpus.name,
        "adapter_version": corpus.version,
        "labels": source.labels,
        "protocol": dataclasses.asdict(protocol),
        "counts": counts,
        "notes": source.notes,
        "home": corpus.home,
        "licence": corpus.licence,
        "source": place,
        "command": command,
    }


def _write(folder: Path, rows: list[dict[str, str]], left_out: list[LeftOut], record: dict[str, Any]) -> None:
    more = dict.fromkeys(column for row in rows for column in row if column not in COLUMNS)
    write_table(folder / "manifest.csv", Table([*COLUMNS, *more], rows, []))
    gaps = [{"what": gap.what, "where": gap.where, "reason": gap.told} for gap in left_out]
    write_table(folder / "left_out.csv", Table(["what", "where", "reason"], gaps, []))
    text = json.dumps(record, ensure_ascii=False, indent=2) + "\n"
    (folder / "corpus.json").write_text(text, encoding="utf-8")


def _log_left_out(source: Source, record: dict[str, Any]) -> None:
    """Log notes, and what is left out, a line for each reason."""
    name = source.corpus.name
    for note in source.notes:
        logger.warning("%s: %s", name, note)
    by_reason: dict[tuple[str, str], list[LeftOut]] = {}
    for gap in source.left_out:
        by_reason.setdefault((gap.what, gap.reason), []).append(gap)
    for (what, reason), gaps in by_reason.items():
        places = ", ".join(gap.where for gap in gaps[:_SHOWN_PLACES])
        places += ", ..." if len(gaps) > _SHOWN_PLACES else ""
        rows = "1 row" if len(gaps) == 1 else f"{len(gaps):,} rows"
        done = "left out" if what == "row" else "without audio, with their text alone"
        told = gaps[0].told if len(gaps) == 1 else reason
        logger.warning("%s: %s %s (%s): %s", name, rows, done, places, told)
    published, rows = source.protocol.rows, record["counts"]["rows"]
    if published not in (None, rows):
        logger.warning("%s: %d rows, but %d in the published corpus", name, rows, published)
