"""Do rationales follow voice and words, and would the measures notice if not? Against permuted rationales.

    python experiments/benchmarks/grounding.py --seeds 0 1 2

Three models a seed, which differ in one setting: the demo's own (`runs/demo-seedS`, as of demo.py), one whose
training rows each have another row's rationale (`--data.rationales permuted`), and one whose rows have that
of another row with the same label (`permuted_within_label`), whose labels can be learned as well as the
demo's, but not what its rationales name. `mmsr faithfulness` examines each on all test rows, whose voices and
sentences none has met, each spoken again in another manner and by another voice; the generator's own label
and rationale for that are the reference. What is there already is used again. Writes OUT/summary.json, and
prints the tables of experiments/README.md: means over the seeds with 95 % t-intervals; of a single seed, its
intervals over speakers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from demo import demo_run, over_seeds

from mmsr.evaluation.report.names import MISSING, number
from mmsr.files import write_file
from mmsr.training.run import fit
from mmsr.workflows.faithfulness import examine_faithfulness
from mmsr.workflows.settings import Rows

CONFIG = Path(__file__).parents[1] / "demo.yaml"
ROWS = 400  # of fewer the table says how many
MODELS = ("demo", "permuted", "permuted_within_label")
TABLE = {
    "": {"dev_macro_f1": "label, development split: macro-F1"},
    "spoken again in another manner": {
        "respoken/manner/label_right": "label right",
        "respoken/manner/manner_named": "rationale names the new manner",
        "respoken/manner/words_named": "rationale names the right words",
    },
    "same manner, another unheard voice": {
        "respoken/voice/label_stays": "label stays",
        "respoken/voice/evidence_stays": "named evidence stays",
        "respoken/voice/manner_named": "names the right manner",
    },
    "input taken away": {
        "follow/silenced/rationale_changes": "voice silenced: rationale changes",
        "follow/named_words_dropped/words_unnamed": "named words dropped: not named any more",
        "follow/named_words_dropped/rationale_changes": "named words dropped: rationale changes",
        "follow/other_words_dropped/rationale_changes": "as many random words dropped: rationale changes",
    },
    "another label forced": {
        "counterfactuals/rationale_changes": "rationale changes",
        "counterfactuals/label_read": "the forced label is read off it",
    },
    "what a judge reads": {
        "agreement/agreement": "label read off the rationale is the predicted one",
        "simulatability/effect": "gain by the rationale, over the transcript alone",
        "simulatability/las": "... adjusted for leakage (LAS)",
        "matching/own": "own rationale fits the transcript better than others of its label",
        "matching/permuted": "... rationales exchanged within their label",
    },
}
ERASURE = {
    f"erasure/{way}/{modality}/comprehensiveness/difference": f"{way} over {what}"
    for way in ("attention", "gradients")
    for modality, what in (("text", "words"), ("audio", "frames of the audio"))
}


def examined(name: str, seed: int, out: Path, erased: int) -> dict[str, Any]:
    """The content of faithfulness.json of one model, which is trained and examined where it has not been."""
    demo_folder = demo_run(seed)
    manifest, folder = demo_folder / "corpus" / "manifest.csv", demo_folder
    if name != "demo":
        folder = out / f"{name}-seed{seed}"
        if not (folder / "model").exists():
            fit(
                ["-c", str(CONFIG), "--data.manifest", str(manifest), "--data.rationales", name]
                + ["--trainer.default_root_dir", str(folder), "--seed_everything", str(seed)]
            )
    found = out / f"{name}-seed{seed}-erased{erased}"
    if not (found / "faithfulness.json").exists():
        respoken = out / f"respoken-seed{seed}"
        examine_faithfulness(
            folder / "model", Rows(manifest), found, respoken=respoken, erased=erased, pictures=0
        )
    document: dict[str, Any] = json.loads((found / "faithfulness.json").read_text(encoding="utf-8"))
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    best = min(history, key=lambda epoch: epoch["dev_loss"])
    return {**document, "dev_macro_f1": {"value": best["dev_macro_f1"]}}


def figure(document: dict[str, Any], path: str) -> dict[str, Any] | None:
    """The figure at a path of keys; None where it could not be measured."""
    found: Any = document
    for key in path.split("/"):
        found = found.get(key, {})
    return found if "value" in found else None


def cell(found: Sequence[dict[str, Any] | None]) -> tuple[str, dict[str, Any]]:
    """Of one figure in all seeds: what the table says, and what the summary keeps."""
    there = [one for one in found if one is not None]
    rows = [one["n"] for one in there if one.get("n", ROWS) < ROWS]
    few = f" ({' / '.join(map(str, rows))} rows)" if rows else ""
    if len(there) < len(found):
        what = f"{MISSING} ({len(there)} of {len(found)} seeds)" if there else MISSING
        return what, {"values": [one and one["value"] for one in found]}
    if len(there) == 1:
        return number(there[0]["value"], there[0].get("interval")) + few, there[0]
    kept = over_seeds([{"it": one["value"]} for one in there])["it"]
    if len(set(kept["values"])) == 1:  # such as 1 in all seeds, which does not make it certain
        return f"{kept['mean']:.3f} in all seeds{few}", kept
    low, high = kept["interval"]
    return number(kept["mean"], (max(low, -1.0), min(high, 1.0))) + few, kept  # they are shares


def main() -> None:
    """Train and examine what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--erased", type=int, default=48, help="rows of which marked parts are erased")
    parser.add_argument("--out", type=Path, default=Path("runs/grounding"))
    args = parser.parse_args()
    torch.set_num_threads(1)  # as `mmsr demo` does
    documents = {
        name: [examined(name, seed, args.out, args.erased) for seed in args.seeds] for name in args.models
    }
    summary: dict[str, Any] = {"seeds": args.seeds, "models": {name: {} for name in args.models}}

    def row(path: str, what: str, names: Sequence[str]) -> None:
        cells = {name: cell([figure(one, path) for one in documents[name]]) for name in names}
        for name, (_, kept) in cells.items():
            summary["models"][name][path] = kept
        print("|", " | ".join([what, *(text for text, _ in cells.values())]), "|")

    print(f"| measure | {' | '.join(args.models)} |\n{'|---' * (1 + len(args.models))}|")
    for group, lines in TABLE.items():
        for path, what in lines.items():
            row(path, f"{group}: {what}" if group else what, args.models)
    print(f"\n| lost by erasing what is marked, less what is drawn | {args.models[0]} |\n|---|---|")
    for path, what in ERASURE.items():
        row(path, what, args.models[:1])
    for name, found in documents.items():
        for seed, document in zip(args.seeds, found, strict=True):
            for measure, why in document["left_out"].items():
                print(f"\n{name}, seed {seed}: {measure} left out ({why})")
    write_file(args.out / "summary.json", json.dumps(summary, indent=1).encode())


if __name__ == "__main__":
    main()
