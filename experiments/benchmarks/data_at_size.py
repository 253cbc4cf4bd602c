"""A million rows: how fast a manifest opens and is checked, when training on it starts, what memory it keeps.

    python experiments/benchmarks/data_at_size.py --rows 1000000 --steps 250 500 1000 1750

Writes a parquet manifest of made-up transcripts (no audio) to a temporary folder that is deleted afterwards,
and in a new process each opens it, checks it (`mmsr data check --no-audio`), and trains the preset `tiny` on
it up to the last of `--steps`. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cold_start import LABELS, WORDS
from lightning.pytorch import Callback

from mmsr.training.run import fit

MB = 1e6


def make_manifest(path: Path, rows: int) -> None:
    """Transcripts of 4 to 16 words; every hundredth row is for development and for test."""
    draw = np.random.default_rng(0)
    drawn = np.split(draw.choice(WORDS, 16 * rows), np.cumsum(draw.integers(4, 17, rows))[:-1])
    split = np.full(rows, "train")
    split[::100], split[1::100] = "dev", "test"
    columns = {
        "id": [f"row-{row}" for row in range(rows)],
        "text": [" ".join([*words[:16], str(row)]) for row, words in enumerate(drawn)],  # no two alike
        "label": draw.choice(LABELS, rows),
        "language": np.full(rows, "en"),
        "split": split,
    }
    pq.write_table(pa.table(columns), path)


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Watch(Callback):
    """Says when the first step is done, and the resident memory after each of some steps."""

    def __init__(self, started: float, steps: list[int]) -> None:
        self.started, self.steps = started, steps
        self.found: dict[str, float] = {}

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """After a step."""
        if trainer.global_step == 1:
            self.found["first step, s"] = time.time() - self.started
        if trainer.global_step in self.steps:
            self.found[f"after {trainer.global_step:,} steps, MB"] = resident() / MB

    def on_train_end(self, *_: Any) -> None:
        """The last line is what the other process reads."""
        print(json.dumps(self.found), flush=True)


OPEN = """
import json, re, sys, time
from mmsr.data.manifest.manifest import load_manifest
started = time.perf_counter()
load_manifest(sys.argv[1], labels=sys.argv[2:])
most = 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
print(json.dumps({"seconds": time.perf_counter() - started, "most": most}))
"""  # a process without this one's imports


def trained(manifest: str, folder: str, steps: list[int]) -> None:
    """Train on the manifest, watched."""
    watch = {"class_path": "data_at_size.Watch", "init_args": {"started": time.time(), "steps": steps}}
    fit(
        ["--data.manifest", manifest, "--model.preset", "tiny", "--model.fusion", "text_only"]
        + ["--model.rationale_format", "none", "--data.batch_tokens", "8192", "--data.batch_rows", "512"]
        + ["--trainer.max_steps", str(max(steps)), "--trainer.callbacks", json.dumps([watch])]
        + ["--trainer.default_root_dir", folder, "--trainer.enable_progress_bar", "false"]
    )


def measured(*command: str) -> tuple[float, str]:
    """Seconds of a new process, and the last line that it printed."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return time.perf_counter() - started, (done.stdout.strip().splitlines() or [""])[-1]


def main() -> None:
    """Measure, each in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, nargs="+", default=[250, 500, 1000, 1750])
    parser.add_argument("--train", type=Path, help="Folder of the manifest on which this process trains.")
    args = parser.parse_args()
    if args.train:
        return trained(str(args.train / "big.parquet"), str(args.train / "run"), args.steps)
    with tempfile.TemporaryDirectory(prefix="mmsr-at-size-") as folder:
        manifest = Path(folder) / "big.parquet"
        make_manifest(manifest, args.rows)
        print(f"| {args.rows:,} rows | |\n|---|---|")
        found = json.loads(measured(sys.executable, "-c", OPEN, str(manifest), *LABELS)[1])
        print(f"| opened | {found['seconds']:.1f} s, {found['most'] / MB:.0f} MB at most |", flush=True)
        check = [sys.executable, "-m", "mmsr", "data", "check", "--no-audio", "--manifest", str(manifest)]
        print(f"| checked | {measured(*check)[0]:.1f} s |", flush=True)
        steps = ["--steps", *map(str, args.steps)]
        for what, value in json.loads(
            measured(sys.executable, __file__, "--train", folder, *steps)[1]
        ).items():
            print(f"| training: {what} | {value:.1f} |", flush=True)


if __name__ == "__main__":
    main()
