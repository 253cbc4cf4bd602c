"""Fusion: how the audio frames and the transcript's tokens become one memory.

Every fusion is one class with one signature and one line in `FUSION_CLASSES`; its name is also listed in
`configuration.FUSIONS`, which a test holds equal:

    (audio [b, f, d], audio_mask [b, f], text [b, t, d], text_mask [b, t])
        -> (memory [b, m, d], memory_mask [b, m], attentions: tuple with one entry per layer)

Masks: 1 = real. Shapes: b batch, f audio frames, t text tokens, m memory, h heads, d width.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mmsr.model.configuration import MmsrConfig

Fused = tuple[Tensor, Tensor, tuple[tuple[Tensor | None, ...], ...]]


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
    """Plain softmax attention over `[b, h, n, c]` that also returns its weights `[b, h, q, k]`."""
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2), weights


class Attention(nn.Module):
    """Multi-head attention from `query [b, q, d]` to `memory [b, k, d]`, by transformers' functions.

    Returns the attended states `[b, q, d]` and, with eager attention, the weights `[b, h, q, k]` (else None).
    """

    is_causal = False

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__()
        self.config = config
        self.heads = config.fusion_heads
        self.scaling = (config.hidden_size // config.fusion_heads) ** -0.5
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, query: Tensor, memory: Tensor, memory_mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Attend from `query` to the real positions of `memory`."""
        mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=query, attention_mask=memory_mask, encoder_hidden_states=memory
        )
        q, k, v = (
            rearrange(projection(states), "b n (h c) -> b h n c", h=self.heads)
            for projection, states in ((self.q_proj, query), (self.k_proj, memory), (self.v_proj, memory))
        )
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        dropout = self.config.dropout if self.training else 0.0
        states, weights = attend(self, q, k, v, mask, dropout=dropout, scaling=self.scaling)
        return self.o_proj(rearrange(states, "b q h c -> b q (h c)")), weights


class FeedForward(nn.Sequential):
    """Pre-normed two-layer perceptron `[b, n, d] -> [b, n, d]`, without its residual."""

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__(
            nn.LayerNorm(config.hidden_size),
            nn.Linear(config.hidden_size, config.fusion_intermediate_size),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.fusion_intermediate_size, config.hidden_size),
            nn.Dropout(config.dropout),
        )


class CrossAttentionLayer(nn.Module):
    """One stream attends to the other, then a feed-forward block; pre-norm, residual."""

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(config.hidden_size)
        self.memory_norm = nn.LayerNorm(config.hidden_size)
        self.attention = Attention(config)
        self.dropout = nn.Dropout(config.dropout)
        self.feed_forward = FeedForward(config)

    def forward(self, stream: Tensor, other: Tensor, other_mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the stream `[b, n, d]` enriched by `other [b, k, d]`, and the weights `[b, h, n, k]`."""
        attended, weights = self.attention(self.query_norm(stream), self.memory_norm(other), other_mask)
        stream = stream + self.dropout(attended)
        return stream + self.feed_forward(stream), weights


class CrossAttentionFusion(nn.Module):
    """Cross-attention in both directions; the memory is both enriched streams, audio first.

    Follows the crossmodal transformer of MulT (Tsai et al. 2019, arXiv 1906.00295) with the streams joined
    along time rather than along width, so that the rationale decoder can look at frames and words alike.

        A ──► A attends T ──► A' ─┐
               ╲ ╱                ├─► memory = [A'; T']
               ╱ ╲                │
        T ──► T attends A ──► T' ─┘

    `attentions`: per layer (text to audio `[b, h, t, f]`, audio to text `[b, h, f, t]`), querying stream
        first.
    """

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__()
        self.text_layers = nn.ModuleList(CrossAttentionLayer(config) for _ in range(config.fusion_layers))
        self.audio_layers = nn.ModuleList(CrossAttentionLayer(config) for _ in range(config.fusion_layers))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, audio: Tensor, audio_mask: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        """Fuse both streams; see the module's docstring for shapes."""
        attentions = []
        for text_layer, audio_layer in zip(self.text_layers, self.audio_layers, strict=True):
            enriched_text, text_to_audio = text_layer(text, audio, audio_mask)
            audio, audio_to_text = audio_layer(audio, text, text_mask)
            text = enriched_text
            attentions.append((text_to_audio, audio_to_text))
        memory = self.norm(torch.cat([audio, text], dim=1))
        return memory, torch.cat([audio_mask, text_mask], dim=1), tuple(attentions)


class OneStream(nn.Module):
    """What the controls share: feed-forward layers over one stream, so that depth matches the fusions'."""

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FeedForward(config) for _ in range(config.fusion_layers))
        self.norm = nn.LayerNorm(config.hidden_size)

    def refine(self, stream: Tensor) -> Tensor:
        """Feed-forward layers with residuals, `[b, n, d] -> [b, n, d]`."""
        for layer in self.layers:
            stream = stream + layer(stream)
        return self.norm(stream)


class TextOnly(OneStream):
    """The transcript alone: memory = T. The control row of every ablation; audio changes nothing."""

    def forward(
        self, audio: Tensor | None, audio_mask: Tensor | None, text: Tensor, text_mask: Tensor
    ) -> Fused:
        """Refine the transcript's states."""
        return self.refine(text), text_mask, ()


class AudioOnly(OneStream):
    """The audio alone: memory = A. The control row of every ablation; the transcript changes nothing."""

    def forward(
        self, audio: Tensor, audio_mask: Tensor, text: Tensor | None, text_mask: Tensor | None
    ) -> Fused:
        """Refine the audio's states."""
        return self.refine(audio), audio_mask, ()


FUSION_CLASSES: dict[str, type[nn.Module]] = {
    "cross_attention": CrossAttentionFusion,
    "text_only": TextOnly,
    "audio_only": AudioOnly,
}


class MeanPooling(nn.Module):
    """Mean of the real memory positions, `[b, m, d] -> [b, d]`."""

    widths = 1

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__()

    def forward(self, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """Average over the positions whose mask is 1."""
        weights = memory_mask.to(memory.dtype)[:, :, None]
        return (memory * weights).sum(1) / weights.sum(1).clamp(min=1)


class StatisticsPooling(MeanPooling):
    """Mean and deviation of the real positions, `[b, m, d] -> [b, 2d]` (x-vectors, Snyder et al. 2018)."""

    widths = 2

    def forward(self, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """Concatenate mean and deviation."""
        mean = super().forward(memory, memory_mask)
        variance = super().forward((memory - mean[:, None]).square(), memory_mask)
        return torch.cat([mean, (variance + 1e-6).sqrt()], dim=-1)


class AttentionPooling(nn.Module):
    """A learned query attends to the memory, `[b, m, d] -> [b, d]` (Lee et al. 2019, arXiv 1810.00825)."""

    widths = 1

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.attention = Attention(config)

    def forward(self, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """Attend from the learned query to the positions whose mask is 1."""
        pooled, _ = self.attention(self.query.expand(len(memory), -1, -1), memory, memory_mask)
        return pooled[:, 0]


POOLING_CLASSES: dict[str, type[MeanPooling | AttentionPooling]] = {
    "mean": MeanPooling,
    "attention": AttentionPooling,
    "statistics": StatisticsPooling,
}
