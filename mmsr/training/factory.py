"""Makes model and processor of a run from its settings, and what training adds to them.

settings, training rows ─► make_model ─► model, processor
model ─► prepare_model ─► frozen parts, low-rank updates, attention implementation
model, settings ─► make_objectives ─► modules that are trained beside it
frozen encoders, data ─► use_feature_store ─► stored states in place of waveforms and tokens
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from huggingface_hub.utils import HFValidationError, validate_repo_id
from torch import nn
from transformers.utils import cached_file

from mmsr.data.features.encoders import stored_audio, stored_text
from mmsr.data.features.store import StoredFeatures
from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.manifest.manifest import column_of
from mmsr.model.configuration import DEFAULT_LABELS, MmsrConfig, without_decoder
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.packaged import find_checkpoint
from mmsr.model.processing import MmsrProcessor
from mmsr.progress import log, show_progress
from mmsr.training.objectives import LOSSES, OgmGe, check_objectives
from mmsr.training.parameters import add_lora, check_shared_table, free_label_tokens, freeze_encoders
from mmsr.training.settings import PRETRAINED, Computation, Freezing, Lora, ModelSource, TrainingSettings

_TOKENIZER_ROWS = 50_000  # for training a tokenizer: more rows hardly change its pieces
_STANDARDIZED_ON = 128  # training files, spread evenly; some 20,000 frames

Parts = tuple[MmsrForSentimentReasoning, MmsrProcessor]


# ---------------------------------------------------------------------- model and processor


def check_sources(source: ModelSource) -> None:
    """Refuse pretrained parts that are neither folders nor on the Hub, before anything is read.

    Raises:
        ValueError: Names the setting.
    """
    for part in PRETRAINED:
        name = getattr(source, part)
        if name is None or Path(name if part == "decoder" else find_checkpoint(name)).is_dir():
            continue
        accepted = "accepted: a folder that save_pretrained wrote, a Hub id, or base or demo"
        try:
            validate_repo_id(name)
            cached_file(name, "config.json")
        except HFValidationError:
            raise ValueError(f"{part}={name}: no such folder; {accepted}") from None
        except OSError as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise ValueError(
                f"{part}={name}: no such folder, and not to be had from the Hub ({reason}); {accepted}"
            ) from None


def make_model(settings: TrainingSettings, data: MmsrDataModule) -> Parts:
    """Make model and processor, with the class weights in the model's config.

    Args:
        settings: Settings of the run.
        data: Its training rows train the tokenizer of a fresh model, and give balanced class weights.

    Raises:
        ValueError: The parts do not go together, or the class weights do not fit labels or data.
    """
    if settings.pretrained:
        folder = find_checkpoint(settings.pretrained)
        processor = MmsrProcessor.from_pretrained(folder)
        model = MmsrForSentimentReasoning.from_pretrained(folder)
        if model.config.has_evidence:
            log(
                f"{settings.pretrained} names its evidence by heads that fit its own weights: they are left "
                "out, and mmsr.training.evidence fits new ones"
            )
            model.encoder.remove_evidence()
    elif settings.audio or settings.text:
        model, processor = _from_encoders(settings)
    else:
        model, processor = _from_preset(settings, data)
    if settings.init_from:
        _load_weights(model, processor, find_checkpoint(settings.init_from))
    weights = settings.class_weights
    if weights == "balanced":
        if "label" in (data.balance or ""):
            raise ValueError(
                f"class_weights='balanced' and data balance={data.balance!r} both make up for rare "
                "labels, and together they prefer them: give one or the other"
            )
        data.attach(processor)  # turns indices in the manifest into labels
        weights = balanced_weights(data.train_rows["label"], processor.labels)
    if weights is not None:
        if len(weights) != len(processor.labels):
            accepted = f"one for each of {', '.join(processor.labels)}"
            raise ValueError(f"class_weights has {len(weights)} entries; accepted: {accepted}")
        model.config.class_weights = list(weights)
    if settings.label_smoothing is not None:
        model.config.label_smoothing = settings.label_smoothing
    return model, processor


def _from_preset(source: ModelSource, data: MmsrDataModule) -> Parts:
    """A fresh model, whose tokenizer is trained on the training rows."""
    rows = data.train_rows
    rows = rows.select(range(0, len(rows), math.ceil(len(rows) / _TOKENIZER_ROWS)))
    processor = MmsrProcessor.train(
        [text for column in ("text", "rationale") for text in column_of(rows, column).to_pylist() if text],
        labels=source.labels,
        vocab_size=source.vocab_size,
        rationale_format=source.rationale_format,
        text_prefix=source.text_prefix,
        target_level=source.target_level,
    )
    config = {**processor.config_kwargs(), "fusion": source.fusion, **(source.config or {})}
    if not without_decoder(source.rationale_format):
        config |= {"label_token_ids": processor.label_token_ids, "decoder_type": source.decoder_type}
    vocab_size = len(processor.tokenizer)
    made = MmsrConfig.from_preset(source.preset, vocab_size=vocab_size, **config)
    return MmsrForSentimentReasoning(made), processor


def _from_encoders(source: ModelSource) -> Parts:
    """A model of pretrained parts."""
    if source.text is None and source.decoder is None:
        raise ValueError(
            "audio= without text=: the tokenizer comes from the text encoder or from a pretrained "
            "decoder; give text= or decoder= as well"
        )
    given = {"audio": source.audio, "text": source.text}
    encoders = {name: None if part is None else find_checkpoint(part) for name, part in given.items()}
    processor = MmsrProcessor.from_encoders(
        **encoders,
        decoder=source.decoder,
        labels=source.labels or list(DEFAULT_LABELS.values()),
        text_prefix=source.text_prefix,
        target_level=source.target_level,
        rationale_format=source.rationale_format,
    )
    writes = not without_decoder(source.rationale_format)
    decoder_type = {"decoder_type": source.decoder_type} if writes else {}
    model = MmsrForSentimentReasoning.from_encoders(
        **encoders,
        decoder=(source.decoder or source.preset) if writes else None,
        processor=processor,
        **{"fusion": source.fusion, **decoder_type, **(source.config or {})},
    )
    return model, processor


def _load_weights(model: MmsrForSentimentReasoning, processor: MmsrProcessor, folder: str) -> None:
    """Give a model the weights of a checkpoint of the same architecture and vocabulary.

    Raises:
        ValueError: Vocabulary, weights or shapes differ.
    """
    accepted = (
        "accepted: the settings and training rows that it was made with, or pretrained= in place of them"
    )
    vocabulary = MmsrProcessor.from_pretrained(folder).tokenizer.get_vocab()
    if vocabulary != processor.tokenizer.get_vocab():
        raise ValueError(f"init_from={folder}: its tokenizer is another one; {accepted}")
    trained = MmsrForSentimentReasoning.from_pretrained(folder)
    trained.encoder.remove_evidence()
    theirs = {name: kept for name, kept in trained.state_dict().items() if "_outlier_detector." not in name}
    ours = model.state_dict()
    differing = [name for name in (*ours, *theirs) if _shape(ours, name) != _shape(theirs, name)]
    if differing:
        name = differing[0]
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        shapes = f"is {_shape(theirs, name)} there and {_shape(ours, name)} in these settings"
        raise ValueError(f"init_from={folder}: {name}{more} {shapes}; {accepted}")
    model.load_state_dict(theirs)


def _shape(state: Mapping[str, torch.Tensor], name: str) -> list[int] | str:
    return list(state[name].shape) if name in state else "missing"


def balanced_weights(labels: Sequence[str | None], names: Sequence[str]) -> list[float]:
    """Weights inverse to the labels' frequencies, n / (c · n of the label), as scikit-learn's `balanced`.

    Raises:
        ValueError: A label has no row.
    """
    counts = Counter(label for label in labels if label is not None)
    if missing := [name for name in names if not counts[name]]:
        raise ValueError(
            f"class_weights='balanced': no training row is {', '.join(missing)}; accepted: rows of every "
            "label, or class_weights as a list of numbers"
        )
    return [counts.total() / (len(names) * counts[name]) for name in names]


# ---------------------------------------------------------------------- what training adds


def prepare_model(model: MmsrForSentimentReasoning, freezing: Freezing, computation: Computation) -> None:
    """Freeze parts, add low-rank updates, and set attention and gradient checkpointing.

    Raises:
        ValueError: The model lacks a named part, or the attention implementation cannot be used here.
    """
    check_shared_table(model, freezing)
    freeze_encoders(model, freeze=freezing.freeze or (), train_layers=freezing.train_layers)
    add_updates(model, freeze=freezing.freeze, lora=freezing.lora)
    if computation.attention is not None:
        try:
            model.set_attn_implementation(computation.attention)
        except (ImportError, ValueError) as error:
            raise ValueError(
                f"attention={computation.attention!r} cannot be used here: {' '.join(str(error).split())}; "
                "accepted: sdpa, eager, flash_attention_2 (a CUDA device and the package flash-attn)"
            ) from None
    if computation.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})


def add_updates(
    model: MmsrForSentimentReasoning, *, freeze: Sequence[str] | None, lora: dict[str, Lora] | None
) -> None:
    """Add the weights that are trained in place of frozen ones; checkpoints of the training have them."""
    add_lora(model, lora or {})
    if "decoder" in {*(freeze or ()), *(lora or ())}:
        free_label_tokens(model)


def make_objectives(
    settings: TrainingSettings, model: MmsrForSentimentReasoning, *, processes: int
) -> tuple[dict[str, nn.Module], OgmGe | None]:
    """Make the further objectives by name, and OGM-GE if it is among them.

    Raises:
        ValueError: The model lacks a modality or the decoder, or OGM-GE is to run in several processes.
    """
    config = model.config
    if settings.uncertainty_weighting and model.decoder is None:
        raise ValueError(
            f"uncertainty_weighting= weighs two losses, and {settings.pretrained} writes no rationales"
        )
    options = check_objectives(settings.objectives or {})
    if options and not (config.uses_audio and config.uses_text):
        raise ValueError(
            f"objectives= ({', '.join(options)}) are of two modalities, and {settings.pretrained} has "
            f"fusion={config.fusion!r}"
        )
    balance = options.pop("ogm_ge", None)
    if balance is not None and processes > 1:  # each would change its gradients in its own way
        raise ValueError(f"objectives ogm_ge runs in one process, not in {processes}")
    made: dict[str, nn.Module] = {
        name: LOSSES[name](config.hidden_size, len(config.labels), **given) for name, given in options.items()
    }
    return made, None if balance is None else OgmGe(**balance)


# ---------------------------------------------------------------------- feature store


def use_feature_store(
    settings: TrainingSettings, model: MmsrForSentimentReasoning, processor: MmsrProcessor, trainer: L.Trainer
) -> None:
    """Make the data module read the frozen encoders' states; encode the ones that the store lacks."""
    data: MmsrDataModule = trainer.datamodule  # type: ignore[attr-defined]
    for modality, features, inputs in open_feature_store(settings, model, processor, trainer):
        _fill(features, inputs, modality, trainer)
        if modality == "text":
            data.text_features = features
            continue
        data.audio_features = features
        if model.encoder.audio_stream.standardize and not trainer.ckpt_path and not settings.checkpoint:
            _standardize(model, features, [path for path in data.train_rows["audio"] if path])


def open_feature_store(
    settings: TrainingSettings, model: MmsrForSentimentReasoning, processor: MmsrProcessor, trainer: L.Trainer
) -> Iterator[tuple[Literal["audio", "text"], StoredFeatures, list[str]]]:
    """The modality of each frozen encoder that the model uses, its store, and the run's distinct inputs.

    These are the audio files, or the transcripts, of training and development rows.
    """
    assert settings.feature_store is not None
    data: MmsrDataModule = trainer.datamodule  # type: ignore[attr-defined]
    bf16, dtype = trainer.precision == "bf16-mixed", settings.feature_dtype

    def inputs(column: str) -> list[str]:
        splits = (data.train_rows, data.dev_rows)
        return list(dict.fromkeys(value for rows in splits for value in rows[column] if value))

    if "audio_encoder" in settings.frozen and model.config.uses_audio:
        audio = stored_audio(model, processor, settings.feature_store, bf16=bf16, dtype=dtype)
        yield "audio", audio, inputs("audio")
    if "text_encoder" in settings.frozen and model.config.uses_text:
        text = stored_text(model, processor, settings.feature_store, bf16=bf16, dtype=dtype)
        yield "text", text, inputs(data.text_column)


def _fill(features: StoredFeatures, inputs: Sequence[str], modality: str, trainer: L.Trainer) -> None:
    """Encode the inputs that the store lacks, each process a part of them."""
    mine = inputs[trainer.global_rank :: trainer.world_size]
    shown = trainer.is_global_zero and trainer.progress_bar_callback is not None and len(mine) >= 10
    show = show_progress() if shown else None
    for done in features.fill(mine):
        if show is not None:
            show(f"{modality} features", done, len(set(mine)))
    features.store.record(f"{trainer.default_root_dir}, {modality}")
    trainer.strategy.barrier()


def _standardize(model: MmsrForSentimentReasoning, features: StoredFeatures, paths: Sequence[str]) -> None:
    """Set the audio stream's mean and deviation from some training files."""
    stream = model.encoder.audio_stream
    sample = paths[:: math.ceil(len(paths) / _STANDARDIZED_ON)]
    stream.set_statistics(torch.cat([stream.kept_states(features(path)).float() for path in sample]))
