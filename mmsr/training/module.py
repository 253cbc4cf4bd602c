"""The Lightning module: how `MmsrForSentimentReasoning` is made from arguments, and trained.

arguments + training rows ─► processor ─► config ─► model            (configure_model, once the data is known)
batch ─► modality dropout ─► model ─► losses ─┐
                               └─► streams ───┴─► objectives ─► loss
development rows ─► model ─► dev_loss, dev_macro_f1

Which weights are trained, and how fast, is in `parameters`; what is learned beside label and rationale, in
`objectives`.
"""

from __future__ import annotations

import inspect
import math
import pickle
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from rich.progress import Progress
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.classification import MulticlassConfusionMatrix

from mmsr.data.features.encoders import stored_audio, stored_text
from mmsr.data.features.store import Dtype, StoredFeatures
from mmsr.data.manifest.manifest import column_of
from mmsr.evaluation.metrics import label_metrics
from mmsr.model.configuration import (
    DEFAULT_LABELS,
    MmsrConfig,
    check_choice,
    check_class_weights,
    check_names,
    fusion_modalities,
)
from mmsr.model.fusion import FUSION_CLASSES
from mmsr.model.modeling import MmsrForSentimentReasoning, MmsrOutput
from mmsr.model.processing import MmsrProcessor
from mmsr.training.monitor import MODEL_LOSSES
from mmsr.training.objectives import (
    LOSSES,
    OgmGe,
    Pooled,
    check_objectives,
    pooled_streams,
    symmetric_divergence,
)
from mmsr.training.parameters import (
    ENCODERS,
    Lora,
    add_lora,
    check_encoder_switches,
    check_shared_table,
    cosine_with_warmup,
    eval_frozen,
    free_label_tokens,
    freeze_encoders,
    joined,
    merge_lora,
    model_part,
    parameter_groups,
)

_FIXED_BY_A_CHECKPOINT = ("fusion", "config", "labels", "text_prefix", "rationale_format", "decoder_type")
# Settings of `MmsrConfig` that are arguments here.
_ARGUMENTS = {
    "fusion": "fusion",
    "rationale_format": "rationale_format",
    "decoder_type": "decoder_type",
    "id2label": "labels",
}
_TOKENIZER_ROWS = 50_000  # on which a tokenizer is trained: more of them hardly change its pieces
_STANDARDIZED_ON = 128  # training files, spread evenly; some 20,000 frames


class MmsrModule(L.LightningModule):
    """Joint training of classification and rationale.

    The model is one of three: a fresh one of a `preset`; one built from pretrained encoders (`audio` and
    `text`); or a checkpoint to go on from (`pretrained`).

    Args:
        preset: Size of a fresh model, and of a fresh decoder beside pretrained encoders.
        audio: Pretrained speech encoder, a Hub id or folder.
        text: Pretrained text encoder, a Hub id or folder.
        pretrained: Folder or Hub id of an mmsr checkpoint to go on from.
        decoder: Pretrained language model that writes the rationale, a Hub id or folder; by default a fresh
            decoder of the `preset`.
        decoder_type: How the decoder reads what was fused: by cross_attention, or as a soft prefix.
        fusion: How audio and transcript meet.
        rationale_format: What the decoder writes: a rationale for the head's label (`multitask`), label and
            then rationale (`post_thinking`), rationale and then label (`pre_thinking`), or `none`.
        labels: Label names in the order of their ids; negative, neutral, positive by default.
        text_prefix: Put before every transcript, such as `query: ` for e5 encoders.
        vocab_size: Most pieces of the tokenizer that a fresh model trains on the training split.
        config: Further settings of `MmsrConfig`, such as `{hidden_size: 256, pooling: statistics}`.
        freeze: Parts that are not trained: audio_encoder, text_encoder, decoder (but for the embeddings of
            its label tokens, which a pretrained one has never seen). Where text encoder and decoder share
            their word embeddings (the presets small and tiny), neither can be frozen alone, in part or by
            `lora`, without `config: {tie_word_embeddings: false}`.
        train_layers: Encoders of which only the top layers are trained, such as `{audio_encoder: 2}`.
        gradual_unfreezing: Encoders that start frozen and of which so many more layers, from the top, are
            trained with each epoch, such as `{text_encoder: 1}`; after the lowest layer all else too.
            Under DDP it needs the strategy `ddp_find_unused_parameters_true`.
        lora: Parts that are frozen but for low-rank updates (peft), such as `{audio_encoder: {r: 8,
            alpha: 16, dropout: 0.0, target_modules: [q_proj, v_proj]}}`; by default these values, and
            every linear layer. With `quantize: nf4` the part's own linear layers are kept in 4 bits (QLoRA,
            bitsandbytes). In a decoder the embeddings of its label tokens are trained as well. The
            saved model has the updates merged into its weights.
        attention: How attention is computed: sdpa (the default), eager, or flash_attention_2 on CUDA with the
            package flash-attn. sdpa and eager give the same numbers but for rounding; flash_attention_2
            computes in 16 bits, and differs by theirs. A small model trains faster on a CPU with eager, whose
            memory grows with the square of the audio's length.
        gradient_checkpointing: Compute activations again in the backward pass instead of keeping them.
        feature_store: Folder in which the frozen encoders' states are kept, so that each file is heard and
            each transcript read once, for all epochs and all runs that use the folder.
        feature_dtype: How the store keeps states: float16 is half of float32 and exact to 3 digits; bfloat16
            has float32's range and 2 digits.
        learning_rate: Peak learning rate of what is trained from scratch.
        encoder_learning_rate: Peak learning rate of the encoders and of a decoder that was loaded (`decoder`,
            `pretrained`), such as 3e-5; by default `learning_rate`, which is high for pretrained weights.
        layer_decay: Factor on the learning rate of an encoder's layer with each layer further down.
        weight_decay: AdamW's, on matrices alone.
        warmup_ratio: Share of all steps in which the learning rate rises; it then falls along a cosine to
            zero.
        audio_dropout: Probability that a training row with both modalities loses its audio.
        text_dropout: Probability that it loses its transcript instead.
        class_weights: Weight of each label in the sentiment loss, or `balanced`: inverse to its frequency in
            the training split, 1 on average over the rows.
        label_smoothing: Of the sentiment loss, 0 to 1; by default that of `config` or of the checkpoint.
        uncertainty_weighting: Weigh sentiment and rationale loss by learned variances (Kendall et al. 2018,
            arXiv 1705.07115) in place of the fixed `rationale_loss_weight`, which dev_loss keeps.
        r_drop: Weight of the divergence between the predictions under two draws of dropout (R-Drop, arXiv
            2106.14448); 0 for none. A step then costs two.
        objectives: Further objectives by name with their weights, of contrastive (audio and transcript of a
            row find each other), supervised_contrastive (streams with one label attract each other),
            auxiliary_heads (each stream tells the label alone) and ogm_ge (gradients of the stronger
            modality are held back; its number is alpha). Such as `{contrastive: 0.1, auxiliary_heads: 0.3,
            ogm_ge: {alpha: 0.3, noise: false}}`.
        ema_decay: Decay per step of an exponential moving average of the weights, such as 0.999. The
            development figures and the saved model are then those of the average.
        seed: Of the weights and, with the epoch's number, of dropout, so that a resumed run equals an
            unbroken one.
    """

    def __init__(
        self,
        preset: Literal["tiny", "small", "base"] = "small",
        audio: str | None = None,
        text: str | None = None,
        pretrained: str | None = None,
        decoder: str | None = None,
        decoder_type: Literal["cross_attention", "prefix"] = "cross_attention",
        fusion: str = "cross_attention",
        rationale_format: Literal["none", "multitask", "post_thinking", "pre_thinking"] = "multitask",
        labels: list[str] | None = None,
        text_prefix: str = "",
        vocab_size: int = 4000,
        config: dict[str, Any] | None = None,
        freeze: list[str] | None = None,
        train_layers: dict[str, int] | None = None,
        gradual_unfreezing: dict[str, int] | None = None,
        lora: dict[str, Lora] | None = None,
        attention: str | None = None,
        gradient_checkpointing: bool = False,
        feature_store: str | None = None,
        feature_dtype: Dtype = "float16",
        learning_rate: float = 1e-3,
        encoder_learning_rate: float | None = None,
        layer_decay: float = 1.0,
        weight_decay: float = 0.01,
        warmup_ratio: float = 0.1,
        audio_dropout: float = 0.1,
        text_dropout: float = 0.1,
        class_weights: Literal["balanced"] | list[float] | None = None,
        label_smoothing: float | None = None,
        uncertainty_weighting: bool = False,
        r_drop: float = 0.0,
        objectives: dict[str, Any] | None = None,
        ema_decay: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self._check()
        self.model: MmsrForSentimentReasoning | None = None
        self.processor: MmsrProcessor | None = None
        self.objectives = nn.ModuleDict()
        self.ogm_ge: OgmGe | None = None
        # log of the variance of each loss, 0 where both count alike
        self.log_variances = nn.ParameterDict(
            {name: torch.zeros(()) for name in MODEL_LOSSES[1:]} if uncertainty_weighting else {}
        )

    def _check(self) -> None:
        """Refuse values out of range, and switches that contradict each other."""
        p = self.hparams
        check_choice("fusion", p["fusion"], tuple(FUSION_CLASSES))
        self._check_config(p["config"] or {})
        check_encoder_switches(**self._encoder_switches())
        for name, least, most in (
            ("audio_dropout", 0.0, 1.0),
            ("text_dropout", 0.0, 1.0),
            ("label_smoothing", 0.0, 1.0),
            ("r_drop", 0.0, math.inf),
            ("weight_decay", 0.0, math.inf),
            ("warmup_ratio", 0.0, 1.0),
        ):
            if p[name] is not None and not least <= p[name] <= most:
                raise ValueError(f"{name} is {p[name]}; accepted: {least:g} to {most:g}")
        for name in ("learning_rate", "encoder_learning_rate"):
            if p[name] is not None and not p[name] > 0:
                raise ValueError(f"{name} is {p[name]}; accepted: above 0")
        if isinstance(p["class_weights"], list):
            check_class_weights(p["class_weights"])
        if not 0 < p["layer_decay"] <= 1:
            raise ValueError(f"layer_decay is {p['layer_decay']}; accepted: above 0, to 1")
        if p["ema_decay"] is not None and not 0 < p["ema_decay"] < 1:
            raise ValueError(f"ema_decay is {p['ema_decay']}; accepted: between 0 and 1")
        if p["audio_dropout"] + p["text_dropout"] > 1:
            raise ValueError(
                f"audio_dropout={p['audio_dropout']} and text_dropout={p['text_dropout']} exceed 1 together"
            )
        if p["pretrained"] and (p["audio"] or p["text"] or p["decoder"]):
            raise ValueError(
                "pretrained= (a checkpoint) contradicts audio=, text= and decoder= (its parts): "
                "give one or the other"
            )
        if p["pretrained"] and (given := self._given(_FIXED_BY_A_CHECKPOINT)):
            raise ValueError(
                f"pretrained={p['pretrained']!r} (a checkpoint) has its own {', '.join(given)}: leave "
                f"{'it' if len(given) == 1 else 'them'} out"
            )
        if p["decoder"] and not (p["audio"] or p["text"]):
            raise ValueError("decoder= (pretrained) needs a pretrained encoder: give audio=, text=, or both")
        if p["decoder"] and p["rationale_format"] == "none":
            raise ValueError("decoder= writes rationales, and rationale_format='none' wants none")
        if p["rationale_format"] == "none" and self._given(["decoder_type"]):
            raise ValueError(
                f"decoder_type={p['decoder_type']!r} is of a decoder, and rationale_format='none' wants none"
            )
        if p["feature_store"] and not set(p["freeze"] or []) & set(ENCODERS):
            raise ValueError(
                "feature_store= keeps what a frozen encoder answers; add audio_encoder or text_encoder to "
                "freeze="
            )
        if p["layer_decay"] != 1 and set(p["freeze"] or []) >= set(ENCODERS):
            raise ValueError("layer_decay= is of the encoders, and freeze= names both: give one or the other")
        for name in ("class_weights", "label_smoothing"):
            if p[name] is not None and name in (p["config"] or {}):
                raise ValueError(f"{name}= and config {name} contradict each other: give one or the other")
        if p["uncertainty_weighting"]:
            if p["rationale_format"] == "none":
                raise ValueError(
                    "uncertainty_weighting= weighs two losses, and rationale_format='none' leaves one"
                )
            if "rationale_loss_weight" in (p["config"] or {}):
                raise ValueError(
                    "uncertainty_weighting= learns what config rationale_loss_weight fixes: "
                    "give one or the other"
                )
        objectives = check_objectives(p["objectives"] or {})
        if objectives and len(fusion_modalities(p["fusion"])) < 2:
            raise ValueError(
                f"objectives= ({', '.join(objectives)}) are of two modalities, and fusion={p['fusion']!r} "
                "has one"
            )

    def _check_config(self, config: dict[str, Any]) -> None:
        """Refuse further settings that do not exist, and those that have an argument of their own."""
        accepted = set(MmsrConfig.settings()) - set(_ARGUMENTS)
        for name in config.keys() & _ARGUMENTS.keys():
            argument = _ARGUMENTS[name]
            given = f" and {argument}={self.hparams[argument]!r}" if self._given([argument]) else ""
            raise ValueError(f"config {name}={config[name]!r}{given}: say it by {argument}= alone")
        check_names("config", config, accepted)

    def _encoder_switches(self) -> dict[str, Any]:
        """The switches that say which weights of the model's parts are trained; empty where not given."""
        p = self.hparams
        mappings = ("train_layers", "gradual_unfreezing", "lora")
        return {"freeze": p["freeze"] or (), **{name: p[name] or {} for name in mappings}}

    def _given(self, names: Sequence[str]) -> list[str]:
        """Which of the arguments differ from their defaults."""
        defaults = inspect.signature(type(self)).parameters
        return [name for name in names if (self.hparams[name] or None) != (defaults[name].default or None)]

    # ------------------------------------------------------------------ making the model

    def configure_model(self) -> None:
        """Make processor and model, or take those of the checkpoint that the run goes on from.

        Lightning calls it again where weights are averaged; what is made already stays.
        """
        if self.model is None:
            if self.trainer.ckpt_path:
                checkpoint = torch.load(self.trainer.ckpt_path, map_location="cpu", weights_only=False)
                self._restore(checkpoint["mmsr"])
            else:
                L.seed_everything(self.hparams["seed"], verbose=False)
                self._build()
            self._prepare()
        model, processor = self.parts()
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        data.attach(processor, rationales=model.decoder is not None)
        if model.decoder is not None:
            data.check_rationales()
        data.check_augment(stored=bool(self.hparams["feature_store"]))  # before hours of encoding
        if self.hparams["feature_store"]:
            if data.audio_features is None and data.text_features is None:
                self._use_feature_store()
        elif model.config.audio_standardize and model.config.uses_audio and not self.hparams["pretrained"]:
            raise ValueError("config audio_standardize takes its statistics from a feature_store=: name one")
        self.dev_confusion = MulticlassConfusionMatrix(len(model.config.labels))
        self.dev_decoder_confusion = MulticlassConfusionMatrix(len(model.config.labels))

    def _prepare(self) -> None:
        """Put on a model as it was built or restored what training adds to it."""
        p = self.hparams
        model, _ = self.parts()
        check_shared_table(model, **self._encoder_switches())
        freeze_encoders(model, freeze=p["freeze"] or (), train_layers=p["train_layers"])
        _add_updates(model, freeze=p["freeze"], lora=p["lora"])
        if p["attention"] is not None:
            try:
                model.set_attn_implementation(p["attention"])
            except (ImportError, ValueError) as error:
                raise ValueError(
                    f"attention={p['attention']!r} cannot be used here: {' '.join(str(error).split())}; "
                    "accepted: sdpa, eager, flash_attention_2 (a CUDA device and the package flash-attn)"
                ) from None
        if p["gradient_checkpointing"]:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if p["uncertainty_weighting"] and model.decoder is None:
            raise ValueError(
                f"uncertainty_weighting= weighs two losses, and {p['pretrained']} writes no rationales"
            )
        settings = check_objectives(p["objectives"] or {})
        if settings and not (model.config.uses_audio and model.config.uses_text):
            raise ValueError(
                f"objectives= ({', '.join(settings)}) are of two modalities, and {p['pretrained']} has "
                f"fusion={model.config.fusion!r}"
            )
        if (balance := settings.pop("ogm_ge", None)) is not None:
            if self.trainer.world_size > 1:  # each process would change its gradients in its own way
                raise ValueError(f"objectives ogm_ge runs in one process, not in {self.trainer.world_size}")
            self.ogm_ge = OgmGe(**balance)
        for name, options in settings.items():
            self.objectives[name] = LOSSES[name](
                model.config.hidden_size, len(model.config.labels), **options
            )

    def configure_callbacks(self) -> list[Callback]:
        """The average of the weights, where one is kept."""
        if self.hparams["ema_decay"] is None:
            return []
        # buffers are kept as they are: some are integers, which an average would round
        return [EMAWeightAveraging(decay=self.hparams["ema_decay"], use_buffers=False)]

    def parts(self) -> tuple[MmsrForSentimentReasoning, MmsrProcessor]:
        """Model and processor, once `configure_model` has made them."""
        assert self.model is not None and self.processor is not None
        return self.model, self.processor

    def _build(self) -> None:
        p = self.hparams
        if p["pretrained"]:
            self.processor = MmsrProcessor.from_pretrained(p["pretrained"])
            self.model = MmsrForSentimentReasoning.from_pretrained(p["pretrained"])
        elif p["audio"] or p["text"]:
            self.processor, self.model = self._from_encoders()
        else:
            self.processor, self.model = self._from_preset()
        weights = p["class_weights"]
        if weights == "balanced":
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            if "label" in (data.balance or ""):
                raise ValueError(
                    f"class_weights='balanced' and data balance={data.balance!r} both make up for rare "
                    "labels, and together they prefer them: give one or the other"
                )
            data.attach(self.processor)  # turns indices in the manifest into labels
            weights = balanced_weights(data.train_rows["label"], self.processor.labels)
        if weights is not None:
            if len(weights) != len(self.processor.labels):
                raise ValueError(
                    f"class_weights has {len(weights)} entries; accepted: one for each of "
                    f"{', '.join(self.processor.labels)}"
                )
            self.model.config.class_weights = list(weights)
        if p["label_smoothing"] is not None:
            self.model.config.label_smoothing = p["label_smoothing"]

    def _from_preset(self) -> tuple[MmsrProcessor, MmsrForSentimentReasoning]:
        p = self.hparams
        rows = self.trainer.datamodule.train_rows  # type: ignore[attr-defined]
        rows = rows.select(range(0, len(rows), math.ceil(len(rows) / _TOKENIZER_ROWS)))
        texts = [
            text for column in ("text", "rationale") for text in column_of(rows, column).to_pylist() if text
        ]
        processor = MmsrProcessor.train(
            texts,
            labels=p["labels"],
            vocab_size=p["vocab_size"],
            rationale_format=p["rationale_format"],
            text_prefix=p["text_prefix"],
        )
        settings = {"fusion": p["fusion"], **(p["config"] or {})}
        if p["rationale_format"] != "none":
            settings |= {"label_token_ids": processor.label_token_ids, "decoder_type": p["decoder_type"]}
        config = MmsrConfig.from_preset(
            p["preset"], vocab_size=len(processor.tokenizer), **{**processor.config_kwargs(), **settings}
        )
        return processor, MmsrForSentimentReasoning(config)

    def _from_encoders(self) -> tuple[MmsrProcessor, MmsrForSentimentReasoning]:
        p = self.hparams
        if p["text"] is None and p["decoder"] is None:
            raise ValueError(
                "audio= without text=: the tokenizer comes from the text encoder or from a pretrained "
                "decoder; give text= or decoder= as well"
            )
        writes = p["rationale_format"] != "none"
        processor = MmsrProcessor.from_encoders(
            audio=p["audio"],
            text=p["text"],
            decoder=p["decoder"],
            labels=p["labels"] or list(DEFAULT_LABELS.values()),
            text_prefix=p["text_prefix"],
            rationale_format=p["rationale_format"],
        )
        model = MmsrForSentimentReasoning.from_encoders(
            audio=p["audio"],
            text=p["text"],
            decoder=(p["decoder"] or p["preset"]) if writes else None,
            processor=processor,
            **{
                "fusion": p["fusion"],
                **({"decoder_type": p["decoder_type"]} if writes else {}),
                **(p["config"] or {}),
            },
        )
        return processor, model

    def _use_feature_store(self) -> None:
        """Let the data module read the frozen encoders' states; encode what is not in the store yet."""
        p = self.hparams
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        options = {"bf16": self.trainer.precision == "bf16-mixed", "dtype": p["feature_dtype"]}
        splits = (data.train_rows, data.dev_rows)
        if "audio_encoder" in p["freeze"]:
            features = stored_audio(*self.parts(), p["feature_store"], **options)
            self._encode_all(features, [path for rows in splits for path in rows["audio"] if path], "audio")
            data.audio_features = features
            self._standardize(features, [path for path in data.train_rows["audio"] if path])
        if "text_encoder" in p["freeze"]:
            features = stored_text(*self.parts(), p["feature_store"], **options)
            texts = (text for rows in splits for text in rows[data.text_column] if text)
            self._encode_all(features, list(dict.fromkeys(texts)), "text")
            data.text_features = features

    def _encode_all(self, features: StoredFeatures, given: Sequence[str], what: str) -> None:
        """Encode what the store lacks, each process its part."""
        trainer = self.trainer
        mine = given[trainer.global_rank :: trainer.world_size]
        shown = trainer.is_global_zero and len(mine) >= 10
        with Progress(disable=not shown) as bar:
            task = bar.add_task(f"{what} features", total=len(mine))
            for done in features.fill(mine):
                bar.update(task, completed=done)
        features.store.record(f"{trainer.default_root_dir}, {what}")
        trainer.strategy.barrier()

    def _standardize(self, features: StoredFeatures, heard: Sequence[str]) -> None:
        """Take the audio stream's mean and deviation from some of the training files."""
        model, _ = self.parts()
        stream = model.encoder.audio_stream
        if stream.standardize and not self.trainer.ckpt_path and not self.hparams["pretrained"]:
            sample = heard[:: math.ceil(len(heard) / _STANDARDIZED_ON)]
            states = torch.cat([stream.kept_states(features(path)).float() for path in sample])  # [f, l, d]
            deviation, mean = torch.std_mean(states, dim=0)
            stream.mean.copy_(mean)
            stream.deviation.copy_(deviation.clamp(min=1e-5))

    # ------------------------------------------------------------------ steps

    def on_train_epoch_start(self) -> None:
        """Draw the epoch's random numbers from seed and epoch alone, and unfreeze what its turn it is.

        All but the frozen parts drops out.
        """
        p = self.hparams
        # each process drops out in its own way
        torch.manual_seed(p["seed"] * 10_000 + self.current_epoch + 1_000_003 * self.global_rank)
        model, _ = self.parts()
        model.train()  # from_pretrained leaves eval mode behind, and Lightning would keep it
        freeze_encoders(model, gradual_unfreezing=p["gradual_unfreezing"], epoch=self.current_epoch)
        for part in p["freeze"] or ():
            model_part(model, part, switch="freeze").eval()
        for part in {*(p["train_layers"] or ()), *(p["gradual_unfreezing"] or ())}:
            eval_frozen(model_part(model, part, switch="train_layers").train())

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of a batch after modality dropout."""
        batch = self._drop_modalities(batch)
        labels = batch["sentiment_labels"]
        model, _ = self.parts()
        watched: AbstractContextManager[dict[str, Pooled]] = nullcontext({})
        if self.objectives:
            watched = pooled_streams(model.encoder, len(labels))
        with watched as streams:
            outputs: list[MmsrOutput] = [model(**batch, use_cache=False)]
        if self.hparams["r_drop"]:
            outputs.append(model(**batch, use_cache=False))
        losses = {
            name: torch.stack([output[name] for output in outputs]).mean()
            for name in MODEL_LOSSES
            if outputs[0].get(name) is not None
        }
        if self.log_variances:
            losses["loss"] = self._weighed(losses, batch)
        if self.hparams["r_drop"]:
            losses["r_drop"] = self._divergence(outputs, batch)
            # the paper adds the two passes' losses, of which `loss` is the mean
            losses["loss"] = losses["loss"] + self.hparams["r_drop"] / 2 * losses["r_drop"]
        with torch.autocast(self.device.type, enabled=False):
            for name, objective in self.objectives.items():
                losses[f"{name}_loss"] = objective(streams, labels)
                losses["loss"] = losses["loss"] + objective.weight * losses[f"{name}_loss"]  # type: ignore
            if self.ogm_ge is not None:
                logits = self.objectives["auxiliary_heads"].logits(streams)  # type: ignore[operator]
                self.ogm_ge.observe(logits, streams, labels)
        for figure in self._figures(losses, len(labels)):
            self._log_training(*figure)
        for name, log_variance in self.log_variances.items():
            self._log_training(f"{name}_log_variance", log_variance, len(labels))
        return joined(losses["loss"], self) if self.trainer.world_size > 1 else losses["loss"]

    def _figures(self, losses: Mapping[str, Any], rows: int) -> Iterator[tuple[str, Any, int]]:
        """Each loss with its name and weight, those of the model first.

        Processes must log the same figures in the same order: one whose batch has no rationale logs a loss of
        no weight in its place.
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

    def _weighed(self, losses: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        """Σ exp(-s) L + s / 2 with s = log σ², the form of Kendall et al. for classification.

        A loss without a target in the batch (it is zero, or not there) leaves its s alone.
        """
        written = self._written(batch)
        known = {
            "sentiment_loss": (batch["sentiment_labels"] >= 0).any(),
            "rationale_loss": written is not None and written.any(),
        }
        total = losses["loss"].new_zeros(())
        for name, s in self.log_variances.items():
            total = total + torch.exp(-s) * losses.get(name, total.new_zeros(())) + known[name] * s / 2
        return total

    def _divergence(self, outputs: list[MmsrOutput], batch: dict[str, Tensor]) -> Tensor:
        """Divergence of two passes' labels plus λ times that of their rationales' tokens, as in the loss."""
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
        """Which of the rationale's targets are in the loss `[b, r]`; None where no row has a rationale."""
        labels = batch.get("labels")
        return None if labels is None else self.parts()[0].rationale_targets(labels) >= 0

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Balance the modalities' gradients, before they are clipped."""
        if self.ogm_ge is not None:
            model, _ = self.parts()
            for name, factor in self.ogm_ge.modulate(model).items():
                self._log_training(f"ogm_ge_{name}", factor, 1)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Losses of a development batch, both modalities present, and the confusion matrix of its labels.

        The decoder's labels count too where it gives the label first. Where it gives the label last, the
        given rationale would tell it.
        """
        output = self.model(**batch, use_cache=False)  # type: ignore[misc]
        labels = batch["sentiment_labels"]
        known = labels >= 0
        self.dev_confusion.update(output.sentiment_logits[known], labels[known])
        losses = {name: output.get(name) for name in MODEL_LOSSES}
        for name, loss, rows in self._figures(losses, len(labels)):
            self.log(f"dev_{name}", loss, batch_size=rows, sync_dist=True)
        if self._decoder_gives_label_first and output.decoder_sentiment_logits is not None:
            written = known & (batch["labels"] >= 0).any(-1)
            self.dev_decoder_confusion.update(output.decoder_sentiment_logits[written], labels[written])

    def on_validation_epoch_end(self) -> None:
        """Metrics of the labels, over the development rows of all processes.

        `dev_accuracy`, `dev_macro_f1` and so on are the head's, `dev_decoder_accuracy` and so on the
        decoder's.
        """
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

    def _drop_modalities(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mask one modality in some of the rows that have both."""
        audio_mask = next(
            (name for name in ("input_values_mask", "audio_features_mask") if name in batch), None
        )
        config = self.parts()[0].config
        reads_both = config.uses_audio and (config.uses_text or config.prompt_transcript)
        if audio_mask is None or "attention_mask" not in batch or not self.training or not reads_both:
            return batch
        audio, text = batch[audio_mask], batch["attention_mask"]
        both = audio.any(-1) & text.any(-1)
        draw = torch.rand(len(audio), device=audio.device)
        deaf = both & (draw < self.hparams["audio_dropout"])
        mute = both & (draw >= 1 - self.hparams["text_dropout"])
        return {
            **batch,
            audio_mask: audio.masked_fill(deaf[:, None], 0),
            "attention_mask": text.masked_fill(mute[:, None], 0),
        }

    # ------------------------------------------------------------------ optimiser

    def configure_optimizers(self) -> Any:
        """AdamW (no decay on vectors), linear warm-up, cosine to zero, stepped per batch."""
        p = self.hparams
        model, _ = self.parts()
        optimizer = torch.optim.AdamW(
            parameter_groups(
                self,
                model,
                learning_rate=p["learning_rate"],
                encoder_learning_rate=p["encoder_learning_rate"] or p["learning_rate"],
                layer_decay=p["layer_decay"],
                weight_decay=p["weight_decay"],
                decoder_loaded=bool(p["decoder"] or p["pretrained"]),
            ),
            foreach=True,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = math.ceil(p["warmup_ratio"] * steps)
        scheduler = LambdaLR(optimizer, partial(cosine_with_warmup, warmup=warmup, steps=steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put config and processor beside the weights, so that a checkpoint is whole by itself."""
        assert self.model is not None and self.processor is not None
        with tempfile.TemporaryDirectory() as folder:
            self.processor.save_pretrained(folder)
            files = {
                str(path.relative_to(folder)): path.read_bytes()
                for path in Path(folder).rglob("*")
                if path.is_file()
            }
        checkpoint["mmsr"] = {"config": self.model.config.to_json_string(use_diff=False), "processor": files}

    def _restore(self, saved: dict[str, Any]) -> None:
        self.processor, config = unpack(saved)
        self.model = MmsrForSentimentReasoning(config)


def _add_updates(
    model: MmsrForSentimentReasoning, *, freeze: Sequence[str] | None, lora: dict[str, Lora] | None
) -> None:
    """Add the weights that are trained in place of frozen ones, as the training's checkpoints hold them."""
    add_lora(model, lora or {})
    if "decoder" in {*(freeze or ()), *(lora or ())}:
        free_label_tokens(model)


def unpack(saved: dict[str, Any]) -> tuple[MmsrProcessor, MmsrConfig]:
    """Processor and config that `MmsrModule` put into a Lightning checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in saved["processor"].items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (Path(folder) / "config.json").write_text(saved["config"], encoding="utf-8")
        return MmsrProcessor.from_pretrained(folder), MmsrConfig.from_pretrained(folder)


def load_lightning_checkpoint(
    path: str | Path,
) -> tuple[MmsrForSentimentReasoning, MmsrProcessor]:
    """Model (in eval mode) and processor of a Lightning checkpoint that `mmsr fit` wrote.

    Raises:
        ValueError: the file is not such a checkpoint.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=False)
        processor, config = unpack(checkpoint["mmsr"])
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; accepted: a .ckpt file that `mmsr fit` wrote") from None
    except (
        pickle.UnpicklingError,
        KeyError,
        TypeError,
        RuntimeError,
        EOFError,
        ValueError,
        ImportError,
    ) as error:
        raise ValueError(f"{path} is no checkpoint of `mmsr fit` ({error})") from error
    model = MmsrForSentimentReasoning(config)
    switches = checkpoint["hyper_parameters"]
    _add_updates(model, freeze=switches.get("freeze"), lora=switches.get("lora"))
    prefix = "model."
    weights = checkpoint["state_dict"].items()
    model.load_state_dict(
        {name.removeprefix(prefix): value for name, value in weights if name.startswith(prefix)}
    )
    merge_lora(model)
    return model.eval(), processor


def balanced_weights(labels: Sequence[str | None], names: Sequence[str]) -> list[float]:
    """Weight of each label inverse to its frequency: n / (c · n of the label), as scikit-learn's `balanced`.

    Raises:
        ValueError: no row has one of the labels.
    """
    counts = Counter(label for label in labels if label is not None)
    if missing := [name for name in names if not counts[name]]:
        raise ValueError(
            f"class_weights='balanced': no training row is {', '.join(missing)}; accepted: rows of every "
            "label, or class_weights as a list of numbers"
        )
    return [counts.total() / (len(names) * counts[name]) for name in names]
