"""A language model as a `Predict`, with a journal of its answers, so that nothing is asked twice."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mmsr.data.storage import digest
from mmsr.files import Journal
from mmsr.inference.language_models.examples import Chooser, chooser
from mmsr.inference.language_models.local import LocalModel
from mmsr.inference.language_models.prompt import Layout, Prompt
from mmsr.inference.language_models.requests import LanguageModel, Reply, Request, Task
from mmsr.inference.language_models.server import ServedModel
from mmsr.inference.language_models.settings import LanguageModelSettings
from mmsr.records import Answer, Utterance


class LanguageModelPredictor:
    """Answers utterances by a language model; a `Predict`.

    Args:
        model: The model.
        prompt: What it is asked.
        task: What is wanted of its answers.
        examples: Chooses the training rows that the prompt shows.
        fallback: The label of an answer that names none.
        hears: Whether the model may get recordings.
        journal: Where replies are added.
        known: Replies by key, of earlier runs; new ones are added.

    Attributes:
        model: As given, as are `prompt`, `task` and `fallback`.
        asked: How many requests went to the model, in place of the journal.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: Prompt,
        task: Task,
        *,
        examples: Chooser,
        fallback: str,
        hears: bool,
        journal: Journal,
        known: dict[str, Reply],
    ) -> None:
        self.model, self.prompt, self.task = model, prompt, task
        self.fallback, self._examples, self._hears = fallback, examples, hears
        self._journal, self._known = journal, known
        self.asked = 0

    def __call__(self, utterances: Sequence[Utterance]) -> list[Answer]:
        """Answer utterances in order.

        Raises:
            ValueError: An utterance has nothing that the model reads, or the model cannot answer.
        """
        requests = self._requests(utterances) if utterances else []
        keys = [self._key(request) for request in requests]
        new = {key: request for key, request in zip(keys, requests, strict=True) if key not in self._known}
        names = list(new)
        for i, reply in self.model.answer(list(new.values()), self.task) if new else ():
            self._journal.add({"key": names[i], **reply.to_dict()})
            self._known[names[i]] = reply
            self.asked += 1
        return [self._answer(self._known[key]) for key in keys]

    def _requests(self, utterances: Sequence[Utterance]) -> list[Request]:
        for row in utterances:
            if row.audio is not None and not self._hears:
                raise ValueError("an utterance with audio, and a model that hears nothing (audio: false)")
            if row.audio is None and not row.has("text"):
                raise ValueError("an utterance without a transcript, and without audio that the model hears")
        return [
            Request(self.prompt.render(row, self.task.layout, shown), row.audio)
            for row, shown in zip(utterances, self._examples(utterances), strict=True)
        ]

    def _key(self, request: Request) -> str:
        """What a reply depends on, as a digest: model, prompt, task, and the whole request."""
        layout = self.task.layout
        content = [
            dict(self.model.identity),
            self.prompt.digest,
            [list(layout.labels), layout.rationale_format, self.task.read, self.task.max_tokens],
            [*request.message, None if request.audio is None else _digest(request.audio)],
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def _answer(self, reply: Reply) -> Answer:
        named = reply.label is not None
        label = reply.label if reply.label is not None else self.fallback
        return Answer(
            label=label,
            score=reply.scores.get(label),
            scores=reply.scores,
            rationale=(reply.rationale or "") if self.task.layout.writes_rationales else None,
            unparsable=None if self.task.read in ("likelihood", "constrained") else not named,
            usage=reply.usage,
        )


@contextmanager
def open_language_model(
    settings: LanguageModelSettings,
    train_rows: Sequence[Utterance] = (),
    *,
    held_out: Collection[str] = (),
    journal: str | Path | None = None,
    batch_size: int = 32,
) -> Iterator[LanguageModelPredictor]:
    """A language model as a `Predict`, with its journal open.

    Args:
        settings: Model, prompt and task.
        train_rows: Rows that examples are chosen from, and the fallback.
        held_out: Ids of rows that may not be shown.
        journal: File of replies, which is read and added to; None keeps none.
        batch_size: Rows in a batch, or requests to a server at a time.

    Raises:
        ValueError: The prompt, the model or the journal cannot be read, or the training rows do not have what
            the settings ask for.
    """
    layout = Layout(settings.labels, settings.rationale_format)
    task = Task(layout, settings.reads, settings.max_tokens)
    prompt = Prompt.open(settings.prompt)
    shows = settings.examples.choose != "none"
    if shows and not prompt.shows_examples:
        raise ValueError(
            f"prompt {settings.prompt} shows no examples, and choose is {settings.examples.choose}; "
            "accepted: a prompt with `examples`, such as few_shot, or choose: none"
        )
    prompt.render(Utterance(text="-"), layout)  # a misspelled name is told before weights are loaded
    fallback = _fallback(settings, train_rows)
    examples = chooser(settings.examples, train_rows, layout=layout, held_out=held_out)
    kind = ServedModel if settings.is_served else LocalModel
    model = kind(settings, batch_size=batch_size)
    known: dict[str, Reply] = {}

    def read(entry: Mapping[str, Any]) -> None:
        known[entry["key"]] = Reply(**{name: value for name, value in entry.items() if name != "key"})

    with Journal(journal, read) as opened:
        yield LanguageModelPredictor(
            model,
            prompt,
            task,
            examples=examples,
            fallback=fallback,
            hears=settings.audio,
            journal=opened,
            known=known,
        )


def _fallback(settings: LanguageModelSettings, train_rows: Sequence[Utterance]) -> str:
    """The label of an answer that names none."""
    if settings.fallback is not None:
        return settings.fallback
    counts = Counter(str(row.label) for row in train_rows if row.has("label"))
    if counts:
        return min(counts, key=lambda label: (-counts[label], label))
    if settings.reads in ("parsed", "logprobs"):
        raise ValueError(
            "no training row has a label, and an answer that names none counts as their most frequent one; "
            "accepted: fallback: LABEL in the model's file"
        )
    return settings.labels[0]  # never used: the label is always one of them


def _digest(audio: str | bytes | np.ndarray) -> str:
    if isinstance(audio, str):
        return digest(audio).hex()
    return hashlib.sha256(audio if isinstance(audio, bytes) else audio.tobytes()).hexdigest()
