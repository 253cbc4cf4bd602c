"""A part of a file as a file."""

import io
from pathlib import Path

import pytest

from mmsr.data.audio.headers import Part


def test_a_part_is_a_file_of_its_own(tmp_path: Path) -> None:
    file = io.BytesIO(b"0123456789")
    part = Part(file, 2, 6, b"ab")
    assert part.read() == b"ab2345" and part.read() == b""
    assert part.seek(-3, 2) == 3 and part.read(2) == b"34"
    assert part.seek(1) == 1 and part.read(2) == b"b2" and part.tell() == 3
    with pytest.raises(OSError):
        part.seek(-1)
