"""Settings of a training run: a dataclass for each concern, and `TrainingSettings`, which has them all.

YAML (model: ...), --model.* ─► TrainingSettings ─► MmsrModule, and flat to checkpoints and run.yaml

The classes check their values when they are made, and `TrainingSettings` checks the concerns against each
other. The text below a field is its help in `mmsr fit --help_all`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict, get_args, get_type_hints

from mmsr.data.features.store import Dtype
from mmsr.model.configuration import (
    RATIONALE_FORMATS,
    MmsrConfig,
    check_choice,
    check_class_weights,
    check_names,
    fusion_modalities,
    without_decoder,
)
from mmsr.model.fusion import FUSION_CLASSES
from mmsr.training.objectives import check_objectives

ENCODERS = ("audio_encoder", "text_encoder")
PARTS = (*ENCODERS, "decoder")
"""What `freeze` and `lora` may name; `train_layers` and `gradual_unfreezing` are of the encoders."""

# Settings of `MmsrConfig` that have a name of their own here.
PRETRAINED = ("audio", "text", "pretrained", "init_from", "decoder")
"""Settings of `ModelSource` that name a folder or a Hub id."""

_OF_CONFIG = {name: name for name in ("fusion", "rationale_format", "decoder_type")} | {"id2label": "labels"}
_FIXED_BY_A_CHECKPOINT = (
    "fusion",
    "config",
    "labels",
    "text_prefix",
    "target_level",
    "rationale_format",
    "decoder_type",
)


@dataclass(frozen=True, repr=False)
class Range:
    """The accepted values of a number, in words and as a test."""

    accepted: str
    contains: Callable[[float], bool]

    def __repr__(self) -> str:
        return self.accepted


Share = Annotated[float, Range("0 to 1", lambda value: 0 <= value <= 1)]
Decay = Annotated[float, Range("between 0 and 1", lambda value: 0 < value < 1)]
Factor = Annotated[float, Range("above 0, to 1", lambda value: 0 < value <= 1)]
Positive = Annotated[float, Range("above 0", lambda value: value > 0)]
Level = Annotated[float, Range("a level in dBFS, below 0", lambda value: -math.inf < value < 0)]
NotNegative = Annotated[float, Range("0 to inf", lambda value: value >= 0)]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Settings that check their numbers when they are made.

    Raises:
        ValueError: A value is out of its range, unknown, or contradicts another.
    """

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            value = getattr(self, name)
            for kind in (hint, *get_args(hint)):  # X, or X | None
                for accepted in getattr(kind, "__metadata__", ()):
                    if value is not None and not accepted.contains(value):
                        raise ValueError(f"{name} is {value}; accepted: {accepted}")

    def changed(self, *names: str) -> list[str]:
        """The fields among `names` that differ from their defaults; None, empty and zero are equal."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return [name for name in names if (getattr(self, name) or None) != (defaults[name] or None)]


@dataclass(frozen=True, kw_only=True)
class ModelSource(Checked):
    """The model to train: a fresh one of a `preset`, one of pretrained parts, or a checkpoint."""

    preset: Literal["tiny", "small", "base"] = "small"
    """Size of a fresh model, and of a fresh decoder beside pretrained encoders; `base` is a size here, not
    the packaged checkpoint of that name."""
    audio: str | None = None
    """Pretrained speech encoder, a Hub id or folder; of an mmsr checkpoint, such as the packaged `base`, its
    speech encoder."""
    text: str | None = None
    """Pretrained text encoder, a Hub id or folder; of an mmsr checkpoint, such as the packaged `base`, its
    text encoder with its tokenizer and prefix."""
    pretrained: str | None = None
    """Folder or Hub id of an mmsr checkpoint to start from, or a packaged one (`base`, `demo`); it brings its
    own architecture and tokenizer."""
    init_from: str | None = None
    """Folder of an mmsr checkpoint, such as an earlier run's `model`, whose weights the model of these
    settings starts from; all settings stay as they are given."""
    decoder: str | None = None
    """Pretrained language model that writes the rationale, a Hub id or folder; by default a fresh decoder of
    the `preset`."""
    decoder_type: Literal["cross_attention", "prefix"] = "cross_attention"
    """How the decoder reads the fused memory: by cross_attention, or as a soft prefix."""
    fusion: str = "cross_attention"
    """How audio and transcript are fused."""
    rationale_format: str = "multitask"
    """What the decoder writes: a rationale for the head's label (`multitask`), label and then rationale
    (`post_thinking`), rationale and then label (`pre_thinking`), or `none`. With `retrieval` there is no
    decoder: the saved model holds rationales of training rows, and answers with one of those nearest to the
    utterance (`config`: memory_embedding, memory_neighbours, memory_size). In `mmsr fit` also `auto`:
    `multitask` if training rows have rationales, `none` otherwise."""
    labels: list[str] | None = None
    """Label names in the order of their ids; negative, neutral, positive by default."""
    text_prefix: str = ""
    """Put before every transcript, such as `query: ` for e5 encoders."""
    target_level: Level | None = None
    """RMS level in dBFS, pauses left out, to which each waveform is scaled as a whole, such as -23: the model
    then does not depend on the microphone's gain, nor on how loudly somebody speaks. By default levels are
    kept."""
    vocab_size: int = 4000
    """Most pieces of the tokenizer that a fresh model trains on the training split."""
    config: dict[str, Any] | None = None
    """Further settings of `MmsrConfig`, such as `{hidden_size: 256, pooling: statistics}`. In `mmsr fit`,
    `audio_window_seconds: auto` lets Whisper's window hold 95 % of the training recordings."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("fusion", self.fusion, tuple(FUSION_CLASSES))
        check_choice("rationale_format", self.rationale_format, tuple(RATIONALE_FORMATS))
        self._check_config(self.config or {})
        if twice := {label for label in self.labels or () if (self.labels or []).count(label) > 1}:
            raise ValueError(f"labels names {', '.join(sorted(twice))} twice; accepted: each label once")
        if self.labels is not None and len(self.labels) < 2:
            raise ValueError(f"labels={self.labels}; accepted: two labels or more")
        if self.pretrained:
            if self.init_from:
                raise ValueError("pretrained= and init_from= both name a checkpoint: give one or the other")
            self._check_pretrained()
        if self.decoder and not (self.audio or self.text):
            raise ValueError("decoder= (pretrained) needs a pretrained encoder: give audio=, text=, or both")
        if without_decoder(self.rationale_format):
            wanted = f"rationale_format={self.rationale_format!r} wants none"
            if self.decoder:
                raise ValueError(f"decoder= writes rationales, and {wanted}")
            if self.changed("decoder_type"):
                raise ValueError(f"decoder_type={self.decoder_type!r} is of a decoder, and {wanted}")

    @property
    def checkpoint(self) -> str | None:
        """The mmsr checkpoint whose weights the model starts from, if any."""
        return self.pretrained or self.init_from

    def _check_config(self, config: Mapping[str, Any]) -> None:
        """Refuse unknown names, and those that have a setting of their own."""
        for name in config.keys() & _OF_CONFIG.keys():
            ours = _OF_CONFIG[name]
            given = f" and {ours}={getattr(self, ours)!r}" if self.changed(ours) else ""
            raise ValueError(f"config {name}={config[name]!r}{given}: give {ours}= alone")
        check_names("config", config, set(MmsrConfig.settings()) - set(_OF_CONFIG))

    def _check_pretrained(self) -> None:
        if self.audio or self.text or self.decoder:
            parts = "audio=, text= and decoder= (its parts)"
            raise ValueError(f"pretrained= (a checkpoint) contradicts {parts}: give one or the other")
        if given := self.changed(*_FIXED_BY_A_CHECKPOINT):
            own, them = ", ".join(given), "it" if len(given) == 1 else "them"
            raise ValueError(
                f"pretrained={self.pretrained!r} (a checkpoint) has its own {own}: leave {them} out"
            )


class Lora(TypedDict, total=False):
    """LoRA of a part: rank `r` (8), `alpha` (16; the update is scaled by alpha / r), `dropout` (0).

    `target_modules` (`all-linear`) are endings of the names of layers to update. `quantize` keeps the frozen
    linear layers in 4 bits, `nf4` or `fp4` (QLoRA).
    """

    r: int
    alpha: int
    dropout: float
    target_modules: list[str] | str
    quantize: Literal["nf4", "fp4"]


@dataclass(frozen=True, kw_only=True)
class Freezing(Checked):
    """The weights that are trained; at most one of these settings names a part."""

    freeze: list[str] | None = None
    """Parts that are not trained: audio_encoder, text_encoder, decoder (except the embeddings of its label
    tokens). If text encoder and decoder share their word embeddings (the presets small and tiny), freezing
    one of them needs `config: {tie_word_embeddings: false}`."""
    train_layers: dict[str, int] | None = None
    """Number of top layers that are trained, by encoder, such as `{audio_encoder: 2}`."""
    gradual_unfreezing: dict[str, int] | None = None
    """Number of further layers, from the top, that are trained with each epoch, by encoder, such as
    `{text_encoder: 1}`; after the lowest layer everything else too. The encoders start frozen. DDP needs the
    strategy `ddp_find_unused_parameters_true`."""
    lora: dict[str, Lora] | None = None
    """Parts that are frozen except for low-rank updates (peft), such as `{audio_encoder: {r: 8, alpha: 16,
    dropout: 0.0, target_modules: [q_proj, v_proj]}}`; by default these values, and every linear layer.
    `quantize: nf4` keeps the part's linear layers in 4 bits (QLoRA, bitsandbytes). A decoder's label tokens
    are trained too. The saved model has the updates merged into its weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        named_by: dict[str, str] = {}
        for setting, parts in self.by_setting().items():
            for part in parts:
                check_choice(setting, part, PARTS if setting in ("freeze", "lora") else ENCODERS)
                if part in named_by:
                    both = f"{named_by[part]}= and {setting}= contradict each other"
                    raise ValueError(f"{both}: both name {part}; give one or the other")
                named_by[part] = setting
        for setting in ("train_layers", "gradual_unfreezing"):
            for part, layers in self.by_setting()[setting].items():
                if layers < 1:
                    raise ValueError(f"{setting}={{{part}: {layers}}}; accepted: 1 or more layers")
        for part, options in (self.lora or {}).items():
            for option in options:
                check_choice(f"lora.{part}", option, tuple(Lora.__annotations__))

    def by_setting(self) -> dict[str, Mapping[str, Any]]:
        """The parts that each setting names, with their values."""
        return {
            "freeze": dict.fromkeys(self.freeze or ()),
            "train_layers": self.train_layers or {},
            "gradual_unfreezing": self.gradual_unfreezing or {},
            "lora": self.lora or {},
        }

    @property
    def frozen(self) -> frozenset[str]:
        """The parts that are not trained at all."""
        return frozenset(self.freeze or ())


@dataclass(frozen=True, kw_only=True)
class Computation(Checked):
    """How forward and backward pass are computed: speed and memory."""

    attention: str | None = None
    """Attention implementation: sdpa (the default), eager, or flash_attention_2 on CUDA with the package
    flash-attn, which computes in 16 bits. A small model trains faster on a CPU with eager, whose memory grows
    with the square of the audio's length."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""


@dataclass(frozen=True, kw_only=True)
class FeatureStorage(Checked):
    """Where and how the frozen encoders' states are stored."""

    feature_store: str | None = None
    """Folder for the states of frozen encoders, so that each file and each transcript is encoded once for all
    epochs and all runs that use the folder."""
    feature_dtype: Dtype = "float16"
    """Precision of stored states: float16 is exact to 3 digits; bfloat16 has 2 digits and float32's range."""


@dataclass(frozen=True, kw_only=True)
class Optimisation(Checked):
    """AdamW, its learning rates and their schedule, and the average of the weights."""

    learning_rate: Positive = 1e-3
    """Peak learning rate of what is trained from scratch."""
    encoder_learning_rate: Positive | None = None
    """Peak learning rate of the encoders and of a loaded decoder (`decoder`, `pretrained`), such as 3e-5; by
    default `learning_rate`, which is high for pretrained weights."""
    layer_decay: Factor = 1.0
    """Factor of an encoder layer's learning rate to that of the layer above."""
    weight_decay: NotNegative = 0.01
    """Weight decay of AdamW, on matrices alone."""
    schedule: Literal["cosine", "constant"] | None = None
    """The learning rate after the warm-up: along a cosine to zero at the last step (the default), or
    constant."""
    warmup_ratio: Share = 0.1
    """Share of the steps in which the learning rate rises."""
    warmup_steps: Annotated[int, Range("0 or more", lambda value: value >= 0)] | None = None
    """Number of these steps, in place of their share. With it and a constant rate, a run's
    `trainer.max_epochs` may be raised later."""
    ema_decay: Decay | None = None
    """Decay per step of an exponential moving average of the weights, such as 0.999. The development metrics
    and the saved model are then those of the average."""


@dataclass(frozen=True, kw_only=True)
class ModalityDropout(Checked):
    """How often a training row with audio and transcript loses one of them."""

    audio_dropout: Share = 0.1
    """Probability that a training row with both modalities loses its audio."""
    text_dropout: Share = 0.1
    """Probability that it loses its transcript instead."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.audio_dropout + self.text_dropout > 1:
            both = f"audio_dropout={self.audio_dropout} and text_dropout={self.text_dropout}"
            raise ValueError(f"{both} exceed 1 together")


@dataclass(frozen=True, kw_only=True)
class Losses(Checked):
    """The loss that is minimised."""

    class_weights: Literal["balanced"] | list[float] | None = None
    """Weight of each label in the sentiment loss, or `balanced`: inverse to its frequency in the training
    split, 1 on average over the rows."""
    label_smoothing: Share | None = None
    """Label smoothing of the sentiment loss, 0 to 1; by default that of `config` or of the checkpoint."""
    uncertainty_weighting: bool = False
    """Weight sentiment and rationale loss by learned variances (Kendall et al. 2018, arXiv 1705.07115), not
    by `rationale_loss_weight`, which dev_loss keeps."""
    r_drop: NotNegative = 0.0
    """Weight of the divergence between predictions under two draws of dropout (R-Drop, arXiv 2106.14448); 0
    for none. It doubles the cost of a step."""
    objectives: dict[str, Any] | None = None
    """Further objectives by name with their weights: contrastive (audio with its transcript),
    supervised_contrastive (streams of the same label), auxiliary_heads (each stream predicts the label alone)
    and ogm_ge (scales down gradients of the stronger modality; its number is alpha). Such as `{contrastive:
    0.1, auxiliary_heads: 0.3, ogm_ge: {alpha: 0.3, noise: false}}`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.class_weights, list):
            check_class_weights(self.class_weights)
        check_objectives(self.objectives or {})


# A dataclass has the fields of its last base first.
@dataclass(frozen=True, kw_only=True)
class TrainingSettings(
    Losses, ModalityDropout, Optimisation, FeatureStorage, Computation, Freezing, ModelSource
):
    """All settings of a run."""

    seed: int = 0
    """Seed of the weights and, with the epoch, of dropout: a resumed run equals an uninterrupted one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        config = self.config or {}
        if self.feature_store and not self.frozen & set(ENCODERS):
            raise ValueError(f"feature_store= is of frozen encoders; add {' or '.join(ENCODERS)} to freeze=")
        if self.layer_decay != 1 and self.frozen >= set(ENCODERS):
            raise ValueError("layer_decay= is of the encoders, and freeze= names both: give one or the other")
        for name in ("class_weights", "label_smoothing"):
            if getattr(self, name) is not None and name in config:
                raise ValueError(f"{name}= and config {name} contradict each other: give one or the other")
        if self.uncertainty_weighting and without_decoder(self.rationale_format):
            raise ValueError(
                "uncertainty_weighting= weighs two losses, and "
                f"rationale_format={self.rationale_format!r} leaves one"
            )
        if self.uncertainty_weighting and "rationale_loss_weight" in config:
            raise ValueError(
                "uncertainty_weighting= learns what config rationale_loss_weight fixes: give one or the other"
            )
        if self.objectives and len(fusion_modalities(self.fusion)) < 2:
            raise ValueError(
                f"objectives= ({', '.join(self.objectives)}) are of two modalities, and "
                f"fusion={self.fusion!r} has one"
            )
