"""Reading a recording's transcript with times (SRT, VTT, tables) and its speaker turns (RTTM)."""

from __future__ import annotations

import html
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from mmsr.data.manifest.tables import read_table


class TimelineError(ValueError):
    """Input or settings from which no timeline can be made."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A part of a recording with one speaker (None if unknown), from `start` to `end` in seconds."""

    start: float
    end: float
    speaker: str | None = None


@dataclass(frozen=True, kw_only=True)
class Cue:
    """Words of a transcript, from `start` to `end` in seconds."""

    text: str
    start: float
    end: float


def read_turns(path: str | os.PathLike[str], *, recording: str | None = None) -> list[Turn]:
    """Speaker turns of an RTTM file (NIST RT-09, appendix A), in order.

    Lines are `SPEAKER file channel start duration <NA> <NA> speaker ...`; comments (`;;`) and the format's
    other types of lines are skipped.

    Args:
        path: The file.
        recording: Name of the recording, in a file of several.

    Raises:
        TimelineError: A line has too few fields or one that is no number, or there are no turns.
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
        TimelineError: The file has another format, or a time is no number.
        ManifestError: A table cannot be read, or has an unknown ending.
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
    if not cues and (content := _text(path).strip()) and not content.startswith("WEBVTT"):
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
