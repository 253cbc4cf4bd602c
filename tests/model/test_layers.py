"""Implementations of attention that give the same numbers; a gate that balances its experts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import AutoConfig, PreTrainedModel, modeling_flash_attention_utils
from transformers.utils import logging

from mmsr.model.configuration import MmsrConfig
from mmsr.model.fusion import FUSION_CLASSES
from mmsr.model.layers import Experts, FeedForward, Gate, balance_experts
from mmsr.model.modeling import MmsrForSentimentReasoning

MakeModel = Callable[..., MmsrForSentimentReasoning]
CROSS_ATTENTION: dict[str, dict[str, Any]] = {
    "bart": {
        "d_model": 24,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 37,
        "decoder_ffn_dim": 37,
        "max_position_embeddings": 64,
    },
    "gpt2": {"n_embd": 24, "n_layer": 1, "n_head": 2, "n_positions": 64, "add_cross_attention": True},
}


def plain(query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool) -> Tensor:
    """One row `[n, h, c]`; causal attention is aligned at the end, as FlashAttention's."""
    scores = torch.einsum("qhc,khc->hqk", query, key) * scale
    if causal:
        queries, keys = scores.shape[1:]
        scores = scores.masked_fill(torch.ones(queries, keys).triu(keys - queries + 1).bool(), -torch.inf)
    return torch.einsum("hqk,khc->qhc", scores.softmax(-1), value)


def flash(query: Tensor, key: Tensor, value: Tensor, softmax_scale: float, causal: bool, **_: Any) -> Tensor:
    rows = zip(query, key, value, strict=True)
    return torch.stack([plain(*row, softmax_scale, causal) for row in rows])


def flash_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    softmax_scale: float,
    causal: bool,
    **_: Any,
) -> Tensor:
    queries, keys = cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist()
    rows = zip(query.split(queries), key.split(keys), value.split(keys), strict=True)
    return torch.cat([plain(*row, softmax_scale, causal) for row in rows])


def flash_settings(
    query_length: int, key_length: int, is_causal: bool, softmax_scale: float, **_: Any
) -> dict[str, Any]:
    return {"softmax_scale": softmax_scale, "causal": is_causal and query_length > 1}


@pytest.fixture
def flash_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels of flash-attn by plain torch; padding is transformers' own affair."""
    utils: Any = modeling_flash_attention_utils
    functions = (flash, flash_varlen, None, utils._pad_input, utils._unpad_input)

    def settings(**given: Any) -> dict[str, Any]:
        lengths = {name: given.pop(name, None) for name in ("max_seqlen_q", "max_seqlen_k")}
        return {**flash_settings(**given), **lengths}

    monkeypatch.setattr(
        utils, "lazy_import_flash_attention", lambda *_, **__: (functions, (settings, settings))
    )


def with_flash(model: MmsrForSentimentReasoning) -> MmsrForSentimentReasoning:
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.config._attn_implementation_internal = "flash_attention_2"
    return model


@pytest.mark.parametrize("decoder", ["cross_attention", "prefix"])
@pytest.mark.parametrize("fusion", tuple(FUSION_CLASSES))
@torch.no_grad()
def test_flash_attention_gives_the_same_numbers(
    make_model: MakeModel,
    flash_on_cpu: None,
    ragged: dict[str, Tensor],
    labels: Tensor,
    fusion: str,
    decoder: str,
):
    """Rows of different length, whose queries and keys transformers would mask alike."""
    settings = {"fusion": fusion, "decoder_type": decoder, "pooling": "attention"}
    given = {**ragged, "labels": labels}
    expected = make_model(**settings)(**given)
    output = with_flash(make_model(**settings))(**given)
    assert_close(output.sentiment_logits, expected.sentiment_logits, atol=2e-5, rtol=1e-4)
    real = labels >= 0
    assert_close(output.logits[real], expected.logits[real], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("model_type", ["bart", "gpt2"])
@torch.no_grad()
def test_a_cross_attention_decoder_keeps_sdpa(
    make_model: MakeModel,
    flash_on_cpu: None,
    ragged: dict[str, Tensor],
    labels: Tensor,
    caplog: pytest.LogCaptureFixture,
    model_type: str,
):
    decoder = AutoConfig.for_model(model_type, vocab_size=256, **CROSS_ATTENTION[model_type])
    model = make_model(decoder=decoder)
    given = {**ragged, "labels": labels}
    expected = model(**given)
    written = model.generate(**ragged, max_new_tokens=5, num_beams=2, do_sample=False)
    logging.get_logger("transformers").warning_once.cache_clear()
    logging.enable_propagation()
    with_flash(model)
    with caplog.at_level("WARNING"):
        assert_close(model(**given).logits, expected.logits, atol=2e-5, rtol=1e-4)
    assert caplog.text.count("computes attention by sdpa, not flash_attention") == 1
    assert model.decoder.model.config._attn_implementation == "sdpa"
    assert model.config._attn_implementation == "flash_attention_2"
    assert torch.equal(model.generate(**ragged, max_new_tokens=5, num_beams=2, do_sample=False), written)


# ---------------------------------------------------------------------- experts


def gate(inputs: int = 8, **settings: Any) -> Gate:
    made = Gate(MmsrConfig.from_preset("tiny", fusion="mixture", **settings), inputs)
    nn.init.normal_(made.weight, std=0.3)
    return made


def test_the_bias_of_a_gate_chooses_and_does_not_weigh():
    module, rows = gate(), torch.randn(50, 8)
    plain = module(rows)
    scores = torch.sigmoid(nn.functional.layer_norm(rows, (8,)) @ module.weight.T)
    assert_close(plain[plain > 0], scores[plain > 0])
    assert torch.equal((plain > 0).sum(1), torch.full((50,), 2))
    assert (scores.masked_fill(plain == 0, 1).amin(1) >= scores.masked_fill(plain > 0, 0).amax(1)).all()
    module.choice_bias[3] = 9.0
    other = module(rows)
    assert (plain[:, 3] == 0).any() and (other[:, 3] > 0).all()
    assert_close(other[other > 0], scores[other > 0])


def test_training_counts_the_loads_and_a_step_moves_the_bias_against_them():
    """Over all batches since the last step; evaluation counts nothing."""
    module, model = gate(fusion_balance_rate=0.25).eval(), nn.ModuleList()
    model.append(module)
    module(torch.randn(5, 8))
    assert module.loads is None and balance_experts(model) is None and not module.choice_bias.any()
    module.train()
    chosen = sum((module(torch.randn(rows, 8)) > 0).sum(0) for rows in (3, 5, 9))
    assert torch.equal(module.loads, chosen.float()) and not module.choice_bias.any()
    overload = balance_experts(model)
    assert_close(module.choice_bias, 0.25 * (17 * 2 / 4 - chosen).sign())
    assert float(overload) == pytest.approx(float(chosen.max()) / (17 * 2 / 4) - 1)
    assert module.loads is None and balance_experts(model) is None
    assert_close(module.choice_bias, 0.25 * (17 * 2 / 4 - chosen).sign(), msg="nothing chosen, nothing moved")
    assert balance_experts(nn.Linear(2, 2)) is None


def test_the_loads_of_all_processes_count(monkeypatch: pytest.MonkeyPatch):
    """This one prefers the experts 0 and 1, the other one 2 and 3 more."""
    module = gate(fusion_balance_rate=1.0).train()
    module.loads = torch.tensor([5.0, 5.0, 0.0, 0.0])
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    other = torch.tensor([0.0, 0.0, 9.0, 5.0])
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda loads: loads.add_(other))
    assert torch.equal(module.balance(), torch.tensor([5.0, 5.0, 9.0, 5.0]))
    assert torch.equal(module.choice_bias, torch.tensor([1.0, 1.0, -1.0, 1.0]))
    module.balance()  # a process without a batch takes part in the sum
    assert torch.equal(module.choice_bias, torch.tensor([2.0, 2.0, -2.0, 0.0]))


@pytest.mark.parametrize("rate", [0.0, 0.01])
def test_uneven_loads_become_even(rate: float):
    """All rows are like each other, so that without a balance two experts get nearly all."""
    module, draw = gate(fusion_balance_rate=rate).train(), torch.Generator().manual_seed(0)
    centre = 2 * torch.randn(8, generator=draw)
    overloads = []
    for _ in range(300):
        module(centre + torch.randn(32, 8, generator=draw))
        overloads.append(float(balance_experts(module)))
    assert (sum(overloads[200:]) / 100 < 0.3) == (rate > 0)


def test_a_gate_is_in_full_precision_and_learns_with_one_expert_too():
    module, rows = gate(fusion_active_experts=1), torch.randn(7, 8)
    plain = module(rows)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(rows), plain)
    plain.sum().backward()
    assert module.weight.grad is not None and module.weight.grad.abs().max() > 0
    half = module.bfloat16()(rows.bfloat16())
    assert half.dtype == torch.float32 and half.shape == (7, 4)


def test_an_expert_that_is_not_chosen_has_a_gradient_of_zeros_and_no_effect():
    module = Experts(MmsrConfig.from_preset("tiny", fusion="mixture"), 5).eval()
    states = torch.randn(2, 3, 32)
    nn.init.normal_(module.down_proj.weight)
    weights = torch.tensor([[0.7, 0.0, 0.2, 0.0], [0.0, 0.0, 0.4, 0.9]])
    found = module(states, weights)
    found.square().sum().backward()
    assert module.up_proj.weight.grad is not None
    reached = module.up_proj.weight.grad.unflatten(0, (4, 5)).abs().amax((1, 2)) > 0
    assert reached.tolist() == [True, False, True, True]
    with torch.no_grad():
        module.up_proj.weight[5:10] = 99.0
    assert torch.equal(module(states, weights), found)


def test_a_position_passes_as_many_units_as_in_other_fusions():
    def units(module: nn.Module) -> dict[str, int]:
        return {
            name: part[1].out_features
            for name, part in module.named_modules()
            if isinstance(part, FeedForward)
        }

    config = MmsrConfig.from_preset("small", fusion="mixture", fusion_intermediate_size=510)
    (layer,) = FUSION_CLASSES["mixture"](config).layers
    assert units(layer) == {"audio_expert": 170, "text_expert": 170}
    assert layer.routed_experts.up_proj.out_features == 4 * 170
    config = MmsrConfig.from_preset("tiny", fusion="mixture", fusion_intermediate_size=2)
    assert set(units(FUSION_CLASSES["mixture"](config)).values()) == {1}
