"""Measures robustness: how much worse a checkpoint answers as its rows get worse."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsr.evaluation.report.page import check_out
from mmsr.evaluation.report.robustness import write_robustness_report
from mmsr.evaluation.robustness.confusions import Confusions
from mmsr.evaluation.robustness.curves import clean_rows, measure, write_robustness
from mmsr.evaluation.robustness.perturbations import Material, perturbations
from mmsr.inference.loading import predictor
from mmsr.records import Prediction, Progress
from mmsr.workflows.inputs import open_checkpoint, training_seed
from mmsr.workflows.settings import Degradation, Rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Robustness:
    """The content of robustness.json, the predictions by point, and the path of report.html."""

    document: dict[str, Any]
    predictions: dict[str, list[Prediction]]
    report: Path


def measure_robustness(
    model: str | Path,
    rows: Rows,
    out: str | Path,
    *,
    degradation: Degradation | None = None,
    condition: str = "audio+text",
    rationales: bool = False,
    slice_rows: int = 30,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
) -> Robustness:
    """Measure how much worse a checkpoint answers the test rows of a manifest as these get worse.

    Writes robustness.json, a report, and predictions/POINT.jsonl. The same seed degrades the same rows alike
    for every model.

    Example:
        >>> degradation = Degradation(kinds=["noise"], severities={"noise": ["20", "0"]})
        >>> rows = Rows("runs/demo/corpus/manifest.csv")
        >>> measure_robustness("runs/demo/model", rows, "worse", degradation=degradation).document["curves"]

    Args:
        model: The folder or Hub id of a checkpoint.
        rows: Which rows of which manifest.
        out: The folder for the results.
        degradation: How rows are made worse; by default in all ways that the rows allow.
        condition: Inputs of the clean rows: `audio+text`, `audio`, `text`, `asr` or `audio+asr`. Rows that
            lack one of them, or a label, are left out, which is logged.
        rationales: Whether to generate rationales too, for ROUGE-L.
        slice_rows: The rows that a slice needs to be named as the worst.
        batch_size: The number of rows in a batch.
        seed: The seed of all draws.
        progress: Called as the rows of a point are answered.

    Raises:
        ValueError: The checkpoint or the manifest cannot be read, the rows do not allow the condition or a
            kind, or `out` holds another command's report.
    """
    check_out(out, "robustness.json")
    degradation = degradation or Degradation()
    pipe, inputs = open_checkpoint(model, rows)
    test_rows = inputs.utterances("test")
    clean = clean_rows(test_rows, condition)
    if left_out := len(test_rows) - len(clean):
        counts = f"{left_out:,} of {len(test_rows):,}"
        logger.warning("%s rows left out: no label, or not all of %s", counts, condition)
    if degradation.confusions is None:
        spoken = [(row["text"], row["language"]) for row in inputs.table if row["text"]]
        errors = Confusions.of_vocabulary([text for text, _ in spoken], [language for _, language in spoken])
    else:
        errors = Confusions.open(degradation.confusions, columns=rows.columns)
    curves = perturbations(
        Material(clean, errors, noise=degradation.noise, seed=seed),
        kinds=degradation.kinds,
        severities=degradation.severities,
    )
    document, predictions = measure(
        predictor(pipe, batch_size=batch_size, rationale=None if rationales else False),
        clean,
        curves,
        labels=inputs.labels,
        condition=condition,
        slice_rows=slice_rows,
        seed=seed,
        progress=progress,
    )
    whole = write_robustness(
        out,
        document,
        predictions,
        provenance=inputs.provenance(seed=seed),
        extra={"model": inputs.model, "split": rows.split, **training_seed(inputs.model)},
    )
    report = write_robustness_report(out, whole, title=f"{inputs.title}, made worse")
    return Robustness(whole, predictions, report)
