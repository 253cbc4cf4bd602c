"""What the feature store saves: five fusions over frozen encoders, against one run that keeps nothing.

    python experiments/benchmarks/feature_store.py --speakers 4 --epochs 3

Trains `experiments/ravdess.yaml` over a 6 s window two ways: one fusion whose frozen encoders run in every
step, and five fusions that share a store, empty at first. Wall time is that of whole runs, models loaded and
saved. `--speakers` takes the first speakers alone (the encoder is slow on a CPU), one of them as development
split and one as test split. The losses of the first fusion are compared. The store keeps float32 here,
so that they can be equal; statistics that need a store (`audio_standardize`) are left out of all. Other flags
go to `mmsr fit`, such as --model.audio, --model.text and --data.manifest. Writes OUT/summary.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import torch
import yaml

from mmsr.data.features.store import FeatureStore
from mmsr.data.manifest.manifest import load_manifest
from mmsr.training.run import fit

CONFIG = Path(__file__).parents[1] / "ravdess.yaml"
FUSIONS = ("cross_attention", "gated", "bottleneck", "merged", "concat")


class Cost(NamedTuple):
    """Seconds by the clock, and those that the process computed, which a busy machine does not change."""

    wall_s: float
    cpu_s: float


def subset(manifest: Path, speakers: int, out: Path) -> tuple[Path, int]:
    """The rows of the first speakers as a manifest of its own."""
    rows = load_manifest(manifest).to_list()
    wanted = sorted({row["speaker"] for row in rows})[:speakers]
    kept = [row for row in rows if row["speaker"] in wanted]
    path = out / "manifest.jsonl"
    lines = [
        json.dumps({name: value for name, value in row.items() if value is not None}, default=str)
        for row in kept
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path, len(kept)


def timed(name: str, out: Path, flags: list[str]) -> tuple[Cost, list[dict[str, float]]]:
    """Cost and history of one run."""
    folder = out / name
    started = Cost(time.perf_counter(), time.process_time())
    fit(["-c", str(CONFIG), "--trainer.default_root_dir", str(folder), *flags])
    cost = Cost(time.perf_counter() - started.wall_s, time.process_time() - started.cpu_s)
    print(f"{name}: {cost.wall_s:.1f} s, of CPU {cost.cpu_s:.1f} s", flush=True)
    return cost, json.loads((folder / "history.json").read_text(encoding="utf-8"))


def farthest(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    """Greatest relative difference of two histories' losses."""
    pairs = [
        (a[name], b[name]) for a, b in zip(one, other, strict=True) for name in ("train_loss", "dev_loss")
    ]
    return max(abs(a - b) / abs(b) for a, b in pairs)


def main() -> None:
    """Train all, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--speakers", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("runs/feature-store"))
    parser.add_argument("--data.manifest", dest="manifest", type=Path)
    args, extra = parser.parse_known_args()
    if args.out.exists():
        shutil.rmtree(args.out)  # a store that is there already would measure nothing
    args.out.mkdir(parents=True)
    settings = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    manifest = args.manifest or Path(settings["data"]["manifest"])
    table, rows = subset(manifest, args.speakers, args.out)
    store = str(args.out / "store")
    flags = ["--data.manifest", str(table), "--data.folds", str(args.speakers), "--data.dev_speakers", "1"]
    flags += ["--trainer.max_epochs", str(args.epochs), "--early_stopping.patience", str(args.epochs)]
    flags += ["--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false"]
    flags += ["--model.config.audio_standardize", "false", "--model.config.audio_window_seconds", "6"]
    flags += ["--model.feature_dtype", "float32", *extra]
    without, running = timed("no-store", args.out, [*flags, "--model.feature_store", "null"])
    with_store, histories = {}, {}
    for fusion in FUSIONS:
        chosen = [*flags, "--model.feature_store", store, "--model.fusion", fusion]
        with_store[fusion], histories[fusion] = timed(fusion, args.out, chosen)
    summary = {
        "rows": rows,
        "speakers": args.speakers,
        "epochs": args.epochs,
        "threads": torch.get_num_threads(),
        "one_run_without_store": without._asdict(),
        "runs_with_store": {name: cost._asdict() for name, cost in with_store.items()},
        "ratio": {
            name: sum(getattr(cost, name) for cost in with_store.values()) / getattr(without, name)
            for name in Cost._fields
        },
        "greatest_relative_difference_of_losses": farthest(histories["cross_attention"], running),
        "encoders": FeatureStore(store).makers(),
        "runs": FeatureStore(store).runs(last=2 * len(FUSIONS)),
    }
    (args.out / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
