"""What is wrong in single audio files, decoded side by side in threads.

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
_FULL_SCALE, _CLIPPED = 0.99, 1e-3  # where a sample is at its end, and which share of them may be
# The code of an `AudioError`, by words of its message; any other is damage.
_WORDS = {
    "before the": "audio-truncated",
    "before its header": "audio-truncated",
    "has length zero": "audio-zero-length",
    "NaN or infinite": "audio-nan",
    "far beyond full scale": "audio-scale",
}


@dataclass(frozen=True)
class AudioFile:
    """What is known of one file.

    Attributes:
        name: The file as a message names it.
        seconds: Its length, None where it cannot be decoded.
        digest: SHA-256 of its bytes, None where it cannot be read.
        issues: Code and problem of what is wrong.
    """

    name: str
    seconds: float | None = None
    digest: str | None = None
    issues: tuple[tuple[str, str], ...] = ()


def examine_audio(
    references: Sequence[str], folder: str, *, progress: Progress | None = None
) -> dict[str, AudioFile]:
    """Decode audio files and find what is wrong in each.

    Args:
        references: Absolute paths, URLs or archive members, each once.
        folder: The manifest's folder, to which names are relative.
        progress: Called with "audio", the files done and all files.
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
    """Audio as its manifest most likely names it: relative to the folder, where it is in there."""
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
        problem = str(error).partition(": ")[2]  # it calls bytes by their number
        code = next((code for words, code in _WORDS.items() if words in problem), "audio-corrupt")
        return AudioFile(name, digest=digest, issues=((code, problem),))
    return AudioFile(name, len(samples) / rate, digest, tuple(hear(samples)))


def _rate(content: bytes) -> int:
    """A file's own rate, at which nothing is resampled; 16 kHz where `Audio` has other means to read it."""
    try:
        return int(soundfile.info(io.BytesIO(content)).samplerate)
    except (RuntimeError, TypeError):
        return 16_000


def hear(samples: np.ndarray) -> Iterator[tuple[str, str]]:
    """Code and problem of each issue of samples `[s]`: silence and clipping."""
    peak = float(np.abs(samples - samples.mean()).max())  # a constant is no sound
    if peak < _SILENT:
        level = f"{20 * np.log10(peak):.0f} dB" if peak else "nothing"
        yield "audio-silent", f"is silent (peak: {level}); accepted: a peak above -60 dB of full scale"
    share = float((np.abs(samples) >= _FULL_SCALE).mean())
    if share > _CLIPPED:
        problem = f"is clipped ({share:.1%} of its samples at full scale); accepted: at most {_CLIPPED:.1%}"
        yield "audio-clipped", problem
