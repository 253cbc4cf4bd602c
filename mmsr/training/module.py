"""The Lightning module: how `MmsrForSentimentReasoning` is made from arguments, and trained.

arguments + training rows ─► processor ─► config ─► model            (configure_model, once the data is known)
batch ─► modality dropout ─► model ─► loss; development rows ─► dev_loss, dev_macro_f1
"""

from __future__ import annotations

import math
import pickle
import tempfile
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torchmetrics.classification import MulticlassF1Score
from transformers import get_cosine_schedule_with_warmup

from mmsr.data.features import FeatureStore, StoredFeatures, encoder_fingerprint
from mmsr.model.configuration import DEFAULT_LABELS, FUSIONS, MmsrConfig, check_choice
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor

FREEZABLE = ("audio_encoder", "text_encoder")
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
        fusion: How audio and transcript meet.
        rationale_format: Whether rationales are written (`multitask`) or labels alone are given (`none`).
        labels: Label names in the order of their ids; negative, neutral, positive by default.
        text_prefix: Put before every transcript, such as `query: ` for e5 encoders.
        vocab_size: Most pieces of the tokenizer that a fresh model trains on the training split.
        config: Further settings of `MmsrConfig`, such as `{hidden_size: 256, pooling: statistics}`.
        freeze: Parts that are not trained: audio_encoder, text_encoder.
        feature_store: Folder in which a frozen audio encoder's states are kept, so that it hears each file
            once, for all epochs and all runs that use the folder.
        learning_rate: Peak learning rate of what is trained from scratch.
        encoder_learning_rate: Peak learning rate of the encoders; by default `learning_rate`.
        weight_decay: AdamW's, on matrices alone.
        warmup_ratio: Share of all steps in which the learning rate rises; it then falls along a cosine to
            zero.
        audio_dropout: Probability that a training row with both modalities loses its audio.
        text_dropout: Probability that it loses its transcript instead.
        seed: Of the weights and, with the epoch's number, of dropout, so that a resumed run equals an
            unbroken one.
    """

    def __init__(
        self,
        preset: Literal["tiny", "small", "base"] = "small",
        audio: str | None = None,
        text: str | None = None,
        pretrained: str | None = None,
        fusion: str = "cross_attention",
        rationale_format: Literal["none", "multitask"] = "multitask",
        labels: list[str] | None = None,
        text_prefix: str = "",
        vocab_size: int = 4000,
        config: dict[str, Any] | None = None,
        freeze: list[str] | None = None,
        feature_store: str | None = None,
        learning_rate: float = 1e-3,
        encoder_learning_rate: float | None = None,
        weight_decay: float = 0.01,
        warmup_ratio: float = 0.1,
        audio_dropout: float = 0.1,
        text_dropout: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_choice("fusion", fusion, FUSIONS)
        for part in freeze or []:
            check_choice("freeze", part, FREEZABLE)
        for name, value in (("audio_dropout", audio_dropout), ("text_dropout", text_dropout)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; accepted: 0 to 1")
        if audio_dropout + text_dropout > 1:
            raise ValueError(
                f"audio_dropout={audio_dropout} and text_dropout={text_dropout} exceed 1 together"
            )
        if pretrained and (audio or text):
            raise ValueError(
                "pretrained= (a checkpoint) contradicts audio= and text= (encoders): give one or the other"
            )
        if feature_store and "audio_encoder" not in (freeze or []):
            raise ValueError(
                "feature_store= keeps what a frozen encoder answers; add audio_encoder to freeze="
            )
        self.save_hyperparameters()
        self.model: MmsrForSentimentReasoning | None = None
        self.processor: MmsrProcessor | None = None

    # ------------------------------------------------------------------ making the model

    def configure_model(self) -> None:
        """Make processor and model, or take those of the checkpoint that the run goes on from."""
        if self.model is None:
            if self.trainer.ckpt_path:
                checkpoint = torch.load(self.trainer.ckpt_path, map_location="cpu", weights_only=False)
                self._restore(checkpoint["mmsr"])
            else:
                L.seed_everything(self.hparams["seed"], verbose=False)
                self._build()
        assert self.model is not None and self.processor is not None
        for part in self.hparams["freeze"] or []:
            getattr(self.model.encoder, part).requires_grad_(False)
        self.trainer.datamodule.attach(self.processor, rationales=self.model.decoder is not None)  # type: ignore
        if self.hparams["feature_store"]:
            self._use_feature_store()
        elif self.model.config.audio_standardize and not self.hparams["pretrained"]:
            raise ValueError("config audio_standardize takes its statistics from a feature_store=: name one")
        self.dev_macro_f1 = MulticlassF1Score(len(self.model.config.labels), average="macro")

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

    def _from_preset(self) -> tuple[MmsrProcessor, MmsrForSentimentReasoning]:
        p = self.hparams
        rows = self.trainer.datamodule.train_rows  # type: ignore[attr-defined]
        texts = [text for column in ("text", "rationale") for text in rows[column] if text]
        processor = MmsrProcessor.train(texts, labels=p["labels"], vocab_size=p["vocab_size"])
        settings = {"fusion": p["fusion"], "rationale_format": p["rationale_format"], **(p["config"] or {})}
        if p["rationale_format"] != "none":
            settings["label_token_ids"] = processor.label_token_ids
        config = MmsrConfig.from_preset(
            p["preset"], vocab_size=len(processor.tokenizer), **{**processor.config_kwargs(), **settings}
        )
        return processor, MmsrForSentimentReasoning(config)

    def _from_encoders(self) -> tuple[MmsrProcessor, MmsrForSentimentReasoning]:
        p = self.hparams
        if p["text"] is None:
            raise ValueError(
                "audio= without text=: the tokenizer comes from the text encoder; give text= as well"
            )
        writes = p["rationale_format"] != "none"
        processor = MmsrProcessor.from_encoders(
            audio=p["audio"],
            text=p["text"],
            labels=p["labels"] or list(DEFAULT_LABELS.values()),
            text_prefix=p["text_prefix"],
            label_tokens=writes,
        )
        model = MmsrForSentimentReasoning.from_encoders(
            audio=p["audio"],
            text=p["text"],
            decoder=p["preset"] if writes else None,
            processor=processor,
            **{"fusion": p["fusion"], **(p["config"] or {})},
        )
        return processor, model

    def _use_feature_store(self) -> None:
        """Let the data module read the frozen audio encoder's states; encode what is not in the store yet."""
        assert self.model is not None and self.processor is not None
        bf16 = self.trainer.precision == "bf16-mixed"
        features = stored_audio(self.model, self.processor, self.hparams["feature_store"], bf16=bf16)
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        paths = [path for rows in (data.train_rows, data.dev_rows) for path in rows["audio"] if path]
        for path in track(paths, description="audio features", disable=len(paths) < 10):
            features(path)
        data.audio_features = features
        stream = self.model.encoder.audio_stream
        if stream.standardize and not self.trainer.ckpt_path and not self.hparams["pretrained"]:
            heard = [path for path in data.train_rows["audio"] if path]
            sample = heard[:: math.ceil(len(heard) / _STANDARDIZED_ON)]
            states = torch.cat([stream.kept_states(features(path)).float() for path in sample])  # [f, l, d]
            deviation, mean = torch.std_mean(states, dim=0)
            stream.mean.copy_(mean)
            stream.deviation.copy_(deviation.clamp(min=1e-5))

    # ------------------------------------------------------------------ steps

    def on_train_epoch_start(self) -> None:
        """Draw the epoch's random numbers from seed and epoch alone; drop out, but not in frozen parts."""
        torch.manual_seed(self.hparams["seed"] * 10_000 + self.current_epoch)
        if self.model is not None:
            self.model.train()  # from_pretrained leaves eval mode behind, and Lightning would keep it
            for part in self.hparams["freeze"] or []:
                getattr(self.model.encoder, part).eval()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of a batch after modality dropout."""
        output = self.model(**self._drop_modalities(batch), use_cache=False)  # type: ignore[misc]
        rows = len(batch["sentiment_labels"])
        for name in ("loss", "sentiment_loss", "rationale_loss"):
            if output.get(name) is not None:
                self.log(
                    f"train_{name}", output[name].detach(), on_step=False, on_epoch=True, batch_size=rows
                )
        return output.loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Losses and macro-F1 of the development rows, both modalities present."""
        output = self.model(**batch, use_cache=False)  # type: ignore[misc]
        labels = batch["sentiment_labels"]
        known = labels >= 0
        self.dev_macro_f1.update(output.sentiment_logits[known], labels[known])
        for name in ("loss", "sentiment_loss", "rationale_loss"):
            if output.get(name) is not None:
                self.log(f"dev_{name}", output[name], batch_size=len(labels), sync_dist=True)
        self.log("dev_macro_f1", self.dev_macro_f1, prog_bar=True)

    def _drop_modalities(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mask one modality in some of the rows that have both."""
        audio_mask = next(
            (name for name in ("input_values_mask", "audio_features_mask") if name in batch), None
        )
        if audio_mask is None or "attention_mask" not in batch or not self.training:
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
        rates = {True: p["encoder_learning_rate"] or p["learning_rate"], False: p["learning_rate"]}
        groups: dict[tuple[bool, bool], list[Tensor]] = {}
        for name, parameter in self.model.named_parameters():  # type: ignore[union-attr]
            if parameter.requires_grad:
                pretrained = any(name.startswith(f"encoder.{part}.") for part in FREEZABLE)
                groups.setdefault((pretrained, parameter.ndim > 1), []).append(parameter)
        optimizer = torch.optim.AdamW(
            [
                {
                    "params": members,
                    "lr": rates[pretrained],
                    "weight_decay": p["weight_decay"] if matrix else 0.0,
                }
                for (pretrained, matrix), members in groups.items()
            ],
            foreach=True,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = math.ceil(p["warmup_ratio"] * steps)
        scheduler = get_cosine_schedule_with_warmup(optimizer, warmup, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put config and processor beside the weights, so that a checkpoint is whole by itself."""
        assert self.model is not None and self.processor is not None
        with tempfile.TemporaryDirectory() as folder:
            self.processor.save_pretrained(folder)
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}
        checkpoint["mmsr"] = {"config": self.model.config.to_json_string(use_diff=False), "processor": files}

    def _restore(self, saved: dict[str, Any]) -> None:
        self.processor, config = unpack(saved)
        self.model = MmsrForSentimentReasoning(config)


def stored_audio(
    model: MmsrForSentimentReasoning, processor: MmsrProcessor, folder: str | Path, *, bf16: bool
) -> StoredFeatures:
    """The model's frozen audio encoder behind a feature store: path of an audio file -> states `[f, l, d]`.

    Args:
        model: Whose audio encoder is meant.
        processor: What it hears through.
        folder: Of the store.
        bf16: Encode under bfloat16 autocast, as training in mixed precision does.
    """
    encoder = model.encoder
    encoder.audio_encoder.eval()

    @torch.inference_mode()
    def encode(waveform: np.ndarray) -> Tensor:
        inputs = processor(audio=[waveform], return_tensors="pt").to(model.device)
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
            states, mask = encoder.encode_audio(inputs["input_values"], inputs["input_values_mask"])
        return states[0, : int(mask.sum())]

    return StoredFeatures(
        FeatureStore(folder),
        encode,
        encoder=encoder_fingerprint(encoder.audio_encoder.model),
        processing={
            "config": encoder.audio_encoder.config.to_json_string(use_diff=False),
            "layers": encoder.audio_encoder.num_states,
            "feature_extractor": processor.feature_extractor.to_dict(),
            "bf16": bf16,
        },
    )


def unpack(saved: dict[str, Any]) -> tuple[MmsrProcessor, MmsrConfig]:
    """Processor and config that `MmsrModule` put into a Lightning checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in saved["processor"].items():
            (Path(folder) / name).write_bytes(content)
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
    prefix = "model."
    weights = {name.removeprefix(prefix): value for name, value in checkpoint["state_dict"].items()}
    model.load_state_dict({name: value for name, value in weights.items() if not name.startswith("dev_")})
    return model.eval(), processor
