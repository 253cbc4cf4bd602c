"""Transcripts of a manifest: every recording heard once, resumable."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.data.manifest.manifest import Issue, ManifestError, examine_manifest
from mmsr.data.manifest.tables import checked_ending, read_table, write_table
from mmsr.files import Journal, write_file
from mmsr.records import Progress
from mmsr.speech.recogniser import RATE, Chunk, Transcriber, Transcript, logger

# ---------------------------------------------------------------------- a manifest


@dataclass(frozen=True)
class Transcribed:
    """What became of a manifest.

    Attributes:
        rows: `id`, `text`, `asr_text`, `language` (given, else detected) and `seconds` of each row heard.
        heard: How many waveforms the recogniser heard now.
        known: How many rows the journal, or another row with the same audio, had the words of.
        faults: Rows left without a transcript, with `keep_going`.
    """

    rows: list[dict[str, Any]]
    heard: int
    known: int
    faults: tuple[Issue, ...]


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
    """Write a copy of a manifest with `asr_text` filled in; every other column and row stays as it is.

    Audio paths are written relative to the copy. All audio is decoded and checked before the recogniser
    hears the first row. Beside the copy stand OUT.journal.jsonl (module docstring) and, where the transcriber
    gives timestamps, OUT.words.jsonl: `id`, `language`, `timestamps` (`word` or `segment`) and `chunks` of
    `text`, `start` and `end` in seconds.

    Args:
        source: The manifest.
        transcriber: The recogniser.
        out: The copy; its ending is its format.
        language: Of every row, or `detect`; by default that of the manifest's column, detected where there
            is none.
        split: Hear the rows of this split alone; other rows keep their `asr_text`.
        speakers: Hear the rows of these speakers alone.
        columns: Where a column has another name in the file.
        keep_going: Leave rows with faulty audio without a transcript instead of refusing the manifest.
        progress: Is told the task, the rows done and all rows.

    Raises:
        ManifestError: The manifest has faults, faulty audio among them; or no row is chosen.
        ValueError: `out` is the manifest, or has an ending that is no manifest's.
    """
    source, out = Path(source), Path(out)
    checked_ending(out)
    if out.exists() and source.exists() and out.samefile(source):
        raise ValueError(f"out {out} is the manifest itself; accepted: another file")
    named = dict(columns or {})
    examined = examine_manifest(source, columns=columns)
    table = read_table(source)
    faults = [fault for fault in examined.faults if fault.column != "audio"]
    if faults or (examined.faults and not keep_going):
        raise ManifestError(examined.faults)
    rows = [
        {**row, "number": int(number)} for row, number in zip(examined.rows, examined.numbers, strict=True)
    ]
    chosen = _chosen(rows, source, split=split, speakers=speakers)
    for row in chosen:
        _decide_language(row, transcriber, source, language)
    known_faults = {fault.row for fault in examined.faults}
    heard, faulty = _digest(
        [row for row in chosen if row["number"] not in known_faults], source, transcriber, progress
    )
    faulty = [*examined.faults, *faulty]
    if faulty and not keep_going:
        raise ManifestError(faulty)

    out.parent.mkdir(parents=True, exist_ok=True)
    fingerprint = transcriber.fingerprint
    for row in heard:
        row["key"] = _key(row["digest"], fingerprint, row["code"])
    known: dict[str, Transcript] = {}

    def read(entry: dict[str, Any]) -> None:
        key, chunks = entry.pop("key"), entry.pop("chunks")
        timed = None if chunks is None else tuple(Chunk(**chunk) for chunk in chunks)
        known[key] = Transcript(**entry, chunks=timed)

    with Journal(out.with_name(f"{out.name}.journal.jsonl"), read) as journal:
        new = {row["key"]: row for row in heard if row["key"] not in known}
        queue = sorted(new.values(), key=lambda row: row["seconds"])
        audio = Audio()
        for done in range(0, len(queue), transcriber.batch_size):
            batch = queue[done : done + transcriber.batch_size]
            samples = [audio(row["audio"]) for row in batch]
            answers = transcriber.transcribe(samples, languages=[row["code"] for row in batch])
            known |= {row["key"]: answer for row, answer in zip(batch, answers, strict=True)}
            journal.add(*({"key": row["key"], **asdict(known[row["key"]])} for row in batch))
            if progress:
                progress("hearing", done + len(batch), len(queue))
    transcripts = {row["number"]: known[row["key"]] for row in heard}
    words: dict[int, str | None] = {fault.row: None for fault in faulty if fault.row is not None}
    words |= {number: transcript.text for number, transcript in transcripts.items()}
    if transcriber.timestamps != "none":
        _write_chunks(out, heard, transcripts, transcriber.timestamps)
    asr_text, audio_column = (named.get(name, name) for name in ("asr_text", "audio"))
    write_table(out, table.filled(asr_text, words).moved(audio_column, source.parent, out.parent))
    answered = [
        {
            **{name: row[name] for name in ("id", "text", "seconds")},
            "asr_text": transcripts[row["number"]].text,
            "language": row["language"] or transcripts[row["number"]].language,
        }
        for row in heard
    ]
    return Transcribed(answered, len(queue), len(heard) - len(queue), tuple(faulty))


def _chosen(
    rows: list[dict[str, Any]], source: Path, *, split: str | None, speakers: Sequence[str] | None
) -> list[dict[str, Any]]:
    """The rows to hear."""
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
    """Set a row's `code`, the language that the recogniser is told."""
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


def _digest(
    rows: list[dict[str, Any]], source: Path, transcriber: Transcriber, progress: Progress | None
) -> tuple[list[dict[str, Any]], list[Issue]]:
    """Decode every row once: its `seconds` and `digest`, or its fault."""
    audio = Audio()

    def look(row: dict[str, Any]) -> Issue | None:
        try:
            samples = audio(row["audio"])
        except AudioError as error:
            return Issue(source.name, row["number"], "audio", str(error))
        row["seconds"] = len(samples) / RATE
        row["digest"] = hashlib.sha256(samples.data).hexdigest()
        if row["seconds"] > transcriber.longest:
            most = f"at most {transcriber.longest:g} s by {transcriber.name}"
            problem = f"lasts {row['seconds']:.1f} s; accepted: {most}"
            return Issue(source.name, row["number"], "audio", problem)
        return None

    faults = []
    with ThreadPoolExecutor() as pool:
        for done, fault in enumerate(pool.map(look, rows), start=1):
            if fault is not None:
                faults.append(fault)
            if progress:
                progress("checking audio", done, len(rows))
    wrong = {fault.row for fault in faults}
    return [row for row in rows if row["number"] not in wrong], faults


def _key(digest: str, fingerprint: str, code: str | None) -> str:
    return hashlib.sha256(f"{digest} {fingerprint} {code}".encode()).hexdigest()


def _write_chunks(
    out: Path, rows: Sequence[Mapping[str, Any]], transcripts: Mapping[int, Transcript], timestamps: str
) -> None:
    lines = []
    for row in rows:
        heard = transcripts[row["number"]]
        chunks = [asdict(chunk) for chunk in heard.chunks or ()]
        line = {"id": row["id"], "language": heard.language, "timestamps": timestamps, "chunks": chunks}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_file(out.with_name(f"{out.name}.words.jsonl"), "".join(lines).encode())
