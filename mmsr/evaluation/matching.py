"""Whether a rationale belongs to its utterance: it fits its transcript better than others of its label.

transcripts, rationales [n] ─► groups of a label and language ─► `Fit` [g, g] ─► share of others that fit less

A judge of labels (simulatability; Hase et al. 2020, "Leakage-Adjusted Simulatability", arXiv 2010.04119)
accepts rationales that were exchanged within their label like the true ones. Here they have .5, as constant
ones have, since whatever tells of the label alone is the same in all rows that are compared. Captions are
measured in this way by whether they find their own image (Liu et al. 2018, arXiv 1803.08314).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from mmsr.evaluation.rationales import Texts
from mmsr.evaluation.similarity import tfidf_encoder, words_of
from mmsr.languages import language_code

Fit = Callable[[Sequence[str], Sequence[str]], np.ndarray]
"""Returns how well each of n transcripts fits each of n rationales, `[n, n]`: the more the better."""

LEAST = 2  # others that a rationale is compared with


class Match(NamedTuple):
    """Of a row: the shares of other rationales that fit less, and the row whose rationale it was given."""

    own: float
    permuted: float
    other: int


def tfidf_fit(transcripts: Sequence[str], rationales: Sequence[str]) -> np.ndarray:
    """The default `Fit`: the cosine of the two texts' TF-IDF (see `similarity.tfidf_features`)."""
    encode = tfidf_encoder([*transcripts, *rationales])
    return (encode(transcripts) @ encode(rationales).T).toarray()


def matches(
    transcripts: Sequence[str | None],
    rationales: Sequence[str | None],
    labels: Sequence[str | None],
    languages: Sequence[str | None],
    *,
    fit: Fit = tfidf_fit,
    seed: int = 0,
) -> dict[int, Match]:
    """Compares each rationale with those of rows of its label and language, whose transcripts differ.

    Ties count half, so constant rationales, and rationales drawn at random within the label, have .5.

    Args:
        transcripts: `[n]`.
        rationales: `[n]`.
        labels: That the rationales explain `[n]`.
        languages: `[n]`; None where unknown.
        fit: How well transcripts and rationales fit.
        seed: Of the draw of another row's rationale.

    Returns:
        The match of each row that has two others or more, by its place.
    """
    generator = np.random.default_rng(seed)
    found: dict[int, Match] = {}
    for group in _groups(transcripts, rationales, labels, languages):
        said, told = ([str(side[place]) for place in group] for side in (transcripts, rationales))
        fits = fit(said, told)
        for row, others in _compared(said):
            other = generator.choice(others)
            permuted = _share(fits[row], other, others[others != other])
            found[group[row]] = Match(_share(fits[row], row, others), permuted, group[other])
    return dict(sorted(found.items()))


def own_shares(
    transcripts: Sequence[str | None],
    rationales: Sequence[str | None],
    labels: Sequence[str | None],
    languages: Sequence[str | None],
) -> dict[int, float]:
    """Returns `Match.own` of each row by its place, as `matches` by `tfidf_fit`."""
    found: dict[int, float] = {}
    for group in _groups(transcripts, rationales, labels, languages):
        said, told = (tuple(str(side[place]) for place in group) for side in (transcripts, rationales))
        found |= {group[row]: share for row, share in _own_shares(said, told)}
    return dict(sorted(found.items()))


def own_match(texts: Texts) -> float | None:
    """The mean share of other rationales that fit less; None without transcripts or rows to compare with."""
    if texts.transcripts is None or texts.labels is None:
        return None
    languages = texts.languages or [None] * len(texts.hypotheses)
    found = own_shares(texts.transcripts, texts.hypotheses, texts.labels, languages)
    return float(np.mean(list(found.values()))) if found else None


def _groups(
    transcripts: Sequence[str | None],
    rationales: Sequence[str | None],
    labels: Sequence[str | None],
    languages: Sequence[str | None],
) -> list[list[int]]:
    """The places of rows with one label and language that have both texts."""
    groups: dict[tuple[str, str | None], list[int]] = {}
    for place, (label, language) in enumerate(zip(labels, languages, strict=True)):
        texts = (transcripts[place], rationales[place])
        if label is not None and all(text and text.strip() for text in texts):
            groups.setdefault((label, language_code(language)), []).append(place)
    return list(groups.values())


@lru_cache(maxsize=64)  # rows of a language are those of all in that language
def _own_shares(transcripts: tuple[str, ...], rationales: tuple[str, ...]) -> list[tuple[int, float]]:
    """The rows of a group that can be compared, with their shares."""
    fits = tfidf_fit(transcripts, rationales)
    return [(row, _share(fits[row], row, others)) for row, others in _compared(transcripts)]


def _compared(transcripts: Sequence[str]) -> Iterator[tuple[int, np.ndarray]]:
    """The rows of a group with enough others whose transcripts have other words, and these."""
    said = np.array([words_of(text) for text in transcripts])
    for row in range(len(said)):
        others = np.flatnonzero(said != said[row])
        if len(others) >= LEAST:
            yield row, others


def _share(fits: np.ndarray, mine: int, others: np.ndarray) -> float:
    """The share of others that fit less than one does, ties counting half."""
    rest = fits[others]
    return float(np.mean((fits[mine] > rest) + 0.5 * (fits[mine] == rest)))
