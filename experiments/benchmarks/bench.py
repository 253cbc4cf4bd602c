"""mmsr beside what a user would pick in its place: the same work, in turns, and the ratio of their seconds.

    python experiments/benchmarks/bench.py
    python experiments/benchmarks/bench.py 6a 7 --quick

Each group of rows is a process of its own. A row that fails is recorded with its reason, and the others go
on.
Prints each ratio with its lowest and highest turn, and writes runs/bench/results.json and the table of
experiments/benchmarks/README.md; rows that are not asked for stay there as they were. With `--quick` sizes
are small and turns are two, which shows that a row works and measures nothing: results go to
runs/bench/quick, and the README stays. The data are those of ../shared, else the examples of the package.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from harness import Measured, Target, failed, found, merged, run_alone, write_results

from mmsr.evaluation.provenance import Provenance

README = Path(__file__).with_name("README.md")

ROWS = {
    "1a": Target(title="training step, wav2vec2 and XLM-R shapes: transformers' Trainer / mmsr", value=2.0),
    "1b": Target(title="the same in bf16", value=1.3),
    "2": Target(title="its peak memory: mmsr / Trainer", value=0.7, lower_is_better=True),
    "3": Target(title="fine-tuning a text encoder: transformers' Trainer / mmsr", value=1.5),
    "4": Target(
        title="ablation of frozen encoders: with the store / without", value=0.2, lower_is_better=True
    ),
    "5a": Target(title="Whisper's encoder: transformers, 30 s / mmsr, window 3 s", value=5.0),
    "5b": Target(title="wav2vec2-base shape: padded float32 / mmsr, by length, bf16", value=1.5),
    "6a": Target(title="answers for files: pipeline one by one / mmsr by length", value=8.0),
    "6b": Target(title="answers for files: pipeline, 16 in file order / mmsr by length", value=1.5),
    "7": Target(title="one clip, all rationales: forward and generate a label / pipeline", value=2.0),
    "8a": Target(title="transcription: transformers' pipeline / mmsr", value=1.5),
    "8b": Target(title="transcription: faster-whisper, int8 / mmsr", value=0.8),
    "9": Target(
        title="a long recording: VAD and faster-whisper, int8 / mmsr timeline, with answers", value=1.0
    ),
    "10a": Target(title="files to a batch at 16 kHz: librosa / mmsr", value=2.0),
    "10b": Target(title="files to a batch at 16 kHz: datasets' Audio / mmsr", value=1.2),
    "11a": Target(title="import mmsr after transformers", value=0.15, lower_is_better=True, unit="s"),
    "11b": Target(title="AutoModel.from_pretrained with mmsr / without", value=1.05, lower_is_better=True),
    "11c": Target(title="AutoConfig.from_pretrained with mmsr / without", value=1.05, lower_is_better=True),
    "12a": Target(
        title="answers for files: time a row, 10 times as many rows", value=1.1, lower_is_better=True
    ),
    "12b": Target(title="files decoded: time a row, 10 times as many rows", value=1.1, lower_is_better=True),
    "12c": Target(title="training: time a row, 10 times as many rows", value=1.1, lower_is_better=True),
    "13a": Target(title="mmsr --help, processor", value=0.4, lower_is_better=True, unit="s"),
    "13b": Target(title="mmsr --help, clock", value=0.4, lower_is_better=True, unit="s"),
    "13c": Target(title="mmsr predict --text, processor", value=4.0, lower_is_better=True, unit="s"),
    "13d": Target(title="mmsr predict --text, clock", value=4.0, lower_is_better=True, unit="s"),
    "13e": Target(title="answers of `base`: torch / ONNX, int8", value=1.5),
}

GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "batches_of_files": ("bench_inference", ("6a", "6b")),
    "all_rationales": ("bench_inference", ("7",)),
    "whisper_encoder": ("bench_inference", ("5a",)),
    "wav2vec2_encoder": ("bench_inference", ("5b",)),
    "transcription": ("bench_inference", ("8a", "8b")),
    "long_recording": ("bench_inference", ("9",)),
    "decoding": ("bench_inference", ("10a", "10b")),
    "exported": ("bench_inference", ("13e",)),
    "growing_inputs": ("bench_inference", ("12a", "12b")),
    "growing_training": ("bench_training", ("12c",)),
    "text_training": ("bench_training", ("3",)),
    "joint_training": ("bench_training", ("1a", "1b")),
    "joint_memory": ("bench_training", ("2",)),
    "stored_ablation": ("bench_training", ("4",)),
    "starting": ("bench_training", ("11a", "11b", "11c", "13a", "13b", "13c", "13d")),
}
"""Module of a function, and the rows that it measures. It takes `quick`, and yields names and findings."""

Measure = Callable[[bool], Iterator[tuple[str, Measured | str]]]


def machine() -> str:
    """This machine and the versions that matter, without its name."""
    told = Provenance()
    names = ("python", "torch", "transformers", "lightning", "datasets")
    versions = ", ".join(f"{name} {told.versions[name]}" for name in names if name in told.versions)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    cpu = f"{told.machine.get('cpu')}, {told.machine.get('cores')} cores, torch threads: {threads}"
    return f"{cpu}; {versions}"


def measure(name: str, *, quick: bool, out: Path) -> None:
    """Measure a group of rows in this process, and write each as it is known."""
    module, rows = GROUPS[name]
    function: Measure = getattr(import_module(module), name)
    here = machine()
    with open(out, "a", encoding="utf-8") as file:

        def write(row: dict[str, Any]) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()

        left = list(rows)
        try:
            for row, measured in function(quick):
                left.remove(row)
                where: dict[str, Any] = {"load": os.getloadavg()[0], "machine": here}
                if isinstance(measured, str):
                    write(failed(row, ROWS[row], measured, **where))
                else:
                    write(found(row, ROWS[row], measured, **where))
        except Exception as error:  # the other groups go on
            lines = str(error).strip().splitlines() or [""]
            reason = f"{type(error).__name__}: {lines[0]}"
            for row in left:
                write(failed(row, ROWS[row], reason, load=os.getloadavg()[0], machine=here))


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes, two turns, no table")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--alone", nargs=2, metavar=("GROUP", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.alone:
        measure(args.alone[0], quick=args.quick, out=Path(args.alone[1]))
        return []
    if unknown := [row for row in args.rows if row not in ROWS]:
        parser.error(f"no row {', '.join(unknown)}; accepted: {', '.join(ROWS)}")
    out: Path = args.out / "quick" if args.quick else args.out
    kept, results = out / "results.json", list[dict[str, Any]]()
    for group, (_, rows) in GROUPS.items():
        if args.rows and not set(rows) & set(args.rows):
            continue
        command = [__file__, *(["--quick"] if args.quick else []), "--alone", group]
        try:
            measured = run_alone(command)
        except RuntimeError as error:  # such as a process that the system killed
            where: dict[str, Any] = {"load": os.getloadavg()[0], "machine": machine()}
            measured = [failed(row, ROWS[row], str(error), **where) for row in rows]
        for row in measured:
            told = "{row}: {ratio} [{low}, {high}], target {target}, same result {same_result}, load {load}"
            print(told.format(**row), row.get("failed", ""), flush=True)
        before = json.loads(kept.read_text("utf-8")) if kept.exists() else []
        results = merged(before, measured, list(ROWS))
        write_results(out, results, readme=None if args.quick else README)
    return results


if __name__ == "__main__":
    main()
