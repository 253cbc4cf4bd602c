"""Evaluation of a `predict` callable on the rows of a split, and the files that it writes.

utterances ─► inputs per condition ─► predict ─► predictions ─► metrics, baselines ─► metrics.json,
predictions.jsonl
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmsr.evaluation.baselines import baselines
from mmsr.evaluation.calibration import calibration_metrics, conformal_metrics
from mmsr.evaluation.entries import differences, evaluate_rows, label_pairs
from mmsr.evaluation.metrics import check_labels, rationale_metrics, sentiment_metrics
from mmsr.evaluation.provenance import Provenance
from mmsr.evaluation.rationales import BertScore
from mmsr.evaluation.slices import LEAST, Attributes, slice_metrics
from mmsr.files import write_file
from mmsr.languages import language_code
from mmsr.records import Answer, Predict, Prediction, Progress, Utterance

CONDITIONS: dict[str, tuple[str | None, str | None]] = {  # fields of an utterance used as audio and as text
    "audio+text": ("audio", "text"),
    "text": (None, "text"),
    "audio": ("audio", None),
    "shuffled_audio": ("audio", "text"),
    "asr": (None, "asr_text"),
    "audio+asr": ("audio", "asr_text"),
}


def evaluate(
    predict: Predict,
    rows: Iterable[Utterance],
    *,
    labels: Sequence[str],
    train_rows: Iterable[Utterance] = (),
    conditions: Sequence[str] | None = None,
    temperature: float | None = None,
    bertscore: BertScore | None = None,
    attributes: Attributes | None = None,
    slice_rows: int = LEAST,
    seed: int = 0,
    progress: Progress | None = None,
    chunk: int = 128,
) -> tuple[dict[str, Any], list[Prediction]]:
    """Returns a split's metrics ({condition: entry, "baselines": {…}}) and its predictions.

    A row that lacks a modality is left out of the conditions that need it, a condition without rows is left
    out unless `conditions` names it. The entries after the first have the `difference` from it (see
    `entries.differences`). In `shuffled_audio` each row has the audio of another one (see
    `shuffle`). `train_rows` are for the baselines and `verbatim_from_training`. `temperature`, by which the
    probabilities were divided, is repeated in the entry `calibration`. With `attributes` (may be {}) each
    condition has `slices` and the `worst_slice` of `slice_rows` or more (see `slices.slice_metrics`). Of a
    language model's answers an entry sums the `usage`, and counts those that are `unparsable`. `predict` gets
    at most `chunk` utterances at a time.

    Raises:
        ValueError: An id is missing or repeated, a label is not in `labels`, a condition is unknown or has no
            rows, or `predict` returns another number of answers than it got utterances.
    """
    rows, train_rows = list(rows), list(train_rows)
    _check_rows(rows, labels)
    for name in conditions or ():
        if name not in CONDITIONS:
            raise ValueError(f"condition {name!r} is not one of {', '.join(map(repr, CONDITIONS))}")
    examined = {}
    for name in CONDITIONS:
        if conditions is None or name in conditions:
            kept, inputs = condition_inputs(rows, name, seed=seed)
            if kept:
                examined[name] = kept, inputs
            elif conditions is not None:
                needed = " and ".join(filter(None, CONDITIONS[name]))
                needed += ", in two rows or more" if name == "shuffled_audio" else ""
                raise ValueError(f"condition {name!r}: no row has what it needs ({needed})")
    if not examined:
        raise ValueError("no rows to evaluate: none has audio, text or asr_text")

    training = frozenset(str(row.rationale) for row in train_rows if row.has("rationale"))
    rationales = partial(rationale_metrics, training=training, bertscore=bertscore)
    metrics: dict[str, Any] = {}
    predictions: list[Prediction] = []
    first: list[Prediction] = []  # predictions of the first condition
    for name, (kept, inputs) in examined.items():
        answered = _predictions(predict, kept, inputs, name, progress=progress, chunk=chunk)
        entry = metrics[name] = evaluate_rows(
            answered, labels, rationales=rationales, transcripts={str(row.id): row.words for row in kept}
        )
        if calibration := calibration_metrics(answered, labels, temperature=temperature):
            entry["calibration"] = calibration
        if all(row.head_label is not None for row in answered):  # where the decoder gives the label
            known = [row for row in answered if row.label is not None]
            heads = [replace(row, predicted_label=row.head_label) for row in known]
            entry["head"] = sentiment_metrics(*label_pairs(heads), labels)
        entry |= _usage(answered)
        if any(row.abstained for row in answered):
            entry["abstained"] = sum(map(bool, (row.abstained for row in answered))) / len(answered)
        if attributes is not None:
            entry |= slice_metrics(answered, labels, attributes=attributes, least=slice_rows, seed=seed)
        if first and (found := differences(answered, first)):
            entry["difference"] = found
        first = first or answered
        predictions += answered
    if train_rows:
        metrics["baselines"] = baselines(
            train_rows, rows, labels=labels, predictions=first, rationales=rationales
        )
    return metrics, predictions


def conformal_entries(
    predict: Predict,
    dev_rows: Iterable[Utterance],
    predictions: Sequence[Prediction],
    *,
    labels: Sequence[str],
    coverage: float = 0.9,
    seed: int = 0,
    progress: Progress | None = None,
    chunk: int = 128,
) -> dict[str, dict[str, Any]]:
    """Returns {condition: metrics of label sets} (see `calibration.conformal_metrics`) of each condition.

    Thresholds are computed for each condition of `predictions` from `dev_rows` in the same condition. A
    condition without labelled development rows is left out. `predict` need not write rationales.

    Raises:
        ValueError: `coverage` is not between 0 and 1, or `dev_rows` are invalid as in `evaluate`.
    """
    dev_rows = list(dev_rows)
    _check_rows(dev_rows, labels)
    entries = {}
    for name in dict.fromkeys(str(row.condition) for row in predictions):
        kept, inputs = condition_inputs(dev_rows, name, seed=seed)
        known = _predictions(predict, kept, inputs, name, progress=progress, chunk=chunk, step=f"dev, {name}")
        rows = [row for row in predictions if row.condition == name]
        if entry := conformal_metrics(known, rows, labels, coverage=coverage):
            entries[name] = entry
    return entries


def condition_inputs(
    rows: Sequence[Utterance], condition: str, *, seed: int = 0
) -> tuple[list[Utterance], list[Utterance]]:
    """Returns the rows that have the condition's modalities, and the model's input of each."""
    kept = [row for row in rows if all(row.has(column) for column in CONDITIONS[condition] if column)]
    inputs = [row.model_input(*CONDITIONS[condition]) for row in kept]
    if condition == "shuffled_audio":
        if len(kept) < 2:
            return [], []
        donors = shuffle([row.language for row in kept], seed=seed)
        inputs = [
            replace(given, audio=kept[donor].audio, asr_words=None)
            for given, donor in zip(inputs, donors, strict=True)
        ]
    return kept, inputs


def predict_rows(
    predict: Predict,
    rows: Sequence[Utterance],
    *,
    text_column: str = "text",
    progress: Progress | None = None,
    chunk: int = 128,
) -> list[Prediction]:
    """Returns the predictions of utterances, each from all modalities that it has.

    `text_column`, `text` or `asr_text`, is the transcript that the model reads.

    Raises:
        ValueError: A row has neither audio nor that transcript.
    """
    names = {columns: name for name, columns in CONDITIONS.items() if name != "shuffled_audio"}
    conditions = []
    for row in rows:
        audio, text = (column if row.has(column) else None for column in ("audio", text_column))
        if audio is None and text is None:
            other = "asr_text" if text_column == "text" else "text"
            instead = f", or text_column {other}, which this row has" if row.has(other) else ""
            raise ValueError(
                f"row {row.id!r}: no audio and no {text_column}; accepted: at least one of the two{instead}"
            )
        conditions.append(names[audio, text])
    inputs = [row.model_input(text=text_column) for row in rows]
    answers = answer_utterances(predict, inputs, condition="predict", progress=progress, chunk=chunk)
    return [
        Prediction.from_answer(row, answer, condition=condition)
        for row, answer, condition in zip(rows, answers, conditions, strict=True)
    ]


def shuffle(languages: Sequence[str | None], *, seed: int) -> list[int]:
    """Returns for each row the row whose audio it gets: never itself, and each row once.

    Audio is shuffled within a language. Rows that are alone in their language form a group; a single such row
    joins the largest language.

    Raises:
        ValueError: There are fewer than two rows.
    """
    if len(languages) < 2:
        raise ValueError("audio can only be shuffled between two rows or more")
    groups: dict[str | None, list[int]] = {}
    for i, language in enumerate(languages):
        groups.setdefault(language_code(language), []).append(i)
    cycles = [group for group in groups.values() if len(group) > 1]
    alone = [group[0] for group in groups.values() if len(group) == 1]
    if len(alone) == 1:
        max(cycles, key=len).extend(alone)
    elif alone:
        cycles.append(alone)
    generator = np.random.default_rng(seed)
    donors = [0] * len(languages)
    for cycle in cycles:
        order = generator.permutation(cycle)
        for i, other in zip(order, np.roll(order, -1), strict=True):
            donors[i] = int(other)
    return donors


def write_run(
    out_dir: Path | str,
    split_metrics: Mapping[str, Mapping[str, Any]],
    predictions: Iterable[Prediction],
    *,
    provenance: Provenance,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes metrics.json and predictions.jsonl to `out_dir` and returns the content of metrics.json.

    `split_metrics` is {split: metrics of `evaluate`}; `extra` adds keys to metrics.json.

    Raises:
        ValueError: A metric is not a finite number, or `extra` repeats a key.
    """
    document = {**split_metrics, **provenance.to_dict()}
    repeated = set(document) & set(extra or {})
    if repeated:
        raise ValueError(f"extra may not repeat the keys {sorted(repeated)} of metrics.json")
    document |= extra or {}
    lines = prediction_lines(predictions)
    content = json_document(document)
    write_file(Path(out_dir) / "predictions.jsonl", lines.encode())
    write_file(Path(out_dir) / "metrics.json", content)
    return document


def prediction_lines(predictions: Iterable[Prediction]) -> str:
    """Returns the content of a predictions.jsonl; raises ValueError where a probability is not finite."""
    rows = (json.dumps(row.to_row(), ensure_ascii=False, allow_nan=False) for row in predictions)
    return "".join(f"{row}\n" for row in rows)


def json_document(document: Mapping[str, Any]) -> bytes:
    """Returns the content of a result file; raises ValueError where a number is not finite."""
    return (json.dumps(document, ensure_ascii=False, allow_nan=False, indent=2) + "\n").encode()


def answer_utterances(
    predict: Predict,
    utterances: Sequence[Utterance],
    *,
    condition: str,
    progress: Progress | None = None,
    chunk: int = 128,
) -> list[Answer]:
    """Returns the answer to each utterance, `chunk` at a time.

    Raises:
        ValueError: `predict` returns another number of answers than it got utterances.
    """
    answers: list[Answer] = []
    for start in range(0, len(utterances), chunk):
        part = utterances[start : start + chunk]
        given = predict(part)
        if len(given) != len(part):
            raise ValueError(
                f"condition {condition!r}: predict gave {len(given)} answers to {len(part)} utterances"
            )
        answers += given
        if progress:
            progress(condition, len(answers), len(utterances))
    return answers


def _predictions(
    predict: Predict,
    rows: Sequence[Utterance],
    inputs: Sequence[Utterance],
    condition: str,
    *,
    progress: Progress | None,
    chunk: int,
    step: str | None = None,
) -> list[Prediction]:
    """The predictions of rows from `inputs`; `step` is what `progress` and errors name."""
    answers = answer_utterances(predict, inputs, condition=step or condition, progress=progress, chunk=chunk)
    pairs = zip(rows, answers, strict=True)
    return [Prediction.from_answer(row, answer, condition=condition) for row, answer in pairs]


def _usage(rows: Sequence[Prediction]) -> dict[str, Any]:
    """What a language model's answers cost, and how many named no label; {} of another model."""
    found: dict[str, Any] = {}
    if any(row.unparsable is not None for row in rows):
        found["unparsable"] = sum(bool(row.unparsable) for row in rows)
    if costs := [row.usage for row in rows if row.usage is not None]:
        shared = [name for name in costs[0] if all(name in cost for cost in costs)]
        totals = {name: round(sum(cost[name] for cost in costs), 3) for name in shared}
        found["usage"] = {"requests": len(costs), **totals}
    return found


def _check_rows(rows: Sequence[Utterance], labels: Sequence[str]) -> None:
    seen = set()
    for i, row in enumerate(rows):
        if row.id is None or row.id in seen:
            raise ValueError(
                f"row {i}: id {row.id!r} is missing or repeated; each row needs an id of its own"
            )
        seen.add(row.id)
    check_labels(((str(row.id), row.label) for row in rows), field="label", labels=labels)
