"""The file of a search, checked: where it starts, what it searches, how long.

FILE.yaml {base, settings, space, trials, minutes, metric, sampler, pruner, seed, confirm, evaluation, out}
  ─► Search
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from mmsr.ablation.plan import resolved, with_feature_store
from mmsr.ablation.spec import (
    AblationError,
    Evaluation,
    Settings,
    integers,
    overlaid,
    read_base,
    read_content,
    read_evaluation,
)
from mmsr.ablation.summary import CHOOSE_DEV_ROWS
from mmsr.evaluation.metrics import METRICS
from mmsr.training.arguments import one_line
from mmsr.training.monitor import MODEL_LOSSES, mode_of

KEYS = (
    *("base", "settings", "space", "trials", "minutes", "metric", "sampler", "pruner", "seed", "confirm"),
    *("evaluation", "out"),
)
SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("median",)

# Settings that choose the development rows or what is measured on them: values under them cannot be compared.
_MEASURE = (*CHOOSE_DEV_ROWS, "data.columns", "data.label_map", "model.labels", "monitor", "monitor_mode")
# Settings that change what a development loss is the loss of.
_LOSS = (
    *("model.class_weights", "model.label_smoothing", "model.rationale_format", "model.vocab_size"),
    *("model.decoder", "model.config.class_weights", "model.config.label_smoothing", "data.rationales"),
    "model.config.rationale_loss_weight",
)
_ACCEPTED_SPACE = "a list of values, or {low: A, high: B} with log: true or step: S"


@dataclass(frozen=True)
class Dimension:
    """A searched setting: its name, and the values it may have.

    Optuna keeps numbers, text and booleans. Lists and mappings are kept as their JSON (`coded`).
    """

    name: str
    distribution: BaseDistribution
    coded: bool = False

    def value(self, parameter: Any) -> Any:
        """The setting's value for a parameter of a trial."""
        return json.loads(parameter) if self.coded else parameter

    def parameter(self, value: Any) -> Any:
        """The parameter that stands for a value, or None where the value is not in the space."""
        found, kind = json.dumps(value) if self.coded else value, self.distribution
        if isinstance(kind, CategoricalDistribution):
            return found if any(found == one and type(found) is type(one) for one in kind.choices) else None
        assert isinstance(kind, FloatDistribution | IntDistribution)
        if (
            isinstance(found, bool)
            or not isinstance(found, int | float)
            or not kind.low <= found <= kind.high
        ):
            return None
        steps = 0.0 if kind.step is None or kind.log else (found - kind.low) / kind.step
        if isinstance(kind, IntDistribution) and found != int(found) or abs(steps - round(steps)) > 1e-8:
            return None
        return found

    def suggest(self, trial: Trial) -> Any:
        """The parameter of a trial: the one that it has, or else a new one of its sampler."""
        kind = self.distribution
        if isinstance(kind, CategoricalDistribution):
            return trial.suggest_categorical(self.name, kind.choices)
        if isinstance(kind, IntDistribution):
            return trial.suggest_int(self.name, kind.low, kind.high, step=kind.step, log=kind.log)
        assert isinstance(kind, FloatDistribution)
        return trial.suggest_float(self.name, kind.low, kind.high, step=kind.step, log=kind.log)

    @property
    def ends(self) -> list[Any]:
        """Lowest and highest parameter, or all choices."""
        kind = self.distribution
        if isinstance(kind, CategoricalDistribution):
            return list(kind.choices)
        assert isinstance(kind, FloatDistribution | IntDistribution)
        return [kind.low, kind.high]

    @property
    def points(self) -> list[Any] | None:
        """All parameters, for a grid; None for a range without step."""
        kind = self.distribution
        if isinstance(kind, CategoricalDistribution):
            return list(kind.choices)
        assert isinstance(kind, FloatDistribution | IntDistribution)
        if kind.step is None or kind.log:
            return None
        count = int((kind.high - kind.low) / kind.step + 1e-8) + 1
        return [
            kind.low + i * kind.step if isinstance(kind, IntDistribution) else _tidy(kind.low + i * kind.step)
            for i in range(count)
        ]

    def __str__(self) -> str:
        kind = self.distribution
        if isinstance(kind, CategoricalDistribution):
            return ", ".join(str(choice) for choice in kind.choices)
        assert isinstance(kind, FloatDistribution | IntDistribution)
        how = ", log" if kind.log else "" if kind.step in (None, 1) else f", step {kind.step:g}"
        return f"{kind.low:g} to {kind.high:g}{how}"


@dataclass(frozen=True)
class Search:
    """A search's file."""

    name: str  # of the file
    settings: Settings  # of `mmsr fit`, over which a trial has its own
    resolved: Settings  # the default's, with all defaults, as `plan.resolved` has them
    default: Mapping[str, Any]  # the default's values of the searched settings; None where it sets none
    space: tuple[Dimension, ...]
    trials: int | None  # the default among them; None without a limit
    minutes: float | None  # after which no trial starts
    metric: str  # a value that runs log on development rows
    sampler: str  # one of SAMPLERS
    pruner: str | None  # one of PRUNERS
    seed: int  # of the sampler
    training_seed: int  # of weights and order, in every trial
    confirm: tuple[int, ...]  # seeds with which the best settings and the default are compared; may be empty
    evaluation: Evaluation  # of that comparison
    out: Path

    @property
    def is_maximised(self) -> bool:
        """Whether a higher value is better."""
        return mode_of(self.metric) == "max"

    def changed(self, parameters: Mapping[str, Any]) -> Settings:
        """The configuration of `mmsr fit` for a trial with these parameters; without any, the default's."""
        settings = overlaid(Path(self.name), "trial", self.settings, self.values(parameters))
        return with_feature_store(settings, self.out)

    def values(self, parameters: Mapping[str, Any]) -> Settings:
        """The searched settings of a trial, by name."""
        return {
            dimension.name: dimension.value(parameters[dimension.name])
            for dimension in self.space
            if dimension.name in parameters
        }

    @property
    def grid(self) -> list[Settings]:
        """The parameters of each point of a grid."""
        points = [dimension.points or [] for dimension in self.space]
        names = [dimension.name for dimension in self.space]
        return [dict(zip(names, point, strict=True)) for point in itertools.product(*points)]


def read_search(
    path: str | os.PathLike[str],
    *,
    out: str | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    confirm: int | None = None,
    find: Callable[[str], Path] | None = None,
) -> Search:
    """Read a search's file.

    Args:
        path: YAML with `base` (a file of `mmsr fit`, relative to this one) and `settings` over it, which are
            the default; `space` (setting: a list of values, or `{low, high}` with `log` or `step`); `trials`,
            `minutes` or both; `metric`, `sampler`, `pruner`, `seed`; `confirm` (a number of seeds, or
            `{seeds: [...]}`) and `evaluation` (as of an ablation) for the comparison with the default; `out`.
        out: Another folder for the results.
        trials: Another number of trials.
        minutes: Another time limit.
        confirm: Another number of seeds for the comparison.
        find: Finds a `base` by its name if there is no such file.

    Raises:
        AblationError: The file is invalid.
    """
    path = Path(path)
    content = read_content(path, KEYS)
    folder = Path(out or content.get("out") or f"runs/searches/{path.stem}")
    base = read_base(path, content.get("base"), find)
    settings = overlaid(path, "settings", base, content.get("settings") or {})
    try:
        matter = resolved(with_feature_store(settings, folder))
    except (ArgumentError, ValueError, TypeError) as error:
        raise AblationError(f"{path}, the default: {one_line(error)}") from error
    metric = str(content.get("metric", matter["monitor"]))
    try:
        mode_of(metric)
    except ValueError as error:
        raise AblationError(f"{path}: metric {str(error).removeprefix('monitor ')}") from error
    if not metric.startswith("dev_"):
        raise AblationError(f"{path}: metric {metric!r} is of the training rows; accepted: dev_...")
    given = content.get("space")
    if not isinstance(given, dict) or not given:
        raise AblationError(f"{path}: space {given!r}; accepted: settings with {_ACCEPTED_SPACE}")
    default = {str(key): _at(matter, str(key)) for key in given}
    space = tuple(_dimension(path, str(key), value, default[str(key)]) for key, value in given.items())
    seed = _number(path, "seed", content.get("seed", 0), whole=True, least=0)
    training_seed = matter["seed_everything"]
    search = Search(
        name=path.stem,
        settings=settings,
        resolved=matter,
        default=default,
        space=space,
        trials=_limit(path, "trials", content.get("trials"), trials, whole=True),
        minutes=_limit(path, "minutes", content.get("minutes"), minutes, whole=False),
        metric=metric,
        sampler=_one_of(path, "sampler", content.get("sampler", "tpe"), SAMPLERS),
        pruner=None if content.get("pruner") is None else _one_of(path, "pruner", content["pruner"], PRUNERS),
        seed=int(seed),
        training_seed=training_seed,
        confirm=_seeds(path, content.get("confirm"), confirm, training_seed),
        evaluation=_evaluation(path, content.get("evaluation") or {}, metric),
        out=folder,
    )
    _check(path, search)
    return search


# ---------------------------------------------------------------------- what may be searched


def _at(settings: Mapping[str, Any], name: str) -> Any:
    """The value of a dotted name; None where there is none."""
    found: Any = settings
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _dimension(path: Path, name: str, given: Any, default: Any) -> Dimension:
    overlaid(path, "space", {}, {name: None})  # raises where it is no setting
    if (
        name.startswith(("trainer.logger", "early_stopping.monitor", "early_stopping.mode"))
        or name in _MEASURE
    ):
        raise AblationError(
            f"{path}: space {name} changes what is measured, or on which rows, so that trials could not be "
            "compared; accepted: under settings, the same for all trials"
        )
    if isinstance(given, list):
        return _choices(path, name, given)
    if not isinstance(given, dict) or not {"low", "high"} <= set(given) <= {"low", "high", "log", "step"}:
        raise AblationError(f"{path}: space {name}: {given!r}; accepted: {_ACCEPTED_SPACE}")
    numbers = {
        key: _number(path, f"space {name}: {key}", given[key])
        for key in ("low", "high", "step")
        if key in given
    }
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise AblationError(f"{path}: space {name}: log {log!r}; accepted: true or false")
    whole = not isinstance(default, float) and all(isinstance(number, int) for number in numbers.values())
    low, high, step = numbers["low"], numbers["high"], numbers.get("step")
    if low >= high:
        raise AblationError(f"{path}: space {name}: low {low:g} is not below high {high:g}")
    if step is not None and (step <= 0 or log):
        raise AblationError(
            f"{path}: space {name}: step {step:g}{' with log' if log else ''}; accepted: a positive number, "
            "and no log"
        )
    if log and low <= 0:
        raise AblationError(f"{path}: space {name}: low {low:g} has no logarithm; accepted: above 0")
    if step is not None:  # Optuna would lower the upper end with a warning
        high = low + int((high - low) / step + 1e-8) * step
    if whole:
        return Dimension(name, IntDistribution(int(low), int(high), log=log, step=int(step or 1)))
    high = _tidy(high)
    return Dimension(name, FloatDistribution(low, high, log=log, step=step))


def _tidy(number: float) -> float:
    """Without the rounding error of a sum: 0.3 in place of 0.30000000000000004."""
    return float(f"{number:.12g}")


def _choices(path: Path, name: str, given: list[Any]) -> Dimension:
    values = [_as_number(value) if isinstance(value, str) else value for value in given]
    coded = any(isinstance(value, list | dict) for value in values)
    choices = [json.dumps(value) for value in values] if coded else values
    if not choices or len(set(map(repr, choices))) < len(choices):
        raise AblationError(f"{path}: space {name}: {given!r}; accepted: one value or more, each once")
    return Dimension(name, CategoricalDistribution(choices), coded)


def _as_number(text: str) -> Any:
    """The number that a text like 1e-4 is, which YAML reads as text; other text as it is."""
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _number(path: Path, key: str, given: Any, *, whole: bool = False, least: float = -math.inf) -> float:
    number = _as_number(given) if isinstance(given, str) else given
    right = isinstance(number, int if whole else int | float) and not isinstance(number, bool)
    if not right or not math.isfinite(number) or number < least:
        kind = "an integer" if whole else "a number"
        accepted = kind if least == -math.inf else f"{kind}, {least:g} or more"
        raise AblationError(f"{path}: {key} {given!r}; accepted: {accepted}")
    return number


# ---------------------------------------------------------------------- how long, and how it is compared


def _limit(path: Path, key: str, given: Any, instead: float | None, *, whole: bool) -> Any:
    if instead is not None:
        return instead
    return None if given is None else _number(path, key, given, whole=whole, least=1 if whole else 0)


def _one_of(path: Path, key: str, given: Any, accepted: tuple[str, ...]) -> str:
    if given not in accepted:
        raise AblationError(f"{path}: {key} {given!r}; accepted: {', '.join(accepted)}")
    return str(given)


def _seeds(path: Path, given: Any, instead: int | None, training_seed: int) -> tuple[int, ...]:
    """Seeds of the comparison: those in the file, or the first ones after that of the trials."""
    found = given if instead is None else instead
    if isinstance(found, dict) and set(found) == {"seeds"}:
        seeds = integers(path, "confirm seeds", found["seeds"])
        if training_seed in seeds:
            raise AblationError(
                f"{path}: confirm seeds {list(seeds)} have {training_seed}, with which the trials are "
                "trained; accepted: others"
            )
        return seeds
    if found is None:
        return ()
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise AblationError(f"{path}: confirm {found!r}; accepted: a number of seeds, or {{seeds: [...]}}")
    return tuple(range(training_seed + 1, training_seed + 1 + found))


def _evaluation(path: Path, given: Any, metric: str) -> Evaluation:
    """How best and default are compared; by default by the metric of the search, if it can be."""
    read = read_evaluation(path, given)
    name = metric.removeprefix("dev_").removeprefix("decoder_")
    if "metric" not in given and name in METRICS and METRICS[name].is_comparable:
        return replace(read, metric=name)
    return read


def _check(path: Path, search: Search) -> None:
    """Refuse what would fail in the first trial that draws it, and what cannot be searched."""
    if search.sampler == "grid":
        for dimension in search.space:
            if dimension.points is None:
                raise AblationError(
                    f"{path}: space {dimension.name} has no grid; accepted: a list of values, or a step"
                )
    elif search.trials is None and search.minutes is None:
        raise AblationError(f"{path} has neither trials nor minutes; accepted: one of the two, or both")
    if search.metric.removeprefix("dev_") in MODEL_LOSSES:
        for dimension in search.space:
            if dimension.name in _LOSS:
                raise AblationError(
                    f"{path}: space {dimension.name} changes the loss itself, so that {search.metric} of two "
                    "trials cannot be compared; accepted: a metric of labels, such as metric: dev_macro_f1"
                )
    count = max(len(dimension.ends) for dimension in search.space)
    for place in range(count):
        point = {one.name: one.ends[min(place, len(one.ends) - 1)] for one in search.space}
        if _refusal(search, point) is None:
            continue
        for name, parameter in point.items():  # which one it is; together they may only contradict each other
            if (reason := _refusal(search, {name: parameter})) is not None:
                raise AblationError(
                    f"{path}: space {name}: {search.values({name: parameter})[name]!r}: {reason}"
                )


def _refusal(search: Search, parameters: Mapping[str, Any]) -> str | None:
    """Why `mmsr fit` would refuse a trial; None if it would not."""
    try:
        resolved(search.changed(parameters))
    except (ArgumentError, ValueError, TypeError) as error:
        return one_line(error)
    return None
