"""Which experts a mixture uses: by the modalities that it is given, and by label.

utterances ─► with both modalities, with each alone ─► gates [rows, layers, e] ─► means by group
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mmsr.data.audio.decoding import Audio
from mmsr.evaluation.run import condition_inputs
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor, given_columns
from mmsr.records import Progress, Utterance

_CONDITIONS = ("audio+text", "audio", "text")


def expert_use(
    model: MmsrForSentimentReasoning,
    processor: MmsrProcessor,
    utterances: Sequence[Utterance],
    *,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Loads and weights of the routed experts, as a mean over utterances.

    Args:
        model: A model with `fusion="mixture"`.
        processor: Its processor.
        utterances: Rows with `audio`, `text` or both; their `label`, where there is one, groups them.
        batch_size: Utterances in a batch, which changes no result.
        progress: Called with the step `experts`.

    Returns:
        By condition (`audio+text`, `audio`, `text`, where rows have these), then by group (`all`, and each
        true label): `n`, its number of utterances; `load`, the share of them that choose each expert
        `[layers][e]`, whose sum over experts is `fusion_active_experts`; and `weight`, the mean weight of
        each expert `[layers][e]`, 0 where it is not chosen.

    Raises:
        ValueError: The model has another fusion, or no utterances are given.
    """
    if model.config.fusion != "mixture":
        raise ValueError(f"the model has fusion={model.config.fusion!r}; accepted: 'mixture'")
    if not utterances:
        raise ValueError("no utterances; accepted: one or more, with audio or text")
    load = Audio(processor.feature_extractor.sampling_rate)
    found: dict[str, list[tuple[str | None, np.ndarray]]] = {name: [] for name in _CONDITIONS}
    model.eval()
    for start in range(0, len(utterances), batch_size):
        part = [
            replace(row, audio=load(row.audio)) if isinstance(row.audio, str | bytes) else row
            for row in utterances[start : start + batch_size]
        ]
        for name in _CONDITIONS:
            kept, given = condition_inputs(part, name)
            if not kept:
                continue
            columns: dict[str, list[Any]] = {
                "audio": [row.audio for row in given],
                "text": [row.text for row in given],
            }
            inputs = processor(**given_columns(columns), return_tensors="pt").to(model.device)
            with torch.inference_mode():
                gates = model.classify(**inputs, head_only=True).memory.fusion_gates
            assert gates is not None
            found[name] += zip([row.label for row in kept], gates.cpu().numpy(), strict=True)
        if progress is not None:
            progress("experts", start + len(part), len(utterances))
    return {name: _by_label(rows, model.config.labels) for name, rows in found.items() if rows}


def _by_label(rows: Sequence[tuple[str | None, np.ndarray]], labels: Sequence[str]) -> dict[str, Any]:
    """Means over all rows (label, gates `[layers, e]`), and over those of each label."""
    groups = {"all": [gates for _, gates in rows]}
    groups |= {label: [gates for given, gates in rows if given == label] for label in labels}
    return {
        name: {
            "n": len(gates),
            "load": np.mean([one > 0 for one in gates], axis=0).tolist(),
            "weight": np.mean(gates, axis=0, dtype=np.float64).tolist(),
        }
        for name, gates in groups.items()
        if gates
    }
