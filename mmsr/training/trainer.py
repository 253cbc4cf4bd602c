"""transformers' Trainer for `MmsrForSentimentReasoning`: one loss, however its batches are accumulated.

`mmsr fit` trains by Lightning. In a program of one's own, transformers' plain `Trainer` averages the means of
the accumulated batches, which is right where these have equally many targets; `MmsrTrainer` always is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from mmsr.model.layers import balance_experts
from mmsr.training.losses import LossMean

_LOSSES = ("sentiment_loss", "rationale_loss")


class BalanceExperts(TrainerCallback):
    """Balances the loads of a mixture of experts, once for each step of the optimiser.

    `MmsrTrainer` has it; give it to a plain Trainer by `callbacks=[BalanceExperts()]`.
    """

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the gates' biases."""
        balance_experts(kwargs["model"])


class MmsrTrainer(Trainer):
    """transformers' Trainer, whose losses are means over targets: of an optimiser step, or of an evaluation.

    The Trainer counts one kind of targets (`num_items_in_batch`), and this loss has two, labelled rows and
    tokens of rationales. Here both are counted, over the accumulated batches of all processes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # the Trainer then leaves the loss as it is
        self._evaluated = LossMean(len(_LOSSES))
        self.add_callback(BalanceExperts)

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate; the loss is a mean over the targets of all batches and processes."""
        self._evaluated = LossMean(len(_LOSSES)).to(self.args.device)
        output = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
        )
        if output.metrics and f"{metric_key_prefix}_loss" in output.metrics:
            output.metrics[f"{metric_key_prefix}_loss"] = float(self._evaluated.compute())
        return output

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
        if not model.training and loss is not None:
            self._count(outputs, self._target_weights(inputs))
        if isinstance(num_items_in_batch, Tensor) and num_items_in_batch.ndim:
            weights = self._target_weights(inputs).to(num_items_in_batch.device)
            shares = torch.where(num_items_in_batch > 0, weights / num_items_in_batch, 0.0)
            loss = sum(
                factor * share * outputs[name]
                for name, factor, share in zip(_LOSSES, self._factors, shares, strict=True)
                if name in outputs
            )
            loss = loss * self.args.world_size  # whose gradients are averaged
        return (loss, outputs) if return_outputs else loss

    def _count(self, outputs: Mapping[str, Any], weights: Tensor) -> None:
        """Add the losses of a batch to the means of the evaluation."""
        zero = torch.zeros(())
        means = [
            factor * found if (found := outputs.get(name)) is not None else zero.to(outputs["loss"].device)
            for name, factor in zip(_LOSSES, self._factors, strict=True)
        ]
        self._evaluated.update(torch.stack(means), weights)

    @property
    def _factors(self) -> tuple[float, float]:
        """The factor of each loss in the whole one."""
        return (1.0, self._unwrapped.config.rationale_loss_weight)

    @property
    def _unwrapped(self) -> Any:
        return self.accelerator.unwrap_model(self.model)

    def _target_weights(self, batch: dict[str, Any]) -> Tensor:
        """Weights of the targets of both losses `[2]`."""
        given = {name: batch[name] for name in ("sentiment_labels", "labels") if batch.get(name) is not None}
        return torch.stack([weight.cpu() for weight in self._unwrapped.target_weights(**given).values()])
