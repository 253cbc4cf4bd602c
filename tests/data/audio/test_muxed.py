"""What containers of packets state, or how they mark their end."""

import io
import struct
from typing import Any

import numpy as np
import pytest
import soundfile

from mmsr.data.audio.decoding import Audio, AudioError

RATE, SECONDS = 8000, 2
SAMPLES = np.random.default_rng(0).integers(-9000, 9000, RATE * SECONDS, dtype=np.int16)


def ogg(subtype: str = "VORBIS") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, SAMPLES, RATE, format="OGG", subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_chained_ogg_is_read_to_its_end(subtype: str) -> None:
    decoded = Audio(None).decode(ogg(subtype) * 3)
    assert len(decoded.samples) == 3 * len(Audio(None)(ogg(subtype)))
    assert [note.code for note in decoded.notes] == ["audio-joined"]
    assert Audio.duration(ogg(subtype) * 3) == pytest.approx(3 * SECONDS, abs=0.01)


def test_ogg_without_the_mark_of_its_end_was_cut_off() -> None:
    content = ogg()
    last = content.rfind(b"OggS")
    unmarked = content[: last + 5] + bytes([content[last + 5] & ~4]) + content[last + 6 :]
    for cut in (content[:last], content[: last + 40], unmarked, content[:last] + content):
        with pytest.raises(AudioError, match=r"is cut off: \d\.\d\d s are there; accepted: a whole") as error:
            Audio()(cut)
        assert error.value.code == "audio-truncated"


def mp3(encode: Any, samples: np.ndarray, **options: str) -> bytes:
    return encode("mp3", "libmp3lame", samples, **options)


def test_mp3_is_held_to_its_frame_count_and_to_nothing_else(encode: Any) -> None:
    tone = 0.4 * np.sin(np.arange(32_000) / 5)
    counted, bare = mp3(encode, tone), mp3(encode, tone, write_xing="0")
    assert Audio.duration(counted) == pytest.approx(2, abs=0.001)
    with pytest.raises(
        AudioError, match=r"is cut off: its header states 2\.\d\d s, 1\.\d\d s are there"
    ) as error:
        Audio()(counted[: len(counted) * 3 // 4])
    assert error.value.code == "audio-truncated"
    place = counted.find(b"Info")
    more = counted[: place + 8] + struct.pack(">I", 900) + counted[place + 12 :]
    with pytest.raises(AudioError, match="is cut off: its header states"):
        Audio()(more)
    fewer = counted[: place + 8] + struct.pack(">I", 9) + counted[place + 12 :]
    decoded = Audio().decode(fewer)
    assert len(decoded.samples) > 31_000 and decoded.notes[0].code == "audio-length-stated"
    decoded = Audio().decode(bare[: len(bare) * 3 // 4])
    assert len(decoded.samples) == pytest.approx(24_500, abs=1_000) and decoded.notes == ()


def test_joined_mp3_is_read_to_its_end(encode: Any) -> None:
    one = mp3(encode, 0.4 * np.sin(np.arange(32_000) / 5))
    decoded = Audio().decode(one + one)
    assert len(decoded.samples) == 2 * len(Audio()(one))
    assert [note.code for note in decoded.notes] == ["audio-joined"]


CUT = [
    ("mp4", "aac", {}),
    ("ipod", "aac", {}),
    ("3gp", "aac", {}),
    ("mov", "pcm_s16le", {}),
    ("caf", "alac", {}),
    ("matroska", "aac", {}),
    ("webm", "libopus", {}),
    ("ogg", "libopus", {}),
    ("avi", "pcm_s16le", {}),
    ("flv", "aac", {}),
    ("wav", "adpcm_ms", {}),
    ("wav", "g726", {}),
    ("wav", "libmp3lame", {}),
    ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
]


@pytest.mark.parametrize(("container", "codec", "options"), CUT)
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_whatever_container_states_a_length_is_refused_when_it_was_cut_off(
    encode: Any, container: str, codec: str, options: dict[str, str], share: float
) -> None:
    rate = {"libopus": 48_000, "g726": 8_000}.get(codec, 16_000)
    content = encode(container, codec, 0.4 * np.sin(np.arange(2 * rate) / 5), rate, **options)
    assert len(Audio()(content)) == pytest.approx(32_000, abs=2_100)
    with pytest.raises(AudioError, match="is cut off: .*; accepted: a whole audio file") as error:
        Audio()(content[: int(len(content) * share)])
    assert error.value.code == "audio-truncated"


def test_a_live_recording_that_ends_within_a_packet_gives_the_whole_ones(encode: Any) -> None:
    """As a browser writes webm: no length, neither of the segment nor of its clusters."""
    content = encode("webm", "libopus", 0.4 * np.sin(np.arange(96_000) / 9), 48_000, piped=True)
    place = 0
    while (place := content.find(bytes.fromhex("1f43b675"), place) + 4) > 4:
        width = 9 - content[place].bit_length()
        unknown = ((1 << 8 * width) - 1 >> width - 1).to_bytes(width, "big")
        content = content[:place] + unknown + content[place + width :]
    assert len(Audio()(content)) == pytest.approx(32_000, abs=400)
    cut = Audio()(content[: len(content) * 3 // 4])
    assert len(cut) == pytest.approx(24_000, abs=1_000)


def test_joined_flv_is_read_to_its_end(encode: Any) -> None:
    one = encode("flv", "aac", 0.4 * np.sin(np.arange(88_200) / 9), 44_100)
    decoded = Audio(None).decode(one + one)
    assert len(decoded.samples) == 2 * len(Audio(None)(one))
    assert [note.code for note in decoded.notes] == ["audio-joined"]


@pytest.mark.parametrize("container", ["mp4", "ipod", "3gp", "mov"])
def test_what_fills_the_last_packet_of_mp4_is_left_out(container: str, encode: Any) -> None:
    content = encode(container, "aac", 0.4 * np.sin(np.arange(20_001) / 5))
    samples = Audio()(content)
    assert len(samples) == pytest.approx(20_001, abs=20)  # its index counts in ms
    assert Audio.duration(content) == pytest.approx(len(samples) / 16_000, abs=1e-4)
    assert sum(map(len, Audio().blocks(content, seconds=0.1))) == len(samples)


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("caf", "alac", 16_000),
        ("matroska", "alac", 16_000),
        ("flv", "aac", 44_100),
        ("flv", "libmp3lame", 44_100),
    ],
)
def test_the_length_is_that_of_the_samples(container: str, codec: str, rate: int, encode: Any) -> None:
    content = encode(container, codec, 0.4 * np.sin(np.arange(20 * rate + 77) / 5), rate)
    assert Audio.duration(content) == pytest.approx(len(Audio(None)(content)) / rate, abs=1e-3)
