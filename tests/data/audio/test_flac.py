"""The length that FLAC states, against its last frame."""

import io

import av
import numpy as np
import pytest
import soundfile

from mmsr.data.audio.decoding import Audio, AudioError

RATE, SECONDS = 8000, 2
SAMPLES = np.random.default_rng(0).integers(-9000, 9000, RATE * SECONDS, dtype=np.int16)
EXPECTED = SAMPLES / np.float32(32768)


def flac(samples: np.ndarray = SAMPLES) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="FLAC")
    return file.getvalue()


def with_total(content: bytes, total: int) -> bytes:
    packed = int.from_bytes(content[18:26], "big") & ~((1 << 36) - 1) | total
    return content[:18] + packed.to_bytes(8, "big") + content[26:]


@pytest.mark.parametrize("total", [0, 800])
def test_flac_of_unknown_or_too_short_a_length_is_read_to_the_end(total: int) -> None:
    """What ffmpeg writes to a pipe states no length; libsndfile takes that for 2^63 samples."""
    content = with_total(flac(), total)
    decoded = Audio(None).decode(content)
    np.testing.assert_array_equal(decoded.samples, EXPECTED)
    assert [note.code for note in decoded.notes] == ["audio-length-stated"]
    assert Audio.duration(content) == SECONDS


def test_flac_that_states_more_was_cut_off() -> None:
    for content in (flac()[:-9000], with_total(flac(), 3 * RATE), with_total(flac(), (1 << 36) - 1)):
        for read in (Audio().decode, Audio.duration):
            with pytest.raises(AudioError, match=r"is cut off: its header states .+ s, \d\.\d\d s are there"):
                read(content)


def test_flac_without_a_length_that_was_cut_off_gives_its_whole_frames() -> None:
    content = with_total(flac(), 0)
    samples = Audio(None)(content[: len(content) // 2])
    assert RATE * SECONDS * 0.2 < len(samples) < RATE * SECONDS * 0.5
    np.testing.assert_array_equal(samples, EXPECTED[: len(samples)])


def test_joined_flac_of_equal_length_is_not_read_by_half() -> None:
    decoded = Audio(None).decode(flac() + flac())
    np.testing.assert_array_equal(decoded.samples, np.concatenate([EXPECTED, EXPECTED]))
    assert [note.code for note in decoded.notes] == ["audio-joined"]
    assert Audio.duration(flac() + flac()) == 2 * SECONDS


@pytest.mark.parametrize("total", [0, 8192])
def test_frames_that_were_cut_out_of_another_file_keep_their_numbers(total: int) -> None:
    with av.open(io.BytesIO(flac())) as container:
        frames = [bytes(packet) for packet in container.demux() if packet.size]
    begin = len(SAMPLES) - 8192 if len(frames) < 3 else 2 * 4096
    head = with_total(flac(), len(SAMPLES) - begin if total else 0)[: len(flac()) - sum(map(len, frames))]
    content = head + b"".join(frames[2:])
    decoded = Audio(None).decode(content)
    np.testing.assert_array_equal(decoded.samples, EXPECTED[begin:])
    assert Audio.duration(content) == pytest.approx(len(decoded.samples) / RATE)
    blocks = np.concatenate(list(Audio(None).blocks(content, seconds=0.1)))
    np.testing.assert_array_equal(blocks, decoded.samples)
    with pytest.raises(AudioError, match="is cut off"):
        Audio.duration(with_total(head, len(SAMPLES)) + b"".join(frames[2:]))


def test_flac_that_ends_within_its_last_frame_has_no_length() -> None:
    """As its header states it: the last frame begins, and is not all there."""
    for read in (Audio(None), Audio.duration):
        with pytest.raises(AudioError, match=r"is cut off: its header states 2\.00 s, 1\.\d\d s are there"):
            read(flac()[:-40])
