"""How alike texts are: by their words, by TF-IDF, and by any encoder.

texts, others    ─► `rouge_l` [n, m] ─► `consensus`, the text that is most like all others
texts ─► encoder ─► `Neighbours` ─► ranks of the known texts for each other text
vectors          ─► `nearest`    ─► the same, of vectors
labels, languages of rows with rationales ─► `ExplainedLabels` ─► the rows that explain a label in a language
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from mmsr.evaluation.rationales import UnicodeTokenizer
from mmsr.languages import language_code

NEIGHBOURS = 32
"""Training rows from whose rationales a consensus is chosen, where nothing else is asked for."""

Encode = Callable[[Sequence[str]], Any]
"""Returns the unit vectors of texts `[n, d]`: an array, a tensor on the CPU or a sparse matrix."""

_FIRST = 0xE000  # of the characters that stand for words, above the surrogates


def rouge_l(texts: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """Returns ROUGE-L over Unicode words, the metric `rougeL`, of each text with each other one `[n, m]`.

    Precision and recall have the same numerator, so the F-measure is twice the longest common subsequence by
    the sum of both lengths: RapidFuzz's normalised Indel similarity.
    """
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import cdist

    numbers: dict[str, int] = {}
    sides = [
        [
            "".join(chr(_FIRST + numbers.setdefault(word, len(numbers))) for word in tokenize(text))
            for text in side
        ]
        for tokenize, side in ((UnicodeTokenizer().tokenize, side) for side in (texts, others))
    ]
    scores = cdist(*sides, scorer=Indel.normalized_similarity, dtype=np.float64)
    scores[np.ix_(*(np.array([not text for text in side], dtype=bool) for side in sides))] = 0
    return scores


def consensus(candidates: Sequence[str]) -> int:
    """Returns the place of the candidate with the highest mean ROUGE-L with all of them, the first of equals.

    This is minimum Bayes risk: candidates that were drawn from a distribution stand for the unknown
    reference (Eikema and Aziz 2022, "Sampling-Based Approximations to Minimum Bayes Risk Decoding for Neural
    Machine Translation"). A candidate that was drawn twice counts twice.
    """
    return int(rouge_l(candidates, candidates).mean(axis=1).argmax())


class Neighbours:
    """Texts that are ranked by the cosine of their vectors with those of others.

    Args:
        texts: The known texts.
        encode: Embeds texts.
    """

    def __init__(self, texts: Sequence[str], encode: Encode) -> None:
        self._known = encode(texts)
        self._encode = encode

    def ranked(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the places of the known texts for each text `[n, known]`, the nearest first.

        Equally near ones keep their order.
        """
        return nearest(self._encode(texts), self._known)


def nearest(vectors: Any, known: Any) -> np.ndarray:
    """Returns the places of known unit vectors for each vector `[n, known]`, the nearest first.

    Equally near ones keep their order. Both are arrays, tensors on the CPU, or sparse matrices.
    """
    similar = vectors @ known.T
    dense = similar.toarray() if hasattr(similar, "toarray") else np.asarray(similar)
    return np.argsort(-dense, axis=1, kind="stable")


class ExplainedLabels:
    """Places of rows with a rationale, by the label that it explains and by language.

    Args:
        labels: Of the rows `[n]`.
        languages: Codes or names `[n]`; None where unknown.
    """

    def __init__(self, labels: Sequence[str], languages: Sequence[str | None]) -> None:
        self._places: dict[tuple[str | None, ...], list[int]] = {}
        for place, (label, language) in enumerate(zip(labels, languages, strict=True)):
            for group in ((label, language_code(language)), (label,)):
                self._places.setdefault(group, []).append(place)

    def group(self, label: str | None, language: str | None) -> tuple[str | None, ...] | None:
        """Returns the group of a label in a language, or in any where that has none; None without any."""
        group = (label, language_code(language))
        return next((found for found in (group, group[:1]) if found in self._places), None)

    def places(self, group: tuple[str | None, ...]) -> list[int]:
        """Returns the places of a group's rows, in their order."""
        return self._places[group]


def tfidf_encoder(texts: Sequence[str]) -> Encode:
    """Returns an encoder by `tfidf_features` of these texts."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    pipeline = make_pipeline(tfidf_features(), Normalizer()).fit([(text,) for text in texts])
    return lambda others: pipeline.transform([(text,) for text in others])


def tfidf_features(fields: int = 1) -> Any:
    """Returns the features of tuples of `fields` texts, not yet fitted.

    TF-IDF of n-grams of words (1 to 3) and of characters within words (2 to 5).
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    vectorizers = []
    for field in range(fields):
        read = partial(_words_of, field=field)
        words = TfidfVectorizer(
            analyzer="word", ngram_range=(1, 3), preprocessor=read, tokenizer=str.split, token_pattern=None
        )
        vectorizers += [words, TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), preprocessor=read)]
    return make_union(*vectorizers)


def words_of(text: str | None) -> str:
    """Returns the words of a text with a space between them; empty without any."""
    return " ".join(UnicodeTokenizer().tokenize(text or ""))


def _words_of(texts: Sequence[str], *, field: int) -> str:
    return words_of(texts[field]) or "-"  # a vocabulary may not be empty
