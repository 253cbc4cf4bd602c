"""Which header a file has."""

import io

import numpy as np
import pytest
import soundfile

from mmsr.data.audio.containers import read_headers
from mmsr.data.audio.decoding import Audio, AudioError


@pytest.mark.parametrize("flaw", [b"", b"fmt \x02\0\0\0ab", b"fmt \x10\0\0\0" + bytes(16)])
def test_a_damaged_header_is_refused_in_a_line(flaw: bytes) -> None:
    for content in (b"RIFF\x24\0\0\0WAVE" + flaw, b"RIFF\x24\0\0\0WAVE" + flaw + b"data\4\0\0\0abcd"):
        with pytest.raises(
            AudioError, match="(?:holds no audio that can be read|has|cannot be decoded).*; accepted"
        ):
            Audio()(content)


def test_a_tag_before_another_container_is_passed_over() -> None:
    """As some programs tag FLAC and WAV as if they were MP3."""
    tag = b"ID3\4\0\0\0\0\0\x14" + b"TSSE" + bytes(16)
    for container in ("FLAC", "WAV", "OGG"):
        file = io.BytesIO()
        soundfile.write(file, np.full(1600, 0.1), 16_000, format=container)
        assert len(Audio()(tag + file.getvalue())) == 1600


def test_joined_files_have_a_header_each() -> None:
    file = io.BytesIO()
    soundfile.write(file, np.full(1600, 0.1), 16_000, format="FLAC")
    content = file.getvalue()
    headers = read_headers(io.BytesIO(2 * content))
    assert [(header.start, header.end) for header in headers] == [
        (0, len(content)),
        (len(content), 2 * len(content)),
    ]
    assert [header.container for header in read_headers(io.BytesIO(b"words"))] == ["unknown"]
