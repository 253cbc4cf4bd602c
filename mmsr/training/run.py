"""One training run in one folder: the same command starts it, resumes it, or finds it finished.

D/run.yaml     identity of the run: its settings and the fingerprint of its data
D/checkpoints/ last.ckpt, from which an interrupted run is resumed, and best.ckpt
D/history.json metrics of every epoch
D/model/       the best model as a Hugging Face folder; the run is finished once it exists
"""

import logging
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers.utils.logging
import yaml
from jsonargparse import set_parsing_settings
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.manifest.manifest import fingerprint, load_manifest
from mmsr.files import write_file
from mmsr.model.configuration import RATIONALE_FORMATS
from mmsr.model.fusion import FUSION_CLASSES
from mmsr.training.arguments import check_arguments, check_run_folder, explain, one_line
from mmsr.training.callbacks import CheckMonitors, History, LastValidation, SaveModel
from mmsr.training.interruption import one_line_endings
from mmsr.training.module import MmsrModule
from mmsr.training.monitor import checked_mode
from mmsr.training.progress import progress_of_training
from mmsr.training.settings import TrainingSettings

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the help of each setting

# Settings of the trainer that do not change what is learned, and are not in a run's identity.
_NOT_IN_IDENTITY = (
    "default_root_dir",
    "enable_progress_bar",
    "logger",
    "accelerator",
    "devices",
    "callbacks",
)


def make_module(**settings: Any) -> MmsrModule:
    """Model and training."""
    return MmsrModule(TrainingSettings(**settings))


class MmsrCLI(LightningCLI):
    """LightningCLI of `mmsr fit`: `trainer`, `model` and `data` from a YAML file and flags."""

    def __init__(self, args: Sequence[str], **kwargs: Any) -> None:
        super().__init__(
            make_module,
            MmsrDataModule,
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
        parser.add_argument("--monitor", type=str, default="dev_loss", help="Chooses the best epoch.")
        parser.add_argument("--monitor_mode", type=str, default="auto", help="min, max, or auto.")

    def before_instantiate_classes(self) -> None:
        """Replace each monitor's `auto` by `min` or `max`, which a run's identity has.

        Raises:
            ValueError: A mode contradicts its monitor, or no run logs the monitor.
        """
        for monitor, mode in (("monitor", "monitor_mode"), ("early_stopping.monitor", "early_stopping.mode")):
            self.config[mode] = checked_mode(self.config[monitor], self.config[mode], flag=f"--{mode}")

    def instantiate_classes(self) -> None:
        """Make model, data and trainer.

        Raises:
            ValueError: Lightning, or a class of a logger or callback, refuses its settings.
        """
        try:
            super().instantiate_classes()
        except (MisconfigurationException, ImportError, RuntimeError, TypeError) as error:
            raise ValueError(one_line(error)) from error

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """The trainer, with the run's checkpoints, logger, progress and precision."""
        trainer = self.config_init["trainer"]
        folder = Path(trainer["default_root_dir"])
        logger, callbacks = trainer["logger"], list(trainer["callbacks"] or [])
        quiet = trainer["enable_progress_bar"] is False or trainer["barebones"]
        if not quiet and not any(isinstance(callback, ProgressBar) for callback in callbacks):
            callbacks.append(progress_of_training())
        checkpoints = ModelCheckpoint(
            folder / "checkpoints",
            filename="best",
            monitor=self.config["monitor"],
            mode=self.config["monitor_mode"],
            save_last=True,
            enable_version_counter=False,
        )
        return super().instantiate_trainer(
            precision=trainer["precision"] or mixed_precision(),
            logger=CSVLogger(folder, name="logs", version="") if logger is None else logger,
            callbacks=[CheckMonitors(), *callbacks, checkpoints, History(), LastValidation(), SaveModel()],
            use_distributed_sampler=False,
            **kwargs,
        )


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


def fit(args: Sequence[str]) -> Path:
    """Train with the arguments of `mmsr fit`, and return the folder of the model.

    The same arguments resume an interrupted run, and do nothing if the run is finished.

    Raises:
        ValueError: The folder holds another run, or settings or data have faults.
        KeyboardInterrupt: The run was interrupted; it can be resumed.
    """
    quieten()
    cli = MmsrCLI(args)
    folder = Path(cli.trainer.default_root_dir)
    model = folder / "model"
    new = not (folder / "run.yaml").exists()
    _claim(folder, _identity(cli))
    if model.exists():
        print(f"{model}: this run is finished; delete {folder} to train it again", file=sys.stderr)
        return model
    last = folder / "checkpoints" / "last.ckpt"
    if last.exists():
        print(f"resumed from {last}", file=sys.stderr)
    resumed = str(last) if last.exists() else None
    try:
        with one_line_endings(last):
            cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=resumed)
    except ValueError:  # a fault in settings or data: leave the folder to the corrected run
        if new and not last.exists():
            (folder / "run.yaml").unlink(missing_ok=True)
        raise
    return model


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
    rows = load_manifest(
        cli.datamodule.manifest,
        labels=cli.model.settings.labels,
        columns=cli.datamodule.columns,
        label_map=cli.datamodule.label_map,
        check_audio=False,  # the fingerprint reads the files anyway
    )
    return {**settings, "data_fingerprint": fingerprint(rows)}


def settings_that_matter(cli: MmsrCLI) -> dict[str, Any]:
    """Settings of a run that change what is learned: plain values with defaults, without null ones."""
    settings = yaml.safe_load(cli.parser.dump(cli.config))
    for name in _NOT_IN_IDENTITY:
        settings["trainer"].pop(name, None)
    settings.pop("config", None)
    return settings


def _claim(folder: Path, identity: dict[str, Any]) -> None:
    """Write a run's identity to its folder, or check that the folder holds the same run."""
    path = folder / "run.yaml"
    if not path.exists():
        write_file(path, yaml.safe_dump(identity, allow_unicode=True).encode())
        return
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    flat_found, flat = _flat(found), _flat(identity)
    differing = sorted(name for name in flat | flat_found if flat.get(name) != flat_found.get(name))
    if differing:
        shown = ", ".join(f"{name} {flat_found.get(name)!r} -> {flat.get(name)!r}" for name in differing[:5])
        raise ValueError(
            f"{folder} holds another run ({shown}{' ...' if len(differing) > 5 else ''}); accepted: another "
            "--trainer.default_root_dir, or delete that folder"
        )


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
