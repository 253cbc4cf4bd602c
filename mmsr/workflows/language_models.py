"""Evaluates a language model as it is, by the conditions, controls and baselines of a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmsr.evaluation.report.run import Example
from mmsr.evaluation.run import CONDITIONS, condition_inputs
from mmsr.files import check_output, folder_lock
from mmsr.inference.language_models.answering import LanguageModelPredictor, open_language_model
from mmsr.inference.language_models.settings import SETTINGS_OF_THE_MACHINE, LanguageModelSettings
from mmsr.inference.loading import playable
from mmsr.progress import log
from mmsr.records import Progress, Utterance
from mmsr.workflows.evaluation import Answering, Evaluation, evaluate_answering, prepare
from mmsr.workflows.inputs import Inputs
from mmsr.workflows.settings import Measures, Rows

ANSWERS = "answers.jsonl"


def evaluate_language_model(
    model: str | Path | LanguageModelSettings,
    rows: Rows,
    out: str | Path,
    *,
    measures: Measures | None = None,
    batch_size: int = 32,
    examples: int = 6,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a language model on the test rows of a manifest, as `evaluate_checkpoint` does a checkpoint.

    Writes the same files, and answers.jsonl: each reply as soon as it is there, with what it cost. A run that
    was killed goes on from there, and nothing is asked twice, also under other settings of which a request
    does not depend. Examples in the prompt are training rows, never rows of the test or development split.

    Example:
        >>> rows = Rows("my/manifest.csv")
        >>> evaluation = evaluate_language_model("llm.yaml", rows, "runs/llm")
        >>> evaluation.conditions["text"]["usage"]

    Args:
        model: The YAML file of a language model, or its settings.
        rows: Which rows of which manifest.
        out: The folder for the results.
        measures: What is measured, beside the metrics that an evaluation always has.
        batch_size: The number of rows in a batch; of a server, of requests at a time.
        examples: The number of utterances that the report plays.
        seed: The seed of the shuffling of audio between rows.
        progress: Called as rows are answered.

    Raises:
        ValueError: The file, the model or the manifest cannot be read, a condition needs what the model does
            not read, or `out` holds other results or is in use.
    """
    started = time.perf_counter()
    settings = model if isinstance(model, LanguageModelSettings) else LanguageModelSettings.from_file(model)
    columns = prepare(str(model), rows, out, measures := measures or Measures())
    check_output(Path(out) / ANSWERS, inputs=[rows.manifest])
    if measures.conformal is not None and settings.reads in ("constrained", "parsed"):
        raise ValueError(
            f"--conformal needs probabilities, and read: {settings.reads} gives none; accepted: with read: "
            "likelihood, or logprobs of a server"
        )
    inputs = Inputs.open(
        settings.name, rows, labels=list(settings.labels), required=measures.splits, started=started
    )
    test_rows = inputs.utterances("test")
    conditions = _conditions(settings, measures.conditions, test_rows, seed=seed)
    evaluated = [*test_rows, *(inputs.utterances("dev") if measures.conformal is not None else [])]
    with (
        folder_lock(out),
        open_language_model(
            settings,
            inputs.utterances("train"),
            held_out={str(row.id) for row in evaluated},
            journal=Path(out) / ANSWERS,
            batch_size=batch_size,
        ) as predict,
    ):

        def show(shown: Sequence[Utterance]) -> list[Example]:
            kept, given = condition_inputs(shown, conditions[0], seed=seed)
            answers = predict(given)
            played = [playable(row) for row in kept]
            return [
                Example(utterance=row, answer=answer, mime=mime)
                for (row, mime), answer in zip(played, answers, strict=True)
            ]

        answering = Answering(
            predict=predict,
            predict_labels=predict,  # without rationales the prompt, and so the label, would be another
            show=show,
            conditions=conditions,
            facts={"language_model": _facts(settings, predict)},
            chunk=batch_size,
        )
        evaluation = evaluate_answering(
            answering,
            inputs,
            out,
            measures=measures,
            columns=columns,
            examples=examples,
            seed=seed,
            progress=progress,
        )
        log(f"{predict.asked:,} requests asked, the others were in {Path(out) / ANSWERS}")
    return evaluation


def _conditions(
    settings: LanguageModelSettings, asked: Sequence[str] | None, rows: Sequence[Utterance], *, seed: int
) -> list[str]:
    """The conditions to evaluate: those asked for, else all that rows and model allow."""
    by_text = settings.examples.choose == "nearest"
    readable = [
        name
        for name, (audio, text) in CONDITIONS.items()
        if (settings.audio or audio is None) and (text is not None or not by_text)
    ]
    why = "hears nothing (audio: false)" if not settings.audio else "finds examples by the transcript"
    for name in asked or ():
        if name in CONDITIONS and name not in readable:
            raise ValueError(f"condition {name!r}, and the model {why}; accepted: {', '.join(readable)}")
    allowed = list(asked or (name for name in readable if condition_inputs(rows, name, seed=seed)[0]))
    if not allowed:
        raise ValueError(f"no row has what the model reads; accepted: rows for {', '.join(readable)}")
    return allowed


def _facts(settings: LanguageModelSettings, predict: LanguageModelPredictor) -> dict[str, Any]:
    """What metrics.json says of the model: its settings, and what they stand for."""
    known = asdict(settings) | {"read": settings.reads, "labels": list(settings.labels)}
    return {name: value for name, value in known.items() if name not in SETTINGS_OF_THE_MACHINE} | {
        "identity": dict(predict.model.identity),
        "prompt_digest": predict.prompt.digest,
        "fallback": predict.fallback,
        "temperature": 0,
    }
