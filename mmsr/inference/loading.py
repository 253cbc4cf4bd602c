"""Loading a checkpoint as a pipeline, as a `Predict` for evaluation, and examples for a report."""

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
from mmsr.inference.pipeline import TASK, SentimentReasoningPipeline
from mmsr.messages import no_such_file
from mmsr.model.configuration import check_folder
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.packaged import DEFAULT, checkpoint
from mmsr.model.processing import MmsrProcessor
from mmsr.records import Answer, Predict, Utterance

if TYPE_CHECKING:  # slow to import
    from mmsr.data.features.store import Dtype
    from mmsr.evaluation.report.run import Example


def load_pipeline(
    model: str | os.PathLike[str] = DEFAULT, *, device: str | None = None, **options: Any
) -> SentimentReasoningPipeline:
    """The sentiment-reasoning pipeline of a checkpoint.

    Args:
        model: Folder or Hub id of a checkpoint, or the name of a packaged one; see `mmsr.checkpoint`.
        device: Such as `cpu` or `cuda:0`; by default the first accelerator.
        **options: The pipeline's, such as `asr` or `alternatives`.

    Raises:
        ValueError: The checkpoint cannot be read.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model = _resolved(model)
    is_path = Path(model).is_absolute() or str(model).startswith(".") or str(model).count("/") > 1
    if is_path and not os.path.exists(model):
        missing = no_such_file(model, what="folder")
        raise ValueError(f"{missing}; accepted: a folder that `mmsr fit` or save_pretrained wrote")
    check_folder(model)
    try:
        network = MmsrForSentimentReasoning.from_pretrained(model)
        if os.path.isdir(model) and not any(Path(model).glob("*processor_config.json")):
            raise ValueError("it has no processor_config.json")
        processor = MmsrProcessor.from_pretrained(model)
    except Exception as error:  # transformers, safetensors and json raise many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"checkpoint {model} cannot be read ({reason}); accepted: a folder that `mmsr fit` wrote"
        ) from error
    return SentimentReasoningPipeline(
        model=network,
        processor=processor,
        device=None if device is None else torch.device(device),
        task=TASK,
        **options,
    )


def _resolved(model: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The folder of a packaged checkpoint's name; paths and Hub ids (`owner/name`) stay."""
    if Path(model).name != str(model) or (Path(model) / "config.json").is_file():
        return model
    try:
        return checkpoint(str(model))
    except ValueError as error:
        if os.path.exists(model):
            return model
        missing = no_such_file(model, what="folder") if str(model) else "--model is empty"
        raise ValueError(f"{missing}, and {error}") from None


def predictor(
    pipe: SentimentReasoningPipeline,
    *,
    batch_size: int = 32,
    audio_features: Callable[[str], torch.Tensor] | None = None,
    **options: Any,
) -> Predict:
    """The pipeline as a `Predict`, which batches utterances of similar length.

    Args:
        pipe: The pipeline.
        batch_size: Utterances at a time.
        audio_features: Returns the audio encoder's states `[f, l, e]` of a path, in place of encoding it.
        **options: The pipeline's, such as `num_beams`; `speech` is off, since evaluation does not read it.
    """
    options = {"speech": False, **options}

    def length(audio: str | bytes | np.ndarray | None) -> float:
        if isinstance(audio, np.ndarray):
            return len(audio) / pipe.processor.feature_extractor.sampling_rate
        return 0.0 if audio is None else Audio.duration(audio)

    def given(utterance: Utterance) -> dict[str, Any]:
        audio = utterance.audio
        words = {name: getattr(utterance, name) for name in ("text", "language", "asr_words")}
        if audio_features is None or not isinstance(audio, str):
            return {"audio": audio, **words}
        return {"audio_features": audio_features(audio), **words}

    def predict(utterances: Sequence[Utterance]) -> list[Answer]:
        seconds = [length(utterance.audio) for utterance in utterances]
        order = sorted(range(len(utterances)), key=seconds.__getitem__)
        inputs: Any = (given(utterances[row]) for row in order)
        if audio_features is None:
            inputs = list(inputs)  # else a batch at a time, since states are large
        answers = dict(zip(order, pipe(inputs, batch_size=batch_size, **options), strict=True))
        return [Answer.from_dict(answers[row]) for row in range(len(utterances))]

    return predict


def open_predictor(
    model: str | os.PathLike[str],
    *,
    feature_store: str | Path | None = None,
    bf16: bool = False,
    dtype: Dtype = "float16",
) -> Predict:
    """`load_pipeline` and `predictor` in one.

    Args:
        model: See `load_pipeline`.
        feature_store: Folder of a store of the frozen audio encoder's states, so that models with the same
            encoder encode a file once.
        bf16: Encode under bfloat16 autocast.
        dtype: Of the stored states.
    """
    pipe = load_pipeline(model)
    if feature_store is None:
        return predictor(pipe)
    from mmsr.data.features.encoders import stored_audio

    states = stored_audio(pipe.model, pipe.processor, feature_store, bf16=bf16, dtype=dtype)
    return predictor(pipe, audio_features=states)


def examples(
    pipe: SentimentReasoningPipeline, rows: Sequence[Utterance], *, progress: Callable[[], None] | None = None
) -> list[Example]:
    """Rows of a manifest with the model's answers, counterfactual rationales and attention."""
    from mmsr.evaluation.report.run import Example

    shown = []
    for row in rows:
        answer = pipe({"audio": row.audio, "text": row.text}, alternatives=pipe.model.writes_rationales)
        utterance = pipe.preprocess({"audio": row.audio, "text": row.text})
        played, mime = playable(row)
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


def playable(row: Utterance) -> tuple[Utterance, str | None]:
    """A row whose recording a page can carry, and the type of a downloaded one."""
    if not isinstance(row.audio, str) or not is_url(row.audio):
        return row, None
    mime = mimetypes.guess_type(row.audio.partition("::")[0])[0]
    return replace(row, audio=read_bytes(row.audio)), mime
