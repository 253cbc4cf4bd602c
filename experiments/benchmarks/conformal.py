"""Do conformal label sets hold the true label as often as asked? On rows like the calibration's, and others.

    python experiments/benchmarks/conformal.py --seeds 0 1 2 3 4

Trains the demo's model without rationales once a seed (`--model.rationale_format none`, the encoders at 3e-4
as in the ablations, the corpus of `mmsr demo --seed 0`), and speaks a large corpus with a seed of its own.
The rows of the training voices are dealt out at random into calibration and test rows, which are therefore
exchangeable, whatever the model learned (of their sentences it has read some: the share is printed). Two
shifts are tried at the same threshold: voices and sentences that no model has met, and these in pink noise
as loud as they are. What is there already is used again. Writes OUT/summary.json and prints the table
of experiments/README.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmsr.data.corpora.demo.corpus import make_demo
from mmsr.data.manifest.manifest import fingerprint, load_manifest, utterances
from mmsr.evaluation.calibration import METHODS, conformal_metrics
from mmsr.evaluation.compare import read_predictions
from mmsr.evaluation.robustness.confusions import Confusions
from mmsr.evaluation.robustness.curves import Point
from mmsr.evaluation.robustness.perturbations import Material, perturbations
from mmsr.evaluation.run import predict_rows, prediction_lines
from mmsr.files import write_file
from mmsr.inference.loading import load_pipeline, predictor
from mmsr.records import Prediction, Utterance
from mmsr.training.run import fit

CONFIG = Path(__file__).parents[1] / "demo.yaml"
SNR_DB = "0"


def trained(seed: int, manifest: Path, out: Path) -> Path:
    """The label-only model of a seed."""
    folder = out / f"seed{seed}"
    if not (folder / "model").exists():
        fit(
            ["-c", str(CONFIG), "--data.manifest", str(manifest), "--seed_everything", str(seed)]
            + ["--model.rationale_format", "none", "--model.config", "null"]
            + ["--model.encoder_learning_rate", "3.0e-4", "--trainer.default_root_dir", str(folder)]
        )
    return folder / "model"


def answered(model: Path, rows: Sequence[Utterance], noise: Point, kept: Path) -> list[Prediction]:
    """Predictions of a model, labels alone: of the rows, and of the test voices' in noise."""
    if not (kept.exists() and kept.stat().st_mtime >= model.stat().st_mtime):
        predict = predictor(load_pipeline(model), batch_size=32, rationale=False)
        told = zip(predict_rows(predict, rows), rows, strict=True)
        said = [replace(prediction, more={"rows": row.split}) for prediction, row in told]
        changed = map(noise.change, [row for row in rows if row.split == "test"])
        noisy = [row for row in changed if row is not None]
        said += [replace(row, more={"rows": "noise"}) for row in predict_rows(predict, noisy)]
        write_file(kept, prediction_lines(said).encode())
        print(f"{model}: {len(said):,} rows answered", flush=True)
    return read_predictions(kept)


def main() -> None:
    """Make the corpus, train and ask the models, print and write down coverage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--utterances", type=int, default=9600)
    parser.add_argument("--corpus_seed", type=int, default=1000)
    parser.add_argument("--coverage", type=float, default=0.9)
    parser.add_argument("--out", type=Path, default=Path("runs/conformal"))
    args = parser.parse_args()
    torch.set_num_threads(1)  # as `mmsr demo` does
    learned = make_demo(Path("runs/demo-seed0/corpus"))
    table = load_manifest(make_demo(args.out / "corpus", utterances=args.utterances, seed=args.corpus_seed))
    rows = [row for row in utterances(table) if row.split != "dev"]
    unheard = [row for row in rows if row.split == "test"]
    spoken = Confusions.of_vocabulary([str(row.text) for row in unheard], [row.language for row in unheard])
    (curve,) = perturbations(Material(unheard, spoken), kinds=["noise"], severities={"noise": [SNR_DB]})
    (noise,) = curve.points
    summary: list[dict[str, Any]] = []
    for seed in args.seeds:
        model = trained(seed, learned, args.out)
        said = answered(model, rows, noise, args.out / f"seed{seed}" / "answers.jsonl")
        labels = list(said[0].scores)
        alike = [row for row in said if row.more["rows"] == "train"]
        order = np.random.default_rng(seed).permutation(len(alike))
        half = len(alike) // 2
        known = [alike[row] for row in order[:half]]
        tested = {
            "same voices": [alike[row] for row in order[half:]],
            "new voices, sentences": [row for row in said if row.more["rows"] == "test"],
            f"the same in noise, {SNR_DB} dB": [row for row in said if row.more["rows"] == "noise"],
        }
        for name, some in tested.items():
            found = conformal_metrics(known, some, labels, coverage=args.coverage)
            summary.append({"seed": seed, "rows": name, **found})
    document = {"data_fingerprint": fingerprint(table), "sets": summary}
    (args.out / "summary.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    methods = " | ".join(f"{method.upper()}: coverage, labels a set, empty" for method in METHODS)
    read = set(load_manifest(learned, split="train")["text"])
    share = np.mean([row.text in read for row in rows if row.split == "train"])
    print(f"data fingerprint {document['data_fingerprint']}; {share:.0%} of the same voices' rows")
    print("have a sentence that the models learned from\n")
    print(f"| rows | seed | n | calibration rows | {methods} |\n{'|---' * (4 + len(METHODS))}|")
    for one in sorted(summary, key=lambda one: list(tested).index(one["rows"])):
        cells = [
            f"{one[m]['coverage']:.3f}, {one[m]['mean_size']:.2f}, {100 * one[m]['empty']:.1f} %"
            for m in METHODS
        ]
        print(
            "|",
            " | ".join([one["rows"], str(one["seed"]), f"{one['n']:,}", f"{one['n_calibration']:,}", *cells]),
            "|",
        )


if __name__ == "__main__":
    main()
