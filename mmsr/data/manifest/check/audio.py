"""Checks of audio files, decoded in threads.

reference ─► Audio, at the file's own rate ─► samples [s] ─► silent, clipped, offset
         └─► SHA-256, where another file has the same size, length and peaks
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from mmsr.data.audio.decoding import Audio, AudioError, AudioNote
from mmsr.data.audio.reading import decode_to_end, read_each
from mmsr.data.manifest.issues import Issue
from mmsr.data.storage import digest, is_url, missing, open_binary, shown
from mmsr.records import Progress

if TYPE_CHECKING:
    import datasets  # slow to import

_LARGE = 2 * 2**20  # bytes; of larger files a block at a time is in memory
_SILENT = 1e-3  # -60 dB of full scale; quiet speech peaks at -45
_FULL_SCALE, _CLIPPED = 0.99, 1e-3  # level of a clipped sample, and the accepted share of them
# Flat tops, of samples that were clipped and then made quieter: among the samples within 8 % of the largest,
# those within 0.5 % of it. Of a smooth peak that is a quarter, since a parabola is 4 times as wide at 16
# times the depth; of peaks of different heights, as in speech, it is less.
_FLAT_TOP, _FLAT_NEAR, _FLAT = 0.995, 0.92, 0.5
_FLAT_RUN, _MANY = 3, 0.01  # samples in a row, or a share of all: quiet samples of 8 bits have equal peaks
# Peaks that a lossy codec has bent after they were clipped: the share of samples within 10 % of the 99.95 %
# quantile. In 832 clips of acted and read speech it was at most .63 %, and in half of them above 1 % once 1 %
# of the samples were clipped. Sounds that are loud all the time, such as tones, have as many.
_TOP_LEVEL, _NEAR, _PRESSED, _LOUD = 0.9995, 0.9, 0.01, 0.1
_SOME = 8192  # samples of a block of which the peaks' distribution is measured
_SAME = 0.95  # of the loudest block's level: blocks of a long recording that are as loud
# Largest mean: a share of full scale, and of the root mean square around it
_OFFSET, _OFFSET_SHARE = 0.01, 0.5
_OFFSET_SAMPLES = 4800  # .1 s at 48 kHz; the mean of fewer may be that of an incomplete period


@dataclass(frozen=True)
class AudioFile:
    """An examined audio file.

    Attributes:
        name: The file's name in messages.
        seconds: Length, None if it cannot be decoded.
        content: What files with the same bytes share, and no others; None if it cannot be decoded.
        issues: Code and problem of each issue.
    """

    name: str
    seconds: float | None = None
    content: str | None = None
    issues: tuple[tuple[str, str], ...] = ()


def examine_audio(
    references: Sequence[str], folder: str, *, progress: Progress | None = None
) -> dict[str, AudioFile]:
    """Decode audio files and find their issues.

    Args:
        references: Absolute paths, URLs or archive members, each once.
        folder: The manifest's folder, to which names are relative.
        progress: Called with "audio", files done and their number.
    """
    files = {}
    examined = read_each(references, lambda each: _examine(each, folder), progress=progress, task="audio")
    for reference, file in zip(references, examined, strict=True):
        if isinstance(file, AudioError):
            issue = file.code, _of(str(file), reference)
            file = AudioFile(short_name(reference, folder), issues=(issue,))
        files[reference] = file
    numbers = Counter(file.content for file in files.values())
    alike = [each for each, file in files.items() if file.content and numbers[file.content] > 1]
    for reference, content in zip(alike, read_each(alike, lambda each: digest(each).hex()), strict=True):
        own = reference if isinstance(content, AudioError) else content
        files[reference] = replace(files[reference], content=own)
    return files


def audio_issues(
    rows: datasets.Dataset,
    name: str,
    numbers: Sequence[int] | np.ndarray | None = None,
    *,
    progress: Progress | None = None,
) -> list[Issue]:
    """An issue for each row whose audio cannot be decoded to its end.

    Args:
        rows: Rows of a manifest.
        name: The manifest's name.
        numbers: Their numbers as seen in the file, if known; else issues name their ids.
        progress: Called with "checking audio", files done and their number.
    """
    spoken = [(place, reference) for place, reference in enumerate(rows["audio"]) if reference is not None]
    files = list(dict.fromkeys(reference for _, reference in spoken))
    found = dict(zip(files, read_each(files, decode_to_end, progress=progress), strict=True))
    issues = []
    for place, reference in spoken:
        if (error := found[reference]) is not None:
            where = f"row with id {rows[place]['id']!r}: " if numbers is None else ""
            row = None if numbers is None else int(numbers[place])
            issues.append(Issue(name, row, "audio", f"{where}{error}", code=error.code))
    return issues


def short_name(reference: str, folder: str) -> str:
    """A reference relative to the manifest's folder, if it is in there."""
    if is_url(reference):
        return shown(reference)
    relative = os.path.relpath(reference, folder)
    return shown(reference if relative.startswith("..") else relative)


def _size(reference: str) -> int | None:
    """Bytes of a file; None if it is no plain file."""
    try:
        status = None if is_url(reference) else os.stat(reference)
    except (OSError, ValueError):
        return None
    return status.st_size if status is not None and stat.S_ISREG(status.st_mode) else None


def _examine(reference: str, folder: str) -> AudioFile:
    """Examine a file; what it has for content, other files may have too."""
    name, size = short_name(reference, folder), _size(reference)
    notes: list[AudioNote] = []
    levels = _Levels()
    if size is not None:
        seconds = _read(reference, levels, notes, size=size)
    elif problem := missing(reference):
        accepted = "a path relative to the manifest's folder"
        return AudioFile(name, issues=(("audio-missing", f"{problem}; accepted: {accepted}"),))
    else:
        with open_binary(reference) as file:
            if not (size := file.seek(0, os.SEEK_END)):
                problem = "is empty (0 bytes); accepted: at least one sample"
                return AudioFile(name, issues=(("audio-empty", problem),))
            file.seek(0)
            seconds = _read(file, levels, notes, size=size)
    told = tuple((note.code, _of(note.message, reference)) for note in notes)
    content = f"{size} bytes, {seconds} s, {levels.low} to {levels.high}"
    return AudioFile(name, seconds, content, (*told, *levels.issues()))


def _read(source: str | BinaryIO, levels: _Levels, notes: list[AudioNote], *, size: int) -> float:
    """Decode a source of so many bytes, in bounded memory, at its own rate, which saves the resampling.

    Returns:
        Its length in seconds.
    """
    audio = Audio(None)
    if size > _LARGE:
        for block in audio.blocks(source, tell=notes.append):
            levels.add(block)
        return Audio.duration(source)
    decoded = audio.decode(source)
    notes += decoded.notes
    levels.add(decoded.samples)
    return len(decoded.samples) / decoded.sampling_rate


def _of(message: str, reference: str) -> str:
    """A message without the source's name in front."""
    return message.removeprefix(f"{shown(reference)}: ")


def sample_issues(samples: np.ndarray) -> list[tuple[str, str]]:
    """Code and problem of silence, clipping and offset in samples `[s]`."""
    levels = _Levels()
    levels.add(samples)
    return levels.issues()


class _Block(NamedTuple):
    """Levels of a block of samples."""

    samples: int
    mean: float
    power: float  # mean square
    low: float
    high: float
    full: int  # at full scale
    flat_low: int  # in flat tops, at both sides
    flat_high: int
    top: float  # the 99.95 % quantile of the distance from the mean
    near: float  # share within 10 % of it
    half: float  # share above half of it


class _Levels:
    """Levels of samples that come block after block."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []

    def add(self, samples: np.ndarray) -> None:
        """Measure a block `[s]`."""
        mean, low, high = float(samples.sum()) / len(samples), float(samples.min()), float(samples.max())
        full = max(high, -low) >= _FULL_SCALE
        some = np.abs(samples[:: max(1, len(samples) // _SOME)] - mean)
        top = _at_rank(some, len(some) - round(_TOP_LEVEL * (len(some) - 1)))
        self._blocks.append(
            _Block(
                samples=len(samples),
                mean=mean,
                power=float(np.dot(samples, samples)) / len(samples),
                low=low,
                high=high,
                full=int(np.count_nonzero(np.abs(samples) >= _FULL_SCALE)) if full else 0,
                flat_low=_in_flat_tops(samples, mean, low),
                flat_high=_in_flat_tops(samples, mean, high),
                top=top,
                near=np.count_nonzero(some >= _NEAR * top) / len(some),
                half=np.count_nonzero(some >= 0.5 * top) / len(some),
            )
        )

    @property
    def low(self) -> float:
        """The smallest sample."""
        return min(block.low for block in self._blocks)

    @property
    def high(self) -> float:
        """The largest sample."""
        return max(block.high for block in self._blocks)

    def issues(self) -> list[tuple[str, str]]:
        """Code and problem of each issue."""
        count = sum(block.samples for block in self._blocks)
        low, high = self.low, self.high
        mean = sum(block.mean * block.samples for block in self._blocks) / count
        power = sum(block.power * block.samples for block in self._blocks) / count
        peak = max(high - mean, mean - low)  # a constant is silent
        if peak < _SILENT:
            level = f"{20 * np.log10(peak):.0f} dB" if peak else "nothing"
            problem = f"is silent (peak: {level}); accepted: a peak above -60 dB of full scale"
            return [("audio-silent", problem)]
        found = []
        if clipped := self._clipped(low, high, count):
            found.append(("audio-clipped", f"is clipped ({clipped}); accepted: at most {_CLIPPED:.1%}"))
        offset = abs(mean) > _OFFSET or mean**2 > _OFFSET_SHARE**2 * (power - mean**2)
        if offset and count >= _OFFSET_SAMPLES:
            problem = f"has a constant offset of {mean:+.3f}; accepted: a mean within {_OFFSET:g} of zero"
            found.append(("audio-dc-offset", problem))
        return found

    def _clipped(self, low: float, high: float, count: int) -> str | None:
        """Where samples are clipped, or None; blocks that are less loud do not count."""
        full = sum(block.full for block in self._blocks) / count
        if full > _CLIPPED:
            return f"{full:.1%} of its samples at full scale"
        flat_high = sum(block.flat_high for block in self._blocks if block.high >= _SAME * high) / count
        flat_low = sum(block.flat_low for block in self._blocks if block.low <= _SAME * low) / count
        for level, flat in ((high, flat_high), (low, flat_low)):
            if flat > _CLIPPED:
                return f"{flat:.1%} of its samples in flat tops at {level:.2f}"
        top = max(block.top for block in self._blocks)
        loud = [block for block in self._blocks if block.top >= _SAME * top]
        count = sum(block.samples for block in loud)
        near = sum(block.near * block.samples for block in loud) / count
        if near > _PRESSED and sum(block.half * block.samples for block in loud) < _LOUD * count:
            return f"its peaks pressed to {top:.2f}, {near:.1%} of its samples near them"
        return None


def _at_rank(levels: np.ndarray, rank: int) -> float:
    """The level `rank` of levels `[s]`, the largest being the first."""
    loud = levels[levels >= 0.5 * levels.max()]  # few of them, which are sorted in no time
    loud = loud if len(loud) >= rank else levels
    return float(np.partition(loud, len(loud) - rank)[len(loud) - rank])


def _in_flat_tops(samples: np.ndarray, mean: float, extreme: float) -> int:
    """Number of samples `[s]` in flat tops at their largest or smallest value; 0 if the tops are smooth."""

    def beyond(share: float) -> np.ndarray:
        level = mean + share * (extreme - mean)
        return samples >= level if extreme > mean else samples <= level

    top = beyond(_FLAT_TOP)
    count = int(np.count_nonzero(top))
    if count <= _CLIPPED * len(samples) or count < _FLAT * np.count_nonzero(beyond(_FLAT_NEAR)):
        return 0
    if count > _MANY * len(samples):
        return count
    edges = np.flatnonzero(np.diff(top, prepend=False, append=False))
    runs = edges[1::2] - edges[::2]
    return int(runs[runs >= _FLAT_RUN].sum())
