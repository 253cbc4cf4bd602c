import numpy as np
import pytest

from mmsr.inference.prosody import LEAST, differences, in_words, prosody, usual

RATE = 16_000


def voiced(pitch: float, seconds: float = 1.0, level: float = 0.1) -> np.ndarray:
    """A sound with overtones, between silent edges."""
    time = np.arange(round(seconds * RATE)) / RATE
    wave = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 6))
    silence = np.zeros(RATE // 2)
    return np.concatenate([silence, level * wave, silence]).astype(np.float32)


@pytest.mark.parametrize("pitch", [110.0, 220.0])
def test_pitch_level_and_pace_are_of_what_sounds(pitch: float):
    found = prosody(voiced(pitch, seconds=2.0), RATE, "ab cd ef")
    assert found["pitch"] == pytest.approx(pitch, rel=0.03)
    assert found["pace"] == pytest.approx(3.0, rel=0.05)
    louder = prosody(voiced(pitch, level=0.2), RATE)
    assert louder["level"] - prosody(voiced(pitch), RATE)["level"] == pytest.approx(6.0, abs=0.1)
    assert louder["pace"] is None


@pytest.mark.parametrize("wave", [np.zeros(RATE, dtype=np.float32), np.zeros(0, dtype=np.float32)])
def test_silence_has_none(wave: np.ndarray):
    assert set(prosody(wave, RATE, "words").values()) == {None}


def test_a_short_sound_has_a_level_alone():
    found = prosody(voiced(150.0, seconds=0.1), RATE, "oh")
    assert found["level"] is not None and found["pitch"] is found["pace"] is None


def test_differences_are_from_the_median_of_those_that_know():
    others = [{"pitch": 200.0, "level": -20.0, "pace": None} for _ in range(LEAST)]
    found = differences({"pitch": 220.0, "level": -23.0, "pace": 12.0}, usual(others))
    assert found == {"pitch": pytest.approx(0.1), "level": pytest.approx(-3.0)}
    assert in_words(found) == "pitch +10 %, level -3 dB"
    assert differences({"pitch": 220.0}, usual(others[1:])) == {} and in_words({}) == ""
