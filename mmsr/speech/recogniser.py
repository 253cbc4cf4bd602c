"""Speech recognition with any recogniser of transformers.

    waveforms [s], languages ─► sorted by length ─► batches ─► Decoder of the model's kind ─► transcripts

Whatever needs a recogniser takes any callable from waveforms and languages to texts, such as a `Transcriber`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from mmsr.data.features.store import encoder_fingerprint
from mmsr.languages import language_code
from mmsr.speech.ctc import CtcDecoder
from mmsr.speech.decoder import Decoder, Timestamps, Transcript
from mmsr.speech.loading import load_recogniser
from mmsr.speech.seq2seq import Seq2SeqDecoder
from mmsr.speech.whisper import WhisperDecoder

logger = logging.getLogger(__name__)

DECODERS: dict[str, type[Decoder]] = {
    "ctc": CtcDecoder,
    "seq2seq": Seq2SeqDecoder,
    "seq2seq_whisper": WhisperDecoder,
}
"""By the kind that transformers' pipeline gives a recogniser."""

# No word can be heard in samples this small (-80 dB of full scale), yet Whisper writes "you".
_SILENCE = 1e-4


class Transcriber:
    """A recogniser as a callable: waveforms at 16 kHz in, texts out.

    It takes Whisper (every size), other encoder-decoders (Moonshine, Speech2Text ...) and CTC models
    (wav2vec2, HuBERT, MMS with its adapters ...) of transformers. Rows of like length run together, and a
    row's text does not depend on the others: models whose front end reads padding run one row at a time. The
    text of silence is empty.

    Args:
        model: Folder or Hub id of a recogniser.
        language: Of every waveform, a code such as `en` or `zh-CN` or a name; None to detect it where the
            model can.
        timestamps: Whether transcripts come with `segment`s or `word`s in time. CTC models have words;
            Whisper has both; other encoder-decoders have neither.
        batch_size: Waveforms at a time.
        num_beams: Beams of encoder-decoders.
        dtype: Precision; `auto` is bfloat16 where the device computes in it, and float32 elsewhere.
        device: Such as `cpu` or `cuda:0`; by default the first accelerator.

    Raises:
        ValueError: The model cannot be read or is no recogniser, or lacks what is asked for.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        language: str | None = None,
        timestamps: Timestamps = "none",
        batch_size: int = 8,
        num_beams: int = 1,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        device: str | None = None,
    ):
        for name, number in (("batch_size", batch_size), ("num_beams", num_beams)):
            if number < 1:
                raise ValueError(f"{name} is {number}; accepted: 1 and more")
        self.name = os.fspath(model)
        self.batch_size = batch_size
        self.num_beams = num_beams
        self.timestamps = timestamps
        self.language = language
        place = device or str(torch.accelerator.current_accelerator(check_available=True) or "cpu")
        pipe = load_recogniser(self.name, torch.device(place), dtype)
        decoder_class = DECODERS[pipe.type]
        if timestamps not in decoder_class.accepted_timestamps:
            raise ValueError(
                f"{self.name} ({pipe.model.config.model_type}) gives no timestamps by"
                f" {timestamps}; accepted: {', '.join(decoder_class.accepted_timestamps)}"
            )
        self._decoder = decoder_class(pipe, timestamps=timestamps, num_beams=num_beams)
        self.check_language(language)

    @property
    def longest(self) -> float:
        """Most seconds of a waveform; Whisper and CTC models take any length, piece by piece."""
        return self._decoder.longest

    @property
    def fingerprint(self) -> str:
        """Identifies the recogniser and the options that can change its texts."""
        model = self._decoder.model
        made_by = {
            "weights": encoder_fingerprint(model),
            "generation": model.generation_config.to_dict() if model.can_generate() else None,
            "dtype": str(model.dtype),
            "timestamps": self.timestamps,
            "num_beams": self.num_beams,
            "version": 1,  # of the way in which this package uses a model
        }
        return hashlib.sha256(json.dumps(made_by, sort_keys=True, default=str).encode()).hexdigest()

    def __call__(
        self, samples: Sequence[np.ndarray], languages: Sequence[str | None] | None = None
    ) -> list[str]:
        """Texts of waveforms `[s]` at 16 kHz, in their order; the arguments are those of `transcribe`."""
        return [transcript.text for transcript in self.transcribe(samples, languages=languages)]

    def transcribe(
        self, samples: Sequence[np.ndarray], *, languages: Sequence[str | None] | None = None
    ) -> list[Transcript]:
        """Transcripts of waveforms `[s]` at 16 kHz, in their order.

        Args:
            samples: The waveforms.
            languages: Language of each; None stands for the transcriber's own.

        Raises:
            ValueError: A language is none that the model knows, or the lengths differ.
        """
        spoken = [language or self.language for language in languages or [None] * len(samples)]
        if len(spoken) != len(samples):
            raise ValueError(f"{len(samples)} waveforms and {len(spoken)} languages; accepted: as many")
        codes = [self.check_language(language) for language in spoken]
        order = sorted(
            range(len(samples)), key=lambda row: (self._decoder.adapter(codes[row]), len(samples[row]))
        )
        silent = {row for row in order if np.abs(samples[row]).max(initial=0) < _SILENCE}
        transcripts = {row: self._decoder.nothing(codes[row]) for row in silent}
        order = [row for row in order if row not in silent]
        for rows in self._batches(order, samples, codes):
            waves = [samples[row] for row in rows]
            with torch.inference_mode(), _quiet():
                decoded = self._decoder.decode(waves, [codes[row] for row in rows])
            transcripts.update(zip(rows, decoded, strict=True))
        return [transcripts[row] for row in range(len(samples))]

    def check_language(self, language: str | None) -> str | None:
        """A language as the model calls it; None where it is not given, or the model knows of none.

        Raises:
            ValueError: The model knows languages and this is none of them.
        """
        known = self._decoder.languages
        if language is None or not known:
            return None
        if language in known:
            return language
        found = [code for code in known if language_code(code) == language_code(language)]
        if len(found) != 1:
            shown = ", ".join(sorted(found or known)[:120])
            raise ValueError(f"{self.name} does not know the language {language!r}; accepted: {shown}")
        return found[0]

    def _batches(
        self, order: Sequence[int], samples: Sequence[np.ndarray], codes: Sequence[str | None]
    ) -> Iterator[list[int]]:
        """Cut sorted rows into batches of one adapter; rows that are long or must not be padded are alone."""
        decoder = self._decoder
        batch: list[int] = []
        for row in order:
            alone = decoder.rows_alone or len(samples[row]) > decoder.window
            other = bool(batch) and decoder.adapter(codes[row]) != decoder.adapter(codes[batch[-1]])
            if batch and (alone or other or len(batch) == self.batch_size):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what transformers' generation logs of its own calls to itself, row by row."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
