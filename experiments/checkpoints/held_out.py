"""Which rows train, select and test the checkpoint `base`, the test sets, and pairs of a voice and a text.

corpora ─► `speaker_part`, `text_part` ─► train, selection, test
test rows ─► `load_sets`, and `pairs` of held-out voices and held-out texts

The training command and the test command both ask here, so that no row is in two parts.
"""

from __future__ import annotations

import csv
import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from mmsr.data.corpora.healthcare import SENTIMENT_REASONING
from mmsr.data.corpora.source import SENTIMENTS, Source
from mmsr.data.manifest.manifest import load_manifest, utterances
from mmsr.records import Utterance

Part = Literal["train", "selection", "test"]

DATA = Path("../shared/data")
TEXT_FILES = ("brighter", "goemotions", "kajava_subtitles", "tatoeba_projected", "topical_chat", "xed")
TWO_LABELS = ("negative", "positive")
SETS = ("crema", "ravdess", "goemotions", "brighter", "xed", "xed_neutral", "kajava", "paper")
MOST_SEEN = 0.1  # share of a test set that may occur in the training texts by chance, as "Thank you." does

_FOLDS = {"XED", "Kajava"}  # corpora of which a tenth of the train rows is the test set


# ---------------------------------------------------------------------- parts


def speaker_part(speaker: str) -> Part:
    """The part of a CREMA-D speaker, such as `crema_1001`: id mod 5 = 0 tests, 1 selects, the others train.

    Raises:
        ValueError: The name has no id.
    """
    found = re.fullmatch(r"crema_(\d+)", speaker)
    if found is None:
        raise ValueError(f"speaker is {speaker!r}; accepted: crema_ and an id, such as crema_1001")
    return _PARTS_OF_FIVE.get(int(found[1]) % 5, "train")


_PARTS_OF_FIVE: dict[int, Part] = {0: "test", 1: "selection"}


def text_fold(text: str) -> int:
    """The fold of a text, sha256 mod 10; equal texts are in one fold, whatever corpus they are from."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % 10


def text_part(source: str, text: str) -> Part:
    """The part of a text of a source such as `GoEmotions-train` or `XED-projected`.

    Development rows test. Of other rows fold 1 selects, and fold 0 tests where a corpus has no development
    rows but people's labels (XED, Kajava).
    """
    if source.endswith("-dev"):
        return "test"
    fold = text_fold(text)
    if fold == 1:
        return "selection"
    return "test" if fold == 0 and source.partition("-")[0] in _FOLDS else "train"


# ---------------------------------------------------------------------- rows


def text_rows(data: Path, files: Iterable[str] = TEXT_FILES) -> list[Utterance]:
    """Labelled texts of the corpora in `data`/sentiment-text, with `split` and, as `kind`, their source."""
    rows = []
    for name in files:
        with open(data / "sentiment-text" / f"{name}.csv", newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), start=1):
                rows.append(
                    Utterance(
                        id=f"{name}/{number}",
                        text=row["text"],
                        label=row["label"],
                        language=row["language"],
                        kind=row["source"],
                        split=text_part(row["source"], row["text"]),
                    )
                )
    return rows


def crema_rows(data: Path) -> list[Utterance]:
    """Clips of CREMA-D, with their `split`."""
    return [replace(row, split=speaker_part(str(row.speaker))) for row in _clips(data / "crema-d", "crema")]


def ravdess_rows(data: Path) -> list[Utterance]:
    """Clips of RAVDESS, which all test."""
    return [replace(row, split="test") for row in _clips(data / "ravdess16k", "ravdess")]


def paper_rows(data: Path) -> list[Utterance]:
    """The paper's training rows, vi and en, which all test: the checkpoint has not met this corpus."""
    source = Source((data / "sentiment-reasoning").resolve(), SENTIMENT_REASONING, "sentiment")
    return [
        Utterance(id=f"paper/{row.id}", text=row.text, label=row.label, language=row.language, split="test")
        for row in SENTIMENT_REASONING.read(source)
        if row.split == "train" and row.language in ("vi", "en")
    ]


def _clips(folder: Path, name: str) -> list[Utterance]:
    rows = utterances(load_manifest(folder / "manifest.csv", labels=SENTIMENTS, require=("audio", "label")))
    return [replace(row, id=f"{name}/{Path(str(row.audio)).stem}") for row in rows]


# ---------------------------------------------------------------------- test sets


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows that are scored together.

    Attributes:
        name: One of `SETS`.
        rows: The rows.
        column: What the model is given, `audio` or `text`.
        labels: The labels that are told apart.
        left_out: Number of rows left out, since their text is in the training texts.
    """

    name: str
    rows: list[Utterance]
    column: Literal["audio", "text"]
    labels: tuple[str, ...] = SENTIMENTS
    left_out: int = 0


def load_sets(
    data: Path, names: Collection[str], *, training_texts: Collection[str] = frozenset()
) -> list[HeldOut]:
    """Returns the test sets of these names, in the order of `SETS`.

    Rows whose text is in `training_texts` (see `read_training_texts`) are left out.

    `xed` and `kajava` have the two labels that all their languages have. `xed_neutral` has the rows of
    languages with a neutral label, and all three labels.

    Raises:
        ValueError: A name is unknown, a set is empty, or so many texts of a set are in the training texts
            that it was trained on.
    """
    if unknown := sorted(set(names) - set(SETS)):
        raise ValueError(f"set is {', '.join(unknown)}; accepted: {', '.join(SETS)}")
    found = [_load_set(data, name) for name in SETS if name in names]
    return [_without(one, training_texts) if one.column == "text" else one for one in found]


def _load_set(data: Path, name: str) -> HeldOut:
    if name in ("crema", "ravdess"):
        rows = crema_rows(data) if name == "crema" else ravdess_rows(data)
        return HeldOut(name, [row for row in rows if row.split == "test"], "audio")
    if name == "paper":
        return HeldOut(name, paper_rows(data), "text")
    file = {"kajava": "kajava_subtitles", "xed_neutral": "xed"}.get(name, name)
    rows = [row for row in text_rows(data, [file]) if row.split == "test"]
    if name in ("xed", "kajava"):
        return HeldOut(name, [row for row in rows if row.label in TWO_LABELS], "text", TWO_LABELS)
    with_neutral = {row.language for row in rows if row.label == "neutral"}
    return HeldOut(name, [row for row in rows if row.language in with_neutral], "text")


def _without(found: HeldOut, texts: Collection[str]) -> HeldOut:
    """The set without rows whose text is among `texts`."""
    kept = [row for row in found.rows if text_key(str(row.text)) not in texts]
    left_out = len(found.rows) - len(kept)
    if left_out > MOST_SEEN * len(found.rows):
        raise ValueError(
            f"{left_out} of {len(found.rows)} rows of {found.name} are in the training texts; accepted: "
            f"training texts without test rows (held_out.text_part), at most {MOST_SEEN:.0%} by chance"
        )
    return replace(found, rows=kept, left_out=left_out)


def text_key(text: str) -> str:
    """What two texts have in common that differ in case, spaces or form of Unicode alone."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def read_texts(path: Path) -> list[Utterance]:
    """The texts that a checkpoint was trained and selected on: a csv of text, label, language, source, split.

    Raises:
        ValueError: A column is missing.
    """
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = ("text", "label", "language", "source", "split")
        if absent := [name for name in columns if name not in (reader.fieldnames or ())]:
            raise ValueError(f"{path} has no column {', '.join(absent)}; accepted: {', '.join(columns)}")
        return [
            Utterance(
                id=str(number),
                kind=row["source"],
                text=row["text"],
                label=row["label"],
                language=row["language"],
                split=row["split"],
            )
            for number, row in enumerate(reader, start=1)
        ]


def read_training_texts(path: Path) -> frozenset[str]:
    """The `text_key` of every text that a checkpoint was trained or selected on."""
    return frozenset(text_key(str(row.text)) for row in read_texts(path) if row.split != "test")


# ---------------------------------------------------------------------- pairs


class Pair(NamedTuple):
    """A voice with a text of its language: the row, its label if it has one, and the labels of its parts."""

    row: Utterance
    voice: str
    text: str


PAIR_KINDS: dict[str, list[tuple[str, str]]] = {
    "agreeing": [(label, label) for label in SENTIMENTS],
    "neutral_voice": [("neutral", label) for label in SENTIMENTS],
    "neutral_text": [(label, "neutral") for label in SENTIMENTS],
    "conflicting": [("negative", "positive"), ("positive", "negative")],
}
"""Kinds of pairs: the labels of voice and text, in turn."""
KINDS = tuple(PAIR_KINDS)

RULE = (
    "A neutral side says nothing: the label is the other side's. Where voice and words contradict each "
    "other, the voice decides: listeners to emotional speech follow prosody rather than semantics "
    "(Ben-David, Multani, Shakuf, Rudzicz and van Lieshout 2016, Test for Rating of Emotions in Speech, "
    "Journal of Speech, Language, and Hearing Research 59(1):72-89)."
)


def label_of_pair(voice: str, text: str) -> str:
    """The label of a voice with a text, by `RULE`."""
    return text if voice == "neutral" else voice


def pairs(
    voices: Sequence[Utterance], texts: Sequence[Utterance], *, n: int, seed: int = 0
) -> dict[str, list[Pair]]:
    """Returns `n` pairs of each of `KINDS`, each combination of labels equally often.

    A pair's label is the common one of `agreeing`, the text's of `neutral_voice`, the voice's of
    `neutral_text`, and None of `conflicting`. Each voice and each text is drawn again only when all others of
    its label were drawn.

    Raises:
        ValueError: A label has no voice or no text.
    """
    generator = np.random.default_rng(seed)
    found: dict[str, list[Pair]] = {}
    for kind in KINDS:
        voice_of, text_of = (
            {label: _in_turn(rows, label, generator, what) for label in SENTIMENTS}
            for rows, what in ((voices, "voice"), (texts, "text"))
        )
        found[kind] = []
        for place in range(n):
            voice, text = PAIR_KINDS[kind][place % len(PAIR_KINDS[kind])]
            spoken, written = next(voice_of[voice]), next(text_of[text])
            label = None if kind == "conflicting" else label_of_pair(voice, text)
            row = replace(spoken, id=f"{kind}/{place}", text=written.text, label=label, kind=kind)
            found[kind].append(Pair(row, voice, text))
    return found


def _in_turn(
    rows: Sequence[Utterance], label: str, generator: np.random.Generator, what: str
) -> Iterator[Utterance]:
    """Rows of a label in random order, all of them before one a second time, without end."""
    of_label = [row for row in rows if row.label == label]
    if not of_label:
        raise ValueError(f"no {what} is {label}; accepted: one or more of each of {', '.join(SENTIMENTS)}")
    while True:
        yield from (of_label[i] for i in generator.permutation(len(of_label)))
