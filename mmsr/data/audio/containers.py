"""What containers state about their length, and whether it is there.

    file ─► kind by its first bytes ─► sizes that it states, against the bytes that are there ─► `Header`

Decoding libraries hide this: a file that was cut off is read without an error, and samples behind a header
that was never finished are not read. Whoever decodes gets the part of the file that holds the samples, behind
a header that states the right size.
"""

import os
import struct
from typing import BinaryIO

from mmsr.data.audio.flac import read_flac
from mmsr.data.audio.headers import FileBytes, Header, Read
from mmsr.data.audio.muxed import (
    ASF,
    MP4_BOXES,
    behind_tags,
    mp3_frame,
    read_asf,
    read_avi,
    read_flv,
    read_matroska,
    read_mp3,
    read_mp4,
    read_ogg,
)
from mmsr.data.audio.pcm import W64_RIFF, read_aiff, read_au, read_caf, read_riff, read_sphere, read_w64


def read_headers(file: BinaryIO) -> list[Header]:
    """The containers of a file: one, or several if files were joined.

    Args:
        file: A file that can seek; it is read from its start.
    """
    start, end = 0, file.seek(0, os.SEEK_END)
    headers: list[Header] = []
    while True:
        data = FileBytes(file, start, end)
        tagged = behind_tags(data)  # some tag other files as if they were MP3
        if tagged > start and data.at(tagged, 4) in (b"fLaC", b"OggS", b"RIFF", b"FORM"):
            data = FileBytes(file, tagged, end)
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


def _reader(data: FileBytes) -> Read | None:
    """What reads the header of a container, by its first bytes."""
    head = data.at(data.start, 64)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return read_avi
    for magic, read in _READERS.items():
        if head.startswith(magic):
            return read
    if head[4:8] in MP4_BOXES:
        return read_mp4
    if head[:3] == b"ID3" or mp3_frame(head):
        return read_mp3
    return None


_READERS: dict[bytes, Read] = {
    b"RIFF": read_riff,
    b"RIFX": read_riff,
    b"RF64": read_riff,
    b"BW64": read_riff,
    W64_RIFF: read_w64,
    b"FORM": read_aiff,
    b".snd": read_au,
    b"dns.": read_au,
    b"caff\0\1": read_caf,
    b"NIST_1A": read_sphere,
    b"fLaC": read_flac,
    b"OggS": read_ogg,
    b"\x1aE\xdf\xa3": read_matroska,
    ASF: read_asf,
    b"FLV\1": read_flv,
}
