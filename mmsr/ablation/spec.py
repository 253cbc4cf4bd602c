"""The file of an ablation, checked and expanded to variants.

FILE.yaml {base, settings, grid, variants, seeds, folds, reference, unavailable, out, evaluation} ─► Ablation
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import yaml

from mmsr.evaluation.metrics import METRICS
from mmsr.evaluation.run import CONDITIONS
from mmsr.inference.language_models.settings import LanguageModelSettings
from mmsr.messages import did_you_mean, no_such_file
from mmsr.training.arguments import check_arguments
from mmsr.training.run import MmsrCLI, quieten

OWN = "own"  # the condition under which a variant was trained
KEYS = (
    "base",
    "settings",
    "grid",
    "variants",
    "seeds",
    "folds",
    "reference",
    "unavailable",
    "out",
    "evaluation",
)
UNAVAILABLE = ("fail", "skip")
_OURS = (
    "seed_everything",
    "model.seed",
    "data.seed",
    "trainer.default_root_dir",
    "trainer.callbacks",
    "replace_unfinished",
)

Settings = dict[str, Any]
Transcript = Literal["text", "asr_text"]
_TRANSCRIPTS = get_args(Transcript)


class AblationError(ValueError):
    """An invalid file of an ablation; the message names file, key and value, and what is accepted."""


@dataclass(frozen=True)
class Evaluation:
    """How runs are compared.

    Attributes:
        metric: The metric of the table, the differences and the plot, a comparable one of METRICS.
        condition: One of `evaluation.run.CONDITIONS`, or `own`: the modalities of the variant's fusion, with
            the transcript that it was trained on.
        conditions: Further conditions, such as shuffled_audio (with the transcript that the variant reads).
        also: Further metrics of METRICS to show without differences, such as rougeL.
        by_language: Show the metric of each language as well.
        cluster: A column of the manifest, such as the recording. Intervals and tests over test rows draw its
            values as wholes, and rows without a value alone. By default they draw speakers.
        block_rows: Instead of a column, the size of blocks of consecutive rows of the manifest, for
            neighbours of one recording, or a sentence and its translation.
        bertscore: The folder or Hub id of BERTScore's text encoder, for `also: [bertscore_f1]`.
    """

    metric: str = "macro_f1"
    condition: str = OWN
    conditions: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    by_language: bool = False
    cluster: str | None = None
    block_rows: int | None = None
    bertscore: str | None = None

    @property
    def rationales(self) -> list[str]:
        """The metrics of rationales among `metric` and `also`."""
        return [name for name in (self.metric, *self.also) if METRICS[name].kind == "rationale"]


def _is_text(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value != "")


EVALUATION_KEYS = tuple(Evaluation.__dataclass_fields__)
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "by_language": (lambda value: isinstance(value, bool), "true or false"),
    "bertscore": (_is_text, "a text encoder's folder or id"),
    "cluster": (_is_text, "a column of the manifest"),
    "block_rows": (lambda size: size is None or (type(size) is int and size > 0), "an integer, 1 or more"),
}


@dataclass(frozen=True)
class Ablation:
    """An ablation's file, expanded."""

    name: str  # of the file
    variants: Mapping[str, Settings]  # by name, the whole configuration of `mmsr fit` without seed and folder
    changes: Mapping[str, Settings]  # by name, the settings of the variant in the file
    seeds: tuple[int, ...]
    folds: tuple[int, ...]  # of the speakers (data.fold); empty for the splits of the manifest
    reference: str  # the variant with which the others are compared
    out: Path
    evaluation: Evaluation
    test_transcripts: Mapping[str, Transcript] = field(default_factory=dict)  # where it is not what is read
    language_models: Mapping[str, LanguageModelSettings] = field(default_factory=dict)  # are not trained
    skips_unavailable: bool = False  # variants whose weights or rows are not here


def read_ablation(
    path: str | os.PathLike[str], *, out: str | None = None, find: Callable[[str], Path] | None = None
) -> Ablation:
    """Read an ablation's file and expand it.

    Args:
        path: YAML with `base` (a file of `mmsr fit`, relative to this one) and `settings` over it, `grid`
            (key: values, or axis: {name: settings}; all combinations) and `variants` (name: settings; with a
            grid, each in each), `seeds`, `folds`, `reference`, `unavailable` (`fail`, the default, or `skip`
            variants whose weights or rows are not on this machine), `out`, and `evaluation` (see Evaluation).
            Keys of settings are dotted. Beside settings, a variant or a point of an axis may have
            `test_transcript` (`text` or `asr_text`: it is tested on this one, whichever it is trained on); a
            variant also `grid` (axis: some of its values or names, to take only these) and `language_model`
            (a file of `mmsr evaluate --model`, relative to this one: it is not trained, and reads the rows of
            `data`).
        out: Another folder for the results.
        find: Finds a `base` by its name if there is no such file.

    Raises:
        AblationError: The file is invalid.
    """
    path = Path(path)
    content = read_content(path, KEYS)
    base = read_base(path, content.get("base"), find)
    fixed = overlaid(path, "settings", base, content.get("settings") or {})
    changes = _changes(path, content)
    variants = {
        name: overlaid(path, f"variant {name!r}", fixed, _settings_of(change))
        for name, change in changes.items()
    }
    evaluation = read_evaluation(path, content.get("evaluation") or {})
    reference = content.get("reference", next(iter(variants)))
    if reference not in variants:
        raise AblationError(f"{path}: reference {reference!r} is no variant; accepted: {', '.join(variants)}")
    folds = integers(path, "folds", content["folds"]) if content.get("folds") is not None else ()
    for name, settings in variants.items():
        if folds and (settings.get("data") or {}).get("fold") is not None:
            raise AblationError(
                f"{path}: folds {list(folds)} and data.fold of variant {name!r} contradict each other; "
                "accepted: one or the other"
            )
    return Ablation(
        name=path.stem,
        variants=variants,
        changes=changes,
        seeds=integers(path, "seeds", content.get("seeds", [0, 1, 2])),
        folds=folds,
        reference=reference,
        out=Path(out or content.get("out") or f"runs/ablations/{path.stem}"),
        evaluation=evaluation,
        test_transcripts=_test_transcripts(path, changes, evaluation),
        language_models=_language_models(path, changes),
        skips_unavailable=_skips_unavailable(path, content.get("unavailable", "fail")),
    )


_BESIDE_SETTINGS = ("test_transcript", "language_model")


def _settings_of(change: Settings) -> Settings:
    """A variant's settings of `mmsr fit`."""
    return {key: value for key, value in change.items() if key not in _BESIDE_SETTINGS}


def _test_transcripts(
    path: Path, changes: Mapping[str, Settings], evaluation: Evaluation
) -> dict[str, Transcript]:
    found: dict[str, Transcript] = {}
    for name, change in changes.items():
        if (value := change.get("test_transcript")) is None:
            continue
        if value not in _TRANSCRIPTS:
            raise AblationError(
                f"{path}: variant {name!r}: test_transcript {value!r}; accepted: {', '.join(_TRANSCRIPTS)}"
            )
        if evaluation.condition != OWN:
            raise AblationError(
                f"{path}: variant {name!r}: test_transcript {value!r} and evaluation condition "
                f"{evaluation.condition!r} contradict each other; accepted: one or the other"
            )
        found[name] = value
    return found


def _language_models(path: Path, changes: Mapping[str, Settings]) -> dict[str, LanguageModelSettings]:
    found: dict[str, LanguageModelSettings] = {}
    for name, change in changes.items():
        if (file := change.get("language_model")) is None:
            continue
        if given := [key for key in _settings_of(change) if key.partition(".")[0] != "data"]:
            raise AblationError(
                f"{path}: variant {name!r}: {given[0]} is of a training, and a language_model has none; "
                "accepted: settings of data"
            )
        try:
            found[name] = LanguageModelSettings.from_file(path.parent / str(file))
        except ValueError as error:
            raise AblationError(f"{path}: variant {name!r}: language_model {error}") from error
    return found


def _skips_unavailable(path: Path, value: Any) -> bool:
    if value not in UNAVAILABLE:
        raise AblationError(f"{path}: unavailable {value!r}; accepted: {', '.join(UNAVAILABLE)}")
    return value == "skip"


def read_content(path: Path, keys: Sequence[str]) -> Settings:
    """The content of a YAML file with these keys.

    Raises:
        AblationError: There is no such file, it is no YAML, or has other keys.
    """
    if not path.is_file():
        folder = f"{path}: a folder; accepted: a YAML file"
        raise AblationError(f"-c {folder if path.is_dir() else no_such_file(path)}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise AblationError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise AblationError(f"{path} holds {content!r}; accepted: keys {', '.join(keys)}")
    _check_keys(path, "", content, keys)
    return content


def integers(path: Path, key: str, given: Any) -> tuple[int, ...]:
    """A list of different integers, such as seeds.

    Raises:
        AblationError: It is none.
    """
    if not isinstance(given, list) or not given or not all(type(i) is int and i >= 0 for i in given):
        raise AblationError(f"{path}: {key} {given!r}; accepted: a list of integers, 0 or more")
    if len(set(given)) < len(given):
        raise AblationError(f"{path}: {key} {given!r} repeat one; accepted: each once")
    return tuple(given)


def read_base(path: Path, base: Any, find: Callable[[str], Path] | None) -> Settings:
    """The settings of the file that another file names as its base; none without one.

    Raises:
        AblationError: There is no such file.
    """
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
    """The settings of each variant: the grid's combinations, in each of the named variants."""
    grid, named = content.get("grid") or {}, content.get("variants") or {}
    for part, value in (("grid", grid), ("variants", named)):
        if not isinstance(value, dict):
            raise AblationError(f"{path}: {part} {value!r}; accepted: a mapping")
    axes = {str(key): _axis(path, str(key), values, alone=len(grid) == 1) for key, values in grid.items()}
    for name, change in named.items():
        if not isinstance(change, dict | None):
            raise AblationError(f"{path}: variant {name!r}: {change!r}; accepted: a mapping of settings")
    changes: dict[str, Settings] = {}
    for variant, change in (named or {None: {}}).items():
        own = {key: value for key, value in (change or {}).items() if key != "grid"}
        for points in itertools.product(*_chosen(path, variant, axes, (change or {}).get("grid"))):
            names = ([] if variant is None else [str(variant)]) + [point.name for point in points]
            name = ", ".join(names)
            if name in changes:
                raise AblationError(f"{path}: two variants are called {name!r}; accepted: different values")
            changes[name] = own
            for point in points:
                changes[name] = {**changes[name], **point.settings}
    if list(changes) == [""]:
        raise AblationError(f"{path} has neither grid nor variants; accepted: one of the two, or both")
    return changes


@dataclass(frozen=True)
class _Point:
    """A value of an axis of the grid."""

    name: str  # in the names of variants
    key: Any  # the value itself, or the name in the file: by it a variant chooses the point
    settings: Settings


def _axis(path: Path, key: str, values: Any, *, alone: bool) -> list[_Point]:
    """The points of an axis: values of one setting, or named settings."""
    if isinstance(values, dict) and values:
        for name, settings in values.items():
            if not isinstance(settings, dict | None):
                raise AblationError(f"{path}: grid {key} {name!r}: {settings!r}; accepted: a mapping")
        return [_Point(str(name), str(name), settings or {}) for name, settings in values.items()]
    if not isinstance(values, list) or not values:
        raise AblationError(f"{path}: grid {key}: {values!r}; accepted: a list of values, or named settings")
    prefix = "" if alone else f"{key.rpartition('.')[2]}="
    shown = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return [_Point(f"{prefix}{text}", value, {key: value}) for text, value in zip(shown, values, strict=True)]


def _chosen(path: Path, variant: Any, axes: Mapping[str, list[_Point]], only: Any) -> list[list[_Point]]:
    """The points of each axis that a variant takes: all, or those that its `grid` names."""
    if not isinstance(only, dict | None):
        raise AblationError(f"{path}: variant {variant!r}: grid {only!r}; accepted: a mapping")
    for key, values in (only or {}).items():
        if key not in axes:
            raise AblationError(
                f"{path}: variant {variant!r}: grid {key!r} is no axis; accepted: {', '.join(axes) or 'none'}"
            )
        known = [point.key for point in axes[key]]
        wrong = [value for value in values if value not in known] if isinstance(values, list) else [values]
        if wrong or not values:
            accepted = ", ".join(map(str, known))
            raise AblationError(
                f"{path}: variant {variant!r}: grid {key} {values!r}; accepted: a list of some of {accepted}"
            )
    return [
        [point for point in points if key not in (only or {}) or point.key in (only or {})[key]]
        for key, points in axes.items()
    ]


def read_evaluation(path: Path, given: Any) -> Evaluation:
    """How a file's runs are compared.

    Raises:
        AblationError: A key or a value is not accepted.
    """
    if not isinstance(given, dict):
        raise AblationError(f"{path}: evaluation {given!r}; accepted: keys {', '.join(EVALUATION_KEYS)}")
    _check_keys(path, "evaluation ", given, EVALUATION_KEYS)
    for key, (is_valid, accepted) in _CHECKS.items():
        if key in given and not is_valid(given[key]):
            raise AblationError(f"{path}: evaluation {key} {given[key]!r}; accepted: {accepted}")
    if given.get("cluster") is not None and given.get("block_rows") is not None:
        raise AblationError(
            f"{path}: evaluation cluster {given['cluster']!r} and block_rows {given['block_rows']} "
            "contradict each other; accepted: one or the other"
        )
    names: dict[str, Collection[str]] = {
        "metric": [name for name, metric in METRICS.items() if metric.is_comparable],
        "condition": (OWN, *CONDITIONS),
        "conditions": CONDITIONS,
        "also": [name for name, metric in METRICS.items() if not metric.needs_transcripts],
    }
    chosen = dict(given)
    for key in names:
        value = given.get(key, [])
        several = value if isinstance(value, list) and key in ("conditions", "also") else [value]
        for name in several if key in given else ():
            if name not in names[key]:
                raise AblationError(
                    f"{path}: evaluation {key} {name!r} does not exist; accepted: {', '.join(names[key])}"
                )
            if key == "also" and METRICS[name].needs_encoder and given.get("bertscore") is None:
                raise AblationError(
                    f"{path}: evaluation also {name!r} needs a text encoder; accepted: with evaluation "
                    "bertscore: FOLDER"
                )
        if key in ("conditions", "also"):
            chosen[key] = tuple(several)
    return Evaluation(**chosen)


def _check_keys(path: Path, where: str, given: Mapping[str, Any], accepted: Sequence[str]) -> None:
    for key in given:
        if key not in accepted:
            if not where and key in ("data", "model", "trainer"):
                raise AblationError(
                    f"{path} is a configuration of `mmsr fit`, with {key!r}; accepted: keys "
                    f"{', '.join(accepted)}. To train by it: mmsr fit -c {path}"
                )
            hint = did_you_mean(str(key), accepted)
            raise AblationError(f"{path}: {where}{key!r} is no key{hint}; accepted: {', '.join(accepted)}")


def overlaid(path: Path, where: str, base: Settings, changes: Settings) -> Settings:
    """A copy of settings with changes, whose keys may be dotted, nested by section, or both.

    Raises:
        AblationError: A key is no setting.
    """
    accepted = accepted_settings()
    settings = json.loads(json.dumps(base))  # a deep copy, with keys as text

    def put(key: str, value: Any) -> None:
        if isinstance(value, dict) and any(name.startswith(f"{key}.") for name in accepted):
            for inner, inner_value in value.items():
                put(f"{key}.{inner}", inner_value)
            return
        if not any(key == name or key.startswith(f"{name}.") for name in accepted):
            hint = did_you_mean(key, accepted) or f"; accepted: {_of_section(key, accepted)}"
            raise AblationError(f"{path}: {where}: {key!r} is no setting{hint}")
        *parents, last = key.split(".")
        section = settings
        for parent in parents:
            if section.get(parent) is None:
                section[parent] = {}
            section = section[parent]
        section[last] = value

    for key, value in changes.items():
        put(str(key), value)
    return settings


@cache
def accepted_settings() -> tuple[str, ...]:
    """Dotted names of the settings that an ablation may set: those of `mmsr fit` but seeds and folder."""
    defaults = ParsedSettings({"data": {"manifest": "none"}}).parser.get_defaults()
    return tuple(name for name in defaults.keys() if name not in (*_OURS, "config"))


def _of_section(key: str, accepted: Sequence[str]) -> str:
    """The names in the key's section."""
    names = [name for name in accepted if name.startswith(key.partition(".")[0] + ".")]
    return ", ".join(names or ["model.*", "data.*", "trainer.*", "monitor", "monitor_mode"])


class ParsedSettings(MmsrCLI):
    """Settings parsed and checked as `mmsr fit` does, but for the data."""

    _made: ClassVar[Any] = None  # the parser of all: making it takes longer than parsing

    def __init__(self, settings: Settings) -> None:
        quieten()
        self._given = settings
        super().__init__([])

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Set up the parser, once."""
        if ParsedSettings._made is None:
            super().setup_parser(*args, **kwargs)
            ParsedSettings._made = self.parser
        self.parser = ParsedSettings._made

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Parse the settings instead of arguments."""
        self.config = parser.parse_object(self._given)
        check_arguments(self.config)
