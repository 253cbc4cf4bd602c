"""Configuration of the joint audio-text model: architecture only, never how a run trains.

One `MmsrConfig` holds three sub-configs (`audio_encoder`, `text_encoder`, `decoder`), each the transformers
config of that part, so that a checkpoint reloads offline. `from_preset` gives named sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar

from transformers import AutoConfig, GenerationConfig, PreTrainedConfig
from transformers.utils import logging

from mmsr.model.presets import PRESETS, SHAPES, decoder_config, prefix_config

logger = logging.get_logger(__name__)

FORMAT_VERSION = 1
"""Version of the checkpoint format. A later version is refused; a checkpoint without one has version 1."""

POOLINGS = ("mean", "attention", "statistics")
DECODERS = ("cross_attention", "prefix", "none")

DEFAULT_LABELS = {0: "negative", 1: "neutral", 2: "positive"}


@dataclass(frozen=True)
class RationaleFormat:
    """Where the label stands in what the decoder writes, and whether the decoder learns to give it.

    Attributes:
        label_first: label, then rationale (else rationale, then label).
        label_learned: the label's position enters the rationale's loss, so that the decoder answers with a
            label of its own, beside the head's.
    """

    label_first: bool
    label_learned: bool


RATIONALE_FORMATS: dict[str, RationaleFormat | None] = {
    "none": None,
    "multitask": RationaleFormat(label_first=True, label_learned=False),
    "post_thinking": RationaleFormat(label_first=True, label_learned=True),
    "pre_thinking": RationaleFormat(label_first=False, label_learned=True),
}


# Settings of every transformers model, by which a configuration may be loaded or saved.
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

_LEAST = {
    "hidden_size": 1,
    "fusion_layers": 0,
    "fusion_heads": 1,
    "fusion_intermediate_size": 1,
    "fusion_bottlenecks": 1,
    "fusion_rank": 1,
    "audio_stride": 1,
    "rationale_loss_weight": 0,
}


def audio_layers_error(layers: Sequence[int], last: int | None) -> ValueError:
    """What is wrong with `audio_layers` of an encoder whose last layer is `last`."""
    most = "the last" if last is None else last
    return ValueError(f"audio_layers={list(layers)}; accepted: some of 0 to {most}, ascending, each once")


def check_class_weights(weights: Sequence[float]) -> None:
    """Raise `ValueError` where a weight is negative or none is above zero."""
    if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise ValueError(f"class_weights={list(weights)}; accepted: none below 0, and not 0 for all")


def _fusions() -> tuple[str, ...]:
    from mmsr.model.fusion import FUSION_CLASSES

    return tuple(FUSION_CLASSES)


if TYPE_CHECKING:
    FUSIONS: tuple[str, ...]
else:

    def __getattr__(name: str) -> tuple[str, ...]:
        """`FUSIONS`: the names in `fusion.FUSION_CLASSES`, so that a new fusion is listed in one place."""
        if name == "FUSIONS":
            return _fusions()
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def fusion_modalities(fusion: str) -> tuple[str, ...]:
    """The modalities that a fusion reads: "audio", "text", or both."""
    from mmsr.model.fusion import FUSION_CLASSES

    return getattr(FUSION_CLASSES[fusion], "modalities", ("audio", "text"))


def check_choice(field: str, value: str, accepted: tuple[str, ...]) -> None:
    """Raise `ValueError` naming the field, the value and what would be accepted."""
    if value not in accepted:
        raise ValueError(f"{field}={value!r} does not exist; accepted: {', '.join(accepted)}")


def check_names(what: str, names: Iterable[str], accepted: Iterable[str]) -> None:
    """Raise `ValueError` for the first name that does not exist, with the nearest that does and with all."""
    accepted = sorted(accepted)
    for name in names:
        if name not in accepted:
            near = get_close_matches(name, accepted, n=1)
            raise ValueError(
                f"{what} {name!r} does not exist{f' (did you mean {near[0]!r}?)' if near else ''}; "
                f"accepted: {', '.join(accepted)}"
            )


class MmsrConfig(PreTrainedConfig):
    """Architecture of `MmsrForSentimentReasoning`.

    Settings of a modality that the fusion does not use change nothing, so that an ablation can vary `fusion`
    alone.

    Args:
        audio_encoder: config (or its dict with `model_type`) of a transformers speech encoder; None with
            `fusion="text_only"`.
        text_encoder: config of a transformers text encoder; None with `fusion="audio_only"`.
        decoder: config of the language model that writes the rationale: with `cross_attention` a causal one
            with cross-attention or an encoder-decoder (whose encoder is left out), with `prefix` any causal
            one; None with `decoder_type="none"`.
        hidden_size: width d of the fused memory.
        fusion: how the two modalities meet, one of `FUSIONS`, which fusion.py's docstring explains.
        fusion_layers: number of fusion layers.
        fusion_heads: attention heads of the fusion and of the attention pooling; divides `hidden_size`.
        fusion_intermediate_size: width of the fusion's feed-forward blocks.
        fusion_bottlenecks: latent tokens through which the streams meet, with `fusion="bottleneck"`.
        fusion_rank: number of rank-one terms, with `fusion="low_rank"`.
        dropout: dropout probability in fusion and head.
        pooling: how the memory becomes one vector for the head, one of `POOLINGS`.
        audio_layer_mix: learn a weighted sum of all the audio encoder's layers (else its last layer alone).
        audio_layers: with `audio_layer_mix`, the layers that the sum takes, in place of all: 0 is what enters
            the first layer, k what leaves the k-th. One alone is taken as it is.
        text_layer_mix: the same for the text encoder.
        audio_standardize: shift and scale each dimension of the audio encoder's states by fixed statistics,
            which a training run takes from its training split. Whisper's states need it: a few of
            their dimensions are far larger than the others.
        audio_stride: neighbouring frames of the audio encoder that are stacked into one position of the
            fusion (frame-rate reduction): of some 50 frames a second, fewer outnumber the words less.
        audio_window_seconds: length of the windows that a Whisper encoder encodes, up to its full window
            (30 s, None), to which every clip is otherwise filled up.
        decoder_type: how the decoder reads the memory: through `cross_attention`, as a soft `prefix`, or
            `none` (a label only).
        prompt_transcript: the decoder reads the transcript's tokens after the memory's soft prefix, and the
            fusion gets the audio alone: the shape of an audio-language model. Goes with
            `decoder_type="prefix"`, `fusion="audio_only"` and a `rationale_format` in which the decoder gives
            the label, since the head would not know the transcript.
        rationale_format: `multitask` (the head gives the label, the decoder starts from the label's token and
            explains it), `post_thinking` (the decoder writes label, then rationale), `pre_thinking`
            (rationale, then label), or `none` (label only; goes with `decoder_type="none"`). The head is
            trained in every format.
        shared_vocabulary: the decoder reads the same tokenizer as the text encoder.
        tie_word_embeddings: text encoder and decoder share one table of word embeddings, which is the
            decoder's output layer too, as in BART and T5.
        label_token_ids: the decoder's token of each label, in the order of `id2label`.
        decoder_start_token_id: the decoder's first token.
        rationale_loss_weight: λ in loss = sentiment cross-entropy + λ · rationale cross-entropy.
        label_smoothing: smoothing of the sentiment cross-entropy, 0 to 1.
        class_weights: one weight per label for the sentiment cross-entropy.
        temperature: divides the head's logits before the softmax of the reported probabilities, and only
            there: the model's own logits, the losses and the label do not depend on it. `mmsr fit` and `mmsr
            calibrate` fit it to the development split.
        decoder_temperature: the same for the decoder's scores of the label tokens, where it gives the label.
        sampling_rate: of `input_values`, Hz.

    Raises:
        ValueError: an unknown name, or settings that contradict each other, named together. A saved
            configuration's unknown names are logged, since another release may have written them.
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
    dropout: float = 0.1
    pooling: str = "statistics"
    audio_layer_mix: bool = False
    audio_layers: list[int] | None = None
    text_layer_mix: bool = False
    audio_standardize: bool = False
    audio_stride: int = 1
    audio_window_seconds: float | None = None
    decoder_type: str = "cross_attention"
    prompt_transcript: bool = False
    rationale_format: str = "multitask"
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
    sampling_rate: int = 16_000
    is_encoder_decoder: bool = True
    format_version: int = FORMAT_VERSION

    def __post_init__(self, **kwargs: Any) -> None:
        """Build the sub-configs from their dicts, fill what is derived, and check the whole."""
        if self.format_version > FORMAT_VERSION:  # first, since a later version may have other settings
            raise ValueError(
                f"this checkpoint has format_version={self.format_version}; this mmsr reads up to "
                f"{FORMAT_VERSION}: install a later mmsr"
            )
        for name in self.sub_configs:
            part = getattr(self, name)
            if isinstance(part, dict):
                setattr(self, name, AutoConfig.for_model(**part))
        if self.id2label is None and kwargs.get("num_labels") in (None, len(DEFAULT_LABELS)):
            self.id2label = dict(DEFAULT_LABELS)
            kwargs.pop("num_labels", None)
        self._check_names(kwargs)
        super().__post_init__(**kwargs)
        self.label2id = {label: index for index, label in enumerate(self.labels)}
        self._check()
        if self.tie_word_embeddings:
            # its output layer is tied to the shared table, one level above it
            self.part("decoder").tie_word_embeddings = False

    def _check_names(self, given: Iterable[str]) -> None:
        """Refuse names that neither this class nor transformers knows, and which would change nothing."""
        known = _OF_TRANSFORMERS | GenerationConfig().to_dict().keys()
        unknown = [name for name in given if name not in known and not name.startswith("_")]
        if self.transformers_version is None:  # every saved configuration has one
            check_names("setting", unknown, self.settings())
        elif unknown:
            logger.warning("this configuration has settings that are not known: %s", ", ".join(unknown))

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As the base class; what was saved without a format version has version 1."""
        return super().from_dict({"format_version": 1, **config_dict}, **kwargs)

    @classmethod
    def settings(cls) -> list[str]:
        """The names of this class's own settings, each of which `Args` explains."""
        return [name for name in cls.__annotations__ if name not in ("sub_configs", "format_version")]

    def _check(self) -> None:
        check_choice("fusion", self.fusion, _fusions())
        check_choice("pooling", self.pooling, POOLINGS)
        check_choice("decoder_type", self.decoder_type, DECODERS)
        check_choice("rationale_format", self.rationale_format, tuple(RATIONALE_FORMATS))
        self._check_ranges()
        if self.audio_window_seconds is not None and self.uses_audio:
            positions = getattr(self.audio_encoder, "max_source_positions", 0)
            if not 0 < self.audio_window_seconds <= positions / 50:
                raise ValueError(
                    f"audio_window_seconds={self.audio_window_seconds}; accepted: with a Whisper encoder, "
                    f"more than 0 and at most its {positions / 50:g} s; None otherwise"
                )
        if self.tie_word_embeddings:
            text, decoder = self.text_encoder, self.decoder
            if text is None or decoder is None or not self.shared_vocabulary:
                raise ValueError("tie_word_embeddings needs a text encoder and a decoder with one vocabulary")
            shapes = [(part.vocab_size, part.hidden_size) for part in (text, decoder)]  # type: ignore[union-attr]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"tie_word_embeddings: word embeddings of {shapes[0]} and {shapes[1]} cannot be one table"
                )
        if self.audio_layers is not None and self.uses_audio:
            self._check_audio_layers(self.audio_layers)
        if (self.decoder_type == "none") != (self.rationale_format == "none"):
            raise ValueError(
                f"decoder_type={self.decoder_type!r} contradicts rationale_format={self.rationale_format!r}: "
                "set both to 'none' for a label only, or neither"
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
        for field, expected in (("label_token_ids", True), ("class_weights", False)):
            value = getattr(self, field)
            needed = expected and self.format is not None and self.decoder is not None
            if value is None and needed:
                raise ValueError(
                    f"rationale_format={self.rationale_format!r} needs {field}: one token id per label"
                )
            if value is not None and len(value) != self.num_labels:
                raise ValueError(f"{field} has {len(value)} entries for {self.num_labels} labels in id2label")
        tokens = self.label_token_ids or []
        if len(set(tokens)) < len(tokens) or min(tokens, default=0) < 0:
            raise ValueError(f"label_token_ids={tokens}; accepted: another token for each label, from 0")

    def _check_ranges(self) -> None:
        for field, least in _LEAST.items():
            if getattr(self, field) < least:
                raise ValueError(f"{field}={getattr(self, field)}; accepted: {least} or more")
        for field in ("dropout", "label_smoothing"):
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

    def _check_audio_layers(self, layers: list[int]) -> None:
        if not self.audio_layer_mix:
            raise ValueError(f"audio_layers={layers} needs audio_layer_mix=True")
        part = self.part("audio_encoder")
        # Moonshine's `num_hidden_layers` are its decoder's
        last = getattr(part, "encoder_num_hidden_layers", getattr(part, "num_hidden_layers", None))
        ascending = bool(layers) and sorted(set(layers)) == layers and layers[0] >= 0
        # a timm model's config has no number: its stages are known once it is built
        if not ascending or (last is not None and layers[-1] > last):
            raise audio_layers_error(layers, last)

    @property
    def format(self) -> RationaleFormat | None:
        """The layout of what the decoder writes; None for a label only."""
        return RATIONALE_FORMATS[self.rationale_format]

    @property
    def label_temperature(self) -> float:
        """The temperature behind the reported label's probabilities, of the head or of the decoder."""
        by_decoder = self.format is not None and self.format.label_learned
        return self.decoder_temperature if by_decoder else self.temperature

    @property
    def uses_audio(self) -> bool:
        """Whether the fusion reads the audio."""
        return "audio" in fusion_modalities(self.fusion)

    @property
    def uses_text(self) -> bool:
        """Whether the fusion reads the transcript."""
        return "text" in fusion_modalities(self.fusion)

    @property
    def labels(self) -> list[str]:
        """Label names in the order of their ids."""
        return [label for _, label in sorted((self.id2label or {}).items())]

    def part(self, name: str) -> PreTrainedConfig:
        """The sub-config `audio_encoder`, `text_encoder` or `decoder`.

        Raises:
            ValueError: this config has none.
        """
        part = getattr(self, name)
        if part is None:
            raise ValueError(
                f"fusion={self.fusion!r}, decoder_type={self.decoder_type!r}: {name} is needed but None; "
                "accepted: the transformers config of that part, or its dict with model_type"
            )
        return part

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The decoder's config, which sizes generation's cache (with `encoder=True` the text encoder's).

        Returns this config itself where the model lacks that part.
        """
        order = ("text_encoder",) if encoder and not decoder else ("decoder", "text_encoder")
        part = next((self.part(name) for name in order if getattr(self, name) is not None), None)
        return self if part is None else part.get_text_config(decoder=part is self.decoder or None)

    @classmethod
    def from_preset(cls, preset: str, *, vocab_size: int | None = None, **overrides: Any) -> MmsrConfig:
        """Named sizes.

        `tiny` is for tests (< 1 M), `small` for the demo, `base` has wav2vec2-base's and XLM-R-base's shapes.

        Args:
            preset: one of `PRESETS`.
            vocab_size: pieces of the tokenizer (default 256 for tiny, 4,000 for small, 250,002 for base).
            **overrides: any argument of `MmsrConfig`, such as `fusion` or `id2label`.

        Raises:
            ValueError: `preset` is unknown.
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
            "decoder_type", "none" if rationale_format == "none" else "cross_attention"
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
                vocab_size=vocab_size, decoder_start_token_id=start, **shape["decoder"], **special
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
    """A timm image model that reads log-mel spectrograms, as `audio_encoder` of an `MmsrConfig`.

    transformers' own `TimmWrapperConfig` imports timm and carries ImageNet's labels; its model reads this one
    as well.

    Args:
        architecture: name of the timm model, such as `resnet18` or `vit_tiny_patch16_224`.
        window_seconds: length of the windows that it encodes, rounded up to a multiple of 32 spectrogram
            frames, the coarsest step of most image models.
        num_mel_bins: mel bands; for a model of fixed patches or stages, a multiple of their size.
        n_fft: samples of one spectrum (25 ms).
        hop_length: samples from one spectrum to the next (10 ms).
        sampling_rate: of the waveform, Hz.
        timm_args: further arguments of `timm.create_model`, such as `{"drop_path_rate": 0.1}`.

    Raises:
        ValueError: a window, hop or number of mel bands that is not positive.
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
        """Check what cannot be."""
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
        """Arguments of `timm.create_model`, which sizes the model for this picture and one channel.

        The 3 are the channels that its pretrained weights have, which it then sums.
        """
        picture = {"input_size": (3, self.num_mel_bins, self.window_frames)}
        return {"in_chans": 1, "pretrained_cfg_overlay": picture, **(self.timm_args or {})}


AutoConfig.register(TimmAudioConfig.model_type, TimmAudioConfig)
AutoConfig.register(MmsrConfig.model_type, MmsrConfig)
