"""Audio decoding: a path, bytes, a file object or samples in, mono samples at one rate out.

    path | bytes | file object ─► soundfile, else ffmpeg ─┐
                                                          ├─► checks ─► mean of channels ─► soxr ─► [s]
    (samples, rate) ──────────────────────────────────────┘                          float32 in [-1, 1]

The format is detected from the content, never from the name. libsndfile comes first; what it does not read
(m4a, mp4, webm ...) is decoded by the program ffmpeg, if that is on PATH. Nothing heavy is imported here, so
that inference starts fast.
"""

import io
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import soundfile
import soxr

from mmsr.data.storage import is_url, read_bytes

logger = logging.getLogger(__name__)

AudioSource = str | os.PathLike[str] | bytes | BinaryIO | tuple[np.ndarray, int]

# Lossy codecs, resampling and float recorders overshoot full scale a little: such samples are clipped.
# Larger ones are a scale error, mostly integer samples that were cast to float.
_OVERSHOOT = 1.1
_SCALE_ERROR = 4.0
_CUT_OFF = 0.1  # seconds by which a whole file may be shorter than its header states

# The containers that ffmpeg may open. Playlists (hls, concat ...) are excluded: they make it read other files
# or the network.
_FFMPEG_FORMATS = "aac,ac3,amr,asf,avi,flv,matroska,mov,mpeg,mpegts"
# The formats that messages name.
_KNOWN = "wav, flac, mp3, ogg"
_KNOWN_TO_FFMPEG = "m4a, mp4, webm"

# The messages of libsndfile and ffmpeg about an unknown format, which explain nothing more.
_UNINFORMATIVE = re.compile(r"Format not recognised|not a regular file|whitelist|Invalid data found")
# The start of an MPEG layer 3 frame; no UTF-8 text contains it.
_MP3_FRAME = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")
_MP3_WITHIN = 1 << 16  # bytes


class AudioError(ValueError):
    """Audio that cannot be used; the message names the source and what is accepted.

    Args:
        message: What is wrong.
        code: The code of `mmsr data check`: `audio-missing`, `audio-empty`, `audio-truncated`,
            `audio-zero-length`, `audio-nan`, `audio-scale`, `audio-too-long`, or `audio-corrupt`.
    """

    def __init__(self, message: str, *, code: str = "audio-corrupt"):
        super().__init__(message)
        self.code = code


class AudioNote(NamedTuple):
    """What is told of a source that is read nevertheless: the code of `mmsr data check`, and words."""

    code: str
    message: str


@dataclass(frozen=True)
class Decoded:
    """A decoded source: samples `[s]` float32 mono, their rate in Hz, and what is told of them."""

    samples: np.ndarray
    sampling_rate: int
    notes: tuple[AudioNote, ...] = ()


class Audio:
    """Reads audio as mono samples at one rate.

    A source is a path, a URL, bytes, a binary file object (read from its position), or samples with their
    rate. Any rate, any number of channels (averaged) and any format of libsndfile are accepted, and the first
    audio stream of a format that needs ffmpeg (m4a, mp4, webm ...). Samples are `[s]`, `[channels, s]` or
    `[s, channels]` (the shorter axis is the channels), floats in [-1, 1] or integers, which are divided by
    their full scale. The level is not normalised, since loudness carries sentiment.

    Args:
        sampling_rate: Output rate in Hz.
    """

    def __init__(self, sampling_rate: int | None = 16000):
        if sampling_rate is not None and sampling_rate < 1:
            raise AudioError(f"sampling_rate is {sampling_rate}; accepted: a positive number of Hz")
        self.sampling_rate = sampling_rate
        self._warned = False

    def __call__(self, source: AudioSource) -> np.ndarray:
        """The samples of `decode`."""
        return self.decode(source).samples

    def decode(self, source: AudioSource) -> Decoded:
        """Decode, mix to mono and resample one source.

        Returns:
            `[s]` float32 in [-1, 1] at `sampling_rate`.

        Raises:
            AudioError: The file is missing, unreadable, damaged or cut off, or its samples are none, NaN,
                infinite or wrongly scaled.
        """
        name = _name(source)
        if isinstance(source, tuple):
            samples, rate = _from_array(source, name)
        else:
            with _open(source, name) as file:
                samples, rate = _read(file, -1, name), file.samplerate
                _check_whole(file, len(samples), name)
        _check_samples(samples, name)
        mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
        if self.sampling_rate is not None and rate != self.sampling_rate:
            mono = soxr.resample(mono, rate, self.sampling_rate, quality="HQ")
            if not len(mono):
                raise AudioError(
                    f"{name}: has {len(samples)} samples at {rate} Hz;"
                    f" accepted: enough for one sample at {self.sampling_rate} Hz"
                )
        mono = self._clip(np.ascontiguousarray(mono, dtype=np.float32), name)
        return Decoded(mono, rate if self.sampling_rate is None else self.sampling_rate)

    def blocks(self, source: AudioSource, *, seconds: float = 30.0) -> Iterator[np.ndarray]:
        """Decode a source block by block, in memory that does not grow with its length.

        A source that needs ffmpeg is decoded to a temporary file first.

        Args:
            source: As in a call.
            seconds: Length of a decoded block.

        Yields:
            `[s]` float32 in [-1, 1] at `sampling_rate`, block after block.

        Raises:
            AudioError: As in a call, when the damaged block is reached.
        """
        if isinstance(source, tuple):
            yield self(source)
            return
        name, read, count = _name(source), 0, 0
        with _open(source, name) as file:
            stream = None
            if self.sampling_rate is not None and file.samplerate != self.sampling_rate:
                stream = soxr.ResampleStream(file.samplerate, self.sampling_rate, 1, dtype="float32")
            more = True
            while more:
                samples = _read(file, max(1, round(seconds * file.samplerate)), name)
                read, more = read + len(samples), len(samples) > 0
                if more:
                    _check_samples(samples, name)
                else:
                    _check_whole(file, read, name)
                mono = np.ascontiguousarray(samples.mean(axis=1), dtype=np.float32)
                if stream is not None:
                    mono = stream.resample_chunk(mono, last=not more)
                if len(mono):
                    count += len(mono)
                    yield self._clip(mono, name)
        if not count:
            raise AudioError(f"{name}: has length zero; accepted: at least one sample")

    @staticmethod
    def duration(source: AudioSource) -> float:
        """Length of a source in seconds, from its header.

        Of the formats that need ffmpeg, only mp4, m4a and mov state it; others (webm, aac ...) are decoded.

        Raises:
            AudioError: The file is missing or unreadable.
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
        if peak > _OVERSHOOT and not self._warned:
            self._warned = True
            logger.warning(
                "%s: peak %.2f is clipped to 1; so is any later file beyond full scale", name, peak
            )
        return mono if peak <= 1 else np.clip(mono, -1, 1)


def _name(source: AudioSource) -> str:
    """The source's name in messages."""
    if isinstance(source, tuple):
        return "samples"
    if isinstance(source, bytes):
        return f"{len(source)} bytes of audio"
    if isinstance(source, (str, os.PathLike)):
        # a name that is not UTF-8 cannot be printed or written to a report
        return os.fspath(source).encode(errors="backslashreplace").decode()
    if hasattr(source, "read"):
        return str(getattr(source, "name", "audio file object"))
    raise AudioError(
        f"a {type(source).__name__} is no audio source;"
        " accepted: a path, bytes, a binary file object, or (samples, rate)"
    )


def _open(source: str | os.PathLike[str] | bytes | BinaryIO, name: str) -> soundfile.SoundFile:
    """Open a source with libsndfile, or what ffmpeg decodes of it."""
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
            # as bytes: the name need not be UTF-8
            return soundfile.SoundFile(os.fsencode(file) if isinstance(file, str) and os.sep == "/" else file)
        except (OSError, RuntimeError, TypeError, ValueError) as error:  # TypeError: headerless .raw
            reason = getattr(error, "error_string", str(error))  # without the source's name
    with _as_path(file, start) as path:
        return soundfile.SoundFile(_ffmpeg(path, name, reason))


def _only_named_mp3(file: str | BinaryIO) -> bool:
    """Whether libsndfile would take a file for an mp3 by its name alone, and print warnings."""
    if not isinstance(file, str) or not file.lower().endswith(".mp3"):
        return False
    with open(file, "rb") as opened:
        if _MP3_FRAME.search(opened.read(_MP3_WITHIN)):
            return False
        opened.seek(0)
        try:
            soundfile.SoundFile(opened).close()  # detected by content, as no name is passed
        except (OSError, RuntimeError):
            return True
    return False


def _bytes_cut_off(file: str | BinaryIO, start: int) -> int:
    """How many bytes of a wav file are missing. libsndfile reads a cut file without an error."""
    if isinstance(file, str):
        with open(file, "rb") as opened:
            return _bytes_cut_off(opened, 0)
    header = file.read(12)
    length = file.seek(0, os.SEEK_END) - start
    file.seek(start)
    if header[:4] != b"RIFF" or header[8:12] != b"WAVE":
        return 0
    size = int.from_bytes(header[4:8], "little") + 8
    # Written to a pipe, the size is 0 or the largest possible. Up to 8 bytes more are wrong counts of some
    # programs, which include a pad byte or the RIFF header.
    return size - length if 8 < size < 0x7FFF0000 and size - length > 8 else 0


@contextmanager
def _as_path(file: str | BinaryIO, start: int) -> Iterator[str]:
    """A path of the audio; a file object is copied to a temporary file, since ffmpeg must seek."""
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
    """A file's first audio stream as a temporary AU file of float32, with its rate and channels.

    AU, because its header may leave the length open, as a pipe requires; a file, because hours of audio do
    not fit into memory. `reason` is why libsndfile does not read it.
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
    told = re.sub(r"\[[^]]* @ 0x[0-9a-f]+\] ", "", told)  # ffmpeg's component and its address
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
    """Why programs do not read a file, in brackets."""
    reasons = [
        f"{program}: {text.rstrip('.')}"
        for program, text in told.items()
        if text and not _UNINFORMATIVE.search(text)
    ]
    return f" ({'; '.join(reasons)})" if reasons else ""


def _mp4_seconds(path: str | os.PathLike[str]) -> float | None:
    """Length of the first audio stream of an mp4, m4a or mov file, else None.

    Other containers state no length, that of the video, or a guess from the bit rate.
    """
    try:
        with open(path, "rb") as file:
            mp4 = file.read(8)[4:] == b"ftyp"
    except OSError:
        return None  # _open raises the error
    if not mp4 or (program := shutil.which("ffprobe")) is None:
        return None
    options = ["-v", "error", "-protocol_whitelist", "file", "-format_whitelist", "mov", "-of", "json"]
    options += ["-select_streams", "a:0", "-show_entries", "stream=duration", f"file:{os.fspath(path)}"]
    done = subprocess.run([program, *options], capture_output=True, stdin=subprocess.DEVNULL)
    streams = json.loads(done.stdout).get("streams") if not done.returncode else None
    return float(streams[0]["duration"]) if streams and "duration" in streams[0] else None


def _read(file: soundfile.SoundFile, frames: int, name: str) -> np.ndarray:
    """The next samples `[s, channels]`, or all the rest with -1."""
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
    if samples.dtype.kind in "iu":
        samples = samples / 2.0 ** (8 * samples.dtype.itemsize - 1) - (samples.dtype.kind == "u")
    elif samples.dtype.kind != "f":
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
