"""Names and codes of languages. A code is the shortest ISO 639 code, without region and script."""

import re
from functools import cache
from typing import overload

UNSPACED = frozenset(("zh", "yue", "ja", "th", "lo", "my", "km", "bo"))
"""Languages written without spaces between words."""

CHINESE = frozenset(("zh", "yue"))
"""Languages written in Chinese characters alone."""

NATIVE_NAMES = {"en": "English", "vi": "Tiếng Việt", "zh": "中文", "de": "Deutsch", "fr": "Français"}
"""Native names of the languages that the web page offers."""

# English names, with those of Whisper's languages.
_NAMES = """
    af afrikaans, am amharic, ar arabic, as assamese, az azerbaijani, ba bashkir, be belarusian, bg bulgarian,
    bn bengali, bo tibetan, br breton, bs bosnian, ca catalan, ca valencian, cs czech, cy welsh, da danish,
    de german, el greek, en english, es castilian, es spanish, et estonian, eu basque, fa persian,
    fil filipino, fil tagalog, fi finnish, fo faroese, fr french, gl galician, gu gujarati, ha hausa,
    haw hawaiian, he hebrew, hi hindi, hr croatian, ht haitian, ht haitian creole, hu hungarian, hy armenian,
    id indonesian, is icelandic, it italian, ja japanese, jv javanese, ka georgian, kk kazakh, km khmer,
    kn kannada, ko korean, la latin, lb letzeburgesch, lb luxembourgish, ln lingala, lo lao, lt lithuanian,
    lv latvian, mg malagasy, mi maori, mk macedonian, ml malayalam, mn mongolian, mr marathi, ms malay,
    mt maltese, my burmese, my myanmar, ne nepali, nl dutch, nl flemish, nn nynorsk, no norwegian, oc occitan,
    pa panjabi, pa punjabi, pl polish, ps pashto, ps pushto, pt portuguese, ro moldavian, ro moldovan,
    ro romanian, ru russian, sa sanskrit, sd sindhi, si sinhala, si sinhalese, sk slovak, sl slovenian,
    sn shona, so somali, sq albanian, sr serbian, su sundanese, sv swedish, sw swahili, ta tamil, te telugu,
    tg tajik, th thai, tk turkmen, tr turkish, tt tatar, uk ukrainian, ur urdu, uz uzbek, vi vietnamese,
    yi yiddish, yo yoruba, yue cantonese, zh chinese, zh mandarin
"""
_CODES = {name: code for code, name in (entry.strip().split(" ", 1) for entry in _NAMES.split(","))}
_CODES |= {name.lower(): code for code, name in NATIVE_NAMES.items()}
# Codes of countries that people write for a language, and that no language has.
_COUNTRIES = {"cn": "zh", "dk": "da", "gb": "en", "jp": "ja", "kr": "ko", "us": "en", "vn": "vi"}


@overload
def language_code(language: str) -> str: ...
@overload
def language_code(language: None) -> None: ...
@overload
def language_code(language: str | None) -> str | None: ...
@cache
def language_code(language: str | None) -> str | None:
    """The code of a language: `zh` for `zho`, `cmn`, `zho_Hans`, `zh-CN` or `Chinese`, but not for `yue`.

    Args:
        language: A code of two or three letters, with or without region and script, or a name, in any case.

    Returns:
        The code; other words in lower case, up to the first hyphen; None for None.
    """
    if language is None:
        return None
    import langcodes

    plain = language.strip().lower().replace("_", "-")
    if plain in _CODES:
        return _CODES[plain]
    primary = plain.split("-")[0]
    if not re.fullmatch("[a-z]{2,3}", primary):
        return primary
    try:
        tag = langcodes.standardize_tag(plain, macro=True)
    except langcodes.LanguageTagError:  # what follows the language is no region, script or variant
        tag = langcodes.standardize_tag(primary, macro=True)
    return langcodes.Language.get(tag).language or primary


def is_language_code(text: str) -> bool:
    """Whether a text begins with a code of ISO 639: a known one of two letters, or three letters."""
    import langcodes

    primary = re.split("[-_]", text.strip())[0]
    if re.fullmatch("[a-z]{2}", primary):
        return langcodes.Language.get(primary, normalize=False).is_valid()
    return bool(re.fullmatch("[a-z]{3}", primary))


def guess_language(word: str) -> str | None:
    """The language that a word, such as a country's code, probably means; None if none."""
    plain = word.strip().lower()
    if plain in _COUNTRIES:
        return _COUNTRIES[plain]
    code = language_code(plain)
    return code if plain in _CODES or is_language_code(plain) else None
