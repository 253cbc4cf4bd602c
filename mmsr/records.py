"""What passes between the rooms of mmsr, typed once."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, NotRequired, Protocol, TypedDict

import numpy as np


class Record(TypedDict):
    """What a model is given: transcript, recording (path, file's bytes or 16 kHz samples `[s]`), or both."""

    audio: str | bytes | np.ndarray | None
    text: str | None
    language: str | None


class Answer(TypedDict):
    """What a model answers; `rationale` is null where the model writes none.

    `head_label` is there where the decoder gives `label` and a classification head gives another.
    """

    label: str
    score: float
    scores: dict[str, float]
    rationale: str | None
    head_label: NotRequired[str]


Predict = Callable[[Sequence[Record]], list[Answer]]
"""Answers records, one answer each, in their order."""

Progress = Callable[[str, int, int], None]
"""Is told the condition, the rows answered so far and the rows of the condition."""

# ---------------------------------------------------------------------- where a model looks

Span = tuple[int, int]
"""A part of a text, by characters: the first, and the one after the last."""


class AttributedWord(NamedTuple):
    """A word of a transcript, its characters `[start:end]`, and how much it counts."""

    word: str
    start: int
    end: int
    weight: float


class AttributedFrame(NamedTuple):
    """A stretch of the audio, in seconds, and how much it counts."""

    start: float
    end: float
    weight: float


class Attribution(NamedTuple):
    """How much each word and each of equally long frames counts for an answer, in order.

    `words` or `frames` are None where the modality is absent or the method has no weights for it; `label` is
    the label that the weights speak for (or, where they are negative, against), where they speak for one.
    """

    words: tuple[AttributedWord, ...] | None = None
    frames: tuple[AttributedFrame, ...] | None = None
    label: str | None = None


class Attribute(Protocol):
    """A method of attribution, applied to one model."""

    def __call__(
        self, *, audio: np.ndarray | None, text: str | None, words: Sequence[Span] | None = None
    ) -> Attribution:
        """Weigh the parts of an utterance: 16 kHz samples `[s]`, and a transcript with its words."""
