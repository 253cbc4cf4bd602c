"""What a container's header states, and the part of a file that it describes."""

import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

# Written to a pipe, a size is 0 or nearly the largest possible, which is that of 31 or of 32 bits.
ENDLESS = 0x7FFF0000
# Wrong counts of some programs, which include a pad byte or the header.
SLACK = 8  # bytes
CHUNK_NAME = re.compile(rb"[ -~]{4}")  # of RIFF, AIFF, CAF and MP4
TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")  # between or behind samples and frames
_HEAD = 1 << 12  # bytes that are read at once


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
        samples: Samples of a channel without what fills the last packet, None if unknown.
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
    samples: int | None = None
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


class FileBytes:
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


# Reads the header at the start of some bytes: what it states, and where a file that was joined follows.
Read = Callable[[FileBytes], tuple[Header, int | None]]
