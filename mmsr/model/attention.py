"""Where a model looks: the fusion's attention as weights of words, and of stretches of the audio.

One utterance at a time, since it is for a person to look at, and so nothing is padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor

LOOKING_FUSIONS = ("cross_attention", "audio_to_text", "text_to_audio", "merged", "bottleneck")
"""The fusions that have attention; the others sum, gate or concatenate."""


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Attention that returns its weights, as no other implementation does, for as long as the block runs."""
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(implementation)


@torch.inference_mode()
def last_layer(model: MmsrForSentimentReasoning, inputs: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Weights of the fusion's last layer for a batch of the processor's, as the fusion's docstring says."""
    with eager_attention(model):
        memory = model.encoder(**inputs, output_attentions=True, return_dict=True)
    layer: tuple[Tensor, ...] = memory.fusion_attentions[-1]
    return layer


def fusion_attention(
    model: MmsrForSentimentReasoning,
    processor: MmsrProcessor,
    *,
    audio: np.ndarray | None,
    text: str | None,
) -> dict[str, list[dict[str, Any]] | None]:
    """How one modality's queries spread over the other, in the fusion's last layer, mean over heads.

    Neither tokens without words (`<s>`, a prefix) nor their queries count. An absent modality queries with
    its learned state.

    Args:
        model: one whose fusion has attention.
        processor: the model's.
        audio: waveform `[s]`, or None.
        text: transcript, or None.

    Returns:
        `words`, a list of `{"word", "weight"}` in order, and `audio`, a list of `{"start", "end", "weight"}`
        of each frame (seconds). Each list's weights sum to 1; None where the utterance lacks the modality or
        nothing in this fusion looks there.

    Raises:
        ValueError: the fusion has no attention.
    """
    fusion = model.config.fusion
    if fusion not in LOOKING_FUSIONS:
        raise ValueError(
            f"attention=True, but fusion={fusion!r} has none; accepted: a model with fusion "
            + ", ".join(LOOKING_FUSIONS)
        )
    inputs = processor(
        audio=None if audio is None else [audio], text=None if text is None else [text], return_tensors="pt"
    ).to(model.device)
    layer = [weights[0].float().mean(0).cpu() for weights in last_layer(model, inputs)]
    tokens = 1 if text is None else inputs["input_ids"].shape[1]
    over_text, over_audio = _by_modality(fusion, layer, tokens, model.config.fusion_bottlenecks)
    words: list[tuple[str, list[int]]] = [] if text is None else processor.word_tokens(text)
    if over_audio is not None and words and fusion in ("cross_attention", "audio_to_text"):
        over_audio = over_audio[[position for _, positions in words for position in positions]]
    found: dict[str, list[dict[str, Any]] | None] = {"words": None, "audio": None}
    if words and over_text is not None:
        each = over_text.mean(0)
        weights = torch.stack([each[positions].sum() for _, positions in words])
        shares = (weights / weights.sum()).tolist()
        found["words"] = [
            {"word": word, "weight": share} for (word, _), share in zip(words, shares, strict=True)
        ]
    if audio is not None and over_audio is not None:
        weights = over_audio.mean(0)
        shares = (weights / weights.sum()).tolist()
        frame = len(audio) / model.config.sampling_rate / len(shares)  # seconds
        found["audio"] = [
            {"start": round(i * frame, 4), "end": round((i + 1) * frame, 4), "weight": share}
            for i, share in enumerate(shares)
        ]
    return found


def _by_modality(
    fusion: str, layer: list[Tensor], tokens: int, latents: int
) -> tuple[Tensor | None, Tensor | None]:
    """A layer's weights -> those over the text `[queries, t]` and over the audio `[queries, f]`."""
    if fusion == "cross_attention":
        return layer[1], layer[0]
    if fusion == "audio_to_text":
        return None, layer[0]
    if fusion == "text_to_audio":
        return layer[0], None
    if fusion == "merged":
        frames = layer[0].shape[1] - tokens
        return layer[0][:, frames:], layer[0][:, :frames]
    # bottleneck: what its latent tokens, the last of each, take from each modality
    return layer[0][-latents:, :-latents], layer[1][-latents:, :-latents]
