"""Grounding: whether answers follow the words and the voice, when either is silenced, swapped or dropped.

rows ─► edited inputs ─► `predict` ─► share of labels and rationales that change           (any corpus)
rows spoken again by a generator that knows the answer ─► share that agrees with the generator  (`respoken`)
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mmsr.evaluation.entries import mean_with_interval
from mmsr.evaluation.explain.erasure import LoadAudio, erase_words
from mmsr.evaluation.rationales import UnicodeTokenizer, word_spans
from mmsr.evaluation.run import answer_utterances, shuffle
from mmsr.records import Predict, Prediction, Progress, Utterance

EvidenceOf = Callable[[str, str | None], tuple[str | None, str | None]]
"""Returns the words and the manner of voice that a rationale names, given its language; None each."""


def follow(
    predict: Predict,
    predictions: Sequence[Prediction],
    rows: Sequence[Utterance],
    *,
    load_audio: LoadAudio,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Share of labels and of rationales that change when a row's voice or named words do.

    `silenced`: the audio is zero. `swapped`: the audio is another row's (see `run.shuffle`).
    `named_words_dropped`: the transcript lacks the words that the rationale has in common with it.
    `other_words_dropped`: it lacks as many of its words, drawn at random. A grounded rationale changes with
    its words or its voice.

    `predictions` are those of the unedited `rows`, in their order.

    Returns:
        For each of the four `label_changes` and `rationale_changes` (see `entries.mean_with_interval`), for
        `named_words_dropped` also `words_unnamed`: the mean share of these words that the new rationale does
        not name. An edit that no row allows has no key.
    """
    edits = {
        "silenced": _silenced(rows, load_audio),
        "swapped": _swapped(rows, seed),
        **_words_dropped(rows, predictions, seed),
    }
    metrics = {}
    for name, edited in edits.items():
        kept = sorted(edited)
        if not kept:
            continue
        inputs = [edited[place][0] for place in kept]
        answers = answer_utterances(predict, inputs, condition=name, progress=progress)
        pairs = list(zip([predictions[place] for place in kept], answers, strict=True))
        changed: dict[str, Sequence[float]] = {
            "label_changes": [row.predicted_label != answer.label for row, answer in pairs],
            "rationale_changes": [row.predicted_rationale != answer.rationale for row, answer in pairs],
        }
        if name == "named_words_dropped":
            dropped = [edited[place][1] for place in kept]
            changed["words_unnamed"] = [
                len(words - set(_tokens(answer.rationale))) / len(words)
                for answer, words in zip(answers, dropped, strict=True)
            ]
        edited_rows = [rows[place] for place in kept]
        metrics[name] = {
            measure: mean_with_interval(values, edited_rows, seed=seed) for measure, values in changed.items()
        }
    return metrics


def respoken(
    predict: Predict,
    predictions: Sequence[Prediction],
    rows: Sequence[Utterance],
    *,
    evidence_of: EvidenceOf,
    seed: int = 0,
    progress: Progress | None = None,
    name: str = "respoken",
) -> dict[str, Any]:
    """Compares answers to rows that were spoken again with the generator's and with the earlier answers.

    `rows` have the new audio, and the label and rationale that are right for it; `predictions` are those of
    the original rows with the same ids. `progress` is called with the step `name`.

    Returns:
        `label_right`, `manner_named` and `words_named`: shares that agree with the generator; `label_stays`
        and `evidence_stays`: shares that agree with the model's earlier answer; `label_must_change` and
        `label_must_stay`: `label_right` of the rows whose right label is another than before, or the same.

    Raises:
        ValueError: A row without a prediction.
    """
    before = {row.id: row for row in predictions}
    for row in rows:
        if row.id not in before:
            raise ValueError(f"row {row.id!r} was spoken again, yet has no prediction as it was")
    inputs = [row.model_input() for row in rows]
    answers = answer_utterances(predict, inputs, condition=name, progress=progress)
    old = [before[str(row.id)] for row in rows]
    named, right, was = (
        [evidence_of(rationale or "", row.language) for row, rationale in zip(rows, rationales, strict=True)]
        for rationales in (
            [answer.rationale for answer in answers],
            [row.rationale for row in rows],
            [row.predicted_rationale for row in old],
        )
    )
    hits = np.array([answer.label == row.label for row, answer in zip(rows, answers, strict=True)])
    must_change = np.array([row.label != earlier.label for row, earlier in zip(rows, old, strict=True)])
    found: dict[str, Any] = {
        "label_right": hits,
        "words_named": [ours[0] == theirs[0] for ours, theirs in zip(named, right, strict=True)],
        "manner_named": [ours[1] == theirs[1] for ours, theirs in zip(named, right, strict=True)],
        "label_stays": [new.label == row.predicted_label for new, row in zip(answers, old, strict=True)],
        "evidence_stays": [new == earlier for new, earlier in zip(named, was, strict=True)],
    }
    metrics = {measure: mean_with_interval(values, rows, seed=seed) for measure, values in found.items()}
    for measure, part in (("label_must_change", must_change), ("label_must_stay", ~must_change)):
        metrics[measure] = mean_with_interval(hits[part], [*itertools.compress(rows, part)], seed=seed)
    return metrics


Edited = dict[int, tuple[Utterance, set[str]]]
"""Model inputs by the row's place, each with the words that it lacks."""


def _silenced(rows: Sequence[Utterance], load_audio: LoadAudio) -> Edited:
    return {
        place: (replace(row.model_input(), audio=np.zeros_like(load_audio(row.audio))), set())
        for place, row in enumerate(rows)
        if row.has("audio")
    }


def _swapped(rows: Sequence[Utterance], seed: int) -> Edited:
    places = [place for place, row in enumerate(rows) if row.has("audio") and row.has("text")]
    if len(places) < 2:
        return {}
    donors = shuffle([rows[place].language for place in places], seed=seed)
    return {
        place: (replace(rows[place].model_input(), audio=rows[places[donor]].audio), set())
        for place, donor in zip(places, donors, strict=True)
    }


def _words_dropped(
    rows: Sequence[Utterance], predictions: Sequence[Prediction], seed: int
) -> Mapping[str, Edited]:
    """Of rows with audio only: others might be left without any input."""
    generator = np.random.default_rng(seed)
    edits: dict[str, Edited] = {"named_words_dropped": {}, "other_words_dropped": {}}
    for place, (row, prediction) in enumerate(zip(rows, predictions, strict=True)):
        text = row.text or ""
        spans = word_spans(text)
        words = [" ".join(_tokens(text[start:end])) for start, end in spans]
        rationale = set(_tokens(prediction.predicted_rationale))
        named = np.array([word in rationale for word in words], dtype=bool)
        if not named.any() or not row.has("audio"):
            continue
        for name, erased in zip(edits, (named, generator.permutation(named)), strict=True):
            dropped = set(itertools.compress(words, erased))
            edits[name][place] = replace(row.model_input(), text=erase_words(text, spans, erased)), dropped
    return edits


def _tokens(text: str | None) -> list[str]:
    return UnicodeTokenizer().tokenize(text or "")
