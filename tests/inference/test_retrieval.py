"""Answers from a memory: of the label, of the language, the same in a batch and after saving."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import pipeline

import mmsr
from mmsr.inference.loading import load_pipeline
from mmsr.inference.pipeline import TASK, SentimentReasoningPipeline
from mmsr.inference.retrieval import Retriever
from mmsr.model.memory import RationaleMemory, RememberedRow
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor

LABELS = ("negative", "neutral", "positive")
UTTERANCES = [
    {"text": "the doctor was very kind to me", "language": "en"},
    {"text": "nobody listened", "language": "Tiếng Việt"},
    {"text": "the appointment is on Tuesday"},
]


def memory_of(*rows: tuple[list[float], str, str | None, str]) -> RationaleMemory:
    vectors = torch.nn.functional.normalize(torch.tensor([row[0] for row in rows]), dim=1).half()
    return RationaleMemory(vectors, [RememberedRow(*row[1:]) for row in rows], source="clinic.csv")


@pytest.fixture
def pipe(
    make_model: Callable[..., MmsrForSentimentReasoning], processor: MmsrProcessor
) -> SentimentReasoningPipeline:
    processor.rationale_format = "retrieval"
    config = {**processor.config_kwargs(), "vocab_size": len(processor.tokenizer)}
    model = make_model(**config, memory_neighbours=3)
    rows = [
        RememberedRow(label, language, f"{label} {language} {number % 3}")
        for number in range(12)
        for label in LABELS
        for language in ("en", "vi")
    ]
    vectors = torch.randn(len(rows), model.encoder.embedding_width)
    model.memory = RationaleMemory(
        torch.nn.functional.normalize(vectors, dim=1).half(), rows, source="clinic.csv"
    )
    return pipeline(TASK, model=model, processor=processor)


def test_the_consensus_of_the_nearest_rows_answers():
    retriever = Retriever(
        memory_of(
            ([1.0, 0.1], "positive", "en", "quite another thing"),
            ([1.0, 0.2], "positive", "en", "good news of it"),
            ([1.0, 0.3], "positive", "en", "good news"),
            ([0.0, 1.0], "positive", "en", "far away"),
            ([0.1, 1.0], "positive", "en", "far away"),
            ([1.0, 0.0], "negative", "en", "bad"),
            ([1.0, 0.0], "positive", "vi", "tốt"),
        ),
        number=3,
    )

    def told(vector: list[float], label: str, language: str | None) -> str | None:
        return retriever.rationale(torch.tensor(vector), label=label, language=language)

    assert told([2.0, 0.0], "positive", "English") == "good news of it", "the length does not matter"
    assert told([0.0, 2.0], "positive", "en") == "far away"
    assert told([0.0, 2.0], "negative", "en") == "bad"
    assert told([0.0, 2.0], "positive", "vie") == "tốt", "another code of the language"
    assert told([0.0, 2.0], "negative", "vi") == "bad", "in any language where it has none"
    assert told([0.0, 2.0], "positive", None) == "far away"
    assert told([0.0, 2.0], "neutral", "en") is None
    assert told([0.0, 0.0], "positive", "en") == "good news", "of the nearest to the mean of all"


def test_rationales_are_of_label_and_language(pipe: SentimentReasoningPipeline):
    for row, answer in zip(UTTERANCES, pipe(UTTERANCES, alternatives=True), strict=True):
        language = {"en": "en", "Tiếng Việt": "vi"}.get(row.get("language", ""), "")
        assert answer["rationale"].startswith(f"{answer['label']} {language}")
        assert set(answer["alternatives"]) == set(LABELS) - {answer["label"]}
        for label, text in answer["alternatives"].items():
            assert text.startswith(f"{label} {language}")
        forced = pipe(row, forced_label=next(iter(answer["alternatives"])))
        assert forced["rationale"] == answer["alternatives"][forced["forced_label"]]
        assert forced["label"] == answer["label"] and forced["grounded"] is False
    assert pipe(UTTERANCES[0], rationale=False)["rationale"] is None


def test_a_batch_and_a_saved_model_answer_alike(
    pipe: SentimentReasoningPipeline, waveforms: list[np.ndarray], tmp_path: Path
):
    rows: list[dict[str, Any]] = [*UTTERANCES, {"audio": waveforms[0], "language": "vi"}]
    alone = [pipe(row) for row in rows]
    assert len({answer["rationale"] for answer in alone}) > 1
    for batched, single in zip(pipe(rows, batch_size=4), alone, strict=True):
        assert batched["rationale"] == single["rationale"]
    pipe.save_pretrained(tmp_path / "model")
    for loaded in (load_pipeline(tmp_path / "model"), pipeline(TASK, model=str(tmp_path / "model"))):
        assert [dict(loaded(row)) for row in rows] == [dict(answer) for answer in alone]
    (answer,) = mmsr.load_pipeline(tmp_path / "model")([UTTERANCES[0]])
    assert answer["rationale"] == alone[0]["rationale"]


def test_another_memory_takes_the_place_of_the_first(pipe: SentimentReasoningPipeline):
    pipe(UTTERANCES[0])
    width = pipe.model.encoder.embedding_width
    rows = [([1.0] * width, label, None, f"new {label}") for label in LABELS]
    pipe.model.memory = memory_of(*rows)
    answer = pipe(UTTERANCES[0])
    assert answer["rationale"] == f"new {answer['label']}"


def test_without_a_memory_labels_are_given_and_rationales_refused(pipe: SentimentReasoningPipeline):
    pipe.model.memory = None
    answer = pipe(UTTERANCES[0])
    assert answer["label"] in LABELS and answer["rationale"] is None
    for argument in ({"rationale": True}, {"alternatives": True}, {"forced_label": "neutral"}):
        with pytest.raises(
            ValueError, match="has no memory of rationales .* accepted: a checkpoint with rat"
        ):
            pipe(UTTERANCES[0], **argument)
