import pytest

from mmsr.languages import NATIVE_NAMES, english_name, guess_language, is_language_code, language_code


@pytest.mark.parametrize(
    ("code", "written"),
    [
        ("zh", "zh zho chi cmn zho_Hans zho_Hant zho_simp zh-CN ZH_cn zh-Hant-TW zh_CN.UTF-8 CHINESE"),
        ("zh", "cmn-script_simplified Chinese mandarin 中文 汉语 漢語 普通话 简体中文 Chinesisch chinois"),
        ("yue", "yue zh-yue yue_Hant yue-script_traditional Cantonese 粤语 廣東話"),
        ("vi", "vi vie VIE vi-VN vi_VN.UTF-8 <|vi|> Vietnamese Vietnamien vietnamesisch 越南语"),
        ("de", "de deu ger de_AT de_DE@euro German Deutsch allemand 德语"),
        ("fr", "fr fra fre fr_XX French Français francais Französisch 法语"),
        ("en", "en EN eng en_us en_US.UTF-8 eng_Latn en-x-klinik English anglais Englisch 英语"),
        ("he", "he iw heb Hebrew עברית"),
        ("jv", "jv jw jav Javanese"),
        ("no", "no nb nor nob nb-NO Norwegian bokmål"),
        ("nn", "nn nno nynorsk"),
        ("cs", "cs cze ces Czech"),
        ("fa", "fa per fas Farsi Persian"),
        ("ms", "ms msa may zsm Malay"),
        ("fil", "tl tgl fil Tagalog Filipino"),
        ("el", "el gre ell Greek"),
        ("ar", "ar ara arb العربية"),
    ],
)
def test_a_language_has_one_code_however_it_is_written(code: str, written: str):
    assert {name: language_code(name) for name in written.split()} == dict.fromkeys(written.split(), code)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("zh", "Mandarin Chinese"),
        ("zh", "Chinese (Simplified)"),
        ("zh", "Mandarin (Taiwan)"),
        ("yue", "Chinese (Cantonese)"),
        ("ht", "Haitian Creole"),
        ("en", "English (US)"),
        ("en", " american english "),
        ("en", "English language"),
        ("en", "tiếng Anh"),
        ("vi", "Tie\u0302\u0301ng Vie\u0323\u0302t"),  # decomposed
    ],
)
def test_a_name_of_several_words_is_a_language(code: str, name: str):
    assert language_code(name) == code


def test_whisper_s_own_names_are_its_languages():
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    assert {name: language_code(name) for name in TO_LANGUAGE_CODE} == {
        name: language_code(code) for name, code in TO_LANGUAGE_CODE.items()
    }
    assert len({language_code(code) for code in LANGUAGES}) == len(LANGUAGES)


def test_what_is_no_language_stays_as_it_is():
    assert language_code(None) is None
    assert [language_code(text) for text in ("", "xx", "Klingon dialect", "detect")] == [
        "",
        "xx",
        "klingon dialect",
        "detect",
    ]


@pytest.mark.parametrize(
    "name",
    ["unknown", "other", "mixed", "a", "n/a", "en/vi", "en,vi", "English 2", "german_1", "group-a", "l1"],
)
def test_groups_of_rows_are_not_merged_into_a_language(name: str):
    assert language_code(name) == name.lower()


def test_native_names_are_read():
    assert {code: language_code(name) for code, name in NATIVE_NAMES.items()} == {
        code: code for code in NATIVE_NAMES
    }


def test_codes_are_known_from_names_and_countries():
    assert all(map(is_language_code, ("vi", "vie", "zh-CN", "zho_Hans", "yue")))
    assert not any(map(is_language_code, ("vn", "xx", "xxx", "VI", "English", "", "v")))
    assert [guess_language(word) for word in ("vn", "CN", "English", "VIE", "xx", "train")] == [
        "vi",
        "zh",
        "en",
        "vi",
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("written", "name"),
    [("vi", "Vietnamese"), ("zho_Hans", "Chinese"), ("Français", "French"), ("group 2", "group 2")],
)
def test_a_language_is_named_in_english_and_what_is_none_stays(written: str, name: str):
    assert english_name(written) == name
