"""The terminal: a table that is drawn again, and refusals of bad input."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mmsr.files import check_output
from mmsr.messages import no_such_file
from mmsr.progress import Clock, Pace, log, on_terminal


def print_json(value: object) -> None:
    """Print a value as JSON, in characters that stdout can write."""
    utf_8 = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
    # half a character, of a file's name that is not UTF-8, is written as its escape, see `lenient`
    print(json.dumps(value, ensure_ascii=not utf_8))


def lenient() -> None:
    r"""Let stdout and stderr write every text: what their encoding lacks becomes `\u1ebf`.

    A name of a file may be in another encoding than the terminal, or in none.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def must_be_there(**paths: str | Path | None) -> None:
    """Refuse missing files before anything is loaded; a flag has its parameter's name.

    URLs and Hub ids are checked when they are read.

    Raises:
        ValueError: A path has a file's ending, and there is no such file.
    """
    for name, path in paths.items():
        given = str(path or "")
        there = "://" in given or os.path.exists(given) or os.path.exists(given.partition(":")[0])
        if os.path.splitext(given)[1] and not there:
            raise ValueError(f"--{name.replace('_', '-')} {no_such_file(given)}")


def check_page(*inputs: str, **pages: str | None) -> None:
    """Refuse HTML pages that cannot be written, before anything is loaded; as `must_be_there`.

    Raises:
        ValueError: A page has another ending, is one of the inputs, or cannot be written.
    """
    for name, path in pages.items():
        if path is not None and not path.lower().endswith((".html", ".htm")):
            raise ValueError(f"--{name} {path} has another ending; accepted: .html")
        if path is not None:
            check_output(path, inputs=inputs, name=f"--{name}")


@contextmanager
def live_table(
    title: str, clock: Clock = time.monotonic
) -> Iterator[Callable[[Mapping[str, Mapping[str, str]], str], None]]:
    """A table on stderr that is drawn again by each call; elsewhere than on a terminal, lines.

    There its cells are a line each minute in which nothing else was printed.

    Yields:
        A function of the cells, by row and column, and a line to print, which may be empty.
    """
    if not on_terminal():
        yield _table_lines(Pace(clock))
        return
    from rich.console import Console
    from rich.live import Live
    from rich.markup import escape
    from rich.table import Table

    def show(cells: Mapping[str, Mapping[str, str]], line: str) -> None:
        table = Table("", *next(iter(cells.values()), {}), title=title)
        for name, row in cells.items():
            table.add_row(*map(escape, (name, *row.values())))
        live.update(table)
        if line:
            live.console.print(line, markup=False, highlight=False)

    with Live(console=Console(stderr=True), refresh_per_second=4) as live:
        yield show


def _table_lines(pace: Pace) -> Callable[[Mapping[str, Mapping[str, str]], str], None]:
    """Prints lines, and where there was none for a minute the cells, one line a row."""

    def show(cells: Mapping[str, Mapping[str, str]], line: str) -> None:
        if not line and pace.due():
            rows = (
                f"{name}: {', '.join(f'{of} {cell}' for of, cell in row.items())}"
                for name, row in cells.items()
            )
            line = "\n".join(rows)
        if line:
            log(line)
            pace.printed()

    return show
