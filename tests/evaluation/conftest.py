from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def row() -> Callable[..., dict[str, Any]]:
    """Makes a row that serves as manifest row and as prediction; keywords replace its cells."""

    def make(id: str, **cells: Any) -> dict[str, Any]:
        unknown = dict.fromkeys(("audio", "text", "asr_text", "rationale", "language", "speaker", "kind"))
        predicted = {"predicted_label": "neutral", "predicted_rationale": None, "scores": {"neutral": 1.0}}
        return {"id": id, "label": "neutral", "split": "test", **unknown, **predicted, **cells}

    return make
