"""Encoder-decoder recognisers: Moonshine, Speech2Text and the like."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mmsr.speech.decoder import RATE, Decoder, Transcript

# Most tokens that a second of speech takes (most in Vietnamese and Chinese, of which Whisper writes each
# byte), and what a clip gets on top of it: more is a loop.
_TOKENS_PER_SECOND = 20
_TOKENS_ON_TOP = 16


class Seq2SeqDecoder(Decoder):
    """Beam search, of no more tokens than the length of the audio can hold."""

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
        """Most tokens of the longest of the waveforms."""
        config = self.model.config
        limit = getattr(config, "max_target_positions", None) or config.max_position_embeddings
        seconds = max(len(wave) for wave in waves) / RATE
        return min(_TOKENS_ON_TOP + math.ceil(_TOKENS_PER_SECOND * seconds), limit - 8)  # beside its prompt
