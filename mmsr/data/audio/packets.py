"""Decoding by FFmpeg's libraries, which PyAV brings (`pip install "mmsr[av]"`).

    file ─► packets of the first audio stream ─► frames ─► times against samples ─► blocks [s, channels]
                                                           └─► silence where packets are missing

FFmpeg may open nothing but the file that it is given, and only as one of the formats below: playlists would
make it read other files or the network. One thread a file, since callers decode files in threads.
"""

import ctypes
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from mmsr.data.audio.errors import AudioError, AudioNote
from mmsr.data.audio.headers import TAGS

if TYPE_CHECKING:
    import av
    import av.container

# FFmpeg's names of the formats that may be opened.
_FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,nistsphere,ogg,"
    "w64,wav"
)
# Those whose packets are found by searching, so that one that is no audio may be left out at either end.
_SEARCHED = frozenset({"aac", "ac3", "eac3", "mp3", "mpeg", "mpegts"})

ACCEPTED = "wav, flac, mp3, ogg, m4a, mp4, webm and the like"  # in messages
_GAP = 0.05  # seconds that times and samples may differ
_GAP_OF_WMA = 0.25  # its packets are that long, and their frames come out with the next one
_LONGEST_GAP = 600.0  # seconds; longer ones are mistaken times
_RATES = (1000, 1_000_000)  # Hz
_CHANNELS = 64
_SCALES = {
    "u1": (128.0, 128.0),
    "i2": (0.0, 2.0**15),
    "i4": (0.0, 2.0**31),
    "i8": (0.0, 2.0**63),
}  # offset and full scale

_SKIP_MANUAL = 1 << 29  # AV_CODEC_FLAG2_SKIP_MANUAL of FFmpeg: gives what only fills packets, too

Tell = Callable[[AudioNote], None]


def available() -> bool:
    """Whether PyAV is installed, and its libraries load."""
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


def check_layout(rate: float, channels: int) -> None:
    """Refuse rates and numbers of channels that no recorder has.

    Raises:
        AudioError: They are out of range.
    """
    if not _RATES[0] <= rate <= _RATES[1]:
        raise AudioError(f"has {rate:g} samples a second; accepted: {_RATES[0]:,} to {_RATES[1]:,}")
    if not 1 <= channels <= _CHANNELS:
        raise AudioError(f"has {channels} channels; accepted: 1 to {_CHANNELS}")


class Clock:
    """Compares the times of a stream with the samples that it gave.

    Args:
        start: Seconds at which the container starts.
        tell: Called with what is told of the times.
        tolerance: Seconds that they may differ.
    """

    def __init__(self, start: float, tell: Tell, *, tolerance: float = _GAP):
        self.position = 0.0  # seconds given
        self._tolerance = tolerance
        self._start, self._offset, self._tell = start, 0.0, tell
        self._sound = 0.0
        self._filled = 0.0
        self._begun = False

    def gap(self, time: float | None, *, follow: bool = False) -> float:
        """Seconds of silence that are missing before a packet or frame at a time.

        Args:
            time: Its time in seconds, None if unknown.
            follow: Take its time for the position, since what packets are said to last is rounded.
        """
        if time is None:
            return 0.0
        gap = time - self._start + self._offset - self.position
        begun, self._begun = self._begun, True
        if abs(gap) <= self._tolerance:
            self.position += gap if follow and begun and self._tolerance < math.inf else 0.0
            return 0.0
        if gap < 0:
            self._offset -= gap
            if begun:
                message = f"its times run backwards after {self.position:.2f} s; what follows is put behind"
                self._tell(AudioNote("audio-times-backwards", message))
            return 0.0
        if gap > _LONGEST_GAP or self._filled + gap > _LONGEST_GAP + 10 * self._sound:
            self._offset -= gap
            message = f"its times jump by {gap:.0f} s after {self.position:.2f} s; no silence is put in"
            self._tell(AudioNote("audio-gap", message))
            return 0.0
        self._filled += gap
        what = "its audio starts" if not begun else "it has a gap"
        at = f"{gap:.2f} s late" if not begun else f"of {gap:.2f} s after {self.position:.2f} s"
        self._tell(AudioNote("audio-gap", f"{what} {at}; silence is put in"))
        self.position += gap
        return gap

    def advance(self, seconds: float) -> None:
        """Add what a packet or frame lasts."""
        self.position += seconds
        self._sound += seconds


def decode(
    file: BinaryIO,
    tell: Tell,
    *,
    packets: int | None = None,
    samples: int | None = None,
    ends_open: bool = False,
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode the first audio stream of a file, frame by frame.

    Args:
        file: A file that can seek.
        tell: Called with what is told.
        packets: Number of packets that a header states.
        samples: Samples of a channel that it states, without what fills the last packet.
        ends_open: The container states no length, so that its last packet may be incomplete.

    Yields:
        Rate in Hz and samples `[s, channels]` float32.

    Raises:
        AudioError: It holds no audio, or cannot be decoded whole.
    """
    with _opened(file) as container:
        stream = _audio_of(container)
        if samples and stream.codec_context.name == "alac":  # its last packet is shorter, and was cut twice
            stream.codec_context.flags2 |= _SKIP_MANUAL
        lenient = ends_open or bool(_SEARCHED & set(container.format.name.split(",")))
        expected = packets
        if packets is None and "mov" in container.format.name:
            expected = len(stream.index_entries) or None
        clock = _clock(container, stream, tell)
        count, failed, decoded, largest, given = 0, None, False, 0, 0
        held: tuple[int, np.ndarray] | None = None  # the last frame, which may be filled up
        last: Any = None
        for packet in _demuxed(container, stream):
            if packet.size:
                if failed is not None and decoded:
                    raise failed
                count += 1
                largest = max(largest, packet.size)
            frames, error = _frames_of(packet)
            if error is not None and bytes(packet).startswith(TAGS):
                continue
            if error is not None:
                partial = packet.is_corrupt or packet.size < largest / 2 or not packet.size
                if not (lenient or partial) or not lenient and packet.is_corrupt:
                    raise error
                failed = error
                continue
            for frame in frames:
                rate, block = frame.sample_rate, _samples_of(frame)
                check_layout(rate, block.shape[1])
                if held is not None:
                    yield held
                missing = clock.gap(frame.time)
                yield from _silence(missing, rate, block.shape[1])
                clock.advance(len(block) / rate)
                given += len(block)
                decoded, held, last = True, (rate, block), packet
        if held is not None:
            rate, block = held
            surplus = given - samples if samples else _surplus(container, last, len(block) / rate) * rate
            yield rate, block[: -round(surplus)] if 0 < round(surplus) < len(block) else block
        if not decoded:
            raise failed or AudioError(
                "has length zero; accepted: at least one sample", code="audio-zero-length"
            )
        if expected is not None:
            _compare(count, expected, clock.position, tell)


def lengths(file: BinaryIO) -> tuple[float | None, float]:
    """Seconds that the first audio stream states, None if unknown, and those of its packets, not decoded.

    Raises:
        AudioError: It holds no audio that can be read.
    """
    with _opened(file) as container:
        stream = _audio_of(container)
        assert stream.time_base is not None
        stated = None if stream.duration is None else float(stream.duration * stream.time_base)
        if stated is None and container.duration is not None:
            stated = container.duration / 1e6
        clock = _clock(container, stream, lambda _: None)
        before, last = 0.0, None
        try:
            for packet in _demuxed(container, stream):
                if not packet.size:
                    continue
                seconds = float((packet.duration or 0) * stream.time_base)
                time = None if packet.pts is None else float(packet.pts * stream.time_base)
                seconds -= _left_out(packet, stream)
                if time is not None and not clock.position:  # before the start: what the encoder needs
                    early = max(0.0, _start_of(container) - time)
                    seconds, time = max(0.0, seconds - early), time + early
                clock.gap(time, follow=True)
                before, last = clock.position, packet
                clock.advance(seconds)
            if last is not None and stream.codec_context.name == "alac":  # its last packet is shorter
                frames, _ = _frames_of(last)
                clock.position = before + sum(frame.samples / frame.sample_rate for frame in frames)
        except AudioError:
            if not clock.position:
                raise
        return stated, clock.position


def _surplus(container: "av.container.InputContainer", packet: Any, seconds: float) -> float:
    """Seconds by which the last frame is longer than MP4 says that its packet lasts, 0 elsewhere."""
    if "mov" not in container.format.name or not packet.duration:
        return 0.0
    return max(0.0, seconds - float(packet.duration * packet.time_base))


def _left_out(packet: "av.Packet", stream: "av.AudioStream") -> float:
    """Seconds at the end of a packet that only fill it."""
    if not packet.has_sidedata("skip_samples"):
        return 0.0
    data = bytes(packet.get_sidedata("skip_samples"))
    return int.from_bytes(data[4:8], "little") / stream.rate if len(data) >= 8 and stream.rate else 0.0


def _opened(file: BinaryIO) -> "av.container.InputContainer":
    import av

    def refuse(url: str, flags: int, options: dict[str, Any]) -> Any:
        raise PermissionError(f"another file may not be read: {url}")

    file.seek(0)
    try:
        return av.open(
            file,
            "r",
            options={"format_whitelist": _FORMATS, "protocol_whitelist": "none", "err_detect": "crccheck"},
            metadata_errors="replace",
            buffer_size=1 << 16,
            io_open=refuse,
        )
    except Exception as error:  # whatever its libraries throw is a fault of the file
        raise AudioError(f"holds no audio that can be read{_reason(error)}; accepted: {ACCEPTED}") from error


def _reason(error: Exception) -> str:
    """FFmpeg's reason in brackets, unless it says nothing."""
    text = getattr(error, "strerror", None) or str(error)
    known = ("Invalid data found", "Invalid argument")
    return "" if not text or text.startswith(known) else f" (FFmpeg: {text})"


def _audio_of(container: "av.container.InputContainer") -> "av.AudioStream":
    """The first audio stream, set up; the others are skipped."""
    from av.stream import Discard

    if not container.streams.audio:
        raise AudioError("has no audio stream (a video without sound?); accepted: one at least")
    stream = container.streams.audio[0]
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    codec = stream.codec_context
    if codec is None:
        raise AudioError("its audio is of a codec that FFmpeg does not decode; accepted: another codec")
    codec.thread_count, codec.thread_type = 1, "NONE"
    return stream


def _start_of(container: "av.container.InputContainer") -> float:
    return (container.start_time or 0) / 1e6


def _clock(container: "av.container.InputContainer", stream: "av.AudioStream", tell: Tell) -> Clock:
    tolerance = _GAP_OF_WMA if stream.codec_context.name.startswith("wma") else _GAP
    if container.format.name == "avi":  # has no times: they are estimated by the mean rate
        tolerance = math.inf
    return Clock(_start_of(container), tell, tolerance=tolerance)


def _demuxed(container: "av.container.InputContainer", stream: "av.AudioStream") -> "Iterator[av.Packet]":
    try:
        yield from container.demux(stream)
    except Exception as error:
        raise _damaged(error) from error


def _frames_of(packet: "av.Packet") -> "tuple[list[Any], AudioError | None]":
    try:
        return list(packet.decode()), None
    except EOFError:
        return [], None
    except Exception as error:
        return [], _damaged(error)


def _damaged(error: Exception) -> AudioError:
    return AudioError(
        f"cannot be decoded whole{_reason(error) or ' (FFmpeg: a packet is damaged)'};"
        " accepted: a whole audio file; if it sounds right nevertheless, convert it to wav"
    )


def _samples_of(frame: "av.AudioFrame") -> np.ndarray:
    """Samples `[s, channels]` float32 of a frame of any format."""
    planes: Any = frame.planes
    if frame.format.name == "fltp" and len(planes) == 1:
        # of the most frequent kind, such as mono MP3, without a copy; the array keeps the frame alive
        return np.frombuffer(planes[0], np.float32, frame.samples)[:, None]
    layout = frame.layout
    channels = layout.nb_channels
    if " channels (" in layout.name:
        # PyAV 18 frees the list of a custom order of channels twice, which ends the process
        _keep_for_ever(layout)
    raw: Any
    try:
        if frame.format.packed.name == "s64":  # PyAV gives no array of these
            raw = np.stack([np.frombuffer(bytes(plane), dtype=np.int64) for plane in frame.planes])
            raw = raw[:, : frame.samples * (1 if frame.format.is_planar else channels)]
        else:
            raw = frame.to_ndarray()
    except Exception as error:
        raise _damaged(error) from error
    raw = raw.T if frame.format.is_planar else raw.reshape(-1, channels)
    if raw.dtype.kind == "f":
        return raw.astype(np.float32, copy=False)
    offset, scale = _SCALES[raw.dtype.str[1:]]
    return (raw.astype(np.float32) - np.float32(offset)) / np.float32(scale)


def _keep_for_ever(value: object) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def _silence(seconds: float, rate: int, channels: int) -> Iterator[tuple[int, np.ndarray]]:
    left = round(seconds * rate)
    while left > 0:
        count = min(left, 1 << 16)
        yield rate, np.zeros((count, channels), dtype=np.float32)
        left -= count


def _compare(count: int, expected: int, seconds: float, tell: Tell) -> None:
    """Compare the number of packets with the stated one.

    Raises:
        AudioError: There are fewer.
    """
    stated = seconds * expected / max(1, count)
    if count < expected - 1:
        raise AudioError(cut_off(stated, seconds), code="audio-truncated")
    if count > expected + 1:
        message = f"its header states {stated:.2f} s, there are {seconds:.2f} s: decoded to the end"
        tell(AudioNote("audio-length-stated", message))


def cut_off(stated: float | None, seconds: float | None, missing: int = 0) -> str:
    """The message about a file that was cut off, with what its header states and what is there."""
    parts = [] if stated is None else [f"its header states {stated:.2f} s"]
    parts += [] if seconds is None else [f"{seconds:.2f} s are there"]
    parts += [f"{missing:,} bytes are missing"] if missing > 1 else []
    return f"is cut off: {', '.join(parts) or 'its end is missing'}; accepted: a whole audio file"
