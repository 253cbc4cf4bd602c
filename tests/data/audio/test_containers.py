"""What headers state against what is there, by files made to the byte."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mmsr.data.audio.containers import Part, read_headers
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


def test_sphere_is_read_and_checked() -> None:
    head = f"NIST_1A\n   1024\nsample_count -i {len(SAMPLES)}\nsample_n_bytes -i 2\nchannel_count -i 1\n"
    head += f"sample_byte_format -s2 01\nsample_rate -i {RATE}\nsample_coding -s3 pcm\nend_head\n"
    content = head.encode().ljust(1024) + RAW
    np.testing.assert_array_equal(Audio(None)(content), EXPECTED)
    with pytest.raises(AudioError, match="is cut off: its header states 2.00 s, 1.50 s are there"):
        Audio()(content[:-8000])


@pytest.mark.parametrize("flaw", [b"", b"fmt \x02\0\0\0ab", b"fmt \x10\0\0\0" + bytes(16)])
def test_a_damaged_header_is_refused_in_a_line(flaw: bytes) -> None:
    for content in (b"RIFF\x24\0\0\0WAVE" + flaw, b"RIFF\x24\0\0\0WAVE" + flaw + b"data\4\0\0\0abcd"):
        with pytest.raises(
            AudioError, match="(?:holds no audio that can be read|has|cannot be decoded).*; accepted"
        ):
            Audio()(content)


def test_a_part_is_a_file_of_its_own(tmp_path: Path) -> None:
    file = io.BytesIO(b"0123456789")
    part = Part(file, 2, 6, b"ab")
    assert part.read() == b"ab2345" and part.read() == b""
    assert part.seek(-3, 2) == 3 and part.read(2) == b"34"
    assert part.seek(1) == 1 and part.read(2) == b"b2" and part.tell() == 3
    with pytest.raises(OSError):
        part.seek(-1)


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
