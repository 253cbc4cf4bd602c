"""Encoders: waveform or transcript in, states of every kept layer out, with a mask of the real positions.

    input_values [b, s] ──► AudioEncoder ──► states [b, f, l, d], mask [b, f]
    input_ids    [b, t] ──► TextEncoder  ──► states [b, t, l, d], mask [b, t]

with l the kept layers (1 without a layer mix). Both wrap a transformers model and handle padding: a row's
states depend neither on its batch, nor on the side or content of its padding. A part is built in the dtype of
the whole model, not in that of its own config (Whisper's says float16).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from einops import repeat
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from mmsr.model.configuration import MmsrConfig


@dataclass
class Encoded:
    """Output of an encoder.

    `states [b, n, l, d]` of the kept layers, `mask [b, n]`; on request `hidden_states [b, n, d]` of all
    layers, embeddings first, and `attentions [b, h, n, n]`.
    """

    states: Tensor
    mask: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None

    @classmethod
    def of(cls, output: Any, mask: Tensor, *, all_layers: bool, extra_layer: int | None = None) -> Encoded:
        """A transformers model's output, with the states of all its layers, or of the last and one more."""
        below = output.hidden_states[:-1] if all_layers else ()
        if extra_layer is not None:
            below = (output.hidden_states[extra_layer],)
        # some models leave the final layer norm out of `hidden_states`
        states = torch.stack((*below, output.last_hidden_state), dim=2)
        return cls(states, mask, output.hidden_states, output.attentions)


class LayerMix(nn.Module):
    """Learned softmax-weighted sum of layer-normed layers, `[b, n, l, d] -> [b, n, d]`.

    With one layer it is the identity. After SUPERB (Yang et al. 2021, arXiv 2105.01051).
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers)) if layers > 1 else None

    def forward(self, states: Tensor) -> Tensor:
        """Mix the layers into one."""
        if self.weights is None:
            return states[:, :, 0]
        states = nn.functional.layer_norm(states, states.shape[-1:])
        weights = self.weights.softmax(0).to(states.dtype)
        mixed = weights[0] * states[:, :, 0]
        for layer in range(1, len(weights)):  # twice as fast as a product of matrices on a CPU
            mixed = mixed + weights[layer] * states[:, :, layer]
        return mixed


def to_front(
    values: Tensor, mask: Tensor, names: tuple[str, str] = ("values", "mask")
) -> tuple[Tensor, Tensor]:
    """Turn left padding into right padding, and set padding to zero.

    Args:
        values: `[b, n]` or `[b, n, d]`.
        mask: `[b, n]`.
        names: What an error calls values and mask.

    Raises:
        ValueError: The mask has another shape.
    """
    if mask.shape != values.shape[:2]:
        raise ValueError(
            f"{names[1]} has shape {list(mask.shape)}, and {names[0]} {list(values.shape)}; accepted: a mask "
            f"of shape {list(values.shape[:2])}"
        )
    if values.device.type == "cpu" and not in_graph() and _is_right_padded(mask):
        return values.masked_fill(mask.reshape(*mask.shape, *(1,) * (values.ndim - 2)) == 0, 0), mask
    start = mask.argmax(-1, keepdim=True)
    order = torch.arange(mask.shape[1], device=mask.device) + start
    order = torch.where(order < mask.shape[1], order, order - mask.shape[1])  # ONNX lacks `%` by a free size
    mask = mask.gather(1, order)
    if values.ndim == 3:
        values = values.gather(1, repeat(order, "b n -> b n d", d=values.shape[2]))
        return values.masked_fill(mask[:, :, None] == 0, 0.0), mask
    return values.gather(1, order).masked_fill(mask == 0, 0), mask


def in_graph() -> bool:
    """Whether a graph is made of the computation, which may not depend on values."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _is_right_padded(mask: Tensor) -> bool:
    """Whether each row of a mask `[b, n]` starts with a one, or has none."""
    return bool(mask.shape[1]) and not mask[mask[:, 0] == 0].any()


class KeepsLayers(nn.Module):
    """Base of both encoders: which layers' states are kept."""

    config: PreTrainedConfig
    keeps_all_layers: bool
    extra_layer: int | None = None
    """A layer that is kept beside the last, before it; None with a layer mix, which keeps all."""

    @property
    def num_states(self) -> int:
        """Number of kept layers: all, embeddings included, with a layer mix; else the last (and one more)."""
        if self.keeps_all_layers:
            return self.config.num_hidden_layers + 1
        return 1 if self.extra_layer is None else 2

    @property
    def width(self) -> int:
        """Width d of the states."""
        return self.config.hidden_size


class AudioEncoder(KeepsLayers):
    """Base of the speech encoders: a transformers model under `self.model` that gets the raw waveform.

    A row without audio gets states too, which the caller replaces.
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
    def one_graph(self) -> bool:
        """Whether a padded batch can be one graph (ONNX), in which no row depends on its padding."""
        return True

    @property
    def receptive_field(self) -> int:
        """Number of samples that the first frame needs."""
        return 1

    @property
    def window(self) -> int:
        """Number of samples of which a graph takes multiples."""
        return 1

    @staticmethod
    def build(config: PreTrainedConfig) -> PreTrainedModel:
        """The transformers model of this config, with random weights."""
        return AutoModel.from_config(config, dtype=torch.get_default_dtype())

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> PreTrainedModel:
        """The pretrained model of a Hub id or folder, in float32."""
        return AutoModel.from_pretrained(name, dtype=torch.float32)

    def forward(
        self,
        input_values: Tensor,
        mask: Tensor,
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> Encoded:
        """Encode a waveform `[b, s]` with its mask `[b, s]`."""
        input_values, mask = to_front(input_values, mask.long(), ("input_values", "input_values_mask"))
        encoded = self.encode(
            input_values,
            mask,
            output_attentions=output_attentions and gives_weights(self.model),
            output_hidden_states=output_hidden_states or self.num_states > 1,
        )
        encoded.mask = encoded.mask * mask.any(-1, keepdim=True)  # an absent row has no real frame
        if not output_hidden_states:
            encoded.hidden_states = None
        return encoded

    def encode(self, input_values: Tensor, mask: Tensor, **outputs: bool) -> Encoded:
        """Encode a waveform whose padding stands at the right and is silent.

        `outputs` are `output_attentions` and `output_hidden_states`, for the transformers model.
        """
        raise NotImplementedError


def gives_weights(model: PreTrainedModel) -> bool:
    """Whether a model's attention can return its weights."""
    return model.config._attn_implementation == "eager"
