"""Losses that are means over targets, whatever the batches.

    batches of an optimiser step ─► Window: weights of their targets, over all of them and all processes
    batch ─► terms: means over its own targets ─► times its share of the targets ─► loss of the batch
    batches of an epoch ─► LossMean ─► mean over the epoch's targets, logged

A loss has terms that are means over different targets: labelled rows, weighted by class, and tokens of
rationales. A step's loss is the sum of the terms' means over all its targets. So each batch's mean enters
with the batch's share of the targets, and the shares of a step's batches add up to 1. One batch in one
process has the share 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torchmetrics import Metric

Targets = dict[str, Tensor]
"""Weight of the known targets of each term, a number or a vector, by the term's name."""


class Term(NamedTuple):
    """A term of the loss of a batch.

    Attributes:
        mean: Over its targets in the batch, as it is logged; several means of a term are a vector.
        weighted: As it enters the loss.
    """

    mean: Tensor
    weighted: Tensor


class NonFiniteLossError(ValueError):
    """The loss of a batch is NaN or infinite; the message names the batch and likely causes."""


class LossMean(Metric):
    """Mean of a loss over its targets, from means over batches; a sum of such means for a loss of terms.

    A term without targets counts 0.

    Args:
        terms: Number of terms.
    """

    sums: Tensor
    weights: Tensor
    full_state_update = False

    def __init__(self, terms: int = 1) -> None:
        super().__init__()
        # sums of many tokens; MPS has no float64
        dtype = torch.float32 if torch.backends.mps.is_available() else torch.float64
        for name in ("sums", "weights"):
            self.add_state(name, torch.zeros(terms, dtype=dtype), dist_reduce_fx="sum")

    def update(self, means: Tensor, targets: Tensor) -> None:
        """Add a batch: the mean of each term `[terms]`, and the weights of the targets `[terms]`."""
        means, targets = means.detach().to(self.sums), targets.to(self.weights)
        self.sums += torch.where(targets > 0, means * targets, 0.0)
        self.weights += targets

    def compute(self) -> Tensor:
        """The mean, or the sum of the terms' means."""
        return torch.where(self.weights > 0, self.sums / self.weights, 0.0).sum().float()


class Window:
    """The batches of an optimiser step, whose targets are counted before the first backward pass.

    Args:
        outlines: `outline` of each batch, after modality dropout.
        count: Weights of a batch's targets.
        scale: What the trainer divides by: the number of its processes times that of accumulated batches.
        reduce: Sums a tensor over processes.
    """

    def __init__(
        self,
        outlines: Sequence[Mapping[str, Tensor]],
        *,
        count: Callable[[Mapping[str, Tensor]], Targets],
        scale: int = 1,
        reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._batches = [(outlined, count(outlined)) for outlined in outlines]
        self._scale = scale
        names = self._batches[0][1].keys()
        totals = {name: torch.stack([targets[name] for _, targets in self._batches]).sum(0) for name in names}
        if reduce is not None:
            sizes = {name: total.numel() for name, total in totals.items()}
            summed = reduce(torch.cat([total.flatten() for total in totals.values()]))
            parts = summed.split(list(sizes.values()))
            totals = {name: part.reshape(totals[name].shape) for name, part in zip(names, parts, strict=True)}
        self._totals = totals

    def state(self) -> dict[str, Any]:
        """The batches that are left, as plain values and tensors."""
        return {"batches": list(self._batches), "totals": self._totals, "scale": self._scale}

    @classmethod
    def of_state(cls, state: Mapping[str, Any], device: torch.device) -> Window:
        """The window of a `state`."""
        window = cls.__new__(cls)
        window._batches, window._totals = move_data_to_device((state["batches"], state["totals"]), device)
        window._scale = state["scale"]
        return window

    def __bool__(self) -> bool:
        """Whether a batch is left."""
        return bool(self._batches)

    def next(self) -> tuple[Mapping[str, Tensor], Targets, Targets]:
        """The next batch: its outline, the weights of its targets, and their shares of the step's.

        The shares are multiplied by `scale`, so that the trainer's mean over batches and processes is a sum.
        """
        outlined, targets = self._batches.pop(0)
        shares = {
            name: torch.where(total > 0, targets[name] / total, 0.0) * self._scale
            for name, total in self._totals.items()
        }
        return outlined, targets, shares
