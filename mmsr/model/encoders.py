"""Encoders: waveform or transcript in, states of every kept layer out, with a mask of the real positions.

    input_values [b, s] ──► AudioEncoder ──► states [b, f, l, d], mask [b, f]
    input_ids    [b, t] ──► TextEncoder  ──► states [b, t, l, d], mask [b, t]

with l the kept layers (1 without a layer mix). Both wrap a transformers model unchanged. What they add is the
handling of padding that those models lack: a row's states do not depend on what it is batched with, nor on
the side that padding stands on, nor on what stands in it. `LayerMix` then turns l layers into one.

Transformers' Auto classes are imported inside functions: their import makes transformers import
`mmsr.model.modeling` (see `mmsr/__init__.py`), which needs this module whole. A part is built in the whole
model's dtype, not in the one that its own config was saved with (Whisper's says float16).
"""

from __future__ import annotations

import functools
import inspect
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.audio_utils import mel_filter_bank

from mmsr.model.configuration import MmsrConfig


@dataclass
class Encoded:
    """What an encoder returns.

    `states [b, n, l, d]` of the kept layers, `mask [b, n]` (1 = real), and, where asked for, all the model's
    `hidden_states` (`[b, n, d]` each, embeddings first) and `attentions` (`[b, h, n, n]` each).
    """

    states: Tensor
    mask: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class LayerMix(nn.Module):
    """Learned softmax-weighted sum over layers, each layer-normed first.

    `states [b, n, l, d] -> [b, n, d]`. With one layer it is the identity. After SUPERB (Yang et al. 2021,
    arXiv 2105.01051).
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers)) if layers > 1 else None

    def forward(self, states: Tensor) -> Tensor:
        """Mix the layers into one."""
        if self.weights is None:
            return states[:, :, 0]
        states = nn.functional.layer_norm(states, states.shape[-1:])
        return torch.einsum("bnld,l->bnd", states, self.weights.softmax(0).to(states.dtype))


def to_front(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Turn left padding into right padding and zero what stands in it (NaN included).

    `values [b, n]` or `[b, n, d]`, `mask [b, n]` -> the same shapes, each row rolled so that its first real
    position comes first.
    """
    start = mask.argmax(-1, keepdim=True)
    order = (torch.arange(mask.shape[1], device=mask.device) + start) % mask.shape[1]
    mask = mask.gather(1, order)
    if values.ndim == 3:
        values = values.gather(1, repeat(order, "b n -> b n d", d=values.shape[2]))
        return values.masked_fill(mask[:, :, None] == 0, 0.0), mask
    return values.gather(1, order).masked_fill(mask == 0, 0), mask


def kept_layers(output: Any, *, all_layers: bool) -> Tensor:
    """All layers of a transformers output, or its last, `[b, n, l, d]`.

    The last is always the model's output, whose final layer norm some models leave out of `hidden_states`.
    """
    below = output.hidden_states[:-1] if all_layers else ()
    return torch.stack((*below, output.last_hidden_state), dim=2)


class AudioEncoder(nn.Module):
    """Base of the speech encoders: a transformers model under `self.model`, fed with the raw waveform.

    A row whose mask is all zero still gets states; the caller replaces them. Sample rate:
    `config.sampling_rate` Hz.
    """

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__()
        self.config = config.part("audio_encoder")
        self.keeps_all_layers = config.audio_layer_mix
        self.model = self.build(self.config)

    @property
    def num_states(self) -> int:
        """Number of layers kept: all (embeddings included) with a layer mix, else the last."""
        return self.config.num_hidden_layers + 1 if self.keeps_all_layers else 1

    @staticmethod
    def build(config: PreTrainedConfig) -> PreTrainedModel:
        """The transformers model of this config, weights not loaded."""
        from transformers import AutoModel

        return AutoModel.from_config(config, dtype=torch.get_default_dtype())

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> PreTrainedModel:
        """The pretrained model of a Hub id or folder, as `build` builds it, in float32."""
        from transformers import AutoModel

        return AutoModel.from_pretrained(name, dtype=torch.float32)

    def forward(self, input_values: Tensor, mask: Tensor, **outputs: bool) -> Encoded:
        """Encode `input_values [b, s]` whose real samples `mask [b, s]` marks."""
        input_values, mask = to_front(input_values, mask.long())
        encoded = self.encode(input_values, mask, **outputs)
        encoded.mask = encoded.mask * mask.any(-1, keepdim=True)  # an absent row has no real frame
        return encoded

    def encode(
        self,
        input_values: Tensor,
        mask: Tensor,
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> Encoded:
        """Encode a waveform whose padding stands at the right and is silent."""
        raise NotImplementedError

    def flags(self, output_attentions: bool, output_hidden_states: bool) -> dict[str, bool]:
        """Keyword arguments that make the transformers model return what is needed."""
        return {
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states or self.keeps_all_layers,
        }


class WaveformEncoder(AudioEncoder):
    """Models that read the waveform: wav2vec2, XLS-R, HuBERT, WavLM, data2vec-audio and their kin.

    Where padding would leak into a row (see `reads_padding`), rows are encoded one length at a time; the
    others run as one padded batch.
    """

    def encode(self, input_values: Tensor, mask: Tensor, **outputs: bool) -> Encoded:
        """Encode; a row shorter than one frame is filled up with silence, an empty row is silence."""
        lengths = mask.sum(-1).clamp(min=self.receptive_field)
        samples = max(input_values.shape[1], self.receptive_field)
        input_values = nn.functional.pad(input_values, (0, samples - input_values.shape[1]))
        if self.reads_padding and (lengths != samples).any():
            return self._encode_by_length(input_values, lengths, **outputs)
        mask = (torch.arange(samples, device=lengths.device) < lengths[:, None]).long()
        return self._encode_batch(input_values, mask, **outputs)

    @functools.cached_property
    def reads_padding(self) -> bool:
        """Whether a row's states depend on the padding beside it.

        A front end with group norm (wav2vec2-base, HuBERT-base) normalises over the whole row, padding
        included; data2vec's stacked positional convolutions and the conformer's convolutions look across its
        edge.
        """
        return (
            self.config.model_type in ("data2vec-audio", "wav2vec2-conformer")
            or self.config.feat_extract_norm == "group"
        )

    @functools.cached_property
    def receptive_field(self) -> int:
        """Samples that the first frame needs."""
        field = 1
        for kernel, stride in zip(
            reversed(self.config.conv_kernel), reversed(self.config.conv_stride), strict=True
        ):
            field = (field - 1) * stride + kernel
        return field

    def _encode_batch(
        self,
        input_values: Tensor,
        mask: Tensor,
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> Encoded:
        output = self.model(
            input_values,
            attention_mask=mask,
            mask_time_indices=self._no_masking(input_values),
            **self.flags(output_attentions, output_hidden_states),
            return_dict=True,
        )
        states = kept_layers(output, all_layers=self.keeps_all_layers)
        model: Any = self.model
        frames = model._get_feature_vector_attention_mask(states.shape[1], mask).long()
        hidden_states = output.hidden_states if output_hidden_states else None
        return Encoded(states, frames, hidden_states, output.attentions if output_attentions else None)

    def _frames(self, samples: int) -> int:
        model: Any = self.model
        return int(model._get_feat_extract_output_lengths(torch.tensor(samples)))

    def _no_masking(self, input_values: Tensor) -> Tensor | None:
        """SpecAugment raises on a batch shorter than its mask: such a batch is trained on as it is."""
        batch, samples = input_values.shape
        frames = self._frames(samples)
        if not self.training or self.config.mask_time_prob == 0 or frames >= self.config.mask_time_length:
            return None
        return torch.zeros(batch, frames, dtype=torch.bool, device=input_values.device)

    def _encode_by_length(self, input_values: Tensor, lengths: Tensor, **outputs: bool) -> Encoded:
        frames = self._frames(input_values.shape[1])
        rows: dict[int, Encoded] = {}
        for length in lengths.unique().tolist():
            which = (lengths == length).nonzero()[:, 0]
            group = self._encode_batch(
                input_values[which, :length], torch.ones_like(input_values[which, :length]).long(), **outputs
            )
            for position, row in enumerate(which.tolist()):
                rows[row] = _row(group, position, frames)
        return _stack([rows[row] for row in range(len(lengths))])


def _row(encoded: Encoded, row: int, frames: int) -> Encoded:
    """One row of an encoder's output, padded with zeros to `frames` positions."""
    missing = frames - encoded.states.shape[1]

    def pad(states: Tensor) -> Tensor:  # [b, n, ...] -> [1, frames, ...]
        return nn.functional.pad(states[row : row + 1], (0, 0) * (states.ndim - 2) + (0, missing))

    def pad_square(weights: Tensor) -> Tensor:  # [b, h, n, n] -> [1, h, frames, frames]
        return nn.functional.pad(weights[row : row + 1], (0, missing, 0, missing))

    return Encoded(
        pad(encoded.states),
        pad(encoded.mask),
        None if encoded.hidden_states is None else tuple(map(pad, encoded.hidden_states)),
        None if encoded.attentions is None else tuple(map(pad_square, encoded.attentions)),
    )


def _stack(rows: list[Encoded]) -> Encoded:
    """Concatenate encoder outputs of equal length along the batch."""

    def layers(name: str) -> tuple[Tensor, ...] | None:
        if getattr(rows[0], name) is None:
            return None
        return tuple(torch.cat(layer) for layer in zip(*(getattr(row, name) for row in rows), strict=True))

    return Encoded(
        torch.cat([row.states for row in rows]),
        torch.cat([row.mask for row in rows]),
        layers("hidden_states"),
        layers("attentions"),
    )


class WhisperAudioEncoder(AudioEncoder):
    """Whisper's encoder at its full 30 s window; longer audio is cut into windows, each encoded by itself.

    The log-mel spectrogram is made here, in float32, as `WhisperFeatureExtractor` makes it. Frames past the
    end of the audio are masked (and cut off where no row of the batch needs them); one frame lasts 20 ms.
    `attentions` are Whisper's own, one square of 1,500 positions per window: `[b * windows, h, n, n]`.
    """

    n_fft = 400
    hop = 160

    @staticmethod
    def build(config: PreTrainedConfig) -> PreTrainedModel:
        """Whisper's encoder without its decoder."""
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        return WhisperEncoder._from_config(config, dtype=torch.get_default_dtype())

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> PreTrainedModel:
        """The encoder of a pretrained Whisper."""
        return super().load(name).get_encoder()

    def encode(
        self,
        input_values: Tensor,
        mask: Tensor,
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> Encoded:
        """Encode window by window and put the frames back in a row."""
        window = self.config.max_source_positions * 2 * self.hop
        lengths = mask.sum(-1)
        batch, samples = input_values.shape
        windows = max(1, -(-samples // window))
        input_values = nn.functional.pad(input_values, (0, windows * window - samples))
        output = self.model(
            self.log_mel(rearrange(input_values, "b (w s) -> (b w) s", w=windows)).to(self.model.dtype),
            **self.flags(output_attentions, output_hidden_states),
            return_dict=True,
        )
        needed = (lengths + 2 * self.hop - 1) // (2 * self.hop)
        longest = max(1, -(-samples // (2 * self.hop)))
        frames = (torch.arange(longest, device=lengths.device) < needed[:, None].clamp(min=1)).long()

        def in_a_row(states: Tensor) -> Tensor:
            return rearrange(states, "(b w) f ... -> b (w f) ...", b=batch)[:, :longest]

        hidden_states = tuple(map(in_a_row, output.hidden_states)) if output_hidden_states else None
        return Encoded(
            in_a_row(kept_layers(output, all_layers=self.keeps_all_layers)),
            frames,
            hidden_states,
            output.attentions if output_attentions else None,
        )

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def log_mel(self, input_values: Tensor) -> Tensor:
        """Log-mel spectrogram `[b, mels, 2 * positions]` of whole windows `[b, s]` at 16 kHz."""
        window = torch.hann_window(self.n_fft, device=input_values.device)
        spectrum = torch.stft(input_values.float(), self.n_fft, self.hop, window=window, return_complex=True)
        filters = torch.from_numpy(_whisper_filters(self.config.num_mel_bins)).to(input_values.device)
        mel = filters.T @ spectrum[..., :-1].abs().square().contiguous()
        log_mel = mel.clamp(min=1e-10).log10()
        return (torch.maximum(log_mel, log_mel.amax((1, 2), keepdim=True) - 8.0) + 4.0) / 4.0


@functools.cache
def _whisper_filters(mels: int) -> np.ndarray:  # [201, mels], float32
    return mel_filter_bank(
        num_frequency_bins=1 + WhisperAudioEncoder.n_fft // 2,
        num_mel_filters=mels,
        min_frequency=0.0,
        max_frequency=8000.0,
        sampling_rate=16_000,
        norm="slaney",
        mel_scale="slaney",
    ).astype("float32")


AUDIO_ENCODERS: dict[str, type[AudioEncoder]] = {
    **dict.fromkeys(
        ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat", "wav2vec2-conformer"),
        WaveformEncoder,
    ),
    "whisper": WhisperAudioEncoder,
}
"""The speech encoders, by the `model_type` of their config."""


def audio_encoder_class(config: PreTrainedConfig) -> type[AudioEncoder]:
    """The class that wraps the speech encoder of this config.

    Raises:
        ValueError: its `model_type` is not among `AUDIO_ENCODERS`.
    """
    if config.model_type not in AUDIO_ENCODERS:
        raise ValueError(
            f"audio_encoder has model_type={config.model_type!r}, which is no known speech encoder; "
            f"accepted: {', '.join(AUDIO_ENCODERS)}"
        )
    return AUDIO_ENCODERS[config.model_type]


class TextEncoder(nn.Module):
    """Any transformers text encoder, without its pooler, under `self.model`.

    A row whose mask is all zero (an absent transcript) is encoded as padding and replaced by the caller.
    """

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__()
        self.config = config.part("text_encoder")
        self.keeps_all_layers = config.text_layer_mix
        self.pad_token_id = self.config.pad_token_id or 0
        self.model = self.build(self.config)

    @staticmethod
    def build(config: PreTrainedConfig) -> PreTrainedModel:
        """The transformers model of this config, weights not loaded."""
        from transformers import AutoModel

        return AutoModel.from_config(config, dtype=torch.get_default_dtype(), **TextEncoder.options(config))

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> PreTrainedModel:
        """The pretrained model of a Hub id or folder, as `build` builds it, in float32."""
        from transformers import AutoConfig, AutoModel

        options = cls.options(AutoConfig.from_pretrained(name))
        return AutoModel.from_pretrained(name, dtype=torch.float32, **options)

    @staticmethod
    def options(config: PreTrainedConfig) -> dict[str, bool]:
        """Arguments of the transformers model: a pooler would get no gradient, so none is added."""
        from transformers import AutoModel

        model_class: Any = AutoModel._model_mapping[type(config)]
        pooler = "add_pooling_layer" in inspect.signature(model_class).parameters
        return {"add_pooling_layer": False} if pooler else {}

    @property
    def num_states(self) -> int:
        """Number of layers kept: all (embeddings included) with a layer mix, else the last."""
        return self.config.num_hidden_layers + 1 if self.keeps_all_layers else 1

    def forward(
        self,
        input_ids: Tensor | None,
        mask: Tensor,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> Encoded:
        """Encode `input_ids [b, t]` (or `inputs_embeds [b, t, d]`) whose real tokens `mask [b, t]` marks."""
        if inputs_embeds is None:
            assert input_ids is not None
            input_ids, mask = to_front(input_ids, mask)
            input_ids = input_ids.masked_fill(mask == 0, self.pad_token_id)
        else:
            inputs_embeds, mask = to_front(inputs_embeds, mask)
        attended = torch.where(mask.any(-1, keepdim=True), mask, torch.ones_like(mask))
        output = self.model(
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=attended,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states or self.keeps_all_layers,
            return_dict=True,
        )
        return Encoded(
            kept_layers(output, all_layers=self.keeps_all_layers),
            mask,
            output.hidden_states if output_hidden_states else None,
            output.attentions if output_attentions else None,
        )
