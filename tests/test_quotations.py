"""What a rationale quotes, and whether a transcript has these words."""

import unicodedata

import pytest

from mmsr.quotations import as_transcribed, evidence, fold, is_grounded, locate, quotations, quoted_parts


def quoted(text: str) -> list[str]:
    return [text[found.start : found.end] for found in quotations(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('thanks: "so much" in an "even" voice', ["so much", "even"]),
        ("nothing, isn't it", []),
        ('""', [""]),
        ('"never closed', ["never closed"]),
        ('"a""b"', ["a", "b"]),
        ("“curly” and „low“ and «french» and 「直角」", ["curly", "low", "french", "直角"]),
        ('"he said “no” then"', ["he said “no” then"]),
        ('“never closed, "plain"', ["never closed, ", "plain"]),
    ],
)
def test_quotations(text: str, expected: list[str]):
    assert quoted(text) == expected


@pytest.mark.parametrize(
    ("words", "transcript", "found"),
    [
        ("thank you", "well, thank you!", "thank you"),
        ("Thank YOU!", "well, thank you!", "thank you!"),
        ("thank", "thanks, thank you", "thank"),
        ("hank", "thank you", None),
        ("than", "thank you", None),
        ("don", "i don't know", None),
        ("don't know", "i don’t know", None),
        ("don't know", "i don't  \n know", "don't  \n know"),
        ("5", "it costs 3.5 euros", None),
        ("3.5", "it costs 3.5 euros", "3.5"),
        ("me", "mé", None),
        ("me", "me\u0301", None),
        ("cảm ơn", unicodedata.normalize("NFD", "tôi cảm ơn bạn"), unicodedata.normalize("NFD", "cảm ơn")),
        ("又有力气", "我又有力气了", "又有力气"),
        ("ok", "今天OK了", "OK"),
        ("groß", "wie GROSS er ist", "GROSS"),
        ("coop", "co\u00adop", "co\u00adop"),
        ("...", "well... yes", None),
        ("", "well", None),
        (" well ", "well", "well"),
        ("you thank", "thank you", None),
        ('a "b', 'a "b" c', None),
        ("👩", "👩\u200d💻 works", None),
    ],
)
def test_words_are_whole_and_contiguous(words: str, transcript: str, found: str | None):
    span = locate(words, transcript)
    assert (None if span is None else transcript[slice(*span)]) == found


def test_a_rationale_is_grounded_if_all_that_it_quotes_was_said():
    said = "thank you so much"
    assert is_grounded('gratitude: "thank you"', said)
    assert evidence('"so much" and "thank you"', said) == [(10, 17), (0, 9)]
    for rationale in ("gratitude", '"thank you" and “thanks”', '"thank you', '""'):
        assert is_grounded(rationale, said) == (rationale == '"thank you'), rationale
    assert not is_grounded('"thank you"', None)


def test_quotations_are_written_as_transcribed():
    said = "Thank  You so MUCH, «we» said"
    assert as_transcribed('x: " thank you" y “so much,” z', said) == 'x: "Thank  You" y “so MUCH,” z'
    assert as_transcribed('“x "thank you” y', said) == ""
    for rationale, kept in (
        ('x: "never said" in a weary “nor this” voice', "x: in a weary voice"),
        ('x : "never said", voix calme', "x, voix calme"),
        ('满意："又有力气了"，语气平稳', "满意，语气平稳"),
        ('x: "never closed', "x"),
        ('"never said" and "so much"', 'and "so MUCH"'),
    ):
        assert as_transcribed(rationale, said) == kept
    assert as_transcribed('x: "thank you" y', None) == "x: y"
    assert fold("ÀⅢ ﬁ\u00ad\tx") == "a\u0300iii fi x"


def test_parts_of_a_rationale_say_what_was_said():
    found = quoted_parts('joy: "so kind", "never said"; calm', "You were so kind")
    assert [(one.text, one.quoted, one.said) for one in found] == [
        ('joy: "', False, True),
        ("so kind", True, True),
        ('", "', False, True),
        ("never said", True, False),
        ('"; calm', False, True),
    ]
    assert [one.text for one in quoted_parts(None, "text")] == [""]
    assert not quoted_parts('"a voice"', None)[1].said
