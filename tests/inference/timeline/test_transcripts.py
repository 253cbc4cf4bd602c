"""A recording along its time axis: the answers, what a kill leaves, what is written, how the page acts."""

import re
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsr.data.manifest.issues import ManifestError
from mmsr.inference.timeline.cues import Cue, TimelineError, Turn
from mmsr.inference.timeline.transcripts import ENDINGS, read_cues, read_turns


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
        (
            "SPEAKER my talk 1 1 2 x y anna lee <NA> <NA>",
            r"line 2: has 12 fields, and no <NA> <NA> after a duration; accepted: such as SPEAKER my talk ",
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
    (tmp_path / "t.rttm").write_bytes(b"\nSPEAKER t\xfd\xff 1 1 1 <NA> <NA> bo")
    with pytest.raises(
        TimelineError, match=r"t\.rttm, line 2: is not UTF-8 \(byte 0xfd\); accepted: UTF-8, "
    ):
        read_turns(tmp_path / "t.rttm")


@pytest.mark.parametrize(
    ("line", "speaker"),
    [
        ("talk 1 0.5 2.0 <NA> <NA> anna <NA> <NA>", "anna"),
        ("talk 1 0.5 2.0 <NA> <NA> anna <NA>", "anna"),  # without lookahead
        ("talk 1 0.5 2.0 <NA> <NA> anna 0.95 <NA>", "anna"),
        ("my talk (2) 1 0.5 2.0 <NA> <NA> Dr Anna Lee <NA> <NA>", "Dr Anna Lee"),
        ("my talk 1 0.5 2.0 <NA> <NA> Speaker 1 <NA>", "Speaker 1"),
        ("2024 01 12 1 0.5 2.0 <NA> <NA> anna <NA> <NA>", "anna"),
        ("talk 1 0,5 2,0 <NA> <NA> anna", "anna"),
        ("talk\t1\t0.5\t2.0\t<NA>\t<NA>\tDr Anna\t<NA>\t<NA>", "Dr Anna"),
        ("talk  1   0.5   2.000 <NA> <NA> Anna\u00a0B\x85 <NA> <NA>", "Anna\u00a0B\x85"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_names_in_rttm_may_have_spaces(tmp_path: Path, line: str, speaker: str, end: str) -> None:
    first = "SPEAKER\t" if "\t" in line else "SPEAKER "
    lines = [";; turns", "SPKR-INFO talk 1 <NA> <NA> <NA> adult_male anna <NA>", f"{first}{line}", ""]
    (tmp_path / "t.rttm").write_bytes(end.join(lines).encode())
    assert read_turns(tmp_path / "t.rttm", recording="x") == [Turn(start=0.5, end=2.5, speaker=speaker)]


def test_a_recording_is_found_by_its_name(tmp_path: Path) -> None:
    names = ["/data/Cafe\u0301 1.wav", "other.wav"]
    lines = [f"SPEAKER {name} 1 {n} 2 <NA> <NA> bo <NA> <NA>\n" for n, name in enumerate(names)]
    (tmp_path / "t.rttm").write_text("".join(lines), encoding="utf-16")
    assert read_turns(tmp_path / "t.rttm", recording="Café 1")[0].start == 0
    assert read_turns(tmp_path / "t.rttm", recording="other")[0].start == 1
    with pytest.raises(TimelineError, match=r"and none of 'wav'; accepted"):
        read_turns(tmp_path / "t.rttm", recording="wav")


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
        ("a.txt", "-0.5\t1.5\thm\n", r"line 1, column start: '-0.5'; accepted: 0 or more"),
        ("a.csv", "start,end,text\n1,2,hm\n1,soon,hm\n", r"row 3, column end: 'soon'; accepted: 0 or more"),
        ("a.tsv", "start\tend\ttext\n-1\t2\thm\n", r"row 2, column start: '-1'; accepted: 0 or more seconds"),
        ("a.tsv", "start\tend\ttext\n1\t2\thm\n3\n", r"row 3: has 1 values; accepted: 3, as the header has"),
        ("a.csv", 'start,end,text\n1,2,"hm" x\n', r"line 2: cannot be read \(.*\); accepted: quotes around"),
        ("a.txt", "1.0\t2.0\thm\n3.0\n", r"line 2, column end: ''; accepted: 0 or more seconds"),
        ("a.txt", "Good morning.\n", r"has no column start; accepted: start and end in seconds"),
        ("a.tsv", "Begin Time - msec\tEnd Time - msec\tanna\n1\t2\thm\n", r"has no column start; accepted"),
        ("a.json", '{"words": []}', r"has no list of segments; accepted: JSON of whisper"),
        (
            "a.json",
            '{"segments": [{"start": 1, "text": "hm"}]}',
            r"segments 1, end: None; accepted: 0 or more",
        ),
        ("a.lrc", "[00:01.00]hm\n", r"has the ending '\.lrc'; accepted: \.srt, \.vtt"),
    ],
)
def test_a_fault_in_a_transcript_is_named(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(TimelineError, match=rf"^{re.escape(str(tmp_path / name))}[,:] {told}"):
        read_cues(tmp_path / name)


def written(path: Path, text: str, encoding: str = "utf-8") -> list[tuple[float, float, str]]:
    path.write_bytes(text.encode(encoding))
    return [(cue.start, cue.end, cue.text) for cue in read_cues(path)]


TALK = [(0.0, 0.4, "Good morning."), (1.6, 3.4, "Kids are talking by the door.")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "start\tend\ttext\n0\t400\tGood morning.\n1600\t3400\tKids are talking by the door.\n"),
        ("a.csv", 'start,end,text\n0,400," Good morning."\n1600,3400," Kids are talking by the door."\n'),
        (
            "a.csv",
            "sep=;\r\nStart;End;Text\r\n0,0;0,4;Good morning.\r\n1,6;3,4;Kids are talking by the door.",
        ),
        (
            "a.txt",
            "\\\t10.0\t20.0\n0.0\t0.4\tGood morning.\n1.6\t3.4\tKids are talking by the door.\n",
        ),
        ("a.csv", "Start;End;Text\r\n0,0;0,4;Good morning.\r\n1,6;3,4;Kids are talking by the door."),
        (
            "a.tsv",
            "text\tend\tstart\nGood morning.\t0:00:00.4\t0\n\nKids are talking by the door.\t3,4\t1,6\n",
        ),
        (
            "a.jsonl",
            '{"start": 0, "end": 400, "text": "Good morning."}\n'
            '{"start": 1600, "end": 3400, "text": "Kids are talking by the door."}\n',
        ),
        ("a.txt", "0.000000\t0.400000\tGood morning.\n1.600000\t3.400000\tKids are talking by the door.\n"),
        (
            "a.txt",
            "0,000000\t0,400000\tGood morning.\n\\\t10.0\t20.0\n1,600000\t3,400000\tKids are"
            " talking by the door.",
        ),
        (
            "a.txt",
            "[00:00.000 --> 00:00.400]  Good morning.\n[00:01.600 --> 00:03.400]  Kids are talking by the"
            " door.\n",
        ),
        (
            "a.json",
            '{"segments": [{"start": 0.0, "end": 0.4, "text": " Good morning.", "speaker": "A"},'
            ' {"start": 1.6, "end": 3.4, "text": " Kids are talking by the door."}], "language": "en"}',
        ),
        (
            "a.json",
            '{"transcription": [{"offsets": {"from": 0, "to": 400}, "text": " Good morning."},'
            ' {"offsets": {"from": 1600, "to": 3400}, "text": " Kids are talking by the door."}]}',
        ),
        (
            "a.json",
            '{"text": "x", "chunks": [{"timestamp": [0.0, 0.4], "text": " Good morning."},'
            ' {"timestamp": [1.6, 3.4], "text": " Kids are talking by the door."}]}',
        ),
    ],
)
def test_what_tools_write_is_in_the_same_seconds(tmp_path: Path, name: str, text: str) -> None:
    assert written(tmp_path / name, text) == TALK


def test_whole_seconds_stay_seconds(tmp_path: Path) -> None:
    text = "start\tend\ttext\n0\t4\tGood morning.\n4\t9\tKids are talking by the door.\n9\t9\tend\n"
    assert [start for start, _, _ in written(tmp_path / "a.tsv", text)] == [0, 4, 9]


def test_quotes_of_words_stay_and_quotes_of_cells_go(tmp_path: Path) -> None:
    rows = '0\t1.5\t"Hello," she said.\n2\t3\t"Kids."\n4\t5\t"He said ""hi"""\n6\t7\ta "b\tc\n'
    found = [text for _, _, text in written(tmp_path / "a.tsv", f"start\tend\ttext\n{rows}")]
    assert found == ['"Hello," she said.', '"Kids."', 'He said "hi"', 'a "b c']
    several = 'start\tend\ttext\n0\t1\t"Kids are\ntalking"\n2\t3\tby the door\n'
    assert [text for _, _, text in written(tmp_path / "a.tsv", several)] == [
        "Kids are talking",
        "by the door",
    ]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8-sig", "谢谢医生"),
        ("utf-16", "Thank you, doctor."),
        ("utf-16-be", "Thank you, doctor."),
        ("gb18030", "谢谢医生，您真好。"),
        ("big5", "謝謝醫生，您真好。"),
        ("cp1252", "Très bien, c’était gentil."),
    ],
)
def test_transcripts_are_in_the_encodings_of_editors(tmp_path: Path, encoding: str, text: str) -> None:
    for name, form in (
        ("a.srt", "1\n00:00:01,500 --> 00:00:04,000\n{}\n"),
        ("a.vtt", "WEBVTT\n\n00:01.500 --> 00:04.000\n{}\n"),
        ("a.tsv", "start\tend\ttext\n1.5\t4\t{}\n"),
        ("a.txt", "1.500000\t4.000000\t{}\n"),
    ):
        assert written(tmp_path / name, form.format(text), encoding) == [(1.5, 4, text)], name
    with pytest.raises(
        TimelineError, match=r"a\.srt.* byte .*: is not ascii, as given; accepted: a whole file"
    ):
        (tmp_path / "a.srt").write_bytes("é".encode("cp1252"))
        read_cues(tmp_path / "a.srt", encoding="ascii")


_LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *("1", "WEBVTT", "NOTE x", "STYLE", "00:00:01,000 --> 00:00:02,000", "00:01.5 -> 00:02.5"),
                *("[00:00.000 --> 00:02.000] a", "-->", "<i>a</i>", "0:00:01.000,0:00:02.000", "", " "),
                *(
                    "start\tend\ttext",
                    "0\t400\ta",
                    "1.0\t2.0\tb",
                    '1\t2\t"c',
                    "start,end,text",
                    '1,2,"a',
                    "\\\t1\t2",
                ),
                *(
                    "[Events]",
                    "Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,a",
                    "Dialogue: x",
                    '{"segments": [',
                    '{"start": 1, "end": 2, "text": "a"}',
                    "]}",
                    '{"chunks": [{"timestamp": [1]}]}',
                    "[1, 2]",
                ),
                *("SPEAKER a 1 0.5 2 <NA> <NA> b", "SPEAKER", ";; x", "SPKR-INFO"),
            ]
        ),
        st.text(max_size=20),
    ),
    max_size=8,
)


@given(
    _LINES,
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-16", "gb18030", "latin-1"]),
    st.data(),
)
@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
def test_any_file_is_read_or_refused_in_a_line(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str, encoding: str, data: st.DataObject
) -> None:
    ending = data.draw(
        st.sampled_from([*(one for one in ENDINGS if one not in (".parquet", ".xlsx")), ".rttm"])
    )
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    path.write_bytes(end.join(lines).encode(encoding, errors="replace"))
    try:
        found = read_turns(path) if ending == ".rttm" else read_cues(path)
    except (TimelineError, ManifestError) as error:
        assert (
            "accepted: " in str(error)
            and len(str(error).splitlines()) == 1
            or isinstance(error, ManifestError)
        )
    else:
        assert all(0 <= one.start <= one.end for one in found)
        assert all("\n" not in one.text for one in found if isinstance(one, Cue))
