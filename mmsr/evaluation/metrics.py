"""Figures for predictions: sentiment (scikit-learn), its intervals over rows, and all of one condition.

rows of one condition ─► `evaluate_rows` ─► one entry of metrics.json (DESIGN.md, "Files that a run leaves")
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, recall_score

from mmsr.evaluation.rationales import rationale_metrics
from mmsr.evaluation.significance import bootstrap

RESAMPLES = 1000
CLUSTERS_ABOVE = 5  # with this many speakers or fewer, rows are resampled and not speakers

Row = Mapping[str, Any]

RationaleMetrics = Callable[..., dict[str, float]]
"""`rationales.rationale_metrics`, or it with some of its keywords given."""


def sentiment_metrics(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """Returns `n`, `accuracy`, `macro_f1`, `weighted_f1`, `uar` and `f1` by label; without rows only `n`.

    `macro_f1` is the mean F1 over the labels that occur in `gold` or `predicted` (scikit-learn's default),
    `weighted_f1` the same weighted by how often a label occurs in `gold`, as papers on MELD and CMU-MOSI say,
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
        "weighted_f1": float(np.average(f1, weights=[gold.count(label) for label in used])),
        "uar": float(recall_score(gold, predicted, labels=recalled, average="macro", zero_division=0.0)),
        "f1": {label: float(value) for label, value in zip(used, f1, strict=True)},
    }


def evaluate_rows(
    rows: Sequence[Row], labels: Sequence[str], *, rationales: RationaleMetrics = rationale_metrics
) -> dict[str, Any]:
    """Returns the figures of one condition from its rows (as in predictions.jsonl).

    `n` counts all rows, `n_label` those behind the label figures (a gold and a predicted label),
    `n_rationale` those behind the rationale figures (a gold rationale, from a model that writes rationales: a
    row it left null counts as an empty text). Figures that cannot be computed have no key. `confusion` is
    {gold: {predicted: count}}. `interval` holds 95 % intervals (see `bootstrap_intervals`) and
    `interval_over` says over what; a single row has neither. `by_language` and `by_kind` hold the same
    figures for each value, rows without the value under "unknown". `rationales` computes the rationale
    figures.

    Raises:
        ValueError: Where a label is not in `labels`; names the row.
    """
    for field in ("label", "predicted_label"):
        check_labels(((str(row["id"]), row[field]) for row in rows), field=field, labels=labels)
    writes = any(row["predicted_rationale"] is not None for row in rows)
    entry = _figures(rows, labels, writes=writes, rationales=rationales)
    for key, field in (("by_language", "language"), ("by_kind", "kind")):
        if any(row[field] is not None for row in rows):
            values = sorted({row[field] or "unknown" for row in rows})
            groups = {value: [row for row in rows if (row[field] or "unknown") == value] for value in values}
            entry[key] = {
                value: _figures(group, labels, writes=writes, rationales=rationales)
                for value, group in groups.items()
            }
    return entry


def bootstrap_intervals(
    gold: Sequence[str],
    predicted: Sequence[str],
    *,
    speakers: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Returns 95 % intervals `[low, high]` of `accuracy` and `macro_f1`; fewer than two rows have none.

    They are over rows or, with `speakers`, over whole speakers, because the utterances of one speaker are not
    independent: Wilson's of the accuracy over rows, and of answers that are all right, which have no
    resample that is not; the others a bootstrap of 1,000 resamples (see `significance.bootstrap`).
    """
    if len(gold) < 2:
        return {}
    return {
        metric: list(
            bootstrap(gold, predicted, clusters=speakers, metric=metric, resamples=RESAMPLES, seed=seed)
        )
        for metric in ("accuracy", "macro_f1")
    }


def mean_figure(
    values: Sequence[float] | np.ndarray, rows: Sequence[Row], *, seed: int = 0
) -> dict[str, Any]:
    """Returns the mean of a number per row as `value`, its 95 % `interval`, what that is `over`, and `n`.

    Booleans are outcomes, whose mean is a share, and have the intervals of shares (`significance.bootstrap`).
    The interval is over speakers where there are enough (see `speakers_of`). Fewer than two rows have none,
    and no rows only `n`.
    """
    if not len(values):
        return {"n": 0}
    figure: dict[str, Any] = {"value": float(np.mean(values)), "n": len(values)}
    if len(values) > 1:
        speakers = speakers_of(rows)
        figure["interval"] = list(
            bootstrap(None, values, clusters=speakers, metric="mean", resamples=RESAMPLES, seed=seed)
        )
        figure["over"] = "speakers" if speakers else "rows"
    return figure


def speakers_of(rows: Sequence[Row]) -> list[str] | None:
    """Returns each row's speaker, where all have one and more than CLUSTERS_ABOVE speak; else None."""
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


def _figures(
    rows: Sequence[Row], labels: Sequence[str], *, writes: bool, rationales: RationaleMetrics
) -> dict[str, Any]:
    labelled = [row for row in rows if row["label"] is not None and row["predicted_label"] is not None]
    explained = [row for row in rows if writes and has_text(row["rationale"])]
    gold, predicted = [row["label"] for row in labelled], [row["predicted_label"] for row in labelled]
    figures = sentiment_metrics(gold, predicted, labels)
    figures |= {"n": len(rows), "n_label": len(labelled), "n_rationale": len(explained)}
    figures |= rationales(
        [row["rationale"] for row in explained],
        [row["predicted_rationale"] or "" for row in explained],
        languages=[row["language"] for row in explained],
    )
    if labelled:
        speakers = speakers_of(labelled)
        pairs = Counter(zip(gold, predicted, strict=True))
        figures["confusion"] = {g: {p: pairs[g, p] for p in labels} for g in labels}
        if intervals := bootstrap_intervals(gold, predicted, speakers=speakers):
            figures["interval"] = intervals
            figures["interval_over"] = "rows" if speakers is None else "speakers"
    return figures
