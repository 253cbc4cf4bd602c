"""CTC recognisers: wav2vec2, HuBERT, MMS with its adapters, and the like."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mmsr.speech.decoder import Decoder, Transcript


class CtcDecoder(Decoder):
    """The best token of each frame; audio longer than the window in the pipeline's overlapping pieces."""

    accepted_timestamps = ("none", "word")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # MMS has an adapter and an alphabet for each language.
        self._adapts = getattr(self.model.config, "adapter_attn_dim", None) is not None
        if self._adapts:
            self.languages = set(self.pipe.tokenizer.vocab)

    def adapter(self, code: str | None) -> str:
        """The language, where each has its adapter."""
        return (code or "") if self._adapts else ""

    @property
    def rows_alone(self) -> bool:
        """As for every recogniser, and if the model does not give a row's number of frames."""
        return super().rows_alone or not hasattr(self.model, "_get_feat_extract_output_lengths")

    def decode(self, waves: list[np.ndarray], codes: list[str | None]) -> list[Transcript]:
        """Transcripts of waveforms `[s]`."""
        if self._adapts and codes[0] is not None:
            if codes[0] != self.model.target_lang:
                self.model.load_adapter(codes[0])
            self.pipe.tokenizer.set_target_lang(codes[0])
        if len(waves[-1]) > self.window:  # alone in its batch
            wanted = None if self.timestamps == "none" else self.timestamps
            answer = self.pipe(waves[0], chunk_length_s=30.0, return_timestamps=wanted)
            return [self._answer(answer, codes[0], len(waves[0]))]
        inputs = self._inputs(waves, padding=True, return_attention_mask=not self.rows_alone)
        tokens = self.model(**inputs).logits.argmax(-1)  # [b, f]
        if not self.rows_alone:
            lengths = torch.tensor([len(wave) for wave in waves])
            frames = self.model._get_feat_extract_output_lengths(lengths).tolist()
            tokens = [row[:count] for row, count in zip(tokens, frames, strict=True)]
        return [self._transcript(*row) for row in zip(tokens, codes, map(len, waves), strict=True)]
