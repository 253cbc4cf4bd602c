"""What reports call conditions, baselines and figures."""

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
FIGURES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "uar": "UAR",
    "rougeL": "ROUGE-L (Unicode)",
    "rougeL_ascii": "ROUGE-L (ASCII)",
    "chrf": "chrF",
    "rationale_exact": "exact",
}
RATIONALE_FIGURES = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "bleu": "BLEU",
    "chrf": "chrF",
    "bertscore_f1": "BERTScore F1",
    "rationale_exact": "exact",
    "verbatim_from_training": "copied from training",
    "distinct1": "distinct-1",
    "distinct2": "distinct-2",
    "length": "length (reference's)",
}
LABEL_FIGURES = ("accuracy", "macro_f1", "weighted_f1", "uar")
RATIONALE_BASELINES = ("constant_rationale", "constant_rationale_oracle")
MISSING = "–"


def number(value: float | None, interval: Sequence[float] | None = None, *, signed: bool = False) -> str:
    """A figure with three decimals, and its interval behind it."""
    if value is None:
        return MISSING
    sign = "+" if signed else ""
    return f"{value:{sign}.3f}" + (f" [{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]" if interval else "")
