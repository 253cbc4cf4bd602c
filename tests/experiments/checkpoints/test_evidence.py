"""Figures of evidence: a quotation that matters, one that was not said, voices that depend on the text."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from evidence import emotions_of, score_forced, score_quotations, score_voices
from held_out import crema_rows

from mmsr.records import Answer, Utterance

QUIET = {"progress": lambda *_: None}


def answered(text: str, quoted: str | None, label: str = "positive", score: float = 0.9) -> Answer:
    scores = {"negative": (1 - score) / 2, "neutral": (1 - score) / 2, "positive": score}
    start = -1 if quoted is None else text.find(quoted)
    one = {"text": quoted, "start": start, "end": start + len(quoted or "")}
    rationale = "words" if quoted is None else f'words: "{quoted}"'
    evidence = () if quoted is None else (one,)
    return Answer(
        label=label, score=score, scores=scores, rationale=rationale, grounded=True, evidence=evidence
    )


class Reader:
    """Is sure where it reads "good", and quotes it, or another word."""

    def __init__(self, quotes: str = "good") -> None:
        self.quotes = quotes

    def __call__(self, utterances: list[Utterance]) -> list[Answer]:
        return [
            answered(
                str(one.text),
                self.quotes if self.quotes in str(one.text) else None,
                score=0.9 if "good" in str(one.text) else 0.5,
            )
            for one in utterances
        ]


def texts(count: int) -> Any:
    rows = [
        Utterance(id=str(i), text=f"a good day {i} for all of you", language="de" if i % 2 else "en")
        for i in range(count)
    ]
    return [SimpleNamespace(rows=rows)]


def test_words_that_matter_are_told_from_words_that_do_not():
    found = score_quotations(texts(40), Reader(), seed=0, **QUIET)
    assert set(found) == {"all", "de", "en"} and found["en"]["n"] == 20
    assert found["all"]["quoted"]["value"] == found["all"]["said"] == found["all"]["words"] == 1
    erased = found["all"]["erasure"]
    assert erased["quoted"] == pytest.approx(0.4) and 0 < erased["random"] < 0.15
    assert erased["difference"]["interval"][0] > 0.2
    other = score_quotations(texts(40), Reader("you"), seed=0, **QUIET)["all"]["erasure"]
    assert other["quoted"] == 0 and other["difference"]["value"] <= 0


class Forced:
    """Is negative by "bad", else positive, and quotes for a label that is forced what it is given."""

    def __init__(self, quoted: str | None) -> None:
        self.quoted = quoted

    def __call__(self, utterances: list[Utterance]) -> list[Answer]:
        found = []
        for one in utterances:
            text = str(one.text)
            score = 0.5 + 0.4 * ("bad" in text) - 0.3 * ("good" in text)
            label = "negative" if score >= 0.5 else "positive"
            quoted = self.quoted if self.quoted in text.split() else None
            made = answered(text, quoted, label)
            found.append(replace(made, scores={"negative": score, "neutral": 0.0, "positive": 1 - score}))
        return found


def test_what_is_quoted_for_a_forced_label_is_judged_by_that_label():
    rows = [Utterance(id=str(i), text=f"a good and bad day {i} for all of you") for i in range(40)]
    labels = {"negative": "bad", "neutral": None, "positive": "good"}
    found = score_forced(rows, {one: Forced(quoted) for one, quoted in labels.items()}, seed=0, **QUIET)
    assert found["n"] == 40 and found["differs"]["negative - positive"]["value"] == 1
    assert found["differs"]["negative - neutral"] == {"n": 0}
    assert found["labels"]["negative"]["n"] == 0  # it was predicted
    positive = found["labels"]["positive"]
    assert positive["n"] == 40 and positive["quoted"]["value"] == positive["words"] == 1
    assert positive["erasure"]["quoted"] == pytest.approx(0.3)
    assert positive["erasure"]["difference"]["interval"][0] > 0.1
    assert positive["against_predicted"]["value"] == pytest.approx(0.7)
    assert found["labels"]["neutral"]["quoted"]["value"] == 0
    same = score_forced(rows, dict.fromkeys(("negative", "positive"), Forced("bad")), seed=0, **QUIET)
    assert same["differs"]["negative - positive"]["value"] == 0
    assert same["labels"]["positive"]["erasure"]["quoted"] < 0
    assert same["labels"]["positive"]["against_predicted"]["value"] == 0


def test_what_was_not_said_is_counted():
    class Liar(Reader):
        def __call__(self, utterances: list[Utterance]) -> list[Answer]:
            return [answered(str(one.text), "ood day") for one in utterances]

    found = score_quotations(texts(4), Liar(), seed=0, **QUIET)["all"]
    assert found["said"] == 0 and found["quotations"] == 4


def test_texts_without_quotations_and_neutral_ones_have_no_effect():
    found = score_quotations(texts(6), Reader("nowhere"), seed=0, **QUIET)["all"]
    assert found["quoted"]["value"] == 0 and found["said"] is None and found["erasure"] == {"n": 0}


def test_voices_are_compared_with_votes_and_a_probe(corpora):
    rows, emotions = crema_rows(corpora), emotions_of(corpora)
    assert {row.id for row in rows} == set(emotions)
    names = sorted({acted for acted, _ in emotions.values()})

    def predict(utterances: list[Utterance], swayed: bool = False) -> list[Answer]:
        found = []
        for one in utterances:
            acted = emotions[f"crema/{str(one.audio).rpartition('/')[2].partition('.')[0]}"][0]
            called = names[0] if swayed and one.text else acted
            voice = {name: float(name == called) for name in names}
            found.append(
                Answer(label="neutral", score=1.0, scores={"neutral": 1.0}, rationale=called, voice=voice)
            )
        return found

    states = np.random.default_rng(0).standard_normal((len(rows), 3, 4))
    found = score_voices(rows, predict, emotions=emotions, states=states, **QUIET)
    assert found["swapped"]["value"] == found["phrase"]["value"] == found["acted"]["model"]["value"] == 1
    assert found["acted"]["model - probe"]["value"] > 0 and found["probe"]["layer"] in (1, 2)
    swayed = score_voices(
        rows, lambda given: predict(given, swayed=True), emotions=emotions, states=None, **QUIET
    )
    assert swayed["swapped"]["value"] < 1 and set(swayed["vote"]) == {"model"}
