"""All fusions on the demo corpus: what each reaches, what it costs.

    python experiments/benchmarks/fusions.py --seeds 0 1 2 --jobs 2

Trains `experiments/fusions.yaml` for every fusion and seed (one corpus; the seed is of weights and order;
finished runs are found again), picks each run's epoch on the development split, answers the test rows, and
writes runs/fusions/summary.json and the table of experiments/README.md to runs/fusions/table.md.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score

from mmsr.data.demo import make_demo
from mmsr.data.manifest import load_manifest
from mmsr.inference import load_pipeline, predictor
from mmsr.model.configuration import FUSIONS
from mmsr.training.run import fit

CONFIG = Path(__file__).parents[1] / "fusions.yaml"
KINDS = ("words", "voice", "conflict")


def run(fusion: str, seed: int, out: Path, extra: list[str]) -> dict[str, object]:
    """One run: its test predictions, its cost."""
    torch.set_num_threads(1)
    folder, manifest = out / f"{fusion}-seed{seed}", out / "corpus" / "manifest.csv"
    summary = folder / "result.json"
    if summary.exists():
        return json.loads(summary.read_text(encoding="utf-8"))
    start = time.perf_counter()
    fit(
        ["-c", str(CONFIG), "--seed_everything", str(seed), "--model.fusion", fusion]
        + ["--data.manifest", str(manifest), "--trainer.default_root_dir", str(folder)]
        + ["--trainer.enable_progress_bar", "false", *extra]
    )
    seconds = time.perf_counter() - start
    pipe = load_pipeline(folder / "model")
    rows = load_manifest(manifest, split="test").to_list()
    answers = predictor(pipe)(rows)
    epochs = len(json.loads((folder / "history.json").read_text(encoding="utf-8")))
    result: dict[str, object] = {
        "fusion": fusion,
        "seed": seed,
        "predicted": [answer["label"] for answer in answers],
        "parameters": pipe.model.num_parameters(),
        "fusion_parameters": sum(weight.numel() for weight in pipe.model.encoder.fusion.parameters()),
        "seconds_an_epoch": seconds / epochs,
    }
    summary.write_text(json.dumps(result), encoding="utf-8")
    return result


def table(results: list[dict], rows: list[dict]) -> str:
    """One row per fusion: macro-F1 (mean and 95 % t-interval over seeds), accuracy by kind, cost."""
    gold = np.array([row["label"] for row in rows])
    kinds = np.array([row["kind"] for row in rows])
    lines = [
        "| fusion | macro-F1 | words decide | voice decides | conflict | parameters (fusion) | s an epoch |",
        "|---|---|---|---|---|---|---|",
    ]
    scored = []
    for fusion in FUSIONS:
        runs = [result for result in results if result["fusion"] == fusion]
        predicted = [np.array(result["predicted"]) for result in runs]
        f1 = np.array([f1_score(gold, one, average="macro") for one in predicted])
        half = stats.t.ppf(0.975, len(f1) - 1) * stats.sem(f1) if len(f1) > 1 else float("nan")
        by_kind = [
            np.mean([accuracy_score(gold[kinds == kind], one[kinds == kind]) for one in predicted])
            for kind in KINDS
        ]
        seconds = np.mean([result["seconds_an_epoch"] for result in runs])
        cells = [f"{value:.2f}" for value in by_kind]
        size = f"{runs[0]['parameters'] / 1e6:.2f} M ({runs[0]['fusion_parameters'] / 1e3:.0f} k)"
        line = f"| `{fusion}` | {f1.mean():.3f} ± {half:.3f} | {' | '.join(cells)} | {size} | {seconds:.0f} |"
        scored.append((f1.mean(), line))
    return "\n".join([*lines, *(line for _, line in sorted(scored, reverse=True))]) + "\n"


def main() -> None:
    """Run them all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fusions", nargs="+", default=list(FUSIONS), choices=FUSIONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="Runs at a time, one thread each.")
    parser.add_argument("--out", type=Path, default=Path("runs/fusions"))
    args, extra = parser.parse_known_args()
    make_demo(args.out / "corpus", utterances=2400, seed=0)
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        asked = [(fusion, seed) for seed, fusion in product(args.seeds, args.fusions)]
        futures = [pool.submit(run, fusion, seed, args.out, extra) for fusion, seed in asked]
        results = [future.result() for future in futures]
    rows = load_manifest(args.out / "corpus" / "manifest.csv", split="test").to_list()
    (args.out / "summary.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    text = table(results, rows)
    (args.out / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
