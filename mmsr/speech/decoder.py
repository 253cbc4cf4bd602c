"""Kinds of recognisers behind one interface: waveforms become model inputs, and tokens become transcripts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from transformers.pipelines import AutomaticSpeechRecognitionPipeline

from mmsr.records import SAMPLE_RATE, Chunk

Timestamps = Literal["none", "segment", "word"]


# Most tokens of a second of speech (Vietnamese and Chinese take the most: Whisper writes each byte), and what
# a clip gets in addition. A longer text is a loop.
_TOKENS_PER_SECOND = 20
_EXTRA_TOKENS = 16


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """The transcript of a waveform.

    Attributes:
        text: The words; empty without speech.
        language: The given or detected language, by the recogniser's code; None if it takes none.
        chunks: Words or segments with times; None if the timestamps are `none`.
    """

    text: str
    language: str | None
    chunks: tuple[Chunk, ...] | None


class Decoder(ABC):
    """Turns batches of waveforms into transcripts, with one kind of recogniser.

    Args:
        pipe: transformers' pipeline around the recogniser.
        timestamps: One of `accepted_timestamps`.
        num_beams: Beams of the search, if the kind has one.

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
        """Name of the model's adapter for a language, if it has adapters; a batch shares one adapter."""
        return ""

    @property
    def rows_alone(self) -> bool:
        """Whether each row is a batch, since padding would change its output (as with group norm)."""
        config = self.model.config
        return config.model_type == "moonshine" or getattr(config, "feat_extract_norm", None) == "group"

    @property
    def window(self) -> int:
        """Most samples of a row in a batch with others: Whisper's 30 s, used for all kinds."""
        return getattr(self.pipe.feature_extractor, "n_samples", 30 * SAMPLE_RATE)

    def nothing(self, code: str | None) -> Transcript:
        """The transcript of silence."""
        return Transcript(text="", language=code, chunks=None if self.timestamps == "none" else ())

    def _inputs(self, waves: Sequence[np.ndarray], **options: Any) -> dict[str, torch.Tensor]:
        # the convolutions of a front end need some samples; a tenth of a second of silence adds no word
        padded = [np.pad(wave, (0, max(0, SAMPLE_RATE // 10 - len(wave)))) for wave in waves]
        inputs = self.pipe.feature_extractor(
            padded, sampling_rate=SAMPLE_RATE, return_tensors="pt", **options
        )
        dtype = self.model.dtype
        return {
            name: tensor.to(self.model.device, dtype if tensor.is_floating_point() else None)
            for name, tensor in inputs.items()
        }

    def _transcript(
        self, tokens: torch.Tensor, code: str | None, length: int, *, times: torch.Tensor | None = None
    ) -> Transcript:
        """The transcript of tokens `[t]`, with their times if there are any, of `length` samples."""
        wanted = {"none": None, "segment": True, "word": "word"}[self.timestamps]
        outputs: dict[str, Any] = {"tokens": tokens[None].cpu()}
        if times is not None:
            outputs["token_timestamps"] = times[None].cpu()
        return self._from_pipeline(self.pipe.postprocess([outputs], return_timestamps=wanted), code, length)

    def _from_pipeline(self, output: Mapping[str, Any], code: str | None, length: int) -> Transcript:
        """The transcript in a pipeline's output; a chunk without an end lasts to the waveform's end."""
        end = length / SAMPLE_RATE
        chunks = None
        if self.timestamps != "none":
            chunks = tuple(
                Chunk(text=text, start=min(start or 0.0, end), end=min(end if stop is None else stop, end))
                for text, (start, stop) in ((c["text"].strip(), c["timestamp"]) for c in output["chunks"])
                if text
            )
        return Transcript(text=" ".join(output["text"].split()), language=code, chunks=chunks)


class CtcDecoder(Decoder):
    """CTC models (wav2vec2, HuBERT, MMS with its adapters): the best token of each frame.

    The pipeline decodes longer audio than the window in overlapping pieces.
    """

    accepted_timestamps = ("none", "word")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # MMS has an adapter and an alphabet for each language
        self._adapts = getattr(self.model.config, "adapter_attn_dim", None) is not None
        if self._adapts:
            self.languages = set(self.pipe.tokenizer.vocab)

    def adapter(self, code: str | None) -> str:
        """The language, if each has its adapter."""
        return (code or "") if self._adapts else ""

    @property
    def rows_alone(self) -> bool:
        """True for more models than in the base class: those that do not give a row's number of frames."""
        return super().rows_alone or not hasattr(self.model, "_get_feat_extract_output_lengths")

    def decode(self, waves: list[np.ndarray], codes: list[str | None]) -> list[Transcript]:
        """Transcripts of waveforms `[s]`."""
        if self._adapts and codes[0] is not None:
            if codes[0] != self.model.target_lang:
                self.model.load_adapter(codes[0])
            self.pipe.tokenizer.set_target_lang(codes[0])
        if len(waves[-1]) > self.window:  # alone in its batch
            wanted = None if self.timestamps == "none" else self.timestamps
            output = self.pipe(waves[0], chunk_length_s=30.0, return_timestamps=wanted)
            return [self._from_pipeline(output, codes[0], len(waves[0]))]
        inputs = self._inputs(waves, padding=True, return_attention_mask=not self.rows_alone)
        tokens = self.model(**inputs).logits.argmax(-1)  # [b, f]
        if not self.rows_alone:
            lengths = torch.tensor([len(wave) for wave in waves])
            frames = self.model._get_feat_extract_output_lengths(lengths).tolist()
            tokens = [row[:count] for row, count in zip(tokens, frames, strict=True)]
        return [self._transcript(*row) for row in zip(tokens, codes, map(len, waves), strict=True)]


class Seq2SeqDecoder(Decoder):
    """Encoder-decoder models (Moonshine, Speech2Text): beam search, with a token limit by duration."""

    longest = 30.0

    def decode(self, waves: list[np.ndarray], codes: list[str | None]) -> list[Transcript]:
        """Transcripts of waveforms `[s]`."""
        inputs = self._inputs(waves, padding=True, return_attention_mask=True)
        tokens = self.model.generate(
            **inputs, num_beams=self.num_beams, max_new_tokens=self._most_tokens(waves)
        )
        return [
            self._transcript(row[: 1 + self._most_tokens([wave])], code, len(wave))
            for row, code, wave in zip(tokens, codes, waves, strict=True)
        ]

    def _most_tokens(self, waves: Sequence[np.ndarray]) -> int:
        """Token limit of the longest waveform."""
        config = self.model.config
        limit = getattr(config, "max_target_positions", None) or config.max_position_embeddings
        seconds = max(len(wave) for wave in waves) / SAMPLE_RATE
        return min(_EXTRA_TOKENS + math.ceil(_TOKENS_PER_SECOND * seconds), limit - 8)  # 8: the prompt
