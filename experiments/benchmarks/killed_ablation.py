"""An ablation killed on the way: is a finished run repeated, and is its table an unbroken one's?

    python experiments/benchmarks/killed_ablation.py --out runs/killed

Runs an ablation's file (fusions.yaml: twelve fusions × five seeds) on a small demo corpus twice: to its
report without a break, and again with as many SIGKILLs as `--kills` spread evenly over its runs, the same
command each time. Compares the content and the time stamp of every finished run's result across the kills,
and the two tables but for their times. Writes OUT/summary.json, prints it, and ends with exit code 1 where
anything differs.

The corpus and the training are small (`--utterances`, `--epochs`), since what is tried is the bookkeeping.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from mmsr.data.corpora.demo.corpus import make_demo

ABLATION = Path(__file__).parents[1] / "ablations" / "fusions.yaml"


def small(ablation: Path, out: Path, *, utterances: int, epochs: int) -> Path:
    """The ablation's file with a small corpus and a short training, in OUT."""
    content = yaml.safe_load(ablation.read_text(encoding="utf-8"))
    content["base"] = str((ablation.parent / content["base"]).resolve())
    content["settings"] |= {
        "model.preset": "tiny",
        "trainer.max_epochs": epochs,
        "data.manifest": str(make_demo(out / "corpus", utterances=utterances, seed=0)),
    }
    file = out / ablation.name
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def start(file: Path, out: Path, jobs: int) -> subprocess.Popen[bytes]:
    """`mmsr ablate`, as a person starts it, its output in OUT.log."""
    command = [sys.executable, "-m", "mmsr", "ablate", "-c", str(file), "--out", str(out)]
    with open(out.with_suffix(".log"), "ab") as log:
        return subprocess.Popen([*command, "--jobs", str(jobs)], stdout=log, stderr=log)


def stamps(out: Path) -> dict[str, tuple[int, bytes]]:
    """Of each finished run, by its name, when its result was written, and what it says."""
    results = out.glob("runs/*/result.json")
    return {file.parent.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in results}


def table(out: Path) -> list[list[str]]:
    """The cells of table.md, but for the seconds in its last column."""
    lines = (out / "table.md").read_text(encoding="utf-8").splitlines()
    return [line.split("|")[1:-2] for line in lines if line.startswith("|")]


def main() -> int:
    """Run both, compare, and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ablation", type=Path, default=ABLATION)
    parser.add_argument("--utterances", type=int, default=240)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/killed"))
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    file = small(args.ablation, args.out, utterances=args.utterances, epochs=args.epochs)

    unbroken, broken = args.out / "unbroken", args.out / "broken"
    if code := start(file, unbroken, args.jobs).wait():
        raise SystemExit(f"the unbroken ablation ended with exit code {code}: {unbroken.with_suffix('.log')}")
    runs = len(stamps(unbroken))

    repeated: set[str] = set()
    known: dict[str, tuple[int, bytes]] = {}
    killed_after = []
    for kill in range(1, args.kills + 1):
        process = start(file, broken, args.jobs)
        while len(stamps(broken)) < kill * runs // (args.kills + 1):
            if process.poll() is not None:
                raise SystemExit(f"ended before it was killed: {broken.with_suffix('.log')}")
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(1)  # its processes end by themselves
        now = stamps(broken)
        repeated |= {name for name, stamp in known.items() if now.get(name) != stamp}
        known = now
        killed_after.append(len(now))
    code = start(file, broken, args.jobs).wait()
    now = stamps(broken)
    repeated |= {name for name, stamp in known.items() if now.get(name) != stamp}
    summary = {
        "runs": runs,
        "killed_after": killed_after,
        "exit_code": code,
        "repeated": sorted(repeated),
        "same_table": table(unbroken) == table(broken),
        "rows": len(table(unbroken)),
    }
    (args.out / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    print(json.dumps(summary, indent=1))
    return int(bool(code or repeated or not summary["same_table"]))


if __name__ == "__main__":
    sys.exit(main())
