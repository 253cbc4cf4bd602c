"""Baselines of the checkpoint `base`: majority label, TF-IDF of the same texts, a probe of Whisper's layers.

    python experiments/checkpoints/baselines.py --texts runs/base/texts.csv

texts.csv (text, label, language, source, split) ─► TF-IDF, logistic regression ──────┐
CREMA-D ─► mean states of Whisper's layers ─► logistic regression, layer and C chosen ─┴─► OUT/NAME.jsonl

- `majority`: the most frequent training label, of clips or of texts.
- `tfidf`: TF-IDF of n-grams of words (1 to 2) and of characters within words (1 to 4), with balanced logistic
  regression, fitted to the rows of texts.csv in the split `train`.
- `probe`: balanced logistic regression on the standardised mean state of one of Whisper's layers 1 to 6 over
  a clip's frames, in a window of 6 s, fitted to CREMA-D's training speakers; layer and C have the best
  macro-F1 on its selection speakers.

Writes the predictions of every test row (see held_out.py), which score.py compares with a checkpoint's, and
baselines.json, which says how they were made. Mean states are kept in OUT/states, half a second a clip where
they are not there yet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from held_out import DATA, SETS, crema_rows, load_sets, ravdess_rows, read_texts
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import StandardScaler

from mmsr.data.audio.decoding import Audio
from mmsr.data.corpora.source import SENTIMENTS
from mmsr.data.features.store import encoder_fingerprint, file_digest
from mmsr.evaluation.run import prediction_lines
from mmsr.files import atomic_write, write_file
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.progress import show_progress
from mmsr.records import Prediction, Progress, Utterance
from mmsr.training.run import is_bf16

BASELINES = ("majority", "tfidf", "probe")
ENCODER = Path("../shared/models/whisper-base")
STRENGTHS = (0.0003, 0.001, 0.003, 0.01, 0.03)
WINDOW_SECONDS = 6.0
FEATURES = 60_000  # n-grams of words, and as many of characters
LEVEL = 0.05  # RMS of a clip with --level
_CHUNK = 256  # clips in a file of states


# ---------------------------------------------------------------------- texts


def tfidf_classifier(*, features: int = FEATURES) -> Pipeline:
    """An untrained classifier of texts."""
    options = {"sublinear_tf": True, "max_features": features, "dtype": np.float32}
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", **options)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), **options)
    return make_pipeline(
        make_union(words, characters), LogisticRegression(class_weight="balanced", max_iter=300, tol=1e-3)
    )


def tfidf_predictions(training: Sequence[Utterance], rows: Sequence[Utterance]) -> list[Prediction]:
    """Predictions of TF-IDF, trained on labelled texts.

    Raises:
        ValueError: There are fewer than two training labels.
    """
    labels = [str(row.label) for row in training]
    if len(set(labels)) < 2:
        raise ValueError(
            f"labels of {len(training)} training texts are {sorted(set(labels))}; accepted: two or more"
        )
    classifier = tfidf_classifier().fit([str(row.text) for row in training], labels)
    scores = classifier.predict_proba([str(row.text) for row in rows])
    return predictions_of(rows, scores, list(classifier.classes_))


# ---------------------------------------------------------------------- clips


def mean_states(
    encoder: str | Path,
    paths: Sequence[str],
    folder: Path,
    *,
    level: bool = False,
    progress: Progress | None = None,
) -> np.ndarray:
    """Mean state of each of Whisper's layers, the embedding first, over each clip's frames `[n, l, d]`.

    Args:
        encoder: Folder or Hub id of a Whisper model.
        paths: Audio files.
        folder: Where they are kept, a file for some clips, so that a killed run goes on.
        level: Scale each clip to the same RMS.
        progress: Called with the clips done.
    """
    model = MmsrForSentimentReasoning.from_encoders(
        audio=str(encoder), fusion="audio_only", audio_layer_mix=True, audio_window_seconds=WINDOW_SECONDS
    ).eval()
    key = f"{encoder_fingerprint(model.encoder.audio_encoder.model)} {WINDOW_SECONDS} {level}"
    load, found = Audio(), []
    for start in range(0, len(paths), _CHUNK):
        chunk = paths[start : start + _CHUNK]
        content = b"".join([key.encode(), *map(file_digest, chunk)])
        file = folder / f"{hashlib.sha256(content).hexdigest()[:16]}.npy"
        if not file.exists():
            states = np.stack([_mean_state(model, load(path), level=level) for path in chunk])
            with atomic_write(file) as half:
                np.save(half, states)
        found.append(np.load(file))
        if progress:
            progress("states", start + len(chunk), len(paths))
    return np.concatenate(found)


@torch.inference_mode()
def _mean_state(model: MmsrForSentimentReasoning, waveform: np.ndarray, *, level: bool) -> np.ndarray:
    """Mean state of each layer `[l, d]` of a waveform `[s]`."""
    samples = torch.from_numpy(waveform)[None]
    if level and (rms := samples.square().mean().sqrt()) > 0:
        samples = samples * (LEVEL / rms)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bf16()):
        states, mask = model.encoder.encode_audio(samples, torch.ones_like(samples).long())
    return states[0, mask[0] == 1].float().mean(0).numpy()


def fit_probe(
    states: np.ndarray,
    labels: np.ndarray,
    parts: np.ndarray,
    *,
    layers: Sequence[int] | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[Pipeline, dict[str, Any]]:
    """Fit a probe to the clips of the part `train`, its layer and C chosen on those of `selection`.

    Args:
        states: Mean states `[n, l, d]`.
        labels: Labels `[n]`.
        parts: Part of each clip `[n]`; those of `test` are not used.
        layers: The layers to choose from; by default all but the first, the embedding.
        strengths: The C of `LogisticRegression` to choose from.

    Returns:
        The probe, and its `layer`, `C`, macro-F1 on the selection speakers and number of clips.
    """
    train, selection = parts == "train", parts == "selection"
    best: tuple[float, Any, dict[str, Any]] | None = None
    for layer in layers if layers is not None else range(1, states.shape[1]):
        for strength in strengths:
            probe = make_pipeline(
                StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)
            ).fit(states[train, layer], labels[train])
            reached = f1_score(labels[selection], probe.predict(states[selection, layer]), average="macro")
            if best is None or reached > best[0]:
                best = float(reached), probe, {"layer": layer, "C": strength}
    if best is None:
        raise ValueError("no layer or no C to choose from; accepted: one or more of each")
    facts = {"selection_macro_f1": best[0], "n_train": int(train.sum()), "n_selection": int(selection.sum())}
    return best[1], best[2] | facts


# ---------------------------------------------------------------------- predictions


def predictions_of(rows: Sequence[Utterance], scores: np.ndarray, labels: Sequence[str]) -> list[Prediction]:
    """Predictions of rows from probabilities `[n, c]` of labels; a label that is not among them has 0."""
    found = []
    for row, of_row in zip(rows, scores.tolist(), strict=True):
        known = dict.fromkeys(SENTIMENTS, 0.0) | dict(zip(labels, of_row, strict=True))
        found.append(Prediction.of(row, predicted_label=max(known, key=known.__getitem__), scores=known))
    return found


def majority_predictions(training: Sequence[Utterance], rows: Sequence[Utterance]) -> list[Prediction]:
    """Predictions of the most frequent training label: the scores are the labels' shares."""
    counts = Counter(str(row.label) for row in training)
    shares = np.array([counts[label] / counts.total() for label in SENTIMENTS])
    return predictions_of(rows, np.tile(shares, (len(rows), 1)), SENTIMENTS)


def read_baselines(folder: Path, *, texts: Path | None = None) -> dict[str, Mapping[str, Prediction]]:
    """Returns {baseline: {row's id: prediction}} of what `main` left.

    Raises:
        ValueError: They were trained on other texts than `texts`.
    """
    described = json.loads((folder / "baselines.json").read_text(encoding="utf-8"))
    trained_on = described.get("texts")
    if texts is not None and trained_on is not None and trained_on != file_digest(str(texts)).hex():
        raise ValueError(
            f"{folder} was trained on other texts than {texts}; accepted: what baselines.py makes of these"
        )
    found: dict[str, Mapping[str, Prediction]] = {}
    for name in BASELINES:
        if (file := folder / f"{name}.jsonl").exists():
            lines = file.read_text(encoding="utf-8").splitlines()
            rows = [Prediction.from_row(json.loads(line)) for line in lines]
            found[name] = {row.id: row for row in rows}
    return found


# ---------------------------------------------------------------------- command


def run(
    data: Path, texts: Path | None, encoder: str | Path | None, out: Path, *, level: bool = False
) -> dict[str, Any]:
    """Make the baselines and return what baselines.json says; those of an earlier run stay where left out.

    Args:
        data: Folder of the corpora.
        texts: The training texts; None leaves TF-IDF out.
        encoder: A Whisper model; None leaves the probe out.
        out: Folder of the predictions.
        level: Whether the probe has each clip at the same RMS.
    """
    progress = show_progress()
    described: dict[str, Any] = {}
    predictions: dict[str, list[Prediction]] = {"majority": []}
    if (out / "baselines.json").exists():  # of the other modality, or replaced
        described = json.loads((out / "baselines.json").read_text(encoding="utf-8"))
        predictions["majority"] += read_baselines(out)["majority"].values()
    crema = crema_rows(data)
    if texts is not None:
        training = [row for row in read_texts(texts) if row.split == "train" and row.label in SENTIMENTS]
        sets = load_sets(data, [name for name in SETS if name not in ("crema", "ravdess")])
        rows = list({row.id: row for one in sets for row in one.rows}.values())
        predictions["majority"] += majority_predictions(training, rows)
        predictions["tfidf"] = tfidf_predictions(training, rows)
        described |= {"texts": file_digest(str(texts)).hex(), "tfidf": {"n_train": len(training)}}
    clips = [*crema, *ravdess_rows(data)]
    test = [i for i, row in enumerate(clips) if row.split == "test"]
    heard = [clips[i] for i in test]
    predictions["majority"] += majority_predictions([row for row in crema if row.split == "train"], heard)
    if encoder is not None:
        paths = [str(row.audio) for row in clips]
        states = mean_states(encoder, paths, out / "states", level=level, progress=progress)
        labels, parts = (np.array([getattr(row, name) for row in clips]) for name in ("label", "split"))
        probe, facts = fit_probe(states, labels, parts)
        scores = probe.predict_proba(states[test, facts["layer"]])
        predictions["probe"] = predictions_of(heard, scores, list(probe.classes_))
        described["probe"] = {**facts, "level": level, "window_seconds": WINDOW_SECONDS}
    for name, made in predictions.items():
        latest = {row.id: row for row in made}
        write_file(out / f"{name}.jsonl", prediction_lines(latest.values()).encode())
    write_file(out / "baselines.json", (json.dumps(described, indent=1) + "\n").encode())
    return described


def main() -> None:
    """Make the baselines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the corpora")
    parser.add_argument("--texts", type=Path, default=Path("runs/base/texts.csv"))
    parser.add_argument("--encoder", type=Path, default=ENCODER)
    parser.add_argument("--out", type=Path, default=Path("runs/base/baselines"))
    parser.add_argument("--level", action="store_true", help="the probe has each clip at the same RMS")
    parser.add_argument("--only", choices=("tfidf", "probe"), help="make one of the two")
    parser.add_argument("--threads", type=int, help="of torch")
    args = parser.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    texts = None if args.only == "probe" else args.texts
    encoder = None if args.only == "tfidf" else args.encoder
    try:
        print(json.dumps(run(args.data, texts, encoder, args.out, level=args.level), indent=1))
    except ValueError as error:
        raise SystemExit(f"baselines.py: {error}") from None


if __name__ == "__main__":
    main()
