"""Audio encoders that read the waveform: wav2vec2 and its kind, and Moonshine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from mmsr.model.configuration import MmsrConfig
from mmsr.model.encoders.base import AudioEncoder, Encoded, in_graph

_AT_ONCE = 40 * 16_000  # samples, padding included: states of more do not stay in a CPU's caches


class WideConv1d(nn.Conv1d):
    """A convolution that is trained in float32 on CPUs, whatever autocast says; elsewhere torch's own.

    oneDNN 3.12 (torch 2.14) reads uninitialised memory in the bfloat16 weight gradient of strided
    convolutions with kernels of 4 and more, on CPUs with AMX: where that memory holds a NaN, so does the
    gradient. Kernels of 2 and 3, which wav2vec2 and its kin have, are not touched by it.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve `[b, c, n]`; the output has the dtype of the input."""
        if input.device.type != "cpu" or not torch.is_grad_enabled() or not self.weight.requires_grad:
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            bias = None if self.bias is None else self.bias.float()
            return self._conv_forward(input.float(), self.weight.float(), bias).to(input.dtype)

    @classmethod
    def replace(cls, model: nn.Module) -> None:
        """Make each strided convolution of this model with a kernel of 4 or more one of this class."""
        for module in model.modules():
            if type(module) is not nn.Conv1d:
                continue
            if module.in_channels > 1 and module.stride[0] > 1 and module.kernel_size[0] > 3:
                module.__class__ = cls  # the weights and their names stay


class WaveformEncoder(AudioEncoder):
    """wav2vec2, XLS-R, HuBERT, WavLM, data2vec-audio and their kin.

    Models that read padding encode rows one length at a time; the others run as one padded batch, and in
    evaluation on a CPU as several, of rows of similar length. LayerDrop is off, whatever the config says:
    the layer mix needs every layer, and DDP its gradient.

    Raises:
        ValueError: The config has an adapter behind the encoder.
    """

    def __init__(self, config: MmsrConfig) -> None:
        if getattr(config.part("audio_encoder"), "add_adapter", False):
            raise ValueError(
                "audio_encoder has add_adapter=True, which makes its frames fewer than those of its layers; "
                "accepted: False, with audio_stride in its place"
            )
        super().__init__(config)
        WideConv1d.replace(self.model)
        if hasattr(self.model.config, "layerdrop"):
            self.model.config.layerdrop = 0.0

    def encode(self, input_values: Tensor, mask: Tensor, **outputs: bool) -> Encoded:
        """Encode; a row shorter than one frame is filled up with silence."""
        lengths = mask.sum(-1).clamp(min=self.receptive_field)
        samples = max(input_values.shape[1], self.receptive_field)
        input_values = nn.functional.pad(input_values, (0, samples - input_values.shape[1]))
        mask = (torch.arange(samples, device=lengths.device) < lengths[:, None]).long()
        if torch.compiler.is_exporting() and self.normalises_rows:
            with self._norm_of_real_frames(lengths):
                return self._encode_batch(input_values, mask, **outputs)
        if self.reads_padding and (lengths != samples).any():
            rows = [(lengths == length).nonzero()[:, 0] for length in lengths.unique()]
        elif self.training or in_graph() or input_values.device.type != "cpu":
            rows = []
        else:
            rows = _by_length(lengths)
        if len(rows) < 2:
            return self._encode_batch(input_values, mask, **outputs)
        return self._encode_groups(input_values, mask, rows, **outputs)

    @property
    def reads_padding(self) -> bool:
        """Whether a row's states depend on the padding beside it.

        Group norm (wav2vec2-base, HuBERT-base) normalises over the whole row, padding included; data2vec's
        positional convolutions and the conformer's convolutions reach into the padding.
        """
        return self._convolves_padding or self.normalises_rows

    @property
    def one_graph(self) -> bool:
        """As of the base class; not with convolutions that reach into the padding."""
        return not self._convolves_padding

    @property
    def normalises_rows(self) -> bool:
        """Whether the first convolution's output is normalised over the whole row."""
        return getattr(self.config, "feat_extract_norm", None) == "group"

    @property
    def _convolves_padding(self) -> bool:
        return self.config.model_type in ("data2vec-audio", "wav2vec2-conformer")

    @contextmanager
    def _norm_of_real_frames(self, lengths: Tensor) -> Iterator[None]:
        """Within, group norm is over the real frames of rows with `lengths [b]` samples."""
        model: Any = self.model
        kernel, stride = self.convolutions[0]
        frames = ((lengths - kernel) // stride + 1)[:, None, None]

        def normed(norm: nn.GroupNorm, inputs: tuple[Tensor], _: Tensor) -> Tensor:
            (states,) = inputs  # [b, c, n], of which each channel is a group
            real = torch.arange(states.shape[2], device=states.device) < frames
            mean = states.masked_fill(~real, 0.0).sum(2, keepdim=True) / frames
            centred = (states - mean).masked_fill(~real, 0.0)
            deviation = (centred.square().sum(2, keepdim=True) / frames + norm.eps).sqrt()
            return centred / deviation * norm.weight[:, None] + norm.bias[:, None]

        hook = model.feature_extractor.conv_layers[0].layer_norm.register_forward_hook(normed)
        try:
            yield
        finally:
            hook.remove()

    @property
    def convolutions(self) -> list[tuple[int, int]]:
        """Kernel and stride of each convolution of the front end."""
        return list(zip(self.config.conv_kernel, self.config.conv_stride, strict=True))

    @property
    def receptive_field(self) -> int:
        """Number of samples that the first frame needs."""
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
        return Encoded.of(output, frames, all_layers=self.keeps_all_layers, extra_layer=self.extra_layer)

    def _frames(self, samples: int) -> int:
        model: Any = self.model
        return int(model._get_feat_extract_output_lengths(torch.tensor(samples)))

    def _no_masking(self, input_values: Tensor) -> Tensor | None:
        """No SpecAugment for a batch that is shorter than its mask, on which transformers raises."""
        if not self.training or self.config.mask_time_prob == 0:
            return None
        batch, samples = input_values.shape
        frames = self._frames(samples)
        if frames >= self.config.mask_time_length:
            return None
        return torch.zeros(batch, frames, dtype=torch.bool, device=input_values.device)

    def _encode_groups(
        self, input_values: Tensor, mask: Tensor, rows: list[Tensor], **outputs: bool
    ) -> Encoded:
        """Encode groups of rows, each cut to its longest row."""
        frames = self._frames(input_values.shape[1])
        groups = []
        for group in rows:
            real = mask[group]
            real = real[:, : int(real.sum(-1).max())]
            groups.append(self._encode_batch(input_values[group, : real.shape[1]], real, **outputs))
        order = torch.cat(rows).argsort()

        def joined(parts: Sequence[Tensor], *, square: bool = False) -> Tensor:
            """Groups `[g, n, ...]`, or square `[g, h, n, n]`, padded to `frames`, in the rows' order."""
            padded = []
            for part in parts:
                missing = (0, frames - part.shape[-1 if square else 1])
                after = missing if square else (0, 0) * (part.ndim - 2)
                padded.append(nn.functional.pad(part, (*after, *missing)))
            return torch.cat(padded)[order]

        hidden_states = zip(*(group.hidden_states or () for group in groups), strict=True)
        attentions = zip(*(group.attentions or () for group in groups), strict=True)
        return Encoded(
            joined([group.states for group in groups]),
            joined([group.mask for group in groups]),
            tuple(map(joined, hidden_states)) or None,
            tuple(joined(layer, square=True) for layer in attentions) or None,
        )


def _by_length(lengths: Tensor) -> list[Tensor]:
    """Rows of lengths `[b]` in samples, in groups of similar length that are encoded at once on a CPU."""
    groups: list[list[int]] = []
    order = lengths.argsort().tolist()
    for row, length in zip(order, lengths[order].tolist(), strict=True):
        if not groups or (len(groups[-1]) + 1) * length > _AT_ONCE:
            groups.append([])
        groups[-1].append(row)
    return [torch.tensor(group) for group in groups]


class MoonshineAudioEncoder(WaveformEncoder):
    """Moonshine's encoder, without its decoder; one frame steps 24 ms.

    Group norm with one group normalises over the whole row, padding included, and the model's mask marks a
    frame by the first of its 895 samples: so rows are encoded one length at a time, without a mask.
    """

    reads_padding = True
    one_graph = False
    normalises_rows = False  # not by a norm of that name

    @property
    def num_states(self) -> int:
        """As of the base class; `num_hidden_layers` is the decoder's."""
        if self.keeps_all_layers:
            return self.config.encoder_num_hidden_layers + 1
        return super().num_states

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
        """Kernel and stride of each convolution, which the config does not hold."""
        model: Any = self.model
        return [(conv.kernel_size[0], conv.stride[0]) for conv in (model.conv1, model.conv2, model.conv3)]

    def _encode_batch(self, input_values: Tensor, mask: Tensor, **outputs: bool) -> Encoded:
        output = self.model(input_values, **outputs, return_dict=True)
        frames = torch.ones(output.last_hidden_state.shape[:2], dtype=torch.long, device=mask.device)
        return Encoded.of(output, frames, all_layers=self.keeps_all_layers, extra_layer=self.extra_layer)
