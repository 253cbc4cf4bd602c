"""What does `import mmsr` cost a program that uses transformers for something else?

    python experiments/benchmarks/import_cost.py --pairs 9

Each case is one statement, run in a new process after `import mmsr` and in one without it, in turns, so that
a busy machine slows both alike. `AutoModel.from_pretrained` loads a BERT of a few weights from a folder. The
first pair of each case fills the disk's cache and is left out. Prints for processor time (user and system)
and for wall time the medians, and the median of the pairs' ratios and differences with the lowest and the
highest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

from transformers import BertConfig, BertModel

CASES = {
    "import transformers": "import transformers",
    "import AutoModel": "from transformers import AutoModel",
    "AutoModel.from_pretrained": (
        "import sys; from transformers import AutoModel; AutoModel.from_pretrained(sys.argv[1])"
    ),
}


class Cost(NamedTuple):
    """Seconds of one process."""

    processor: float
    wall: float


def measure(code: str, folder: str) -> Cost:
    """Run a program in a new process.

    Raises:
        RuntimeError: It fails.
    """
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, folder], stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{code!r} failed with status {process.returncode}")
    return Cost(usage.ru_utime + usage.ru_stime, wall)


def measure_pairs(code: str, folder: str, pairs: int) -> list[tuple[Cost, Cost]]:
    """The costs of a program without mmsr and with it, in turns; a first pair is left out."""
    programs = (code, f"import mmsr; {code}")
    measured = []
    for pair in range(pairs + 1):
        order = (0, 1) if pair % 2 else (1, 0)
        costs = {side: measure(programs[side], folder) for side in order}
        measured.append((costs[0], costs[1]))
    return measured[1:]


def spread(values: Sequence[float], form: str) -> str:
    """Median, lowest and highest."""
    numbers = (statistics.median(values), min(values), max(values))
    return "{} [{}, {}]".format(*(format(number, form) for number in numbers))


def main() -> None:
    """Measure each case and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=9, help="of each case (default: 9)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="default: all")
    arguments = parser.parse_args()
    print(
        "| case | time | without, s | with, s | ratio [lowest, highest] | difference, s [lowest, highest] |"
    )
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        config = BertConfig(
            vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
        )
        BertModel(config).save_pretrained(folder)
        for case in arguments.cases:
            pairs = measure_pairs(CASES[case], folder, arguments.pairs)
            for kind in Cost._fields:
                without, with_mmsr = ([getattr(pair[side], kind) for pair in pairs] for side in (0, 1))
                ratios = [after / before for before, after in zip(without, with_mmsr, strict=True)]
                differences = [after - before for before, after in zip(without, with_mmsr, strict=True)]
                medians = (f"{statistics.median(side):.2f}" for side in (without, with_mmsr))
                cells = (case, kind, *medians, spread(ratios, ".3f"), spread(differences, "+.3f"))
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
