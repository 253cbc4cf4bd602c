"""Faithfulness of rationales: whether they are grounded, and whether they explain the prediction.

rows, `predict` ─► predictions ─► `simulatability`, `agreement`, `counterfactuals`  (a judge reads rationales)
                              ─► `matching`                      (rationales are exchanged within their label)
                              ─► `grounding.follow`, `grounding.respoken`            (inputs are changed)
                              ─► `erasure.erasure`                                   (attributions are tested)
                              ─► faithfulness.json (and `mmsr.evaluation.report.faithfulness`)

A *judge* is a text classifier, by default TF-IDF with logistic regression. Metrics are those of
`entries.mean_with_interval`, with `n` and 95 % intervals, over speakers where there are enough.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mmsr.evaluation.baselines import tfidf_classifier
from mmsr.evaluation.entries import mean_with_interval, speakers_of
from mmsr.evaluation.explain.erasure import LoadAudio, erasure
from mmsr.evaluation.explain.grounding import EvidenceOf, follow, respoken
from mmsr.evaluation.matching import Fit, Match, matches, tfidf_fit
from mmsr.evaluation.metrics import has_text
from mmsr.evaluation.rationales import UnicodeTokenizer
from mmsr.evaluation.run import answer_utterances, predict_rows
from mmsr.evaluation.significance import paired_bootstrap
from mmsr.quotations import is_grounded, quotations
from mmsr.records import Attribute, Predict, Prediction, Progress, Utterance

Texts = tuple[str, ...]

Judge = Callable[[Sequence[Texts], Sequence[str], Sequence[Texts]], Sequence[str]]
"""Learns to classify tuples of texts by their labels, and returns the labels of other tuples."""

Force = Callable[[str], Predict]
"""Returns a model whose rationales explain this label, whatever it predicts."""

LEAST_JUDGED = 20  # training rows that a judge needs


class Explained(NamedTuple):
    """A transcript, and the model's prediction from the utterance."""

    text: str | None
    prediction: Prediction


@dataclass(frozen=True, kw_only=True)
class Material:
    """What measures need beside the rows; a measure without its material is left out."""

    train_rows: Sequence[Utterance] = ()  # the judges' training data
    force: Force | None = None  # for counterfactual rationales
    load_audio: LoadAudio | None = None  # for edited audio
    attributions: Mapping[str, Attribute] = field(default_factory=dict)  # to test by erasure
    erased: int = 100  # rows for that test, spread over all
    predict_labels: Predict | None = None  # predicts without rationales, which is faster
    respoken: Mapping[str, Sequence[Utterance]] = field(default_factory=dict)  # by what a generator changed
    evidence_of: EvidenceOf | None = None  # reads words and manner off a rationale of that generator
    judge: Judge | None = None  # by default `tfidf_judge`
    fit: Fit | None = None  # by default `tfidf_fit`


def faithfulness(
    predict: Predict,
    rows: Sequence[Utterance],
    *,
    labels: Sequence[str],
    material: Material,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Returns all measures of a model's rationales on the rows of a split.

    `n`; `simulatability`, `agreement`, `counterfactuals`; `matching`; `follow`; `respoken` {change: metrics,
    with `not_respoken`, the number of rows that the generator does not know}; `erasure` {attribution:
    metrics}; `left_out` {measure: reason}.

    Raises:
        ValueError: There are no rows, or the model writes no rationales.
    """
    if not rows:
        raise ValueError("no rows to examine")
    predictions = predict_rows(predict, rows, progress=progress)
    if all(row.predicted_rationale is None for row in predictions):
        raise ValueError("the model writes no rationales; accepted: one with a decoder")
    options: dict[str, Any] = {"seed": seed, "progress": progress}
    judged, left_out = _judged(predict, predictions, rows, labels=labels, material=material, **options)
    found: dict[str, Any] = {"n": len(rows), **judged}
    if matched := matching(predictions, rows, fit=material.fit or tfidf_fit, seed=seed):
        found["matching"] = matched
    else:
        left_out["matching"] = (
            "no transcript has two others of the same predicted label and language, with other words"
        )
    if load_audio := material.load_audio:
        found["follow"] = follow(predict, predictions, rows, load_audio=load_audio, **options)
        whole = [row for row in rows if row.has("audio") and row.has("text")]
        picked = np.linspace(0, len(whole) - 1, min(material.erased, len(whole))).round().astype(int)
        found["erasure"] = {
            name: erasure(
                material.predict_labels or predict,
                attribute,
                [whole[place] for place in picked],
                load_audio=load_audio,
                name=f"erasure, {name}",
                **options,
            )
            for name, attribute in material.attributions.items()
        }
    else:
        left_out |= dict.fromkeys(("follow", "erasure"), "audio cannot be edited without load_audio")
    found["respoken"] = {}
    for change, again in material.respoken.items():
        if again and material.evidence_of is not None:
            options |= {"evidence_of": material.evidence_of, "name": f"another {change}"}
            found["respoken"][change] = respoken(predict, predictions, again, **options)
            found["respoken"][change]["not_respoken"] = len(rows) - len(again)
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
    """The measures of judges, and those that were left out, with the reason."""
    options: dict[str, Any] = {"judge": material.judge or tfidf_judge, "seed": seed}
    train = [row for row in material.train_rows if row.label and row.has("rationale")]
    if len(train) < LEAST_JUDGED:
        why = f"{len(train)} training rows with label and rationale; a judge wants {LEAST_JUDGED} or more"
        return {}, dict.fromkeys(("simulatability", "agreement", "counterfactuals"), why)

    def training_rows(_: str, done: int, total: int) -> None:
        if progress:
            progress("training rows", done, total)

    explained = [
        [Explained(row.text, prediction) for row, prediction in zip(side, predicted, strict=True)]
        for side, predicted in (
            (train, predict_rows(predict, train, progress=training_rows)),
            (rows, predictions),
        )
    ]
    found = {
        "simulatability": simulatability(*explained, **options),
        "agreement": agreement(train, predictions, **options),
    }
    left_out = {}
    if "las" not in found["simulatability"]:
        group = "leaking" if found["simulatability"]["leaking"]["n"] else "not_leaking"
        left_out["LAS"] = f"all {len(rows):,} rows are {group}, and it is the mean over both groups"
    if material.force is None:
        left_out["counterfactuals"] = "no label can be forced on this model"
    else:
        options |= {"labels": labels, "progress": progress}
        found["counterfactuals"] = counterfactuals(material.force, predictions, rows, train, **options)
    return found, left_out


def tfidf_judge(train: Sequence[Texts], labels: Sequence[str], test: Sequence[Texts]) -> list[str]:
    """The default judge (see `baselines.tfidf_classifier`); a single label needs no classifier."""
    if len(set(labels)) == 1:
        return [labels[0]] * len(test)
    return tfidf_classifier(len(train[0])).fit(train, labels).predict(test).tolist()


def simulatability(
    train: Sequence[Explained], test: Sequence[Explained], *, judge: Judge = tfidf_judge, seed: int = 0
) -> dict[str, Any]:
    """Leakage-adjusted simulatability (LAS, Hase et al. 2020, arXiv 2010.04119) of the predicted labels.

    The effect is how much better a judge predicts the model's label from transcript and rationale than from
    the transcript alone. A rationale may give the label away, so the effect is also measured separately in
    rows whose rationale *leaks* (the judge that reads it alone is right) and in the others; the mean of both
    is the LAS. Deviation: the three judges are three classifiers, not one network with dropped inputs.

    Returns:
        `accuracy` of the judges {text+rationale, text, rationale: metric}; `effect`, of all rows; `leaking`
        and `not_leaking`, the effect in each group; `las`, where both groups have rows; `label_not_named`:
        the same but `accuracy` of the rows whose rationale does not contain the predicted label's name.
    """
    fields: dict[str, Callable[[Explained], Texts]] = {
        "text+rationale": lambda row: (row.text or "", row.prediction.predicted_rationale or ""),
        "text": lambda row: (row.text or "",),
        "rationale": lambda row: (row.prediction.predicted_rationale or "",),
    }
    learned, expected = ([str(row.prediction.predicted_label) for row in rows] for rows in (train, test))
    right = {
        name: np.array(judge([*map(read, train)], learned, [*map(read, test)])) == np.array(expected)
        for name, read in fields.items()
    }
    rows = [row.prediction for row in test]
    hidden = np.array([not _names(row.predicted_rationale, str(row.predicted_label)) for row in rows])
    unnamed = {name: values[hidden] for name, values in right.items()}
    return {
        "accuracy": {name: mean_with_interval(values, rows, seed=seed) for name, values in right.items()},
        **_effects(right, rows, seed),
        "label_not_named": _effects(unnamed, [*itertools.compress(rows, hidden)], seed),
    }


def _effects(right: Mapping[str, np.ndarray], rows: Sequence[Prediction], seed: int) -> dict[str, Any]:
    leaking = right["rationale"]
    gain = right["text+rationale"].astype(float) - right["text"]
    found: dict[str, Any] = {"effect": mean_with_interval(gain, rows, seed=seed)}
    for name, group in (("leaking", leaking), ("not_leaking", ~leaking)):
        found[name] = mean_with_interval(gain[group], [*itertools.compress(rows, group)], seed=seed)
    if leaking.any() and not leaking.all():
        # UAR over the two groups is their mean, and its bootstrap resamples speakers
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
    """How often a judge, trained on `train`, reads the predicted label off the predicted rationale.

    Returns:
        `agreement`; and `judge`, how often it reads the true label off the true rationale, an upper bound.
    """
    gold = [row for row in predictions if row.label and has_text(row.rationale)]
    texts = [row.predicted_rationale for row in predictions] + [row.rationale for row in gold]
    read = judge(*_lessons(train), [(text or "",) for text in texts])
    of_model, of_gold = read[: len(predictions)], read[len(predictions) :]
    agrees = [label == row.predicted_label for label, row in zip(of_model, predictions, strict=True)]
    right = [label == row.label for label, row in zip(of_gold, gold, strict=True)]
    return {
        "agreement": mean_with_interval(agrees, predictions, seed=seed),
        "judge": mean_with_interval(right, gold, seed=seed),
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
    """Whether the rationale of a forced label differs, and explains that label to a judge.

    Each row is forced to each label that was not predicted.

    Returns:
        `rationale_changes` and `label_read` (the judge reads the forced label off the rationale): shares of
        pairs of row and label, which `n` counts.
    """
    forced: list[tuple[Prediction, str, str]] = []  # prediction, forced label, its rationale
    for label in labels:
        others = [place for place, row in enumerate(predictions) if row.predicted_label != label]
        inputs = [rows[place].model_input() for place in others]
        answers = answer_utterances(force(label), inputs, condition=f"forced {label}", progress=progress)
        forced += [
            (predictions[place], label, answer.rationale or "")
            for place, answer in zip(others, answers, strict=True)
        ]
    read = judge(*_lessons(train), [(rationale,) for *_, rationale in forced])
    pairs = [row for row, *_ in forced]
    changes = [rationale != row.predicted_rationale for row, _, rationale in forced]
    agrees = [found == label for found, (_, label, _) in zip(read, forced, strict=True)]
    return {
        "rationale_changes": mean_with_interval(changes, pairs, seed=seed),
        "label_read": mean_with_interval(agrees, pairs, seed=seed),
    }


def matching(
    predictions: Sequence[Prediction], rows: Sequence[Utterance], *, fit: Fit = tfidf_fit, seed: int = 0
) -> dict[str, Any]:
    """Whether rationales fit their own transcript better than those of other rows with the same label.

    Measures that ask a judge for the label do not see rationales that are exchanged within a label; this one
    does (see `mmsr.evaluation.matching`).

    Returns:
        `own`, of the model's rationales; `permuted`, of the same after each row was given that of another,
        drawn at random; `difference` between the two; `reference`, of the reference rationales by their true
        labels, where there are any. `quoted`: the share of rationales that quote (see `mmsr.quotations`). Of
        those `grounded`, the share whose quotations are all in the transcript, and `grounded_permuted`, the
        same of the drawn ones. Only rows with two others or more count; {} if there are none.
    """
    texts = [row.words or "" for row in rows]

    def compare(labels: Sequence[str | None], rationales: Sequence[str | None]) -> dict[int, Match]:
        return matches(texts, rationales, labels, [row.language for row in rows], fit=fit, seed=seed)

    written = [row.predicted_rationale for row in predictions]
    found = compare([row.predicted_label for row in predictions], written)
    if not found:
        return {}
    kept = [rows[place] for place in found]

    def mean(values: Sequence[float] | np.ndarray, of: Sequence[Utterance]) -> dict[str, Any]:
        return mean_with_interval(values, of, seed=seed)

    own, permuted = (np.array([getattr(one, side) for one in found.values()]) for side in ("own", "permuted"))
    metrics = {
        "own": mean(own, kept),
        "permuted": mean(permuted, kept),
        "difference": mean(own - permuted, kept),
    }
    truth = compare([row.label for row in rows], [row.rationale for row in rows])
    if truth:
        own = np.array([one.own for one in truth.values()])
        metrics["reference"] = mean(own, [rows[place] for place in truth])
    quoting = [place for place in found if quotations(written[place] or "")]
    metrics["quoted"] = mean([place in set(quoting) for place in found], kept)
    for name, rationales in (
        ("grounded", [written[place] for place in quoting]),
        ("grounded_permuted", [written[found[place].other] for place in quoting]),
    ):
        values = [
            is_grounded(text or "", texts[place]) for place, text in zip(quoting, rationales, strict=True)
        ]
        metrics[name] = mean(values, [rows[place] for place in quoting])
    return metrics


def _lessons(train: Sequence[Utterance]) -> tuple[list[Texts], list[str]]:
    """Rationales and labels, a judge's training data."""
    return [(row.rationale or "",) for row in train], [str(row.label) for row in train]


def _names(rationale: str | None, label: str) -> bool:
    tokens = UnicodeTokenizer().tokenize
    words, name = tokens(rationale or ""), tokens(label)
    return any(words[start : start + len(name)] == name for start in range(len(words)))
