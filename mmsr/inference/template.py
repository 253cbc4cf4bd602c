"""Rationales by a template: the emotion of the words with a quotation, and the emotion of the voice.

    words of gratitude: "thank you so much"; a calm voice

A checkpoint without a decoder that names its evidence (`mmsr.model.evidence`) has these. They are written in
the transcript's language where `phrases.json` has it, else in English. What is quoted are whole words of the
transcript, and nothing is said of a voice that was not heard or of words that were not read.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from mmsr.quotations import MARK, is_word, locate
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


_SURE = 0.5  # probability of an emotion of words that the label does not rest on


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
        where their emotion is not sure. Otherwise, and if the label is `forced`, only emotions of words that
        go with the label are named.
        """
        voice = None if self.voice is None else max(self.voice, key=self.voice.__getitem__)
        if self.text is None or self.emotions is None or self.words is None:
            return Rationale(write(voice=voice, language=self.language), None)
        explained = voice is not None and not forced and SENTIMENTS.get(voice) == label
        fitting = {
            emotion: score
            for emotion, score in self.emotions.items()
            if explained or SENTIMENTS.get(emotion, label) == label
        }
        emotion = max(fitting, key=fitting.__getitem__) if fitting else label
        if explained and fitting[emotion] < _SURE and "neutral" in fitting:
            emotion = "neutral"  # most utterances are; the head knows emotions in equal shares
        sentiment = SENTIMENTS.get(emotion, label)
        span = (
            None
            if sentiment == "neutral"
            else quoted_span(self.text, self.words.get(sentiment, self.words[label]))
        )
        quotation = None if span is None else self.text[slice(*span)]
        text = write(words=emotion, quotation=quotation, voice=voice, language=self.language)
        return Rationale(text, span)


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
    own = phrases.get(language or "", phrases["en"])
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


def quoted_span(text: str, words: Sequence[Weighted], *, most: int = MOST_WORDS) -> Span | None:
    """The neighbouring words that decide, as a span of the transcript; None if there are none to quote.

    Of all stretches of one to `most` words it is the one with the largest sum of what their weights exceed
    the mean by, without the punctuation around it. Stretches with a quotation mark in them are left out.
    """
    mean = sum(word.weight for word in words) / max(1, len(words))
    found: tuple[float, Span] | None = None
    for first in range(len(words)):
        total = 0.0
        for last in range(first, min(first + most, len(words))):
            total += words[last].weight - (mean if len(words) > 1 else 0.0)
            start, end = words[first].start, words[last].end
            if MARK in text[start:end]:
                break
            if found is None or total > found[0]:
                span = _without_punctuation(text, start, end)
                if span is not None and locate(text[slice(*span)], text) is not None:
                    found = total, span
    return None if found is None else found[1]


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
