"""Pooling, the memory `[b, m, d]` as one vector `[b, p]`, and the classification head on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from mmsr.model.layers import Attention, FusionConfig


class HeadConfig(FusionConfig, Protocol):
    """The settings of a head, as of `MmsrConfig`."""

    pooling: str

    @property
    def labels(self) -> Sequence[str]:
        """Names of the labels."""


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean of the real positions, `[b, n, d]` with mask `[b, n]` -> `[b, d]`; zero where there is none."""
    weights = mask.to(states.dtype)[:, :, None]
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)


class MeanPooling(nn.Module):
    """Mean of the real memory positions, `[b, m, d] -> [b, d]`."""

    widths = 1

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()

    def forward(self, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """Average."""
        return masked_mean(memory, memory_mask)


class StatisticsPooling(MeanPooling):
    """Mean and deviation of the real positions, `[b, m, d] -> [b, 2 d]` (x-vectors, Snyder et al. 2018)."""

    widths = 2

    def forward(self, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """Pool."""
        mean = super().forward(memory, memory_mask)
        variance = super().forward((memory - mean[:, None]).square(), memory_mask)
        return torch.cat([mean, (variance + 1e-6).sqrt()], dim=-1)


class AttentionPooling(nn.Module):
    """A learned query attends to the memory, `[b, m, d] -> [b, d]` (Lee et al. 2019, arXiv 1810.00825)."""

    widths = 1

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.attention = Attention(config)

    def forward(self, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """Attend."""
        pooled, _ = self.attention(self.query.expand(len(memory), -1, -1), memory, memory_mask)
        return pooled[:, 0]


POOLING_CLASSES: dict[str, type[MeanPooling | AttentionPooling]] = {
    "mean": MeanPooling,
    "attention": AttentionPooling,
    "statistics": StatisticsPooling,
}


class SentimentHead(nn.Module):
    """Pooling and a two-layer classifier: memory `[b, m, d]` -> logits `[b, c]`.

    Args:
        config: The model's.
        classes: Number c of classes; by default that of the labels.
    """

    def __init__(self, config: HeadConfig, classes: int | None = None) -> None:
        super().__init__()
        pooling = POOLING_CLASSES[config.pooling]
        self.pooling = pooling(config)
        self.dense = nn.Linear(config.hidden_size * pooling.widths, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, classes or len(config.labels))

    def forward(self, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """Classify the memory."""
        pooled = self.dropout(self.pooling(memory, memory_mask))
        return self.classifier(self.dropout(torch.tanh(self.dense(pooled))))
