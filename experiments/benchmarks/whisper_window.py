"""What a shorter window than Whisper's 30 s costs: a probe on its states, and the seconds that a clip takes.

    python experiments/benchmarks/whisper_window.py --seconds 30 6

For each window: Whisper's states over the clip's own frames, averaged, of its third layer and of its last;
logistic regression in the four folds of `experiments/ravdess.yaml`, its strength chosen on the development
speakers; macro-F1 over the test rows of all folds, and the paired difference from the first window, with a
bootstrap over speakers. Writes runs/whisper-window.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from ravdess import CONFIG, macro_f1, tuned_probe
from rich.progress import track

from mmsr.data.audio.decoding import Audio
from mmsr.data.loading.splits import speaker_fold
from mmsr.data.manifest.manifest import load_manifest
from mmsr.evaluation.significance import paired_bootstrap
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.training.run import is_bf16

LAYERS = {"third": 3, "last": -1}


@torch.inference_mode()
def clip_means(audio_encoder: str, paths: list[str], seconds: float) -> tuple[np.ndarray, float]:
    """Mean state of every layer over each clip's frames `[n, l, d]`, and the median seconds a clip takes."""
    model = MmsrForSentimentReasoning.from_encoders(
        audio=audio_encoder, fusion="audio_only", audio_layer_mix=True, audio_window_seconds=seconds
    ).eval()
    load, means, took = Audio(), [], []
    for path in track(paths, description=f"{seconds:g} s window"):
        waveform = torch.from_numpy(load(path))[None]
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bf16()):
            states, mask = model.encoder.encode_audio(waveform, torch.ones_like(waveform).long())
        took.append(time.perf_counter() - start)
        means.append(states[0, mask[0] == 1].float().mean(0).numpy())
    return np.stack(means), float(np.median(took))


def main() -> None:
    """Measure the windows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, nargs="+", default=[30.0, 6.0])
    args = parser.parse_args()
    settings = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    table = load_manifest(settings["data"]["manifest"])
    labels, speakers = np.array(table["label"]), np.array(table["speaker"])
    folds = [speaker_fold(table, fold=fold, folds=4) for fold in range(4)]
    held_out = np.concatenate([parts["test"] for parts in folds])
    gold = labels[held_out]
    summary: dict[str, dict[str, Any]] = {}
    first: dict[str, np.ndarray] = {}
    for seconds in args.seconds:
        states, took = clip_means(settings["model"]["audio"], table["audio"], seconds)
        entry: dict[str, Any] = {"seconds_a_clip": took}
        summary[f"{seconds:g} s"] = entry
        for name, layer in LAYERS.items():
            predicted = np.concatenate([tuned_probe(states[:, layer], labels, parts) for parts in folds])
            entry[name] = {"macro_f1": macro_f1(gold, predicted)}
            if name in first:
                found = paired_bootstrap(gold, predicted, first[name], clusters=speakers[held_out])
                entry[name]["interval"] = found.interval
            first.setdefault(name, predicted)
    Path("runs").mkdir(exist_ok=True)
    Path("runs/whisper-window.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
