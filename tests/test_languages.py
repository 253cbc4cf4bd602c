import pytest

from mmsr.languages import NATIVE_NAMES, guess_language, is_language_code, language_code


@pytest.mark.parametrize(
    ("code", "written"),
    [
        ("zh", "zh zho chi cmn zho_Hans zh-CN ZH_cn cmn-script_simplified Chinese mandarin 中文"),
        ("yue", "yue zh-yue yue-script_traditional Cantonese"),
        ("vi", "vi vie vi-VN Vietnamese"),
        ("de", "de deu ger de_AT German Deutsch"),
        ("en", "en EN eng en_us en-x-klinik"),
        ("he", "he iw heb"),
        ("jv", "jv jw jav"),
    ],
)
def test_a_language_has_one_code_however_it_is_written(code: str, written: str):
    assert {name: language_code(name) for name in written.split()} == dict.fromkeys(written.split(), code)


def test_what_is_no_language_stays_as_it_is():
    assert language_code(None) is None
    assert [language_code(text) for text in ("", "xx", "Klingon dialect", "detect")] == [
        "",
        "xx",
        "klingon dialect",
        "detect",
    ]


def test_native_names_are_read():
    assert {code: language_code(name) for code, name in NATIVE_NAMES.items()} == {
        code: code for code in NATIVE_NAMES
    }


def test_codes_are_known_from_names_and_countries():
    assert all(map(is_language_code, ("vi", "vie", "zh-CN", "zho_Hans", "yue")))
    assert not any(map(is_language_code, ("vn", "xx", "VI", "English", "", "v")))
    assert [guess_language(word) for word in ("vn", "CN", "English", "VIE", "xx", "train")] == [
        "vi",
        "zh",
        "en",
        "vi",
        None,
        None,
    ]
