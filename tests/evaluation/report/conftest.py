"""A run and an example to report."""

import io
import wave
from pathlib import Path

import numpy as np
import pytest

from mmsr.evaluation.provenance import Provenance
from mmsr.evaluation.report.run import Example
from mmsr.evaluation.run import evaluate, write_run
from mmsr.records import Answer, Utterance

LABELS = ["negative", "neutral", "positive"]


RATE = 16_000


def sound() -> np.ndarray:
    return (0.1 * np.sin(2 * np.pi * 220 * np.arange(RATE // 2) / RATE)).astype(np.float32)


def wav() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((sound() * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


@pytest.fixture
def run(tmp_path: Path, utterance):
    rows = [
        utterance(
            f"r{i}",
            label=LABELS[i % 3],
            audio=f"/{i}.wav",
            text=f"words {i} {LABELS[i % 3]}",
            rationale="it is said",
            language=["en", "zh"][i % 2],
            kind=["voice", "words"][i % 2],
        )
        for i in range(12)
    ]

    def predict(records):
        label = "neutral"
        scores = {"negative": 0.1, "neutral": 0.7, "positive": 0.2}
        return [Answer(label=label, score=0.7, scores=scores, rationale="it <b>is</b> said") for _ in records]

    metrics, predictions = evaluate(predict, rows, labels=LABELS, train_rows=rows)
    document = write_run(
        tmp_path,
        {"test": metrics},
        predictions,
        provenance=Provenance(seed=5, data_fingerprint="f00d", command="mmsr demo", seconds=2),
    )
    return document, predictions


@pytest.fixture
def example():
    return Example(
        utterance=Utterance(
            id="r0",
            audio=wav(),
            text="Từ đó <script>alert(1)</script>",
            label="negative",
            rationale="reference words",
            kind="voice",
            language="vi",
        ),
        answer=Answer(
            label="neutral",
            score=0.75,
            scores={"negative": 0.25, "neutral": 0.75, "positive": 0.0},
            rationale="predicted words",
        ),
        mime="audio/wav",
        counterfactuals={"positive": "forced words"},
        attention={
            "weights": np.full((3, 20), 0.05),
            "tokens": ["<s>", "▁a", "$x$"],
            "waveform": sound(),
            "rate": RATE,
        },
    )
