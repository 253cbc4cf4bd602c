r"""Subtitles: SRT, WebVTT, SBV, what whisper prints, and ASS.

    lines ─► lines with two times ─► text up to the next of them, without its number or identifier
                                         │
                   notes, tags, styles are removed; lines that captions repeat as they roll appear once

Every line with times is a cue, and an unreadable one is an error with its number. pysubs2 (1.8) and webvtt-py
(0.6) leave out cues that they cannot read, and say no line numbers. pysubs2 also takes `{...}`, backslashes
and a last line of digits out of texts, and reads notes and identifiers as words; webvtt-py ends a cue at a
blank line. So they are read here. ASS, which has neither problem, is read by pysubs2.
"""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from mmsr.extras import needed_for
from mmsr.inference.timeline.cues import STAMP, Cue, TimelineError, clock_seconds, make_cue, split_lines

_ARROW = r"\s*(?:[-\u2010-\u2015\u2212][-\u2010-\u2015\u2212\s]*(?:>|&gt;)|\u2192)\s*"
_COMMA = r"\s*,\s*(?=\d+:\d)"  # of SBV
_TIMES = re.compile(
    rf"[\s\ufeff]*(\[)?\s*(-?){STAMP}(?:{_ARROW}|{_COMMA})(-?){STAMP}(?![\d:]|[.,]\d)\s*(\])?(.*)"
)
# Of VTT (align:start, and A:start in early files) and of SRT (X1:40).
_SETTINGS = re.compile(r"(?:(?:vertical|line|position|size|align|region|[DLTAS]|[XY][12]):\S+\s*)*")
# Lines that cannot be words: an arrow beside a time, or without a letter; two times without an arrow.
_BROKEN = re.compile(r".*\d\s*:\s*\d.*|[\W\d_]*")
_BARE = re.compile(r"\W*\d+:\d+:\d+[.,]\d+\W+\d+:\d+:\d+[.,]\d+\W*")
_NUMBER = re.compile(r"[\s\ufeff]*#?\d+[.):]?\s*")
_NOTE = re.compile(r"NOTE(?:\s|$)|(?:STYLE|REGION)\s*$")
_INLINE_TIME = re.compile(r"<\d+(?::\d+)+(?:[.,]\d+)?>")
_NAMES = "c|v|lang|ruby|rt|rp|i|b|u|s|em|strong|strike|font|span|p|div|small|big|sub|sup|center"
# Known names alone: <laughs> and <unk> are words of a transcript.
_TAG = re.compile(rf"</?\s?(?:{_NAMES})(?:[\s.:][^<>]*)?/?>|{_INLINE_TIME.pattern}", re.IGNORECASE)
# How to read characters, above them.
_READING = re.compile(r"<rt[\s.>].*?(?:</rt\s*>|(?=</ruby)|$)", re.IGNORECASE | re.DOTALL)
_BREAK = re.compile(r"<[bB][rR]\s*/?>|\\N")
_OVERRIDE = re.compile(r"\{\\[^}]*\}|\{[yYfFsScCpP]:[^}]*\}")  # of ASS and of MicroDVD
_HELD = 1.0  # seconds between captions, after which the screen is taken to be empty


@dataclass(frozen=True, kw_only=True)
class _Caption:
    """A cue as it is shown.

    Attributes:
        start: In seconds.
        end: In seconds.
        lines: Without tags.
        timed: Whether each line has times of its words, as new lines of rolling captions have.
        raw: All lines with their tags.
        place: File and line, for messages.
    """

    start: float
    end: float
    lines: tuple[str, ...]
    timed: tuple[bool, ...]
    raw: str
    place: str


def read_subtitles(text: str, name: str) -> list[Cue]:
    """Cues in the order of their times; see the module.

    Args:
        text: The file's content. It is WebVTT if it begins with WEBVTT.
        name: The file's name, for messages.

    Raises:
        TimelineError: A line of times cannot be read, is followed by words, or ends before it starts; or
            words have no times.
    """
    lines = split_lines(text)
    vtt = text.lstrip("\ufeff \t\r\n").startswith("WEBVTT")
    places = [place for place, line in enumerate(lines) if _is_times(line)]
    if not places:
        if any(line.strip() for line in lines) and not vtt:
            raise TimelineError(
                f"{name}: has words but no times; accepted: such as 00:01:02.500 --> 00:01:04.000 before them"
            )
        return []
    bodies = [lines[low + 1 : high] for low, high in pairwise([-1, *places, len(lines)])]
    # whether a line of digits before times is their number, even without a blank line before it
    numbered = 2 * sum(_last(body) is not None and _is_number(body) for body in bodies[:-1]) >= len(places)
    head, *bodies = [*(_without_heading(body, vtt, numbered) for body in bodies[:-1]), bodies[-1]]
    stray = next((place for place, line in enumerate(head) if line.strip("\ufeff \t")), None)
    if stray is not None and not vtt:
        raise TimelineError(
            f"{name}, line {stray + 1}: {lines[stray].strip()!r} has no times; accepted: such as"
            " 00:01:02.500 --> 00:01:04.000 before it"
        )
    captions = [
        _caption(lines[place], body, f"{name}, line {place + 1}", vtt=vtt)
        for place, body in zip(places, bodies, strict=True)
    ]
    captions.sort(key=lambda caption: caption.start)
    return [make_cue(" ".join(one.lines), one.start, one.end, one.place) for one in _unrolled(captions)]


def _is_times(line: str) -> bool:
    broken = _BROKEN.fullmatch(line) if "-->" in line else _BARE.fullmatch(line)
    return _TIMES.fullmatch(line) is not None or broken is not None


def _last(body: Sequence[str]) -> int | None:
    """Index of the last line that is not blank."""
    return next((place for place in reversed(range(len(body))) if body[place].strip("\ufeff \t")), None)


def _is_number(body: Sequence[str]) -> bool:
    last = _last(body)
    return last is not None and _NUMBER.fullmatch(body[last]) is not None


def _without_heading(body: Sequence[str], vtt: bool, numbered: bool) -> list[str]:
    """A cue's lines without the number or identifier of the next cue, which is the last of them."""
    last = _last(body)
    if last is None:
        return []
    near = last == len(body) - 1  # no blank line between it and the times
    alone = last == 0 or not body[last - 1].strip("\ufeff \t")
    if _is_number(body):
        heading = (
            (near and numbered) or (alone and last > 0 and (near or numbered)) or (last == 0 and numbered)
        )
    else:
        heading = vtt and near and alone and last > 0
    return list(body[:last] if heading else body)


def _caption(times: str, body: Sequence[str], place: str, *, vtt: bool) -> _Caption:
    found = _TIMES.fullmatch(times)
    parts = () if found is None else found.groups()
    start = clock_seconds(parts[2:7]) if parts else None
    end = clock_seconds(parts[8:13]) if parts else None
    if start is None or end is None:
        raise TimelineError(
            f"{place}: {times.strip()!r} is no pair of times; accepted: such as 00:01:02.500 --> 00:01:04.000"
        )
    if parts[1] or parts[7]:
        raise TimelineError(f"{place}: {times.strip()!r} is before 0; accepted: times from 0 on")
    bracketed, rest = bool(parts[0] and parts[13]), parts[14]
    if not bracketed and not _SETTINGS.fullmatch(rest):
        raise TimelineError(
            f"{place}: {rest.strip()!r} follows the times; accepted: settings such as align:start, or"
            " words on the next line"
        )
    shown = _without_notes(body) if vtt else list(body)
    raw = "\n".join([rest, *shown] if bracketed else shown)
    lines, timed = _plain(raw, vtt=vtt)
    return _Caption(start=start, end=end, lines=lines, timed=timed, raw=raw, place=place)


def _without_notes(body: Sequence[str]) -> list[str]:
    """Lines without the blocks of NOTE, STYLE and REGION, which follow an empty line and end at one."""
    kept: list[str] = []
    inside = False
    for place, line in enumerate(body):
        if line == "":
            inside = False
        elif place and body[place - 1] == "" and _NOTE.match(line):
            inside = True
        if not inside:
            kept.append(line)
    return kept


def _plain(raw: str, *, vtt: bool) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """The lines without tags that are not blank, and whether each has times of its words."""
    text = _BREAK.sub("\n", _READING.sub("", raw))
    found = []
    for line in _TAG.sub(lambda tag: tag[0] if _INLINE_TIME.fullmatch(tag[0]) else "", text).split("\n"):
        plain = " ".join(html.unescape(_OVERRIDE.sub("", _INLINE_TIME.sub("", line))).split())
        if plain:
            found.append((plain, _INLINE_TIME.search(line) is not None))
    return tuple(line for line, _ in found), tuple(timed for _, timed in found)


# ---------------------------------------------------------------------- captions that repeat lines


def _unrolled(captions: Sequence[_Caption]) -> list[_Caption]:
    """Captions with each line once.

    Live captions roll: a caption repeats the lines before it, and adds one, or some words. In such a file
    most captions grow out of the one before. In others, a repeated line was said twice. Captions that differ
    by their tags alone, in which each word is marked in turn, are one caption.
    """
    befores = [
        before if before is not None and caption.start - before.end <= _HELD else None
        for before, caption in pairwise([None, *captions])
        if caption is not None
    ]
    pairs = list(zip(captions, befores, strict=True))
    news = [None if before is None else _new_lines(before, caption) for caption, before in pairs]
    changes = [(new, caption) for new, (caption, _) in zip(news, pairs, strict=True) if new]
    grown = sum(len(" ".join(new)) < len(" ".join(caption.lines)) for new, caption in changes)
    timed = any(any(caption.timed) for caption in captions)
    rolling = grown > 0 and (timed or 2 * grown >= len(changes))
    found: list[_Caption] = []
    for new, (caption, before) in zip(news, pairs, strict=True):
        marked = before is not None and caption.lines == before.lines and caption.raw != before.raw
        if found and caption.lines and (marked and not timed or rolling and new == ()):
            found[-1] = replace(found[-1], end=max(found[-1].end, caption.end))
        else:
            found.append(replace(caption, lines=new) if rolling and new is not None else caption)
    return found


def _new_lines(before: _Caption, caption: _Caption) -> tuple[str, ...]:
    """The lines, or words, that a caption adds to the one before it."""
    for count in range(min(len(before.lines), len(caption.lines)), 0, -1):
        if caption.lines[:count] == before.lines[-count:] and not any(caption.timed[:count]):
            return caption.lines[count:]
    shown, now = " ".join(before.lines), " ".join(caption.lines)
    if shown and now.startswith(f"{shown} "):
        return (now.removeprefix(f"{shown} "),)
    return caption.lines


# ---------------------------------------------------------------------- ASS


def read_substation(text: str, name: str, *, version: str) -> list[Cue]:
    """Cues of an ASS or SSA file, as Aegisub writes; comments and drawings have no words.

    Args:
        text: The file's content.
        name: The file's name, for messages.
        version: `ass` or `ssa`.

    Raises:
        TimelineError: pysubs2 is missing, or a line cannot be read.
    """
    with needed_for(name, raising=TimelineError):
        import pysubs2
    lines = split_lines(text)
    cues = []
    for number, line in enumerate(lines, start=1):
        if not line.startswith("Dialogue:"):
            continue
        place = f"{name}, line {number}"
        events: list[pysubs2.SSAEvent] = []
        # each line by itself: what cannot be read has a number, and nothing is left out
        if re.match(rf"Dialogue:[^,]*,\s*{STAMP}\s*,\s*{STAMP}\s*,", line):
            with contextlib.suppress(ValueError, TypeError, pysubs2.exceptions.Pysubs2Error):
                events = pysubs2.SSAFile.from_string(f"[Events]\n{line}\n", format_=version).events
        if len(events) != 1:
            raise TimelineError(
                f"{place}: {line[:60]!r} is no line of dialogue; accepted: such as"
                " Dialogue: 0,0:00:01.50,0:00:04.00,Default,,0,0,0,,words"
            )
        if not events[0].is_drawing:
            cues.append(make_cue(events[0].plaintext, events[0].start / 1000, events[0].end / 1000, place))
    if not cues and text.strip() and "[Events]" not in text:
        raise TimelineError(f"{name}: has no section [Events]; accepted: a whole file of Aegisub")
    return sorted(cues, key=lambda cue: cue.start)
