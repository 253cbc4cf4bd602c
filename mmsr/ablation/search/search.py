"""The whole search: the trials that are missing, the best settings, and their comparison with the default.

trials ─► OUT/trials/NUMBER/: settings.yaml, log.txt, model/, history.json
       ─► OUT/: best.yaml, search.json, search.csv, search.html, search.md, plot.png, plot.pdf
best, default × new seeds ─► an ablation of two variants on the test rows ─► OUT/confirm/
"""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml

from mmsr.ablation.ablate import Board, Show, ablate
from mmsr.ablation.plan import manifest_arguments
from mmsr.ablation.runner import Event, Runner
from mmsr.ablation.runs import Open
from mmsr.ablation.search.report import write_report
from mmsr.ablation.search.spec import Search
from mmsr.ablation.search.trials import JOURNAL, Result, Trials, train_trial
from mmsr.ablation.spec import Ablation, AblationError, Settings
from mmsr.data.loading.splits import select_rows, split_rows
from mmsr.data.manifest.manifest import (
    ManifestError,
    column_of,
    distinct,
    examine_manifest,
    load_manifest,
    rows_with,
)
from mmsr.data.manifest.tables import read_table, write_table
from mmsr.evaluation.provenance import Provenance
from mmsr.files import folder_lock, write_file

_TRIALS_A_SETTING = 4  # complete trials for each searched setting, below which importances say nothing
_SPEAKERS = 4  # of development rows, from which on halves are cut between speakers


def search(
    search: Search, *, open_model: Open, runner: Runner, show: Show = lambda board, line: None
) -> dict[str, Any]:
    """Do the trials that are missing, write the results and best.yaml, and compare best and default.

    Args:
        search: The search.
        open_model: Opens the models of the comparison.
        runner: Does the trials.
        show: Shows progress.

    Returns:
        The content of search.json.

    Raises:
        ValueError: Settings or data are invalid, the folder holds another search, or another process works
            there.
    """
    with folder_lock(search.out):
        given, search = search, _hold_back(search)
        trials = Trials(search)
        _do(trials, runner, show)
        results = _results(trials)
        if (best := trials.best()) is not None:
            write_file(search.out / "best.yaml", _best_file(search, best))
        write_report(search.out, results)
        if best is not None and search.confirm:
            found = _confirmation(search, best, open_model, runner, show)
            results["confirmation"] = found | {"held_back": search is not given}
            write_report(search.out, results)
    return results


def outline(search: Search) -> str:
    """What a search will do, a line for each part; reads the manifest and trains nothing.

    Raises:
        ValueError: The manifest is invalid, or lacks training or development rows.
    """
    data = search.resolved["data"]
    limits = [f"{search.trials}, the default among them"] if search.trials is not None else []
    limits += [f"none starts after {search.minutes:g} minutes"] if search.minutes is not None else []
    begun = ", and continues what was begun there" if (search.out / JOURNAL).exists() else ""
    counts, tests = f"{data['manifest']} is not there yet", "test"
    if os.path.exists(data["manifest"]):
        rows = load_manifest(**manifest_arguments(search.resolved), check_audio=False)
        names = ("train_split", "dev_split", "fold", "folds", "dev_speakers")
        selected = select_rows(
            rows,
            split=data.get("test_split") or "test",
            required=("train", "dev"),
            source=data["manifest"],
            **{name: data[name] for name in names if data.get(name) is not None},
        )
        counts = ", ".join(f"{len(part):,} {split}" for split, part in selected.items())
        counts += f" of {data['manifest']}"
        tests = "test" if len(selected["test"]) else "a held-back half of the development"
    lines = {
        "metric": f"{search.metric}, {'maximised' if search.is_maximised else 'minimised'}",
        "trials": "; ".join(limits),
        "sampler": f"{search.sampler}, seed {search.seed}; pruner: {search.pruner or 'none'}",
        "training": f"seed {search.training_seed} in every trial",
        "rows": counts,
        "folder": f"{search.out}{begun}",
    }
    if search.confirm:
        seeds = ", ".join(map(str, search.confirm))
        lines["confirm"] = f"best and default on {tests} rows, with the seeds {seeds}"
    told = [f"{name}: {value}" for name, value in lines.items()]
    default = {name: "not set" if value is None else _value(value) for name, value in search.default.items()}
    told.append(f"trial 0: the default, {', '.join(f'{name} {value}' for name, value in default.items())}")
    told.append("searched settings:")
    told += [f"  {dimension.name}: {dimension}" for dimension in search.space]
    return "\n".join(told)


def _do(trials: Trials, runner: Runner, show: Show) -> None:
    search = trials.search
    started: dict[int, float] = {}
    show(_board(trials), f"{len(trials.results())} trials begun before -> {search.out}")
    with closing(runner.run(train_trial, trials.runs())) as events:
        for event in events:
            ended = trials.take(event)
            line = ""
            if event.run is not None and event.state == "running":
                number = int(event.run.name)
                started[number] = time.perf_counter()
                line = f"trial {number}: starts, {_shown(trials, number) or 'the default'}"
            elif ended is not None:
                seconds = time.perf_counter() - started.pop(ended.number)
                line = f"trial {ended.number}: {_outcome(trials, ended, event)} ({seconds:.0f} s)"
            show(_board(trials), line)


def _shown(trials: Trials, number: int) -> str:
    """The searched settings of a trial in short."""
    result = next(result for result in trials.results() if result.number == number)
    if number == 0:
        return ""
    return ", ".join(
        f"{name.rpartition('.')[2]} {_value(value)}"
        for name, value in trials.search.values(result.parameters).items()
    )


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _outcome(trials: Trials, ended: Result, event: Event) -> str:
    if ended.value is not None:
        best = trials.best()
        mark = ", the best so far" if best is not None and best.number == ended.number else ""
        return f"{trials.search.metric} {ended.value:.4f}{mark}"
    if ended.state == "pruned":
        return f"pruned {ended.reason}"
    assert event.run is not None
    return f"failed: {ended.reason} ({event.run.folder / 'log.txt'})"


def _board(trials: Trials) -> Board:
    """The best trial and those under way."""
    metric = trials.search.metric
    cells = {}
    if (best := trials.best()) is not None:
        cells[f"best: trial {best.number}"] = {
            metric: f"{best.value:.4f}",
            "settings": _shown(trials, best.number) or "the default",
        }
    for result in trials.results():
        if result.state == "running":
            cells[f"trial {result.number}"] = {
                metric: f"epoch {result.epochs + 1}",
                "settings": _shown(trials, result.number) or "the default",
            }
    return cells


# ---------------------------------------------------------------------- results


def _results(trials: Trials) -> dict[str, Any]:
    search, best = trials.search, trials.best()
    results = trials.results()
    entries = [
        {
            **{key: value for key, value in asdict(result).items() if key != "parameters"},
            "settings": search.values(result.parameters) if result.number else {},
            "folder": None if result.same_as is not None else f"trials/{result.number:04}",
        }
        for result in results
    ]
    names = [dimension.name for dimension in search.space]
    default = {name: search.default[name] for name in names}
    return {
        "search": search.name,
        "metric": search.metric,
        "higher_is_better": search.is_maximised,
        "sampler": search.sampler,
        "pruner": search.pruner,
        "space": {dimension.name: str(dimension) for dimension in search.space},
        "log": [
            dimension.name for dimension in search.space if getattr(dimension.distribution, "log", False)
        ],
        "training_seed": search.training_seed,
        "default": {"value": results[0].value if results else None, "settings": default},
        "best": None if best is None else entries[[one.number for one in results].index(best.number)],
        "trials": entries,
        "importances": _importances(trials),
        "search_seconds": round(trials.seconds, 1),
        "confirmation": None,
        **Provenance(seed=search.seed, data_fingerprint=trials.data_fingerprint).to_dict(),
    }


def _importances(trials: Trials) -> dict[str, float] | None:
    """The share of each setting in the differences between trials (PED-ANOVA); None with too few trials."""
    names = [dimension.name for dimension in trials.search.space]
    complete = [result for result in trials.results() if result.value is not None]
    whole = [result for result in complete if len(result.parameters) == len(names)]
    values = np.array([result.value for result in whole])
    if len(names) < 2 or len(whole) < _TRIALS_A_SETTING * len(names) or not np.ptp(values):
        return None
    found = optuna.importance.get_param_importances(trials.study, params=names)
    return {name: float(value) for name, value in found.items()}


def _best_file(search: Search, best: Result) -> bytes:
    """The best trial's settings as a file of `mmsr fit`."""
    settings = search.changed(best.parameters if best.number else {})
    trainer = {**(settings.get("trainer") or {}), "default_root_dir": str(search.out / "best")}
    whole = {**settings, "seed_everything": search.training_seed, "trainer": trainer}
    head = (
        f"# The best of a search: trial {best.number} of {search.name}, {search.metric} {best.value:.4f} on "
        "the\n# development rows that chose it, which is optimistic.\n"
        f"#   mmsr fit -c {search.out / 'best.yaml'}\n"
    )
    return (head + yaml.safe_dump(whole, allow_unicode=True, sort_keys=False)).encode()


# ---------------------------------------------------------------------- rows that chose nothing


def _hold_back(search: Search) -> Search:
    """The search with half of the development rows held back, if it needs them for the comparison.

    A manifest with a test split, or with folds, stays as it is. Otherwise a copy in the folder has one half
    of the development rows as its test split, cut between speakers where there are enough.
    """
    data = search.settings.get("data") or {}
    if not search.confirm or data.get("fold") is not None:
        return search
    manifest = Path(data["manifest"])
    names = {split: data.get(f"{split}_split", split) for split in ("dev", "test")}
    examined = examine_manifest(**manifest_arguments(search.resolved), check_audio=False)
    if examined.issues:
        raise ManifestError(examined.issues)
    if len(rows_with(examined.rows, "split", [names["test"]])):
        return search
    if not manifest.is_file():
        raise AblationError(
            f"confirm needs rows that the search does not use, and {manifest} has no {names['test']!r} rows; "
            "accepted: a manifest with them, a local file, or no confirm"
        )
    places = rows_with(examined.rows, "split", [names["dev"]])
    rows = examined.rows.select(places)
    nameless = column_of(rows, "speaker").null_count
    by_speaker = not nameless and len(distinct(rows, "speaker")) >= _SPEAKERS
    halves = split_rows(
        rows,
        by="speaker" if by_speaker else "stratified",
        shares={names["dev"]: 0.5, names["test"]: 0.5},
        seed=search.seed,
        source=manifest.name,
    )
    columns = data.get("columns") or {}
    values = dict(zip(examined.numbers[places].tolist(), halves.tolist(), strict=True))
    table = read_table(manifest).filled(columns.get("split", "split"), values)
    copy = search.out / f"rows{manifest.suffix}"
    write_table(copy, table.moved(columns.get("audio", "audio"), manifest.parent, search.out))

    def with_copy(whole: Settings) -> Settings:
        return {**whole, "data": {**whole["data"], "manifest": str(copy)}}

    return replace(search, settings=with_copy(search.settings), resolved=with_copy(search.resolved))


def _confirmation(
    search: Search, best: Result, open_model: Open, runner: Runner, show: Show
) -> dict[str, Any]:
    """The comparison of best and default with new seeds, on test rows; `note` says why there is none."""
    if best.number == 0:
        return {"note": "The default has the best value, so there is nothing to compare."}
    changes = {"default": {}, "best": search.values(best.parameters)}
    settings = {"default": search.changed({}), "best": search.changed(best.parameters)}
    ablation = Ablation(
        name=f"{search.name}, confirmed",
        variants=settings,
        changes=changes,
        seeds=search.confirm,
        folds=(),
        reference="default",
        out=search.out / "confirm",
        evaluation=search.evaluation,
    )
    results = ablate(ablation, open_model=open_model, runner=runner, show=show)
    variants = {
        name: {
            key: variant[key] for key in ("mean", "interval", "values", "interval_rows", "over", "condition")
        }
        for name, variant in results["variants"].items()
    }
    return {
        "metric": results["metric"],
        "seeds": list(search.confirm),
        "variants": variants,
        "difference": results["variants"]["best"]["difference"],
        "failed": results["failed"],
        "folder": "confirm",
    }
