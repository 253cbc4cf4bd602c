"""Texts in the encodings that people save them in: the right letters, or an error, and never others."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsr.data.encodings import EncodingError, decode_text

_TONES = "\u0300\u0301\u0303\u0309\u0323"


def cp1258(text: str) -> bytes:
    """Windows' Vietnamese: tones follow their letters."""
    found = ""
    for letter in unicodedata.normalize("NFC", text):
        parts = unicodedata.normalize("NFD", letter)
        tone = "".join(mark for mark in parts if mark in _TONES)
        found += unicodedata.normalize("NFC", "".join(mark for mark in parts if mark not in _TONES)) + tone
    return found.encode("cp1258")


SENTENCES = {
    ("en", "cp1252"): ["“Thank you, doctor”, she said – naïve.", "Don’t worry."],
    ("fr", "cp1252"): ["Très bien, merci docteur", "Ça va", "J’ai été inquiète, c’est l’été."],
    ("de", "cp1252"): ["Danke schön", "Müde", "Straße", "Ärger über die Übung"],
    ("zh", "gb18030"): ["谢谢医生", "你好", "好的", "是的，我很好", "他说没有办法，CT检查3次。"],
    ("zh", "big5"): ["謝謝醫生", "你好", "好的", "他說沒有辦法，我很失望。"],
    ("ja", "cp932"): ["ありがとうございます", "先生はとても親切でした。", "はい"],
    ("ko", "cp949"): ["감사합니다", "선생님이 정말 친절했어요."],
}
WITH_LANGUAGE = {
    ("fr", "mac_roman"): ["Très bien, c’est gentil"],
    ("de", "cp850"): ["Danke schön, müde"],
    ("ru", "cp1251"): ["Спасибо, доктор", "Да", "нет", "как дела"],
    ("ru", "koi8_r"): ["Спасибо, доктор", "мир", "как дела"],
    ("pl", "cp1250"): ["Dziękuję, panie doktorze", "Lekarz był bardzo miły, źle się czuję"],
    ("pl", "iso8859_2"): ["Lekarz był bardzo miły, źle się czuję"],
    ("tr", "cp1254"): ["Teşekkür ederim, çok iyi", "İyi, ağrım geçti."],
    ("el", "cp1253"): ["Ευχαριστώ γιατρέ"],
    ("he", "cp1255"): ["תודה רבה דוקטור"],
    ("ar", "cp1256"): ["شكرا يا دكتور"],
    ("th", "cp874"): ["ขอบคุณคุณหมอ"],
    ("ja", "euc_jp"): ["先生はとても親切でした。"],
    ("ja", "iso2022_jp"): ["先生はとても親切でした。"],
    ("ko", "cp949"): ["네"],
}
VIETNAMESE = [
    "cảm ơn bác sĩ",
    "bác sĩ rất tận tình với bệnh nhân",
    "tôi không hài lòng",
    "vâng ạ",
    "Đau quá!",
]


@pytest.mark.parametrize(("language", "encoding"), SENTENCES)
@pytest.mark.parametrize("told", [False, True])
def test_a_sentence_is_enough_to_know_its_encoding(language: str, encoding: str, told: bool) -> None:
    for text in SENTENCES[language, encoding]:
        found = decode_text(text.encode(encoding), "a.txt", language=language if told else None)
        assert (found.text, found.guessed) == (text, True)


@pytest.mark.parametrize("language", [None, "vi", "Vietnamese", "vie"])
def test_vietnamese_of_windows_has_single_letters(language: str | None) -> None:
    for text in VIETNAMESE:
        found = decode_text(cp1258(text), "a.txt", language=language)
        assert found.text == unicodedata.normalize("NFC", text) and found.encoding == "cp1258"


@pytest.mark.parametrize(("language", "encoding"), WITH_LANGUAGE)
def test_the_language_tells_its_encodings_apart(language: str, encoding: str) -> None:
    for text in WITH_LANGUAGE[language, encoding]:
        assert decode_text(text.encode(encoding), "a.txt", language=language).text == text


@pytest.mark.parametrize("text", ["Thank you doctor", "No", "谢谢医生。\n好的", "Спасибо, доктор\n", "Très"])
@pytest.mark.parametrize("marked", [True, False])
def test_unicode_of_any_width_with_a_mark_and_without(text: str, marked: bool) -> None:
    for encoding in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        mark = "\ufeff" if marked else ""
        assert decode_text((mark + text).encode(encoding), "a.txt").text == text, encoding


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "Спасибо".encode("cp1251"),
            "a.txt, line 1: is not UTF-8 (byte 0xd1); accepted: UTF-8, a byte-order",
        ),
        (b"one\ntwo \xe8\xff\xfd\xfe", "a.txt, line 2: is not UTF-8 (byte 0xe8)"),
        (
            "\ufeffThank you".encode("utf-16-le")[:-1],
            "a.txt, byte 16: is not utf-16-le, its byte-order mark says",
        ),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "a.txt: is no text: it has control characters; accepted: UTF-8"),
        (bytes(range(256)), "a.txt, line 2: is not UTF-8 (byte 0x80)"),
    ],
)
def test_what_is_no_plausible_text_is_refused(content: bytes, told: str) -> None:
    with pytest.raises(EncodingError) as error:
        decode_text(content, "a.txt")
    assert str(error.value).startswith(told) and "; accepted: " in str(error.value)


def test_a_sign_that_opens_a_quotation_ends_no_word() -> None:
    text = "Doctorul a spus că mă simt mai bine"
    assert decode_text(text.encode("cp1250"), "a.txt").text == text  # not the "c„ m„" of a Macintosh


def test_two_plausible_readings_are_both_named() -> None:
    with pytest.raises(EncodingError) as error:
        decode_text("感冒".encode("gb18030"), "a.txt", language="zh")
    assert str(error.value) == (
        "a.txt: is not UTF-8, and may be gb18030 ('感冒') or big5hkscs ('覜簸'); accepted: UTF-8,"
        " a byte-order mark, gb18030, big5hkscs, or --encoding with its name"
    )


def test_a_given_encoding_is_believed() -> None:
    assert decode_text("Да".encode("cp1251"), "a.txt", encoding="windows-1251").text == "Да"
    assert decode_text("Да".encode("utf-16"), "a.txt", encoding="utf-16").text == "Да"
    with pytest.raises(EncodingError, match=r"a\.txt, byte 0: is not utf-8, as given; accepted: "):
        decode_text("Да".encode("cp1251"), "a.txt", encoding="utf-8")
    for name in ("utf-7000", "hex", "base64"):
        with pytest.raises(EncodingError, match=rf"encoding '{name}' is unknown; accepted: a name such as"):
            decode_text(b"a", "a.txt", encoding=name)


@given(st.binary(max_size=60), st.sampled_from([None, "en", "vi", "zh", "ru", "hi", "xx"]))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_bytes_are_text_or_refused(content: bytes, language: str | None) -> None:
    try:
        text = decode_text(content, "a.txt", language=language).text
    except EncodingError as error:
        assert "\n" not in str(error) and "accepted: " in str(error)
    else:
        assert not any(unicodedata.category(letter) in ("Cs", "Co") for letter in text) or content.isascii()
