"""Figures of an ablation with their intervals and tests, from the files of its runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from mmsr.ablation.runs import Evaluation, Run, data_of
from mmsr.ablation.spec import Ablation
from mmsr.ablation.units import Units, units_of
from mmsr.data.manifest.manifest import utterances
from mmsr.evaluation.baselines import constant_rationales
from mmsr.evaluation.bertscore import BertScorer
from mmsr.evaluation.compare import read_predictions
from mmsr.evaluation.entries import evaluate_rows, speakers_of, values_of
from mmsr.evaluation.metrics import METRICS, Metric, RationaleMetrics, has_text, rationale_metrics
from mmsr.evaluation.provenance import ORIGIN
from mmsr.evaluation.significance import (
    bootstrap,
    holm,
    method_difference,
    paired_bootstrap,
    permutation_test,
    seed_interval,
)
from mmsr.records import Prediction, Utterance

# settings of the data by which development rows are chosen
CHOOSE_DEV_ROWS = (
    "data.manifest",
    "data.dev_split",
    "data.fold",
    "data.folds",
    "data.dev_speakers",
    "data.train_languages",
)
Predictions = Mapping[str, Prediction]  # by id


def summarise(ablation: Ablation, runs: Sequence[Sequence[Run]]) -> dict[str, Any]:
    """Figures of each variant from the finished runs' files, and its differences from the reference.

    A difference is of seeds that both have, and of test rows that both answered. Its p-value is corrected for
    the number of variants (Holm). What is drawn of test rows are the units that the evaluation names, else
    the speakers, where there are enough.
    """
    evaluation, metric = ablation.evaluation, METRICS[ablation.evaluation.metric]
    rows = dict(zip(ablation.variants, runs, strict=True))
    said = {name: _by_seed(row) for name, row in rows.items()}
    units = _units(ablation, rows)
    variants = {
        name: _variant(ablation, name, row)
        | _over_rows(list(said[name].values()), metric, units[name])
        | {"constant_rationale": _constant_rationale(row, said[name], evaluation)}
        for name, row in rows.items()
    }
    reference = said[ablation.reference]
    compared = {}
    for name, ours in said.items():
        if name != ablation.reference and (seeds := sorted(set(ours) & set(reference))):
            pairs = [(ours[seed], reference[seed]) for seed in seeds]
            if difference := _difference(pairs, metric, units[ablation.reference]):
                compared[name] = {**difference, "seeds": seeds}
    corrected = holm([difference["p_value"] for difference in compared.values()])
    for difference, p_value in zip(compared.values(), corrected, strict=True):
        difference["p_holm"] = float(p_value)
    for name, figures in variants.items():
        figures["difference"] = compared.get(name)
    return {
        "ablation": ablation.name,
        "reference": ablation.reference,
        "metric": evaluation.metric,
        "also": list(evaluation.also),
        "seeds": list(ablation.seeds),
        "folds": list(ablation.folds),
        "data_fingerprints": sorted({run.data_fingerprint for row in runs for run in row}),
        "variants": variants,
    }


# ---------------------------------------------------------------------- figures


def _variant(ablation: Ablation, name: str, row: Sequence[Run]) -> dict[str, Any]:
    metric, also = ablation.evaluation.metric, ablation.evaluation.also
    runs = [
        {"seed": run.seed, "fold": run.fold, "name": run.name, **result}
        for run in row
        if (result := run.result()) is not None
    ]
    conditions = row[0].conditions
    figures = {
        condition: [metrics_of_seed(seed, condition, (metric, *also)) for seed in _finished(row).values()]
        for condition in conditions
    }
    own = figures[conditions[0]]
    values = [entry[metric] for entry in own if metric in entry]
    means = {
        condition: {key: _mean([entry.get(key) for entry in seeds]) for key in (metric, *also)}
        for condition, seeds in figures.items()
    }
    languages = sorted({language for entry in own for language in entry.get("by_language", {})})
    return {
        "settings": ablation.changes[name],
        "condition": conditions[0],
        "mean": _mean(values),
        "interval": list(seed_interval(values)) if len(values) > 1 else None,
        "values": values,
        "test": means,
        "by_language": {
            language: _mean([entry["by_language"].get(language, {}).get(metric) for entry in own])
            for language in languages
            if ablation.evaluation.by_language
        },
        "dev": _mean([run["dev"].get("dev_macro_f1") for run in runs]),
        "trained_parameters": max((run["trained_parameters"] for run in runs), default=None),
        "seconds_an_epoch": _mean([run["seconds_an_epoch"] for run in runs]),
        "runs": runs,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _finished(row: Sequence[Run]) -> dict[int, list[Run]]:
    """The runs of each seed, one a fold, of seeds that have finished them all."""
    seeds: dict[int, list[Run]] = {}
    for run in row:
        seeds.setdefault(run.seed, []).append(run)
    return {seed: runs for seed, runs in seeds.items() if all(run.result() is not None for run in runs)}


def metrics_of_seed(runs: Sequence[Run], condition: str, names: Sequence[str]) -> dict[str, Any]:
    """The entry of one seed, with these metrics: of the test rows of all its folds together."""
    entries = [_metrics_of_run(run, condition, names) for run in runs]
    if len(entries) == 1:
        return entries[0]
    labels = runs[0].result()["labels"]  # type: ignore[index]
    judge = rationale_judge(runs[0].evaluation)
    whole = evaluate_rows(list(_predictions(runs, condition).values()), labels, rationales=judge)
    for name in set(names) - set(whole):  # a share of copies: each fold has training rows of its own
        if all(name in entry for entry in entries):
            counts = [entry["n_rationale"] for entry in entries]
            whole[name] = float(np.average([entry[name] for entry in entries], weights=counts))
    return whole


def _metrics_of_run(run: Run, condition: str, names: Sequence[str]) -> dict[str, Any]:
    """A run's entry of its metrics.json; of the predictions, where that lacks one of the metrics."""
    document = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
    entry: dict[str, Any] = document["test"][condition]
    lacking = {name for name in names if name not in entry and entry.get(f"n_{METRICS[name].kind}")}
    if not lacking:
        return entry
    training = utterances(data_of(run).train_rows) if "verbatim_from_training" in lacking else ()
    judge = rationale_judge(run.evaluation, training)
    rows = list(_predictions([run], condition).values())
    return entry | evaluate_rows(rows, run.result()["labels"], rationales=judge)  # type: ignore[index]


def rationale_judge(evaluation: Evaluation, training: Sequence[Utterance] = ()) -> RationaleMetrics:
    """Computes metrics of rationales, with the encoder that the evaluation names."""
    scorer = None if evaluation.bertscore is None else _scorer(evaluation.bertscore)
    known = {str(row.rationale) for row in training if row.has("rationale")}
    return partial(rationale_metrics, training=known, bertscore=scorer)


_scorer = cache(BertScorer)


def _predictions(runs: Sequence[Run], condition: str) -> Predictions:
    """What one seed predicted under a condition, the folds together."""
    rows = (row for run in runs for row in read_predictions(run.folder / "predictions.jsonl"))
    return {row.id: row for row in rows if row.condition == condition}


def _by_seed(row: Sequence[Run]) -> dict[int, Predictions]:
    """Predictions under the variant's condition, by seed."""
    return {seed: _predictions(runs, row[0].condition) for seed, runs in _finished(row).items()}


def _units(ablation: Ablation, rows: Mapping[str, Sequence[Run]]) -> dict[str, Units | None]:
    """By variant what is drawn of its test rows, each manifest read once."""
    found: dict[str, Units | None] = {}
    keys = {}
    for name, row in rows.items():
        data = row[0].settings["data"]
        keys[name] = key = json.dumps([data.get(one) for one in ("manifest", "columns", "label_map")])
        if key not in found:
            found[key] = units_of(ablation.evaluation, data)
    return {name: found[key] for name, key in keys.items()}


def _drawn(rows: Sequence[Prediction], units: Units | None) -> tuple[Sequence[Any] | None, str, int]:
    """The cluster of each row, None where rows stand alone; what they are called, and how many there are."""
    clusters: Sequence[Any] | None
    if units is None:
        clusters = speakers_of(rows)
        name = "rows" if clusters is None else "speakers"
    else:
        clusters, name = [units.of[row.id] for row in rows], units.name
    return clusters, name, len(rows if clusters is None else set(clusters))


def _answered(sides: Sequence[Predictions], metric: Metric) -> list[str]:
    """Ids of the rows whose label or rationale is known and that all have answered."""
    if metric.kind == "rationale" and not all(map(_writes, sides)):
        return []
    return [
        id_
        for id_, row in sides[0].items()
        if has_text(getattr(row, metric.kind)) and all(id_ in side for side in sides)
    ]


def _writes(predictions: Predictions) -> bool:
    """Whether a model writes rationales."""
    return any(row.predicted_rationale is not None for row in predictions.values())


def _gold(rows: Sequence[Prediction], metric: Metric) -> np.ndarray | None:
    """True labels `[n]`, for a metric of labels."""
    return np.array([row.label for row in rows]) if metric.kind == "label" else None


def _values(sides: Sequence[Predictions], ids: Sequence[str], metric: Metric) -> np.ndarray:
    """Predicted labels, or scores of rationales, `[s, n]`."""
    return np.array([values_of(metric, [side[id_] for id_ in ids]) for side in sides])


def _over_rows(seeds: Sequence[Predictions], metric: Metric, units: Units | None) -> dict[str, Any]:
    """Interval of the seeds' mean over test rows, and over how many of what; None below two units."""
    nothing = {"interval_rows": None, "over": None, "units": 0}
    ids = _answered(seeds, metric) if seeds else []
    if not ids:
        return nothing
    rows = [seeds[0][id_] for id_ in ids]
    clusters, name, count = _drawn(rows, units)
    if count < 2:
        return nothing
    values = _values(seeds, ids, metric)
    interval = bootstrap(_gold(rows, metric), values, clusters=clusters, metric=metric.statistic)
    return {"interval_rows": list(interval), "over": name, "units": count}


def _constant_rationale(
    row: Sequence[Run], said: Mapping[int, Predictions], evaluation: Evaluation
) -> dict[str, float | None] | None:
    """Metrics, mean over seeds, of the constant rationales of the labels that a variant predicts.

    They are what a model could write that knows its label alone: of the training split the most frequent
    rationale of that label in the row's language. None where the variant writes none, or none are asked for.
    """
    if not (evaluation.rationales and any(map(_writes, said.values()))):
        return None
    finished = _finished(row)
    training = {run.fold: utterances(data_of(run).train_rows) for run in next(iter(finished.values()))}
    entries = []
    for runs in finished.values():
        answers: list[Prediction] = []
        for run in runs:
            predictions = list(_predictions([run], run.condition).values())
            answers += constant_rationales(training[run.fold], predictions)
        labels = runs[0].result()["labels"]  # type: ignore[index]
        entries.append(evaluate_rows(answers, labels, rationales=rationale_judge(evaluation)))
    return {name: _mean([entry.get(name) for entry in entries]) for name in evaluation.rationales}


def origins(runs: Sequence[Sequence[Run]]) -> dict[str, Any]:
    """Where the finished runs come from, by their own files; {} without any.

    `command`, `versions` and `machine` are theirs, values that differ side by side; `differing` names these.
    """
    documents = {}
    for run in (run for row in runs for run in row if run.result() is not None):
        metrics = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
        documents[run.name] = [metrics[one] for one in ("trained",) if one in metrics] + [metrics]
    flat = [_flat_origin(one) for several in documents.values() for one in several]
    keys = dict.fromkeys(key for one in flat for key in one)
    values = {key: list(dict.fromkeys(one.get(key, "none") for one in flat)) for key in keys}
    if not values:
        return {}
    joined = {
        key: several[0] if len(several) == 1 else " / ".join(map(str, several))
        for key, several in values.items()
    }
    return {
        "command": joined["command"],
        **{
            part: {
                key.removeprefix(f"{part} "): value for key, value in joined.items() if key.startswith(part)
            }
            for part in ORIGIN[1:]
        },
        "differing": {key: several for key, several in values.items() if len(several) > 1},
    }


def _flat_origin(document: Mapping[str, Any]) -> dict[str, Any]:
    parts = {part: document[part] for part in ORIGIN[1:]}
    nested = {f"{part} {name}": value for part, values in parts.items() for name, value in values.items()}
    return {"command": document["command"], **nested}


def _difference(
    pairs: Sequence[tuple[Predictions, Predictions]], metric: Metric, units: Units | None
) -> dict[str, Any] | None:
    """Ours minus the reference's, over what both answered; None where that is less than two units.

    With one seed interval and p-value are of the test rows alone, and `over` says so.
    """
    first = pairs[0][0]
    ids = _answered([side for pair in pairs for side in pair], metric)
    if not ids:
        return None
    rows = [first[id_] for id_ in ids]
    clusters, name, count = _drawn(rows, units)
    if count < 2:
        return None
    ours, theirs = (_values(side, ids, metric) for side in zip(*pairs, strict=True))
    gold = _gold(rows, metric)
    options: dict[str, Any] = {"clusters": clusters, "metric": metric.statistic}
    difference, interval, p_value = method_difference(gold, ours, theirs, **options)
    if interval is None:
        interval = paired_bootstrap(gold, ours, theirs, **options).interval
        p_value = permutation_test(gold, ours, theirs, **options)
    return {
        "mean": difference,
        "interval": list(interval),
        "p_value": p_value,
        "n": len(ids),
        "over": name if len(pairs) == 1 else f"{name} and seeds",
        "units": count,
    }
