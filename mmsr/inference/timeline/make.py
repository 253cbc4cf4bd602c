"""A whole recording along its time axis: segments of speech, each with transcript, label and rationale.

    recording ─► scratch file ─► speech (silero-vad) or speaker turns ─► segments, 20 s at most each
                                                                            │
    transcript with times, or a recogniser ─► words of each ────────────────┤
                                                                            ▼
    Timeline ◄── JOURNAL, a line for each batch ◄── label, probabilities, rationale, batch by batch

Memory does not grow with the recording. The journal begins with a fingerprint of audio, weights and settings.
A killed run resumes after its last whole batch, with the same result, byte for byte.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mmsr.data.audio.recording import Recording
from mmsr.data.audio.segments import Segment, Segmentation, cut_at_quietest, speech_segments
from mmsr.data.features.store import encoder_fingerprint, file_digest
from mmsr.data.storage import is_url, missing, shown
from mmsr.files import Journal, settings_fingerprint
from mmsr.inference.pipeline import SentimentReasoningPipeline
from mmsr.inference.prosody import differences, prosody, usual
from mmsr.inference.timeline.cues import Cue, TimelineError, Turn
from mmsr.records import Chunk, Progress
from mmsr.speech.neighbours import NeighbourTranscriber
from mmsr.speech.recogniser import Transcriber

logger = logging.getLogger(__name__)

_SORTED_BATCHES = 16  # segments are sorted by length within so many batches, for less padding
_MOMENTS = 3
_LATE = 1.0  # seconds after a recording's end at which a cue may still begin
_LONGER = 30.0  # seconds by which one may end after it: whisper hears windows of 30 s


@dataclass(frozen=True, kw_only=True)
class AnsweredSegment:
    """A segment of a recording with the model's answer.

    Attributes:
        start: In seconds.
        end: In seconds.
        speaker: None if unknown.
        text: None if there are no words.
        label: The predicted label, after smoothing if any.
        score: Its probability.
        scores: Probability of each label.
        rationale: None if the model writes none.
        alone: With smoothing, `label` and `scores` before it, which the rationale explains.
        abstained_because: Why the model abstains, where it does.
        evidence: Words of `text` that the rationale quotes, each with `start` and `end` in characters, and
            `seconds` of the recording with `timed_by`, where these come from, as in an answer.
        asr_words: A recogniser's words, each with `text`, and `start` and `end` in seconds of the recording.
        voice: Probabilities of the voice's emotions, of a model that names them.
        prosody: Its pitch, level and pace (`mmsr.inference.prosody`).
    """

    start: float
    end: float
    speaker: str | None
    text: str | None
    label: str
    score: float
    scores: Mapping[str, float]
    rationale: str | None
    alone: Mapping[str, Any] | None = None
    abstained_because: str | None = None
    evidence: Sequence[Mapping[str, Any]] = ()
    asr_words: Sequence[Mapping[str, Any]] = ()
    voice: Mapping[str, float] | None = None
    prosody: Mapping[str, float | None] | None = None

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.end - self.start

    def as_row(self) -> dict[str, Any]:
        """The fields by name; the optional ones only where they are set."""
        optional = ("alone", "abstained_because", "evidence", "asr_words", "voice", "prosody")
        return {name: value for name, value in asdict(self).items() if name not in optional or value}


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """A recording's segments in order; those of different speakers may overlap.

    Attributes:
        audio: Path or URL of the recording.
        seconds: Its length.
        labels: The model's labels.
        segments: Where there is speech.
    """

    audio: str
    seconds: float
    labels: tuple[str, ...]
    segments: tuple[AnsweredSegment, ...]

    @property
    def speech_seconds(self) -> float:
        """How much of the recording is speech; where people talk at once, once."""
        spoken = end = 0.0
        for part in sorted(self.segments, key=lambda part: part.start):
            spoken += max(0.0, part.end - max(end, part.start))
            end = max(end, part.end)
        return spoken

    def differences(self, part: AnsweredSegment) -> dict[str, float]:
        """How a segment's pitch, level and pace differ from those of the speaker's segments."""
        return differences(part.prosody or {}, self._usual.get(part.speaker, {}))

    @cached_property
    def _usual(self) -> dict[str | None, dict[str, float]]:
        """The median pitch, level and pace of each speaker."""
        of_speakers: dict[str | None, list[Mapping[str, float | None]]] = {}
        for part in self.segments:
            of_speakers.setdefault(part.speaker, []).append(part.prosody or {})
        return {speaker: usual(known) for speaker, known in of_speakers.items()}

    def smoothed(self, seconds: float) -> Timeline:
        """The timeline with probabilities averaged over neighbouring segments of the same speaker.

        Weights are the segments' lengths times a Gaussian of the distance between their middles.

        Args:
            seconds: Standard deviation of the Gaussian.

        Raises:
            TimelineError: `seconds` is not positive.
        """
        if not seconds > 0:
            raise TimelineError(f"smooth is {seconds}; accepted: seconds above 0")
        middles = np.array([(part.start + part.end) / 2 for part in self.segments])
        lengths = np.array([part.seconds for part in self.segments])
        speakers = np.array([part.speaker or "" for part in self.segments])
        scores = np.array([[part.scores[label] for label in self.labels] for part in self.segments])
        parts = []
        for place, part in enumerate(self.segments):
            near = np.exp(-0.5 * ((middles - middles[place]) / seconds) ** 2)
            weights = near * lengths * (speakers == speakers[place])
            mean = weights @ scores / weights.sum()
            best = int(mean.argmax())
            parts.append(
                replace(
                    part,
                    label=self.labels[best],
                    score=float(mean[best]),
                    scores=dict(zip(self.labels, mean.tolist(), strict=True)),
                    alone={"label": part.label, "scores": part.scores},
                )
            )
        return replace(self, segments=tuple(parts))

    def summary(self) -> dict[str, Any]:
        """Seconds and segments of each label, seconds of each speaker by label, and the strongest moments.

        `moments` has the segments of each label in which it is most probable.
        """
        speakers = sorted({part.speaker for part in self.segments if part.speaker is not None})

        def spent(label: str, speaker: str | None = None) -> float:
            parts = (part for part in self.segments if part.label == label)
            return round(sum(part.seconds for part in parts if speaker in (None, part.speaker)), 3)

        return {
            "audio": shown(os.path.basename(self.audio)),
            "seconds": round(self.seconds, 3),
            "speech_seconds": round(self.speech_seconds, 3),
            "segments": len(self.segments),
            "labels": {
                label: {
                    "seconds": spent(label),
                    "segments": sum(part.label == label for part in self.segments),
                }
                for label in self.labels
            },
            "speakers": {
                speaker: {label: spent(label, speaker) for label in self.labels} for speaker in speakers
            },
            "moments": {
                label: [
                    {
                        **{key: row[key] for key in ("start", "end", "speaker", "text", "rationale")},
                        "score": row["scores"][label],
                    }
                    for row in (part.as_row() for part in self._strongest(label))
                ]
                for label in self.labels
            },
        }

    def _strongest(self, label: str) -> list[AnsweredSegment]:
        own = (part for part in self.segments if part.label == label)
        return sorted(own, key=lambda part: (-part.scores[label], part.start))[:_MOMENTS]


def make_timeline(
    audio: str | os.PathLike[str],
    pipe: SentimentReasoningPipeline,
    *,
    settings: Segmentation | None = None,
    turns: Sequence[Turn] | None = None,
    transcript: Sequence[Cue] | None = None,
    transcriber: Transcriber | None = None,
    language: str | None = None,
    batch_size: int = 16,
    num_beams: int = 1,
    journal: str | os.PathLike[str] | None = None,
    other_journals: Sequence[Path] = (),
    progress: Progress | None = None,
) -> Timeline:
    """Label, probabilities and rationale of each segment of a recording.

    Args:
        audio: Path or URL of the recording, in any format that `Audio` reads.
        pipe: The model.
        settings: How speech is cut.
        turns: Speaker turns, which replace silero-vad's segments. Turns of a speaker with at most
            `settings.max_silence` and nobody else between them are joined; those shorter than
            `settings.min_seconds` are left out.
        transcript: Words with times; each cue goes to the segment that it overlaps most. One in no segment is
            left out, with a warning.
        transcriber: A recogniser, in place of a transcript.
        language: The spoken language, for the recogniser.
        batch_size: Segments at a time.
        num_beams: Beams of the rationale's generation.
        journal: File from which a killed run is resumed; one of another recording or of other settings is
            overwritten.
        other_journals: Files that may have answers too, such as those of outputs in other formats.
        progress: Called with task, done and total.

    Raises:
        TimelineError: Transcript and transcriber are both given, the model needs words and gets none,
            there is no such recording, or turns or cues lie outside of it.
        AudioError: The recording cannot be read, or is empty.
        SegmentError: silero-vad is missing.
        ValueError: `journal` is a file of another kind.
    """
    settings = settings or Segmentation()
    needs_words = pipe.model.config.fusion == "text_only"
    _check(batch_size, settings, transcript, transcriber, needs_words=needs_words)
    audio = os.fspath(audio)
    if not is_url(audio) and (reason := missing(audio)):
        reason = "no such file" if reason == "does not exist" else reason
        raise TimelineError(f"{shown(audio)}: {reason}; accepted: a recording")
    made_from = {
        "audio": file_digest(audio).hex(),
        "model": encoder_fingerprint(pipe.model),
        "config": pipe.model.config.to_dict(),
        "settings": asdict(settings),
        "turns": None if turns is None else [asdict(turn) for turn in turns],
        "transcript": None if transcript is None else [asdict(cue) for cue in transcript],
        "recogniser": None if transcriber is None else [transcriber.fingerprint, language],
        "batches": [batch_size, _SORTED_BATCHES, num_beams],
        "language": language,
        # of this module: 2 gives a cue to a segment it overlaps, 3 keeps the evidence, 4 the words' times,
        # 5 transcribes neighbours together
        "version": 5,
    }
    fingerprint = settings_fingerprint(made_from)
    with _Known(journal, fingerprint, other_journals) as known:
        if known.turns is None or len(known.answers) < len(known.turns):
            with Recording(audio, progress=progress) as recording:
                _check_times(transcript or (), recording)
                if known.turns is None:
                    known.begin(_segments(recording, settings, turns, progress), recording.seconds)
                _answer(
                    recording,
                    known,
                    pipe,
                    words=None if transcript is None else _words(known.turns or [], transcript),
                    transcriber=transcriber,
                    language=language,
                    batch_size=batch_size,
                    num_beams=num_beams,
                    needs_words=needs_words,
                    progress=progress,
                )
        found = [
            AnsweredSegment(**asdict(turn), **answer)
            for place, turn in enumerate(known.turns or [])
            if (answer := known.answers[place]) is not None
        ]
        if left_out := len(known.turns or []) - len(found):
            logger.warning(
                "%s: %d segments without words are left out: the model reads words alone", audio, left_out
            )
        labels = tuple(pipe.model.config.labels)
        return Timeline(audio=audio, seconds=known.seconds, labels=labels, segments=tuple(found))


def _check(
    batch_size: int,
    settings: Segmentation,
    transcript: Sequence[Cue] | None,
    transcriber: Transcriber | None,
    *,
    needs_words: bool,
) -> None:
    if batch_size < 1:
        raise TimelineError(f"batch_size is {batch_size}; accepted: 1 and more")
    if transcript is not None and transcriber is not None:
        raise TimelineError("a transcript and a recogniser are given; accepted: one of the two, or none")
    if needs_words and transcript is None and transcriber is None:
        raise TimelineError("this model reads words alone; accepted: with a transcript or a recogniser")
    if transcriber is not None and settings.max_seconds > transcriber.longest:
        raise TimelineError(
            f"max_seconds is {settings.max_seconds:g};"
            f" accepted: at most {transcriber.longest:g} s by {transcriber.name}"
        )


# ---------------------------------------------------------------------- segments


def _segments(
    recording: Recording, settings: Segmentation, turns: Sequence[Turn] | None, progress: Progress | None
) -> list[Turn]:
    """Segments in order, with times in whole milliseconds."""
    parts: list[tuple[Segment, str | None]]
    if turns is None:
        parts = [(part, None) for part in speech_segments(recording, settings, progress=progress)]
    else:
        parts = [
            (part, turn.speaker)
            for turn in _joined(turns, recording, settings)
            for part in cut_at_quietest(recording, Segment(turn.start, turn.end), settings)
        ]
    rounded = [
        Turn(start=round(part.start, 3), end=round(min(part.end, recording.seconds), 3), speaker=speaker)
        for part, speaker in parts
    ]
    return sorted(rounded, key=lambda turn: (turn.start, turn.end, turn.speaker or ""))


def _joined(turns: Sequence[Turn], recording: Recording, settings: Segmentation) -> list[Turn]:
    """Turns, joined over short gaps and cut at the recording's end, without short ones."""
    joined: list[Turn] = []
    for turn in sorted(turns, key=lambda turn: (turn.start, turn.end)):
        if turn.start >= recording.seconds:
            raise TimelineError(
                f"the turn of {turn.speaker} at {turn.start:g} s is after the end of {recording.source};"
                f" accepted: turns within its {recording.seconds:.3f} s"
            )
        end = min(turn.end, recording.seconds)
        last = joined[-1] if joined else None
        if last and last.speaker == turn.speaker and turn.start - last.end <= settings.max_silence:
            joined[-1] = replace(last, end=max(last.end, end))
        else:
            joined.append(replace(turn, end=end))
    kept = [turn for turn in joined if turn.end - turn.start >= settings.min_seconds]
    if short := len(joined) - len(kept):
        logger.warning(
            "%s: %d turns shorter than %g s are left out", recording.source, short, settings.min_seconds
        )
    return kept


def _check_times(transcript: Sequence[Cue], recording: Recording) -> None:
    """Refuse a transcript of another recording, or in another unit."""
    for cue in transcript:
        if cue.start > recording.seconds + _LATE or cue.end > recording.seconds + _LONGER:
            raise TimelineError(
                f"the cue {cue.text[:40]!r} from {cue.start:g} to {cue.end:g} s is after the end of"
                f" {recording.source}; accepted: seconds within its {recording.seconds:.3f} s"
            )


def _words(turns: Sequence[Turn], transcript: Sequence[Cue]) -> list[str | None]:
    """The words of each segment: the cues that overlap it the most."""
    starts = np.array([turn.start for turn in turns])
    ends = np.array([turn.end for turn in turns])
    words: list[list[str]] = [[] for _ in turns]
    outside = 0
    for cue in sorted(transcript, key=lambda cue: (cue.start, cue.end)):
        if not cue.text:
            continue
        shared = np.minimum(ends, cue.end) - np.maximum(starts, cue.start)
        if cue.end == cue.start:  # some recognisers write cues without a length
            shared = ((starts <= cue.start) & (cue.start <= ends)).astype(float)
        if len(shared) and shared.max() > 0:
            words[int(shared.argmax())].append(cue.text)
        else:
            outside += 1
    if outside:
        logger.warning("%d cues of the transcript lie in no segment and are left out", outside)
    return [" ".join(texts) or None for texts in words]


# ---------------------------------------------------------------------- answers


def _answer(
    recording: Recording,
    known: _Known,
    pipe: SentimentReasoningPipeline,
    *,
    words: Sequence[str | None] | None,
    transcriber: Transcriber | None,
    language: str | None,
    batch_size: int,
    num_beams: int,
    needs_words: bool,
    progress: Progress | None,
) -> None:
    """Answer the batches that are not in the journal."""
    turns = known.turns or []
    if transcriber is not None:
        hear = NeighbourTranscriber(
            transcriber,
            recording.between,
            [(turn.start, turn.end) for turn in turns],
            speakers=[turn.speaker for turn in turns],
            language=language,
        )
    for batch in _batches(turns, batch_size):
        if batch[0] in known.answers:
            continue
        waves = [recording.between(turns[place].start, turns[place].end) for place in batch]
        texts: list[str | None] = [None if words is None else words[place] for place in batch]
        timed: list[tuple[Chunk, ...]] = [()] * len(batch)
        if transcriber is not None:
            transcripts = hear(batch)
            texts = [transcript.text or None for transcript in transcripts]
            if transcriber.timestamps == "word":
                timed = [transcript.chunks or () for transcript in transcripts]
        rows = [row for row, text in enumerate(texts) if text or not needs_words]
        inputs = [
            {"audio": waves[row], "text": texts[row], "language": language, "asr_words": timed[row]}
            for row in rows
        ]
        answers: dict[int, dict[str, Any] | None] = dict.fromkeys(batch)
        if inputs:
            found = pipe(inputs, batch_size=len(inputs), num_beams=num_beams)
            for row, answer in zip(rows, found, strict=True):
                names = ("label", "score", "scores", "rationale", "abstained_because", "voice")
                begins = turns[batch[row]].start
                quoted = [
                    one | {"seconds": [round(begins + time, 3) for time in one["seconds"]]}
                    if "seconds" in one  # not where the sound is refused
                    else one
                    for one in answer["evidence"]
                ]
                spoken = [
                    {
                        "text": one.text,
                        "start": round(begins + one.start, 3),
                        "end": round(begins + one.end, 3),
                    }
                    for one in timed[row]
                ]
                heard = prosody(waves[row], recording.rate, texts[row])
                known_of = {"text": texts[row], "evidence": quoted, "asr_words": spoken, "prosody": heard}
                answers[batch[row]] = known_of | {name: answer[name] for name in names if name in answer}
        known.answer(answers)
        if progress:
            progress("answering", len(known.answers), len(turns))


def _batches(turns: Sequence[Turn], size: int) -> Iterator[list[int]]:
    """Indices of segments of similar length."""
    window = size * _SORTED_BATCHES
    for first in range(0, len(turns), window):
        near = range(first, min(first + window, len(turns)))
        order = sorted(near, key=lambda place: turns[place].end - turns[place].start)
        yield from (order[start : start + size] for start in range(0, len(order), size))


class _Known(Journal):
    """Segments and answers so far, kept in a journal.

    After the fingerprint, the second line has the segments and the recording's length in seconds, and each
    further line the answers of a batch by segment, null for a segment without words that needs them.
    """

    def __init__(self, path: str | os.PathLike[str] | None, fingerprint: str, others: Sequence[Path]):
        super().__init__(path, self._restore, fingerprint=fingerprint, others=others)
        self.turns: list[Turn] | None = None
        self.seconds = 0.0
        self.answers: dict[int, dict[str, Any] | None] = {}

    def _restore(self, entry: dict[str, Any]) -> None:
        if "segments" in entry:
            self.turns = [Turn(**turn) for turn in entry["segments"]]
            self.seconds = entry["seconds"]
        else:
            self.answers |= {int(place): answer for place, answer in entry["answers"].items()}

    def begin(self, turns: list[Turn], seconds: float) -> None:
        """Keep the segments and the recording's length in seconds."""
        self.turns, self.seconds = turns, seconds
        self.add({"segments": [asdict(turn) for turn in turns], "seconds": seconds})

    def answer(self, answers: dict[int, dict[str, Any] | None]) -> None:
        """Keep a batch's answers."""
        self.answers |= answers
        self.add({"answers": answers})
