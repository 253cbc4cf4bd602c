"""Progress of long work: a bar on a terminal, and elsewhere (nohup, SLURM, CI, a pipe) plain lines.

work ─► `Progress`: step, done, total ─► bar, or `ProgressLines` ─► `Pace` ─► a line now and then ─► stderr
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from mmsr.records import Progress

FIRST_SECONDS = 10.0  # work that takes less has no line
EVERY_SECONDS = 60.0

Clock = Callable[[], float]
"""Seconds since some moment, as `time.monotonic`."""


def log(line: str) -> None:
    """Print a line to stderr, at once; stdout is for results."""
    print(line, file=sys.stderr, flush=True)


def on_terminal() -> bool:
    """Whether stderr is a terminal, where a bar can be drawn."""
    return sys.stderr.isatty()


def show_progress() -> Progress:
    """What shows the progress of work on stderr: a bar on a terminal, lines elsewhere."""
    return _bar() if on_terminal() else ProgressLines()


class Pace:
    """Tells when a line is due: after 10 s, and then every minute."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self._next = clock() + FIRST_SECONDS

    def due(self) -> bool:
        """Whether it is time for a line."""
        return self.clock() >= self._next

    def printed(self) -> None:
        """A line was printed: the next one is due in a minute."""
        self._next = self.clock() + EVERY_SECONDS


class ProgressLines:
    """Prints progress as lines, such as `transcribing  320/2,000  8.1/s  3 min left`.

    A longer step that had a line has one at its end too, with its time. The time left is that of the step.

    Args:
        write: Prints a line.
        clock: Seconds since some moment.
    """

    def __init__(self, write: Callable[[str], None] = log, clock: Clock = time.monotonic) -> None:
        self._write = write
        self._pace = Pace(clock)
        self._started: dict[str, tuple[float, int]] = {}  # when a step began, and what was done by then
        self._shown: set[str] = set()

    def __call__(self, name: str, done: int, total: int) -> None:
        """See `mmsr.records.Progress`."""
        now = self._pace.clock()
        began, before = self._started.setdefault(name, (now, done))
        ended = done >= total
        if ended:
            del self._started[name]
        long = name in self._shown and now - began >= FIRST_SECONDS
        if not self._pace.due() and not (ended and long):
            if ended:
                self._shown.discard(name)
            return
        parts = [name, f"{done:,}/{total:,}"]
        if ended:
            parts.append(f"{duration(now - began)}")
        elif done > before and now > began:
            speed = (done - before) / (now - began)
            parts += [rate(speed), f"{duration((total - done) / speed)} left"]
        self._write("  ".join(parts))
        self._pace.printed()
        (self._shown.discard if ended else self._shown.add)(name)


def duration(seconds: float) -> str:
    """Seconds as a person says them: `40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def rate(per_second: float, unit: str = "") -> str:
    """A speed: `8.1/s`, with a unit `8.1 steps/s`; one below 1 as `4.2 s each`, or `4.2 s a step`."""
    if per_second < 1:
        return f"{1 / per_second:.1f} s {f'a {unit}' if unit else 'each'}"
    return f"{per_second:.1f}{f' {unit}s' if unit else ''}/s"


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import Progress as Bar

    bar = Bar(console=Console(stderr=True))
    tasks: dict[str, Any] = {}

    def show(name: str, done: int, total: int) -> None:
        if name not in tasks:
            bar.start()
            tasks[name] = bar.add_task(name, total=total)
        bar.update(tasks[name], completed=done)
        if done >= total:
            bar.refresh()
            bar.stop()

    return show
