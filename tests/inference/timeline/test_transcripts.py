"""A recording along its time axis: the answers, what a kill leaves, what is written, how the page acts."""

import re
from pathlib import Path

import pytest

from mmsr.inference.timeline.transcripts import Cue, TimelineError, Turn, read_cues, read_turns


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("SPEAKER talk 1 0.5 2.0 <NA> <NA>", r"line 2: has 7 fields; accepted: 8 or more, such as SPEAKER "),
        (
            "SPEAKER talk 1 x 2.0 <NA> <NA> anna",
            r"line 2, field 4 \(start\): 'x'; accepted: 0 or more seconds",
        ),
        ("SPEAKER talk 1 -1 2.0 <NA> <NA> anna", r"line 2, field 4 \(start\): '-1'; accepted: 0 or more"),
        (
            "SPEAKER talk 1 1 0 <NA> <NA> anna",
            r"line 2, field 5 \(duration\): '0'; accepted: seconds above 0",
        ),
        (
            "SPEAKER talk 1 1 nan <NA> <NA> anna",
            r"line 2, field 5 \(duration\): 'nan'; accepted: seconds above",
        ),
        ("SPEEKER talk 1 1 2 <NA> <NA> anna", r"line 2, field 1 \(type\): 'SPEEKER'; accepted: SPEAKER, "),
        ("SPKR-INFO talk 1 <NA> <NA> <NA> adult anna", "has no SPEAKER line; accepted: at least one"),
        (
            "SPEAKER a 1 1 2 <NA> <NA> anna\nSPEAKER b 1 1 2 <NA> <NA> bo",
            r"has turns of a, b and none of 'talk'; accepted: turns of this recording, or of one alone",
        ),
    ],
)
def test_a_fault_in_rttm_is_named(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "t.rttm").write_text(f";; turns\n{line}\n", encoding="utf-8")
    with pytest.raises(TimelineError, match=rf"^{re.escape(str(tmp_path / 't.rttm'))}[,:] {told}"):
        read_turns(tmp_path / "t.rttm", recording="talk")


def test_rttm_of_several_recordings(tmp_path: Path) -> None:
    lines = ["talk 1 5 1.5 <NA> <NA> bo", "other 1 0 1 <NA> <NA> eve", "talk 1 0.5 2 <NA> <NA> <NA> <NA>"]
    text = "\ufeff" + "".join(f"SPEAKER {line}\n" for line in lines)
    (tmp_path / "t.rttm").write_text(text, encoding="utf-8")
    assert read_turns(tmp_path / "t.rttm", recording="talk") == [
        Turn(start=0.5, end=2.5, speaker=None),
        Turn(start=5, end=6.5, speaker="bo"),
    ]
    (tmp_path / "t.rttm").write_bytes(b"SPEAKER t\xe9 1 1 1 <NA> <NA> bo")
    with pytest.raises(TimelineError, match=r"t\.rttm, byte 9: is not UTF-8; accepted: text in UTF-8"):
        read_turns(tmp_path / "t.rttm")


def test_transcripts_are_read_alike(tmp_path: Path) -> None:
    files = {
        "a.srt": "1\n00:00:01,500 --> 00:00:02,000\n{\\an8}<i>so <b>kind</b></i>,\nDr. A &amp; B\n\n"
        "2\n01:00:00,000 --> 01:00:01,000\n5 < 6",
        "a.vtt": "WEBVTT\n\nNOTE by hand\n\nfirst\n00:01.500 --> 00:02.000 align:left\n"
        "<v Anna>so <c.x>kind</c>,\nDr. A &amp; B</v>\n\n01:00:00.000 --> 01:00:01.000\n5 &lt; 6\n",
        "a.csv": 'start,end,text\n1.5,2,"so kind, Dr. A & B"\n3600,3601,5 < 6\n',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read_cues(tmp_path / name) == [
            Cue(text="so kind, Dr. A & B", start=1.5, end=2.0),
            Cue(text="5 < 6", start=3600, end=3601),
        ], name


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "a.srt",
            "1\n00:01 --> 00:02\nhm\n",
            r"line 2: '00:01 --> 00:02' is no pair of times; accepted: such as",
        ),
        ("a.srt", "hello, and no times\n", r"has words but no times; accepted: such as"),
        ("a.vtt", "WEBVTT\n\n00:02.000 --> 00:01.000\nhm\n", r"line 3: ends at 1 s, before its start at 2 s"),
        ("a.csv", "start,stop,text\n1,2,hm\n", r"has no column end; accepted: start and end in seconds"),
        ("a.csv", "start,end,text\n1,2,hm\n1,soon,hm\n", r"row 3, column end: 'soon'; accepted: 0 or more"),
    ],
)
def test_a_fault_in_a_transcript_is_named(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(TimelineError, match=rf"^{re.escape(str(tmp_path / name))}[,:] {told}"):
        read_cues(tmp_path / name)
