"""The grammar and the rule of the demo corpus."""

from collections import Counter

import pytest

from mmsr.data.corpora.demo.corpus import voices_of
from mmsr.data.corpora.demo.grammar import DESIGN, LABELS, LANGUAGES, MANNERS, RULE


def test_rule_and_design():
    assert set(RULE) == {(valence, manner) for valence in LABELS for manner in MANNERS}
    assert RULE["positive", "upset"] == ("negative", "sarcasm")
    assert all(manner == "even" for _, manner in DESIGN["words"])
    assert all(valence == "neutral" for valence, _ in DESIGN["voice"])
    assert all(RULE[cell][0] != cell[0] or cell == ("negative", "cheerful") for cell in DESIGN["conflict"])


def test_every_language_can_say_everything(utterance):
    for language, grammar in LANGUAGES.items():
        for valence in LABELS:
            phrases = grammar.phrases(valence)
            assert len(set(phrases)) == len(phrases) >= 8, language
            assert all(phrase == phrase.lower() for phrase in phrases)
        assert set(grammar.reasons) == {reason for _, reason in RULE.values()}
        assert set(grammar.voices) == set(MANNERS)
        assert len(voices_of(language, "train")) >= 5
        rationales = {
            utterance(language=language, valence=valence, manner=manner).rationale for valence, manner in RULE
        }
        reasons = {(reason, manner) for (_, manner), (_, reason) in RULE.items()}
        assert len(rationales) == len(reasons)  # what differs in evidence differs in words


@pytest.mark.parametrize("perceived", [0, 1], ids=["words", "voice"])
def test_one_modality_has_a_clear_best_guess(perceived):
    shares: dict[str, Counter] = {}
    for cells in DESIGN.values():
        for cell, share in cells.items():
            shares.setdefault(cell[perceived], Counter())[RULE[cell][0]] += share
    for counts in shares.values():
        first, second, *_ = [*sorted(counts.values(), reverse=True), 0]
        assert first >= 1.35 * second
