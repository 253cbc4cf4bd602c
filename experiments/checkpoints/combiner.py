"""What any fusion could reach on pairs of a voice and a text, given how well the model tells each alone.

    python experiments/checkpoints/combiner.py --model base --feature-store runs/features

Three demands on the fused answer (score.py, `pairs`) pull against each other: agreeing pairs at least as well
as the better input, and with a neutral voice, or a neutral text, as well as the other input alone. A
classifier of both inputs' probabilities shows what can be had: it is fitted to pairs of half of the speakers
and texts that select, in several mixtures of the kinds, and tested on pairs of the other half. No test row is
read.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from held_out import DATA, PAIR_KINDS, crema_rows, label_of_pair, text_rows
from score import open_model
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from mmsr.data.corpora.source import SENTIMENTS
from mmsr.evaluation.run import predict_rows
from mmsr.progress import show_progress
from mmsr.records import Predict, Utterance

KINDS = tuple(PAIR_KINDS)
MIXTURES = {
    "as base's training": (3000, 4500, 3000, 1200),
    "equal": (3000, 3000, 3000, 500),
    "more agreeing": (6000, 3000, 3000, 500),
    "more neutral voices": (3000, 6000, 2000, 1),
    "neutral voices alone": (0, 4500, 0, 0),
}
"""Pairs of each of `KINDS` that a classifier is fitted to."""


def probabilities(predict: Predict, rows: Sequence[Utterance]) -> np.ndarray:
    """Probabilities of the labels `[n, 3]`."""
    answers = predict_rows(predict, rows, progress=show_progress())
    return np.array([[answer.scores[label] for label in SENTIMENTS] for answer in answers])


def drawn(
    voices: np.ndarray, texts: np.ndarray, counts: Mapping[str, int], seed: int
) -> tuple[np.ndarray, list[str]]:
    """Pairs `[n, 2]` of a clip and a text by number, and their kinds; rows with -1 as label are not drawn."""
    generator, pairs, kinds = np.random.default_rng(seed), [], []
    for kind, count in counts.items():
        for place in range(count):
            wanted = PAIR_KINDS[kind][place % len(PAIR_KINDS[kind])]
            pairs.append(
                [
                    generator.choice(np.flatnonzero(own == SENTIMENTS.index(label)))
                    for own, label in zip((voices, texts), wanted, strict=True)
                ]
            )
            kinds.append(kind)
    return np.array(pairs), kinds


def features(audio: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Probabilities, their logarithms and products `[n, 21]`."""
    products = (audio[:, :, None] * text[:, None]).reshape(len(audio), -1)
    return np.concatenate([audio, text, np.log(audio + 1e-6), np.log(text + 1e-6), products], axis=1)


def study(
    audio: np.ndarray, text: np.ndarray, voices: np.ndarray, texts: np.ndarray, half: np.ndarray
) -> str:
    """The table: macro-F1 of each kind, by audio alone, text alone, late fusion, and each classifier.

    Args:
        audio: Probabilities of clips `[n, 3]`.
        text: Of texts `[m, 3]`.
        voices: Numbers of the clips' labels `[n]`.
        texts: Of the texts' `[m]`.
        half: Which clips are tested on, those of half of the speakers `[n]`.
    """
    other = np.arange(len(texts)) % 2 == 0

    def of_half(own: np.ndarray, kept: np.ndarray) -> np.ndarray:
        return np.where(kept, own, -1)

    tested, kinds = drawn(of_half(voices, half), of_half(texts, other), dict.fromkeys(KINDS, 1500), 5)
    true = np.array(
        [SENTIMENTS.index(label_of_pair(SENTIMENTS[voices[a]], SENTIMENTS[texts[b]])) for a, b in tested]
    )
    heard, read = audio[tested[:, 0]], text[tested[:, 1]]
    systems = {"audio": heard.argmax(1), "text": read.argmax(1)}
    systems["late fusion"] = (np.log(heard + 1e-6) + np.log(read + 1e-6)).argmax(1)
    for name, counts in MIXTURES.items():
        fitted, _ = drawn(
            of_half(voices, ~half), of_half(texts, ~other), dict(zip(KINDS, counts, strict=True)), 7
        )
        labels = [label_of_pair(SENTIMENTS[voices[a]], SENTIMENTS[texts[b]]) for a, b in fitted]
        classifier = LogisticRegression(max_iter=3000).fit(
            features(audio[fitted[:, 0]], text[fitted[:, 1]]), labels
        )
        found = classifier.predict(features(heard, read))
        systems[f"classifier, {name}"] = np.array([SENTIMENTS.index(label) for label in found])
    lines = [f"| system | {' | '.join(KINDS)} (agreement) |", f"|---|{'---:|' * len(KINDS)}"]
    for name, answered in systems.items():
        cells = []
        for kind in KINDS:
            own = np.array([one == kind for one in kinds])
            if kind == "conflicting":
                cells.append(f"{np.mean(true[own] == answered[own]):.3f}")
            else:
                cells.append(f"{f1_score(true[own], answered[own], average='macro', labels=[0, 1, 2]):.3f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Predict each input alone, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="base")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--feature-store", type=Path)
    parser.add_argument("--texts", type=int, default=1500, help="at most so many")
    args = parser.parse_args()
    predict = open_model(args.model, feature_store=args.feature_store, batch_size=64)
    assert predict is not None
    clips = [row for row in crema_rows(args.data) if row.split == "selection"]
    words = [
        row
        for row in text_rows(args.data, ("goemotions", "brighter"))
        if row.split == "selection" and row.language == "en" and row.label in SENTIMENTS
    ]
    words = [words[i] for i in np.random.default_rng(0).permutation(len(words))[: args.texts]]
    with torch.inference_mode():
        audio = probabilities(predict, [Utterance(id=row.id, audio=row.audio) for row in clips])
        text = probabilities(predict, [Utterance(id=row.id, text=row.text) for row in words])
    voices, texts = (np.array([SENTIMENTS.index(str(row.label)) for row in rows]) for rows in (clips, words))
    speakers = sorted({str(row.speaker) for row in clips})
    half = np.array([speakers.index(str(row.speaker)) % 2 == 0 for row in clips])
    print(study(audio, text, voices, texts, half))


if __name__ == "__main__":
    main()
