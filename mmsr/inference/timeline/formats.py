"""The output files of a timeline: JSONL, CSV, SRT, VTT, an HTML page and summary.json."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import numpy as np
import soundfile

from mmsr.data.audio.decoding import Audio
from mmsr.data.manifest.tables import Table, write_table
from mmsr.data.storage import is_url, shown
from mmsr.files import atomic_write, check_output, write_file
from mmsr.inference.answer import flattened, timed_in_words
from mmsr.inference.prosody import in_words
from mmsr.inference.timeline.cues import TimelineError
from mmsr.quotations import Folded, quoted_parts
from mmsr.records import SAMPLE_RATE, Progress, read_chunks
from mmsr.speech.timing import WordTimes

if TYPE_CHECKING:
    from mmsr.inference.timeline.make import AnsweredSegment, Timeline

Player = Literal["auto", "inline", "beside", "link", "none"]

FORMATS = (".jsonl", ".csv", ".srt", ".vtt", ".html")
_INLINE = 600.0  # seconds of sound in a page: 2 MB of MP3, a third more as base64
_FEWEST_PEAKS, _MOST_PEAKS, _PEAKS_A_SECOND = 1200, 18_000, 10  # of a waveform, a byte each
_PLAYED = (".wav", ".mp3", ".flac", ".m4a", ".mp4")  # what every browser plays
# Okabe and Ito's colours for the colour-blind, each for a white and a black background.
_SENTIMENTS = {
    "negative": ("#c24e00", "#ff9d5c"),
    "neutral": ("#6b7480", "#a3adb8"),
    "positive": ("#0067a3", "#6cbcf0"),
}
_COLOURS = (
    ("#c24e00", "#ff9d5c"),
    ("#0067a3", "#6cbcf0"),
    ("#00704d", "#4fd0a5"),
    ("#a3437c", "#e8a0c8"),
    ("#8a6100", "#e6b800"),
    ("#6b7480", "#a3adb8"),
)


def output_files(
    out: str | os.PathLike[str],
    *,
    audio: str,
    player: Player = "auto",
    inputs: Sequence[str | os.PathLike[str]] = (),
) -> list[Path]:
    """The files that `write_timeline` will write; raises before the hours that a timeline may take.

    Args:
        out: See `write_timeline`.
        audio: Path or URL of the recording.
        player: See `write_timeline`.
        inputs: Files that must not be overwritten.

    Raises:
        TimelineError: Another ending, one of the files is an input, or the page cannot link the recording.
        ValueError: A file cannot be written; see `check_output`.
    """
    path = Path(out)
    ending = path.suffix.lower()
    if ending in FORMATS and not path.is_dir():
        chosen = [path]
    elif not ending or path.is_dir() or os.fspath(out).endswith(("/", os.sep)):
        chosen = [path / f"timeline{form}" for form in FORMATS] + [path / "summary.json"]
    else:
        raise TimelineError(
            f"out {path} has the ending {path.suffix!r}; accepted: a folder, or {', '.join(FORMATS)}"
        )
    for file in chosen:
        if file.exists() and any(os.path.exists(given) and file.samefile(given) for given in inputs):
            raise TimelineError(f"out {file} is a file that is read; accepted: another")
        check_output(file, name="out")
    linked = player == "link" and any(file.suffix.lower() == ".html" for file in chosen)
    if linked and not is_url(audio) and Path(audio).suffix.lower() not in _PLAYED:
        raise TimelineError(
            f"{audio} cannot be linked, since not every browser plays it;"
            f" accepted: {', '.join(_PLAYED)}, or another player (inline, beside, none)"
        )
    return chosen


def write_timeline(
    timeline: Timeline,
    out: str | os.PathLike[str],
    *,
    player: Player = "auto",
    progress: Progress | None = None,
) -> list[Path]:
    """Write a timeline. The same timeline gives the same bytes.

    Args:
        timeline: The timeline.
        out: A folder for all formats, or a file, whose ending is its format.
        player: Sound of the page: `inline`, in the page as MP3 (16 kHz mono, 25 kbit/s); `beside`, the same
            as a file beside it; `link`, the recording by its relative path; `none`; `auto`, inline up to ten
            minutes, else beside.
        progress: Called with the task, the encoded seconds and all seconds.

    Returns:
        The files.

    Raises:
        TimelineError: See `output_files`; or the sound beside the page would overwrite the recording.
        AudioError: The page needs sound, and the recording cannot be read.
    """
    written = output_files(out, audio=timeline.audio, player=player)
    for path in written:
        ending = path.suffix.lower()
        if path.name == "summary.json":
            write_file(path, f"{_json(timeline.summary(), indent=1)}\n".encode())
        elif ending == ".jsonl":
            lines = (f"{_json(part.as_row())}\n" for part in timeline.segments)
            write_file(path, "".join(lines).encode())
        elif ending == ".csv":
            write_table(path, _table(timeline))
        elif ending == ".srt":
            write_file(path, "".join(_srt(timeline)).encode())
        elif ending == ".vtt":
            write_file(path, "".join(_vtt(timeline)).encode())
        else:
            _write_page(timeline, path, player, progress)
    return written


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)


def _table(timeline: Timeline) -> Table:
    rows = [flattened(part.as_row()) for part in timeline.segments]
    abstains = any(row.get("abstained_because") for row in rows)
    if abstains:
        rows = [row | {"abstained": "abstained_because" in row} for row in rows]
    scores = [f"score_{label}" for label in timeline.labels]
    columns = ["start", "end", "speaker", "text", "label", "score", *scores]
    for name in ("rationale", "quoted", "voice", "abstained_because"):  # what not every model gives
        if any(row.get(name) for row in rows):
            columns.append(name)
    if abstains:
        columns.insert(columns.index("abstained_because"), "abstained")
    return Table(columns, rows, [])


def _srt(timeline: Timeline) -> Iterator[str]:
    """SubRip has no escapes: a word joiner breaks what players would take for a tag or for times."""
    for number, part in enumerate(timeline.segments, start=1):
        speaker = f"{part.speaker}: " if part.speaker else ""
        lines = [f"[{_heading(part)}] {speaker}{part.text or ''}", part.rationale or ""]
        shown = [re.sub(r"<|\{|--(?=>)", "\\g<0>\N{WORD JOINER}", " ".join(line.split())) for line in lines]
        times = f"{stamp(part.start, ',')} --> {stamp(part.end, ',')}"
        yield "\n".join([str(number), times, *filter(None, shown)]) + "\n\n"


def _vtt(timeline: Timeline) -> Iterator[str]:
    yield "WEBVTT\n\nSTYLE\n"
    for place, (_, colour) in enumerate(colours(timeline.labels)):
        yield f"::cue(.label-{place}) {{ color: {colour} }}\n"
    for number, part in enumerate(timeline.segments, start=1):
        place = timeline.labels.index(part.label)
        name, voice, rationale = map(_escaped, (_heading(part), part.speaker, part.rationale))
        text = _with_stamps(part)
        label = f"<c.label-{place}>[{name}]</c>"
        spoken = f"<v {voice}>{text}</v>" if voice else text
        lines = [f"{label} {spoken}".rstrip(), rationale and f"<i>{rationale}</i>"]
        times = f"{stamp(part.start, '.')} --> {stamp(part.end, '.')}"
        yield "\n".join([f"\n{number}", times, *filter(None, lines)]) + "\n"


def _escaped(text: str | None) -> str:
    """A text in a cue of WebVTT, on one line."""
    return html.escape(" ".join((text or "").split()), quote=False)


def _with_stamps(part: AnsweredSegment) -> str:
    """A segment's text in WebVTT, with the start of each word that a recogniser timed: players follow it."""
    text, written, read, last = part.text or "", "", 0, stamp(part.start, ".")
    words = Folded(text).words() if part.asr_words else []
    times = WordTimes(text, (part.start, part.end), read_chunks(part.asr_words))
    for word in words:
        timing = times.of((word.start, word.end))
        begins = stamp(timing.start, ".")
        if timing.timed_by == "recogniser" and last < begins < stamp(part.end, "."):  # must rise in a cue
            before = text[read : word.start]
            written += html.escape(before, quote=False) + f"<{begins}>"
            read, last = word.start, begins
    return " ".join((written + html.escape(text[read:], quote=False)).split())


def _heading(part: AnsweredSegment) -> str:
    """Label and probability, and why the model abstains."""
    because = f", abstained: {part.abstained_because}" if part.abstained_because else ""
    return f"{part.label} {part.score:.2f}{because}"


def stamp(seconds: float, mark: str) -> str:
    """A time in subtitles, such as 00:01:02,500."""
    whole, thousandths = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}{mark}{thousandths:03d}"


def clock(seconds: float) -> str:
    """A time for a reader: 1:02, or 1:02:03 from an hour on."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def colours(labels: Sequence[str]) -> list[tuple[str, str]]:
    """The colours of each label, on white and on black."""
    if all(label in _SENTIMENTS for label in labels):
        return [_SENTIMENTS[label] for label in labels]
    return [_COLOURS[place % len(_COLOURS)] for place in range(len(labels))]


def _write_page(timeline: Timeline, path: Path, player: Player, progress: Progress | None) -> None:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "clock": clock,
        "marked": _marked,
        "quoted_parts": quoted_parts,
        "in_words": in_words,
        "timed_in_words": timed_in_words,
    }
    template = environment.from_string(
        files("mmsr.inference.timeline").joinpath("timeline.html.jinja").read_text("utf-8")
    )
    sound, peaks = _sound(timeline, path, player, progress)
    page = template.render(
        timeline=timeline,
        name=shown(os.path.basename(timeline.audio)),
        summary=timeline.summary(),
        colours=colours(timeline.labels),
        places={label: place for place, label in enumerate(timeline.labels)},
        explained=any(part.rationale for part in timeline.segments),
        sound=sound,
        peaks=peaks.as_base64(),
    )
    write_file(path, page.encode())


def _marked(part: AnsweredSegment) -> list[tuple[str, Mapping[str, Any] | None]]:
    """A segment's text in parts, each with its evidence if it is quoted and its time is known."""
    text, read, parts = part.text or "", 0, []
    for one in sorted(part.evidence, key=lambda one: one["start"]):
        if one["start"] >= read and "seconds" in one:  # the same words may be quoted twice
            parts += [(text[read : one["start"]], None), (text[one["start"] : one["end"]], one)]
            read = one["end"]
    return [*parts, (text[read:], None)]


class _Peaks:
    """The loudest samples of a recording's equal parts, which a page draws its waveform from."""

    def __init__(self, seconds: float) -> None:
        self.samples = max(1, round(SAMPLE_RATE * seconds))
        parts = min(max(_FEWEST_PEAKS, round(_PEAKS_A_SECOND * seconds)), _MOST_PEAKS, self.samples)
        self.loud, self.seen = np.zeros(parts, dtype=np.float32), 0

    def add(self, block: np.ndarray) -> None:
        """Take the next samples `[s]`, of 16 kHz."""
        places = np.arange(self.seen, self.seen + len(block)) * len(self.loud) // self.samples
        np.maximum.at(self.loud, np.minimum(places, len(self.loud) - 1), np.abs(block))
        self.seen += len(block)

    def as_base64(self) -> str:
        """A byte a part, 255 the loudest; empty if no samples were taken."""
        if not self.seen:
            return ""
        parts = np.round(255 * self.loud / max(float(self.loud.max()), 1e-4)).astype(np.uint8)
        return base64.b64encode(parts.tobytes()).decode()


def _sound(
    timeline: Timeline, page: Path, player: Player, progress: Progress | None
) -> tuple[str | None, _Peaks]:
    """The source of the page's player (a data URI, a path or URL, or None), and the peaks of its sound."""
    peaks = _Peaks(timeline.seconds)
    if player == "auto":
        player = "inline" if timeline.seconds <= _INLINE else "beside"
    if player == "none":
        return None, peaks
    if player == "link" and is_url(timeline.audio):
        return timeline.audio, peaks
    if player == "link":
        for block in Audio().blocks(timeline.audio):
            peaks.add(block)
        linked = os.path.relpath(timeline.audio, page.parent).replace(os.sep, "/")
        return quote(os.fsencode(linked)), peaks
    if player == "inline":
        content = io.BytesIO()
        _encode(timeline, content, peaks, progress)
        return f"data:audio/mpeg;base64,{base64.b64encode(content.getvalue()).decode()}", peaks
    beside = page.with_suffix(".mp3")
    if beside.exists() and not is_url(timeline.audio) and beside.samefile(timeline.audio):
        raise TimelineError(f"{beside} is the recording itself; accepted: another --out, or --player link")
    with atomic_write(beside) as half:
        _encode(timeline, half, peaks, progress)
    return quote(os.fsencode(beside.name)), peaks


def _encode(timeline: Timeline, to: Path | io.BytesIO, peaks: _Peaks, progress: Progress | None) -> None:
    """The recording as MP3, which has the same bytes each time (libsndfile's Ogg has a random number)."""
    done, total = 0, round(timeline.seconds)
    with soundfile.SoundFile(
        to, "w", SAMPLE_RATE, 1, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.5
    ) as file:
        for block in Audio().blocks(timeline.audio):
            file.write(block)
            peaks.add(block)
            done += len(block)
            if progress:
                progress("encoding", min(done // SAMPLE_RATE, total), total)
    if progress:
        progress("encoding", total, total)


def as_text(summary: dict[str, Any]) -> str:
    """A timeline's summary for a reader."""
    spoken = f"{summary['speech_seconds']:,.1f} of {summary['seconds']:,.1f} s are speech"
    lines = [f"{spoken}, in {summary['segments']:,} segments"]
    for label, entry in summary["labels"].items():
        lines.append(f"  {label}: {entry['seconds']:.1f} s in {entry['segments']:,} segments")
    for speaker, seconds in summary["speakers"].items():
        spent = ", ".join(f"{label} {time:.1f} s" for label, time in seconds.items() if time)
        lines.append(f"  {speaker}: {spent}")
    for label, moments in summary["moments"].items():
        for moment in moments:
            text = f": {moment['text']}" if moment["text"] else ""
            lines.append(f"  most {label}, {clock(moment['start'])} ({moment['score']:.2f}){text}")
    return "\n".join(lines)
