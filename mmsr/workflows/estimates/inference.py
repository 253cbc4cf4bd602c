"""How long answers to recordings take: batches of the job itself are answered and timed.

recordings ─► lengths ─► batches of `mmsr predict` ─► some of them, timed ─► seconds of all
or pieces of a whole recording, each a timeline ─► seconds of all
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.data.audio.reading import decode_to_end, read_each, read_or_error, seconds_of
from mmsr.data.manifest.manifest import load_manifest, utterances
from mmsr.inference.loading import load_pipeline, predictor
from mmsr.inference.pipeline import SentimentReasoningPipeline
from mmsr.inference.predict import answer_utterances, find_recordings
from mmsr.inference.timeline.formats import write_timeline
from mmsr.inference.timeline.make import make_timeline
from mmsr.model.packaged import DEFAULT
from mmsr.records import SAMPLE_RATE, Utterance
from mmsr.workflows.estimates.costs import (
    Clock,
    Estimate,
    Measured,
    Part,
    constant,
    linear,
    peak_memory,
    spread_order,
    start_of,
    this_machine,
)

MEAN_SECONDS = 5.0  # of utterances where nothing tells it
_LOOKED_AT = 4096  # recordings whose lengths are read
_IMPORTED = "mmsr.inference.predict, mmsr.speech.recogniser, mmsr.data.manifest.tables"
_LEAST = 6  # batches that are timed, if there is time for them
_FEWEST = 3  # that are timed in any case: a whole one, and parts of it
_CHUNK = 128  # rows of a manifest that are sorted by length at a time, as in `predict_rows`
_CHECKED, _CHECKED_AT_ONCE = 128, 16  # files of a manifest that are decoded to time its check
_CHECK_SHARE = 0.1  # of the time, for that
_FIRST_PIECE, _LONGEST_PIECE = 20.0, 1200.0  # seconds of a recording for a timeline
_TIMELINES = 2  # pieces that are timed in any case, after the first, which is slow
_SCRATCH = 4 * SAMPLE_RATE  # bytes of a second in a timeline's scratch file


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What `mmsr predict` or `mmsr timeline` is asked.

    Attributes:
        model: Folder or Hub id of a checkpoint, or the name of a packaged one.
        asr: Folder or Hub id of a recogniser, which transcribes recordings.
        language: Spoken language, for the recogniser.
        timeline: Make a timeline of each recording, instead of one answer.
        alternatives: Write the rationales under the other labels too.
        num_beams: Beams of the rationale's generation.
        batch_size: Utterances in a batch; by default 32, and 16 segments of a timeline.
    """

    model: str | os.PathLike[str] = DEFAULT
    asr: str | None = None
    language: str | None = None
    timeline: bool = False
    alternatives: bool = False
    num_beams: int = 1
    batch_size: int | None = None

    @property
    def rows(self) -> int:
        """Utterances or segments in a batch."""
        return self.batch_size or (16 if self.timeline else 32)


class _Job(NamedTuple):
    """What is to be answered, in batches.

    Attributes:
        batches: The utterances of each batch.
        seconds: Their lengths.
        factor: How many times the job is as much as these.
        checked: The files that are decoded before, and their seconds: those of a manifest.
        checked_factor: How many times the job has as many files.
        manifest: Whether the batches are of a manifest.
        notes: What was left out.
    """

    batches: list[list[Utterance]]
    seconds: list[list[float]]
    factor: float
    checked: dict[str, float]
    checked_factor: float
    manifest: bool
    notes: list[str]

    def sizes(self, place: int, rows: int | None = None) -> tuple[float, ...]:
        """What the seconds of a batch, or its first rows, depend on.

        These are padded seconds of audio, 1, padded characters of transcripts, and rows.
        """
        lengths = self.seconds[place][:rows]
        characters = [len(row.text or "") for row in self.batches[place][:rows]]
        count = len(lengths)
        return (count * max(lengths), 1.0, float(count * max(characters)), float(count))


def estimate_inference(
    recordings: Sequence[str | os.PathLike[str]] = (),
    answers: Answers | None = None,
    *,
    manifest: str | os.PathLike[str] | None = None,
    hours: float | None = None,
    seconds: float | None = None,
    columns: Mapping[str, str] | None = None,
    calibrate: float = 60.0,
) -> Estimate:
    """Time and memory of `mmsr predict` or `mmsr timeline`.

    Example:
        >>> print(estimate_inference(hours=100, answers=Answers(model="base")).table())

    Args:
        recordings: Audio files and folders of them. Without them and a manifest, clips of the package stand
            for them.
        answers: What is asked.
        manifest: Table of utterances, in place of recordings.
        hours: Hours of audio of the job; by default what the recordings have.
        seconds: Mean length of an utterance (of a recording, for timelines): the audio is cut and joined to
            such lengths. By default that of the recordings, and without them 5 s, or the whole job as one
            recording.
        columns: Names that columns have in the manifest.
        calibrate: Seconds for timing, beyond those for loading. The largest batch and two quarters of one are
            timed in any case, and of timelines three pieces.

    Raises:
        ValueError: There is no such file or checkpoint, or neither recordings nor hours are given.
    """
    answers = answers or Answers()
    if not recordings and manifest is None and hours is None:
        raise ValueError("give recordings, a manifest, or --hours H, the hours of audio to answer")
    clock = Clock()
    started = time.perf_counter()
    with peak_memory() as memory, tempfile.TemporaryDirectory(prefix="mmsr-plan-") as scratch:
        parts = [constant("start of the program", start_of(_IMPORTED))]
        machine = this_machine()
        clock.restart()
        pipe = load_pipeline(answers.model)
        parts.append(constant("loading the model", clock.lap()))
        recogniser = None
        if answers.asr is not None:
            from mmsr.speech.recogniser import Transcriber

            clock.restart()
            recogniser = Transcriber(answers.asr, timestamps="auto", batch_size=8)
            parts.append(constant("loading the recogniser", clock.lap()))
        ends = time.perf_counter() + calibrate
        if answers.timeline:
            found, facts = _timelines(recordings, answers, pipe, recogniser, hours, seconds, scratch, ends)
        else:
            job = _job(_rows(recordings, manifest, pipe, columns), answers, hours, seconds, Path(scratch))
            found, facts = _batches(job, answers, pipe, recogniser, ends)
    disk = {} if not answers.timeline else {"scratch file": _SCRATCH * facts["longest_seconds"]}
    model = Path(answers.model).name
    work = "timelines of" if answers.timeline else "answers to"
    return Estimate(
        job=f"{work} {facts['hours']:.3g} h of audio by {model}, {facts['amount']}",
        parts=[*parts, *found],
        memory=memory["memory"],
        gpu_memory=memory.get("gpu_memory"),
        disk=disk,
        machine=machine,
        calibration_seconds=time.perf_counter() - started,
        notes=facts.pop("notes"),
        facts={name: value for name, value in facts.items() if name != "amount"},
    )


# ---------------------------------------------------------------------- answers


def _batches(
    job: _Job, answers: Answers, pipe: SentimentReasoningPipeline, recogniser: Any, ends: float
) -> tuple[list[Part], dict[str, Any]]:
    """Time some of the batches, the most costly first."""
    answer = _answering(job, answers, pipe, recogniser)
    order = spread_order([job.sizes(place)[0] for place in range(len(job.batches))])
    check = [_check(job, (ends - time.perf_counter()) * _CHECK_SHARE)] if job.manifest else []
    answer(job.batches[order[0]][:1])  # the first is slow
    clock, measured = Clock(), list[Measured]()
    longest = 0.0
    for turn, place in enumerate(itertools.cycle(order)):
        left = ends - time.perf_counter()
        if len(measured) >= _FEWEST and left < longest / 4 or len(measured) >= _LEAST and left < longest:
            break
        if len(measured) >= 4 * len(order) + 8:  # a small job is known by now
            break
        # a part of a batch tells what a batch costs and what its rows; the first, whole one has most memory
        rows = max(1, answers.rows // 4) if turn % 4 == 1 or turn and left < longest else None
        clock.restart()
        answer(job.batches[place][:rows])
        wall, processor = clock.lap()
        longest = max(longest, wall)
        measured.append(Measured(sizes=job.sizes(place, rows), seconds=wall, processor_seconds=processor))
    whole = np.sum([job.sizes(place) for place in range(len(job.batches))], axis=0) * job.factor
    count = whole[1]
    parts = [*check, linear("answering", measured, whole, amount=f"{count:,.0f} batches")]
    total = sum(map(sum, job.seconds)) * job.factor
    utterances = sum(map(len, job.batches)) * job.factor
    return parts, {
        "hours": total / 3600,
        "amount": f"{utterances:,.0f} utterances of {total / utterances:.1f} s",
        "utterances": round(utterances),
        "batches": round(count),
        "notes": job.notes,
    }


def _answering(
    job: _Job, answers: Answers, pipe: SentimentReasoningPipeline, recogniser: Any
) -> Callable[[Sequence[Utterance]], Any]:
    """What `mmsr predict` does with a batch."""
    options: dict[str, Any] = {"num_beams": answers.num_beams, "batch_size": answers.rows}
    if job.manifest:
        return predictor(pipe, speech=True, **options)

    def answer(batch: Sequence[Utterance]) -> None:
        given = [{"audio": row.audio, "text": None, "language": answers.language} for row in batch]
        alternatives = answers.alternatives or None
        list(answer_utterances(pipe, given, asr=recogniser, alternatives=alternatives, **options))

    return answer


def _check(job: _Job, seconds: float) -> Part:
    """Time the check of a manifest's audio, which decodes all of it, for some seconds."""
    names = list(job.checked)
    clock, measured = Clock(), list[Measured]()
    ends = time.perf_counter() + seconds
    for start in range(0, min(len(names), _CHECKED), _CHECKED_AT_ONCE):
        some = names[start : start + _CHECKED_AT_ONCE]
        clock.restart()
        list(read_each(some, decode_to_end))
        wall, processor = clock.lap()
        sizes = (sum(job.checked[name] for name in some), float(len(some)))
        measured.append(Measured(sizes=sizes, seconds=wall, processor_seconds=processor))
        if time.perf_counter() + wall > ends:
            break
    whole = np.array([sum(job.checked.values()), len(names)]) * job.checked_factor
    if not measured:
        return constant("checking audio", (0.0, 0.0))
    return linear("checking audio", measured, whole, amount=f"{whole[1]:,.0f} files")


def _job(
    rows: list[Utterance], answers: Answers, hours: float | None, seconds: float | None, scratch: Path
) -> _Job:
    """The batches of a job, as `mmsr predict` makes them."""
    manifest = bool(rows) and rows[0].id is not None
    if not rows or seconds is not None:
        if hours is None:
            raise ValueError(f"--seconds {seconds:g} cuts the audio anew; accepted: with --hours H")
        sources = [str(row.audio) for row in rows if row.audio is not None] or _packaged()
        mean = MEAN_SECONDS if seconds is None else seconds
        words = itertools.cycle(rows or [Utterance()])
        made = _made(sources, _lengths(mean, 4 * answers.rows), scratch)
        rows = [replace(row, audio=path) for row, path in zip(words, made, strict=False)]
    count = len(rows)
    if count > _LOOKED_AT:  # whole runs of rows, since batches follow the files' order
        starts = np.linspace(0, count - _CHUNK, _LOOKED_AT // _CHUNK).astype(int)
        rows = [row for start in starts for row in rows[start : start + _CHUNK]]
    looked_at = len(rows)
    rows, lengths = _readable(rows)
    left_out, seen = looked_at - len(rows), sum(lengths)
    if hours is not None and not seen:
        raise ValueError(f"--hours {hours:g}: the rows have no audio; accepted: a manifest with audio")
    checked = {str(row.audio): length for row, length in zip(rows, lengths, strict=True) if row.audio}
    chunk = _CHUNK if manifest else answers.rows
    if hours is not None and len(rows) < chunk:  # the job has more of them, and full batches
        copies = math.ceil(chunk / len(rows))
        rows, lengths = rows * copies, lengths * copies
    groups = []
    for start in range(0, len(rows), chunk):
        places = list(range(start, min(start + chunk, len(rows))))
        if manifest:
            places.sort(key=lengths.__getitem__)
        groups += [places[first : first + answers.rows] for first in range(0, len(places), answers.rows)]
    if hours is not None:  # of more rows, few batches are not full
        groups = [group for group in groups if len(group) == answers.rows] or groups
    known = sum(lengths[place] for group in groups for place in group)
    return _Job(
        batches=[[rows[place] for place in group] for group in groups],
        seconds=[[lengths[place] for place in group] for group in groups],
        factor=count / looked_at if hours is None else hours * 3600 / known,
        checked=checked if manifest else {},
        checked_factor=count / looked_at if hours is None else hours * 3600 / seen,
        manifest=manifest,
        notes=_unreadable_note(left_out, looked_at),
    )


def _rows(
    recordings: Sequence[str | os.PathLike[str]],
    manifest: str | os.PathLike[str] | None,
    pipe: SentimentReasoningPipeline,
    columns: Mapping[str, str] | None,
) -> list[Utterance]:
    """The recordings, or the rows of a manifest, which have ids."""
    if manifest is None:
        return [Utterance(audio=path) for path in find_recordings(recordings)]
    return utterances(load_manifest(manifest, labels=pipe.model.config.labels, columns=columns))


def _readable(rows: Sequence[Utterance]) -> tuple[list[Utterance], list[float]]:
    """The rows that would be answered, and the seconds of their audio; 0 where there is none.

    Raises:
        ValueError: There is audio, and none can be read.
    """
    paths = list(dict.fromkeys(str(row.audio) for row in rows if row.audio is not None))
    lengths = dict(zip(paths, read_each(paths, seconds_of), strict=True))
    found = {path: length for path, length in lengths.items() if not isinstance(length, AudioError)}
    if paths and not found:
        raise ValueError(f"{paths[0]}: none of the recordings can be read; accepted: audio files")
    kept = [row for row in rows if row.audio is None or str(row.audio) in found]
    return kept, [0.0 if row.audio is None else found[str(row.audio)] for row in kept]


def _unreadable_note(count: int, looked_at: int) -> list[str]:
    if not count:
        return []
    return [f"without {count:,} of {looked_at:,} recordings, which cannot be read and get no answer"]


# ---------------------------------------------------------------------- timelines


def _timelines(
    recordings: Sequence[str | os.PathLike[str]],
    answers: Answers,
    pipe: SentimentReasoningPipeline,
    recogniser: Any,
    hours: float | None,
    seconds: float | None,
    scratch: str,
    ends: float,
) -> tuple[list[Part], dict[str, Any]]:
    """Time timelines of ever longer pieces."""
    given = [Utterance(audio=path) for path in find_recordings(recordings) or _packaged()]
    rows, lengths = _readable(given)
    sources = [str(row.audio) for row in rows]
    total = sum(lengths) if hours is None else hours * 3600
    mean = seconds or (sum(lengths) / len(lengths) if recordings else total)
    clock, measured = Clock(), list[Measured]()
    length = min(_FIRST_PIECE, mean)
    for turn in itertools.count():
        folder = Path(scratch) / str(turn)
        folder.mkdir()
        (piece,) = _made(sources, [length], folder)
        clock.restart()
        made = make_timeline(
            piece,
            pipe,
            transcriber=recogniser,
            language=answers.language,
            batch_size=answers.rows,
            num_beams=answers.num_beams,
        )
        write_timeline(made, folder / "out")
        wall, processor = clock.lap()
        if turn:  # the first is slow
            measured.append(Measured(sizes=(length, 1.0), seconds=wall, processor_seconds=processor))
        left = ends - time.perf_counter()
        if len(measured) >= _TIMELINES and (left < wall or turn >= 12):
            break
        grows = turn > 0 and left > 3 * wall
        length = min(2 * length, mean, _LONGEST_PIECE) if grows else length * (1 if turn != 1 else 0.5)
    count = total / mean
    part = linear("timelines", measured, (total, count), amount=f"{count:,.0f} recordings")
    notes = _unreadable_note(len(given) - len(rows), len(given))
    if (longest := max(piece.sizes[0] for piece in measured)) < mean:
        notes.append(f"timed on pieces of up to {longest:.0f} s: longer --calibrate times longer ones")
    return [part], {
        "hours": total / 3600,
        "amount": f"{count:,.0f} of {mean:.0f} s",
        "recordings": round(count),
        "longest_seconds": max(mean, *lengths) if hours is None else mean,
        "notes": notes,
    }


# ---------------------------------------------------------------------- audio of given lengths


def _packaged() -> list[str]:
    """Clips of the package: people and synthetic voices."""
    folder = Path(str(files("mmsr"))) / "examples"
    return sorted(map(str, folder.rglob("*.mp3")))


def _lengths(mean: float, count: int) -> list[float]:
    """Lengths around a mean, from half of it to one and a half, in a fixed disorder."""
    spread = np.linspace(0.5, 1.5, count) * mean
    return np.random.default_rng(0).permutation(spread).tolist()


def _made(sources: Sequence[str], lengths: Sequence[float], folder: Path) -> Iterator[str]:
    """Files with the samples of the sources one after another, of the given lengths in seconds.

    Raises:
        ValueError: None of the sources can be read; others are left out.
    """
    load = Audio(SAMPLE_RATE)
    left = deque(sources)
    rest = np.zeros(0, np.float32)
    for place, seconds in enumerate(lengths):
        wanted = round(seconds * SAMPLE_RATE)
        while len(rest) < wanted:
            if not left:
                raise ValueError(f"{sources[0]}: none of the recordings can be read; accepted: audio files")
            wave = read_or_error(left[0], load)
            if isinstance(wave, AudioError):
                left.popleft()
                continue
            left.rotate(-1)
            rest = np.concatenate([rest, wave])
        path = folder / f"{place}.wav"
        soundfile.write(path, rest[:wanted], SAMPLE_RATE)
        rest = rest[wanted:]
        yield str(path)
