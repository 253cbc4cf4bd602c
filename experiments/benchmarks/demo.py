"""The demo over several seeds: what `mmsr demo` reaches, against what its generator allows.

    python experiments/benchmarks/demo.py --seeds 0 1 2 --plot experiments/results/demo-modalities.png

Runs `mmsr demo --seed S --out runs/demo-seedS` for each seed (corpus, weights and order all follow the seed;
finished runs are used again), forces every other label on every test row, and writes runs/demo-summary.json
with the mean and the 95 % t-interval over seeds of each figure, and the seeds' data fingerprints. Prints the
table of experiments/README.md; `--plot` draws the picture of the README from the same figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from mmsr.cli.experiments import demo
from mmsr.data.corpora.demo.corpus import ceilings
from mmsr.data.manifest.manifest import load_manifest, utterances
from mmsr.evaluation.metrics import METRICS
from mmsr.evaluation.report.names import NAMES
from mmsr.evaluation.report.pictures import draw_modalities, rendered
from mmsr.inference.loading import load_pipeline, predictor


def demo_run(seed: int) -> Path:
    """The folder of `mmsr demo` with this seed, which is run where it has not been."""
    folder = Path(f"runs/demo-seed{seed}")
    if not (folder / "metrics.json").exists():
        demo(out=str(folder), seed=seed)
    return folder


def forced_changes(folder: Path) -> float:
    """Share of (test row, other label) pairs in which forcing the label changes the rationale."""
    rows = utterances(load_manifest(folder / "corpus" / "manifest.csv", split="test"))
    pipe = load_pipeline(folder / "model")
    written = {}
    for label in pipe.model.config.labels:
        answers = predictor(pipe, forced_label=label)([row.model_input() for row in rows])
        written[label] = [(answer.label, answer.rationale) for answer in answers]
    labels = pipe.model.config.labels
    changed = [
        written[label][i][1] != written[written[label][i][0]][i][1]
        for i in range(len(rows))
        for label in labels
        if label != written[label][i][0]
    ]
    return float(np.mean(changed))


CONDITIONS = ("audio+text", "text", "audio", "shuffled_audio", "asr", "audio+asr")
BASELINES = {
    "majority": ("accuracy", "macro_f1"),
    "tfidf": ("accuracy", "macro_f1"),
    "constant_rationale": ("rougeL", "rougeL_ascii", "rationale_exact"),
}
COLUMNS = ("accuracy", "macro_f1", "rougeL", "rougeL_ascii", "rationale_exact")


def figures(folder: Path) -> dict[str, float]:
    """The figures of one finished run, under dotted names."""
    test = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["test"]
    found = {f"{condition}.{name}": test[condition][name] for condition in CONDITIONS for name in COLUMNS}
    for kind, entry in test["audio+text"]["by_kind"].items():
        found[f"audio+text.{kind}.accuracy"] = entry["accuracy"]
    for language, entry in test["audio+text"]["by_language"].items():
        found[f"audio+text.{language}.macro_f1"] = entry["macro_f1"]
    for baseline, names in BASELINES.items():
        found |= {f"{baseline}.{name}": test["baselines"][baseline][name] for name in names}
    found["forced_label_changes_rationale"] = forced_changes(folder)
    return found


def over_seeds(runs: Sequence[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Mean, 95 % t-interval and values of each figure."""
    summary = {}
    for name in runs[0]:
        values = np.array([run[name] for run in runs])
        half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else float("nan")
        mean = float(values.mean())
        summary[name] = {"mean": mean, "interval": [mean - half, mean + half], "values": values.tolist()}
    return summary


def table(summary: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row for each condition and baseline, mean ± half of the interval."""
    lines = [f"| test split | {' | '.join(METRICS[name].title for name in COLUMNS)} |", "|---" * 6 + "|"]
    for row in (*CONDITIONS, *BASELINES):
        cells = []
        for name in COLUMNS:
            entry = summary.get(f"{row}.{name}")
            cells.append(f"{entry['mean']:.3f} ± {entry['interval'][1] - entry['mean']:.3f}" if entry else "")
        called = f"*{NAMES[row]}*" if row in BASELINES else NAMES[row]
        lines.append(f"| {called} | {' | '.join(cells)} |")
    return "\n".join(lines)


def as_conditions(summary: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The summary as metrics.json has a single run, for the reports' own picture."""

    def entry(row: str) -> dict[str, Any]:
        own = {name: summary[f"{row}.{name}"] for name in COLUMNS if f"{row}.{name}" in summary}
        intervals = {name: one["interval"] for name, one in own.items()}
        return {**{name: one["mean"] for name, one in own.items()}, "interval": intervals}

    found: dict[str, Any] = {condition: entry(condition) for condition in CONDITIONS}
    return {**found, "baselines": {baseline: entry(baseline) for baseline in BASELINES}}


def main() -> None:
    """Run the seeds and sum up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--plot", type=Path, help="PNG to draw")
    args = parser.parse_args()
    runs, prints = [], []
    for seed in args.seeds:
        folder = demo_run(seed)
        runs.append(figures(folder))
        prints.append(json.loads((folder / "metrics.json").read_text("utf-8"))["data_fingerprint"])
    summary = over_seeds(runs)
    for name, entry in summary.items():
        low, high = entry["interval"]
        print(f"{name:45s} {entry['mean']:.3f} [{low:.3f}, {high:.3f}]  {np.round(entry['values'], 3)}")
    print(f"\n{table(summary)}\n\ndata fingerprints: {', '.join(prints)}")
    whole = {"seeds": args.seeds, "data_fingerprints": prints, "ceilings": ceilings(), **summary}
    Path("runs/demo-summary.json").write_text(json.dumps(whole, indent=1), encoding="utf-8")
    if args.plot:
        said = f"seeds {args.seeds}; data {', '.join(prints)}; {' '.join(sys.argv)}"
        drawn = rendered(lambda: draw_modalities(as_conditions(summary)), name="demo", description=said)
        args.plot.write_bytes(drawn.png)


if __name__ == "__main__":
    main()
