"""Text files in the encodings that people save them in.

    bytes ─► a given encoding, else a byte-order mark, else UTF-8, else UTF-16 or UTF-32 without a mark
                  │ none of them
                  ▼
             encodings of the language ─► readings that are plausible in it ─► the only one, or an error

A wrong encoding seldom fails to decode: it gives other letters. So a reading counts only if all its letters
are in the language's alphabet. If several readings are left, charset-normalizer has to prefer one.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from mmsr.languages import language_code


@dataclass(frozen=True)
class DecodedText:
    """A decoded file.

    Attributes:
        text: Its text, without a byte-order mark.
        encoding: The encoding, by Python's name.
        guessed: Whether it was chosen by its letters, since nothing states it.
    """

    text: str
    encoding: str
    guessed: bool = False

    @property
    def sample(self) -> str:
        """The first words that another encoding would spell otherwise, for messages."""
        words = self.text.split()
        return repr(" ".join([word for word in words if not word.isascii()] or words)[:20])


class EncodingError(ValueError):
    """Bytes that are no text in a known encoding; the message is one line, with what is accepted.

    Attributes:
        readings: The plausible readings, if there are several, or if they have rare letters alone.
    """

    def __init__(self, message: str, readings: Sequence[DecodedText] = ()):
        super().__init__(message)
        self.readings = tuple(readings)


@dataclass(frozen=True)
class _Writing:
    """How a language is written.

    Attributes:
        encodings: Those that its texts are saved in, the usual one first.
        letters: Letters beside ASCII, lower case; or the script's own letters, as ranges of a pattern.
        common: Of a script, letters of which hardly a sentence has none; bytes that are read as another
            language's give rare ones.
    """

    encodings: tuple[str, ...]
    letters: str
    common: str = ""


_WESTERN = ("cp1252", "mac_roman", "cp850")
_CENTRAL = ("cp1250", "iso8859_2", "cp852")
_HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_VIETNAMESE = "àáảãạăằắẳẵặâầấẩẫậđèéẻẽẹêềếểễệìíỉĩịòóỏõọôồốổỗộơờớởỡợùúủũụưừứửữựỳýỷỹỵ"
_WRITING = {
    "en": _Writing(_WESTERN, "àáâäæçèéêëíîïñóôöœùúûü"),
    "de": _Writing(_WESTERN, "äöüßéèêàç"),
    "fr": _Writing(_WESTERN, "àâæçéèêëîïôœùûüÿ"),
    "vi": _Writing(("cp1258",), _VIETNAMESE),
    "zh": _Writing(
        ("gb18030", "big5hkscs"),
        _HAN,
        common="的是不了在人有我他她这這个個们們中来來上大为為和国國地到以说說时時要就出会會可也你您对對生能而子那"
        "得好很医醫谢謝没沒吗嗎呢吧都什么麼去看过過还還多小心点點",
    ),
    "es": _Writing(_WESTERN, "áéíñóúüç"),
    "pt": _Writing(_WESTERN, "àáâãçéêíóôõúü"),
    "it": _Writing(_WESTERN, "àèéìíîòóùú"),
    "nl": _Writing(_WESTERN, "áàäçéèêëíïóöúü"),
    "ca": _Writing(_WESTERN, "àçèéíïòóúü"),
    "sv": _Writing(_WESTERN, "åäöéàü"),
    "da": _Writing(_WESTERN, "æøåéäöü"),
    "no": _Writing(_WESTERN, "æøåéèêóòôäöü"),
    "fi": _Writing(_WESTERN, "äöåéšž"),
    "is": _Writing(_WESTERN, "áðéíóúýþæö"),
    "pl": _Writing(_CENTRAL, "ąćęłńóśźżé"),
    "cs": _Writing(_CENTRAL, "áčďéěíňóřšťúůýž"),
    "sk": _Writing(_CENTRAL, "áäčďéíĺľňóôŕšťúýž"),
    "hu": _Writing(_CENTRAL, "áéíóöőúüű"),
    "hr": _Writing(_CENTRAL, "čćđšž"),
    "sl": _Writing(_CENTRAL, "čšžćđ"),
    "ro": _Writing(_CENTRAL, "ăâîșțşţ"),
    "tr": _Writing(("cp1254", "cp857"), "çğıöşüâîûİ"),
    "et": _Writing(("cp1257",), "äõöüšž"),
    "lv": _Writing(("cp1257",), "āčēģīķļņšūž"),
    "lt": _Writing(("cp1257",), "ąčęėįšųūž"),
    "ru": _Writing(("cp1251", "koi8_r", "cp866"), "А-Яа-яЁё", common="оеаитн"),
    "uk": _Writing(("cp1251", "koi8_u"), "А-Яа-яЁёҐґЄєІіЇї", common="оаиніт"),
    "bg": _Writing(("cp1251", "koi8_r"), "А-Яа-я", common="аоиетн"),
    "sr": _Writing(("cp1251",), "\u0402-\u045f", common="аоиејн"),
    "el": _Writing(("cp1253", "iso8859_7"), "\u0386-\u03ce", common="αοιετσςν"),
    "he": _Writing(("cp1255", "iso8859_8"), "\u05b0-\u05f4", common="יוהלא"),
    "ar": _Writing(("cp1256", "iso8859_6"), "\u060c-\u0652", common="اليمن"),
    "fa": _Writing(("cp1256",), "\u060c-\u06cc", common="انره"),
    "th": _Writing(("cp874",), "\u0e01-\u0e5b", common="านรกคอ"),
    "ja": _Writing(
        ("cp932", "euc_jp", "iso2022_jp"),
        f"{_HAN}\u3005\u3041-\u309f\u30a0-\u30ff\uff66-\uff9f",
        common="いうかきくけこさしすたってとなにのはまもよられるをん",
    ),
    "ko": _Writing(
        ("cp949", "iso2022_kr"),
        f"{_HAN}\uac00-\ud7a3\u3131-\u318e",
        common="이다는을를에가은하고지요어아니도서로의한기사네",
    ),
}
_WRITING["yue"] = _WRITING["zh"]
_WRITING["nb"] = _WRITING["nn"] = _WRITING["no"]
# Where nobody names the language. Any bytes are letters in some encoding: more languages, fewer answers.
_SUPPOSED = ("en", "de", "fr", "vi", "zh", "ja", "ko")

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"\x84\x31\x95\x33", "gb18030"),
)
_UNMARKED = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")

_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
# Between words, in any language: punctuation of typesetters, of Chinese and Japanese, full-width ASCII.
_SIGNS = re.compile(
    "[\\s\u00a0«»¡¿§©®°·£€™\u200b-\u200f\u2010-\u2027\u2030\u2032\u2033\u2039\u203a\u3000-\u3004\u3008-\u301f\uff01-\uff5e\uffe5]"
)
_LETTER = r"[^\W\d_]"
_ODD_CASE = re.compile(
    "[a-zß-öø-ÿа-яё](?=[À-ÖØ-ÞА-ЯЁ])"
)  # a capital in a word, as in koi8's text read as cp1251's
_SIGN_IN_WORD = re.compile(rf"{_LETTER}(?:[¡¿‚„]|[«»§©®°£€™“”†‡•‹›]{_LETTER})")
_CLEARLY = 0.01  # of charset-normalizer's figures, from 0 to 1


def decode_text(
    content: bytes, name: str, *, language: str | None = None, encoding: str | None = None
) -> DecodedText:
    """Decode a text file.

    Args:
        content: Its bytes.
        name: Its name, for messages.
        language: Code or name of its language, whose encodings are tried. Without it, English, German,
            French, Vietnamese, Chinese, Japanese and Korean are supposed.
        encoding: Its encoding; nothing is guessed.

    Raises:
        EncodingError: The bytes are not in the given or marked encoding, or no plausible text, or several.
    """
    if encoding is not None:
        return _given(content, name, encoding)
    for mark, marked in _MARKS:
        # two NULs after UTF-16's mark are UTF-32's, unless the length says otherwise
        if content.startswith(mark) and not (marked.startswith("utf-32") and len(content) % 4):
            return _strict(content[len(mark) :], name, marked, why="its byte-order mark says")
    unmarked = _text(content, "utf-8")
    if unmarked is not None and not _CONTROL.search(unmarked.rstrip("\x1a")):
        return DecodedText(unmarked.rstrip("\x1a"), "utf-8")
    readings = _readings(content, language)
    if not readings:
        rare = () if language is not None else _readings(content, language, rare=True)
        raise EncodingError(f"{_not_utf8(content, name)}; accepted: {_accepted(language)}", rare)
    best = readings[0] if len(readings) == 1 else _preferred(content, readings)
    if best is None:
        found = " or ".join(f"{reading.encoding} ({reading.sample})" for reading in readings[:3])
        told = f"{name}: is not UTF-8, and may be {found}; accepted: {_accepted(language)}"
        raise EncodingError(told, readings)
    return best


def known_encoding(encoding: str) -> str:
    """Python's name of a text encoding.

    Raises:
        EncodingError: There is none of this name.
    """
    try:
        codec = codecs.lookup(encoding)
    except LookupError:
        codec = None
    if codec is None or not codec._is_text_encoding:
        raise EncodingError(
            f"encoding {encoding!r} is unknown; accepted: a name such as utf-8, utf-16, cp1252, gb18030, big5"
        )
    return codec.name


def _given(content: bytes, name: str, encoding: str) -> DecodedText:
    encoding = known_encoding(encoding)
    for mark, marked in _MARKS:
        # "utf-16" is either order, by its mark
        if content.startswith(mark) and marked.startswith(encoding):
            return _strict(content[len(mark) :], name, marked, why="as given")
    return _strict(content, name, encoding, why="as given")


def _strict(content: bytes, name: str, encoding: str, *, why: str) -> DecodedText:
    try:
        text = _composed(content.decode(encoding), encoding)
    except UnicodeDecodeError as error:
        raise EncodingError(
            f"{name}, byte {error.start}: is not {encoding}, {why}; accepted: a whole file in its encoding"
        ) from None
    if (stray := _CONTROL.search(text.rstrip("\x1a"))) is not None:
        raise EncodingError(
            f"{name}: is no text in {encoding}, {why}: it has the control character {stray[0]!r};"
            " accepted: a text file in its encoding"
        )
    return DecodedText(text.rstrip("\x1a"), encoding)


def _text(content: bytes, encoding: str) -> str | None:
    try:
        return _composed(content.decode(encoding), encoding)
    except UnicodeDecodeError:
        return None


def _composed(text: str, encoding: str) -> str:
    """Letters of cp1258, which has the tones of Vietnamese apart, as single characters."""
    return unicodedata.normalize("NFC", text) if encoding.lower() in ("cp1258", "windows-1258") else text


def _readings(content: bytes, language: str | None, *, rare: bool = False) -> list[DecodedText]:
    """The plausible readings that differ, the usual encoding first.

    Of an unknown language, they have common letters, unless `rare`.
    """
    code = language_code(language)
    supposed = [_WRITING[name] for name in (_SUPPOSED if code is None else (code,)) if name in _WRITING]
    # NULs, as each ASCII letter has one in UTF-16; ESC, as in ISO-2022
    controls = _CONTROL.search(content.decode("latin-1")) is not None
    found: dict[str, str] = {}
    for encoding in _UNMARKED if controls else ():
        text = _text(content, encoding)
        if text and any(
            _is_plausible(text, one) for one in (_WRITING.values() if code is None else supposed)
        ):
            found.setdefault(text, encoding)
    for writing in supposed:
        for encoding in writing.encodings:
            text = _text(content, encoding)
            if text and _is_plausible(text, writing) and (code or rare or _has_common(text, writing)):
                found.setdefault(text, encoding)
                if not writing.common:
                    break  # the others are of other machines, and rare
    return [DecodedText(text, encoding, guessed=True) for text, encoding in found.items()]


def _is_plausible(text: str, writing: _Writing) -> bool:
    """Whether a text may be in a language: its letters, their case, and the signs between them."""
    own = re.compile(f"[{writing.letters}{'' if writing.common else writing.letters.upper()}]")
    foreign = {letter for letter in set(text) if not letter.isascii() and not own.match(letter)}
    if any(not _SIGNS.match(letter) for letter in foreign) or _CONTROL.search(text):
        return False
    letters = [letter for letter in text if letter.isalpha()]
    ascii_letters = sum(letter.isascii() for letter in letters)
    if _ODD_CASE.search(text):
        return False
    if writing.common:
        return 3 * (len(letters) - ascii_letters) >= len(letters)
    # one letter in two of French has an accent at most, three in four of Vietnamese
    enough = ascii_letters >= (len(letters) - ascii_letters) / (3 if writing.letters == _VIETNAMESE else 1)
    return enough and not _SIGN_IN_WORD.search(text)


def _has_common(text: str, writing: _Writing) -> bool:
    """Whether a text has letters that are common in a language, if that is needed."""
    return not writing.common or not set(writing.common).isdisjoint(text.lower())


def _preferred(content: bytes, readings: Sequence[DecodedText]) -> DecodedText | None:
    """The reading that common or small letters, or charset-normalizer, prefer; None if none does."""
    scripts = [writing for writing in _WRITING.values() if writing.common]
    common = [
        reading
        for reading in readings
        if (fits := [writing for writing in scripts if _is_plausible(reading.text, writing)]) == []
        or any(_has_common(reading.text, writing) for writing in fits)
    ]
    small = [
        reading for reading in common if not reading.text.isupper()
    ]  # koi8 has capitals for small letters
    common = small or common
    if len(common) == 1:
        return common[0]
    from charset_normalizer import from_bytes

    known = {one.encoding.replace("-", "_"): one for one in common or readings}
    matches = list(from_bytes(content, cp_isolation=list(known), threshold=1.0))
    if len(matches) < len(known) or matches[0].encoding not in known:
        return None
    first, *others = matches
    better = all(
        other.chaos - first.chaos > _CLEARLY or first.coherence - other.coherence > _CLEARLY
        for other in others
    )
    return known[first.encoding] if better else None


def _not_utf8(content: bytes, name: str) -> str:
    """What is wrong, with the first line that is wrong."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return f"{name}, line {line}: is not UTF-8 (byte {content[error.start]:#04x})"
    return f"{name}: is no text: it has control characters"


def _accepted(language: str | None) -> str:
    """The ways to say what a file is in."""
    code = language_code(language)
    if code in _WRITING:
        return f"UTF-8, a byte-order mark, {', '.join(_WRITING[code].encodings)}, or --encoding with its name"
    return "UTF-8, a byte-order mark, or --encoding with its name (--language helps to find it)"
