import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmsr.model import fusion as fusion_module
from mmsr.model.configuration import FUSIONS, POOLINGS, MmsrConfig
from mmsr.model.fusion import FUSION_CLASSES, POOLING_CLASSES, Attention

AUDIO_MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
TEXT_MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


def config(fusion: str = "cross_attention", attention: str = "eager", **overrides: object) -> MmsrConfig:
    made = MmsrConfig.from_preset("tiny", fusion=fusion, **overrides)
    made._attn_implementation = attention
    return made


@pytest.fixture
def streams() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 5, 32), torch.randn(2, 3, 32)


def test_every_fusion_and_pooling_has_its_name():
    assert tuple(FUSION_CLASSES) == FUSIONS
    assert tuple(POOLING_CLASSES) == POOLINGS


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("layers", [1, 2])
def test_one_signature(streams: tuple[Tensor, Tensor], fusion: str, layers: int):
    """The memory is both streams, or the one that is used; its mask goes with it."""
    settings = config(fusion, fusion_layers=layers)
    audio, text = streams
    module = FUSION_CLASSES[fusion](settings).eval()
    memory, mask, attentions = module(
        audio if settings.uses_audio else None, AUDIO_MASK, text if settings.uses_text else None, TEXT_MASK
    )
    used = [AUDIO_MASK] * settings.uses_audio + [TEXT_MASK] * settings.uses_text
    assert torch.equal(mask, torch.cat(used, 1))
    assert memory.shape == (*mask.shape, 32)
    assert len(attentions) == (layers if fusion == "cross_attention" else 0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_masked_positions_change_nothing(streams: tuple[Tensor, Tensor], attention: str):
    module = FUSION_CLASSES["cross_attention"](config(attention=attention, fusion_layers=2)).eval()
    audio, text = streams
    memory, mask, _ = module(audio, AUDIO_MASK, text, TEXT_MASK)
    other_audio = torch.where(AUDIO_MASK[:, :, None] == 1, audio, torch.randn(2, 5, 32) * 9)
    other_text = torch.where(TEXT_MASK[:, :, None] == 1, text, torch.randn(2, 3, 32) * 9)
    other, _, _ = module(other_audio, AUDIO_MASK, other_text, TEXT_MASK)
    assert_close(other[mask == 1], memory[mask == 1])
    assert not torch.allclose(other[mask == 0], memory[mask == 0])


def test_cross_attention_looks_both_ways_at_what_stood_there_before(streams: tuple[Tensor, Tensor]):
    """Both directions read the streams as they entered the layer."""
    module = FUSION_CLASSES["cross_attention"](config()).eval()
    audio, text = streams
    memory, _, ((text_to_audio, audio_to_text),) = module(audio, AUDIO_MASK, text, TEXT_MASK)
    assert text_to_audio.shape == (2, 4, 3, 5) and audio_to_text.shape == (2, 4, 5, 3)
    assert text_to_audio[1, :, :, 3:].max() == 0 and audio_to_text[0, :, :, 2:].max() == 0
    new_text, _ = module.text_layers[0](text, audio, AUDIO_MASK)
    new_audio, _ = module.audio_layers[0](audio, text, TEXT_MASK)
    assert_close(memory, module.norm(torch.cat([new_audio, new_text], 1)))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_is_softmax_of_scaled_products(streams: tuple[Tensor, Tensor], attention: str):
    module = Attention(config(attention=attention)).eval()
    audio, text = streams
    attended, weights = module(text, audio, AUDIO_MASK)
    q, k, v = (
        layer(states).view(2, -1, 4, 8).transpose(1, 2)
        for layer, states in ((module.q_proj, text), (module.k_proj, audio), (module.v_proj, audio))
    )
    scores = (q @ k.transpose(2, 3) / 8**0.5).masked_fill(AUDIO_MASK[:, None, None] == 0, -torch.inf)
    expected = scores.softmax(-1)
    assert_close(attended, module.o_proj((expected @ v).transpose(1, 2).reshape(2, 3, 32)))
    if attention == "eager":
        assert_close(weights, expected)


def test_attention_weights_are_dropped_in_training_alone():
    query, key = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 5, 4)
    module = torch.nn.Module()
    _, dropped = fusion_module.eager_attention(module.train(), query, key, key, None, dropout=0.5)
    _, kept = fusion_module.eager_attention(module.eval(), query, key, key, None, dropout=0.5)
    assert (dropped == 0).any() and (kept > 0).all()


def test_mean_and_statistics_pooling_read_real_positions_alone():
    memory = torch.randn(2, 5, 32)
    mean, statistics = (POOLING_CLASSES[name](config()) for name in ("mean", "statistics"))
    pooled, both = mean(memory, AUDIO_MASK), statistics(memory, AUDIO_MASK)
    assert both.shape == (2, 64)
    for row, length in ((0, 5), (1, 3)):
        real = memory[row, :length]
        assert_close(pooled[row], real.mean(0))
        deviation = (real.var(0, unbiased=False) + 1e-6).sqrt()
        assert_close(both[row], torch.cat([real.mean(0), deviation]))


def test_statistics_pooling_of_one_position_has_a_finite_gradient():
    memory = torch.randn(1, 3, 32, requires_grad=True)
    POOLING_CLASSES["statistics"](config())(memory, torch.tensor([[1, 0, 0]])).sum().backward()
    assert memory.grad is not None and memory.grad.isfinite().all()


def test_attention_pooling_weighs_positions_by_a_learned_query():
    module = POOLING_CLASSES["attention"](config()).eval()
    torch.nn.init.normal_(module.query)
    memory = torch.randn(2, 5, 32)
    pooled = module(memory, AUDIO_MASK)
    attention = module.attention
    expected, _ = attention(module.query.expand(2, 1, 32), memory, AUDIO_MASK)
    assert_close(pooled, expected[:, 0])
    alone = module(memory[1:, :3], AUDIO_MASK[1:, :3])
    assert_close(pooled[1:], alone)
    torch.nn.init.normal_(module.query)
    assert not torch.allclose(module(memory, AUDIO_MASK), pooled)
