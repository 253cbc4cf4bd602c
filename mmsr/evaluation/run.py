"""The evaluation run: a `predict` callable over the rows of a split, and the files that it leaves.

rows ─► records per condition ─► predict ─► predictions ─► figures, baselines ─► metrics.json,
predictions.jsonl
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmsr.evaluation.baselines import baselines
from mmsr.evaluation.calibration import calibration_metrics, conformal_metrics
from mmsr.evaluation.metrics import Row, check_labels, evaluate_rows, has_text, sentiment_metrics
from mmsr.evaluation.provenance import Provenance
from mmsr.evaluation.rationales import BertScore, rationale_metrics
from mmsr.evaluation.slices import LEAST, Attributes, slice_figures
from mmsr.files import write_file
from mmsr.records import Answer, Predict, Progress, Record

CONDITIONS: dict[str, tuple[str | None, str | None]] = {  # the columns that serve as audio and as text
    "audio+text": ("audio", "text"),
    "text": (None, "text"),
    "audio": ("audio", None),
    "shuffled_audio": ("audio", "text"),
    "asr": (None, "asr_text"),
    "audio+asr": ("audio", "asr_text"),
}


def evaluate(
    predict: Predict,
    rows: Iterable[Row],
    *,
    labels: Sequence[str],
    train_rows: Iterable[Row] = (),
    conditions: Sequence[str] | None = None,
    temperature: float | None = None,
    bertscore: BertScore | None = None,
    attributes: Attributes | None = None,
    slice_rows: int = LEAST,
    seed: int = 0,
    progress: Progress | None = None,
    chunk: int = 128,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns a split's figures ({condition: entry, "baselines": {…}}) and its rows of predictions.jsonl.

    `rows` are manifest rows. A row that lacks a modality is left out of the conditions that need it (`n`
    tells), and a condition without rows is left out, unless `conditions` asks for it. In `shuffled_audio`
    each row keeps its text and hears the audio of another row (see `shuffle`). `train_rows` feed the
    baselines, and `verbatim_from_training`; without them there are none. The labels that `constant_rationale`
    explains are those of the first condition. `predict` gets at most `chunk` records at a time. `temperature`
    is what its probabilities were divided by, to be told beside their calibration. `bertscore` judges
    rationales too, those of the baselines as well. With `attributes` ({} will do) each condition has `slices`
    and the `worst_slice` of `slice_rows` rows or more (see `slices.slice_figures`).

    Raises:
        ValueError: Where an id is missing or repeated, a label is not in `labels`, a condition is unknown or
            has no rows, or `predict` gives another number of answers than records.
    """
    rows, train_rows = list(rows), list(train_rows)
    _check_rows(rows, labels)
    examined = {name: _records(rows, name, seed=seed) for name in _conditions(conditions)}
    for name, (kept, _) in examined.items():
        if not kept and conditions is not None:
            raise ValueError(f"condition {name!r}: no row has what it needs ({_needs(name)})")
    examined = {name: pair for name, pair in examined.items() if pair[0]}
    if not examined:
        raise ValueError("no rows to evaluate: none has audio, text or asr_text")

    known = [row["rationale"] for row in train_rows if has_text(row["rationale"])]
    judged = partial(rationale_metrics, training=frozenset(known), bertscore=bertscore)
    metrics: dict[str, Any] = {}
    predictions: list[dict[str, Any]] = []
    for name, (kept, records) in examined.items():
        answers = answer_records(predict, records, condition=name, progress=progress, chunk=chunk)
        answered = [_prediction(row, answer, name) for row, answer in zip(kept, answers, strict=True)]
        metrics[name] = evaluate_rows(answered, labels, rationales=judged)
        if calibration := calibration_metrics(answered, labels, temperature=temperature):
            metrics[name]["calibration"] = calibration
        if all("head_label" in row for row in answered):
            metrics[name]["head"] = _head_metrics(answered, labels)
        if attributes is not None:
            sliced = slice_figures(answered, labels, attributes=attributes, least=slice_rows, seed=seed)
            metrics[name] |= sliced
        predictions += answered
    if train_rows:
        first = next(iter(examined))
        predicted = {row["id"]: row["predicted_label"] for row in predictions if row["condition"] == first}
        metrics["baselines"] = baselines(
            train_rows, rows, labels=labels, predicted_labels=predicted, rationales=judged
        )
    return metrics, predictions


def conformal_entries(
    predict: Predict,
    dev_rows: Iterable[Row],
    predictions: Sequence[Row],
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
    for name in dict.fromkeys(row["condition"] for row in predictions):
        kept, records = _records(dev_rows, name, seed=seed)
        answers = answer_records(predict, records, condition=f"dev, {name}", progress=progress, chunk=chunk)
        known = [_prediction(row, answer, name) for row, answer in zip(kept, answers, strict=True)]
        rows = [row for row in predictions if row["condition"] == name]
        if figures := conformal_metrics(known, rows, labels, coverage=coverage):
            entries[name] = figures
    return entries


def predict_rows(
    predict: Predict,
    rows: Sequence[Row],
    *,
    text_column: str = "text",
    progress: Progress | None = None,
    chunk: int = 128,
) -> list[dict[str, Any]]:
    """Returns rows of predictions.jsonl for manifest rows, each answered from all that it has.

    `text_column`, `text` or `asr_text`, is the transcript that the model reads.

    Raises:
        ValueError: Where a row has neither audio nor that transcript; before anything is predicted.
    """
    names = {columns: name for name, columns in CONDITIONS.items() if name != "shuffled_audio"}
    conditions = []
    for row in rows:
        audio, text = (column if has_text(row[column]) else None for column in ("audio", text_column))
        if audio is None and text is None:
            other = "asr_text" if text_column == "text" else "text"
            instead = f", or text_column {other}, which this row has" if has_text(row[other]) else ""
            raise ValueError(
                f"row {row['id']!r}: no audio and no {text_column}; "
                f"accepted: at least one of the two{instead}"
            )
        conditions.append(names[audio, text])
    records = [Record(audio=row["audio"], text=row[text_column], language=row["language"]) for row in rows]
    answers = answer_records(predict, records, condition="predict", progress=progress, chunk=chunk)
    return [_prediction(*row) for row in zip(rows, answers, conditions, strict=True)]


def shuffle(languages: Sequence[str | None], *, seed: int) -> list[int]:
    """Returns for each row the row whose audio it hears: never itself, and each row once.

    The rows of a language are put in a random order and each hears the next, the last the first. Rows that
    are alone in their language form a group of their own, and a single such row joins the largest language.

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
    predictions: Iterable[Row],
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
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in predictions]
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    write_file(Path(out_dir) / "predictions.jsonl", "".join(lines).encode())
    write_file(Path(out_dir) / "metrics.json", text.encode())
    return document


def _check_rows(rows: Sequence[Row], labels: Sequence[str]) -> None:
    seen = set()
    for i, row in enumerate(rows):
        if row["id"] is None or row["id"] in seen:
            raise ValueError(
                f"row {i}: id {row['id']!r} is missing or repeated; each row needs an id of its own"
            )
        seen.add(row["id"])
    check_labels(((row["id"], row["label"]) for row in rows), field="label", labels=labels)


def _conditions(names: Sequence[str] | None) -> list[str]:
    for name in names or ():
        if name not in CONDITIONS:
            raise ValueError(f"condition {name!r} is not one of {', '.join(map(repr, CONDITIONS))}")
    return [name for name in CONDITIONS if names is None or name in names]


def _needs(condition: str) -> str:
    columns = " and ".join(column for column in CONDITIONS[condition] if column)
    return f"{columns}, in two rows or more" if condition == "shuffled_audio" else columns


def _records(rows: Sequence[Row], condition: str, *, seed: int) -> tuple[list[Row], list[Record]]:
    """Returns the rows that have the condition's modalities, and what the model is given of each."""
    audio, text = CONDITIONS[condition]
    kept = [row for row in rows if all(has_text(row[column]) for column in (audio, text) if column)]
    heard = kept
    if condition == "shuffled_audio":
        if len(kept) < 2:
            return [], []
        heard = [kept[i] for i in shuffle([row["language"] for row in kept], seed=seed)]
    records = [
        Record(
            audio=other[audio] if audio else None, text=row[text] if text else None, language=row["language"]
        )
        for row, other in zip(kept, heard, strict=True)
    ]
    return kept, records


def answer_records(
    predict: Predict,
    records: Sequence[Record],
    *,
    condition: str,
    progress: Progress | None = None,
    chunk: int = 128,
) -> list[Answer]:
    """Returns an answer to each record, asked for by at most `chunk` at a time.

    Raises:
        ValueError: Where `predict` gives another number of answers than records.
    """
    answers: list[Answer] = []
    for start in range(0, len(records), chunk):
        asked = records[start : start + chunk]
        given = predict(asked)
        if len(given) != len(asked):
            raise ValueError(
                f"condition {condition!r}: predict gave {len(given)} answers to {len(asked)} records"
            )
        answers += given
        if progress:
            progress(condition, len(answers), len(records))
    return answers


def _head_metrics(rows: Sequence[Row], labels: Sequence[str]) -> dict[str, Any]:
    """Returns the label figures of the head, where the decoder's are the model's."""
    known = [row for row in rows if row["label"] is not None]
    return sentiment_metrics([row["label"] for row in known], [row["head_label"] for row in known], labels)


def _prediction(row: Row, answer: Answer, condition: str) -> dict[str, Any]:
    return {
        "id": row["id"],
        "label": row["label"],
        "rationale": row["rationale"],
        "predicted_label": answer["label"],
        "scores": {label: float(score) for label, score in answer["scores"].items()},
        "predicted_rationale": answer["rationale"],
        "language": row["language"],
        "speaker": row["speaker"],
        "kind": row["kind"],
        "condition": condition,
        **({"head_label": answer["head_label"]} if "head_label" in answer else {}),
    }
