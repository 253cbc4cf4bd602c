"""An utterance of the demo corpus."""

from collections.abc import Callable
from typing import Any

import pytest

from mmsr.data.corpora.demo.corpus import Utterance


def _utterance(**changes) -> Utterance:
    given = {
        "language": "en",
        "voice": "en-us+m1",
        "sentence": "my knee feels much better today",
        "phrase": "feels much better",
        "valence": "positive",
        "manner": "even",
    }
    return Utterance(**{**given, **changes})


@pytest.fixture(scope="session")
def utterance() -> Callable[..., Any]:
    return _utterance
