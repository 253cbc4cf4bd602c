"""Reading a recording's transcript with times, and its speaker turns (RTTM)."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmsr.data.manifest.tables import read_table
from mmsr.inference.timeline.cues import (
    Cue,
    TimelineError,
    Turn,
    make_cue,
    read_number,
    read_text,
    split_lines,
)
from mmsr.inference.timeline.subtitles import read_substation, read_subtitles

# ---------------------------------------------------------------------- turns

_RTTM_TYPES = (
    *("SPEAKER", "SPKR-INFO", "LEXEME", "NON-LEX", "NON-SPEECH", "SEGMENT", "NOSCORE", "NO_RT_METADATA"),
    *("A/P", "CB", "EDIT", "FILLER", "IP", "SU"),
)
_ABSENT = ("<NA>", "NA", "N/A", "-")


def read_turns(
    path: str | os.PathLike[str], *, recording: str | None = None, encoding: str | None = None
) -> list[Turn]:
    """Speaker turns of an RTTM file (NIST RT-09, appendix A), in order.

    Lines are `SPEAKER file channel start duration <NA> <NA> speaker [confidence [lookahead]]`. Names of files
    and speakers may have spaces. Comments (`;;`) and the format's other types of lines are skipped.

    Args:
        path: The file.
        recording: Name of the recording, in a file of several.
        encoding: The file's encoding; see `decode_text`.

    Raises:
        TimelineError: A line has too few fields or one that is no number, or there are no turns.
    """
    found: dict[str, list[Turn]] = {}
    for number, line in enumerate(split_lines(read_text(path, encoding=encoding)), start=1):
        fields = re.split(r"[ \t]+", line.strip("\ufeff \t"))
        kind = fields[0]
        if not kind or kind.startswith(";;"):
            continue
        place = f"{path}, line {number}"
        if kind not in _RTTM_TYPES:
            raise TimelineError(f"{place}, field 1 (type): {kind!r}; accepted: {', '.join(_RTTM_TYPES)}")
        if kind != "SPEAKER":
            continue
        file, begins, lasts, speaker = _speaker_line(line, fields, place)
        start = read_number(begins, f"{place}, field 4 (start)")
        seconds = read_number(lasts, f"{place}, field 5 (duration)", zero=False)
        found.setdefault(unicodedata.normalize("NFC", file), []).append(
            Turn(start=start, end=start + seconds, speaker=None if speaker in _ABSENT else speaker)
        )
    if not found:
        raise TimelineError(f"{path}: has no SPEAKER line; accepted: at least one")
    turns = next(iter(found.values())) if len(found) == 1 else _turns_of(recording, found, path)
    return sorted(turns, key=lambda turn: (turn.start, turn.end))


def _speaker_line(line: str, fields: list[str], place: str) -> tuple[str, str, str, str]:
    """File, start, duration and speaker of a line.

    They are found by the two fields after the duration, which are `<NA>` in every SPEAKER line: names with
    spaces make a line longer on both sides of them.
    """
    by_tabs = [field.strip() for field in line.strip("\ufeff\r").split("\t")]
    if 8 <= len(by_tabs) <= 10 and by_tabs[0] == fields[0]:
        fields = by_tabs
    middles = [
        at
        for at in range(5, len(fields) - 2)
        if fields[at] in _ABSENT and fields[at + 1] in _ABSENT and _is_number(fields[at - 1])
    ]
    if len(fields) < 8:
        raise TimelineError(
            f"{place}: has {len(fields)} fields; accepted: 8 or more, such as"
            " SPEAKER file 1 12.5 3.25 <NA> <NA> anna <NA> <NA>"
        )
    if not middles and len(fields) > 10:
        raise TimelineError(
            f"{place}: has {len(fields)} fields, and no <NA> <NA> after a duration; accepted: such as"
            " SPEAKER my talk 1 12.5 3.25 <NA> <NA> Anna Lee <NA> <NA>"
        )
    at = middles[0] if middles else 5
    file, (begins, lasts), named = fields[1 : at - 3], fields[at - 2 : at], fields[at + 2 :]
    # From the right: lookahead and confidence, where they are there. A whole number ends a name (Speaker 1).
    for _ in range(2):
        if len(named) > 1 and (named[-1] in _ABSENT or re.fullmatch(r"\d*\.\d+", named[-1])):
            named = named[:-1]
    return " ".join(file), begins, lasts, " ".join(named)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+([.,]\d*)?|[.,]\d+", text) is not None


def _turns_of(recording: str | None, found: Mapping[str, list[Turn]], path: object) -> list[Turn]:
    """The turns of a recording, by its name with or without ending."""
    wanted = unicodedata.normalize("NFC", recording or "")
    names = [name for name in found if name == wanted] or [
        name for name in found if wanted and re.split(r"[/\\]", name)[-1].rpartition(".")[0] == wanted
    ]
    if len(names) != 1:
        raise TimelineError(
            f"{path}: has turns of {', '.join(sorted(found)[:8])} and none of {recording!r};"
            " accepted: turns of this recording, or of one alone"
        )
    return found[names[0]]


# ---------------------------------------------------------------------- transcripts

ENDINGS = (
    *(".srt", ".vtt", ".sbv", ".ass", ".ssa"),
    *(".tsv", ".csv", ".txt", ".json", ".jsonl", ".parquet", ".xlsx"),
)
"""Endings of the transcripts that `read_cues` reads."""
_FASTEST = 100.0  # letters a second; nobody speaks a third of it


def read_cues(
    path: str | os.PathLike[str], *, language: str | None = None, encoding: str | None = None
) -> list[Cue]:
    """A transcript with times: subtitles, or a table with columns `start`, `end` and `text`.

    Times of tables are seconds, or as on a clock; whole numbers that no speaker could keep up with as seconds
    are milliseconds, as whisper writes them. Audacity's labels and whisper's JSON are read too.

    Args:
        path: The file; its ending is its format.
        language: Its language, which tells encodings apart.
        encoding: Its encoding; see `decode_text`.

    Raises:
        TimelineError: The file has another format, or a time is no number.
        ManifestError: A table in jsonl, parquet or xlsx cannot be read.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending in (".jsonl", ".parquet", ".xlsx"):
        table = read_table(path)
        _check_columns(table.columns, path)
        return _cues(
            (row, f"{path}, row {number}") for row, number in zip(table.rows, table.numbers, strict=True)
        )
    if ending not in ENDINGS:
        raise TimelineError(f"{path}: has the ending {path.suffix!r}; accepted: {', '.join(ENDINGS)}")
    text = read_text(path, language=language, encoding=encoding)
    if ending == ".json":
        return _cues_of_json(text, path)
    if ending in (".ass", ".ssa"):
        return read_substation(text, str(path), version=ending[1:])
    if ending in (".srt", ".vtt", ".sbv") or (ending == ".txt" and "-->" in text):
        return read_subtitles(text, str(path))
    return _cues_of_table(text, path)


def _cues(rows: Iterable[tuple[Mapping[str, Any], str]]) -> list[Cue]:
    """Cues of rows with `start`, `end` and `text`, each with its place for messages."""
    rows = list(rows)
    whole = all(
        isinstance(value, int) or (isinstance(value, str) and re.fullmatch(r"\d+", value.strip()))
        for row, _ in rows
        for value in (row.get("start"), row.get("end"))
    )
    cues = [
        make_cue(
            row.get("text"),
            read_number(row.get("start"), f"{place}, column start"),
            read_number(row.get("end"), f"{place}, column end"),
            place,
        )
        for row, place in rows
    ]
    lasting = [cue for cue in cues if cue.end > cue.start]
    letters, seconds = sum(len(cue.text) for cue in lasting), sum(cue.end - cue.start for cue in lasting)
    if not (whole and letters and 1000 * letters / seconds < _FASTEST):
        return cues
    return [Cue(text=cue.text, start=cue.start / 1000, end=cue.end / 1000) for cue in cues]


def _check_columns(columns: Iterable[str], path: Path) -> None:
    if missing := [name for name in ("start", "end", "text") if name not in columns]:
        raise TimelineError(
            f"{path}: has no column {missing[0]}; accepted: start and end in seconds, and text, or .srt, .vtt"
        )


def _cues_of_table(text: str, path: Path) -> list[Cue]:
    """Cues of a csv, of whisper's tsv, or of Audacity's labels."""
    lines = split_lines(text)
    if lines[0].lower().startswith("sep="):  # Excel's line that names the delimiter
        lines = ["", *lines[1:]]
    first = next((line for line in lines if line.strip() and not line.startswith("\\\t")), "")
    if re.match(r"\s*-?[\d.,:]+\s*\t\s*-?[\d.,:]+\s*(\t|$)", first):
        return _cues(_labels(lines, path))
    columns: list[str] = []
    for delimiter in ("\t", ";", ","):
        columns = [name.strip().casefold() for name in next(csv.reader([first], delimiter=delimiter), [])]
        if {"start", "end", "text"} <= set(columns):
            break
    if not first:
        return []
    _check_columns(columns, path)
    rows = _plain_rows(lines) if delimiter == "\t" and '"' not in first else []
    if not rows or any(len(values) < len(columns) for values in rows if values):
        rows = _quoted_rows("\n".join(lines), delimiter, path)
    found = []
    for number, values in enumerate(rows, start=1):
        place = f"{path}, row {number}"
        if len(values) > len(columns) and delimiter == "\t" and columns[-1] == "text":
            values = [*values[: len(columns) - 1], " ".join(values[len(columns) - 1 :])]
        if values and len(values) != len(columns):
            raise TimelineError(
                f"{place}: has {len(values)} values; accepted: {len(columns)}, as the header has"
            )
        if any(value.strip() for value in values):
            found.append((dict(zip(columns, values, strict=True)), place))
    return _cues(found[1:])


def _plain_rows(lines: Iterable[str]) -> list[list[str]]:
    """Rows without quoting, as whisper writes tsv: a quote belongs to the words, unless it is doubled."""
    return [
        [
            value[1:-1].replace('""', '"') if re.fullmatch(r'"(?:[^"]|"")*""(?:[^"]|"")*"', value) else value
            for value in line.split("\t")
        ]
        if line.strip()
        else []
        for line in lines
    ]


def _quoted_rows(text: str, delimiter: str, path: Path) -> list[list[str]]:
    """Rows of a csv, of which a cell may have several lines."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return list(reader)
    except csv.Error as error:
        raise TimelineError(
            f"{path}, line {reader.line_num}: cannot be read ({error}); accepted: quotes around a whole cell,"
            " those inside it doubled"
        ) from error


def _labels(lines: Iterable[str], path: Path) -> Iterator[tuple[dict[str, str], str]]:
    """Rows of Audacity's labels: start, end and text, with a further line for a range of frequencies."""
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("\\\t"):
            continue
        values = [*line.split("\t", 2), "", ""]
        yield dict(zip(("start", "end", "text"), values, strict=False)), f"{path}, line {number}"


def _cues_of_json(text: str, path: Path) -> list[Cue]:
    """Cues of the JSON of whisper and whisperX (segments), whisper.cpp (offsets) or transformers (chunks)."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise TimelineError(f"{path}: cannot be read ({error}); accepted: valid JSON") from error
    kinds = content if isinstance(content, dict) else {"segments": content}
    kind = next((kind for kind in ("segments", "chunks", "transcription") if kind in kinds), None)
    entries = None if kind is None else kinds[kind]
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        raise TimelineError(
            f"{path}: has no list of segments; accepted: JSON of whisper, whisperX, whisper.cpp or"
            " transformers"
        )
    cues = []
    for number, entry in enumerate(entries, start=1):
        place = f"{path}, {kind} {number}"
        start, end, unit = entry.get("start"), entry.get("end"), 1
        if kind == "chunks":
            start, end = entry.get("timestamp") or (None, None)
            end = start if end is None else end  # the last word of a recording that was cut off
        elif kind == "transcription":
            offsets = entry.get("offsets") or {}
            start, end, unit = offsets.get("from"), offsets.get("to"), 1000
        start, end = read_number(start, f"{place}, start"), read_number(end, f"{place}, end")
        cues.append(make_cue(entry.get("text"), start / unit, end / unit, place))
    return cues
