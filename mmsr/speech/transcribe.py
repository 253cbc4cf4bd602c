"""Transcribe a manifest: each recording once, even if the run is killed and resumed.

    manifest ─► issues, digests ─► rows not in the journal, by length ─► batches ─► `Transcriber`
                                                                                         │
    copy of the manifest with `asr_text`, OUT.words.jsonl ◄── OUT.journal.jsonl ◄────────┘

After each batch the journal gets a line for each utterance. Its key is a hash of samples, recogniser,
language and options, so nothing is transcribed twice, even in another order or in a longer manifest. The
journal stays beside the output, and a copy in another format finds it. It can be deleted, at the cost of
transcribing again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.data.audio.reading import read_each
from mmsr.data.manifest.manifest import Issue, ManifestError, examine_manifest
from mmsr.data.manifest.tables import ENDINGS, check_table, check_table_output, read_table, write_table
from mmsr.evaluation.error_rates import word_error_rate
from mmsr.files import Journal, check_output, write_file
from mmsr.records import SAMPLE_RATE, Chunk, Progress, chunks_json
from mmsr.speech.cleaning import cleaned
from mmsr.speech.decoder import Transcript
from mmsr.speech.recogniser import Transcriber

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Transcribed:
    """Result of `transcribe_manifest`.

    Attributes:
        rows: `id`, `text`, `asr_text`, `language` (given, else detected) and `seconds` of each row.
        transcribed: Number of waveforms that the recogniser transcribed in this run.
        known: Number of rows that were in the journal, or have the audio of another row.
        issues: Issues of rows left without a transcript, with `keep_going`.
    """

    rows: list[dict[str, Any]]
    transcribed: int
    known: int
    issues: tuple[Issue, ...]

    def error_rates(self) -> dict[str, Any] | None:
        """WER and CER of the rows with a human transcript (see `word_error_rate`); None without any."""
        human = [row for row in self.rows if row["text"]]
        if not human:
            return None
        return word_error_rate(*([row[name] for row in human] for name in ("text", "asr_text", "language")))


def transcribe_manifest(
    source: str | os.PathLike[str],
    transcriber: Transcriber,
    out: str | os.PathLike[str],
    *,
    language: str | None = None,
    split: str | None = None,
    speakers: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    keep_going: bool = False,
    progress: Progress | None = None,
) -> Transcribed:
    """Write a copy of a manifest with `asr_text` filled in; all else stays as it is.

    Audio paths are relative to the copy. The copy, whether its format can hold the table, and all audio are
    checked before the first row is transcribed. Beside the copy are OUT.journal.jsonl (see the module) and,
    if the transcriber gives timestamps, OUT.words.jsonl: `id`, `language`, `timestamps` (`word` or `segment`)
    and `chunks` of `text`, `start`, `end` in seconds. The times of words are also in the copy's column
    `asr_words`, for those who read the manifest.

    Args:
        source: The manifest.
        transcriber: The recogniser.
        out: The copy; its suffix gives its format.
        language: Language of every row, or `detect`; by default that of the row, detected if it has none.
        split: Transcribe the rows of this split only; other rows keep their `asr_text`.
        speakers: Transcribe the rows of these speakers only.
        columns: Names of columns in the file, if they differ.
        keep_going: Leave rows with unusable audio without a transcript, instead of raising an error.
        progress: Called with the task, the rows done and all rows.

    Raises:
        ManifestError: The manifest has issues, such as unusable audio, no row is chosen, or the format of
            `out` cannot hold the table.
        ValueError: `out` is the manifest, has an unknown suffix or cannot be written, or the journal is
            invalid.
    """
    source, out = Path(source), Path(out)
    if out.exists() and source.exists() and out.samefile(source):
        raise ValueError(f"out {out} is the manifest itself; accepted: another file")
    check_table_output(out)
    check_output(out.with_name(f"{out.name}.words.jsonl"))  # the longest name of the files beside it
    named = dict(columns or {})
    examined = examine_manifest(source, columns=columns)
    if any(issue.column != "audio" for issue in examined.issues) or (examined.issues and not keep_going):
        raise ManifestError(examined.issues)
    table = read_table(source)
    check_table(out, table)
    rows = [
        {**row, "number": int(number)} for row, number in zip(examined.rows, examined.numbers, strict=True)
    ]
    chosen = _chosen(rows, source, split=split, speakers=speakers)
    for row in chosen:
        _decide_language(row, transcriber, source, language)
    unusable = {issue.row for issue in examined.issues}
    chosen = [row for row in chosen if row["number"] not in unusable]
    usable, found = _check_audio(chosen, source, transcriber, progress)
    issues = (*examined.issues, *found)
    if issues and not keep_going:
        raise ManifestError(issues)

    transcripts, transcribed, lost = _transcribe(usable, transcriber, out, progress)
    if lost:  # files that changed or went since they were checked; the journal has the others
        issues += tuple(Issue(source.name, number, "audio", str(error)) for number, error in lost.items())
        if not keep_going:
            raise ManifestError(issues)
        usable = [row for row in usable if row["number"] not in lost]
    words: dict[int, str | None] = {issue.row: None for issue in issues if issue.row is not None}
    words |= {number: transcript.text for number, transcript in transcripts.items()}
    if transcriber.timestamps != "none":
        _write_chunks(out.with_name(f"{out.name}.words.jsonl"), usable, transcripts, transcriber.timestamps)
    asr_text, asr_words, audio_column = (named.get(name, name) for name in ("asr_text", "asr_words", "audio"))
    table = table.filled(asr_text, words)
    timed: dict[int, str | None] = dict.fromkeys(words)
    if transcriber.timestamps == "word":
        timed |= {number: chunks_json(found.chunks or ()) for number, found in transcripts.items()}
    if transcriber.timestamps == "word" or asr_words in table.columns:  # else they are of another transcript
        table = table.filled(asr_words, timed)
    write_table(out, table.moved(audio_column, source.parent, out.parent))
    answered = [
        {
            **{name: row[name] for name in ("id", "text", "seconds")},
            "asr_text": transcripts[row["number"]].text,
            "language": row["language"] or transcripts[row["number"]].language,
        }
        for row in usable
    ]
    return Transcribed(answered, transcribed, len(usable) - transcribed, issues)


def _chosen(
    rows: list[dict[str, Any]], source: Path, *, split: str | None, speakers: Sequence[str] | None
) -> list[dict[str, Any]]:
    """The rows to transcribe."""
    for column, values in (("split", [split] if split else None), ("speaker", speakers)):
        if values is None:
            continue
        found = sorted({row[column] for row in rows if row[column] is not None})
        for value in values:
            if value not in found:
                problem = f"no row is of {value!r}; accepted: {', '.join(found) or 'none, since it is empty'}"
                raise ManifestError([Issue(source.name, None, column, problem)])
        rows = [row for row in rows if row[column] in values]
    silent = sum(row["audio"] is None for row in rows)
    if silent == len(rows):
        raise ManifestError(
            [Issue(source.name, None, "audio", "no chosen row has audio; accepted: at least one")]
        )
    if silent:
        logger.warning("%s: %d rows without audio keep their asr_text", source.name, silent)
    return [row for row in rows if row["audio"] is not None]


def _decide_language(
    row: dict[str, Any], transcriber: Transcriber, source: Path, language: str | None
) -> None:
    """Set a row's `code`, the recogniser's code of its language."""
    if language == "detect":
        row["language"] = row["code"] = None
        return
    row["language"] = language or row["language"]
    try:
        row["code"] = transcriber.check_language(row["language"])
    except ValueError as error:
        if language:
            raise
        raise ManifestError([Issue(source.name, row["number"], "language", str(error))]) from error


def _check_audio(
    rows: list[dict[str, Any]], source: Path, transcriber: Transcriber, progress: Progress | None
) -> tuple[list[dict[str, Any]], list[Issue]]:
    """Decode every row; return the usable rows, with `seconds` and `digest`, and the issues."""
    audio = Audio()

    def examine(reference: str) -> tuple[float, str]:
        samples = audio(reference)
        seconds = len(samples) / SAMPLE_RATE
        if seconds > transcriber.longest:
            most = f"at most {transcriber.longest:g} s by {transcriber.name}"
            raise AudioError(f"lasts {seconds:.1f} s; accepted: {most}", code="audio-long")
        return seconds, hashlib.sha256(samples.data).hexdigest()

    usable, issues = [], []
    found = read_each([row["audio"] for row in rows], examine, progress=progress)
    for row, measured in zip(rows, found, strict=True):
        if isinstance(measured, AudioError):
            issues.append(Issue(source.name, row["number"], "audio", str(measured)))
        else:
            row["seconds"], row["digest"] = measured
            usable.append(row)
    return usable, issues


def _transcribe(
    rows: Sequence[Mapping[str, Any]], transcriber: Transcriber, out: Path, progress: Progress | None
) -> tuple[dict[int, Transcript], int, dict[int, AudioError]]:
    """Transcribe the rows that the journal lacks. The journals of copies in other formats are read too.

    Returns:
        The transcripts by row, how many of them are new, and errors of rows whose audio cannot be read now.
    """
    fingerprint = transcriber.fingerprint
    keys = {
        row["number"]: hashlib.sha256(f"{row['digest']} {fingerprint} {row['code']}".encode()).hexdigest()
        for row in rows
    }
    known: dict[str, Transcript] = {}

    def read(entry: dict[str, Any]) -> None:
        key, chunks = entry.pop("key"), entry.pop("chunks")
        timed = None if chunks is None else tuple(Chunk(**chunk) for chunk in chunks)
        known[key] = cleaned(Transcript(**entry, chunks=timed))

    journals = [
        out.with_name(f"{name}.journal.jsonl") for name in (out.name, *(out.stem + e for e in ENDINGS))
    ]
    with Journal(journals[0], read, others=[path for path in journals if path != journals[0]]) as journal:
        new = {key: row for row in rows if (key := keys[row["number"]]) not in known}
        queue = sorted(new.items(), key=lambda item: item[1]["seconds"])
        audio, lost = Audio(), {}
        for done in range(0, len(queue), transcriber.batch_size):
            batch = queue[done : done + transcriber.batch_size]
            heard = {}
            for key, row in batch:
                try:
                    heard[key] = audio(row["audio"]), row["code"]
                except AudioError as error:
                    lost[key] = error
            if heard:
                samples, languages = zip(*heard.values(), strict=True)
                answers = transcriber.transcribe(samples, languages=languages)
                transcripts = dict(zip(heard, answers, strict=True))
                journal.add(*({"key": key, **asdict(transcript)} for key, transcript in transcripts.items()))
                known |= transcripts
            if progress:
                progress("transcribing", done + len(batch), len(queue))
    found = {number: known[key] for number, key in keys.items() if key not in lost}
    return found, len(queue) - len(lost), {n: lost[key] for n, key in keys.items() if key in lost}


def _write_chunks(
    path: Path, rows: Sequence[Mapping[str, Any]], transcripts: Mapping[int, Transcript], timestamps: str
) -> None:
    lines = []
    for row in rows:
        transcript = transcripts[row["number"]]
        chunks = [asdict(chunk) for chunk in transcript.chunks or ()]
        line = {"id": row["id"], "language": transcript.language, "timestamps": timestamps, "chunks": chunks}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_file(path, "".join(lines).encode())
