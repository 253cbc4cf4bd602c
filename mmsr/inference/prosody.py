"""Pitch, level and pace of a stretch of speech, and how they differ from the rest of a recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
import torch

from mmsr.speech.timing import sounding

LEAST = 4  # segments that a comparison with the others needs
_SHORTEST = 0.3  # seconds of sound, below which there is no pitch or pace
_LOW, _HIGH = 70, 450  # Hz
_FRAME = 0.01  # seconds
_VOICED = 0.1  # of the loudest frame's power, above which a frame's pitch counts


def prosody(wave: np.ndarray, rate: int, text: str | None = None) -> dict[str, float | None]:
    """Median `pitch` in Hz, `level` in dB of full scale, and `pace` in letters a second, of what sounds.

    None where it is not known: of silence, of less than .3 s, and the pace without a text.

    Args:
        wave: Samples `[s]`.
        rate: Of the samples, in Hz.
        text: What is said.
    """
    from torchaudio.functional import detect_pitch_frequency

    start, end = sounding(wave, rate)
    sound = wave[round(start * rate) : round(end * rate)]
    power = float(np.mean(np.square(sound, dtype=np.float64))) if len(sound) else 0.0
    if power <= 0:
        return {"pitch": None, "level": None, "pace": None}
    found: dict[str, float | None] = {"pitch": None, "level": round(10 * np.log10(power), 2), "pace": None}
    if end - start < _SHORTEST:
        return found
    size = round(_FRAME * rate)
    pitches = detect_pitch_frequency(
        torch.from_numpy(np.ascontiguousarray(sound, dtype=np.float32)),
        rate,
        _FRAME,
        freq_low=_LOW,
        freq_high=_HIGH,
    ).numpy()
    frames = np.array([np.mean(np.square(sound[i * size : (i + 1) * size])) for i in range(len(pitches))])
    voiced = pitches[(frames > _VOICED * frames.max()) & (pitches > _LOW) & (pitches < _HIGH)]
    found["pitch"] = round(float(np.median(voiced)), 1) if len(voiced) else None
    if text:
        found["pace"] = round(sum(letter.isalnum() for letter in text) / (end - start), 2)
    return found


def usual(stretches: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """Medians of the stretches of a recording; what fewer than `LEAST` of them know is left out."""
    found = {}
    for name in ("pitch", "level", "pace"):
        known = [value for stretch in stretches if (value := stretch.get(name)) is not None]
        if len(known) >= LEAST:
            found[name] = median(known)
    return found


def differences(own: Mapping[str, float | None], medians: Mapping[str, float]) -> dict[str, float]:
    """How a stretch differs from `usual` medians: pitch and pace as shares, the level in dB."""
    return {
        name: value - medians[name] if name == "level" else value / medians[name] - 1
        for name, value in own.items()
        if value is not None and name in medians
    }


def in_words(found: Mapping[str, float]) -> str:
    """Differences for people, such as `pitch +12 %, level -3 dB, pace +5 %`; empty without any."""
    parts = [
        f"{name} {value:+.0f} dB" if name == "level" else f"{name} {100 * value:+.0f} %"
        for name, value in found.items()
    ]
    return ", ".join(parts)
