"""Which words and frames decide an answer, for `evaluation.faithfulness`: by attention and by gradients.

It is apart from `inference` because it needs evaluation's modules, which take seconds to import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mmsr.evaluation.explain.attention import FRAMES_AT_WORDS, WORDS_AT_FRAMES, last_layer, looks
from mmsr.evaluation.explain.erasure import Attribute, Evidence, Span
from mmsr.evaluation.rationales import word_spans
from mmsr.inference.pipeline import SentimentReasoningPipeline
from mmsr.records import Utterance


def attention_evidence(pipe: SentimentReasoningPipeline) -> Attribute:
    """Weighs words and frames by the attention that they get from the other modality.

    It is that of the fusion's last layer, a mean over heads and over the positions that attend. A modality
    that nothing attends to, as the fusion is built or because the other is absent, has no weights.
    """

    def attribute(record: Utterance, spans: Sequence[Span]) -> Evidence:
        kinds = looks(pipe.model.config.fusion)
        crosses = WORDS_AT_FRAMES in kinds or FRAMES_AT_WORDS in kinds
        if record.audio is None or record.text is None or not crosses:
            return Evidence(None, None)
        inputs, places = _encoded(pipe, record, spans)
        words = frames = None
        layer = last_layer(pipe.model, inputs)
        if WORDS_AT_FRAMES in kinds:
            to_frames = layer[kinds.index(WORDS_AT_FRAMES)][0].float().mean(0)  # [t, f]
            frames = to_frames[inputs["attention_mask"][0].bool()].mean(0).cpu().double().numpy()
        if FRAMES_AT_WORDS in kinds:
            to_tokens = layer[kinds.index(FRAMES_AT_WORDS)][0].float().mean(0)  # [f, t]
            words = _of_words(to_tokens.mean(0), places, spans)
        return Evidence(words, frames)

    return attribute


def gradient_evidence(
    pipe: SentimentReasoningPipeline, *, steps: int = 64, frame_seconds: float = 0.02
) -> Attribute:
    """Weighs words and frames by what they add to the logit of the label that the head predicts.

    Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) along the straight way from silence, and
    from padding in place of every word, to the utterance; both at once, so that words and samples share out
    one difference of logits. Weights below zero speak against the label. Where the logit leaps on that way,
    their sum misses the difference; more steps bring it nearer. Needs captum, the extra `explain`.

    Args:
        pipe: The model.
        steps: Points on the way (Gauss-Legendre).
        frame_seconds: Length of a frame, over whose samples the weights are summed.
    """
    from captum.attr import IntegratedGradients

    model, processor = pipe.model, pipe.processor

    def attribute(record: Utterance, spans: Sequence[Span]) -> Evidence:
        inputs, places = _encoded(pipe, record, spans)
        given, baselines, names = [], [], []
        if "input_values" in inputs and model.config.uses_audio:
            given.append(inputs["input_values"])
            baselines.append(torch.zeros_like(inputs["input_values"]))
            names.append("input_values")
        if "input_ids" in inputs and model.config.uses_text:
            ids = inputs["input_ids"]
            special = torch.isin(ids, torch.tensor(processor.tokenizer.all_special_ids, device=ids.device))
            embed = model.encoder.get_input_embeddings()
            with torch.no_grad():
                given.append(embed(ids))
                baselines.append(embed(ids.where(special, processor.tokenizer.pad_token_id)))
            names.append("inputs_embeds")

        def logits(*values: torch.Tensor) -> torch.Tensor:
            masks = {name: inputs[name] for name in ("attention_mask", "input_values_mask") if name in inputs}
            batch = {name: mask.expand(len(values[0]), -1) for name, mask in masks.items()}
            memory = model.encoder(**dict(zip(names, values, strict=True)), **batch, return_dict=True)
            return model.head(memory.last_hidden_state, memory.attention_mask)

        with torch.no_grad():
            label = int(logits(*given).argmax(-1))
        found = IntegratedGradients(logits).attribute(
            tuple(given), tuple(baselines), target=label, n_steps=steps, internal_batch_size=32
        )
        weights = dict(zip(names, found, strict=True))
        words = frames = None
        if "inputs_embeds" in weights:
            words = _of_words(weights["inputs_embeds"][0].sum(-1), places, spans)
        if "input_values" in weights:
            samples = weights["input_values"][0].cpu().double().numpy()
            size = round(frame_seconds * processor.feature_extractor.sampling_rate)
            count = max(1, len(samples) // size)
            frame = np.arange(len(samples)) * count // len(samples)
            frames = np.bincount(frame, weights=samples).astype(np.float64)
        return Evidence(words, frames)

    return attribute


def saliency(pipe: SentimentReasoningPipeline, record: Utterance) -> dict[str, Any]:
    """What `report.saliency_picture` shows: the parts of an utterance by `gradient_evidence`.

    Returns:
        `words`, `word_weights [w]`, `frame_weights [f]`, `waveform [s]`, `rate` (Hz) and the `label` whose
        logit is attributed; weights are None where the modality is absent.
    """
    utterance = _utterance(pipe, record)
    text = utterance["text"] or ""
    spans = word_spans(text)
    evidence = gradient_evidence(pipe)(replace(record, audio=utterance["audio"]), spans)
    answer = pipe(utterance, rationale=False)
    return {
        "words": [text[start:end] for start, end in spans],
        "word_weights": evidence.words,
        "frame_weights": evidence.frames,
        "waveform": utterance["audio"],
        "rate": pipe.processor.feature_extractor.sampling_rate,
        "label": answer.get("head_label", answer["label"]),
    }


def _utterance(pipe: SentimentReasoningPipeline, record: Utterance) -> dict[str, Any]:
    return pipe.preprocess({"audio": record.audio, "text": record.text})


def _encoded(
    pipe: SentimentReasoningPipeline, record: Utterance, spans: Sequence[Span]
) -> tuple[Mapping[str, Any], list[int]]:
    """A record as tensors, and the word of each token; -1 where it is special or of the prefix."""
    utterance = _utterance(pipe, record)
    given = {name: [utterance[name]] for name in ("audio", "text") if utterance[name] is not None}
    inputs = pipe.processor(**given, return_tensors="pt").to(pipe.device)
    if "text" not in given:
        return inputs, []
    prefix = pipe.processor.text_prefix
    encoded = pipe.processor.tokenizer(prefix + utterance["text"], return_offsets_mapping=True)
    places = []
    for _, end in encoded["offset_mapping"][: inputs["input_ids"].shape[1]]:
        last = end - len(prefix) - 1  # a token may begin with the space before its word
        # what stands between words goes to the next one, after them to the last
        after = [word for word, (_, stop) in enumerate(spans) if stop > last]
        places.append(-1 if last < 0 or not spans else after[0] if after else len(spans) - 1)
    return inputs, places


def _of_words(weights: torch.Tensor, places: Sequence[int], spans: Sequence[Span]) -> np.ndarray:
    """Weights of tokens `[t]`, added up by word `[w]`."""
    summed = np.zeros(len(spans))
    for weight, place in zip(weights.tolist(), places, strict=True):
        if place >= 0:
            summed[place] += weight
    return summed
