"""From timed parts of a job to its whole: seconds are linear in what a part works on.

a batch's sizes, its seconds ─► `Measured` ─► non-negative least squares ─► seconds of all batches ─► `Part`
parts, memory, files ─► `Estimate` ─► table, JSON
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

from mmsr.evaluation.provenance import usable_cores
from mmsr.files import write_file
from mmsr.progress import duration

_RESAMPLES, _INTERVAL = 200, (0.05, 0.95)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One timed piece of work.

    Attributes:
        sizes: What its seconds may depend on, such as `(padded seconds, 1, padded tokens)`; the 1 stands for
            what is the same each time.
        seconds: By the clock.
        processor_seconds: Of all threads of this process.
    """

    sizes: tuple[float, ...]
    seconds: float
    processor_seconds: float


class Clock:
    """Seconds since the last look, by the clock and of this process's threads."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew."""
        self._last = self.now()

    def lap(self) -> tuple[float, float]:
        """Seconds and processor seconds since the last look."""
        before, self._last = self._last, self.now()
        return self._last[0] - before[0], self._last[1] - before[1]

    def now(self) -> tuple[float, float]:
        """Seconds since some moment, by the clock and of this process."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a job, with its seconds.

    Attributes:
        name: Such as `training`.
        amount: How often, such as `7 epochs × 120 batches`.
        seconds: By the clock.
        processor_seconds: Of all threads.
        low: Seconds, the lower end of the interval.
        high: Its upper end.
        measured: Number of timed pieces.
        once: Whether it does not grow with the job.
    """

    name: str
    amount: str
    seconds: float
    processor_seconds: float
    low: float
    high: float
    measured: int
    once: bool = False


def constant(name: str, seconds: tuple[float, float], *, times: float = 1, amount: str = "once") -> Part:
    """A part that was timed once, and takes the same each time."""
    wall, processor = seconds[0] * times, seconds[1] * times
    return Part(
        name=name,
        amount=amount,
        seconds=wall,
        processor_seconds=processor,
        low=wall,
        high=wall,
        measured=1,
        once=times == 1,
    )


def coefficients(sizes: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Seconds for each unit of the sizes `[n, k]`, none below 0, by least squares `[k]`."""
    scale = np.maximum(np.abs(sizes).max(axis=0), 1e-12)  # nnls's tolerance is absolute
    return nnls(sizes / scale, seconds)[0] / scale


def linear(
    name: str, measured: Sequence[Measured], whole: Sequence[float] | np.ndarray, *, amount: str
) -> Part:
    """A part whose seconds are linear in its sizes.

    One size is used for each three pieces: from fewer, costs of several sizes cannot be told apart.

    Args:
        name: Of the part.
        measured: What was timed; the sizes that matter most come first.
        whole: The sizes of the whole part, summed over its pieces.
        amount: For people.

    Raises:
        ValueError: Nothing was timed.
    """
    if not measured:
        raise ValueError(f"{name}: nothing could be timed; accepted: a longer --calibrate")
    sizes, total = np.array([piece.sizes for piece in measured]), np.asarray(whole)
    used = np.flatnonzero(sizes.any(axis=0))[: max(1, len(measured) // 3)]
    sizes, total = sizes[:, used], total[used]
    wall = np.array([piece.seconds for piece in measured])
    processor = np.array([piece.processor_seconds for piece in measured])
    generator = np.random.default_rng(0)
    draws = generator.integers(len(measured), size=(_RESAMPLES, len(measured)))
    spread = [total @ coefficients(sizes[draw], wall[draw]) for draw in draws]
    low, high = np.quantile(spread, _INTERVAL)
    seconds = float(total @ coefficients(sizes, wall))
    return Part(
        name=name,
        amount=amount,
        seconds=seconds,
        processor_seconds=float(total @ coefficients(sizes, processor)),
        low=min(float(low), seconds),
        high=max(float(high), seconds),
        measured=len(measured),
    )


def spread_order(costs: Sequence[float]) -> list[int]:
    """Positions, the most costly first, then so that each beginning covers the range of the costs."""
    ranked = sorted(range(len(costs)), key=lambda place: -costs[place])
    count = len(ranked)
    # the fractional parts of multiples of the golden ratio fill an interval evenly
    visits = (int(count * (step * 0.6180339887498949 % 1)) for step in range(4 * count))
    return [ranked[place] for place in dict.fromkeys([*visits, *range(count)])]


def start_of(module: str) -> tuple[float, float]:
    """Seconds and processor seconds that a new Python takes to import a module of mmsr."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    paths = os.pathsep.join(filter(None, sys.path))
    subprocess.run(
        [sys.executable, "-c", f"import {module}"], env={**os.environ, "PYTHONPATH": paths}, check=True
    )
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, processor


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """The most memory of this process within the block, in bytes: `memory`, and `gpu_memory` with a GPU.

    Linux alone can forget the peak before the block; elsewhere it counts too.
    """
    found: dict[str, float] = {}
    status = Path("/proc/self/status")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is used now
    except OSError:
        status = Path()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    yield found
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        found["memory"] = int(line.split()[1]) * 1024
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if torch.cuda.is_available():
        found["gpu_memory"] = torch.cuda.max_memory_allocated()


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a job takes.

    Attributes:
        job: The job in words.
        parts: Its parts, in order.
        memory: Peak of the process, in bytes.
        gpu_memory: Peak on the GPU, in bytes, where there is one.
        disk: Bytes that the job writes, by name.
        machine: Cores, threads and load under which it was timed.
        calibration_seconds: What that took.
        notes: What the estimate does not know.
        alternatives: Seconds of the job with other settings, which were timed too.
        facts: Further keys of the JSON, such as seconds of an epoch.
    """

    job: str
    parts: Sequence[Part]
    memory: float
    disk: Mapping[str, float] = field(default_factory=dict)
    gpu_memory: float | None = None
    machine: Mapping[str, float] = field(default_factory=dict)
    calibration_seconds: float = 0.0
    notes: Sequence[str] = ()
    alternatives: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Of the whole job, by the clock."""
        return sum(part.seconds for part in self.parts)

    @property
    def processor_seconds(self) -> float:
        """Of the whole job, of all threads."""
        return sum(part.processor_seconds for part in self.parts)

    @property
    def interval(self) -> tuple[float, float]:
        """Seconds between which nine of ten estimates from other batches would lie."""
        return sum(part.low for part in self.parts), sum(part.high for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; seconds and bytes."""
        found = {
            "job": self.job,
            "seconds": self.seconds,
            "interval": list(self.interval),
            "processor_seconds": self.processor_seconds,
            "memory_bytes": self.memory,
            "gpu_memory_bytes": self.gpu_memory,
            "disk_bytes": dict(self.disk),
            "parts": [vars(part) for part in self.parts],
            "machine": dict(self.machine),
            "calibration_seconds": self.calibration_seconds,
            "alternatives": dict(self.alternatives),
            "notes": list(self.notes),
            **self.facts,
        }
        return json.loads(
            json.dumps(found, default=float), parse_float=lambda number: round(float(number), 3)
        )

    def write(self, path: str | Path) -> None:
        """Write it as a JSON file."""
        write_file(Path(path), (json.dumps(self.to_dict(), indent=1) + "\n").encode())

    def table(self) -> str:
        """The parts and the whole as a Markdown table, and under it what else is known."""
        low, high = self.interval
        rows = [["part", "amount", "time", "interval", "share", "processor time"]]
        for part in self.parts:
            share = f"{part.seconds / self.seconds:.0%}" if self.seconds else ""
            spread = "" if part.low == part.high else f"{_time(part.low)} to {_time(part.high)}"
            rows.append(
                [part.name, part.amount, _time(part.seconds), spread, share, _time(part.processor_seconds)]
            )
        rows.append(
            [
                "whole job",
                "",
                _time(self.seconds),
                f"{_time(low)} to {_time(high)}",
                "",
                _time(self.processor_seconds),
            ]
        )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
            for row in rows
        ]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        lines = [self.job, "", *lines, "", f"memory: {gigabytes(self.memory)} at its peak"]
        if self.gpu_memory is not None:
            lines[-1] += f", and {gigabytes(self.gpu_memory)} on the GPU"
        if self.disk:
            lines.append(
                "disk: " + ", ".join(f"{name} {gigabytes(size)}" for name, size in self.disk.items())
            )
        longest = max(self.parts, key=lambda part: part.seconds)
        lines.append(f"most of the time: {longest.name}")
        lines += [
            f"with {change}: {_time(seconds)}"
            for change, seconds in sorted(self.alternatives.items(), key=lambda pair: pair[1])
        ]
        return "\n".join(lines)

    def conditions(self) -> list[str]:
        """Under what it was timed, and what it does not know, in sentences."""
        machine = self.machine
        told = (
            f"timed for {self.calibration_seconds:.0f} s (threads: {machine['threads']:g}) on "
            f"{machine['cores']:g} cores under a load of {machine['load']:.1f}"
        )
        if machine["load"] > machine["cores"]:
            told += ": the machine is busy, and the clock's time changes with its load, processor time less"
        return [told, *self.notes]


def this_machine() -> dict[str, float]:
    """Cores, threads of torch, and load."""
    return {
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),  # processes that wanted to run in the last minute
    }


def gigabytes(size: float) -> str:
    """Bytes as a person says them."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)
