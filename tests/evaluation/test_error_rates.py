"""Error rates: what counts as an error in which language, and sums over a corpus."""

import unicodedata

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


@pytest.mark.parametrize(
    ("language", "reference", "hypothesis"),
    [
        ("hi", "कि", "की"),
        ("en", "कि", "की"),  # also in a row of another language
        (None, "कि", "की"),
        ("ta", "தமிழ்", "தமிழ"),
        ("ar", "كَتَبَ", "كُتِبَ"),
        ("he", "סֵפֶר", "סַפָּר"),
        ("th", "สวัสดี", "สวัสด"),
        ("km", "ខ្មែរ", "ខ្មរ"),
        ("my", "မြန်မာ", "မန်မာ"),
        ("lo", "ລາວ", "ລ້າວ"),
        ("vi", unicodedata.normalize("NFD", "má"), unicodedata.normalize("NFD", "mà")),
        ("tr", "ılık", "ilik"),
    ],
)
def test_marks_are_part_of_their_letters(language, reference, hypothesis):
    rates = word_error_rate([reference], [hypothesis], [language])
    assert rates["cer"] > 0 and rates["wer"] in (1, None)
    assert (rates["wer"] is None) == (language in ("th", "km", "my", "lo"))


@pytest.mark.parametrize(
    ("language", "reference", "hypothesis"),
    [
        ("en", "It’s the ‘Queen’s’ “best”", "it's the 'queen's' \"best\""),
        *(("fr", f"l{mark}été", "l'été") for mark in "’‘ʼ`´′＇"),
        ("uk", "мʼята", "м’ята"),
        ("haw", "Hawaiʻi", "hawai'i"),
        ("de", "„Guten Tag“ — sagte er", '"guten Tag" - sagte er'),
        ("de", "E‑Mail-Adresse", "e mail adresse"),
        ("de", "Straße", "STRASSE"),
        ("tr", "İstanbul ve ISPARTA", "istanbul ve ısparta"),
        ("el", "ΟΔΟΣ", "οδος"),
        ("ja", "ＡＢＣ１２ｶﾞ", "abc12ガ"),
        ("de", "\ufeffSprech\u00adstunde\u200e", "sprechstunde"),
        ("te", "క్ష\u200c", "క్ష"),
        ("fa", "می\u200cخواهم", "میخواهم"),
        ("km", "ខ្ញុំ\u200bឈឺ", "ខ្ញុំឈឺ"),
        ("ar", "كـــتاب", "كتاب"),
        ("ar", "٢٥", "25"),
        ("hi", "२५", "25"),
        ("de", "1.000.000 Euro", "1000000 euro"),
        ("fr", "10\u202f000 euros", "10 000 euros"),
        ("de", "1’000", "1000"),
        ("hi", "1,00,000", "100000"),
        ("de", "1,5", "1.5"),
        ("de", "12.03.2024", "12 03 2024"),
        ("de", "a ❤️ b …", "a b"),
        ("en", "I took (two) pills", "i took two pills"),
        ("de", "Ja. (hustet) [Geräusch] <unk> Nein *lacht*", "ja nein"),
        ("zh", "（笑）您好【音乐】", "您好"),
    ],
)
def test_another_writing_is_no_error(language, reference, hypothesis):
    rates = word_error_rate([reference], [hypothesis], [language])
    assert rates["cer"] == 0 and rates["wer"] in (0, None)


@pytest.mark.parametrize("text", ["...", "- ? !", "“ ”", "€ .", "’", "❤️", "♪♪", "\u200d\ufeff", ""])
@pytest.mark.parametrize("language", ["en", "de", "zh", None])
def test_punctuation_alone_is_no_word(language, text):
    assert normalise(text, language) == "" and units(text, language) == []
    rates = word_error_rate([text], ["a"], [language])
    assert rates["words"] == 0 and rates["wer"] is None


def test_numbers_that_are_no_groups_stay_apart():
    assert normalise("0,125 und 192.168.1.1 und 2020 300", "de") == "0 125 und 192 168 1 1 und 2020 300"


def test_one_text_is_one_row():
    assert word_error_rate("कि", "की")["wer"] == 1
    rates = word_error_rate("Wie geht’s", "wie geht's", "German")
    assert (rates["n"], rates["wer"], list(rates["by_language"])) == (1, 0, ["de"])
    assert word_error_rate(["ja", "nein"], ["ja", "nein"], "deu")["by_language"].keys() == {"de"}


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
    written = ["zh", "zho", "cmn", "zho_Hans", "zh-CN", "Chinese", "中文"]
    rates = word_error_rate(["您好医生"] * 7, ["您号医生"] * 7, written)
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
