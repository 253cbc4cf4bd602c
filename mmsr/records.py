"""Types that the packages of mmsr share.

row of a manifest ─► `Utterance` ─► `Predict` ─► `Answer` ─► `Prediction` ─► line of predictions.jsonl
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A word or segment of a transcript, from `start` to `end` in seconds."""

    text: str
    start: float
    end: float


def read_chunks(value: str | Sequence[Chunk | Mapping[str, Any]] | None) -> tuple[Chunk, ...] | None:
    """Words with times of their JSON, as `chunks_json` writes it, or of a list of them; None of None.

    Raises:
        ValueError: It is something else.
    """
    if value is None:
        return None
    try:
        entries = json.loads(value) if isinstance(value, str) else value
        chunks = tuple(
            one
            if isinstance(one, Chunk)
            else Chunk(text=one["text"], start=float(one["start"]), end=float(one["end"]))
            for one in entries
        )
    except (ValueError, TypeError, KeyError):
        chunks = (Chunk(text="", start=1.0, end=0.0),)
    if not all(isinstance(one.text, str) and 0 <= one.start <= one.end < float("inf") for one in chunks):
        raise ValueError('no words with times; accepted: [{"text": "hello", "start": 0.52, "end": 0.9}, ...]')
    return chunks


def chunks_json(chunks: Sequence[Chunk]) -> str:
    """Words with times as JSON, for a column of a manifest."""
    return json.dumps([asdict(chunk) for chunk in chunks], ensure_ascii=False)


def read_soft_label(value: str | Mapping[str, float]) -> dict[str, float]:
    """The probability of each label, which add up to 1, from their JSON or a mapping; votes are divided.

    Raises:
        ValueError: It is something else, or nothing is above 0.
    """
    try:
        given = json.loads(value) if isinstance(value, str) else value
        weights = {str(label): float(weight) for label, weight in given.items()}
        total = sum(weights.values())
        if all(0 <= weight < float("inf") for weight in weights.values()) and 0 < total < float("inf"):
            return {label: weight / total for label, weight in weights.items()}
    except (ValueError, TypeError, AttributeError):
        pass
    raise ValueError('no probabilities or votes; accepted: {"negative": 0.7, "neutral": 0.3}')


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """A row of a manifest; unknown fields are None.

    Attributes:
        id: Unique in the manifest.
        audio: A path or URL, a file's bytes, or 16 kHz samples `[s]`.
        text: Human transcript.
        asr_text: Transcript of a speech recogniser.
        asr_words: Its words with their times, as JSON (see `read_chunks`) or read.
        label: True label.
        rationale: Reference rationale.
        language: Code, such as `vi`.
        speaker: Name of the speaker.
        split: Such as `train`, `dev` or `test`.
        kind: A category of the corpus's own choice.
    """

    id: str | None = None
    audio: str | bytes | np.ndarray | None = None
    text: str | None = None
    asr_text: str | None = None
    asr_words: str | Sequence[Chunk] | None = None
    label: str | None = None
    rationale: str | None = None
    language: str | None = None
    speaker: str | None = None
    split: str | None = None
    kind: str | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The utterance of a row, without other columns."""
        return cls(**{name: row.get(name) for name in cls.__dataclass_fields__})

    def has(self, name: str) -> bool:
        """Whether a field is known and not blank."""
        value = getattr(self, name)
        return bool(value.strip()) if isinstance(value, str) else value is not None

    @property
    def words(self) -> str | None:
        """The human transcript, or the recogniser's where there is none."""
        return self.text if self.has("text") else self.asr_text

    def model_input(self, audio: str | None = "audio", text: str | None = "text") -> Utterance:
        """The input of a model: recording, transcript, language, and the times of words if both are there.

        Args:
            audio: Field of the recording; None leaves it out.
            text: Field of the transcript, `text` or `asr_text`; None leaves it out.
        """
        return Utterance(
            audio=getattr(self, audio) if audio else None,
            text=getattr(self, text) if text else None,
            asr_words=self.asr_words if audio and text else None,
            language=self.language,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A model's answer to an utterance.

    Attributes:
        label: The predicted label.
        score: Its probability; None without `scores`.
        scores: Probability of each label; empty where a model gives none.
        rationale: None if the model writes none.
        head_label: The classification head's label, if the decoder gives `label`.
        head_scores: The head's probabilities, if the decoder gives `scores`.
        abstained: Whether the model abstains; None if that was not asked and it detects no outliers.
        abstained_because: Why, where all of the input is an outlier.
        outliers: Which of audio and text are outliers; None of a model that detects none.
        grounded: Whether the rationale quotes, and all of it are whole words of the transcript; None
            without a rationale.
        evidence: These words, each `{"text", "start", "end"}` in characters of the transcript, and beside
            audio `seconds`, and `timed_by`, where these come from (`mmsr.speech.timing.TimedBy`).
        voice: Probabilities of the voice's emotions, of a model that names them where a voice was heard.
        audio_seconds: Length of a recording of more than 10 s.
        speech_seconds: How much of it is speech; None as the length where that was not asked.
        unparsable: Whether a language model's text names no label, so that `label` is its fallback; None of a
            model whose label is not read from text.
        usage: Cost of a language model's answer: `prompt_tokens`, `generated_tokens`, `seconds`.
    """

    label: str
    score: float | None
    scores: Mapping[str, float]
    rationale: str | None = None
    head_label: str | None = None
    head_scores: Mapping[str, float] | None = None
    abstained: bool | None = None
    abstained_because: str | None = None
    outliers: Sequence[str] | None = None
    grounded: bool | None = None
    evidence: Sequence[Mapping[str, Any]] = ()
    voice: Mapping[str, float] | None = None
    audio_seconds: float | None = None
    speech_seconds: float | None = None
    unparsable: bool | None = None
    usage: Mapping[str, float] | None = None

    @classmethod
    def from_dict(cls, answer: Mapping[str, Any]) -> Self:
        """The answer of a pipeline's dict, without further keys."""
        return cls(**{name: answer[name] for name in cls.__dataclass_fields__ if name in answer})


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """An utterance with a model's answer: a line of predictions.jsonl.

    Fields without a description are as in `Utterance` and `Answer`.

    Attributes:
        predicted_label: None only of a baseline that predicts none.
        condition: The model's inputs, of `evaluation.run.CONDITIONS`.
        abstained: Whether the label's probability is too low, on request, or all of the input is an outlier.
        more: Further columns of the file.
    """

    id: str
    label: str | None = None
    rationale: str | None = None
    predicted_label: str | None
    scores: Mapping[str, float] = field(default_factory=dict)
    predicted_rationale: str | None = None
    language: str | None = None
    speaker: str | None = None
    kind: str | None = None
    condition: str | None = None
    head_label: str | None = None
    abstained: bool | None = None
    abstained_because: str | None = None
    outliers: Sequence[str] | None = None
    grounded: bool | None = None
    evidence: Sequence[Mapping[str, Any]] | None = None
    voice: Mapping[str, float] | None = None
    audio_seconds: float | None = None
    speech_seconds: float | None = None
    unparsable: bool | None = None
    usage: Mapping[str, float] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def confidence(self) -> float:
        """Probability of the predicted label."""
        return self.scores[str(self.predicted_label)]

    @classmethod
    def of(cls, utterance: Utterance, **fields: Any) -> Self:
        """The prediction of an utterance with the other fields."""
        known = ("label", "rationale", "language", "speaker", "kind")
        return cls(id=str(utterance.id), **{name: getattr(utterance, name) for name in known}, **fields)

    @classmethod
    def from_answer(cls, utterance: Utterance, answer: Answer, *, condition: str) -> Self:
        """The prediction of an utterance and its answer."""
        return cls.of(
            utterance,
            predicted_label=answer.label,
            scores={label: float(score) for label, score in answer.scores.items()},
            predicted_rationale=answer.rationale,
            condition=condition,
            head_label=answer.head_label,
            abstained=answer.abstained,
            abstained_because=answer.abstained_because,
            outliers=answer.outliers,
            grounded=answer.grounded,
            evidence=None if answer.grounded is None else answer.evidence,
            voice=answer.voice,
            audio_seconds=answer.audio_seconds,
            speech_seconds=answer.speech_seconds,
            unparsable=answer.unparsable,
            usage=answer.usage,
        )

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The prediction in a line of predictions.jsonl, the inverse of `to_row`."""
        names = cls.__dataclass_fields__.keys() - {"more"}
        known = {name: value for name, value in row.items() if name in names}
        return cls(**known, more={name: value for name, value in row.items() if name not in names})

    def to_row(self) -> dict[str, Any]:
        """The line of predictions.jsonl; what a model need not give is left out if None."""
        row = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "more"}
        optional = [
            "head_label",
            "abstained",
            "abstained_because",
            "outliers",
            "grounded",
            "evidence",
            "voice",
            "audio_seconds",
            "speech_seconds",
            "unparsable",
            "usage",
        ]
        for name in optional:
            if row[name] is None:
                del row[name]
        return {**row, **self.more}


Predict = Callable[[Sequence[Utterance]], list[Answer]]
"""Answers utterances in order, from audio, text and language."""

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, the amount done and the total."""


# ---------------------------------------------------------------------- batch keys

SAMPLE_RATE = 16_000
"""Hz of the waveforms that pass between packages; `Audio` resamples to it."""

# Arguments of `MmsrForSentimentReasoning.forward`. In masks 1 is real. Axes: `b` batch, `s` samples, `f`
# audio frames, `t` text tokens, `r` rationale tokens, `l` encoder layers, `d` width.
INPUT_VALUES = "input_values"  # waveform at 16 kHz [b, s]
INPUT_VALUES_MASK = "input_values_mask"  # [b, s]
INPUT_IDS = "input_ids"  # transcript [b, t]
ATTENTION_MASK = "attention_mask"  # of the transcript [b, t]
AUDIO_FEATURES_MASK = "audio_features_mask"  # [b, f]
TEXT_FEATURES = "text_features"  # a frozen encoder's states [b, t, l, d]
LABELS = "labels"  # the rationale's tokens [b, r], -100 where none counts
SENTIMENT_LABELS = "sentiment_labels"  # [b], -100 where unknown
SOFT_TARGETS = "soft_targets"  # probability of each label [b, c], in training, if a row has its own
IDS = "ids"  # of the rows: a list of names, in training and validation
WINDOW = "window"  # with accumulation, outlines of the batches of an optimiser step, in its first batch


# ---------------------------------------------------------------------- attribution

Span = tuple[int, int]
"""First character of a part of a text, and the one after its last."""


class AttributedWord(NamedTuple):
    """A word of a transcript, its characters `[start:end]`, and its weight."""

    word: str
    start: int
    end: int
    weight: float


class AttributedFrame(NamedTuple):
    """A part of the audio, in seconds, and its weight."""

    start: float
    end: float
    weight: float


class Attribution(NamedTuple):
    """Weights of each word and of each of equally long frames, in order.

    `words` or `frames` are None if the modality is absent or has no weights. `label` is the label that the
    weights are for (negative weights: against), if any.
    """

    words: tuple[AttributedWord, ...] | None = None
    frames: tuple[AttributedFrame, ...] | None = None
    label: str | None = None


class Attribute(Protocol):
    """A method of attribution, applied to one model."""

    def __call__(
        self, *, audio: np.ndarray | None, text: str | None, words: Sequence[Span] | None = None
    ) -> Attribution:
        """Weigh the parts of an utterance: 16 kHz samples `[s]`, and a transcript with its words."""
