"""Progress as lines: how often, and with which words."""

import io
import sys

import pytest

from mmsr.progress import ProgressLines, duration, rate, show_progress


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_comes_after_ten_seconds_and_then_each_minute():
    clock, lines = Clock(), []
    show = ProgressLines(lines.append, clock)
    for done in range(1, 201):  # a call a second
        clock.now += 1
        show("transcribing", done, 2000)
    assert lines == [
        "transcribing  10/2,000  1.0/s  33 min left",
        "transcribing  70/2,000  1.0/s  32 min left",
        "transcribing  130/2,000  1.0/s  31 min left",
        "transcribing  190/2,000  1.0/s  30 min left",
    ]


def test_a_step_that_had_a_line_has_one_at_its_end_and_a_short_one_has_none():
    clock, lines = Clock(), []
    show = ProgressLines(lines.append, clock)
    for step, seconds in (("short", 1), ("long", 8), ("short again", 0.1)):
        for done in (1, 2, 3):
            clock.now += seconds
            show(step, done, 3)
    assert lines == ["long  1/3", "long  3/3  16 s"]
    clock.now += 100
    show("long", 1, 3)  # the same step of another input begins again
    assert lines[-1] == "long  1/3"


def test_many_short_steps_are_not_silent():
    clock, lines = Clock(), []
    show = ProgressLines(lines.append, clock)
    for point in range(60):
        for done in (1, 2):
            clock.now += 4
            show(f"noise {point}", done, 2)
    assert 7 <= len(lines) <= 9


def test_progress_is_a_bar_on_a_terminal_alone(monkeypatch, capsys):
    assert isinstance(show_progress(), ProgressLines)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    show = show_progress()
    assert not isinstance(show, ProgressLines)
    show("audio", 1, 2)
    show("audio", 2, 2)
    assert "audio" in sys.stderr.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (99, "99 s"), (150, "2 min"), (5900, "98 min"), (12_000, "3 h 20 min")],
)
def test_durations_are_said_as_people_say_them(seconds, words):
    assert duration(seconds) == words


def test_speeds_below_one_are_the_time_of_one():
    assert [rate(8.14), rate(0.25), rate(8.14, "step"), rate(0.25, "step")] == [
        "8.1/s",
        "4.0 s each",
        "8.1 steps/s",
        "4.0 s a step",
    ]
