from collections.abc import Callable
from typing import Any

import pytest

from mmsr.records import Prediction, Utterance


@pytest.fixture
def utterance() -> Callable[..., Utterance]:
    """Makes a manifest's row; keywords replace its fields."""

    def make(id: str, **fields: Any) -> Utterance:
        return Utterance(**{"id": id, "label": "neutral", "split": "test", **fields})

    return make


@pytest.fixture
def prediction() -> Callable[..., Prediction]:
    """Makes a prediction, a right one of `neutral`; keywords replace its fields."""

    def make(id: str, **fields: Any) -> Prediction:
        right = {"label": "neutral", "predicted_label": "neutral", "scores": {"neutral": 1.0}}
        return Prediction(**{"id": id, **right, **fields})

    return make
