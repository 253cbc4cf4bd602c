import json
from dataclasses import replace
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsr.inference.template import (
    MOST_WORDS,
    SENTIMENTS,
    Evidence,
    Weighted,
    phrase_language,
    quoted_span,
    write,
)
from mmsr.quotations import evidence, is_grounded, locate

PHRASES = json.loads(files("mmsr.inference").joinpath("phrases.json").read_text("utf-8"))
TEXT = "I feel much better, thank you so much!"


def weighted(text: str, **weights: float) -> list[Weighted]:
    """The words between spaces, each with a weight by its letters, 1 by default."""
    found, end = [], 0
    for word in text.split():
        start = text.index(word, end)
        end = start + len(word)
        found.append(Weighted(start, end, weights.get(word.strip("!,.?"), 1.0)))
    return found


def read(
    text: str | None = TEXT, voice: str | None = None, words: str = "gratitude", language: str = "en"
) -> Evidence:
    scores = (
        None
        if voice is None
        else {emotion: 0.9 if emotion == voice else 0.1 for emotion in PHRASES["en"]["voice"]}
    )
    if text is None:
        return Evidence(voice=scores)
    by_label = {
        label: weighted(text, thank=9.0, you=9.0, much=4.0) for label in ("negative", "neutral", "positive")
    }
    emotions = {emotion: 0.9 if emotion == words else 0.1 for emotion in SENTIMENTS if emotion != "happiness"}
    return Evidence(voice=scores, text=text, emotions=emotions, words=by_label, language=language)


def test_a_rationale_names_words_and_voice():
    assert read(voice="neutral").rationale("positive").text == 'words of gratitude: "thank you"; a calm voice'


def test_what_was_not_given_is_not_named():
    assert read().rationale("positive").text == 'words of gratitude: "thank you"'
    assert read(None, voice="anger").rationale("negative").text == "an angry voice"
    assert Evidence().rationale("neutral").text is None


def test_words_go_with_the_label_unless_the_voice_explains_it():
    assert (
        read(voice="anger").rationale("negative").text
        == 'words of gratitude: "thank you"; but an angry voice'
    )
    assert "gratitude" not in read(voice="neutral").rationale("negative").text
    forced = read(voice="anger").rationale("negative", forced=True).text
    assert "gratitude" not in forced and forced.endswith("an angry voice")


def test_a_voice_that_speaks_against_a_forced_label_is_not_its_reason():
    assert "voice" not in read(voice="anger").rationale("positive", forced=True).text
    assert read(None, voice="anger").rationale("positive", forced=True).text is None


def test_the_sentiment_of_words_is_the_sum_of_its_emotions():
    shares = {"sadness": 0.3, "anger": 0.3, "fear": 0.28, "joy": 0.1, "neutral": 0.02}
    negative = replace(read(voice="sadness"), emotions=shares)
    assert negative.rationale("negative").text.startswith("negative words: ")
    unsure = replace(read(voice="anger"), emotions={"gratitude": 0.4, "joy": 0.3, "neutral": 0.3})
    assert unsure.rationale("negative").text == "neutral words; an angry voice"
    assert unsure.rationale("positive").text.startswith("positive words")


def test_an_emotion_that_is_not_likely_is_no_name():
    for share in (0.05, 0.17, 0.49):  # of several that are possible, none is praised
        found = replace(read(), emotions={"praise": share, "joy": 0.02, "fear": 0.98 - share})
        assert found.rationale("positive").text == 'positive words: "thank you"'
    found = replace(read(), emotions={"praise": 0.5, "fear": 0.5})
    assert found.rationale("positive").text == 'words of praise: "thank you"'


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("German", "de"),
        ("zh-Hans", "zh"),
        ("yue", "zh"),
        ("und", "vi"),
        ("unknown", "vi"),
        (None, "vi"),
        (3, "vi"),
    ],
)
def test_the_language_is_the_given_or_the_likeliest(given: object, expected: str):
    assert phrase_language(given, {"en": 0.2, "vi": 0.8}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I like it. You hate them", "You hate them"),
        ("太差了。我真的讨厌", "我真的讨厌"),
        ("He said “I hate you” and cried", "I hate you"),
        ("Dr. Smith hates me", "Dr. Smith hates me"),
    ],
)
def test_a_quotation_stays_within_a_sentence_and_within_marks(text: str, expected: str):
    words = (
        [Weighted(place, place + 1, 1.0) for place in range(len(text))] if "。" in text else weighted(text)
    )
    begin = text.index(expected)
    inside = [
        word._replace(weight=9.0 if begin <= word.start < begin + len(expected) else 8.0) for word in words
    ]
    span = quoted_span(text, [*inside, Weighted(len(text), len(text), 0.0)])
    assert span is not None and text[slice(*span)] in expected


def test_neutral_words_are_not_quoted():
    assert read(words="neutral").rationale("neutral").text == "neutral words"


@pytest.mark.parametrize("language", sorted(PHRASES))
def test_every_language_has_every_phrase(language: str):
    assert PHRASES[language].keys() == PHRASES["en"].keys()
    for part in ("text", "voice"):
        assert PHRASES[language][part].keys() == PHRASES["en"][part].keys()
        assert len(set(PHRASES[language][part].values())) == len(PHRASES[language][part])
    assert {"positive", "negative", *SENTIMENTS} - {"happiness"} == set(PHRASES["en"]["text"])
    assert set(PHRASES["en"]["voice"]) <= set(SENTIMENTS)
    said = write(words="gratitude", quotation="ơn 谢", voice="anger", language=language)
    assert said is not None and '"ơn 谢"' in said and PHRASES[language]["voice"]["anger"] in said


def test_a_language_without_phrases_is_answered_in_english():
    assert write(words="fear", voice="sadness", language="fi") == "words of fear; a sad voice"


def test_an_emotion_without_a_phrase_is_named():
    assert write(words="awe", voice="boredom") == "words of awe; a voice of boredom"


def test_the_stretch_with_the_most_weight_is_quoted():
    span = quoted_span(TEXT, weighted(TEXT, thank=9.0, you=9.0))
    assert TEXT[slice(*span)] == "thank you"
    assert TEXT[slice(*quoted_span(TEXT, weighted(TEXT, better=9.0)))] == "better", "without the comma"


def test_a_word_that_is_said_twice_is_quoted_where_it_decides():
    text = "Ravishing, you are all ravishing"
    words = [word._replace(weight=9.0 if word.end == len(text) else 1.0) for word in weighted(text)]
    emotions = {"joy": 1.0}
    found = Evidence(text=text, emotions=emotions, words={"positive": words}, language="en").rationale(
        "positive"
    )
    assert found.text == 'words of joy: "ravishing"' and found.span == (23, 32)


def test_nothing_is_quoted_of_punctuation():
    assert quoted_span("... !", weighted("... !")) is None
    assert quoted_span("", []) is None


@given(
    st.lists(
        st.sampled_from(
            ["you", "don't", "3.5", '"so"', "cảm", "ơn!", "谢谢", "très", "—", "a\u0301b", "'tis", "👍🏽"]
        ),
        max_size=30,
    ),
    st.data(),
)
def test_what_is_quoted_are_whole_words(words: list[str], data: st.DataObject):
    text = " ".join(words)
    weights = [Weighted(word.start, word.end, data.draw(st.floats(0, 1))) for word in weighted(text)]
    span = quoted_span(text, weights)
    if span is None:
        assert not any(character.isalnum() for word in words for character in word if '"' not in word)
        return
    quoted = text[slice(*span)]
    assert locate(quoted, text) is not None and 1 <= len(quoted.split()) <= MOST_WORDS
    said = write(words="joy", quotation=quoted, voice="neutral")
    assert is_grounded(said, text) and len(evidence(said, text)) == 1
