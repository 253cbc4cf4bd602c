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


# ---------------------------------------------------------------------- batch keys

# What processor and collator put into a batch, and `MmsrForSentimentReasoning.forward` takes. In masks 1 is
# real. Axes: `b` batch, `s` samples, `f` audio frames, `t` text tokens, `r` rationale tokens, `l` encoder
# layers, `d` width.
INPUT_VALUES = "input_values"  # waveform at 16 kHz [b, s]
INPUT_VALUES_MASK = "input_values_mask"  # [b, s]
INPUT_IDS = "input_ids"  # transcript [b, t]
ATTENTION_MASK = "attention_mask"  # of the transcript [b, t]
AUDIO_FEATURES = "audio_features"  # a frozen encoder's states [b, f, l, d], in place of the waveform
AUDIO_FEATURES_MASK = "audio_features_mask"  # [b, f]
TEXT_FEATURES = "text_features"  # a frozen encoder's states [b, t, l, d]
LABELS = "labels"  # the rationale's tokens [b, r], -100 where none counts
SENTIMENT_LABELS = "sentiment_labels"  # [b], -100 where unknown
