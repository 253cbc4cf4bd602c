"""What a timeline reads and leaves: speaker turns, transcripts with times; JSONL, CSV, subtitles, a page.

RTTM ─► turns ──────────────────┐                  ┌─► .jsonl .csv .srt .vtt, summary.json
                                ├─► the timeline ──┤
SRT, VTT, table ─► cues ────────┘                  └─► .html: the page, its sound within or beside it
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import soundfile

from mmsr.data.audio import Audio
from mmsr.data.storage import is_url
from mmsr.data.tables import Table, read_table, write_table
from mmsr.files import appearing, write_file

if TYPE_CHECKING:
    from mmsr.timeline import Timeline

Player = Literal["auto", "inline", "beside", "link", "none"]

FORMATS = (".jsonl", ".csv", ".srt", ".vtt", ".html")
# Up to so many seconds the sound is within the page: 2 MB of MP3, and a third more as text.
_INLINE = 600.0
# Kinds of audio that every browser plays as they are.
_PLAYED = (".wav", ".mp3", ".flac", ".m4a", ".mp4")
# Okabe and Ito's colours, which colour-blind eyes tell apart, each as seen on white and on black.
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


class TimelineError(ValueError):
    """Input or settings that make no timeline; the message is one line with what is accepted."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A stretch of a recording in which one speaker talks.

    Attributes:
        start: Its beginning in seconds.
        end: Its end in seconds.
        speaker: Who talks, None where that is not known.
    """

    start: float
    end: float
    speaker: str | None = None


@dataclass(frozen=True, kw_only=True)
class Cue:
    """Words of a transcript, from `start` to `end` in seconds."""

    text: str
    start: float
    end: float


# ---------------------------------------------------------------------- reading


def read_turns(path: str | os.PathLike[str], *, recording: str | None = None) -> list[Turn]:
    """Speaker turns of an RTTM file (NIST RT-09, appendix A), in order.

    Lines are `SPEAKER file channel start duration <NA> <NA> speaker ...`; comments (`;;`) and the format's
    other types of lines tell nothing of turns and are passed over.

    Args:
        path: The file.
        recording: Name of the recording, of whose turns a file with several recordings' is asked.

    Raises:
        TimelineError: A line has too few fields or one that is no number, or there are no turns; the message
            names file, line and field.
    """
    found: dict[str, list[Turn]] = {}
    for number, line in enumerate(_text(path).splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0].startswith(";;"):
            continue
        place = f"{path}, line {number}"
        if fields[0] not in _RTTM_TYPES:
            raise TimelineError(f"{place}, field 1 (type): {fields[0]!r}; accepted: {', '.join(_RTTM_TYPES)}")
        if fields[0] != "SPEAKER":
            continue
        if len(fields) < 8:
            raise TimelineError(
                f"{place}: has {len(fields)} fields; accepted: 8 or more, such as"
                " SPEAKER file 1 12.5 3.25 <NA> <NA> anna <NA> <NA>"
            )
        start = _number(fields[3], f"{place}, field 4 (start)", zero=True)
        seconds = _number(fields[4], f"{place}, field 5 (duration)", zero=False)
        found.setdefault(fields[1], []).append(
            Turn(start=start, end=start + seconds, speaker=None if fields[7] == "<NA>" else fields[7])
        )
    if not found:
        raise TimelineError(f"{path}: has no SPEAKER line; accepted: at least one")
    if len(found) > 1 and recording not in found:
        raise TimelineError(
            f"{path}: has turns of {', '.join(sorted(found)[:8])} and none of {recording!r};"
            " accepted: turns of this recording, or of one alone"
        )
    turns = found[recording] if recording in found else next(iter(found.values()))
    return sorted(turns, key=lambda turn: (turn.start, turn.end))


_RTTM_TYPES = (
    *("SPEAKER", "SPKR-INFO", "LEXEME", "NON-LEX", "NON-SPEECH", "SEGMENT", "NOSCORE", "NO_RT_METADATA"),
    *("A/P", "CB", "EDIT", "FILLER", "IP", "SU"),
)


def read_cues(path: str | os.PathLike[str]) -> list[Cue]:
    """A transcript with times: SRT, WebVTT, or a table with columns `start`, `end` (seconds) and `text`.

    Raises:
        TimelineError: The file cannot be read so, or a time is none; the message names file and line or row.
        ManifestError: A table cannot be read, or the file's ending is not known.
    """
    path = Path(path)
    if path.suffix.lower() in (".srt", ".vtt"):
        return _subtitles(path)
    table = read_table(path)
    if missing := [name for name in ("start", "end", "text") if name not in table.columns]:
        raise TimelineError(
            f"{path}: has no column {missing[0]}; accepted: start and end in seconds, and text, or .srt, .vtt"
        )
    cues = []
    for row, number in zip(table.rows, table.numbers, strict=True):
        place = f"{path}, row {number}"
        start = _number(row.get("start"), f"{place}, column start", zero=True)
        end = _number(row.get("end"), f"{place}, column end", zero=True)
        cues.append(_cue(row.get("text"), start, end, place))
    return cues


def _subtitles(path: Path) -> list[Cue]:
    cues: list[Cue] = []
    times: tuple[float, float, int] | None = None
    words: list[str] = []
    for number, line in enumerate([*_text(path).splitlines(), ""], start=1):
        if "-->" in line:
            found = re.match(rf"\s*{_STAMP}\s*-->\s*{_STAMP}(?:\s|$)", line)
            if found is None:
                raise TimelineError(
                    f"{path}, line {number}: {line.strip()!r} is no pair of times;"
                    " accepted: such as 00:01:02.500 --> 00:01:04.000"
                )
            parts = [int(part or 0) for part in found.groups()]
            start, end = (3600 * h + 60 * m + s + ms / 1000 for h, m, s, ms in (parts[:4], parts[4:]))
            times, words = (start, end, number), []
        elif times and line.strip():
            words.append(line)
        elif times:
            text = html.unescape(re.sub(r"</?[a-zA-Z0-9.:][^>]*>|\{\\[^}]*\}", "", " ".join(words)))
            cues.append(_cue(text, times[0], times[1], f"{path}, line {times[2]}"))
            times = None
    if not cues and (said := _text(path).strip()) and not said.startswith("WEBVTT"):
        raise TimelineError(
            f"{path}: has words but no times; accepted: such as 00:01:02.500 --> 00:01:04.000 before them"
        )
    return cues


_STAMP = r"(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{3})"


def _cue(text: object, start: float, end: float, place: str) -> Cue:
    if end < start:
        raise TimelineError(
            f"{place}: ends at {end:g} s, before its start at {start:g} s; accepted: after it"
        )
    return Cue(text=" ".join(str(text or "").split()), start=start, end=end)


def _number(value: object, place: str, *, zero: bool) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and (number > 0 or (zero and number == 0))):
        accepted = "0 or more seconds" if zero else "seconds above 0"
        raise TimelineError(f"{place}: {value!r}; accepted: {accepted}")
    return number


def _text(path: str | os.PathLike[str]) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TimelineError(f"{path}, byte {error.start}: is not UTF-8; accepted: text in UTF-8") from error


# ---------------------------------------------------------------------- writing


def output_files(
    out: str | os.PathLike[str],
    *,
    audio: str,
    player: Player = "auto",
    inputs: Sequence[str | os.PathLike[str]] = (),
) -> list[Path]:
    """The files that a timeline leaves: that of a name with one of their endings, or all of a folder.

    What would only fail after the recording has been heard, which may take hours, fails here.

    Args:
        out: See `write_timeline`.
        audio: Path or URL of the recording.
        player: See `write_timeline`.
        inputs: Files that are read, none of which may be written over.

    Raises:
        TimelineError: Another ending, one of the files is an input, or the page cannot link the recording.
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
    for one in chosen:
        if one.exists() and any(os.path.exists(given) and one.samefile(given) for given in inputs):
            raise TimelineError(f"out {one} is a file that is read; accepted: another")
    linked = player == "link" and any(one.suffix.lower() == ".html" for one in chosen)
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
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Path]:
    """Write a timeline; each file appears whole. The same timeline gives the same bytes.

    Args:
        timeline: What is written.
        out: A folder for all forms, or a file, whose ending is its form.
        player: Where the page's sound is: `inline` in the page as MP3 (16 kHz mono, 25 kbit/s); `beside` it,
            the same as a file; `link`, the recording itself by its relative path; `none`; `auto` is inline up
            to ten minutes and beside it from there.
        progress: Called with task, seconds encoded and seconds in all.

    Returns:
        The files.

    Raises:
        TimelineError: See `output_files`; or the sound beside the page would be the recording itself.
        AudioError: The page needs sound, and the recording cannot be read any more.
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
    scores = {label: f"score_{label}" for label in timeline.labels}
    rows = []
    for part in timeline.segments:
        row = part.as_row()
        given = {scores[label]: score for label, score in row.pop("scores").items()}
        rows.append({name: value for name, value in row.items() if name != "alone"} | given)
    columns = ["start", "end", "speaker", "text", "label", "score", *scores.values(), "rationale"]
    return Table(columns, rows, [])


def _srt(timeline: Timeline) -> Iterator[str]:
    """SubRip has no escapes: what players would take for a tag or for times gets an unseen word joiner."""
    for number, part in enumerate(timeline.segments, start=1):
        said = f"{part.speaker}: " if part.speaker else ""
        lines = [f"[{part.label} {part.score:.2f}] {said}{part.text or ''}", part.rationale or ""]
        shown = [re.sub(r"<|\{|--(?=>)", "\\g<0>\N{WORD JOINER}", " ".join(line.split())) for line in lines]
        times = f"{stamp(part.start, ',')} --> {stamp(part.end, ',')}"
        yield "\n".join([str(number), times, *filter(None, shown)]) + "\n\n"


def _vtt(timeline: Timeline) -> Iterator[str]:
    yield "WEBVTT\n\nSTYLE\n"
    for place, (_, colour) in enumerate(colours(timeline.labels)):
        yield f"::cue(.label-{place}) {{ color: {colour} }}\n"
    for number, part in enumerate(timeline.segments, start=1):
        place = timeline.labels.index(part.label)
        said, voice, text, rationale = (
            html.escape(" ".join((value or "").split()), quote=False)
            for value in (part.label, part.speaker, part.text, part.rationale)
        )
        label = f"<c.label-{place}>[{said} {part.score:.2f}]</c>"
        spoken = f"<v {voice}>{text}</v>" if voice else text
        lines = [f"{label} {spoken}".rstrip(), rationale and f"<i>{rationale}</i>"]
        times = f"{stamp(part.start, '.')} --> {stamp(part.end, '.')}"
        yield "\n".join([f"\n{number}", times, *filter(None, lines)]) + "\n"


def stamp(seconds: float, mark: str) -> str:
    """A time as subtitles have it, such as 00:01:02,500."""
    whole, thousandths = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}{mark}{thousandths:03d}"


def clock(seconds: float) -> str:
    """A time for a person: 1:02, or 1:02:03 from an hour on."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def colours(labels: Sequence[str]) -> list[tuple[str, str]]:
    """A colour for light and one for dark surroundings for each label."""
    if all(label in _SENTIMENTS for label in labels):
        return [_SENTIMENTS[label] for label in labels]
    return [_COLOURS[place % len(_COLOURS)] for place in range(len(labels))]


# ---------------------------------------------------------------------- the page


def _write_page(
    timeline: Timeline, path: Path, player: Player, progress: Callable[[str, int, int], None] | None
) -> None:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["clock"] = clock
    template = environment.from_string(files("mmsr").joinpath("timeline.html.jinja").read_text("utf-8"))
    page = template.render(
        timeline=timeline,
        name=os.path.basename(timeline.audio),
        summary=timeline.summary(),
        colours=colours(timeline.labels),
        places={label: place for place, label in enumerate(timeline.labels)},
        sound=_sound(timeline, path, player, progress),
    )
    write_file(path, page.encode())


def _sound(
    timeline: Timeline, page: Path, player: Player, progress: Callable[[str, int, int], None] | None
) -> str | None:
    """What the page's player plays: a data URI, a relative path, or nothing."""
    if player == "auto":
        player = "inline" if timeline.seconds <= _INLINE else "beside"
    if player == "none":
        return None
    if player == "link":
        if is_url(timeline.audio):
            return timeline.audio
        return quote(os.path.relpath(timeline.audio, page.parent).replace(os.sep, "/"))
    if player == "inline":
        content = io.BytesIO()
        _encode(timeline, content, progress)
        return f"data:audio/mpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
    beside = page.with_suffix(".mp3")
    if beside.exists() and not is_url(timeline.audio) and beside.samefile(timeline.audio):
        raise TimelineError(f"{beside} is the recording itself; accepted: another --out, or --player link")
    with appearing(beside) as half:
        _encode(timeline, half, progress)
    return quote(beside.name)


def _encode(
    timeline: Timeline, to: Path | io.BytesIO, progress: Callable[[str, int, int], None] | None
) -> None:
    """The recording as MP3: every browser plays it, and libsndfile writes the same bytes each time.

    (Its Ogg files have a random serial number.)
    """
    done, total = 0, round(timeline.seconds)
    with soundfile.SoundFile(
        to, "w", 16_000, 1, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.5
    ) as file:
        for block in Audio(16_000).blocks(timeline.audio):
            file.write(block)
            done += len(block)
            if progress:
                progress("encoding", min(done // 16_000, total), total)
    if progress:
        progress("encoding", total, total)


def as_text(summary: dict[str, Any]) -> str:
    """A timeline's summary for a person."""
    lines = [
        f"{clock(summary['seconds'])} long, {summary['segments']:,} segments,"
        f" {clock(summary['speech_seconds'])} of speech"
    ]
    for label, entry in summary["labels"].items():
        lines.append(f"  {label}: {entry['seconds']:.1f} s in {entry['segments']:,} segments")
    for speaker, seconds in summary["speakers"].items():
        told = ", ".join(f"{label} {spent:.1f} s" for label, spent in seconds.items() if spent)
        lines.append(f"  {speaker}: {told}")
    for label, moments in summary["moments"].items():
        for moment in moments:
            said = f": {moment['text']}" if moment["text"] else ""
            lines.append(f"  most {label}, {clock(moment['start'])} ({moment['score']:.2f}){said}")
    return "\n".join(lines)
