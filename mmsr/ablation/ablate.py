"""Ablations: variants of a configuration times seeds, each run once, with figures that can be believed.

    FILE.yaml ─► variants × seeds ─► runs, named by content ─► training, then the test rows (processes)
              ─► results.json, table.md, report.html, plot.png

A run's name is a digest of all its settings and of its data, so the same settings are the same run, whatever
they are called and wherever the files lie: it is found again, not repeated. Its folder OUT/runs/NAME is that
of `mmsr fit` (an interrupted run goes on from its last checkpoint) with settings.yaml, log.txt, metrics.json
and predictions.jsonl beside; result.json comes last and says that it is finished. Nothing here looks at test
rows to choose: epochs are chosen on the development split, and the reference is named in the file.
"""

from __future__ import annotations

import fcntl
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from mmsr.ablation.plan import plan
from mmsr.ablation.runner import Open, Runner, train_and_evaluate
from mmsr.ablation.runs import Run, data_of
from mmsr.ablation.spec import Ablation
from mmsr.ablation.summary import metrics_of_seed, origins, rationale_judge, summarise
from mmsr.data.manifest.manifest import utterances
from mmsr.evaluation.baselines import baselines
from mmsr.evaluation.metrics import metrics_of
from mmsr.evaluation.provenance import Provenance

logger = logging.getLogger(__name__)


# ---------------------------------------------------------------------- all of it


Board = Mapping[str, Mapping[str, str]]
"""How far it is: of each variant, by seed, a few letters."""

Show = Callable[[Board, str], None]
"""Is told the board and, where something happened, a line."""


def ablate(
    ablation: Ablation, *, open_model: Open, runner: Runner, show: Show = lambda board, line: None
) -> dict[str, Any]:
    """Do the runs that are not there yet, and write results.json, table.md, plot.png and the report.

    Returns:
        What results.json says; `failed` names the runs that failed, with their settings.

    Raises:
        ValueError: the settings of a variant or the data have faults, or another process is at work in the
            folder.
    """
    from mmsr.ablation.report import write_report

    runs = plan(ablation)
    reporter = Provenance().to_dict()  # the runs may come from other processes and machines
    with _alone(ablation.out):
        failed = _do(ablation, runs, open_model, runner, show)
        results = summarise(ablation, runs)
        results |= {
            "baselines": _baselines(ablation, runs),
            "failed": [_told(ablation, run, error) for run, error in failed],
            "reported_by": reporter,
        }
        results |= origins(runs) or {**reporter, "differing": {}}
        if results["differing"]:
            logger.warning("%s: the runs differ in %s", ablation.out, ", ".join(results["differing"]))
        write_report(ablation.out, results)
    return results


def _do(
    ablation: Ablation, runs: Sequence[Sequence[Run]], open_model: Open, runner: Runner, show: Show
) -> list[tuple[Run, str]]:
    """Do what is not done; return what failed, and why."""
    metric = ablation.evaluation.metric
    unique = {run.name: run for seed in zip(*runs, strict=True) for run in seed}  # all variants, seed by seed
    asked = [run for run in unique.values() if run.result() is None]
    states = {name: "waits" for name in unique}
    started: dict[str, float] = {}

    def board() -> Board:
        for name in started:
            states[name] = f"epoch {_epochs(unique[name]) + 1}"
        cells: dict[str, dict[str, str]] = {}
        for variant, row in zip(ablation.variants, runs, strict=True):
            seeds = cells.setdefault(variant, {})
            for run in row:  # of several folds one after the other
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
    events = runner.run(_Work(open_model), asked)
    try:
        for event in events:
            line = ""
            if event.run is not None:
                run, label = event.run, event.run.label
                if event.state == "running":
                    started[run.name], line = time.perf_counter(), f"{label}: starts"
                else:
                    seconds = time.perf_counter() - started.pop(run.name)
                    states[run.name] = "failed" if event.error else value(run)
                    line = f"{label}: {metric} {states[run.name]} ({seconds:.0f} s)"
                if event.error:
                    failed.append((run, event.error))
                    line = f"{label} failed: {event.error} ({run.folder / 'log.txt'})"
            show(board(), line)
    finally:
        events.close()  # type: ignore[attr-defined]
    return failed


@dataclass(frozen=True)
class _Work:
    """`train_and_evaluate` as another process can be told of it."""

    open_model: Open

    def __call__(self, run: Run) -> None:
        train_and_evaluate(self.open_model, run)


def _epochs(run: Run) -> int:
    """How many epochs a run has behind it."""
    path = run.folder / "history.json"
    return len(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else 0


def _told(ablation: Ablation, run: Run, error: str) -> dict[str, Any]:
    return {
        "run": run.label,
        "variant": run.variant,
        "seed": run.seed,
        "fold": run.fold,
        "settings": ablation.changes[run.variant],
        "error": error,
        "log": str(run.folder / "log.txt"),
    }


def _baselines(ablation: Ablation, runs: Sequence[Sequence[Run]]) -> dict[str, Any]:
    """What knows no voice, the majority label and TF-IDF, on the reference's rows, which others may lack.

    Where nothing of the reference has finished: of the first variant that has. Over folds the mean of each
    figure; `by_language` has the ablation's metric. `tfidf_asr` is there where a variant reads that
    transcript, `constant_rationale_oracle` where figures of rationales are asked for (the constant rationale
    of the predicted label is each variant's own, see `ablation_report`).
    """
    reference = list(ablation.changes).index(ablation.reference)
    in_turn = [runs[reference], *runs]
    done = next((finished for row in in_turn if (finished := [run for run in row if run.result()])), [])
    folds = {run.fold: run for run in done}
    further = ["tfidf_asr"] if any("asr" in run.condition for (run, *_) in runs) else []
    evaluation = ablation.evaluation
    metric = evaluation.metric
    shown = dict.fromkeys((*(known.name for known in metrics_of("label")), metric, *evaluation.also))
    if evaluation.rationales:
        further.append("constant_rationale_oracle")
    found = []
    for run in folds.values():
        data = data_of(run)
        train_rows, test_rows = utterances(data.train_rows), utterances(data.test_rows)
        labels = run.result()["labels"]  # type: ignore[index]
        judge = rationale_judge(evaluation)
        found.append(baselines(train_rows, test_rows, labels=labels, rationales=judge))
    entries = {
        name: [one[name] for one in found]
        for name in ("majority", "tfidf", *further)
        if found and all(name in one for one in found)
    }
    return {
        name: {
            **{
                figure: fmean(one[figure] for one in folded)
                for figure in shown
                if all(figure in one for one in folded)  # of labels alone, or of rationales alone
            },
            "by_language": {
                language: fmean(one[language][metric] for one in spoken if metric in one.get(language, {}))
                for spoken in [[one.get("by_language", {}) for one in folded]]
                for language in sorted(set().union(*spoken))
                if ablation.evaluation.by_language and any(metric in one.get(language, {}) for one in spoken)
            },
        }
        for name, folded in entries.items()
    }


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep a second `mmsr ablate` out of the folder; the system lets go of it where this one is killed."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"{out}: another `mmsr ablate` is at work there; accepted: another --out"
            ) from None
        yield
