"""Which of Whisper's layers holds the voice? A linear probe on each, on RAVDESS's development pairs.

    python experiments/benchmarks/ravdess_layers.py

The states of every layer over a clip's own frames, averaged, from the feature store of
`experiments/ravdess.yaml` (a second a clip where they are not there yet); logistic regression on standardised
means, fitted on each fold's training speakers; macro-F1 over the development pairs of all four folds
together, with a 95 % bootstrap over their speakers. No test speaker of a fold is looked at. Prints a Markdown
table.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
import yaml
from ravdess import CONFIG, macro_f1
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmsr.data.features.encoders import stored_audio
from mmsr.data.loading.splits import speaker_fold
from mmsr.data.manifest.manifest import fingerprint, load_manifest
from mmsr.evaluation.report.names import number
from mmsr.evaluation.significance import bootstrap
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.training.run import is_bf16


def layer_means(given: dict[str, str], paths: list[str]) -> np.ndarray:
    """Mean state of every layer over each clip's frames `[n, l, d]`."""
    model = MmsrForSentimentReasoning.from_encoders(
        audio=given["audio"], fusion="audio_only", audio_layer_mix=True
    )
    processor = MmsrProcessor.from_encoders(
        audio=given["audio"], text=given["text"], text_prefix=given["text_prefix"], rationale_format="none"
    )
    bf16 = is_bf16()
    states = stored_audio(model.eval(), processor, given["feature_store"], bf16=bf16)
    means = [states(path).float().mean(0) for path in track(paths, description="states")]
    return torch.stack(means).numpy()


def main() -> None:
    """Probe every layer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--strength", type=float, default=0.01, help="scikit-learn's C")
    args = parser.parse_args()
    settings = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    table = load_manifest(settings["data"]["manifest"])
    labels, speakers = np.array(table["label"]), np.array(table["speaker"])
    folds = [speaker_fold(table, fold=fold, folds=4) for fold in range(4)]
    held_out = np.concatenate([parts["dev"] for parts in folds])
    means = layer_means(settings["model"], list(table["audio"]))
    print(f"data fingerprint {fingerprint(table)}; {len(held_out)} rows")
    print("| layer | macro-F1, development pairs [95 % over speakers] |\n|---|---|")
    for layer in range(means.shape[1]):
        predicted = []
        for parts in folds:
            probe = make_pipeline(StandardScaler(), LogisticRegression(C=args.strength, max_iter=2000))
            probe.fit(means[parts["train"], layer], labels[parts["train"]])
            predicted.append(probe.predict(means[parts["dev"], layer]))
        answers, gold = np.concatenate(predicted), labels[held_out]
        interval = bootstrap(gold, answers, clusters=speakers[held_out], metric="macro_f1")
        print(f"| {layer} | {number(macro_f1(gold, answers), interval)} |", flush=True)


if __name__ == "__main__":
    main()
