"""What a recogniser writes and nobody says: names of sounds, loops, and times that are out of order.

transcript ─► annotations cut out ─► loops cut out ─► chunks in order ─► transcript

It needs the transcript alone: those in a journal of an earlier release are cleaned when they are read.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from mmsr.evaluation.annotations import annotation_spans, cut_out
from mmsr.records import Chunk
from mmsr.speech.decoder import Transcript

# A text that compresses better is a loop: Whisper's own threshold (Radford et al. 2022, section 4.5).
_LOOP = 2.4
_REPEATED = re.compile(r"(.{1,200}?)\1{3,}", re.DOTALL)


def cleaned(transcript: Transcript) -> Transcript:
    """The transcript without annotations and loops; empty if no word is left. Its chunks do not overlap.

    A loop in a text with other words is said once. A text that is all loop is what recognisers write for
    noise.
    """
    annotations = annotation_spans(transcript.text, recognised=True)
    transcript = _without(transcript, annotations, filler=" ")
    transcript = _without(transcript, loop_spans(transcript.text), filler="")
    if not _has_words(transcript.text):
        return replace(transcript, text="", chunks=None if transcript.chunks is None else ())
    return (
        transcript if transcript.chunks is None else replace(transcript, chunks=in_order(transcript.chunks))
    )


def has_words(text: str) -> bool:
    """Whether a recogniser's text has words that are neither annotations nor loops."""
    return bool(cleaned(Transcript(text=" ".join(text.split()), language=None, chunks=None)).text)


def is_annotation(text: str) -> bool:
    """Whether a recogniser's text has no words but annotations."""
    return not _has_words(cut_out(text, annotation_spans(text, recognised=True)))


def is_loop(text: str) -> bool:
    """Whether a text repeats itself, as a whole or in a part.

    A letter counts as one byte, for in UTF-8 plain Thai or Hindi compresses as well as a loop.
    """
    numbers = {letter: number for number, letter in enumerate(dict.fromkeys(text))}
    content = bytes(numbers[letter] for letter in text) if len(numbers) < 256 else text.encode()
    return _compresses(content) or bool(_loops(text))


def loop_spans(text: str) -> list[tuple[int, int]]:
    """The (start, end) of what repeats the words before it; of the whole text if it is all loop."""
    loops = _loops(text)
    if loops and not _has_words(cut_out(text, [(start, end) for start, _, end in loops])):
        return [(0, len(text))]
    return [(again, end) for _, again, end in loops]


def in_order(chunks: Sequence[Chunk]) -> tuple[Chunk, ...]:
    """The chunks with starts that never fall and ends before the next start, moving as few as can be."""
    starts = _rising([chunk.start for chunk in chunks])
    limits = [*starts[1:], float("inf")][: len(starts)]
    return tuple(
        replace(chunk, start=start, end=min(max(chunk.end, start), limit))
        for chunk, start, limit in zip(chunks, starts, limits, strict=True)
    )


def _loops(text: str) -> list[tuple[int, int, int]]:
    """Start, start of the second turn, and end of each loop in a text."""
    found = []
    for match in _REPEATED.finditer(text):
        if _compresses(match[0].encode()):
            start, end = match.span()
            if match[1].startswith(text[end:]):  # the turn at which the tokens ran out
                end = len(text)
            space = re.search(r"\s+(?=\S)", match[1])
            inside_word = start > 0 and not text[start - 1].isspace()
            turn = space.end() if space and inside_word else 0  # a turn begins with a word
            found.append((start, match.end(1) + turn, end))
    return found


def _compresses(content: bytes) -> bool:
    return bool(content) and len(content) / len(zlib.compress(content)) > _LOOP


def _has_words(text: str) -> bool:
    return any(map(str.isalnum, text))


def _without(transcript: Transcript, spans: list[tuple[int, int]], *, filler: str) -> Transcript:
    """The transcript without some spans of its text; chunks that are cut out whole are gone."""
    if not spans:
        return transcript
    text = " ".join(cut_out(transcript.text, spans, filler=filler).split())
    if transcript.chunks is None:
        return replace(transcript, text=text)
    # the chunks hold the text but for white space
    gone = {place for start, end in spans for place in range(start, end)}
    places = (place for place, letter in enumerate(transcript.text) if not letter.isspace())
    chunks = []
    for chunk in transcript.chunks:
        kept = "".join(
            filler if not letter.isspace() and next(places, None) in gone else letter for letter in chunk.text
        )
        if kept := " ".join(kept.split()):
            chunks.append(replace(chunk, text=kept))
    return replace(transcript, text=text, chunks=tuple(chunks))


def _rising(numbers: Sequence[float]) -> list[float]:
    """The numbers in order: those of a longest rising part stay, others take the one before them in it."""
    tails: list[int] = []  # place of the least last number of a rising part of each length
    before: list[int | None] = []
    for place, number in enumerate(numbers):
        length = bisect_right([numbers[tail] for tail in tails], number)
        before.append(tails[length - 1] if length else None)
        tails[length:] = [place, *tails[length + 1 :]]
    kept = set()
    place_kept = tails[-1] if tails else None
    while place_kept is not None:
        kept.add(place_kept)
        place_kept = before[place_kept]
    rising, last = [], numbers[min(kept)] if kept else 0.0
    for place, number in enumerate(numbers):
        last = number if place in kept else last
        rising.append(last)
    return rising
