"""When the words of a transcript were said: as a recogniser timed them, else by the length of the words.

    words of a recogniser ─► `at_pauses` moves their edges to where the sound pauses ─┐
                                                                                      ▼
    transcript, perhaps edited since ─► `WordTimes` aligns both (difflib) ─► seconds of any part of it

Without a recogniser's words each letter takes the same time of what sounds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from importlib.util import find_spec
from itertools import accumulate
from typing import Literal, NamedTuple

import numpy as np

from mmsr.data.audio.segments import Segmentation, speech_segments
from mmsr.quotations import Folded, Word
from mmsr.records import SAMPLE_RATE, Chunk, Span

TimedBy = Literal["recogniser", "interpolated", "proportional"]
"""Where seconds come from: a recogniser's times of these words; its times of the words around them, where it
heard others; or their place in the transcript alone."""

_FRAME = 0.02  # seconds
_QUIET = 10 ** (-35 / 20)  # of the loudest frame, below which a frame is silence
_PAUSE = 0.2  # seconds of silence between words; stops inside of words are shorter
_SHORTEST, _PADDING = 0.1, 0.03  # seconds of a stretch of speech, and around it
_REACH = 1.0  # seconds by which an edge moves to a pause; more is no speech, but noise


class Timing(NamedTuple):
    """Seconds in a recording, and where they come from."""

    start: float
    end: float
    timed_by: TimedBy


class WordTimes:
    """When each word of a transcript was said.

    Args:
        text: The transcript.
        sound: The seconds in which the recording sounds.
        words: Words of a recogniser with their times; None or none without one.
    """

    def __init__(self, text: str, sound: tuple[float, float], words: Sequence[Chunk] | None = None) -> None:
        self.text, self.sound = text, sound
        self._words = Folded(text).words() if words else []
        self._ends = [word.end for word in self._words]
        self._times = _aligned(self._words, _timed(words or ()), sound)

    def of(self, span: Span) -> Timing:
        """When `text[start:end]` was said."""
        first = bisect_right(self._ends, span[0])
        last = first
        while last + 1 < len(self._words) and self._words[last + 1].start < span[1]:
            last += 1
        if not self._times or first == len(self._words) or self._words[first].start >= span[1]:
            return self._proportional(span)
        start, end = self._times[first], self._times[last]
        sure = start.timed_by == end.timed_by == "recogniser"
        return Timing(round(start.start, 3), round(end.end, 3), "recogniser" if sure else "interpolated")

    def _proportional(self, span: Span) -> Timing:
        """As if each letter took the same time of the sound."""
        places = (*span, len(self.text))
        before = [sum(not letter.isspace() for letter in self.text[:place]) for place in places]
        first, last = self.sound
        start, end = (first + (last - first) * count / max(1, before[2]) for count in before[:2])
        return Timing(round(start, 3), round(end, 3), "proportional")


def sounding(wave: np.ndarray, rate: int) -> tuple[float, float]:
    """Where a waveform `[s]` begins and ends to sound, in seconds; all of it if it is silent."""
    stretches = _sounds(wave, rate)
    return (stretches[0][0], stretches[-1][1]) if stretches else (0.0, len(wave) / rate)


def at_pauses(words: Sequence[Chunk], wave: np.ndarray, rate: int) -> tuple[Chunk, ...]:
    """Words in order, whose edges beside a pause are where the speech of a waveform `[s]` ends and begins.

    Recognisers place words better than pauses: Whisper gives a pause to the words around it, and may end a
    word only where the next sentence has begun. So each word belongs to the stretch of speech that it shares
    most with, and the first and the last word of a stretch begin and end with it. silero-vad (extra
    `segments`) finds the stretches; without it, or where it finds none, they are what sounds.
    """
    stretches = _speech(wave, rate) or _sounds(wave, rate)
    if not stretches:
        return tuple(words)
    starts, ends = np.array(stretches).T
    shared = [np.minimum(ends, word.end) - np.maximum(starts, word.start) for word in words]
    own = list(accumulate((int(overlap.argmax()) for overlap in shared), max))  # none before the one before
    found = []
    for place, (word, number) in enumerate(zip(words, own, strict=True)):
        low, high = stretches[number]
        start, end = (min(max(time, low), high) for time in (word.start, word.end))
        if (not place or own[place - 1] != number) and start - low <= _REACH:
            start = low
        if (place + 1 == len(words) or own[place + 1] != number) and high - end <= _REACH:
            end = high
        found.append(replace(word, start=round(start, 3), end=round(max(start, end), 3)))
    return tuple(found)


def _speech(wave: np.ndarray, rate: int) -> list[tuple[float, float]]:
    """The stretches of a waveform `[s]` in which silero-vad finds speech; empty without it."""
    if rate != SAMPLE_RATE or find_spec("silero_vad") is None:
        return []
    settings = Segmentation(
        min_seconds=_SHORTEST, max_seconds=float("inf"), max_silence=_PAUSE, padding=_PADDING
    )
    return [(segment.start, segment.end) for segment in speech_segments(wave, settings)]


def _sounds(wave: np.ndarray, rate: int) -> list[tuple[float, float]]:
    """The stretches of a waveform `[s]` that sound, in seconds, with pauses between them."""
    size = max(1, round(_FRAME * rate))
    whole = len(wave) // size * size
    frames = [wave[:whole].reshape(-1, size), wave[None, whole:]][: 1 if whole == len(wave) else 2]
    loud = np.sqrt(np.concatenate([np.square(part, dtype=np.float64).mean(1) for part in frames]))
    (places,) = np.nonzero(loud > _QUIET * loud.max(initial=0))
    if not len(places):
        return []
    groups = np.split(places, np.flatnonzero(np.diff(places) > round(_PAUSE / _FRAME)) + 1)
    return [
        (float(group[0] * size / rate), float(min(len(wave), (group[-1] + 1) * size) / rate))
        for group in groups
    ]


class _Timed(NamedTuple):
    """A word in the form in which texts are compared, with its seconds."""

    folded: str
    start: float
    end: float


def _timed(chunks: Sequence[Chunk]) -> list[_Timed]:
    """The words of chunks; several of one chunk share its time by their letters."""
    found = []
    for chunk in chunks:
        words = Folded(chunk.text).words()
        for word, (start, end) in zip(words, _shares(words, chunk.start, chunk.end), strict=True):
            found.append(_Timed(word.folded, start, end))
    return found


def _aligned(words: Sequence[Word], timed: Sequence[_Timed], sound: tuple[float, float]) -> list[Timing]:
    """The times of a transcript's words; empty if a recogniser heard none of them.

    Words that it heard as others share the time of those; words that it did not hear, the time between their
    neighbours.
    """
    matcher = SequenceMatcher(None, [w.folded for w in words], [t.folded for t in timed], autojunk=False)
    times: list[Timing] = []
    for what, i, j, k, n in matcher.get_opcodes():
        if what == "equal":
            times += [Timing(one.start, one.end, "recogniser") for one in timed[k:n]]
            continue
        low = timed[k].start if n > k else timed[k - 1].end if k else sound[0]
        high = timed[n - 1].end if n > k else timed[n].start if n < len(timed) else sound[1]
        times += [Timing(*share, "interpolated") for share in _shares(words[i:j], low, max(low, high))]
    return times if any(time.timed_by == "recogniser" for time in times) else []


def _shares(words: Sequence[Word], low: float, high: float) -> list[tuple[float, float]]:
    """The time from `low` to `high`, shared by words by their letters."""
    sums = [0, *accumulate(word.end - word.start for word in words)]
    edges = [low + (high - low) * count / max(1, sums[-1]) for count in sums]
    return list(zip(edges, edges[1:], strict=False))
