"""A checkpoint at work: loading it with clear errors, answering many utterances, and looking inside one.

This stands above the rooms `model`, `data` and `evaluation`, which do not know each other.
"""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmsr.data.audio import Audio
from mmsr.data.storage import is_url, read_bytes
from mmsr.evaluation.erasure import Attribute, Evidence, Span
from mmsr.evaluation.metrics import word_spans
from mmsr.evaluation.run import Answer, Predict, Record
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.pipeline import TASK, SentimentReasoningPipeline
from mmsr.model.processing import MmsrProcessor


def load_pipeline(model: str | os.PathLike[str], *, device: str | None = None) -> SentimentReasoningPipeline:
    """The sentiment-reasoning pipeline of a checkpoint.

    Args:
        model: folder, or Hub id, of an mmsr checkpoint.
        device: such as `cpu` or `cuda:0`; by default the first accelerator.

    Raises:
        ValueError: the checkpoint cannot be read; the message names it and what is accepted.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    if not os.path.exists(model) and (
        Path(model).is_absolute() or str(model).startswith(".") or str(model).count("/") > 1
    ):
        raise ValueError(
            f"{model}: no such folder; accepted: a folder that `mmsr fit` or save_pretrained wrote"
        )
    if os.path.exists(model) and not (Path(model) / "config.json").is_file():
        raise ValueError(
            f"{model} has no config.json; accepted: a folder that `mmsr fit` or save_pretrained wrote"
        )
    try:
        network = MmsrForSentimentReasoning.from_pretrained(model)
        processor = MmsrProcessor.from_pretrained(model)
    except Exception as error:  # a damaged folder makes transformers, safetensors and json raise all kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"checkpoint {model} cannot be read ({reason}); accepted: a folder that `mmsr fit` wrote"
        ) from error
    place = None if device is None else torch.device(device)
    return SentimentReasoningPipeline(model=network, processor=processor, device=place, task=TASK)


def predictor(pipe: SentimentReasoningPipeline, *, batch_size: int = 32, **options: Any) -> Predict:
    """The pipeline as evaluation sees a model: records in, answers out, in order.

    Rows of like length are answered together. `options` are the pipeline's, such as `num_beams`.
    """

    def length(audio: str | np.ndarray | None) -> float:
        if isinstance(audio, np.ndarray):
            return len(audio) / pipe.processor.feature_extractor.sampling_rate
        return 0.0 if audio is None else Audio.duration(audio)

    def predict(records: Sequence[Record]) -> list[Answer]:
        seconds = [length(record["audio"]) for record in records]
        order = sorted(range(len(records)), key=seconds.__getitem__)
        inputs = [{name: records[row][name] for name in ("audio", "text")} for row in order]
        answers = pipe(inputs, batch_size=batch_size, **options)
        ranked = sorted(zip(order, answers, strict=True), key=lambda pair: pair[0])
        return [answer for _, answer in ranked]

    return predict


def open_predictor(model: str | os.PathLike[str]) -> Predict:
    """`load_pipeline` and `predictor` in one, which another process can be told by name."""
    return predictor(load_pipeline(model))


def look_inside(pipe: SentimentReasoningPipeline, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Where the words look in the audio: attention of the fusion's last layer, mean over heads.

    Returns:
        `weights [t, f]`, `tokens`, `waveform [s]` and `rate` (Hz); None where the model's fusion has no
        attention from text to audio, or the record lacks one of the two.
    """
    looks = pipe.model.config.fusion in ("cross_attention", "audio_to_text")
    if not record.get("audio") or not record.get("text") or not looks:
        return None
    processor, model = pipe.processor, pipe.model
    utterance = pipe.preprocess(dict(record))
    inputs = processor(audio=[utterance["audio"]], text=[utterance["text"]], return_tensors="pt").to(
        model.device
    )
    attentions = _fusion_attentions(model, inputs)
    ids = inputs["input_ids"][0].tolist()
    kept = [
        position for position, token in enumerate(ids) if token not in processor.tokenizer.all_special_ids
    ]
    weights = attentions[0][0].float().mean(0)[kept]
    tokens = [
        processor.tokenizer.convert_ids_to_tokens(ids[position]).lstrip("▁") or "▁" for position in kept
    ]
    return {
        "weights": weights.cpu().numpy(),
        "tokens": tokens,
        "waveform": utterance["audio"],
        "rate": processor.feature_extractor.sampling_rate,
    }


def _fusion_attentions(model: MmsrForSentimentReasoning, inputs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Weights of the fusion's last layer, as the fusion's docstring says."""
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the only one that returns its weights
    try:
        with torch.inference_mode():
            memory = model.encoder(**inputs, output_attentions=True, return_dict=True)
    finally:
        model.set_attn_implementation(implementation)
    return memory.fusion_attentions[-1]


def attention_evidence(pipe: SentimentReasoningPipeline) -> Attribute:
    """Weighs words and frames by the attention that they get from the other modality.

    It is that of the fusion's last layer, a mean over heads and over the positions that attend. A modality
    that nothing attends to, as the fusion is built or because the other is absent, has no weights.
    """

    def attribute(record: Record, spans: Sequence[Span]) -> Evidence:
        fusion = pipe.model.config.fusion
        if record["audio"] is None or record["text"] is None:
            return Evidence(None, None)
        inputs, places = _encoded(pipe, record, spans)
        words = frames = None
        if fusion in ("cross_attention", "audio_to_text"):
            to_frames = _fusion_attentions(pipe.model, inputs)[0][0].float().mean(0)  # [t, f]
            frames = to_frames[inputs["attention_mask"][0].bool()].mean(0).cpu().double().numpy()
        if fusion in ("cross_attention", "text_to_audio"):
            to_tokens = _fusion_attentions(pipe.model, inputs)[-1][0].float().mean(0)  # [f, t]
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

    def attribute(record: Record, spans: Sequence[Span]) -> Evidence:
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


def saliency(pipe: SentimentReasoningPipeline, record: Record) -> dict[str, Any]:
    """What `report.saliency_picture` shows: the parts of an utterance by `gradient_evidence`.

    Returns:
        `words`, `word_weights [w]`, `frame_weights [f]`, `waveform [s]`, `rate` (Hz) and the `label` whose
        logit is attributed; weights are None where the modality is absent.
    """
    utterance = _utterance(pipe, record)
    text = utterance["text"] or ""
    spans = word_spans(text)
    evidence = gradient_evidence(pipe)({**record, "audio": utterance["audio"]}, spans)
    answer = pipe(utterance, rationale=False)
    return {
        "words": [text[start:end] for start, end in spans],
        "word_weights": evidence.words,
        "frame_weights": evidence.frames,
        "waveform": utterance["audio"],
        "rate": pipe.processor.feature_extractor.sampling_rate,
        "label": answer.get("head_label", answer["label"]),
    }


def _utterance(pipe: SentimentReasoningPipeline, record: Mapping[str, Any]) -> dict[str, Any]:
    return pipe.preprocess({name: record[name] for name in ("audio", "text")})


def _encoded(
    pipe: SentimentReasoningPipeline, record: Record, spans: Sequence[Span]
) -> tuple[Mapping[str, Any], list[int]]:
    """A record as tensors, and the word of each token; -1 where it is special or of the prefix."""
    utterance = _utterance(pipe, record)
    given = {name: [value] for name, value in utterance.items() if value is not None}
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


def _sound(audio: str | None) -> dict[str, Any]:
    """What a report's player needs of audio that is no file."""
    if audio is None or not is_url(audio):
        return {}
    kind = mimetypes.guess_type(audio.partition("::")[0])[0]
    return {"audio_bytes": read_bytes(audio), "mime": kind or "audio/wav"}


def examples(
    pipe: SentimentReasoningPipeline,
    rows: Sequence[Mapping[str, Any]],
    *,
    progress: Callable[[], None] | None = None,
) -> list[dict[str, Any]]:
    """Rows of a manifest with the model's answer, counterfactual rationales and attention."""
    shown = []
    for row in rows:
        record = {"audio": row["audio"], "text": row["text"]}
        answer = pipe(record)
        counterfactuals = {}
        if answer["rationale"] is not None:
            counterfactuals = {
                label: pipe(record, forced_label=label)["rationale"]
                for label in pipe.model.config.labels
                if label != answer["label"]
            }
        shown.append(
            {
                **{
                    name: row[name]
                    for name in ("id", "audio", "text", "label", "rationale", "kind", "language")
                },
                **_sound(row["audio"]),
                "predicted_label": answer["label"],
                "scores": answer["scores"],
                "predicted_rationale": answer["rationale"],
                "counterfactuals": counterfactuals,
                "attention": look_inside(pipe, record),
            }
        )
        if progress:
            progress()
    return shown
