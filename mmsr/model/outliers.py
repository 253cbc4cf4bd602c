"""Detection of inputs that the model does not know, such as noise, or a language it was not trained on.

    an encoder's states of one layer [b, n, d] ─► layer norm ─► mean, deviation [b, 2 d] ─► logit [b]

Masks: 1 = real. A detector is fitted after training, by `mmsr.training.outliers`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmsr.model.pooling import StatisticsPooling

MODALITIES = ("audio", "text")
"""Order of `outlier_logits [b, 2]`."""

OUTLIER_REASONS = {
    "audio": "no speech was heard",
    "text": "the text is in no language that the model knows",
}
"""What an outlier of each modality means, for people."""


class OutlierDetector(nn.Module):
    """Logistic regression on the statistics of one layer's states; it refuses nothing until it is fitted.

    Lower layers tell signals and languages apart best, and the mean over positions needs no labels of
    positions. Weights are buffers, so that training leaves them alone.

    Args:
        width: Width d of the states.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", torch.zeros(2 * width))
        self.register_buffer("bias", torch.zeros(1))

    @staticmethod
    def statistics(states: Tensor, mask: Tensor) -> Tensor:
        """Mean and deviation of layer-normed states, `[b, n, d]`, `[b, n]` -> `[b, 2 d]`, in float32."""
        states = nn.functional.layer_norm(states.float(), states.shape[-1:])
        return _pool(states, mask)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Logits `[b]` that a row is an outlier; -inf for a row without a real position."""
        logits = self.statistics(states, mask) @ self.weight.float() + self.bias.float()
        return logits.masked_fill(~mask.any(-1), -torch.inf)


_pool: Any = StatisticsPooling(None)  # type: ignore[arg-type]  # it has no weights


def outliers(logits: Tensor, thresholds: tuple[float, float]) -> Tensor:
    """Which inputs are outliers, `outlier_logits [b, 2]` -> bool `[b, 2]`, by a probability per modality."""
    return logits.sigmoid() > torch.tensor(thresholds, device=logits.device)
