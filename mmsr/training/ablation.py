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
import hashlib
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentError

from mmsr.data.datamodule import MmsrDataModule
from mmsr.data.features import file_digest
from mmsr.data.manifest import (
    COLUMNS,
    ManifestError,
    column_of,
    distinct,
    fingerprint,
    load_manifest,
)
from mmsr.evaluation.baselines import baselines
from mmsr.evaluation.report import FIGURES
from mmsr.evaluation.run import CONDITIONS, machine, versions
from mmsr.model.configuration import fusion_reads
from mmsr.model.processing import MmsrProcessor
from mmsr.training.run import MmsrCLI, quieten, settings_that_matter
from mmsr.training.runner import OWN, Evaluation, Open, Run, Runner, train_and_evaluate

logger = logging.getLogger(__name__)

KEYS = ("base", "settings", "grid", "variants", "seeds", "folds", "reference", "out", "evaluation")
EVALUATION_KEYS = ("metric", "condition", "conditions", "also", "by_language", "cluster", "block_rows")
METRICS = ("accuracy", "macro_f1", "uar")  # of which differences can be drawn again from predictions
RATIONALE_METRICS = tuple(name for name in FIGURES if name not in METRICS)
_OURS = ("seed_everything", "model.seed", "data.seed", "trainer.default_root_dir", "trainer.callbacks")
_PRETRAINED = ("audio", "text", "pretrained", "decoder")

Settings = dict[str, Any]


class AblationError(ValueError):
    """A fault in an ablation's file: names the file, the key, the value and what is accepted."""


# ---------------------------------------------------------------------- what is to be run


@dataclass(frozen=True)
class Ablation:
    """An ablation's file, expanded.

    Attributes:
        name: of the file.
        variants: by name, the whole configuration of `mmsr fit` without seed and folder.
        changes: by name, what makes the variant, as the file says it.
        seeds: of weights and order.
        folds: of the speakers (data.fold); of a seed the test rows of all folds are evaluated together. Empty
            where the manifest's splits are used.
        reference: the variant with which the others are compared.
        out: folder of the results.
        evaluation: how.
    """

    name: str
    variants: Mapping[str, Settings]
    changes: Mapping[str, Settings]
    seeds: tuple[int, ...]
    folds: tuple[int, ...]
    reference: str
    out: Path
    evaluation: Evaluation


def read_ablation(
    path: str | os.PathLike[str], *, out: str | None = None, find: Callable[[str], Path] | None = None
) -> Ablation:
    """Read an ablation's file and expand it.

    Args:
        path: YAML with `base` (a file of `mmsr fit`, relative to this one) and `settings` over it, `grid`
            (key: values; all combinations) and `variants` (name: settings; with a grid, each in each),
            `seeds`, `folds`, `reference`, `out`, and `evaluation` (see Evaluation). Keys of settings are
            dotted.
        out: another folder for the results.
        find: where a `base` that is not there is looked for by its name.

    Raises:
        AblationError: a fault in the file.
    """
    path = Path(path)
    if not path.is_file():
        raise AblationError(f"-c {path}: no such file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise AblationError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise AblationError(f"{path} holds {content!r}; accepted: keys {', '.join(KEYS)}")
    _check_keys(path, "", content, KEYS)
    base = _base(path, content.get("base"), find)
    fixed = base | {} if content.get("settings") is None else _overlaid(path, "settings", base, content)
    changes = _changes(path, content)
    variants = {
        name: _overlaid(path, f"variant {name!r}", fixed, {"settings": change})
        for name, change in changes.items()
    }
    reference = content.get("reference", next(iter(variants)))
    if reference not in variants:
        raise AblationError(f"{path}: reference {reference!r} is no variant; accepted: {', '.join(variants)}")
    folds = _integers(path, "folds", content["folds"]) if content.get("folds") is not None else ()
    fixed_fold = [name for name, one in variants.items() if (one.get("data") or {}).get("fold") is not None]
    if folds and fixed_fold:
        raise AblationError(
            f"{path}: folds {list(folds)} and data.fold of variant {fixed_fold[0]!r} contradict each other; "
            "accepted: one or the other"
        )
    folder = Path(out or content.get("out") or f"runs/ablations/{path.stem}")
    return Ablation(
        name=path.stem,
        variants=variants,
        changes=changes,
        seeds=_integers(path, "seeds", content.get("seeds", [0, 1, 2])),
        folds=folds,
        reference=reference,
        out=folder,
        evaluation=_evaluation(path, content.get("evaluation") or {}),
    )


def _integers(path: Path, key: str, given: Any) -> tuple[int, ...]:
    if not isinstance(given, list) or not given or not all(type(one) is int and one >= 0 for one in given):
        raise AblationError(f"{path}: {key} {given!r}; accepted: a list of integers, 0 or more")
    if len(set(given)) < len(given):
        raise AblationError(f"{path}: {key} {given!r} repeat one; accepted: each once")
    return tuple(given)


def _base(path: Path, base: Any, find: Callable[[str], Path] | None) -> Settings:
    if base is None:
        return {}
    file = path.parent / str(base)
    if not file.is_file() and find is not None:
        with suppress(ValueError):
            file = find(str(base))
    if not file.is_file():
        raise AblationError(f"{path}: base {base}: no such file; accepted: one relative to {path.parent}/")
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _changes(path: Path, content: Settings) -> dict[str, Settings]:
    """What makes each variant: the grid's combinations, in each of the named variants."""
    grid, named = content.get("grid") or {}, content.get("variants") or {}
    for field, value in (("grid", grid), ("variants", named)):
        if not isinstance(value, dict):
            raise AblationError(f"{path}: {field} {value!r}; accepted: a mapping")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise AblationError(f"{path}: grid {key}: {values!r}; accepted: a list of values")
    for name, change in named.items():
        if not isinstance(change, dict | None):
            raise AblationError(f"{path}: variant {name!r}: {change!r}; accepted: a mapping of settings")
    changes: dict[str, Settings] = {}
    for variant, change in (named or {None: {}}).items():
        for values in itertools.product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            parts = [] if variant is None else [str(variant)]
            name = ", ".join([*parts, *_point_names(point)])
            if name in changes:
                raise AblationError(f"{path}: two variants are called {name!r}; accepted: different values")
            changes[name] = {**(change or {}), **point}
    if list(changes) == [""]:
        raise AblationError(f"{path} has neither grid nor variants; accepted: one of the two, or both")
    return changes


def _point_names(point: Settings) -> list[str]:
    shown = {key: value if isinstance(value, str) else json.dumps(value) for key, value in point.items()}
    if len(point) == 1:
        return list(shown.values())
    return [f"{key.rpartition('.')[2]}={value}" for key, value in shown.items()]


def _evaluation(path: Path, given: Any) -> Evaluation:
    if not isinstance(given, dict):
        raise AblationError(f"{path}: evaluation {given!r}; accepted: keys {', '.join(EVALUATION_KEYS)}")
    _check_keys(path, "evaluation ", given, EVALUATION_KEYS)
    accepted = {"metric": METRICS, "condition": (OWN, *CONDITIONS), "conditions": CONDITIONS, "also": FIGURES}
    if not isinstance(by_language := given.get("by_language", False), bool):
        raise AblationError(f"{path}: evaluation by_language {by_language!r}; accepted: true or false")
    chosen: dict[str, Any] = {"by_language": by_language, **_unit_settings(path, given)}
    for field, value in given.items():
        if field not in accepted:
            continue
        several = value if isinstance(value, list) and field in ("conditions", "also") else [value]
        for name in several:
            if name not in accepted[field]:
                raise AblationError(
                    f"{path}: evaluation {field} {name!r} does not exist; accepted: "
                    f"{', '.join(accepted[field])}"
                )
        chosen[field] = tuple(several) if field in ("conditions", "also") else value
    return Evaluation(**chosen)


def _unit_settings(path: Path, given: Settings) -> Settings:
    """What is drawn as a whole: the values of a column, or blocks of rows."""
    cluster, block_rows = given.get("cluster"), given.get("block_rows")
    if not isinstance(cluster, str | None) or cluster == "":
        raise AblationError(f"{path}: evaluation cluster {cluster!r}; accepted: a column of the manifest")
    if block_rows is not None and (type(block_rows) is not int or block_rows < 1):
        raise AblationError(f"{path}: evaluation block_rows {block_rows!r}; accepted: an integer, 1 or more")
    if cluster is not None and block_rows is not None:
        raise AblationError(
            f"{path}: evaluation cluster {cluster!r} and block_rows {block_rows} contradict each other; "
            "accepted: one or the other"
        )
    return {"cluster": cluster, "block_rows": block_rows}


def _check_keys(path: Path, where: str, given: Mapping[str, Any], accepted: Sequence[str]) -> None:
    for key in given:
        if key not in accepted:
            raise AblationError(f"{path}: {where}{key!r} is no key; accepted: {', '.join(accepted)}")


def _overlaid(path: Path, where: str, base: Settings, content: Settings) -> Settings:
    """Settings with others over them, whose keys may be dotted, and nested by section."""
    accepted = accepted_settings()
    settings = json.loads(json.dumps(base))  # a deep copy of what YAML can say

    def put(key: str, value: Any) -> None:
        sections = [name for name in accepted if name.startswith(f"{key}.")]
        if sections and isinstance(value, dict):
            for inner, inner_value in value.items():
                put(f"{key}.{inner}", inner_value)
            return
        if not any(key == name or key.startswith(f"{name}.") for name in accepted):
            raise AblationError(f"{path}: {where}: {key!r} is no setting; accepted: {_like(key, accepted)}")
        *parents, last = key.split(".")
        place = settings
        for parent in parents:
            if place.get(parent) is None:
                place[parent] = {}
            place = place[parent]
        place[last] = value

    for key, value in content["settings"].items():
        put(str(key), value)
    return settings


@cache
def accepted_settings() -> tuple[str, ...]:
    """Dotted names of the settings that an ablation may set: those of `mmsr fit` but seeds and folder."""
    defaults = _Parsed({"data": {"manifest": "none"}}).parser.get_defaults()
    return tuple(name for name in defaults.keys() if name not in (*_OURS, "config"))


def _like(key: str, accepted: Sequence[str]) -> str:
    """The nearest names, and the others of the section."""
    near = get_close_matches(key, accepted, n=1)
    section = key.partition(".")[0] + "."
    others = [name for name in accepted if name.startswith(section) and name not in near]
    return ", ".join([*near, *others] or [*near, "model.*", "data.*", "trainer.*", "monitor", "monitor_mode"])


class _Parsed(MmsrCLI):
    """A run as `mmsr fit` would make it, of settings instead of arguments; checked but for its data."""

    def __init__(self, settings: Settings) -> None:
        quieten()
        self._given = settings
        super().__init__([])

    def init_parser(self, **kwargs: Any) -> Any:
        """A parser that raises instead of ending the program."""
        return super().init_parser(**kwargs, exit_on_error=False)

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Settings as YAML gives them, instead of arguments."""
        self.config = parser.parse_object(self._given)


# ---------------------------------------------------------------------- runs and their names


def plan(ablation: Ablation) -> list[list[Run]]:
    """The runs of each variant, in the order of the file; seeds within, folds within these.

    Raises:
        AblationError: settings that `mmsr fit` would refuse; names the variant. Or `evaluation.cluster` is
            no column of a manifest.
        ValueError: faults in a manifest.
    """
    fingerprints: dict[str, str] = {}
    runs = []
    for variant, whole in ablation.variants.items():
        row = []
        for fold in ablation.folds or (None,):
            settings = _with_feature_store(whole, ablation.out)
            if fold is not None:
                settings = {**settings, "data": {**(settings.get("data") or {}), "fold": fold}}
            try:
                matter = resolved(settings)
            except (ArgumentError, ValueError, TypeError) as error:
                reason = " ".join(str(error).split())
                raise AblationError(f"variant {variant!r} ({ablation.changes[variant]}): {reason}") from error
            reading = _reading(matter)
            if (known := json.dumps(reading)) not in fingerprints:
                rows = load_manifest(**reading, check_audio=False)  # they are read for their fingerprint
                fingerprints[known] = fingerprint(rows)
                if ablation.evaluation.cluster is not None:  # a fault in it is told before anything runs
                    units_of(ablation.evaluation, settings["data"])
            digest = content_name(matter, data_fingerprint=fingerprints[known])
            condition = ablation.evaluation.condition
            if condition == OWN:
                condition = own_condition(matter)
            row += [
                Run(
                    variant=variant,
                    seed=seed,
                    name=f"{digest}-seed{seed}",
                    folder=ablation.out / "runs" / f"{digest}-seed{seed}",
                    settings=settings,
                    data_fingerprint=fingerprints[known],
                    condition=condition,
                    evaluation=ablation.evaluation,
                    fold=fold,
                )
                for seed in ablation.seeds
            ]
        runs.append(sorted(row, key=lambda run: ablation.seeds.index(run.seed)))
    return runs


def resolved(settings: Settings) -> Settings:
    """All settings of a run that matter and are not null, defaults included, after `mmsr fit`'s own checks.

    Raises:
        ArgumentError, ValueError, TypeError: a setting is unknown, or has a value that is not accepted.
    """
    return settings_that_matter(_Parsed(settings))


def content_name(matter: Settings, *, data_fingerprint: str) -> str:
    """Twelve hex digits for settings and data, the same in any order and wherever the files lie.

    What is pretrained counts by the bytes of its folder, or by its Hub id; the manifest by its fingerprint;
    a feature store by being there. The seed does not count.
    """
    model = dict(matter["model"])
    model["feature_store"] = "feature_store" in model
    for part in set(_PRETRAINED) & set(model):
        if os.path.isdir(model[part]):
            model[part] = _folder_digest(Path(model[part]))
    data = {key: value for key, value in matter["data"].items() if key != "manifest"}
    others = {key: value for key, value in matter.items() if key not in ("model", "data", "seed_everything")}
    identity = {**others, "model": model, "data": data, "data_fingerprint": data_fingerprint}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder)}\0".encode() + file_digest(str(file)))
    return digest.hexdigest()


def _reading(matter: Settings) -> dict[str, Any]:
    """How a run's manifest is read, of which its fingerprint is."""
    data = {key: matter["data"].get(key) for key in ("columns", "label_map")}
    return {"source": matter["data"]["manifest"], "labels": matter["model"].get("labels"), **data}


@dataclass(frozen=True)
class Units:
    """What is drawn as a whole in the intervals and tests over test rows.

    Attributes:
        name: in the plural.
        of: number of each row's unit, by the row's id.
    """

    name: str
    of: Mapping[str, int]


def units_of(evaluation: Evaluation, data: Settings) -> Units | None:
    """The units that the evaluation asks for, of a run's manifest; None where it asks for none.

    They are no part of a run, so that finished runs can be told of others.

    Raises:
        AblationError: the column is not there, or has not two values.
    """
    column, size = evaluation.cluster, evaluation.block_rows
    if column is None and size is None:
        return None
    columns, carrier = dict(data.get("columns") or {}), column
    if column is not None and column not in COLUMNS:
        carrier, columns = "kind", {**columns, "kind": column}  # in the place of one that is not asked for
    try:
        rows = load_manifest(
            data["manifest"], columns=columns, label_map=data.get("label_map"), check_audio=False
        )
    except ManifestError as error:  # the rest of it has been read before
        reason = f"{error.faults[0].file}: {error.faults[0].problem}"
        raise AblationError(f"evaluation cluster {column!r}: {reason}; accepted: one of these") from error
    if size is not None:
        return Units(f"blocks of {size} rows", {id_: row // size for row, id_ in enumerate(rows["id"])})
    assert column is not None and carrier is not None
    if len(distinct(rows, carrier)) < 2:
        _refuse_cluster(column, data["manifest"], rows)
    numbers: dict[Any, int] = {}
    values = column_of(rows, carrier).to_pylist()
    keys = [(row,) if value is None else value for row, value in enumerate(values)]
    known = [numbers.setdefault(key, len(numbers)) for key in keys]
    return Units(f"values of {column}", dict(zip(rows["id"], known, strict=True)))


def _refuse_cluster(column: str, manifest: str, rows: Any) -> NoReturn:
    several = [name for name in COLUMNS if len(distinct(rows, name)) > 1]
    raise AblationError(
        f"evaluation cluster {column!r}: {Path(manifest).name} has not two values there; accepted: a column "
        f"that has, such as {', '.join(several)}"
    )


def _with_feature_store(settings: Settings, out: Path) -> Settings:
    """One store for all runs, where encoders are frozen and the file does not say otherwise."""
    model = settings.get("model") or {}
    frozen = {"audio_encoder", "text_encoder"} & set(model.get("freeze") or ())
    augmented = (settings.get("data") or {}).get("augment")
    if not frozen or "feature_store" in model or augmented:
        return settings
    return {**settings, "model": {**model, "feature_store": str(out / "features")}}


def own_condition(matter: Settings) -> str:
    """The condition under which a variant was trained: what its fusion reads, of its transcript.

    A checkpoint to go on from has a fusion of its own, which its settings do not tell: both modalities.
    """
    transcript = "asr" if matter["data"]["text_column"] == "asr_text" else "text"
    reads = fusion_reads(matter["model"]["fusion"])
    return "+".join(transcript if modality == "text" else modality for modality in reads)


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
    from mmsr.training.ablation_report import origins, summarise, write_report

    runs = plan(ablation)
    with _alone(ablation.out):
        failed = _do(ablation, runs, open_model, runner, show)
        results = summarise(ablation, runs)
        results |= {
            "baselines": _baselines(ablation, runs),
            "failed": [_told(ablation, run, error) for run, error in failed],
            "reported_by": _reporter(),
        }
        results |= origins(runs) or {**_reporter(), "differing": {}}
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
        metrics = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
        return f"{metrics['test'][run.condition][metric]:.3f}"

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


def _reporter() -> dict[str, Any]:
    """Who tells of the runs, which others may have made."""
    return {"command": " ".join(sys.argv), "versions": versions(), "machine": machine()}


def data_of(run: Run) -> MmsrDataModule:
    """The data of a finished run; with their own rationales, even where it was trained on a control's."""
    data = MmsrDataModule(**{**run.settings["data"], "rationales": "given"})
    data.attach(MmsrProcessor.from_pretrained(run.folder / "model"))
    return data


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
    metric, also = ablation.evaluation.metric, ablation.evaluation.also
    if set(also) & set(RATIONALE_METRICS):
        further.append("constant_rationale_oracle")
    found = []
    for run in folds.values():
        labels = run.result()["labels"]  # type: ignore[index]
        data = data_of(run)
        found.append(baselines(data.train_rows.to_list(), data.test_rows.to_list(), labels=labels))
    entries = {
        name: [one[name] for one in found]
        for name in ("majority", "tfidf", *further)
        if found and all(name in one for one in found)
    }
    return {
        name: {
            **{
                figure: fmean(one[figure] for one in folded)
                for figure in dict.fromkeys((*METRICS, *also))
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
