"""Speech segments of long recordings, found by silero-vad.

    samples [s] ─► silero-vad ─► speech, joined over short silences ─► padded, cut at quiet points ─► segments

silero-vad (MIT, extra `segments`) ships its weights in its wheel and runs offline on torch. It reads a
`Recording` minute by minute, so that memory does not grow with the length.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from mmsr.extras import needed_for
from mmsr.records import SAMPLE_RATE, Progress

_QUIET = 0.05  # seconds over which loudness is measured
_FRAME = 512  # samples in a frame of silero-vad
# Recordings over ten minutes are read as a batch of stripes of this many frames, four times as fast. Each
# stripe begins ten seconds early, to bring the state of silero-vad's recurrent network up to date.
_STRIPE = 600 * SAMPLE_RATE // _FRAME
_LEAD = 10 * SAMPLE_RATE // _FRAME
_ABREAST = 16
_MINUTE = 60 * SAMPLE_RATE // _FRAME  # frames of each stripe in memory at a time


class Samples(Protocol):
    """Samples `[s]` float32 at 16 kHz: an array, or a `Recording` on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


class SegmentError(ValueError):
    """Settings that cannot be met, or a missing library."""


@dataclass(frozen=True)
class Segment:
    """A piece of a recording, from `start` to `end` in seconds."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.end - self.start


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """Settings of `speech_segments`; lengths in seconds.

    Attributes:
        min_seconds: Shorter speech is dropped as noise.
        max_seconds: Longest segment with its padding; longer speech is cut at its quietest points.
        max_silence: A longer silence ends a segment.
        padding: Kept before and after speech, at most to the middle of the silence between two segments.
        threshold: Probability from which a frame counts as speech.

    Raises:
        SegmentError: A length is out of its range.
    """

    min_seconds: float = 0.25
    max_seconds: float = 20.0
    max_silence: float = 0.5
    padding: float = 0.1
    threshold: float = 0.5

    def __post_init__(self) -> None:
        half = self.max_seconds / 2
        for name, valid, accepted in (
            ("min_seconds", self.min_seconds > 0, "a positive number"),
            ("max_seconds", self.max_seconds >= 1, "1 or more"),
            ("min_seconds", self.min_seconds <= half, f"at most half of max_seconds, {half:g}"),
            ("max_silence", self.max_silence > 0, "a positive number"),
            ("padding", self.padding >= 0, "0 or more"),
            ("threshold", 0 < self.threshold < 1, "between 0 and 1"),
        ):
            if not valid:
                raise SegmentError(f"{name} is {getattr(self, name)}; accepted: {accepted}")


def speech_segments(
    samples: Samples, settings: Segmentation | None = None, *, progress: Progress | None = None
) -> list[Segment]:
    """Find the speech in a recording, in segments that do not overlap, in order.

    Args:
        samples: `[s]` float32 at 16 kHz, as `Audio` returns them, or a `Recording`.
        settings: How the recording is cut.
        progress: Called with task, seconds read and seconds in all.

    Raises:
        SegmentError: silero-vad is missing, or `samples` have another shape.
    """
    settings = settings or Segmentation()
    if isinstance(samples, np.ndarray) and samples.ndim != 1:
        raise SegmentError(f"samples have shape {list(samples.shape)}; accepted: [s] at {SAMPLE_RATE} Hz")
    speech = _speech(samples, settings, progress)
    if not speech:
        return []
    middles = [(segment.end + following.start) / 2 for segment, following in pairwise(speech)]
    found: list[Segment] = []
    bounds = pairwise([0.0, *middles, len(samples) / SAMPLE_RATE])
    for segment, (low, high) in zip(speech, bounds, strict=True):
        start, end = max(segment.start - settings.padding, low), min(segment.end + settings.padding, high)
        found += cut_at_quietest(samples, Segment(start, end), settings)
    return found


def speech_seconds(samples: Samples) -> float | None:
    """How much of a recording `speech_segments` finds to be speech; None without silero-vad."""
    if find_spec("silero_vad") is None:
        return None
    return sum(segment.end - segment.start for segment in speech_segments(samples))


def _speech(samples: Samples, settings: Segmentation, progress: Progress | None) -> list[Segment]:
    """Speech without padding, joined over short silences."""
    model, timestamps = silero()
    # Silence is appended: otherwise silence at a recording's end would count as speech.
    ended = len(samples) + round(SAMPLE_RATE * (settings.max_silence + 0.1))
    found = timestamps(
        _probabilities(samples, -(-ended // _FRAME), model, progress),
        audio_length_samples=ended,
        threshold=settings.threshold,
        sampling_rate=SAMPLE_RATE,
        min_speech_duration_ms=round(1000 * settings.min_seconds),
        min_silence_duration_ms=round(1000 * settings.max_silence),
        speech_pad_ms=0,
    )
    return [
        Segment(part["start"] / SAMPLE_RATE, min(part["end"], len(samples)) / SAMPLE_RATE) for part in found
    ]


def _probabilities(samples: Samples, frames: int, model: Any, progress: Progress | None) -> list[float]:
    """Probability of speech in each frame, with silence after the samples."""
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
                columns = [model(frame, SAMPLE_RATE)[:, 0] for frame in torch.from_numpy(block).unbind(1)]
            for start, row in zip(group, torch.stack(columns, dim=1).numpy(), strict=True):
                first = start + max(low, 0)
                kept = row[max(-low, 0) :][: max(0, frames - first)]  # the last stripe is shorter
                found[first : first + len(kept)] = kept
            if progress is not None:
                done = min(group.start + (low + count) * len(group), frames)
                progress("finding speech", done * _FRAME // SAMPLE_RATE, frames * _FRAME // SAMPLE_RATE)
    return found.tolist()


def _frames(samples: Samples, first: int, count: int) -> np.ndarray:
    """Frames `[count, 512]` from `first` on, with silence before and after the samples."""
    low, high = first * _FRAME, (first + count) * _FRAME
    inside = samples[max(low, 0) : max(high, 0)]
    before = min(max(-low, 0), high - low)
    return np.pad(inside, (before, high - low - before - len(inside))).reshape(count, _FRAME)


@functools.cache
def silero() -> tuple[Any, Callable[..., list[dict[str, int]]]]:
    """silero-vad's model, which has a state, and its function from probabilities to timestamps."""
    import torch

    threads = torch.get_num_threads()
    try:
        with needed_for("finding speech", raising=SegmentError):
            import silero_vad
    finally:
        torch.set_num_threads(threads)  # importing silero_vad sets one thread for the whole process
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an unclosed file, and TorchScript's deprecation
        return silero_vad.load_silero_vad(), silero_vad.get_speech_timestamps_from_probs


def cut_at_quietest(samples: Samples, stretch: Segment, settings: Segmentation) -> Iterator[Segment]:
    """Cut at the quietest point between `max_seconds / 2` and `max_seconds`, until the rest fits."""
    start = stretch.start
    while stretch.end - start > settings.max_seconds:
        low = start + settings.max_seconds / 2
        high = min(start + settings.max_seconds, stretch.end - settings.min_seconds)
        point = _quietest(samples, low, high)
        yield Segment(start, point)
        start = point
    yield Segment(start, stretch.end)


def _quietest(samples: Samples, low: float, high: float) -> float:
    """Middle of the quietest 50 ms between two times, in seconds."""
    first, width = round(low * SAMPLE_RATE), round(_QUIET * SAMPLE_RATE)
    energy = np.cumsum(np.square(samples[first : round(high * SAMPLE_RATE)], dtype=np.float64))
    if len(energy) <= width:
        return (low + high) / 2
    return (first + int(np.argmin(energy[width:] - energy[:-width])) + (width + 1) // 2) / SAMPLE_RATE
