"""transformers' Trainer for `MmsrForSentimentReasoning`: one loss, however its batches are accumulated.

`mmsr fit` trains by Lightning. In a program of one's own, transformers' plain `Trainer` averages the means of
the accumulated batches, which is right where these have equally many targets; `MmsrTrainer` always is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer


class MmsrTrainer(Trainer):
    """transformers' Trainer, whose training loss is a mean over the targets of an optimiser step.

    The Trainer counts one kind of targets (`num_items_in_batch`), and this loss has two, labelled rows and
    tokens of rationales. Here both are counted, over the accumulated batches of all processes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # the Trainer then leaves the loss as it is

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The batches of an optimiser step, and the weights of their targets `[2]`."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        weights = torch.stack([self._target_weights(batch) for batch in batches]).sum(0).to(device)
        if self.args.world_size > 1:
            weights = self.accelerator.gather(weights[None]).sum(0)
        return batches, weights

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The batch's part of the loss of its step; in evaluation the loss of the batch alone."""
        outputs = model(**inputs)
        loss = outputs["loss"]
        if isinstance(num_items_in_batch, Tensor) and num_items_in_batch.ndim:
            weights = self._target_weights(inputs).to(num_items_in_batch.device)
            shares = torch.where(num_items_in_batch > 0, weights / num_items_in_batch, 0.0)
            factors = (1.0, self._unwrapped.config.rationale_loss_weight)
            names = ("sentiment_loss", "rationale_loss")
            loss = sum(
                factor * share * outputs[name]
                for name, factor, share in zip(names, factors, shares, strict=True)
                if name in outputs
            )
            loss = loss * self.args.world_size  # whose gradients are averaged
        return (loss, outputs) if return_outputs else loss

    @property
    def _unwrapped(self) -> Any:
        return self.accelerator.unwrap_model(self.model)

    def _target_weights(self, batch: dict[str, Any]) -> Tensor:
        """Weights of the targets of both losses `[2]`."""
        given = {name: batch[name] for name in ("sentiment_labels", "labels") if batch.get(name) is not None}
        return torch.stack([weight.cpu() for weight in self._unwrapped.target_weights(**given).values()])
