"""Prompts, the lines of an answer, and what is read from a text that may not keep to them."""

from pathlib import Path

import pytest

from mmsr.inference.language_models.prompt import Layout, Prompt
from mmsr.records import Utterance

LABELS = ("negative", "neutral", "positive")
ROW = Utterance(text="bác sĩ rất tận tâm", language="vi")
EXAMPLES = [Utterance(text="it hurts", label="negative", rationale="pain", language="en")]


@pytest.mark.parametrize("name", ["zero_shot", "few_shot", "chain_of_thought"])
def test_the_prompts_of_mmsr_name_labels_transcript_language_and_audio(name: str) -> None:
    prompt = Prompt.open(name)
    layout = Layout(LABELS, "pre_thinking")
    message = prompt.render(ROW, layout, EXAMPLES if prompt.shows_examples else ())
    assert "Transcript: bác sĩ rất tận tâm" in message.user and "Vietnamese" in message.user
    assert layout.describe() in message.user and "recording" not in message.user
    assert message.system and "\n\n\n" not in message.user
    if prompt.shows_examples:
        assert "Transcript: it hurts\nRationale: pain\nLabel: negative\n" in message.user
    heard = prompt.render(Utterance(audio=b"sound"), layout)
    assert "recording" in heard.user and "Transcript: \n" not in heard.user and "None" not in heard.user


def test_the_lines_of_an_answer_are_in_the_order_of_the_format() -> None:
    assert Layout(LABELS).write("neutral", "ignored") == "Label: neutral"
    assert Layout(LABELS, "post_thinking").write("neutral", "why") == "Label: neutral\nRationale: why"
    assert Layout(LABELS, "pre_thinking").write("neutral", "why") == "Rationale: why\nLabel: neutral"
    assert Layout(LABELS).describe() == "Label: <one of: negative, neutral, positive>"


@pytest.mark.parametrize(
    ("text", "label", "rationale"),
    [
        ("Label: positive\nRationale: kind words", "positive", "kind words"),
        ("Rationale: she is in pain.\nIt lasts.\nLabel: Negative.", "negative", "she is in pain.\nIt lasts."),
        ("**Label:** neutral\n**Rationale:** a fact", "neutral", "a fact"),
        ("<think>Label: negative? no, positive</think>\nLabel: neutral", "neutral", None),
        ("Positive.", "positive", None),
        ("The sentiment is not positive.", None, None),
        ("Label: positive or neutral", None, None),
        ("Label: negative\nLabel: positive", "positive", None),
        ("Positive, not negative", None, None),
        ("Label: positively", None, None),
        ("Label: happy", None, None),
        ("Label: not positive", None, None),
        ("", None, None),
    ],
)
def test_an_answer_is_read_or_found_unparsable(text: str, label: str | None, rationale: str | None) -> None:
    found = Layout(LABELS, "post_thinking").parse(text)
    assert (found.label, found.rationale) == (label, rationale)
    if label is not None:
        assert text[found.start :].casefold().startswith(label)


def test_of_labels_that_begin_alike_the_longer_is_read() -> None:
    layout = Layout(("positive", "positive and calm"))
    assert layout.parse("Label: positive and calm").label == "positive and calm"
    assert layout.parse("Label: positive").label == "positive"


def test_a_prompts_version_is_that_of_its_content(tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text("{% block user %}{{ text }}{% endblock %}")
    first = Prompt.open(str(path))
    assert first.render(ROW, Layout(LABELS)) == ("", ROW.text) and not first.shows_examples
    path.write_text("{% block user %}Say: {{ text }}{% endblock %}")
    assert Prompt.open(str(path)).digest != first.digest
    assert Prompt(first.source, "elsewhere").digest == first.digest


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{{ text }}", "has no block user; accepted: {% block user %}"),
        ("{% block user %}{{ text }", "own.jinja: "),
        ("{% block user %}{{ txt }}{% endblock %}", "'txt' is undefined"),
    ],
)
def test_a_faulty_prompt_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "own.jinja").write_text(content)
    with pytest.raises(ValueError, match=message):
        Prompt.open(str(tmp_path / "own.jinja")).render(ROW, Layout(LABELS))


def test_the_prompts_that_there_are_are_named() -> None:
    with pytest.raises(ValueError, match="accepted: a jinja file, or chain_of_thought, few_shot, zero_shot"):
        Prompt.open("zero-shot")
