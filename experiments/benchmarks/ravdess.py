"""RAVDESS with speakers held out: our model against linear probes on the same encoder, in the same folds.

    python experiments/benchmarks/ravdess.py --folds 0 1 2 3 --seeds 0 1 2

Trains `experiments/ravdess.yaml`, as it is and by audio alone, for every fold and seed (finished runs are
found again). Which of the two is ours is decided by the development pairs: the mean over folds and seeds of
macro-F1 on a run's development speakers, at the epoch that it keeps. Predicts each fold's test speakers, and
compares macro-F1 over all test rows with two logistic regressions on Whisper's mean last state over the full
30 s window:

plain: scikit-learn's defaults on the states as they are, fitted on training *and* development speakers
tuned: standardised states, strength chosen on the development speakers, fitted on the training speakers

The intervals are bootstraps over speakers of the paired difference, the seeds' mean taken inside each
replicate. The candidate that was not chosen is reported too, and named so. Further arguments are those of
`mmsr fit`, for both. Writes OUT/summary.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, recall_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import mmsr  # noqa: F401  (makes the model known to transformers)
from mmsr.data.audio.decoding import Audio
from mmsr.data.features.encoders import stored_audio
from mmsr.data.features.store import FeatureStore, StoredFeatures, encoder_fingerprint, file_digest
from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.loading.splits import speaker_fold
from mmsr.data.manifest.manifest import fingerprint, load_manifest
from mmsr.evaluation.significance import paired_bootstrap
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.training.run import fit, is_bf16, mixed_precision

CONFIG = Path(__file__).parents[1] / "ravdess.yaml"
WINDOW = 480_000  # samples of whisper's 30 s
CANDIDATES = {
    "audio+text": [],
    "audio": ["--model.fusion", "audio_only", "--model.freeze", "[audio_encoder]"],
}


def dev_macro_f1(folder: Path) -> float:
    """Macro-F1 on the development speakers at the epoch that a run keeps."""
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    return max(row["dev_macro_f1"] for row in history)


def train_and_predict(settings: dict, fold: int, seed: int, folder: Path, extra: list[str]) -> np.ndarray:
    """Predicted label of each test row of a fold."""
    fit(
        ["-c", str(CONFIG), "--seed_everything", str(seed), "--data.fold", str(fold)]
        + ["--trainer.default_root_dir", str(folder), *extra]
    )
    model = MmsrForSentimentReasoning.from_pretrained(folder / "model").eval()
    processor = MmsrProcessor.from_pretrained(folder / "model")
    bf16 = is_bf16()
    data = MmsrDataModule(settings["data"]["manifest"], fold=fold, batch_rows=32, batch_seconds=160)
    data.attach(processor, rationales=False)
    data.audio_features = stored_audio(model, processor, settings["model"]["feature_store"], bf16=bf16)
    loader = data.test_dataloader()
    assert loader.batch_sampler is not None
    order = [row for batch in loader.batch_sampler for row in batch]
    predicted: dict[int, str] = {}
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        logits = torch.cat([model(**batch).sentiment_logits.float() for batch in loader])
    for row, label in zip(order, logits.argmax(-1).tolist(), strict=True):
        predicted[row] = model.config.labels[label]
    return np.array([predicted[row] for row in range(len(predicted))])


def mean_states(settings: dict, paths: list[str]) -> np.ndarray:
    """Whisper's mean last state over the full window, `[n, d]`, kept in the feature store."""
    model = MmsrForSentimentReasoning.from_encoders(
        audio=settings["model"]["audio"], fusion="audio_only"
    ).eval()
    encoder, load = model.encoder.audio_encoder, Audio()

    @torch.inference_mode()
    def encode(paths: Sequence[str]) -> list[torch.Tensor]:
        (path,) = paths
        waveform = load(path)
        full = F.pad(torch.from_numpy(waveform), (0, WINDOW - len(waveform)))[None]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bf16()):
            states, _ = model.encoder.encode_audio(full, torch.ones_like(full).long())
        return [states[0, :, -1:].float().mean(0, keepdim=True)]

    features = StoredFeatures(
        FeatureStore(settings["model"]["feature_store"], dtype="float32"),
        encode,
        content=file_digest,
        encoder=encoder_fingerprint(encoder.model),
        processing={"what": "mean of the last state over the full window", "precision": mixed_precision()},
        name="whisper, mean of the last state",
    )
    return np.stack([features(path)[0, 0].numpy() for path in track(paths, description="probe features")])


def plain_probe(states: np.ndarray, labels: np.ndarray, parts: dict[str, list[int]]) -> np.ndarray:
    """Test predictions of logistic regression as it comes, given all speakers but the test's."""
    rows = parts["train"] + parts["dev"]
    return LogisticRegression(max_iter=2000).fit(states[rows], labels[rows]).predict(states[parts["test"]])


def tuned_probe(states: np.ndarray, labels: np.ndarray, parts: dict[str, list[int]]) -> np.ndarray:
    """Test predictions of the logistic regression that does best on the development speakers."""

    def fitted(strength: float) -> Pipeline:
        classifier = LogisticRegression(C=strength, max_iter=2000)
        return make_pipeline(StandardScaler(), classifier).fit(states[parts["train"]], labels[parts["train"]])

    def dev_f1(strength: float) -> float:
        return macro_f1(labels[parts["dev"]], fitted(strength).predict(states[parts["dev"]]))

    return fitted(max((1e-4, 1e-3, 1e-2, 1e-1, 1.0), key=dev_f1)).predict(states[parts["test"]])


def macro_f1(gold: np.ndarray, predicted: np.ndarray) -> float:
    """F1 averaged over the labels."""
    return float(f1_score(gold, predicted, average="macro"))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/ravdess"))
    args, extra = parser.parse_known_args()
    settings = yaml.safe_load(CONFIG.read_text())
    table = load_manifest(settings["data"]["manifest"])
    labels, speakers = np.array(table["label"]), np.array(table["speaker"])
    parts = {fold: speaker_fold(table, fold=fold, folds=4) for fold in args.folds}
    held_out = np.concatenate([parts[fold]["test"] for fold in args.folds])

    gold = labels[held_out]
    fold_of = np.repeat(args.folds, [len(parts[fold]["test"]) for fold in args.folds])
    answers: dict[str, list[np.ndarray]] = {}
    summary: dict[str, Any] = {
        "rows": len(gold),
        "speakers": len(set(speakers[held_out])),
        "folds": args.folds,
        "seeds": args.seeds,
        "data_fingerprint": fingerprint(table),
        "candidates": {},
    }

    def by_fold(answered: np.ndarray) -> dict[int, float]:
        return {fold: macro_f1(gold[fold_of == fold], answered[fold_of == fold]) for fold in args.folds}

    for name, flags in CANDIDATES.items():
        folders = {(f, s): args.out / name / f"fold{f}-seed{s}" for s in args.seeds for f in args.folds}
        answers[name] = [
            np.concatenate(
                [
                    train_and_predict(settings, fold, seed, folders[fold, seed], [*flags, *extra])
                    for fold in args.folds
                ]
            )
            for seed in args.seeds
        ]
        f1 = [macro_f1(gold, one) for one in answers[name]]
        summary["candidates"][name] = {
            "dev_macro_f1": float(np.mean([dev_macro_f1(folder) for folder in folders.values()])),
            "macro_f1": f1,
            "macro_f1_mean": float(np.mean(f1)),
            "uar": [float(recall_score(gold, one, average="macro")) for one in answers[name]],
            "by_fold": [by_fold(one) for one in answers[name]],
        }
    summary["chosen"] = max(answers, key=lambda name: summary["candidates"][name]["dev_macro_f1"])
    states = mean_states(settings, table["audio"])
    for name, probe in (("plain", plain_probe), ("tuned", tuned_probe)):
        theirs = np.concatenate([probe(states, labels, parts[fold]) for fold in args.folds])
        summary[f"{name}_probe"] = {
            "macro_f1": macro_f1(gold, theirs),
            "uar": float(recall_score(gold, theirs, average="macro")),
            "by_fold": by_fold(theirs),
        }
        for candidate, ours in answers.items():
            summary["candidates"][candidate][f"against_{name}"] = {
                "difference": summary["candidates"][candidate]["macro_f1_mean"] - macro_f1(gold, theirs),
                "interval": paired_bootstrap(gold, ours, theirs, clusters=speakers[held_out]).interval,
            }
    majority = np.full(len(gold), max(set(labels), key=list(labels).count))
    summary["majority"] = {"macro_f1": macro_f1(gold, majority)}
    (args.out / "summary.json").write_text(json.dumps(summary, indent=1))
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
