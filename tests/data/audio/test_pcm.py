"""What headers of samples state against what is there, by files made to the byte."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsr.data.audio.containers import read_headers
from mmsr.data.audio.decoding import Audio, AudioError

RATE, SECONDS = 8000, 2
SAMPLES = np.random.default_rng(0).integers(-9000, 9000, RATE * SECONDS, dtype=np.int16)
RAW = SAMPLES.astype("<i2").tobytes()
SWAPPED = SAMPLES.astype(">i2").tobytes()
EXPECTED = SAMPLES / np.float32(32768)


def riff(size: int, *, riff_size: int | None = None, before: bytes = b"", order: str = "<") -> bytes:
    form = struct.pack(order + "HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    total = 36 + size + len(before) if riff_size is None else riff_size
    magic = b"RIFF" if order == "<" else b"RIFX"
    chunks = b"fmt " + struct.pack(order + "I", 16) + form + before
    head = magic + struct.pack(order + "I", total & 0xFFFFFFFF) + b"WAVE" + chunks
    return head + b"data" + struct.pack(order + "I", size & 0xFFFFFFFF)


def rf64(size: int, magic: bytes = b"RF64") -> bytes:
    form = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    long = b"ds64" + struct.pack("<IQQQI", 28, size + 72, size, size // 2, 0)
    return (
        magic
        + b"\xff\xff\xff\xffWAVE"
        + long
        + b"fmt "
        + struct.pack("<I", 16)
        + form
        + b"data\xff\xff\xff\xff"
    )


def w64(size: int) -> bytes:
    tail = bytes.fromhex("f3acd3118cd100c04f8edb8a")
    form = b"fmt " + tail + struct.pack("<Q", 40) + struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    riff_guid = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")
    head = riff_guid + struct.pack("<Q", 104 + size) + b"wave" + tail + form
    return head + b"data" + tail + struct.pack("<Q", (size + 24) & ((1 << 64) - 1))


def aiff(size: int, frames: int | None = None) -> bytes:
    rate = struct.pack(">HQ", 16383 + 12, RATE << (63 - 12))
    common = struct.pack(">hIh", 1, size // 2 if frames is None else frames, 16) + rate
    body = b"COMM" + struct.pack(">I", 18) + common + b"SSND" + struct.pack(">III", size + 8, 0, 0)
    return b"FORM" + struct.pack(">I", 4 + len(body) + size) + b"AIFF" + body


def au(size: int) -> bytes:
    return b".snd" + struct.pack(">5I", 24, size & 0xFFFFFFFF, 3, RATE, 1)


def caf(size: int) -> bytes:
    form = struct.pack(">d4sIIIII", RATE, b"lpcm", 0, 2, 1, 1, 16)
    head = b"caff\0\1\0\0desc" + struct.pack(">q", 32) + form
    return head + b"data" + struct.pack(">q", size if size < 0 else size + 4) + b"\0\0\0\0"


Make = Callable[[int], bytes]
STATED: dict[str, tuple[Make, bytes]] = {
    "WAV": (riff, RAW),
    "RIFX": (lambda size: riff(size, order=">"), SWAPPED),
    "RF64": (rf64, RAW),
    "BW64": (lambda size: rf64(size, b"BW64"), RAW),
    "W64": (w64, RAW),
    "AIFF": (aiff, SWAPPED),
    "AU": (au, SWAPPED),
    "CAF": (caf, SWAPPED),
}


@pytest.fixture(params=STATED)
def kind(request: pytest.FixtureRequest) -> tuple[Make, bytes]:
    return STATED[request.param]


def test_a_length_that_is_there_is_read_without_a_word(kind: tuple[Make, bytes]) -> None:
    make, raw = kind
    decoded = Audio(None).decode(make(len(raw)) + raw)
    np.testing.assert_array_equal(decoded.samples, EXPECTED)
    assert decoded.notes == () and decoded.sampling_rate == RATE
    assert Audio.duration(make(len(raw)) + raw) == SECONDS


def test_more_than_there_is_was_cut_off(kind: tuple[Make, bytes]) -> None:
    make, raw = kind
    content = make(len(raw)) + raw[: len(raw) // 2]
    for read in (Audio().decode, Audio.duration, lambda source: list(Audio().blocks(source))):
        stated = r"is cut off: its header states 2\.00 s, 1\.00 s are there, 16,000 bytes are missing"
        with pytest.raises(AudioError, match=f"{stated}; accepted: a whole audio file") as error:
            read(content)
        assert error.value.code == "audio-truncated"


def test_less_than_there_is_is_read_to_the_end(kind: tuple[Make, bytes]) -> None:
    make, raw = kind
    content = make(RATE) + raw  # half a second
    decoded = Audio(None).decode(content)
    np.testing.assert_array_equal(decoded.samples, EXPECTED)
    (note,) = decoded.notes
    assert note.code == "audio-length-stated"
    assert "header states 0.50 s, there are 2.00 s: decoded to the end" in note.message
    assert Audio.duration(content) == SECONDS
    np.testing.assert_array_equal(np.concatenate(list(Audio(None).blocks(content))), EXPECTED)


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0x7FFFFFFF - 36, 0xFFFFFFFF, -36])
def test_a_header_that_was_never_finished_is_read_to_the_end(size: int) -> None:
    for content in (riff(size) + RAW, riff(size, riff_size=0) + RAW, riff(size, riff_size=-1) + RAW):
        decoded = Audio(None).decode(content)
        np.testing.assert_array_equal(decoded.samples, EXPECTED)
        assert [note.code for note in decoded.notes] == ["audio-length-stated"]
        assert "leaves the length open, there are 2.00 s" in decoded.notes[0].message


@pytest.mark.parametrize(
    "content",
    [
        au(-1) + SWAPPED,
        au(0) + SWAPPED,
        caf(-1) + SWAPPED,
        w64(-1) + RAW,
        w64(0) + RAW,
        aiff(0) + SWAPPED,
        aiff(0x7FFFFFF0, 0) + SWAPPED,
    ],
)
def test_an_open_length_of_other_containers_is_read_to_the_end(content: bytes) -> None:
    decoded = Audio(None).decode(content)
    np.testing.assert_array_equal(decoded.samples, EXPECTED)
    assert [note.code for note in decoded.notes] == ["audio-length-stated"]


@pytest.mark.parametrize("tail", ["LIST", "ID3", "TAG", "odd", "zeros", "two chunks", "id3 chunk"])
def test_tags_behind_the_samples_are_no_samples(tail: str) -> None:
    behind = {
        "LIST": b"LIST" + struct.pack("<I", 16) + b"INFOISFT\4\0\0\0Lavf",
        "ID3": b"ID3\4\0\0\0\0\1\0" + b"TSSE" * 20,
        "TAG": b"TAG" + b"title" * 25,
        "odd": b"note" + struct.pack("<I", 3) + b"odd\0",
        "zeros": bytes(500),
        "two chunks": b"LIST" + struct.pack("<I", 4) + b"INFO" + b"cue " + struct.pack("<I", 4) + bytes(4),
        "id3 chunk": b"id3 " + struct.pack("<I", 12) + b"ID3\4\0\0\0\0\0\2ab",
    }[tail]
    decoded = Audio(None).decode(riff(len(RAW)) + RAW + behind)
    np.testing.assert_array_equal(decoded.samples, EXPECTED)
    assert decoded.notes == ()


def test_chunks_before_the_samples_and_odd_sizes_are_passed_over() -> None:
    before = b"JUNK" + struct.pack("<I", 5) + b"12345\0" + b"bext" + struct.pack("<I", 3) + b"abc\0"
    np.testing.assert_array_equal(Audio(None)(riff(len(RAW), before=before) + RAW), EXPECTED)
    odd = np.arange(256, dtype=np.uint8)[:255]
    head = riff(255).replace(
        struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16), struct.pack("<HHIIHH", 1, 1, RATE, RATE, 1, 8)
    )
    for pad in (b"", b"\0"):
        assert len(Audio(None)(head + odd.tobytes() + pad)) == 255


def test_a_size_that_started_again_at_4_gib(tmp_path: Path) -> None:
    """A sparse file: its header counts in 32 bits."""
    size = (1 << 32) + 2 * RATE
    with open(tmp_path / "long.wav", "wb") as file:
        file.write(riff(size))
        file.truncate(44 + size)
    assert Audio.duration(tmp_path / "long.wav") == size / (2 * RATE)
    with open(tmp_path / "long.wav", "rb") as file:
        (header,) = read_headers(file)
    assert "states 1.00 s, there are 268436.46 s" in header.note and not header.is_cut_off


def test_joined_files_are_all_read(kind: tuple[Make, bytes]) -> None:
    make, raw = kind
    content = make(len(raw)) + raw
    decoded = Audio(None).decode(content + content)
    np.testing.assert_array_equal(decoded.samples, np.concatenate([EXPECTED, EXPECTED]))
    assert [note.code for note in decoded.notes] == ["audio-joined"]
    assert Audio.duration(content + content) == 2 * SECONDS


def test_sphere_is_read_and_checked() -> None:
    head = f"NIST_1A\n   1024\nsample_count -i {len(SAMPLES)}\nsample_n_bytes -i 2\nchannel_count -i 1\n"
    head += f"sample_byte_format -s2 01\nsample_rate -i {RATE}\nsample_coding -s3 pcm\nend_head\n"
    content = head.encode().ljust(1024) + RAW
    np.testing.assert_array_equal(Audio(None)(content), EXPECTED)
    with pytest.raises(AudioError, match="is cut off: its header states 2.00 s, 1.50 s are there"):
        Audio()(content[:-8000])
    longer = Audio(None).decode(content + RAW)
    np.testing.assert_array_equal(longer.samples, np.concatenate([EXPECTED, EXPECTED]))
    assert [note.code for note in longer.notes] == ["audio-length-stated"]
    joined = Audio(None).decode(content + content)
    np.testing.assert_array_equal(joined.samples, longer.samples)
    assert [note.code for note in joined.notes] == ["audio-joined"]
    assert Audio.duration(content + content) == Audio.duration(content + RAW) == 2 * SECONDS


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_mulaw", "pcm_alaw"])
def test_zeros_that_fill_a_w64_are_no_click(codec: str, encode: Any) -> None:
    """FFmpeg counts them as samples, of which a zero byte is the loudest in 8 bits."""
    content = encode("w64", codec, 0.1 * EXPECTED[:-3], RATE)
    samples = Audio(None)(content)
    assert len(samples) == len(EXPECTED) - 3 == Audio.duration(content) * RATE
    assert np.abs(samples).max() < 0.1


def test_caf_whose_table_of_packets_was_cut_off_is_refused(encode: Any) -> None:
    content = encode("caf", "alac", EXPECTED, RATE)
    assert content.rfind(b"pakt") > content.find(b"data")
    for read in (Audio(), Audio.duration):
        with pytest.raises(AudioError, match="is cut off: "):
            read(content[:-6])


def test_w64_of_an_extensible_format_is_read_by_its_own_width() -> None:
    """libsndfile takes floats in W64 for integers, if the format is WAVE_FORMAT_EXTENSIBLE."""
    tail, guid = (
        bytes.fromhex("f3acd3118cd100c04f8edb8a"),
        struct.pack("<H", 3) + bytes.fromhex("000000001000800000aa00389b71"),
    )
    form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, RATE, 4 * RATE, 4, 32, 22, 32, 4) + guid
    raw = EXPECTED.astype("<f4").tobytes()
    head = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000") + struct.pack("<Q", 128 + len(raw))
    head += b"wave" + tail + b"fmt " + tail + struct.pack("<Q", 24 + len(form)) + form
    content = head + b"data" + tail + struct.pack("<Q", 24 + len(raw)) + raw
    decoded = Audio(None).decode(content)
    np.testing.assert_array_equal(decoded.samples, EXPECTED)
    assert decoded.notes == () and Audio.duration(content) == SECONDS


@pytest.mark.parametrize("container", ["wav", "w64"])
def test_samples_of_64_bits_are_read(container: str, encode: Any) -> None:
    content = encode(container, "pcm_s64le", EXPECTED, RATE)
    np.testing.assert_allclose(Audio(None)(content)[: len(EXPECTED)], EXPECTED, atol=1e-6)
    assert Audio.duration(content) == pytest.approx(SECONDS, abs=1e-3)


def test_joined_caf_of_packets_is_read_to_its_end(encode: Any) -> None:
    one = encode("caf", "alac", EXPECTED, RATE)
    decoded = Audio(None).decode(one + one)
    np.testing.assert_allclose(decoded.samples, np.concatenate([EXPECTED, EXPECTED]), atol=1e-4)
    assert [note.code for note in decoded.notes] == ["audio-joined"]
    assert Audio.duration(one + one) == 2 * SECONDS


def test_what_caf_says_is_padding_is_left_out(encode: Any) -> None:
    content = bytearray(encode("caf", "alac", EXPECTED, RATE))
    place = content.find(b"pakt")
    valid = len(EXPECTED) - 400
    count = struct.unpack(">q", content[place + 12 : place + 20])[0] * 4096
    content[place + 20 : place + 36] = struct.pack(">qii", valid, 0, count - valid)
    samples = Audio(None)(bytes(content))
    np.testing.assert_allclose(samples, EXPECTED[:valid], atol=1e-4)
    assert Audio.duration(bytes(content)) == valid / RATE
