"""Checkpoints from which a run goes on as if it had never been interrupted.

best.ckpt  the best epoch by the monitor, whose weights become the model
last.ckpt  the last epoch, or the last validation within one, from which a run is resumed
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from torch import Tensor

from mmsr.training.loggers import MetricsLogger
from mmsr.training.module import MmsrModule, gathered
from mmsr.training.monitor import LAST_EPOCH

_KEY = "mmsr_run"  # of `Continuation` in a checkpoint


class BestCheckpoint(ModelCheckpoint):
    """`best.ckpt`, which may move together with its folder; with the monitor `LAST_EPOCH` the last epoch.

    An epoch whose monitor is NaN or missing is never the best. Lightning would take NaN where there is no
    other value, end the run where one is missing, and forget the best score in another folder.
    """

    def __init__(self, folder: Path, *, monitor: str, mode: str) -> None:
        value = None if monitor == LAST_EPOCH else monitor
        super().__init__(folder, filename="best", monitor=value, mode=mode, enable_version_counter=False)

    @property
    def state_key(self) -> str:
        """Lightning's own, by which checkpoints of earlier versions have the state."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the epoch if it is the best."""
        if self._has_value(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the weights within an epoch if they are the best."""
        if self._has_value(trainer):
            super().on_validation_end(trainer, pl_module)

    def _has_value(self, trainer: L.Trainer) -> bool:
        if self.monitor is None:
            return True
        return not math.isnan(float(trainer.callback_metrics.get(self.monitor, math.nan)))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint, whose folder may have had another path.

        Raises:
            ValueError: The best epoch's file is missing.
        """
        assert self.dirpath is not None
        here = Path(self.dirpath)

        def moved(path: str) -> str:
            return str(here / Path(path).name) if path else path

        best = moved(state_dict["best_model_path"])
        if best and not Path(best).is_file():
            raise ValueError(
                f"{best} is missing, the best epoch of the run that {here / 'last.ckpt'} resumes; accepted: "
                "both files"
            )
        state = {
            **state_dict,
            "dirpath": self.dirpath,
            "best_k_models": {moved(path): score for path, score in state_dict["best_k_models"].items()},
        }
        names = ("best_model_path", "kth_best_model_path", "last_model_path")
        super().load_state_dict(state | {name: moved(state_dict[name]) for name in names})


class LastCheckpoint(Checkpoint):
    """`last.ckpt`, at the end of every epoch and after every validation within one.

    Lightning's `save_last` writes it only together with a best checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "last.ckpt"

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write it within an epoch."""
        if not (trainer.sanity_checking or _is_last_batch(trainer)):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write it at the end of an epoch."""
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.path)


class Continuation(Callback):
    """Adds to a checkpoint what Lightning leaves out, and restores it.

    Always: the states of the random number generators (each process has its own), whether early stopping has
    ended the run, and how much is logged. Within an epoch: the batches that were used, what is logged so far,
    what the module keeps between batches, and the gradients of an accumulation that is not finished.
    """

    def __init__(self) -> None:
        self._found: dict[str, Any] | None = None
        self._loader: dict[str, Any] | None = None
        self._means: dict[str, dict[str, Tensor]] = {}

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the state; every process comes here."""
        assert isinstance(pl_module, MmsrModule)
        within = not _is_last_batch(trainer)
        checkpoint[_KEY] = {
            "generators": gathered(trainer, _generators(pl_module.device)),
            "should_stop": trainer.should_stop,
            "logged": next((log.rows for log in trainer.loggers if isinstance(log, MetricsLogger)), 0),
            "row": {} if within else _row(trainer),
            "batches": trainer.fit_loop.epoch_loop.batch_progress.current.ready if within else None,
            "means": gathered(trainer, _running_means(trainer) if within else {}),
            "gradients": _gradients(trainer, pl_module),
            "module": gathered(trainer, pl_module.state_within_epoch() if within else {}),
        }

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with the table of metrics, and keep the rest until its time comes.

        Checkpoints of earlier versions have none of it.
        """
        self._found = checkpoint.get(_KEY)
        (self._loader,) = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader") or [None]
        found = self._found or {"logged": None, "row": {}}
        for log in trainer.loggers:
            if isinstance(log, MetricsLogger) and trainer.is_global_zero:
                log.resume(found["logged"], step=checkpoint["global_step"], epoch_end=found["row"])

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Train no further epoch if early stopping had ended the run."""
        if self._found is not None:
            trainer.should_stop = self._found["should_stop"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the loader go on.

        Lightning does not if the number of steps was asked for before, as schedulers do. Of an endless loader
        it fetches a batch ahead, which its state counts.
        """
        if self._loader is None:
            return
        used = None if self._found is None else self._found["batches"]
        state = self._loader if used is None else {**self._loader, "given": used}
        loader: Any = trainer.train_dataloader
        loader.load_state_dict(state)
        fetcher: Any = trainer.fit_loop._data_fetcher
        iter(fetcher)  # whose iterator was made before
        self._loader = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the generators before the module seeds torch's by the epoch."""
        if self._found is not None:
            _restore(self._found["generators"][trainer.global_rank], pl_module.device)
            self._found = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Go on within an epoch, whose start Lightning leaves out, after the loader has drawn its seed."""
        if self._found is None:
            return
        found, self._found = self._found, None
        assert isinstance(pl_module, MmsrModule)
        pl_module.resume_within_epoch(found["module"][trainer.global_rank])
        for name, weight in pl_module.named_parameters():
            if name in found["gradients"]:
                weight.grad = found["gradients"][name].to(weight)
        self._means = found["means"][trainer.global_rank]
        _restore(found["generators"][trainer.global_rank], pl_module.device)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Add the means of the epoch's earlier batches to each metric once it is logged again."""
        for key in self._means.keys() & _results(trainer).keys():
            metric = _results(trainer)[key]
            for name, value in self._means.pop(key).items():
                setattr(metric, name, value.to(metric.device) + getattr(metric, name))


def _is_last_batch(trainer: L.Trainer) -> bool:
    """Whether the last batch of the epoch is done."""
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def _row(trainer: L.Trainer) -> dict[str, float]:
    """What the logger is given at the end of an epoch, just after the checkpoint."""
    metrics = {
        name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("train_")
    }
    return {"epoch": trainer.current_epoch, "step": trainer.global_step - 1, **metrics} if metrics else {}


# ---------------------------------------------------------------------- random numbers


def _generators(device: torch.device) -> dict[str, Any]:
    """The states of this process's generators, as types that torch.load takes to be safe."""
    state: Any = np.random.get_state()
    name, keys, *rest = state
    states = {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
    }
    return {**states, "cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def _restore(states: Mapping[str, Any], device: torch.device) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


# ---------------------------------------------------------------------- within an epoch


def _results(trainer: L.Trainer) -> Mapping[str, Any]:
    """The metrics that the training batches of an epoch have logged so far."""
    return trainer.fit_loop.epoch_loop._results


def _running_means(trainer: L.Trainer) -> dict[str, dict[str, Tensor]]:
    return {
        key: {name: getattr(metric, name).cpu() for name in ("value", "cumulated_batch_size")}
        for key, metric in _results(trainer).items()
        if metric.is_tensor
        and metric.meta.is_mean_reduction
        and metric.meta.on_epoch
        and not metric.has_reset
    }


def _gradients(trainer: L.Trainer, module: L.LightningModule) -> dict[str, Tensor]:
    """The mean over processes of the gradients of an unfinished accumulation; empty after a step.

    Processes exchange gradients at the step, and its mean is the same.
    """
    if not trainer.fit_loop._should_accumulate():
        return {}
    found = {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}
    return {
        name: trainer.strategy.reduce(gradient.clone(), reduce_op="mean").cpu()
        for name, gradient in found.items()
    }
