from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mmsr.inference.loading import load_pipeline
from mmsr.inference.timeline.cues import Turn
from mmsr.inference.timeline.make import AnsweredSegment, Timeline

LABELS = ("negative", "neutral", "positive")


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_pipeline("demo", device="cpu")


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a minute of hiss that swells, 8 kHz in two channels: turns are given, so nobody need speak."""
    generator = np.random.default_rng(0)
    hiss = 0.1 * generator.standard_normal((30 * 8_000, 2)) * np.linspace(0.1, 1, 30 * 8_000)[:, None]
    path = tmp_path_factory.mktemp("sound") / "talk.wav"
    soundfile.write(path, hiss, 8_000)
    return path


@pytest.fixture
def turns() -> list[Turn]:
    """Two speakers, who overlap once; 14 segments."""
    found = [
        Turn(start=2.0 * i, end=2.0 * i + 0.6 + 0.05 * i, speaker="anna" if i % 2 else "bo")
        for i in range(13)
    ]
    return [*found, Turn(start=24.2, end=25.4, speaker="anna")]


@pytest.fixture
def by_hand() -> Callable[..., Timeline]:
    def by_hand(*parts: tuple[float, float, str | None, str | None, tuple[float, float, float]]) -> Timeline:
        """A timeline of (start, end, speaker, text, scores)."""
        return Timeline(
            audio="talk.wav",
            seconds=parts[-1][1] + 1 if parts else 5.0,
            labels=LABELS,
            segments=tuple(
                AnsweredSegment(
                    start=start,
                    end=end,
                    speaker=speaker,
                    text=text,
                    label=LABELS[int(np.argmax(scores))],
                    score=max(scores),
                    scores=dict(zip(LABELS, scores, strict=True)),
                    rationale=None if text is None else f"because: {text}",
                )
                for start, end, speaker, text, scores in parts
            ),
        )

    return by_hand
