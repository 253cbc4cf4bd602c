"""The figures of what a checkpoint names as its evidence: quotations, the words' effect, the voice's emotion.

| figure | rows |
|---|---|
| `quoted` | held-out texts whose predicted label is not neutral: one to eight words are quoted |
| `said` | quotations of them: whole words of the transcript |
| `erasure` | what the label's probability loses without the quoted words, and without as many at random |
| `forced` | held-out texts, each label forced: the words quoted for it, and their effect |
| `swapped` | held-out voices beside one text: the voice is called what it is called alone |
| `voices` | held-out voices: the emotion that listeners voted for, and that was acted, beside a probe's |
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from baselines import fit_probe
from held_out import HeldOut

from mmsr.evaluation.entries import mean_with_interval
from mmsr.evaluation.explain.erasure import erase_words
from mmsr.evaluation.rationales import word_spans
from mmsr.evaluation.run import predict_rows
from mmsr.inference.template import MOST_WORDS
from mmsr.quotations import locate
from mmsr.records import Predict, Prediction, Progress, Utterance

Entry = dict[str, Any]

VOTES = {"A": "anger", "D": "disgust", "F": "fear", "H": "happiness", "N": "neutral", "S": "sadness"}
"""Letters of CREMA-D's votes; those with a tie name several."""
BESIDE = "I will be at the office until the end of the week."
"""The text beside which voices are swapped."""


def score_quotations(sets: Sequence[HeldOut], predict: Predict, *, seed: int, progress: Progress) -> Entry:
    """`quoted`, `said` and `erasure` of texts alone, over all and by language."""
    rows = [replace(row, audio=None) for one in sets for row in one.rows]
    answered = [
        row for row in predict_rows(predict, rows, progress=progress) if row.predicted_label != "neutral"
    ]
    texts = {str(row.id): str(row.text) for row in rows}
    named = [(row, str(row.predicted_label)) for row in answered]
    effects = _effects(named, texts, predict, seed=seed, progress=progress)
    languages = sorted({str(row.language) for row in answered})
    record: Entry = {}
    for name in ("all", *languages):
        own = [row for row in answered if name in ("all", row.language)]
        quoted = [one for row in own for one in row.evidence or ()]
        has = [bool(row.evidence) and _words(row) <= MOST_WORDS for row in own]
        whole = [
            locate(one["text"], texts[row.id]) is not None
            and one["text"] == texts[row.id][one["start"] : one["end"]]
            and f'"{one["text"]}"' in str(row.predicted_rationale)
            for row in own
            for one in row.evidence or ()
        ]
        measured = [effects[row.id] for row in own if row.id in effects]
        record[name] = {
            "n": len(own),
            "quoted": mean_with_interval(np.array(has), own),
            "quotations": len(quoted),
            "said": float(np.mean(whole)) if whole else None,
            "words": float(np.mean([_words(row) for row in own if row.evidence])) if quoted else None,
            "erasure": _paired(measured, [row for row in own if row.id in effects]),
        }
    return record


def _words(row: Prediction) -> int:
    """Number of quoted words between spaces; in scripts without spaces the template counts tokens."""
    return max((len(one["text"].split()) for one in row.evidence or ()), default=0)


def score_forced(
    rows: Sequence[Utterance], forced: Mapping[str, Predict], *, seed: int, progress: Progress
) -> Entry:
    """What is quoted where each label is forced, of texts alone.

    Args:
        rows: Held-out rows.
        forced: By label, the model that explains this label.
        seed: Of the random words.
        progress: Called with the texts done.

    Returns:
        `differs`: by two labels, the share of texts with a quotation for both whose quotations differ.
        `labels`: of each label over the texts for which another was predicted, `quoted`, `words`, and what
        the label's probability loses without the quoted words, beside as many at random (`erasure`) and
        beside the words that are quoted for the predicted label (`against_predicted`).
    """
    rows = [replace(row, audio=None) for row in rows]
    texts = {str(row.id): str(row.text) for row in rows}
    answered = {label: predict_rows(predict, rows, progress=progress) for label, predict in forced.items()}
    record: Entry = {"n": len(rows), "differs": {}, "labels": {}}
    for labels in combinations(forced, 2):
        both = [
            pair for pair in zip(*(answered[label] for label in labels), strict=True) if all(map(_span, pair))
        ]
        differ = np.array([_span(one) != _span(other) for one, other in both])
        record["differs"][" - ".join(labels)] = mean_with_interval(differ, [one for one, _ in both])
    for label, predict in forced.items():
        own = [row for row in answered[label] if row.predicted_label != label]
        quoting = [row for row in own if row.evidence]
        predicted = {row.id: row for name in forced for row in answered[name] if row.predicted_label == name}
        effects = _effects([(row, label) for row in own], texts, predict, seed=seed, progress=progress)
        others = _effects(
            [(replace(row, evidence=predicted[row.id].evidence), label) for row in own],
            texts,
            predict,
            seed=seed,
            progress=progress,
        )
        beside = [row for row in own if row.id in effects and row.id in others]
        record["labels"][label] = {
            "n": len(own),
            "quoted": mean_with_interval(np.array([bool(row.evidence) for row in own]), own),
            "words": float(np.mean([_words(row) for row in quoting])) if quoting else None,
            "erasure": _paired(
                [effects[row.id] for row in own if row.id in effects],
                [row for row in own if row.id in effects],
            ),
            "against_predicted": mean_with_interval(
                np.array([effects[row.id][0] - others[row.id][0] for row in beside]), beside
            ),
        }
    return record


def _span(row: Prediction) -> tuple[int, int] | None:
    """The characters of a text that a rationale quotes first."""
    return next(((one["start"], one["end"]) for one in row.evidence or ()), None)


def _effects(
    rows: Sequence[tuple[Prediction, str]],
    texts: Mapping[str, str],
    predict: Predict,
    *,
    seed: int,
    progress: Progress,
) -> dict[str, tuple[float, float]]:
    """What a label's probability loses without the quoted words, and without as many others, by id.

    `rows` have predictions, each with the label whose probability is meant.
    """
    generator = np.random.default_rng(seed)
    changed: list[Utterance] = []
    lost = []
    for row, label in rows:
        if not row.evidence:
            continue
        text, (first, *_) = texts[row.id], row.evidence
        spans = word_spans(text)
        chosen = np.array([start < first["end"] and end > first["start"] for start, end in spans])
        count = int(chosen.sum())
        if not 0 < count < len(spans):
            continue
        begin = int(generator.integers(0, len(spans) - count + 1))
        other = np.arange(len(spans))
        control = (begin <= other) & (other < begin + count)
        kept = [erase_words(text, spans, mask) for mask in (chosen, control)]
        if all(kept):
            changed += [
                Utterance(id=f"{row.id}/{i}", text=left, language=row.language) for i, left in enumerate(kept)
            ]
            lost.append((row, label))
    answers = predict_rows(predict, changed, progress=progress)
    found = {}
    for (row, label), without, beside in zip(lost, answers[::2], answers[1::2], strict=True):
        found[row.id] = (
            row.scores[label] - without.scores[label],
            row.scores[label] - beside.scores[label],
        )
    return found


def _paired(effects: Sequence[tuple[float, float]], rows: Sequence[Prediction]) -> Entry:
    values = np.array(effects).reshape(-1, 2)
    if not len(values):
        return {"n": 0}
    return {
        "quoted": float(values[:, 0].mean()),
        "random": float(values[:, 1].mean()),
        "difference": mean_with_interval(values[:, 0] - values[:, 1], rows),
    }


def score_voices(
    crema: Sequence[Utterance],
    predict: Predict,
    *,
    emotions: Mapping[str, tuple[str, str]],
    states: np.ndarray | None,
    progress: Progress,
) -> Entry:
    """`swapped` and `voices` of the test speakers.

    Args:
        crema: All clips, with their `split`.
        predict: The model.
        emotions: By id, the acted emotion and the letters of the vote.
        states: Mean states of Whisper's layers of these clips `[n, l, d]`, for the probe; None without it.
        progress: Called with the clips done.
    """
    test = [row for row in crema if row.split == "test"]
    alone = predict_rows(predict, [replace(row, text=None) for row in test], progress=progress)
    beside = predict_rows(predict, [replace(row, text=BESIDE) for row in test], progress=progress)
    called = [_called(row) for row in alone]
    record: Entry = {
        "swapped": mean_with_interval(
            np.array([_called(row) == own for row, own in zip(beside, called, strict=True)]), alone
        ),
        "phrase": mean_with_interval(
            np.array(
                [
                    str(row.predicted_rationale).endswith(str(own.predicted_rationale))
                    for row, own in zip(beside, alone, strict=True)
                ]
            ),
            alone,
        ),
    }
    systems = {"model": called}
    if states is not None:
        acted, parts = (
            np.array([emotions[str(row.id)][0] for row in crema]),
            np.array([row.split for row in crema]),
        )
        probe, facts = fit_probe(states, acted, parts)
        systems["probe"] = probe.predict(states[parts == "test", facts["layer"]]).tolist()
        record["probe"] = facts
    for what in ("vote", "acted"):
        true = [
            VOTES.get(emotions[str(row.id)][1]) if what == "vote" else emotions[str(row.id)][0]
            for row in test
        ]
        kept = [place for place, emotion in enumerate(true) if emotion is not None]
        rows = [alone[place] for place in kept]
        hits = {
            name: np.array([found[place] == true[place] for place in kept]) for name, found in systems.items()
        }
        record[what] = {name: mean_with_interval(hit, rows) for name, hit in hits.items()}
        if "probe" in hits:
            difference = hits["model"].astype(float) - hits["probe"]
            record[what]["model - probe"] = mean_with_interval(difference, rows)
    return record


def _called(row: Prediction) -> str | None:
    return None if not row.voice else max(row.voice, key=row.voice.__getitem__)


def emotions_of(data: Path) -> dict[str, tuple[str, str]]:
    """The acted emotion and the letters of the listeners' vote of each clip of CREMA-D, by its row's id."""
    folder = data / "crema-d"
    columns = []
    for name, column in (("manifest.csv", "emotion"), ("extra.csv", "voice_vote")):
        with open(folder / name, newline="", encoding="utf-8") as file:
            columns.append({Path(row["audio"]).stem: row[column] for row in csv.DictReader(file)})
    return {f"crema/{stem}": (emotion, columns[1][stem]) for stem, emotion in columns[0].items()}
