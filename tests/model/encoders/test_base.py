import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmsr.model.encoders.base import AudioEncoder, LayerMix, to_front
from mmsr.model.modeling import MmsrForSentimentReasoning


def ones(values: Tensor) -> Tensor:
    return torch.ones_like(values).long()


@torch.no_grad()
def test_last_layer_or_all(make_config: Callable[..., Any], make_encoder: Callable[..., AudioEncoder]):
    values = torch.randn(1, 4000)
    last, mixed = (
        make_encoder(make_config("wav2vec2"), audio_layer_mix=mix)(values, ones(values)).states
        for mix in (False, True)
    )
    assert last.shape == (1, 12, 1, 32) and mixed.shape == (1, 12, 3, 32)
    assert torch.equal(last[:, :, 0], mixed[:, :, -1])


def test_layer_mix_is_a_softmax_weighted_sum_of_normed_layers():
    states = torch.randn(2, 5, 3, 8)
    mix = LayerMix(3)
    with torch.no_grad():
        mix.weights.copy_(torch.tensor([0.3, -1.0, 2.0]))
    shares = torch.tensor([0.3, -1.0, 2.0]).exp()
    centred = states - states.mean(-1, keepdim=True)
    normed = centred / (states.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = sum(share * normed[:, :, i] for i, share in enumerate(shares / shares.sum()))
    assert_close(mix(states), expected)
    assert torch.equal(LayerMix(1)(states[:, :, :1]), states[:, :, 0])


def test_padding_moves_behind_and_becomes_zero():
    values = torch.tensor([[torch.nan, 7.0, 8.0], [1.0, torch.nan, torch.inf], [4.0, 5.0, 6.0]])
    mask = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0]])
    moved, moved_mask = to_front(values, mask)
    assert moved.tolist() == [[7.0, 8.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert moved_mask.tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 0]]
    wide, wide_mask = to_front(values[:, :, None].expand(-1, -1, 2), mask)
    assert torch.equal(wide, moved[:, :, None].expand(-1, -1, 2)) and torch.equal(wide_mask, moved_mask)


@pytest.mark.parametrize("width", [(), (2,)])
def test_padding_that_stands_behind_is_only_set_to_zero(width: tuple[int, ...], monkeypatch):
    values = torch.randn(4, 6, *width)
    mask = torch.tensor([[1] * 6, [1, 1, 0, 0, 0, 0], [0] * 6, [1, 0, 1, 0, 0, 0]])
    expected = values.masked_fill(mask.reshape(4, 6, *[1] * len(width)) == 0, 0)
    found = to_front(values.masked_fill(expected == 0, torch.nan), mask)
    assert torch.equal(found[0], expected) and torch.equal(found[1], mask)
    monkeypatch.setattr("mmsr.model.encoders.base.in_graph", lambda: True)  # as an exported graph has it
    assert torch.equal(to_front(values, mask)[0], found[0])


@pytest.mark.parametrize(
    ("values", "mask", "given", "accepted"),
    [
        ("input_ids", "attention_mask", "[3, 7]", "[3, 7]"),
        ("inputs_embeds", "attention_mask", "[3, 7, 32]", "[3, 7]"),
        ("input_values", "input_values_mask", "[3, 4000]", "[3, 4000]"),
    ],
)
def test_a_mask_of_another_length_is_refused(
    make_model: Callable[..., MmsrForSentimentReasoning],
    batch: dict[str, Tensor],
    values: str,
    mask: str,
    given: str,
    accepted: str,
):
    """A shorter one cut what it masks off without a word."""
    if values == "inputs_embeds":
        batch["inputs_embeds"] = torch.randn(*batch.pop("input_ids").shape, 32)
    batch[mask] = batch[mask][:, :4]
    message = f"{mask} has shape [3, 4], and {values} {given}; accepted: a mask of shape {accepted}"
    with pytest.raises(ValueError, match=re.escape(message)):
        make_model(rationale_format="none")(**batch)
