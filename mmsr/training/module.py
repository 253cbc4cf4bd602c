"""The Lightning module that trains `MmsrForSentimentReasoning`.

settings + training rows ─► model, processor            (configure_model, once the data is known; `factory`)
batch ─► modality dropout ─► model ─► losses ─┐
                               └─► streams ───┴─► objectives ─► loss
development rows ─► model ─► dev_loss, dev_macro_f1
"""

from __future__ import annotations

import dataclasses
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.classification import MulticlassConfusionMatrix

from mmsr.data.loading.batching import outline
from mmsr.evaluation.metrics import label_metrics
from mmsr.messages import no_such_file
from mmsr.model.configuration import MmsrConfig
from mmsr.model.layers import Gate, balance_experts
from mmsr.model.modeling import MmsrForSentimentReasoning, MmsrOutput
from mmsr.model.processing import MmsrProcessor
from mmsr.records import (
    ATTENTION_MASK,
    AUDIO_FEATURES_MASK,
    IDS,
    INPUT_VALUES_MASK,
    LABELS,
    SENTIMENT_LABELS,
    SOFT_TARGETS,
    WINDOW,
)
from mmsr.training.factory import add_updates, make_model, make_objectives, prepare_model, use_feature_store
from mmsr.training.losses import LossMean, NonFiniteLossError, Targets, Term, Window
from mmsr.training.monitor import MODEL_LOSSES
from mmsr.training.objectives import OgmGe, Pooled, pooled_streams, symmetric_divergence
from mmsr.training.parameters import (
    eval_frozen,
    freeze_encoders,
    frozen_parts,
    joined,
    merge_lora,
    model_part,
    parameter_groups,
    rate_factor,
)
from mmsr.training.settings import TrainingSettings

_NAMED_ROWS = 20  # of a batch whose loss is not finite


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
        self._window: Window | None = None
        self._resumed_window: Window | None = None
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
                self._make_parts(_read(self.trainer.ckpt_path), processes=self.trainer.world_size)
            else:
                L.seed_everything(settings.seed, verbose=False)
                self.model, self.processor = make_model(settings, data)
                self._prepare(processes=self.trainer.world_size)
        model, processor = self.parts()
        data.attach(processor, rationales=model.decoder is not None)
        if model.decoder is not None or model.config.retrieves:
            data.check_rationales()
        if model.config.retrieves and data.streaming:
            raise ValueError(
                "streaming keeps no row, and rationale_format='retrieval' remembers rows; accepted: one or "
                "the other"
            )
        data.check_augment(stored=bool(settings.feature_store))  # before hours of encoding
        if settings.feature_store:
            if data.audio_features is None and data.text_features is None:
                self.use_feature_store()
        elif model.config.audio_standardize and model.config.uses_audio and not settings.checkpoint:
            raise ValueError("config audio_standardize takes its statistics from a feature_store=: name one")
        self._make_metrics(model)

    def use_feature_store(self) -> None:
        """Encode what the feature store lacks, and read the frozen encoders' states from it."""
        use_feature_store(self.settings, *self.parts(), self.trainer)

    def _make_metrics(self, model: MmsrForSentimentReasoning) -> None:
        """Means of the losses by name, and confusion matrices of the development rows."""
        terms = dict.fromkeys(MODEL_LOSSES[1:] if model.decoder is not None else ("sentiment_loss",), 1)
        self.dev_means = nn.ModuleDict({name: LossMean() for name in terms})
        self.dev_means["loss"] = LossMean(len(terms))
        if self.settings.r_drop:
            terms["r_drop"] = 2
        for name, objective in self.objectives.items():
            own: Any = objective
            terms[f"{name}_loss"] = own.terms
        self.train_means = nn.ModuleDict({name: LossMean(count) for name, count in terms.items()})
        self.train_means["loss"] = LossMean(sum(terms.values()))
        self.dev_confusion = MulticlassConfusionMatrix(len(model.config.labels))
        self.dev_decoder_confusion = MulticlassConfusionMatrix(len(model.config.labels))

    def _make_parts(self, checkpoint: Mapping[str, Any], *, processes: int) -> None:
        """Make model, processor and objectives as of a checkpoint, whose weights are loaded afterwards."""
        self.processor, config = unpack(checkpoint["mmsr"])
        self.model = MmsrForSentimentReasoning(config)
        self._prepare(processes=processes)

    def _prepare(self, *, processes: int) -> None:
        """Add to the model what is trained, and make the objectives beside it."""
        model, _ = self.parts()
        prepare_model(model, self.settings, self.settings)
        objectives, self.ogm_ge = make_objectives(self.settings, model, processes=processes)
        self.objectives.update(objectives)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, map_location: Any = None, **overrides: Any
    ) -> MmsrModule:
        """The module of a Lightning checkpoint of `mmsr fit`, in eval mode, with its model and processor.

        `load_lightning_checkpoint` returns model and processor alone, with low-rank updates merged, as `mmsr
        export` writes them.

        Args:
            checkpoint_path: A .ckpt file.
            map_location: Device of the weights; the CPU by default.
            **overrides: None is accepted: the settings are those of the checkpoint.

        Raises:
            ValueError: The file is no such checkpoint, or settings are given.
        """
        if given := {name: value for name, value in overrides.items() if value is not None}:
            raise ValueError(
                f"load_from_checkpoint({', '.join(f'{name}=' for name in given)}): a checkpoint has its own "
                "settings; accepted: checkpoint_path, map_location"
            )
        with _checkpoint_of_fit(checkpoint_path):
            checkpoint = _read(checkpoint_path)
            module = cls(TrainingSettings(**checkpoint["hyper_parameters"]))
            module._make_parts(checkpoint, processes=1)
            module.load_state_dict(checkpoint["state_dict"])
        return module.to(map_location or "cpu").eval()

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
        # each process has its own dropout
        torch.manual_seed(self.settings.seed * 10_000 + self.current_epoch + 1_000_003 * self.global_rank)
        self._set_modes()

    def _set_modes(self) -> None:
        """Training mode, but for what is frozen in this epoch."""
        settings = self.settings
        model, _ = self.parts()
        model.train()  # from_pretrained leaves the model in eval mode, which Lightning keeps
        freeze_encoders(model, gradual_unfreezing=settings.gradual_unfreezing, epoch=self.current_epoch)
        for frozen in frozen_parts(model, settings.freeze or ()):
            frozen.eval()
        for part in {*(settings.train_layers or ()), *(settings.gradual_unfreezing or ())}:
            eval_frozen(model_part(model, part, setting="train_layers").train())

    def state_within_epoch(self) -> dict[str, Any]:
        """What this process keeps between the batches of an epoch, as tensors and plain values.

        The sums of the training losses, the targets of the optimiser's step that is not finished, the loads
        of experts in it, and the scores of OGM-GE.
        """
        means = dict[str, Any](self.train_means.items())
        return {
            "losses": {name: (mean.sums.cpu(), mean.weights.cpu()) for name, mean in means.items()},
            "window": self._window.state() if self._window else None,
            "loads": {name: gate.loads for name, gate in self._gates()},
            "ogm_ge": {} if self.ogm_ge is None else dict(self.ogm_ge.scores),
        }

    def resume_within_epoch(self, state: Mapping[str, Any]) -> None:
        """Go on within an epoch, whose start Lightning leaves out.

        Args:
            state: That of `state_within_epoch`.
        """
        self.on_train_epoch_start()
        for name, (sums, weights) in state["losses"].items():
            mean: Any = self.train_means[name]
            mean.sums, mean.weights = sums.to(mean.sums), weights.to(mean.weights)
        for name, gate in self._gates():
            loads = state["loads"][name]
            gate.loads = None if loads is None else loads.to(self.device)
        if state["window"] is not None:
            self._resumed_window = Window.of_state(state["window"], self.device)
        if self.ogm_ge is not None:
            self.ogm_ge.scores = dict(state["ogm_ge"])

    def _gates(self) -> list[tuple[str, Gate]]:
        """The gates of a mixture of experts, by name."""
        return [(name, part) for name, part in self.parts()[0].named_modules() if isinstance(part, Gate)]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The batch's part of the loss of its optimiser step, after modality dropout.

        The loss of a step is a sum of means over all its targets: those of the accumulated batches in all
        processes (see `losses`). The parts of its batches add up to it, once the trainer has divided each by
        the numbers of accumulated batches and of processes. A batch alone is the whole step.

        Raises:
            NonFiniteLossError: The loss is NaN or infinite.
        """
        batch = dict(batch)
        ids = batch.pop(IDS, None)
        outlines = batch.pop(WINDOW, None)
        if batch_idx == 0:
            self._window = None
        if self._resumed_window is not None:  # the loader outlines the rest of the step alone
            self._window, self._resumed_window, outlines = self._resumed_window, None, None
        targets, shares = self._enter_window(batch, outlines)
        labels = batch[SENTIMENT_LABELS]
        model, _ = self.parts()
        watched: AbstractContextManager[dict[str, Pooled]] = nullcontext({})
        if self.objectives:
            watched = pooled_streams(model.encoder, len(labels))
        with watched as streams:
            outputs: list[MmsrOutput] = [model(**batch, use_cache=False)]
        if self.settings.r_drop:
            outputs.append(model(**batch, use_cache=False))
        terms = self._terms(outputs, batch)
        with torch.autocast(self.device.type, enabled=False):
            for name, objective in self.objectives.items():
                means = objective(streams, labels)
                terms[f"{name}_loss"] = Term(means, objective.weight * means)
            if self.ogm_ge is not None:
                logits = self.objectives["auxiliary_heads"].logits(streams)  # type: ignore[operator]
                self.ogm_ge.observe(logits, streams, labels)
        loss = sum((term.weighted * shares[name]).sum() for name, term in terms.items())
        assert isinstance(loss, Tensor)
        self._check_finite(loss, terms, batch, ids, place=f"training batch {batch_idx}")
        self._count_losses(self.train_means, terms, targets)
        for name, log_variance in self.log_variances.items():
            self.log(
                f"train_{name}_log_variance", log_variance.detach(), on_step=False, on_epoch=True,
                batch_size=len(labels), sync_dist=True,
            )  # fmt: skip
        return joined(loss, self) if self.trainer.world_size > 1 else loss

    def _enter_window(
        self, batch: dict[str, Any], outlines: list[dict[str, Tensor]] | None
    ) -> tuple[Targets, Targets]:
        """Drop modalities in a batch; the weights of its targets, and their shares of those of its step.

        The first batch of a step has the outlines of all. A loader that gives none has each batch as a step.
        """
        processes = self.trainer.world_size
        if outlines is not None or not self._window:
            accumulated = 1 if outlines is None else self.trainer.accumulate_grad_batches
            self._window = Window(
                [self.drop_modalities(outlined) for outlined in outlines or [outline(batch)]],
                count=self._targets,
                scale=processes * accumulated,
                reduce=None if processes == 1 else partial(self.trainer.strategy.reduce, reduce_op="sum"),
            )
        outlined, targets, shares = self._window.next()
        for name in (INPUT_VALUES_MASK, AUDIO_FEATURES_MASK, ATTENTION_MASK):
            if name in outlined:
                batch[name] = batch[name].masked_fill(outlined[name] == 0, 0)
        return targets, shares

    def _targets(self, outlined: Mapping[str, Tensor]) -> Targets:
        """Weights of the targets of each term, of a batch or its outline."""
        labels = outlined[SENTIMENT_LABELS]
        model, _ = self.parts()
        targets = model.target_weights(labels=outlined.get(LABELS), sentiment_labels=labels)
        if self.settings.r_drop:
            rows = torch.full_like(targets["rationale_loss"], len(labels))
            targets["r_drop"] = torch.stack([rows, targets["rationale_loss"]])
        absent = torch.zeros_like(labels, dtype=torch.bool)
        present = {"audio": absent, "text": absent}
        for name, mask in outlined.items():
            if name in (INPUT_VALUES_MASK, AUDIO_FEATURES_MASK):
                present["audio"] = mask.any(-1)
            elif name == ATTENTION_MASK:
                present["text"] = mask.any(-1)
        for name, objective in self.objectives.items():
            targets[f"{name}_loss"] = objective.targets(present, labels)  # type: ignore[operator]
        return targets

    def _terms(self, outputs: list[MmsrOutput], batch: dict[str, Tensor]) -> dict[str, Term]:
        """The model's losses, and R-Drop: a mean over the outputs of both passes.

        With uncertainty weighting a loss L enters as exp(-s) L + s / 2 with s = log σ², the form of Kendall
        et al. for classification.
        """
        terms: dict[str, Term] = {}
        weights = {"sentiment_loss": 1.0, "rationale_loss": self.parts()[0].config.rationale_loss_weight}
        for name, weight in weights.items():
            if outputs[0].get(name) is None:
                continue
            mean = torch.stack([output[name] for output in outputs]).mean()
            if name in self.log_variances:
                s = self.log_variances[name]
                terms[name] = Term(mean, torch.exp(-s) * mean + s / 2)
            else:
                terms[name] = Term(mean, weight * mean)
        if self.settings.r_drop:
            divergence = self._divergence(outputs, batch)
            # the paper adds the losses of both passes, and ours is their mean
            terms["r_drop"] = Term(divergence, self.settings.r_drop / 2 * divergence)
        return terms

    def _divergence(self, outputs: list[MmsrOutput], batch: dict[str, Tensor]) -> Tensor:
        """Divergence of the labels of two passes, and λ times that of their rationales' tokens `[2]`."""
        first, second = outputs
        assert first.sentiment_logits is not None and second.sentiment_logits is not None
        divergence = symmetric_divergence(first.sentiment_logits, second.sentiment_logits)
        tokens = torch.zeros_like(divergence)
        labels = batch.get(LABELS)
        if labels is not None and first.logits is not None and second.logits is not None:
            written = self.parts()[0].rationale_targets(labels) >= 0
            weight = self.parts()[0].config.rationale_loss_weight
            tokens = weight * symmetric_divergence(first.logits[written], second.logits[written])
        return torch.stack([divergence, tokens])

    def _count_losses(self, means: nn.ModuleDict, terms: Mapping[str, Term], targets: Targets) -> None:
        """Add a batch to the epoch's means over targets, and log them: the whole loss and each term.

        Processes must log the same names in the same order, also one whose batch has no rationale.
        """
        stage, several = "train" if self.training else "dev", self.trainer.world_size > 1
        whole: list[Tensor] = []
        weights: list[Tensor] = []
        logged = ["loss"]
        for name in [name for name in means if name != "loss"]:
            weight = targets[name].flatten()
            if name in terms:
                means[name].update(terms[name].mean, targets[name])  # type: ignore[operator]
                whole.append(terms[name].weighted.detach().flatten())
            else:
                whole.append(torch.zeros_like(weight))
                weight = torch.zeros_like(weight)
            weights.append(weight)
            if name in terms or several:
                logged.append(name)
        means["loss"].update(torch.cat(whole), torch.cat(weights))  # type: ignore[operator]
        for name in logged:
            self.log(f"{stage}_{name}", means[name], on_step=False, on_epoch=True, batch_size=1)  # type: ignore[arg-type]

    def _check_finite(
        self,
        loss: Tensor,
        terms: Mapping[str, Term],
        batch: Mapping[str, Any],
        ids: list[str] | None,
        *,
        place: str,
    ) -> None:
        """End the run at a loss that is NaN or infinite, in all processes."""
        message = None
        if not torch.isfinite(loss.detach()):
            message = self._why_not_finite(terms, batch, ids, place=place)
        if not self.trainer.strategy.reduce_boolean_decision(message is None, all=True):
            raise NonFiniteLossError("; ".join(filter(None, gathered(self.trainer, message))))

    def _why_not_finite(
        self, terms: Mapping[str, Term], batch: Mapping[str, Any], ids: list[str] | None, *, place: str
    ) -> str:
        """The batch whose loss is not finite, and what is known of the cause."""
        model, _ = self.parts()
        losses = ", ".join(f"{name} {term.mean.sum().item():.4g}" for name, term in terms.items())
        rows = "without ids" if ids is None else f"rows {', '.join(map(repr, ids[:_NAMED_ROWS]))}"
        if ids is not None and len(ids) > _NAMED_ROWS:
            rows += f" and {len(ids) - _NAMED_ROWS} more"
        causes = []
        for name, values in batch.items():
            if not torch.is_floating_point(values) or torch.isfinite(values).all():
                continue
            bad = (~torch.isfinite(values.flatten(1)).all(-1)).nonzero()[:, 0].tolist()
            named = [str(row) if ids is None else repr(ids[row]) for row in bad]
            causes.append(f"{name} of {', '.join(named)} is not finite: mend or leave out these rows")
        now = [group["lr"] for optimizer in self.trainer.optimizers for group in optimizer.param_groups]
        rate = f"lower learning_rate={self.settings.learning_rate:g} (now {max(now, default=0):.3g})"
        if not causes and not all(torch.isfinite(weight).all() for weight in model.parameters()):
            causes.append(
                f"the weights were not finite before it, since an earlier step diverged: {rate}, or set "
                "--trainer.gradient_clip_val"
            )
        if not causes:
            causes.append(rate)
            if str(self.trainer.precision).startswith("16"):
                causes.insert(0, "float16 overflows above 65,504: --trainer.precision bf16-mixed or 32-true")
            if model.config.class_weights is not None:
                causes.append(f"check class_weights={model.config.class_weights}")
            causes.append("look at the rows: silent, clipped or very long audio (`mmsr data check`)")
        return (
            f"the loss is not finite in epoch {self.current_epoch}, {place} ({losses}; {rows}); likely "
            f"causes: {'; '.join(causes)}"
        )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Balance the loads of experts, and the gradients of the modalities, before they are clipped."""
        overload = balance_experts(self.parts()[0])
        if overload is not None:
            self.log("train_expert_overload", overload, on_step=False, on_epoch=True, batch_size=1)
        if self.ogm_ge is not None:
            model, _ = self.parts()
            for name, factor in self.ogm_ge.modulate(model).items():
                self.log(f"train_ogm_ge_{name}", factor, on_step=False, on_epoch=True, batch_size=1)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Losses of a development batch without modality dropout, and the confusion matrix of its labels.

        There is one for the decoder's labels too if it gives the label first. If it gives the label last, it
        would read it from the given rationale.

        Raises:
            NonFiniteLossError: The loss is NaN or infinite.
        """
        batch = dict(batch)
        ids = batch.pop(IDS, None)
        batch.pop(SOFT_TARGETS, None)  # models are selected by the labels alone
        model, _ = self.parts()
        output = model(**batch, use_cache=False)
        labels = batch[SENTIMENT_LABELS]
        known = labels >= 0
        weights = {"sentiment_loss": 1.0, "rationale_loss": model.config.rationale_loss_weight}
        means = {name: output.get(name) for name in weights}
        terms = {name: Term(mean, weights[name] * mean) for name, mean in means.items() if mean is not None}
        self._check_finite(output.loss, terms, batch, ids, place=f"development batch {batch_idx}")
        targets = model.target_weights(labels=batch.get(LABELS), sentiment_labels=labels)
        self._count_losses(self.dev_means, terms, targets)
        if known.any():
            self.dev_confusion.update(output.sentiment_logits[known], labels[known])
        if self._decoder_gives_label_first and output.decoder_sentiment_logits is not None:
            written = known & (batch[LABELS] >= 0).any(-1)
            if written.any():
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
        """AdamW without decay on vectors, and the schedule of its rate, stepped per batch."""
        settings = self.settings
        decoder_loaded = bool(settings.decoder or settings.checkpoint)
        groups = parameter_groups(self, self.parts()[0], settings, decoder_loaded=decoder_loaded)
        optimizer = _adamw(groups)
        streaming = self.trainer.datamodule.streaming  # type: ignore[attr-defined]  # counting would begin it
        steps = self.trainer.max_steps if streaming else int(self.trainer.estimated_stepping_batches)
        scheduler = LambdaLR(optimizer, partial(rate_factor, settings=settings, steps=steps))
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


def gathered(trainer: L.Trainer, mine: Any) -> list[Any]:
    """The object of each process, by rank."""
    if trainer.world_size == 1:
        return [mine]
    everyone = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyone, mine)
    return everyone


def unpack(saved: dict[str, Any]) -> tuple[MmsrProcessor, MmsrConfig]:
    """Processor and config of a Lightning checkpoint of `MmsrModule`."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in saved["processor"].items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (Path(folder) / "config.json").write_text(saved["config"], encoding="utf-8")
        return MmsrProcessor.from_pretrained(folder), MmsrConfig.from_pretrained(folder)


def _read(path: str | Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=False)


@contextmanager
def _checkpoint_of_fit(path: str | Path) -> Iterator[None]:
    """Name the file in what goes wrong while it is read."""
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{no_such_file(path)}; accepted: a .ckpt file that `mmsr fit` wrote") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: a folder; accepted: a .ckpt file that `mmsr fit` wrote") from None
    except (
        pickle.UnpicklingError,
        LookupError,
        TypeError,
        RuntimeError,
        EOFError,
        ValueError,
        ImportError,
    ) as error:
        raise ValueError(
            f"{path} is no checkpoint of `mmsr fit` ({error}); accepted: a .ckpt file in its checkpoints/"
        ) from error


def load_lightning_checkpoint(path: str | Path) -> tuple[MmsrForSentimentReasoning, MmsrProcessor]:
    """Load model (in eval mode) and processor from a Lightning checkpoint of `mmsr fit`.

    Raises:
        ValueError: The file is not such a checkpoint.
    """
    with _checkpoint_of_fit(path):
        checkpoint = _read(path)
        processor, config = unpack(checkpoint["mmsr"])
    model = MmsrForSentimentReasoning(config)
    settings = checkpoint["hyper_parameters"]
    add_updates(model, freeze=settings.get("freeze"), lora=settings.get("lora"))
    weights = checkpoint["state_dict"].items()
    model.load_state_dict({name[6:]: value for name, value in weights if name.startswith("model.")})
    merge_lora(model)
    return model.eval(), processor


def _adamw(groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    """AdamW for all weights at once; on CPUs in one kernel, which is four to five times as fast there."""
    on_cpu = all(weight.device.type == "cpu" for group in groups for weight in group["params"])
    if not on_cpu:
        return torch.optim.AdamW(groups, foreach=True)
    optimizer = torch.optim.AdamW(groups, fused=True)
    # Lightning does not clip gradients that a fused optimiser unscales itself; here nothing is scaled
    optimizer._step_supports_amp_scaling = False
    return optimizer
