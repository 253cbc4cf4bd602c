"""Implementations of attention that give the same numbers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoConfig, PreTrainedModel, modeling_flash_attention_utils
from transformers.utils import logging

from mmsr.model.fusion import FUSION_CLASSES
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
