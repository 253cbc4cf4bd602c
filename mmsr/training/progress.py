"""Progress of a training without a terminal: a line each epoch, and each minute within a long one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar

from mmsr.progress import Clock, Pace, duration, log, on_terminal, rate


def progress_of_training() -> ProgressBar:
    """What shows the progress of a training on stderr: a bar on a terminal, lines elsewhere."""
    return RichProgressBar(console_kwargs={"stderr": True}) if on_terminal() else TrainingLines()


class TrainingLines(ProgressBar):
    """Prints the progress of a training as lines, in the first process alone.

    `epoch 3/20  step 120/400  loss 1.23  8.1 steps/s  12 min left` comes ten seconds after the beginning and
    then each minute, and `epoch 3/20  train_loss 1.2  dev_loss 1.1  dev_macro_f1 0.71  41 s  12 min left` at
    the end of an epoch. A step is one of the optimiser. The loss is the mean since the epoch began, or since
    the last line. The time left is that of the whole training; early stopping can end it before.

    Args:
        write: Prints a line.
        clock: Seconds since some moment.
    """

    def __init__(self, write: Callable[[str], None] = log, clock: Clock = time.monotonic) -> None:
        super().__init__()
        self._write: Callable[[str], None] | None = write
        self._clock = clock
        self._pace = Pace(clock)
        self._began = self._epoch_began = clock()
        self._steps_before = 0  # of the run that is resumed
        self._loss: Any = 0.0  # sum over the steps since the last line, a tensor on the device
        self._step_before = self._counted_from = 0

    def disable(self) -> None:
        """Print nothing, as in all processes but the first."""
        self._write = None

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print what a module prints."""
        if self._write is not None:
            self._write(" ".join(map(str, args)))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._pace = Pace(self._clock)
        self._began, self._steps_before = self._clock(), trainer.global_step
        self._loss, self._step_before, self._counted_from = 0.0, trainer.global_step, trainer.global_step

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the epoch."""
        self._epoch_began = self._clock()
        self._loss, self._counted_from = 0.0, trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print the step and the loss, if a line is due."""
        if self._write is None:
            return
        if isinstance(outputs, dict) and "loss" in outputs:
            self._loss = self._loss + outputs["loss"].detach()  # the losses of a step's batches add up
        if trainer.global_step == self._step_before:  # within an accumulation
            return
        self._step_before = trainer.global_step
        if not self._pace.due():
            return
        # reading it waits for the device, so not at each step
        loss = float(self._loss) / (trainer.global_step - self._counted_from)
        self._loss, self._counted_from = 0.0, trainer.global_step
        self._print(
            [self._epoch(trainer), self._step(trainer, batch_idx), f"loss {loss:.4g}", *self._speed(trainer)]
        )

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        *_: Any,
    ) -> None:
        """Print how far a long validation is, if a line is due."""
        if not trainer.sanity_checking and self._pace.due():
            place = f"development batch {batch_idx + 1:,}/{self.total_val_batches:,}"
            self._print([self._epoch(trainer), place])

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the metrics of a validation within an epoch, or of a stream, which has no epochs."""
        if not trainer.sanity_checking and not trainer.is_last_batch:
            done = f"step {trainer.global_step:,}"
            self._print([self._epoch(trainer), done, *self._metrics(trainer), *self._speed(trainer)])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the metrics of the epoch."""
        took = duration(self._clock() - self._epoch_began)
        left = self._left(trainer)
        self._print([self._epoch(trainer), *self._metrics(trainer), took, *left])

    def _print(self, parts: list[str]) -> None:
        if self._write is not None:
            self._write("  ".join(filter(None, parts)))
            self._pace.printed()

    def _epoch(self, trainer: L.Trainer) -> str:
        """Its number; empty for a stream."""
        if math.isinf(trainer.num_training_batches):
            return ""
        last = trainer.max_epochs or -1
        return f"epoch {trainer.current_epoch + 1}" + (f"/{last}" if last > 0 else "")

    def _step(self, trainer: L.Trainer, batch_idx: int) -> str:
        """The optimiser's step within the epoch; of a stream, within the run."""
        if math.isinf(trainer.num_training_batches):
            return f"step {trainer.global_step:,}" + (
                f"/{trainer.max_steps:,}" if trainer.max_steps > 0 else ""
            )
        every = trainer.accumulate_grad_batches
        total = math.ceil(trainer.num_training_batches / every)
        return f"step {math.ceil((batch_idx + 1) / every):,}/{total:,}"

    def _metrics(self, trainer: L.Trainer) -> list[str]:
        values = trainer.callback_metrics
        names = ["train_loss", *(name for name in values if name in ("dev_loss", "dev_macro_f1"))]
        names += [
            found
            for callback in trainer.checkpoint_callbacks
            if (found := getattr(callback, "monitor", None))
        ]
        return [f"{name} {float(values[name]):.4g}" for name in dict.fromkeys(names) if name in values]

    def _speed(self, trainer: L.Trainer) -> list[str]:
        steps, seconds = trainer.global_step - self._steps_before, self._clock() - self._began
        return [rate(steps / seconds, "step"), *self._left(trainer)] if steps and seconds > 0 else []

    def _left(self, trainer: L.Trainer) -> list[str]:
        """The time left, by the time of a step with its share of the validations; unknown without an end."""
        steps, seconds = trainer.global_step - self._steps_before, self._clock() - self._began
        total = trainer.estimated_stepping_batches
        if not steps or math.isinf(total) or total <= trainer.global_step:
            return []
        return [f"{duration((total - trainer.global_step) * seconds / steps)} left"]
