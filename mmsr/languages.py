"""Names and codes of languages, of any standard: one code each. The one place that reads them.

A code is the shortest of ISO 639, without region and script: `zh` for `zho`, `cmn`, `zho_Hans`, `zh-CN`,
`Chinese`, `中文`, `Chinois`. langcodes knows the codes, and its data the names, in many languages.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import overload

UNSPACED = frozenset(
    ("zh", "yue", "wuu", "gan", "hsn", "cjy", "lzh", "ja", "th", "nod", "tts", "lo", "my", "shn", "mnw")
    + ("km", "bo", "dz")
)
"""Languages written without spaces between words."""

CHINESE = frozenset(("zh", "yue", "wuu", "gan", "hsn", "cjy", "lzh"))
"""Languages written in Chinese characters alone."""

UNDETERMINED = "und"
"""The code that says that a language is not known."""

NATIVE_NAMES = {"en": "English", "vi": "Tiếng Việt", "zh": "中文", "de": "Deutsch", "fr": "Français"}
"""Native names of the languages that the web page offers."""

# Names that langcodes' data lacks.
_NAMES = {
    **dict.fromkeys(
        ("汉语", "漢語", "华语", "華語", "国语", "國語", "普通話", "tiếng hoa", "tieng trung"), "zh"
    ),
    **dict.fromkeys(("廣東話", "广府话"), "yue"),
    **dict.fromkeys(("tieng viet", "việt", "viet"), "vi"),
    **dict.fromkeys(("standard german", "high german", "hochdeutsch"), "de"),
    **dict.fromkeys(("castellano", "espanol", "castilian"), "es"),
    **dict.fromkeys(("francais", "français"), "fr"),
    **dict.fromkeys(("bokmal", "bokmål"), "no"),
    **{
        "한국말": "ko",
        "modern standard arabic": "ar",
        "haitian creole": "ht",
        "portugues": "pt",
        "turkce": "tr",
    },
}
# Bokmål is what is called Norwegian, and what recognisers of `no` write; Nynorsk is another.
_SAME = {"cmn": "zh", "nb": "no"}
# Fewest speakers of a language without a code of two letters that is read by its name. Languages are called
# "Male" and "A" too, and who writes that in a table means something else.
_SPEAKERS = 10_000
# Codes of countries that people write for a language, and that no language has.
_COUNTRIES = {"cn": "zh", "dk": "da", "gb": "en", "jp": "ja", "kr": "ko", "us": "en", "vn": "vi"}


@overload
def language_code(language: str) -> str: ...
@overload
def language_code(language: None) -> None: ...
@overload
def language_code(language: str | None) -> str | None: ...
def language_code(language: str | None) -> str | None:
    """The code of a language: `zh` for `zho`, `cmn`, `zho_Hans`, `zh-CN` or `Chinese`, but not for `yue`.

    Args:
        language: A code of ISO 639, with or without region and script, also as a POSIX locale or a token of a
            model (`en_US.UTF-8`, `<|en|>`), or a name in any language; in any case.

    Returns:
        The code. What is no language is a name of its own, such as a group of rows: as it is written, in
        lower case. None for None.
    """
    if language is None:
        return None
    plain = _plain(language)
    return _found(plain) or plain


def unified(languages: Sequence[str | None]) -> list[str | None]:
    """Each language as the first that is the same is written: `[zh, vi, Chinese]` become `[zh, vi, zh]`."""
    first: dict[str | None, str | None] = {}
    return [first.setdefault(language_code(language), language) for language in languages]


def is_language_code(text: str) -> bool:
    """Whether a text begins with a code of ISO 639, in lower case."""
    primary = re.split("[-_]", text.strip())[0]
    return primary == primary.lower() and _of_tag(primary) is not None


def english_name(language: str) -> str:
    """The English name of a language, such as Vietnamese for `vi`; what is no language stays as it is."""
    import langcodes

    code = _found(_plain(language))
    return langcodes.Language.make(code).display_name("en") if code else language


def guess_language(word: str) -> str | None:
    """The language that a word, such as a country's code, probably means; None if none."""
    plain = _plain(word)
    return _COUNTRIES.get(plain) or _found(plain)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip().casefold()


@cache
def _found(plain: str) -> str | None:
    """The code of a language that is written so, in lower case; None if it is no language."""
    return _NAMES.get(plain) or _of_tag(plain) or _of_name(plain)


def _of_tag(plain: str) -> str | None:
    import langcodes

    tag = re.split("[.@]", plain)[0].strip("<|>_ ").replace("_", "-")  # `de_DE.UTF-8@euro`, `<|de|>`
    primary = tag.split("-")[0]
    if not re.fullmatch("[a-z]{2,3}", primary):
        return None
    try:
        tag = langcodes.standardize_tag(tag, macro=True)
    except langcodes.LanguageTagError:  # what follows the language is no region, script or variant
        tag = langcodes.standardize_tag(primary, macro=True)
    code = langcodes.Language.get(tag).language
    known = code and langcodes.Language.make(code).is_valid()
    return _SAME.get(code, code) if code and known else None


def _of_name(plain: str) -> str | None:
    import langcodes
    from language_data.names import TRIES, normalize_name

    name = " ".join(re.split(r"[_\s]+", plain))
    for written in (name, name.removesuffix(" language"), re.sub(r" ?\(.*\)$", "", name)):
        if written.isascii() and len(written) < 4:  # so short, it is a name in some language by chance
            continue
        for names in ("en", "und"):  # English first: "Malayo" is another language in Spanish
            try:
                found = langcodes.find(written, names)
            except LookupError:
                continue
            # find() also takes a name with more words after it: "English 2" is a group, and no language
            exact = normalize_name(written) in TRIES[f"{names}/name_to_language"]
            code = _of_tag(found.language or "")
            # "Tagalog" is found as `tl`, whose speakers are counted under its code of today, `fil`
            known = len(code or "") == 2 or max(map(_speakers, (found.language, code))) >= _SPEAKERS
            if exact and code and known:
                return code
    return None


def _speakers(code: str | None) -> int:
    import langcodes

    return langcodes.Language.make(code).speaking_population()
