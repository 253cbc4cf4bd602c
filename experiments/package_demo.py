"""Put a finished demo run's model into the package, as `mmsr.checkpoint("demo")`.

    python experiments/package_demo.py --run runs/demo

Takes the run's model/, metrics.json and corpus/, and writes mmsr/checkpoints/demo: weights in half precision
(they load as float32), processor, a model card, and checkpoint.json with what is known of it. Before that it
compares the halved model with the whole one on every row of the run's test split, and refuses to write a
model that answers more than --tolerance of them with another label. What is written is calibrated on the
corpus' development rows, whatever the run's own temperature is: runs of before `mmsr fit` calibrated have
none.

    python experiments/package_demo.py --run DIR --calibrate-only

takes DIR/corpus alone, and calibrates the checkpoint that is there; its weights stay.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData
from safetensors.torch import load_file, save_file

from mmsr.data.manifest.manifest import fingerprint, load_manifest, utterances
from mmsr.evaluation.calibration import calibration_metrics
from mmsr.evaluation.run import predict_rows
from mmsr.files import atomic_write, write_file
from mmsr.inference.loading import load_pipeline, predictor
from mmsr.model.packaged import FOLDER
from mmsr.workflows.calibration import calibrate_checkpoint
from mmsr.workflows.settings import Rows

CONDITIONS = ("audio+text", "text", "audio", "shuffled_audio", "audio+asr")
FIGURES = ("n", "accuracy", "macro_f1", "rougeL", "interval", "interval_over")
CARD = """---
{metadata}
---

# demo: a small checkpoint to try mmsr with

It came out of `mmsr demo`: it hears an utterance, reads its transcript, or both, says whether the sentiment
is {labels}, and writes down why.

**It learned from synthetic voices: every utterance was made up by a grammar and spoken by
[espeak-ng](https://github.com/espeak-ng/espeak-ng), in {languages}. It is for trying the software. It has not
been measured on human speech, where its answers are not to be believed, and it is not for use on patients or in
any decision about a person.**

## Use

```python
import mmsr
from transformers import pipeline

pipe = pipeline("sentiment-reasoning", model=mmsr.checkpoint("demo"))
pipe({{"audio": "utterance.wav", "text": "what was said"}})
```

On the command line: `mmsr predict utterance.wav --model demo`.

## How it was made

| | |
|---|---|
| parameters | {parameters:,} |
| corpus | `{corpus}`, fingerprint `{fingerprint}`: voices and sentences of the test split are unheard in training |
| trained by | `{trained_by}`, seed {seed} |
| packaged by | `{packaged_by}` |
| stored as | {stored_as}, loaded as float32: on {n} test rows the same label as in float32 in {same_label:.2%}, the same rationale in {same_rationale:.2%} |
| versions | {versions} |

## Figures

On the {n} rows of the test split, of one seed; in brackets the 95 % interval over {interval_over}.

| input | macro-F1 | accuracy | ROUGE-L (Unicode) |
|---|---:|---:|---:|
{rows}

The corpus is made so that neither modality suffices. These figures say that the software learns what was put
into it; they say nothing of how well it does on people. Baselines of the same rows: {baselines}. The transcripts of
`audio+asr` have errors put in at random. All figures of the table were measured before the weights were halved.

Probabilities are calibrated: as packaged, logits are divided by {temperature:.3f}, fitted to the {n_dev} rows of the
development split. What that does to the same {n} test rows, `audio+text`, weights halved:

| temperature | ECE | NLL | Brier score |
|---|---:|---:|---:|
{calibration}

Another corpus wants a temperature of its own: `mmsr calibrate --model demo --manifest M --out DIR`.

## Limits

Synthetic voices, sentences of one grammar, clips of a few seconds, {labels} alone.
Licence: as the software's.
"""  # noqa: E501  # a row of a Markdown table is one line


def halved(model: Path, folder: Path, dtype: torch.dtype) -> None:
    """A copy of a checkpoint with its weights in another precision; its config still says float32."""
    folder.mkdir()
    for file in model.iterdir():
        if file.suffix == ".json":
            (folder / file.name).write_bytes(file.read_bytes())
    weights = {name: tensor.to(dtype) for name, tensor in load_file(model / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def agreement(one: Path, other: Path, manifest: Path) -> dict[str, Any]:
    """How often two checkpoints answer alike on the test split, with audio and transcript."""
    rows = [row.model_input() for row in utterances(load_manifest(manifest, split="test"))]
    first, second = (predictor(load_pipeline(folder))(rows) for folder in (one, other))
    pairs = list(zip(first, second, strict=True))
    return {
        "n": len(pairs),
        "label": sum(a.label == b.label for a, b in pairs) / len(pairs),
        "rationale": sum(a.rationale == b.rationale for a, b in pairs) / len(pairs),
        "largest_difference_of_a_probability": max(
            abs(a.scores[label] - b.scores[label]) for a, b in pairs for label in a.scores
        ),
    }


def calibrated(folder: Path, manifest: Path) -> dict[str, Any]:
    """Fit a checkpoint's temperature to the development rows; what that does to the test rows."""
    table = utterances(load_manifest(manifest))
    calibrate_checkpoint(folder, Rows(manifest))
    pipe = load_pipeline(folder)
    config = pipe.model.config
    rows = [row for row in table if row.split == "test"]
    found: dict[str, Any] = {
        "temperature": config.temperature,
        "n_dev": sum(row.split == "dev" for row in table),
        "n": len(rows),
    }
    for when, temperature in (("before", 1.0), ("after", config.temperature)):
        config.temperature = temperature
        scored = predict_rows(predictor(pipe, rationale=False), rows, chunk=len(rows))
        figures = calibration_metrics(scored, config.labels, temperature=temperature)
        found[when] = {name: figures[name] for name in ("temperature", "ece", "nll", "brier")}
    return found


def describe(folder: Path, facts: dict[str, Any], manifest: Path) -> None:
    """Write checkpoint.json and the model card."""
    write_file(folder / "checkpoint.json", (json.dumps(facts, indent=1) + "\n").encode())
    model = load_pipeline(folder).model
    text = card(
        facts,
        labels=model.config.labels,
        languages=sorted({row["language"] for row in load_manifest(manifest)}),
        parameters=model.num_parameters(),
    )
    ModelCard(text).save(folder / "README.md")


def card(facts: dict[str, Any], *, labels: list[str], languages: list[str], parameters: int) -> str:
    """The model card."""
    test = facts["test"]

    def figure(entry: dict[str, Any], name: str) -> str:
        if name not in entry:
            return "–"
        low, high = entry.get("interval", {}).get(name, (None, None))
        return f"{entry[name]:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")

    names = ("macro_f1", "accuracy", "rougeL")
    rows = [
        f"| {name} | " + " | ".join(figure(test[name], one) for one in names) + " |"
        for name in CONDITIONS
        if name in test
    ]
    baselines = [
        f"{name} macro-F1 {entry['macro_f1']:.3f}"
        for name, entry in facts["baselines"].items()
        if name in ("majority", "tfidf")
    ]
    calibration = facts["calibration"]
    believed = [
        f"| {one['temperature']:.3f} | {one['ece']:.3f} | {one['nll']:.3f} | {one['brier']:.3f} |"
        for one in (calibration["before"], calibration["after"])
    ]
    metadata = ModelCardData(
        library_name="transformers",
        license="apache-2.0",
        language=languages,
        tags=["mmsr", "sentiment-analysis", "multimodal", "audio", "rationale", "synthetic-data"],
    )
    return CARD.format(
        metadata=metadata.to_yaml(),
        labels=", ".join(labels[:-1]) + " or " + labels[-1],
        languages=", ".join(languages),
        parameters=parameters,
        corpus=" ".join(f"{name}={value}" for name, value in facts["corpus"].items()),
        fingerprint=facts["data_fingerprint"],
        trained_by=facts["trained_by"],
        packaged_by=facts["packaged_by"],
        seed=facts["seed"],
        stored_as=facts["stored_as"],
        n=facts["agreement"]["n"],
        same_label=facts["agreement"]["label"],
        same_rationale=facts["agreement"]["rationale"],
        versions=", ".join(f"{name} {value}" for name, value in facts["versions"].items()),
        interval_over=test["audio+text"]["interval_over"],
        rows="\n".join(rows),
        baselines=", ".join(baselines),
        temperature=calibration["temperature"],
        n_dev=calibration["n_dev"],
        calibration="\n".join(believed),
    )


def calibrate_only(folder: Path, manifest: Path) -> None:
    """Calibrate a packaged checkpoint on the corpus that it was trained on."""
    facts = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
    if (found := fingerprint(load_manifest(manifest))) != facts["data_fingerprint"]:
        raise SystemExit(f"{manifest} has fingerprint {found}; accepted: {facts['data_fingerprint']}")
    facts["calibration"] = calibrated(folder, manifest)
    describe(folder, facts, manifest)


def main() -> None:
    """Halve, compare, calibrate, describe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--dtype", choices=["float16", "bfloat16"], default="float16")
    parser.add_argument("--tolerance", type=float, default=0.0, help="Share of test rows with another label.")
    parser.add_argument("--out", type=Path, default=FOLDER / "demo")
    parser.add_argument("--calibrate-only", action="store_true", help="Of the checkpoint in --out.")
    args = parser.parse_args()
    manifest = args.run / "corpus" / "manifest.csv"
    if args.calibrate_only:
        calibrate_only(args.out, manifest)
        return
    metrics = json.loads((args.run / "metrics.json").read_text(encoding="utf-8"))
    with atomic_write(args.out) as folder:
        halved(args.run / "model", folder, getattr(torch, args.dtype))
        agreed = agreement(args.run / "model", folder, manifest)
        print(json.dumps(agreed))
        if agreed["label"] < 1 - args.tolerance:
            raise SystemExit(
                f"labels agree on {agreed['label']:.2%} alone; accepted: --tolerance, or a dtype"
            )
        facts = {
            "name": args.out.name,
            "trained_by": metrics["command"],
            "packaged_by": f"python experiments/package_demo.py --dtype {args.dtype}",
            "seed": metrics["seed"],
            "corpus": metrics["corpus"],
            "data_fingerprint": metrics["data_fingerprint"],
            "versions": metrics["versions"],
            "stored_as": args.dtype,
            "agreement": agreed,
            "test": {
                name: {key: entry[key] for key in FIGURES if key in entry}
                for name, entry in metrics["test"].items()
                if name in CONDITIONS
            },
            "baselines": {
                name: {key: entry[key] for key in FIGURES if key in entry}
                for name, entry in metrics["test"]["baselines"].items()
            },
        }
        facts["calibration"] = calibrated(folder, manifest)
        describe(folder, facts, manifest)
        size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{args.run / 'model'} -> {args.out} ({size / 1e6:.2f} MB)")


if __name__ == "__main__":
    main()
