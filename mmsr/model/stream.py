"""From an encoder's states to a stream, the input of a fusion.

states of an encoder's layers [b, n, l, e] ─► layer mix ─► stack ─► projection ─► convolutions ─► [b, n, d]
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from mmsr.model.configuration import MmsrConfig
from mmsr.model.encoders.base import Encoded, LayerMix
from mmsr.model.layers import ConvolutionLayer


class Stream(nn.Module):
    """From an encoder's states to the fusion's input: layer mix, stack, projection, convolutions, absence.

    `states [b, n, l, e]`, `mask [b, n]` -> `[b, n / stride, d]`, `[b, n / stride]`. Where a row's mask is all
    zero, the learned absent state stands at its first position, alone.

    Args:
        layers: Number of layers l.
        width: Width e of the states.
        config: The model's.
        kept: Layers that the mix takes; all by default.
        standardize: Shift and scale each dimension by fixed statistics.
        stride: Neighbouring positions that are stacked into one.
        convolutions: Number of convolutions over neighbouring positions, behind a GELU of the projection.
    """

    def __init__(
        self,
        layers: int,
        width: int,
        config: MmsrConfig,
        *,
        kept: list[int] | None = None,
        standardize: bool = False,
        stride: int = 1,
        convolutions: int = 0,
    ) -> None:
        super().__init__()
        self.kept = kept
        layers = layers if kept is None else len(kept)
        self.standardize = standardize
        self.stride = stride
        self.mean: Tensor
        self.deviation: Tensor
        if standardize:
            self.register_buffer("mean", torch.zeros(layers, width))
            self.register_buffer("deviation", torch.ones(layers, width))
        self.layer_mix = LayerMix(layers)
        self.projection = nn.Linear(stride * width, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.absent = nn.Parameter(torch.zeros(config.hidden_size))
        self.dropout = nn.Dropout(config.dropout)
        self.convolutions = nn.ModuleList(ConvolutionLayer(config) for _ in range(convolutions))

    def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mix and project the states, and put in the absent state."""
        states = self.kept_states(states)
        if self.standardize:
            states = (states - self.mean) / self.deviation
        states = self.layer_mix(states)
        if self.stride > 1:
            states, mask = self._stacked(states, mask)
        stream = self.norm(self.projection(states))
        if self.convolutions:
            stream = nn.functional.gelu(stream)
        stream = self.dropout(stream)
        for convolution in self.convolutions:
            stream = convolution(stream, mask)
        return self.with_absent(stream, mask, mask.any(-1))

    def with_absent(self, stream: Tensor, mask: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Put the absent state in place of rows `[b]` that are not present."""
        first = torch.zeros_like(mask).index_fill(1, torch.zeros(1, dtype=torch.long, device=mask.device), 1)
        stream = torch.where(present[:, None, None], stream, self.absent.to(stream.dtype))
        return stream, torch.where(present[:, None], mask, first)

    def set_statistics(self, states: Tensor) -> None:
        """Take mean and deviation from the kept states `[n, l, e]` of training files."""
        deviation, mean = torch.std_mean(states, dim=0)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.clamp(min=1e-5))

    def kept_states(self, states: Tensor) -> Tensor:
        """The layers of the mix, `[..., l, e]` -> `[..., kept, e]`."""
        return states if self.kept is None else states[..., self.kept, :]

    def _stacked(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Stack `stride` positions into one, which is real where any of them is."""
        states = states.masked_fill(mask[:, :, None] == 0, 0.0)
        # not by einops: it counts what is left over, which a graph of any length cannot
        states = nn.functional.pad(states, (0, 0, 0, self.stride - 1)).unfold(1, self.stride, self.stride)
        mask = nn.functional.pad(mask, (0, self.stride - 1)).unfold(1, self.stride, self.stride)
        return rearrange(states, "b n e k -> b n (k e)"), mask.amax(-1)

    def of(self, encoded: Encoded | None, batch: int) -> tuple[Tensor, Tensor]:
        """The stream of an encoder's output; with None, where no row has this modality, `[b, 1, d]`."""
        if encoded is not None:
            return self(encoded.states, encoded.mask)
        mask = torch.ones(batch, 1, dtype=torch.long, device=self.absent.device)
        return self.absent.expand(batch, 1, -1), mask
