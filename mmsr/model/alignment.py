"""Tokens and their text: keeping special tokens out of it, and the span of each token."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from mmsr.quotations import UNSPACED_LETTER
from mmsr.records import Span

# Marks of tokens that begin (SentencePiece, byte-level BPE), continue (BERT, PhoBERT) or end (XLM) a word.
_WORD_MARKS = re.compile("^(?:##|[▁Ġ])|(?:@@|</w>)$")


def without_special_tokens(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The texts with a space after the first letter of each spelled-out special token.

    `split_special_tokens` is not enough: a text may hold one once it is normalised, and XLM-R's vocabulary
    has `</s>` as a piece.
    """
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    special = re.compile("|".join(map(re.escape, {*added, *tokenizer.all_special_tokens})))
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    plain = []
    for text in texts:
        normalized = normalizer.normalize_str(text) if normalizer else text
        broken = special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", normalized)
        plain.append(text if broken == normalized else broken)
    return plain


def token_spans(tokenizer: PreTrainedTokenizerBase, text: str) -> list[Span]:
    """The span of each token of a text; (0, 0) for special tokens. Those of a slow tokenizer are searched."""
    (written,) = without_special_tokens([text], tokenizer)
    options: dict[str, Any] = {"split_special_tokens": True, "verbose": False}
    options |= {"return_special_tokens_mask": True, "return_offsets_mapping": tokenizer.is_fast}
    encoded = tokenizer(written, **options)
    if len(encoded["input_ids"]) > tokenizer.model_max_length:
        encoded = tokenizer(written, **options, truncation=True, max_length=tokenizer.model_max_length)
    places = [place for place, special in enumerate(encoded["special_tokens_mask"]) if not special]
    if tokenizer.is_fast:
        spans = [encoded["offset_mapping"][place] for place in places]
        if written != text:
            spans = aligned([written[start:end] for start, end in spans], text)
    else:
        spans = _slow_spans(tokenizer, written, text)
        first = len(spans) - len(places) if tokenizer.truncation_side == "left" else 0
        spans = spans[first : first + len(places)]  # without truncated tokens
    found = [(0, 0)] * len(encoded["input_ids"])
    for place, span in zip(places, spans, strict=True):
        found[place] = span
    return found


def _slow_spans(tokenizer: PreTrainedTokenizerBase, written: str, text: str) -> list[Span]:
    """Spans of a slow tokenizer's tokens, found word by word, without special tokens and truncation."""
    whole = tokenizer.tokenize(written, split_special_tokens=True)
    words = [match.span() for match in re.finditer(r"\S+", text)]
    cut = [tokenizer.tokenize(text[start:end], split_special_tokens=True) for start, end in words]
    if [token for tokens in cut for token in tokens] != whole:  # a word's tokens depend on its neighbours
        words, cut = [(0, len(text))], [whole]
    return [
        (start + first, start + last)
        for (start, end), tokens in zip(words, cut, strict=True)
        for first, last in aligned(tokens, text[start:end])
    ]


def aligned(tokens: Sequence[str], text: str) -> list[Span]:
    """The span of each token in its text, without regard to case and accents.

    A token that is not found, such as an unknown one, gets the span between its neighbours or, where that is
    empty, the span of the one before it.
    """
    letters = [(letter, place) for place, character in enumerate(text) for letter in _folded(character)]
    folded = "".join(letter for letter, _ in letters)
    sought = [_folded(_WORD_MARKS.sub("", token)) for token in tokens]
    found: list[Span | None] = []
    read = 0
    for token in sought:
        start = folded.find(token, read) if token else -1
        if start < 0:
            found.append(None)
            continue
        read = start + len(token)
        end = letters[read - 1][1] + 1
        while end < len(text) and unicodedata.combining(text[end]):
            end += 1
        found.append((letters[start][1], end))
    spans: list[Span] = []
    end = 0  # of the last token that was found
    for place, (token, span) in enumerate(zip(sought, found, strict=True)):
        if span is not None:
            spans.append(span)
            end = span[1]
            continue
        until = next((later[0] for later in found[place:] if later), len(text))
        spans.append(spans[-1] if token and spans and not text[end:until].strip() else (end, until))
    return spans


def _folded(text: str) -> str:
    """A text without case, accents and compatibility forms."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def spaced_words(text: str, spans: Sequence[Span]) -> list[Span]:
    """The words that tokens with these spans make up; in scripts without spaces each token is a word."""
    words: list[Span] = []
    for start, end in spans:
        while start < end and text[start].isspace():
            start += 1
        if start == end:  # a space alone
            continue
        first, last = words[-1] if words else (0, -1)
        # bytes of one character have the same span
        if start < last or (start == last and not UNSPACED_LETTER.search(text[first:end])):
            words[-1] = (first, max(last, end))
        else:
            words.append((start, end))
    return words
