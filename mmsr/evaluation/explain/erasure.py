"""Whether the words and frames that are said to matter do: what a label loses without them.

    utterance ─► `Attribute` ─► weights of words and of frames ─► most weighted share erased, or kept alone
           ─► probability of the predicted label ─► comprehensiveness, sufficiency (AOPC)

ERASER's measures (DeYoung et al. 2020, arXiv 1911.03429), for each modality with the other left as it is.
Words are erased from the transcript, frames by digital silence. Deviation: beside each stands a control of
as many units that the weights did not choose, since erasing anything at all costs something.

Notation of shapes: w words, f frames, s samples.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsr.evaluation.entries import mean_figure
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
    (the more the better), sufficiency the probability minus that with these alone (the less the better). Each
    row's AOPC is the mean over `SHARES`, at least one unit being chosen. The control's words are drawn at
    random; its frames are those chosen, moved along the time axis in a circle, so that they fall into as many
    pieces.

    Args:
        predict: Answers utterances; its rationales are not used.
        attribute: The attribution that is examined.
        rows: With audio and text.
        load_audio: Reads their audio.
        seed: Of the controls.
        progress: As of `run.evaluate`.
        name: What `progress` is called with.

    Returns:
        {"text" | "audio": {measure: {"chosen", "random", "difference": figures as of `mean_figure`,
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
                # all of one length, so that a batch needs no padding
                edits = [
                    [_chosen(weights, share), _control(weights, share, modality, generator)]
                    for share in SHARES
                ]
                losses = _losses(predict, given, answer.label, modality, spans, edits)
                measured[modality].append((row, answer.scores[answer.label] - losses))
        if progress:
            progress(name, done, len(rows))
    return {modality: _figures(found, seed) for modality, found in measured.items() if found}


def erase_words(text: str, spans: Sequence[Span], erased: Sequence[bool] | NDArray[np.bool_]) -> str | None:
    """The text without some of its words; None where no word is left."""
    if all(erased):
        return None
    for (start, end), gone in reversed([*zip(spans, erased, strict=True)]):
        if gone:
            text = text[:start] + text[end:]
    return " ".join(text.split())


def silence_frames(samples: NDArray[np.float32], erased: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The samples `[s]`, of which the erased of equally long frames `[f]` are silent."""
    frame = np.arange(len(samples)) * len(erased) // len(samples)
    return np.where(erased[frame], np.float32(0), samples)


def _chosen(weights: Floats, share: float) -> NDArray[np.bool_]:
    count = max(1, math.ceil(share * len(weights)))
    chosen = np.zeros(len(weights), dtype=bool)
    chosen[np.argsort(-weights, kind="stable")[:count]] = True
    return chosen


def _control(
    weights: Floats, share: float, modality: str, generator: np.random.Generator
) -> NDArray[np.bool_]:
    chosen = _chosen(weights, share)
    if modality == "text":
        return generator.permutation(chosen)
    return np.roll(chosen, generator.integers(1, len(chosen)))


def _losses(
    predict: Predict,
    given: Utterance,
    label: str,
    modality: str,
    spans: Sequence[Span],
    edits: Sequence[Sequence[NDArray[np.bool_]]],
) -> Floats:
    """Probability of the label `[measure, share, chosen or control]`."""
    erased = [[[units, ~units] for units in pair] for pair in edits]
    edited = []
    for units in (units for pair in erased for both in pair for units in both):
        if modality == "text":
            edited.append(replace(given, text=erase_words(given.text or "", spans, units)))
        else:
            edited.append(replace(given, audio=silence_frames(np.asarray(given.audio), units)))
    scores = np.array([answer.scores[label] for answer in predict(edited)])
    return scores.reshape(len(edits), 2, len(MEASURES)).transpose(2, 0, 1)


def _figures(found: Sequence[tuple[Utterance, Floats]], seed: int) -> dict[str, Any]:
    rows = [row for row, _ in found]
    losses = np.stack([loss for _, loss in found])  # [row, measure, share, chosen or control]
    figures: dict[str, Mapping[str, Any]] = {}
    for place, measure in enumerate(MEASURES):
        aopc = losses[:, place].mean(axis=1)
        figures[measure] = {
            "chosen": mean_figure(aopc[:, 0], rows, seed=seed),
            "random": mean_figure(aopc[:, 1], rows, seed=seed),
            "difference": mean_figure(aopc[:, 0] - aopc[:, 1], rows, seed=seed),
            "by_share": {
                f"{share:g}": losses[:, place, step].mean(axis=0).tolist()
                for step, share in enumerate(SHARES)
            },
        }
    return dict(figures)
