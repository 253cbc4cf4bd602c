"""Whisper: languages, silence, loops, timestamps, and recordings longer than its window."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mmsr.speech.decoder import Transcript
from mmsr.speech.seq2seq import Seq2SeqDecoder

# Whisper's own thresholds (Radford et al. 2022, section 4.5): text that compresses better than this is a
# loop; and where the model expects no speech and is unsure of each token that it wrote, there was none.
_LOOP = 2.4
_NO_SPEECH = 0.6
_UNSURE = -1.0
# What it writes for sounds that are no words: "[BLANK_AUDIO]", "(gentle music)".
_ANNOTATION = re.compile(r"[\[(][^\])]*[\])]")
_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
# `_LOOP` for transformers, which compresses token numbers and not letters.
_LOOP_OF_TOKENS = 1.35


class WhisperDecoder(Seq2SeqDecoder):
    """Up to 30 s at once, longer audio by Whisper's own long-form algorithm.

    Loops are decoded again at rising temperatures (seeded), and what Whisper writes where it expects no
    speech becomes empty.
    """

    accepted_timestamps = ("none", "segment", "word")
    longest = float("inf")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        generation = self.model.generation_config
        self.languages = {token.strip("<|>") for token in getattr(generation, "lang_to_id", None) or {}}
        if self.timestamps == "word":
            if not hasattr(generation, "alignment_heads"):
                # As OpenAI's own code does for a model whose heads nobody has examined.
                layers, heads = self.model.config.decoder_layers, self.model.config.decoder_attention_heads
                generation.alignment_heads = [
                    [layer, head] for layer in range(layers // 2, layers) for head in range(heads)
                ]
            self.model.set_attn_implementation("eager")  # the only one that returns its weights

    def decode(self, waves: list[np.ndarray], codes: list[str | None]) -> list[Transcript]:
        """Transcripts of waveforms `[s]`."""
        if len(waves[-1]) > self.window:
            return [self._decode_long(wave, code) for wave, code in zip(waves, codes, strict=True)]
        return self._decode_window(waves, codes)

    def _decode_window(self, waves: list[np.ndarray], codes: list[str | None]) -> list[Transcript]:
        """Rows of up to 30 s: the encoder once, then language and odds of silence, then the words.

        The window is always the full 30 s: in one cut to the clips' length Whisper does not stop, but says
        the same words again and again.
        """
        inputs = self._inputs(waves, return_attention_mask=True)
        encoded = self.model.get_encoder()(inputs["input_features"])
        spoken, silence = self._first_step(encoded, codes)
        options: dict[str, Any] = {"max_new_tokens": self._most_tokens(waves)}
        options["force_unique_generate_call"] = True  # else it goes on after the last word, into the padding
        answer = self.model.generate(
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
        prompt = 1 + 2 * bool(self.languages) + (self.timestamps == "none")
        transcripts = []
        for row, wave in enumerate(waves):
            kept = slice(prompt, prompt + limits[row])
            times = answer["token_timestamps"][row, kept] if self.timestamps == "word" else None
            tokens = answer["sequences"][row, kept]
            transcripts.append(self._transcript(tokens, spoken[row], len(wave), times=times))
            unsaid = sure[row] < _UNSURE or _ANNOTATION.fullmatch(transcripts[row].text)
            if silence[row] > _NO_SPEECH and unsaid:
                transcripts[row] = self.nothing(spoken[row])
            elif is_loop(transcripts[row].text):
                alone = {name: tensor[row : row + 1] for name, tensor in inputs.items()}
                options["max_new_tokens"] = limits[row]
                transcripts[row] = self._decode_hot(
                    alone, spoken[row], len(wave), _TEMPERATURES[1:], **options
                )
        return transcripts

    def _decode_long(self, wave: np.ndarray, code: str | None) -> Transcript:
        """One row beyond 30 s, window by window from timestamp to timestamp (Radford et al., section 3.8)."""
        start = self._inputs([wave[: self.window]])["input_features"]
        (spoken,), _ = self._first_step(self.model.get_encoder()(start), [code])
        inputs = self._inputs([wave], truncation=False, padding="longest", return_attention_mask=True)
        options = {"return_timestamps": True, "no_speech_threshold": _NO_SPEECH}
        return self._decode_hot(inputs, spoken, len(wave), _TEMPERATURES, **options)

    def _decode_hot(
        self,
        inputs: Mapping[str, torch.Tensor],
        code: str | None,
        length: int,
        temperatures: tuple[float, ...],
        **options: Any,
    ) -> Transcript:
        """One row by Whisper's own fallback: what loops or is unsure is sampled again, hotter each time."""
        with torch.random.fork_rng():
            torch.manual_seed(0)  # the same text each time, whatever was decoded before
            answer = self.model.generate(
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
            return self.nothing(code)
        tokens = torch.cat([segment["tokens"] for segment in segments])
        if self.timestamps == "word":
            times = torch.cat([segment["token_timestamps"] for segment in segments])
            return self._transcript(tokens, code, length, times=times)
        texts = [
            self.pipe.tokenizer.decode(segment["tokens"], skip_special_tokens=True) for segment in segments
        ]
        spans = [(float(segment["start"]), float(segment["end"])) for segment in segments]
        chunks = [{"text": text, "timestamp": span} for text, span in zip(texts, spans, strict=True)]
        return self._answer({"text": "".join(texts), "chunks": chunks}, code, length)

    def _speech(self, codes: Sequence[str | None]) -> dict[str, Any]:
        """Arguments of generation for language, task and timestamps."""
        words = self.timestamps == "word"
        options = {"return_timestamps": self.timestamps != "none", "return_token_timestamps": words or None}
        if not self.languages:  # English alone
            return options
        return options | {"language": [f"<|{code}|>" for code in codes], "task": "transcribe"}

    def _first_step(self, encoded: Any, codes: list[str | None]) -> tuple[list[str | None], list[float]]:
        """Languages, detected where not given, and probabilities of silence, from one decoder step."""
        generation = self.model.generation_config
        start = torch.full((len(codes), 1), generation.decoder_start_token_id, device=self.model.device)
        logits = self.model(encoder_outputs=encoded, decoder_input_ids=start, use_cache=False).logits[:, -1]
        # The token before <|notimestamps|>: <|nospeech|>, or <|nocaptions|> as it was called once.
        silence = logits.float().softmax(-1)[:, generation.no_timestamps_token_id - 1].tolist()
        if not self.languages:
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
        chosen = self.model.compute_transition_scores(
            answer["sequences"], answer["scores"], normalize_logits=True
        )
        end = tokens == self.model.generation_config.eos_token_id
        real = end.cumsum(-1) - end.long() == 0  # to the first end
        real &= torch.arange(steps, device=real.device) < torch.tensor(limits, device=real.device)[:, None]
        return ((chosen * real).sum(-1) / real.sum(-1)).tolist()


def is_loop(text: str) -> bool:
    """Whether a text repeats itself, as Whisper's do where it loses its place."""
    content = text.encode()
    return len(content) / len(zlib.compress(content)) > _LOOP
