"""A checkpoint at work: loading it with clear errors, answering many utterances, and examples for a report.

This stands above the rooms `model`, `data` and `evaluation`, which do not know each other.
"""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmsr.data.audio.decoding import Audio
from mmsr.data.storage import is_url, read_bytes
from mmsr.evaluation.explain.attribution import attention_matrix
from mmsr.inference.packaged import checkpoint
from mmsr.inference.pipeline import TASK, SentimentReasoningPipeline
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.records import Answer, Predict, Utterance

if TYPE_CHECKING:  # not for who answers one utterance: these take seconds to import
    from mmsr.data.features.store import Dtype
    from mmsr.evaluation.report.run import Example


def load_pipeline(
    model: str | os.PathLike[str] = "demo", *, device: str | None = None, **options: Any
) -> SentimentReasoningPipeline:
    """The sentiment-reasoning pipeline of a checkpoint.

    Args:
        model: folder, or Hub id, of an mmsr checkpoint; `demo` is the packaged one, unless a checkpoint lies
            in a folder of that name here.
        device: such as `cpu` or `cuda:0`; by default the first accelerator.
        **options: the pipeline's, such as `asr` or `alternatives`.

    Raises:
        ValueError: the checkpoint cannot be read; the message names it and what is accepted.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model = _resolved(model)
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
    return SentimentReasoningPipeline(model=network, processor=processor, device=place, task=TASK, **options)


def _resolved(model: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """A packaged checkpoint's name -> its folder; paths and Hub ids (`owner/name`) stay."""
    if Path(model).name != str(model) or (Path(model) / "config.json").is_file():
        return model
    try:
        return checkpoint(str(model))
    except ValueError as error:
        if os.path.exists(model):
            return model
        raise ValueError(f"{model}: no such folder, and {error}") from None


def predictor(
    pipe: SentimentReasoningPipeline,
    *,
    batch_size: int = 32,
    audio_features: Callable[[str], torch.Tensor] | None = None,
    **options: Any,
) -> Predict:
    """The pipeline as evaluation uses a model: utterances in, answers out, in order.

    Rows of like length are answered together.

    Args:
        pipe: The pipeline.
        batch_size: Rows at a time.
        audio_features: Gives the audio encoder's states `[f, l, e]` of a path, in place of hearing it.
        **options: The pipeline's, such as `num_beams`.
    """

    def length(audio: str | bytes | np.ndarray | None) -> float:
        if isinstance(audio, np.ndarray):
            return len(audio) / pipe.processor.feature_extractor.sampling_rate
        return 0.0 if audio is None else Audio.duration(audio)

    def given(utterance: Utterance) -> dict[str, Any]:
        audio, text = utterance.audio, utterance.text
        if audio_features is None or not isinstance(audio, str):
            return {"audio": audio, "text": text}
        return {"audio_features": audio_features(audio), "text": text}

    def predict(utterances: Sequence[Utterance]) -> list[Answer]:
        seconds = [length(utterance.audio) for utterance in utterances]
        order = sorted(range(len(utterances)), key=seconds.__getitem__)
        inputs: Any = (given(utterances[row]) for row in order)
        if audio_features is None:
            inputs = list(inputs)  # else a batch's states at a time, which are large
        answers = pipe(inputs, batch_size=batch_size, **options)
        ranked = sorted(zip(order, answers, strict=True), key=lambda pair: pair[0])
        return [Answer.from_dict(answer) for _, answer in ranked]

    return predict


def open_predictor(
    model: str | os.PathLike[str],
    *,
    feature_store: str | Path | None = None,
    bf16: bool = False,
    dtype: Dtype = "float16",
) -> Predict:
    """`load_pipeline` and `predictor` in one, which another process can be told by name.

    Args:
        model: As of `load_pipeline`.
        feature_store: Folder of a store in which the states of the audio encoder, which was frozen, are
            looked up and kept, so that several models on the same encoder hear a file once. The states are
            as training with that store had them: encoded with `bf16`, kept as `dtype`.
        bf16: Encode under bfloat16 autocast.
        dtype: How the store keeps states.
    """
    pipe = load_pipeline(model)
    if feature_store is None:
        return predictor(pipe)
    from mmsr.data.features.encoders import stored_audio

    heard = stored_audio(pipe.model, pipe.processor, feature_store, bf16=bf16, dtype=dtype)
    return predictor(pipe, audio_features=heard)


def examples(
    pipe: SentimentReasoningPipeline,
    rows: Sequence[Utterance],
    *,
    progress: Callable[[], None] | None = None,
) -> list[Example]:
    """Rows of a manifest with the model's answer, counterfactual rationales and attention."""
    from mmsr.evaluation.report.run import Example

    shown = []
    for row in rows:
        answer = pipe({"audio": row.audio, "text": row.text}, alternatives=pipe.model.decoder is not None)
        utterance = pipe.preprocess({"audio": row.audio, "text": row.text})
        mime, played = None, row
        if isinstance(row.audio, str) and is_url(row.audio):
            mime = mimetypes.guess_type(row.audio.partition("::")[0])[0]
            played = replace(row, audio=read_bytes(row.audio))
        shown.append(
            Example(
                utterance=played,
                answer=Answer.from_dict(answer),
                mime=mime,
                counterfactuals=answer.get("alternatives", {}),
                attention=attention_matrix(
                    pipe.model, pipe.processor, audio=utterance["audio"], text=utterance["text"]
                ),
            )
        )
        if progress:
            progress()
    return shown
