"""What containers state about their length, and whether it is there.

    file ─► kind by its first bytes ─► sizes that it states, against the bytes that are there ─► `Header`

Decoding libraries hide this: a file that was cut off is read without an error, and samples behind a header
that was never finished are not read. Whoever decodes gets the part of the file that holds the samples, behind
a header that states the right size.
"""

import io
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

# Written to a pipe, a size is 0 or nearly the largest possible, which is that of 31 or of 32 bits.
_ENDLESS = 0x7FFF0000
# Wrong counts of some programs, which include a pad byte or the header.
_SLACK = 8  # bytes
_HEAD = 1 << 16  # bytes that are read at once
_PADDING = 4096  # zero bytes behind the samples, up to which they only fill a block of the disk


@dataclass(frozen=True)
class Header:
    """A container and what its header states.

    Attributes:
        container: Its name in messages.
        start: Where it starts in the file, in bytes.
        end: Where it ends.
        prefix: A header that states the right size, in place of all before `start`.
        by_libsndfile: Whether libsndfile reads it, and to its end.
        seconds: Length of what is there, None if only decoding tells.
        stated: Length that the header states, None if unknown.
        missing: Bytes that are stated and not there; at least.
        unfinished: The end is marked by a flag, which is missing.
        ends_open: The container states no length and has no mark of its end.
        packets: Number of packets that the header states, None if unknown.
        note: What is told of the header.
        flaw: What is wrong with it.
        last_frame: Offset and first sample of the last frame of FLAC.
    """

    container: str
    start: int
    end: int
    prefix: bytes = b""
    by_libsndfile: bool = False
    seconds: float | None = None
    stated: float | None = None
    missing: int = 0
    unfinished: bool = False
    ends_open: bool = False
    packets: int | None = None
    note: str = ""
    flaw: str = ""
    last_frame: tuple[int, int] | None = None

    @property
    def is_cut_off(self) -> bool:
        """Whether it states more than is there."""
        return self.missing > 0 or self.unfinished

    def part_of(self, file: BinaryIO) -> "Part":
        """What it describes, as a file."""
        return Part(file, self.start, self.end, self.prefix)


class Part(io.RawIOBase):
    """A part of a file behind a prefix, as a file of its own; the file stays open.

    Args:
        file: A file that can seek.
        start: First byte of the part.
        end: Byte after the last one.
        prefix: Bytes that come before the part.
    """

    def __init__(self, file: BinaryIO, start: int, end: int, prefix: bytes = b""):
        self._file, self._start, self._prefix = file, start, prefix
        self._size = len(prefix) + end - start
        self._position = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(22, "seek before the start")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """As of any file."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """As of any file; less than asked for at the end alone."""
        target = memoryview(buffer).cast("B")
        before = len(self._prefix)
        count = min(len(target), max(0, self._size - self._position))
        done = 0
        if self._position < before:
            done = min(count, before - self._position)
            target[:done] = self._prefix[self._position : self._position + done]
        while done < count:
            self._file.seek(self._start + self._position + done - before)
            piece = self._file.read(count - done)
            if not piece:
                break
            target[done : done + len(piece)] = piece
            done += len(piece)
        self._position += done
        return done


class _Bytes:
    """Random access to a part of a file, whose first bytes are kept."""

    def __init__(self, file: BinaryIO, start: int, end: int):
        self.file, self.start, self.end = file, start, end
        file.seek(start)
        self._head = file.read(min(_HEAD, end - start))

    def at(self, offset: int, count: int) -> bytes:
        """Bytes at an offset in the file, less at the end."""
        count = min(count, self.end - offset)
        if count <= 0:
            return b""
        if offset + count <= self.start + len(self._head):
            return self._head[offset - self.start : offset - self.start + count]
        self.file.seek(offset)
        return self.file.read(count)

    def find(self, wanted: bytes, offset: int) -> int:
        """Where bytes are found from an offset on, or -1."""
        piece, overlap = 1 << 20, len(wanted) - 1
        while offset < self.end:
            content = self.at(offset, piece + overlap)
            if (found := content.find(wanted)) >= 0:
                return offset + found
            offset += piece
        return -1


def read_headers(file: BinaryIO) -> list[Header]:
    """The containers of a file: one, or several if files were joined.

    Args:
        file: A file that can seek; it is read from its start.
    """
    start, end = 0, file.seek(0, os.SEEK_END)
    headers: list[Header] = []
    while True:
        data = _Bytes(file, start, end)
        read = _reader(data)
        if read is None:
            header, following = Header("unknown", start, end, ends_open=True), None
        else:
            try:
                header, following = read(data)
            except _FLAWS as error:
                flaw = str(error) if type(error) is ValueError else "its header is damaged"
                header, following = Header("unknown", start, end, flaw=flaw), None
        headers.append(header)
        if following is None or not start < following < end:
            return headers
        start = following


# What reading of damaged headers raises.
_FLAWS = (struct.error, IndexError, KeyError, ValueError, ArithmeticError)
_Read = Callable[[_Bytes], tuple[Header, int | None]]


def _reader(data: _Bytes) -> _Read | None:
    """What reads the header of a container, by its first bytes."""
    head = data.at(data.start, 64)
    for magic, read in _READERS.items():
        if head.startswith(magic):
            return read
    if head[4:8] in _MP4_BOXES:
        return _read_mp4
    if head[:3] == b"ID3" or _mp3_frame(head):
        return _read_mp3
    return None


# --- containers of uncompressed samples -------------------------------------------------------------------


@dataclass(frozen=True)
class _Samples:
    """Where a header says that samples lie.

    Attributes:
        container: Its name in messages.
        offset: First byte of the samples.
        stated: Their bytes, None if the header leaves that open.
        rate: Bytes a second, 0 if unknown.
        by_libsndfile: Whether libsndfile decodes them.
        renew: Makes a header that states another number of bytes.
        chunks: Reads the chunks that follow: offset of the first ─► offset behind the last.
        padded: Chunks start at multiples of this.
    """

    container: str
    offset: int
    stated: int | None
    rate: float
    by_libsndfile: bool
    renew: Callable[[int], bytes]
    chunks: Callable[[_Bytes, int], int]
    padded: int = 2

    def seconds(self, size: int | None) -> float | None:
        """What a number of bytes lasts."""
        return size / self.rate if size is not None and self.rate else None


def _judge(data: _Bytes, samples: _Samples) -> tuple[Header, int | None]:
    """Compare the stated size of samples with what is there."""
    there = data.end - samples.offset
    header = Header(
        samples.container,
        data.start,
        data.end,
        by_libsndfile=samples.by_libsndfile,
        stated=samples.seconds(samples.stated),
    )
    if samples.stated is None:
        return _to_the_end(header, samples, data.end), None
    if samples.stated > there + _SLACK:
        return replace(header, missing=samples.stated - there, seconds=samples.seconds(there)), None
    # sizes of 32 bits start again at 4 GiB
    for wrapped in range(0, max(1, there + 1 - samples.stated), 1 << 32):
        size = samples.stated + wrapped
        end = samples.offset + size
        joined = next((at for at in _aligned(end, samples.padded) if _starts_file(data, at)), None)
        if joined is not None or _only_tags_follow(data, samples, end):
            if wrapped:
                return _to_the_end(header, samples, end), joined
            header = replace(
                header, end=joined or data.end, seconds=samples.seconds(min(samples.stated, there))
            )
            if samples.container == "BW64":  # which libsndfile knows by its older name
                header = replace(header, start=samples.offset, end=end, prefix=samples.renew(size))
            return header, joined
    return _to_the_end(header, samples, data.end), None


def _aligned(end: int, padded: int) -> tuple[int, ...]:
    """Where the next chunk may start: padded, or not, as some programs do it."""
    return tuple(dict.fromkeys((end, -(-end // padded) * padded, end + end % 2)))


def _to_the_end(header: Header, samples: _Samples, end: int) -> Header:
    """A header that states another length than there is, with the right one in its place."""
    size = end - samples.offset
    seconds = samples.seconds(size)
    said = f"states {header.stated:.2f} s" if header.stated else "leaves the length open"
    there = f"{size:,} bytes" if seconds is None else f"{seconds:.2f} s"
    note = f"its {header.container} header {said}, there are {there}: decoded to the end"
    return replace(
        header,
        start=samples.offset,
        end=end,
        prefix=samples.renew(size),
        seconds=seconds,
        stated=None,
        note=note,
    )


_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")


def _only_tags_follow(data: _Bytes, samples: _Samples, end: int) -> bool:
    """Whether no samples come behind the stated ones."""
    rest = data.end - end
    if rest <= _SLACK:
        return True
    if data.at(end, 11).startswith(_TAGS):
        return True
    if rest <= _PADDING and not data.at(end, rest).strip(b"\0"):
        return True
    return any(
        data.end - samples.chunks(data, place) <= _SLACK
        for place in _aligned(end, samples.padded)
        if samples.chunks(data, place) > place
    )


def _starts_file(data: _Bytes, offset: int) -> bool:
    """Whether another file starts here, which was joined to this one."""
    head = data.at(offset, 16)
    riff = head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE"
    form = head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC")
    return riff or form or head.startswith((b".snd\0\0\0", b"caff\0\1\0\0", _W64_RIFF))


_CHUNK_NAME = re.compile(rb"[ -~]{4}")


def _chunks_to(order: str) -> Callable[[_Bytes, int], int]:
    """Reads chunks of a name and a size of 32 bits, as long as they look like chunks."""

    def walk(data: _Bytes, offset: int) -> int:
        while True:
            head = data.at(offset, 8)
            if len(head) < 8 or not _CHUNK_NAME.fullmatch(head[:4]):
                return offset
            size = int.from_bytes(head[4:], "little" if order == "<" else "big")
            if offset + 8 + size > data.end + _SLACK:
                return offset
            offset = min(offset + 8 + size + size % 2, data.end)

    return walk


# WAVE_FORMAT_PCM, IEEE_FLOAT, ALAW, MULAW: what libsndfile reads by counting bytes.
_BY_BYTES = (1, 3, 6, 7)
_EXTENSIBLE = 0xFFFE


def _read_riff(data: _Bytes) -> tuple[Header, int | None]:
    """WAV, and its variants RF64 and BW64 for 4 GiB and more, and RIFX of the other byte order."""
    magic = data.at(data.start, 4)
    order = ">" if magic == b"RIFX" else "<"
    if data.at(data.start + 8, 4) == b"AVI ":
        return _read_avi(data)
    if data.at(data.start + 8, 4) != b"WAVE":
        raise ValueError("no WAVE")
    container = "WAV" if magic in (b"RIFF", b"RIFX") else magic.decode()
    long_size, form = None, b""
    offset = data.start + 12
    while len(head := data.at(offset, 8)) == 8:
        name, size = head[:4], struct.unpack(order + "I", head[4:])[0]
        if name == b"ds64":
            long_size = struct.unpack("<Q", data.at(offset + 16, 8))[0]
        elif name == b"fmt ":
            form = data.at(offset + 8, min(size, 1 << 12))
        elif name == b"data" and form:
            return _judge(data, _riff_samples(data, container, order, form, offset, size, long_size))
        offset += 8 + size + size % 2
    raise ValueError("its header names no samples")


def _riff_samples(
    data: _Bytes, container: str, order: str, form: bytes, offset: int, size: int, long_size: int | None
) -> _Samples:
    tag, channels, rate, byte_rate, block, bits = struct.unpack_from(order + "HHIIHH", form)
    if tag == _EXTENSIBLE:
        tag = struct.unpack_from(order + "H", form, 24)[0]
    by_bytes = tag in _BY_BYTES and block == channels * -(-bits // 8) and block > 0
    stated: int | None = size
    if long_size is not None and size in (0xFFFFFFFF, 0):
        stated = long_size
    there = data.end - offset - 8
    if stated is not None and stated > there and (stated in (0xFFFFFFFF, 1 << 63, (1 << 64) - 1)):
        stated = None
    if stated is not None and long_size is None and there < stated and stated >= _ENDLESS:
        stated = None
    if stated == 0 and there > _SLACK and not _chunks_reach_end(data, offset + 8, order):
        stated = None

    def renew(length: int) -> bytes:
        padded = struct.pack(order + "4sI", b"fmt ", len(form)) + form + b"\0" * (len(form) % 2)
        if order == ">":  # RIFX has no long form
            total = min(length, 0xFFFFFFFF)
            return (
                b"RIFX"
                + struct.pack(">I", min(total + 20 + len(padded), 0xFFFFFFFF))
                + b"WAVE"
                + padded
                + (b"data" + struct.pack(">I", total))
            )
        frames = length // max(1, block)
        long = struct.pack("<4sIQQQI", b"ds64", 28, length + 56 + len(padded), length, frames, 0)
        return b"RF64\xff\xff\xff\xffWAVE" + long + padded + b"data\xff\xff\xff\xff"

    return _Samples(
        container,
        offset + 8,
        stated,
        float(block * rate if by_bytes else byte_rate),
        by_bytes,
        renew,
        _chunks_to(order),
    )


def _chunks_reach_end(data: _Bytes, offset: int, order: str) -> bool:
    return data.end - _chunks_to(order)(data, offset) <= _SLACK


_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
_W64_RIFF = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")


def _read_w64(data: _Bytes) -> tuple[Header, int | None]:
    """Sony Wave64: chunks named by GUIDs, sizes of 64 bits that include the chunk's header."""
    form, offset = b"", data.start + 40
    while len(head := data.at(offset, 24)) == 24:
        size = struct.unpack("<Q", head[16:])[0]
        if head[:16] == b"fmt " + _W64_TAIL:
            form = data.at(offset + 24, min(size - 24, 1 << 12))
        elif head[:16] == b"data" + _W64_TAIL and form:
            there = data.end - offset - 24
            endless = size < 24 or size >= 1 << 62 or (size == 24 and there > _SLACK)
            samples = _riff_samples(data, "W64", "<", form, offset + 16, 0 if endless else size - 24, None)
            stated = None if endless and there > _SLACK else max(0, size - 24)
            return _judge(data, replace(samples, stated=stated, chunks=_chunks_of_w64, padded=8))
        if size < 24:
            break
        offset += -(-size // 8) * 8
    raise ValueError("its header names no samples")


def _chunks_of_w64(data: _Bytes, offset: int) -> int:
    while True:
        head = data.at(offset, 24)
        size = int.from_bytes(head[16:24], "little")
        if len(head) < 24 or size < 24 or not _CHUNK_NAME.fullmatch(head[:4]):
            return offset
        if offset + size > data.end + _SLACK:
            return offset
        offset = min(offset + -(-size // 8) * 8, data.end)


# Compression types of AIFF-C that are samples of a fixed number of bytes.
_AIFC_WIDTH = {b"ulaw": 1, b"ULAW": 1, b"alaw": 1, b"ALAW": 1, b"raw ": 1, b"fl32": 4, b"FL32": 4}
_AIFC_WIDTH |= {b"fl64": 8, b"FL64": 8, b"in24": 3, b"in32": 4}
_AIFC_PCM = (b"NONE", b"twos", b"sowt")


def _read_aiff(data: _Bytes) -> tuple[Header, int | None]:
    """AIFF and AIFF-C: the number of sample frames in one chunk, the bytes in another."""
    compressed = data.at(data.start + 8, 4) == b"AIFC"
    if not compressed and data.at(data.start + 8, 4) != b"AIFF":
        raise ValueError("no AIFF")
    common, sound, others = b"", None, b""
    offset = data.start + 12
    while len(head := data.at(offset, 8)) == 8:
        size = struct.unpack(">I", head[4:])[0]
        if head[:4] == b"COMM":
            common = data.at(offset + 8, min(size, 1 << 12))
        elif head[:4] == b"FVER":
            others += data.at(offset, 12)
        elif head[:4] == b"SSND":
            sound = (offset, size)
            if common:
                break
        offset += 8 + size + size % 2
    if sound is None:
        raise ValueError("its header names no samples")
    offset, size = sound
    channels, frames, bits = struct.unpack_from(">hIh", common)
    rate = _extended(common[8:18])
    kind = common[18:22] if compressed else b"NONE"
    width = -(-bits // 8) if kind in _AIFC_PCM else _AIFC_WIDTH.get(kind, 0)
    block = width * channels
    skipped = struct.unpack(">I", data.at(offset + 8, 4))[0]
    first = offset + 16 + skipped
    there = data.end - first
    stated: int | None = size - 8 - skipped
    if stated is not None and stated <= 0 and block:
        stated = frames * block if 0 < frames * block <= there + _SLACK else None if there > _SLACK else 0
    elif stated is not None and stated > there and size >= _ENDLESS:
        stated = None
    elif stated is not None and block and frames * block > max(stated, there) + _SLACK and frames < _ENDLESS:
        stated = frames * block

    def renew(length: int) -> bytes:
        if length > 0xFFFFFF00 or not block:
            raise ValueError("no header can state that length")
        body = others + b"COMM" + struct.pack(">I", len(common))
        body += common[:2] + struct.pack(">I", length // block) + common[6:] + b"\0" * (len(common) % 2)
        body += b"SSND" + struct.pack(">III", length + 8, 0, 0)
        return (
            b"FORM" + struct.pack(">I", 4 + len(body) + length) + (b"AIFC" if compressed else b"AIFF") + body
        )

    per_second = block * rate if block else (size - 8) * rate / frames if frames else 0.0
    return _judge(data, _Samples("AIFF", first, stated, per_second, block > 0, renew, _chunks_to(">")))


def _extended(number: bytes) -> float:
    """An IEEE 754 number of 80 bits, in which AIFF states its rate."""
    exponent, mantissa = struct.unpack(">HQ", number)
    rate = mantissa * 2.0 ** ((exponent & 0x7FFF) - 16383 - 63)
    if not 0 < rate < 1e9:
        raise ValueError("no rate")
    return rate


_AU_WIDTH = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}


def _read_au(data: _Bytes) -> tuple[Header, int | None]:
    """Sun's AU; 2^32 - 1 bytes leave the length open."""
    order = ">" if data.at(data.start, 4) == b".snd" else "<"
    head = data.at(data.start, 24)
    first, size, encoding, rate, channels = struct.unpack(order + "5I", head[4:])
    width = _AU_WIDTH.get(encoding, 0)
    per_second = float(width * channels * rate)
    there = data.end - data.start - first
    stated = None if size >= _ENDLESS and size > there else size
    if stated == 0 and there > 0:
        stated = None
    if not width:
        return Header("AU", data.start, data.end, missing=max(0, (stated or 0) - there)), None

    def renew(length: int) -> bytes:
        magic = head[:4]
        return magic + struct.pack(order + "5I", 24, min(length, 0xFFFFFFFF), encoding, rate, channels)

    def no_chunks(data: _Bytes, offset: int) -> int:
        return offset

    at = data.start + first
    return _judge(data, _Samples("AU", at, stated, per_second, True, renew, no_chunks, padded=1))


def _read_caf(data: _Bytes) -> tuple[Header, int | None]:
    """Apple's CAF: sizes of 64 bits; -1 leaves the length open, for the last chunk."""
    description, table = b"", None
    offset = data.start + 8
    while len(head := data.at(offset, 12)) == 12:
        size = struct.unpack(">q", head[4:])[0]
        if head[:4] == b"desc":
            description = data.at(offset + 12, 32)
        elif head[:4] == b"pakt":
            table = struct.unpack(">qqii", data.at(offset + 12, 24))
        elif head[:4] == b"data" and description:
            return _judge_caf(data, description, offset, size, table)
        if size < 0:
            break
        offset += 12 + size
    raise ValueError("its header names no samples")


def _judge_caf(
    data: _Bytes, description: bytes, offset: int, size: int, table: tuple[int, ...] | None
) -> tuple[Header, int | None]:
    rate, kind, flags, block, frames, channels, bits = struct.unpack(">d4sIIIII", description)
    by_bytes = kind in (b"lpcm", b"ulaw", b"alaw") and block > 0
    there = data.end - offset - 16  # the samples come behind a count of edits, of 4 bytes
    stated = None if size < 4 or size > (1 << 60) else size - 4
    if not by_bytes:
        if table is None and stated is not None:
            chunk = offset + 12 + size
            while len(head := data.at(chunk, 12)) == 12 and head[:4] != b"pakt":
                chunk += 12 + max(0, struct.unpack(">q", head[4:])[0])
            table = struct.unpack(">qqii", data.at(chunk + 12, 24)) if len(head) == 12 else None
        length = table[1] / rate if table is not None and table[1] > 0 else None
        missing = max(0, (stated or 0) - there)
        seconds = None if not missing or length is None or not stated else length * there / stated
        packets = table[0] if table is not None and table[0] > 0 else None
        return Header(
            "CAF", data.start, data.end, missing=missing, stated=length, seconds=seconds, packets=packets
        ), None

    def renew(length: int) -> bytes:
        chunk = b"desc" + struct.pack(">q", 32) + description
        return b"caff\0\1\0\0" + chunk + b"data" + struct.pack(">q", length + 4) + b"\0\0\0\0"

    def chunks(data: _Bytes, offset: int) -> int:
        while True:
            head = data.at(offset, 12)
            length = int.from_bytes(head[4:12], "big", signed=True)
            if len(head) < 12 or length < 0 or not _CHUNK_NAME.fullmatch(head[:4]):
                return offset
            if offset + 12 + length > data.end:
                return offset
            offset += 12 + length

    return _judge(data, _Samples("CAF", offset + 16, stated, block * rate, True, renew, chunks, padded=1))


def _read_sphere(data: _Bytes) -> tuple[Header, int | None]:
    """NIST SPHERE: a header of text."""
    size = int(data.at(data.start + 8, 8))
    text = data.at(data.start, min(size, 1 << 16)).decode("latin-1")
    fields = {
        name: value
        for name, _, value in (line.split(" ", 2) for line in text.split("\n")[2:] if line.count(" ") > 1)
    }
    block = int(fields["channel_count"]) * int(fields["sample_n_bytes"])
    rate = block * int(fields["sample_rate"])
    stated, there = int(fields["sample_count"]) * block, data.end - data.start - size
    missing = stated - there if stated > there + _SLACK else 0
    if "shorten" in fields.get("sample_coding", ""):
        return Header("SPHERE", data.start, data.end), None
    length = min(stated, there) if stated else there
    return Header(
        "SPHERE",
        data.start,
        data.end,
        by_libsndfile=there - stated <= _SLACK,
        seconds=length / rate,
        stated=stated / rate,
        missing=missing,
    ), None


# --- FLAC -------------------------------------------------------------------------------------------------

_FLAC_BLOCKS = {1: 192, **{code: 576 << (code - 2) for code in range(2, 6)}}
_FLAC_BLOCKS |= {code: 256 << (code - 8) for code in range(8, 16)}
_FLAC_SYNC = re.compile(rb"\xff[\xf8\xf9]")  # a frame starts with it
_FLAC_TAIL = 1 << 22  # bytes in which the last frame is searched for


def _crc_table(bits: int, polynomial: int) -> list[int]:
    table, top = [], 1 << (bits - 1)
    for value in range(256):
        value <<= bits - 8
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value & top else 0)
        table.append(value & ((1 << bits) - 1))
    return table


_CRC8, _CRC16 = _crc_table(8, 0x07), _crc_table(16, 0x8005)


def _read_flac(data: _Bytes) -> tuple[Header, int | None]:
    """FLAC: the stated number of samples, against the number of the last frame."""
    info = data.at(data.start + 8, 34)
    packed = int.from_bytes(info[10:18], "big")
    rate, channels, total = packed >> 44, (packed >> 41 & 7) + 1, packed & ((1 << 36) - 1)
    if not rate:
        raise ValueError("no rate")
    first = data.start + 4
    while True:
        kind, size = data.at(first, 1)[0], int.from_bytes(data.at(first + 1, 3), "big")
        first += 4 + size
        if kind & 0x80:
            break
        if first >= data.end:
            raise ValueError("no frames")
    joined = data.find(b"fLaC\0\0\0\x22", first)
    end = data.end if joined < 0 else joined
    following = None if joined < 0 else joined
    stated = total / rate if total else None
    header = Header("FLAC", data.start, end, by_libsndfile=True, stated=stated)
    frames = _flac_frames(_Bytes(data.file, first, end), info, channels, total)
    if not frames:
        there = replace(header, missing=1 if total else 0, seconds=0.0 if total else None)
        return replace(there, by_libsndfile=False), following
    place, begin, real = frames[0]
    header = replace(header, last_frame=(place, begin))
    if total and real < total:
        return replace(header, missing=1, seconds=real / rate), following
    if real > total:
        if _crc16(data.at(place, end - place)) and begin:  # the last frame was being written
            end, real = place, begin
        said = f"states {total / rate:.2f} s" if total else "leaves the length open"
        note = f"its FLAC header {said}, there are {real / rate:.2f} s: decoded to the end"
        packed = packed & ~((1 << 36) - 1) | real
        prefix = (
            b"fLaC\x80\0\0\x22" + info[:10] + packed.to_bytes(8, "big") + bytes(16)
        )  # without the MD5 sum
        header = replace(header, start=first, end=end, prefix=prefix, stated=None, note=note)
    return replace(header, seconds=real / rate), following


def ends_within_frame(file: BinaryIO, header: Header) -> bool:
    """Whether the last frame of FLAC is not whole, which its header does not tell. Slow."""
    if header.last_frame is None:
        return False
    place = header.last_frame[0]
    return bool(_crc16(_Bytes(file, place, header.end).at(place, header.end - place)))


def _flac_frames(data: _Bytes, info: bytes, channels: int, total: int) -> list[tuple[int, int, int]]:
    """Offset, first sample and the sample behind it of the last frame, and of some before it."""
    found: list[tuple[int, int, int]] = []
    piece, reach = 1 << 14, data.end
    while reach > data.start and data.end - reach < _FLAC_TAIL and len(found) < 6:
        start = max(data.start, reach - piece)
        content = data.at(start, min(reach + 32, data.end) - start)
        places = [match.start() for match in _FLAC_SYNC.finditer(content, 0, reach - start + 1)]
        for place in reversed(places):
            if frame := _flac_frame(content[place : place + 18], info, channels):
                found.append((start + place, *frame))
                if total and frame[1] == total:
                    return found[-1:]
                if len(found) == 6:
                    break
        reach = start
        piece *= 4
    # bytes that look like a frame's header by chance do not join to another frame
    ends = {end for _, _, end in found}
    joined = [place for place, (_, begin, _) in enumerate(found) if begin in ends]
    return found[joined[0] :] if joined else found


def _crc16(content: bytes) -> int:
    """The sum of a FLAC frame, 0 if it is whole. Frames have some kilobytes."""
    crc = 0
    for byte in content:
        crc = (crc << 8) & 0xFFFF ^ _CRC16[crc >> 8 ^ byte]
    return crc


def _flac_frame(head: bytes, info: bytes, channels: int) -> tuple[int, int] | None:
    """First sample of a frame and the one behind it, None if the bytes are no frame's header."""
    if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[3] & 1:
        return None
    size_code, rate_code, layout = head[2] >> 4, head[2] & 15, head[3] >> 4
    if not size_code or rate_code == 15 or layout > 10 or channels != (layout + 1 if layout < 8 else 2):
        return None
    lead = head[4]
    ones = 8 - (~lead & 0xFF).bit_length()  # as in UTF-8
    if ones in (1, 8):
        return None
    length, number = max(1, ones), lead & (0x7F >> ones)
    for byte in head[5 : 4 + length]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    place = 4 + length
    block = _FLAC_BLOCKS.get(size_code, 0)
    if size_code in (6, 7):
        block = int.from_bytes(head[place : place + size_code - 5], "big") + 1
        place += size_code - 5
    place += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    crc = 0
    for byte in head[:place]:
        crc = _CRC8[crc ^ byte]
    if place >= len(head) or crc != head[place]:
        return None
    largest = int.from_bytes(info[2:4], "big")
    if not 0 < block <= max(largest, 16):
        return None
    begin = number if head[1] & 1 else number * largest
    return begin, begin + block


# --- Ogg --------------------------------------------------------------------------------------------------


@dataclass
class _Logical:
    """A logical stream of an Ogg file."""

    rate: float = 0  # granules a second, 0 if it is no audio
    skipped: int = 0  # granules before its start
    last: int = 0
    ended: bool = False
    pages: int = 0
    whole: bool = True  # no page is missing
    by_libsndfile: bool = False


def _read_ogg(data: _Bytes) -> tuple[Header, int | None]:
    """Ogg: pages of streams, each with a flag at its end; after that, other streams may follow."""
    streams: dict[int, _Logical] = {}
    starting, offset, following, partial = True, data.start, None, False
    while len(head := data.at(offset, 27)) == 27:
        if head[:4] != b"OggS":
            if (offset := data.find(b"OggS", offset)) < 0:
                break
            continue
        flags, granule, serial, number = struct.unpack("<BqII", head[5:22])
        lacing = data.at(offset + 27, head[26])
        size = 27 + len(lacing) + sum(lacing)
        first = bool(flags & 2)
        if first and not starting:
            following = offset
            break
        partial = len(lacing) < head[26] or offset + size > data.end
        if partial:
            break
        if first:
            streams[serial] = _logical(data.at(offset + 27 + len(lacing), 64))
        if (stream := streams.get(serial)) is not None:
            stream.last = max(stream.last, granule)
            stream.ended |= bool(flags & 4)
            stream.whole &= number == stream.pages
            stream.pages += 1
        starting = first
        offset += size
    end = following or data.end
    heard = next((stream for stream in streams.values() if stream.rate), None)
    if heard is None:
        return Header("Ogg", data.start, end), following
    return Header(
        "Ogg",
        data.start,
        end,
        by_libsndfile=heard.by_libsndfile and heard.whole and len(streams) == 1 and offset >= end,
        seconds=max(0, heard.last - heard.skipped) / heard.rate,
        unfinished=not heard.ended,
    ), following


def _logical(packet: bytes) -> _Logical:
    """A logical stream by its first packet."""
    if packet.startswith(b"OpusHead"):
        return _Logical(48_000, struct.unpack_from("<H", packet, 10)[0], by_libsndfile=True)
    if packet.startswith(b"\1vorbis"):
        return _Logical(struct.unpack_from("<I", packet, 12)[0], by_libsndfile=True)
    if packet.startswith(b"\x7fFLAC"):
        return _Logical(int.from_bytes(packet[27:30], "big") >> 4)
    if packet.startswith(b"Speex   "):
        return _Logical(struct.unpack_from("<I", packet, 36)[0])
    return _Logical()


# --- containers of packets --------------------------------------------------------------------------------

_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"moof", b"sidx")


def _read_mp4(data: _Bytes) -> tuple[Header, int | None]:
    """MP4, M4A, MOV, 3GP: boxes at the top level."""
    offset, missing, described, sound, following = data.start, 0, False, False, None
    while len(head := data.at(offset, 16)) >= 8:
        size, name = struct.unpack(">I4s", head[:8])
        if name == b"ftyp" and described and data.find(b"moov", offset) >= 0:
            following = offset
            break
        if size == 1:
            size = struct.unpack(">Q", head[8:16])[0]
        elif size == 0:
            size = data.end - offset
        if size < 8 or not _CHUNK_NAME.fullmatch(name):
            break
        described |= name in (b"moov", b"moof")
        sound |= name == b"mdat"
        offset += size
        if offset > data.end:
            if name in _MP4_BOXES:
                missing = offset - data.end
            break
    unfinished = sound and not described  # the index comes last
    end = following or data.end
    return Header("MP4", data.start, end, missing=missing, unfinished=unfinished), following


_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_IN_SEGMENT = (0x114D9B74, 0x1549A966, _CLUSTER, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367)


def _read_matroska(data: _Bytes) -> tuple[Header, int | None]:
    """Matroska and WebM: elements, whose sizes a live recording leaves open."""
    offset, within, end, following = data.start, False, data.end, None
    missing = 0
    while (element := _element(data, offset)) is not None:
        name, size, body = element
        if name == _EBML and offset > data.start:
            following = end = offset
            break
        if size is None:  # its children follow
            within |= name == _SEGMENT
            if name not in (_SEGMENT, _CLUSTER):
                break
            offset = body
            continue
        if body + size > data.end:
            if name in (_SEGMENT, *_IN_SEGMENT) or not within:
                missing = body + size - data.end
            else:
                end = offset  # a packet that was being written
            break
        offset = body + size
    else:
        end = max(min(offset, data.end), data.start + 1) if within and data.end - offset < 16 else data.end
    return Header("Matroska", data.start, end, missing=missing, ends_open=within), following


def _element(data: _Bytes, offset: int) -> tuple[int, int | None, int] | None:
    """Name, size (None if open) and start of the body of an EBML element."""
    head = data.at(offset, 12)
    if not head or not head[0] & 0xF0:
        return None
    width = 9 - head[0].bit_length()
    if len(head) <= width or not head[width]:
        return None
    name = int.from_bytes(head[:width], "big")
    length = 9 - head[width].bit_length()
    if len(head) < width + length:
        return None
    size = int.from_bytes(head[width : width + length], "big") & ((1 << 7 * length) - 1)
    return name, None if size == (1 << 7 * length) - 1 else size, offset + width + length


def _read_avi(data: _Bytes) -> tuple[Header, int | None]:
    """AVI: several RIFF chunks if it is long."""
    offset, following = data.start, None
    while len(head := data.at(offset, 12)) == 12 and head[:4] == b"RIFF":
        if head[8:] == b"AVI " and offset > data.start:
            following = offset
            break
        size = struct.unpack("<I", head[4:8])[0]
        if not size or size >= _ENDLESS and offset + size > data.end:
            return Header("AVI", data.start, data.end, ends_open=True), None
        offset += 8 + size + size % 2
    missing = offset - data.end if offset > data.end + _SLACK else 0
    head = data.at(data.start, 1 << 12)
    stated, place = None, head.find(b"auds")
    if place >= 8 and head[place - 8 : place - 4] == b"strh":
        scale, rate, _, length = struct.unpack_from("<4I", head, place + 20)
        stated = length * scale / rate if rate and length else None
    return Header("AVI", data.start, following or data.end, missing=missing, stated=stated), following


_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def _read_asf(data: _Bytes) -> tuple[Header, int | None]:
    """ASF, as WMA and WMV: the size of the file in one of the header's objects."""
    offset = data.start + 30
    header_end = data.start + struct.unpack("<Q", data.at(data.start + 16, 8))[0]
    while offset + 24 <= header_end and len(head := data.at(offset, 24)) == 24:
        size = struct.unpack("<Q", head[16:])[0]
        if head[:16] == _ASF_FILE:
            stated = struct.unpack("<Q", data.at(offset + 40, 8))[0]
            live = data.at(offset + 88, 1)[0] & 1
            missing = 0 if live or not stated else max(0, stated - (data.end - data.start))
            behind = data.start + stated
            following = behind if stated and data.at(behind, 16) == _ASF else None
            end = following or data.end
            return Header("ASF", data.start, end, missing=missing, ends_open=bool(live)), following
        if size < 24:
            break
        offset += size
    return Header("ASF", data.start, data.end), None


def _read_flv(data: _Bytes) -> tuple[Header, int | None]:
    """FLV: tags; the first may state the size of the file, or the length."""
    first = data.start + int.from_bytes(data.at(data.start + 5, 4), "big") + 4
    offset, last, script = first, 0, b""
    while len(head := data.at(offset, 11)) == 11:
        size = int.from_bytes(head[1:4], "big")
        if head[0] not in (8, 9, 18) or offset + 15 + size > data.end:
            break
        if head[0] == 18 and not script:
            script = data.at(offset + 11, min(size, 1 << 14))
        else:
            last = max(last, int.from_bytes(head[7:8] + head[4:7], "big"))
        offset += 15 + size
    stated_size, length = _amf_number(script, b"filesize"), _amf_number(script, b"duration")
    missing = max(0, int(stated_size) - (data.end - data.start))
    if not stated_size and length > last / 1000 + 1:
        missing = 1
    ends_open = not stated_size and not length
    return Header(
        "FLV",
        data.start,
        data.end,
        missing=missing,
        ends_open=ends_open,
        stated=length or None,
        seconds=last / 1000 if missing else None,
    ), None


def _amf_number(script: bytes, name: bytes) -> float:
    """A number of FLV's metadata, 0 if absent."""
    place = script.find(name + b"\0")
    if place < 0 or len(script) < place + len(name) + 9:
        return 0.0
    number = struct.unpack_from(">d", script, place + len(name) + 1)[0]
    return number if 0 < number < 1e15 else 0.0


# --- MP3 --------------------------------------------------------------------------------------------------

_MP3_RATES = ((11025, 12000, 8000), (), (22050, 24000, 16000), (44100, 48000, 32000))
_MP3_SEARCHED = 1 << 16  # bytes in which the first frame must lie


def _mp3_frame(head: bytes) -> tuple[int, int, int, int] | None:
    """Version, rate, samples of a frame and offset of a Xing header, None if it is no frame of layer 3."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, bits, place = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or bits == 15 or place == 3:
        return None
    mono = head[3] >> 6 == 3
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    return version, _MP3_RATES[version][place], 1152 if version == 3 else 576, 4 + side


def _read_mp3(data: _Bytes) -> tuple[Header, int | None]:
    """MP3: the number of frames in a Xing or VBRI header, if there is one; else no length."""
    offset = data.start
    while data.at(offset, 3) == b"ID3":
        head = data.at(offset, 10)
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        offset += 10 + size + (10 if head[5] & 0x10 else 0)
    if offset > data.start and data.at(offset, 4) in (b"fLaC", b"OggS", b"RIFF", b"FORM"):
        read = _reader(_Bytes(data.file, offset, data.end))
        assert read is not None
        return read(_Bytes(data.file, offset, data.end))
    head = data.at(offset, _MP3_SEARCHED)
    place = next((at for at in range(len(head) - 4) if head[at] == 0xFF and _mp3_frame(head[at:])), None)
    if offset > data.end and data.start < data.end:
        return Header("ID3", data.start, data.end, missing=offset - data.end), None
    if place is None:
        return Header("MP3", data.start, data.end, ends_open=True), None
    found = _mp3_frame(head[place:])
    assert found is not None
    _, rate, length, xing = found
    frames = size = 0
    if head[place + xing : place + xing + 4] in (b"Xing", b"Info"):
        flags = struct.unpack_from(">I", head, place + xing + 4)[0]
        if flags & 1:
            frames = struct.unpack_from(">I", head, place + xing + 8)[0]
        if flags & 2:
            size = struct.unpack_from(">I", head, place + xing + (12 if flags & 1 else 8))[0]
    elif head[place + 36 : place + 40] == b"VBRI":
        size, frames = struct.unpack_from(">II", head, place + 46)
    following = _next_mp3(data, offset + place + 4)
    end = following or data.end
    return Header(
        "MP3",
        data.start,
        end,
        stated=frames * length / rate if frames else None,
        missing=max(0, size - (end - offset - place)) if frames and size else 0,
        ends_open=not frames,
        packets=frames or None,
    ), following


def _next_mp3(data: _Bytes, offset: int) -> int | None:
    """Where another file starts that was joined to this one: a tag, and a frame behind it."""
    while (offset := data.find(b"ID3", offset)) >= 0:
        head = data.at(offset, 10)
        if len(head) == 10 and head[3] in (2, 3, 4) and head[4] == 0 and not max(head[6:]) & 0x80:
            size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
            if _mp3_frame(data.at(offset + 10 + size, 4)):
                return offset
        offset += 3
    return None


_READERS: dict[bytes, _Read] = {
    b"RIFF": _read_riff,
    b"RIFX": _read_riff,
    b"RF64": _read_riff,
    b"BW64": _read_riff,
    _W64_RIFF: _read_w64,
    b"FORM": _read_aiff,
    b".snd": _read_au,
    b"dns.": _read_au,
    b"caff\0\1": _read_caf,
    b"NIST_1A": _read_sphere,
    b"fLaC": _read_flac,
    b"OggS": _read_ogg,
    b"\x1aE\xdf\xa3": _read_matroska,
    _ASF: _read_asf,
    b"FLV\1": _read_flv,
}
