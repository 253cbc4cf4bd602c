"""Examples in the prompt: balanced and the same for all, or the nearest; never what is evaluated."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from mmsr.inference.language_models.examples import TextEncoder, chooser, nearest_examples
from mmsr.inference.language_models.prompt import Layout
from mmsr.inference.language_models.settings import ExampleSettings
from mmsr.records import Utterance

LABELS = ("negative", "neutral", "positive")
LAYOUT = Layout(LABELS, "post_thinking")
TRAIN = [
    Utterance(id=f"r{i}", text=f"train {i}", asr_text=f"heard {i}", label=LABELS[i % 3], rationale=f"why {i}")
    for i in range(30)
]
QUERIES = [Utterance(text="a question"), Utterance(text=" TRAIN  7 "), Utterance(audio=b"sound")]


def random_rows(seed: int = 0, number: int = 7, **options: object) -> list[list[Utterance]]:
    settings = ExampleSettings(choose="random", number=number, seed=seed)
    return chooser(settings, TRAIN, layout=LAYOUT, **options)(QUERIES)  # type: ignore[arg-type]


def test_random_examples_are_fixed_balanced_and_seeded() -> None:
    first, own, heard = random_rows()
    assert first == heard and len({row.id for row in first}) == 7
    counts = [sum(row.label == label for row in first) for label in LABELS]
    assert sorted(counts) == [2, 2, 3]
    assert random_rows()[0] == first and random_rows(seed=1)[0] != first
    assert all(row.text != "train 7" for row in own) and len(own) == 7


def test_what_is_evaluated_and_the_utterances_own_transcript_are_never_shown() -> None:
    held_out = {f"r{i}" for i in range(0, 30, 2)}
    for seed in range(20):
        shown = [row for rows in random_rows(seed, number=12, held_out=held_out) for row in rows]
        assert shown and not held_out & {str(row.id) for row in shown}
        assert all(row.text != "train 7" for row in random_rows(seed, number=28)[1])
    with pytest.raises(ValueError, match=r"examples: 15 training rows have label, text, rationale"):
        random_rows(number=15, held_out=held_out)
    assert not any(random.audio for rows in random_rows() for random in rows)


def test_rows_without_what_is_shown_are_left_out_and_the_column_is_chosen() -> None:
    lacking = [Utterance(id="x", text="no reason", label="neutral"), Utterance(id="y", label="neutral")]
    rows = [*TRAIN[:6], *lacking]
    settings = ExampleSettings(choose="random", number=5, column="asr_text")
    shown = chooser(settings, rows, layout=LAYOUT)(QUERIES[:1])[0]
    assert all(str(row.text).startswith("heard ") for row in shown)
    assert chooser(ExampleSettings(), rows, layout=LAYOUT)(QUERIES) == [[], [], []]


def test_nearest_examples_are_the_nearest_by_the_mean_of_states(text_encoder: Path) -> None:
    texts = ["the voice is upset", "calm words are kind", "kind and calm", "loud voice", "the words are kind"]
    rows = [Utterance(id=str(i), text=text, label="neutral", rationale="x") for i, text in enumerate(texts)]
    settings = ExampleSettings(choose="nearest", number=2, encoder=str(text_encoder))
    queries = [Utterance(text="calm and kind"), Utterance(text="Kind and calm")]
    found, own = chooser(settings, rows, layout=LAYOUT)(queries)

    tokenizer, model = AutoTokenizer.from_pretrained(text_encoder), AutoModel.from_pretrained(text_encoder)

    def embedded(text: str) -> torch.Tensor:
        with torch.no_grad():  # one by one: no padding
            states = model.float()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        return torch.nn.functional.normalize(states.mean(0), dim=0)

    similar = [float(embedded("calm and kind") @ embedded(text)) for text in texts]
    order = sorted(range(len(texts)), key=lambda i: -similar[i])
    assert [row.id for row in found] == [str(i) for i in order[:2][::-1]]
    assert "2" not in [row.id for row in own] and len(own) == 2
    encoder = TextEncoder(str(text_encoder), batch_size=2)
    expected = torch.stack([embedded(text) for text in texts])
    torch.testing.assert_close(encoder(texts), expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="nearest are found by the transcript, and an utterance has none"):
        nearest_examples(rows, encoder, number=2)(QUERIES)


def test_an_encoder_that_is_none_is_refused(tmp_path: Path) -> None:
    settings = ExampleSettings(choose="nearest", number=2, encoder=str(tmp_path))
    with pytest.raises(ValueError, match="examples: encoder .* cannot be read"):
        chooser(settings, TRAIN, layout=LAYOUT)
