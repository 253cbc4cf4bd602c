"""When words were said: edges at pauses, transcripts that were edited, scripts without spaces."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import mmsr
from mmsr.data.audio.decoding import Audio
from mmsr.data.audio.segments import speech_segments
from mmsr.records import Chunk
from mmsr.speech.timing import WordTimes, at_pauses, sounding

RATE = 16_000


def tone(seconds: float) -> np.ndarray:
    return 0.3 * np.sin(np.arange(round(RATE * seconds)) / 10)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(RATE * seconds))


def chunks(*words: tuple[str, float, float]) -> list[Chunk]:
    return [Chunk(text=text, start=start, end=end) for text, start, end in words]


def test_silent_edges_are_no_part_of_the_sound():
    quiet = 0.001 * np.ones(RATE // 2)
    start, end = sounding(np.concatenate([quiet, tone(1), silence(0.01), tone(1), quiet, quiet]), RATE)
    assert start == pytest.approx(0.5, abs=0.03) and end == pytest.approx(2.5, abs=0.03)


@pytest.mark.parametrize("wave", [np.zeros(RATE), np.zeros(0), np.full(7, 0.5)])
def test_silence_and_the_shortest_sounds_are_taken_whole(wave: np.ndarray):
    assert sounding(wave, RATE) == (0.0, len(wave) / RATE)


def test_without_a_recogniser_each_letter_takes_the_same_time():
    times = WordTimes("ab cd  efgh", (1.0, 5.0))
    assert times.of((0, 2)) == (1.0, 2.0, "proportional")
    assert times.of((3, 5)) == (2.0, 3.0, "proportional")
    assert times.of((7, 11)) == (3.0, 5.0, "proportional")


HEARD = chunks(
    ("So,", 0.5, 0.7), ("thank", 1.0, 1.4), ("you", 1.4, 1.6), ("doctor's", 3.0, 3.5), ("wife.", 3.5, 4.0)
)


def spoken(times: WordTimes, words: str) -> tuple[float, float, str]:
    start = times.text.index(words)
    return times.of((start, start + len(words)))


def test_a_recognisers_words_have_its_times_whatever_the_punctuation():
    times = WordTimes("so Thank you, doctor’s Wife!", (0.0, 9.0), HEARD)
    assert spoken(times, "Thank you") == (1.0, 1.6, "recogniser")
    assert spoken(times, "Thank you, doctor’s") == (1.0, 3.5, "recogniser")
    assert spoken(times, "so") == (0.5, 0.7, "recogniser")


def test_words_that_were_heard_as_others_share_their_time_and_are_said_to():
    times = WordTimes("so thank you dear dentist wife", (0.0, 9.0), HEARD)
    assert spoken(times, "you") == (1.4, 1.6, "recogniser")
    assert spoken(times, "dear") == (3.0, pytest.approx(3.0 + 0.5 * 4 / 11, abs=1e-3), "interpolated")
    assert spoken(times, "thank you dear dentist") == (1.0, 3.5, "interpolated")
    assert spoken(times, "wife") == (3.5, 4.0, "recogniser")


def test_words_that_were_not_heard_lie_between_their_neighbours():
    times = WordTimes("oh so thank you my dear doctor's wife indeed", (0.1, 4.4), HEARD)
    assert spoken(times, "oh") == (0.1, 0.5, "interpolated")
    assert spoken(times, "my dear") == (1.6, 3.0, "interpolated")
    assert spoken(times, "indeed") == (4.0, 4.4, "interpolated")
    assert spoken(times, "doctor's wife") == (3.0, 4.0, "recogniser")


def test_another_transcript_altogether_is_placed_by_its_letters():
    assert WordTimes("nothing alike", (0.0, 12.0), HEARD).of((0, 7)) == (0.0, 7.0, "proportional")
    assert WordTimes("so", (0.0, 2.0), []).of((0, 2)) == (0.0, 2.0, "proportional")
    assert WordTimes("so !", (0.0, 3.0), HEARD).of((3, 4)) == (2.0, 3.0, "proportional")  # no word


def test_scripts_without_spaces_are_timed_by_letters():
    heard = chunks(("谢谢", 1.0, 1.4), ("你,", 1.4, 1.6), ("医生", 2.0, 3.0))
    times = WordTimes("谢谢你,医生", (0.0, 9.0), heard)
    assert spoken(times, "谢谢你") == (1.0, 1.6, "recogniser")
    assert spoken(times, "生") == (2.5, 3.0, "recogniser")
    assert spoken(WordTimes("谢谢您,医生", (0.0, 9.0), heard), "您") == (1.4, 1.6, "interpolated")


@pytest.fixture
def no_vad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsr.speech.timing.find_spec", lambda name: None)


def test_edges_of_words_are_where_the_sound_pauses(no_vad: None):
    # sounds from .5 to 1.5 and from 2.5 to 3.5 s; short stops inside of words are no pauses
    wave = np.concatenate([silence(0.5), tone(0.4), silence(0.1), tone(0.5), silence(1), tone(1), silence(1)])
    heard = chunks(("thank", 0.0, 0.9), ("you", 0.9, 2.7), ("doctor", 2.7, 3.1), ("Lee", 3.1, 4.5))
    found = [(word.text, word.start, word.end) for word in at_pauses(heard, wave, RATE)]
    assert found == [
        ("thank", 0.5, 0.9),
        ("you", 0.9, 1.5),
        ("doctor", 2.5, 3.1),
        ("Lee", 3.1, 3.5),
    ]
    assert at_pauses(heard, silence(5), RATE) == tuple(heard)
    assert at_pauses([], wave, RATE) == ()


def test_noise_before_and_after_words_is_no_part_of_them(no_vad: None):
    (word,) = at_pauses(chunks(("yes", 4.0, 4.3)), tone(9), RATE)
    assert (word.start, word.end) == (4.0, 4.3)


@pytest.mark.skipif(find_spec("silero_vad") is None, reason="silero-vad: pip install 'mmsr[segments]'")
def test_pauses_are_found_in_noise():
    """A sentence between two stretches of noise at a tenth of its level, where everything sounds."""
    said = Audio()(Path(mmsr.__file__).parent / "examples" / "people" / "happiness.mp3")
    (alone,) = speech_segments(said)  # the clip has noise around the voice too
    wave = np.concatenate([silence(1), said, silence(1.5)])
    noise = np.random.default_rng(0).normal(0, 0.1 * said.std(), len(wave))
    wave = (wave + noise).astype(np.float32)
    assert sounding(wave, RATE)[0] < 0.2
    first, last = at_pauses(chunks(("I", 0.3, 2.0), ("before", 2.0, 1.3 + alone.end)), wave, RATE)
    assert first.start == pytest.approx(1 + alone.start, abs=0.2) and first.end == 2.0
    assert last.end == pytest.approx(1 + alone.end, abs=0.2)


def test_words_stay_in_order_and_in_a_stretch_that_sounds(no_vad: None):
    wave = np.concatenate([tone(1), silence(1), tone(1)])
    found = at_pauses(chunks(("a", 2.1, 2.4), ("b", 0.2, 0.6), ("c", 1.2, 1.4)), wave, RATE)
    assert [word.start for word in found] == sorted(word.start for word in found)
    assert all(2.0 <= word.start <= word.end <= 3.0 for word in found)
