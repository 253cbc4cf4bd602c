"""Where runs are done: the interface of runners, and processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from mmsr.ablation.runs import Run

TICK = 2.0  # seconds after which a runner reports, whether or not a run has ended


@dataclass(frozen=True)
class Event:
    """A report of a runner: the state of a run, or without a run, that some time has passed."""

    run: Run | None = None
    state: str = "running"  # then "finished" or "failed"
    error: str = ""


class Runner(Protocol):
    """Does runs, such as in processes of this machine or of a cluster."""

    def run(self, work: Callable[[Run], None], runs: Iterable[Run]) -> Generator[Event, None, None]:
        """Do the work of each run. A failed run is reported and stops no other.

        A run is taken from `runs` when there is room for it, so that it may depend on the events before.
        Closing the generator stops the started runs.
        """


class LocalProcesses:
    """Processes of this machine, each with one thread, which do one run after another.

    Ctrl-C interrupts this process, which ends the others. They end by themselves if this one is killed.

    Args:
        jobs: The number of processes.
    """

    def __init__(self, jobs: int = 1) -> None:
        if jobs < 1:
            raise ValueError(f"--jobs {jobs}; accepted: 1 or more")
        self.jobs = jobs

    def run(self, work: Callable[[Run], None], runs: Iterable[Run]) -> Generator[Event, None, None]:
        """See `Runner.run`."""
        waiting = iter(runs)
        processes: dict[Any, multiprocessing.process.BaseProcess] = {}  # by channel
        busy: dict[Any, Run] = {}
        try:
            while True:
                while len(busy) < self.jobs and (run := next(waiting, None)) is not None:
                    channel = next((idle for idle in processes if idle not in busy), None)
                    if channel is None:
                        channel, process = _start(work)
                        processes[channel] = process
                    busy[channel] = run
                    channel.send(run)
                    yield Event(run)
                if not busy:
                    return
                ready: list[Any] = wait(list(busy), timeout=TICK)
                for channel in ready:
                    run = busy.pop(channel)
                    try:
                        error = channel.recv()
                    except EOFError:
                        process = processes.pop(channel)
                        process.join()
                        error = f"its process ended with exit code {process.exitcode}"
                    yield Event(run, "failed" if error else "finished", error)
                if not ready:
                    yield Event()
        finally:
            for process in processes.values():
                process.terminate()
            for process in processes.values():
                process.join(10)
                process.kill()


def _start(work: Callable[[Run], None]) -> tuple[Connection, multiprocessing.process.BaseProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work), name="mmsr ablate")
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # read when the process loads its libraries
    try:
        process.start()
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
    theirs.close()  # so that the channel closes when the process ends
    return ours, process


def _serve(channel: Connection, work: Callable[[Run], None]) -> None:
    """The loop of a process: receive a run, do it, send back its error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # removes half-written files
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        while True:
            channel.send(attempt(work, channel.recv()))
    except (KeyboardInterrupt, EOFError, OSError):
        pass


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def attempt(work: Callable[[Run], None], run: Run) -> str:
    """Do a run, with this process's output in its log; return its error, or an empty string."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with open(run.folder / "log.txt", "ab") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    try:
        work(run)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return ""
