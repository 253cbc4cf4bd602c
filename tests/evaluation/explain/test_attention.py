"""Implementations of attention that give the same numbers, and where a fusion looks."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, modeling_flash_attention_utils
from transformers.utils import logging

from mmsr.evaluation.explain.attention import (
    LOOKING_FUSIONS,
    eager_attention,
    fusion_attention,
    last_layer,
    looks,
)
from mmsr.model.configuration import FUSIONS, MmsrConfig
from mmsr.model.fusion import FUSION_CLASSES, Fused
from mmsr.model.layers import CrossAttentionLayer
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor

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
GEMMA = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 12,
    "intermediate_size": 37,
}

# ---------------------------------------------------------------------- FlashAttention


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
@pytest.mark.parametrize("fusion", FUSIONS)
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


# ---------------------------------------------------------------------- where a fusion looks


def prefix(decoder: PreTrainedConfig) -> MmsrConfig:
    return MmsrConfig.from_preset("tiny", decoder_type="prefix", decoder=decoder)


def implementations(model: nn.Module) -> list[str | None]:
    return [part.config._attn_implementation for part in model.modules() if isinstance(part, PreTrainedModel)]


def test_every_part_has_its_own_attention_back(make_model: MakeModel, batch: dict[str, Tensor]):
    """Also where they differ, and where a decoder knows eager attention alone (Gemma 2)."""
    mixed = make_model()
    mixed.set_attn_implementation({"": "sdpa", "decoder": "eager"})
    gemma = AutoConfig.for_model("gemma2", vocab_size=256, **GEMMA)
    for model in (mixed, MmsrForSentimentReasoning(prefix(gemma))):
        before = implementations(model)
        assert len(set(before)) == 2
        with eager_attention(model):
            assert model.config._attn_implementation == "eager"
        assert implementations(model) == before
        assert last_layer(model, batch)[0].shape[:2] == (3, 4)
        assert implementations(model) == before


class Asking(nn.Module):
    """A fusion of a user's: the audio asks the text, and the text itself."""

    attention_map = ((("audio",), ("text",)), (("text",), ("text",)))

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__()
        self.ask, self.think = CrossAttentionLayer(config), CrossAttentionLayer(config)

    def forward(self, audio: Tensor, audio_mask: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        heard, asked = self.ask(audio, text, text_mask)
        read, thought = self.think(text, text, text_mask)
        return torch.cat([heard, read], 1), torch.cat([audio_mask, text_mask], 1), ((asked, thought),)


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setitem(FUSION_CLASSES, "asking", Asking)
    yield "asking"


def test_a_new_fusion_that_attends_is_looked_at(
    asking: str, make_model: MakeModel, processor: MmsrProcessor, waveforms: list[np.ndarray]
):
    model = make_model(fusion=asking, **{"vocab_size": len(processor.tokenizer), **processor.config_kwargs()})
    text = "the doctor was kind"
    seen = fusion_attention(model, processor, audio=waveforms[0], text=text)
    assert seen["audio"] is None
    inputs = processor(text=[text], audio=[waveforms[0]], return_tensors="pt")
    asked, thought = (weights[0].mean(0) for weights in last_layer(model, inputs))
    spoken = [position for _, positions in processor.word_tokens(text) for position in positions]
    over = asked.mean(0) + thought[spoken].mean(0)
    expected = torch.stack([over[positions].sum() for _, positions in processor.word_tokens(text)])
    assert_close(torch.tensor([word["weight"] for word in seen["words"]]), expected / expected.sum())


def test_who_looks_says_at_what():
    assert LOOKING_FUSIONS == ("cross_attention", "audio_to_text", "text_to_audio", "merged", "bottleneck")
    assert all(bool(looks(fusion)) == (fusion in LOOKING_FUSIONS) for fusion in FUSIONS)
