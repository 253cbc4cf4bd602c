"""Where a model looks: the fusion's attention as weights of words, and of stretches of the audio.

One utterance at a time, since it is for a person to look at, and so nothing is padded. What a fusion's
weights are weights of, its class says in `attention_map`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from mmsr.model.fusion import FUSION_CLASSES
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor

LOOKING_FUSIONS = tuple(name for name, fusion in FUSION_CLASSES.items() if hasattr(fusion, "attention_map"))
"""The fusions that have attention; the others sum, gate or concatenate."""

Look = tuple[tuple[str, ...], tuple[str, ...]]  # of what the queries are, and the keys
WORDS_AT_FRAMES: Look = (("text",), ("audio",))
FRAMES_AT_WORDS: Look = (("audio",), ("text",))


def looks(fusion: str) -> tuple[Look, ...]:
    """What queries and keys of each of a fusion's weights are, as its class says; none without attention."""
    return getattr(FUSION_CLASSES[fusion], "attention_map", ())


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Fusion attention that returns its weights, as no other implementation does, while the block runs.

    Encoders and decoder keep theirs, which not all of them could be given back.
    """
    implementation = model.config._attn_implementation
    model.set_attn_implementation({"": "eager"})
    try:
        yield
    finally:
        model.set_attn_implementation({"": implementation})


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
    """How queries spread over each modality, in the fusion's last layer, mean over heads.

    The queries are the other modality's; both modalities' where they are one sequence; or the latent tokens,
    where the modalities meet in those alone.

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
    if not looks(fusion):
        known = ", ".join(name for name in FUSION_CLASSES if looks(name))
        raise ValueError(
            f"attention=True, but fusion={fusion!r} has none; accepted: a model with fusion {known}"
        )
    inputs = processor(
        audio=None if audio is None else [audio], text=None if text is None else [text], return_tensors="pt"
    ).to(model.device)
    layer = [weights[0].float().mean(0).cpu() for weights in last_layer(model, inputs)]
    words: list[tuple[str, list[int]]] = [] if text is None else processor.word_tokens(text)
    spoken = [position for _, positions in words for position in positions]
    lengths = {"text": 1 if text is None else inputs["input_ids"].shape[1]}
    lengths["latents"] = model.config.fusion_bottlenecks
    over = {name: _over(name, layer, looks(fusion), lengths, spoken) for name in ("text", "audio")}
    over_text, over_audio = over["text"], over["audio"]
    found: dict[str, list[dict[str, Any]] | None] = {"words": None, "audio": None}
    if words and over_text is not None:
        weights = torch.stack([over_text[positions].sum() for _, positions in words])
        shares = (weights / weights.sum()).tolist()
        found["words"] = [
            {"word": word, "weight": share} for (word, _), share in zip(words, shares, strict=True)
        ]
    if audio is not None and over_audio is not None:
        shares = (over_audio / over_audio.sum()).tolist()
        frame = len(audio) / model.config.sampling_rate / len(shares)  # seconds
        found["audio"] = [
            {"start": round(i * frame, 4), "end": round((i + 1) * frame, 4), "weight": share}
            for i, share in enumerate(shares)
        ]
    return found


def _over(
    modality: str, layer: list[Tensor], looks: tuple[Look, ...], lengths: dict[str, int], spoken: list[int]
) -> Tensor | None:
    """Weights of a modality's positions `[n]`, a mean over the queries; None where nothing looks there.

    Of a text's queries those of words count, `spoken`; where there are latent tokens, theirs alone.
    """
    found = []
    for weights, (queries, keys) in zip(layer, looks, strict=True):
        if modality not in keys:
            continue
        over = _sections(weights.T, keys, lengths)[modality].T  # [q, n]
        of = _sections(over, queries, lengths)
        if "latents" in of:
            over = of["latents"]
        elif queries == ("text",) and spoken:
            over = over[spoken]
        found.append(over.mean(0))
    return torch.stack(found).mean(0) if found else None


def _sections(rows: Tensor, parts: tuple[str, ...], lengths: dict[str, int]) -> dict[str, Tensor]:
    """Rows `[n, ...]` of what stands one after the other, by name; the audio is as long as is left."""
    rest = len(rows) - sum(lengths[part] for part in parts if part != "audio")
    sizes = [lengths.get(part, rest) for part in parts]
    return dict(zip(parts, rows.split(sizes), strict=True))
