"""The bound on fusions: what two sure inputs allow, and what unsure ones do not."""

import numpy as np
from combiner import KINDS, drawn, study
from held_out import PAIR_KINDS, SENTIMENTS


def made(labels: np.ndarray, sure: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    told = np.where(generator.random(len(labels)) < sure, labels, generator.integers(0, 3, len(labels)))
    return np.eye(3)[told] * 0.8 + 0.2 / 3


def figures(table: str, system: str) -> list[float]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {system} |")]
    return [float(cell) for cell in line.split("|")[2:-1]]


def test_pairs_are_of_their_kind_and_of_rows_that_may_be_drawn():
    voices = np.array([0, 1, 2, -1, 0, 1, 2])
    pairs, kinds = drawn(voices, voices, dict.fromkeys(KINDS, 12), seed=0)
    assert len(pairs) == 48 and 3 not in pairs
    for (a, b), kind in zip(pairs, kinds, strict=True):
        assert (SENTIMENTS[voices[a]], SENTIMENTS[voices[b]]) in PAIR_KINDS[kind]


def test_a_classifier_reaches_the_rule_with_sure_inputs_and_not_with_unsure_ones():
    generator = np.random.default_rng(0)
    voices, texts = generator.integers(0, 3, 400), generator.integers(0, 3, 400)
    half = np.arange(400) % 2 == 0
    sure = study(made(voices, 1.0, 1), made(texts, 1.0, 2), voices, texts, half)
    assert figures(sure, "classifier, equal") == [1.0, 1.0, 1.0, 1.0]
    assert figures(sure, "audio")[1] < 0.4 < figures(sure, "late fusion")[0]
    unsure = study(made(voices, 0.7, 1), made(texts, 0.6, 2), voices, texts, half)
    assert figures(unsure, "classifier, equal")[1] < figures(unsure, "text")[1]
