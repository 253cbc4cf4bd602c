"""Figures for rationales: overlap with the reference, nearness in meaning, wording, and what is copied.

The usual ROUGE code keeps only `[a-z0-9]`: it cuts Vietnamese words to fragments and Chinese to nothing. So
`rouge1`, `rouge2`, `rougeL` and `rougeLsum` here count Unicode words (`UnicodeTokenizer`); the same figures
under the usual code stand beside them as `rouge1_ascii` and so on, only for comparison with published tables.

references, hypotheses ─► `rationale_metrics` ─► the rationale figures of one entry of metrics.json
"""

import unicodedata
from collections.abc import Callable, Collection, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import regex  # type: ignore[import-untyped, unused-ignore]

from mmsr.languages import language_code

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
ROW_SCORES = (*ROUGE, *(f"{name}_ascii" for name in ROUGE), "rationale_exact")  # the others are of a corpus
BERTSCORE = ("bertscore_precision", "bertscore_recall", "bertscore_f1")
# sacrebleu's tokenisers by language; `zh` is `13a` but that it cuts out Chinese characters, so it does where
# the language is unknown. ja-mecab would need MeCab, and flores101 a download.
BLEU_TOKENIZERS = {"zh": "zh", "yue": "zh", "ja": "char", None: "zh"}

_CHARACTER_SCRIPTS = r"\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}"
_TOKEN = regex.compile(
    rf"[{_CHARACTER_SCRIPTS}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}_]--[{_CHARACTER_SCRIPTS}]]+", regex.VERSION1
)

BertScore = Callable[[Sequence[str], Sequence[str]], np.ndarray]
"""Answers references and hypotheses with the precision, recall and F1 of each pair, `[n, 3]`."""


class UnicodeTokenizer:
    """Splits text into case-folded Unicode words, and Chinese and Japanese script into characters.

    The script of each character decides, so mixed text works. Combining marks stay with their letter. It has
    the interface of `rouge_score.tokenizers.Tokenizer`.
    """

    def tokenize(self, text: str) -> list[str]:
        """Returns the tokens of `text` in order."""
        return _TOKEN.findall(_nfc(_nfc(text).casefold()))


def word_spans(text: str) -> list[tuple[int, int]]:
    """Returns where the words of a text stand, by characters: first, and the one after the last.

    They are those of `UnicodeTokenizer`, but for text in another normal form than C.
    """
    return [match.span() for match in _TOKEN.finditer(text)]


def rationale_metrics(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    languages: Sequence[str | None] | None = None,
    training: Collection[str] = (),
    bertscore: BertScore | None = None,
) -> dict[str, float]:
    """Returns the rationale figures of rows; `{}` without rows.

    - `rouge1` … `rougeLsum`, `rouge1_ascii` …: F-measures of `rouge_score`, averaged over rows; `…_ascii`
      uses its default tokenizer.
    - `chrf`, `bleu`: sacrebleu's chrF2 and BLEU of the corpus, divided by 100 (see `bleu`).
    - `bertscore_precision`, `_recall`, `_f1`: means over rows, where `bertscore` is given.
    - `rationale_exact`: share of rows whose two texts are equal but for outer white space.
    - `verbatim_from_training`: share of hypotheses that are, but for outer white space, one of `training`,
      where that is given.
    - `distinct1`, `distinct2`: see `distinct`; they fall with the number of rows, so compare them over the
      same ones.
    - `length`, `length_gold`: mean number of words of hypotheses and of references, of characters in Chinese.

    Texts are compared in Unicode normal form C. Figures that cannot be had have no key.

    Args:
        references: Texts `[n]`.
        hypotheses: Texts `[n]`; an empty one is a rationale that the model did not write.
        languages: Code of each row's language, such as `vi` or `zh-CN`; by default unknown.
        training: Rationales of the training rows.
        bertscore: Such as a `bertscore.BertScorer`.

    Raises:
        ValueError: Where the lengths differ.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} reference rationales but {len(hypotheses)} predicted ones")
    if not references:
        return {}
    from sacrebleu.metrics import CHRF

    references, hypotheses = [[_clean(text) for text in side] for side in (references, hypotheses)]
    scores = rationale_scores(references, hypotheses)
    figures = {name: float(values.mean()) for name, values in scores.items()}
    figures["chrf"] = CHRF().corpus_score(hypotheses, [references]).score / 100
    figures["bleu"] = bleu(references, hypotheses, languages=languages)
    if bertscore is not None:
        means = bertscore(references, hypotheses).mean(axis=0)
        figures |= dict(zip(BERTSCORE, map(float, means), strict=True))
    if training:
        known = {_clean(text) for text in training}
        figures["verbatim_from_training"] = float(np.mean([text in known for text in hypotheses]))
    for n in (1, 2):
        if (share := distinct(hypotheses, n=n)) is not None:
            figures[f"distinct{n}"] = share
    figures["length"], figures["length_gold"] = map(mean_length, (hypotheses, references))
    return figures


def rationale_scores(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns each row's `ROW_SCORES` `[n]`, whose means `rationale_metrics` gives."""
    pairs = [(_clean(r), _clean(h)) for r, h in zip(references, hypotheses, strict=True)]
    scores = np.array([(*_rouge(r, h), float(r == h)) for r, h in pairs]).reshape(len(pairs), len(ROW_SCORES))
    return dict(zip(ROW_SCORES, scores.T, strict=True))


def chrf_scores(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """Returns each row's chrF2 `[n]`, from 0 to 1; their mean is not the corpus's `chrf`, but near it."""
    from sacrebleu.metrics import CHRF

    score = CHRF().sentence_score
    pairs = zip(references, hypotheses, strict=True)
    return np.array([score(_clean(said), [_clean(reference)]).score / 100 for reference, said in pairs])


def bleu(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    languages: Sequence[str | None] | None = None,
) -> float:
    """Returns sacrebleu's BLEU of the corpus, from 0 to 1, with case and exponential smoothing.

    Each row is cut by the tokeniser of its language: `zh` for Chinese, `char` for Japanese, else `13a`; so
    the figure of rows of one language is what sacrebleu gives with that tokeniser. It is 0 where no
    hypothesis has four tokens.
    """
    from sacrebleu.metrics import BLEU

    languages = languages if languages is not None else [None] * len(references)
    tokenizers = [_bleu_tokenizer(language) for language in languages]
    cut = [
        [tokenize(text.rstrip()) for tokenize, text in zip(tokenizers, side, strict=True)]
        for side in (references, hypotheses)
    ]
    return BLEU(tokenize="none", force=True).corpus_score(cut[1], [cut[0]]).score / 100


def distinct(texts: Sequence[str], *, n: int) -> float | None:
    """Returns distinct-n, the share of all texts' n-grams, 1 or 2, that are different; None without any.

    Li et al. (2016), "A Diversity-Promoting Objective Function for Neural Conversation Models", section 5.2.
    """
    tokens = [UnicodeTokenizer().tokenize(text) for text in texts]
    grams = [gram for one in tokens for gram in (one if n == 1 else pairwise(one))]
    return len(set(grams)) / len(grams) if grams else None


def mean_length(texts: Sequence[str]) -> float:
    """Returns the mean number of tokens of the texts: words, and characters in Chinese and Japanese."""
    return float(np.mean([len(UnicodeTokenizer().tokenize(text)) for text in texts]))


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


def _clean(text: str) -> str:
    return _nfc(text).strip()


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
