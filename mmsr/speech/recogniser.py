"""Speech recognition with any recogniser of transformers.

waveforms [s], languages ─► sorted by length ─► batches ─► Decoder of the model's kind ─► transcripts
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCTC, AutoModelForSpeechSeq2Seq, AutoProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING, MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING
from transformers.pipelines import AutomaticSpeechRecognitionPipeline
from transformers.utils import logging as transformers_logging

from mmsr.data.features.store import encoder_fingerprint
from mmsr.files import settings_fingerprint
from mmsr.languages import UNDETERMINED, language_code
from mmsr.records import SAMPLE_RATE
from mmsr.speech.cleaning import cleaned
from mmsr.speech.decoder import CtcDecoder, Decoder, Seq2SeqDecoder, Timestamps, Transcript
from mmsr.speech.timing import at_pauses
from mmsr.speech.whisper import WhisperDecoder

DECODERS: dict[str, type[Decoder]] = {
    "ctc": CtcDecoder,
    "seq2seq": Seq2SeqDecoder,
    "seq2seq_whisper": WhisperDecoder,
}
"""By the type of transformers' pipeline."""

# Samples this small (-80 dB of full scale) hold no speech, but Whisper writes "you".
_SILENCE = 1e-4


class Transcriber:
    """A recogniser as a callable from 16 kHz waveforms to texts.

    It takes Whisper, other encoder-decoders (Moonshine, Speech2Text ...) and CTC models (wav2vec2, HuBERT,
    MMS with its adapters ...) of transformers. Batches hold rows of similar length. A row's text does not
    depend on the others: if padding would change it, rows run one at a time. The text of silence is empty,
    and annotations ("[BLANK_AUDIO]") and loops are no words (see `mmsr.speech.cleaning`).

    Args:
        model: Folder or Hub id of a recogniser.
        language: Language of every waveform, as a code such as `en` or `zh-CN`, or a name; None to detect it
            if the model can.
        timestamps: Times of each `segment` or `word`. CTC models have words, Whisper has both, and other
            encoder-decoders have neither. `auto` is `word` where the model has them, else `none`.
        batch_size: Waveforms in a batch.
        num_beams: Beams of encoder-decoders.
        dtype: Precision; `auto` is bfloat16 if the device supports it, else float32.
        device: Such as `cpu` or `cuda:0`; by default the first accelerator.

    Raises:
        ValueError: The model cannot be read or is no recogniser, or lacks the language or timestamps.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        language: str | None = None,
        timestamps: Timestamps | Literal["auto"] = "none",
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
        self.language = language
        place = device or str(torch.accelerator.current_accelerator(check_available=True) or "cpu")
        pipe = load_recogniser(self.name, torch.device(place), dtype)
        decoder_class = DECODERS[pipe.type]
        if timestamps == "auto":
            timestamps = "word" if "word" in decoder_class.accepted_timestamps else "none"
        self.timestamps: Timestamps = timestamps
        if timestamps not in decoder_class.accepted_timestamps:
            raise ValueError(
                f"{self.name} ({pipe.model.config.model_type}) gives no timestamps by"
                f" {timestamps}; accepted: {', '.join(decoder_class.accepted_timestamps)}"
            )
        self._decoder = decoder_class(pipe, timestamps=timestamps, num_beams=num_beams)
        self.check_language(language)

    @property
    def longest(self) -> float:
        """Most seconds of a waveform; Whisper and CTC models take any length."""
        return self._decoder.longest

    @property
    def window_seconds(self) -> float | None:
        """Seconds that every waveform is padded to, if words are timed within them; None for other models."""
        fixed = isinstance(self._decoder, WhisperDecoder) and self.timestamps == "word"
        return self._decoder.window / SAMPLE_RATE if fixed else None

    @property
    def fingerprint(self) -> str:
        """Hash of the recogniser and of the options that can change its texts."""
        model = self._decoder.model
        made_by = {
            "weights": encoder_fingerprint(model),
            "generation": model.generation_config.to_dict() if model.can_generate() else None,
            "dtype": str(model.dtype),
            "timestamps": self.timestamps,
            "num_beams": self.num_beams,
            # of this package's decoding: 2 moves words to pauses, 3 to those that silero-vad finds
            "version": (3 if find_spec("silero_vad") else 2) if self.timestamps == "word" else 1,
        }
        return settings_fingerprint(made_by)

    def __call__(
        self, samples: Sequence[np.ndarray], languages: Sequence[str | None] | None = None
    ) -> list[str]:
        """Texts of waveforms `[s]` at 16 kHz, in order; arguments as in `transcribe`."""
        return [transcript.text for transcript in self.transcribe(samples, languages=languages)]

    def transcribe(
        self, samples: Sequence[np.ndarray], *, languages: Sequence[str | None] | None = None
    ) -> list[Transcript]:
        """Transcripts of waveforms `[s]` at 16 kHz, in order.

        Args:
            samples: The waveforms.
            languages: Language of each; None for the transcriber's own.

        Raises:
            ValueError: The model does not know a language, or the lengths differ.
        """
        spoken = [language or self.language for language in languages or [None] * len(samples)]
        if len(spoken) != len(samples):
            raise ValueError(f"{len(samples)} waveforms and {len(spoken)} languages; accepted: as many")
        codes = [self.check_language(language) for language in spoken]
        transcripts = {
            row: self._decoder.nothing(codes[row])
            for row, wave in enumerate(samples)
            if np.abs(wave).max(initial=0) < _SILENCE
        }
        order = sorted(
            set(range(len(samples))) - transcripts.keys(),
            key=lambda row: (self._decoder.adapter(codes[row]), len(samples[row]), row),
        )
        for rows in self._batches(order, samples, codes):
            waves = [samples[row] for row in rows]
            with torch.inference_mode(), _quiet():
                decoded = self._decoder.decode(waves, [codes[row] for row in rows])
            for row, wave, transcript in zip(rows, waves, map(cleaned, decoded), strict=True):
                if self.timestamps == "word":
                    transcript = replace(
                        transcript, chunks=at_pauses(transcript.chunks or (), wave, SAMPLE_RATE)
                    )
                transcripts[row] = transcript
        return [transcripts[row] for row in range(len(samples))]

    def check_language(self, language: str | None) -> str | None:
        """The model's code of a language; None if none is given, or `und`, or the model takes none.

        Raises:
            ValueError: The model does not know the language.
        """
        known = self._decoder.languages
        if language is None or not known or language_code(language) == UNDETERMINED:
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
        """Batches of sorted rows with one adapter; rows that are long or must not be padded are alone."""
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
    """Silence transformers, whose generation warns about its own internal calls."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def load_recogniser(model: str, device: torch.device, dtype: str) -> AutomaticSpeechRecognitionPipeline:
    """Load a recogniser, from a folder or Hub id, into transformers' pipeline.

    Raises:
        ValueError: The model cannot be read, is no recogniser, or takes another sampling rate.
    """
    transformers_logging.disable_progress_bar()
    accepted = "accepted: a folder or Hub id of a speech recogniser of transformers"
    if not os.path.exists(model) and (os.path.isabs(model) or model.startswith(".") or model.count("/") > 1):
        raise ValueError(f"{model}: no such folder; {accepted}")
    if not os.path.exists(model) and "/" not in model:  # the Hub would be asked for half a minute
        owned = f"a Hub id has an owner, such as openai/{model}"
        raise ValueError(f"{model}: no such folder, and {owned}; {accepted}")
    try:
        config = AutoConfig.from_pretrained(model)
        kind = next(
            auto
            for mapping, auto in (
                (MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING, AutoModelForSpeechSeq2Seq),
                (MODEL_FOR_CTC_MAPPING, AutoModelForCTC),
            )
            if type(config) in mapping
        )
        network = kind.from_pretrained(model, dtype=_precision(dtype, device)).eval()
        processor = AutoProcessor.from_pretrained(model)
    except StopIteration:
        raise ValueError(
            f"{model} is a {config.model_type}, which writes no transcripts; {accepted}"
        ) from None
    except Exception as error:  # a damaged folder raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"recogniser {model} cannot be read ({reason}); {accepted}") from error
    rate = processor.feature_extractor.sampling_rate
    if rate != SAMPLE_RATE:
        raise ValueError(f"{model} takes audio of {rate} Hz; accepted: recognisers of {SAMPLE_RATE} Hz")
    return AutomaticSpeechRecognitionPipeline(
        model=network,
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
        device=device,
    )


def _precision(dtype: str, device: torch.device) -> torch.dtype:
    if dtype != "auto":
        return getattr(torch, dtype)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    # a CPU without bfloat16 instructions emulates it, slower than float32
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = able.get("avx512_bf16") or able.get("amx_bf16") or able.get("arm_bf16")
    return torch.bfloat16 if device.type == "cpu" and fast else torch.float32
