from typing import Any

import pytest
import torch
from transformers import AutoConfig

from mmsr.model.configuration import MmsrConfig
from mmsr.model.decoders import build_decoder, cross_attention_width


def joint_config(model_type: str, **decoder: Any) -> MmsrConfig:
    return MmsrConfig.from_preset("tiny", decoder=AutoConfig.for_model(model_type, vocab_size=256, **decoder))


GPT2 = {"n_embd": 24, "n_layer": 1, "n_head": 2, "n_positions": 32, "add_cross_attention": True}
BERT = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 37,
    "max_position_embeddings": 32,
    "is_decoder": True,
    "add_cross_attention": True,
}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "config",
    [MmsrConfig.from_preset("tiny"), joint_config("gpt2", **GPT2), joint_config("bert", **BERT)],
    ids=["mbart", "gpt2", "bert"],
)
@torch.no_grad()
def test_a_decoder_reads_the_memory_and_not_the_future(config: MmsrConfig, attention: str):
    decoder = build_decoder(config)
    assert decoder is not None
    decoder.set_attn_implementation(attention)
    decoder.eval()
    width = cross_attention_width(decoder)
    assert width == decoder.config.hidden_size
    for parameter in decoder.parameters():
        if parameter.ndim > 1:
            torch.nn.init.xavier_normal_(parameter)
    ids, memory = torch.randint(8, 256, (2, 6)), torch.randn(2, 5, width)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])

    def logits(ids: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        return decoder(input_ids=ids, encoder_hidden_states=memory, encoder_attention_mask=mask).logits

    before = logits(ids, memory)
    changed = ids.clone()
    changed[:, 3] = (ids[:, 3] + 50) % 240 + 8
    moved = (logits(changed, memory) - before).abs().amax(-1)
    assert moved[:, :3].max() < 1e-5 and (moved[:, 3:] > 1e-4).all()
    other = torch.where(mask[:, :, None] == 1, memory, torch.randn(2, 5, width))
    assert (logits(ids, other) - before).abs().max() < 1e-5
    assert ((logits(ids, memory + 1.0) - before).abs().amax(-1) > 1e-4).all()


def test_no_decoder_for_a_label_only():
    assert build_decoder(MmsrConfig.from_preset("tiny", rationale_format="none")) is None


def test_a_missing_decoder_config_is_asked_for():
    config = MmsrConfig.from_preset("tiny")
    config.decoder = None
    with pytest.raises(
        ValueError, match="decoder_type='cross_attention': decoder is needed but None; accepted"
    ):
        build_decoder(config)


def test_a_decoder_without_cross_attention_raises():
    llama = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with pytest.raises(
        ValueError, match="model_type='llama', which has no cross-attention; accepted: .* gpt2"
    ):
        build_decoder(joint_config("llama", **llama))
