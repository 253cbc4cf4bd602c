"""How long do mmsr's first steps take, alone and beside another use of transformers?

    python experiments/benchmarks/startup.py --pairs 9 --out runs/startup.json

Every figure is of new processes. `AutoModel.from_pretrained` and `import transformers` run after `import
mmsr` and without it, in turns, so that a busy machine slows both alike; the first pair fills the disk's cache
and is left out. They are compared by processor time (user and system), which other programs disturb least.
`--model` is another model, by default a BERT of a few weights. The command is timed alone, by the clock and
by the processor, against a limit in seconds.

Writes a list of rows `{"row", "ratio", "low", "high", "target", "lower_is_better", "same_result", "unit"}`: a
median with its lowest and highest value. Where "unit" is "s", these are seconds and no ratio. "same_result"
tells whether both sides printed the same, or whether the command printed what is looked for.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import BertConfig, BertModel

LOADING = "import sys; from transformers import {name}; print(type({name}.from_pretrained(sys.argv[1])))"


class Run(NamedTuple):
    """Seconds of one process, and what it printed."""

    processor: float
    wall: float
    printed: str


def run(arguments: Sequence[str]) -> Run:
    """Run Python in a new process.

    Raises:
        RuntimeError: It fails.
    """
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *arguments], stdout=output, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        printed = output.read().decode()
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed with status {process.returncode}")
    return Run(usage.ru_utime + usage.ru_stime, wall, printed)


def paired(code: str, model: str, pairs: int) -> list[tuple[Run, Run]]:
    """A program without mmsr and with it, in turns; a first pair is left out."""
    programs = (code, f"import mmsr; {code}")
    found = []
    for pair in range(pairs + 1):
        order = (0, 1) if pair % 2 else (1, 0)
        runs = {side: run(["-c", programs[side], model]) for side in order}
        found.append((runs[0], runs[1]))
    return found[1:]


def row(name: str, values: Sequence[float], *, target: float, unit: str, same: bool) -> dict[str, Any]:
    """A row of the results."""
    return {
        "row": name,
        "ratio": round(statistics.median(values), 4),
        "low": round(min(values), 4),
        "high": round(max(values), 4),
        "target": target,
        "lower_is_better": True,
        "same_result": same,
        "unit": unit,
    }


def measure(model: str, pairs: int) -> Iterator[dict[str, Any]]:
    """All rows, as they are measured."""
    runs = paired("import transformers", model, pairs)
    more = [after.processor - before.processor for before, after in runs]
    yield row("import mmsr beside transformers", more, target=0.15, unit="s", same=True)
    for name in ("AutoModel", "AutoConfig"):
        runs = paired(LOADING.format(name=name), model, pairs)
        ratios = [after.processor / before.processor for before, after in runs]
        same = all(before.printed == after.printed for before, after in runs)
        title = f"{name}.from_pretrained of another model"
        yield row(title, ratios, target=1.05, unit="x", same=same)
    for name, words, printed, target in (
        ("mmsr --help", ["--help"], "predict", 0.4),
        ("mmsr predict --text", ["predict", "--text", "I am so happy."], "positive", 4.0),
    ):
        alone = [run(["-m", "mmsr", *words]) for _ in range(pairs + 1)][1:]
        same = all(printed in one.printed for one in alone)
        for kind in ("processor", "wall"):
            seconds = [getattr(one, kind) for one in alone]
            yield row(f"{name}, {kind} time", seconds, target=target, unit="s", same=same)


def save_small_bert(folder: str) -> None:
    """Write another model, of a few weights."""
    config = BertConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    BertModel(config).save_pretrained(folder)


def main() -> None:
    """Measure, print and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=9, help="of each row (default: 9)")
    parser.add_argument("--model", help="folder of another model (default: a small BERT)")
    parser.add_argument("--out", type=Path, default=Path("runs/startup.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        save_small_bert(folder)
        rows = []
        for one in measure(arguments.model or folder, arguments.pairs):
            rows.append(one)
            told = "{row}: {ratio} {unit} [{low}, {high}], target {target}, same {same_result}"
            print(told.format(**one), flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
