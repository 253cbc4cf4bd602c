"""How much worse a model answers as its input gets worse: curves of figures over a severity.

rows ─► a point's change ─► predict ─► figures, intervals, paired difference from the clean rows
     ─► robustness.json, predictions/POINT.jsonl (and `mmsr.evaluation.report.robustness`)

What makes a row worse is passed in (`Point.change`; see `perturbations`). A change knows nothing of
the model, so every model meets the same rows, and `mmsr compare` pairs two models' files of a point.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmsr.evaluation.entries import RESAMPLES, speakers_of, values_of
from mmsr.evaluation.metrics import METRICS, check_labels, has_text
from mmsr.evaluation.provenance import Provenance
from mmsr.evaluation.run import CONDITIONS, json_document, predict_rows, prediction_lines
from mmsr.evaluation.significance import bootstrap, paired_bootstrap
from mmsr.evaluation.slices import LEAST, slice_metrics
from mmsr.files import atomic_write, write_file
from mmsr.records import Predict, Prediction, Progress, Utterance

MEASURED = ("macro_f1", "accuracy", "rougeL")  # of each point, as far as its rows allow

Change = Callable[[Utterance], Utterance | None]
"""Makes a row worse: another `text`, another `audio` (a path, or a file's bytes); None leaves the row out."""


@dataclass(frozen=True)
class Point:
    """Rows made worse to one degree.

    Attributes:
        severity: How much, in the curve's unit, or its name.
        change: Makes a row so much worse.
        measured: What a change that draws came to over all rows, in the same unit.
    """

    severity: float | str
    change: Change
    measured: float | None = None


@dataclass(frozen=True)
class Curve:
    """One way of making rows worse, in steps.

    Attributes:
        kind: Such as noise; curves of a kind share a panel.
        axis: What severities are, with their unit.
        clean: The severity of rows as they are: a number where the axis is one of numbers, else a name.
        points: From mild to bad.
        series: Tells the curves of a kind apart.
    """

    kind: str
    axis: str
    clean: float | str
    points: tuple[Point, ...]
    series: str = ""

    def name(self, point: Point) -> str:
        """What a point is called, also as a file: `clip_start_0.5`."""
        severity = point.severity if isinstance(point.severity, str) else f"{point.severity:.4g}"
        return "_".join(filter(None, (self.kind, self.series, severity)))


def clean_rows(rows: Sequence[Utterance], condition: str) -> list[Utterance]:
    """The rows that a condition can be asked of, their `audio` and `text` what it gives the model.

    Raises:
        ValueError: No such condition, or no row has what it needs.
    """
    accepted = [name for name in CONDITIONS if name != "shuffled_audio"]
    if condition not in accepted:
        raise ValueError(f"condition {condition!r}; accepted: {', '.join(accepted)}")
    needed = [column for column in CONDITIONS[condition] if column]
    kept = []
    for row in rows:
        if row.label is not None and all(map(row.has, needed)):
            given = row.model_input(*CONDITIONS[condition])
            kept.append(replace(row, audio=given.audio, text=given.text))
    if len(kept) < 2:
        raise ValueError(
            f"condition {condition}: {len(kept)} of {len(rows)} rows have label, {', '.join(needed)}; "
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
    """Figures of each point of each curve, and each point's predictions by its name.

    Args:
        predict: The model. Where it writes rationales, ROUGE-L is a figure too.
        rows: Rows of `clean_rows`.
        curves: What to try; the clean rows are asked once and are the first point of each curve.
        labels: The label set.
        condition: What the rows are called in the predictions.
        resamples: Of the bootstrap.
        slice_rows: Rows that a slice needs to be called the worst.
        seed: Of the bootstrap, and of what slices are by chance.
        progress: Is told each point's rows.
        chunk: Rows that are made worse, and held, at a time.

    Returns:
        `condition`, `n`, `interval_over`, `slice_rows`, `curves` (`kind`, `series`, `axis`, `points`, and
        `worst`: the `severity` with the lowest macro-F1, and its `worst_slice`, see `slices`); a point has
        `severity`, `n`, `macro_f1`, `accuracy`, `rougeL`, their `interval`, and their `difference` from the
        clean answers to the same rows: its `value` and paired `interval`. And {name: predictions}, the clean
        ones under `clean`.

    Raises:
        ValueError: A label is not in `labels`; a point leaves fewer than two rows, or has another's name.
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
            told = predict_rows(predict, part, chunk=chunk) if part else []
            answered[name] += [replace(row, condition=condition) for row in told]
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
    first = _figures(clean, clean, **options)
    for curve in curves:
        points = [{"severity": curve.clean, **first, "predictions": "predictions/clean.jsonl"}]
        for point in curve.points:
            name = curve.name(point)
            entry = {"severity": point.severity, **_figures(answered[name], clean, **options)}
            entry |= {} if point.measured is None else {"measured": point.measured}
            points.append({**entry, "predictions": f"predictions/{name}.jsonl"})
        found: dict[str, Any] = {"kind": curve.kind, "series": curve.series, "axis": curve.axis}
        if curve.points:
            least = min(curve.points, key=lambda one: points[1 + curve.points.index(one)]["macro_f1"])
            sliced = slice_metrics(answered[curve.name(least)], labels, least=slice_rows, seed=seed)
            found["worst"] = {"severity": least.severity, "worst_slice": sliced["worst_slice"]}
        document["curves"].append({**found, "points": points})
    return document, answered


def _figures(rows: Sequence[Prediction], clean: Sequence[Prediction], **options: Any) -> dict[str, Any]:
    """Figures of a point, and their differences from the clean answers to its rows."""
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
    """Write what `measure` found, and `extra`, to a folder; returns the content of robustness.json.

    `predictions/` is replaced whole, so that no point of an earlier run stays there.
    """
    whole = {**document, **(extra or {}), **provenance.to_dict()}
    out = Path(out_dir)
    with atomic_write(out / "predictions") as folder:
        folder.mkdir()
        for name, rows in predictions.items():
            (folder / f"{name}.jsonl").write_text(prediction_lines(rows), encoding="utf-8")
    write_file(out / "robustness.json", json_document(whole))
    return whole
