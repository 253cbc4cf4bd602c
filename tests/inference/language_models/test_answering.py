"""A language model as a `Predict`: what it asks, what its journal keeps, and what it counts."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsr.inference.language_models.answering import LanguageModelPredictor, open_language_model
from mmsr.inference.language_models.settings import ExampleSettings, LanguageModelSettings
from mmsr.records import Answer, Utterance

TRAIN = [
    Utterance(id=f"t{i}", text=f"train {i}", label=("neutral", "negative", "neutral")[i % 3], rationale="why")
    for i in range(9)
]
ROWS = [Utterance(text=f"row {i}") for i in range(6)]


def settings(server: Any, **more: Any) -> LanguageModelSettings:
    return LanguageModelSettings(model=server.address, served_name="m", **more)


def ask(
    given: LanguageModelSettings, rows: Sequence[Utterance], journal: Path | None = None, **options: Any
) -> tuple[list[Answer], LanguageModelPredictor]:
    with open_language_model(given, TRAIN, journal=journal, batch_size=2, **options) as predict:
        return predict(rows), predict


def test_nothing_is_asked_twice_after_a_kill(chat_server: Any, tmp_path: Path) -> None:
    journal = tmp_path / "answers.jsonl"

    def dying(body: dict[str, Any]) -> tuple[int, Any]:
        return chat_server.completion("Label: negative") if len(chat_server.bodies) <= 4 else (400, {})

    chat_server.respond = dying
    with pytest.raises(ValueError, match="answers 400"):
        ask(settings(chat_server), ROWS, journal)
    kept = len(journal.read_text().splitlines())
    assert kept == 4, "what was answered before the server failed is kept"
    with open(journal, "a") as file:
        file.write('{"key": "half a li')  # as a kill may leave it
    chat_server.respond = lambda body: chat_server.completion("Label: positive")
    chat_server.bodies.clear()
    answers, predict = ask(settings(chat_server), [*ROWS, ROWS[0]], journal)
    assert predict.asked == len(chat_server.bodies) == 6 - kept
    assert [answer.label for answer in answers].count("negative") >= kept
    answered = {line["key"] for line in map(json.loads, journal.read_text().splitlines())}
    assert len(answered) == 6
    chat_server.bodies.clear()
    again, predict = ask(settings(chat_server), [*ROWS, ROWS[0]], journal)
    assert again == answers and predict.asked == 0 and not chat_server.bodies


def test_other_settings_are_other_requests(chat_server: Any, tmp_path: Path) -> None:
    journal = tmp_path / "answers.jsonl"
    chat_server.respond = lambda body: chat_server.completion("Label: positive")
    own = tmp_path / "own.jinja"
    own.write_text("{% block user %}{{ text }}{% endblock %}")
    changes: list[dict[str, Any]] = [
        {},
        {"prompt": str(own)},
        {"rationale_format": "post_thinking"},
        {"max_tokens": 3},
        {"labels": ["positive", "negative"]},
        {"template": {"enable_thinking": True}},
        {"prompt": "few_shot", "examples": ExampleSettings(choose="random", number=2)},
        {"prompt": "few_shot", "examples": ExampleSettings(choose="random", number=3)},
    ]
    for change in changes:
        given = settings(chat_server, **change)
        assert ask(given, ROWS[:1], journal)[1].asked == 1
        assert ask(given, ROWS[:1], journal)[1].asked == 0
    own.write_text("{% block user %}{{ text }}{# another version #}{% endblock %}")
    assert ask(settings(chat_server, prompt=str(own)), ROWS[:1], journal)[1].asked == 1
    assert len(journal.read_text().splitlines()) == len(changes) + 1


def test_what_names_no_label_counts_as_the_fallback_and_is_told(chat_server: Any) -> None:
    chat_server.respond = lambda body: chat_server.completion(
        "no idea" if "row 1" in str(body) else "Label: positive"
    )
    answers, predict = ask(settings(chat_server), ROWS[:3])
    assert predict.fallback == "neutral", "the training rows' most frequent label"
    assert [answer.label for answer in answers] == ["positive", "neutral", "positive"]
    assert [answer.unparsable for answer in answers] == [False, True, False]
    assert ask(settings(chat_server, fallback="negative"), ROWS[1:2])[0][0].label == "negative"
    with (
        pytest.raises(ValueError, match="no training row has a label.*accepted: fallback: LABEL"),
        open_language_model(settings(chat_server)),
    ):
        pass


def test_the_prompt_has_examples_and_never_those_held_out(chat_server: Any) -> None:
    chat_server.respond = lambda body: chat_server.completion("Label: positive")
    examples = ExampleSettings(choose="random", number=3)
    given = settings(chat_server, prompt="few_shot", examples=examples)
    ask(given, ROWS, held_out={"t0", "t1", "t2", "t3"})
    for body in chat_server.bodies:
        shown = [i for i in range(9) if f"Transcript: train {i}\nLabel: " in body["messages"][-1]["content"]]
        assert len(shown) == 3 and min(shown) > 3
    with pytest.raises(ValueError, match="prompt zero_shot shows no examples, and choose is random"):
        ask(settings(chat_server, examples=examples), ROWS)


def test_examples_are_found_for_each_utterance_and_for_none(
    chat_server: Any, text_encoder: Path, tmp_path: Path
) -> None:
    chat_server.respond = lambda body: chat_server.completion("Label: positive")
    examples = ExampleSettings(choose="nearest", number=2, encoder=str(text_encoder))
    given = settings(chat_server, prompt="few_shot", examples=examples)
    answers, predict = ask(given, ROWS)
    assert len(answers) == predict.asked == len(ROWS)
    assert ask(given, [])[0] == []


def test_another_recording_is_another_request(chat_server: Any, tmp_path: Path) -> None:
    chat_server.respond = lambda body: chat_server.completion("Label: positive")
    waves = [np.full(1600, level, dtype=np.float32) for level in (0.1, 0.2)]
    rows = [Utterance(audio=wave, text="said") for wave in (*waves, waves[0])]
    answers, predict = ask(settings(chat_server, audio=True), rows)
    assert predict.asked == 2 and len(answers) == 3
    with pytest.raises(ValueError, match=r"a model that hears nothing \(audio: false\)"):
        ask(settings(chat_server), rows)
    with pytest.raises(ValueError, match="without a transcript, and without audio"):
        ask(settings(chat_server), [Utterance(text=" ")])


@pytest.fixture(autouse=True)
def _no_key_in_the_journal(tmp_path: Path) -> Iterator[None]:
    yield
    for path in tmp_path.rglob("*.jsonl"):
        assert "Authorization" not in path.read_text() and "Bearer" not in path.read_text()


def test_a_local_models_answers_have_probabilities_and_costs(language_model: Path, tmp_path: Path) -> None:
    given = LanguageModelSettings(model=str(language_model), rationale_format="post_thinking", max_tokens=4)
    answers, _ = ask(given, ROWS[:2], tmp_path / "answers.jsonl")
    for answer in answers:
        assert sum(answer.scores.values()) == pytest.approx(1) and answer.score == max(answer.scores.values())
        assert answer.unparsable is None and isinstance(answer.rationale, str)
        assert answer.usage is not None and answer.usage["prompt_tokens"] > 0 < answer.usage["seconds"]
    again, predict = ask(given, ROWS[:2], tmp_path / "answers.jsonl")
    assert again == answers and predict.asked == 0
