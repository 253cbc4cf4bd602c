"""Grammar of the demo corpus, and the rule that gives the label.

An utterance is *words* (a sentence whose key phrase is a complaint, a neutral fact or praise) spoken in a
*manner* of voice. `RULE` maps the two to a label and a reason. The rationale gives the reason, the quoted
phrase and the manner in the utterance's language. Sentences are short, in lower case, and made of

    opener + subject + phrase + tail          (Chinese: opener + tail + subject + phrase)

Only the phrase carries feeling: all three valences share openers, subjects and tails. The words stand in
grammar.toml. Nothing here is measured from people: it is a toy world with a known answer.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Valence = Literal["negative", "neutral", "positive"]
Manner = Literal["even", "upset", "cheerful", "weary"]
Kind = Literal["words", "voice", "conflict"]

LABELS: tuple[Valence, ...] = ("negative", "neutral", "positive")
MANNERS: tuple[Manner, ...] = ("even", "upset", "cheerful", "weary")

#: (valence of the words, manner of the voice) -> (label, reason). An upset voice is always negative (praise
#: becomes sarcasm) and a complaint stays a complaint (a cheerful one is a bitter joke); a weary voice takes
#: the warmth out of praise; a cheerful voice turns a plain fact into good news.
RULE: dict[tuple[Valence, Manner], tuple[str, str]] = {
    ("negative", "even"): ("negative", "complaint"),
    ("negative", "upset"): ("negative", "complaint"),
    ("negative", "cheerful"): ("negative", "bitter joke"),
    ("negative", "weary"): ("negative", "complaint"),
    ("neutral", "even"): ("neutral", "report"),
    ("neutral", "upset"): ("negative", "annoyance"),
    ("neutral", "cheerful"): ("positive", "delight"),
    ("neutral", "weary"): ("neutral", "indifference"),
    ("positive", "even"): ("positive", "satisfaction"),
    ("positive", "upset"): ("negative", "sarcasm"),
    ("positive", "cheerful"): ("positive", "delight"),
    ("positive", "weary"): ("neutral", "politeness"),
}

#: kind -> shares of its cells; each kind is a third of the rows. The shares were enumerated: neither
#: modality alone gets far, its best guess leads the second best by half in every cell, and the most accurate
#: guess also has the highest macro-F1 (see `mmsr.data.corpora.demo.corpus.ceilings`).
DESIGN: dict[Kind, dict[tuple[Valence, Manner], int]] = {
    "words": {("negative", "even"): 4, ("neutral", "even"): 4, ("positive", "even"): 6},
    "voice": {("neutral", "upset"): 3, ("neutral", "cheerful"): 6, ("neutral", "weary"): 5},
    "conflict": {("positive", "upset"): 3, ("positive", "weary"): 2, ("negative", "cheerful"): 9},
}

#: split -> voice variants of espeak-ng. A variant (formants, base pitch, breath) speaks in one split only, in
#: all languages, so a test voice is new to a model trained on all five languages.
VARIANTS: dict[str, tuple[str, ...]] = {
    "train": ("m1", "f1", "m3", "f3", "m8", "f4"),
    "dev": ("m2", "f5"),
    "test": ("m7", "f2"),
}


@dataclass(frozen=True, kw_only=True)
class Topic:
    """Subjects that take the same predicates, and these predicates (the phrases) by valence."""

    subjects: tuple[str, ...]
    phrases: dict[Valence, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Language:
    """A language: its espeak-ng accents, its grammar, and the words of its rationales."""

    accents: tuple[str, ...]
    sentence: str
    openers: tuple[str, ...]
    tails: tuple[str, ...]
    topics: tuple[Topic, ...]
    rationale: str
    reasons: dict[str, str]
    voices: dict[Manner, str]

    @classmethod
    def from_toml(cls, table: dict[str, Any]) -> Language:
        """The language of a table of grammar.toml."""
        topics = tuple(
            Topic(
                subjects=tuple(topic["subjects"]),
                phrases={valence: tuple(topic[valence]) for valence in LABELS},
            )
            for topic in table["topics"]
        )
        lists = {name: tuple(table[name]) for name in ("accents", "openers", "tails")}
        return cls(**{**table, **lists, "topics": topics})

    def phrases(self, valence: Valence) -> list[str]:
        """The phrases of a valence, over all topics."""
        return [phrase for topic in self.topics for phrase in topic.phrases[valence]]


LANGUAGES: dict[str, Language] = {
    code: Language.from_toml(table)
    for code, table in tomllib.loads(
        Path(__file__).with_name("grammar.toml").read_text(encoding="utf-8")
    ).items()
}
