"""Which experts a mixture uses, by modality and label."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mmsr.evaluation.explain.experts import expert_use
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.records import Utterance

MakeModel = Callable[..., MmsrForSentimentReasoning]


@pytest.fixture
def model(make_model: MakeModel, processor: MmsrProcessor) -> MmsrForSentimentReasoning:
    made = make_model(
        vocab_size=len(processor.tokenizer), fusion="mixture", fusion_layers=2, **processor.config_kwargs()
    )
    for parameter in made.encoder.fusion.gates.parameters():
        nn.init.normal_(parameter)
    return made


@pytest.fixture
def rows(waveforms: list[np.ndarray]) -> list[Utterance]:
    """The last has no audio, and no label."""
    return [
        Utterance(audio=waveforms[0], text="the doctor was kind", label="positive"),
        Utterance(audio=waveforms[1], text="the doctor was late again", label="negative"),
        Utterance(audio=waveforms[0][:8_000], text="so so", label="positive"),
        Utterance(text="no voice at all"),
    ]


def gates(model: MmsrForSentimentReasoning, processor: MmsrProcessor, row: Utterance) -> np.ndarray:
    given = {name: [getattr(row, name)] for name in ("audio", "text") if getattr(row, name) is not None}
    with torch.inference_mode():
        found = model(**processor(**given, return_tensors="pt")).fusion_gates
    assert found is not None
    return found[0].numpy()


def test_loads_and_weights_are_means_over_rows_by_modality_and_label(
    model: MmsrForSentimentReasoning, processor: MmsrProcessor, rows: list[Utterance]
):
    found = expert_use(model, processor, rows)
    assert {name: {group: one["n"] for group, one in groups.items()} for name, groups in found.items()} == {
        "audio+text": {"all": 3, "negative": 1, "positive": 2},
        "audio": {"all": 3, "negative": 1, "positive": 2},
        "text": {"all": 4, "negative": 1, "positive": 2},
    }
    both = np.stack([gates(model, processor, row) for row in rows[:3]])
    positive = found["audio+text"]["positive"]
    np.testing.assert_allclose(positive["weight"], both[[0, 2]].mean(0), atol=1e-5)
    np.testing.assert_allclose(positive["load"], (both[[0, 2]] > 0).mean(0))
    np.testing.assert_allclose(np.sum(found["text"]["all"]["load"], axis=-1), [2, 2])
    alone = np.stack([gates(model, processor, Utterance(text=row.text)) for row in rows])
    np.testing.assert_allclose(found["text"]["all"]["weight"], alone.mean(0), atol=1e-5)
    assert not np.allclose(found["text"]["negative"]["weight"], found["audio"]["negative"]["weight"])


def test_batches_change_nothing_and_progress_counts_rows(
    model: MmsrForSentimentReasoning, processor: MmsrProcessor, rows: list[Utterance]
):
    told: list[Any] = []
    single = expert_use(model, processor, rows, batch_size=1, progress=lambda *step: told.append(step))
    assert told == [("experts", done, 4) for done in (1, 2, 3, 4)]
    for name, groups in expert_use(model, processor, rows, batch_size=3).items():
        for group, one in groups.items():
            np.testing.assert_allclose(single[name][group]["weight"], one["weight"], atol=1e-5)
            assert single[name][group]["load"] == one["load"]


def test_a_blank_transcript_is_none_as_in_an_evaluation(
    model: MmsrForSentimentReasoning, processor: MmsrProcessor, rows: list[Utterance]
):
    found = expert_use(model, processor, [rows[0], Utterance(audio=rows[1].audio, text=" ")])
    assert {name: groups["all"]["n"] for name, groups in found.items()} == {
        "audio+text": 1,
        "audio": 2,
        "text": 1,
    }


def test_what_has_no_experts_is_refused(
    model: MmsrForSentimentReasoning, make_model: MakeModel, processor: MmsrProcessor, rows: list[Utterance]
):
    with pytest.raises(ValueError, match="the model has fusion='merged'; accepted: 'mixture'"):
        expert_use(make_model(fusion="merged"), processor, rows)
    with pytest.raises(ValueError, match="no utterances; accepted: one or more"):
        expert_use(model, processor, [])
