"""Text with delimiters: csv and tsv, as spreadsheets, data frames and statistics programs write them.

    bytes ─► encoding, by the byte-order mark ─► delimiter, by the header ─► records

Text is UTF-8, or UTF-16 and UTF-32 with their mark. A csv may be separated by `,`, `;`, tabs or `|`, or name
its delimiter in a line `sep=;` as Excel has it; such a line has no row number.
"""

import codecs
import csv
import io
import itertools
import logging
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from mmsr.data.manifest.issues import unreadable

logger = logging.getLogger(__name__)

DELIMITERS = {".csv": ",", ".tsv": "\t"}
NUL = "\0"
LONGEST_CELL = 2**26  # characters; a quote without its pair makes longer ones
_MARKS = ",;\t|"  # delimiters that are looked for
_HEAD = 65_536  # bytes from which encoding and delimiter are told
_SAMPLED = 20  # rows
_SEP = re.compile(r'"?sep=([^"\r\n])"?[,;\t|]*(?:\r\n|\r|\n|$)', re.IGNORECASE)
_BYTE_ORDER_MARKS = (  # UTF-32's little-endian mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_TEXT = {
    b"PK\x03\x04": "an xlsx or zip file",
    b"\xd0\xcf\x11\xe0": "an old Excel file (xls)",
    b"\x1f\x8b": "a gzip file",
    b"PAR1": "a parquet file",
}


class Record(NamedTuple):
    """A row of text.

    Attributes:
        values: Its values.
        code: The kind of its issue, None for none.
        problem: What is wrong with it.
    """

    values: list[str]
    code: str | None = None
    problem: str = ""


def encoding_of(head: bytes) -> str:
    """The encoding of text by its first bytes: UTF-8 if there is no other byte-order mark."""
    return next((name for mark, name in _BYTE_ORDER_MARKS if head.startswith(mark)), "utf-8-sig")


def open_text(source: str, file: BinaryIO, *, newline: str | None = None) -> tuple[io.TextIOWrapper, str]:
    """Open a file as text; also return its beginning, which is not read yet.

    Args:
        source: Its name in messages.
        file: The file.
        newline: As of `open`.

    Raises:
        ManifestError: It begins as another format does.
    """
    buffered = io.BufferedReader(file, _HEAD)  # type: ignore[type-var]
    head = buffered.peek(_HEAD)[:_HEAD]
    for magic, what in _NO_TEXT.items():
        if head.startswith(magic):
            raise unreadable(source, f"is {what} by its content; accepted: the ending of that format")
    encoding = encoding_of(head)
    beginning = codecs.getincrementaldecoder(encoding)(errors="replace").decode(head)
    return io.TextIOWrapper(buffered, encoding=encoding, newline=newline), beginning


def records(source: str, file: BinaryIO, ending: str) -> Iterator[Record]:
    """Read the rows, the header first.

    Args:
        source: The file's name in messages.
        file: The file.
        ending: `.csv` or `.tsv`, of which each has its delimiter unless the header tells another.

    Raises:
        ManifestError: The file is no text.
    """
    lines, head = open_text(source, file, newline="")
    if NUL in head.partition("\n")[0]:
        problem = "has NUL bytes in its first line, as UTF-16 without a byte-order mark; accepted: UTF-8"
        raise unreadable(source, problem, code="not-utf-8")
    named = _SEP.match(head)
    if named is not None:
        next(lines)
        delimiter, head = named[1], head[named.end() :]
    else:
        delimiter = _delimiter(head, DELIMITERS[ending])
    if delimiter != DELIMITERS[ending]:
        name, usual = os.path.basename(source), DELIMITERS[ending]
        logger.warning("%s: is read as separated by %r, not by %r", name, delimiter, usual)
    header = next(iter(_sample(head, delimiter)), [])
    spaced = len(header) > 1 and delimiter != "\t" and all(name.startswith(" ") for name in header[1:])
    csv.field_size_limit(LONGEST_CELL)  # of the process; csv has no other
    return _records(lines, delimiter, spaced=spaced)


def _delimiter(head: str, own: str) -> str:
    """The delimiter: a format's own, unless another divides the header, and a row, into more plain names."""
    tables = {mark: _sample(head, mark) for mark in _MARKS}

    def divides(mark: str) -> bool:
        header, *rows = tables[mark] or [[]]
        plain = not any(other in name for name in header for other in (*_MARKS, '"'))
        return len(header) > 1 and plain and (not rows or any(len(row) == len(header) for row in rows))

    others = [mark for mark in _MARKS if mark != own and divides(mark)]
    if divides(own) or not others:
        return own
    return max(others, key=lambda mark: len(tables[mark][0]))


def _sample(head: str, delimiter: str) -> list[list[str]]:
    """The first records of a file's beginning; without the last one if it may be cut."""
    found: list[list[str]] = []
    try:
        reader = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter)
        found = list(itertools.islice(reader, _SAMPLED + 1))
    except csv.Error:
        pass
    return found[:-1] if len(found) > 1 and len(found) <= _SAMPLED and len(head) > _HEAD // 4 else found


def _records(lines: Iterator[str], delimiter: str, *, spaced: bool) -> Iterator[Record]:
    """The records; after one with a stray quote, reading goes on at its second line.

    Many programs write tsv without quoting. There a quote is stray if it would merge several lines each of
    which is a row, unless a quoted header or a doubled quote in the row shows that the file is quoted.
    """
    ahead: deque[str] = deque()  # lines to be read again
    taken: list[str] = []  # lines of the current row

    def take() -> Iterator[str]:
        while line := ahead.popleft() if ahead else next(lines, ""):
            taken.append(line)
            yield line

    def begin() -> Iterator[list[str]]:
        return csv.reader(take(), delimiter=delimiter, strict=True, skipinitialspace=spaced)

    reader = begin()
    width, quoting = 0, True  # from the header
    while True:
        taken.clear()
        values: list[str] = []
        stray: str | None = None
        try:
            values = next(reader)
            if not width:
                width, quoting = len(values), delimiter != "\t" or taken[0].startswith('"')
            elif len(taken) > 1 and not quoting and _merged(taken, width):
                stray = f"a quote would make one row of {len(taken)} lines"
        except StopIteration:
            return
        except csv.Error as error:
            stray = str(error).replace("\t", "\\t")
        if stray is not None:
            yield Record(values, "quote-stray", _stray(stray, taken[0]))
            ahead.extendleft(reversed(taken[1:]))
            reader = begin()
        elif any(NUL in line for line in taken):
            places = [place for place, value in enumerate(values, start=1) if NUL in value]
            problem = f"has NUL characters in value {places[0]}; accepted: text, so make the file again"
            yield Record(values, "text-nul", problem)
        else:
            yield Record(values)


def _stray(reason: str, line: str) -> str:
    shown = line.rstrip("\r\n")[:60]
    accepted = "quotes around a whole cell, those inside it doubled"
    return f"cannot be read ({reason}): {shown!r}; accepted: {accepted}"


def _merged(lines: Sequence[str], width: int) -> bool:
    """Whether each line of a cell with line breaks is a row of a tsv with `width` values."""
    tabs = {line.count("\t") for line in lines if not line.isspace()}
    return width > 1 and tabs == {width - 1} and not any('""' in line for line in lines)
