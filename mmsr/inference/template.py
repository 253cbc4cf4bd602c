"""Rationales by a template: the emotion of the words with a quotation, and the emotion of the voice.

    words of gratitude: "thank you so much"; a calm voice

A checkpoint without a decoder that names its evidence (`mmsr.model.evidence`) has these. They are written in
the transcript's language where `phrases.json` has it, else in English. What is quoted are whole words of the
transcript, and nothing is said of a voice that was not heard or of words that were not read.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from mmsr.languages import CHINESE, UNDETERMINED, is_language_code, language_code
from mmsr.quotations import MARK, OTHER_MARKS, Folded, is_word
from mmsr.records import Span

SENTIMENTS = {
    **dict.fromkeys(("gratitude", "praise", "affection", "joy", "happiness", "hope", "relief"), "positive"),
    **dict.fromkeys(("anger", "disapproval", "disappointment", "sadness", "regret"), "negative"),
    **dict.fromkeys(("fear", "disgust"), "negative"),
    "neutral": "neutral",
}
"""The label of each emotion that `phrases.json` has."""

MOST_WORDS = 8
"""Longest quotation; in scripts without spaces in tokens."""


_SURE = 0.85  # probability of a sentiment of words that the label does not rest on
# Probability of an emotion, below which the sentiment alone is named. Of 443 texts of GoEmotions-dev that are
# positive or negative to base, the emotion is right for 25 % below it, 40 % from .5 to .7, and 79 % above.
_LIKELY = 0.5
_ENDS = re.compile("[!?\u2026\u3002\uff01\uff1f]|(?P<word>\\w{2,})[.](?=\\s|$)")
_ABBREVIATIONS = frozenset("dr mr mrs ms st prof nr no vs etc bzw ca ggf mme mlle th bs".split())
_MARKS = frozenset(MARK + "".join(OTHER_MARKS) + "".join(OTHER_MARKS.values()))


class Weighted(NamedTuple):
    """A word `text[start:end]` of a transcript with its weight."""

    start: int
    end: int
    weight: float


class Rationale(NamedTuple):
    """A rationale, None where neither words nor a voice were given, and what it quotes of the transcript."""

    text: str | None
    span: Span | None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a rationale is made of, for an utterance.

    Attributes:
        voice: Probabilities of the emotions of the voice; None where none was heard.
        text: The transcript; None, as the next three, where none was read.
        emotions: Probabilities of the emotions of its words.
        words: Its words with their weights, by label.
        language: Its language's code.
    """

    voice: Mapping[str, float] | None = None
    text: str | None = None
    emotions: Mapping[str, float] | None = None
    words: Mapping[str, Sequence[Weighted]] | None = None
    language: str | None = None

    def rationale(self, label: str, *, forced: bool = False) -> Rationale:
        """The rationale of a label.

        With a voice whose emotion explains the label the words may say something else, and are called neutral
        where that is not sure. Otherwise only emotions of words that go with the label are named. Of a label
        that is `forced`, and was not predicted, the voice is named only where it goes with it too.
        """
        voice = None if self.voice is None else max(self.voice, key=self.voice.__getitem__)
        if forced and voice is not None and SENTIMENTS.get(voice, label) != label:
            voice = None  # it speaks against this label
        if self.text is None or self.emotions is None or self.words is None:
            return Rationale(write(voice=voice, language=self.language), None)
        sentiment = label
        if voice is not None and not forced and SENTIMENTS.get(voice) == label:
            sentiment = self._sentiment_of_words()
        emotion = self._emotion(sentiment)
        span = (
            None
            if sentiment == "neutral"
            else quoted_span(self.text, self.words.get(sentiment, self.words[label]))
        )
        quotation = None if span is None else self.text[slice(*span)]
        text = write(words=emotion, quotation=quotation, voice=voice, language=self.language)
        return Rationale(text, span)

    def _sentiment_of_words(self) -> str:
        """What the words say by themselves; neutral if that is not sure, as most utterances are."""
        sums: dict[str, float] = {}
        for emotion, score in (self.emotions or {}).items():
            sentiment = SENTIMENTS.get(emotion, "neutral")
            sums[sentiment] = sums.get(sentiment, 0.0) + score
        likeliest = max(sums, key=sums.__getitem__)
        return likeliest if sums[likeliest] >= _SURE else "neutral"

    def _emotion(self, sentiment: str) -> str:
        """The likeliest emotion of a sentiment; the sentiment itself where none is likely."""
        fitting = {
            name: score for name, score in (self.emotions or {}).items() if SENTIMENTS.get(name) == sentiment
        }
        best = max(fitting, key=fitting.__getitem__, default=sentiment)
        return best if fitting.get(best, 0.0) >= _LIKELY else sentiment


def write(
    *,
    words: str | None = None,
    quotation: str | None = None,
    voice: str | None = None,
    language: str | None = None,
) -> str | None:
    """The rationale in a language; None where neither words nor voice are named.

    Args:
        words: Emotion of the words, or a label; None where no words were read.
        quotation: Words of the transcript; None to quote nothing.
        voice: Emotion of the voice; None where none was heard.
        language: Code of the language; where `phrases.json` lacks it, or with None, it is English.
    """
    phrases = _phrases()
    own = phrases[written_in(language)]
    parts = []
    if words is not None:
        said = own["text"].get(words, f"words of {words}")
        parts.append(said if quotation is None else said + own["quote"].format(quotation))
    if voice is not None:
        parts.append(own["voice"].get(voice, f"a voice of {voice}"))
    if len(parts) < 2:
        return parts[0] if parts else None
    signs = {SENTIMENTS.get(str(name), str(name)) for name in (words, voice)}
    return own["but" if signs == {"negative", "positive"} else "and"].join(parts)


def written_in(language: str | None) -> str:
    """The language in which a rationale is written for a transcript's language."""
    return language if language in _phrases() else "en"


def phrase_language(given: object, scores: Mapping[str, float] | None = None) -> str | None:
    """The code of the language to write in: the one that was given, else the likeliest of a transcript."""
    code = language_code(given) if isinstance(given, str) else None
    if code in CHINESE:
        return "zh"
    if code is not None and code != UNDETERMINED and is_language_code(code):
        return code
    return max(scores, key=scores.__getitem__) if scores else None


def quoted_span(text: str, words: Sequence[Weighted], *, most: int = MOST_WORDS) -> Span | None:
    """The neighbouring words that decide, as a span of the transcript; None if there are none to quote.

    Of all stretches of one to `most` words it is the one with the largest sum of what their weights exceed
    the mean by, without the punctuation around it. Stretches with a quotation mark in them, and stretches
    over the end of a sentence, are left out.
    """
    mean = sum(word.weight for word in words) / max(1, len(words))
    folded = Folded(text)
    found: tuple[float, Span] | None = None
    for first in range(len(words)):
        total = 0.0
        for last in range(first, min(first + most, len(words))):
            total += words[last].weight - (mean if len(words) > 1 else 0.0)
            start, end = words[first].start, words[last].end
            if _MARKS & set(text[start:end]) or (last > first and _ends(text[start : words[last].start])):
                break
            if found is None or total > found[0]:
                span = _without_punctuation(text, start, end)
                if span is not None and folded.find(text[slice(*span)]) is not None:
                    found = total, span
    return None if found is None else found[1]


def _ends(text: str) -> bool:
    """Whether a sentence ends in a text; a point behind an abbreviation does not end one."""
    return any((found["word"] or "").lower() not in _ABBREVIATIONS for found in _ENDS.finditer(text))


def _without_punctuation(text: str, start: int, end: int) -> Span | None:
    while start < end and not is_word(text[start]):
        start += 1
    while end > start and not _ends_word(text[end - 1]):
        end -= 1
    return (start, end) if start < end else None


def _ends_word(character: str) -> bool:
    return is_word(character) or unicodedata.category(character)[0] == "M"


@cache
def _phrases() -> dict[str, Any]:
    return json.loads(files("mmsr.inference").joinpath("phrases.json").read_text("utf-8"))
