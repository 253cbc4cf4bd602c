"""Audio decoding: a path, bytes, a file object or samples in, mono samples at one rate out.

    path | bytes | file object ─► stated lengths ─► libsndfile, else FFmpeg ─┐
                                                                            ├─► checks ─► mono ─► soxr ─► [s]
    (samples, rate) ────────────────────────────────────────────────────────┘             float32 in [-1, 1]

The format is detected from the content, never from the name. What a header states about the length is checked
against what is there (`containers`). libsndfile reads what it reads fast and whole: samples, FLAC, and Vorbis
and Opus in Ogg. Everything else goes through FFmpeg's libraries (`packets`), which the extra `av` brings.
Nothing heavy is imported here, so that inference starts fast.
"""

import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np
import soundfile
import soxr

from mmsr.data.audio import packets
from mmsr.data.audio.arrays import from_array
from mmsr.data.audio.channels import Levels, mixed
from mmsr.data.audio.containers import read_headers
from mmsr.data.audio.errors import AudioError, AudioNote
from mmsr.data.audio.flac import ends_within_frame
from mmsr.data.audio.headers import Header, Part
from mmsr.data.storage import StorageError, is_url, read_bytes, shown
from mmsr.extras import install
from mmsr.records import SAMPLE_RATE

__all__ = ["Audio", "AudioError", "AudioNote", "AudioSource", "Decoded", "source_name"]

logger = logging.getLogger(__name__)

AudioSource = str | os.PathLike[str] | bytes | BinaryIO | tuple[np.ndarray, int]

# Lossy codecs, resampling and float recorders overshoot full scale a little: such samples are clipped.
# Larger ones are a scale error, mostly integer samples that were cast to float.
_OVERSHOOT = 1.1
_SCALE_ERROR = 4.0

# Decoded values (samples times channels) that a small file may have, and that each of its bytes may. Digital
# silence needs few bytes, as do files that are made to fill the memory; blocks do not fill it.
_VALUES, _VALUES_A_BYTE = 1 << 26, 64
_KEPT_A_BYTE = 32  # samples of the result
_VALUES_IN_BLOCKS, _VALUES_A_BYTE_IN_BLOCKS = 1 << 28, 1024
_AT_ONCE = 1 << 22  # values that a block has at most
_WHOLE, _WHOLE_A_BYTE = 1 << 24, 16  # values up to which libsndfile fills one array

_MP3_FRAME = 1152  # samples
_CUT_OFF = 0.1  # seconds by which libsndfile may give fewer than a lossy file states
_KNOWN_TO_LIBSNDFILE = "wav, flac and the like; for others (mp3, m4a, mp4, webm)"

_told: set[str] = set()  # codes of what was logged in this process


@dataclass(frozen=True)
class Decoded:
    """A decoded source.

    Attributes:
        samples: `[s]` float32 mono in [-1, 1].
        sampling_rate: Their rate in Hz.
        notes: What is told of the source, which did not stop the decoding.
    """

    samples: np.ndarray
    sampling_rate: int
    notes: tuple[AudioNote, ...] = ()


class Audio:
    """Reads audio as mono samples at one rate.

    A source is a path, a URL, bytes, a binary file object (read from its position), or samples with their
    rate. Any rate and any format that FFmpeg decodes are accepted; of a video, the first audio stream. Times
    are those of the container: silence stands before an audio track that starts late, and for lost packets.
    Samples are `[s]`, `[channels, s]` or `[s, channels]` (the shorter axis is the channels), floats in
    [-1, 1] or integers, which are divided by their full scale. Channels are averaged; a silent one is left
    out, and of channels that cancel each other one is read. The level is not normalised, since loudness
    carries sentiment.

    Args:
        sampling_rate: Output rate in Hz; None keeps the source's own.
    """

    def __init__(self, sampling_rate: int | None = SAMPLE_RATE):
        if sampling_rate is not None and sampling_rate < 1:
            raise AudioError(f"sampling_rate is {sampling_rate}; accepted: a positive number of Hz")
        self.sampling_rate = sampling_rate
        self._warned = False

    def __call__(self, source: AudioSource) -> np.ndarray:
        """The samples of `decode`; its notes are logged, each kind once."""
        decoded = self.decode(source)
        for note in decoded.notes:
            _log(source_name(source), note)
        return decoded.samples

    def decode(self, source: AudioSource) -> Decoded:
        """Decode, mix to mono and resample one source.

        Raises:
            AudioError: The file is missing, unreadable, damaged or cut off, or its samples are none, NaN,
                infinite or wrongly scaled.
        """
        name, notes = source_name(source), _Notes()
        with _named(name):
            if isinstance(source, tuple):
                samples, rate, told = from_array(source)
                packets.check_layout(rate, samples.shape[1])
                notes.extend(told)
                mono = self._mono_of(samples, rate, notes)
            else:
                with _open(source) as opened:
                    mono, rate = self._decode(opened, notes)
            own = self.sampling_rate or rate
            return Decoded(self._clip(mono, name), own, tuple(notes))

    def blocks(
        self, source: AudioSource, *, seconds: float = 30.0, tell: packets.Tell | None = None
    ) -> Iterator[np.ndarray]:
        """Decode a source block by block, in memory that does not grow with its length.

        A source of several channels is decoded twice: all of it decides which channels are averaged.

        Args:
            source: As in a call.
            seconds: Length of a decoded block.
            tell: Called with what is told of the source; by default it is logged.

        Yields:
            `[s]` float32 in [-1, 1] at `sampling_rate`, block after block.

        Raises:
            AudioError: As in a call, when the damaged block is reached.
        """
        if isinstance(source, tuple):
            yield self(source)
            return
        name = source_name(source)
        with _named(name), _open(source) as opened:
            limit = max(_VALUES_IN_BLOCKS, _VALUES_A_BYTE_IN_BLOCKS * opened.size)
            stream = _Stream(opened, seconds, limit, tell or (lambda note: _log(name, note)))
            count = 0
            for _, mono in _resampled(stream.mono(), self.sampling_rate):
                count += len(mono)
                yield self._clip(mono, name)
            if not count:
                raise AudioError("has length zero; accepted: at least one sample", code="audio-zero-length")

    @staticmethod
    def duration(source: AudioSource) -> float:
        """Length of a source in seconds.

        From its header, where the bytes that are there confirm it, else by its packets.

        Raises:
            AudioError: The file is missing, unreadable or cut off.
        """
        with _named(source_name(source)):
            if isinstance(source, tuple):
                samples, rate, _ = from_array(source)
                return len(samples) / rate
            with _open(source) as opened:
                return sum(_seconds(opened, header) for header in opened.headers)

    def _decode(self, opened: "_Opened", notes: "_Notes") -> tuple[np.ndarray, int]:
        """Mono samples `[s]` at the wanted rate, and the rate of the file."""
        if (whole := _read_whole(opened)) is not None:
            samples, rate, note = whole
            if note:
                notes.append(AudioNote("audio-length-stated", note))
            return self._mono_of(samples, rate, notes), rate
        limit = max(_VALUES, _VALUES_A_BYTE * opened.size)
        stream = _Stream(opened, 1.0, limit, notes.append)
        gathered, count, rate = np.empty(1 << 16, dtype=np.float32), 0, 0
        for own, mono in _resampled(stream.mono(), self.sampling_rate):
            rate = rate or own
            if count + len(mono) > max(_VALUES, _KEPT_A_BYTE * opened.size):
                raise _too_long(opened)
            if count + len(mono) > len(gathered):  # grows in place, without a copy
                gathered.resize(max(count + len(mono), len(gathered) * 3 // 2), refcheck=False)
            gathered[count : count + len(mono)] = mono
            count += len(mono)
        if not count:
            raise AudioError("has length zero; accepted: at least one sample", code="audio-zero-length")
        gathered.resize(count, refcheck=False)
        return gathered, rate

    def _mono_of(self, samples: np.ndarray, rate: int, notes: "_Notes") -> np.ndarray:
        """Samples `[s, channels]` as mono `[s]` at the wanted rate."""
        _check_samples(samples)
        if samples.shape[1] == 1:
            mono = samples[:, 0]
        else:
            levels = Levels(rate, samples.shape[1])
            levels.add(samples)
            weights, told = levels.weights()
            notes.extend(told)
            mono = mixed(samples, weights)
        if self.sampling_rate is not None and rate != self.sampling_rate:
            mono = soxr.resample(mono, rate, self.sampling_rate, quality="HQ")
            if not len(mono):
                raise AudioError(
                    f"has {len(samples)} samples at {rate} Hz;"
                    f" accepted: enough for one sample at {self.sampling_rate} Hz",
                    code="audio-zero-length",
                )
        return np.ascontiguousarray(mono, dtype=np.float32)

    def _clip(self, mono: np.ndarray, name: str) -> np.ndarray:
        peak = float(max(mono.max(), -mono.min())) if len(mono) else 0.0
        if peak > _OVERSHOOT and not self._warned:
            self._warned = True
            logger.warning(
                "%s: peak %.2f is clipped to 1; so is any later file beyond full scale", name, peak
            )
        return mono if peak <= 1 else np.clip(mono, -1, 1)


class _Notes(list[AudioNote]):
    """Notes of one source; of a kind the first and how many more there are."""

    _KEPT = 3

    def append(self, note: AudioNote) -> None:
        if sum(kept.code == note.code for kept in self) < self._KEPT:
            super().append(note)


def _log(name: str, note: AudioNote) -> None:
    """Log a note, if no other of its kind was."""
    if note.code not in _told:
        _told.add(note.code)
        logger.warning("%s: %s (told once; %s)", name, note.message, note.code)


def source_name(source: AudioSource) -> str:
    """The source's name in messages.

    Raises:
        AudioError: It is of no type that `Audio` reads.
    """
    if isinstance(source, tuple):
        return "samples"
    if isinstance(source, bytes):
        return f"{len(source)} bytes of audio"
    if isinstance(source, (str, os.PathLike)):
        return shown(source)
    if hasattr(source, "read"):
        return str(getattr(source, "name", "audio file object"))
    raise AudioError(
        f"a {type(source).__name__} is no audio source;"
        " accepted: a path, bytes, a binary file object, or (samples, rate)"
    )


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Put a source's name before the message of an error."""
    try:
        yield
    except AudioError as error:
        raise AudioError(f"{name}: {error}", code=error.code) from error.__cause__


@dataclass(frozen=True)
class _Opened:
    """An opened source: its file, which can seek, its path if it has one, its size and its containers."""

    file: BinaryIO
    path: str | None
    size: int
    headers: list[Header]


@contextmanager
def _open(source: str | os.PathLike[str] | bytes | BinaryIO) -> Iterator[_Opened]:
    """Open a source, and check that all is there that it states."""
    if isinstance(source, str) and is_url(source):
        try:
            source = read_bytes(source)
        except StorageError as error:
            accepted = "a URL that can be reached, of a kind that fsspec knows"
            raise AudioError(f"{error.reason}; accepted: {accepted}", code="audio-missing") from error
    path, start = None, 0
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if not os.path.isfile(path):
            special = "is no file" if os.path.exists(path) else "does not exist"  # a pipe, a device
            state = "is a folder" if os.path.isdir(path) else special
            raise AudioError(f"{state}; accepted: a path to an audio file", code="audio-missing")
        try:
            file: BinaryIO = open(path, "rb")
        except OSError as error:
            accepted = "a file that may be read"
            raise AudioError(
                f"cannot be read ({error.strerror}); accepted: {accepted}", code="audio-missing"
            ) from error
    elif isinstance(source, bytes):
        if not source:
            raise AudioError("nothing to read; accepted: an audio file's bytes", code="audio-empty")
        file = io.BytesIO(source)
    elif not source.seekable():
        file = io.BytesIO(source.read())
    else:
        start = source.tell()
        file = cast(BinaryIO, Part(source, start, source.seek(0, os.SEEK_END)) if start else source)
    try:
        size = file.seek(0, os.SEEK_END)
        if not size:
            raise AudioError("is empty (0 bytes); accepted: at least one sample", code="audio-empty")
        headers = read_headers(file)
        opened = _Opened(file, path, size, headers)
        for header in headers:
            if header.is_cut_off:
                raise _cut_off(opened, header)
        yield opened
    finally:
        if file is not source:
            file.close()
        if not isinstance(source, (str, os.PathLike, bytes)) and source.seekable():
            source.seek(start)  # as it was


def _cut_off(opened: _Opened, header: Header) -> AudioError:
    stated, there = header.stated, header.seconds
    if there is None and packets.available():
        try:
            found, there = packets.lengths(cast(BinaryIO, header.part_of(opened.file)))
            stated = stated or found
            stated = None if stated is None or stated < there + 0.01 else stated
        except AudioError:
            pass  # then only the bytes are told
    return AudioError(packets.cut_off(stated, there, header.missing), code="audio-truncated")


def _too_long(opened: _Opened) -> AudioError:
    return AudioError(
        f"has too many samples for {opened.size:,} bytes (a damaged file, or hours of digital silence);"
        " accepted: shorter recordings",
        code="audio-too-long",
    )


def _uses_libsndfile(opened: _Opened, header: Header) -> bool:
    """Whether libsndfile decodes a part.

    Raises:
        AudioError: Only FFmpeg could, and it is not installed.
    """
    if header.by_libsndfile:
        try:
            if header.container == "Ogg":  # cut out of another, libsndfile refuses it and FFmpeg reads it
                _soundfile(opened, header).close()
        except AudioError:
            if not packets.available():
                raise
            return False
        return True
    if packets.available():
        return False
    # libsndfile reads these, too; their length is known, so that what it does not give is missed
    if header.container == "MP3" and header.stated:
        return True
    raise AudioError(f"holds no audio that can be read; accepted: {_KNOWN_TO_LIBSNDFILE}: {install('av')}")


def _soundfile(opened: _Opened, header: Header) -> soundfile.SoundFile:
    """A part of a source, opened by libsndfile."""
    whole = not header.prefix and header.start == 0 and header.end == opened.size
    try:
        if whole and opened.path is not None:
            # as bytes: the name need not be UTF-8
            return soundfile.SoundFile(os.fsencode(opened.path) if os.sep == "/" else opened.path)
        return soundfile.SoundFile(header.part_of(opened.file))
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = getattr(error, "error_string", str(error)).rstrip(".")  # without the source's name
        raise AudioError(
            f"holds no audio that can be read (libsndfile: {reason}); accepted: {packets.ACCEPTED}"
        ) from error


def _read(
    opened: _Opened, header: Header, file: soundfile.SoundFile, frames: int, *, start: int | None = None
) -> np.ndarray:
    """The next samples `[s, channels]`, or all the rest with -1."""
    try:
        if start is not None:
            file.seek(start)
        return file.read(frames, dtype="float32", always_2d=True)
    except (RuntimeError, OSError, MemoryError) as error:
        if ends_within_frame(opened.file, header):
            there = header.last_frame[1] / file.samplerate if header.last_frame else None
            message = packets.cut_off(file.frames / file.samplerate, there)
            raise AudioError(message, code="audio-truncated") from error
        raise AudioError(f"cannot be decoded ({error}); accepted: a whole audio file") from error


def _read_whole(opened: _Opened) -> tuple[np.ndarray, int, str] | None:
    """Samples `[s, channels]`, rate and note of a source that libsndfile may decode at once."""
    if len(opened.headers) > 1 or not opened.headers[0].by_libsndfile:
        return None
    header = opened.headers[0]
    if header.container == "Ogg" and not _uses_libsndfile(opened, header):
        return None
    with _soundfile(opened, header) as file:
        packets.check_layout(file.samplerate, file.channels)
        if file.frames * file.channels > max(_WHOLE, _WHOLE_A_BYTE * opened.size):
            return None
        samples = _read(opened, header, file, -1)
        _check_whole(file, len(samples))
        return samples, file.samplerate, header.note


def _check_whole(file: soundfile.SoundFile, frames: int) -> None:
    if frames < file.frames - _CUT_OFF * file.samplerate * (file.format in ("MP3", "MPEG")):
        message = packets.cut_off(file.frames / file.samplerate, frames / file.samplerate)
        raise AudioError(message, code="audio-truncated")


def _by_libsndfile(opened: _Opened, header: Header, seconds: float) -> Iterator[tuple[int, np.ndarray]]:
    """Rate and samples `[s, channels]` of a part, in blocks of so many seconds."""
    with _soundfile(opened, header) as file:
        packets.check_layout(file.samplerate, file.channels)
        count = 0
        block = max(1, min(round(seconds * file.samplerate), _AT_ONCE // file.channels))
        while len(samples := _read(opened, header, file, block)):
            count += len(samples)
            yield file.samplerate, samples
        expected = header.seconds if header.seconds is not None else header.stated
        if not header.by_libsndfile and expected is not None:  # a lossy format, without FFmpeg
            if count / file.samplerate < expected - _CUT_OFF:
                raise AudioError(packets.cut_off(expected, count / file.samplerate), code="audio-truncated")
        else:
            _check_whole(file, count)


class _Stream:
    """Decodes a source in blocks.

    Args:
        opened: The source.
        seconds: Length of a block.
        limit: Decoded values after which the source is refused.
        tell: Called with what is told.
    """

    def __init__(self, opened: _Opened, seconds: float, limit: int, tell: packets.Tell):
        self._opened, self._block, self._limit, self._tell = opened, seconds, limit, tell

    def mono(self) -> Iterator[tuple[int, np.ndarray]]:
        """Rate and mono samples `[s]` of each block."""
        weights: list[np.ndarray] | None = None
        for section, rate, samples in self._blocks(self._tell):
            _check_samples(samples)
            if samples.shape[1] == 1:
                yield rate, np.ascontiguousarray(samples[:, 0])
                continue
            if weights is None:
                weights = self._weights()
            yield rate, np.ascontiguousarray(mixed(samples, weights[section]))

    def _weights(self) -> list[np.ndarray]:
        """Weights of the channels of each section, by all of it."""
        levels: list[Levels] = []
        for section, rate, samples in self._blocks(lambda note: None):
            if section == len(levels):
                levels.append(Levels(rate, samples.shape[1]))
            levels[section].add(samples)
        weights = []
        for level in levels:
            weight, told = level.weights()
            weights.append(weight)
            for note in told:
                self._tell(note)
        return weights

    def _blocks(self, tell: packets.Tell) -> Iterator[tuple[int, int, np.ndarray]]:
        """Section, rate and samples `[s, channels]`; a section has one rate and number of channels."""
        section, values = -1, 0
        pieces: list[np.ndarray] = []
        count, known = 0, (0, 0, 0)
        for place, rate, samples in self._pieces(tell):
            layout = (place, rate, samples.shape[1])
            values += samples.size
            if values > self._limit:
                raise _too_long(self._opened)
            longest = max(1, min(round(self._block * rate), _AT_ONCE // samples.shape[1]))
            if pieces and (layout != known or count + len(samples) > longest):
                yield section, known[1], _joined(pieces)
                pieces, count = [], 0
            if layout != known:
                section, known = section + 1, layout
            pieces.append(samples)
            count += len(samples)
        if pieces:
            yield section, known[1], _joined(pieces)

    def _pieces(self, tell: packets.Tell) -> Iterator[tuple[int, int, np.ndarray]]:
        """Number of the part, rate and samples `[s, channels]`, as they are decoded."""
        headers = self._opened.headers
        if len(headers) > 1:
            message = f"holds {len(headers)} {headers[0].container} files one after another: all are decoded"
            tell(AudioNote("audio-joined", message))
        for place, header in enumerate(headers):
            if header.note:
                tell(AudioNote("audio-length-stated", header.note))
            if _uses_libsndfile(self._opened, header):
                decoded = _by_libsndfile(self._opened, header, self._block)
            else:
                part = cast(BinaryIO, header.part_of(self._opened.file))
                decoded = packets.decode(
                    part, tell, packets=header.packets, samples=header.samples, ends_open=header.ends_open
                )
            with _flaw_told(header):
                for rate, samples in decoded:
                    if len(samples):
                        yield place, rate, samples


@contextmanager
def _flaw_told(header: Header) -> Iterator[None]:
    """Add what is wrong with a header to the message that nothing can be read."""
    try:
        yield
    except AudioError as error:
        told = "holds no audio that can be read"
        if not header.flaw or told not in str(error):
            raise
        raise AudioError(str(error).replace(told, f"{told} ({header.flaw})"), code=error.code) from error


def _joined(pieces: list[np.ndarray]) -> np.ndarray:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _resampled(
    blocks: Iterator[tuple[int, np.ndarray]], target: int | None
) -> Iterator[tuple[int, np.ndarray]]:
    """Rate of the source and samples `[s]` at the target's; the rate may change between blocks."""
    stream: soxr.ResampleStream | None = None
    current, nothing = 0, np.empty(0, dtype=np.float32)
    for rate, mono in blocks:
        target = target or rate
        if rate != current:
            if stream is not None and len(rest := stream.resample_chunk(nothing, last=True)):
                yield current, rest
            current = rate
            stream = None if rate == target else soxr.ResampleStream(rate, target, 1, dtype="float32")
        if stream is not None:
            mono = stream.resample_chunk(mono)
        if len(mono):
            yield rate, mono
    if stream is not None and len(rest := stream.resample_chunk(nothing, last=True)):
        yield current, rest


def _seconds(opened: _Opened, header: Header) -> float:
    """Length of a part."""
    if header.samples and packets.available():
        return cast(float, header.stated)
    if _uses_libsndfile(opened, header):
        with _soundfile(opened, header) as file:
            packets.check_layout(file.samplerate, file.channels)
            if header.last_frame is not None and not header.prefix:  # of FLAC, it may be there in part
                _read(opened, header, file, -1, start=header.last_frame[1])
            if header.by_libsndfile:
                return file.frames / file.samplerate
    else:
        with _flaw_told(header):
            if seconds := packets.lengths(cast(BinaryIO, header.part_of(opened.file)))[1]:
                return seconds
    single = _Opened(opened.file, None, opened.size, [header])
    limit = max(_VALUES_IN_BLOCKS, _VALUES_A_BYTE_IN_BLOCKS * opened.size)
    return sum(len(mono) / rate for rate, mono in _Stream(single, 1.0, limit, lambda note: None).mono())


def _check_samples(samples: np.ndarray) -> None:
    if not samples.size:
        raise AudioError("has length zero; accepted: at least one sample", code="audio-zero-length")
    peak = float(max(samples.max(), -samples.min()))  # NaN if one is
    if not np.isfinite(peak):
        count = int(samples.size - np.isfinite(samples).sum())
        raise AudioError(
            f"{count} of {samples.size} samples are NaN or infinite; accepted: finite samples",
            code="audio-nan",
        )
    if peak > _SCALE_ERROR:
        raise AudioError(
            f"peak {peak:.6g} is far beyond full scale;"
            " accepted: floats in [-1, 1], or samples of an integer type",
            code="audio-scale",
        )
