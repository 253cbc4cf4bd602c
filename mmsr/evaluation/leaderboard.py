"""The runs in a folder, ranked: seeds of one system together, runs on different data apart.

folders ─► metrics.json of each run ─► `RunResult` ─► `Standing` of each system ─► `Board` of each test set
"""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from mmsr.evaluation.compare import CompareError, Comparison, System, compare
from mmsr.evaluation.metrics import METRICS
from mmsr.evaluation.significance import Interval, holm, seed_interval


@dataclass(frozen=True)
class RunResult:
    """A folder of `mmsr evaluate`, or a run of `mmsr ablate`."""

    folder: Path
    document: Mapping[str, Any]  # content of metrics.json
    split: str

    @classmethod
    def read(cls, path: Path) -> "RunResult | None":
        """The run of a metrics.json; None if it has no condition of any split.

        Raises:
            CompareError: The file is no JSON object.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise CompareError(f"{path}: no JSON ({error}); accepted: one that mmsr evaluate wrote") from None
        splits = [name for name in document if name == "test"] if isinstance(document, dict) else []
        splits += [name for name in document if name != "test"] if isinstance(document, dict) else []
        for split in splits:
            found = document[split]
            if isinstance(found, dict) and any(isinstance(e, dict) and "n" in e for e in found.values()):
                return cls(path.parent, document, split)
        return None

    @property
    def conditions(self) -> dict[str, Mapping[str, Any]]:
        """The entries by condition, without baselines."""
        return {name: entry for name, entry in self.document[self.split].items() if name != "baselines"}

    @property
    def data(self) -> tuple[Any, ...]:
        """What must be equal to be ranked together: fingerprint, split, and number of rows."""
        rows = max(entry["n"] for entry in self.conditions.values())
        known = self.document.get("data_fingerprint")
        return (known or f"unknown, of {self.folder}", self.split, rows)

    @cached_property
    def model(self) -> Mapping[str, Any]:
        """Name, fusion, parameters and settings of the model, as far as they are known.

        Runs of `mmsr ablate` have the model itself in place of what metrics.json says of it.
        """
        if known := self.document.get("model"):
            return known
        found: dict[str, Any] = {}
        config, weights = (self.folder / "model" / name for name in ("config.json", "model.safetensors"))
        if config.is_file():
            found["fusion"] = json.loads(config.read_text(encoding="utf-8")).get("fusion")
        if weights.is_file():
            with safe_open(weights, framework="numpy") as file:
                shapes = [file.get_slice(name).get_shape() for name in file.keys()]
            found["parameters"] = sum(map(prod, shapes))
        return found

    @property
    def report(self) -> Path | None:
        """Its own report, or that of the ablation whose run it is."""
        above = self.folder.parent.parent
        own, whole = (folder / "report.html" for folder in (self.folder, above))
        if own.is_file():
            return own
        return whole if whole.is_file() and (above / "results.json").is_file() else None

    @property
    def seed(self) -> int | None:
        """The seed of the training, or of a run that has one seed for all."""
        return self.document.get("training_seed", self.document.get("seed"))

    @property
    def system(self) -> tuple[Any, ...]:
        """What the seeds of one system have in common."""
        name = (
            str(self.folder) if self.seed is None else re.sub(r"[-_.]?(seed)?[-_]?\d+$", "", str(self.folder))
        )
        settings = self.model.get("settings")
        return (*self.data, self.model.get("fusion"), settings or name, tuple(self.conditions))


@dataclass(frozen=True)
class Standing:
    """A system in a board: one run, or the same settings trained with several seeds.

    Attributes:
        name: Its folder, or what the folders of its seeds have in common.
        runs: In the order of their seeds.
        condition: Of the ranked value.
        values: The metric of each run.
        comparison: The best system against this one; None of the best, or where they cannot be paired.
        why_not: Why there is no comparison.
    """

    name: str
    runs: tuple[RunResult, ...]
    condition: str
    values: tuple[float, ...]
    comparison: Comparison | None = None
    why_not: str | None = None

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return float(np.mean(self.values))

    def interval(self, metric: str) -> tuple[Interval | None, str | None]:
        """The 95 % interval over seeds, of one run over its rows or speakers; and what it is over."""
        if len(self.runs) > 1:
            low, high = seed_interval(self.values)
            if METRICS[metric].kind == "label":  # a share, which few seeds' t-interval leaves
                low, high = max(low, 0.0), min(high, 1.0)
            return (low, high), "seeds"
        entry = self.runs[0].conditions[self.condition]
        found = entry.get("interval", {}).get(metric)
        return (tuple(found), entry.get("interval_over", "rows")) if found else (None, None)

    def mean(self, *keys: str) -> float | None:
        """The mean over runs of a value in their entries, such as of `text`, `macro_f1`; None without it."""
        found = []
        for run in self.runs:
            value: Any = run.conditions
            for key in keys:
                value = value.get(key) if isinstance(value, Mapping) else None
            found.append(value)
        return None if any(value is None for value in found) else float(np.mean(found))


@dataclass(frozen=True)
class Board:
    """The systems that were tested on the same rows, the best first."""

    fingerprint: str
    split: str
    rows: int
    metric: str
    standings: tuple[Standing, ...]


def find_runs(folders: Iterable[str | Path]) -> list[RunResult]:
    """Returns all runs in folders and their subfolders, by the metrics.json in them.

    Raises:
        CompareError: A folder is missing, a metrics.json cannot be read, or there is none.
    """
    found: dict[Path, RunResult] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise CompareError(f"{folder}: no such folder; accepted: a folder with runs of mmsr evaluate")
        for path in sorted(folder.rglob("metrics.json")):
            if run := RunResult.read(path):
                found[path.resolve()] = run
    if not found:
        listed = ", ".join(map(str, folders))
        raise CompareError(
            f"{listed}: no metrics.json with results; accepted: folders that mmsr evaluate wrote"
        )
    return list(found.values())


def boards(
    runs: Sequence[RunResult],
    *,
    metric: str = "macro_f1",
    condition: str | None = None,
    resamples: int = 10_000,
    seed: int = 0,
    **options: Any,
) -> list[Board]:
    """Returns a board of each test set, those with most systems first.

    A system's value is of `condition`, by default the first of its own. The best system is compared with each
    other one on paired rows (see `compare`, which takes `options`), where their predictions are there; the
    p-values of a board are corrected together. Runs that lack the metric are left out.

    Raises:
        CompareError: The metric is unknown, or no run has it.
    """
    if metric not in METRICS:
        raise CompareError(f"metric {metric!r} is unknown; accepted: {', '.join(METRICS)}")
    grouped: dict[tuple[Any, ...], list[RunResult]] = {}
    for run in runs:
        key, seeds = run.system, [other.seed for other in grouped.get(run.system, [])]
        # the same seed again is another evaluation, and no further seed
        grouped.setdefault((*key, run.folder) if run.seed in seeds else key, []).append(run)
    systems: dict[tuple[Any, ...], list[Standing]] = {}
    root = os.path.commonpath([run.folder.resolve() for run in runs])
    for members in grouped.values():
        if (standing := _standing(members, metric, condition, root)) is not None:
            systems.setdefault(members[0].data, []).append(standing)
    if not systems:
        under = f" under {condition}" if condition else ""
        raise CompareError(f"no run has {metric}{under}; accepted: another --metric or --condition")
    better = -1 if METRICS[metric].higher_is_better is False else 1
    found = []
    for (fingerprint, split, rows), standings in systems.items():
        standings.sort(key=lambda standing: (-better * standing.value, standing.name))
        compared = _compared(standings, metric, resamples=resamples, seed=seed, **options)
        found.append(Board(fingerprint, split, rows, metric, tuple(compared)))
    return sorted(found, key=lambda board: (-len(board.standings), board.fingerprint))


def _standing(members: Sequence[RunResult], metric: str, condition: str | None, root: str) -> Standing | None:
    runs = tuple(sorted(members, key=lambda run: (run.seed is None, run.seed or 0, str(run.folder))))
    chosen = condition or next(iter(runs[0].conditions))
    values = [run.conditions.get(chosen, {}).get(metric) for run in runs]
    known = tuple(float(value) for value in values if value is not None)
    if len(known) < len(values):
        return None
    names = [os.path.relpath(run.folder.resolve(), root) for run in runs]
    name = (
        names[0] if len(names) == 1 else re.sub(r"[-_./]*(seed)?[-_]*\d*$", "", os.path.commonprefix(names))
    )
    name = runs[0].folder.resolve().name if name in (".", "") else name
    return Standing(name, runs, chosen, known)


def _compared(standings: Sequence[Standing], metric: str, **options: Any) -> list[Standing]:
    """The standings with the best's comparisons; all their p-values are corrected together."""
    best, *others = standings
    found: list[Comparison | str] = []
    for other in others:
        try:
            if not METRICS[metric].is_comparable:
                raise CompareError(f"{metric} is of all rows together")
            pair = [System(s.name, _predictions(s), s.condition) for s in (best, other)]
            (comparison,), _ = compare(pair, metric=metric, **options)
            found.append(comparison)
        except CompareError as error:
            found.append(str(error))
    adjusted = iter(holm([pair.p_value for pair in found if isinstance(pair, Comparison)]).tolist())
    return [
        best,
        *(
            replace(other, why_not=pair)
            if isinstance(pair, str)
            else replace(other, comparison=replace(pair, p_holm=next(adjusted)))
            for other, pair in zip(others, found, strict=True)
        ),
    ]


def _predictions(standing: Standing) -> tuple[Path, ...]:
    files = tuple(run.folder / "predictions.jsonl" for run in standing.runs)
    for file in files:
        if not file.is_file():
            raise CompareError(f"{file}: no such file")
    return files
