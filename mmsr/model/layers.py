"""Layers that fusion and pooling are made of: attention, feed-forward, experts, and checkpointed forms."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import is_flash_attention_requested, maybe_autocast


class FusionConfig(Protocol):
    """The settings of a fusion, as of `MmsrConfig`."""

    hidden_size: int
    fusion_layers: int
    fusion_heads: int
    fusion_intermediate_size: int
    fusion_bottlenecks: int
    fusion_rank: int
    fusion_experts: int
    fusion_active_experts: int
    fusion_balance_rate: float
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
    """Pre-normed two-layer perceptron `[b, n, d] -> [b, n, d]`, without its residual.

    `width` is that of its hidden layer, by default `config.fusion_intermediate_size`.
    """

    def __init__(self, config: FusionConfig, width: int | None = None) -> None:
        width = config.fusion_intermediate_size if width is None else width
        super().__init__(
            nn.LayerNorm(config.hidden_size),
            nn.Linear(config.hidden_size, width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            ResidualLinear(width, config.hidden_size),
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


class Gate(nn.Module):
    """Chooses the experts of each utterance, and balances their loads without a loss.

    `utterance [b, n]`, its means -> weights of the experts `[b, e]`, 0 for those not chosen. The scores are
    s = sigmoid(W norm(utterance)), in float32 under autocast too. The `fusion_active_experts` with the
    greatest s + bias are chosen, and weigh s.

    The bias is Wang et al.'s (2024, arXiv 2408.15664): it is part of the choice alone, has no gradient, and
    `balance` moves it by `fusion_balance_rate` against the load of each expert. Forwards in training count
    the loads. They are no buffer, since DDP would overwrite a process's counts by those of the first.

    Args:
        config: The model's.
        inputs: Width n of `utterance`.
    """

    choice_bias: Tensor

    def __init__(self, config: FusionConfig, inputs: int) -> None:
        super().__init__()
        self.active = config.fusion_active_experts
        self.rate = config.fusion_balance_rate
        self.weight = nn.Parameter(torch.zeros(config.fusion_experts, inputs))
        self.register_buffer("choice_bias", torch.zeros(config.fusion_experts))
        self.loads: Tensor | None = None
        """Rows that chose each expert since the last `balance` `[e]`."""

    def forward(self, utterance: Tensor) -> Tensor:
        """Weigh the experts."""
        with maybe_autocast(utterance.device.type, enabled=False):
            utterance = nn.functional.layer_norm(utterance.float(), utterance.shape[-1:])
            scores = torch.sigmoid(nn.functional.linear(utterance, self.weight.float()))
        chosen = (scores.detach() + self.choice_bias).topk(self.active, dim=-1).indices
        mask = torch.zeros_like(scores).scatter(-1, chosen, 1.0)
        if self.training:
            loads = mask.sum(0)
            self.loads = loads if self.loads is None else self.loads + loads
        return scores * mask

    @torch.no_grad()
    def balance(self) -> Tensor:
        """Raise the bias of experts below the mean load, lower it above; returns the loads `[e]`.

        To be called once for each step of the optimiser. Loads are summed over the processes.
        """
        loads = torch.zeros_like(self.choice_bias) if self.loads is None else self.loads
        self.loads = None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(loads)
        self.choice_bias += self.rate * (loads.mean() - loads).sign()
        return loads


class Experts(nn.Module):
    """Weighted sum of two-layer perceptrons, `[b, n, d]` and weights `[b, e]` -> `[b, n, d]`.

    Every expert is computed, and those not chosen are multiplied by 0: with few narrow experts two products
    of matrices are faster than a choice of rows, no shape depends on a value (one graph), and every weight
    has a gradient, if of zeros, as DDP needs.
    """

    def __init__(self, config: FusionConfig, width: int) -> None:
        super().__init__()
        self.experts = config.fusion_experts
        self.norm = nn.LayerNorm(config.hidden_size)
        self.up_proj = nn.Linear(config.hidden_size, self.experts * width)
        self.dropout = nn.Dropout(config.dropout)
        self.down_proj = ResidualLinear(self.experts * width, config.hidden_size)

    def forward(self, states: Tensor, weights: Tensor) -> Tensor:
        """Apply the experts, without a residual."""
        hidden = self.dropout(nn.functional.gelu(self.up_proj(self.norm(states))))
        hidden = rearrange(hidden, "b n (e w) -> b n e w", e=self.experts)
        hidden = hidden * weights.to(hidden.dtype)[:, None, :, None]
        return self.dropout(self.down_proj(rearrange(hidden, "b n e w -> b n (e w)")))


class MixtureLayer(GradientCheckpointingLayer):
    """Both streams attend to each other as one sequence, then experts; pre-norm, residual.

    The audio's positions have an expert of their own, as have the text's; all share the routed experts. Their
    width is such that a position passes `fusion_intermediate_size` hidden units, as in the other layers.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        width = max(1, config.fusion_intermediate_size // (1 + config.fusion_active_experts))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.attention = Attention(config, output=ResidualLinear)
        self.dropout = nn.Dropout(config.dropout)
        self.audio_expert = FeedForward(config, width)
        self.text_expert = FeedForward(config, width)
        self.routed_experts = Experts(config, width)

    def forward(
        self, states: Tensor, mask: Tensor, weights: Tensor, frames: int
    ) -> tuple[Tensor, Tensor | None]:
        """Return new states `[b, f + t, d]` and attention weights; `weights [b, e]` are the gate's."""
        normed = self.norm(states)
        attended, attention = self.attention(normed, normed, mask)
        states = states + self.dropout(attended)
        audio, text = states[:, :frames], states[:, frames:]
        own = torch.cat([self.audio_expert(audio), self.text_expert(text)], dim=1)
        return states + own + self.routed_experts(states, weights), attention


def balance_experts(model: nn.Module) -> Tensor | None:
    """Balance the gates of a model, once before each step of the optimiser; None for a model without.

    Returns the greatest load as a multiple of the mean load, less 1 (MaxVio of arXiv 2408.15664), a mean over
    gates, as a tensor of one number `[]`; 0 is even.
    """
    loads = [part.balance() for part in model.modules() if isinstance(part, Gate)]
    found = [load.max() / load.mean().clamp(min=1e-9) - 1 for load in loads if load.any()]
    return torch.stack(found).mean() if found else None
