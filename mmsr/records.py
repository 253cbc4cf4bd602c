"""What passes between the rooms of mmsr, typed once."""

from collections.abc import Callable, Sequence
from typing import NotRequired, TypedDict

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
