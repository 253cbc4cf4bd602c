"""Word and character error rates of a recogniser, over a corpus and by language.

    reference, hypothesis ─► normalised by language ─► words (characters) ─► jiwer's alignment ─► summed edits

The rates are of the corpus: all edits by all reference words, so that a long utterance weighs more than a
short one; not the mean of the rows' rates. They are not in `metrics`, because `mmsr transcribe` needs jiwer
alone and none of the report's packages.

Text is compared as Whisper's authors do, with transformers' copies of their normalisers: case, punctuation
and text in brackets do not count, and in English contractions and numbers in words are written in one way
("it's five" is "it is 5"). The following still counts as an error: British against American spelling (the
spelling list comes with some checkpoints only, and a rate must not depend on the model that made the text),
numbers in words against digits in other languages, simplified against traditional Chinese.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from mmsr.languages import UNSPACED, language_code

_EDITS = ("substitutions", "deletions", "insertions")


def word_error_rate(
    references: Sequence[str], hypotheses: Sequence[str], languages: Sequence[str | None] | None = None
) -> dict[str, Any]:
    """Error rates over a corpus.

    Args:
        references: Human transcripts.
        hypotheses: The recogniser's; an empty one is all deletions.
        languages: Language of each row, a code (`en`, `zh-CN`) or a name, which decides how its text is
            normalised; None where it is unknown.

    Returns:
        `n`, `wer`, `words` (in the references), `substitutions`, `deletions`, `insertions` (of words), `cer`,
        `characters`, and `by_language` with the same figures for each language's code ("unknown" for
        None). `wer` and its counts leave out the rows of languages that are written without spaces, where a
        word error rate would measure where spaces stand and no more; without other rows `wer` is None and
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
    by_language = {code: _rates(groups[code], spaced=code not in UNSPACED) for code in sorted(groups)}
    total = {
        name: sum(figures[name] for figures in by_language.values())
        for name in ("n", "words", *_EDITS, "characters", "character_edits")
    }
    by_language = {code: _figures(counts) for code, counts in by_language.items()}
    return {**_figures(total), "by_language": by_language}


def edits(reference: str, hypothesis: str, language: str | None) -> int:
    """Fewest edits between the `units` of two texts."""
    import jiwer

    reference, hypothesis = (" ".join(units(text, language)) for text in (reference, hypothesis))
    counts = jiwer.process_words(reference, hypothesis)
    return sum(getattr(counts, name) for name in _EDITS)


def markdown_table(rates: Mapping[str, Any]) -> str:
    """`word_error_rate`'s answer as a table for a person."""

    def line(name: str, figures: Mapping[str, Any]) -> str:
        wer, cer = ("-" if figures[key] is None else f"{figures[key]:.4f}" for key in ("wer", "cer"))
        counts = [f"{figures[key]:,}" for key in ("n", "words", *_EDITS, "characters")]
        return f"| {name} | " + " | ".join([counts[0], wer, cer, *counts[1:]]) + " |"

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
    """Text as it is compared: Whisper's normaliser, and without spaces in an unspaced language."""
    code = language_code(language)
    plain = " ".join(_normaliser(english=code == "en")(text).split())
    return plain.replace(" ", "") if code in UNSPACED else plain


def units(text: str, language: str | None) -> list[str]:
    """What the edits of a language count: words, or characters where words are not spaced."""
    plain = normalise(text, language)
    return list(plain) if language_code(language) in UNSPACED else plain.split()


@cache
def _normaliser(*, english: bool) -> Any:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    return EnglishTextNormalizer({}) if english else BasicTextNormalizer()


def _rates(pairs: Sequence[tuple[str, str]], *, spaced: bool) -> dict[str, int]:
    """Summed counts of one language's normalised (reference, hypothesis) pairs."""
    import jiwer

    references, hypotheses = ([pair[side] for pair in pairs] for side in (0, 1))
    letters = jiwer.process_characters(references, hypotheses)
    counts = {"n": len(pairs), "words": 0, **dict.fromkeys(_EDITS, 0)}
    if spaced:
        words = jiwer.process_words(references, hypotheses)
        counts |= {name: getattr(words, name) for name in _EDITS}
        counts["words"] = sum(len(reference.split()) for reference in references)
    counts["characters"] = sum(map(len, references))
    counts["character_edits"] = sum(getattr(letters, name) for name in _EDITS)
    return counts


def _figures(counts: dict[str, int]) -> dict[str, Any]:
    words, characters = counts["words"], counts["characters"]
    return {
        "n": counts["n"],
        "wer": sum(counts[name] for name in _EDITS) / words if words else None,
        "words": words,
        **{name: counts[name] for name in _EDITS},
        "cer": counts["character_edits"] / characters if characters else None,
        "characters": characters,
    }
