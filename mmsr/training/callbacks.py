"""Callbacks of a run: the curve and the cost of each epoch, and the best model as a Hugging Face folder."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from mmsr.files import appearing, write_file
from mmsr.model.card import model_card
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.training.module import MmsrModule
from mmsr.training.parameters import merge_lora


class History(Callback):
    """Figures of every epoch, and of every evaluation inside one, written to `history.json`.

    They are kept in the checkpoint, so that a run that goes on has them whole.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take down the development figures, which a stream without epochs has alone."""
        self._take(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take down the epoch's losses too."""
        self._take(trainer)

    def _take(self, trainer: L.Trainer) -> None:
        if trainer.sanity_checking:
            return
        figures = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(("train_", "dev_"))
        }
        self.rows = [row for row in self.rows if row["step"] < trainer.global_step]
        self.rows.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **figures})
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / "history.json"
            write_file(path, json.dumps(self.rows, indent=1).encode())

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.rows = state_dict["rows"]


class Cost(Callback):
    """What training costs, written to `cost.json`: weights that are trained, seconds of every epoch.

    Seconds hold the epoch's validation too, and no start of the program. They are kept in the checkpoint, so
    that a run that goes on has them whole.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.trained = 0
        self._started = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock, and count: with gradual unfreezing the weights become more."""
        self._started = time.perf_counter()
        counts = [weight.numel() for weight in pl_module.parameters() if weight.requires_grad]
        self.trained = max(self.trained, sum(counts))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write down what the epoch took."""
        self._take(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write down what a stream took, which has no epochs."""
        if not self.seconds:
            self._take(trainer)

    def _take(self, trainer: L.Trainer) -> None:
        self.seconds.append(round(time.perf_counter() - self._started, 3))
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / "cost.json"
            write_file(path, json.dumps(self.state_dict()).encode())

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"trained_parameters": self.trained, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.trained, self.seconds = state_dict["trained_parameters"], list(state_dict["seconds"])


class SaveModel(Callback):
    """Writes the best epoch's model, by the checkpoint callback's monitor, to the run's `model/`."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Load the best weights and save model and processor."""
        checkpoints = trainer.checkpoint_callback
        if trainer.interrupted or not trainer.is_global_zero:
            return
        assert isinstance(checkpoints, ModelCheckpoint) and isinstance(pl_module, MmsrModule)
        if best := checkpoints.best_model_path:
            state = torch.load(best, map_location="cpu", weights_only=False)["state_dict"]
            pl_module.load_state_dict(state)
        model, processor = pl_module.parts()
        merge_lora(model)
        save_model(model, processor, Path(trainer.default_root_dir) / "model")


def save_model(model: MmsrForSentimentReasoning, processor: MmsrProcessor, folder: Path) -> None:
    """Write a Hugging Face folder that appears whole, by rename, in place of what stood there."""
    with appearing(folder) as half:
        model.save_pretrained(half)
        processor.save_pretrained(half)
        card = model_card(model.config, name=folder.name, parameters=model.num_parameters())
        card.save(half / "README.md")  # save_pretrained's bears the name of the half-written folder
