"""Samples that are passed as arrays, in any type and layout."""

import numpy as np

from mmsr.data.audio.errors import AudioError, AudioNote

_ACCEPTED = "floats in [-1, 1], or samples of the type in which they were recorded (int16, int32 ...)"
_QUIETEST = 256  # peak of integers of 16 bits in a wider type: below, 8 bits are as likely


def from_array(source: tuple[object, object]) -> tuple[np.ndarray, int, tuple[AudioNote, ...]]:
    """Samples `[s, channels]` float32, their rate in Hz, and what is told of them.

    Raises:
        AudioError: The rate, the shape or the type is none of audio.
    """
    rate = source[1] if len(source) == 2 else None
    known = isinstance(rate, (int, float, np.integer, np.floating)) and not isinstance(rate, bool)
    if not known or not float(rate).is_integer() or rate < 1:  # type: ignore[arg-type, operator]
        raise AudioError("rate is missing or no positive integer; accepted: (samples, rate in Hz)")
    samples = np.asarray(source[0])
    if samples.ndim not in (1, 2):
        raise AudioError(f"have shape {samples.shape}; accepted: [s], [channels, s] or [s, channels]")
    notes: tuple[AudioNote, ...] = ()
    if samples.dtype.kind in "iu":
        samples, notes = _scaled(samples)
    elif samples.dtype.kind != "f":
        raise AudioError(f"have type {samples.dtype}; accepted: {_ACCEPTED}")
    if samples.ndim == 1:
        samples = samples[:, None]
    elif samples.shape[0] < samples.shape[1]:
        samples = samples.T
    with np.errstate(over="ignore"):  # refused as infinite
        return samples.astype(np.float32), int(rate), notes  # type: ignore[call-overload]


def _scaled(samples: np.ndarray) -> tuple[np.ndarray, tuple[AudioNote, ...]]:
    """Integers as floats in [-1, 1].

    Types of 8 and 16 bits have the range of the recording. Wider ones may hold anything: samples of 16 or
    24 bits that were only copied into them, which their peak and their lowest bits tell.
    """
    kind = samples.dtype
    if kind == np.uint8:
        return samples / 128.0 - 1, ()
    if kind.kind == "u":
        raise AudioError(f"have type {kind}; accepted: {_ACCEPTED}", code="audio-scale")
    if kind.itemsize <= 2 or not samples.size:
        return samples / 2.0 ** (8 * kind.itemsize - 1), ()
    peak = max(-int(samples.min()), int(samples.max()))
    if not peak:
        return samples.astype(np.float32), ()
    if peak > 1 << 31:
        raise AudioError(f"have type {kind} and peak {peak}; accepted: {_ACCEPTED}", code="audio-scale")
    if peak > 1 << 23 or peak > 1 << 15 and not (samples & 0xFF).any():
        return samples / 2.0**31, ()
    if peak < _QUIETEST:
        raise AudioError(
            f"have type {kind} and peak {peak}, which may be of 8 or of 16 bits; accepted: {_ACCEPTED}",
            code="audio-scale",
        )
    bits = 16 if peak <= 1 << 15 else 24
    message = f"{kind} with peak {peak}: read as samples of {bits} bits"
    return samples / 2.0 ** (bits - 1), (AudioNote("audio-integer-range", message),)
