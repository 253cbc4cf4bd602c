"""Several channels become one without a loss of level."""

import io
import logging
from typing import Any

import numpy as np
import pytest
import soundfile

from mmsr.data.audio.channels import Levels, mixed
from mmsr.data.audio.decoding import Audio

RATE = 16_000
GENERATOR = np.random.default_rng(0)
LEFT, RIGHT = 0.1 * GENERATOR.standard_normal((2, 2 * RATE)).astype(np.float32)


def decoded(*channels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    result = Audio().decode((np.stack(channels), RATE))
    return result.samples, [note.code for note in result.notes]


@pytest.mark.parametrize("other", [0 * LEFT, 0 * LEFT + 0.3, 1e-4 * RIGHT, 0.001 * LEFT])
def test_a_silent_channel_is_left_out(other: np.ndarray) -> None:
    for channels in ((LEFT, other), (other, LEFT)):
        samples, codes = decoded(*channels)
        np.testing.assert_allclose(samples, LEFT, atol=1e-6)
        assert codes == ["audio-channel-silent"]


def test_a_click_is_no_sound_of_a_channel() -> None:
    """As of a plug that is pulled out."""
    click = np.zeros_like(LEFT)
    click[1000:1040] = 0.9
    samples, codes = decoded(LEFT, click)
    np.testing.assert_allclose(samples, LEFT, atol=1e-6)
    assert codes == ["audio-channel-silent"]


def test_a_channel_with_one_word_is_not_silent() -> None:
    """Its power over all of the call is below that of a channel that only hums."""
    word = np.zeros(60 * RATE, dtype=np.float32)
    word[RATE : RATE + 3200] = 0.1 * GENERATOR.standard_normal(3200)
    call = 0.1 * GENERATOR.standard_normal(60 * RATE).astype(np.float32)
    samples, codes = decoded(call, word)
    np.testing.assert_allclose(samples, (call + word) / 2, atol=1e-6)
    assert codes == []


@pytest.mark.parametrize("other", [-LEFT, -0.7 * LEFT, -LEFT + 0.2 * RIGHT])
def test_of_channels_that_cancel_one_is_read(other: np.ndarray) -> None:
    samples, codes = decoded(LEFT, other)
    louder = LEFT if np.std(LEFT) >= np.std(other) else other
    np.testing.assert_allclose(samples, louder, atol=1e-6)
    assert codes == ["audio-channels-cancel"]


def test_channels_that_cancel_in_half_of_the_recording_are_found() -> None:
    other = np.concatenate([LEFT[:RATE], -LEFT[RATE:]])
    samples, codes = decoded(LEFT, other)
    np.testing.assert_allclose(samples, LEFT, atol=1e-6)
    assert codes == ["audio-channels-cancel"]


@pytest.mark.parametrize("other", [RIGHT, LEFT, 0.1 * RIGHT, 0.5 * LEFT + 0.5 * RIGHT])
def test_other_channels_are_averaged(other: np.ndarray) -> None:
    samples, codes = decoded(LEFT, other)
    np.testing.assert_allclose(samples, (LEFT + other) / 2, atol=1e-6)
    assert codes == []


def test_of_six_channels_the_silent_ones_are_left_out() -> None:
    samples, codes = decoded(LEFT, RIGHT, 0 * LEFT, 0 * LEFT, LEFT, 0 * LEFT)
    np.testing.assert_allclose(samples, (2 * LEFT + RIGHT) / 3, atol=1e-6)
    assert codes == ["audio-channel-silent"]


def test_silence_in_all_channels_is_silence() -> None:
    assert not decoded(0 * LEFT, 0 * LEFT)[0].any()


def test_blocks_weigh_channels_as_the_whole_file(encode: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A person who pauses for a block is no silent channel, and one who never speaks is one in each block."""
    turns = np.stack(
        [np.where(np.arange(2 * RATE) < RATE, LEFT, 0), np.where(np.arange(2 * RATE) < RATE, 0, RIGHT)]
    )
    quiet = np.stack([LEFT, 0 * LEFT])
    file = io.BytesIO()
    soundfile.write(file, turns.T, RATE, format="WAV", subtype="FLOAT")
    for content, expected in (
        (file.getvalue(), turns.mean(axis=0)),
        (encode("mov", "pcm_f32le", quiet), LEFT),
        (encode("mov", "pcm_f32le", turns), turns.mean(axis=0)),
    ):
        with caplog.at_level(logging.WARNING):
            blocks = np.concatenate(list(Audio().blocks(content, seconds=0.5)))
        np.testing.assert_allclose(blocks, expected, atol=1e-6)
        np.testing.assert_allclose(Audio()(content), expected, atol=1e-6)


def test_levels_do_not_depend_on_the_blocks() -> None:
    samples = np.stack([LEFT, 0.001 * RIGHT], axis=1)
    whole, pieces = Levels(RATE, 2), Levels(RATE, 2)
    whole.add(samples)
    for start in range(0, len(samples), 1600):
        pieces.add(samples[start : start + 1600])
    np.testing.assert_array_equal(whole.weights()[0], pieces.weights()[0])
    np.testing.assert_array_equal(mixed(samples, whole.weights()[0]), samples[:, 0])
