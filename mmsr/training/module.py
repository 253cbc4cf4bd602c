"""The Lightning module that trains `MmsrForSentimentReasoning`.

settings + training rows ─► model, processor            (configure_model, once the data is known; `factory`)
batch ─► modality dropout ─► model ─► losses ─┐
                               └─► streams ───┴─► objectives ─► loss
development rows ─► model ─► dev_loss, dev_macro_f1
"""

from __future__ import annotations

import dataclasses
import math
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.classification import MulticlassConfusionMatrix

from mmsr.evaluation.metrics import label_metrics
from mmsr.model.configuration import MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning, MmsrOutput
from mmsr.model.processing import MmsrProcessor
from mmsr.records import ATTENTION_MASK, AUDIO_FEATURES_MASK, INPUT_VALUES_MASK, LABELS, SENTIMENT_LABELS
from mmsr.training.factory import add_updates, make_model, make_objectives, prepare_model, use_feature_store
from mmsr.training.monitor import MODEL_LOSSES
from mmsr.training.objectives import OgmGe, Pooled, pooled_streams, symmetric_divergence
from mmsr.training.parameters import (
    cosine_with_warmup,
    eval_frozen,
    freeze_encoders,
    joined,
    merge_lora,
    model_part,
    parameter_groups,
)
from mmsr.training.settings import TrainingSettings


class MmsrModule(L.LightningModule):
    """Joint training of classification and rationale.

    `hparams`, in checkpoints and loggers, are the settings as a flat dict of plain values.
    """

    def __init__(self, settings: TrainingSettings) -> None:
        super().__init__()
        self.settings = settings
        self.save_hyperparameters(dataclasses.asdict(settings))
        self.model: MmsrForSentimentReasoning | None = None
        self.processor: MmsrProcessor | None = None
        self.objectives = nn.ModuleDict()
        self.ogm_ge: OgmGe | None = None
        # log of the variance of each loss; at 0 both losses have the same weight
        self.log_variances = nn.ParameterDict(
            {name: torch.zeros(()) for name in MODEL_LOSSES[1:]} if settings.uncertainty_weighting else {}
        )

    # ------------------------------------------------------------------ making the model

    def configure_model(self) -> None:
        """Make model and processor, or load those of the checkpoint that the run is resumed from.

        Lightning calls it again if weights are averaged; the model then stays.
        """
        settings = self.settings
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.model is None:
            if self.trainer.ckpt_path:
                checkpoint = torch.load(self.trainer.ckpt_path, map_location="cpu", weights_only=False)
                self.processor, config = unpack(checkpoint["mmsr"])
                self.model = MmsrForSentimentReasoning(config)
            else:
                L.seed_everything(settings.seed, verbose=False)
                self.model, self.processor = make_model(settings, data)
            prepare_model(self.model, settings, settings)
            objectives, self.ogm_ge = make_objectives(settings, self.model, processes=self.trainer.world_size)
            self.objectives.update(objectives)
        model, processor = self.parts()
        data.attach(processor, rationales=model.decoder is not None)
        if model.decoder is not None:
            data.check_rationales()
        data.check_augment(stored=bool(settings.feature_store))  # before hours of encoding
        if settings.feature_store:
            if data.audio_features is None and data.text_features is None:
                use_feature_store(settings, model, processor, self.trainer)
        elif model.config.audio_standardize and model.config.uses_audio and not settings.pretrained:
            raise ValueError("config audio_standardize takes its statistics from a feature_store=: name one")
        self.dev_confusion = MulticlassConfusionMatrix(len(model.config.labels))
        self.dev_decoder_confusion = MulticlassConfusionMatrix(len(model.config.labels))

    def configure_callbacks(self) -> list[Callback]:
        """The average of the weights, if one is kept."""
        if self.settings.ema_decay is None:
            return []
        # buffers are not averaged: some are integers
        return [EMAWeightAveraging(decay=self.settings.ema_decay, use_buffers=False)]

    def parts(self) -> tuple[MmsrForSentimentReasoning, MmsrProcessor]:
        """Model and processor, once `configure_model` has made them."""
        assert self.model is not None and self.processor is not None
        return self.model, self.processor

    # ------------------------------------------------------------------ steps

    def on_train_epoch_start(self) -> None:
        """Seed dropout by seed and epoch, unfreeze layers, and put frozen parts in eval mode."""
        settings = self.settings
        # each process has its own dropout
        torch.manual_seed(settings.seed * 10_000 + self.current_epoch + 1_000_003 * self.global_rank)
        model, _ = self.parts()
        model.train()  # from_pretrained leaves the model in eval mode, which Lightning keeps
        freeze_encoders(model, gradual_unfreezing=settings.gradual_unfreezing, epoch=self.current_epoch)
        for part in settings.freeze or ():
            model_part(model, part, setting="freeze").eval()
        for part in {*(settings.train_layers or ()), *(settings.gradual_unfreezing or ())}:
            eval_frozen(model_part(model, part, setting="train_layers").train())

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of a batch after modality dropout."""
        batch = self.drop_modalities(batch)
        labels = batch[SENTIMENT_LABELS]
        model, _ = self.parts()
        watched: AbstractContextManager[dict[str, Pooled]] = nullcontext({})
        if self.objectives:
            watched = pooled_streams(model.encoder, len(labels))
        with watched as streams:
            outputs: list[MmsrOutput] = [model(**batch, use_cache=False)]
        if self.settings.r_drop:
            outputs.append(model(**batch, use_cache=False))
        losses = {
            name: torch.stack([output[name] for output in outputs]).mean()
            for name in MODEL_LOSSES
            if outputs[0].get(name) is not None
        }
        if self.log_variances:
            losses["loss"] = self.uncertainty_weighted(losses, batch)
        if self.settings.r_drop:
            losses["r_drop"] = self._divergence(outputs, batch)
            # the paper adds the losses of both passes, and `loss` is their mean
            losses["loss"] = losses["loss"] + self.settings.r_drop / 2 * losses["r_drop"]
        with torch.autocast(self.device.type, enabled=False):
            for name, objective in self.objectives.items():
                losses[f"{name}_loss"] = objective(streams, labels)
                losses["loss"] = losses["loss"] + objective.weight * losses[f"{name}_loss"]  # type: ignore
            if self.ogm_ge is not None:
                logits = self.objectives["auxiliary_heads"].logits(streams)  # type: ignore[operator]
                self.ogm_ge.observe(logits, streams, labels)
        for name, loss, rows in self._losses_to_log(losses, len(labels)):
            self._log_training(name, loss, rows)
        for name, log_variance in self.log_variances.items():
            self._log_training(f"{name}_log_variance", log_variance, len(labels))
        return joined(losses["loss"], self) if self.trainer.world_size > 1 else losses["loss"]

    def _losses_to_log(self, losses: Mapping[str, Any], rows: int) -> Iterator[tuple[str, Any, int]]:
        """Each loss with its name and its weight in the mean, those of the model first.

        Processes must log the same names in the same order: one whose batch has no rationale logs a loss of
        weight 0.
        """
        several, model = self.trainer.world_size > 1, self.parts()[0]
        for name in dict.fromkeys([*MODEL_LOSSES, *losses]):
            if losses.get(name) is not None:
                yield name, losses[name], rows
            elif several and name == "rationale_loss" and model.decoder is not None:
                yield name, 0.0, 0

    def _log_training(self, name: str, value: Tensor | float, rows: int) -> None:
        value = value.detach() if isinstance(value, Tensor) else value
        self.log(f"train_{name}", value, on_step=False, on_epoch=True, batch_size=rows, sync_dist=True)

    def uncertainty_weighted(self, losses: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        """Σ exp(-s) L + s / 2 with s = log σ², the form of Kendall et al. for classification.

        A loss without a target in the batch does not change its s.
        """
        written = self._written(batch)
        known = {
            "sentiment_loss": (batch[SENTIMENT_LABELS] >= 0).any(),
            "rationale_loss": written is not None and written.any(),
        }
        total = losses["loss"].new_zeros(())
        for name, s in self.log_variances.items():
            total = total + torch.exp(-s) * losses.get(name, total.new_zeros(())) + known[name] * s / 2
        return total

    def _divergence(self, outputs: list[MmsrOutput], batch: dict[str, Tensor]) -> Tensor:
        """Divergence of the labels of two passes plus λ times that of their rationales' tokens."""
        first, second = outputs
        assert first.sentiment_logits is not None and second.sentiment_logits is not None
        divergence = symmetric_divergence(first.sentiment_logits, second.sentiment_logits)
        written = self._written(batch)
        if written is not None and first.logits is not None and second.logits is not None:
            weight = self.parts()[0].config.rationale_loss_weight
            tokens = symmetric_divergence(first.logits[written], second.logits[written])
            divergence = divergence + weight * tokens
        return divergence

    def _written(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Mask `[b, r]` of the rationale's targets in the loss; None if no row has a rationale."""
        labels = batch.get(LABELS)
        return None if labels is None else self.parts()[0].rationale_targets(labels) >= 0

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Balance the gradients of the modalities, before they are clipped."""
        if self.ogm_ge is not None:
            model, _ = self.parts()
            for name, factor in self.ogm_ge.modulate(model).items():
                self._log_training(f"ogm_ge_{name}", factor, 1)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Losses of a development batch without modality dropout, and the confusion matrix of its labels.

        There is one for the decoder's labels too if it gives the label first. If it gives the label last, it
        would read it from the given rationale.
        """
        output = self.model(**batch, use_cache=False)  # type: ignore[misc]
        labels = batch["sentiment_labels"]
        known = labels >= 0
        self.dev_confusion.update(output.sentiment_logits[known], labels[known])
        losses = {name: output.get(name) for name in MODEL_LOSSES}
        for name, loss, rows in self._losses_to_log(losses, len(labels)):
            self.log(f"dev_{name}", loss, batch_size=rows, sync_dist=True)
        if self._decoder_gives_label_first and output.decoder_sentiment_logits is not None:
            written = known & (batch["labels"] >= 0).any(-1)
            self.dev_decoder_confusion.update(output.decoder_sentiment_logits[written], labels[written])

    def on_validation_epoch_end(self) -> None:
        """Log metrics of the labels of all processes: `dev_*` of the head, `dev_decoder_*` of the decoder."""
        matrices = {"dev": self.dev_confusion}
        if self._decoder_gives_label_first:
            matrices["dev_decoder"] = self.dev_decoder_confusion
        for source, matrix in matrices.items():
            confusion = matrix.compute().cpu().numpy()
            matrix.reset()
            if source == "dev" or confusion.any():
                for name, value in label_metrics(confusion).items():
                    shown = (source, name) == ("dev", "macro_f1")
                    self.log(f"{source}_{name}", value, prog_bar=shown, sync_dist=True)

    @property
    def _decoder_gives_label_first(self) -> bool:
        layout = self.parts()[0].config.format
        return layout is not None and layout.label_first and layout.label_learned

    def drop_modalities(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mask one modality in some of the rows that have both."""
        audio_mask = next((name for name in (INPUT_VALUES_MASK, AUDIO_FEATURES_MASK) if name in batch), None)
        config = self.parts()[0].config
        reads_both = config.uses_audio and (config.uses_text or config.prompt_transcript)
        if audio_mask is None or ATTENTION_MASK not in batch or not self.training or not reads_both:
            return batch
        audio, text = batch[audio_mask], batch[ATTENTION_MASK]
        both = audio.any(-1) & text.any(-1)
        draw = torch.rand(len(audio), device=audio.device)
        drop_audio = both & (draw < self.settings.audio_dropout)
        drop_text = both & (draw >= 1 - self.settings.text_dropout)
        return {
            **batch,
            audio_mask: audio.masked_fill(drop_audio[:, None], 0),
            ATTENTION_MASK: text.masked_fill(drop_text[:, None], 0),
        }

    # ------------------------------------------------------------------ optimiser

    def configure_optimizers(self) -> Any:
        """AdamW without decay on vectors; linear warm-up and cosine to zero, stepped per batch."""
        settings = self.settings
        decoder_loaded = bool(settings.decoder or settings.pretrained)
        groups = parameter_groups(self, self.parts()[0], settings, decoder_loaded=decoder_loaded)
        optimizer = torch.optim.AdamW(groups, foreach=True)
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = math.ceil(settings.warmup_ratio * steps)
        scheduler = LambdaLR(optimizer, partial(cosine_with_warmup, warmup=warmup, steps=steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add config and processor to the checkpoint."""
        assert self.model is not None and self.processor is not None
        with tempfile.TemporaryDirectory() as folder:
            self.processor.save_pretrained(folder)
            files = {
                str(path.relative_to(folder)): path.read_bytes()
                for path in Path(folder).rglob("*")
                if path.is_file()
            }
        checkpoint["mmsr"] = {"config": self.model.config.to_json_string(use_diff=False), "processor": files}


def unpack(saved: dict[str, Any]) -> tuple[MmsrProcessor, MmsrConfig]:
    """Processor and config of a Lightning checkpoint of `MmsrModule`."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in saved["processor"].items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (Path(folder) / "config.json").write_text(saved["config"], encoding="utf-8")
        return MmsrProcessor.from_pretrained(folder), MmsrConfig.from_pretrained(folder)


def load_lightning_checkpoint(path: str | Path) -> tuple[MmsrForSentimentReasoning, MmsrProcessor]:
    """Load model (in eval mode) and processor from a Lightning checkpoint of `mmsr fit`.

    Raises:
        ValueError: The file is not such a checkpoint.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=False)
        processor, config = unpack(checkpoint["mmsr"])
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; accepted: a .ckpt file that `mmsr fit` wrote") from None
    except (
        pickle.UnpicklingError,
        LookupError,
        TypeError,
        RuntimeError,
        EOFError,
        ValueError,
        ImportError,
    ) as error:
        raise ValueError(f"{path} is no checkpoint of `mmsr fit` ({error})") from error
    model = MmsrForSentimentReasoning(config)
    settings = checkpoint["hyper_parameters"]
    add_updates(model, freeze=settings.get("freeze"), lora=settings.get("lora"))
    weights = checkpoint["state_dict"].items()
    model.load_state_dict({name[6:]: value for name, value in weights if name.startswith("model.")})
    merge_lora(model)
    return model.eval(), processor
