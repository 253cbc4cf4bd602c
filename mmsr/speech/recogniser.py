"""Speech recognition at work: any transformers recogniser over waveforms, and over a manifest, resumably.

    manifest ─► issues, digests ─► rows not in the journal, sorted by length ─► batches ─► `Transcriber`
                                                                                              │
    copy of the manifest with `asr_text`, OUT.words.jsonl ◄── OUT.journal.jsonl ◄─────────────┘

The journal gets a line for each utterance as soon as its batch is done, under a key made of the audio's
samples, the recogniser's weights, the language and the options. So a killed run, started again, hears nothing
twice, nor does a run over the same audio in another order or in a grown manifest. It is kept beside the
output for that; to delete it costs time and nothing else.

This stands above the rooms. Nothing that predicts imports it: what needs words is given a `Transcriber`,
which is a callable from waveforms to texts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCTC, AutoModelForSpeechSeq2Seq, AutoProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING, MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING
from transformers.pipelines import AutomaticSpeechRecognitionPipeline

from mmsr.data.features.store import encoder_fingerprint
from mmsr.languages import language_code

logger = logging.getLogger(__name__)

Timestamps = Literal["none", "segment", "word"]

RATE = 16_000  # Hz, of what is heard
# Most tokens that a second of speech can take (Vietnamese and Chinese in Whisper's alphabet of bytes are the
# dearest), and what a short clip gets on top: more than this is a loop.
_TOKENS_A_SECOND = 20
_TOKENS_MORE = 16
# Whisper's own thresholds (Radford et al. 2022, section 4.5): what compresses better than this is a loop; and
# where the model expects no speech and is unsure of each word that it wrote, there was none.
_LOOP = 2.4
_NO_SPEECH = 0.6
_UNSURE = -1.0
# What it writes for sounds that are no words: "[BLANK_AUDIO]", "(gentle music)".
_ANNOTATION = re.compile(r"[\[(][^\])]*[\])]")
# No word can be heard in samples this small (-80 dB of full scale), yet Whisper hears "you".
_SILENCE = 1e-4
_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
# The same for transformers, which compresses token numbers and not letters.
_LOOP_OF_TOKENS = 1.35


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A word or segment of a transcript, from `start` to `end` in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """What a recogniser heard in one waveform.

    Attributes:
        text: The words, empty where there was no speech.
        language: Given or detected, as the recogniser calls it; None where it knows of none.
        chunks: Words or segments in time, as `Transcriber.timestamps` says; None for `none`.
    """

    text: str
    language: str | None
    chunks: tuple[Chunk, ...] | None


class Transcriber:
    """A recogniser: waveforms at 16 kHz in, texts out; a callable for whatever needs words for audio.

    Whisper (every size), other encoder-decoders (Moonshine, Speech2Text ...) and CTC models (wav2vec2,
    HuBERT, MMS with its adapters ...) of transformers. Rows of like length run together, and a row's text
    does not depend on its company: models whose front end reads padding run one row at a time.

    Whisper hears up to 30 s in one go and longer audio by its own long-form algorithm. Loops are decoded
    again at rising temperatures (seeded), and what it makes up where it expects no speech becomes empty, as
    does silence for every model.

    Args:
        model: Folder or Hub id of a recogniser.
        language: Of every waveform; None to detect it where the model can. Codes such as `en` or `zh-CN`.
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
        self._pipe: Any = _load(self.name, torch.device(place), dtype)
        self._kind = self._pipe.type
        self._model: Any = self._pipe.model
        self._languages = self._known_languages()
        self._check_timestamps()
        self.check_language(language)

    @property
    def fingerprint(self) -> str:
        """Identify the recogniser and its options, but those that do not change what is written."""
        made_by = {
            "weights": encoder_fingerprint(self._model),
            "generation": self._model.generation_config.to_dict() if self._model.can_generate() else None,
            "dtype": str(self._model.dtype),
            "timestamps": self.timestamps,
            "num_beams": self.num_beams,
            "version": 1,  # of this module's way to use a model
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
        order = sorted(range(len(samples)), key=lambda row: (self._group(codes[row]), len(samples[row])))
        silent = {row for row in order if np.abs(samples[row]).max(initial=0) < _SILENCE}
        heard = {row: self._nothing(codes[row]) for row in silent}
        order = [row for row in order if row not in silent]
        for rows in self._batches(order, samples, codes):
            waves = [samples[row] for row in rows]
            with torch.inference_mode(), _quiet():
                transcripts = self._hear(waves, [codes[row] for row in rows])
            heard.update(zip(rows, transcripts, strict=True))
        return [heard[row] for row in range(len(samples))]

    def check_language(self, language: str | None) -> str | None:
        """A language as the model calls it, None where it is not told or knows of none.

        Raises:
            ValueError: The model knows languages and this is none of them.
        """
        if language is None or not self._languages:
            return None
        if language in self._languages:
            return language
        found = [known for known in self._languages if language_code(known) == language_code(language)]
        if len(found) != 1:
            shown = ", ".join((found or sorted(self._languages))[:120])
            raise ValueError(f"{self.name} does not know the language {language!r}; accepted: {shown}")
        return found[0]

    # ------------------------------------------------------------------ what a model can do

    @property
    def _adapts(self) -> bool:
        """Whether a model has one adapter, and one alphabet, for each language (MMS)."""
        return getattr(self._model.config, "adapter_attn_dim", None) is not None

    @property
    def _alone(self) -> bool:
        """Whether rows run one at a time, since the front end reads padding too.

        That is one with group norm (Moonshine, wav2vec2-base), and one that does not tell its frames.
        """
        config, network = self._model.config, self._model
        by_frames = hasattr(network, "_get_feat_extract_output_lengths")
        return (
            config.model_type == "moonshine"
            or getattr(config, "feat_extract_norm", None) == "group"
            or (self._kind == "ctc" and not by_frames)
        )

    @property
    def longest(self) -> float:
        """Most seconds of a waveform: Whisper and CTC models hear any length piece by piece."""
        return 30.0 if self._kind == "seq2seq" else math.inf

    def _known_languages(self) -> set[str]:
        if self._kind == "seq2seq_whisper":
            ids = getattr(self._model.generation_config, "lang_to_id", None) or {}
            return {token.strip("<|>") for token in ids}
        return set(self._pipe.tokenizer.vocab) if self._adapts else set()

    def _check_timestamps(self) -> None:
        accepted = {
            "seq2seq_whisper": ("none", "segment", "word"),
            "ctc": ("none", "word"),
        }.get(self._kind, ("none",))
        if self.timestamps not in accepted:
            raise ValueError(
                f"{self.name} ({self._model.config.model_type}) gives no timestamps by"
                f" {self.timestamps}; accepted: {', '.join(accepted)}"
            )
        if self._kind == "seq2seq_whisper" and self.timestamps == "word":
            generation = self._model.generation_config
            if not hasattr(generation, "alignment_heads"):
                # As OpenAI's own code does for a model whose heads nobody has examined.
                layers, heads = self._model.config.decoder_layers, self._model.config.decoder_attention_heads
                generation.alignment_heads = [
                    [layer, head] for layer in range(layers // 2, layers) for head in range(heads)
                ]
            self._model.set_attn_implementation("eager")  # the only one that returns its weights

    # ------------------------------------------------------------------ batches

    def _group(self, code: str | None) -> str:
        return (code or "") if self._adapts else ""

    def _batches(
        self, order: Sequence[int], samples: Sequence[np.ndarray], codes: Sequence[str | None]
    ) -> Iterator[list[int]]:
        """Cut sorted rows into batches: of one adapter, and what is long or reads padding alone."""
        batch: list[int] = []
        for row in order:
            single = self._alone or len(samples[row]) > self._window
            other = bool(batch) and self._group(codes[row]) != self._group(codes[batch[-1]])
            if batch and (single or other or len(batch) == self.batch_size):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    @property
    def _window(self) -> int:
        """Most samples of a row in company: Whisper's 30 s; for others, as much."""
        return getattr(self._pipe.feature_extractor, "n_samples", 30 * RATE)

    def _hear(self, waves: list[np.ndarray], codes: list[str | None]) -> list[Transcript]:
        if self._kind == "ctc":
            return self._hear_ctc(waves, codes)
        if self._kind == "seq2seq":
            return self._hear_seq2seq(waves, codes)
        if len(waves[-1]) > self._window:
            return [self._hear_long(wave, code) for wave, code in zip(waves, codes, strict=True)]
        return self._hear_whisper(waves, codes)

    # ------------------------------------------------------------------ CTC, and encoder-decoders in general

    def _hear_ctc(self, waves: list[np.ndarray], codes: list[str | None]) -> list[Transcript]:
        if self._adapts and codes[0] is not None:  # a batch has one adapter
            if codes[0] != self._model.target_lang:
                self._model.load_adapter(codes[0])
            self._pipe.tokenizer.set_target_lang(codes[0])
        if (
            len(waves[-1]) > self._window
        ):  # alone in its batch: in overlapping pieces, as the pipeline does it
            wanted = None if self.timestamps == "none" else self.timestamps
            answer = self._pipe(waves[0], chunk_length_s=30.0, return_timestamps=wanted)
            return [self._answer(answer, codes[0], len(waves[0]))]
        inputs = self._inputs(waves, padding=True, return_attention_mask=not self._alone)
        tokens = self._model(**inputs).logits.argmax(-1)  # [b, f]
        if not self._alone:
            lengths = torch.tensor([len(wave) for wave in waves])
            frames = self._model._get_feat_extract_output_lengths(lengths).tolist()
            tokens = [row[:count] for row, count in zip(tokens, frames, strict=True)]
        return [self._transcript(*row) for row in zip(tokens, codes, map(len, waves), strict=True)]

    def _hear_seq2seq(self, waves: list[np.ndarray], codes: list[str | None]) -> list[Transcript]:
        inputs = self._inputs(waves, padding=True, return_attention_mask=True)
        tokens = self._model.generate(
            **inputs, num_beams=self.num_beams, max_new_tokens=self._most_tokens(waves)
        )
        return [
            self._transcript(row[: 1 + self._most_tokens([wave])], code, len(wave))
            for row, code, wave in zip(tokens, codes, waves, strict=True)
        ]

    def _most_tokens(self, waves: Sequence[np.ndarray]) -> int:
        """Most tokens of waveforms; what would take more is a loop."""
        config = self._model.config
        limit = getattr(config, "max_target_positions", None) or config.max_position_embeddings
        seconds = max(len(wave) for wave in waves) / RATE
        return min(_TOKENS_MORE + math.ceil(_TOKENS_A_SECOND * seconds), limit - 8)  # beside its prompt

    # ------------------------------------------------------------------ Whisper

    def _hear_whisper(self, waves: list[np.ndarray], codes: list[str | None]) -> list[Transcript]:
        """Rows of up to 30 s: the encoder once, then language and odds of silence, then the words.

        The window is always the full 30 s: in one cut to the clips' length Whisper does not stop, but says
        the same words again and again.
        """
        inputs = self._inputs(waves, return_attention_mask=True)
        encoded = self._model.get_encoder()(inputs["input_features"])
        spoken, silence = self._first_step(encoded, codes)
        options: dict[str, Any] = {"max_new_tokens": self._most_tokens(waves)}
        options["force_unique_generate_call"] = True  # else it goes on after the last word, into the padding
        answer = self._model.generate(
            encoder_outputs=encoded,
            attention_mask=inputs["attention_mask"],
            num_beams=self.num_beams,
            return_dict_in_generate=True,
            output_scores=True,
            **self._speech(spoken),
            **options,
        )
        # A row's own, so that a loop does not run on in the company of a longer row.
        limits = [self._most_tokens([wave]) for wave in waves]
        sure = self._mean_log_probabilities(answer, limits)
        # What generation was given: the start, language and task, and that there are no timestamps.
        prompt = 1 + 2 * bool(self._languages) + (self.timestamps == "none")
        heard = []
        for row, wave in enumerate(waves):
            kept = slice(prompt, prompt + limits[row])
            times = answer["token_timestamps"][row, kept] if self.timestamps == "word" else None
            tokens = answer["sequences"][row, kept]
            heard.append(self._transcript(tokens, spoken[row], len(wave), times=times))
            unsaid = sure[row] < _UNSURE or _ANNOTATION.fullmatch(heard[row].text)
            if silence[row] > _NO_SPEECH and unsaid:
                heard[row] = self._nothing(spoken[row])
            elif _loops(heard[row].text):
                one = {name: tensor[row : row + 1] for name, tensor in inputs.items()}
                options["max_new_tokens"] = limits[row]
                heard[row] = self._hear_hot(one, spoken[row], len(wave), _TEMPERATURES[1:], **options)
        return heard

    def _hear_long(self, wave: np.ndarray, code: str | None) -> Transcript:
        """One row beyond 30 s, window by window from timestamp to timestamp (Radford et al., section 3.8)."""
        start = self._inputs([wave[: self._window]])["input_features"]
        (spoken,), _ = self._first_step(self._model.get_encoder()(start), [code])
        inputs = self._inputs([wave], truncation=False, padding="longest", return_attention_mask=True)
        options = {"return_timestamps": True, "no_speech_threshold": _NO_SPEECH}
        return self._hear_hot(inputs, spoken, len(wave), _TEMPERATURES, **options)

    def _hear_hot(
        self,
        inputs: Mapping[str, torch.Tensor],
        code: str | None,
        length: int,
        temperatures: tuple[float, ...],
        **options: Any,
    ) -> Transcript:
        """One row by Whisper's own fallback: what loops or is unsure is sampled again, hotter each time."""
        with torch.random.fork_rng():
            torch.manual_seed(0)  # the same text each time, whatever was heard before
            answer = self._model.generate(
                **inputs,
                **self._speech([code]) | options,
                temperature=temperatures,
                compression_ratio_threshold=_LOOP_OF_TOKENS,
                logprob_threshold=_UNSURE,
                condition_on_prev_tokens=False,
                return_segments=True,
            )
        segments = answer["segments"][0]
        if not segments:
            return self._nothing(code)
        tokens = torch.cat([segment["tokens"] for segment in segments])
        if self.timestamps == "word":
            times = torch.cat([segment["token_timestamps"] for segment in segments])
            return self._transcript(tokens, code, length, times=times)
        texts = [
            self._pipe.tokenizer.decode(segment["tokens"], skip_special_tokens=True) for segment in segments
        ]
        spans = [(float(segment["start"]), float(segment["end"])) for segment in segments]
        chunks = [{"text": text, "timestamp": span} for text, span in zip(texts, spans, strict=True)]
        return self._answer({"text": "".join(texts), "chunks": chunks}, code, length)

    def _speech(self, codes: Sequence[str | None]) -> dict[str, Any]:
        """What generation is told of language, task and timestamps."""
        words = self.timestamps == "word"
        told = {"return_timestamps": self.timestamps != "none", "return_token_timestamps": words or None}
        if not self._languages:  # English alone
            return told
        return told | {"language": [f"<|{code}|>" for code in codes], "task": "transcribe"}

    def _first_step(self, encoded: Any, codes: list[str | None]) -> tuple[list[str | None], list[float]]:
        """One decoder step at the start token tells languages (where not given) and the odds of silence."""
        generation = self._model.generation_config
        start = torch.full((len(codes), 1), generation.decoder_start_token_id, device=self._model.device)
        logits = self._model(encoder_outputs=encoded, decoder_input_ids=start, use_cache=False).logits[:, -1]
        # The token before <|notimestamps|>: <|nospeech|>, or <|nocaptions|> as it was called once.
        silence = logits.float().softmax(-1)[:, generation.no_timestamps_token_id - 1].tolist()
        if not self._languages:
            return codes, silence
        names = list(generation.lang_to_id)
        best = logits[:, [generation.lang_to_id[name] for name in names]].argmax(-1).tolist()
        detected = [names[place].strip("<|>") for place in best]
        return [given or found for given, found in zip(codes, detected, strict=True)], silence

    def _mean_log_probabilities(self, answer: Mapping[str, Any], limits: Sequence[int]) -> list[float]:
        """How sure each row is of its tokens, the end's included."""
        if self.num_beams > 1:
            return answer["sequences_scores"].tolist()
        steps = len(answer["scores"])
        tokens = answer["sequences"][:, -steps:]
        chosen = self._model.compute_transition_scores(
            answer["sequences"], answer["scores"], normalize_logits=True
        )
        end = tokens == self._model.generation_config.eos_token_id
        real = end.cumsum(-1) - end.long() == 0  # to the first end
        real &= torch.arange(steps, device=real.device) < torch.tensor(limits, device=real.device)[:, None]
        return ((chosen * real).sum(-1) / real.sum(-1)).tolist()

    # ------------------------------------------------------------------ answers

    def _inputs(self, waves: list[np.ndarray], **options: Any) -> dict[str, torch.Tensor]:
        # A front end's convolutions need some samples, and a hundredth of a second holds no word.
        padded = [np.pad(wave, (0, max(0, RATE // 10 - len(wave)))) for wave in waves]
        inputs = self._pipe.feature_extractor(padded, sampling_rate=RATE, return_tensors="pt", **options)
        dtype = self._model.dtype
        return {
            name: tensor.to(self._model.device, dtype if tensor.is_floating_point() else None)
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
        return self._answer(self._pipe.postprocess([outputs], return_timestamps=wanted), code, length)

    def _answer(self, answer: Mapping[str, Any], code: str | None, length: int) -> Transcript:
        """A pipeline's answer; where a chunk has no end, the waveform's is its."""
        end = length / RATE
        chunks = None
        if self.timestamps != "none":
            chunks = tuple(
                Chunk(text=text, start=min(start or 0.0, end), end=min(end if stop is None else stop, end))
                for text, (start, stop) in ((c["text"].strip(), c["timestamp"]) for c in answer["chunks"])
                if text
            )
        return Transcript(text=" ".join(answer["text"].split()), language=code, chunks=chunks)

    def _nothing(self, code: str | None) -> Transcript:
        return Transcript(text="", language=code, chunks=None if self.timestamps == "none" else ())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what transformers' generation says of its own calls to itself, row by row."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _load(model: str, device: torch.device, dtype: str) -> AutomaticSpeechRecognitionPipeline:
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    accepted = "accepted: a folder or Hub id of a speech recogniser of transformers"
    if not os.path.exists(model) and (os.path.isabs(model) or model.startswith(".") or model.count("/") > 1):
        raise ValueError(f"{model}: no such folder; {accepted}")
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
    except Exception as error:  # a damaged folder makes transformers, safetensors and json raise all kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"recogniser {model} cannot be read ({reason}); {accepted}") from error
    rate = processor.feature_extractor.sampling_rate
    if rate != RATE:
        raise ValueError(f"{model} hears {rate} Hz; accepted: recognisers of {RATE} Hz")
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
    # Computed in bfloat16 by the processor itself; elsewhere it is emulated, and slower than float32.
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = able.get("avx512_bf16") or able.get("amx_bf16") or able.get("arm_bf16")
    return torch.bfloat16 if device.type == "cpu" and fast else torch.float32


def _loops(text: str) -> bool:
    content = text.encode()
    return len(content) / len(zlib.compress(content)) > _LOOP
