"""Audio files that tests make: in any container that PyAV writes, and by the byte."""

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

Encode = Callable[..., bytes]


class _Pipe(io.RawIOBase):
    """Keeps what is written, and cannot go back."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.content += bytes(data)
        return len(data)


def _encode(
    container: str,
    codec: str,
    samples: np.ndarray,
    rate: int = 16_000,
    *,
    piped: bool = False,
    start: float = 0.0,
    film: float = 0.0,
    bit_rate: int = 0,
    **options: str,
) -> bytes:
    """Samples `[s]` or `[channels, s]` as a file, which may hold a film of some seconds, and start late."""
    samples = np.atleast_2d(samples).astype(np.float32)
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
    sink: Any = _Pipe() if piped else io.BytesIO()
    with av.open(sink, "w", format=container, container_options=options) as out:
        pictures = out.add_stream("mpeg4", rate=5, width=16, height=16, pix_fmt="yuv420p") if film else None
        sound = out.add_stream(codec, rate=rate, layout=layout) if samples.size else None
        for place in range(round(film * 5)):
            picture = av.VideoFrame(16, 16, "yuv420p")
            picture.pts, picture.time_base = place, Fraction(1, 5)
            out.mux(pictures.encode(picture))
        if sound and bit_rate:
            sound.bit_rate = bit_rate
        if pictures:
            out.mux(pictures.encode(None))
        if sound:
            resampler = av.AudioResampler(sound.codec_context.codec.audio_formats[0].name, layout, rate)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, 0
            for converted in [*resampler.resample(frame), *resampler.resample(None)]:
                converted.pts = None if converted.pts is None else converted.pts + round(start * rate)
                out.mux(sound.encode(converted))
            out.mux(sound.encode(None))
    return bytes(sink.content) if piped else sink.getvalue()


@pytest.fixture(scope="session")
def encode() -> Encode:
    """Makes an audio file of samples: container, codec, samples, rate -> bytes."""
    return _encode


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[bytes], Path]:
    """Writes bytes to a file."""

    def save(content: bytes) -> Path:
        path = tmp_path / "audio"
        path.write_bytes(content)
        return path

    return save
