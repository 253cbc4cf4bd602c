"""Metrics of an ablation with their intervals and tests, from the files of its runs.

result.json, metrics.json, predictions.jsonl of each run, its training rows ─► results

Nothing here trains or predicts, so a finished ablation can be summarised again with other units or metrics.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache, partial
from statistics import fmean
from typing import Any

import numpy as np

from mmsr.ablation.runs import Run
from mmsr.ablation.spec import Ablation, Evaluation
from mmsr.ablation.units import Units, units_of
from mmsr.data.manifest.manifest import utterances
from mmsr.evaluation.baselines import baselines, constant_rationales
from mmsr.evaluation.bertscore import BertScorer
from mmsr.evaluation.compare import read_predictions
from mmsr.evaluation.entries import evaluate_rows, speakers_of, values_of
from mmsr.evaluation.metrics import (
    METRICS,
    Metric,
    RationaleMetrics,
    has_text,
    metrics_of,
    rationale_metrics,
)
from mmsr.evaluation.provenance import ORIGIN
from mmsr.evaluation.significance import (
    bootstrap,
    holm,
    method_difference,
    paired_bootstrap,
    permutation_test,
    seed_interval,
    seed_values,
)
from mmsr.records import Prediction, Utterance

# settings of the data that choose the development rows
CHOOSE_DEV_ROWS = (
    "data.manifest",
    "data.dev_split",
    "data.fold",
    "data.folds",
    "data.dev_speakers",
    "data.languages",
    "data.train_languages",
)
Predictions = Mapping[str, Prediction]  # by id


def summarise(ablation: Ablation, runs: Sequence[Sequence[Run]]) -> dict[str, Any]:
    """Metrics of each variant from the files of its finished runs, and differences from the reference.

    A difference is over the seeds that both have and the test rows that both answered. Its p-value is
    corrected for the number of variants (Holm). Resampling draws the units that the evaluation names, by
    default the speakers if there are enough.
    """
    evaluation, metric = ablation.evaluation, METRICS[ablation.evaluation.metric]
    rows = dict(zip(ablation.variants, runs, strict=True))
    predictions = {name: _by_seed(row) for name, row in rows.items()}
    units = _units(ablation, rows)
    variants = {
        name: _variant(ablation, name, row)
        | _over_rows(list(predictions[name].values()), metric, units[name])
        | {"constant_rationale": _constant_rationale(row, predictions[name], evaluation)}
        for name, row in rows.items()
    }
    reference = predictions[ablation.reference]
    compared = {}
    for name, ours in predictions.items():
        if name != ablation.reference and (seeds := sorted(set(ours) & set(reference))):
            pairs = [(ours[seed], reference[seed]) for seed in seeds]
            if difference := _difference(pairs, metric, units[ablation.reference]):
                compared[name] = {**difference, "seeds": seeds}
    corrected = holm([difference["p_value"] for difference in compared.values()])
    for difference, p_value in zip(compared.values(), corrected, strict=True):
        difference["p_holm"] = float(p_value)
    for name, variant in variants.items():
        variant["difference"] = compared.get(name)
    return {
        "ablation": ablation.name,
        "reference": ablation.reference,
        "metric": evaluation.metric,
        "also": list(evaluation.also),
        "seeds": list(ablation.seeds),
        "folds": list(ablation.folds),
        "data_fingerprints": sorted({run.data_fingerprint for row in runs for run in row}),
        "variants": variants,
        "baselines": baseline_metrics(ablation, runs),
    }


# ---------------------------------------------------------------------- metrics of seeds


def _variant(ablation: Ablation, name: str, row: Sequence[Run]) -> dict[str, Any]:
    evaluation = ablation.evaluation
    names = (evaluation.metric, *evaluation.also)
    runs = [
        {"seed": run.seed, "fold": run.fold, "name": run.name, **result}
        for run in row
        if (result := run.result()) is not None
    ]
    entries = {
        condition: [metrics_of_seed(seed, condition, names) for seed in _finished(row).values()]
        for condition in row[0].conditions
    }
    own = entries[row[0].condition]
    values = [entry[evaluation.metric] for entry in own if evaluation.metric in entry]
    languages = {language for entry in own for language in entry.get("by_language", {})}
    return {
        "settings": ablation.changes[name],
        "condition": row[0].condition,
        "mean": _mean(values),
        "interval": list(seed_interval(values)) if len(values) > 1 else None,
        "values": values,
        "test": {
            condition: {key: _mean([entry.get(key) for entry in seeds]) for key in names}
            for condition, seeds in entries.items()
        },
        "by_language": {
            language: _mean([entry["by_language"].get(language, {}).get(evaluation.metric) for entry in own])
            for language in sorted(languages)
            if evaluation.by_language
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
    """The runs of each seed, one per fold, for seeds with all runs finished."""
    seeds: dict[int, list[Run]] = {}
    for run in row:
        seeds.setdefault(run.seed, []).append(run)
    return {seed: runs for seed, runs in seeds.items() if all(run.result() is not None for run in runs)}


def metrics_of_seed(runs: Sequence[Run], condition: str, names: Sequence[str]) -> dict[str, Any]:
    """The entry of one seed with these metrics, over the test rows of all its folds."""
    entries = [_metrics_of_run(run, condition, names) for run in runs]
    if len(entries) == 1:
        return entries[0]
    whole = evaluate_rows(
        list(_predictions(runs, condition).values()),
        runs[0].labels,
        rationales=rationale_judge(runs[0].evaluation),
    )
    for name in set(names) - set(whole):  # a share of copies: each fold has its own training rows
        if all(name in entry for entry in entries):
            counts = [entry["n_rationale"] for entry in entries]
            whole[name] = float(np.average([entry[name] for entry in entries], weights=counts))
    return whole


def _metrics_of_run(run: Run, condition: str, names: Sequence[str]) -> dict[str, Any]:
    """A run's entry of metrics.json, with missing metrics computed from its predictions."""
    document = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
    entry: dict[str, Any] = document["test"][condition]
    missing = {name for name in names if name not in entry and entry.get(f"n_{METRICS[name].kind}")}
    if not missing:
        return entry
    training = utterances(run.data().train_rows) if "verbatim_from_training" in missing else ()
    judge = rationale_judge(run.evaluation, training)
    return entry | evaluate_rows(list(_predictions([run], condition).values()), run.labels, rationales=judge)


def rationale_judge(evaluation: Evaluation, training: Sequence[Utterance] = ()) -> RationaleMetrics:
    """A function that computes metrics of rationales, with the encoder that the evaluation names."""
    scorer = None if evaluation.bertscore is None else _scorer(evaluation.bertscore)
    known = {str(row.rationale) for row in training if row.has("rationale")}
    return partial(rationale_metrics, training=known, bertscore=scorer)


_scorer = cache(BertScorer)


def _predictions(runs: Sequence[Run], condition: str) -> Predictions:
    """The predictions of one seed under a condition, all folds together."""
    rows = (row for run in runs for row in read_predictions(run.folder / "predictions.jsonl"))
    return {row.id: row for row in rows if row.condition == condition}


def _by_seed(row: Sequence[Run]) -> dict[int, Predictions]:
    """The predictions under the variant's condition, by seed."""
    return {seed: _predictions(runs, row[0].condition) for seed, runs in _finished(row).items()}


# ---------------------------------------------------------------------- over rows


def _units(ablation: Ablation, rows: Mapping[str, Sequence[Run]]) -> dict[str, Units | None]:
    """The units of each variant's test rows; each manifest is read once."""
    found: dict[str, Units | None] = {}
    keys = {}
    for name, row in rows.items():
        data = row[0].settings["data"]
        keys[name] = key = json.dumps([data.get(part) for part in ("manifest", "columns", "label_map")])
        if key not in found:
            found[key] = units_of(ablation.evaluation, data)
    return {name: found[key] for name, key in keys.items()}


def _drawn(rows: Sequence[Prediction], units: Units | None) -> tuple[Sequence[Any] | None, str, int]:
    """The cluster of each row (None if rows are the units), the name of the units, and their number."""
    clusters: Sequence[Any] | None
    if units is None:
        clusters = speakers_of(rows)
        name = "rows" if clusters is None else "speakers"
    else:
        clusters, name = [units.of[row.id] for row in rows], units.name
    return clusters, name, len(rows if clusters is None else set(clusters))


def _answered(sides: Sequence[Predictions], metric: Metric) -> list[str]:
    """Ids of the rows with a true label or rationale that all sides answered."""
    if metric.kind == "rationale" and not all(map(_writes, sides)):
        return []
    return [
        id_
        for id_, row in sides[0].items()
        if has_text(getattr(row, metric.kind)) and all(id_ in side for side in sides)
    ]


def _writes(predictions: Predictions) -> bool:
    return any(row.predicted_rationale is not None for row in predictions.values())


def _gold(rows: Sequence[Prediction], metric: Metric) -> np.ndarray | None:
    """True labels `[n]`, for a metric of labels."""
    return np.array([row.label for row in rows]) if metric.kind == "label" else None


def _values(sides: Sequence[Predictions], ids: Sequence[str], metric: Metric) -> np.ndarray:
    """Predicted labels, or scores of rationales, `[s, n]`."""
    return np.array([values_of(metric, [side[id_] for id_ in ids]) for side in sides])


def _over_rows(seeds: Sequence[Predictions], metric: Metric, units: Units | None) -> dict[str, Any]:
    """The interval of the seeds' mean over test rows, with its units; None below two units."""
    if ids := _answered(seeds, metric) if seeds else []:
        rows = [seeds[0][id_] for id_ in ids]
        clusters, name, count = _drawn(rows, units)
        if count > 1:
            values = _values(seeds, ids, metric)
            interval = bootstrap(_gold(rows, metric), values, clusters=clusters, metric=metric.statistic)
            return {"interval_rows": list(interval), "over": name, "units": count}
    return {"interval_rows": None, "over": None, "units": 0}


def _difference(
    pairs: Sequence[tuple[Predictions, Predictions]], metric: Metric, units: Units | None
) -> dict[str, Any] | None:
    """Ours minus the reference's, over the rows that both answered; None below two units.

    With one seed, interval and p-value are over test rows alone, and `over` says so.
    """
    ids = _answered([side for pair in pairs for side in pair], metric)
    if not ids:
        return None
    rows = [pairs[0][0][id_] for id_ in ids]
    clusters, name, count = _drawn(rows, units)
    if count < 2:
        return None
    ours, theirs = (_values(side, ids, metric) for side in zip(*pairs, strict=True))
    gold = _gold(rows, metric)
    options: dict[str, Any] = {"clusters": clusters, "metric": metric.statistic}
    found = paired_bootstrap(gold, ours, theirs, **options)
    interval = found.interval
    if len(pairs) > 1:
        values = [seed_values(gold, side, metric=metric.statistic) for side in (ours, theirs)]
        _, interval, p_value, _, _ = method_difference(found, *values)
    else:
        p_value = permutation_test(gold, ours, theirs, **options)
    return {
        "mean": found.difference,
        "interval": list(interval),
        "p_value": p_value,
        "n": len(ids),
        "over": name if len(pairs) == 1 else f"{name} and seeds",
        "units": count,
    }


# ---------------------------------------------------------------------- baselines


def baseline_metrics(ablation: Ablation, runs: Sequence[Sequence[Run]]) -> dict[str, Any]:
    """Metrics of the baselines on the test rows of the reference, the mean over folds.

    Without a finished run of the reference, they are those of the first variant that has one. `tfidf_asr` is
    among them if a variant reads ASR transcripts, `constant_rationale_oracle` if a metric is of rationales.
    `by_language` has the ablation's metric. The constant rationale of the predicted label differs between
    variants and is in their own results.
    """
    evaluation = ablation.evaluation
    metric = evaluation.metric
    reference = runs[list(ablation.changes).index(ablation.reference)]
    done = next(
        (finished for row in (reference, *runs) if (finished := [run for run in row if run.result()])), []
    )
    folds = []
    for run in {run.fold: run for run in done}.values():
        data, judge = run.data(), rationale_judge(evaluation)
        train_rows, test_rows = utterances(data.train_rows), utterances(data.test_rows)
        folds.append(baselines(train_rows, test_rows, labels=run.labels, rationales=judge))
    names = ["majority", "tfidf"]
    names += ["tfidf_asr"] if any("asr" in run.condition for (run, *_) in runs) else []
    names += ["constant_rationale_oracle"] if evaluation.rationales else []
    shown = dict.fromkeys((*(known.name for known in metrics_of("label")), metric, *evaluation.also))
    found: dict[str, Any] = {}
    for name in names:
        entries = [fold[name] for fold in folds if name in fold]
        if not entries or len(entries) < len(folds):
            continue
        spoken = [entry.get("by_language", {}) for entry in entries if evaluation.by_language]
        by_language = {
            language: [entry[language][metric] for entry in spoken if metric in entry.get(language, {})]
            for language in sorted(set().union(*spoken))
        }
        found[name] = {
            # metrics of labels, or of rationales, are missing from all folds or from none
            **{
                key: fmean(entry[key] for entry in entries)
                for key in shown
                if all(key in entry for entry in entries)
            },
            "by_language": {language: fmean(values) for language, values in by_language.items() if values},
        }
    return found


def _constant_rationale(
    row: Sequence[Run], predictions: Mapping[int, Predictions], evaluation: Evaluation
) -> dict[str, float | None] | None:
    """Metrics of the constant rationales of the labels that a variant predicts, the mean over seeds.

    The constant rationale is the training split's most frequent one of the label in the row's language. None
    if the variant writes no rationales, or no metric is of rationales.
    """
    if not (evaluation.rationales and any(map(_writes, predictions.values()))):
        return None
    finished = _finished(row)
    training = {run.fold: utterances(run.data().train_rows) for run in next(iter(finished.values()))}
    entries = []
    for runs in finished.values():
        answers: list[Prediction] = []
        for run in runs:
            rows = list(_predictions([run], run.condition).values())
            answers += constant_rationales(training[run.fold], rows)
        entries.append(evaluate_rows(answers, runs[0].labels, rationales=rationale_judge(evaluation)))
    return {name: _mean([entry.get(name) for entry in entries]) for name in evaluation.rationales}


# ---------------------------------------------------------------------- provenance


def origins(runs: Sequence[Sequence[Run]]) -> dict[str, Any]:
    """The provenance of the finished runs, from their files; empty without any.

    `command`, `versions` and `machine` list different values side by side; `differing` names these.
    """
    flat: list[dict[str, Any]] = []
    for run in {run.name: run for row in runs for run in row if run.result() is not None}.values():
        metrics = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
        flat += [_flat_origin(part) for part in (metrics.get("trained"), metrics) if part is not None]
    if not flat:
        return {}
    keys = dict.fromkeys(key for origin in flat for key in origin)
    values = {key: list(dict.fromkeys(origin.get(key, "none") for origin in flat)) for key in keys}
    joined = {
        key: several[0] if len(several) == 1 else " / ".join(map(str, several))
        for key, several in values.items()
    }
    parts = {
        part: {key.removeprefix(f"{part} "): value for key, value in joined.items() if key.startswith(part)}
        for part in ORIGIN[1:]
    }
    differing = {key: several for key, several in values.items() if len(several) > 1}
    return {"command": joined["command"], **parts, "differing": differing}


def _flat_origin(document: Mapping[str, Any]) -> dict[str, Any]:
    nested = {f"{part} {name}": value for part in ORIGIN[1:] for name, value in document[part].items()}
    return {"command": document["command"], **nested}
