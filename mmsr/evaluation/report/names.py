"""What reports call conditions and baselines, and how they print numbers."""

from collections.abc import Sequence

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
}
RATIONALE_BASELINES = ("constant_rationale", "constant_rationale_oracle")
MISSING = "–"


def number(value: float | None, interval: Sequence[float] | None = None, *, signed: bool = False) -> str:
    """A figure with three decimals, and its interval behind it."""
    if value is None:
        return MISSING
    sign = "+" if signed else ""
    return f"{value:{sign}.3f}" + (f" [{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]" if interval else "")
