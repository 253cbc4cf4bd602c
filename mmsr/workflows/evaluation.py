"""Evaluates a model: metrics, controls and baselines of a split, and a report.

a checkpoint, or another model ─► `Answering` ─► `evaluate_answering` ─► files of a run, `Evaluation`
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mmsr.data.audio.decoding import Audio
from mmsr.data.manifest.check.audio import audio_issues
from mmsr.data.manifest.manifest import rows_with
from mmsr.data.manifest.tables import read_column
from mmsr.evaluation.bertscore import BertScorer
from mmsr.evaluation.calibration import conformal_text
from mmsr.evaluation.rationales import UnicodeTokenizer
from mmsr.evaluation.report.findings import Examined, examine, not_checked
from mmsr.evaluation.report.names import TableFormat
from mmsr.evaluation.report.page import check_out
from mmsr.evaluation.report.run import COSTS, Example, conditions_table, entries, write_report
from mmsr.evaluation.run import condition_inputs, conformal_entries, evaluate, write_run
from mmsr.evaluation.slices import worst_slice_line
from mmsr.files import check_output
from mmsr.inference.loading import examples as shown_examples
from mmsr.inference.loading import predictor
from mmsr.progress import log
from mmsr.records import Predict, Prediction, Progress, Utterance
from mmsr.workflows.inputs import (
    Inputs,
    corpus_beside,
    model_facts,
    open_checkpoint,
    spread,
    stored_states,
    training_history,
    training_seed,
)
from mmsr.workflows.settings import Measures, Rows


@dataclass(frozen=True, kw_only=True)
class Answering:
    """A model as an evaluation sees it.

    Attributes:
        predict: Answers utterances.
        predict_labels: Answers them with the same labels and probabilities, but need not write rationales.
        show: Rows with the model's answers, for the report.
        conditions: The inputs to try; None for all that the rows allow.
        temperature: By which the probabilities were divided, if known.
        history: Metrics of each epoch of the training, if known.
        facts: Further keys of metrics.json.
        is_trained: Whether it was selected on development rows, so that the gap to the test rows matters.
        chunk: The most utterances that `predict` gets at a time.
    """

    predict: Predict
    predict_labels: Predict
    show: Callable[[Sequence[Utterance]], list[Example]]
    conditions: Sequence[str] | None = None
    temperature: float | None = None
    history: Sequence[Mapping[str, Any]] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    is_trained: bool = False
    chunk: int = 128


@dataclass(frozen=True)
class Evaluation:
    """The contents of metrics.json and predictions.jsonl, the split, and the path of report.html.

    `conformal` tells whether label sets were asked for.
    """

    metrics: dict[str, Any]
    predictions: list[Prediction]
    split: str
    report: Path
    conformal: bool = False

    @property
    def conditions(self) -> dict[str, dict[str, Any]]:
        """The metrics of each condition, such as `audio+text`."""
        return entries(self.metrics, self.split)

    def table(self, form: TableFormat = "md", columns: Sequence[str] | None = None) -> str:
        """The metrics of conditions and baselines, as a table with these columns."""
        name = self.report.resolve().parent.name
        return conditions_table(self.metrics, split=self.split, form=form, columns=columns, label=name)

    def findings(self) -> list[str]:
        """What the checks found, in sentences (see `mmsr.evaluation.report.findings.CHECKS`)."""
        return [finding["message"] for finding in self.metrics["findings"]]

    def not_checked(self) -> list[str]:
        """The checks that were not made, with the reason."""
        return not_checked(self.metrics["checks"])

    def notes(self) -> list[str]:
        """What a packaged checkpoint knows; worst slice, label sets and cost of each condition, in words."""
        lines, without_worst = [], dict[str, list[str]]()
        if (facts := self.metrics.get("model", {})).get("packaged"):
            lines.append(
                f"{facts['name']} is in the package: rows that it was trained on, which its card names, are "
                "no test of it"
            )
        for name, entry in self.conditions.items():
            if (usage := entry.get("usage")) is not None:
                counts = ", ".join(
                    f"{usage[cost]:,} {title}" for cost, title in COSTS.items() if cost in usage
                )
                unparsable = entry.get("unparsable")
                lines.append(f"{name}: {counts}" + (f", {unparsable:,} unparsable" if unparsable else ""))
            slices = worst_slice_line(entry["worst_slice"], least=entry["slice_rows"])
            if entry["worst_slice"] is None:
                without_worst.setdefault(slices, []).append(name)
            else:
                lines.append(f"{name}: {slices}")
            if "conformal" in entry:
                lines.append(f"{name}: {conformal_text(entry['conformal'])}")
            elif self.conformal:
                lines.append(f"{name}: no label sets, since no labelled development row has these inputs")
        return [*lines, *(f"{', '.join(names)}: {slices}" for slices, names in without_worst.items())]


def evaluate_checkpoint(
    model: str | Path,
    rows: Rows,
    out: str | Path,
    *,
    measures: Measures | None = None,
    batch_size: int = 32,
    num_beams: int = 1,
    num_candidates: int = 1,
    examples: int = 6,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a checkpoint on the test rows of a manifest, with controls and baselines.

    Writes metrics.json, predictions.jsonl and a report with its pictures. Baselines learn from the training
    rows; label sets are calibrated on the development rows. Of these, as many as there are test rows are
    answered too, under the first condition and without rationales, for the gap between the two.

    Example:
        >>> rows = Rows("runs/demo/corpus/manifest.csv")
        >>> evaluation = evaluate_checkpoint("runs/demo/model", rows, "runs/demo")
        >>> evaluation.conditions["audio+text"]["macro_f1"]

    Args:
        model: The folder or Hub id of a checkpoint.
        rows: Which rows of which manifest.
        out: The folder for the results.
        measures: What is measured, beside the metrics that an evaluation always has.
        batch_size: The number of rows in a batch.
        num_beams: The beams of the rationales' generation.
        num_candidates: The rationales that are written for each row, to answer with the one most like all.
        examples: The number of utterances that the report plays.
        seed: The seed of the shuffling of audio between rows, and of sampled rationales.
        progress: Called as rows are answered.

    Raises:
        ValueError: Checkpoint or manifest cannot be read, a split lacks rows or labels, or `out` holds other
            results.
    """
    columns = prepare(model, rows, out, measures := measures or Measures())
    pipe, inputs = open_checkpoint(model, rows, required=measures.splits)
    states = stored_states(inputs.model, pipe)
    options: dict[str, Any] = {"batch_size": batch_size, "audio_features": states}
    answering = Answering(
        predict=predictor(pipe, num_beams=num_beams, num_candidates=num_candidates, seed=seed, **options),
        predict_labels=predictor(pipe, rationale=False, **options),
        show=partial(shown_examples, pipe),
        conditions=measures.conditions,
        temperature=pipe.model.config.label_temperature,
        history=training_history(inputs.model),
        facts={"model": model_facts(inputs.model, pipe), **training_seed(inputs.model)},
        is_trained=True,
    )
    return evaluate_answering(
        answering,
        inputs,
        out,
        measures=measures,
        columns=columns,
        examples=examples,
        seed=seed,
        progress=progress,
    )


def prepare(model: str | Path, rows: Rows, out: str | Path, measures: Measures) -> dict[str, Any]:
    """Check that results can be written, before anything is loaded; returns the columns to slice by.

    Raises:
        ValueError: `out` holds other results, is the run of another model, or cannot be written, or a column
            does not exist.
    """
    check_out(out, "metrics.json")
    check_output(Path(out) / "predictions.jsonl", inputs=[rows.manifest])
    if (Path(out) / "run.yaml").is_file() and Path(model).resolve() != (Path(out) / "model").resolve():
        raise ValueError(
            f"--out {out} is the folder of a training, whose results --model {model} would replace; "
            "accepted: another folder"
        )
    return {name: read_column(measures.slice_table or rows.manifest, name) for name in measures.slices or ()}


def evaluate_answering(
    model: Answering,
    inputs: Inputs,
    out: str | Path,
    *,
    measures: Measures,
    columns: Mapping[str, Any],
    examples: int,
    seed: int,
    progress: Progress | None,
) -> Evaluation:
    """Evaluate any model that answers, on checked rows.

    Args:
        model: The model.
        inputs: Rows for it.
        out: The folder for the results.
        measures: What is measured; the conditions are the model's.
        columns: Columns to slice by, of `prepare`.
        examples: The number of utterances that the report plays.
        seed: The seed of the shuffling of audio between rows.
        progress: Called as rows are answered.

    Raises:
        ValueError: Rows lack labels or inputs of a condition.
    """
    rows, labels, test_rows = inputs.rows, inputs.labels, inputs.utterances("test")
    if all(row.label is None and row.rationale is None for row in test_rows):
        raise ValueError(
            f"{rows.manifest}: no row of {rows.split!r} has a label or a rationale to compare with; "
            "accepted: rows with one, or mmsr predict, which needs none"
        )
    if measures.conformal is not None:
        _check_development_labels(inputs)
    scorer = measures.bertscore and BertScorer(measures.bertscore, layer=measures.bertscore_layer)
    metrics, predictions = evaluate(
        model.predict,
        test_rows,
        labels=labels,
        train_rows=inputs.utterances("train"),
        conditions=model.conditions,
        temperature=model.temperature,
        bertscore=scorer or None,
        attributes={**_lengths(test_rows), **columns},
        slice_rows=measures.slice_rows,
        seed=seed,
        progress=progress,
        chunk=model.chunk,
    )
    if measures.conformal is not None:
        label_sets = conformal_entries(
            model.predict_labels,
            inputs.utterances("dev"),
            predictions,
            labels=labels,
            coverage=measures.conformal,
            seed=seed,
            progress=progress,
            chunk=model.chunk,
        )
        for name, entry in label_sets.items():
            metrics[name]["conformal"] = entry
    first = next(iter(metrics))
    development = {}
    if model.is_trained:
        development = _development_metrics(inputs, model.predict_labels, first, seed=seed, progress=progress)
    answered = [row for row in predictions if row.condition == first]
    examined = Examined(metrics, answered, development.get(first))
    document = write_run(
        out,
        {rows.split: metrics} | ({rows.dev_split: development} if development else {}),
        predictions,
        provenance=inputs.provenance(seed=seed),
        extra={
            **corpus_beside(rows.manifest),
            **examine(examined),
            **model.facts,
            **({"bertscore": scorer.settings} if scorer else {}),
        },
    )
    report = write_report(
        out,
        title=inputs.title,
        metrics=document,
        predictions=predictions,
        labels=labels,
        history=model.history,
        examples=model.show(spread(test_rows, examples)),
        split=rows.split,
    )
    return Evaluation(document, predictions, rows.split, report, measures.conformal is not None)


def _development_metrics(
    inputs: Inputs, predict: Predict, condition: str, *, seed: int, progress: Progress | None
) -> dict[str, Any]:
    """The metrics of labelled development rows under a condition, of at most as many as there are test rows.

    {} without any, if they are tested, or if audio among them is damaged.
    """
    rows = inputs.rows
    if rows.fold is None and rows.dev_split == rows.split:
        return {}
    labelled = [row for row in inputs.utterances("dev") if row.has("label")]
    known, _ = condition_inputs(labelled, condition)
    known = random.Random(seed).sample(known, min(len(known), len(inputs.splits["test"])))
    if not known:
        return {}
    table = inputs.splits["dev"].select(rows_with(inputs.splits["dev"], "id", [str(row.id) for row in known]))
    if issues := audio_issues(table, Path(rows.manifest).name):
        log(f"development rows are not compared with the test rows: {issues[0]}")
        return {}
    metrics, _ = evaluate(
        predict,
        known,
        labels=inputs.labels,
        conditions=[condition],
        seed=seed,
        progress=progress and (lambda step, done, total: progress(f"dev, {step}", done, total)),
    )
    return metrics


def _check_development_labels(inputs: Inputs) -> None:
    """Refuse label sets that no labelled development row could calibrate."""
    rows = inputs.rows
    if not any(row.has("label") for row in inputs.utterances("dev")):
        part = f"split {rows.dev_split}" if rows.fold is None else f"development rows of fold {rows.fold}"
        raise ValueError(
            f"{rows.manifest}, {part}: no row has a label, and --conformal makes its label sets by them; "
            "accepted: labels, another --dev-split, or no --conformal"
        )


def _lengths(rows: Sequence[Utterance]) -> dict[str, dict[str, Any]]:
    """Seconds of audio, and words (characters of Chinese) of transcript, by id."""
    tokenize = UnicodeTokenizer().tokenize
    texts = {str(row.id): row.text or row.asr_text for row in rows}
    return {
        "audio_seconds": {
            str(row.id): Audio.duration(row.audio) for row in rows if isinstance(row.audio, str)
        },
        "transcript_words": {id_: float(len(tokenize(text))) for id_, text in texts.items() if text},
    }
