"""Word and character error rates of a recogniser, over a corpus and by language.

    reference, hypothesis ─► normalised by language ─► words (characters) ─► jiwer's alignment ─► summed edits

A rate is that of the corpus, all edits by all reference words: not the mean over rows.

Texts are normalised as by Whisper's authors: case and punctuation do not count, hyphens and apostrophes part
words, and English contractions and numbers in words are unified ("it's five" is "it is 5"; transformers'
normaliser). Otherwise than theirs:

- Marks are part of their letters (Hindi vowels, Arabic harakat, tones); Whisper's takes them for punctuation.
- One apostrophe, digit or grouped number is as good as another: ’ and ', ٣ and 3, 1.000 and 1000. Joiners,
  soft hyphens and the like do not count. Letters are folded: ß is ss, and Turkish has its own i.
- Text in square or angle brackets does not count, in others only the names of sounds: "(coughs)".

These still count as errors: British against American spelling, numbers in words against digits in other
languages, simplified against traditional Chinese, a text with harakat or niqqud against one without.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import regex  # type: ignore[import-untyped, unused-ignore]

from mmsr.evaluation.annotations import annotation_spans, cut_out
from mmsr.extras import needed_for
from mmsr.languages import UNSPACED, language_code

_EDITS = ("substitutions", "deletions", "insertions")

# What people and programs write for an apostrophe, as ASCII's; letters and marks among them, such as the
# ʻokina. A zero-width space parts words; a tatweel only widens them.
_ALIKE = {ord(written): "'" for written in "’‘‛ʼʻʽʹʾʿ′´`＇ꞌ"} | {0x200B: " ", 0x0640: ""}
_SPACING_MARK = regex.compile(r"\p{Sk}")  # a mark without a letter, which NFKC would put on the space
_INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}|\p{Me}")
_PUNCTUATION = regex.compile(r"[\p{P}\p{S}]\p{M}*")
_BRACKETS = re.compile(r"[][<>(){}]")
_MARKED = regex.compile(
    r"[^\p{Script=Latin}\p{Script=Common}\p{Script=Inherited}]\p{M}"
)  # what Whisper's English would cut
_DOTLESS = ("tr", "az", "crh", "gag")  # languages where I is the capital of ı
_DIGIT = regex.compile(r"\p{Nd}")
# 1.000.000, 1 000 000, 1'000'000 and India's 1,00,000. A part after a comma of three digits is none.
_SEPARATORS = re.compile(r"[.,' \u00a0\u2009\u202f]")
_GROUPED = re.compile(
    r"(?<![\d.,'])[1-9]\d{0,2}(?:([.,' \u2009\u202f\u00a0])\d{3})(?:\1\d{3})*(?![.,' ]?\d)"
    r"|(?<![\d.,'])[1-9]\d?(?:,\d{2})+,\d{3}(?![.,']?\d)"
)


def word_error_rate(
    references: Sequence[str] | str,
    hypotheses: Sequence[str] | str,
    languages: Sequence[str | None] | str | None = None,
) -> dict[str, Any]:
    """Returns error rates over a corpus.

    Args:
        references: Human transcripts, or a single one.
        hypotheses: The recogniser's transcripts, as many; an empty one is all deletions.
        languages: Language of each row, or of all, as a code (`en`, `zh-CN`) or a name; None if unknown.

    Returns:
        `n`, `wer`, `words` (in the references), `substitutions`, `deletions`, `insertions` (of words), `cer`,
        `characters`, and `by_language` with the same for each language's code ("unknown" for None). `wer` and
        its counts leave out languages that are written without spaces; without other rows `wer` is None and
        the counts are 0. `cer` is over every row and counts the spaces between words.

    Raises:
        ValueError: The lengths differ.
    """
    references, hypotheses = (
        [texts] if isinstance(texts, str) else texts for texts in (references, hypotheses)
    )
    if languages is None or isinstance(languages, str):
        languages = [languages] * len(references)
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
    with needed_for("the word error rate"):
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
    """Returns a text as error rates read it, without spaces in a language that is written without."""
    code = language_code(language)
    plain = _one_writing(text, code)
    if code == "en" and not _MARKED.search(plain):
        plain = _english()(plain)
    else:
        plain = _GROUPED.sub(lambda match: _SEPARATORS.sub("", match[0]), plain)
        plain = _PUNCTUATION.sub(" ", plain)
    words = [word for word in plain.split() if any(map(str.isalnum, word))]
    return ("" if code in UNSPACED else " ").join(words)


def units(text: str, language: str | None) -> list[str]:
    """Returns the units that edits count: words, or characters in a language written without spaces."""
    plain = normalise(text, language)
    return list(plain) if language_code(language) in UNSPACED else plain.split()


@cache
def _english() -> Any:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})


def _one_writing(text: str, code: str | None) -> str:
    """The text without annotations, with one writing of each letter, digit and apostrophe.

    Marks stay with their letters. What is not seen goes: joiners, soft hyphens, marks of direction.
    """
    text = _SPACING_MARK.sub(" ", text.translate(_ALIKE))
    if code in _DOTLESS:
        text = text.replace("I\u0307", "i").translate({ord("I"): "ı", ord("İ"): "i"})
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = _INVISIBLE.sub("", text.replace("i\u0307", "i"))  # the dot is left of İ, in lower case
    text = _BRACKETS.sub(" ", cut_out(text, annotation_spans(text)))
    return _DIGIT.sub(lambda match: str(unicodedata.decimal(match[0])), text)


def _counts(pairs: Sequence[tuple[str, str]], *, spaced: bool) -> Counter[str]:
    """Summed counts of one language's normalised (reference, hypothesis) pairs."""
    with needed_for("the word error rate"):
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
