"""A run's memory of rationales: training rows alone, each once, at most so many."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.manifest.manifest import load_manifest
from mmsr.inference.loading import load_pipeline
from mmsr.model.memory import TEXTS
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.training.memory import fill_memory
from mmsr.training.run import fit

MakeModel = Callable[..., MmsrForSentimentReasoning]
ROWS = [
    {"text": "the doctor was kind", "label": "positive", "rationale": " kind care ", "language": "en"},
    {"text": "The doctor  was kind", "label": "positive", "rationale": "kind care", "language": "eng"},
    {"text": "the doctor was kind", "label": "positive", "rationale": "a kind person", "language": "en"},
    {"text": "nobody listened", "label": "negative", "rationale": "kind care", "language": None},
    {"text": "no rationale", "label": "neutral", "rationale": None, "language": "en"},
    {"text": "no label", "label": None, "rationale": "unknown", "language": "en"},
    {"text": "held out", "label": "neutral", "rationale": "secret of dev", "language": "en", "split": "dev"},
    {"text": "tested", "label": "neutral", "rationale": "secret of test", "language": "en", "split": "test"},
]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "clinic.jsonl"
    lines = [json.dumps({"split": "train", **row, "id": str(number)}) for number, row in enumerate(ROWS)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def make(make_model: MakeModel, processor: MmsrProcessor) -> Callable[..., MmsrForSentimentReasoning]:
    def made(**config: Any) -> MmsrForSentimentReasoning:
        processor.rationale_format = "none"
        return make_model(
            **processor.config_kwargs(), vocab_size=len(processor.tokenizer), fusion="text_only", **config
        )

    return made


def data_of(manifest: Path, processor: MmsrProcessor) -> MmsrDataModule:
    data = MmsrDataModule(str(manifest))
    data.attach(processor, rationales=False)
    return data


def test_training_rows_are_remembered_once(
    make: Callable[..., MmsrForSentimentReasoning], processor: MmsrProcessor, manifest: Path
):
    model = make()
    line = fill_memory(model, data_of(manifest, processor))
    assert line == (
        "memory of 3 training rows with their rationales (en 2, unknown 1); 4 have one, 1 say it twice"
    )
    assert model.memory is not None and model.config.rationale_format == "retrieval"
    assert [tuple(row) for row in model.memory.rows] == [
        ("positive", "en", "kind care"),
        ("positive", "en", "a kind person"),
        ("negative", None, "kind care"),
    ]
    assert model.memory.source == "clinic.jsonl"
    inputs = processor(text=["the doctor was kind", "nobody listened"], return_tensors="pt")
    with torch.no_grad():
        found = torch.nn.functional.normalize(model.encoder(**inputs).embedding, dim=1)
    torch.testing.assert_close(model.memory.vectors[[0, 2]].float(), found, atol=1e-3, rtol=0)


def test_a_memory_is_bounded_and_spread(
    make: Callable[..., MmsrForSentimentReasoning], processor: MmsrProcessor, tmp_path: Path
):
    path = tmp_path / "many.jsonl"
    rows = [
        {"id": str(n), "text": f"utterance {n}", "label": "neutral", "rationale": f"r{n}", "split": "train"}
        for n in range(101)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    model = make(memory_size=5)
    fill_memory(model, data_of(path, processor))
    assert model.memory is not None
    assert [row.rationale for row in model.memory.rows] == ["r0", "r25", "r50", "r75", "r100"]


def test_who_cannot_remember_says_so(
    make: Callable[..., MmsrForSentimentReasoning],
    make_model: MakeModel,
    processor: MmsrProcessor,
    tmp_path: Path,
    manifest: Path,
):
    path = tmp_path / "untold.jsonl"
    path.write_text(json.dumps({**ROWS[4], "id": "1", "split": "train"}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"untold.jsonl: no training row has label, rationale and text, and"):
        fill_memory(make(), data_of(path, processor))
    with pytest.raises(ValueError, match="decoder_type='cross_attention'; accepted: a model without a dec"):
        fill_memory(make_model(), data_of(manifest, processor))


def arguments(corpus: Path, folder: Path, **more: str) -> list[str]:
    settings = {
        "model.preset": "tiny",
        "model.rationale_format": "retrieval",
        "model.vocab_size": "600",
        "data.manifest": str(corpus),
        "trainer.default_root_dir": str(folder),
        "trainer.max_epochs": "1",
        "trainer.precision": "32-true",
        "trainer.enable_progress_bar": "false",
        **more,
    }
    return [item for name, value in settings.items() for item in (f"--{name}", value)]


def test_a_run_leaves_a_model_that_answers_from_its_training_rows(demo_corpus: Path, tmp_path: Path):
    stored = {"model.freeze": '["text_encoder"]', "model.feature_store": str(tmp_path / "store")}
    folder = fit(arguments(demo_corpus, tmp_path / "run", **stored))
    rows = load_manifest(demo_corpus).to_list()
    known = {
        split: {row["rationale"].strip() for row in rows if row["split"] == split and row["rationale"]}
        for split in ("train", "dev", "test")
    }
    kept = set(json.loads((folder / TEXTS).read_text("utf-8"))["rationales"])
    assert kept == known["train"]
    assert (known["dev"] | known["test"]) - known["train"], "else this says nothing of them"
    pipe = load_pipeline(folder)
    told = [{name: row[name] for name in ("text", "language")} for row in rows if row["split"] == "test"]
    by_label = {(row["label"], row["language"], row["rationale"].strip()) for row in rows if row["rationale"]}
    for row, answer in zip(told, pipe(told), strict=True):
        assert (answer["label"], row["language"], answer["rationale"]) in by_label
    vectors = pipe.model.memory.vectors.float().numpy()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-2)


def test_a_stream_is_refused_before_it_trains(demo_corpus: Path, tmp_path: Path):
    more = {"data.streaming": "true", "trainer.max_steps": "1", "trainer.val_check_interval": "1"}
    with pytest.raises(ValueError, match="streaming keeps no row, and rationale_format='retrieval' rem"):
        fit(arguments(demo_corpus, tmp_path / "run", **more))
