"""The one door for audio: a path, bytes, a file object or samples go in, 16 kHz mono comes out.

    path | bytes | file object ─► soundfile, else ffmpeg ─┐
                                                          ├─► checks ─► mean of channels ─► soxr ─► [s]
    (samples, rate) ──────────────────────────────────────┘                          float32 in [-1, 1]

What a source holds is told by its content, never by its name. libsndfile comes first; what it does not know
(m4a, mp4, webm ...) goes through the program ffmpeg, where that is on PATH.

Beside numpy, soundfile and soxr nothing is imported before a URL asks for it, so that inference needs
nothing else to hear a file.
"""

import contextlib
import io
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import numpy as np
import soundfile
import soxr

from mmsr.data.storage import is_url, read_bytes

logger = logging.getLogger(__name__)

AudioSource = str | os.PathLike[str] | bytes | BinaryIO | tuple[np.ndarray, int]

# Lossy codecs, resampling and recorders that write float overshoot full scale a little, and are clipped.
# What lies further out is a scale error, mostly integer samples that were cast to float.
_OVERSHOOT = 1.1
_SCALE_ERROR = 4.0
# A header may round; a file that ends this many seconds before its header says was cut off.
_CUT_OFF = 0.1

# The containers that ffmpeg may open, by its names for them. Playlists (hls, concat ...) are not among them:
# such a file would make it read other files, or the network.
_FFMPEG_FORMATS = "aac,ac3,amr,asf,avi,flv,matroska,mov,mpeg,mpegts"
# What a message names of the formats; whoever has another of the thirty knows that it is one.
_KNOWN = "wav, flac, mp3, ogg"
_KNOWN_TO_FFMPEG = "m4a, mp4, webm"

# What libsndfile and ffmpeg say of a file that they do not know: it tells nobody more than that.
_SAYS_NOTHING = re.compile(r"Format not recognised|not a regular file|whitelist|Invalid data found")
# An MPEG frame of layer 3 begins so; nothing in UTF-8 does.
_MP3_FRAME = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")
_MP3_WITHIN = 1 << 16  # bytes


class AudioError(ValueError):
    """Audio that cannot be used; the message is one line that names the source and what is accepted."""


class Audio:
    """Reads audio from anywhere as mono samples of one rate.

    Accepted is any rate, any number of channels (their mean is taken) and any format that libsndfile reads,
    or the first audio stream of one that needs ffmpeg (m4a, mp4, webm ...; the program has to be on PATH),
    as a path, bytes, a binary file object (read from where it stands), or samples with their rate. Samples
    are `[s]`, `[channels, s]` or `[s, channels]` (the shorter axis is the channels), floats in [-1, 1] or
    integers, which are divided by their full scale. The level is left as it is: loudness is evidence.

    Args:
        sampling_rate: Rate of what comes out, in Hz.
    """

    def __init__(self, sampling_rate: int = 16000):
        if sampling_rate < 1:
            raise AudioError(f"sampling_rate is {sampling_rate}; accepted: a positive number of Hz")
        self.sampling_rate = sampling_rate
        self._told_of_clipping = False

    def __call__(self, source: AudioSource) -> np.ndarray:
        """Decode, mix to mono and resample one source.

        Returns:
            `[s]` float32 in [-1, 1] at `sampling_rate`.

        Raises:
            AudioError: The file is missing, holds no audio that libsndfile or ffmpeg reads, is damaged or
                ends before its header says, has no samples, or has NaN, infinite or wrongly scaled samples.
        """
        name = _name(source)
        samples, rate = _from_array(source, name) if isinstance(source, tuple) else _decode(source, name)
        _check_samples(samples, name)
        mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
        if rate != self.sampling_rate:
            mono = soxr.resample(mono, rate, self.sampling_rate, quality="HQ")
            if not len(mono):
                raise AudioError(
                    f"{name}: has {len(samples)} samples at {rate} Hz;"
                    f" accepted: enough for one sample at {self.sampling_rate} Hz"
                )
        return self._clip(np.ascontiguousarray(mono, dtype=np.float32), name)

    def blocks(self, source: AudioSource, *, seconds: float = 30.0) -> Iterator[np.ndarray]:
        """Decode a source of any length piece by piece, in memory that does not grow with it.

        What needs ffmpeg is decoded to a temporary file first.

        Args:
            source: As in a call.
            seconds: Length of what is decoded at a time.

        Yields:
            `[s]` float32 in [-1, 1] at `sampling_rate`, piece after piece.

        Raises:
            AudioError: As in a call, once the damage is reached.
        """
        name, count = _name(source), 0
        pieces, rate = _pieces(source, name, seconds)
        stream = None
        if rate != self.sampling_rate:
            stream = soxr.ResampleStream(rate, self.sampling_rate, 1, dtype="float32", quality="HQ")
        with contextlib.closing(pieces):
            for samples in pieces:
                if len(samples):
                    _check_samples(samples, name)
                mono = np.ascontiguousarray(samples.mean(axis=1), dtype=np.float32)
                if stream is not None:
                    mono = stream.resample_chunk(mono, last=not len(samples))  # the last piece is empty
                if len(mono):
                    count += len(mono)
                    yield self._clip(mono, name)
        if not count:
            raise AudioError(f"{name}: has length zero; accepted: at least one sample")

    @staticmethod
    def duration(source: AudioSource) -> float:
        """Length of a source in seconds, from its header, without decoding it.

        Of what ffmpeg reads, mp4 and its like have such a header; others (webm, aac ...) are decoded.

        Raises:
            AudioError: The file is missing or holds no audio that libsndfile or ffmpeg reads.
        """
        name = _name(source)
        if isinstance(source, tuple):
            samples, rate = _from_array(source, name)
            return len(samples) / rate
        if isinstance(source, (str, os.PathLike)) and (seconds := _mp4_seconds(source)) is not None:
            return seconds
        with _open(source, name) as file:
            return file.frames / file.samplerate

    def _clip(self, mono: np.ndarray, name: str) -> np.ndarray:
        peak = float(np.abs(mono).max())
        if peak > _OVERSHOOT and not self._told_of_clipping:
            self._told_of_clipping = True
            logger.warning(
                "%s: peak %.2f is clipped to 1; so is any later file beyond full scale", name, peak
            )
        return mono if peak <= 1 else np.clip(mono, -1, 1)


def _name(source: AudioSource) -> str:
    """How a message calls the source."""
    if isinstance(source, tuple):
        return "samples"
    if isinstance(source, bytes):
        return f"{len(source)} bytes of audio"
    if isinstance(source, (str, os.PathLike)):
        # a name that is not UTF-8 has characters that no terminal, page or report takes
        return os.fspath(source).encode(errors="backslashreplace").decode()
    if hasattr(source, "read"):
        return str(getattr(source, "name", "audio file object"))
    raise AudioError(
        f"a {type(source).__name__} is no audio source;"
        " accepted: a path, bytes, a binary file object, or (samples, rate)"
    )


def _open(source: str | os.PathLike[str] | bytes | BinaryIO, name: str) -> soundfile.SoundFile:
    """Open a source with libsndfile, its header read; where that cannot, what ffmpeg makes of it."""
    file: str | BinaryIO
    if isinstance(source, str) and is_url(source):
        try:
            source = read_bytes(source)
        except (OSError, ValueError, ImportError, KeyError) as error:
            accepted = "a URL that can be reached, of a kind that fsspec knows"
            raise AudioError(f"{name}: cannot be read ({error}); accepted: {accepted}") from error
    if isinstance(source, (str, os.PathLike)):
        if not os.path.isfile(source):
            state = "is a folder" if os.path.isdir(source) else "does not exist"
            raise AudioError(f"{name}: {state}; accepted: a path to an audio file")
        if not os.path.getsize(source):
            raise AudioError(f"{name}: is empty (0 bytes); accepted: at least one sample")
        file = os.fspath(source)
    elif isinstance(source, bytes):
        if not source:
            raise AudioError(f"{name}: nothing to read; accepted: an audio file's bytes")
        file = io.BytesIO(source)
    else:
        file = source if source.seekable() else io.BytesIO(source.read())
    start = 0 if isinstance(file, str) else file.tell()
    if cut := _bytes_cut_off(file, start):
        raise AudioError(f"{name}: ends {cut:,} bytes before its header says; accepted: a whole audio file")
    reason = ""
    if not _only_named_mp3(file):
        try:
            # Soundfile takes the name for UTF-8, the system for bytes.
            return soundfile.SoundFile(os.fsencode(file) if isinstance(file, str) and os.sep == "/" else file)
        except (OSError, RuntimeError, TypeError, ValueError) as error:  # TypeError: headerless .raw
            # libsndfile repeats the source in front of what it has to say.
            reason = getattr(error, "error_string", str(error))
    with _as_path(file, start) as path:
        return soundfile.SoundFile(_ffmpeg(path, name, reason))


def _only_named_mp3(file: str | BinaryIO) -> bool:
    """Whether libsndfile would take a file for an mp3 by its name alone, and complain on the terminal."""
    if not isinstance(file, str) or not file.lower().endswith(".mp3"):
        return False
    with open(file, "rb") as opened:
        if _MP3_FRAME.search(opened.read(_MP3_WITHIN)):
            return False
        opened.seek(0)
        try:
            soundfile.SoundFile(opened).close()  # which has no name: the content tells
        except (OSError, RuntimeError):
            return True
    return False


def _bytes_cut_off(file: str | BinaryIO, start: int) -> int:
    """How many bytes a wav file lacks. libsndfile takes what is left of it for the whole."""
    if isinstance(file, str):
        with open(file, "rb") as opened:
            return _bytes_cut_off(opened, 0)
    header = file.read(12)
    length = file.seek(0, os.SEEK_END) - start
    file.seek(start)
    if header[:4] != b"RIFF" or header[8:12] != b"WAVE":
        return 0
    size = int.from_bytes(header[4:8], "little") + 8
    # Who writes to a pipe cannot go back and fill in the size: it is 0 or as large as can be.
    # Some count a missing pad byte, or the whole file for what follows the first 8 bytes.
    return size - length if 8 < size < 0x7FFF0000 and size - length > 8 else 0


@contextmanager
def _as_path(file: str | BinaryIO, start: int) -> Iterator[str]:
    """A path for a program that seeks, as mp4 wants it: a file object's rest goes to a temporary file."""
    if isinstance(file, str):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="mmsr-audio-") as folder:
        file.seek(start)
        path = os.path.join(folder, "audio")
        with open(path, "wb") as copy:
            shutil.copyfileobj(file, copy)
        yield path


def _ffmpeg(path: str, name: str, reason: str) -> BinaryIO:
    """A file's first audio stream as a temporary AU file of float32, its rate and channels kept.

    AU, because its header may leave the length open, which a pipe cannot go back to fill in. A file, because
    hours of audio do not fit into memory.

    Args:
        path: The file.
        name: How messages call it.
        reason: Why libsndfile does not read it, empty where it was not asked.
    """
    if (program := shutil.which("ffmpeg")) is None:
        raise AudioError(
            f"{name}: holds no audio that can be read{_reasons(libsndfile=reason)};"
            f" accepted: {_KNOWN} and the like; convert others ({_KNOWN_TO_FFMPEG}),"
            " for example: ffmpeg -i FILE FILE.wav; or install ffmpeg on PATH, and they are read as they are"
        )
    options = ["-nostdin", "-v", "error", "-xerror", "-protocol_whitelist", "file"]
    options += ["-format_whitelist", _FFMPEG_FORMATS, "-i", f"file:{path}", "-map", "0:a:0"]
    options += ["-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    decoded = cast(BinaryIO, tempfile.TemporaryFile(prefix="mmsr-audio-"))
    done = subprocess.run([program, *options], stdout=decoded, stderr=subprocess.PIPE)
    length = decoded.seek(0, os.SEEK_END)
    decoded.seek(0)
    if not done.returncode and not done.stderr:
        return decoded
    decoded.close()
    told = os.fsdecode(done.stderr).strip().replace(f"file:{path}: ", "")
    told = re.sub(r"\[[^]]* @ 0x[0-9a-f]+\] ", "", told)  # which part of ffmpeg says it, and where that lies
    if "matches no streams" in told:
        raise AudioError(f"{name}: has no audio stream (a video without sound?); accepted: one at least")
    lines = told.splitlines() or [f"exit code {done.returncode}"]
    if length:
        raise AudioError(
            f"{name}: cannot be decoded whole (ffmpeg: {'; '.join(lines[:2])}); accepted: a whole audio file;"
            " if it sounds right nevertheless, convert it: ffmpeg -i FILE FILE.wav"
        )
    raise AudioError(
        f"{name}: holds no audio that can be read{_reasons(libsndfile=reason, ffmpeg=lines[0])};"
        f" accepted: {_KNOWN}, {_KNOWN_TO_FFMPEG} and the like"
    )


def _reasons(**told: str) -> str:
    """Why programs do not read a file, in brackets, where they say more than that they do not know it."""
    reasons = [
        f"{program}: {text.rstrip('.')}"
        for program, text in told.items()
        if text and not _SAYS_NOTHING.search(text)
    ]
    return f" ({'; '.join(reasons)})" if reasons else ""


def _mp4_seconds(path: str | os.PathLike[str]) -> float | None:
    """Length of the first audio stream of an mp4, m4a or mov file, None where the file is another, or unsure.

    Other containers state no length, or that of the video, or one guessed from the bit rate.
    """
    try:
        with open(path, "rb") as file:
            mp4 = file.read(8)[4:] == b"ftyp"
    except OSError:
        return None  # _open tells what is wrong with it
    if not mp4 or (program := shutil.which("ffprobe")) is None:
        return None
    options = ["-v", "error", "-protocol_whitelist", "file", "-format_whitelist", "mov", "-of", "json"]
    options += ["-select_streams", "a:0", "-show_entries", "stream=duration", f"file:{os.fspath(path)}"]
    done = subprocess.run([program, *options], capture_output=True, stdin=subprocess.DEVNULL)
    streams = json.loads(done.stdout).get("streams") if not done.returncode else None
    return float(streams[0]["duration"]) if streams and "duration" in streams[0] else None


def _decode(source: str | os.PathLike[str] | bytes | BinaryIO, name: str) -> tuple[np.ndarray, int]:
    """Samples `[s, channels]` float32 and their rate."""
    with _open(source, name) as file:
        samples = _read(file, -1, name)
        _check_whole(file, len(samples), name)
        return samples, file.samplerate


def _pieces(source: AudioSource, name: str, seconds: float) -> tuple[Generator[np.ndarray, None, None], int]:
    """Samples `[s, channels]` float32 piece by piece, an empty one at the end, and their rate."""
    if isinstance(source, tuple):
        samples, rate = _from_array(source, name)
        return (piece for piece in (samples, samples[:0])), rate
    file = _open(source, name)

    def read() -> Generator[np.ndarray, None, None]:
        with file:
            count, samples = 0, None
            while samples is None or len(samples):
                samples = _read(file, max(1, round(seconds * file.samplerate)), name)
                count += len(samples)
                if not len(samples):
                    _check_whole(file, count, name)
                yield samples

    return read(), file.samplerate


def _read(file: soundfile.SoundFile, frames: int, name: str) -> np.ndarray:
    """The next samples `[s, channels]`, all that are left with -1."""
    try:
        return file.read(frames, dtype="float32", always_2d=True)
    except RuntimeError as error:
        raise AudioError(f"{name}: cannot be decoded ({error}); accepted: a whole audio file") from error


def _check_whole(file: soundfile.SoundFile, frames: int, name: str) -> None:
    missing = (file.frames - frames) / file.samplerate
    if missing > _CUT_OFF:
        raise AudioError(
            f"{name}: ends {missing:.2f} s before the {file.frames / file.samplerate:.2f} s"
            " of its header; accepted: a whole audio file"
        )


def _from_array(source: tuple[np.ndarray, int], name: str) -> tuple[np.ndarray, int]:
    """Samples `[s, channels]` float32 and their rate."""
    if len(source) != 2 or not isinstance(source[1], (int, np.integer)) or source[1] < 1:
        raise AudioError(f"{name}: rate is missing or no positive integer; accepted: (samples, rate in Hz)")
    samples, rate = np.asarray(source[0]), int(source[1])
    if samples.ndim not in (1, 2):
        raise AudioError(f"{name}: have shape {samples.shape}; accepted: [s], [channels, s] or [s, channels]")
    if np.issubdtype(samples.dtype, np.unsignedinteger):
        half = 2.0 ** (8 * samples.dtype.itemsize - 1)
        samples = (samples - half) / half
    elif np.issubdtype(samples.dtype, np.signedinteger):
        samples = samples / 2.0 ** (8 * samples.dtype.itemsize - 1)
    elif not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(f"{name}: have type {samples.dtype}; accepted: floats in [-1, 1], or integers")
    if samples.ndim == 1:
        samples = samples[:, None]
    elif samples.shape[0] < samples.shape[1]:
        samples = samples.T
    return samples.astype(np.float32), rate


def _check_samples(samples: np.ndarray, name: str) -> None:
    if not samples.size:
        raise AudioError(f"{name}: has length zero; accepted: at least one sample")
    finite = np.isfinite(samples)
    if not finite.all():
        count = int(samples.size - finite.sum())
        raise AudioError(
            f"{name}: {count} of {samples.size} samples are NaN or infinite; accepted: finite samples"
        )
    peak = float(np.abs(samples).max())
    if peak > _SCALE_ERROR:
        raise AudioError(
            f"{name}: peak {peak:.6g} is far beyond full scale;"
            " accepted: floats in [-1, 1], or samples of an integer type"
        )
