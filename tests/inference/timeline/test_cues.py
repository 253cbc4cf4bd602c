"""Times as people write them, and cues."""

import re

import pytest

from mmsr.inference.timeline.cues import STAMP, Cue, TimelineError, clock_seconds, make_cue, read_number


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *((0, 0), (1.5, 1.5), ("1.5", 1.5), (" 1,5 ", 1.5), ("1e2", 100), (".5", 0.5), ("007", 7)),
        *(("00:01:02,500", 62.5), ("1:02.5", 62.5), ("10:00:00", 36_000)),
    ],
)
def test_a_time_has_a_point_a_comma_or_colons(value: object, seconds: float) -> None:
    assert read_number(value, "a.tsv, row 2") == seconds


@pytest.mark.parametrize(
    "value", ["", None, "soon", "-1", -0.5, "nan", float("inf"), True, "1.5.2", "1,500,000", "01:02"]
)
def test_what_is_no_time_is_refused(value: object) -> None:
    told = f"^a\\.tsv, row 2: {re.escape(repr(value))}; accepted: 0 or more seconds$"
    with pytest.raises(TimelineError, match=told):
        read_number(value, "a.tsv, row 2")
    with pytest.raises(TimelineError, match=r"0; accepted: seconds above 0"):
        read_number(0, "a.tsv, row 2", zero=False)


def test_a_clock_needs_hours_or_a_fraction() -> None:
    for text, seconds in (("1:01:01", 3661), ("01:01.25", 61.25), ("00:59:60.0", 3600), ("01:01", None)):
        found = re.fullmatch(STAMP, text)
        assert found is not None and clock_seconds(found.groups()) == seconds


def test_a_cue_has_its_words_in_a_line_and_ends_after_its_start() -> None:
    assert make_cue(" so\n kind\x85 ", 1, 1, "a.srt, line 2") == Cue(text="so kind", start=1, end=1)
    assert make_cue(None, 1, 2, "a.srt, line 2").text == ""
    with pytest.raises(TimelineError, match=r"a\.srt, line 2: ends at 1 s, before its start at 2 s"):
        make_cue("so", 2, 1, "a.srt, line 2")
