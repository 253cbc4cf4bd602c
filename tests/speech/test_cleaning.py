"""Texts that recognisers write for noise, and times out of order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsr.records import Chunk
from mmsr.speech.cleaning import cleaned, has_words, in_order, is_loop
from mmsr.speech.decoder import Transcript

THAI = (
    "วันนี้ผมรู้สึกไม่ค่อยสบาย ปวดหัวและมีไข้มาตั้งแต่เมื่อวานครับ "
    "คุณหมอช่วยตรวจดูหน่อยได้ไหมครับว่าผมเป็นอะไร "
    "ผมกินยาแก้ปวดไปแล้วแต่ก็ยังไม่ดีขึ้นเลย ตอนกลางคืนนอนไม่หลับเพราะไอมาก และรู้สึกหนาวสั่นตลอดเวลา "
    "ที่บ้านก็มีลูกเล็กอยู่ด้วย กลัวว่าจะติดกัน อยากขอใบรับรองแพทย์ด้วยครับ"
)


def words(text: str, *, step: float = 0.5) -> tuple[Chunk, ...]:
    """A chunk for each word of a text."""
    return tuple(
        Chunk(text=word, start=step * place, end=step * (place + 1))
        for place, word in enumerate(text.split())
    )


def clean(text: str) -> str:
    return cleaned(Transcript(text=text, language="en", chunks=None)).text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("[BLANK_AUDIO]", ""),
        ("[BLANK_AUDIO] [BLANK_AUDIO]", ""),
        ("(keyboard clacking)", ""),  # all of it in brackets: nobody says them
        ("Hello. (upbeat music) Bye.", "Hello. Bye."),
        ("It takes two (or three) days.", "It takes two (or three) days."),
        ("♪ la la ♪", "la la"),
        (". . .", ""),
        ("Thank you. " * 20, ""),
        ("谢谢观看。" * 12, ""),
        ("you you " * 20 + "[Music]", ""),
        ("Hello doctor, I have pain in my leg." + " in my leg." * 15, "Hello doctor, I have pain in my leg."),
        ("Yes, I have pain in my leg." + " in my leg." * 15 + " in my", "Yes, I have pain in my leg."),
        ("Well. " + "and the door by " * 12 + "opens now", "Well. and the door by opens now"),
        ("no no no no", "no no no no"),  # said, for all that one can tell
        ("kids are talking by the door", "kids are talking by the door"),
        ("", ""),
        (THAI, THAI),
    ],
)
def test_annotations_and_loops_are_no_words(text: str, left: str):
    text = " ".join(text.split())
    assert clean(text) == left and has_words(text) == bool(left)
    assert clean(clean(text)) == clean(text)


def test_loops_are_told_from_words():
    assert is_loop("the door by " * 12) and is_loop("谢谢观看。" * 12)
    assert is_loop("Hello doctor, I have had this pain since Monday and it is worse." + " in my leg." * 10)
    assert not is_loop("kids are talking by the door, and dogs are sitting by the same door")
    assert not is_loop(THAI) and not is_loop("")


def test_chunks_lose_the_same_words():
    text = "Hello [soft music] there. " + "Bye now. " * 12
    heard = cleaned(Transcript(text=" ".join(text.split()), language="en", chunks=words(text)))
    assert heard.text == "Hello there. Bye now."
    assert [(chunk.text, chunk.start) for chunk in heard.chunks or ()] == [
        ("Hello", 0.0),
        ("there.", 1.5),
        ("Bye", 2.0),
        ("now.", 2.5),
    ]
    segment = Chunk(text="Yes (coughs) I do.", start=1.0, end=3.0)
    heard = cleaned(Transcript(text=segment.text, language=None, chunks=(segment,)))
    assert heard.chunks == (Chunk(text="Yes I do.", start=1.0, end=3.0),)
    silent = cleaned(Transcript(text="[ Silence ]", language="en", chunks=words("[ Silence ]")))
    assert silent == Transcript(text="", language="en", chunks=())


def test_one_time_that_is_wrong_moves_no_other_word():
    starts = (0.0, 29.0, 1.0, 2.0, 0.5, 3.0)
    chunks = [Chunk(text="a", start=start, end=start + 1.5) for start in starts]
    assert [(chunk.start, chunk.end) for chunk in in_order(chunks)] == [
        (0.0, 0.0),
        (0.0, 1.0),
        (1.0, 2.0),
        (2.0, 2.0),
        (2.0, 2.0),
        (3.0, 4.5),
    ]


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 30)), max_size=12))
def test_chunks_never_overlap(times: list[tuple[float, float]]):
    chunks = in_order([Chunk(text="a", start=start, end=end) for start, end in times])
    assert len(chunks) == len(times)
    assert all(chunk.start <= chunk.end <= 30 for chunk in chunks)
    assert all(one.end <= other.start for one, other in zip(chunks, chunks[1:], strict=False))
    assert in_order(chunks) == chunks
