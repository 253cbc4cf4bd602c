"""Is a rationale better than the constant one of its label, and does it belong to its row?

    python experiments/benchmarks/rationales.py runs/official/vi/manifest.csv runs/official/en/manifest.csv \
      --encoder ../shared/models/multilingual-e5-small-30k

Five contiguous blocks of the training rows are held out in turn, a manifest (one language) at a time. Labels
are predicted by logistic regression on the mean states of a frozen encoder, fitted to the other blocks; all
rationales explain these labels, and are training rationales of the label:

- `constant`: the most frequent one; `constant, most like all`: the one most like all of the label.
- `nearest`: of the row with the nearest transcript, by TF-IDF or by the encoder.
- `consensus of k`: of the k nearest, the one most like all of them (minimum Bayes risk by ROUGE-L); with k
  chosen, for each held-out block, by the other four.
- `best`: the one nearest to the row's own rationale, which nobody knows: what a memory can reach at most.

Intervals are over runs of 57 neighbouring rows, which come from one recording; ROUGE-L is over Unicode words.
The second table is of `mmsr.evaluation.matching`: whether a rationale fits its own transcript better than
those of other rows of the block with the same label. Writes OUT/LANGUAGE.json.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmsr.data.manifest.manifest import load_manifest, utterances
from mmsr.evaluation.baselines import constant_rationales
from mmsr.evaluation.entries import mean_with_interval
from mmsr.evaluation.matching import matches
from mmsr.evaluation.report.names import number
from mmsr.evaluation.significance import paired_bootstrap
from mmsr.evaluation.similarity import NEIGHBOURS, Encode, Neighbours, consensus, rouge_l, tfidf_encoder
from mmsr.files import write_file
from mmsr.inference.language_models.examples import TextEncoder
from mmsr.records import Prediction, Utterance

BLOCKS, NEIGHBOURING = 5, 57
NUMBERS = (8, 16, 32, 64, 128)  # of neighbours


def rationales(
    train: Sequence[Utterance], asked: Sequence[int], rows: Sequence[Utterance], encoders: Any
) -> Any:
    """Rationales of each system for the rows `asked`, which are of one predicted label as `train` is."""
    known = [str(row.rationale) for row in train]
    counted = Counter(known)
    different, counts = sorted(counted), np.array([counted[text] for text in sorted(counted)])
    like_all = different[int((rouge_l(different, different) @ counts).argmax())]
    alike = rouge_l([str(rows[place].rationale) for place in asked], different)
    found = {
        "constant, most like all": [like_all] * len(asked),
        "best": [different[place] for place in alike.argmax(1)],
    }
    for name, encode in encoders.items():
        encode = encode or tfidf_encoder([str(row.text) for row in train])
        ranks = Neighbours([str(row.text) for row in train], encode).ranked(
            [str(rows[i].text) for i in asked]
        )
        near = [[known[place] for place in order[: max(NUMBERS)]] for order in ranks]
        found[f"nearest by {name}"] = [texts[0] for texts in near]
        for k in NUMBERS:
            found[f"consensus of {k} by {name}"] = [texts[consensus(texts[:k])] for texts in near]
    return found


def measured(rows: Sequence[Utterance], states: np.ndarray, encode: Encode) -> dict[str, Any]:
    """The figures of one language."""
    block = np.arange(len(rows)) * BLOCKS // len(rows)
    labels = np.array([row.label for row in rows])
    told: dict[str, dict[int, str]] = {}
    predicted = np.empty(len(rows), dtype=object)
    for held_out in range(BLOCKS):
        train, test = (np.flatnonzero(part).tolist() for part in (block != held_out, block == held_out))
        classifier = make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced")
        )
        predicted[test] = classifier.fit(states[train], labels[train]).predict(states[test])
        answers = [Prediction.of(rows[place], predicted_label=predicted[place]) for place in test]
        for place, row in zip(test, constant_rationales([rows[i] for i in train], answers), strict=True):
            told.setdefault("constant", {})[place] = str(row.predicted_rationale)
        for label in sorted(set(labels)):
            asked = [place for place in test if predicted[place] == label]
            explained = [rows[place] for place in train if labels[place] == label]
            encoders: dict[str, Encode | None] = {"TF-IDF": None, "encoder": encode}
            for name, texts in rationales(explained, asked, rows, encoders).items():
                told.setdefault(name, {}).update(zip(asked, texts, strict=True))
    gold = [str(row.rationale) for row in rows]
    scores = {
        name: np.array([rouge_l([gold[i]], [texts[i]])[0, 0] for i in range(len(rows))])
        for name, texts in told.items()
    }
    for name in ("TF-IDF", "encoder"):
        chosen, at = f"consensus of a chosen number by {name}", range(len(rows))
        best = [
            max(NUMBERS, key=lambda k: scores[f"consensus of {k} by {name}"][block != held_out].mean())
            for held_out in range(BLOCKS)
        ]
        told[chosen] = {i: told[f"consensus of {best[block[i]]} by {name}"][i] for i in at}
        scores[chosen] = np.array([scores[f"consensus of {best[block[i]]} by {name}"][i] for i in at])
    found: dict[str, Any] = {"n": len(rows), "accuracy": float((predicted == labels).mean()), "rougeL": {}}
    for name, values in scores.items():
        difference = paired_bootstrap(
            None,
            values,
            scores["constant"],
            clusters=np.arange(len(rows)) // NEIGHBOURING,
            metric="mean",
        )
        apart = values - scores["constant"]
        found["rougeL"][name] = {
            "value": float(values.mean()),
            "difference": difference.difference,
            "interval": difference.interval,
            "blocks": [float(apart[block == one].mean()) for one in range(BLOCKS)],
        }
    found["matching"] = matched(rows, block, labels, predicted, told)
    return found


def matched(
    rows: Sequence[Utterance],
    block: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    told: dict[str, dict[int, str]],
) -> dict[str, Any]:
    """Whether the rationales of people, of people exchanged within a label, and of systems match."""
    generator = np.random.default_rng(0)
    systems = {"people": {i: str(row.rationale) for i, row in enumerate(rows)}}
    systems["people, exchanged within the label"] = {}
    for one in range(BLOCKS):
        for label in sorted(set(labels)):
            group = np.flatnonzero((block == one) & (labels == label))
            drawn = generator.permutation(group)
            systems["people, exchanged within the label"] |= {
                int(i): systems["people"][int(j)] for i, j in zip(group, drawn, strict=True)
            }
    names = ("constant", "nearest by TF-IDF", f"consensus of {NEIGHBOURS} by TF-IDF")
    systems |= {name: told[name] for name in (*names, f"consensus of {NEIGHBOURS} by encoder")}
    found = {}
    for name, texts in systems.items():
        explained = labels if name.startswith("people") else predicted
        own: list[float] = []
        kept: list[Utterance] = []
        for one in range(BLOCKS):
            held_out = np.flatnonzero(block == one).tolist()
            pairs = matches(
                [rows[i].text for i in held_out],
                [texts[i] for i in held_out],
                explained[held_out].tolist(),
                [rows[i].language for i in held_out],
            )
            own += [match.own for match in pairs.values()]
            kept += [rows[held_out[place]] for place in pairs]
        found[name] = mean_with_interval(own, kept)
    return found


def main() -> None:
    """Measure each manifest, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifests", type=Path, nargs="+", help="one a language")
    parser.add_argument("--encoder", required=True, help="folder or Hub id of a text encoder")
    parser.add_argument("--prefix", default="query: ")
    parser.add_argument("--out", type=Path, default=Path("runs/rationales"))
    args = parser.parse_args()
    encoder = TextEncoder(args.encoder, prefix=args.prefix)
    for manifest in args.manifests:
        rows = utterances(load_manifest(manifest))
        texts = [str(row.text) for row in rows]
        kept = args.out / f"{rows[0].language}.npy"  # the states of a manifest, which take minutes
        kept.parent.mkdir(parents=True, exist_ok=True)
        if not kept.is_file():
            np.save(kept, encoder(texts).numpy())
        states = np.load(kept)
        place = {text: i for i, text in enumerate(texts)}
        found = measured(rows, states, lambda asked: states[[place[text] for text in asked]])  # noqa: B023
        write_file(args.out / f"{rows[0].language}.json", json.dumps(found, indent=1).encode())
        print(f"\n{rows[0].language}: {found['n']:,} rows, accuracy of the labels {found['accuracy']:.3f}\n")
        print("| rationale | ROUGE-L (Unicode) | difference from constant | by block |\n|---|---|---|---|")
        for name, of in sorted(found["rougeL"].items(), key=lambda item: item[1]["value"]):
            blocks = " / ".join(f"{value:+.3f}" for value in of["blocks"])
            apart = number(of["difference"], of["interval"], signed=True)
            print(f"| {name} | {of['value']:.3f} | {apart} | {blocks} |")
        print("\n| rationale | fits its own transcript better [95 % over rows] |\n|---|---|")
        for name, of in found["matching"].items():
            print(f"| {name} | {number(of['value'], of['interval'])} |")


if __name__ == "__main__":
    main()
