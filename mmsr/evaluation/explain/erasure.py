"""Erasure tests of attributions: what the predicted label loses without the words and frames that matter.

    utterance ─► `Attribute` ─► weights of words and of frames ─► most weighted share erased, or kept alone
           ─► probability of the predicted label ─► comprehensiveness, sufficiency (AOPC)

ERASER's measures (DeYoung et al. 2020, arXiv 1911.03429), for each modality with the other left as it is.
Words are erased from the transcript, frames are silenced. Deviation: beside each measure stands a control
with as many units at random, since any erasure costs something.

Notation of shapes: w words, f frames, s samples.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsr.evaluation.entries import mean_with_interval
from mmsr.evaluation.rationales import word_spans
from mmsr.records import Attribute, Predict, Progress, Span, Utterance

Floats = NDArray[np.float64]

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)  # ERASER's, of the words or frames
MEASURES = ("comprehensiveness", "sufficiency")


LoadAudio = Callable[[Any], NDArray[np.float32]]
"""Reads a recording as 16 kHz samples `[s]`."""


def erasure(
    predict: Predict,
    attribute: Attribute,
    rows: Sequence[Utterance],
    *,
    load_audio: LoadAudio,
    seed: int = 0,
    progress: Progress | None = None,
    name: str = "erasure",
) -> dict[str, Any]:
    """Comprehensiveness and sufficiency of an attribution, each with a random control, by modality.

    Comprehensiveness is the probability of the predicted label minus that without the most weighted units
    (more is better), sufficiency the probability minus that with these alone (less is better). Each row's
    AOPC is the mean over `SHARES`, of one unit or more. The control's words are drawn at random; its frames
    are the chosen ones, rotated along the time axis, so that they form as many pieces.

    `rows` have audio and text. `progress` is called with the step `name`.

    Returns:
        {"text" | "audio": {measure: {"chosen", "random", "difference": as of `mean_with_interval`,
        "by_share": {share: [chosen, random]}}}}. `difference` is chosen minus random. A modality without
        weights has no key.
    """
    generator = np.random.default_rng(seed)
    measured: dict[str, list[tuple[Utterance, Floats]]] = {"text": [], "audio": []}
    for done, row in enumerate(rows, start=1):
        given = replace(row.model_input(), audio=load_audio(row.audio))
        spans = word_spans(row.text or "")
        found = attribute(audio=np.asarray(given.audio), text=given.text, words=spans)
        answer = predict([given])[0]
        for modality, parts in (("text", found.words), ("audio", found.frames)):
            if parts is not None and len(parts) > 1:
                weights = np.array([part.weight for part in parts])
                masks = [_chosen_and_control(weights, share, modality, generator) for share in SHARES]
                kept = _probabilities(predict, given, answer.label, modality, spans, masks)
                measured[modality].append((row, answer.scores[answer.label] - kept))
        if progress:
            progress(name, done, len(rows))
    return {modality: _measures(found, seed) for modality, found in measured.items() if found}


def erase_words(text: str, spans: Sequence[Span], erased: Sequence[bool] | NDArray[np.bool_]) -> str | None:
    """Returns the text without the erased words; None where no word is left."""
    if all(erased):
        return None
    for (start, end), is_erased in reversed([*zip(spans, erased, strict=True)]):
        if is_erased:
            text = text[:start] + text[end:]
    return " ".join(text.split())


def silence_frames(samples: NDArray[np.float32], erased: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Returns the samples `[s]` with the erased of equally long frames `[f]` silenced."""
    frame = np.arange(len(samples)) * len(erased) // len(samples)
    return np.where(erased[frame], np.float32(0), samples)


def _chosen_and_control(
    weights: Floats, share: float, modality: str, generator: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks `[units]` of the most weighted units, and of as many others at random."""
    chosen = np.zeros(len(weights), dtype=bool)
    chosen[np.argsort(-weights, kind="stable")[: max(1, math.ceil(share * len(weights)))]] = True
    if modality == "text":
        return chosen, generator.permutation(chosen)
    return chosen, np.roll(chosen, generator.integers(1, len(chosen)))


def _probabilities(
    predict: Predict,
    given: Utterance,
    label: str,
    modality: str,
    spans: Sequence[Span],
    masks: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]],
) -> Floats:
    """Probability of the label `[measure, share, chosen or control]`; all inputs have one length."""
    edited = []
    for mask in (erased for pair in masks for units in pair for erased in (units, ~units)):
        if modality == "text":
            edited.append(replace(given, text=erase_words(given.text or "", spans, mask)))
        else:
            edited.append(replace(given, audio=silence_frames(np.asarray(given.audio), mask)))
    scores = np.array([answer.scores[label] for answer in predict(edited)])
    return scores.reshape(len(masks), 2, len(MEASURES)).transpose(2, 0, 1)


def _measures(found: Sequence[tuple[Utterance, Floats]], seed: int) -> dict[str, Any]:
    rows = [row for row, _ in found]
    losses = np.stack([loss for _, loss in found])  # [row, measure, share, chosen or control]
    metrics = {}
    for place, measure in enumerate(MEASURES):
        chosen, control = losses[:, place].mean(axis=1).T
        by_share = losses[:, place].mean(axis=0).tolist()
        metrics[measure] = {
            "chosen": mean_with_interval(chosen, rows, seed=seed),
            "random": mean_with_interval(control, rows, seed=seed),
            "difference": mean_with_interval(chosen - control, rows, seed=seed),
            "by_share": {f"{share:g}": pair for share, pair in zip(SHARES, by_share, strict=True)},
        }
    return metrics
