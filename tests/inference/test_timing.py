import numpy as np
import pytest

from mmsr.inference.timing import seconds_of, sounding

RATE = 16_000


def test_silent_edges_are_no_part_of_the_sound():
    tone = 0.3 * np.sin(np.arange(RATE) / 10)
    quiet = 0.001 * np.ones(RATE // 2)
    start, end = sounding(np.concatenate([quiet, tone, np.zeros(100), tone, quiet, quiet]), RATE)
    assert start == pytest.approx(0.5, abs=0.03) and end == pytest.approx(2.5, abs=0.03)


@pytest.mark.parametrize("wave", [np.zeros(RATE), np.zeros(0), np.full(7, 0.5)])
def test_silence_and_the_shortest_sounds_are_taken_whole(wave: np.ndarray):
    assert sounding(wave, RATE) == (0.0, len(wave) / RATE)


def test_each_letter_takes_the_same_time():
    text = "ab cd  efgh"
    assert seconds_of(text, (0, 2), (1.0, 5.0)) == (1.0, 2.0)
    assert seconds_of(text, (3, 5), (1.0, 5.0)) == (2.0, 3.0)
    assert seconds_of(text, (7, 11), (1.0, 5.0)) == (3.0, 5.0)
