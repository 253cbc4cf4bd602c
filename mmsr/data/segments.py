"""Long recordings as segments of speech, found by silero-vad.

    samples [s] ─► silero-vad ─► stretches of speech ─► joined over short silences, padded
                                                        ─► cut at their quietest points ─► segments

silero-vad (MIT, extra `segments`) brings its weights in its wheel and runs offline on torch alone. It hears a
`Recording` as it does an array, minute by minute: hours take no more memory.
"""

import functools
import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np
import soundfile

from mmsr.data.audio import Audio, AudioError
from mmsr.data.manifest import COLUMNS, DURATION, ManifestError, examine_manifest
from mmsr.data.storage import is_url, relative_to
from mmsr.data.tables import Table, holds_bytes, read_table, write_table
from mmsr.files import appearing

_RATE = 16000
# Loudness is compared over this many seconds: a plosive's closure counts, a zero crossing does not.
_QUIET = 0.05
# silero-vad answers for so many samples at a time.
_FRAME = 512
# Recordings beyond ten minutes are heard as stripes of this many frames side by side, which is four times as
# fast; each begins ten seconds early, to come out of silero-vad's memory as if all before had been heard.
_STRIPE = 600 * _RATE // _FRAME
_LEAD = 10 * _RATE // _FRAME
_ABREAST = 16
_MINUTE = 60 * _RATE // _FRAME  # so much is in memory at a time, of each stripe


class Samples(Protocol):
    """Samples `[s]` float32 at 16 kHz: an array, or a `Recording` on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


class SegmentError(ValueError):
    """Settings that cannot be met, or a missing library."""


@dataclass(frozen=True)
class Segment:
    """A piece of a recording.

    Attributes:
        start: Its beginning in seconds.
        end: Its end in seconds.
    """

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """How recordings are cut; all lengths in seconds.

    Attributes:
        min_seconds: Shorter speech is taken for a noise, and is in no segment.
        max_seconds: No segment is longer, padding included; longer speech is cut at its quietest points.
        max_silence: A longer silence ends a segment.
        padding: Kept before and after speech, up to the middle of the silence between two segments.
        threshold: Probability from which on silero-vad's answer is speech.

    Raises:
        SegmentError: A length is out of its range.
    """

    min_seconds: float = 0.25
    max_seconds: float = 20.0
    max_silence: float = 0.5
    padding: float = 0.1
    threshold: float = 0.5

    def __post_init__(self) -> None:
        for name, value, right, accepted in (
            ("min_seconds", self.min_seconds, self.min_seconds > 0, "a positive number"),
            ("max_seconds", self.max_seconds, self.max_seconds >= 1, "1 or more"),
            (
                "min_seconds",
                self.min_seconds,
                2 * self.min_seconds <= self.max_seconds,
                f"at most half of max_seconds, {self.max_seconds / 2:g}",
            ),
            ("max_silence", self.max_silence, self.max_silence > 0, "a positive number"),
            ("padding", self.padding, self.padding >= 0, "0 or more"),
            ("threshold", self.threshold, 0 < self.threshold < 1, "between 0 and 1"),
        ):
            if not right:
                raise SegmentError(f"{name} is {value}; accepted: {accepted}")


def speech_segments(
    samples: Samples,
    *,
    min_seconds: float = Segmentation.min_seconds,
    max_seconds: float = Segmentation.max_seconds,
    max_silence: float = Segmentation.max_silence,
    padding: float = Segmentation.padding,
    threshold: float = Segmentation.threshold,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Segment]:
    """Find the speech in a recording, in segments that do not overlap, in order.

    Args:
        samples: `[s]` float32 at 16 kHz, as `Audio` gives them, or a `Recording`.
        min_seconds: See `Segmentation`, as for those that follow.
        max_seconds: Longest segment.
        max_silence: Longest silence in a segment.
        padding: Kept around speech.
        threshold: Probability of speech.
        progress: Called with task, seconds heard and seconds in all.

    Raises:
        SegmentError: A setting is out of its range, or silero-vad is missing.
    """
    settings = Segmentation(
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        max_silence=max_silence,
        padding=padding,
        threshold=threshold,
    )
    if isinstance(samples, np.ndarray) and samples.ndim != 1:
        raise SegmentError(f"samples have shape {list(samples.shape)}; accepted: [s] at {_RATE} Hz")
    padded = _padded(_speech(samples, settings, progress), len(samples) / _RATE, padding)
    return [part for stretch in padded for part in cut_at_quietest(samples, stretch, settings)]


def _speech(
    samples: Samples, settings: Segmentation, progress: Callable[[str, int, int], None] | None
) -> list[Segment]:
    """Stretches of speech without padding, those that a short silence parts joined."""
    model, timestamps = _silero()
    # Silence after the end: without it, the silence that a recording ends with would count as speech.
    ended = len(samples) + round(_RATE * (settings.max_silence + 0.1))
    found = timestamps(
        _probabilities(samples, -(-ended // _FRAME), model, progress),
        audio_length_samples=ended,
        threshold=settings.threshold,
        sampling_rate=_RATE,
        min_speech_duration_ms=round(1000 * settings.min_seconds),
        min_silence_duration_ms=round(1000 * settings.max_silence),
        speech_pad_ms=0,
    )
    return [Segment(part["start"] / _RATE, min(part["end"], len(samples)) / _RATE) for part in found]


def _probabilities(
    samples: Samples, frames: int, model: Any, progress: Callable[[str, int, int], None] | None
) -> list[float]:
    """Probability of speech in each frame; beyond the samples there is silence."""
    import torch

    found = np.zeros(frames, dtype=np.float32)
    stripes = range(0, frames, _STRIPE)
    lead, length = (_LEAD, _STRIPE) if len(stripes) > 1 else (0, frames)
    for group in (stripes[place : place + _ABREAST] for place in range(0, len(stripes), _ABREAST)):
        model.reset_states()
        for low in range(-lead, length, _MINUTE):
            count = min(_MINUTE, length - low)
            block = np.stack([_frames(samples, start + low, count) for start in group])
            with torch.no_grad():
                heard = [model(frame, _RATE)[:, 0] for frame in torch.from_numpy(block).unbind(1)]
            for start, row in zip(group, torch.stack(heard, dim=1).numpy(), strict=True):
                first = start + max(low, 0)
                kept = row[max(-low, 0) :][: max(0, frames - first)]  # the last stripe is shorter
                found[first : first + len(kept)] = kept
            if progress is not None:
                done = group.start + (low + count) * len(group)
                progress("finding speech", min(done, frames) * _FRAME // _RATE, frames * _FRAME // _RATE)
    return found.tolist()


def _frames(samples: Samples, first: int, count: int) -> np.ndarray:
    """Frames `[count, 512]` from a place on, with silence before and after the samples."""
    low, high = first * _FRAME, (first + count) * _FRAME
    inside = samples[max(low, 0) : max(high, 0)]
    before = min(max(-low, 0), high - low)
    return np.pad(inside, (before, high - low - before - len(inside))).reshape(count, _FRAME)


@functools.cache
def _silero() -> tuple[Any, Callable[..., list[dict[str, int]]]]:
    """silero-vad's model, which has a state (one recording at a time), and what reads its probabilities."""
    import torch

    threads = torch.get_num_threads()
    try:
        import silero_vad
    except ImportError as error:
        raise SegmentError("finding speech needs silero-vad: pip install 'mmsr[segments]'") from error
    finally:
        torch.set_num_threads(threads)  # importing silero_vad sets one thread for the whole process
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how it opens its own file, and torch's call to leave TorchScript
        return silero_vad.load_silero_vad(), silero_vad.get_speech_timestamps_from_probs


def _padded(speech: list[Segment], seconds: float, padding: float) -> list[Segment]:
    """Each stretch with its padding, as far as the recording, or half of the silence between two, allows."""
    if not speech:
        return []
    middles = [(one.end + other.start) / 2 for one, other in pairwise(speech)]
    bounds = zip([0.0, *middles], [*middles, seconds], strict=True)
    return [
        Segment(max(part.start - padding, low), min(part.end + padding, high))
        for part, (low, high) in zip(speech, bounds, strict=True)
    ]


def cut_at_quietest(samples: Samples, stretch: Segment, settings: Segmentation) -> Iterator[Segment]:
    """Cut at the quietest point between half of `max_seconds` and all of it, until the rest fits."""
    start = stretch.start
    while stretch.end - start > settings.max_seconds:
        low = start + settings.max_seconds / 2
        high = min(start + settings.max_seconds, stretch.end - settings.min_seconds)
        point = _quietest(samples, low, high)
        yield Segment(start, point)
        start = point
    yield Segment(start, stretch.end)


def _quietest(samples: Samples, low: float, high: float) -> float:
    """The middle of the quietest 50 ms between two points, all in seconds."""
    first, width = round(low * _RATE), round(_QUIET * _RATE)
    energy = np.cumsum(np.square(samples[first : round(high * _RATE)], dtype=np.float64))
    if len(energy) <= width:
        return (low + high) / 2
    return (first + int(np.argmin(energy[width:] - energy[:-width])) + (width + 1) // 2) / _RATE


# ---------------------------------------------------------------------- manifests


@dataclass(frozen=True)
class SegmentedManifest:
    """What `segment_manifest` did.

    Attributes:
        manifest: The new manifest.
        rows: How many rows it has.
        recordings: How many recordings were cut, and are not in it themselves.
        segments: Into how many segments.
        seconds: Length of these recordings.
        speech_seconds: Length of the segments.
        silent: Ids of recordings without speech, of which nothing is left.
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
    progress: Callable[[str, int, int], None] | None = None,
) -> SegmentedManifest:
    """Give each segment of a manifest's long recordings a row of its own.

    A row whose audio is longer than `settings.max_seconds` becomes rows `<id>-0001`, `<id>-0002` ..., with
    its speaker, language, split and kind, and what it has in columns of other names (such as `fold`); other
    rows stay as they are, with their audio where it is. A column `duration` gets each segment's own. Writes

    - OUT/audio/<id>/0001.flac ...: 16-bit FLAC, 16 kHz mono;
    - OUT/manifest.csv, last, by a rename;
    - OUT/segments.csv: id, recording (the id of its row), audio (the recording), start and end in seconds.

    The segments of a recording appear together, by a rename. A second call makes only what is missing, or
    was made from another file or with other settings.

    Args:
        manifest: The manifest to read. Columns of other names are kept of a file alone, not of a dataset in
            the Hub's format.
        out: Folder to write.
        settings: How recordings are cut.
        columns: Where a column has another name in the file.
        keep_text: Whether each segment gets the whole recording's text, asr_text and rationale, which cannot
            be divided.
        keep_label: Whether each segment gets the whole recording's label.
        progress: Called with task, recordings done and their number.

    Raises:
        SegmentError: silero-vad is missing, a row's id is that of a segment, or the new manifest would
            overwrite the old one.
        AudioError: A recording cannot be read; the message names its row.
        ManifestError: The manifest has faults.
    """
    settings, out = settings or Segmentation(), Path(out)
    if (out / "manifest.csv").exists() and (out / "manifest.csv").samefile(manifest):
        raise SegmentError(f"{out} is the folder of {manifest}; accepted: another folder to write to")
    examined = examine_manifest(manifest, columns=columns)
    if examined.faults:
        raise ManifestError(examined.faults)
    table = examined.rows.to_list()
    known = [*COLUMNS, *([DURATION] if DURATION in examined.rows.column_names else [])]
    others, more = _others(manifest, examined.numbers, {*COLUMNS, DURATION, *(columns or {}).values()})
    long = {row["id"] for row in table if row["audio"] and _seconds(row) > settings.max_seconds}
    for row in table:
        if (parts := re.fullmatch(r"(.*)-\d{4,}", row["id"], re.DOTALL)) and parts[1] in long:
            raise SegmentError(
                f"id {row['id']!r} would be a segment's of the recording {parts[1]!r}; accepted: another"
            )
    _silero()  # before anything is written
    dropped = {*(() if keep_text else ("text", "asr_text", "rationale")), *(() if keep_label else ("label",))}
    rows: list[dict[str, Any]] = []
    places: list[dict[str, Any]] = []
    silent, seconds, done = [], 0.0, 0
    for row, other in zip(table, more, strict=True):
        if row["id"] not in long:
            audio = row["audio"] and relative_to(row["audio"], os.path.abspath(out))
            rows.append({**row, **other, "audio": audio})
            continue
        cut = _segmented(row, out / "audio" / _folder_name(row["id"]), settings)
        source = relative_to(row["audio"], os.path.abspath(out))
        for number, part in enumerate(cut["segments"], start=1):
            identity = f"{row['id']}-{number:04d}"
            audio = os.path.join("audio", _folder_name(row["id"]), f"{number:04d}.flac")
            own = {"id": identity, "audio": audio, DURATION: round(part["end"] - part["start"], 4)}
            rows.append({**row, **other, **dict.fromkeys(dropped), **own})
            places.append({"id": identity, "recording": row["id"], "audio": source, **part})
        silent += [] if cut["segments"] else [row["id"]]
        seconds, done = seconds + cut["seconds"], done + 1
        if progress is not None:
            progress("segments", done, len(long))
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


def _others(
    manifest: str | os.PathLike[str], numbers: np.ndarray, known: Collection[str]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of a table's columns beside the known ones and those of files, and what some rows have there."""
    if not os.path.isfile(manifest):
        return [], [{} for _ in numbers]
    table = read_table(Path(manifest), without=known)
    rows = dict(zip(table.numbers, table.rows, strict=True))
    bytes_ = [field.name for field in table.schema or () if holds_bytes(field.type)]  # no csv takes them
    return [name for name in table.columns if name not in bytes_], [rows[n] for n in numbers.tolist()]


def _seconds(row: Mapping[str, Any]) -> float:
    try:
        return Audio.duration(row["audio"])
    except AudioError as error:
        raise AudioError(f"row with id {row['id']!r}, column audio: {error}") from error


def _segmented(row: Mapping[str, Any], folder: Path, settings: Segmentation) -> dict[str, Any]:
    """The recording's folder of segments, made where it is not there: what its segments.json says."""
    made_from = {"audio": row["audio"], **asdict(settings)}
    if not is_url(row["audio"]):
        file = os.stat(row["audio"])
        made_from |= {"bytes": file.st_size, "modified": file.st_mtime_ns}
    if (folder / "segments.json").is_file():
        found = json.loads((folder / "segments.json").read_text(encoding="utf-8"))
        if found["made_from"] == made_from:
            return found
    try:
        samples = Audio(_RATE)(row["audio"])
    except AudioError as error:
        raise AudioError(f"row with id {row['id']!r}, column audio: {error}") from error
    segments = speech_segments(samples, **asdict(settings))
    answer = {
        "made_from": made_from,
        "seconds": len(samples) / _RATE,
        "segments": [{"start": round(part.start, 4), "end": round(part.end, 4)} for part in segments],
    }
    with appearing(folder) as half:  # in place of what was made from another file, or with other settings
        half.mkdir()
        for number, part in enumerate(segments, start=1):
            piece = samples[round(part.start * _RATE) : round(part.end * _RATE)]
            soundfile.write(half / f"{number:04d}.flac", piece, _RATE, subtype="PCM_16")
        (half / "segments.json").write_text(json.dumps(answer, indent=1), encoding="utf-8")
    return answer


def _folder_name(identity: str) -> str:
    """An id as the name of a folder, whatever it holds: another id has another name."""
    name = quote(identity, safe=" ").replace(".", "%2E")
    if len(name) <= 100:
        return name
    return f"{name[:80]}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
