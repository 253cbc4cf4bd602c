"""Do conformal label sets hold the true label as often as asked? On rows like the calibration's, and others.

    python experiments/benchmarks/conformal.py --models runs/*/seed*/model --out runs/conformal

Speaks a large demo corpus with a seed of its own, so that its sentences are drawn anew, and lets each model
(one seed each) answer it, labels alone. The rows of the training voices are dealt out at random into
calibration and test rows, which are therefore exchangeable; the rows of the voices that no model has heard
are the shifted test. Writes OUT/summary.json and prints a table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmsr.data.demo import make_demo
from mmsr.data.manifest import load_manifest
from mmsr.evaluation.calibration import METHODS, conformal_metrics
from mmsr.evaluation.run import predict_rows
from mmsr.inference import load_pipeline, predictor


def answered(model: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Predictions of a model, labels alone."""
    said = predict_rows(predictor(load_pipeline(model), batch_size=32, rationale=False), rows)
    print(f"{model}: {len(said):,} rows answered", flush=True)
    return said


def main() -> None:
    """Make the corpus, answer it, print and write down coverage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--utterances", type=int, default=9600)
    parser.add_argument("--seed", type=int, default=1000, help="of the corpus")
    parser.add_argument("--coverage", type=float, default=0.9)
    parser.add_argument("--out", type=Path, default=Path("runs/conformal"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    manifest = make_demo(args.out / "corpus", utterances=args.utterances, seed=args.seed)
    table = load_manifest(manifest).to_list()
    alike, shifted = ([row for row in table if row["split"] == split] for split in ("train", "test"))
    summary = []
    for seed, model in enumerate(args.models):
        said = answered(model, alike + shifted)
        labels = list(said[0]["scores"])
        order = np.random.default_rng(seed).permutation(len(alike))
        half = len(alike) // 2
        known = [said[row] for row in order[:half]]
        tested = {
            "same voices": [said[row] for row in order[half:]],
            "unheard voices": said[len(alike) :],
        }
        for name, rows in tested.items():
            found = conformal_metrics(known, rows, labels, coverage=args.coverage)
            summary.append({"model": str(model), "seed": seed, "rows": name, **found})
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    print(
        "| model | rows | n (calibration) | "
        + " | ".join(f"{m}: coverage, size, empty" for m in METHODS)
        + " |"
    )
    print("|---" * (3 + len(METHODS)) + "|")
    for one in summary:
        cells = [
            f"{one[m]['coverage']:.3f}, {one[m]['mean_size']:.2f}, {one[m]['empty']:.3f}" for m in METHODS
        ]
        model = Path(one["model"]).parent.name
        print(
            f"| {model} | {one['rows']} | {one['n']:,} ({one['n_calibration']:,}) | "
            + " | ".join(cells)
            + " |"
        )


if __name__ == "__main__":
    main()
