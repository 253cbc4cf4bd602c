"""Metrics of rationales: overlap with the reference, similarity in meaning, diversity, and copying.

The usual ROUGE tokeniser keeps only `[a-z0-9]`, which cuts Vietnamese words to fragments and Chinese to
nothing. So `rouge1`, `rouge2`, `rougeL` and `rougeLsum` count Unicode words here (`UnicodeTokenizer`);
`rouge1_ascii` and so on have the usual tokeniser, for comparison with published tables.

references, hypotheses ─► `Texts` ─► scores of rows or of the corpus, which `metrics.METRICS` names
"""

import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from mmsr.languages import CHINESE, UNSPACED, language_code

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
BERTSCORE = ("bertscore_precision", "bertscore_recall", "bertscore_f1")
# sacrebleu's tokenisers by language: `char` where words are written without spaces, `13a` elsewhere. `zh` is
# `13a` that splits Chinese characters, so it also serves unknown languages. ja-mecab would need MeCab, and
# flores101 a download.
BLEU_TOKENIZERS: dict[str | None, str] = {
    **dict.fromkeys(UNSPACED, "char"),
    **dict.fromkeys(CHINESE, "zh"),
    None: "zh",
}

BertScore = Callable[[Sequence[str], Sequence[str]], np.ndarray]
"""Returns precision, recall and F1 of pairs of references and hypotheses, `[n, 3]`."""


class UnicodeTokenizer:
    """Splits text into case-folded Unicode words, and scripts written without spaces into characters.

    Combining marks stay with their letter, and every kind of apostrophe parts words. Joiners, soft hyphens
    and the like within a word do not count, nor does the width of letters and digits. Has the interface of
    `rouge_score.tokenizers.Tokenizer`.
    """

    def tokenize(self, text: str) -> list[str]:
        """Returns the tokens of `text` in order."""
        words, invisible = _patterns()
        found = words.findall(_nfc(_nfc(text).casefold()))
        return [unicodedata.normalize("NFKC", invisible.sub("", word)) for word in found]


def word_spans(text: str) -> list[tuple[int, int]]:
    """Returns the words of a text as (start, end) characters; those of `UnicodeTokenizer` for text in NFC."""
    return [match.span() for match in _patterns()[0].finditer(text)]


@dataclass(eq=False)
class Texts:
    """Rationales of rows and their references, in Unicode normal form C and stripped.

    Attributes:
        references: `[n]`.
        hypotheses: `[n]`; empty where the model wrote no rationale.
        languages: Each row's language, a code or a name; None where unknown.
        training: Rationales of the training rows.
        bertscore: Such as a `bertscore.BertScorer`.
        transcripts: Of the rows `[n]`; None where unknown.
        labels: That the hypotheses explain `[n]`; None where unknown.

    Raises:
        ValueError: The numbers of references and hypotheses differ.
    """

    references: Sequence[str]
    hypotheses: Sequence[str]
    languages: Sequence[str | None] | None = None
    training: Collection[str] = ()
    bertscore: BertScore | None = None
    transcripts: Sequence[str | None] | None = None
    labels: Sequence[str | None] | None = None

    def __post_init__(self) -> None:
        counts = len(self.references), len(self.hypotheses)
        if counts[0] != counts[1]:
            raise ValueError(f"{counts[0]} reference rationales but {counts[1]} predicted ones")
        self.references, self.hypotheses = [*map(_clean, self.references)], [*map(_clean, self.hypotheses)]
        self.training = frozenset(map(_clean, self.training))

    @cached_property
    def rouge(self) -> dict[str, np.ndarray]:
        """F-measure of each row `[n]`, by name; `…_ascii` with the default tokenizer of `rouge_score`."""
        names = (*ROUGE, *(f"{name}_ascii" for name in ROUGE))
        scores = np.array([_rouge(*pair) for pair in self._pairs]).reshape(len(self.references), len(names))
        return dict(zip(names, scores.T, strict=True))

    @cached_property
    def bertscores(self) -> dict[str, np.ndarray]:
        """Precision, recall and F1 of each row `[n]`, by name; {} without `bertscore`."""
        if self.bertscore is None:
            return {}
        return dict(zip(BERTSCORE, self.bertscore(self.references, self.hypotheses).T, strict=True))

    def exact(self) -> np.ndarray:
        """Whether the two texts of each row are equal, 1 or 0 `[n]`."""
        return np.array([float(reference == hypothesis) for reference, hypothesis in self._pairs])

    def chrf(self) -> float:
        """Sacrebleu's chrF2 of the corpus, from 0 to 1."""
        from sacrebleu.metrics import CHRF

        return CHRF().corpus_score(self.hypotheses, [self.references]).score / 100

    def chrf_of_rows(self) -> np.ndarray:
        """Each row's chrF2 `[n]`, from 0 to 1; their mean is near the corpus's."""
        from sacrebleu.metrics import CHRF

        score = CHRF().sentence_score
        return np.array([score(hypothesis, [reference]).score / 100 for reference, hypothesis in self._pairs])

    def bleu(self) -> float:
        """BLEU of the corpus (see `bleu`)."""
        return bleu(self.references, self.hypotheses, languages=self.languages)

    def copied(self) -> float | None:
        """Share of hypotheses that are in `training`; None without these."""
        return float(np.mean([text in self.training for text in self.hypotheses])) if self.training else None

    @property
    def _pairs(self) -> list[tuple[str, str]]:
        return list(zip(self.references, self.hypotheses, strict=True))


def bleu(
    references: Sequence[str], hypotheses: Sequence[str], *, languages: Sequence[str | None] | None = None
) -> float:
    """Returns sacrebleu's BLEU of the corpus, from 0 to 1, with case and exponential smoothing.

    Each row has the tokeniser of its language: `zh` for Chinese, `char` for others without spaces between
    words (Japanese, Thai ...), else `13a`. BLEU is 0 where no hypothesis has four tokens.
    """
    from sacrebleu.metrics import BLEU

    tokenizers = [_bleu_tokenizer(language) for language in languages or [None] * len(references)]
    references, hypotheses = (
        [tokenize(text.rstrip()) for tokenize, text in zip(tokenizers, side, strict=True)]
        for side in (references, hypotheses)
    )
    return BLEU(tokenize="none", force=True).corpus_score(hypotheses, [references]).score / 100


def distinct(texts: Sequence[str], *, n: int) -> float | None:
    """Returns distinct-n, the share of different n-grams (1 or 2) among all of the texts'; None without any.

    It falls with the number of texts. Li et al. (2016), "A Diversity-Promoting Objective Function for Neural
    Conversation Models", section 5.2.
    """
    tokens = [UnicodeTokenizer().tokenize(text) for text in texts]
    grams = [gram for words in tokens for gram in (words if n == 1 else pairwise(words))]
    return len(set(grams)) / len(grams) if grams else None


def lengths(texts: Sequence[str]) -> np.ndarray:
    """Returns the number of tokens of each text `[n]`: words, and characters in Chinese and Japanese."""
    return np.array([len(UnicodeTokenizer().tokenize(text)) for text in texts])


@lru_cache(maxsize=100_000)
def _rouge(reference: str, hypothesis: str) -> tuple[float, ...]:
    scores = [scorer.score(reference, hypothesis) for scorer in _scorers()]
    return tuple(score[name].fmeasure for score in scores for name in ROUGE)


@cache
def _scorers() -> tuple[Any, Any]:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    return RougeScorer(ROUGE, tokenizer=UnicodeTokenizer()), RougeScorer(ROUGE, tokenizer=DefaultTokenizer())


@cache
def _bleu_tokenizer(language: str | None) -> Callable[[str], str]:
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=BLEU_TOKENIZERS.get(language_code(language or None), "13a")).tokenizer


@cache
def _patterns() -> tuple[Any, Any]:
    """Patterns of a word, and of what is not seen within it; regex comes with the extra `report`."""
    import regex  # type: ignore[import-untyped, unused-ignore]

    east = r"\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}"
    south = r"\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}\p{Script=Tibetan}"
    unspaced = rf"[{east}[\p{{L}}&&[{south}]]]"
    # Of the marks, those that are not seen and those that enclose a letter are none of its own.
    invisible = r"[\p{Default_Ignorable_Code_Point}--[\u200b\p{L}]]"
    mark = rf"[\p{{M}}--\p{{Me}}--{invisible}]"
    apostrophes = r"[\u02b9\u02bb\u02bc\u02bd\u02be\u02bf\ua78c]"
    letter = rf"[[\p{{L}}\p{{M}}\p{{N}}_]--\p{{Me}}--{invisible}--{unspaced}--{apostrophes}]"
    return (
        regex.compile(
            rf"{unspaced}(?:{invisible}*{mark})*|{letter}+(?:{invisible}+{letter}+)*", regex.VERSION1
        ),
        regex.compile(invisible, regex.VERSION1),
    )


def _clean(text: str) -> str:
    return _nfc(text).strip()


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
