"""Times two programs in turns, and keeps what was found: the part of `bench.py` that measures nothing itself.

two programs ─► alternate ─► Measured ─► Found ─► results.json, the table of a README

A ratio is of two runs that follow each other, so that a busy machine slows both alike. Its spread is the
lowest and the highest of the turns.
"""

from __future__ import annotations

import cProfile
import gc
import json
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mmsr.files import write_file

T = TypeVar("T")
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
_NAMED = 5  # functions of a profile


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a row is to reach.

    Attributes:
        title: What is compared, for the table.
        value: The ratio, or None where there is no target.
        lower_is_better: Whether the ratio is to be at most `value`, not at least.
        unit: `x` for a ratio, `s` where the row is seconds of one side.
    """

    title: str
    value: float | None
    lower_is_better: bool = False
    unit: str = "x"


@dataclass(kw_only=True)
class Measured:
    """What a row's function found.

    Attributes:
        ratios: One of each turn.
        same_result: Whether both sides gave the same.
        seconds: Medians of mmsr and of the other, where they are known.
        precision: In which both computed.
        note: What a reader has to know, such as sizes.
        why: Why the target is missed, if it is.
        costs: Where the time of mmsr's side goes.
    """

    ratios: Sequence[float]
    same_result: bool
    seconds: tuple[float, float] | None = None
    precision: str = "float32"
    note: str = ""
    why: str = ""
    costs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Turns:
    """Seconds of each turn of two programs, and what each returned first."""

    mmsr: list[float]
    other: list[float]
    results: tuple[Any, Any]

    @property
    def ratios(self) -> list[float]:
        """The other's seconds divided by mmsr's, a turn each."""
        return [other / own for own, other in zip(self.mmsr, self.other, strict=True)]

    @property
    def medians(self) -> tuple[float, float]:
        """Median seconds of mmsr and of the other."""
        return statistics.median(self.mmsr), statistics.median(self.other)


def alternate(
    mmsr: Callable[[], Any],
    other: Callable[[], Any],
    *,
    repeats: int,
    warm: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> Turns:
    """Run two programs in turns, each first in every second turn.

    Args:
        mmsr: One side.
        other: The other side.
        repeats: Number of turns that are measured.
        warm: Run a turn before them that is not.
        clock: Tells seconds.
    """
    programs = (mmsr, other)
    seconds: tuple[list[float], list[float]] = ([], [])
    results: dict[int, Any] = {}
    for turn in range(-1 if warm else 0, repeats):
        for side in (0, 1) if turn % 2 else (1, 0):
            gc.collect()
            start = clock()
            result = programs[side]()
            took = clock() - start
            results.setdefault(side, result)
            if turn >= 0:
                seconds[side].append(took)
    return Turns(*seconds, (results[0], results[1]))


def costs(program: Callable[[], Any]) -> list[str]:
    """The functions that a program spends most of its time in, such as `torch linear 41 %`."""
    profile = cProfile.Profile()
    profile.runcall(program)
    stats: Any = pstats.Stats(profile)
    found = sorted(((row[2], place) for place, row in stats.stats.items()), reverse=True)
    total = sum(took for took, _ in found)
    return [f"{_function(*place)} {100 * took / total:.0f} %" for took, place in found[:_NAMED]]


def _function(path: str, line: int, name: str) -> str:
    """A function's name without what a reader does not need."""
    name = name.strip("<>").removeprefix("built-in method ").removeprefix("method ").partition(" object")[0]
    name = name.partition(" of ")[0].strip("'")
    return name if path in ("~", "") else f"{Path(path).stem}.{name}"


def found(row: str, target: Target, measured: Measured, *, load: float, machine: str) -> dict[str, Any]:
    """A row of the results; `missed` tells whether its target is not reached."""
    median = statistics.median(measured.ratios)
    missed = False
    if target.value is not None:
        missed = median > target.value if target.lower_is_better else median < target.value
    return {
        "row": row,
        "title": target.title,
        "ratio": round(median, 4),
        "low": round(min(measured.ratios), 4),
        "high": round(max(measured.ratios), 4),
        "target": target.value,
        "lower_is_better": target.lower_is_better,
        "same_result": measured.same_result,
        "missed": missed or not measured.same_result,
        "unit": target.unit,
        "turns": len(measured.ratios),
        **{name: value for name, value in asdict(measured).items() if name not in ("ratios", "same_result")},
        "load": round(load, 1),
        "machine": machine,
    }


def failed(row: str, target: Target, reason: str, *, load: float, machine: str) -> dict[str, Any]:
    """A row that could not be measured, and the reason."""
    return {
        "row": row,
        "title": target.title,
        "ratio": None,
        "low": None,
        "high": None,
        "target": target.value,
        "lower_is_better": target.lower_is_better,
        "same_result": False,
        "missed": True,
        "unit": target.unit,
        "failed": reason,
        "load": round(load, 1),
        "machine": machine,
    }


def run_alone(command: Sequence[str]) -> list[Any]:
    """Run a program that writes a line of JSON for each result to the file that ends its command.

    Raises:
        RuntimeError: It fails before it has written any; the message is its last line.
    """
    with tempfile.TemporaryDirectory(prefix="mmsr-bench-") as folder:
        out = Path(folder) / "rows.jsonl"
        process = subprocess.run(
            [sys.executable, *command, str(out)], stdout=sys.stderr, stderr=subprocess.PIPE, text=True
        )
        lines = out.read_text("utf-8").splitlines() if out.exists() else []
    if process.returncode and not lines:
        told = process.stderr.strip().splitlines() or [f"status {process.returncode}"]
        raise RuntimeError(told[-1])
    return [json.loads(line) for line in lines]


def merged(
    before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], order: Sequence[str]
) -> list[dict[str, Any]]:
    """Results of this run, and those before it of other rows on the same machine, in order."""
    rows = {row["row"]: dict(row) for row in before if now and row["machine"] == now[0]["machine"]}
    rows |= {row["row"]: dict(row) for row in now}
    return [rows[name] for name in order if name in rows]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The results as Markdown, with the machine, and under the table what missed its target and why."""
    told = [f"Machine: {machine}." for machine in dict.fromkeys(row["machine"] for row in rows)]
    told += [
        "",
        "| row | compared | ratio (low, high) | target | same result | mmsr, other (s) | precision | load |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sign = "≤" if row["lower_is_better"] else "≥"
        goal = "none" if row["target"] is None else f"{sign} {row['target']:g}"
        if row["ratio"] is None:
            cells = ["not measured", goal, "", "", "", f"{row['load']:g}"]
        else:
            unit = " s" if row["unit"] == "s" else ""
            spread = f"{row['ratio']:.2f}{unit} ({row['low']:.2f}, {row['high']:.2f})"
            seconds = ", ".join(f"{second:.1f}" for second in row["seconds"] or ())
            same = "yes" if row["same_result"] else "no"
            cells = [spread, f"{goal}{unit}", same, seconds, row["precision"], f"{row['load']:g}"]
            if row["missed"]:
                cells[0] = f"**{cells[0]}**"
        told.append(f"| {' | '.join([row['row'], row['title'], *cells])} |")
    told.append("")
    for row in rows:
        if row["ratio"] is None:
            told.append(f"- {row['row']}: not measured: {row['failed']}")
            continue
        parts = [row["note"]] if row["note"] else []
        if row["missed"]:
            parts += [f"Missed: {row['why']}"] if row["why"] else ["Missed."]
            parts += [f"mmsr's time: {', '.join(row['costs'])}."] if row["costs"] else []
        if parts:
            told.append(f"- {row['row']}: {' '.join(parts)}")
    return "\n".join(told) + "\n"


def write_results(folder: Path, rows: Sequence[Mapping[str, Any]], *, readme: Path | None) -> None:
    """Write `results.json`, and the table between the markers of a README.

    Raises:
        ValueError: The README lacks a marker.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "results.json", (json.dumps(rows, indent=1) + "\n").encode())
    if readme is None:
        return
    text = readme.read_text("utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{readme} has no {BEGIN} and {END}; accepted: a README with both")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    write_file(readme, f"{before}{BEGIN}\n{table(rows)}{END}{after}".encode())
