"""What is read from transcripts and turns: cues, turns, and their times."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from mmsr.data.encodings import EncodingError, decode_text


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


STAMP = r"(?:(\d+)\s*:\s*)?(\d{1,2})\s*:\s*(\d{1,2})(?:\s*[.,]\s*(\d{1,9})|:(\d{3}))?"
"""A time on a clock: 01:02:03,500, 02:03.5, or with a colon before three digits. Five groups."""


def clock_seconds(groups: tuple[str | None, ...]) -> float | None:
    """Seconds of a match of `STAMP`; None without hours and fraction: 01:02 may be minutes or hours."""
    hours, minutes, seconds, fraction, thousandths = groups
    fraction = fraction or thousandths
    if hours is None and fraction is None:
        return None
    # a fraction of any length: 1,5 is one and a half second; 60 seconds are what rounding makes of 59.9996
    whole = 3600 * int(hours or 0) + 60 * int(minutes or 0) + int(seconds or 0)
    return whole + float(f"0.{fraction or 0}")


def read_number(value: object, place: str, *, zero: bool = True) -> float:
    """A time or length in seconds, with a decimal point or comma, or as on a clock.

    Args:
        value: A number or its text.
        place: File, line and field, for messages.
        zero: Whether 0 is accepted.

    Raises:
        TimelineError: It is none, negative, or not finite.
    """
    number: float | None = math.nan
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", text):
            number = float(text.replace(",", "."))
        elif found := re.fullmatch(STAMP, text):
            number = clock_seconds(found.groups())
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    if number is None or not (math.isfinite(number) and (number > 0 or (zero and number == 0))):
        accepted = "0 or more seconds" if zero else "seconds above 0"
        raise TimelineError(f"{place}: {value!r}; accepted: {accepted}")
    return number


def make_cue(text: object, start: float, end: float, place: str) -> Cue:
    """A cue, its spaces and line breaks as single spaces.

    Raises:
        TimelineError: It ends before its start.
    """
    if end < start:
        raise TimelineError(
            f"{place}: ends at {end:g} s, before its start at {start:g} s; accepted: after it"
        )
    # whisperX writes the speaker so before the words
    words = re.sub(r"^\s*\[SPEAKER_\d+\]:\s*", "", "" if text is None else str(text))
    return Cue(text=" ".join(words.split()), start=start, end=end)


def read_text(
    path: str | os.PathLike[str], *, language: str | None = None, encoding: str | None = None
) -> str:
    """A file's text; see `decode_text`.

    Raises:
        TimelineError: It is in no encoding that is found or given.
    """
    try:
        return decode_text(Path(path).read_bytes(), str(path), language=language, encoding=encoding).text
    except EncodingError as error:
        raise TimelineError(str(error)) from error


def split_lines(text: str) -> list[str]:
    """Lines by LF, CR or CRLF alone: no other character, such as NEL, ends a line of these formats."""
    return re.split("\r\n|\r|\n", text)
