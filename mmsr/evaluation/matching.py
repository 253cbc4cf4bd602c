"""Whether a rationale belongs to its utterance: it fits its transcript better than others of its label.

transcripts, rationales [n] ─► groups of a label and language ─► `Fit` [g, g] ─► share of others that fit less

A judge of labels (simulatability; Hase et al. 2020, "Leakage-Adjusted Simulatability", arXiv 2010.04119)
accepts rationales that were exchanged within their label like the true ones. Here they have .5, as constant
ones have, since whatever tells of the label alone is the same in all rows that are compared. Captions are
measured in this way by whether they find their own image (Liu et al. 2018, arXiv 1803.08314).
"""

from collections.abc import Callable, Sequence
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


@lru_cache(maxsize=64)  # rows of a language are those of all in that language
def tfidf_fit(transcripts: tuple[str, ...], rationales: tuple[str, ...]) -> np.ndarray:
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
    groups: dict[tuple[str, str | None], list[int]] = {}
    for place, (label, language) in enumerate(zip(labels, languages, strict=True)):
        texts = (transcripts[place], rationales[place])
        if label is not None and all(text and text.strip() for text in texts):
            groups.setdefault((label, language_code(language)), []).append(place)
    generator = np.random.default_rng(seed)
    found: dict[int, Match] = {}
    for group in groups.values():
        said = np.array([words_of(transcripts[place]) for place in group])
        fits = fit(*(tuple(str(side[place]) for place in group) for side in (transcripts, rationales)))
        for row, place in enumerate(group):
            others = np.flatnonzero(said != said[row])
            if len(others) < LEAST:
                continue
            other = generator.choice(others)
            own, permuted = (
                np.mean((fits[row, mine] > rest) + 0.5 * (fits[row, mine] == rest))
                for mine, rest in ((row, fits[row, others]), (other, fits[row, others[others != other]]))
            )
            found[place] = Match(float(own), float(permuted), group[other])
    return dict(sorted(found.items()))


def own_match(texts: Texts) -> float | None:
    """The mean share of other rationales that fit less; None without transcripts or rows to compare with."""
    if texts.transcripts is None or texts.labels is None:
        return None
    languages = texts.languages or [None] * len(texts.hypotheses)
    found = matches(texts.transcripts, texts.hypotheses, texts.labels, languages)
    return float(np.mean([match.own for match in found.values()])) if found else None
