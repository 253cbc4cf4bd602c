"""Temperatures of a run's model."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.manifest.manifest import load_manifest, utterances
from mmsr.evaluation.calibration import calibrate, calibration_line
from mmsr.inference.loading import predictor
from mmsr.inference.pipeline import SentimentReasoningPipeline
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.training.callbacks import calibrate_model


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("rationale_format", ["multitask", "post_thinking", "pre_thinking"])
def test_temperatures_are_those_of_the_pipeline_s_answers(
    make_model: Callable[..., MmsrForSentimentReasoning],
    processor: MmsrProcessor,
    demo_corpus: Path,
    tmp_path: Path,
    rationale_format: str,
    processes: int,
):
    """Whoever gives the label, and whether one process has all development rows."""
    processor.rationale_format, processor.max_rationale_tokens = rationale_format, 6
    given: dict[str, Any] = {"vocab_size": len(processor.tokenizer), **processor.config_kwargs()}
    model = make_model(**given, label_token_ids=processor.label_token_ids)
    pipe = SentimentReasoningPipeline(model=model, processor=processor, device="cpu", rationale=False)
    rows = load_manifest(demo_corpus).to_list()
    told = [{name: row[name] for name in ("audio", "text")} for row in rows]
    labels = [answer["label"] for answer in pipe(told, batch_size=16)]
    manifest = tmp_path / "dev.jsonl"
    with manifest.open("w") as file:  # right in three of four rows, whatever the model says
        for n, (row, label) in enumerate(zip(rows, labels, strict=True)):
            wrong = model.config.labels[(model.config.labels.index(label) + 1) % 3]
            file.write(json.dumps({**row, "label": label if n % 4 else wrong, "split": "dev"}) + "\n")
    data: Any = MmsrDataModule(str(manifest))
    data.attach(processor)
    if processes > 1:
        data.trainer = SimpleNamespace(world_size=processes)

    line = calibrate_model(model, processor, data)
    found = (model.config.temperature, model.config.decoder_temperature)
    model.config.temperature = model.config.decoder_temperature = 1.0

    answer = predictor(pipe, batch_size=16)
    expected = calibrate(answer, utterances(data.dev_rows), labels=model.config.labels)
    assert line == calibration_line(expected)
    assert found[0] == pytest.approx(expected["temperature"], abs=1e-6) and found[0] != 1
    assert found[1] == pytest.approx(expected.get("decoder_temperature", 1.0), abs=1e-6)
    assert (found[1] != 1) == (rationale_format != "multitask")
