"""What passes between a prompt and a model: a task, requests for it, and replies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from mmsr.data.audio.decoding import Audio
from mmsr.inference.language_models.prompt import Layout, Message
from mmsr.inference.language_models.settings import Read
from mmsr.records import SAMPLE_RATE


class Task(NamedTuple):
    """What is wanted of all requests: the lines of an answer, how its label is read, and its most tokens."""

    layout: Layout
    read: Read
    max_tokens: int


class Request(NamedTuple):
    """A question about an utterance; `audio` is that of `Utterance`."""

    message: Message
    audio: str | bytes | np.ndarray | None = None

    def samples(self, rate: int) -> np.ndarray:
        """The samples of the recording at `rate` Hz, `[s]`.

        Raises:
            AudioError: It cannot be decoded.
        """
        assert self.audio is not None
        source = (self.audio, SAMPLE_RATE) if isinstance(self.audio, np.ndarray) else self.audio
        return Audio(rate)(source)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A model's reply.

    Attributes:
        text: What it wrote; empty where the label's likelihood was asked for, and no rationale.
        label: None if the text names none.
        scores: Probability of each label; empty if the model gives none.
        rationale: None if there is none.
        usage: `prompt_tokens`, `generated_tokens` and `seconds`, as far as they are known. A prompt that is
            read twice, for the label and for the rationale, counts twice.
    """

    text: str
    label: str | None
    scores: Mapping[str, float]
    rationale: str | None
    usage: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The fields, for a journal."""
        return asdict(self)


class LanguageModel(Protocol):
    """A model that answers requests.

    Attributes:
        identity: What its answers depend on, beside task and request.
    """

    identity: Mapping[str, Any]

    def answer(self, requests: Sequence[Request], task: Task) -> Iterator[tuple[int, Reply]]:
        """Answer requests: the place of each and its reply, as they come.

        Raises:
            ValueError: A request cannot be answered.
        """
