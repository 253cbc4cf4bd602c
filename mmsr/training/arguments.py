"""The arguments of `mmsr fit`: what is wrong with them in one line, before anything is written.

words, YAML ─► jsonargparse ─► `explain`: its error in one line
                 └─► settings ─► `check_arguments` ─► Lightning
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry

from mmsr.extras import missing
from mmsr.files import check_output
from mmsr.messages import did_you_mean, nearest, no_such_file

HELP = "(mmsr fit --help_all)"
_SHOWN = 60  # characters of a file that is no YAML of settings

_TAB = "found character that cannot start any token"  # as libyaml says it

_CLASS_REFUSES = r"Problem with given class_path '(.+?)': +(.+?)(?: - Expected a .*| Given value.*)?$"

# Settings of other programs of Lightning, and what to set here instead.
_ELSEWHERE = {
    **dict.fromkeys(
        ("base", "settings", "grid", "variants", "seeds", "folds"),
        "is of an ablation; accepted: mmsr ablate -c FILE",
    ),
    "optimizer": "the optimiser is AdamW; accepted: --model.learning_rate, --model.weight_decay, ...",
    "lr_scheduler": "the rate warms up, and then falls along a cosine or is constant; accepted: "
    "--model.learning_rate, --model.schedule, --model.warmup_ratio, --model.warmup_steps",
    "lr": "the rate is the model's; accepted: --model.learning_rate",
    "ckpt_path": "the same command continues from its folder; accepted: --trainer.default_root_dir, or "
    "--model.pretrained to start from a checkpoint",
}

# The least accepted value of settings that are not None, or a second accepted one.
_LEAST: Mapping[str, tuple[float, float | None]] = {
    "trainer.max_epochs": (1, -1),
    "trainer.min_epochs": (0, None),
    "trainer.max_steps": (1, -1),
    "trainer.min_steps": (0, None),
    "trainer.num_nodes": (1, None),
    "trainer.accumulate_grad_batches": (1, None),
    "trainer.check_val_every_n_epoch": (1, None),
    "trainer.log_every_n_steps": (0, None),
    "trainer.gradient_clip_val": (0, None),
    "trainer.num_sanity_val_steps": (0, -1),
    "trainer.reload_dataloaders_every_n_epochs": (0, None),
    "early_stopping.patience": (0, None),
    "seed_everything": (0, None),
}

_POSITIVE = ("trainer.limit_train_batches", "trainer.limit_val_batches", "trainer.val_check_interval")

_CHOICES: Mapping[str, Sequence[str]] = {
    "trainer.profiler": ("simple", "advanced", "pytorch"),
    "trainer.gradient_clip_algorithm": ("norm", "value"),
}


# ---------------------------------------------------------------------- files in the package


def packaged_config(name: str) -> Path:
    """The path of a packaged configuration, which a checkout has in experiments/.

    Raises:
        ValueError: There is none of this name.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "experiments", package.parent / "experiments"):
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{name} is no packaged configuration")


def with_packaged_configs(words: Sequence[str]) -> list[str]:
    """The words of `mmsr fit`, in which `-c FILE` finds the packaged configurations too.

    Raises:
        ValueError: There is no such file.
    """
    found = list(words)
    for place, (flag, name) in enumerate(zip(words, words[1:], strict=False), start=1):
        if flag in ("-c", "--config") and not os.path.isfile(name):
            try:
                found[place] = str(packaged_config(Path(name).name))
            except ValueError:
                folder = f"{name}: a folder; accepted: a YAML file"
                fault = folder if os.path.isdir(name) else no_such_file(name)
                raise ValueError(f"-c {fault}; packaged are demo.yaml and own.yaml") from None
    return found


# ---------------------------------------------------------------------- what was typed wrongly


def explain(message: str, parser: ArgumentParser, words: Sequence[str]) -> str:
    """One line about what jsonargparse refuses.

    Args:
        message: Its error.
        parser: The parser, for the settings that there are.
        words: What was typed.
    """
    flat = one_line(message).replace(_TAB, "found what begins no value, perhaps a tab where spaces belong,")
    if found := re.match(r"unrecognized arguments: (\S+)", flat):
        return _unknown(found[1].lstrip("-").partition("=")[0], parser, typed=found[1])
    if found := re.match(r"Group '(.+?)' does not accept option '(.+?)'", flat):
        return _unknown(f"{found[1]}.{found[2]}", parser)
    if found := re.match(r"Option '(.+?)' is not accepted", flat):
        return _unknown(found[1], parser)
    if found := re.match(r"the following arguments are required: (.+)", flat):
        return f"{', '.join(f'--{name}' for name in found[1].split(', '))}: required {HELP}"
    if found := re.match(r"argument (\S+): expected one argument", flat):
        return f"{found[1]} needs a value {HELP}"
    if found := re.match(r"(Problems parsing|Unexpected) config: ?(.*)", flat):
        files = [word for before, word in zip(words, words[1:], strict=False) if before in ("-c", "--config")]
        holds = found[2] if len(found[2]) <= _SHOWN else f"{found[2][:_SHOWN]} ..."
        reason = found[2] if found[1] != "Unexpected" else f"holds {holds or 'nothing'}"
        return f"-c {', '.join(files)}: {reason}; accepted: YAML with settings, such as data: {{manifest: M}}"
    if found := re.match(r'Parser key "(.+?)":', flat):
        return _wrong_value(found[1], message, parser)
    return f"{flat} {HELP}"


def one_line(error: object) -> str:
    """An error's text without line breaks."""
    return " ".join(str(error).split())


def explain_class(error: Exception) -> str | None:
    """One line about a class of a logger or callback that refuses its settings; None of another error."""
    found = re.search(_CLASS_REFUSES, one_line(error))
    if found is None:
        return None
    name = found[1].rpartition(".")[2]
    package = re.match(r"Requirement '([\w-]+)|Neither `(\w+)`", found[2])
    return missing(name, package[1] or package[2]) if package else f"{name}: {found[2]} {HELP}"


def _unknown(name: str, parser: ArgumentParser, *, typed: str = "") -> str:
    """A setting that there is not, with the nearest one."""
    if remedy := _ELSEWHERE.get(name.partition(".")[0]):
        return f"{typed or name}: {remedy} {HELP}"
    if typed and not typed.startswith("-"):
        hint = f"-c {typed}" if typed.endswith((".yaml", ".yml")) else "--SETTING VALUE"
        return f"{typed}: more words than expected; accepted: {hint} {HELP}"
    near = nearest(name, (action.dest for action in parser._actions))
    hint = f"; did you mean {'--' if typed else ''}{near}?" if near else ""
    return f"{typed or name}: no such setting{hint} {HELP}"


def _wrong_value(name: str, message: str, parser: ArgumentParser) -> str:
    """A value that its setting does not take, with those that it takes."""
    if reason := re.search(r"^Parser key \"config\": (.+)", one_line(message)):
        return f"-c: {reason[1]}"
    if reason := re.search(r"Problem with given class_path '(.+?)':\s+(.+)", message):
        return f"--{name} {reason[1]}: {one_line(reason[2])} {HELP}"
    class_name = re.search(r"Expected a dot import path string: (\S+)", message)
    value = class_name or re.search(r"(?:Got|Given) value: (.*)", message)
    kind = next((getattr(a, "_typehint", None) for a in parser._actions if a.dest == name), None)
    accepted = list(dict.fromkeys(_accepted(kind))) if kind is not None else []
    hint = did_you_mean(value[1], accepted) if value else ""
    shown = f" {value[1]}{hint}" if value else ""
    if class_name and hint:  # there are many classes
        return f"--{name}{shown} {HELP}"
    rest = f"accepted: {', '.join(accepted)}" if accepted else one_line(message)
    return f"--{name}{shown}; {rest} {HELP}"


def _accepted(kind: Any) -> Iterator[str]:
    """The values of a type, in words."""
    words = {bool: "true, false", int: "a whole number", float: "a number", str: "a text"}
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        yield from map(str, parts)
    elif origin is Annotated:
        yield from _accepted(parts[0])
    elif origin in (Union, UnionType):
        for part in sorted(parts, key=lambda part: get_origin(part) is not None):  # lists come last
            yield from _accepted(part)
    elif kind in words:
        yield words[kind]
    elif origin is dict:
        yield "a mapping such as {name: value}"
    elif isinstance(origin, type) and issubclass(origin, Iterable):
        yield "a list such as [a, b]"
    elif isinstance(kind, type) and kind is not NoneType:
        yield from sorted({found.__name__ for found in _subclasses(kind)})


def _subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    """Lightning's public classes that can stand for a class."""
    subclasses: list[type[Any]] = kind.__subclasses__()
    for found in subclasses:
        if found.__module__.startswith("lightning.") and not found.__name__.startswith("_"):
            yield found
        yield from _subclasses(found)


# ---------------------------------------------------------------------- what cannot be


def check_arguments(settings: Mapping[str, Any]) -> None:
    """Refuse values with which no training can be done on this machine.

    Args:
        settings: Such as `trainer.max_epochs`.

    Raises:
        ValueError: A number is too small, a name is unknown, or a device is not there.
    """
    for name, (least, other) in _LEAST.items():
        value = settings[name]
        if isinstance(value, bool) or (value is not None and value < least and value != other):
            also = "" if other is None else f", or {other:g} for no limit"
            raise ValueError(f"--{name} {value}; accepted: {least:g} or more{also}")
    for name in _POSITIVE:
        value = settings[name]
        if isinstance(value, int | float) and value <= 0:
            raise ValueError(
                f"--{name} {value}; accepted: a number of batches, or a share of them such as 0.5"
            )
    for name, choices in _CHOICES.items():
        value = settings[name]
        if isinstance(value, str) and value not in choices:
            raise ValueError(f"--{name} {value}; accepted: {', '.join(choices)}")
    if settings["trainer.barebones"] or settings["trainer.enable_checkpointing"] is False:
        name = "barebones true" if settings["trainer.barebones"] else "enable_checkpointing false"
        raise ValueError(f"--trainer.{name}: a run keeps checkpoints and metrics; accepted: without it")
    if settings["trainer.max_epochs"] == -1 and settings["trainer.max_steps"] == -1:
        raise ValueError("--trainer.max_epochs -1 has no end; accepted: with --trainer.max_steps N")
    _check_devices(settings)


def check_run_folder(folder: Path) -> None:
    """Refuse a folder of a run that cannot be written to, unless the run is finished."""
    if not (folder / "model").exists():
        check_output(folder, folder=True, name="--trainer.default_root_dir")


def _check_devices(settings: Mapping[str, Any]) -> None:
    """Refuse devices, strategies and precisions that this machine does not have."""
    accelerator, strategy = settings["trainer.accelerator"], settings["trainer.strategy"]
    devices, precision = settings["trainer.devices"], str(settings["trainer.precision"])
    there = [
        name
        for name in AcceleratorRegistry.available_accelerators()
        if AcceleratorRegistry[name]["accelerator"].is_available()
    ]
    gpu = [name for name in ("cuda", "mps") if name in there]
    if isinstance(accelerator, str) and accelerator not in ("auto", *there, *(["gpu"] if gpu else [])):
        known = accelerator in ("gpu", *AcceleratorRegistry.available_accelerators())
        what = "this machine has none" if known else "no such accelerator"
        raise ValueError(
            f"--trainer.accelerator {accelerator}: {what}; accepted: {', '.join(['auto', *there])}"
        )
    known_strategies = ("auto", *StrategyRegistry.available_strategies())
    if isinstance(strategy, str) and strategy.lower() not in known_strategies:
        usual = [name for name in known_strategies if name.count("_") < 2]
        raise ValueError(
            f"--trainer.strategy {strategy}; accepted: {', '.join(usual)}, "
            "ddp_find_unused_parameters_true, ..."
        )
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not gpu)
    count = str(devices).strip()
    if count in ("0", "[]", "") or (on_cpu and count != "auto" and not re.fullmatch(r"[1-9]\d*", count)):
        of_cpu = "auto, or a number of processes from 1 on"
        of_gpu = "auto, -1 for all, a number from 1 on, or a list such as [0, 1]"
        raise ValueError(f"--trainer.devices {devices}; accepted: {of_cpu if on_cpu else of_gpu}")
    if not on_cpu and gpu == ["cuda"] and count.isdigit() and int(count) > torch.cuda.device_count():
        raise ValueError(f"--trainer.devices {devices}; accepted: 1 to {torch.cuda.device_count()}, or auto")
    if on_cpu and precision in ("16", "16-mixed"):
        raise ValueError(f"--trainer.precision {precision} needs a GPU; accepted: bf16-mixed, 32-true")
