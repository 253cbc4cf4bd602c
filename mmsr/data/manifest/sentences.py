"""Columns of transcripts: their lengths, and which are the same sentence.

A sentence is a transcript without case, punctuation and differences of Unicode form.
"""

import numpy as np
import pyarrow
import pyarrow.compute as pc

TELLING = 20  # fewest letters of a sentence that identifies an utterance


def letters(texts: pyarrow.ChunkedArray) -> np.ndarray:
    """Length of each text `[n]` in characters without spaces; Han, kana and hangul count three."""
    written = pc.utf8_length(pc.replace_substring(texts, " ", ""))
    full = pc.count_substring_regex(texts, r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]")
    return pc.fill_null(pc.add(written, pc.multiply(full, 2)), 0).to_numpy()


def telling_sentences(texts: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    """Each text's sentence `[n]`; None if it is missing or shorter than `TELLING`."""
    plain = pc.replace_substring_regex(pc.utf8_lower(texts), r"\pP+", "")
    plain = pc.replace_substring_regex(plain, r"\s{2,}|[\t\r\n]", " ")
    plain = pc.utf8_normalize(pc.utf8_trim_whitespace(plain), form="NFC")
    return pc.if_else(pyarrow.array(letters(texts) >= TELLING), plain, None)


def numbered(column: pyarrow.ChunkedArray) -> tuple[np.ndarray, pyarrow.Array]:
    """A column as numbers `[n]` of its distinct values, -1 for None, and these values."""
    whole = pc.cast(column, pyarrow.large_string())  # may be over 2 GB
    encoded = whole.combine_chunks().dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(), encoded.dictionary


def codes(column: pyarrow.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """As `numbered`, for a column with few distinct values."""
    numbers, values = numbered(column)
    return numbers, values.to_pylist()
