"""One training run in one folder: the same command starts it, resumes it, or finds it finished.

D/run.yaml     identity of the run: its settings and the fingerprint of its data, and how it was begun
D/checkpoints/ last.ckpt, from which an interrupted run is resumed, and best.ckpt
D/history.json metrics of every epoch; logs/metrics.csv has them as a table
D/model/       the best model as a Hugging Face folder; the run is finished once it exists
D/.lock        keeps a second process out of the folder while one trains there
"""

import logging
import os
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers.utils.logging
import yaml
from jsonargparse import set_parsing_settings
from lightning.pytorch.callbacks import EarlyStopping, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.manifest.manifest import fingerprint
from mmsr.files import folder_lock, write_file
from mmsr.model.configuration import RATIONALE_FORMATS
from mmsr.model.fusion import FUSION_CLASSES
from mmsr.progress import log
from mmsr.training.arguments import (
    check_arguments,
    check_run_folder,
    explain,
    explain_class,
    one_line,
    with_packaged_configs,
)
from mmsr.training.automatic import choose_settings
from mmsr.training.callbacks import CheckSettings, Cost, History, LastValidation, SaveModel
from mmsr.training.checkpoints import BestCheckpoint, Continuation, LastCheckpoint
from mmsr.training.interruption import one_line_endings
from mmsr.training.loggers import MetricsLogger
from mmsr.training.module import MmsrModule
from mmsr.training.monitor import LAST_EPOCH, checked_mode
from mmsr.training.progress import progress_of_training
from mmsr.training.settings import TrainingSettings

# Settings of the trainer that do not change what is learned. The number of processes does, and stands under
# `begun_with`.
_NOT_IN_IDENTITY = ("default_root_dir", "enable_progress_bar", "logger", "accelerator", "devices")

_LENGTHS = {"trainer.max_epochs", "trainer.max_steps"}
_BEGUN_WITH = "begun_with"  # in run.yaml, what the machine decided
_REPLACE = "replace_unfinished"
_MONITOR = (
    "Chooses the best epoch: a value of the development rows; or last_epoch, which keeps the last one. With "
    "few development rows the values differ by chance more than late epochs do."
)

# Entries of the two caches in which torch and oneDNN keep what they prepared for a shape on a CPU. Batches
# seldom repeat a shape: with the libraries' 1024 entries the memory of a run grows for epochs. Three steps of
# the demo whose shapes do repeat took 1.7 times as long with 64, and no longer with 256.
_SHAPES_KEPT = {"LRU_CACHE_CAPACITY": "256", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256"}

# What an unfinished run leaves in its folder.
_LEFT = (
    "run.yaml",
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
    "history.json",
    "cost.json",
    "logs/metrics.csv",
    "logs/hparams.yaml",
)


def make_module(**settings: Any) -> MmsrModule:
    """Model and training."""
    return MmsrModule(TrainingSettings(**settings))


class MmsrCLI(LightningCLI):
    """LightningCLI of `mmsr fit`: `trainer`, `model` and `data` from a YAML file and flags.

    Attributes:
        module_factory: Makes the module of a run from its settings.
        data_class: Class of its data module.
    """

    module_factory: Callable[..., MmsrModule] = staticmethod(make_module)
    data_class: type[MmsrDataModule] = MmsrDataModule

    def __init__(self, args: Sequence[str], **kwargs: Any) -> None:
        # what help says of each setting is slow to read
        told = any(word == "-h" or "help" in word or word.startswith("--print_") for word in args)
        set_parsing_settings(docstring_parse_attribute_docstrings=told)
        super().__init__(
            self.module_factory,
            self.data_class,
            args=list(args),
            run=False,
            auto_configure_optimizers=False,  # --optimizer and --lr_scheduler, which would change nothing
            seed_everything_default=0,
            save_config_callback=None,
            trainer_defaults={
                "default_root_dir": "runs/fit",
                "max_epochs": 10,
                "gradient_clip_val": 1.0,
                "enable_model_summary": False,
                "num_sanity_val_steps": 0,
                "log_every_n_steps": 10,
            },
            parser_kwargs={"prog": "mmsr fit", "default_env": False, "exit_on_error": False},
            **kwargs,
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments.

        Raises:
            ValueError: There is no such setting, a value is not of its type, or no training can be done with
                it on this machine.
        """
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            raise ValueError(explain(str(error), parser, args)) from None
        check_arguments(self.config)
        check_run_folder(Path(self.config["trainer.default_root_dir"]))

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The seed, which is a number: a run with a random one could not be resumed."""
        seed = self.seed_everything_default
        parser.add_argument("--seed_everything", type=int, default=seed, help="Seed of weights and order.")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """One seed for all, and early stopping on the development split."""
        parser.link_arguments("seed_everything", "model.seed")
        parser.link_arguments("seed_everything", "data.seed")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        stopping = {"monitor": "dev_loss", "mode": "auto", "patience": 5}
        parser.set_defaults({f"early_stopping.{name}": value for name, value in stopping.items()})
        for name, table in (("fusion", FUSION_CLASSES), ("rationale_format", RATIONALE_FORMATS)):
            setting = next(action for action in parser._actions if action.dest == f"model.{name}")
            setting.help = f"{setting.help} One of {', '.join(table)}."
        parser.add_argument("--monitor", type=str, default="dev_loss", help=_MONITOR)
        parser.add_argument("--monitor_mode", type=str, default="auto", help="min, max, or auto.")
        parser.add_argument(
            f"--{_REPLACE}",
            action="store_true",
            help="Delete an unfinished run of other settings or data in the folder, and start this one. "
            "A run of the same settings is resumed, and a finished one is kept.",
        )

    def before_instantiate_classes(self) -> None:
        """Replace each `auto` by its meaning, which a run's identity has.

        Raises:
            ValueError: A mode contradicts its monitor, no run logs the monitor, or the training rows, by
                which settings are chosen, cannot be read.
        """
        for monitor, mode in (("monitor", "monitor_mode"), ("early_stopping.monitor", "early_stopping.mode")):
            if self.config[monitor] == LAST_EPOCH and monitor != "monitor":
                raise ValueError(f"--{monitor} {LAST_EPOCH} is no value; accepted: one, such as dev_loss")
            self.config[mode] = checked_mode(self.config[monitor], self.config[mode], flag=f"--{mode}")
        self._chosen_by = choose_settings(self.config, rank_zero_only(log))

    def instantiate_classes(self) -> None:
        """Make model, data and trainer.

        Raises:
            ValueError: Lightning, or a class of a logger or callback, refuses its settings.
        """
        try:
            super().instantiate_classes()
            if self._chosen_by is not None:
                self.datamodule.take_tables(self._chosen_by)
        except (MisconfigurationException, ImportError, RuntimeError, TypeError) as error:
            raise ValueError(one_line(error)) from error
        except ValueError as error:
            if line := explain_class(error):
                raise ValueError(line) from error
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """The trainer, with the run's checkpoints, logger, progress and precision."""
        trainer = self.config_init["trainer"]
        folder = Path(trainer["default_root_dir"])
        logger, callbacks = trainer["logger"], list(trainer["callbacks"] or [])
        quiet = trainer["enable_progress_bar"] is False
        if not quiet and not any(isinstance(callback, ProgressBar) for callback in callbacks):
            callbacks.append(progress_of_training())
        best = BestCheckpoint(
            folder / "checkpoints", monitor=self.config["monitor"], mode=self.config["monitor_mode"]
        )
        ours = [best, LastCheckpoint(folder / "checkpoints"), History(), LastValidation(), SaveModel()]
        return super().instantiate_trainer(
            precision=trainer["precision"] or self._precision(folder),
            logger=MetricsLogger(folder) if logger is None else logger,
            callbacks=[CheckSettings(), *callbacks, *ours, Continuation()],
            use_distributed_sampler=False,
            **kwargs,
        )

    def _precision(self, folder: Path) -> str:
        """The precision in which the run was begun, maybe on another machine; else `mixed_precision`."""
        found, here = _read(folder), mixed_precision()
        begun: str = found.get(_BEGUN_WITH, {}).get("precision", here)
        settings = settings_that_matter(self)
        if begun == here or _differing(
            {**found, "data_fingerprint": None}, {**settings, "data_fingerprint": None}
        ):
            return here
        print(
            f"precision {begun}, in which the run was begun; a new run here would have {here}",
            file=sys.stderr,
        )
        return begun


def mixed_precision() -> str:
    """`bf16-mixed` if the device computes in it natively, else `32-true`.

    A CPU needs AVX-512 BF16 or AMX; emulation is slower than float32.
    """
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    able = torch.cpu.get_capabilities()
    return "bf16-mixed" if able.get("avx512_bf16") or able.get("amx_bf16") else "32-true"


def is_bf16(precision: str | None = None) -> bool:
    """Whether a trainer of this precision computes under bfloat16 autocast; None is `mixed_precision`."""
    return (precision or mixed_precision()) in ("bf16-mixed", "bf16")


def fit(args: Sequence[str], *, parse: Callable[[Sequence[str]], MmsrCLI] = MmsrCLI) -> Path:
    """Train with the arguments of `mmsr fit`, and return the folder of the model.

    The same arguments resume an interrupted run, and do nothing if the run is finished.

    Args:
        args: The arguments.
        parse: Makes module, data and trainer of them.

    Raises:
        ValueError: The folder holds another run, another process trains there, or settings or data have
            faults.
        KeyboardInterrupt: The run was interrupted; it can be resumed.
    """
    quieten()
    for name, entries in _SHAPES_KEPT.items():  # read at the first computation of this process
        os.environ.setdefault(name, entries)
    cli = parse(with_packaged_configs(args))
    folder = Path(cli.trainer.default_root_dir)
    with _locked(folder, cli):
        return _fit(cli, folder)


def _fit(cli: MmsrCLI, folder: Path) -> Path:
    model, last = folder / "model", folder / "checkpoints" / "last.ckpt"
    _claim(folder, cli)
    if model.exists():
        print(f"{model}: this run is finished; delete {folder} to train it again", file=sys.stderr)
        return model
    resumed = str(last) if last.exists() else None
    if resumed:
        print(f"resumed from {last}", file=sys.stderr)
    try:
        with one_line_endings(last):
            cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=resumed)
    except Exception as error:
        if not last.exists() and cli.trainer.is_global_zero:  # leave the folder to the corrected run
            (folder / "run.yaml").unlink(missing_ok=True)
        if isinstance(error, RuntimeError) and str(error).startswith("Early stopping conditioned on metric"):
            monitor = cli.config["early_stopping.monitor"]
            raise ValueError(
                f"--early_stopping.monitor {monitor} has no value on this data; accepted: dev_loss, or "
                "another value in history.json"
            ) from error
        raise
    return model


@contextmanager
def _locked(folder: Path, cli: MmsrCLI) -> Iterator[None]:
    """The lock of a run's folder, which the first of its processes takes for all."""
    finished = (folder / "model").exists()
    if not cli.trainer.is_global_zero or (finished and not os.access(folder, os.W_OK)):
        yield  # a finished run is not written, so that its folder may be read-only
        return
    with folder_lock(folder, nested=True):  # ablate and demo have it already
        yield


def quieten() -> None:
    """Silence messages of Lightning and transformers that do not apply to these runs."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    for message in (
        ".*does not have many workers.*",
        "The `srun` command is available.*",  # one process needs none
        ".*args parameter is intended to run from within Python.*",
        r"Found \d+ module\(s\) in eval mode",  # frozen parts are
        ".*is smaller than the logging interval.*",
        ".*LeafSpec.*",
        "(Experiment logs|Checkpoint) directory .* exists and is not empty",
        ".*WeightAveraging callback with a model that overrides.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def _identity(cli: MmsrCLI) -> dict[str, Any]:
    """Settings and data fingerprint of a run: equal for equal runs."""
    settings = settings_that_matter(cli)
    if cli.datamodule.streaming:  # a stream has no fingerprint
        return settings
    rows = cli.datamodule.table(cli.model.settings.labels)
    return {**settings, "data_fingerprint": fingerprint(rows)}


def settings_that_matter(cli: MmsrCLI) -> dict[str, Any]:
    """Settings of a run that change what is learned: plain values with defaults, without null ones."""
    settings = yaml.safe_load(cli.parser.dump(cli.config))
    trainer = settings["trainer"]
    for name in _NOT_IN_IDENTITY:
        trainer.pop(name, None)
    cost = f"{Cost.__module__}.{Cost.__qualname__}"  # an ablation adds it, and it changes nothing
    callbacks = trainer.pop("callbacks", None) or []
    if others := [callback for callback in callbacks if callback.get("class_path") != cost]:
        trainer["callbacks"] = others
    for name in ("config", _REPLACE):
        settings.pop(name, None)
    return settings


def _claim(folder: Path, cli: MmsrCLI) -> None:
    """Make the folder that of the run, or check that it is: `run.yaml` tells whose it is.

    A run without a checkpoint has nothing to lose, and gives way to any other.

    Raises:
        ValueError: The folder holds another run, or the run was begun with another number of processes.
    """
    identity, found = _identity(cli), _read(folder)
    begun = {"processes": cli.trainer.world_size, "precision": str(cli.trainer.precision)}
    differing = _differing(found, identity) if found else {}
    last, finished = folder / "checkpoints" / "last.ckpt", (folder / "model").exists()
    if last.exists() and _is_lengthened(differing, cli.model.settings):
        if cli.trainer.is_global_zero:
            _lengthen(folder, differing, {**identity, _BEGUN_WITH: found[_BEGUN_WITH]})
        differing, finished = {}, False
    if differing and (finished or last.exists() or (folder / "metrics.json").exists()):
        _refuse_another_run(folder, differing, finished=finished, replace=cli.config[_REPLACE])
    processes = found.get(_BEGUN_WITH, begun)["processes"]
    if not differing and last.exists() and not finished and processes != begun["processes"]:
        raise ValueError(
            f"{folder} was begun with {processes} processes, and there are {begun['processes']} now, so that "
            f"steps and learning rates would change; accepted: --trainer.devices for {processes}, or another "
            "--trainer.default_root_dir"
        )
    if not cli.trainer.is_global_zero or (found and not differing and (finished or last.exists())):
        return
    if differing or not last.exists():
        for name in _LEFT:
            (folder / name).unlink(missing_ok=True)
    _write(folder, {**identity, _BEGUN_WITH: begun})


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    """Write `run.yaml`."""
    write_file(folder / "run.yaml", yaml.safe_dump(dict(content), allow_unicode=True).encode())


def _is_lengthened(differing: Mapping[str, tuple[Any, Any]], settings: TrainingSettings) -> bool:
    """Whether the same run is only to take longer, and its learning rates do not depend on that."""
    return (
        bool(differing)
        and differing.keys() <= _LENGTHS
        and all(now == -1 or 0 <= before < now for before, now in differing.values())
        and settings.schedule == "constant"
        and (settings.warmup_steps is not None or settings.warmup_ratio == 0)
    )


def _lengthen(folder: Path, differing: Mapping[str, tuple[Any, Any]], content: Mapping[str, Any]) -> None:
    """Name a run by its new length; the model of the shorter run stays beside."""
    model = folder / "model"
    if model.exists():
        name, (before, _) = next(iter(differing.items()))
        shorter = folder / f"model_{name.rpartition('.')[2]}_{before}"
        model.rename(shorter)
        log(f"{shorter}: the model so far; {model} will be that of the longer run")
    _write(folder, content)


def _refuse_another_run(folder: Path, differing: dict[str, Any], *, finished: bool, replace: bool) -> None:
    """Raise unless the run may be replaced."""
    if replace and not finished:
        print(f"{folder}: the unfinished run of other settings is deleted", file=sys.stderr)
        return
    shown = ", ".join(f"{name} {before!r} -> {now!r}" for name, (before, now) in list(differing.items())[:5])
    ways = "another --trainer.default_root_dir, or delete that folder"
    if not finished:
        ways += f"; or --{_REPLACE}, which deletes that run's checkpoints"
    elif replace:
        ways += f" (that run is finished, and --{_REPLACE} keeps it)"
    if finished and differing.keys() <= _LENGTHS:  # most often somebody wants more epochs
        ways = (
            f"as a new run from its weights, --model.init_from {folder / 'model'} "
            "--trainer.default_root_dir OTHER; only runs with --model.schedule constant and "
            f"--model.warmup_steps can be made longer; or {ways}"
        )
    more = " ..." if len(differing) > 5 else ""
    raise ValueError(f"{folder} holds another run ({shown}{more}); accepted: {ways}")


def _read(folder: Path) -> dict[str, Any]:
    """The content of `run.yaml`; empty without one."""
    path = folder / "run.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


def _differing(found: dict[str, Any], identity: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, by name, with both values."""
    before, now = _flat(found), _flat({**identity, _BEGUN_WITH: found.get(_BEGUN_WITH)})
    ignored = set()
    if _BEGUN_WITH not in found:  # of an earlier version, which left callbacks out
        ignored.add("trainer.callbacks")
    if not now.get("data.streaming"):  # a stream is divided among the workers
        ignored.add("data.num_workers")
    return {
        name: (before.get(name), now.get(name))
        for name in sorted((before | now).keys() - ignored)
        if before.get(name) != now.get(name)
    }


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
