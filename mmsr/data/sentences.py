"""Transcripts as columns: which of them say the same, and how much is said.

A sentence is what is left of a transcript without case, punctuation and Unicode form.
"""

import numpy as np
import pyarrow
import pyarrow.compute as pc

#: Letters from which on a sentence is one speaker's own: "thank you so much" is said by anyone anywhere.
TELLING = 20


def letters(texts: pyarrow.ChunkedArray) -> np.ndarray:
    """How much each text `[n]` says: letters and digits; a Han, kana or hangul character counts three."""
    written = pc.utf8_length(pc.replace_substring_regex(texts, r"[^\pL\pN]+", ""))
    full = pc.count_substring_regex(texts, r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]")
    return pc.fill_null(pc.add(written, pc.multiply(full, 2)), 0).to_numpy()


def telling_sentences(texts: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    """Each text's sentence `[n]`; None where there is none or it is shorter than `TELLING`."""
    plain = pc.replace_substring_regex(pc.utf8_lower(texts), r"[\s\pP]+", " ")
    plain = pc.utf8_normalize(pc.utf8_trim_whitespace(plain), form="NFC")
    return pc.if_else(pyarrow.array(letters(texts) >= TELLING), plain, None)


def codes(column: pyarrow.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """A column as numbers `[n]` of its distinct values, -1 where there is none, and these values."""
    encoded = pc.dictionary_encode(column).unify_dictionaries().combine_chunks()
    return encoded.indices.fill_null(-1).to_numpy(), encoded.dictionary.to_pylist()
