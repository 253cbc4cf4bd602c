"""Encoders: waveform or transcript in, states of every kept layer out, with a mask of the real positions.

    input_values [b, s] ──► AudioEncoder ──► states [b, f, l, d], mask [b, f]
    input_ids    [b, t] ──► TextEncoder  ──► states [b, t, l, d], mask [b, t]

with l the kept layers (1 without a layer mix). Both wrap a transformers model (timm's through transformers'
own wrapper). What they add is the handling of padding that those models lack: a row's states do not depend on
what it is batched with, nor on the side that padding stands on, nor on what stands in it. `LayerMix` then
turns l layers into one.

Transformers' Auto classes are imported inside functions: their import makes transformers import
`mmsr.model.modeling` (see `mmsr/__init__.py`), which needs this module whole. A part is built in the whole
model's dtype, not in the one that its own config was saved with (Whisper's says float16).
"""

from __future__ import annotations

import difflib
import functools
import inspect
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, reduce, repeat
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.audio_utils import mel_filter_bank
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import logging
from transformers.utils.output_capturing import capture_outputs

from mmsr.model.configuration import MmsrConfig, TimmAudioConfig

logger = logging.get_logger(__name__)


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

    @classmethod
    def of(cls, output: Any, mask: Tensor, *, all_layers: bool) -> Encoded:
        """A transformers output with all its layers, or its last.

        The last is always the model's output, whose final layer norm some models leave out of
        `hidden_states`.
        """
        below = output.hidden_states[:-1] if all_layers else ()
        states = torch.stack((*below, output.last_hidden_state), dim=2)
        return cls(states, mask, output.hidden_states, output.attentions)


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


def to_front(
    values: Tensor, mask: Tensor, names: tuple[str, str] = ("values", "mask")
) -> tuple[Tensor, Tensor]:
    """Turn left padding into right padding and zero what stands in it (NaN included).

    `values [b, n]` or `[b, n, d]`, `mask [b, n]` -> the same shapes, each row rolled so that its first real
    position comes first. `names` are those under which the caller was given both.

    Raises:
        ValueError: the mask is of another shape; a shorter one would cut the values off unseen.
    """
    if mask.shape != values.shape[:2]:
        raise ValueError(
            f"{names[1]} has shape {list(mask.shape)}, and {names[0]} {list(values.shape)}; accepted: a mask "
            f"of shape {list(values.shape[:2])}"
        )
    start = mask.argmax(-1, keepdim=True)
    order = torch.arange(mask.shape[1], device=mask.device) + start
    order = torch.where(order < mask.shape[1], order, order - mask.shape[1])  # ONNX lacks `%` by a free size
    mask = mask.gather(1, order)
    if values.ndim == 3:
        values = values.gather(1, repeat(order, "b n -> b n d", d=values.shape[2]))
        return values.masked_fill(mask[:, :, None] == 0, 0.0), mask
    return values.gather(1, order).masked_fill(mask == 0, 0), mask


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
        if config.audio_layers and max(config.audio_layers) >= self.num_states:
            raise ValueError(
                f"audio_layers={config.audio_layers}: this audio_encoder "
                f"(model_type={self.config.model_type!r}) has layers 0 to {self.num_states - 1}; accepted: "
                "some of these, ascending, each once"
            )

    @property
    def num_states(self) -> int:
        """Number of layers kept: all (embeddings included) with a layer mix, else the last."""
        return self.config.num_hidden_layers + 1 if self.keeps_all_layers else 1

    @property
    def width(self) -> int:
        """Width d of its states."""
        return self.config.hidden_size

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

    def forward(
        self,
        input_values: Tensor,
        mask: Tensor,
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> Encoded:
        """Encode `input_values [b, s]` whose real samples `mask [b, s]` marks."""
        input_values, mask = to_front(input_values, mask.long(), ("input_values", "input_values_mask"))
        encoded = self.encode(
            input_values,
            mask,
            output_attentions=output_attentions and _gives_weights(self.model),
            output_hidden_states=output_hidden_states or self.keeps_all_layers,
        )
        encoded.mask = encoded.mask * mask.any(-1, keepdim=True)  # an absent row has no real frame
        if not output_hidden_states:
            encoded.hidden_states = None
        return encoded

    def encode(self, input_values: Tensor, mask: Tensor, **outputs: bool) -> Encoded:
        """Encode a waveform whose padding stands at the right and is silent.

        `outputs` are the flags that make the transformers model return what is needed.
        """
        raise NotImplementedError


class WaveformEncoder(AudioEncoder):
    """Models that read the waveform: wav2vec2, XLS-R, HuBERT, WavLM, data2vec-audio and their kin.

    Where padding would leak into a row (see `reads_padding`), rows are encoded one length at a time; the
    others run as one padded batch.

    Without LayerDrop, whatever their config says (.1 in most): a layer that is skipped is missing from the
    states that the layer mix takes, and without a gradient, which DDP does not accept.

    Raises:
        ValueError: a config with an adapter behind the encoder.
    """

    def __init__(self, config: MmsrConfig) -> None:
        if getattr(config.part("audio_encoder"), "add_adapter", False):
            raise ValueError(
                "audio_encoder has add_adapter=True, which makes its frames fewer than those of its layers; "
                "accepted: False, with audio_stride in its place"
            )
        super().__init__(config)
        if hasattr(self.model.config, "layerdrop"):
            self.model.config.layerdrop = 0.0

    def encode(self, input_values: Tensor, mask: Tensor, **outputs: bool) -> Encoded:
        """Encode; a row shorter than one frame is filled up with silence, an empty row is silence."""
        lengths = mask.sum(-1).clamp(min=self.receptive_field)
        samples = max(input_values.shape[1], self.receptive_field)
        input_values = nn.functional.pad(input_values, (0, samples - input_values.shape[1]))
        if self.reads_padding and (lengths != samples).any():
            return self._encode_by_length(input_values, lengths, **outputs)
        mask = (torch.arange(samples, device=lengths.device) < lengths[:, None]).long()
        return self._encode_batch(input_values, mask, **outputs)

    @property
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

    @property
    def convolutions(self) -> list[tuple[int, int]]:
        """Kernel and stride of each convolution of the front end, in samples of its input."""
        return list(zip(self.config.conv_kernel, self.config.conv_stride, strict=True))

    @property
    def receptive_field(self) -> int:
        """Samples that the first frame needs."""
        field = 1
        for kernel, stride in reversed(self.convolutions):
            field = (field - 1) * stride + kernel
        return field

    def _encode_batch(self, input_values: Tensor, mask: Tensor, **outputs: bool) -> Encoded:
        output = self.model(
            input_values,
            attention_mask=mask,
            mask_time_indices=self._no_masking(input_values),
            **outputs,
            return_dict=True,
        )
        model: Any = self.model
        frames = model._get_feature_vector_attention_mask(output.last_hidden_state.shape[1], mask).long()
        return Encoded.of(output, frames, all_layers=self.keeps_all_layers)

    def _frames(self, samples: int) -> int:
        model: Any = self.model
        return int(model._get_feat_extract_output_lengths(torch.tensor(samples)))

    def _no_masking(self, input_values: Tensor) -> Tensor | None:
        """SpecAugment raises on a batch shorter than its mask: such a batch is trained on as it is."""
        if not self.training or self.config.mask_time_prob == 0:
            return None
        batch, samples = input_values.shape
        frames = self._frames(samples)
        if frames >= self.config.mask_time_length:
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


class MoonshineAudioEncoder(WaveformEncoder):
    """Moonshine's encoder, without its decoder, on the raw waveform.

    Its front end normalises over the whole row (group norm with one group), padding included, and its mask
    marks a frame by the first of its 895 samples alone: rows are encoded one length at a time, without a
    mask. One frame steps 24 ms.
    """

    reads_padding = True

    @property
    def num_states(self) -> int:
        """As for the others; `num_hidden_layers` would be the decoder's."""
        return self.config.encoder_num_hidden_layers + 1 if self.keeps_all_layers else 1

    @staticmethod
    def build(config: PreTrainedConfig) -> PreTrainedModel:
        """Moonshine's encoder without its decoder."""
        from transformers.models.moonshine.modeling_moonshine import MoonshineEncoder

        return MoonshineEncoder._from_config(config, dtype=torch.get_default_dtype())

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> PreTrainedModel:
        """The encoder of a pretrained Moonshine."""
        return super().load(name).get_encoder()

    @property
    def convolutions(self) -> list[tuple[int, int]]:
        """Kernel and stride of each convolution of the front end, which the config does not hold."""
        model: Any = self.model
        return [(conv.kernel_size[0], conv.stride[0]) for conv in (model.conv1, model.conv2, model.conv3)]

    def _encode_batch(self, input_values: Tensor, mask: Tensor, **outputs: bool) -> Encoded:
        output = self.model(input_values, **outputs, return_dict=True)
        frames = torch.ones(output.last_hidden_state.shape[:2], dtype=torch.long, device=mask.device)
        return Encoded.of(output, frames, all_layers=self.keeps_all_layers)


class SpectrogramEncoder(AudioEncoder):
    """Base of the encoders that read a log-mel spectrogram, window by window, each by itself.

    They know no mask: a window's end is filled with silence, and frames that hear no real sample are masked.
    Windows past a row's end are not encoded; their states are zero. Hence a row does not depend on its batch.
    `attentions` are one square per window, `[b * windows, h, n, n]`.
    """

    @property
    def window(self) -> int:
        """Samples of one window."""
        raise NotImplementedError

    def log_mel(self, input_values: Tensor) -> Tensor:
        """Log-mel spectrogram `[w, mels, frames]` of whole windows `[w, s]`, in float32."""
        raise NotImplementedError

    def encode_windows(self, features: Tensor, **outputs: bool) -> Any:
        """Encode `log_mel` windows into a transformers output, its states `[w, n, d]`."""
        raise NotImplementedError

    def encode(self, input_values: Tensor, mask: Tensor, **outputs: bool) -> Encoded:
        """Encode the windows that hear something and put their frames in a row."""
        batch, samples = input_values.shape
        lengths = mask.sum(-1, keepdim=True).clamp(min=1)
        windows = -(-samples // self.window)
        input_values = nn.functional.pad(input_values, (0, windows * self.window - samples))
        cut = rearrange(input_values, "b (w s) -> (b w) s", w=windows)
        heard = (torch.arange(windows, device=lengths.device) * self.window < lengths).flatten()
        if torch.compiler.is_compiling() and not self.training:
            heard = torch.ones_like(heard)  # one graph: no shape may depend on what is heard
        output = self.encode_windows(self.log_mel(cut[heard]).to(self.model.dtype), **outputs)
        frames = output.last_hidden_state.shape[1]
        starts = torch.arange(windows * frames, device=lengths.device) * self.window // frames

        def all_windows(states: Tensor) -> Tensor:
            return states.new_zeros(len(heard), *states.shape[1:]).index_put((heard,), states)

        def in_a_row(states: Tensor) -> Tensor:
            longest = -(-samples * states.shape[1] // self.window)
            return rearrange(all_windows(states), "(b w) n ... -> b (w n) ...", b=batch)[:, :longest]

        encoded = Encoded.of(output, (starts < lengths).long(), all_layers=self.keeps_all_layers)
        return Encoded(
            in_a_row(encoded.states),
            encoded.mask[:, : -(-samples * frames // self.window)],
            encoded.hidden_states and tuple(map(in_a_row, encoded.hidden_states)),
            encoded.attentions and tuple(map(all_windows, encoded.attentions)),
        )


class WhisperAudioEncoder(SpectrogramEncoder):
    """Whisper's encoder, at its full 30 s window or at a shorter one (`audio_window_seconds`).

    A shorter window cuts the spectrogram and the position embeddings alike: short clips cost less, but their
    states are not those of the full window, whose silence is heard too. The log-mel spectrogram is made here,
    in float32, as `WhisperFeatureExtractor` makes it. One frame lasts 20 ms.
    """

    n_fft = 400
    hop = 160

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__(config)
        self.window_seconds = config.audio_window_seconds
        # no buffer: it would follow the weights into bfloat16, and be lost where transformers builds on meta
        self.filters = torch.from_numpy(_whisper_filters(self.config.num_mel_bins))

    @staticmethod
    def build(config: PreTrainedConfig) -> PreTrainedModel:
        """Whisper's encoder without its decoder."""
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        return WhisperEncoder._from_config(config, dtype=torch.get_default_dtype())

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> PreTrainedModel:
        """The encoder of a pretrained Whisper."""
        return super().load(name).get_encoder()

    @property
    def window(self) -> int:
        """Samples of one window, whole frames of 20 ms."""
        frame = 2 * self.hop
        if self.window_seconds is None:
            return self.config.max_source_positions * frame
        return math.ceil(self.window_seconds * 16_000 / frame) * frame

    def encode_windows(self, features: Tensor, **outputs: bool) -> BaseModelOutput:
        """Encode windows `[w, mels, 2 n]` at the first n positions."""
        return _whisper_forward(self.model, features, **outputs)

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def log_mel(self, input_values: Tensor) -> Tensor:
        """Log-mel spectrogram `[w, mels, 2 n]` of whole windows `[w, s]` at 16 kHz."""
        window = torch.hann_window(self.n_fft, device=input_values.device)
        spectrum = torch.stft(input_values.float(), self.n_fft, self.hop, window=window, return_complex=True)
        mel = self.filters.to(input_values.device).T @ spectrum[..., :-1].abs().square().contiguous()
        log_mel = mel.clamp(min=1e-10).log10()
        return (torch.maximum(log_mel, log_mel.amax((1, 2), keepdim=True) - 8.0) + 4.0) / 4.0


@capture_outputs
def _whisper_forward(model: Any, features: Tensor, **_: Any) -> BaseModelOutput:
    """`WhisperEncoder.forward` for windows of any length: that one refuses all but its full window.

    Without its LayerDrop, which would take layers away from the layer mix (the published models have none).
    """
    states = nn.functional.gelu(model.conv1(features))
    states = rearrange(nn.functional.gelu(model.conv2(states)), "w d n -> w n d")
    states = states + model.embed_positions.weight[: states.shape[1]]
    states = nn.functional.dropout(states, p=model.dropout, training=model.training)
    for layer in model.layers:
        states = layer(states, None)
    return BaseModelOutput(last_hidden_state=model.layer_norm(states))


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


class TimmAudioEncoder(SpectrogramEncoder):
    """Any timm image model on a log-mel spectrogram, through transformers' `TimmWrapperModel`.

    The spectrogram is a picture of one channel, mels high and frames wide, of one window
    (`TimmAudioConfig.window_seconds`); feature maps `[w, d, mels', n]` (a transformer's patches in their
    grid) are averaged over frequency into frames. timm fits pretrained image weights to it: it sums the first
    layer's three channels into one and interpolates position embeddings, as AST does (Gong et al. 2021, arXiv
    2104.01778). Unlike AST's, the level is kept: the logarithm is shifted and scaled by constants. States are
    those before a convolutional head, if any; `hidden_states` of a convolutional model differ in width
    and in frames; there are no `attentions`.

    Raises:
        ValueError: a layer mix of a model whose stages differ in shape.
    """

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__(config)
        self._checkpoints = False
        stages = {(stage["num_chs"], stage["reduction"]) for stage in self._stages}
        if self.keeps_all_layers and len(stages) > 1:
            raise ValueError(
                f"audio_layer_mix=True: the stages of timm's {self.config.architecture!r} differ in width or "
                "resolution; accepted: False, or a model of equal layers such as a ViT"
            )

    @staticmethod
    def build(config: PreTrainedConfig) -> PreTrainedModel:
        """The timm model of this config, with random weights, without what follows its last stage.

        Raises:
            ValueError: timm has no such model.
        """
        import timm
        from transformers import TimmWrapperModel

        name = config.architecture
        if not timm.is_model(name):
            alike = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
            raise ValueError(
                f"architecture={name!r} is no model of timm {timm.__version__}; accepted: a name of "
                f"timm.list_models(){', such as ' if alike else ''}{', '.join(alike)}"
            )
        model: Any = TimmWrapperModel._from_config(config, dtype=torch.get_default_dtype())
        TimmAudioEncoder._prune(model.timm_model)
        return model

    @staticmethod
    def _prune(model: Any) -> None:
        """Take a convolutional head away, which would get no gradient."""
        model.prune_intermediate_layers([len(model.feature_info) - 1], prune_head=True)

    @classmethod
    def load(cls, name: str | os.PathLike[str], **settings: Any) -> PreTrainedModel:
        """The pretrained model of `timm/<model>`, or of `timm/local-dir:<folder>`, in float32.

        `settings` are `TimmAudioConfig`'s, such as `window_seconds`. The config keeps the architecture's
        name and not where the weights came from, so that a checkpoint reloads offline.

        Raises:
            ValueError: the weights are to come from elsewhere.
        """
        import timm

        source = str(name).removeprefix("timm/")
        scheme, _, folder = source.rpartition(":")
        if scheme not in ("", "local-dir"):
            raise ValueError(f"audio={str(name)!r}; accepted: timm/<model> or timm/local-dir:<folder>")
        architecture = source
        if scheme:
            architecture = json.loads((Path(folder) / "config.json").read_text("utf-8"))["architecture"]
        config = TimmAudioConfig(architecture=architecture, **settings)
        model: Any = cls.build(config)
        arguments = {"pretrained": True, "num_classes": 0, **config.model_args}
        if model.timm_model.pretrained_cfg.get("fixed_input_size"):
            # Said twice: a folder's own size would otherwise win over the overlay in `model_args`.
            arguments["img_size"] = (config.num_mel_bins, config.window_frames)
        pretrained: Any = timm.create_model(source, **arguments)
        cls._prune(pretrained)
        model.timm_model.load_state_dict(pretrained.state_dict())
        return model

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether activations are computed again in the backward pass.

        transformers switches it in every module that has a flag of this name; timm's modules have none.
        """
        return self._checkpoints

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, enable: bool) -> None:
        """Switch it in timm's own blocks; a model that cannot says so in the log."""
        model: Any = self.model
        if model.supports_gradient_checkpointing:
            self._checkpoints = enable
            model.timm_model.set_grad_checkpointing(enable)
        elif enable:
            logger.warning(
                "timm's %s has no gradient checkpointing: its activations are kept", self.config.architecture
            )

    @property
    def _stages(self) -> list[dict[str, Any]]:
        model: Any = self.model
        return list(model.timm_model.feature_info)

    @property
    def num_states(self) -> int:
        """Number of layers kept: all (a transformer's blocks) with a layer mix, else the last."""
        return len(self._stages) if self.keeps_all_layers else 1

    @property
    def width(self) -> int:
        """Channels of the last stage."""
        return self._stages[-1]["num_chs"]

    @property
    def window(self) -> int:
        """Samples of one window."""
        return self.config.window_frames * self.config.hop_length

    def train(self, mode: bool = True) -> TimmAudioEncoder:
        """A frozen model stays in eval mode: its batch norm would go on counting."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            self.model.eval()
        return self

    def encode_windows(self, features: Tensor, **outputs: bool) -> BaseModelOutput:
        """Encode pictures `[w, mels, frames]`; each stage's map becomes frames `[w, n, d]`."""
        stages = outputs["output_hidden_states"] or [len(self._stages) - 1]
        maps = self.model(features[:, None], output_hidden_states=stages, norm=True, output_fmt="NCHW")
        frames = tuple(reduce(stage, "w d k n -> w n d", "mean") for stage in maps.hidden_states)
        return BaseModelOutput(last_hidden_state=frames[-1], hidden_states=frames)

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def log_mel(self, input_values: Tensor) -> Tensor:
        """Log-mel spectrogram `[w, mels, frames]` of whole windows `[w, s]`, -1.5 at silence."""
        from torchaudio import functional as audio

        config, device = self.config, input_values.device
        spectrum = audio.spectrogram(
            input_values.float(),
            pad=0,
            window=torch.hann_window(config.n_fft, device=device),
            n_fft=config.n_fft,
            hop_length=config.hop_length,
            win_length=config.n_fft,
            power=2.0,
            normalized=False,
        )
        filters = audio.melscale_fbanks(
            config.n_fft // 2 + 1, 0.0, config.sampling_rate / 2, config.num_mel_bins, config.sampling_rate
        ).to(device)
        mel = filters.T @ spectrum[..., :-1]
        return (mel.clamp(min=1e-10).log10() + 4.0) / 4.0


AUDIO_ENCODERS: dict[str, type[AudioEncoder]] = {
    **dict.fromkeys(
        ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat", "wav2vec2-conformer"),
        WaveformEncoder,
    ),
    "moonshine": MoonshineAudioEncoder,
    "whisper": WhisperAudioEncoder,
    TimmAudioConfig.model_type: TimmAudioEncoder,
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


def load_audio_encoder(name: str | os.PathLike[str]) -> PreTrainedModel:
    """The pretrained speech encoder of a Hub id or folder, or `timm/<model>`, in float32.

    Raises:
        ValueError: it is no known speech encoder.
    """
    from transformers import AutoConfig

    if str(name).startswith("timm/"):
        return TimmAudioEncoder.load(name)
    return audio_encoder_class(AutoConfig.from_pretrained(name)).load(name)


class TextEncoder(nn.Module):
    """Any transformers text encoder, without its pooler, under `self.model`.

    A row whose mask is all zero (an absent transcript) is encoded as padding and replaced by the caller.
    """

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__()
        self.config = config.part("text_encoder")
        self.keeps_all_layers = config.text_layer_mix
        # The encoder's own: models of RoBERTa's kind count positions by what is not this token.
        own = self.config.pad_token_id
        self.pad_token_id = config.pad_token_id if own is None else own
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
        """Arguments of the transformers model: a pooler would get no gradient, so none is added.

        Raises:
            ValueError: it is an encoder-decoder, or reads no tokens.
        """
        from transformers import AutoModel

        known = type(config) in AutoModel._model_mapping
        model_class: Any = AutoModel._model_mapping[type(config)] if known else None
        if config.is_encoder_decoder or getattr(model_class, "main_input_name", None) != "input_ids":
            raise ValueError(
                f"text_encoder has model_type={config.model_type!r}, which is "
                f"{'an encoder-decoder' if config.is_encoder_decoder else 'no text encoder'}; accepted: a "
                "text encoder of transformers (xlm-roberta, bert, roberta, deberta-v2 ...)"
            )
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
            input_ids, mask = to_front(input_ids, mask, ("input_ids", "attention_mask"))
            input_ids = input_ids.masked_fill(mask == 0, self.pad_token_id)
        else:
            inputs_embeds, mask = to_front(inputs_embeds, mask, ("inputs_embeds", "attention_mask"))
        attended = torch.where(mask.any(-1, keepdim=True), mask, torch.ones_like(mask))
        output = self.model(
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=attended,
            output_attentions=output_attentions and _gives_weights(self.model),
            output_hidden_states=output_hidden_states or self.keeps_all_layers,
            return_dict=True,
        )
        encoded = Encoded.of(output, mask, all_layers=self.keeps_all_layers)
        if not output_hidden_states:
            encoded.hidden_states = None
        return encoded


def _gives_weights(model: PreTrainedModel) -> bool:
    """Whether a model's attention returns its weights; another would only warn of being asked."""
    return model.config._attn_implementation == "eager"
