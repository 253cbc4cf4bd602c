"""Answers to recordings, transcripts or a manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsr.data.corpora.source import SOUND, VIDEO
from mmsr.inference.loading import predictor

if TYPE_CHECKING:
    from mmsr.inference.pipeline import SentimentReasoningPipeline
    from mmsr.records import Prediction, Progress

_SHORTEST, _LONGEST = 0.1, 300.0  # seconds of audio for one answer


def find_recordings(inputs: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Audio files in their order, and those in and below folders by name.

    Raises:
        ValueError: There is no such file, or a folder has no recordings.
    """
    found: list[str] = []
    for path in map(Path, inputs):
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SOUND | VIDEO)
            if not inside:
                raise ValueError(f"{path}: no recordings here; accepted: {', '.join(sorted(SOUND))} ...")
            found += map(str, inside)
        elif path.is_file():
            found.append(str(path))
        else:
            raise ValueError(f"{path}: no such file; accepted: audio files, folders of them, or a manifest")
    return found


def answer_utterances(
    pipe: SentimentReasoningPipeline,
    utterances: Sequence[Mapping[str, Any]],
    *,
    page: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
    **options: Any,
) -> Iterator[dict[str, Any]]:
    """Answer utterances in their order, a batch at a time.

    Args:
        pipe: The pipeline.
        utterances: Each with `audio`, `text`, or both, and perhaps `language`.
        page: HTML file to write, which shows the answer to one utterance.
        batch_size: Utterances at a time.
        **options: The pipeline's, such as `num_beams` or `alternatives`.
    """
    if page is not None:
        from mmsr.model.fusion import attention_map

        options["attention"] = bool(attention_map(pipe.model.config.fusion))
    for answer in pipe(iter([dict(utterance) for utterance in utterances]), batch_size=batch_size, **options):
        if page is not None:
            from mmsr.files import write_file

            write_file(page, answer.page().encode())
        yield {name: value for name, value in answer.items() if name != "attention"}


def predict_manifest(
    pipe: SentimentReasoningPipeline,
    manifest: str | os.PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    label_map: Mapping[str, str] | None = None,
    text_column: str = "text",
    abstain_below: float | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
    **options: Any,
) -> list[Prediction]:
    """Answer every row of a manifest.

    Args:
        pipe: The pipeline.
        manifest: Table of utterances.
        columns: See `load_manifest`.
        label_map: See `load_manifest`.
        text_column: The transcript to use, `text` or `asr_text`.
        abstain_below: Set `abstained` for answers below this probability.
        batch_size: Rows at a time.
        progress: Called with the task, the number of answered rows and of all rows.
        **options: The pipeline's, such as `num_beams` or `forced_label`.

    Raises:
        ValueError: The manifest has errors, or a row has no input.
    """
    from mmsr.data.manifest.manifest import load_manifest, utterances
    from mmsr.evaluation.run import predict_rows

    labels = pipe.model.config.labels
    table = load_manifest(manifest, labels=labels, columns=columns, label_map=label_map)
    predict = predictor(pipe, batch_size=batch_size, **options)
    predictions = predict_rows(predict, utterances(table), text_column=text_column, progress=progress)
    if abstain_below is None:
        return predictions
    return [
        replace(prediction, abstained=prediction.confidence < abstain_below) for prediction in predictions
    ]


def recording_notes(audio: str | os.PathLike[str]) -> Iterator[str]:
    """Reasons to doubt an answer to a recording: it is silent, very short or very long."""
    from mmsr.data.audio.decoding import Audio
    from mmsr.data.manifest.check.audio import sample_issues

    seconds = Audio.duration(audio)
    if seconds < _SHORTEST:
        yield f"{audio} lasts {seconds * 1000:.0f} ms: too short for speech, so the answer says nothing of it"
    elif seconds > _LONGEST:
        yield (
            f"{audio} lasts {seconds / 60:.0f} minutes and gets one answer for all of it; "
            "mmsr timeline answers for each segment of speech"
        )
    elif any(code == "audio-silent" for code, _ in sample_issues(Audio()(audio))):
        yield f"{audio} is silent: the answer says nothing of it"
