"""Titles of conditions and baselines, formats of tables, and numbers as text."""

from collections.abc import Sequence
from typing import Literal

TableFormat = Literal["md", "csv", "latex"]

NAMES = {
    "audio+text": "audio + text",
    "text": "text alone",
    "audio": "audio alone",
    "shuffled_audio": "text + another row's audio",
    "asr": "ASR transcript alone",
    "audio+asr": "audio + ASR transcript",
    "majority": "majority label",
    "tfidf": "TF-IDF + logistic regression",
    "tfidf_asr": "TF-IDF + logistic regression, ASR transcript",
    "constant_rationale": "constant rationale of the predicted label",
    "constant_rationale_oracle": "constant rationale of the true label",
    "nearest_rationale": "rationale of the nearest training row of the predicted label",
    "consensus_rationale": "consensus of the nearest training rows of the predicted label",
}
RATIONALES_TO_BEAT = ("constant_rationale", "nearest_rationale", "consensus_rationale")
RATIONALE_BASELINES = (*RATIONALES_TO_BEAT, "constant_rationale_oracle")
MISSING = "–"


def number(
    value: float | None, interval: Sequence[float] | None = None, *, signed: bool = False, digits: int = 3
) -> str:
    """A value with `digits` decimals, followed by its interval if there is one."""
    if value is None:
        return MISSING
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return f"{text} {brackets(interval, signed=signed, digits=digits)}" if interval else text


def weight_count(value: int | None) -> str:
    """A number of weights, in thousands or millions."""
    if value is None:
        return MISSING
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value / 1e3:.0f} k"


def brackets(interval: Sequence[float] | None, *, signed: bool = False, digits: int = 3) -> str:
    """An interval in brackets."""
    if interval is None:
        return MISSING
    return f"[{', '.join(number(bound, signed=signed, digits=digits) for bound in interval)}]"
