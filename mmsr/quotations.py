"""Quotations: what a rationale quotes, and whether a transcript has these words.

rationale ─► `quotations` ─► spans of quoted words ─► `locate` in the transcript ─► spans of the transcript

Generation (`mmsr.model.quotes`), answers and evaluation share these definitions. Texts are compared without
regard to case, compatibility forms, invisible characters and the width of white space (`fold`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from mmsr.records import Span

MARK = '"'
OTHER_MARKS = {
    "“": "”",
    "”": "”",
    "„": "“”",
    "‟": "”",
    "«": "»",
    "»": "«",
    "「": "」",
    "『": "』",
    "〝": "〞〟",
    "＂": "＂",
    "❝": "❞",
}
"""Other marks that open a quotation, each with those that close it."""

UNSPACED_LETTER = re.compile(
    "[\u0e00-\u0eff\u0f40-\u0fbc\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff]"
)
"""A letter of a script without spaces between words: Thai to Tibetan, Burmese, Khmer, Japanese, Chinese."""

_APOSTROPHES = "'\u2019\u02bc\u2018\uff07"
_JOINER = "\u200d"


class Cluster(NamedTuple):
    """A letter with its marks, or a run of white space: its characters `[start:end]`, and what it is."""

    start: int
    end: int
    folded: str
    is_word: bool
    is_unspaced: bool


class Word(NamedTuple):
    """A word of a text, its characters `[start:end]`, in the form in which texts are compared."""

    start: int
    end: int
    folded: str


class Quotation(NamedTuple):
    """What a text quotes, `[start:end]`, and the character after the closing mark."""

    start: int
    end: int
    after: int


class Part(NamedTuple):
    """A part of a rationale, whether it is quoted, and whether the transcript has it; else it is True."""

    text: str
    quoted: bool
    said: bool


class Folded:
    """A text in the form in which texts are compared, and where words start and end in it.

    Attributes:
        text: The text as it was given.
        folded: The folded text.
        starts: Places in `folded` where a word starts, each with the character of `text` there.
        ends: Places in `folded` behind a word or the punctuation after it, likewise.
        parts: Places in `folded` between characters where no word is cut, likewise.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        clusters = list(_clusters(text))
        self.folded = "".join(cluster.folded for cluster in clusters)
        self.starts: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self.parts: dict[int, Span] = {}
        place = 0
        for index, cluster in enumerate(clusters):
            cut = index > 0 and _joined(text, clusters, index)
            if not cut:
                before = clusters[index - 1].end if index else 0
                self.parts[place] = (before, cluster.start)
                if cluster.is_word:
                    self.starts[place] = cluster.start
                if index and _may_end(text, clusters[index - 1]):
                    self.ends[place] = before
            place += len(cluster.folded)
        if clusters:
            self.parts[place] = (clusters[-1].end, len(text))
            if _may_end(text, clusters[-1]):
                self.ends[place] = clusters[-1].end

    def words(self) -> list[Word]:
        """The words of `text`, without punctuation; in scripts without spaces each letter.

        Their apostrophes are folded too: recognisers write one kind.
        """
        places, folded = sorted(self.parts), re.sub(f"[{_APOSTROPHES}]", _APOSTROPHES[0], self.folded)
        return [
            Word(self.starts[place], self.parts[after][0], folded[place:after])
            for place, after in pairwise(places)
            if place in self.starts
        ]

    def find(self, words: str) -> Span | None:
        """The first span of `text` with these words, whole; None if there is none."""
        sought = fold(words).strip()
        if MARK in sought or not any(cluster.is_word for cluster in _clusters(words)):
            return None
        place = self.folded.find(sought)
        while place >= 0:
            end = place + len(sought)
            if place in self.parts and end in self.parts:
                return self.parts[place][1], self.parts[end][0]
            place = self.folded.find(sought, place + 1)
        return None


@lru_cache(maxsize=256)  # an answer asks for its transcript three times
def folded(text: str) -> Folded:
    """`Folded` of a text, which is not to be changed."""
    return Folded(text)


@lru_cache(maxsize=10_000)
def fold_character(character: str) -> str:
    """A character without case, compatibility form and width; empty if it is invisible.

    A folded text is its folded characters, with the marks of each letter in canonical order.
    """
    if character.isspace():
        return " "
    if _is_invisible(character):
        return ""
    decomposed = unicodedata.normalize("NFKD", character).casefold()
    return unicodedata.normalize("NFKD", decomposed)


def fold(text: str) -> str:
    """The form in which texts are compared; white space of any length is one space."""
    return "".join(cluster.folded for cluster in _clusters(text))


def quotations(text: str) -> list[Quotation]:
    """What a text quotes, in order.

    Plain marks `"` take turns in opening and closing. Between them others (“ ”, « », 「 」 ...) quote too.
    What is never closed is quoted to the end of its part.
    """
    found: list[Quotation] = []
    start = 0
    for turn, part in enumerate(text.split(MARK)):
        end = start + len(part)
        if turn % 2:
            found.append(Quotation(start, end, min(end + 1, len(text))))
        else:
            found += _otherwise_quoted(text, start, end)
        start = end + 1
    return found


def locate(words: str, transcript: str | None) -> Span | None:
    """The first span of a transcript with these words, contiguous and whole; None if it has none.

    No word may be cut: neither between two letters or digits, nor at an apostrophe between letters, nor
    before a mark. Scripts without spaces may be cut between any two letters.
    """
    return None if transcript is None else folded(transcript).find(words)


def evidence(rationale: str, transcript: str | None) -> list[Span | None]:
    """For each quotation of a rationale its span in the transcript, None where the transcript has it not."""
    if transcript is None:
        return [None] * len(quotations(rationale))
    words = folded(transcript)
    return [words.find(rationale[quoted.start : quoted.end]) for quoted in quotations(rationale)]


def quoted_parts(rationale: str | None, transcript: str | None) -> list[Part]:
    """A rationale in parts, in order: what is not quoted, and what is, with whether that was said."""
    text, read, parts = rationale or "", 0, []
    for (start, end, _), found in zip(quotations(text), evidence(text, transcript), strict=True):
        parts += [Part(text[read:start], False, True), Part(text[start:end], True, found is not None)]
        read = end
    return [*parts, Part(text[read:], False, True)]


def is_grounded(rationale: str, transcript: str | None) -> bool:
    """Whether a rationale quotes, and all that it quotes is in the transcript."""
    found = evidence(rationale, transcript)
    return bool(found) and None not in found


def as_transcribed(rationale: str, transcript: str | None) -> str:
    """A rationale whose quotations are written as in the transcript, without those that it has not.

    Where a quotation is left out, a colon before a comma or the end, and doubled spaces, go with it.
    """
    written, read = "", 0
    for (start, end, after), span in zip(quotations(rationale), evidence(rationale, transcript), strict=True):
        written += rationale[read : start - 1]
        if span is not None and transcript is not None:
            written += rationale[start - 1] + transcript[slice(*span)] + rationale[end:after]
        elif not rationale[after:].lstrip() or rationale[after:].lstrip()[0] in ",，、;；.。":
            written = written.rstrip().rstrip(":：").rstrip()
            after = len(rationale) - len(rationale[after:].lstrip())
        elif written[-1:].isspace() or not written:
            after = len(rationale) - len(rationale[after:].lstrip())
        read = after
    return written + rationale[read:]


def _otherwise_quoted(text: str, place: int, last: int) -> Iterator[Quotation]:
    """What other marks than plain ones quote in `[place:last]`."""
    while place < last:
        if closing := OTHER_MARKS.get(text[place]):
            start = place + 1
            place = next((at for at in range(start, last) if text[at] in closing), last)
            yield Quotation(start, place, min(place + 1, last))
        place += 1


def _clusters(text: str) -> Iterator[Cluster]:
    """The clusters of a text, in order."""
    start = 0
    while start < len(text):
        end = start + 1
        if text[start].isspace():
            while end < len(text) and text[end].isspace():
                end += 1
            yield Cluster(start, end, " ", False, False)
        else:
            while end < len(text) and _goes_on(text[end]):
                end += 1
            folded = unicodedata.normalize("NFKD", "".join(map(fold_character, text[start:end])))
            unspaced = UNSPACED_LETTER.match(text[start]) is not None
            yield Cluster(start, end, folded, is_word(text[start]), unspaced)
        start = end


def _goes_on(character: str) -> bool:
    """Whether a character belongs to the one before it: a mark, an invisible one, a vowel of Hangul."""
    return (
        unicodedata.category(character)[0] == "M"
        or _is_invisible(character)
        or "\u1160" <= character <= "\u11ff"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
    )


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f"


def is_word(character: str) -> bool:
    """Whether a character is part of a word: a letter, a digit or an underscore."""
    return unicodedata.category(character)[0] in "LN" or character == "_"


def _joined(text: str, clusters: list[Cluster], index: int) -> bool:
    """Whether a cluster belongs to the same word or sign as the one before it."""
    before, after = clusters[index - 1], clusters[index]
    if (
        text[before.end - 1] == _JOINER
        or _goes_on(text[after.start])
        or _are_flags(text[before.start], text[after.start])
    ):
        return True
    if before.is_word and after.is_word:
        return not (before.is_unspaced or after.is_unspaced)
    if before.is_word and index + 1 < len(clusters):
        return _is_within(text, before, after, clusters[index + 1])
    return after.is_word and index > 1 and _is_within(text, clusters[index - 2], before, after)


def _is_within(text: str, before: Cluster, sign: Cluster, after: Cluster) -> bool:
    """Whether a sign is part of a word or number: an apostrophe (don't), a point or comma (3.5)."""
    sides = (text[before.start], text[after.start])
    if text[sign.start] in _APOSTROPHES:
        return before.is_word and after.is_word and not (before.is_unspaced or after.is_unspaced)
    return text[sign.start] in ".,:" and all(side.isnumeric() for side in sides)


def _are_flags(*signs: str) -> bool:
    return all("\U0001f1e6" <= sign <= "\U0001f1ff" for sign in signs)


def _may_end(text: str, cluster: Cluster) -> bool:
    """Whether a quotation may end behind a cluster: not behind space, a mark or an opening bracket."""
    if cluster.folded in ("", " ", MARK) or text[cluster.start] in _APOSTROPHES:
        return False
    return unicodedata.category(text[cluster.start]) not in ("Ps", "Pi", "Pd")
