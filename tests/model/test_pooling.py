"""Fusions: what every one of them keeps to, and parity with the papers' formulas, written out plainly."""

import torch
from torch.testing import assert_close

from mmsr.model.configuration import MmsrConfig
from mmsr.model.pooling import POOLING_CLASSES

AUDIO_MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def config(fusion: str = "cross_attention", attention: str = "eager", **overrides: object) -> MmsrConfig:
    made = MmsrConfig.from_preset("tiny", fusion=fusion, **overrides)
    made._attn_implementation = attention
    return made


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
