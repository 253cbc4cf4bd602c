"""Entries of metrics.json: the metrics of one condition's predictions, with intervals, over all and by group.

predictions of one condition ─► `evaluate_rows` ─► one entry (DESIGN.md, "Files that a run leaves")
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmsr.evaluation.matching import own_shares
from mmsr.evaluation.metrics import (
    METRICS,
    Metric,
    RationaleMetrics,
    check_labels,
    confusion_matrix,
    has_text,
    rationale_metrics,
    sentiment_metrics,
)
from mmsr.evaluation.rationales import Texts
from mmsr.evaluation.significance import bootstrap, minimum_detectable_difference, paired_bootstrap
from mmsr.languages import language_code
from mmsr.records import Prediction, Utterance

RESAMPLES = 1000
CLUSTERS_ABOVE = 5  # up to so many speakers, rows are resampled instead of speakers
INTERVALS = ("accuracy", "macro_f1")  # metrics of labels that have intervals
DIFFERING = ("macro_f1", "rougeL")  # metrics whose differences within a run are kept


def evaluate_rows(
    rows: Sequence[Prediction],
    labels: Sequence[str],
    *,
    rationales: RationaleMetrics = rationale_metrics,
    transcripts: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """Returns the entry of one condition; metrics that cannot be computed have no key.

    `n` counts all rows, `n_label` those with a true and a predicted label, behind the metrics of labels, and
    `n_rationale` those with a reference rationale, behind the metrics of rationales (none where the model
    writes no rationales; a rationale of None counts as an empty text). `confusion` is {true: {predicted:
    count}}. `interval` holds 95 % intervals (see `bootstrap_intervals`) over what `interval_over` says; a
    single row has neither. `by_language` and `by_kind` hold the same for each language (by its code, however
    rows write it) and each kind, rows without one under "unknown"; a kind, in which labels may not occur, has
    an interval of `macro_f1_present` too. `rationales` computes the metrics of rationales. `transcripts`, by
    the rows' ids, are what `matching` needs, whose interval is among `interval`.

    Raises:
        ValueError: A label is not in `labels`; names the row.
    """
    check_labels(((row.id, row.label) for row in rows), field="label", labels=labels)
    check_labels(((row.id, row.predicted_label) for row in rows), field="predicted_label", labels=labels)
    writes = any(row.predicted_rationale is not None for row in rows)
    options: dict[str, Any] = {"writes": writes, "rationales": rationales, "transcripts": transcripts}
    entry = _entry(rows, labels, **options)
    for key, of_rows, intervals in (
        ("by_language", [language_code(row.language) for row in rows], INTERVALS),
        ("by_kind", [row.kind for row in rows], (*INTERVALS, "macro_f1_present")),
    ):
        if any(value is not None for value in of_rows):
            groups: dict[str, list[Prediction]] = {}
            for row, value in zip(rows, of_rows, strict=True):
                groups.setdefault(value or "unknown", []).append(row)
            entry[key] = {
                value: _entry(groups[value], labels, intervals=intervals, **options)
                for value in sorted(groups)
            }
    return entry


def bootstrap_intervals(
    gold: Sequence[str],
    predicted: Sequence[str],
    *,
    speakers: Sequence[str] | None = None,
    metrics: Sequence[str] = INTERVALS,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Returns 95 % intervals `[low, high]` of metrics of labels; `{}` for fewer than two rows.

    They are `significance.bootstrap`'s over rows or, with `speakers`, over speakers, whose utterances are not
    independent.
    """
    if len(gold) < 2:
        return {}
    options: dict[str, Any] = {"clusters": speakers, "resamples": RESAMPLES, "seed": seed}
    return {metric: list(bootstrap(gold, predicted, metric=metric, **options)) for metric in metrics}


def interval_fields(rows: Sequence[Prediction], metrics: Sequence[str] = INTERVALS) -> dict[str, Any]:
    """Returns `interval` and `interval_over` of labelled predictions; `{}` for fewer than two rows."""
    speakers = speakers_of(rows)
    intervals = bootstrap_intervals(*label_pairs(rows), speakers=speakers, metrics=metrics)
    over = "rows" if speakers is None else "speakers"
    return {"interval": intervals, "interval_over": over} if intervals else {}


def differences(rows: Sequence[Prediction], first: Sequence[Prediction]) -> dict[str, dict[str, Any]]:
    """Returns {metric: difference} of two answers to the same rows, `rows` minus `first`, paired by id.

    A difference has its `value`, 95 % `interval` over what it is `over`, `n` and `detectable`, the smallest
    true difference that as many rows show with 80 % power. A metric that fewer than two rows have is left
    out.
    """
    by_id = {row.id: row for row in first}
    both = [(row, by_id[row.id]) for row in rows if row.id in by_id]
    found = {}
    for metric in map(METRICS.__getitem__, DIFFERING):
        given, answer = metric.kind, f"predicted_{metric.kind}"
        pairs = [
            pair
            for pair in both
            if has_text(getattr(pair[0], given)) and all(getattr(row, answer) is not None for row in pair)
        ]
        speakers = speakers_of([row for row, _ in pairs])
        if len(pairs) < 2:
            continue
        difference = paired_bootstrap(
            np.array([row.label for row, _ in pairs]) if metric.kind == "label" else None,
            values_of(metric, [row for row, _ in pairs]),
            values_of(metric, [row for _, row in pairs]),
            clusters=speakers,
            metric=metric.statistic,
            resamples=RESAMPLES,
        )
        found[metric.name] = {
            "value": difference.difference,
            "interval": list(difference.interval),
            "over": "rows" if speakers is None else "speakers",
            "n": len(pairs),
            "detectable": minimum_detectable_difference(difference.standard_error, units=difference.units),
        }
    return found


def mean_with_interval(
    values: Sequence[float] | np.ndarray, rows: Sequence[Prediction | Utterance], *, seed: int = 0
) -> dict[str, Any]:
    """Returns the mean of a number per row as `value`, its 95 % `interval`, what that is `over`, and `n`.

    The mean of booleans is a share and has the interval of shares (see `significance.bootstrap`). The
    interval is over speakers where `speakers_of` has them. One row has no interval, no rows have only `n`.
    """
    if not len(values):
        return {"n": 0}
    entry: dict[str, Any] = {"value": float(np.mean(values)), "n": len(values)}
    if len(values) > 1:
        speakers = speakers_of(rows)
        interval = bootstrap(None, values, clusters=speakers, metric="mean", resamples=RESAMPLES, seed=seed)
        entry |= {"interval": list(interval), "over": "speakers" if speakers else "rows"}
    return entry


def speakers_of(rows: Sequence[Prediction | Utterance]) -> list[str] | None:
    """Returns each row's speaker, or None where one is unknown or there are at most CLUSTERS_ABOVE."""
    speakers = [row.speaker for row in rows if row.speaker]
    return speakers if len(speakers) == len(rows) and len(set(speakers)) > CLUSTERS_ABOVE else None


def _entry(
    rows: Sequence[Prediction],
    labels: Sequence[str],
    *,
    writes: bool,
    rationales: RationaleMetrics,
    transcripts: Mapping[str, str | None] | None,
    intervals: Sequence[str] = INTERVALS,
) -> dict[str, Any]:
    labelled = [row for row in rows if row.label is not None and row.predicted_label is not None]
    explained = [row for row in rows if writes and has_text(row.rationale)]
    gold, predicted = label_pairs(labelled)
    entry = sentiment_metrics(gold, predicted, labels)
    entry |= {"n": len(rows), "n_label": len(labelled), "n_rationale": len(explained)}
    said: dict[str, Any] = {"languages": [row.language for row in explained]}
    if transcripts is not None:
        said["transcripts"] = [transcripts.get(row.id) for row in explained]
        said["labels"] = [row.predicted_label or row.label for row in explained]
    hypotheses = [row.predicted_rationale or "" for row in explained]
    entry |= rationales([row.rationale for row in explained], hypotheses, **said)
    if labelled:
        counts = confusion_matrix(gold, predicted, labels).tolist()
        entry["confusion"] = {
            label: dict(zip(labels, row, strict=True)) for label, row in zip(labels, counts, strict=True)
        }
        entry |= interval_fields(labelled, intervals)
    if "matching" in entry:
        found = own_shares(said["transcripts"], hypotheses, said["labels"], said["languages"])
        mean = mean_with_interval(list(found.values()), [explained[place] for place in found])
        entry["n_matching"] = mean["n"]
        entry["interval"] = entry.get("interval", {}) | {"matching": mean["interval"]}
    return entry


def values_of(metric: Metric, rows: Sequence[Prediction]) -> np.ndarray:
    """Returns each row's predicted label or score `[n]` of a comparable metric, for `significance`.

    Raises:
        ValueError: The metric has no scores of rows.
    """
    if metric.kind == "label":
        return np.array([row.predicted_label for row in rows])
    if metric.from_rows is None:
        raise ValueError(f"metric {metric.name!r} has no scores of rows")
    return metric.from_rows(
        Texts([row.rationale or "" for row in rows], [row.predicted_rationale or "" for row in rows])
    )


def label_pairs(rows: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    """Returns true and predicted labels, `[n]` each, of rows that have both."""
    return [str(row.label) for row in rows], [str(row.predicted_label) for row in rows]
