"""From an utterance to the fused memory: both encoders, their streams, and the fusion.

    input_values [b, s] ─► audio encoder ─► audio stream [b, f, d] ─┐
                                                                    ├─► fusion ─► memory [b, m, d]
    input_ids    [b, t] ─► text encoder  ─► text stream  [b, t, d] ─┘

For the notation see `modeling`.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput
from transformers.utils import can_return_tuple, logging

import mmsr.model.weight_storage  # noqa: F401  what decodes stored weights, registered by this
from mmsr.model.configuration import FORMAT_VERSION, MmsrConfig, check_choice, check_folder, fusion_modalities
from mmsr.model.encoders.base import Encoded, LayerMix, to_front
from mmsr.model.encoders.registry import audio_encoder_class
from mmsr.model.encoders.text import TextEncoder
from mmsr.model.evidence import TextEvidence, VoiceEmotions
from mmsr.model.fusion import FUSION_CLASSES
from mmsr.model.layers import Gate, ResidualLinear
from mmsr.model.outliers import MODALITIES, OutlierDetector, outliers
from mmsr.model.pooling import AttentionPooling, masked_mean
from mmsr.model.remote import FoundByAutoFile
from mmsr.model.stream import Stream

logger: Any = logging.get_logger(__name__)

RENAMED = {
    r"^encoder\.": "joint_encoder.",
    r"^head\.out\.": "sentiment_head.classifier.",
    r"^head\.": "sentiment_head.",
    r"^decoder\.": "rationale_decoder.",
    r"^((?:joint_encoder\.)?fusion\..*)query_norm\.": r"\1norm1.",
    r"^((?:joint_encoder\.)?fusion\..*)memory_norm\.": r"\1norm2.",
    r"^((?:joint_encoder\.)?fusion\.)text_stream\.": r"\1text_branch.",
    r"^((?:joint_encoder\.)?fusion\.)audio_stream\.": r"\1audio_branch.",
    r"^((?:joint_encoder\.)?fusion\.)text_projection\.": r"\1text_hidden.",
    r"^((?:joint_encoder\.)?fusion\.)audio_projection\.": r"\1audio_hidden.",
}
"""Patterns of names in earlier checkpoints, and the names of today.

peft and accelerate find a module by how its name ends, so no name of ours ends in another: `head` was found
in `lm_head` too, `encoder` in `audio_encoder`, `out` in `dropout`.
"""
NO_UTTERANCE = "no utterance: pass input_values (audio), input_ids (transcript), or both"


@dataclass
class MmsrEncoderOutput(ModelOutput):
    """The fused memory, once per utterance; beams share it.

    Attributes:
        last_hidden_state: The memory `[b, m, d]`.
        attention_mask: Its mask `[b, m]`.
        hidden_states: Of the text encoder (of the audio encoder with `audio_only`), `[b, t, d]` per layer.
        attentions: Of the same encoder, `[b, h, t, t]` per layer.
        audio_hidden_states: `[b, f, d]` per layer.
        audio_attentions: `[b, h, f, f]` per layer.
        fusion_attentions: Per fusion layer; see the fusion's class.
        prompt_ids: With `prompt_transcript`, the transcript's tokens for the decoder `[b, t]`.
        prompt_mask: Their mask `[b, t]`.
        fusion_gates: With `fusion="mixture"`, weights of experts `[b, layers, e]`, 0 for those not chosen.
        outlier_logits: Of audio and text `[b, 2]`, -inf where it is absent or has no detector; None without
            detectors.
        voice_emotion_logits: `[b, e]`; this and the next three only of a model with such heads (see
            `mmsr.model.evidence`), in evaluation, and where a row has the modality.
        text_emotion_logits: `[b, k]`.
        text_language_logits: `[b, l]`.
        token_logits: Of each token of the transcript for each label `[b, t, c]`.
        embedding: By which rationales are retrieved `[b, e]`, of a model that does so, in evaluation; zero
            where `memory_embedding="text"` and there is no transcript.
        sentiment_logits: The head's `[b, c]`, within `generate`, so that a step need not pool the memory.
    """

    last_hidden_state: Tensor | None = None
    attention_mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    audio_hidden_states: tuple[Tensor, ...] | None = None
    audio_attentions: tuple[Tensor, ...] | None = None
    fusion_attentions: tuple[tuple[Tensor, ...], ...] | None = None
    prompt_ids: Tensor | None = None
    prompt_mask: Tensor | None = None
    fusion_gates: Tensor | None = None
    outlier_logits: Tensor | None = None
    voice_emotion_logits: Tensor | None = None
    text_emotion_logits: Tensor | None = None
    text_language_logits: Tensor | None = None
    token_logits: Tensor | None = None
    embedding: Tensor | None = None
    sentiment_logits: Tensor | None = None

    def repeat_rows(self, times: int) -> Self:
        """Each row `times` times, one after the other, as a copy; fields of layers stay as they are."""
        found = copy.copy(self)
        for name, value in self.items():
            if isinstance(value, Tensor):
                found[name] = value.repeat_interleave(times, dim=0)
        return found


class MmsrPreTrainedModel(FoundByAutoFile, PreTrainedModel):
    """Initialisation and loading of weights, for the encoder and the whole model."""

    config_class = MmsrConfig
    config: MmsrConfig
    base_model_prefix = "joint_encoder"
    main_input_name = "input_ids"
    input_modalities = ["audio", "text"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = [
        "CrossAttentionLayer",
        "SelfAttentionLayer",
        "MixtureLayer",
        "Stream",
        "SentimentHead",
    ]
    _keep_in_fp32_modules_strict = ["choice_bias"]  # whose steps bfloat16 would round off

    def __init__(self, config: MmsrConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.register_load_state_dict_pre_hook(_rename)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:  # type: ignore[override]
        """As `PreTrainedModel.save_pretrained`, in the format of today."""
        self.config.format_version = FORMAT_VERSION
        super().save_pretrained(save_directory, **kwargs)

    def _forget_old_names(self) -> None:
        """Save with the names of today, though an earlier checkpoint was loaded: transformers would not."""
        conversions: Any = getattr(self, "_weight_conversions", None) or []
        renamed = [[pattern] for pattern in RENAMED]
        self._weight_conversions = [
            conversion for conversion in conversions if conversion._original_source_patterns not in renamed
        ]

    def post_init(self) -> None:
        """Take over the parts' settings of placement and precision: transformers does so one level deep."""
        super().post_init()
        for path, part in self.named_modules():
            if not isinstance(part, PreTrainedModel) or part is self:
                continue
            for setting in ("_no_split_modules", "_skip_keys_device_placement"):
                getattr(self, setting).update(getattr(part, setting) or ())
            for setting in ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict"):
                # with the path, since transformers searches for a substring: `wo` is in `word_embeddings`
                getattr(self, setting).update(f"{path}.*{name}" for name in getattr(part, setting) or ())

    def wanted_outputs(self, attentions: bool | None, hidden_states: bool | None) -> dict[str, bool]:
        """Whether to return attentions and hidden states, by the arguments or else the configuration."""
        config, implementation = self.config, self.config._attn_implementation
        attentions = bool(config.output_attentions if attentions is None else attentions)
        if attentions and implementation != "eager":
            logger.warning_once(
                f"output_attentions=True, and attn_implementation={implementation!r} returns none; accepted: "
                "attn_implementation='eager' (set_attn_implementation)"
            )
        hidden_states = bool(config.output_hidden_states if hidden_states is None else hidden_states)
        return {"output_attentions": attentions, "output_hidden_states": hidden_states}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ResidualLinear):
            init.zeros_(module.weight)
        elif isinstance(module, nn.Linear):
            # with transformers' normal(0, .02) the head of a narrow fusion learns nothing for epochs
            init.xavier_uniform_(module.weight)
        elif isinstance(module, Stream):
            init.normal_(module.absent, std=self.config.initializer_range)
            if module.standardize:
                init.zeros_(module.mean)
                init.ones_(module.deviation)
        elif isinstance(module, Gate):
            init.normal_(module.weight, std=self.config.initializer_range)
            init.zeros_(module.choice_bias)
        elif isinstance(module, OutlierDetector):
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, AttentionPooling):
            init.normal_(module.query, std=self.config.initializer_range)
        elif isinstance(module, LayerMix) and module.weights is not None:
            init.zeros_(module.weights)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *model_args: Any, **kwargs: Any
    ) -> Any:
        """Load a checkpoint, and refuse one that does not hold exactly this model's weights.

        As `PreTrainedModel.from_pretrained`; with `output_loading_info` or `ignore_mismatched_sizes` nothing
        is refused.

        Raises:
            ValueError: Weights are missing, unknown or of another shape; the message names them. Or the
                folder is no checkpoint (`check_folder`).
        """
        check_folder(pretrained_model_name_or_path)
        kwargs["key_mapping"] = RENAMED | (kwargs.get("key_mapping") or {})
        kwargs.setdefault("use_safetensors", True)
        if kwargs.get("output_loading_info") or kwargs.get("ignore_mismatched_sizes"):
            loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
            model = loaded[0] if isinstance(loaded, tuple) else loaded
            model._forget_old_names()
            return loaded
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        model, info = loaded
        model._forget_old_names()
        differences = {
            "it lacks": info["missing_keys"],
            "it brings unknown": info["unexpected_keys"],
            "of another shape": [
                f"{name} ({list(saved)} where the model has {list(built)})"
                for name, saved, built in info["mismatched_keys"]
            ],
        }
        if any(differences.values()):
            listed = "; ".join(
                f"{what}: {', '.join(sorted(names)[:5])}{' ...' if len(names) > 5 else ''}"
                for what, names in differences.items()
                if names
            )
            raise ValueError(
                f"checkpoint {pretrained_model_name_or_path} does not fit {cls.__name__}: {listed} (pass "
                "output_loading_info=True to load it all the same, with random weights for what is missing)"
            )
        return model


def _rename(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give the weights of an earlier checkpoint the names of today, before torch loads them."""
    for name in [name for name in state_dict if name.startswith(prefix)]:
        renamed = name.removeprefix(prefix)
        for pattern, replacement in RENAMED.items():
            renamed = re.sub(pattern, replacement, renamed)
        state_dict[prefix + renamed] = state_dict.pop(name)


class MmsrEncoder(MmsrPreTrainedModel):
    """Both encoders and the fusion; `generate` calls it once per utterance."""

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__(config)
        if config.uses_audio:
            audio = config.part("audio_encoder")
            self.audio_encoder = audio_encoder_class(audio)(config)
            self.audio_stream = self._new_audio_stream()
        if config.uses_text:
            text = config.part("text_encoder")
            self.text_encoder = TextEncoder(config)
            self.text_stream = Stream(self.text_encoder.num_states, text.hidden_size, config)
        self.fusion = FUSION_CLASSES[config.fusion](config)
        for modality in fusion_modalities(config.fusion):
            if (layer := getattr(config, f"{modality}_outlier_layer")) is not None:
                self.add_outlier_detector(modality, layer)
        if config.voice_emotions is not None:
            self.add_voice_emotions(config.voice_emotions)
        if config.text_emotions is not None:
            self.add_text_evidence(config.text_emotions, config.text_languages or [])
        self.post_init()

    def _new_audio_stream(self) -> Stream:
        config, encoder = self.config, self.audio_encoder
        return Stream(
            encoder.num_states if encoder.keeps_all_layers else 1,
            encoder.width,
            config,
            kept=config.audio_layers,
            standardize=config.audio_standardize,
            stride=config.audio_stride,
            convolutions=config.audio_convolutions,
        )

    def add_outlier_detector(self, modality: str, layer: int) -> None:
        """Add a detector of outliers, which refuses nothing until it is fitted (`mmsr.training.outliers`).

        Without a layer mix the encoder then keeps this layer too: `audio_features` and `text_features` have
        two layers, and the last remains the fusion's.

        Args:
            modality: "audio" or "text".
            layer: Layer of that encoder; 0 is the input of the first, k the output of the k-th.

        Raises:
            ValueError: The model does not use this modality, or there is no such layer.
        """
        check_choice("modality", modality, fusion_modalities(self.config.fusion))
        setattr(self.config, f"{modality}_outlier_layer", layer)
        self.config.check_outlier_layers()
        encoder: Any = getattr(self, f"{modality}_encoder")
        if not encoder.keeps_all_layers:
            encoder.extra_layer = layer
            getattr(self, f"{modality}_stream").kept = [1]
            if (
                modality == "audio"
                and self.config.voice_emotions is not None
                and hasattr(self, "voice_emotions")
            ):
                self.voice_emotions.stream.kept = [1]
        detector = OutlierDetector(encoder.width).to(self.device)
        setattr(self, f"{modality}_outlier_detector", detector)

    def add_voice_emotions(self, emotions: Sequence[str]) -> None:
        """Add a head that names the emotion of a voice, with random weights; see `mmsr.training.evidence`."""
        self._set_evidence(voice_emotions=list(emotions))
        stream = self._new_audio_stream()
        stream.kept = self.audio_stream.kept
        self.voice_emotions = VoiceEmotions(stream, self.config).to(self.device).train(self.training)
        self.voice_emotions.requires_grad_(False)

    def add_text_evidence(self, emotions: Sequence[str], languages: Sequence[str]) -> None:
        """Add heads that weigh tokens and name the words' emotion and language, with random weights."""
        self._set_evidence(text_emotions=list(emotions), text_languages=list(languages))
        self.text_evidence = TextEvidence(self.text_encoder.width, self.config).to(self.device)
        self.text_evidence.requires_grad_(False)

    def remove_evidence(self) -> None:
        """Remove the heads of evidence, which no longer fit once other weights are trained."""
        for name in ("voice_emotions", "text_evidence"):
            if hasattr(self, name):
                delattr(self, name)
        self.config.update(dict.fromkeys(("voice_emotions", "text_emotions", "text_languages")))

    def _set_evidence(self, **fields: list[str]) -> None:
        """Set fields of the config, or none where they do not fit."""
        before = {name: getattr(self.config, name) for name in fields}
        try:
            self.config.update(fields)
            self.config.check_evidence()
        except ValueError:
            self.config.update(before)
            raise

    def _evidence(
        self, audio: Encoded | None, text: Encoded | None, stream: Tensor | None
    ) -> dict[str, Tensor]:
        """The logits of the heads of `mmsr.model.evidence`, of the encoders' outputs and the text stream."""
        found: dict[str, Tensor] = {}
        if self.config.voice_emotions is not None and audio is not None:
            found["voice_emotion_logits"] = self.voice_emotions(audio.states, audio.mask)
        if self.config.text_emotions is not None and text is not None:
            names = ("token_logits", "text_emotion_logits", "text_language_logits")
            layers = (self.outlier_states("text", text.states), text.states[:, :, -1])
            found |= zip(names, self.text_evidence(stream, layers, text.mask), strict=True)
        return found

    def outlier_states(self, modality: str, states: Tensor) -> Tensor:
        """The layer of a detector, of an encoder's states, `[b, n, l, e]` -> `[b, n, e]`."""
        mixed = getattr(self, f"{modality}_encoder").keeps_all_layers
        return states[:, :, getattr(self.config, f"{modality}_outlier_layer") if mixed else 0]

    def _outlier_logits(self, encoded: dict[str, Encoded | None], batch: int) -> Tensor:
        """`[b, 2]`, of the encoders' outputs by modality."""
        columns = []
        for modality in MODALITIES:
            found, detector = encoded[modality], getattr(self, f"{modality}_outlier_detector", None)
            if found is None or detector is None:
                columns.append(torch.full((batch,), -torch.inf, device=self.device))
            else:
                columns.append(detector(self.outlier_states(modality, found.states), found.mask))
        return torch.stack(columns, dim=-1)

    def get_input_embeddings(self) -> nn.Module:
        """The text encoder's word embeddings."""
        if not self.config.uses_text:
            raise NotImplementedError(
                "a model with fusion='audio_only' has no text encoder, hence no word embeddings"
            )
        return self.text_encoder.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the text encoder's word embeddings."""
        self.text_encoder.model.set_input_embeddings(value)

    def encode_audio(self, input_values: Tensor, input_values_mask: Tensor) -> tuple[Tensor, Tensor]:
        """`audio_features [b, f, l, e]` and `audio_features_mask [b, f]` of a waveform `[b, s]`."""
        encoded = self.audio_encoder(input_values, input_values_mask)
        return encoded.states, encoded.mask

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """`text_features [b, t, l, e]` and mask `[b, t]` of a transcript `[b, t]`, with real tokens first."""
        encoded = self.text_encoder(input_ids, attention_mask)
        return encoded.states, encoded.mask

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_values: Tensor | None = None,
        input_values_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        audio_features: Tensor | None = None,
        audio_features_mask: Tensor | None = None,
        text_features: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> MmsrEncoderOutput:
        """Encode and fuse; the arguments are those of `MmsrForSentimentReasoning.forward`."""
        inputs = (input_ids, inputs_embeds, text_features, input_values, audio_features)
        given = [value for value in inputs if value is not None]
        if not given:
            raise ValueError(NO_UTTERANCE)
        batch = given[0].shape[0]
        outputs = self.wanted_outputs(output_attentions, output_hidden_states)
        audio_encoded = text_encoded = None
        audio: tuple[Tensor | None, Tensor | None] = (None, None)
        text: tuple[Tensor | None, Tensor | None] = (None, None)
        if self.config.uses_audio:
            audio_encoded = self._encode_audio(
                input_values, input_values_mask, audio_features, audio_features_mask, outputs
            )
            audio = self.audio_stream.of(audio_encoded, batch)
        if self.config.uses_text:
            tokens = inputs_embeds if input_ids is None else input_ids
            if text_features is not None:
                text_encoded = self._given_states(text_features, attention_mask)
            elif tokens is not None:
                text_mask = _ones_unless_given(attention_mask, tokens.shape[:2], self.device)
                text_encoded = self.text_encoder(input_ids, text_mask, inputs_embeds, **outputs)
            text = self.text_stream.of(text_encoded, batch)
        evidence = {} if self.training else self._evidence(audio_encoded, text_encoded, text[0])
        outlier_logits = None
        if self.config.detects_outliers:
            encoded = {"audio": audio_encoded, "text": text_encoded}
            outlier_logits = self._outlier_logits(encoded, batch)
            masks = [None if found is None else found.mask for found in encoded.values()]
            if not self.training and masks[0] is not None and masks[1] is not None:
                present = self._used(outlier_logits, masks[0], masks[1])
                audio = self.audio_stream.with_absent(*audio, present[:, 0])  # type: ignore[arg-type]
                text = self.text_stream.with_absent(*text, present[:, 1])  # type: ignore[arg-type]
        memory, memory_mask, attentions, *gates = self.fusion(*audio, *text)
        main = text_encoded if self.config.uses_text else audio_encoded
        return MmsrEncoderOutput(
            last_hidden_state=memory,
            attention_mask=memory_mask,
            hidden_states=None if main is None else main.hidden_states,
            attentions=None if main is None else main.attentions,
            audio_hidden_states=None if audio_encoded is None else audio_encoded.hidden_states,
            audio_attentions=None if audio_encoded is None else audio_encoded.attentions,
            fusion_attentions=attentions if outputs["output_attentions"] and attentions else None,
            **self._prompt(input_ids, attention_mask),
            fusion_gates=gates[0] if gates else None,
            outlier_logits=outlier_logits,
            embedding=self._embedding(text_encoded, memory, memory_mask),
            **evidence,
        )

    @property
    def embedding_width(self) -> int:
        """Width e of `embedding`."""
        fused = self.config.memory_embedding == "fused" or not self.config.uses_text
        return self.config.hidden_size if fused else self.text_encoder.width

    def _embedding(self, text: Encoded | None, memory: Tensor, memory_mask: Tensor) -> Tensor | None:
        """What a memory of rationales is asked by, of the text encoder's output and the fused memory."""
        if self.training or not self.config.retrieves:
            return None
        if self.config.memory_embedding == "fused" or not self.config.uses_text:
            return masked_mean(memory, memory_mask).float()
        if text is None:
            return memory.new_zeros(len(memory), self.text_encoder.width, dtype=torch.float32)
        return masked_mean(text.states[:, :, -1], text.mask).float()

    def _used(self, outlier_logits: Tensor, audio_mask: Tensor, text_mask: Tensor) -> Tensor:
        """Which of audio and text are used, bool `[b, 2]`: not an outlier beside a modality that is none."""
        given = torch.stack([audio_mask.any(-1), text_mask.any(-1)], dim=-1)
        refused = outliers(outlier_logits, self.config.outlier_thresholds)
        return given & ~(refused & (given & ~refused).flip(-1))

    def _prompt(self, input_ids: Tensor | None, attention_mask: Tensor | None) -> dict[str, Tensor]:
        """The transcript for a decoder that reads it, with padding at the right."""
        if not self.config.prompt_transcript or input_ids is None:
            return {}
        mask = _ones_unless_given(attention_mask, input_ids.shape, self.device)
        return dict(zip(("prompt_ids", "prompt_mask"), to_front(input_ids, mask), strict=True))

    def _encode_audio(
        self,
        input_values: Tensor | None,
        input_values_mask: Tensor | None,
        audio_features: Tensor | None,
        audio_features_mask: Tensor | None,
        outputs: dict[str, bool],
    ) -> Encoded | None:
        if audio_features is not None:
            return self._given_states(audio_features, audio_features_mask)
        if input_values is None:
            return None
        if input_values.ndim != 2:
            raise ValueError(
                f"input_values has shape {tuple(input_values.shape)}; accepted: [batch, samples]"
            )
        mask = _ones_unless_given(input_values_mask, input_values.shape, self.device)
        values = input_values.to(self.dtype)
        if self.training and not any(outputs.values()) and mask.any() and not mask.any(-1).all():
            return self._encode_present(values, mask)
        return self.audio_encoder(values, mask, **outputs)

    def _encode_present(self, values: Tensor, mask: Tensor) -> Encoded:
        """Encode only the rows that have audio, which saves time with modality dropout.

        In evaluation all rows are encoded, so that shapes do not depend on values (one graph).
        """
        present = mask.any(-1)
        encoded = self.audio_encoder(values[present], mask[present])
        states = encoded.states.new_zeros(len(values), *encoded.states.shape[1:])
        frames = encoded.mask.new_zeros(len(values), *encoded.mask.shape[1:])
        states[present], frames[present] = encoded.states, encoded.mask
        return Encoded(states, frames)

    def _given_states(self, states: Tensor, mask: Tensor | None) -> Encoded:
        """Stored states `[b, n, l, e]`, their padding set to zero."""
        mask = _ones_unless_given(mask, states.shape[:2], self.device)
        return Encoded(states.to(self.dtype).masked_fill(mask[:, :, None, None] == 0, 0.0), mask)


def _ones_unless_given(mask: Tensor | None, shape: torch.Size, device: torch.device) -> Tensor:
    return torch.ones(shape, dtype=torch.long, device=device) if mask is None else mask.long()
