"""Robustness curves: metrics over the severity of a perturbation.

rows ─► a point's change ─► predict ─► metrics, intervals, paired difference from the clean rows
     ─► robustness.json, predictions/POINT.jsonl (and `mmsr.evaluation.report.robustness`)

Perturbations are passed in (`Point.change`; see `perturbations`). They do not depend on the model, so
`mmsr compare` can pair two models' files of a point.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmsr.evaluation.entries import RESAMPLES, speakers_of, values_of
from mmsr.evaluation.metrics import METRICS, check_labels, has_text
from mmsr.evaluation.provenance import Provenance
from mmsr.evaluation.run import CONDITIONS, condition_inputs, json_document, predict_rows, prediction_lines
from mmsr.evaluation.significance import bootstrap, paired_bootstrap
from mmsr.evaluation.slices import LEAST, slice_metrics
from mmsr.files import atomic_write, write_file
from mmsr.records import Predict, Prediction, Progress, Utterance

MEASURED = ("macro_f1", "accuracy", "rougeL")  # metrics of each point, as far as its rows allow

Change = Callable[[Utterance], Utterance | None]
"""Returns a row with another `text` or `audio` (a path, or a file's bytes); None leaves the row out."""


@dataclass(frozen=True)
class Point:
    """A perturbation at one severity."""

    severity: float | str  # in the curve's unit, or a name
    change: Change
    measured: float | None = None  # the severity of a random change, measured over all rows


@dataclass(frozen=True)
class Curve:
    """A perturbation at several severities."""

    kind: str  # curves of a kind share a panel
    axis: str  # name and unit of the severities
    clean: float | str  # severity of the unchanged rows
    points: tuple[Point, ...]  # from mild to bad
    series: str = ""  # tells the curves of a kind apart

    def name(self, point: Point) -> str:
        """Name of a point and of its file, such as `clip_start_0.5`."""
        severity = point.severity if isinstance(point.severity, str) else f"{point.severity:.4g}"
        return "_".join(filter(None, (self.kind, self.series, severity)))


def clean_rows(rows: Sequence[Utterance], condition: str) -> list[Utterance]:
    """Returns the labelled rows that a condition allows, with its inputs as `audio` and `text`.

    Raises:
        ValueError: An unknown condition, or fewer than two rows.
    """
    accepted = [name for name in CONDITIONS if name != "shuffled_audio"]
    if condition not in accepted:
        raise ValueError(f"condition {condition!r}; accepted: {', '.join(accepted)}")
    labelled = [row for row in rows if row.label is not None]
    kept = [
        replace(row, audio=given.audio, text=given.text)
        for row, given in zip(*condition_inputs(labelled, condition), strict=True)
    ]
    if len(kept) < 2:
        needed = ", ".join(filter(None, ("label", *CONDITIONS[condition])))
        raise ValueError(
            f"condition {condition}: {len(kept)} of {len(rows)} rows have {needed}; "
            "accepted: two rows or more"
        )
    return kept


def measure(
    predict: Predict,
    rows: Sequence[Utterance],
    curves: Sequence[Curve],
    *,
    labels: Sequence[str],
    condition: str,
    resamples: int = RESAMPLES,
    slice_rows: int = LEAST,
    seed: int = 0,
    progress: Progress | None = None,
    chunk: int = 128,
) -> tuple[dict[str, Any], dict[str, list[Prediction]]]:
    """Returns the metrics of each point of each curve, and each point's predictions by its name.

    `rows`, of `clean_rows`, are the first point of each curve. `predict` need not write rationales; with them
    ROUGE-L is measured too. `chunk` rows are changed, and held in memory, at a time.

    Returns:
        `condition`, `n`, `interval_over`, `slice_rows`, `curves` (`kind`, `series`, `axis`, `points`, and
        `worst`: the `severity` with the lowest macro-F1, and its `worst_slice`, see `slices`). A point has
        `severity`, `n`, `macro_f1`, `accuracy`, `rougeL`, their `interval`, and their `difference` from the
        clean answers to the same rows: its `value` and paired `interval`. The predictions of the clean rows
        have the name `clean`.

    Raises:
        ValueError: A label is not in `labels`; a point has fewer than two rows, or another's name.
    """
    check_labels(((str(row.id), row.label) for row in rows), field="label", labels=labels)
    tried = [("clean", Point("clean", lambda row: row))]
    tried += [(curve.name(point), point) for curve in curves for point in curve.points]
    answered: dict[str, list[Prediction]] = {}
    for name, point in tried:
        if name in answered:
            raise ValueError(f"two points are called {name}; accepted: each severity of a curve once")
        answered[name] = []
        for start in range(0, len(rows), chunk):
            part = [worse for row in rows[start : start + chunk] if (worse := point.change(row)) is not None]
            predicted = predict_rows(predict, part, chunk=chunk) if part else []
            answered[name] += [replace(row, condition=condition) for row in predicted]
            if progress:
                progress(name, min(start + chunk, len(rows)), len(rows))
        if len(answered[name]) < 2:
            raise ValueError(f"point {name}: {len(answered[name])} rows; accepted: two or more")
    clean = answered["clean"]
    options = {"resamples": resamples, "seed": seed}
    document: dict[str, Any] = {
        "condition": condition,
        "n": len(clean),
        "interval_over": "rows" if speakers_of(clean) is None else "speakers",
        "slice_rows": slice_rows,
        "curves": [],
    }
    first = _point_metrics(clean, clean, **options)
    for curve in curves:
        points = [{"severity": curve.clean, **first, "predictions": "predictions/clean.jsonl"}]
        for point in curve.points:
            name = curve.name(point)
            entry = {"severity": point.severity, **_point_metrics(answered[name], clean, **options)}
            entry |= {} if point.measured is None else {"measured": point.measured}
            points.append({**entry, "predictions": f"predictions/{name}.jsonl"})
        found: dict[str, Any] = {"kind": curve.kind, "series": curve.series, "axis": curve.axis}
        if curve.points:
            place = min(range(len(curve.points)), key=lambda place: points[1 + place]["macro_f1"])
            least = curve.points[place]
            sliced = slice_metrics(answered[curve.name(least)], labels, least=slice_rows, seed=seed)
            found["worst"] = {"severity": least.severity, "worst_slice": sliced["worst_slice"]}
        document["curves"].append({**found, "points": points})
    return document, answered


def _point_metrics(rows: Sequence[Prediction], clean: Sequence[Prediction], **options: Any) -> dict[str, Any]:
    """Metrics of a point, and their differences from the clean answers to its rows."""
    by_id = {row.id: row for row in clean}
    entry: dict[str, Any] = {"n": len(rows), "interval": {}, "difference": {}}
    writes = any(row.predicted_rationale is not None for row in rows)
    for metric in map(METRICS.__getitem__, MEASURED):
        worse = list(rows)
        if metric.kind == "rationale":
            worse = [row for row in rows if writes and has_text(row.rationale)]
            if len(worse) < 2:
                continue
        gold = [str(row.label) for row in worse] if metric.kind == "label" else None
        values, before = (values_of(metric, side) for side in (worse, [by_id[row.id] for row in worse]))
        drawn: dict[str, Any] = {"clusters": speakers_of(worse), "metric": metric.statistic, **options}
        found = paired_bootstrap(gold, values, before, **drawn)
        entry[metric.name] = found.a
        entry["difference"][metric.name] = {"value": found.difference, "interval": list(found.interval)}
        entry["interval"][metric.name] = list(bootstrap(gold, values, **drawn))
    return entry


def write_robustness(
    out_dir: Path | str,
    document: Mapping[str, Any],
    predictions: Mapping[str, Sequence[Prediction]],
    *,
    provenance: Provenance,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes robustness.json and `predictions/` to a folder and returns the content of robustness.json.

    `predictions/` is replaced, so that no point of an earlier run remains.
    """
    whole = {**document, **(extra or {}), **provenance.to_dict()}
    out = Path(out_dir)
    with atomic_write(out / "predictions") as folder:
        folder.mkdir()
        for name, rows in predictions.items():
            (folder / f"{name}.jsonl").write_text(prediction_lines(rows), encoding="utf-8")
    write_file(out / "robustness.json", json_document(whole))
    return whole
