"""Long recordings as segments of speech, found by silero-vad.

    samples [s] ─► silero-vad ─► stretches of speech ─► joined over short silences, padded
                                                        ─► cut at their quietest points ─► segments

silero-vad (MIT, extra `segments`) brings its weights in its wheel and runs offline on torch alone. It hears a
`Recording` as it does an array, minute by minute: hours take no more memory.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from mmsr.records import Progress

SAMPLE_RATE = 16000
# Loudness is compared over this many seconds: a plosive's closure counts, a zero crossing does not.
_QUIET = 0.05
# silero-vad answers for so many samples at a time.
_FRAME = 512
# Recordings beyond ten minutes are heard as stripes of this many frames side by side, which is four times as
# fast; each begins ten seconds early, to come out of silero-vad's memory as if all before had been heard.
_STRIPE = 600 * SAMPLE_RATE // _FRAME
_LEAD = 10 * SAMPLE_RATE // _FRAME
_ABREAST = 16
_MINUTE = 60 * SAMPLE_RATE // _FRAME  # so much is in memory at a time, of each stripe


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
    progress: Progress | None = None,
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
        raise SegmentError(f"samples have shape {list(samples.shape)}; accepted: [s] at {SAMPLE_RATE} Hz")
    padded = _padded(_speech(samples, settings, progress), len(samples) / SAMPLE_RATE, padding)
    return [part for stretch in padded for part in cut_at_quietest(samples, stretch, settings)]


def _speech(samples: Samples, settings: Segmentation, progress: Progress | None) -> list[Segment]:
    """Stretches of speech without padding, those that a short silence parts joined."""
    model, timestamps = silero()
    # Silence after the end: without it, the silence that a recording ends with would count as speech.
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
                heard = [model(frame, SAMPLE_RATE)[:, 0] for frame in torch.from_numpy(block).unbind(1)]
            for start, row in zip(group, torch.stack(heard, dim=1).numpy(), strict=True):
                first = start + max(low, 0)
                kept = row[max(-low, 0) :][: max(0, frames - first)]  # the last stripe is shorter
                found[first : first + len(kept)] = kept
            if progress is not None:
                done = group.start + (low + count) * len(group)
                progress(
                    "finding speech",
                    min(done, frames) * _FRAME // SAMPLE_RATE,
                    frames * _FRAME // SAMPLE_RATE,
                )
    return found.tolist()


def _frames(samples: Samples, first: int, count: int) -> np.ndarray:
    """Frames `[count, 512]` from a place on, with silence before and after the samples."""
    low, high = first * _FRAME, (first + count) * _FRAME
    inside = samples[max(low, 0) : max(high, 0)]
    before = min(max(-low, 0), high - low)
    return np.pad(inside, (before, high - low - before - len(inside))).reshape(count, _FRAME)


@functools.cache
def silero() -> tuple[Any, Callable[..., list[dict[str, int]]]]:
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
    first, width = round(low * SAMPLE_RATE), round(_QUIET * SAMPLE_RATE)
    energy = np.cumsum(np.square(samples[first : round(high * SAMPLE_RATE)], dtype=np.float64))
    if len(energy) <= width:
        return (low + high) / 2
    return (first + int(np.argmin(energy[width:] - energy[:-width])) + (width + 1) // 2) / SAMPLE_RATE
