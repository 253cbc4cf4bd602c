"""Fits detectors of outliers to a trained model: logistic regression on states of its encoders.

known rows, outliers ─► encoder ─► statistics [n, 2 d] ─► logistic regression ─► the detector's weights
held-out known rows  ─────────────────────────────────────────────────────────► its threshold
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmsr.data.audio.decoding import Audio
from mmsr.model.outliers import MODALITIES, OutlierDetector
from mmsr.records import ATTENTION_MASK, INPUT_IDS, INPUT_VALUES, INPUT_VALUES_MASK, Utterance

if TYPE_CHECKING:
    from mmsr.model.modeling import MmsrForSentimentReasoning
    from mmsr.model.processing import MmsrProcessor

LEAST_THRESHOLDS = {"audio": 0.5, "text": 0.05}
"""Made sounds are far from all speech, so that speech of another microphone, which is nearer to them, keeps a
margin. A language related to a known one is near to it, so that a margin there would let it pass."""
_LEAST = 1e-3  # deviation of a statistic, below which it is no evidence


@dataclass(frozen=True, kw_only=True)
class OutlierFit:
    """What was fitted for a modality.

    Attributes:
        layer: The encoder's layer.
        threshold: Probability above which an input is an outlier.
        known: Rows that the detector was fitted to.
        outliers: Outliers that it was fitted to.
        refused: Share of the held-out rows that is refused, by language ("all" for all of them).
    """

    layer: int
    threshold: float
    known: int
    outliers: int
    refused: Mapping[str, float]


def fit_outlier_detectors(
    model: MmsrForSentimentReasoning,
    processor: MmsrProcessor,
    *,
    known: Sequence[Utterance],
    held_out: Sequence[Utterance],
    outliers: Sequence[Utterance],
    layers: Mapping[str, int],
    refused: float = 0.04,
    least_thresholds: Mapping[str, float] = LEAST_THRESHOLDS,
    regularization: float = 30.0,
    batch_size: int = 16,
) -> dict[str, OutlierFit]:
    """Add detectors to a model, and set their weights and thresholds.

    Each modality is fitted by itself, to the rows that have it: a row may have audio, a text or both. All
    classes count alike, however many rows they have. The model's other weights stay as they are.

    Args:
        model: A trained model, whose encoders no longer change.
        processor: Its processor.
        known: Rows of the kind that the model was trained on.
        held_out: Other such rows, of other speakers and texts, by which the thresholds are chosen.
        outliers: Inputs to refuse.
        layers: Layer of each modality that gets a detector, such as `{"audio": 2, "text": 2}`; see
            `MmsrConfig.audio_layers` for their numbers.
        refused: Largest share of the held-out rows to refuse.
        least_thresholds: Smallest threshold of each modality, however few held-out rows are above it.
        regularization: Weight of the squared norm against the loss's sum.
        batch_size: Rows that are encoded at a time.

    Returns:
        What was fitted, by modality.

    Raises:
        ValueError: A modality or layer does not exist, rows of a kind are missing, or a share or probability
            is not between 0 and 1.
    """
    least = {modality: least_thresholds.get(modality, 0.0) for modality in layers}
    given = {"known": known, "held_out": held_out, "outliers": outliers}
    _check_fit(given, layers, refused, least, regularization)
    fitted = {}
    for modality, layer in layers.items():
        model.encoder.add_outlier_detector(modality, layer)
        statistics = {
            name: _statistics(model, processor, modality, rows, batch_size) for name, rows in given.items()
        }
        detector: OutlierDetector = getattr(model.encoder, f"{modality}_outlier_detector")
        weight, bias = _regression(statistics["known"], statistics["outliers"], regularization)
        detector.weight.copy_(torch.from_numpy(weight))
        detector.bias.fill_(bias)
        logits = statistics["held_out"] @ weight + bias
        probabilities = torch.from_numpy(logits).sigmoid().numpy()
        threshold = max(_threshold(probabilities, refused), least[modality])
        setattr(model.config, f"{modality}_outlier_threshold", threshold)
        languages = [row.language or "unknown" for row in held_out if row.has(modality)]
        shares = {"all": probabilities > threshold}
        for language in sorted(set(languages)):
            shares[language] = shares["all"][np.array(languages) == language]
        fitted[modality] = OutlierFit(
            layer=layer,
            threshold=threshold,
            known=len(statistics["known"]),
            outliers=len(statistics["outliers"]),
            refused={name: float(above.mean()) for name, above in shares.items()},
        )
    return fitted


def _check_fit(
    given: Mapping[str, Sequence[Utterance]],
    layers: Mapping[str, int],
    refused: float,
    least: Mapping[str, float],
    regularization: float,
) -> None:
    """Refuse numbers out of range, and rows without a modality that gets a detector."""
    for name, value in (
        ("refused", refused),
        *((f"least_thresholds[{name!r}]", least[name]) for name in least),
    ):
        if not 0 <= value < 1:
            raise ValueError(f"{name}={value:g}; accepted: 0 to below 1")
    if regularization <= 0:
        raise ValueError(f"regularization={regularization:g}; accepted: more than 0")
    if not layers:
        raise ValueError("layers names no modality; accepted: a layer of 'audio', 'text', or both")
    for modality in layers:
        for name, rows in given.items():
            if modality in MODALITIES and not any(row.has(modality) for row in rows):
                raise ValueError(f"{name} has no rows with {modality}; accepted: one or more")


def _threshold(probabilities: np.ndarray, refused: float) -> float:
    """The smallest threshold above which at most a share of the probabilities lies."""
    ordered = np.sort(probabilities)[::-1]
    return float(ordered[int(refused * len(ordered))])


def _regression(known: np.ndarray, outliers: np.ndarray, regularization: float) -> tuple[np.ndarray, float]:
    """Weights `[2 d]` and bias of a balanced logistic regression, for statistics as they are."""
    from sklearn.linear_model import LogisticRegression

    values = np.concatenate([known, outliers]).astype(np.float64)
    mean, deviation = values.mean(0), np.maximum(values.std(0), _LEAST)
    classes = np.repeat([0, 1], [len(known), len(outliers)])
    regression = LogisticRegression(C=1 / regularization, class_weight="balanced", max_iter=2000)
    regression.fit((values - mean) / deviation, classes)
    weight = regression.coef_[0] / deviation
    return weight.astype(np.float32), float(regression.intercept_[0] - weight @ mean)


@torch.inference_mode()
def _statistics(
    model: MmsrForSentimentReasoning,
    processor: MmsrProcessor,
    modality: str,
    rows: Sequence[Utterance],
    batch_size: int,
) -> np.ndarray:
    """Statistics `[n, 2 d]` of the detector's layer, of the rows that have the modality, in their order."""
    encoder, load = model.encoder, Audio()
    inputs: list[Any] = [getattr(row, modality) for row in rows if row.has(modality)]
    order = sorted(range(len(inputs)), key=lambda place: len(inputs[place])) if modality == "text" else None
    order = list(range(len(inputs))) if order is None else order
    part = getattr(encoder, f"{modality}_encoder")
    was_training = part.training
    found: dict[int, np.ndarray] = {}
    part.eval()
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        batch = [inputs[place] for place in places]
        if modality == "audio":
            batch = [item if isinstance(item, np.ndarray) else load(item) for item in batch]
        tensors = processor(**{modality: batch}, return_tensors="pt").to(model.device)
        if modality == "audio":
            states, mask = encoder.encode_audio(
                tensors[INPUT_VALUES].to(model.dtype), tensors[INPUT_VALUES_MASK]
            )
        else:
            states, mask = encoder.encode_text(tensors[INPUT_IDS], tensors[ATTENTION_MASK])
        pooled = OutlierDetector.statistics(encoder.outlier_states(modality, states), mask).cpu().numpy()
        found.update(zip(places, pooled, strict=True))
    part.train(was_training)
    return np.stack([found[place] for place in range(len(inputs))])
