"""Are rationales grounded, and do they say what decided? Measures beyond their overlap with a reference.

rows, `predict` ─► predictions ─► `simulatability`, `agreement`, `counterfactuals`  (a judge reads rationales)
                              ─► `grounding.follow`, `grounding.respoken`            (inputs are changed)
                              ─► `erasure.erasure`                                   (attributions are tested)
                              ─► faithfulness.json (and `mmsr.evaluation.report.faithfulness`)

A *judge* learns to tell labels from texts; by default TF-IDF with logistic regression, but any callable will
do. Figures carry the number of rows and 95 % intervals, over speakers where there are enough of them.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmsr.evaluation.baselines import tfidf_classifier
from mmsr.evaluation.entries import mean_figure, speakers_of
from mmsr.evaluation.explain.erasure import LoadAudio, erasure
from mmsr.evaluation.explain.grounding import EvidenceOf, follow, respoken
from mmsr.evaluation.metrics import has_text
from mmsr.evaluation.rationales import UnicodeTokenizer
from mmsr.evaluation.run import answer_utterances, predict_rows
from mmsr.evaluation.significance import paired_bootstrap
from mmsr.files import write_file
from mmsr.records import Attribute, Predict, Prediction, Progress, Utterance

Texts = tuple[str, ...]

Judge = Callable[[Sequence[Texts], Sequence[str], Sequence[Texts]], Sequence[str]]
"""Learns labels from tuples of texts, one label each; returns the labels of other such tuples."""

Force = Callable[[str], Predict]
"""Answers whose rationales explain this label, whatever is predicted."""

LEAST_JUDGED = 20  # training rows: with fewer a judge has learned nothing


class Explained(NamedTuple):
    """A transcript, and what the model predicted from the utterance."""

    text: str | None
    prediction: Prediction


@dataclass(frozen=True, kw_only=True)
class Material:
    """What beside the rows some of the measures need; those whose part is missing are left out.

    Attributes:
        train_rows: The judges learn from these.
        force: For counterfactual rationales.
        load_audio: For silenced, and partly silenced, audio.
        attributions: What is to be tested for comprehensiveness and sufficiency, by name.
        erased: How many rows that is done with, spread over all.
        predict_labels: Answers without rationales, which is quicker, for measures that use none.
        respoken: Rows spoken again by a generator that knows the answer, by what was changed.
        evidence_of: What a rationale of that generator's names.
        judge: Reads labels off texts.
    """

    train_rows: Sequence[Utterance] = ()
    force: Force | None = None
    load_audio: LoadAudio | None = None
    attributions: Mapping[str, Attribute] = field(default_factory=dict)
    erased: int = 100
    predict_labels: Predict | None = None
    respoken: Mapping[str, Sequence[Utterance]] = field(default_factory=dict)
    evidence_of: EvidenceOf | None = None
    judge: Judge | None = None


def faithfulness(
    predict: Predict,
    rows: Sequence[Utterance],
    *,
    labels: Sequence[str],
    material: Material,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """All measures of a model's rationales on the rows of a split.

    Args:
        predict: Answers with rationales.
        rows: Of the manifest.
        labels: The model's.
        material: What the measures need.
        seed: Of resamples, controls and exchanges.
        progress: As of `run.evaluate`.

    Returns:
        `n`; `simulatability`, `agreement`, `counterfactuals`; `follow`; `respoken` {change: figures, with
        `not_respoken`, the number of rows that the generator does not know}; `erasure` {attribution:
        figures}; `left_out` {measure: why}.

    Raises:
        ValueError: There are no rows, or the model writes no rationales.
    """
    if not rows:
        raise ValueError("no rows to examine")
    predictions = predict_rows(predict, rows, progress=progress)
    if all(row.predicted_rationale is None for row in predictions):
        raise ValueError("the model writes no rationales; accepted: one with a decoder")
    judged, left_out = _judged(
        predict, predictions, rows, labels=labels, material=material, seed=seed, progress=progress
    )
    found: dict[str, Any] = {"n": len(rows), **judged}
    if material.load_audio is None:
        left_out |= dict.fromkeys(("follow", "erasure"), "audio cannot be edited without load_audio")
    else:
        found["follow"] = follow(
            predict, predictions, rows, load_audio=material.load_audio, seed=seed, progress=progress
        )
        found["erasure"] = {}
        whole = [row for row in rows if row.has("audio") and row.has("text")]
        picked = np.linspace(0, len(whole) - 1, min(material.erased, len(whole))).round().astype(int)
        for name, attribute in material.attributions.items():
            found["erasure"][name] = erasure(
                material.predict_labels or predict,
                attribute,
                [whole[place] for place in picked],
                load_audio=material.load_audio,
                seed=seed,
                progress=progress,
                name=f"erasure, {name}",
            )
    found["respoken"] = {}
    for change, again in material.respoken.items():
        if again and material.evidence_of is not None:
            figures = respoken(
                predict,
                predictions,
                again,
                evidence_of=material.evidence_of,
                seed=seed,
                progress=progress,
                name=f"another {change}",
            )
            found["respoken"][change] = {**figures, "not_respoken": len(rows) - len(again)}
        else:
            left_out[f"respoken, another {change}"] = "none of the rows is the demo generator's"
    return {**found, "left_out": left_out}


def _judged(
    predict: Predict,
    predictions: Sequence[Prediction],
    rows: Sequence[Utterance],
    *,
    labels: Sequence[str],
    material: Material,
    seed: int,
    progress: Progress | None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The measures for which a judge reads rationales, and those that were left out, with the reason."""
    judge = material.judge or tfidf_judge
    explained = [row for row in material.train_rows if row.label and row.has("rationale")]
    if len(explained) < LEAST_JUDGED:
        why = f"{len(explained)} training rows with label and rationale; a judge wants {LEAST_JUDGED} or more"
        return {}, dict.fromkeys(("simulatability", "agreement", "counterfactuals"), why)
    trained = predict_rows(predict, explained, progress=_named(progress, "training rows"))
    found = {
        "simulatability": simulatability(
            [Explained(row.text, told) for row, told in zip(explained, trained, strict=True)],
            [Explained(row.text, told) for row, told in zip(rows, predictions, strict=True)],
            judge=judge,
            seed=seed,
        ),
        "agreement": agreement(explained, predictions, judge=judge, seed=seed),
    }
    left_out = {}
    if "las" not in found["simulatability"]:
        group = "leaking" if found["simulatability"]["leaking"]["n"] else "not_leaking"
        left_out["LAS"] = f"all {len(rows):,} rows are {group}, and it is the mean over both groups"
    if material.force is None:
        left_out["counterfactuals"] = "no label can be forced on this model"
    else:
        options: dict[str, Any] = {"labels": labels, "judge": judge, "seed": seed, "progress": progress}
        found["counterfactuals"] = counterfactuals(material.force, predictions, rows, explained, **options)
    return found, left_out


def tfidf_judge(train: Sequence[Texts], labels: Sequence[str], test: Sequence[Texts]) -> list[str]:
    """The default judge (see `baselines.tfidf_classifier`); of one label alone it always says that."""
    if len(set(labels)) == 1:
        return [labels[0]] * len(test)
    model = tfidf_classifier(len(train[0]))
    model.fit(train, labels)
    return [str(label) for label in model.predict(test)]


def simulatability(
    train: Sequence[Explained], test: Sequence[Explained], *, judge: Judge = tfidf_judge, seed: int = 0
) -> dict[str, Any]:
    """Leakage-adjusted simulatability (LAS, Hase et al. 2020, arXiv 2010.04119) of the predicted labels.

    How much better does a judge foretell the model's label from transcript and rationale than from the
    transcript alone? A rationale may simply give the label away, so the effect is measured apart in rows
    whose rationale *leaks* (the judge that reads it alone is right) and the others; the macro-average of
    both is the LAS. Deviation: the three judges are three classifiers, not one network whose inputs are
    dropped at random.

    Args:
        train: Rows from which the judges learn.
        test: Rows on which they are tried.
        judge: Learns and answers.
        seed: Of the intervals.

    Returns:
        `accuracy` of the judges {text+rationale, text, rationale: figure}; `effect` over all rows; `leaking`
        and `not_leaking`, the effect in each group; `las`, where both groups have rows; `label_not_named`:
        `n`, and effect and LAS in the rows whose rationale does not have the predicted label's name in it.
    """
    fields: dict[str, Callable[[Explained], Texts]] = {
        "text+rationale": lambda row: (row.text or "", row.prediction.predicted_rationale or ""),
        "text": lambda row: (row.text or "",),
        "rationale": lambda row: (row.prediction.predicted_rationale or "",),
    }
    learned, predicted = ([str(row.prediction.predicted_label) for row in rows] for rows in (train, test))
    right = {}
    for name, read in fields.items():
        said = judge([*map(read, train)], learned, [*map(read, test)])
        right[name] = np.array([label == own for label, own in zip(said, predicted, strict=True)])
    told = [row.prediction for row in test]
    hidden = np.array([not _names(row.predicted_rationale, str(row.predicted_label)) for row in told])
    return {
        "accuracy": {name: mean_figure(values, told, seed=seed) for name, values in right.items()},
        **_effects(right, told, seed),
        "label_not_named": _effects(
            {name: values[hidden] for name, values in right.items()},
            [*itertools.compress(told, hidden)],
            seed,
        ),
    }


def _effects(right: Mapping[str, np.ndarray], rows: Sequence[Prediction], seed: int) -> dict[str, Any]:
    leaking = right["rationale"]
    gain = right["text+rationale"].astype(float) - right["text"]
    groups = {"leaking": leaking, "not_leaking": ~leaking}
    found: dict[str, Any] = {"effect": mean_figure(gain, rows, seed=seed)}
    for name, group in groups.items():
        found[name] = mean_figure(gain[group], [*itertools.compress(rows, group)], seed=seed)
    if leaking.any() and not leaking.all():
        # the mean recall over groups is the macro-average, and its bootstrap draws whole speakers
        gold = np.where(leaking, "leaking", "not_leaking")
        sides = [np.where(right[name], gold, "wrong") for name in ("text+rationale", "text")]
        speakers = speakers_of(rows)
        macro = paired_bootstrap(gold, *sides, clusters=speakers, metric="uar", resamples=1000, seed=seed)
        found["las"] = {
            "value": macro.difference,
            "n": len(rows),
            "interval": list(macro.interval),
            "over": "speakers" if speakers else "rows",
        }
    return found


def agreement(
    train: Sequence[Utterance],
    predictions: Sequence[Prediction],
    *,
    judge: Judge = tfidf_judge,
    seed: int = 0,
) -> dict[str, Any]:
    """Whether a judge reads the predicted label off the predicted rationale.

    Args:
        train: Rows whose rationale and label the judge learns from.
        predictions: Of a model that writes rationales.
        judge: Learns and answers.
        seed: Of the intervals.

    Returns:
        `agreement`; and `judge`, how often it reads the true label off the true rationale, which is the most
        that can be hoped for.
    """
    gold = [row for row in predictions if row.label and has_text(row.rationale)]
    said = judge(
        *_lessons(train),
        [(row.predicted_rationale or "",) for row in predictions] + [(row.rationale or "",) for row in gold],
    )
    of_model, of_gold = said[: len(predictions)], said[len(predictions) :]
    agrees = [label == row.predicted_label for label, row in zip(of_model, predictions, strict=True)]
    right = [label == row.label for label, row in zip(of_gold, gold, strict=True)]
    return {
        "agreement": mean_figure(agrees, predictions, seed=seed),
        "judge": mean_figure(right, gold, seed=seed),
    }


def counterfactuals(
    force: Force,
    predictions: Sequence[Prediction],
    rows: Sequence[Utterance],
    train: Sequence[Utterance],
    *,
    labels: Sequence[str],
    judge: Judge = tfidf_judge,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Whether the rationale of a forced label is another one, and speaks for that label.

    Args:
        force: Answers whose rationales explain a label.
        predictions: Of the rows as they are.
        rows: Of the manifest.
        train: Rows whose rationale and label the judge learns from.
        labels: Each row is asked for all but its predicted one.
        judge: Learns and answers.
        seed: Of the intervals.
        progress: As of `run.evaluate`.

    Returns:
        `rationale_changes` and `label_read` (the judge reads the forced label off it): shares of pairs of row
        and label; `n` of the figures counts pairs.
    """
    asked: list[tuple[Prediction, str, str]] = []  # prediction, forced label, its rationale
    for label in labels:
        others = [place for place, row in enumerate(predictions) if row.predicted_label != label]
        inputs = [rows[place].model_input() for place in others]
        answers = answer_utterances(force(label), inputs, condition=f"forced {label}", progress=progress)
        asked += [
            (predictions[place], label, answer.rationale or "")
            for place, answer in zip(others, answers, strict=True)
        ]
    said = judge(*_lessons(train), [(rationale,) for *_, rationale in asked])
    pairs = [row for row, *_ in asked]
    return {
        "rationale_changes": mean_figure(
            [rationale != row.predicted_rationale for row, _, rationale in asked], pairs, seed=seed
        ),
        "label_read": mean_figure(
            [read == label for read, (_, label, _) in zip(said, asked, strict=True)], pairs, seed=seed
        ),
    }


def _lessons(train: Sequence[Utterance]) -> tuple[list[Texts], list[str]]:
    """Rationales, and the labels that a judge learns to tell from them."""
    return [(row.rationale or "",) for row in train], [str(row.label) for row in train]


def _names(rationale: str | None, label: str) -> bool:
    tokens = UnicodeTokenizer().tokenize
    words, name = tokens(rationale or ""), tokens(label)
    return any(words[start : start + len(name)] == name for start in range(len(words)))


def _named(progress: Progress | None, name: str) -> Progress | None:
    return None if progress is None else lambda _, done, total: progress(name, done, total)


# ---------------------------------------------------------------------- the file


def write_faithfulness(out_dir: Path | str, document: Mapping[str, Any]) -> None:
    """Writes faithfulness.json: what `faithfulness` returns, and what the caller says of the run.

    Raises:
        ValueError: Where a figure is not a finite number.
    """
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    write_file(Path(out_dir) / "faithfulness.json", text.encode())
