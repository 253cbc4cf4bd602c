"""Word and character error rates of a recogniser, over a corpus and by language.

    reference, hypothesis ─► normalised by language ─► words (characters) ─► jiwer's alignment ─► summed edits

A rate is that of the corpus, all edits by all reference words: not the mean over rows.

Texts are normalised as by Whisper's authors, with the normalisers in transformers: case, punctuation and text
in brackets do not count, and English contractions and numbers in words are unified ("it's five" is "it is
5"). These still count as errors: British against American spelling, numbers in words against digits in other
languages, simplified against traditional Chinese.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from mmsr.languages import UNSPACED, language_code

_EDITS = ("substitutions", "deletions", "insertions")


def word_error_rate(
    references: Sequence[str], hypotheses: Sequence[str], languages: Sequence[str | None] | None = None
) -> dict[str, Any]:
    """Returns error rates over a corpus.

    Args:
        references: Human transcripts.
        hypotheses: The recogniser's transcripts; an empty one is all deletions.
        languages: Language of each row, a code (`en`, `zh-CN`) or a name; None where it is unknown.

    Returns:
        `n`, `wer`, `words` (in the references), `substitutions`, `deletions`, `insertions` (of words), `cer`,
        `characters`, and `by_language` with the same for each language's code ("unknown" for None). `wer` and
        its counts leave out languages that are written without spaces; without other rows `wer` is None and
        the counts are 0. `cer` is over every row and counts the spaces between words.

    Raises:
        ValueError: The lengths differ.
    """
    languages = [None] * len(references) if languages is None else languages
    if not len(references) == len(hypotheses) == len(languages):
        raise ValueError(
            f"{len(references)} references, {len(hypotheses)} hypotheses and {len(languages)} languages;"
            " accepted: as many of each"
        )
    groups: dict[str, list[tuple[str, str]]] = {}
    for reference, hypothesis, language in zip(references, hypotheses, languages, strict=True):
        code = language_code(language)
        pair = (normalise(reference, code), normalise(hypothesis, code))
        groups.setdefault(code or "unknown", []).append(pair)
    counts = {code: _counts(groups[code], spaced=code not in UNSPACED) for code in sorted(groups)}
    total = sum(counts.values(), Counter())
    return {**_rates(total), "by_language": {code: _rates(counted) for code, counted in counts.items()}}


def edits(reference: str, hypothesis: str, language: str | None) -> int:
    """Returns the fewest edits between the `units` of two texts."""
    import jiwer

    reference, hypothesis = (" ".join(units(text, language)) for text in (reference, hypothesis))
    counts = jiwer.process_words(reference, hypothesis)
    return sum(getattr(counts, name) for name in _EDITS)


def markdown_table(rates: Mapping[str, Any]) -> str:
    """Returns the result of `word_error_rate` as a Markdown table."""

    def line(name: str, entry: Mapping[str, Any]) -> str:
        wer, cer = ("-" if entry[key] is None else f"{entry[key]:.4f}" for key in ("wer", "cer"))
        n, *counts = (f"{entry[key]:,}" for key in ("n", "words", *_EDITS, "characters"))
        return f"| {name} | " + " | ".join([n, wer, cer, *counts]) + " |"

    head = "| language | rows | WER | CER | words | substituted | deleted | inserted | characters |"
    groups = rates["by_language"]
    lines = [head, "|---" * 9 + "|", *(line(code, groups[code]) for code in groups)]
    if len(groups) > 1:
        lines.append(line("all", rates))
    if unspaced := [code for code in groups if code in UNSPACED]:
        lines.append(
            f"\n{', '.join(unspaced)}: written without spaces, so CER is the figure and WER has none."
        )
    return "\n".join(lines)


def normalise(text: str, language: str | None) -> str:
    """Returns text normalised as by Whisper, without spaces in a language that is written without."""
    code = language_code(language)
    plain = " ".join(_normaliser(english=code == "en")(text).split())
    return plain.replace(" ", "") if code in UNSPACED else plain


def units(text: str, language: str | None) -> list[str]:
    """Returns the units that edits count: words, or characters in a language written without spaces."""
    plain = normalise(text, language)
    return list(plain) if language_code(language) in UNSPACED else plain.split()


@cache
def _normaliser(*, english: bool) -> Any:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    return EnglishTextNormalizer({}) if english else BasicTextNormalizer()


def _counts(pairs: Sequence[tuple[str, str]], *, spaced: bool) -> Counter[str]:
    """Summed counts of one language's normalised (reference, hypothesis) pairs."""
    import jiwer

    references, hypotheses = ([pair[side] for pair in pairs] for side in (0, 1))
    letters = jiwer.process_characters(references, hypotheses)
    counts = Counter(n=len(pairs), characters=sum(map(len, references)))
    counts["character_edits"] = sum(getattr(letters, name) for name in _EDITS)
    if spaced:
        words = jiwer.process_words(references, hypotheses)
        counts |= Counter({name: getattr(words, name) for name in _EDITS})
        counts["words"] = sum(len(reference.split()) for reference in references)
    return counts


def _rates(counts: Counter[str]) -> dict[str, Any]:
    words, characters = counts["words"], counts["characters"]
    return {
        "n": counts["n"],
        "wer": sum(counts[name] for name in _EDITS) / words if words else None,
        "words": words,
        **{name: counts[name] for name in _EDITS},
        "cer": counts["character_edits"] / characters if characters else None,
        "characters": characters,
    }
