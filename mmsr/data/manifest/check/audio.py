"""Checks of audio files, decoded in threads.

reference ─► bytes ─┬─► SHA-256
                    └─► Audio, at the file's own rate ─► samples [s] ─► silent, clipped
"""

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import soundfile

from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.data.storage import is_url, missing, read_bytes
from mmsr.records import Progress

_SILENT = 1e-3  # -60 dB of full scale; quiet speech peaks at -45
_FULL_SCALE, _CLIPPED = 0.99, 1e-3  # level of a clipped sample, and the accepted share of them
# The code of an `AudioError` by words of its message; others are `audio-corrupt`.
_WORDS = {
    "before the": "audio-truncated",
    "before its header": "audio-truncated",
    "has length zero": "audio-zero-length",
    "NaN or infinite": "audio-nan",
    "far beyond full scale": "audio-scale",
}


@dataclass(frozen=True)
class AudioFile:
    """An examined audio file.

    Attributes:
        name: The file's name in messages.
        seconds: Length, None if it cannot be decoded.
        digest: SHA-256 of the bytes, None if they cannot be read.
        issues: Code and problem of each issue.
    """

    name: str
    seconds: float | None = None
    digest: str | None = None
    issues: tuple[tuple[str, str], ...] = ()


def examine_audio(
    references: Sequence[str], folder: str, *, progress: Progress | None = None
) -> dict[str, AudioFile]:
    """Decode audio files and find their issues.

    Args:
        references: Absolute paths, URLs or archive members, each once.
        folder: The manifest's folder, to which names are relative.
        progress: Called with "audio", files done and their number.
    """
    files = {}
    with ThreadPoolExecutor() as pool:
        examined = pool.map(lambda reference: _examine(reference, short_name(reference, folder)), references)
        for done, (reference, file) in enumerate(zip(references, examined, strict=True), start=1):
            files[reference] = file
            if progress is not None:
                progress("audio", done, len(references))
    return files


def short_name(reference: str, folder: str) -> str:
    """A reference relative to the manifest's folder, if it is in there."""
    if is_url(reference):
        return reference
    relative = os.path.relpath(reference, folder)
    return reference if relative.startswith("..") else relative


def _examine(reference: str, name: str) -> AudioFile:
    if problem := missing(reference):
        accepted = "a path relative to the manifest's folder"
        return AudioFile(name, issues=(("audio-missing", f"{problem}; accepted: {accepted}"),))
    try:
        content = read_bytes(reference)
    except (OSError, ValueError, ImportError, KeyError) as error:
        problem = f"cannot be read ({error}); accepted: audio that can be reached"
        return AudioFile(name, issues=(("audio-missing", problem),))
    if not content:
        problem = "is empty (0 bytes); accepted: at least one sample"
        return AudioFile(name, issues=(("audio-empty", problem),))
    digest = hashlib.sha256(content).hexdigest()
    rate = _rate(content)
    try:
        samples = Audio(rate)(content)
    except AudioError as error:
        problem = str(error).partition(": ")[2]  # without the source's name
        code = next((code for words, code in _WORDS.items() if words in problem), "audio-corrupt")
        return AudioFile(name, digest=digest, issues=((code, problem),))
    return AudioFile(name, len(samples) / rate, digest, tuple(sample_issues(samples)))


def _rate(content: bytes) -> int:
    """A file's own rate, to avoid resampling; 16 kHz if libsndfile cannot read it."""
    try:
        return int(soundfile.info(io.BytesIO(content)).samplerate)
    except (RuntimeError, TypeError):
        return 16_000


def sample_issues(samples: np.ndarray) -> Iterator[tuple[str, str]]:
    """Code and problem of silence and clipping in samples `[s]`."""
    peak = float(np.abs(samples - samples.mean()).max())  # a constant is silent
    if peak < _SILENT:
        level = f"{20 * np.log10(peak):.0f} dB" if peak else "nothing"
        yield "audio-silent", f"is silent (peak: {level}); accepted: a peak above -60 dB of full scale"
    share = float((np.abs(samples) >= _FULL_SCALE).mean())
    if share > _CLIPPED:
        problem = f"is clipped ({share:.1%} of its samples at full scale); accepted: at most {_CLIPPED:.1%}"
        yield "audio-clipped", problem
