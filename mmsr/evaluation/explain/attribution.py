"""Attribution: how much each word and each frame of an utterance counts for the answer.

    model, processor, audio, text ─┬─► a method of `ATTRIBUTIONS` ─► `Attribution`: weights of words, frames
                                   ├─► `attention_matrix` ─► the report's picture of attention
                                   └─► `saliency` ─────────► the report's picture of gradients

Utterances are taken one at a time, without padding. `MmsrProcessor.word_tokens` maps words to tokens, and the
fusion's `attention_map` tells what its attention weights connect. A new method is one function and one entry.

Notation used for tensor shapes: `s` samples, `f` audio frames, `t` text tokens, `q` queries, `h` heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from mmsr.evaluation.rationales import word_spans
from mmsr.extras import is_installed
from mmsr.model.fusion import AttentionMap, attention_map
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor, WordTokens
from mmsr.records import Attribute, AttributedFrame, AttributedWord, Attribution, Span

if TYPE_CHECKING:  # the reports take seconds to import
    from mmsr.evaluation.report.pictures import Attention, Saliency

Waveform = NDArray[np.float32]

_TEXT_TO_AUDIO = (("text",), ("audio",))  # queries, keys


# ---------------------------------------------------------------------- attention


def attention(
    model: MmsrForSentimentReasoning,
    processor: MmsrProcessor,
    *,
    audio: Waveform | None,
    text: str | None,
    words: Sequence[Span] | None = None,
    queries: Literal["tokens", "words"] = "tokens",
) -> Attribution:
    """Weigh words and frames by the attention that they get in the fusion's last layer.

    The weights are a mean over heads and over queries: those of the other modality; of both modalities where
    they are one sequence; of the latent tokens, where the modalities meet in those alone. An absent modality
    has its learned state as query.

    `audio` are samples `[s]`; `words`, by characters, are by default the processor's. With `queries="words"`
    the mean is over tokens of words only, without special tokens and the prefix. The weights add up to 1 over
    all tokens of a modality; a modality that nothing attends to has none.
    """
    kinds = attention_map(model.config.fusion)
    if not kinds:
        return Attribution()
    inputs = _inputs(model, processor, audio, text)
    layer = [weights[0].float().mean(0).cpu() for weights in last_layer(model, inputs)]
    tokens = [] if text is None else processor.word_tokens(text, words)
    lengths = {"text": 1 if text is None else inputs["input_ids"].shape[1]}
    lengths["latents"] = model.config.fusion_bottlenecks
    kept = [position for word in tokens for position in word.positions] if queries == "words" else []
    over = {name: _received(name, layer, kinds, lengths, kept) for name in ("text", "audio")}
    return Attribution(
        None if text is None else _words(over["text"], tokens),
        None if audio is None else _frames(over["audio"], len(audio) / model.config.sampling_rate),
    )


def attention_matrix(
    model: MmsrForSentimentReasoning,
    processor: MmsrProcessor,
    *,
    audio: Waveform | None,
    text: str | None,
) -> Attention | None:
    """Returns how each token of the transcript attends to the audio, for the report's picture.

    It has `weights [t, f]` of the fusion's last layer, a mean over heads; `tokens`, without special tokens
    and prefix; `waveform [s]` and `rate` (Hz). It is None where no text attends to audio, because of the
    fusion or because the utterance lacks one of them.
    """
    kinds = attention_map(model.config.fusion)
    if audio is None or not text or _TEXT_TO_AUDIO not in kinds:
        return None
    kept = [position for position, (_, end) in enumerate(processor.token_spans(text)) if end > 0]
    inputs = _inputs(model, processor, audio, text)
    weights = last_layer(model, inputs)[kinds.index(_TEXT_TO_AUDIO)][0].float().mean(0)[kept]
    tokens = processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0, kept].tolist())
    return {
        "weights": weights.cpu().numpy(),
        "tokens": [token.lstrip("▁") or "▁" for token in tokens],
        "waveform": audio,
        "rate": processor.feature_extractor.sampling_rate,
    }


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Context in which the fusion returns attention weights; encoders and decoder keep their attention."""
    implementation = model.config._attn_implementation
    model.set_attn_implementation({"": "eager"})
    try:
        yield
    finally:
        model.set_attn_implementation({"": implementation})


@torch.inference_mode()
def last_layer(model: MmsrForSentimentReasoning, inputs: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Returns attention weights `[b, h, q, k]` of the fusion's last layer, ordered as its `attention_map`.

    Args:
        model: A model whose fusion attends.
        inputs: Of the processor, for a batch.
    """
    with eager_attention(model):
        found = model.classify(**inputs, head_only=True, output_attentions=True)
    assert found.memory.fusion_attentions is not None
    return found.memory.fusion_attentions[-1]


def _received(
    modality: str, layer: list[Tensor], kinds: AttentionMap, lengths: dict[str, int], kept: list[int]
) -> Tensor | None:
    """Attention that a modality's positions get `[n]`, a mean over queries; None where nothing attends to it.

    Latent tokens are the only queries, where there are any; of a text's queries only the `kept`, if any.
    """
    found = []
    for weights, (queries, keys) in zip(layer, kinds, strict=True):
        if modality not in keys:
            continue
        over = _sections(weights.T, keys, lengths)[modality].T  # [q, n]
        by_query = _sections(over, queries, lengths)
        if "latents" in by_query:
            over = by_query["latents"]
        elif queries == ("text",) and kept:
            over = over[kept]
        found.append(over.mean(0))
    return torch.stack(found).mean(0) if found else None


def _sections(rows: Tensor, parts: tuple[str, ...], lengths: dict[str, int]) -> dict[str, Tensor]:
    """Splits rows `[n, ...]` into the named parts of a sequence; the audio has the remaining length."""
    rest = len(rows) - sum(lengths[part] for part in parts if part != "audio")
    sizes = [lengths.get(part, rest) for part in parts]
    return dict(zip(parts, rows.split(sizes), strict=True))


# ---------------------------------------------------------------------- gradients


def gradients(
    model: MmsrForSentimentReasoning,
    processor: MmsrProcessor,
    *,
    audio: Waveform | None,
    text: str | None,
    words: Sequence[Span] | None = None,
    steps: int = 64,
    frame_seconds: float = 0.02,
) -> Attribution:
    """Weigh words and frames by what they add to the logit of the label that the head predicts.

    Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) from silence and padding tokens to the
    utterance, so that words and samples share one difference of logits. Negative weights speak against the
    label. Where the sum of weights misses the difference, more steps help. Needs captum, the extra `explain`.

    `audio` are samples `[s]`; `words`, by characters, are by default the processor's. `steps` is the number
    of integration steps (Gauss-Legendre). Weights of samples are summed over frames of `frame_seconds`.
    """
    from captum.attr import IntegratedGradients

    inputs = _inputs(model, processor, audio, text)
    given: dict[str, Tensor] = {}
    baselines: dict[str, Tensor] = {}
    if "input_values" in inputs and model.config.uses_audio:
        given["input_values"] = inputs["input_values"]
        baselines["input_values"] = torch.zeros_like(inputs["input_values"])
    if "input_ids" in inputs and model.config.uses_text:
        ids = inputs["input_ids"]
        special = torch.isin(ids, torch.tensor(processor.tokenizer.all_special_ids, device=ids.device))
        embed = model.encoder.get_input_embeddings()
        with torch.no_grad():
            given["inputs_embeds"] = embed(ids)
            baselines["inputs_embeds"] = embed(ids.where(special, processor.tokenizer.pad_token_id))
    masks = {name: inputs[name] for name in ("attention_mask", "input_values_mask") if name in inputs}

    def logits(*values: Tensor) -> Tensor:
        batch: dict[str, Any] = dict(zip(given, values, strict=True))
        batch |= {name: mask.expand(len(values[0]), -1) for name, mask in masks.items()}
        return model.classify(**batch, head_only=True).head_logits

    with torch.no_grad():
        label = int(logits(*given.values()).argmax(-1))
    found = IntegratedGradients(logits).attribute(
        tuple(given.values()), tuple(baselines.values()), target=label, n_steps=steps, internal_batch_size=32
    )
    added = dict(zip(given, found, strict=True))
    of_words = of_frames = None
    if text is not None and "inputs_embeds" in added:
        of_words = _words(added["inputs_embeds"][0].sum(-1), processor.word_tokens(text, words))
    if "input_values" in added:
        samples = added["input_values"][0].cpu().double().numpy()
        rate = processor.feature_extractor.sampling_rate
        count = max(1, len(samples) // round(frame_seconds * rate))
        frame = np.arange(len(samples)) * count // len(samples)
        weights = np.bincount(frame, weights=samples).astype(np.float64)
        of_frames = _frames(weights, len(samples) / rate)
    return Attribution(of_words, of_frames, model.config.labels[label])


def saliency(
    model: MmsrForSentimentReasoning, processor: MmsrProcessor, *, audio: Waveform | None, text: str | None
) -> Saliency:
    """Returns the `gradients` of an utterance, for the report's picture.

    Args:
        model: The model.
        processor: Its processor.
        audio: Waveform `[s]` at the model's rate; None without.
        text: Transcript; None without.

    Raises:
        ValueError: As of `gradients`.
    """
    found = gradients(model, processor, audio=audio, text=text, words=word_spans(text or ""))
    assert found.label is not None
    return {
        "words": [word.word for word in found.words or ()],
        "word_weights": None if found.words is None else np.array([word.weight for word in found.words]),
        "frame_weights": None if found.frames is None else np.array([frame.weight for frame in found.frames]),
        "waveform": audio,
        "rate": processor.feature_extractor.sampling_rate,
        "label": found.label,
    }


# ---------------------------------------------------------------------- the methods, and what they share


@dataclass(frozen=True)
class Method:
    """A method of attribution, and the package that it needs."""

    attribute: Callable[..., Attribution]  # called with a model and its processor
    package: str | None = None

    @property
    def installed(self) -> bool:
        """Whether the package is installed."""
        return self.package is None or is_installed(self.package)


ATTRIBUTIONS: dict[str, Method] = {"attention": Method(attention), "gradients": Method(gradients, "captum")}
"""By name, as in faithfulness.json."""


def attributions(model: MmsrForSentimentReasoning, processor: MmsrProcessor) -> dict[str, Attribute]:
    """Returns all installed methods, applied to a model."""
    return {
        name: partial(method.attribute, model, processor)
        for name, method in ATTRIBUTIONS.items()
        if method.installed
    }


def _inputs(
    model: MmsrForSentimentReasoning, processor: MmsrProcessor, audio: Waveform | None, text: str | None
) -> Mapping[str, Any]:
    """The model's tensors for one utterance."""
    return processor(
        audio=None if audio is None else [audio], text=None if text is None else [text], return_tensors="pt"
    ).to(model.device)


def _words(weights: Tensor | None, words: Sequence[WordTokens]) -> tuple[AttributedWord, ...] | None:
    """Weights of tokens `[t]`, added up by word."""
    if weights is None or not words:
        return None
    values = weights.tolist()
    return tuple(
        AttributedWord(word, start, end, sum((values[position] for position in positions), 0.0))
        for word, start, end, positions in words
    )


def _frames(
    weights: Tensor | NDArray[np.float64] | None, seconds: float
) -> tuple[AttributedFrame, ...] | None:
    """Weights `[f]` of equally long frames."""
    if weights is None:
        return None
    length = seconds / len(weights)
    return tuple(
        AttributedFrame(place * length, (place + 1) * length, weight)
        for place, weight in enumerate(weights.tolist())
    )
