"""What all kinds of recognisers share: waveforms become its inputs, and its tokens a transcript."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from transformers.pipelines import AutomaticSpeechRecognitionPipeline

Timestamps = Literal["none", "segment", "word"]

RATE = 16_000  # Hz, of the waveforms


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A word or segment of a transcript, from `start` to `end` in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """The words of one waveform.

    Attributes:
        text: The words, empty where there was no speech.
        language: Given or detected, as the recogniser calls it; None if it takes none.
        chunks: Words or segments in time, as `Transcriber.timestamps` says; None for `none`.
    """

    text: str
    language: str | None
    chunks: tuple[Chunk, ...] | None


class Decoder(ABC):
    """Turns batches of waveforms into transcripts, with one kind of recogniser.

    Args:
        pipe: transformers' pipeline around the recogniser.
        timestamps: One of `accepted_timestamps`.
        num_beams: Beams of the search, where there is one.

    Attributes:
        longest: Most seconds of a waveform.
        languages: Codes of the languages that the recogniser can be given; empty if it takes none.
    """

    accepted_timestamps: ClassVar[tuple[str, ...]] = ("none",)
    longest: ClassVar[float] = math.inf

    def __init__(
        self, pipe: AutomaticSpeechRecognitionPipeline, *, timestamps: Timestamps, num_beams: int
    ) -> None:
        self.pipe: Any = pipe
        self.model: Any = pipe.model
        self.timestamps = timestamps
        self.num_beams = num_beams
        self.languages: set[str] = set()

    @abstractmethod
    def decode(self, waves: list[np.ndarray], codes: list[str | None]) -> list[Transcript]:
        """Transcripts of waveforms `[s]`, sorted by length, in the languages `codes`."""

    def adapter(self, code: str | None) -> str:
        """The part of the model for a language, if the model has such parts; a batch needs a single one."""
        return ""

    @property
    def rows_alone(self) -> bool:
        """Whether rows run one at a time, since the front end reads padding too, as one with group norm."""
        config = self.model.config
        return config.model_type == "moonshine" or getattr(config, "feat_extract_norm", None) == "group"

    @property
    def window(self) -> int:
        """Most samples of a row that shares its batch: Whisper's 30 s; for others, as much."""
        return getattr(self.pipe.feature_extractor, "n_samples", 30 * RATE)

    def nothing(self, code: str | None) -> Transcript:
        """The transcript of silence."""
        return Transcript(text="", language=code, chunks=None if self.timestamps == "none" else ())

    def _inputs(self, waves: Sequence[np.ndarray], **options: Any) -> dict[str, torch.Tensor]:
        # A front end's convolutions need some samples, and a hundredth of a second holds no word.
        padded = [np.pad(wave, (0, max(0, RATE // 10 - len(wave)))) for wave in waves]
        inputs = self.pipe.feature_extractor(padded, sampling_rate=RATE, return_tensors="pt", **options)
        dtype = self.model.dtype
        return {
            name: tensor.to(self.model.device, dtype if tensor.is_floating_point() else None)
            for name, tensor in inputs.items()
        }

    def _transcript(
        self, tokens: torch.Tensor, code: str | None, length: int, *, times: torch.Tensor | None = None
    ) -> Transcript:
        """Tokens `[t]`, and their times where there are any, as the pipeline reads them."""
        wanted = {"none": None, "segment": True, "word": "word"}[self.timestamps]
        outputs: dict[str, Any] = {"tokens": tokens[None].cpu()}
        if times is not None:
            outputs["token_timestamps"] = times[None].cpu()
        return self._answer(self.pipe.postprocess([outputs], return_timestamps=wanted), code, length)

    def _answer(self, answer: Mapping[str, Any], code: str | None, length: int) -> Transcript:
        """A pipeline's answer; a chunk without an end ends with the waveform."""
        end = length / RATE
        chunks = None
        if self.timestamps != "none":
            chunks = tuple(
                Chunk(text=text, start=min(start or 0.0, end), end=min(end if stop is None else stop, end))
                for text, (start, stop) in ((c["text"].strip(), c["timestamp"]) for c in answer["chunks"])
                if text
            )
        return Transcript(text=" ".join(answer["text"].split()), language=code, chunks=chunks)
