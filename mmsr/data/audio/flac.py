"""FLAC: the stated number of samples against the number of the last frame.

The format: RFC 9639.
"""

import re
from dataclasses import replace
from typing import BinaryIO

from mmsr.data.audio.headers import FileBytes, Header

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


def read_flac(data: FileBytes) -> tuple[Header, int | None]:
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
    frames = _flac_frames(FileBytes(data.file, first, end), info, channels, total)
    if not frames:
        there = replace(header, missing=1 if total else 0, seconds=0.0 if total else None)
        return replace(there, by_libsndfile=False), following
    place, begin, real = frames[0]
    start = _flac_frame(data.at(first, 18), info, channels)
    if start and start[0]:  # cut out of another file, whose numbers its frames keep
        real -= start[0]
        header = replace(header, by_libsndfile=False)
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
    return bool(_crc16(FileBytes(file, place, header.end).at(place, header.end - place)))


def _flac_frames(data: FileBytes, info: bytes, channels: int, total: int) -> list[tuple[int, int, int]]:
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
