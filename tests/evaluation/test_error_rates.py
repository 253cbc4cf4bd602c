"""Error rates: what counts as an error in which language, and sums over a corpus."""

import pytest

from mmsr.evaluation.error_rates import edits, markdown_table, normalise, units, word_error_rate

pytest.importorskip("jiwer", reason="error rates need jiwer: pip install 'mmsr[asr]'")


def test_rates_are_summed_edits_by_summed_words():
    """One error in one word and none in nine: a tenth, not the mean of the rows' rates, a half."""
    rates = word_error_rate(["yes", "a b c d e f g h i"], ["no", "a b c d e f g h i"], ["de", "de"])
    assert rates["wer"] == pytest.approx(1 / 10)
    assert (rates["n"], rates["words"], rates["substitutions"]) == (2, 10, 1)
    rates = word_error_rate(["one two three four"], ["one too three"], ["de"])
    assert (rates["substitutions"], rates["deletions"], rates["insertions"]) == (1, 1, 0)
    assert rates["wer"] == pytest.approx(2 / 4)
    assert rates["cer"] == pytest.approx(6 / 18)


@pytest.mark.parametrize(
    ("language", "reference", "hypothesis"),
    [
        ("en", "It's twenty-five, isn't it?", "it is 25 is not it"),
        ("en-US", "Doctor Smith (cough) went", "dr smith went"),
        ("de", "Wie geht's, Frau Müller?", "wie geht s frau müller"),
        ("vi", "Cảm ơn bác sĩ!", "cảm ơn bác sĩ"),
        ("vi", "Ca\u0309m o\u031bn", "cảm ơn"),  # decomposed letters
        ("zh", "您好，医生。", "您好 医生"),
        (None, "HELLO, world", "hello world"),
    ],
)
def test_writing_is_no_error(language, reference, hypothesis):
    rates = word_error_rate([reference], [hypothesis], [language])
    assert rates["cer"] == 0 and rates["wer"] in (0, None)


def test_accents_and_digits_are_errors_outside_english():
    assert word_error_rate(["má"], ["ma"], ["vi"])["wer"] == 1
    assert word_error_rate(["fünf"], ["5"], ["de"])["wer"] == 1


def test_unspaced_languages_have_a_cer_alone():
    rates = word_error_rate(["您好医生", "a b"], ["您号医生", "a c"], ["zh-CN", "en"])
    assert rates["by_language"]["zh"]["wer"] is None
    assert rates["by_language"]["zh"]["cer"] == pytest.approx(1 / 4)
    assert rates["wer"] == pytest.approx(1 / 2) and rates["words"] == 2
    assert rates["cer"] == pytest.approx(2 / 7)
    table = markdown_table(rates)
    assert "| zh | 1 | - | 0.2500 |" in table and "CER is the figure" in table
    assert units("您好 a", "zh") == ["您", "好", "a"] and normalise("您 好", "zh") == "您好"


def test_a_language_is_one_however_it_is_written():
    written = ["zh", "zho", "cmn", "zho_Hans", "zh-CN", "Chinese"]
    rates = word_error_rate(["您好医生"] * 6, ["您号医生"] * 6, written)
    assert list(rates["by_language"]) == ["zh"] and rates["wer"] is None
    assert rates["cer"] == pytest.approx(1 / 4)


def test_silence_counts():
    rates = word_error_rate(["", "hello there"], ["thank you", ""], ["de", "de"])
    assert (rates["insertions"], rates["deletions"], rates["wer"]) == (2, 2, 2.0)
    assert word_error_rate([""], [""])["wer"] is None
    assert edits("a b c", "a x c d", "de") == 2


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="2 references, 1 hypotheses and 2 languages"):
        word_error_rate(["a", "b"], ["a"], ["en", "en"])
