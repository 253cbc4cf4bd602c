"""Several channels of a recording as one.

    blocks [s, channels] ─► `Levels` over the whole recording ─► weights [channels] ─► mono [s]

The mean of the channels is right unless one of them is silent (a microphone that was not plugged in: the mean
halves the level) or they cancel each other (one is wired the wrong way round: the mean is nearly silent).
"""

import numpy as np

from mmsr.data.audio.errors import AudioNote

_WINDOW = 0.1  # seconds
_CLICK = 1  # number of windows that hold a click
_SILENT = 1e-4  # of the loudest channel's power: -40 dB
_CANCEL = 0.3  # power of the sum of channels, in that of unrelated ones
_CANCELLED = 1 / 3  # share of the sound in which they must cancel


class Levels:
    """Power of each channel and of their sum, over windows of a recording.

    Args:
        rate: Sampling rate in Hz.
        channels: Their number.
    """

    def __init__(self, rate: int, channels: int):
        self._window = max(1, round(_WINDOW * rate))
        self._loudest = np.empty((0, channels))  # power of the loudest windows
        self._energy = np.zeros(channels)
        self._cancelled = 0.0

    def add(self, samples: np.ndarray) -> None:
        """Add a block `[s, channels]`."""
        whole = len(samples) // self._window * self._window
        channels = samples.shape[1]
        if whole:
            self._add(samples[:whole].reshape(-1, self._window, channels))
        if whole < len(samples):
            self._add(samples[None, whole:])

    def _add(self, windows: np.ndarray) -> None:
        """Add windows `[n, s, channels]`."""
        power = windows.var(axis=1, dtype=np.float64)  # a constant is silent
        together = windows.sum(axis=2).var(axis=1, dtype=np.float64)
        self._loudest = np.sort(np.concatenate([self._loudest, power]), axis=0)[-1 - _CLICK :]
        energy = power * windows.shape[1]
        self._energy += energy.sum(axis=0)
        cancel = together < _CANCEL * power.sum(axis=1)
        self._cancelled += float(energy[cancel].sum())

    def weights(self) -> tuple[np.ndarray, tuple[AudioNote, ...]]:
        """Weight of each channel `[channels]`, and what is told of them."""
        count = len(self._energy)
        levels = self._loudest[0 if len(self._loudest) > _CLICK else -1]
        loudest = float(levels.max())
        if count == 1 or not loudest:
            return np.full(count, 1 / count, dtype=np.float32), ()
        heard = levels >= _SILENT * loudest
        if self._cancelled > _CANCELLED * self._energy.sum():
            best = int(np.argmax(self._energy))
            message = f"its {count} channels cancel each other (one is inverted); channel {best + 1} is read"
            note = AudioNote("audio-channels-cancel", message)
            return np.eye(count, dtype=np.float32)[best], (note,)
        if heard.all():
            return np.full(count, 1 / count, dtype=np.float32), ()
        silent = ", ".join(str(place + 1) for place in np.flatnonzero(~heard))
        message = f"channel {silent} of {count} is silent, and left out of the mean"
        weights = (heard / heard.sum()).astype(np.float32)
        return weights, (AudioNote("audio-channel-silent", message),)


def mixed(samples: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean `[s]` of channels `[s, channels]`."""
    heard = np.flatnonzero(weights)
    if len(heard) == 1:
        return samples[:, heard[0]]
    return samples.mean(axis=1) if len(heard) == len(weights) else samples[:, heard].mean(axis=1)
