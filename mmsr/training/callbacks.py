"""Callbacks of a run: metrics and cost of each epoch, and the best model, calibrated, as a folder."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.manifest.manifest import utterances
from mmsr.evaluation.calibration import CalibrationError, calibrate, calibration_line
from mmsr.files import atomic_write, write_file
from mmsr.inference.pipeline import TASK, SentimentReasoningPipeline
from mmsr.model.card import model_card
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.records import Answer, Utterance
from mmsr.training.module import MmsrModule
from mmsr.training.parameters import merge_lora

_CALIBRATION_ROWS = 16  # answered at a time


class History(Callback):
    """Metrics of every epoch, and of every evaluation inside one, written to `history.json`.

    They are in the checkpoint too, so that a resumed run has all of them.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the development metrics, the only ones of a stream, which has no epochs."""
        self._write(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the epoch's training losses too."""
        self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        if trainer.sanity_checking:
            return
        metrics = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(("train_", "dev_"))
        }
        self.rows = [row for row in self.rows if row["step"] < trainer.global_step]
        self.rows.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **metrics})
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
    """What training costs, written to `cost.json`: number of trained weights, seconds of every epoch.

    The seconds include the epoch's validation, and not the start of the program. They are in the checkpoint
    too, so that a resumed run has all of them.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.trained = 0
        self._started = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock, and count the trained weights, of which gradual unfreezing adds more."""
        self._started = time.perf_counter()
        counts = [weight.numel() for weight in pl_module.parameters() if weight.requires_grad]
        self.trained = max(self.trained, sum(counts))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the epoch's seconds."""
        self._write(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the seconds of a stream, which has no epochs."""
        if not self.seconds:
            self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
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


class LastValidation(Callback):
    """Evaluates the development split where `max_steps` ends a run inside an epoch.

    Lightning would end without an evaluation, and the best weights could not be chosen. (It still does in an
    epoch that `check_val_every_n_epoch` leaves out, and before `min_epochs`.)
    """

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Set `should_stop`, at which Lightning evaluates before it ends."""
        if 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True


class SaveModel(Callback):
    """Writes the best epoch's model, by the checkpoint callback's monitor, to the run's `model/`.

    Its temperatures are fitted to the development split first.
    """

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
        print(calibrate_model(model, processor, trainer.datamodule), file=sys.stderr)  # type: ignore[attr-defined]
        save_model(model, processor, Path(trainer.default_root_dir) / "model")


def calibrate_model(model: MmsrForSentimentReasoning, processor: MmsrProcessor, data: MmsrDataModule) -> str:
    """Fit the config's temperatures to the development rows; returns a line that says what came of it.

    Where the head gives the label, they come as in training, from the feature store if there is one.
    Where the decoder does, or several processes train and each has a part of them, the pipeline answers them
    all. Rows that allow no temperature leave it at 1.
    """
    model.config.temperature = model.config.decoder_temperature = 1.0
    model.eval()
    layout, trainer = model.config.format, data.trainer
    alone = trainer is None or trainer.world_size == 1
    by_loader = alone and (layout is None or not layout.label_learned)

    def predict(rows: Sequence[Utterance]) -> list[Answer]:
        if by_loader:
            return _answers(model, data)
        pipe = SentimentReasoningPipeline(model=model, processor=processor, device=model.device, task=TASK)
        inputs = [{"audio": row.audio, "text": row.text} for row in rows]
        answers = pipe(inputs, batch_size=_CALIBRATION_ROWS, rationale=False)
        return [Answer.from_dict(answer) for answer in answers]

    try:
        found = calibrate(
            predict, utterances(data.dev_rows), labels=model.config.labels, text_column=data.text_column
        )
    except CalibrationError as error:
        return f"probabilities are not calibrated (temperature 1), development split: {error}"
    model.config.temperature = found["temperature"]
    model.config.decoder_temperature = found.get("decoder_temperature", 1.0)
    return calibration_line(found)


@torch.no_grad()
def _answers(model: MmsrForSentimentReasoning, data: MmsrDataModule) -> list[Answer]:
    """The head's answer to each labelled development row, in the rows' order."""
    loader, labels = data.val_dataloader(), model.config.labels
    answers: dict[int, Answer] = {}
    for rows, batch in zip(list(loader.batch_sampler), loader, strict=True):  # type: ignore[arg-type]
        inputs = {name: value.to(model.device) for name, value in batch.items() if "labels" not in name}
        memory = model.encoder(**inputs, return_dict=True)
        scores = model.head(memory.last_hidden_state, memory.attention_mask).float().softmax(-1)
        for row, label, of_row in zip(rows, batch["sentiment_labels"].tolist(), scores.tolist(), strict=True):
            if label >= 0:
                by_label = dict(zip(labels, of_row, strict=True))
                best = max(by_label, key=by_label.__getitem__)
                answers[row] = Answer(label=best, score=by_label[best], scores=by_label)
    return [answers[row] for row in sorted(answers)]


def save_model(model: MmsrForSentimentReasoning, processor: MmsrProcessor, folder: Path) -> None:
    """Write a Hugging Face folder that appears whole, by rename, in place of what stood there."""
    with atomic_write(folder) as half:
        model.save_pretrained(half)
        processor.save_pretrained(half)
        card = model_card(model.config, name=folder.name, parameters=model.num_parameters())
        card.save(half / "README.md")  # save_pretrained's bears the name of the half-written folder
