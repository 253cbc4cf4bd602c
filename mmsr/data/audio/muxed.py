"""Containers of packets: Ogg, MP4, Matroska, AVI, ASF, FLV and MP3.

Some state a size or a number of packets, some mark their end, and live recordings leave it open.
"""

import struct
from dataclasses import dataclass

from mmsr.data.audio.headers import CHUNK_NAME, ENDLESS, SLACK, FileBytes, Header


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


def read_ogg(data: FileBytes) -> tuple[Header, int | None]:
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


MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"moof", b"sidx")


def read_mp4(data: FileBytes) -> tuple[Header, int | None]:
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
        if size < 8 or not CHUNK_NAME.fullmatch(name):
            break
        described |= name in (b"moov", b"moof")
        sound |= name == b"mdat"
        offset += size
        if offset > data.end:
            if name in MP4_BOXES:
                missing = offset - data.end
            break
    unfinished = sound and not described  # the index comes last
    end = following or data.end
    return Header("MP4", data.start, end, missing=missing, unfinished=unfinished), following


_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_IN_SEGMENT = (0x114D9B74, 0x1549A966, _CLUSTER, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367)


def read_matroska(data: FileBytes) -> tuple[Header, int | None]:
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


def _element(data: FileBytes, offset: int) -> tuple[int, int | None, int] | None:
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


def read_avi(data: FileBytes) -> tuple[Header, int | None]:
    """AVI: several RIFF chunks if it is long."""
    offset, following = data.start, None
    while len(head := data.at(offset, 12)) == 12 and head[:4] == b"RIFF":
        if head[8:] == b"AVI " and offset > data.start:
            following = offset
            break
        size = struct.unpack("<I", head[4:8])[0]
        if not size or size >= ENDLESS and offset + size > data.end:
            return Header("AVI", data.start, data.end, ends_open=True), None
        offset += 8 + size + size % 2
    missing = offset - data.end if offset > data.end + SLACK else 0
    head = data.at(data.start, 1 << 12)
    stated, place = None, head.find(b"auds")
    if place >= 8 and head[place - 8 : place - 4] == b"strh":
        scale, rate, _, length = struct.unpack_from("<4I", head, place + 20)
        stated = length * scale / rate if rate and length else None
    return Header("AVI", data.start, following or data.end, missing=missing, stated=stated), following


ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def read_asf(data: FileBytes) -> tuple[Header, int | None]:
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
            following = behind if stated and data.at(behind, 16) == ASF else None
            end = following or data.end
            return Header("ASF", data.start, end, missing=missing, ends_open=bool(live)), following
        if size < 24:
            break
        offset += size
    return Header("ASF", data.start, data.end), None


def read_flv(data: FileBytes) -> tuple[Header, int | None]:
    """FLV: tags; the first may state the size of the file, or the length."""
    offset = data.start + int.from_bytes(data.at(data.start + 5, 4), "big") + 4
    last, script = 0, b""
    while len(head := data.at(offset, 11)) == 11:
        size = int.from_bytes(head[1:4], "big")
        if head[0] not in (8, 9, 18) or offset + 15 + size > data.end:
            break
        if head[0] == 18 and not script:
            script = data.at(offset + 11, min(size, 1 << 14))
        else:
            last = max(last, int.from_bytes(head[7:8] + head[4:7], "big"))
        offset += 15 + size
    joined = offset if data.at(offset, 4) == b"FLV\1" else None
    stated_size, length = _amf_number(script, b"filesize"), _amf_number(script, b"duration")
    missing = max(0, int(stated_size) - (data.end - data.start))
    if not stated_size and length > last / 1000 + 1:
        missing = 1
    ends_open = not stated_size and not length
    return Header(
        "FLV",
        data.start,
        joined or data.end,
        missing=missing,
        ends_open=ends_open,
        stated=length or None,
        seconds=last / 1000 if missing else None,
    ), joined


def _amf_number(script: bytes, name: bytes) -> float:
    """A number of FLV's metadata, 0 if absent."""
    place = script.find(name + b"\0")
    if place < 0 or len(script) < place + len(name) + 9:
        return 0.0
    number = struct.unpack_from(">d", script, place + len(name) + 1)[0]
    return number if 0 < number < 1e15 else 0.0


_MP3_RATES = ((11025, 12000, 8000), (), (22050, 24000, 16000), (44100, 48000, 32000))
_MP3_SEARCHED = 1 << 16  # bytes in which the first frame must lie


def mp3_frame(head: bytes) -> tuple[int, int, int, int] | None:
    """Version, rate, samples of a frame and offset of a Xing header, None if it is no frame of layer 3."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, bits, place = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or bits == 15 or place == 3:
        return None
    mono = head[3] >> 6 == 3
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    return version, _MP3_RATES[version][place], 1152 if version == 3 else 576, 4 + side


def behind_tags(data: FileBytes) -> int:
    """Where ID3v2 tags end at the start of a file."""
    offset = data.start
    while len(head := data.at(offset, 10)) == 10 and head[:3] == b"ID3":
        offset += 10 + _id3_size(head) + (10 if head[5] & 0x10 else 0)
    return offset


def _id3_size(head: bytes) -> int:
    """Bytes of an ID3v2 tag behind its first ten, which state them by seven bits a byte."""
    return head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]


def read_mp3(data: FileBytes) -> tuple[Header, int | None]:
    """MP3: the number of frames in a Xing or VBRI header, if there is one; else no length."""
    offset = behind_tags(data)
    head = data.at(offset, _MP3_SEARCHED)
    place = next((at for at in range(len(head) - 4) if head[at] == 0xFF and mp3_frame(head[at:])), None)
    if offset > data.end and data.start < data.end:
        return Header("ID3", data.start, data.end, missing=offset - data.end), None
    if place is None:
        return Header("MP3", data.start, data.end, ends_open=True), None
    found = mp3_frame(head[place:])
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


def _next_mp3(data: FileBytes, offset: int) -> int | None:
    """Where another file starts that was joined to this one: a tag, and a frame behind it."""
    while (offset := data.find(b"ID3", offset)) >= 0:
        head = data.at(offset, 10)
        if len(head) == 10 and head[3] in (2, 3, 4) and head[4] == 0 and not max(head[6:]) & 0x80:
            if mp3_frame(data.at(offset + 10 + _id3_size(head), 4)):
                return offset
        offset += 3
    return None
