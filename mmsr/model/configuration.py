"""Configuration of the joint audio-text model: its architecture, not its training."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from transformers import AutoConfig, GenerationConfig, PreTrainedConfig
from transformers.utils import logging

from mmsr.messages import did_you_mean
from mmsr.model.presets import PRESETS, SHAPES, decoder_config, prefix_config
from mmsr.model.remote import AUTO_MAP, FoundByAutoFile, write_auto_file

logger = logging.get_logger(__name__)

FORMAT_VERSION = 2
"""Version of the checkpoint format; a checkpoint without one has version 1.

2: weights have the names of `joint_encoder`, `sentiment_head` and `rationale_decoder`.
"""

POOLINGS = ("mean", "attention", "statistics")
QUOTES = ("free", "transcript")
MEMORY_EMBEDDINGS = ("text", "fused")
DECODERS = ("cross_attention", "prefix", "none")

DEFAULT_LABELS = {0: "negative", 1: "neutral", 2: "positive"}


@dataclass(frozen=True)
class RationaleFormat:
    """Layout of the decoder's text; without a decoder there is none.

    Attributes:
        label_first: Label, then rationale; else rationale, then label.
        label_learned: The rationale's loss includes the label, so that the decoder gives a label of its own.
    """

    label_first: bool
    label_learned: bool


RETRIEVAL = "retrieval"
RATIONALE_FORMATS: dict[str, RationaleFormat | None] = {
    "none": None,
    "multitask": RationaleFormat(label_first=True, label_learned=False),
    "post_thinking": RationaleFormat(label_first=True, label_learned=True),
    "pre_thinking": RationaleFormat(label_first=False, label_learned=True),
    RETRIEVAL: None,
}


def without_decoder(rationale_format: str) -> bool:
    """Whether a rationale format is one of a model without a decoder."""
    return rationale_format in RATIONALE_FORMATS and RATIONALE_FORMATS[rationale_format] is None


# Settings of any transformers model that a configuration may be given.
_OF_TRANSFORMERS = {field.name for field in fields(PreTrainedConfig)} | {
    "attn_implementation",
    "auto_map",
    "custom_pipelines",
    "experts_implementation",
    "gradient_checkpointing",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "per_layer_config",
    "quantization_config",
    "torch_dtype",
    "use_cache",
}

_OF_LABELS = ("id2label", "label2id", "num_labels")

_LEAST = {
    "hidden_size": 1,
    "fusion_layers": 0,
    "fusion_heads": 1,
    "fusion_intermediate_size": 1,
    "fusion_bottlenecks": 1,
    "fusion_rank": 1,
    "fusion_experts": 1,
    "fusion_active_experts": 1,
    "fusion_balance_rate": 0,
    "audio_stride": 1,
    "audio_convolutions": 0,
    "rationale_loss_weight": 0,
    "memory_neighbours": 1,
    "memory_size": 1,
}


def check_class_weights(weights: Sequence[float]) -> None:
    """Raise `ValueError` where a weight is negative or none is above zero."""
    if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise ValueError(f"class_weights={list(weights)}; accepted: none below 0, and not 0 for all")


def check_label_names(labels: Sequence[str], field: str) -> None:
    """Raise `ValueError` where a label has no name, or two have the same."""
    for label in labels:
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"{field} has the name {label!r}; accepted: a name for each label")
        if (times := labels.count(label)) > 1:
            raise ValueError(f"{field} has the name {label!r} {times} times; accepted: each name once")


def _fusions() -> tuple[str, ...]:
    from mmsr.model.fusion import FUSION_CLASSES

    return tuple(FUSION_CLASSES)


def fusion_modalities(fusion: str) -> tuple[str, ...]:
    """The modalities that a fusion uses: "audio", "text", or both."""
    from mmsr.model.fusion import FUSION_CLASSES

    return getattr(FUSION_CLASSES[fusion], "modalities", ("audio", "text"))


def check_choice(field: str, value: str, accepted: tuple[str, ...]) -> None:
    """Raise `ValueError` naming the field, the value and what would be accepted."""
    if value not in accepted:
        hint = did_you_mean(value, accepted)
        raise ValueError(f"{field}={value!r} does not exist{hint}; accepted: {', '.join(accepted)}")


def check_names(what: str, names: Iterable[str], accepted: Iterable[str]) -> None:
    """Raise `ValueError` for the first unknown name, with the nearest accepted one and all."""
    accepted = sorted(accepted)
    for name in names:
        if name not in accepted:
            hint = did_you_mean(name, accepted)
            raise ValueError(f"{what} {name!r} does not exist{hint}; accepted: {', '.join(accepted)}")


def check_folder(path: str | os.PathLike[str]) -> None:
    """Refuse a file or folder that is no checkpoint; a Hub id, which is neither, passes.

    Raises:
        ValueError: It is a file, lacks config.json, or has pickled weights alone, which are not read.
    """
    folder = Path(path)
    accepted = "accepted: a folder that `mmsr fit` or save_pretrained wrote"
    if folder.is_file() and folder.suffix == ".ckpt":
        raise ValueError(
            f"{path} is a checkpoint of Lightning; accepted: the folder that mmsr export {path} --out FOLDER "
            "writes"
        )
    if folder.is_file():
        raise ValueError(f"{path} is a file; {accepted}")
    if not folder.is_dir():
        return
    if not (folder / "config.json").is_file():
        inside = folder / "model"
        hint = f"; did you mean {inside}?" if (inside / "config.json").is_file() else ""
        raise ValueError(f"{path} has no config.json{hint}; {accepted}")
    pickled = [*folder.glob("pytorch_model*.bin")]
    if pickled and not [*folder.glob("*.safetensors*")]:
        raise ValueError(
            f"{path} has pickled weights ({pickled[0].name}), which are not read, since a pickle can run "
            "code; accepted: model.safetensors"
        )


class MmsrConfig(FoundByAutoFile, PreTrainedConfig):
    """Architecture of `MmsrForSentimentReasoning`.

    Each part has its own transformers config, so that a checkpoint reloads offline. Settings of a modality
    that the fusion does not use have no effect, so that an ablation can vary `fusion` alone.

    Args:
        audio_encoder: Config (or its dict with `model_type`) of a transformers speech encoder; None with
            `fusion="text_only"`.
        text_encoder: Config of a transformers text encoder; None with `fusion="audio_only"`.
        decoder: Config of the language model that writes the rationale: with `cross_attention` a causal one
            with cross-attention or an encoder-decoder, whose encoder is removed; with `prefix` any causal
            one; None with `decoder_type="none"`.
        hidden_size: Width d of the fused memory.
        fusion: One of `FUSION_CLASSES` in `mmsr.model.fusion`.
        fusion_layers: Number of fusion layers.
        fusion_heads: Attention heads of the fusion and of the attention pooling; divides `hidden_size`.
        fusion_intermediate_size: Width of the fusion's feed-forward blocks.
        fusion_bottlenecks: Number of latent tokens of `fusion="bottleneck"`.
        fusion_rank: Number of rank-one terms of `fusion="low_rank"`.
        fusion_experts: Number of routed experts in a layer of `fusion="mixture"`.
        fusion_active_experts: Number of them that the gate chooses for an utterance.
        fusion_balance_rate: Step by which the gate's bias is moved against uneven loads, once for each step
            of the optimiser; 0 for no balance.
        dropout: Dropout probability in fusion and head.
        pooling: How the memory becomes one vector for the head, one of `POOLINGS`.
        audio_layer_mix: Learn a weighted sum of the audio encoder's layers; else take the last.
        audio_layers: Layers of that sum; all by default. 0 is the input of the first layer, k the output of
            the k-th.
        text_layer_mix: Learn a weighted sum of the text encoder's layers.
        audio_standardize: Shift and scale each dimension of the audio encoder's states by statistics of the
            training split. Whisper's states need it: a few dimensions are far larger than the others.
        audio_stride: Number of neighbouring audio frames that are stacked into one position of the fusion.
        audio_convolutions: Number of convolutions over neighbouring positions of the audio stream, before the
            fusion. A frozen encoder's lower layers say little of how a voice moves; these do.
        audio_window_seconds: Length of a Whisper encoder's windows; None for its full 30 s.
        audio_dynamic_range: Decades of power below a window's loudest mel value that a Whisper encoder's
            log-mel keeps; all below is lifted to that floor. None for Whisper's own 8 (80 dB). Fewer, such
            as 4, hide the noise of rooms and microphones, and quiet sounds with it; a frozen encoder, which
            never met such spectrograms, reads them badly.
        audio_outlier_layer: Layer of the audio encoder whose states tell what is no speech (silence, noise,
            music), counted as in `audio_layers`; None for no such detector. See `mmsr.training.outliers`.
        text_outlier_layer: Layer of the text encoder whose states tell what is in no known language.
        audio_outlier_threshold: Probability above which audio is an outlier: it is left out where the row has
            a transcript that is none, and else marked. `mmsr.training.outliers` chooses it.
        text_outlier_threshold: The same of a transcript.
        voice_emotions: Names of the emotions of a voice that the model tells apart; None without such a head.
            It, like the next two, is for rationales without a decoder: see `mmsr.model.evidence`.
        text_emotions: Names of the emotions of words that the model tells apart, and `neutral`; it then also
            weighs each token for each label. None without.
        text_languages: Languages of transcripts that it tells apart, by their codes; with `text_emotions`.
        decoder_type: How the decoder reads the memory: through `cross_attention`, as a soft `prefix`, or
            `none` for a label only.
        prompt_transcript: The decoder reads the transcript's tokens after the soft prefix, which is of the
            audio alone, as in audio-language models. Needs `decoder_type="prefix"`, `fusion="audio_only"` and
            a `rationale_format` in which the decoder gives the label.
        rationale_format: `multitask` (the head gives the label, the decoder explains it), `post_thinking`
            (the decoder writes label, then rationale), `pre_thinking` (rationale, then label), or, with
            `decoder_type="none"`, `retrieval` (rationales of training rows, from a memory of them: see
            `mmsr.model.memory`) or `none`. The head is trained in every format.
        memory_embedding: What is compared with `retrieval`: `text`, the mean of the text encoder's last
            states, or `fused`, the mean of the memory's positions, as always with `fusion="audio_only"`.
        memory_neighbours: Number of nearest training rows from whose rationales one is chosen.
        memory_size: Most training rows in that memory.
        quotes: What the decoder may write between quotation marks: with `transcript`, generation allows
            nothing but whole words of the transcript, and rationales without one quote nothing; `generate`
            itself needs `processor.quote_grammar` for that (see `mmsr.model.quotes`). With `free`, anything.
        shared_vocabulary: Decoder and text encoder have the same tokenizer.
        tie_word_embeddings: Text encoder and decoder share one table of word embeddings, which is the
            decoder's output layer too, as in BART and T5.
        label_token_ids: The decoder's token of each label, in the order of `id2label`.
        decoder_start_token_id: The decoder's first token.
        rationale_loss_weight: λ in loss = sentiment cross-entropy + λ · rationale cross-entropy.
        label_smoothing: Smoothing of the sentiment cross-entropy, 0 to 1.
        class_weights: Weight of each label in the sentiment cross-entropy.
        temperature: Divides the head's logits before the softmax of the reported probabilities. Logits,
            losses and label do not depend on it. `mmsr fit` and `mmsr calibrate` fit it.
        decoder_temperature: The same for the decoder's scores of the label tokens.
        sampling_rate: Of `input_values`, in Hz.

    Raises:
        ValueError: An unknown name, or settings that contradict each other. Unknown names of a saved
            configuration are logged, since another release may have written them.
    """

    model_type = "mmsr"
    sub_configs: ClassVar[dict[str, Any]] = {
        "audio_encoder": AutoConfig,
        "text_encoder": AutoConfig,
        "decoder": AutoConfig,
    }

    # parts
    audio_encoder: PreTrainedConfig | dict[str, Any] | None = None
    text_encoder: PreTrainedConfig | dict[str, Any] | None = None
    decoder: PreTrainedConfig | dict[str, Any] | None = None
    # structure
    hidden_size: int = 128
    fusion: str = "cross_attention"
    fusion_layers: int = 1
    fusion_heads: int = 4
    fusion_intermediate_size: int = 256
    fusion_bottlenecks: int = 4
    fusion_rank: int = 4
    fusion_experts: int = 4
    fusion_active_experts: int = 2
    fusion_balance_rate: float = 0.01
    dropout: float = 0.1
    pooling: str = "statistics"
    audio_layer_mix: bool = False
    audio_layers: list[int] | None = None
    text_layer_mix: bool = False
    audio_standardize: bool = False
    audio_stride: int = 1
    audio_convolutions: int = 0
    audio_window_seconds: float | None = None
    audio_dynamic_range: float | None = None
    audio_outlier_layer: int | None = None
    text_outlier_layer: int | None = None
    voice_emotions: list[str] | None = None
    text_emotions: list[str] | None = None
    text_languages: list[str] | None = None
    decoder_type: str = "cross_attention"
    prompt_transcript: bool = False
    rationale_format: str = "multitask"
    quotes: str = "free"
    memory_embedding: str = "text"
    memory_neighbours: int = 32
    memory_size: int = 10_000
    shared_vocabulary: bool = True
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02
    # tokens
    label_token_ids: list[int] | None = None
    pad_token_id: int = 1
    bos_token_id: int | None = 0
    eos_token_id: int | None = 2
    decoder_start_token_id: int = 0
    # loss
    rationale_loss_weight: float = 1.0
    label_smoothing: float = 0.0
    class_weights: list[float] | None = None
    # inference
    temperature: float = 1.0
    decoder_temperature: float = 1.0
    audio_outlier_threshold: float = 0.5
    text_outlier_threshold: float = 0.5
    sampling_rate: int = 16_000
    is_encoder_decoder: bool = True
    format_version: int = FORMAT_VERSION

    def __post_init__(self, **kwargs: Any) -> None:
        """Build the sub-configs from their dicts, set derived fields, and check."""
        if self.format_version > FORMAT_VERSION:  # first, since a later version may have other settings
            raise ValueError(
                f"this checkpoint has format_version={self.format_version}; this mmsr reads up to "
                f"{FORMAT_VERSION}: install a later mmsr"
            )
        for name in self.sub_configs:
            part = getattr(self, name)
            if isinstance(part, dict):
                setattr(self, name, AutoConfig.for_model(**part))
        if self.id2label is None and self.label2id is not None:
            self.id2label = {int(index): label for label, index in self.label2id.items()}
        if self.id2label is None and kwargs.get("num_labels") in (None, len(DEFAULT_LABELS)):
            self.id2label = dict(DEFAULT_LABELS)
            kwargs.pop("num_labels", None)
        self._check_names(kwargs)
        super().__post_init__(**kwargs)
        self._check_labels()
        self.label2id = {label: index for index, label in enumerate(self.labels)}
        self._check()
        if self.tie_word_embeddings:
            # the whole model ties its output layer to the shared table
            self.part("decoder").tie_word_embeddings = False

    def _check_names(self, given: Iterable[str]) -> None:
        """Refuse names that neither this class nor transformers knows."""
        known = _OF_TRANSFORMERS | GenerationConfig().to_dict().keys()
        unknown = [name for name in given if name not in known and not name.startswith("_")]
        if self.transformers_version is None:  # every saved configuration has one
            check_names("setting", unknown, self.settings())
        elif unknown:
            logger.warning("this configuration has settings that are not known: %s", ", ".join(unknown))

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As the base class; without a format version it is 1.

        Overrides in `kwargs` are checked with the other settings, not assigned afterwards. Other labels
        replace all that the dict says of labels, and temperatures that were fitted to another number of
        labels become 1.

        Raises:
            ValueError: It is the configuration of another model.
        """
        config_dict = {"format_version": 1, **config_dict}
        if (kind := config_dict.get("model_type", cls.model_type)) != cls.model_type:
            raise ValueError(
                f"it is a {kind} model, and no checkpoint of mmsr: a pretrained encoder becomes a part of a "
                "new model, see mmsr fit --model.audio and --model.text"
            )
        labels = {name: kwargs.pop(name) for name in _OF_LABELS if name in kwargs}
        if labels.get("num_labels") == len(config_dict.get("id2label") or DEFAULT_LABELS):
            del labels["num_labels"]  # the names stay
        if labels:
            before = len(config_dict.get("id2label") or DEFAULT_LABELS)
            config_dict = {name: value for name, value in config_dict.items() if name not in _OF_LABELS}
            given = labels.get("id2label") or labels.get("label2id") or range(labels.get("num_labels") or 0)
            if len(given) != before:
                config_dict |= dict.fromkeys(("temperature", "decoder_temperature"), 1.0)
        overrides = {name: kwargs.pop(name) for name in cls.settings() if name in kwargs}
        for name in cls.sub_configs.keys() & overrides.keys():
            saved, given = config_dict.get(name), overrides[name]
            if isinstance(saved, dict) and isinstance(given, dict):
                overrides[name] = {**saved, **given}
        return super().from_dict({**config_dict, **labels, **overrides}, **kwargs)

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """As the base class, with the file by which transformers finds mmsr (`mmsr.model.remote`).

        Of a part that was read from a folder of this machine the folder's name alone is written.
        """
        self.auto_map = dict(AUTO_MAP)
        for part in (getattr(self, name) for name in self.sub_configs):
            if part is not None and os.path.isdir(part.name_or_path):
                part.name_or_path = Path(part.name_or_path).name
        if not os.path.isfile(save_directory):  # which the base class refuses
            write_auto_file(save_directory)
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @classmethod
    def settings(cls) -> list[str]:
        """Names of this class's own settings."""
        return [name for name in cls.__annotations__ if name not in ("sub_configs", "format_version")]

    def _check_labels(self) -> None:
        """Refuse label ids with gaps, names that stand twice, and two namings that differ."""
        ids = sorted(self.id2label or {})
        if ids != list(range(len(ids))):
            raise ValueError(f"id2label has the ids {ids}; accepted: 0 to {len(ids) - 1}, each once")
        check_label_names(self.labels, "id2label")
        by_name = {label: int(index) for label, index in (self.label2id or {}).items()}
        if by_name and by_name != {label: index for index, label in enumerate(self.labels)}:
            raise ValueError(
                f"label2id={self.label2id} contradicts id2label={self.id2label}; accepted: one of the two"
            )

    def _check(self) -> None:
        check_choice("fusion", self.fusion, _fusions())
        check_choice("pooling", self.pooling, POOLINGS)
        check_choice("decoder_type", self.decoder_type, DECODERS)
        check_choice("rationale_format", self.rationale_format, tuple(RATIONALE_FORMATS))
        check_choice("quotes", self.quotes, QUOTES)
        check_choice("memory_embedding", self.memory_embedding, MEMORY_EMBEDDINGS)
        self._check_ranges()
        if self.uses_audio:
            self._check_audio()
        if self.tie_word_embeddings:
            text, decoder = self.text_encoder, self.decoder
            if text is None or decoder is None or not self.shared_vocabulary:
                raise ValueError("tie_word_embeddings needs a text encoder and a decoder with one vocabulary")
            shapes = [(part.vocab_size, part.hidden_size) for part in (text, decoder)]  # type: ignore[union-attr]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"tie_word_embeddings: word embeddings of {shapes[0]} and {shapes[1]} cannot be one table"
                )
        self.check_outlier_layers()
        self.check_evidence()
        if (self.decoder_type == "none") != (self.format is None):
            raise ValueError(
                f"decoder_type={self.decoder_type!r} contradicts rationale_format={self.rationale_format!r}: "
                "set both to 'none' for a label only, or neither; 'retrieval' needs decoder_type='none'"
            )
        fits = (self.decoder_type, self.fusion, self.shared_vocabulary) == ("prefix", "audio_only", True)
        if self.prompt_transcript and not fits:
            raise ValueError(
                f"prompt_transcript=True contradicts decoder_type={self.decoder_type!r}, "
                f"fusion={self.fusion!r} and shared_vocabulary={self.shared_vocabulary}; accepted: "
                "decoder_type='prefix' with fusion='audio_only', without a text encoder's tokenizer"
            )
        if self.prompt_transcript and not (self.format and self.format.label_learned):
            raise ValueError(
                f"prompt_transcript=True contradicts rationale_format={self.rationale_format!r} with "
                f"fusion={self.fusion!r}: the label would come from the head, which does not know the "
                "transcript; accepted: post_thinking, pre_thinking"
            )
        if self.label_token_ids is None and self.format is not None and self.decoder is not None:
            raise ValueError(
                f"rationale_format={self.rationale_format!r} needs label_token_ids: one token id per label"
            )
        for field in ("label_token_ids", "class_weights"):
            value = getattr(self, field)
            if value is not None and len(value) != self.num_labels:
                raise ValueError(
                    f"{field} has {len(value)} entries for {self.num_labels} labels in id2label; accepted: "
                    "one for each label"
                )
        tokens = self.label_token_ids or []
        if len(set(tokens)) < len(tokens) or min(tokens, default=0) < 0:
            raise ValueError(f"label_token_ids={tokens}; accepted: another token for each label, from 0")

    def _check_ranges(self) -> None:
        for field, least in _LEAST.items():
            if getattr(self, field) < least:
                raise ValueError(f"{field}={getattr(self, field)}; accepted: {least} or more")
        if self.fusion_active_experts > self.fusion_experts:
            raise ValueError(
                f"fusion_active_experts={self.fusion_active_experts}; accepted: 1 to fusion_experts="
                f"{self.fusion_experts}"
            )
        for field in ("dropout", "label_smoothing", "audio_outlier_threshold", "text_outlier_threshold"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"{field}={getattr(self, field)}; accepted: 0 to 1")
        for field in ("temperature", "decoder_temperature"):
            if not 0 < getattr(self, field) < math.inf:
                raise ValueError(f"{field}={getattr(self, field)}; accepted: more than 0")
        if self.class_weights is not None:
            check_class_weights(self.class_weights)
        if self.hidden_size % self.fusion_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not divisible by fusion_heads={self.fusion_heads}"
            )

    def _check_audio(self) -> None:
        if self.audio_window_seconds is not None:
            positions = getattr(self.audio_encoder, "max_source_positions", 0)
            if not 0 < self.audio_window_seconds <= positions / 50:
                raise ValueError(
                    f"audio_window_seconds={self.audio_window_seconds}; accepted: with a Whisper encoder, "
                    f"more than 0 and at most its {positions / 50:g} s; None otherwise"
                )
        if self.audio_dynamic_range is not None:
            whisper = getattr(self.audio_encoder, "model_type", None) == "whisper"
            if not whisper or not 0 < self.audio_dynamic_range < math.inf:
                raise ValueError(
                    f"audio_dynamic_range={self.audio_dynamic_range}; accepted: with a Whisper encoder, more "
                    "than 0 decades; None otherwise"
                )
        if self.audio_layers is not None:
            self._check_audio_layers(self.audio_layers)

    def _check_audio_layers(self, layers: list[int]) -> None:
        if not self.audio_layer_mix:
            raise ValueError(f"audio_layers={layers} needs audio_layer_mix=True")
        last = self._last_layer("audio_encoder")
        ascending = bool(layers) and sorted(set(layers)) == layers and layers[0] >= 0
        # a timm model's config has no number: its stages are known once it is built
        if not ascending or (last is not None and layers[-1] > last):
            most = "the last" if last is None else last
            raise ValueError(f"audio_layers={layers}; accepted: some of 0 to {most}, ascending, each once")

    def _last_layer(self, name: str) -> int | None:
        """Number of a part's layers; None of a timm model, whose stages are known once it is built."""
        part = self.part(name)
        # Moonshine's `num_hidden_layers` are its decoder's
        return getattr(part, "encoder_num_hidden_layers", getattr(part, "num_hidden_layers", None))

    def check_outlier_layers(self) -> None:
        """Raise `ValueError` where a detector's layer is none of its encoder's."""
        for modality in fusion_modalities(self.fusion):
            layer = getattr(self, f"{modality}_outlier_layer")
            if layer is None:
                continue
            last = self._last_layer(f"{modality}_encoder")
            if layer < 0 or (last is not None and layer > last):
                most = "the last" if last is None else last
                raise ValueError(f"{modality}_outlier_layer={layer}; accepted: 0 to {most}, or None")

    def check_evidence(self) -> None:
        """Raise `ValueError` where the heads of evidence do not fit the model."""
        needs = {"voice_emotions": self.uses_audio, "text_emotions": self.uses_text}
        for field, has_modality in needs.items():
            names = getattr(self, field)
            if names is not None and (not has_modality or len(set(names)) < max(2, len(names))):
                raise ValueError(
                    f"{field}={names} with fusion={self.fusion!r}; accepted: two or more different names, "
                    "with a fusion that uses this modality; None otherwise"
                )
        if (self.text_emotions is None) != (self.text_languages is None) or (
            self.text_emotions is not None and self.text_outlier_layer is None
        ):
            raise ValueError(
                f"text_emotions={self.text_emotions}, text_languages={self.text_languages} and "
                f"text_outlier_layer={self.text_outlier_layer}; accepted: all three, or neither emotions nor "
                "languages"
            )

    @property
    def has_evidence(self) -> bool:
        """Whether the model names evidence for its label, without a decoder."""
        return self.voice_emotions is not None or self.text_emotions is not None

    @property
    def detects_outliers(self) -> bool:
        """Whether a modality that the fusion uses has a detector of outliers."""
        return any(
            getattr(self, f"{modality}_outlier_layer") is not None
            for modality in fusion_modalities(self.fusion)
        )

    @property
    def outlier_thresholds(self) -> tuple[float, float]:
        """The probabilities above which audio and text are outliers."""
        return self.audio_outlier_threshold, self.text_outlier_threshold

    @property
    def format(self) -> RationaleFormat | None:
        """The layout of the decoder's text; None without a decoder."""
        return RATIONALE_FORMATS[self.rationale_format]

    @property
    def retrieves(self) -> bool:
        """Whether rationales come from a memory of training rows."""
        return self.rationale_format == RETRIEVAL

    @property
    def label_temperature(self) -> float:
        """The temperature of the reported probabilities, the head's or the decoder's."""
        by_decoder = self.format is not None and self.format.label_learned
        return self.decoder_temperature if by_decoder else self.temperature

    @property
    def uses_audio(self) -> bool:
        """Whether the fusion uses the audio."""
        return "audio" in fusion_modalities(self.fusion)

    @property
    def uses_text(self) -> bool:
        """Whether the fusion uses the transcript."""
        return "text" in fusion_modalities(self.fusion)

    @property
    def labels(self) -> list[str]:
        """Label names in the order of their ids."""
        return [label for _, label in sorted((self.id2label or {}).items())]

    def part(self, name: str) -> PreTrainedConfig:
        """The sub-config `audio_encoder`, `text_encoder` or `decoder`.

        Raises:
            ValueError: It is None.
        """
        part = getattr(self, name)
        if part is None:
            raise ValueError(
                f"fusion={self.fusion!r}, decoder_type={self.decoder_type!r}: {name} is needed but None; "
                "accepted: the transformers config of that part, or its dict with model_type"
            )
        return part

    @staticmethod
    def of_encoder(name: str | os.PathLike[str], modality: str) -> PreTrainedConfig:
        """The config of a pretrained encoder, by Hub id or folder; of an mmsr checkpoint its encoder's."""
        config = AutoConfig.from_pretrained(name)
        return config.part(f"{modality}_encoder") if isinstance(config, MmsrConfig) else config

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The decoder's config, which sizes generation's cache; with `encoder=True` the text encoder's."""
        order = ("text_encoder",) if encoder and not decoder else ("decoder", "text_encoder")
        part = next((self.part(name) for name in order if getattr(self, name) is not None), None)
        return self if part is None else part.get_text_config(decoder=part is self.decoder or None)

    @classmethod
    def from_preset(cls, preset: str, *, vocab_size: int | None = None, **overrides: Any) -> MmsrConfig:
        """A named size: `tiny` for tests, `small` for the demo, `base` as wav2vec2-base and XLM-R-base.

        Args:
            preset: One of `PRESETS`.
            vocab_size: Size of the tokenizer's vocabulary; by default 256, 4,000 or 250,002.
            **overrides: Any argument of `MmsrConfig`, such as `fusion` or `id2label`.
        """
        check_choice("preset", preset, PRESETS)
        shape = SHAPES[preset]
        vocab_size = vocab_size or shape["vocab_size"]
        special = {
            name: overrides.get(name, default)
            for name, default in (("pad_token_id", 1), ("bos_token_id", 0), ("eos_token_id", 2))
        }
        fusion = overrides.get("fusion", "cross_attention")
        check_choice("fusion", fusion, _fusions())
        rationale_format = overrides.get("rationale_format", "multitask")
        decoder_type = overrides.get(
            "decoder_type", "none" if without_decoder(rationale_format) else "cross_attention"
        )
        num_labels = len(overrides.get("id2label") or DEFAULT_LABELS)
        parts: dict[str, Any] = {}
        if "audio" in fusion_modalities(fusion):
            parts["audio_encoder"] = AutoConfig.for_model("wav2vec2", **shape["audio_encoder"])
        if "text" in fusion_modalities(fusion):
            parts["text_encoder"] = AutoConfig.for_model(
                "xlm-roberta", vocab_size=vocab_size, **shape["text_encoder"], **special
            )
        if decoder_type != "none":
            start = overrides.get("decoder_start_token_id", 0)
            make = prefix_config if decoder_type == "prefix" else decoder_config
            parts["decoder"] = make(
                *shape["decoder"], vocab_size=vocab_size, decoder_start_token_id=start, **special
            )
            parts["label_token_ids"] = list(range(5, 5 + num_labels))
            own = {"text_encoder", "decoder"} & set(overrides) or not overrides.get("shared_vocabulary", True)
            parts["tie_word_embeddings"] = "text" in fusion_modalities(fusion) and not own
        config = cls(**{**shape["fusion"], **parts, **special, **overrides, "decoder_type": decoder_type})
        beyond = [token for token in config.label_token_ids or () if not 0 <= token < vocab_size]
        if beyond and "decoder" not in overrides:
            raise ValueError(f"label_token_ids: {beyond}; accepted: 0 to {vocab_size - 1}, the vocabulary's")
        return config


class TimmAudioConfig(PreTrainedConfig):
    """A timm image model on log-mel spectrograms, as `audio_encoder` of an `MmsrConfig`.

    transformers' own `TimmWrapperConfig` imports timm and holds ImageNet's labels.

    Args:
        architecture: Name of the timm model, such as `resnet18` or `vit_tiny_patch16_224`.
        window_seconds: Length of a window, rounded up to a multiple of 32 spectrogram frames, the coarsest
            step of most image models.
        num_mel_bins: Mel bands; for a model of fixed patches or stages, a multiple of their size.
        n_fft: Samples of one spectrum (25 ms).
        hop_length: Samples from one spectrum to the next (10 ms).
        sampling_rate: Of the waveform, in Hz.
        timm_args: Further arguments of `timm.create_model`, such as `{"drop_path_rate": 0.1}`.

    Raises:
        ValueError: A number is not positive.
    """

    model_type = "mmsr-timm-audio"

    architecture: str = "resnet18"
    window_seconds: float = 5.12
    num_mel_bins: int = 128
    n_fft: int = 400
    hop_length: int = 160
    sampling_rate: int = 16_000
    timm_args: dict[str, Any] | None = None
    do_pooling: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        """Check the numbers."""
        super().__post_init__(**kwargs)
        for name in ("window_seconds", "num_mel_bins", "n_fft", "hop_length", "sampling_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)}; accepted: more than 0")

    @property
    def window_frames(self) -> int:
        """Spectrogram frames of one window."""
        return 32 * math.ceil(self.window_seconds * self.sampling_rate / self.hop_length / 32)

    @property
    def model_args(self) -> dict[str, Any]:
        """Arguments of `timm.create_model`, which sizes the model for a picture of one channel."""
        # 3 channels are those of the pretrained weights, which timm sums
        picture = {"input_size": (3, self.num_mel_bins, self.window_frames)}
        return {"in_chans": 1, "pretrained_cfg_overlay": picture, **(self.timm_args or {})}


AutoConfig.register(TimmAudioConfig.model_type, TimmAudioConfig)
AutoConfig.register(MmsrConfig.model_type, MmsrConfig)
