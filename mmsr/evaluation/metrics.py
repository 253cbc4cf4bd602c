"""Figures for predictions: sentiment (scikit-learn), rationales (ROUGE, chrF) and intervals over rows.

The usual ROUGE code keeps only `[a-z0-9]`: it cuts Vietnamese words to fragments and Chinese to nothing. So
`rouge1`, `rouge2`, `rougeL` and `rougeLsum` here count Unicode words (`UnicodeTokenizer`); the same figures
under the usual code stand beside them as `rouge1_ascii` and so on, only for comparison with published tables.

rows of one condition ─► `evaluate_rows` ─► one entry of metrics.json (DESIGN.md, "Files that a run leaves")
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
import regex  # type: ignore[import-untyped, unused-ignore]
from sklearn.metrics import accuracy_score, f1_score, recall_score

from mmsr.evaluation.significance import bootstrap

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
ROW_SCORES = (*ROUGE, *(f"{name}_ascii" for name in ROUGE), "rationale_exact")  # chrF is of a corpus
RESAMPLES = 1000
CLUSTERS_ABOVE = 5  # with this many speakers or fewer, rows are resampled and not speakers

_CHARACTER_SCRIPTS = r"\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}"
_TOKEN = regex.compile(
    rf"[{_CHARACTER_SCRIPTS}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}_]--[{_CHARACTER_SCRIPTS}]]+", regex.VERSION1
)

Row = Mapping[str, Any]


class UnicodeTokenizer:
    """Splits text into case-folded Unicode words, and Chinese and Japanese script into characters.

    The script of each character decides, so mixed text works. Combining marks stay with their letter. It has
    the interface of `rouge_score.tokenizers.Tokenizer`.
    """

    def tokenize(self, text: str) -> list[str]:
        """Returns the tokens of `text` in order."""
        return _TOKEN.findall(_nfc(_nfc(text).casefold()))


def sentiment_metrics(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """Returns `n`, `accuracy`, `macro_f1`, `uar` and `f1` by label; without rows only `n`.

    `macro_f1` is the mean F1 over the labels that occur in `gold` or `predicted` (scikit-learn's default),
    `uar` the mean recall over the labels that occur in `gold` (unweighted average recall, balanced accuracy).
    `f1` has no key for a label that occurs in neither.

    Raises:
        ValueError: Where the lengths differ, or a label is not in `labels`.
    """
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold labels but {len(predicted)} predicted labels")
    for field, values in (("label", gold), ("predicted_label", predicted)):
        check_labels(((str(i), value) for i, value in enumerate(values)), field=field, labels=labels)
    if not gold:
        return {"n": 0}
    used = [label for label in labels if label in {*gold, *predicted}]
    recalled = [label for label in labels if label in set(gold)]
    f1 = f1_score(gold, predicted, labels=used, average=None, zero_division=0.0)
    return {
        "n": len(gold),
        "accuracy": float(accuracy_score(gold, predicted)),
        "macro_f1": float(f1.mean()),
        "uar": float(recall_score(gold, predicted, labels=recalled, average="macro", zero_division=0.0)),
        "f1": {label: float(value) for label, value in zip(used, f1, strict=True)},
    }


def rationale_metrics(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, float]:
    """Returns ROUGE, ASCII ROUGE (`…_ascii`), `chrf` and `rationale_exact`, from 0 to 1; `{}` without rows.

    ROUGE: F-measures of `rouge_score`, averaged over rows; `…_ascii` uses its default tokenizer. `chrf`:
    sacrebleu's corpus chrF2 divided by 100. `rationale_exact`: share of rows whose two texts are equal but
    for outer white space. Texts are compared in Unicode normal form C.

    Raises:
        ValueError: Where the lengths differ.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} reference rationales but {len(hypotheses)} predicted ones")
    if not references:
        return {}
    from sacrebleu.metrics import CHRF

    scores = rationale_scores(references, hypotheses)
    pairs = [(_nfc(r).strip(), _nfc(h).strip()) for r, h in zip(references, hypotheses, strict=True)]
    chrf = CHRF().corpus_score(
        [hypothesis for _, hypothesis in pairs], [[reference for reference, _ in pairs]]
    )
    exact = float(scores.pop("rationale_exact").mean())
    figures = {name: float(values.mean()) for name, values in scores.items()}
    return {**figures, "chrf": chrf.score / 100, "rationale_exact": exact}


def rationale_scores(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns each row's `ROW_SCORES` `[n]`, whose means `rationale_metrics` gives."""
    pairs = [(_nfc(r).strip(), _nfc(h).strip()) for r, h in zip(references, hypotheses, strict=True)]
    scores = np.array([(*_rouge(r, h), float(r == h)) for r, h in pairs]).reshape(len(pairs), len(ROW_SCORES))
    return dict(zip(ROW_SCORES, scores.T, strict=True))


def evaluate_rows(rows: Sequence[Row], labels: Sequence[str]) -> dict[str, Any]:
    """Returns the figures of one condition from its rows (as in predictions.jsonl).

    `n` counts all rows, `n_label` those behind the label figures (a gold and a predicted label),
    `n_rationale` those behind the rationale figures (a gold rationale, from a model that writes rationales: a
    row it left null counts as an empty text). Figures that cannot be computed have no key. `confusion` is
    {gold: {predicted: count}}. `interval` holds 95 % bootstrap intervals (see `bootstrap_intervals`) and
    `interval_over` says what was resampled. `by_language` and `by_kind` hold the same figures for each value,
    rows without the value under "unknown".

    Raises:
        ValueError: Where a label is not in `labels`; names the row.
    """
    for field in ("label", "predicted_label"):
        check_labels(((str(row["id"]), row[field]) for row in rows), field=field, labels=labels)
    writes = any(row["predicted_rationale"] is not None for row in rows)
    entry = _figures(rows, labels, writes=writes)
    for key, field in (("by_language", "language"), ("by_kind", "kind")):
        if any(row[field] is not None for row in rows):
            values = sorted({row[field] or "unknown" for row in rows})
            groups = {value: [row for row in rows if (row[field] or "unknown") == value] for value in values}
            entry[key] = {value: _figures(group, labels, writes=writes) for value, group in groups.items()}
    return entry


def bootstrap_intervals(
    gold: Sequence[str],
    predicted: Sequence[str],
    *,
    speakers: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Returns 95 % bootstrap intervals `[low, high]` of `accuracy` and `macro_f1` over 1,000 resamples.

    Without `speakers` rows are drawn with replacement. With them whole speakers are drawn, because the
    utterances of one speaker are not independent. See `significance.paired_bootstrap` for their kind.
    """
    return {
        metric: list(
            bootstrap(gold, predicted, clusters=speakers, metric=metric, resamples=RESAMPLES, seed=seed)
        )
        for metric in ("accuracy", "macro_f1")
    }


def speakers_of(rows: Sequence[Row]) -> list[str] | None:
    """Returns each row's speaker where speakers are what is resampled; None where rows are.

    Speakers are where every row has one and they are more than `CLUSTERS_ABOVE`.
    """
    speakers = [row["speaker"] for row in rows]
    return speakers if all(speakers) and len(set(speakers)) > CLUSTERS_ABOVE else None


def check_labels(values: Iterable[tuple[str, str | None]], *, field: str, labels: Sequence[str]) -> None:
    """Checks that each value of the (row id, value) pairs is null or one of `labels`.

    Raises:
        ValueError: Names the row, the field, the value and what is accepted.
    """
    for row, value in values:
        if value is not None and value not in labels:
            raise ValueError(f"row {row!r}: {field} {value!r} is not one of {', '.join(map(repr, labels))}")


def has_text(value: str | None) -> bool:
    """Returns whether a cell holds more than white space."""
    return bool(value and value.strip())


def _figures(rows: Sequence[Row], labels: Sequence[str], *, writes: bool) -> dict[str, Any]:
    labelled = [row for row in rows if row["label"] is not None and row["predicted_label"] is not None]
    explained = [row for row in rows if writes and has_text(row["rationale"])]
    gold, predicted = [row["label"] for row in labelled], [row["predicted_label"] for row in labelled]
    figures = sentiment_metrics(gold, predicted, labels)
    figures |= {"n": len(rows), "n_label": len(labelled), "n_rationale": len(explained)}
    figures |= rationale_metrics(
        [row["rationale"] for row in explained], [row["predicted_rationale"] or "" for row in explained]
    )
    if labelled:
        speakers = speakers_of(labelled)
        pairs = Counter(zip(gold, predicted, strict=True))
        figures["confusion"] = {g: {p: pairs[g, p] for p in labels} for g in labels}
        figures["interval"] = bootstrap_intervals(gold, predicted, speakers=speakers)
        figures["interval_over"] = "rows" if speakers is None else "speakers"
    return figures


@lru_cache(maxsize=100_000)
def _rouge(reference: str, hypothesis: str) -> tuple[float, ...]:
    scores = [scorer.score(reference, hypothesis) for scorer in _scorers()]
    return tuple(score[name].fmeasure for score in scores for name in ROUGE)


@cache
def _scorers() -> tuple[Any, Any]:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    return RougeScorer(ROUGE, tokenizer=UnicodeTokenizer()), RougeScorer(ROUGE, tokenizer=DefaultTokenizer())


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
