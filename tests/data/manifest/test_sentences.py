import pyarrow

from mmsr.data.manifest.sentences import TELLING, codes, letters, numbered, telling_sentences


def column(*values: str | None) -> pyarrow.ChunkedArray:
    return pyarrow.chunked_array([pyarrow.array(values, pyarrow.string())])


def test_letters_are_counted_without_spaces_and_han_counts_three():
    assert letters(column("a bc", "护士 ok", "", None)).tolist() == [3, 8, 0, 0]


def test_case_punctuation_spaces_and_unicode_form_make_no_other_sentence():
    texts = column(
        "It was a REALLY good visit, I think.", " it was a really  good visit i think", "Cảm ơn " * 5
    )
    first, second, third = telling_sentences(texts).to_pylist()
    assert first == second == "it was a really good visit i think"
    assert third == telling_sentences(column("ca\u0309m o\u031bn " * 5)).to_pylist()[0]


def test_short_and_missing_texts_identify_nothing():
    short, enough = "a" * (TELLING - 1), "a" * TELLING
    assert telling_sentences(column(short, enough, None)).to_pylist() == [None, enough, None]


def test_values_are_numbered_and_none_is_minus_one():
    numbers, values = numbered(column("b", None, "a", "b"))
    assert numbers.tolist() == [0, -1, 1, 0] and values.to_pylist() == ["b", "a"]
    assert codes(column("b", None))[1] == ["b"]
