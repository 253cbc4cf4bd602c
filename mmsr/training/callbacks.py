"""Callbacks of a run: metrics and cost of each epoch, and the best model as a folder."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import Tensor

from mmsr.data.audio.decoding import Audio
from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.manifest.manifest import column_of, distinct, utterances
from mmsr.evaluation.calibration import CalibrationError, calibrate, calibration_line
from mmsr.files import write_file
from mmsr.model.card import Origin
from mmsr.model.configuration import RATIONALE_FORMATS, MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning, save_model
from mmsr.model.packaged import find_checkpoint
from mmsr.model.processing import MmsrProcessor, given_columns
from mmsr.model.quotes import QuoteGrammar
from mmsr.records import IDS, Answer, Utterance
from mmsr.training.checkpoints import BestCheckpoint, LastCheckpoint
from mmsr.training.factory import check_sources
from mmsr.training.memory import fill_memory
from mmsr.training.module import MmsrModule
from mmsr.training.monitor import check_logged
from mmsr.training.parameters import merge_lora

_CALIBRATION_ROWS = 16  # in a batch


class CheckSettings(Callback):
    """Refuses pretrained parts that are not there, and monitors that the run will not log.

    This is before the model is made and features are stored.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check the pretrained parts, and the monitors of the best epoch and of early stopping.

        Raises:
            ValueError: A part is missing, or model, objectives or development rows do not give a monitored
                value.
        """
        if trainer.ckpt_path:  # it was checked before, and a checkpoint to start from may be gone
            return
        assert isinstance(pl_module, MmsrModule)
        settings, rows = pl_module.settings, trainer.datamodule.dev_rows  # type: ignore[attr-defined]
        known = {name: column_of(rows, name).null_count < len(rows) for name in ("label", "rationale")}
        check_sources(settings)
        layout = RATIONALE_FORMATS[settings.rationale_format]
        if settings.pretrained:
            layout = MmsrConfig.from_pretrained(find_checkpoint(settings.pretrained)).format
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping | ModelCheckpoint) and callback.monitor:
                check_logged(
                    callback.monitor,
                    layout=layout,
                    objectives=settings.objectives or (),
                    labelled=known["label"],
                    explained=known["rationale"],
                )


class History(Callback):
    """Writes the metrics of each epoch, and of each validation within one, to `history.json`.

    They are in checkpoints too, so that a resumed run has all of them.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the development metrics; a stream, which has no epochs, has no others."""
        if not trainer.sanity_checking:
            self._write(trainer, {}, "dev_")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the training losses of the epoch too."""
        validated = self.rows[-1] if self.rows and self.rows[-1]["step"] == trainer.global_step else {}
        self._write(trainer, validated, "train_")

    def _write(self, trainer: L.Trainer, row: dict[str, float], prefix: str) -> None:
        """Write a row with what it has and the metrics of a prefix; the others may be of an earlier epoch."""
        new = {
            name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(prefix)
        }
        self.rows = [row for row in self.rows if row["step"] < trainer.global_step]
        self.rows.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **row, **new})
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
    """Writes the number of trained weights and the seconds of each epoch to `cost.json`.

    The seconds include validation. They are in checkpoints too, so that a resumed run has all of them.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.trained = 0
        self._started = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock where a run is resumed within an epoch."""
        self._started = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock, and count the trained weights, whose number grows with gradual unfreezing."""
        self._started = time.perf_counter()
        counts = [weight.numel() for weight in pl_module.parameters() if weight.requires_grad]
        self.trained = max(self.trained, sum(counts))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the seconds of the epoch."""
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
    """Validates where `max_steps` ends a run within an epoch, so that the best weights can be chosen.

    Lightning alone would not, and still does not in an epoch that `check_val_every_n_epoch` leaves out.
    """

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Set `should_stop`, after which Lightning validates before it ends."""
        if 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True


class SaveModel(Callback):
    """Calibrates the best model and writes it to `model/`; without a best epoch it is the last one's.

    With `rationale_format="retrieval"` its memory is filled from the training rows.
    """

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Load the best weights and save model and processor."""
        if trainer.interrupted or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, MmsrModule)
        checkpoints = trainer.checkpoint_callbacks
        best = next(callback for callback in checkpoints if isinstance(callback, BestCheckpoint))
        last = next(callback for callback in checkpoints if isinstance(callback, LastCheckpoint))
        path = best.best_model_path
        if not path and last.path.is_file():
            print(f"{best.monitor} had no value in any epoch: the model is the last epoch's", file=sys.stderr)
            path = str(last.path)
        row: dict[str, float] = {}
        if path:
            saved = torch.load(path, map_location="cpu", weights_only=False)
            pl_module.load_state_dict(saved["state_dict"])
            row = next(reversed(saved["callbacks"].get(History().state_key, {}).get("rows", [])), row)
        model, processor = pl_module.parts()
        merge_lora(model)
        print(calibrate_model(model, processor, trainer.datamodule), file=sys.stderr)  # type: ignore[attr-defined]
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if model.config.retrieves:
            print(fill_memory(model, data), file=sys.stderr)
        origin = None if data.streaming else _origin(data, seed=pl_module.settings.seed, row=row)
        save_model(model, processor, Path(trainer.default_root_dir) / "model", origin=origin)


def _origin(data: MmsrDataModule, *, seed: int, row: Mapping[str, float]) -> Origin:
    """What the card tells of a training, with the best epoch's row of the history."""
    figures = {name: row[f"dev_{name}"] for name in ("accuracy", "macro_f1", "uar") if f"dev_{name}" in row}
    return Origin(
        data=data.source,
        on_hub=data.on_hub,
        rows=len(data.train_rows),
        dev_rows=len(data.dev_rows),
        languages=distinct(data.train_rows, "language"),
        seed=seed,
        figures=figures,
    )


def calibrate_model(model: MmsrForSentimentReasoning, processor: MmsrProcessor, data: MmsrDataModule) -> str:
    """Fit the config's temperatures to the development rows, and return a line about the result.

    If the head gives the label, the batches come from the data module, and so from its feature store. If the
    decoder does, or if several processes share the rows, audio is decoded again. Temperatures that cannot be
    fitted stay 1.
    """
    model.config.temperature = model.config.decoder_temperature = 1.0
    model.eval()
    layout, trainer = model.config.format, data.trainer
    alone = trainer is None or trainer.world_size == 1
    by_loader = alone and (layout is None or not layout.label_learned)

    def predict(rows: Sequence[Utterance]) -> list[Answer]:
        return _loaded_answers(model, data) if by_loader else _read_answers(model, processor, rows)

    try:
        found = calibrate(
            predict, utterances(data.dev_rows), labels=model.config.labels, text_column=data.text_column
        )
    except CalibrationError as error:
        return f"probabilities are not calibrated (temperature 1), development split: {error}"
    model.config.temperature = found["temperature"]
    model.config.decoder_temperature = found.get("decoder_temperature", 1.0)
    return calibration_line(found)


def _loaded_answers(model: MmsrForSentimentReasoning, data: MmsrDataModule) -> list[Answer]:
    """Answers to the labelled development rows, in their order, from the loader's batches."""
    loader = data.val_dataloader()
    answers: dict[int, Answer] = {}
    for rows, batch in zip(list(loader.batch_sampler), loader, strict=True):  # type: ignore[arg-type]
        inputs = {name: value for name, value in batch.items() if "labels" not in name and name != IDS}
        answered = zip(rows, batch["sentiment_labels"].tolist(), _answers(model, inputs), strict=True)
        answers.update((row, answer) for row, label, answer in answered if label >= 0)
    return [answers[row] for row in sorted(answers)]


def _read_answers(
    model: MmsrForSentimentReasoning, processor: MmsrProcessor, utterances: Sequence[Utterance]
) -> list[Answer]:
    """Answers to utterances, whose audio is decoded here."""
    load_audio: Callable[[Any], Any] = Audio(processor.feature_extractor.sampling_rate)
    layout = model.config.format
    label_last = layout is not None and not layout.label_first
    longest = processor.max_target_tokens if label_last else None
    answers: list[Answer] = []
    for start in range(0, len(utterances), _CALIBRATION_ROWS):
        part = utterances[start : start + _CALIBRATION_ROWS]
        columns = {
            "audio": [None if given.audio is None else load_audio(given.audio) for given in part],
            "text": [given.text for given in part],
        }
        inputs = processor(**given_columns(columns), return_tensors="pt")
        quotes = None
        if label_last and model.config.quotes == "transcript":
            quotes = processor.quote_grammar(columns["text"])
        answers += _answers(model, inputs, max_new_tokens=longest, quotes=quotes)
    return answers


@torch.no_grad()
def _answers(
    model: MmsrForSentimentReasoning,
    inputs: Mapping[str, Tensor],
    *,
    max_new_tokens: int | None = None,
    quotes: QuoteGrammar | None = None,
) -> list[Answer]:
    """Answers to a batch, without rationales."""
    given: dict[str, Any] = {name: value.to(model.device) for name, value in inputs.items()}
    found = model.classify(**given, max_new_tokens=max_new_tokens, quotes=quotes)
    labels = model.config.labels
    head = model.label_scores(found.head_logits)
    decoder = None if found.decoder_logits is None else model.label_scores(found.decoder_logits)
    answers = []
    for row, label in enumerate(labels[label] for label in found.labels.tolist()):
        scores, head_scores = (head[row], None) if decoder is None else (decoder[row], head[row])
        answers.append(Answer(label=label, score=scores[label], scores=scores, head_scores=head_scores))
    return answers
