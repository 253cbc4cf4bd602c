"""Whether answers follow the input: measured on models whose attention to it is known."""

from dataclasses import replace

import numpy as np
import pytest

from mmsr.evaluation.explain.grounding import follow, respoken
from mmsr.evaluation.run import predict_rows
from mmsr.records import Answer

VOICES = {"calm.wav": 0.1, "loud.wav": 0.9}


def load_audio(path):
    return np.full(1600, VOICES[path], dtype=np.float32)


def loudness(audio):
    return float(np.abs(audio if isinstance(audio, np.ndarray) else load_audio(audio)).max())


def grounded(records):
    """Says what it heard, and quotes the second word."""
    answers = []
    for record in records:
        level = loudness(record.audio)
        manner = "loud" if level > 0.5 else "calm" if level else "silent"
        words = (record.text or "").split()
        label = {"loud": "negative", "calm": "neutral", "silent": "positive"}[manner]
        rationale = f"{words[1] if len(words) > 1 else 'nothing'} in a {manner} voice"
        answers.append(Answer(label=label, score=1.0, scores={label: 1.0}, rationale=rationale))
    return answers


def constant(records):
    """Says the same of everything."""
    answer = Answer(label="neutral", score=1.0, scores={"neutral": 1.0}, rationale="calm, it seems")
    return [answer for _ in records]


@pytest.fixture
def rows(utterance):
    return [
        utterance(
            f"u{n}",
            text=f"knee number{n} hurts it",
            audio=list(VOICES)[n % 2],
            language="en",
            speaker=f"s{n}",
        )
        for n in range(8)
    ]


def shares(predict, rows):
    found = follow(predict, predict_rows(predict, rows), rows, load_audio=load_audio)
    return {name: {what: figure["value"] for what, figure in entry.items()} for name, entry in found.items()}


def test_a_grounded_model_follows_its_input(rows):
    found = shares(grounded, rows)
    assert found["silenced"] == {"label_changes": 1, "rationale_changes": 1}
    assert found["swapped"]["label_changes"] == found["swapped"]["rationale_changes"] > 0
    dropped = found["named_words_dropped"]
    assert dropped == {"label_changes": 0, "rationale_changes": 1, "words_unnamed": 1}
    assert found["other_words_dropped"]["rationale_changes"] < 1


def test_a_constant_model_does_not(rows):
    found = shares(constant, rows)
    named = found.pop("named_words_dropped")
    assert found["silenced"] == found["swapped"] == {"label_changes": 0, "rationale_changes": 0}
    assert named["words_unnamed"] == 0  # `it` is said, and still named


def test_rows_without_audio_have_no_voice_to_take_away(utterance, prediction):
    rows = [utterance("u0", text="knee hurts"), utterance("u1", text="knee is fine")]
    predictions = [prediction(row.id, predicted_rationale="knee") for row in rows]
    assert follow(constant, predictions, rows, load_audio=load_audio) == {}


def evidence_of(rationale, language):
    words = rationale.split()
    return words[0], next((manner for manner in ("calm", "loud") if manner in words), None)


def spoken_again(rows):
    other = dict(zip(VOICES, reversed(VOICES), strict=True))
    again = [replace(row, audio=other[row.audio]) for row in rows]
    return [
        replace(row, label=answer.label, rationale=answer.rationale)
        for row, answer in zip(again, grounded(again), strict=True)
    ]


def test_answers_to_another_manner_are_held_against_the_generator_s(rows):
    truth = [replace(row, label=answer.label) for row, answer in zip(rows, grounded(rows), strict=True)]
    again = spoken_again(rows)
    good = respoken(grounded, predict_rows(grounded, truth), again, evidence_of=evidence_of)
    assert {name: figure.get("value") for name, figure in good.items()} == {
        "label_right": 1,
        "words_named": 1,
        "manner_named": 1,
        "label_stays": 0,
        "evidence_stays": 0,
        "label_must_change": 1,
        "label_must_stay": None,
    }
    bad = respoken(constant, predict_rows(constant, truth), again, evidence_of=evidence_of)
    assert (bad["label_stays"]["value"], bad["evidence_stays"]["value"]) == (1, 1)
    assert bad["label_right"]["value"] == 0.5 and bad["words_named"]["value"] == 0


def test_a_row_without_its_first_answer_is_named(rows):
    with pytest.raises(ValueError, match="row 'u3' was spoken again, yet has no prediction as it was"):
        respoken(constant, predict_rows(constant, rows[:3]), rows[:4], evidence_of=evidence_of)
