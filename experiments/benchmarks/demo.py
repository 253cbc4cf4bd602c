"""The demo over several seeds: what `mmsr demo` reaches, against what its generator allows.

    python experiments/benchmarks/demo.py --seeds 0 1 2

Runs `mmsr demo --seed S --out runs/demo-seedS` for each seed (corpus, weights and order all follow the seed;
finished runs are used again), forces every other label on every test row, and writes runs/demo-summary.json
with the mean and the 95 % t-interval over seeds of each figure.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy import stats

from mmsr.cli import demo
from mmsr.data.demo import ceilings
from mmsr.data.manifest import load_manifest
from mmsr.inference import load_pipeline, predictor


def forced_changes(folder: Path) -> float:
    """Share of (test row, other label) pairs in which forcing the label changes the rationale."""
    rows = load_manifest(folder / "corpus" / "manifest.csv", split="test").to_list()
    pipe = load_pipeline(folder / "model")
    written = {}
    for label in pipe.model.config.labels:
        answers = predictor(pipe, forced_label=label)(rows)
        written[label] = [(answer["label"], answer["rationale"]) for answer in answers]
    labels = pipe.model.config.labels
    changed = [
        written[label][i][1] != written[written[label][i][0]][i][1]
        for i in range(len(rows))
        for label in labels
        if label != written[label][i][0]
    ]
    return float(np.mean(changed))


def figures(folder: Path) -> dict[str, float]:
    """The figures of one finished run."""
    test = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["test"]
    found = {
        f"{condition}.{name}": test[condition][name]
        for condition in ("audio+text", "text", "audio", "shuffled_audio", "asr", "audio+asr")
        for name in ("macro_f1", "rougeL")
    }
    for kind, entry in test["audio+text"]["by_kind"].items():
        found[f"audio+text.{kind}.accuracy"] = entry["accuracy"]
    for language, entry in test["audio+text"]["by_language"].items():
        found[f"audio+text.{language}.macro_f1"] = entry["macro_f1"]
    found["constant_rationale.rougeL"] = test["baselines"]["constant_rationale"]["rougeL"]
    found["tfidf.macro_f1"] = test["baselines"]["tfidf"]["macro_f1"]
    found["majority.macro_f1"] = test["baselines"]["majority"]["macro_f1"]
    found["forced_label_changes_rationale"] = forced_changes(folder)
    return found


def main() -> None:
    """Run the seeds and sum up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    runs = []
    for seed in args.seeds:
        folder = Path(f"runs/demo-seed{seed}")
        if not (folder / "metrics.json").exists():
            demo(out=str(folder), seed=seed)
        runs.append(figures(folder))
    summary: dict[str, object] = {"seeds": args.seeds, "ceilings": ceilings()}
    for name in runs[0]:
        values = np.array([run[name] for run in runs])
        half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else float("nan")
        mean = values.mean()
        summary[name] = {"mean": mean, "interval": [mean - half, mean + half], "values": values.tolist()}
        print(f"{name:45s} {mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]  {values.round(3)}")
    Path("runs/demo-summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
