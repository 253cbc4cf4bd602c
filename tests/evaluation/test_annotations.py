"""Brackets that name a sound, and brackets around spoken words."""

import pytest

from mmsr.evaluation.annotations import annotation_spans, cut_out

SOUNDS = (
    """
[BLANK_AUDIO]|[ Silence ]|[Music]|(music)|(gentle music)|(upbeat music playing)|(speaking in foreign language)
(speaking Spanish) (laughs)|*laughs*|*coughing*|(applause)|[inaudible]|((coughs))|♪|♪♪♪|🎵|<unk>|{noise}
[Musik]|(Musik)|(Applaus)|(lacht)|*seufzt*|(Musique)|(Rires)|(Bruit de fond)|[Âm nhạc]|(Tiếng cười)|(vỗ tay)
[音乐]|（音乐）|【掌声】|(笑声)|(Música)|(Risas)|(拍手)|（笑）|[음악]|(박수)|(Музыка)|(Аплодисменты)|(ดนตรี)|(موسيقى)
""".strip()
    .replace("\n", "|")
    .split("|")
)


@pytest.mark.parametrize("sound", SOUNDS)
def test_sounds_are_no_words_of_a_recogniser(sound: str):
    assert cut_out(sound, annotation_spans(sound, recognised=True)).strip() == ""
    inside = f"Hello. {sound} There."
    if sound != "(speaking Spanish) (laughs)":  # speech, as far as people's transcripts go
        assert cut_out(inside, annotation_spans(inside)).split() == ["Hello.", "There."]


@pytest.mark.parametrize(
    "text", ["two (or three) days", "the (WHO) says", "*really* bad", "a < b and c > d", "(yes)"]
)
def test_words_in_brackets_stay_in_a_person_s_transcript(text: str):
    assert annotation_spans(text) == []


@pytest.mark.parametrize(
    "text",
    ["I am a singer", "a cheerful, sober musician in a crystal palace", "the end of the day, for a ride"],
)
def test_words_that_begin_as_sounds_do_are_words(text: str):
    assert annotation_spans(f"so ({text})") == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("(something never listed)", ""),  # nothing else is there
        ("hello [Music", "hello"),  # the tokens ran out
        ("[Music", ""),
        ("hello (or goodb", "hello (or goodb"),
        ("♪ la la ♪", "la la"),
        (". . .", ""),
        ("", ""),
        ("two (or three) days", "two (or three) days"),
    ],
)
def test_a_recogniser_hears_no_brackets(text: str, left: str):
    assert cut_out(text, annotation_spans(text, recognised=True)).strip() == left
