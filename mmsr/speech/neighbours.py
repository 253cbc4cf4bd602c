"""Segments of a recording, several neighbours at a time where a recogniser's window is wider than they are.

segments ─► runs that fit a window ─► Transcriber, with the times of words ─► words of each segment

Whisper always encodes 30 s, so that a run of short segments costs as much as one of them; and it hears a
word better among its neighbours. whisperX (Bain et al. 2023, arXiv 2303.00747) merges segments likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from mmsr.records import Chunk
from mmsr.speech.decoder import Transcript
from mmsr.speech.recogniser import Transcriber

_LONGEST_GAP = 3.0  # seconds without speech within a run; in long ones a recogniser writes what nobody said

Span = tuple[float, float]
"""Start and end in seconds."""


class NeighbourTranscriber:
    """Transcripts of segments; each run is transcribed once, when a segment of it is first asked for.

    Args:
        transcriber: The recogniser.
        between: The recording's samples `[s]` at 16 kHz from one second to another.
        spans: The segments, sorted by their start.
        speakers: Who speaks in each; runs hold one speaker.
        language: The spoken language, or None to detect it.
    """

    def __init__(
        self,
        transcriber: Transcriber,
        between: Callable[[float, float], np.ndarray],
        spans: Sequence[Span],
        *,
        speakers: Sequence[str | None],
        language: str | None = None,
    ) -> None:
        self._transcriber, self._between, self._spans = transcriber, between, spans
        self._language = language
        self._heard: dict[int, Transcript] = {}
        self._run_of: dict[int, range] = {}
        for run in runs(spans, speakers, longest=transcriber.window_seconds):
            self._run_of |= dict.fromkeys(run, run)

    def __call__(self, places: Sequence[int]) -> list[Transcript]:
        """Transcripts of the segments with these numbers; times of words are from the segment's start."""
        wanted = dict.fromkeys(self._run_of[place] for place in places if place not in self._heard)
        if wanted:
            self._hear(list(wanted))
        return [self._heard.pop(place) for place in places]

    def _hear(self, wanted: Sequence[range]) -> None:
        whole = [(self._spans[run[0]][0], self._spans[run[-1]][1]) for run in wanted]
        transcripts = self._transcriber.transcribe(
            [self._between(*span) for span in whole], languages=[self._language] * len(whole)
        )
        for run, span, transcript in zip(wanted, whole, transcripts, strict=True):
            parts = [transcript]
            if len(run) > 1:
                inner = [(start - span[0], end - span[0]) for start, end in self._spans[run[0] : run[-1] + 1]]
                parts = divided(transcript, inner)
            self._heard |= dict(zip(run, parts, strict=True))


def runs(spans: Sequence[Span], speakers: Sequence[str | None], *, longest: float | None) -> list[range]:
    """Neighbours that fit into `longest` seconds: of one speaker, one after another; None for each alone."""
    found: list[range] = []
    for place, (start, end) in enumerate(spans):
        run = found[-1] if found else range(0)
        if (
            longest is not None
            and len(run)
            and end - spans[run[0]][0] <= longest
            and 0 <= start - spans[run[-1]][1] <= _LONGEST_GAP
            and speakers[place] == speakers[run[-1]]
        ):
            found[-1] = range(run[0], place + 1)
        else:
            found.append(range(place, place + 1))
    return found


def divided(transcript: Transcript, spans: Sequence[Span]) -> list[Transcript]:
    """The part of a transcript with timed words that was said in each span, which follow one another.

    A word belongs to the span that it shares most time with, or that is nearest.
    """
    starts, ends = np.array(spans).T
    words: list[list[Chunk]] = [[] for _ in spans]
    begins: dict[int, int] = {}  # by span, the letter at which its text begins
    place = letter = 0
    for chunk in transcript.chunks or ():
        shared = np.minimum(ends, chunk.end) - np.maximum(starts, chunk.start)  # below 0 is a distance
        place = max(place, int(shared.argmax()))
        found = transcript.text.find(chunk.text, letter)
        begins.setdefault(place, max(found, letter) if begins else 0)
        letter = letter if found < 0 else found + len(chunk.text)
        start, end = spans[place]
        times = np.clip([chunk.start - start, chunk.end - start], 0.0, end - start).tolist()
        words[place].append(Chunk(text=chunk.text, start=times[0], end=times[1]))
    texts = dict.fromkeys(range(len(spans)), "")
    cuts = pairwise([*begins.values(), len(transcript.text)])
    for place, (begin, end) in zip(begins, cuts, strict=True):
        texts[place] = transcript.text[begin:end].strip()
    return [
        replace(transcript, text=text, chunks=tuple(chunks))
        for text, chunks in zip(texts.values(), words, strict=True)
    ]
