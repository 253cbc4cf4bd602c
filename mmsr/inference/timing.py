"""When the words of a transcript were said, where nothing but the sound and its transcript is known."""

from __future__ import annotations

import numpy as np

from mmsr.records import Span

_FRAME = 0.02  # seconds
_QUIET = 10 ** (-35 / 20)  # of the loudest frame, below which an edge is silence


def sounding(wave: np.ndarray, rate: int) -> tuple[float, float]:
    """Where a waveform `[s]` begins and ends to sound, in seconds; all of it if it is silent."""
    size = max(1, round(_FRAME * rate))
    frames = [wave[start : start + size] for start in range(0, len(wave), size)]
    loud = np.array([np.sqrt(np.mean(np.square(frame, dtype=np.float64))) for frame in frames])
    (places,) = np.nonzero(loud > _QUIET * loud.max(initial=0))
    if not len(places):
        return 0.0, len(wave) / rate
    return float(places[0] * size / rate), float(min(len(wave), (places[-1] + 1) * size) / rate)


def seconds_of(text: str, span: Span, sound: tuple[float, float]) -> tuple[float, float]:
    """When `text[start:end]` was said, as if each letter took the same time of the sound."""
    before = [sum(not letter.isspace() for letter in text[:place]) for place in (*span, len(text))]
    first, last = sound
    start, end = (first + (last - first) * count / max(1, before[2]) for count in before[:2])
    return round(start, 3), round(end, 3)
