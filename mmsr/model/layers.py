"""Layers that fusion and pooling are made of: attention, feed-forward, and their checkpointed forms."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import is_flash_attention_requested


class FusionConfig(Protocol):
    """The settings of a fusion, as of `MmsrConfig`."""

    hidden_size: int
    fusion_layers: int
    fusion_heads: int
    fusion_intermediate_size: int
    fusion_bottlenecks: int
    fusion_rank: int
    dropout: float
    _attn_implementation: Any


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float = 1.0,
    **kwargs: object,
) -> tuple[Tensor, Tensor]:
    """Softmax attention over `[b, h, n, c]`, which returns its weights `[b, h, q, k]` too."""
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2), weights


class ResidualLinear(nn.Linear):
    """The last layer of a residual branch, initialised to zero (as in Flamingo, arXiv 2204.14198).

    Words and frames first reach the memory unchanged, so that a decoder learns to quote them much sooner.
    """


class Attention(nn.Module):
    """Multi-head attention from `query [b, q, d]` to `memory [b, k, d]`, by transformers' functions.

    Returns states `[b, q, d]` and, with eager attention, weights `[b, h, q, k]`, else None. `output` is the
    class of the output projection.

    For cross-attention, FlashAttention is replaced by sdpa: transformers takes the end of the memory's mask
    for the queries' (`_upad_input`), which is wrong without an error.
    """

    is_causal = False

    def __init__(self, config: FusionConfig, *, output: type[nn.Linear] = nn.Linear) -> None:
        super().__init__()
        self.config = config
        self.heads = config.fusion_heads
        self.scaling = (config.hidden_size // config.fusion_heads) ** -0.5
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = output(config.hidden_size, config.hidden_size)

    def forward(self, query: Tensor, memory: Tensor, memory_mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Attend from `query` to the real positions of `memory`."""
        implementation = self.config._attn_implementation
        if query is not memory and is_flash_attention_requested(self.config):
            implementation, mask = "sdpa", memory_mask[:, None, None].bool()  # [b, 1, 1, k]
        else:
            mask = create_bidirectional_mask(
                config=self.config,
                inputs_embeds=query,
                attention_mask=memory_mask,
                encoder_hidden_states=memory,
            )
        q, k, v = (
            rearrange(projection(states), "b n (h c) -> b h n c", h=self.heads)
            for projection, states in ((self.q_proj, query), (self.k_proj, memory), (self.v_proj, memory))
        )
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention)
        dropout = self.config.dropout if self.training else 0.0
        states, weights = attend(self, q, k, v, mask, dropout=dropout, scaling=self.scaling)
        return self.o_proj(rearrange(states, "b q h c -> b q (h c)")), weights


class FeedForward(nn.Sequential):
    """Pre-normed two-layer perceptron `[b, n, d] -> [b, n, d]`, without its residual."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(
            nn.LayerNorm(config.hidden_size),
            nn.Linear(config.hidden_size, config.fusion_intermediate_size),
            nn.GELU(),
            nn.Dropout(config.dropout),
            ResidualLinear(config.fusion_intermediate_size, config.hidden_size),
            nn.Dropout(config.dropout),
        )


class FeedForwardLayer(GradientCheckpointingLayer, FeedForward):
    """A feed-forward block with gradient checkpointing."""


class ConvolutionLayer(nn.Module):
    """Grouped convolution over neighbouring positions with a residual, `[b, n, d] -> [b, n, d]`.

    Padding counts as zero, so that a row does not depend on the batch. The groups are the fusion's heads.
    """

    kernel_size = 5

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.convolution = nn.Conv1d(
            width, width, self.kernel_size, padding="same", groups=config.fusion_heads
        )
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, stream: Tensor, mask: Tensor) -> Tensor:
        """Add to each position what its neighbours say; `mask [b, n]`."""
        heard = stream.masked_fill(mask[:, :, None] == 0, 0.0)
        heard = self.convolution(heard.transpose(1, 2)).transpose(1, 2)
        return stream + self.dropout(nn.functional.gelu(self.norm(heard)))


class CrossAttentionLayer(GradientCheckpointingLayer):
    """One stream attends to the other, then a feed-forward block; pre-norm, residual."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size)  # of the queries
        self.norm2 = nn.LayerNorm(config.hidden_size)  # of the memory
        self.attention = Attention(config, output=ResidualLinear)
        self.dropout = nn.Dropout(config.dropout)
        self.feed_forward = FeedForward(config)

    def forward(self, stream: Tensor, other: Tensor, other_mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the stream `[b, n, d]` enriched by `other [b, k, d]`, and the weights `[b, h, n, k]`."""
        attended, weights = self.attention(self.norm1(stream), self.norm2(other), other_mask)
        stream = stream + self.dropout(attended)
        return stream + self.feed_forward(stream), weights


class SelfAttentionLayer(GradientCheckpointingLayer):
    """A sequence attends to itself, then a feed-forward block; pre-norm, residual."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size)
        self.attention = Attention(config, output=ResidualLinear)
        self.dropout = nn.Dropout(config.dropout)
        self.feed_forward = FeedForward(config)

    def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the sequence's new states `[b, n, d]` and the weights `[b, h, n, n]`."""
        normed = self.norm(states)
        attended, weights = self.attention(normed, normed, mask)
        states = states + self.dropout(attended)
        return states + self.feed_forward(states), weights
