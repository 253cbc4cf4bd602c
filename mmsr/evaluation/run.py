"""The evaluation run: a `predict` callable over the rows of a split, and the files that it leaves.

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
from mmsr.evaluation.entries import evaluate_rows, label_pairs
from mmsr.evaluation.metrics import check_labels, rationale_metrics, sentiment_metrics
from mmsr.evaluation.provenance import Provenance
from mmsr.evaluation.rationales import BertScore
from mmsr.evaluation.slices import LEAST, Attributes, slice_figures
from mmsr.files import write_file
from mmsr.records import Answer, Predict, Prediction, Progress, Utterance

CONDITIONS: dict[str, tuple[str | None, str | None]] = {  # the fields that serve as audio and as text
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

    A row that lacks a modality is left out of the conditions that need it (`n` tells), and a condition
    without rows is left out, unless `conditions` asks for it. In `shuffled_audio` each row keeps its text and
    gets the audio of another row (see `shuffle`). `train_rows` feed the baselines, and
    `verbatim_from_training`; without them there are none. The labels that `constant_rationale` explains are
    those of the first condition. `predict` gets at most `chunk` utterances at a time. `temperature`
    is what its probabilities were divided by, to be told beside their calibration. `bertscore` judges
    rationales too, those of the baselines as well. With `attributes` ({} will do) each condition has `slices`
    and the `worst_slice` of `slice_rows` rows or more (see `slices.slice_figures`).

    Raises:
        ValueError: Where an id is missing or repeated, a label is not in `labels`, a condition is unknown or
            has no rows, or `predict` gives another number of answers than it got utterances.
    """
    rows, train_rows = list(rows), list(train_rows)
    _check_rows(rows, labels)
    examined = {name: _inputs(rows, name, seed=seed) for name in _conditions(conditions)}
    for name, (kept, _) in examined.items():
        if not kept and conditions is not None:
            raise ValueError(f"condition {name!r}: no row has what it needs ({_needs(name)})")
    examined = {name: pair for name, pair in examined.items() if pair[0]}
    if not examined:
        raise ValueError("no rows to evaluate: none has audio, text or asr_text")

    known = frozenset(str(row.rationale) for row in train_rows if row.has("rationale"))
    judged = partial(rationale_metrics, training=known, bertscore=bertscore)
    metrics: dict[str, Any] = {}
    predictions: list[Prediction] = []
    for name, (kept, inputs) in examined.items():
        answers = answer_utterances(predict, inputs, condition=name, progress=progress, chunk=chunk)
        answered = [
            Prediction.from_answer(row, answer, condition=name)
            for row, answer in zip(kept, answers, strict=True)
        ]
        metrics[name] = evaluate_rows(answered, labels, rationales=judged)
        if calibration := calibration_metrics(answered, labels, temperature=temperature):
            metrics[name]["calibration"] = calibration
        if all(row.head_label is not None for row in answered):
            metrics[name]["head"] = _head_metrics(answered, labels)
        if attributes is not None:
            sliced = slice_figures(answered, labels, attributes=attributes, least=slice_rows, seed=seed)
            metrics[name] |= sliced
        predictions += answered
    if train_rows:
        first = next(iter(examined))
        predicted = {row.id: str(row.predicted_label) for row in predictions if row.condition == first}
        metrics["baselines"] = baselines(
            train_rows, rows, labels=labels, predicted_labels=predicted, rationales=judged
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
    """Returns {condition: figures of label sets} (see `calibration.conformal_metrics`) for each condition.

    `predictions` are those of `evaluate`. Its conditions are tried on `dev_rows` too, since a threshold is
    good for rows that are answered from the same. A condition that no labelled development row allows is left
    out. `predict` need not write rationales.

    Raises:
        ValueError: `coverage` is not between 0 and 1; a label or id of `dev_rows` as in `evaluate`.
    """
    dev_rows = list(dev_rows)
    _check_rows(dev_rows, labels)
    entries = {}
    for name in dict.fromkeys(str(row.condition) for row in predictions):
        kept, inputs = _inputs(dev_rows, name, seed=seed)
        answers = answer_utterances(predict, inputs, condition=f"dev, {name}", progress=progress, chunk=chunk)
        known = [
            Prediction.from_answer(row, answer, condition=name)
            for row, answer in zip(kept, answers, strict=True)
        ]
        rows = [row for row in predictions if row.condition == name]
        if figures := conformal_metrics(known, rows, labels, coverage=coverage):
            entries[name] = figures
    return entries


def predict_rows(
    predict: Predict,
    rows: Sequence[Utterance],
    *,
    text_column: str = "text",
    progress: Progress | None = None,
    chunk: int = 128,
) -> list[Prediction]:
    """Returns the predictions of utterances, each answered from all that it has.

    `text_column`, `text` or `asr_text`, is the transcript that the model reads.

    Raises:
        ValueError: Where a row has neither audio nor that transcript; before anything is predicted.
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

    The rows of a language are put in a random order and each gets the next one's, the last the first's. Rows
    that are alone in their language form a group of their own, and a single such row joins the largest
    language.

    Raises:
        ValueError: Where there are fewer than two rows.
    """
    if len(languages) < 2:
        raise ValueError("audio can only be shuffled between two rows or more")
    groups: dict[str | None, list[int]] = {}
    for i, language in enumerate(languages):
        groups.setdefault(language, []).append(i)
    circles = [group for group in groups.values() if len(group) > 1]
    alone = [group[0] for group in groups.values() if len(group) == 1]
    if len(alone) == 1:
        max(circles, key=len).extend(alone)
    elif alone:
        circles.append(alone)
    generator = np.random.default_rng(seed)
    donor = [0] * len(languages)
    for circle in circles:
        order = generator.permutation(circle)
        for i, other in zip(order, np.roll(order, -1), strict=True):
            donor[i] = int(other)
    return donor


def write_run(
    out_dir: Path | str,
    split_metrics: Mapping[str, Mapping[str, Any]],
    predictions: Iterable[Prediction],
    *,
    provenance: Provenance,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes metrics.json and predictions.jsonl to `out_dir` and returns the content of metrics.json.

    `split_metrics` is {split: metrics of `evaluate`}; `extra` adds keys of its own to metrics.json. Each file
    appears whole, by rename.

    Raises:
        ValueError: Where a figure is not a finite number, or `extra` repeats a key.
    """
    document = {**split_metrics, **provenance.to_dict()}
    repeated = set(document) & set(extra or {})
    if repeated:
        raise ValueError(f"extra may not repeat the keys {sorted(repeated)} of metrics.json")
    document |= extra or {}
    lines = prediction_lines(predictions)
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    write_file(Path(out_dir) / "predictions.jsonl", lines.encode())
    write_file(Path(out_dir) / "metrics.json", text.encode())
    return document


def prediction_lines(predictions: Iterable[Prediction]) -> str:
    """Returns the content of a predictions.jsonl.

    Raises:
        ValueError: Where a probability is not a finite number.
    """
    rows = (json.dumps(row.to_row(), ensure_ascii=False, allow_nan=False) for row in predictions)
    return "".join(f"{row}\n" for row in rows)


def answer_utterances(
    predict: Predict,
    utterances: Sequence[Utterance],
    *,
    condition: str,
    progress: Progress | None = None,
    chunk: int = 128,
) -> list[Answer]:
    """Returns an answer to each utterance, asked for by at most `chunk` at a time.

    Raises:
        ValueError: Where `predict` gives another number of answers than it got utterances.
    """
    answers: list[Answer] = []
    for start in range(0, len(utterances), chunk):
        asked = utterances[start : start + chunk]
        given = predict(asked)
        if len(given) != len(asked):
            raise ValueError(
                f"condition {condition!r}: predict gave {len(given)} answers to {len(asked)} utterances"
            )
        answers += given
        if progress:
            progress(condition, len(answers), len(utterances))
    return answers


def _check_rows(rows: Sequence[Utterance], labels: Sequence[str]) -> None:
    seen = set()
    for i, row in enumerate(rows):
        if row.id is None or row.id in seen:
            raise ValueError(
                f"row {i}: id {row.id!r} is missing or repeated; each row needs an id of its own"
            )
        seen.add(row.id)
    check_labels(((str(row.id), row.label) for row in rows), field="label", labels=labels)


def _conditions(names: Sequence[str] | None) -> list[str]:
    for name in names or ():
        if name not in CONDITIONS:
            raise ValueError(f"condition {name!r} is not one of {', '.join(map(repr, CONDITIONS))}")
    return [name for name in CONDITIONS if names is None or name in names]


def _needs(condition: str) -> str:
    columns = " and ".join(column for column in CONDITIONS[condition] if column)
    return f"{columns}, in two rows or more" if condition == "shuffled_audio" else columns


def _inputs(
    rows: Sequence[Utterance], condition: str, *, seed: int
) -> tuple[list[Utterance], list[Utterance]]:
    """Returns the rows that have the condition's modalities, and what the model is given of each."""
    kept = [row for row in rows if all(row.has(column) for column in CONDITIONS[condition] if column)]
    inputs = [row.model_input(*CONDITIONS[condition]) for row in kept]
    if condition == "shuffled_audio":
        if len(kept) < 2:
            return [], []
        donors = shuffle([row.language for row in kept], seed=seed)
        inputs = [
            replace(given, audio=kept[donor].audio) for given, donor in zip(inputs, donors, strict=True)
        ]
    return kept, inputs


def _head_metrics(rows: Sequence[Prediction], labels: Sequence[str]) -> dict[str, Any]:
    """Returns the metrics of the head's labels, where the decoder's are the model's."""
    known = [replace(row, predicted_label=row.head_label) for row in rows if row.label is not None]
    return sentiment_metrics(*label_pairs(known), labels)
