"""The terminal: a log, progress, and refusals of bad input."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmsr.files import check_output


def log(line: str) -> None:
    """Print a line to stderr; stdout is for results."""
    print(line, file=sys.stderr, flush=True)


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
            raise ValueError(f"--{name.replace('_', '-')} {given}: no such file")


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


def at_least_one(**numbers: int) -> None:
    """Refuse a count below one before anything is loaded; a flag has its parameter's name.

    Raises:
        ValueError: A count is below one.
    """
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"--{name.replace('_', '-')} {number}; accepted: 1 or more")


def progress_bar() -> Callable[[str, int, int], None] | None:
    """A progress bar on stderr, called with task, done and total; None if stderr is no terminal."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True))
    tasks: dict[str, Any] = {}

    def show(name: str, done: int, total: int) -> None:
        if name not in tasks:
            bar.start()
            tasks[name] = bar.add_task(name, total=total)
        bar.update(tasks[name], completed=done)
        if done == total:
            bar.refresh()
            bar.stop()

    return show


@contextmanager
def live_table(title: str) -> Iterator[Callable[[Mapping[str, Mapping[str, str]], str], None]]:
    """A table on stderr that is drawn again by each call; only its lines if stderr is no terminal.

    Yields:
        A function of the cells, by row and column, and a line to print, which may be empty.
    """
    if not sys.stderr.isatty():
        yield lambda cells, line: log(line) if line else None
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
