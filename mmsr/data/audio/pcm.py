"""Containers of samples: WAV, RF64, W64, AIFF, AU, CAF and SPHERE.

Their headers state the bytes of the samples. What stands behind these is tags, another file, or more samples.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from mmsr.data.audio.headers import CHUNK_NAME, ENDLESS, SLACK, TAGS, FileBytes, Header

_PADDING = 4096  # zero bytes behind the samples, up to which they only fill a block of the disk


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
    chunks: Callable[[FileBytes, int], int]
    padded: int = 2

    def seconds(self, size: int | None) -> float | None:
        """What a number of bytes lasts."""
        return size / self.rate if size is not None and self.rate else None


def _judge(data: FileBytes, samples: _Samples) -> tuple[Header, int | None]:
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
    if samples.stated > there + SLACK:
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
            # libsndfile knows BW64 by its older name, and takes some W64 for another width
            if samples.container in ("BW64", "W64"):
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


def _only_tags_follow(data: FileBytes, samples: _Samples, end: int) -> bool:
    """Whether no samples come behind the stated ones."""
    rest = data.end - end
    if rest <= SLACK:
        return True
    if data.at(end, 11).startswith(TAGS):
        return True
    if rest <= _PADDING and not data.at(end, rest).strip(b"\0"):
        return True
    return any(
        data.end - samples.chunks(data, place) <= SLACK
        for place in _aligned(end, samples.padded)
        if samples.chunks(data, place) > place
    )


def _starts_file(data: FileBytes, offset: int) -> bool:
    """Whether another file starts here, which was joined to this one."""
    head = data.at(offset, 16)
    riff = head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE"
    form = head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC")
    return riff or form or head.startswith((b".snd\0\0\0", b"caff\0\1\0\0", b"NIST_1A\n", W64_RIFF))


def _walker(
    width: int, size_of: Callable[[bytes], int], *, padded: int = 1, slack: int = SLACK
) -> Callable[[FileBytes, int], int]:
    """Reads chunks from an offset, as long as they look like chunks and are there; the offset behind them.

    Args:
        width: Bytes of a chunk's header, whose first four are its name.
        size_of: Bytes of a chunk with its header, by its header.
        padded: Chunks start at multiples of this.
        slack: Bytes that the last one may lack.
    """

    def walk(data: FileBytes, offset: int) -> int:
        while True:
            head = data.at(offset, width)
            if len(head) < width or size_of(head) < width or not CHUNK_NAME.fullmatch(head[:4]):
                return offset
            if offset + size_of(head) > data.end + slack:
                return offset
            offset = min(offset + -(-size_of(head) // padded) * padded, data.end)

    return walk


def _chunks_to(order: Literal["little", "big"]) -> Callable[[FileBytes, int], int]:
    """Reads chunks of RIFF or AIFF, with sizes of 32 bits."""
    return _walker(8, lambda head: 8 + int.from_bytes(head[4:], order), padded=2)


# WAVE_FORMAT_PCM, IEEE_FLOAT, ALAW, MULAW: what libsndfile reads by counting bytes.
_BY_BYTES = (1, 3, 6, 7)
_EXTENSIBLE = 0xFFFE


def read_riff(data: FileBytes) -> tuple[Header, int | None]:
    """WAV, and its variants RF64 and BW64 for 4 GiB and more, and RIFX of the other byte order."""
    magic = data.at(data.start, 4)
    order = ">" if magic == b"RIFX" else "<"
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
    data: FileBytes, container: str, order: str, form: bytes, offset: int, size: int, long_size: int | None
) -> _Samples:
    tag, channels, rate, byte_rate, block, bits = struct.unpack_from(order + "HHIIHH", form)
    if tag == _EXTENSIBLE:
        tag = struct.unpack_from(order + "H", form, 24)[0]
    byte_order: Literal["little", "big"] = "little" if order == "<" else "big"
    by_bytes = tag in _BY_BYTES and block == channels * -(-bits // 8) and block > 0
    by_libsndfile = by_bytes and (tag != 1 or bits <= 32)
    stated: int | None = size
    if long_size is not None and size in (0xFFFFFFFF, 0):
        stated = long_size
    there = data.end - offset - 8
    if stated is not None and stated > there and (stated in (0xFFFFFFFF, 1 << 63, (1 << 64) - 1)):
        stated = None
    if stated is not None and long_size is None and there < stated and stated >= ENDLESS:
        stated = None
    if stated == 0 and there > SLACK and data.end - _chunks_to(byte_order)(data, offset + 8) > SLACK:
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
        by_libsndfile,
        renew,
        _chunks_to(byte_order),
    )


_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
W64_RIFF = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")


def read_w64(data: FileBytes) -> tuple[Header, int | None]:
    """Sony Wave64: chunks named by GUIDs, sizes of 64 bits that include the chunk's header."""
    form, offset = b"", data.start + 40
    while len(head := data.at(offset, 24)) == 24:
        size = struct.unpack("<Q", head[16:])[0]
        if head[:16] == b"fmt " + _W64_TAIL:
            form = data.at(offset + 24, min(size - 24, 1 << 12))
        elif head[:16] == b"data" + _W64_TAIL and form:
            there = data.end - offset - 24
            endless = size < 24 or size >= 1 << 62 or (size == 24 and there > SLACK)
            samples = _riff_samples(data, "W64", "<", form, offset + 16, 0 if endless else size - 24, None)
            stated = None if endless and there > SLACK else max(0, size - 24)
            # FFmpeg counts the zeros that fill the last 8 bytes, which in 8 bits sound as a click
            if stated and stated % 8 == 0 and form[14:16] == b"\x08\0":
                end = data.at(offset + 24 + stated - 8, 8)
                stated -= len(end) - len(end.rstrip(b"\0")) if end.strip(b"\0") else 0
            return _judge(data, replace(samples, stated=stated, chunks=_chunks_of_w64, padded=8))
        if size < 24:
            break
        offset += -(-size // 8) * 8
    raise ValueError("its header names no samples")


_chunks_of_w64 = _walker(24, lambda head: int.from_bytes(head[16:], "little"), padded=8)
_chunks_of_caf = _walker(12, lambda head: 12 + int.from_bytes(head[4:], "big", signed=True), slack=0)


# Compression types of AIFF-C that are samples of a fixed number of bytes.
_AIFC_WIDTH = {b"ulaw": 1, b"ULAW": 1, b"alaw": 1, b"ALAW": 1, b"raw ": 1, b"fl32": 4, b"FL32": 4}
_AIFC_WIDTH |= {b"fl64": 8, b"FL64": 8, b"in24": 3, b"in32": 4}
_AIFC_PCM = (b"NONE", b"twos", b"sowt")


def read_aiff(data: FileBytes) -> tuple[Header, int | None]:
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
        stated = frames * block if 0 < frames * block <= there + SLACK else None if there > SLACK else 0
    elif stated is not None and stated > there and size >= ENDLESS:
        stated = None
    elif stated is not None and block and frames * block > max(stated, there) + SLACK and frames < ENDLESS:
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
    return _judge(data, _Samples("AIFF", first, stated, per_second, block > 0, renew, _chunks_to("big")))


def _extended(number: bytes) -> float:
    """An IEEE 754 number of 80 bits, in which AIFF states its rate."""
    exponent, mantissa = struct.unpack(">HQ", number)
    rate = mantissa * 2.0 ** ((exponent & 0x7FFF) - 16383 - 63)
    if not 0 < rate < 1e9:
        raise ValueError("no rate")
    return rate


_AU_WIDTH = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}


def read_au(data: FileBytes) -> tuple[Header, int | None]:
    """Sun's AU; 2^32 - 1 bytes leave the length open."""
    order = ">" if data.at(data.start, 4) == b".snd" else "<"
    head = data.at(data.start, 24)
    first, size, encoding, rate, channels = struct.unpack(order + "5I", head[4:])
    width = _AU_WIDTH.get(encoding, 0)
    per_second = float(width * channels * rate)
    there = data.end - data.start - first
    stated = None if size >= ENDLESS and size > there else size
    if stated == 0 and there > 0:
        stated = None
    if not width:
        return Header("AU", data.start, data.end, missing=max(0, (stated or 0) - there)), None

    def renew(length: int) -> bytes:
        magic = head[:4]
        return magic + struct.pack(order + "5I", 24, min(length, 0xFFFFFFFF), encoding, rate, channels)

    def no_chunks(data: FileBytes, offset: int) -> int:
        return offset

    at = data.start + first
    return _judge(data, _Samples("AU", at, stated, per_second, True, renew, no_chunks, padded=1))


def read_caf(data: FileBytes) -> tuple[Header, int | None]:
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
    data: FileBytes, description: bytes, offset: int, size: int, table: tuple[int, ...] | None
) -> tuple[Header, int | None]:
    rate, kind, flags, block, frames, channels, bits = struct.unpack(">d4sIIIII", description)
    by_bytes = kind in (b"lpcm", b"ulaw", b"alaw") and block > 0
    there = data.end - offset - 16  # the samples come behind a count of edits, of 4 bytes
    stated = None if size < 4 or size > (1 << 60) else size - 4
    if not by_bytes:
        chunk = data.end if stated is None else offset + 12 + size
        while len(head := data.at(chunk, 12)) == 12 and not _starts_file(data, chunk):
            if head[:4] == b"pakt":
                table = struct.unpack(">qqii", data.at(chunk + 12, 24))
            chunk += 12 + max(0, struct.unpack(">q", head[4:])[0])
            if head[:4] == b"pakt" and chunk > data.end:
                return Header("CAF", data.start, data.end, missing=chunk - data.end), None
        joined = chunk if _starts_file(data, chunk) else None
        length = table[1] / rate if table is not None and table[1] > 0 else None
        missing = max(0, (stated or 0) - there)
        seconds = None if not missing or length is None or not stated else length * there / stated
        padded = table is not None and table[1] > 0 and table[2] + table[3] > 0
        return Header(
            "CAF",
            data.start,
            joined or data.end,
            missing=missing,
            stated=length,
            seconds=seconds,
            packets=table[0] if table is not None and table[0] > 0 else None,
            samples=table[1] if table is not None and padded else None,
        ), joined

    def renew(length: int) -> bytes:
        chunk = b"desc" + struct.pack(">q", 32) + description
        return b"caff\0\1\0\0" + chunk + b"data" + struct.pack(">q", length + 4) + b"\0\0\0\0"

    return _judge(
        data, _Samples("CAF", offset + 16, stated, block * rate, True, renew, _chunks_of_caf, padded=1)
    )


def read_sphere(data: FileBytes) -> tuple[Header, int | None]:
    """NIST SPHERE: a header of text."""
    size = int(data.at(data.start + 8, 8))
    text = data.at(data.start, min(size, 1 << 16)).decode("latin-1")
    fields = {
        name: value
        for name, _, value in (line.split(" ", 2) for line in text.split("\n")[2:] if line.count(" ") > 1)
    }
    if "shorten" in fields.get("sample_coding", ""):
        return Header("SPHERE", data.start, data.end), None
    block = int(fields["channel_count"]) * int(fields["sample_n_bytes"])
    rate, stated = float(block * int(fields["sample_rate"])), int(fields["sample_count"]) * block

    def renew(length: int) -> bytes:
        lines = [line for line in text.split("\n")[2:] if " -" in line and line[:12] != "sample_count"]
        count = f"sample_count -i {length // block}"
        renewed = "\n".join(["NIST_1A", "   1024", count, *lines, "end_head", ""])
        if len(renewed) > 1024:
            raise ValueError("no header can state that length")
        return renewed.ljust(1024).encode("latin-1")

    at = data.start + size
    samples = _Samples("SPHERE", at, stated or None, rate, True, renew, lambda data, offset: offset, padded=1)
    return _judge(data, samples)
