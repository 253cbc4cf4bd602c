"""Answers to recordings, transcripts or a manifest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.data.audio.reading import read_each
from mmsr.data.storage import is_url, missing, shown
from mmsr.files import Journal, journal_fingerprint, settings_fingerprint
from mmsr.inference.answer import flattened
from mmsr.inference.loading import predictor
from mmsr.messages import no_such_file
from mmsr.progress import log
from mmsr.records import Prediction

if TYPE_CHECKING:
    import datasets  # slow to import

    from mmsr.data.manifest.issues import Issue
    from mmsr.data.manifest.tables import Table  # slow to import, as all that reads tables
    from mmsr.inference.pipeline import SentimentReasoningPipeline
    from mmsr.records import Progress

_SHORTEST, _LONGEST = 0.1, 30.0  # seconds of audio for one answer
_LONG_TO_CHECK = 300.0  # seconds, above which silence is not looked for


def find_recordings(inputs: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Audio files in their order, and those in and below folders by name.

    Hidden files below folders are left out: archives made on a Mac hold a `._name` for each file.

    Raises:
        ValueError: There is no such file, or a folder has no recordings.
    """
    found: list[str] = []
    for given in inputs:
        path = Path(given)
        if is_url(os.fspath(given)):
            found.append(os.fspath(given))
        elif path.is_dir():
            from mmsr.data.corpora.source import SOUND, VIDEO  # slow to import

            inside = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in SOUND | VIDEO
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
                and not file.is_dir()
            )
            if not inside:
                raise ValueError(
                    f"{shown(path)}: no recordings here; accepted: {', '.join(sorted(SOUND))} ..."
                )
            found += map(str, inside)
        elif os.path.lexists(path):  # whether it can be read is told beside the answers
            found.append(str(path))
        else:
            accepted = "audio files, folders of them, or a manifest"
            if not path.suffix and len(path.parts) == 1:
                accepted += "; words of a transcript after --text"
            raise ValueError(f"{no_such_file(shown(given))}; accepted: {accepted}")
    return found


def answer_utterances(
    pipe: SentimentReasoningPipeline,
    utterances: Sequence[Mapping[str, Any]],
    *,
    page: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
    **options: Any,
) -> Iterator[dict[str, Any] | AudioError]:
    """Answer utterances in their order, a batch at a time.

    Args:
        pipe: The pipeline.
        utterances: Each with `audio` (a path), `text`, or both, and perhaps `language`.
        page: HTML file to write, which shows the answer to one utterance.
        batch_size: Utterances at a time.
        **options: The pipeline's, such as `num_beams` or `alternatives`.

    Yields:
        The answer of each utterance, or the error with which its audio could not be read.
    """
    if page is not None:
        from mmsr.model.fusion import attention_map

        options["attention"] = bool(attention_map(pipe.model.config.fusion))
    for start in range(0, len(utterances), batch_size):
        batch = [dict(utterance) for utterance in utterances[start : start + batch_size]]
        heard = [(utterance, utterance["audio"]) for utterance in batch if utterance.get("audio") is not None]
        failed: dict[int, AudioError] = {}
        for (utterance, _), samples in zip(heard, read_each([path for _, path in heard], _load), strict=True):
            if isinstance(samples, AudioError):
                failed[id(utterance)] = samples
            else:
                utterance["audio"] = samples
        answers = pipe(
            iter([utterance for utterance in batch if id(utterance) not in failed]),
            batch_size=batch_size,
            **options,
        )
        for utterance in batch:
            if id(utterance) in failed:
                yield failed[id(utterance)]
                continue
            answer = next(answers)
            if page is not None:
                from mmsr.files import write_file

                write_file(page, answer.page().encode())
            yield {name: value for name, value in answer.items() if name != "attention"}


def write_answers(
    pipe: SentimentReasoningPipeline,
    recordings: Sequence[str],
    out: str | os.PathLike[str],
    *,
    asr: str | None = None,
    language: str | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
    **options: Any,
) -> list[AudioError]:
    """Answer recordings into a table, a row for each, in their order.

    OUT.journal.jsonl beside it grows with every batch: after an interruption, or with more recordings, the
    same call goes on from there. A recording that was changed since is answered anew.

    Args:
        pipe: The pipeline.
        recordings: Paths, as of `find_recordings`.
        out: csv, tsv, jsonl, parquet or xlsx by its ending; jsonl has whole answers, the others a column for
            each label's score, and the quoted words and the voice's likeliest emotion as text.
        asr: Folder or Hub id of a recogniser.
        language: The spoken language, for the recogniser.
        batch_size: Recordings at a time.
        progress: Called with the task, the number of answered recordings and of all.
        **options: The pipeline's, such as `num_beams`.

    Returns:
        The errors of recordings that could not be read; their rows have it under `error`.

    Raises:
        ValueError: `out` exists and is not of this call, or of another model or other options.
    """
    from mmsr.data.features.store import encoder_fingerprint
    from mmsr.speech.recogniser import Transcriber

    transcribe = None if asr is None else Transcriber(asr, timestamps="auto")
    made_from = {
        "model": encoder_fingerprint(pipe.model),
        "config": pipe.model.config.to_dict(),
        "processor": pipe.processor.to_dict(),
        "recogniser": None if transcribe is None else transcribe.fingerprint,
        "language": language,
        "options": {name: value for name, value in options.items() if value is not None},
        "version": 2,  # of this function's answers: 2 tells where times come from
    }
    fingerprint = settings_fingerprint(made_from)
    _check_own(Path(out), fingerprint)
    versions = {path: _version(path) for path in recordings}  # a file may change while others are answered
    known: dict[tuple[str, int, int], dict[str, Any]] = {}

    def remember(entry: dict[str, Any]) -> None:
        known[entry["audio"], entry["size"], entry["modified"]] = entry["answer"]

    errors: dict[str, AudioError] = {}
    with Journal(f"{out}.journal.jsonl", remember, fingerprint=fingerprint) as journal:
        left = [path for path, version in versions.items() if version not in known]
        done = len(recordings) - len(left)
        for start in range(0, len(left), batch_size):
            batch = left[start : start + batch_size]
            utterances = [{"audio": path, "text": None, "language": language} for path in batch]
            answers = answer_utterances(pipe, utterances, asr=transcribe, batch_size=batch_size, **options)
            for path, answer in zip(batch, answers, strict=True):
                if isinstance(answer, AudioError):
                    errors[path] = answer
                else:
                    entry = dict(zip(("audio", "size", "modified"), versions[path], strict=True))
                    journal.add({**entry, "answer": answer})
                    known[versions[path]] = answer
            done += len(batch)
            if progress:
                progress("answering", done, len(recordings))
    rows = [
        {"audio": path, "error": str(errors[path])}
        if path in errors
        else {"audio": path, **known[versions[path]]}
        for path in recordings
    ]
    from mmsr.data.manifest.tables import write_table

    write_table(Path(out), answer_table(rows, whole=Path(out).suffix.lower() == ".jsonl"))
    if abstained := sum(bool(row.get("abstained")) for row in rows):
        log(f"answers that abstain: {abstained:,}; leave out the rows whose column `abstained` is true")
    return [errors[path] for path in recordings if path in errors]


def _check_own(out: Path, fingerprint: str) -> None:
    """Refuse to replace a file that this command did not write, or wrote of another model or options.

    Raises:
        ValueError: Names the file.
    """
    if not out.exists():
        return
    journal = Path(f"{out}.journal.jsonl")
    if not journal.is_file():
        raise ValueError(f"--out {out} exists, and is not of this command; accepted: a new file")
    if journal_fingerprint(journal) not in (None, fingerprint):
        raise ValueError(
            f"--out {out} has answers of another model, recogniser or other options, which would be lost; "
            f"accepted: another file, or delete {out} and {journal.name}"
        )


def answer_table(rows: Sequence[Mapping[str, Any]], *, whole: bool = False) -> Table:
    """Answers, each beside its input's columns, as a table; with `whole` without flattening them.

    The words that a recogniser wrote, an answer's `transcript`, are in the column `text`.
    """
    from mmsr.data.manifest.tables import Table

    named = [{"text" if name == "transcript" else name: value for name, value in row.items()} for row in rows]
    flat = [row if whole else flattened(row) for row in named]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    if "error" in columns:  # after what has a value
        columns = [name for name in columns if name != "error"] + ["error"]
    return Table(columns, [dict.fromkeys(columns) | row for row in flat], [])


def _version(path: str) -> tuple[str, int, int]:
    """A file as it is now: path, bytes, and time of its last change; zeros where it is gone."""
    try:
        found = os.stat(path)
    except OSError:
        return path, 0, 0
    return path, found.st_size, found.st_mtime_ns


def predict_manifest(
    pipe: SentimentReasoningPipeline,
    manifest: str | os.PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    label_map: Mapping[str, str] | None = None,
    text_column: str = "text",
    abstain_below: float | None = None,
    batch_size: int = 32,
    on_issue: Callable[[Issue], None] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> list[Prediction]:
    """Answer every row of a manifest.

    All audio is decoded before the first row is answered. A prediction has the manifest's other columns too,
    so that it can be joined with them.

    Args:
        pipe: The pipeline.
        manifest: Table of utterances.
        columns: See `load_manifest`.
        label_map: See `load_manifest`.
        text_column: The transcript to use, `text` or `asr_text`.
        abstain_below: Set `abstained` for answers below this probability.
        batch_size: Rows at a time.
        on_issue: Called for each row whose audio cannot be read, which has no prediction then. By default
            such rows are an error.
        progress: Called with the task, the number of answered rows and of all rows.
        **options: The pipeline's, such as `num_beams` or `forced_label`.

    Raises:
        ValueError: The manifest has errors, a row has no input, or no audio can be read.
    """
    from mmsr.data.manifest.manifest import utterances
    from mmsr.evaluation.run import predict_rows

    labels = pipe.model.config.labels
    table, numbers = _readable_rows(
        manifest, labels, on_issue, progress=progress, columns=columns, label_map=label_map
    )
    predict = predictor(pipe, batch_size=batch_size, speech=True, **options)
    predictions = predict_rows(predict, utterances(table), text_column=text_column, progress=progress)
    predictions = _with_columns(predictions, manifest, numbers)
    if abstain_below is None:
        return predictions
    return [
        replace(prediction, abstained=bool(prediction.abstained) or prediction.confidence < abstain_below)
        for prediction in predictions
    ]


def _readable_rows(
    manifest: str | os.PathLike[str],
    labels: Sequence[str],
    on_issue: Callable[[Issue], None] | None,
    *,
    progress: Progress | None,
    **reading: Any,
) -> tuple[datasets.Dataset, np.ndarray]:
    """The rows of a manifest whose audio can be decoded, and their numbers; issues of the others are told."""
    from mmsr.data.manifest.check.audio import audio_issues
    from mmsr.data.manifest.issues import ManifestError
    from mmsr.data.manifest.manifest import examine_manifest

    examined = examine_manifest(manifest, labels=labels, **reading)
    issues = list(examined.issues)
    if any(issue.code != "audio-missing" for issue in issues):
        raise ManifestError(issues)
    lost = {issue.row for issue in issues}
    kept = [place for place, number in enumerate(examined.numbers.tolist()) if number not in lost]
    rows, numbers = examined.rows.select(kept), examined.numbers[kept]
    found = audio_issues(rows, os.path.basename(manifest), numbers, progress=progress)
    lost = {issue.row for issue in found}
    issues = sorted([*issues, *found], key=lambda issue: issue.row or 0)
    kept = [place for place, number in enumerate(numbers.tolist()) if number not in lost]
    rows, numbers = rows.select(kept), numbers[kept]
    if issues and (on_issue is None or not len(rows)):
        raise ManifestError(issues)
    for issue in issues:
        if on_issue is not None:
            on_issue(issue)
    return rows, numbers


def _with_columns(
    predictions: Sequence[Prediction], manifest: str | os.PathLike[str], numbers: np.ndarray
) -> list[Prediction]:
    """Predictions with the columns of their rows that a prediction has no field for, but for nested values.

    Rows of a dataset on the Hub have none.
    """
    if not os.path.isfile(manifest):
        return list(predictions)
    from mmsr.data.manifest.tables import read_table

    table = read_table(Path(manifest))
    by_number = dict(zip(table.numbers, table.rows, strict=True))
    fields = set(Prediction.__dataclass_fields__)
    found = []
    for prediction, number in zip(predictions, numbers.tolist(), strict=True):
        own = by_number.get(number, {})
        more = {name: _plain(value) for name, value in own.items() if name not in fields and _is_plain(value)}
        found.append(replace(prediction, more={**prediction.more, **more}))
    return found


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool | date)


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, date) else value


def _load(path: str) -> np.ndarray:
    """A recording's samples `[s]`.

    Raises:
        AudioError: They cannot be read.
    """
    if reason := missing(path):  # a pipe would never answer
        raise AudioError(f"{shown(path)}: {reason}; accepted: an audio file", code="audio-missing")
    return Audio().decode(path).samples


def recording_notes(audio: str | os.PathLike[str]) -> Iterator[str]:
    """Reasons to doubt an answer to a recording: it is silent, very short or very long, or oddly stored."""
    from mmsr.data.manifest.check.audio import sample_issues

    name, seconds = shown(audio), Audio.duration(audio)
    if seconds < _SHORTEST:
        yield f"{name} lasts {seconds * 1000:.0f} ms: too short for speech, so the answer says nothing of it"
        return
    if seconds > _LONGEST:
        lasts = f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"
        yield (
            f"{name} lasts {lasts} and gets one answer for all of it; "
            "mmsr timeline answers for each segment of speech"
        )
    if seconds <= _LONG_TO_CHECK:
        decoded = Audio().decode(audio)
        yield from (f"{name}: {note.message}" for note in decoded.notes)
        if any(code == "audio-silent" for code, _ in sample_issues(decoded.samples)):
            yield f"{name} is silent: the answer says nothing of it"


def count_long(recordings: Sequence[str]) -> int:
    """How many recordings are longer than an utterance; those that cannot be read are not."""
    count = 0
    for path in recordings:
        with contextlib.suppress(AudioError):
            count += Audio.duration(path) > _LONGEST
    return count
