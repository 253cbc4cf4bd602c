"""A recording on disk is the array that the whole file would be, without its memory."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.data.audio.recording import Recording


@pytest.fixture(params=[16_000, 44_100])
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Seven seconds of noise in two channels."""
    rate = request.param
    noise = 0.2 * np.random.default_rng(0).standard_normal((7 * rate + 11, 2))
    soundfile.write(tmp_path / "noise.wav", noise, rate, subtype="PCM_16")
    return tmp_path / "noise.wav"


@pytest.mark.parametrize("seconds", [0.37, 30.0])
def test_blocks_are_the_whole_file(file: Path, seconds: float) -> None:
    whole = Audio()(file)
    pieces = list(Audio().blocks(file, seconds=seconds))
    assert (len(pieces) > 10) == (seconds < 1)
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-6)


def test_it_is_read_as_an_array_is(file: Path) -> None:
    whole = Audio()(file)
    told: list[tuple[str, int, int]] = []
    with Recording(file, progress=lambda *step: told.append(step)) as recording:
        assert len(recording) == len(whole) and recording.seconds == len(whole) / 16_000
        for part in (slice(100, 200), slice(len(whole) - 5, len(whole) + 50), slice(9, 3), slice(-7, None)):
            np.testing.assert_allclose(recording[part], whole[part], atol=1e-6)
        np.testing.assert_allclose(recording.between(1.5, 2.25), whole[24_000:36_000], atol=1e-6)
        with pytest.raises(ValueError, match="step is 2; accepted: 1"):
            recording[::2]
    assert told[-1] == ("decoding", 7, 7)


def test_its_length_costs_no_memory(tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "long.flac", "w", 8_000, 1) as file:
        for _ in range(20):
            file.write(np.zeros(60 * 8_000, dtype=np.float32))
    tracemalloc.start()
    with Recording(tmp_path / "long.flac") as recording:
        assert recording.seconds == 1200
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # the samples at 16 kHz are 77 MB


def test_its_times_are_those_of_the_film(encode: Any, saved: Any) -> None:
    sound = (0.4 * np.sin(np.arange(32_000) / 5)).astype(np.float32)
    with Recording(saved(encode("matroska", "aac", sound, film=9, start=5.0))) as recording:
        assert recording.seconds == pytest.approx(7, abs=0.07)
        assert not recording.between(0, 4.8).any() and recording.between(5.5, 6.5).any()


def test_a_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "whole.flac", 0.1 * np.random.default_rng(0).standard_normal(80_000), 16_000)
    content = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"cut\.flac: .*accepted: a whole audio file"):
        Recording(tmp_path / "cut.flac")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    with pytest.raises(AudioError, match=r"empty\.wav: .*accepted: at least one sample"):
        Recording(tmp_path / "empty.wav")
