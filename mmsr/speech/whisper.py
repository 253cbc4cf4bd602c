"""Whisper: language detection, silence, loops, timestamps, and recordings longer than its window."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from mmsr.records import SAMPLE_RATE
from mmsr.speech.cleaning import has_words, is_annotation, is_loop
from mmsr.speech.decoder import Seq2SeqDecoder, Transcript

# Whisper's own thresholds (Radford et al. 2022, section 4.5): a row whose probability of no speech is above
# `_NO_SPEECH`, and whose mean log probability is below `_UNSURE`, is silence. So is one whose text is a loop.
_NO_SPEECH = 0.6
_UNSURE = -1.0
_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_TURNS = 3  # segments of one text, one after the other, that may be sampled from noise
# Heads whose attention follows the words, of the models that OpenAI published, by their decoder's layers and
# heads. Older checkpoints do not name theirs.
_ALIGNMENT_HEADS = {
    (4, 6): [[2, 2], [3, 0], [3, 2], [3, 3], [3, 4], [3, 5]],  # tiny
    (6, 8): [[3, 1], [4, 2], [4, 3], [4, 7], [5, 1], [5, 2], [5, 4], [5, 6]],  # base
    (12, 12): [[5, 3], [5, 9], [8, 0], [8, 4], [8, 7], [8, 8], [9, 0], [9, 7], [9, 9], [10, 5]],  # small
    (24, 16): [[13, 15], [15, 4], [15, 15], [16, 1], [20, 0], [23, 4]],  # medium
}
# The ratio of a loop for transformers, which compresses token numbers instead of letters
_LOOP_OF_TOKENS = 1.35


class WhisperDecoder(Seq2SeqDecoder):
    """Up to 30 s at once, longer audio by Whisper's own long-form algorithm.

    Loops are decoded again at rising temperatures (seeded), and text of silence is removed, as are segments
    of long audio that are an annotation, or a loop still.
    """

    accepted_timestamps = ("none", "segment", "word")
    longest = float("inf")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        generation = self.model.generation_config
        self.languages = {token.strip("<|>") for token in getattr(generation, "lang_to_id", None) or {}}
        if self.timestamps == "word":
            if not hasattr(generation, "alignment_heads"):
                layers, heads = self.model.config.decoder_layers, self.model.config.decoder_attention_heads
                upper = [[layer, head] for layer in range(layers // 2, layers) for head in range(heads)]
                # English models have other heads; OpenAI's own default are those of the upper half
                published = _ALIGNMENT_HEADS.get((layers, heads)) if self.languages else None
                generation.alignment_heads = published or upper
            self.model.set_attn_implementation("eager")  # the only one that returns its weights
            faster = copy.deepcopy(self.model.config)
            faster._attn_implementation = "sdpa"
            for part in self.model.get_encoder().modules():  # whose weights nobody asks for
                if hasattr(part, "config"):
                    part.config = faster

    def decode(self, waves: list[np.ndarray], codes: list[str | None]) -> list[Transcript]:
        """Transcripts of waveforms `[s]`."""
        if len(waves[-1]) > self.window:
            return [self._decode_long(wave, code) for wave, code in zip(waves, codes, strict=True)]
        return self._decode_window(waves, codes)

    def _decode_window(self, waves: list[np.ndarray], codes: list[str | None]) -> list[Transcript]:
        """Rows of up to 30 s: the encoder once, then language and probability of silence, then the words.

        The window is always the full 30 s: with a shorter one Whisper repeats the words without end.
        """
        inputs = self._inputs(waves, return_attention_mask=True)
        encoded = self.model.get_encoder()(inputs["input_features"])
        spoken, silence = self._first_step(encoded, codes)
        options: dict[str, Any] = {"max_new_tokens": self._most_tokens(waves)}
        options["force_unique_generate_call"] = True  # else it decodes the padding too
        answer = self.model.generate(
            encoder_outputs=encoded,
            attention_mask=inputs["attention_mask"],
            num_beams=self.num_beams,
            return_dict_in_generate=True,
            output_scores=True,
            **self._speech(spoken),
            **options,
        )
        # a row's own limit, so that a loop does not depend on the batch
        limits = [self._most_tokens([wave]) for wave in waves]
        sure = self._mean_log_probabilities(answer, limits)
        # the start token, language and task, and the token for no timestamps
        prompt = 1 + 2 * bool(self.languages) + (self.timestamps == "none")
        transcripts = []
        for row, wave in enumerate(waves):
            kept = slice(prompt, prompt + limits[row])
            times = answer["token_timestamps"][row, kept] if self.timestamps == "word" else None
            tokens = answer["sequences"][row, kept]
            transcripts.append(self._transcript(tokens, spoken[row], len(wave), times=times))
            text = transcripts[row].text
            loops = is_loop(text)
            if is_annotation(text) or (silence[row] > _NO_SPEECH and (loops or sure[row] < _UNSURE)):
                transcripts[row] = self.nothing(spoken[row])
            elif loops:
                alone = {name: tensor[row : row + 1] for name, tensor in inputs.items()}
                options["max_new_tokens"] = limits[row]
                transcripts[row] = self._sample(alone, spoken[row], len(wave), _TEMPERATURES[1:], **options)
        return transcripts

    def _transcript(self, tokens: torch.Tensor, code: str | None, *args: Any, **options: Any) -> Transcript:
        """As of other kinds; in languages without spaces each letter is a word."""
        self.pipe.tokenizer.language = LANGUAGES.get(code or "")
        return super()._transcript(tokens, code, *args, **options)

    def _decode_long(self, wave: np.ndarray, code: str | None) -> Transcript:
        """A row longer than 30 s, window by window (Radford et al. 2022, section 3.8)."""
        start = self._inputs([wave[: self.window]])["input_features"]
        (spoken,), _ = self._first_step(self.model.get_encoder()(start), [code])
        inputs = self._inputs([wave], truncation=False, padding="longest", return_attention_mask=True)
        options = {"return_timestamps": True, "no_speech_threshold": _NO_SPEECH}
        return self._sample(inputs, spoken, len(wave), _TEMPERATURES, wave, **options)

    def _without_noise(
        self, said: Sequence[tuple[Any, str]], wave: np.ndarray, code: str | None
    ) -> list[tuple[Any, str]]:
        """Segments with their texts, without those that repeat one text where there is likely no speech.

        What was sampled for noise may be likely enough for Whisper's own threshold.
        """
        kept: list[tuple[Any, str]] = []
        for _, group in groupby(said, lambda pair: pair[1].strip().casefold()):
            turns = list(group)
            if len(turns) >= _TURNS:
                start = round(SAMPLE_RATE * float(turns[0][0]["start"]))
                features = self._inputs([wave[start : start + self.window]])["input_features"]
                _, (silence,) = self._first_step(self.model.get_encoder()(features), [code])
                if silence > _NO_SPEECH:
                    continue
            kept += turns
        return kept

    def _sample(
        self,
        inputs: Mapping[str, torch.Tensor],
        code: str | None,
        length: int,
        temperatures: tuple[float, ...],
        wave: np.ndarray | None = None,
        **options: Any,
    ) -> Transcript:
        """A row by Whisper's own fallback: loops and unlikely texts are sampled at higher temperatures."""
        with torch.random.fork_rng():
            torch.manual_seed(0)  # the same text, whatever was decoded before
            answer = self.model.generate(
                **inputs,
                **self._speech([code]) | options,
                temperature=temperatures,
                compression_ratio_threshold=_LOOP_OF_TOKENS,
                logprob_threshold=_UNSURE,
                condition_on_prev_tokens=False,
                return_segments=True,
            )
        texts = [
            self.pipe.tokenizer.decode(segment["tokens"], skip_special_tokens=True)
            for segment in answer["segments"][0]
        ]
        said = [pair for pair in zip(answer["segments"][0], texts, strict=True) if has_words(pair[1])]
        if wave is not None:
            said = self._without_noise(said, wave, code)
        if not said:
            return self.nothing(code)
        if self.timestamps == "word":
            tokens = torch.cat([segment["tokens"] for segment, _ in said])
            times = [s["token_timestamps"].clamp(float(s["start"]), float(s["end"])) for s, _ in said]
            return self._transcript(tokens, code, length, times=torch.cat(times))
        chunks = [
            {"text": text, "timestamp": (float(segment["start"]), float(segment["end"]))}
            for segment, text in said
        ]
        text = "".join(chunk["text"] for chunk in chunks)
        return self._from_pipeline({"text": text, "chunks": chunks}, code, length)

    def _speech(self, codes: Sequence[str | None]) -> dict[str, Any]:
        """Arguments of generation for language, task and timestamps."""
        words = self.timestamps == "word"
        options = {"return_timestamps": self.timestamps != "none", "return_token_timestamps": words or None}
        if not self.languages:  # an English model
            return options
        return options | {"language": [f"<|{code}|>" for code in codes], "task": "transcribe"}

    def _first_step(self, encoded: Any, codes: list[str | None]) -> tuple[list[str | None], list[float]]:
        """Languages, detected if not given, and probabilities of silence, from one decoder step."""
        generation = self.model.generation_config
        start = torch.full((len(codes), 1), generation.decoder_start_token_id, device=self.model.device)
        logits = self.model(encoder_outputs=encoded, decoder_input_ids=start, use_cache=False).logits[:, -1]
        # the token before <|notimestamps|>: <|nospeech|>, or <|nocaptions|> in old models
        silence = logits.float().softmax(-1)[:, generation.no_timestamps_token_id - 1].tolist()
        if not self.languages:
            return codes, silence
        names = list(generation.lang_to_id)
        best = logits[:, [generation.lang_to_id[name] for name in names]].argmax(-1).tolist()
        detected = [names[place].strip("<|>") for place in best]
        return [given or found for given, found in zip(codes, detected, strict=True)], silence

    def _mean_log_probabilities(self, answer: Mapping[str, Any], limits: Sequence[int]) -> list[float]:
        """Mean log probability of each row's tokens, the end token included."""
        if self.num_beams > 1:
            return answer["sequences_scores"].tolist()
        steps = len(answer["scores"])
        tokens = answer["sequences"][:, -steps:]
        chosen = self.model.compute_transition_scores(
            answer["sequences"], answer["scores"], normalize_logits=True
        )
        end = tokens == self.model.generation_config.eos_token_id
        real = end.cumsum(-1) - end.long() == 0  # up to the first end token
        real &= torch.arange(steps, device=real.device) < torch.tensor(limits, device=real.device)[:, None]
        return ((chosen * real).sum(-1) / real.sum(-1)).tolist()
