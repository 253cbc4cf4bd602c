"""The whole ablation: the runs that are missing, then the results.

runs ─► OUT/runs/NAME/: settings.yaml, log.txt, model/, metrics.json, predictions.jsonl, result.json
     ─► OUT/: results.json, table.md, .tex, .csv, report.html, report.md, plot.png, .pdf
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from mmsr.ablation.availability import available, explained
from mmsr.ablation.plan import plan
from mmsr.ablation.runner import Runner
from mmsr.ablation.runs import Open, Run, train_and_evaluate
from mmsr.ablation.spec import Ablation
from mmsr.ablation.summary import metrics_of_seed, origins, summarise
from mmsr.evaluation.provenance import Provenance
from mmsr.files import folder_lock

logger = logging.getLogger(__name__)

Board = Mapping[str, Mapping[str, str]]
"""The progress of each variant, by seed, in a few letters."""

Show = Callable[[Board, str], None]
"""Called with the board and, after an event, a line of text."""


def ablate(
    ablation: Ablation, *, open_model: Open, runner: Runner, show: Show = lambda board, line: None
) -> dict[str, Any]:
    """Do the runs that are missing, and write results.json, table.md, plot.png and the report.

    Returns:
        The content of results.json; `failed` names the runs that failed, with their settings, and `not_run`
        the variants that cannot run here (see `available`).

    Raises:
        ValueError: The settings of a variant or the data are invalid, or another process works in the folder.
    """
    from mmsr.ablation.report import write_report

    ablation, not_run = available(ablation)
    for line in explained(not_run):
        logger.warning(line)
    runs = plan(ablation)
    reporter = Provenance().to_dict()  # the runs may come from other processes and machines
    with folder_lock(ablation.out):
        failed = _do(ablation, runs, open_model, runner, show)
        results = summarise(ablation, runs)
        results["failed"] = [
            {
                "run": run.label,
                "variant": run.variant,
                "seed": run.seed,
                "fold": run.fold,
                "settings": ablation.changes[run.variant],
                "error": error,
                "log": str(run.folder / "log.txt"),
            }
            for run, error in failed
        ]
        results["not_run"] = [{"variant": name, "reason": reason} for name, reason in not_run.items()]
        results["reported_by"] = reporter
        results |= origins(runs) or {**reporter, "differing": {}}
        if results["differing"]:
            logger.warning("%s: the runs differ in %s", ablation.out, ", ".join(results["differing"]))
        write_report(ablation.out, results)
    return results


def _do(
    ablation: Ablation, runs: Sequence[Sequence[Run]], open_model: Open, runner: Runner, show: Show
) -> list[tuple[Run, str]]:
    """Do the runs that are not finished; return those that failed, and their errors."""
    metric = ablation.evaluation.metric
    unique = {run.name: run for seed in zip(*runs, strict=True) for run in seed}  # seed by seed
    asked = [run for run in unique.values() if run.result() is None]
    states = {name: "waits" for name in unique}
    started: dict[str, float] = {}

    def board() -> Board:
        for name in started:
            states[name] = f"epoch {_epochs(unique[name]) + 1}"
        cells: dict[str, dict[str, str]] = {}
        for variant, row in zip(ablation.variants, runs, strict=True):
            seeds = cells.setdefault(variant, {})
            for run in row:  # the folds of a seed side by side
                seeds[str(run.seed)] = f"{seeds.get(str(run.seed), '')} {states[run.name]}".strip()
        return cells

    def value(run: Run) -> str:
        found = metrics_of_seed([run], run.condition, [metric]).get(metric)
        return "none" if found is None else f"{found:.3f}"

    for run in unique.values():
        if run not in asked:
            states[run.name] = value(run)
    show(board(), f"{len(unique)} runs, {len(unique) - len(asked)} of them finished before -> {ablation.out}")
    failed = []
    with closing(runner.run(partial(train_and_evaluate, open_model), asked)) as events:
        for event in events:
            line = ""
            if (run := event.run) is not None and event.state == "running":
                started[run.name], line = time.perf_counter(), f"{run.label}: starts"
            elif run is not None:
                seconds = time.perf_counter() - started.pop(run.name)
                states[run.name] = "failed" if event.error else value(run)
                line = f"{run.label}: {metric} {states[run.name]} ({seconds:.0f} s)"
                if event.error:
                    failed.append((run, event.error))
                    line = f"{run.label} failed: {event.error} ({run.folder / 'log.txt'})"
            show(board(), line)
    return failed


def _epochs(run: Run) -> int:
    path = run.folder / "history.json"
    return len(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else 0
