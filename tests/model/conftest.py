"""Tiny models with lively weights, and a batch whose rows differ in length and in what they have."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmsr.model.configuration import MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor

TEXTS = [
    "the doctor was very kind to me",
    "nobody listened and I am angry",
    "the appointment is on Tuesday",
    "bác sĩ rất tận tâm với tôi",
    "医生对我很好，谢谢",
    "kind words in an upset voice",
]


def enliven(module: nn.Module) -> None:
    """Weights of unit gain: as they are initialised (std .02), a tiny model hardly reacts to its input."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_normal_(parameter)
        else:
            nn.init.normal_(parameter, mean=float(parameter.detach().mean().round()), std=0.1)


@pytest.fixture
def make_model() -> Callable[..., MmsrForSentimentReasoning]:
    """`make_model(attention="eager", **config)`: the same weights for the same config, in eval mode."""

    def make(attention: str = "sdpa", **overrides: Any) -> MmsrForSentimentReasoning:
        torch.manual_seed(3)
        model = MmsrForSentimentReasoning(MmsrConfig.from_preset("tiny", **overrides))
        enliven(model)
        model.set_attn_implementation(attention)
        return model.eval()

    return make


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Three whole utterances, `input_ids [3, 7]` and `input_values [3, 4000]`; tokens 0 to 7 are special."""
    generator = torch.Generator().manual_seed(5)
    return {
        "input_ids": torch.randint(8, 256, (3, 7), generator=generator),
        "attention_mask": torch.ones(3, 7, dtype=torch.long),
        "input_values": torch.randn(3, 4000, generator=generator) * 0.3,
        "input_values_mask": torch.ones(3, 4000, dtype=torch.long),
    }


@pytest.fixture
def ragged(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with rows of different length; row 1 has no audio and row 2 no transcript."""
    batch["attention_mask"][0, 5:] = 0
    batch["attention_mask"][2] = 0
    batch["input_values_mask"][2, 2500:] = 0
    batch["input_values_mask"][1] = 0
    return batch


@pytest.fixture
def labels() -> Tensor:
    """Rationale targets `[3, 6]`: label token, rationale, end, then -100."""
    generator = torch.Generator().manual_seed(6)
    labels = torch.randint(8, 256, (3, 6), generator=generator)
    labels[:, 0] = torch.tensor([5, 6, 7])
    labels[0, 5] = labels[1, 3] = labels[2, 4] = 2
    labels[1, 4:] = labels[2, 5:] = -100
    return labels


@pytest.fixture(scope="session")
def trained_processor() -> MmsrProcessor:
    return MmsrProcessor.train(TEXTS * 3, vocab_size=340, max_text_tokens=200)


@pytest.fixture
def processor(trained_processor: MmsrProcessor) -> MmsrProcessor:
    """A processor whose settings a test may change."""
    return MmsrProcessor(trained_processor.feature_extractor, trained_processor.tokenizer)


@pytest.fixture
def waveforms() -> list[np.ndarray]:
    """Three utterances of .25, .2 and .3 s, 16 kHz."""
    generator = np.random.default_rng(0)
    return [(generator.standard_normal(n) * 0.1).astype(np.float32) for n in (4000, 3200, 4800)]
