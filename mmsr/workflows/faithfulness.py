"""Examines rationales: whether they are grounded in voice and words, and name what decided."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsr.data.audio.decoding import Audio
from mmsr.data.corpora.demo.corpus import quoted_evidence, respeak, utterance_of
from mmsr.evaluation.explain.attribution import attributions, saliency
from mmsr.evaluation.explain.faithfulness import Material, faithfulness
from mmsr.evaluation.report.faithfulness import write_faithfulness_report
from mmsr.evaluation.report.page import check_out
from mmsr.evaluation.run import json_document
from mmsr.extras import install
from mmsr.files import write_file
from mmsr.inference.loading import predictor
from mmsr.records import Progress, Utterance
from mmsr.workflows.inputs import open_checkpoint, spread, training_seed
from mmsr.workflows.settings import Rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Faithfulness:
    """The content of faithfulness.json, and the path of report.html."""

    document: dict[str, Any]
    report: Path


def examine_faithfulness(
    model: str | Path,
    rows: Rows,
    out: str | Path,
    *,
    respoken: str | Path | None = None,
    erased: int = 100,
    pictures: int = 3,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
) -> Faithfulness:
    """Examine whether the rationales of a checkpoint are grounded, and name what decided.

    Writes faithfulness.json and a report with pictures. Rows of the demo corpus are spoken again, in another
    manner and in another voice. Without captum there are no gradients and pictures, which is logged.

    Example:
        >>> rows = Rows("runs/demo/corpus/manifest.csv")
        >>> examine_faithfulness("runs/demo/model", rows, "faith", erased=20).document["agreement"]

    Args:
        model: The folder or Hub id of a checkpoint that writes rationales.
        rows: Which rows of which manifest; judges learn from its training rows.
        out: The folder for the results.
        respoken: A folder for the rows that are spoken again; by default `out`/respoken.
        erased: The number of rows whose most attended words and frames are erased.
        pictures: The number of utterances to draw.
        batch_size: The number of rows in a batch.
        seed: The seed of resamples, controls and exchanges.
        progress: Called as rows are answered.

    Raises:
        ValueError: The checkpoint or the manifest cannot be read, the checkpoint writes no rationales, a
            count is negative, or `out` holds another command's report.
    """
    check_out(out, "faithfulness.json")
    for flag, count in (("erased", erased), ("pictures", pictures)):
        if count < 0:
            raise ValueError(f"--{flag} {count}; accepted: 0 or more")
    pipe, inputs = open_checkpoint(model, rows)
    test_rows = inputs.utterances("test")
    if pipe.model.decoder is None and pipe.model.memory is None:
        raise ValueError(
            f"--model {model} writes no rationales; accepted: a model with a decoder, or with a memory of "
            "rationales"
        )
    folder = Path(respoken or Path(out) / "respoken")
    load_audio: Callable[[Any], Any] = Audio(pipe.processor.feature_extractor.sampling_rate)
    methods = attributions(pipe.model, pipe.processor)
    if "gradients" not in methods:
        logger.warning("captum is not installed: no gradients, no pictures; %s", install("captum"))
    found = faithfulness(
        predictor(pipe, batch_size=batch_size),
        test_rows,
        labels=inputs.labels,
        material=Material(
            train_rows=inputs.utterances("train"),
            force=lambda label: predictor(pipe, batch_size=batch_size, forced_label=label),
            load_audio=load_audio,
            attributions=methods,
            erased=erased,
            predict_labels=predictor(pipe, batch_size=batch_size, rationale=False),
            respoken=_respoken(test_rows, folder, progress=progress is not None),
            evidence_of=quoted_evidence,
        ),
        seed=seed,
        progress=progress,
    )
    shown = {
        str(row.id): saliency(
            pipe.model,
            pipe.processor,
            audio=None if row.audio is None else load_audio(row.audio),
            text=row.text,
        )
        for row in (spread(test_rows, pictures) if "gradients" in methods else [])
    }
    document = {
        **found,
        "model": inputs.model,
        "split": rows.split,
        **training_seed(inputs.model),
        **inputs.provenance(seed=seed).to_dict(),
    }
    write_file(Path(out) / "faithfulness.json", json_document(document))
    title = f"{inputs.title}, rationales"
    report = write_faithfulness_report(out, document, title=title, saliencies=shown)
    return Faithfulness(document, report)


def _respoken(rows: Sequence[Utterance], folder: Path, *, progress: bool) -> dict[str, list[Utterance]]:
    """Rows of the demo corpus spoken again, by what was changed; other rows are not."""
    known = any(utterance_of(row) for row in rows)
    return {
        change: respeak(rows, folder / change, change=change, progress=progress) if known else []
        for change in ("manner", "voice")
    }
