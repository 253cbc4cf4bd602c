"""Transcripts as columns: which of them are the same sentence, and how long they are.

A sentence is what is left of a transcript without case, punctuation and Unicode form.
"""

import numpy as np
import pyarrow
import pyarrow.compute as pc

#: Fewest letters of a sentence that identifies an utterance: anyone may say "thank you so much".
TELLING = 20


def letters(texts: pyarrow.ChunkedArray) -> np.ndarray:
    """Length of each text `[n]`: characters but spaces; a Han, kana or hangul one counts three."""
    written = pc.utf8_length(pc.replace_substring(texts, " ", ""))
    full = pc.count_substring_regex(texts, r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]")
    return pc.fill_null(pc.add(written, pc.multiply(full, 2)), 0).to_numpy()


def telling_sentences(texts: pyarrow.ChunkedArray, written: np.ndarray | None = None) -> pyarrow.ChunkedArray:
    """Each text's sentence `[n]`; None where there is none or it is shorter than `TELLING`.

    Args:
        texts: The transcripts.
        written: Their `letters`, where these are known.
    """
    plain = pc.replace_substring_regex(pc.utf8_lower(texts), r"\pP+", "")
    plain = pc.replace_substring_regex(plain, r"\s{2,}|[\t\r\n]", " ")
    plain = pc.utf8_normalize(pc.utf8_trim_whitespace(plain), form="NFC")
    written = letters(texts) if written is None else written
    return pc.if_else(pyarrow.array(written >= TELLING), plain, None)


def numbered(column: pyarrow.ChunkedArray) -> tuple[np.ndarray, pyarrow.Array]:
    """A column as numbers `[n]` of its distinct values, -1 where there is none, and these values."""
    whole = pc.cast(column, pyarrow.large_string())  # of more than 2 GB too
    encoded = whole.combine_chunks().dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(), encoded.dictionary


def codes(column: pyarrow.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """As `numbered`, of a column with few distinct values."""
    numbers, values = numbered(column)
    return numbers, values.to_pylist()
