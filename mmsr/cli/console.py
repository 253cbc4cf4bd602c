"""The terminal: a table that is drawn again, and refusals of bad input."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mmsr.progress import Clock, Pace, log, on_terminal


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
