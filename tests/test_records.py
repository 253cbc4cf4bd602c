"""The records that pass between rooms, and what they are at the borders."""

import json
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from mmsr.records import Answer, Prediction, Utterance


def test_what_a_model_is_given_tells_neither_label_nor_speaker():
    row = Utterance(
        id="u", audio="a.wav", text="t", asr_text="r", label="x", rationale="y", speaker="s", kind="k"
    )
    assert row.model_input() == Utterance(audio="a.wav", text="t")
    assert row.model_input(None, "asr_text") == Utterance(text="r")
    assert Utterance(id="u", text="t", language="vi").model_input(text=None) == Utterance(language="vi")


def test_a_field_is_there_unless_it_is_none_or_white_space():
    row = Utterance(id="u", audio=np.zeros(3), text=" ", asr_text="so")
    assert [row.has(name) for name in ("audio", "text", "asr_text", "label")] == [True, False, True, False]


def test_a_row_of_a_manifest_becomes_an_utterance_without_its_other_columns():
    assert Utterance.from_row({"id": "u", "text": "t", "duration": 1.5}) == Utterance(id="u", text="t")
    with pytest.raises(FrozenInstanceError):
        Utterance(id="u").label = "positive"  # type: ignore[misc]


def test_an_answer_of_the_pipeline_keeps_what_evaluation_reads():
    given = {"label": "x", "score": 0.5, "scores": {"x": 0.5}, "rationale": "r", "alternatives": {"y": "s"}}
    assert Answer.from_dict(given) == Answer(label="x", score=0.5, scores={"x": 0.5}, rationale="r")
    assert Answer.from_dict({**given, "head_label": "y"}).head_label == "y"


@pytest.mark.parametrize(
    "optional",
    [
        {},
        {"head_label": "y"},
        {"abstained": False},
        {"grounded": False, "evidence": [{"text": "so kind", "start": 3, "end": 10}]},
        {"abstained": True, "recording": "7"},
        {"abstained": True, "abstained_because": "no speech was heard", "outliers": ["audio"]},
    ],
)
def test_a_line_of_predictions_comes_back_as_it_was(optional):
    line = {
        "id": "u",
        "label": "x",
        "rationale": None,
        "predicted_label": "y",
        "scores": {"x": 0.25, "y": 0.75},
        "predicted_rationale": "r",
        "language": "vi",
        "speaker": None,
        "kind": "voice",
        "condition": "text",
        **optional,
    }
    prediction = Prediction.from_row(line)
    assert json.dumps(prediction.to_row()) == json.dumps(line), "with its keys in their order"
    assert prediction.confidence == 0.75
    answer = Answer.from_dict(
        {"label": "y", "score": 0.75, "scores": line["scores"], "rationale": "r", **optional}
    )
    utterance = Utterance(id="u", text="t", label="x", language="vi", kind="voice")
    if "recording" not in optional:
        assert Prediction.from_answer(utterance, answer, condition="text") == prediction
