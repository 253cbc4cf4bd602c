"""An ablation's file: what it may say, and the variants that it expands to."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mmsr.ablation.runs import OWN, Evaluation
from mmsr.evaluation.metrics import METRICS
from mmsr.evaluation.run import CONDITIONS
from mmsr.training.run import MmsrCLI, quieten

KEYS = ("base", "settings", "grid", "variants", "seeds", "folds", "reference", "out", "evaluation")
EVALUATION_KEYS = tuple(Evaluation.__dataclass_fields__)
_OURS = ("seed_everything", "model.seed", "data.seed", "trainer.default_root_dir", "trainer.callbacks")
PRETRAINED = ("audio", "text", "pretrained", "decoder")

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
    accepted: dict[str, Collection[str]] = {
        "metric": [name for name, metric in METRICS.items() if metric.is_comparable],
        "condition": (OWN, *CONDITIONS),
        "conditions": CONDITIONS,
        "also": METRICS,
    }
    if not isinstance(by_language := given.get("by_language", False), bool):
        raise AblationError(f"{path}: evaluation by_language {by_language!r}; accepted: true or false")
    encoder = given.get("bertscore")
    if not isinstance(encoder, str | None) or encoder == "":
        raise AblationError(
            f"{path}: evaluation bertscore {encoder!r}; accepted: a text encoder's folder or id"
        )
    chosen: dict[str, Any] = {"by_language": by_language, "bertscore": encoder, **_unit_settings(path, given)}
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
            if field == "also" and METRICS[name].needs_encoder and encoder is None:
                raise AblationError(
                    f"{path}: evaluation also {name!r} needs a text encoder; accepted: with evaluation "
                    "bertscore: FOLDER"
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
    defaults = ParsedSettings({"data": {"manifest": "none"}}).parser.get_defaults()
    return tuple(name for name in defaults.keys() if name not in (*_OURS, "config"))


def _like(key: str, accepted: Sequence[str]) -> str:
    """The nearest names, and the others of the section."""
    near = get_close_matches(key, accepted, n=1)
    section = key.partition(".")[0] + "."
    others = [name for name in accepted if name.startswith(section) and name not in near]
    return ", ".join([*near, *others] or [*near, "model.*", "data.*", "trainer.*", "monitor", "monitor_mode"])


class ParsedSettings(MmsrCLI):
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
