"""Subtitles as tools write them: each cue once, with all its words, or a refusal that names its line."""

import re
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsr.inference.timeline.cues import TimelineError
from mmsr.inference.timeline.subtitles import read_substation, read_subtitles

FIRST, SECOND = "00:00:01,500 --> 00:00:04,000", "00:00:05,000 --> 00:00:06,000"


def read(text: str) -> list[tuple[float, float, str]]:
    return [(cue.start, cue.end, cue.text) for cue in read_subtitles(text, "a.srt")]


def words(text: str) -> list[str]:
    return [said for _, _, said in read(text)]


def test_a_blank_line_does_not_end_a_cue() -> None:
    assert read(f"1\n{FIRST}\nKids are talking\n\nby the door.\n") == [
        (1.5, 4.0, "Kids are talking by the door.")
    ]
    text = f"1\n{FIRST}\n\nKids are\n\n\ntalking\n\n2\n{SECOND}\n\n\nby the door.\n\n"
    assert words(text) == ["Kids are talking", "by the door."]
    assert words(text.replace("1\n0", "WEBVTT\n\n1\n0", 1)) == ["Kids are talking", "by the door."]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_lines_end_as_on_any_machine(end: str) -> None:
    text = f"1\n{FIRST}\nA\x85b\u2028c\x0bd\n\n2\n{SECOND}\nB\n"
    assert words(text.replace("\n", end)) == ["A b c d", "B"]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (f"1\n{FIRST}\nThere are\n42\n\n2\n{SECOND}\nyes\n7\n", ["There are 42", "yes 7"]),
        (f"{FIRST}\nThere are\n42\n\n{SECOND}\nyes\n7\n", ["There are 42", "yes 7"]),  # no numbers
        (f"1\n{FIRST}\nA\n2\n{SECOND}\nB", ["A", "B"]),  # no blank line between
        (f"7\n{FIRST}\nA\n\n{SECOND}\nB", ["A", "B"]),  # one number is missing
        (f"2\n{SECOND}\nB\n\n2\n{FIRST}\nA\n\n", ["A", "B"]),  # out of order, a number twice
        (f"1\n{FIRST}\n2\n{SECOND}\nB\n", ["", "B"]),  # without words
        (f"\ufeff1\n{FIRST}\nA\n\n\ufeff1\n{SECOND}\nB", ["A", "B"]),  # two files joined
        (f"#1\n{FIRST}\nA\n\n2.\n{SECOND}\nB", ["A", "B"]),
        (f"1\n{FIRST} X1:40 X2:600 Y1:20 Y2:50\nA\n", ["A"]),
        (f"1\n{FIRST}\nA --> B\n", ["A --> B"]),
        (f"1\n{FIRST}\n[SPEAKER_00]: So kind.\n", ["So kind."]),  # whisperX
    ],
)
def test_numbers_are_no_words_and_words_no_numbers(text: str, right: list[str]) -> None:
    assert words(text) == right


@pytest.mark.parametrize(
    ("times", "start", "end"),
    [
        ("00:00:01.500 --> 00:00:04.000", 1.5, 4),
        ("0:0:1,5 --> 0:0:4,25", 1.5, 4.25),
        ("00:01.500-->00:04.000", 1.5, 4),
        ("00: 00: 01, 500 -> 00: 00: 04, 000", 1.5, 4),  # from a machine that translates
        ("00:00:01,500 \u2014> 00:00:04", 1.5, 4),
        ("00:00:01:500 --&gt; 00:00:04:000", 1.5, 4),
        ("  00:00:01,500\t-->\t00:00:04,000  ", 1.5, 4),
        ("00:00:01,500000 --> 00:00:60,000", 1.5, 60),
        ("123:00:00,000 --> 123:00:01,000", 442_800, 442_801),
        ("0:00:01.500,0:00:04.000", 1.5, 4),  # SBV
    ],
)
def test_times_are_read_as_they_are_written(times: str, start: float, end: float) -> None:
    assert read(f"{times}\nwords\n") == [(start, end, "words")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1\n00:00:01,500 -->\nA\n", "line 2: '00:00:01,500 -->' is no pair of times; accepted: such as 00:"),
        (f"1\n{FIRST}\nA\n\n2\n00:00:05,000 00:00:06,000\nB\n", "line 6: '00:00:05,000 00:00:06,000' is no "),
        (f"1\n{FIRST}\nA\n\n2\n00:00:O5,000 --> 00:00:06,000\nB\n", "line 6: '00:00:O5,000 --> "),
        ("1\n00:01 --> 00:02\nA\n", "line 2: '00:01 --> 00:02' is no pair of times"),  # minutes or hours
        ("1\n00:00:01:12 --> 00:00:04:02\nA\n", "line 2: '00:00:01:12 --> 00:00:04:02' is no pair"),  # frames
        ("1\n-->\nA\n", "line 2: '-->' is no pair of times"),
        (f"1\n-{FIRST}\nA\n", "line 2: '-00:00:01,500 --> 00:00:04,000' is before 0; accepted: times from 0"),
        (f"1\n{FIRST} Hello you\nA\n", "line 2: 'Hello you' follows the times; accepted: settings such as"),
        (f"A title\n\n1\n{FIRST}\nA\n", "line 1: 'A title' has no times; accepted: such as"),
        ("1\n00:00:04,000 --> 00:00:01,500\nA\n", "line 2: ends at 1.5 s, before its start at 4 s"),
        ("hello, and no times\n", "has words but no times; accepted: such as"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text: str, told: str) -> None:
    with pytest.raises(TimelineError, match=rf"^a\.srt[,:] {re.escape(told)}"):
        read_subtitles(text, "a.srt")


def test_tags_go_and_words_stay() -> None:
    text = f"1\n{FIRST}\n{{\\an8}}<i>so</i> <font color='red'>kind</font><br>one\\Ntwo {{y:i}}\n"
    text += "&lt;b&gt; {laughs} <unk> 5<6 C:\\new <u>x</u>y\n"
    assert words(text) == ["so kind one two <b> {laughs} <unk> 5<6 C:\\new xy"]


def test_webvtt_of_meetings_and_browsers() -> None:
    text = """WEBVTT - talk
X-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:0

STYLE
::cue { color: red }

REGION
id:fred

NOTE one
line

8f5e0a5c-9c1f/12-0
00:01.500 --> 00:04.000 line:0 position:20%
<v Anna
Lee>Hello &amp; <c.loud.x>you</c>

NOTE Confidence: 0.9

identifier
00:05.000 --> 00:06.000
<ruby>漢<rt>かん</rt></ruby>字<lang en>one</lang>

more

NOTE
00:07.000 --> 00:08.000
<00:07.200>end <laughs>
00:09.000 --> 00:10.000
NOTE this is said

NOTE bye
"""
    assert read(text) == [
        (1.5, 4, "Hello & you"),
        (5, 6, "漢字one more"),
        (7, 8, "end <laughs>"),
        (9, 10, "NOTE this is said"),
    ]
    assert read("WEBVTT\n00:01.000 --> 00:02.000\nA\n") == [(1, 2, "A")] and read("WEBVTT\n") == []


YOUTUBE = """WEBVTT
Kind: captions
Language: en

00:00:00.160 --> 00:00:02.389 align:start position:0%
\x20
hello<00:00:00.480><c> everyone</c><00:00:00.960><c> today</c>

00:00:02.389 --> 00:00:02.399 align:start position:0%
hello everyone today
\x20

00:00:02.399 --> 00:00:05.030 align:start position:0%
hello everyone today
no<00:00:02.720><c> no</c>

00:00:05.030 --> 00:00:05.040 align:start position:0%
no no
\x20

00:00:05.040 --> 00:00:06.000 align:start position:0%
no no
no<00:00:05.720><c> no</c>

00:00:08.000 --> 00:00:09.000 align:start position:0%
no<00:00:08.720><c> no</c>
"""


def numbered(shown: list[str], *, gap: bool = False) -> str:
    """SRT with a caption a second, or half a second of each."""
    ends = [f"0{n},500" if gap else f"0{n + 1},000" for n in range(len(shown))]
    return "\n".join(
        f"{n + 1}\n00:00:0{n},000 --> 00:00:{end}\n{text}\n"
        for n, (text, end) in enumerate(zip(shown, ends, strict=True))
    )


def test_lines_that_roll_over_captions_come_out_once() -> None:
    assert words(YOUTUBE) == ["hello everyone today", "no no", "no no", "no no"]
    plain = re.sub(r"<[^>]*>", "", YOUTUBE).replace("no no\nno no\n\n", "no no\nthen\n\n")
    assert words(plain) == ["hello everyone today", "no no", "then", "no no"]  # yt-dlp --convert-subs
    rolled = ["A b", "A b\nC d", "C d\nE f", "E f\nG"]
    grown = ["so", "so kind", "so kind of you"]
    marked = ["<u>so</u> kind", "so <u>kind</u>", "Thank you"]  # whisper --highlight_words True
    for shown, right in (
        (rolled, ["A b", "C d", "E f", "G"]),
        (grown, ["so", "kind", "of you"]),
        (marked, ["so kind", "Thank you"]),
    ):
        assert words(numbered(shown)) == words(numbered(shown, gap=True)) == right


def test_what_is_said_twice_comes_out_twice() -> None:
    shown = ["No.", "No.", "I said no.", "I said no.", "Yes.\nYes.", "Yes.", "Well.", "Well.\nFine."]
    assert (
        words(numbered(shown))
        == words(numbered(shown, gap=True))
        == [" ".join(text.split()) for text in shown]
    )


said = st.text(
    st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="<>{}\\&"), max_size=30
)


@given(
    st.lists(st.lists(said, max_size=3), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.data(),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_no_cue_and_no_word_is_lost(cues: list[list[str]], end: str, data: st.DataObject) -> None:
    """Any texts, with two seconds between cues, numbered, in SRT and WebVTT."""
    texts = [
        [line for line in cue if line.strip() and not re.fullmatch(r"[\s#\d.):]+", line)] for cue in cues
    ]
    blanks = [data.draw(st.integers(1, 3)) for _ in texts]
    for comma, head in ((",", ""), (".", "WEBVTT\n\n")):
        text = head + "".join(
            f"{n + 1}\n00:{n:02d}:01{comma}000 --> 00:{n:02d}:02{comma}000\n"
            + "".join(f"{line}\n" for line in lines)
            + "\n" * blank
            for n, (lines, blank) in enumerate(zip(texts, blanks, strict=True))
        )
        found = read(text.replace("\n", end))
        assert [start for start, _, _ in found] == [60 * n + 1 for n in range(len(texts))]
        assert [shown for _, _, shown in found] == [" ".join(" ".join(lines).split()) for lines in texts]


def test_files_of_aegisub() -> None:
    pytest.importorskip("pysubs2", reason="ASS needs mmsr[segments]")
    text = (
        "[Script Info]\nTitle: talk\n\n[Events]\n"
        "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
        "Dialogue: 0,0:00:05.00,0:00:06.00,Default,Bo,0,0,0,,{\\k20}two, {\\k30}three\n"
        "Comment: 0,0:00:01.50,0:00:04.00,Default,,0,0,0,,not said\n"
        "Dialogue: 0,0:00:01.50,0:00:04.00,Default,,0,0,0,,{\\i1}so kind{\\i0}\\Nof you\n"
        "Dialogue: 0,0:00:01.50,0:00:04.00,Default,,0,0,0,,{\\p1}m 0 0 l 1 1{\\p0}\n"
    )
    found = [(cue.start, cue.end, cue.text) for cue in read_substation(text, "a.ass", version="ass")]
    assert found == [(1.5, 4, "so kind of you"), (5, 6, "two, three")]
    with pytest.raises(
        TimelineError, match=r"a\.ass, line 2: 'Dialogue: 0,0:00:05\.00,soon,.* is no line of"
    ):
        read_substation("[Events]\nDialogue: 0,0:00:05.00,soon,Default,,0,0,0,,x\n", "a.ass", version="ass")
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(TimelineError, match=r"'Dialogue: so' is no line"),
    ):
        read_substation("[Events]\nDialogue: so\n", "a.ass", version="ass")
    with pytest.raises(TimelineError, match=r"a\.ass: has no section \[Events\]"):
        read_substation("hello\n", "a.ass", version="ass")
