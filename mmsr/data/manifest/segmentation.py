"""Turns a manifest of long recordings into a manifest of speech segments."""

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import soundfile

from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.data.audio.reading import read_each, seconds_of
from mmsr.data.audio.segments import Segmentation, SegmentError, silero, speech_segments
from mmsr.data.manifest.manifest import (
    ASR_WORDS,
    COLUMNS,
    DURATION,
    OPTIONAL,
    Issue,
    ManifestError,
    examine_manifest,
)
from mmsr.data.manifest.tables import Table, holds_bytes, read_table, write_table
from mmsr.data.storage import is_url, relative_to
from mmsr.files import atomic_write, check_output
from mmsr.records import SAMPLE_RATE, Progress


@dataclass(frozen=True)
class SegmentedManifest:
    """The result of `segment_manifest`.

    Attributes:
        manifest: The new manifest.
        rows: Number of its rows.
        recordings: Number of recordings that were cut.
        segments: Number of their segments.
        seconds: Length of these recordings.
        speech_seconds: Length of the segments.
        silent: Ids of recordings without speech, which have no row.
    """

    manifest: Path
    rows: int
    recordings: int
    segments: int
    seconds: float
    speech_seconds: float
    silent: tuple[str, ...]


def segment_manifest(
    manifest: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    settings: Segmentation | None = None,
    columns: Mapping[str, str] | None = None,
    keep_text: bool = False,
    keep_label: bool = True,
    progress: Progress | None = None,
) -> SegmentedManifest:
    """Give each segment of a manifest's long recordings a row of its own.

    A row whose audio is longer than `settings.max_seconds` becomes rows `<id>-0001`, `<id>-0002` ..., with
    its speaker, language, split, kind, and further columns (such as `fold`); a column `duration` gets each
    segment's length. Other rows stay as they are. Writes

    - OUT/audio/<id>/0001.flac ...: 16-bit FLAC, 16 kHz mono;
    - OUT/segments.csv: id, recording (the id of its row), audio (the recording), start and end in seconds;
    - OUT/manifest.csv, last.

    A second call cuts only recordings whose segments are missing, or whose file or settings changed.

    Args:
        manifest: The manifest to read. Further columns are kept of a file, not of a Hub dataset.
        out: Folder to write.
        settings: How recordings are cut.
        columns: Where a column has another name in the file.
        keep_text: Whether each segment gets the recording's text, asr_text and rationale as a whole.
        keep_label: Whether each segment gets the recording's label.
        progress: Called with task, recordings done and their number.

    Raises:
        SegmentError: silero-vad is missing, a row has the id of a segment, or `out` is the manifest's folder.
        ManifestError: The manifest has issues, or recordings cannot be read, which are named all. Segments
            that were cut are used by the next call.
    """
    settings, out = settings or Segmentation(), Path(out)
    if (out / "manifest.csv").exists() and (out / "manifest.csv").samefile(manifest):
        raise SegmentError(f"{out} is the folder of {manifest}; accepted: another folder to write to")
    check_output(out, folder=True)
    examined = examine_manifest(manifest, columns=columns)
    if examined.issues:
        raise ManifestError(examined.issues)
    table = examined.rows.to_list()
    moved = [row["audio"] and relative_to(row["audio"], os.path.abspath(out)) for row in table]
    issues = _AudioIssues(manifest)
    known = [*COLUMNS, *(name for name in OPTIONAL if name in examined.rows.column_names)]
    others, more = _others(manifest, examined.numbers, {*COLUMNS, *OPTIONAL, *(columns or {}).values()})
    long = _long(table, examined.numbers, settings.max_seconds, issues)
    issues.check()
    _check_ids(table, long)
    silero()  # before anything is written
    dropped = {*(() if keep_text else ("text", "asr_text", "rationale")), *(() if keep_label else ("label",))}
    rows: list[dict[str, Any]] = []
    places: list[dict[str, Any]] = []
    silent, seconds, done = [], 0.0, 0
    for number, row, other, source in zip(examined.numbers, table, more, moved, strict=True):
        if row["id"] not in long:
            rows.append({**row, **other, "audio": source})
            continue
        done += 1
        try:
            cut = _segmented(row, out / "audio" / folder_name(row["id"]), settings)
        except AudioError as error:  # damaged after its start; the others are cut nevertheless
            issues.add(number, error)
            continue
        for place, part in enumerate(cut["segments"], start=1):
            identity = f"{row['id']}-{place:04d}"
            audio = os.path.join("audio", folder_name(row["id"]), f"{place:04d}.flac")
            own = {"id": identity, "audio": audio, DURATION: round(part["end"] - part["start"], 4)}
            own[ASR_WORDS] = None  # their times are the recording's
            rows.append({**row, **other, **dict.fromkeys(dropped), **own})
            places.append({"id": identity, "recording": row["id"], "audio": source, **part})
        silent += [] if cut["segments"] else [row["id"]]
        seconds += cut["seconds"]
        if progress is not None:
            progress("segments", done, len(long))
    issues.check()
    write_table(out / "segments.csv", Table(["id", "recording", "audio", "start", "end"], places, []))
    write_table(out / "manifest.csv", Table([*known, *others], rows, []))
    return SegmentedManifest(
        manifest=out / "manifest.csv",
        rows=len(rows),
        recordings=len(long),
        segments=len(places),
        seconds=seconds,
        speech_seconds=sum(part["end"] - part["start"] for part in places),
        silent=tuple(silent),
    )


def _long(rows: list[dict[str, Any]], numbers: np.ndarray, most: float, issues: "_AudioIssues") -> set[str]:
    """Ids of the rows whose audio lasts more than `most` seconds."""
    spoken = [(number, row) for number, row in zip(numbers, rows, strict=True) if row["audio"]]
    lengths = read_each([row["audio"] for _, row in spoken], seconds_of)
    long = set()
    for (number, row), length in zip(spoken, lengths, strict=True):
        if isinstance(length, AudioError):
            issues.add(number, length)
        elif length > most:
            long.add(row["id"])
    return long


def _check_ids(rows: list[dict[str, Any]], long: set[str]) -> None:
    """Refuse ids that a segment of a long recording would have."""
    for row in rows:
        if (parts := re.fullmatch(r"(.*)-\d{4,}", row["id"], re.DOTALL)) and parts[1] in long:
            raise SegmentError(
                f"id {row['id']!r} would be a segment's of the recording {parts[1]!r}; accepted: another"
            )


def _others(
    manifest: str | os.PathLike[str], numbers: np.ndarray, known: Collection[str]
) -> tuple[list[str], list[dict[str, Any]]]:
    """A file's columns beside the known ones and those of bytes, and the values of some rows there."""
    if not os.path.isfile(manifest):
        return [], [{} for _ in numbers]
    table = read_table(Path(manifest), without=known)
    rows = dict(zip(table.numbers, table.rows, strict=True))
    bytes_ = {field.name for field in table.schema or () if holds_bytes(field.type)}
    return [name for name in table.columns if name not in bytes_], [rows[n] for n in numbers.tolist()]


class _AudioIssues:
    """Recordings that cannot be read, by the rows that name them."""

    def __init__(self, manifest: str | os.PathLike[str]):
        self._name = os.path.basename(manifest)
        self._issues: list[Issue] = []

    def add(self, number: int, error: AudioError) -> None:
        self._issues.append(Issue(self._name, int(number), "audio", str(error), code=error.code))

    def check(self) -> None:
        if self._issues:
            raise ManifestError(self._issues)


def _segmented(row: Mapping[str, Any], folder: Path, settings: Segmentation) -> dict[str, Any]:
    """The content of segments.json in a recording's folder; both are written if missing or outdated."""
    made_from = {"audio": row["audio"], **asdict(settings)}
    if not is_url(row["audio"]):
        file = os.stat(row["audio"])
        made_from |= {"bytes": file.st_size, "modified": file.st_mtime_ns}
    if (folder / "segments.json").is_file():
        found = json.loads((folder / "segments.json").read_text(encoding="utf-8"))
        if found["made_from"] == made_from:
            return found
    samples = Audio(SAMPLE_RATE)(row["audio"])
    segments = speech_segments(samples, settings)
    answer = {
        "made_from": made_from,
        "seconds": len(samples) / SAMPLE_RATE,
        "segments": [{"start": round(part.start, 4), "end": round(part.end, 4)} for part in segments],
    }
    with atomic_write(folder) as half:
        half.mkdir()
        for number, part in enumerate(segments, start=1):
            piece = samples[round(part.start * SAMPLE_RATE) : round(part.end * SAMPLE_RATE)]
            soundfile.write(half / f"{number:04d}.flac", piece, SAMPLE_RATE, subtype="PCM_16")
        (half / "segments.json").write_text(json.dumps(answer, indent=1), encoding="utf-8")
    return answer


def folder_name(identity: str) -> str:
    """An id as a folder's name; different ids have different names."""
    name = quote(identity, safe=" ").replace(".", "%2E")
    if len(name) <= 100:
        return name
    return f"{name[:80]}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
