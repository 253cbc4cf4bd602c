"""Means over targets, from means over batches."""

import pytest
import torch

from mmsr.training.losses import LossMean, Window


def test_a_mean_is_over_targets_and_not_over_batches():
    values, sizes = torch.randn(17), [1, 9, 0, 7]
    mean = LossMean()
    for part in values.split(sizes):
        mean.update(part.mean() if len(part) else torch.tensor(0.0), torch.tensor(float(len(part))))
    assert float(mean.compute()) == pytest.approx(float(values.mean()))
    without = LossMean()
    without.update(torch.tensor(0.0), torch.tensor(0.0))
    assert without.compute() == 0.0


def test_terms_have_means_over_targets_of_their_own():
    mean = LossMean(2)
    mean.update(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 1.0]))
    mean.update(torch.tensor([2.0, torch.nan]), torch.tensor([1.0, 0.0]))
    assert float(mean.compute()) == pytest.approx((3 + 2) / 4 + 5)


def outlines(*sizes: float) -> list[dict[str, torch.Tensor]]:
    return [{"size": torch.tensor(size)} for size in sizes]


def count(outlined):
    return {"loss": outlined["size"], "others": torch.stack([outlined["size"], torch.zeros(())])}


def test_shares_of_a_step_add_up_to_what_the_trainer_divides_by():
    window = Window(outlines(2.0, 0.0, 6.0), count=count, scale=3)
    shares = []
    while window:
        shares.append(window.next()[2])
    assert [float(share["loss"]) for share in shares] == [0.75, 0.0, 2.25]
    assert torch.stack([share["others"] for share in shares]).sum(0).tolist() == [3.0, 0.0]


def test_shares_are_of_the_targets_of_all_processes():
    window = Window(outlines(2.0), count=count, scale=2, reduce=lambda totals: totals * 4)
    _, targets, shares = window.next()
    assert (float(targets["loss"]), float(shares["loss"])) == (2.0, 0.5)


def test_a_step_of_one_batch_has_the_share_one_exactly():
    for size in (1.0, 0.1, 7e-30, 3e10):
        assert Window(outlines(size), count=count).next()[2]["loss"] == 1.0
