"""Made inputs that a sentiment model should refuse: silence, noise, music, tones, other languages, nonsense.

    sounds(number, seed=0)                    waveforms to fit an outlier detector
    sounds(number, seed=0, test=True)         waveforms to test it, made by other recipes
    spoken(waveform, seed=0)                  a clip of speech among pauses, noise and another microphone
    texts(number, seed=0, languages=...)      texts in other languages, of Django's and Faker's word lists
    known_texts(number, seed=0)               texts of the same kind in the languages that the model knows
    nonsense(texts, number, seed=0)           strings that are no language; `test=True` for other recipes
    test_texts()                              sentences that were written for the test, in other languages
    outlier_rows(texts)                       all of these as rows for `mmsr.training.outliers`, or for a test

Waveforms are float32 at 16 kHz, 1 to 6 s. All of it depends on the seed alone. `texts` and `known_texts` need
`pip install Django Faker` (BSD-3-Clause and MIT), which nothing else of mmsr does.
"""

from __future__ import annotations

import base64
import csv
import functools
import gettext
import importlib
import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

from mmsr.records import Utterance

RATE = 16_000  # Hz
KNOWN = {
    "en": "en_US", "de": "de_DE", "fr": "fr_FR", "vi": "vi_VN", "zh_Hans": "zh_CN", "zh_Hant": "zh_TW"
}  # fmt: skip
"""Languages of the packaged checkpoint: Django's name of each, and Faker's."""
TEST_LANGUAGES = ("ar", "es", "fi", "hi", "id", "it", "ja", "ko", "nl", "pl", "pt", "ru", "sv", "tr")
"""Languages of `test_texts`, by Django's names; `texts` leaves them out, with their variants, by default."""
_FAKER = {
    "ar": "ar_AA", "az": "az_AZ", "bn": "bn_BD", "cs": "cs_CZ", "da": "da_DK", "el": "el_GR", "es": "es_ES",
    "fa": "fa_IR", "he": "he_IL", "hy": "hy_AM", "it": "it_IT", "ja": "ja_JP", "mk": "mk_MK", "nl": "nl_BE",
    "pl": "pl_PL", "ru": "ru_RU", "th": "th_TH", "tl": "fil_PH", "uk": "uk_UA",
}  # fmt: skip
_SENTENCES = Path(__file__).with_name("outlier_sentences.csv")

Wave = np.ndarray  # float32 [s]
Recipe = Callable[[np.random.Generator, int], np.ndarray]


class Sound(NamedTuple):
    """A made waveform `[s]` at 16 kHz, its kind (silence, noise, music, tones) and the recipe's name."""

    waveform: Wave
    kind: str
    recipe: str


class Text(NamedTuple):
    """A made text and its kind: a language's code, or the recipe of a nonsense string."""

    text: str
    kind: str


# ------------------------------------------------------------------ parts of sounds


def _colored(rng: np.random.Generator, n: int, exponent: float) -> Wave:
    """Noise of unit deviation whose power falls as 1 / f^exponent (0 white, 1 pink, 2 brown, -1 blue)."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequencies = np.fft.rfftfreq(n, 1 / RATE)
    noise = np.fft.irfft(spectrum * np.maximum(frequencies, 20.0) ** (-exponent / 2), n)
    return noise / (noise.std() + 1e-12)


def _band(noise: Wave, low: float, high: float, order: int = 2) -> Wave:
    """Noise in a band of Hz, of unit deviation."""
    filtered = sosfilt(butter(order, [low, min(high, 7800)], "bandpass", fs=RATE, output="sos"), noise)
    return filtered / (filtered.std() + 1e-12)


def _lowpass(wave: Wave, cutoff: float, order: int = 2) -> Wave:
    return sosfilt(butter(order, cutoff, fs=RATE, output="sos"), wave)


def _drift(rng: np.random.Generator, n: int, every: float) -> Wave:
    """A curve between 0 and 1 through random points, `every` seconds apart."""
    points = max(2, int(n / RATE / every) + 2)
    return np.interp(np.linspace(0, points - 1, n), np.arange(points), rng.random(points))


def _time(n: int) -> Wave:
    return np.arange(n) / RATE


def _envelope(n: int, attack: float, decay: float) -> Wave:
    """A linear attack of seconds, then an exponential decay."""
    t = _time(n)
    return np.minimum(t / attack, 1.0) * np.exp(-np.maximum(t - attack, 0.0) / decay)


def _pitch(note: float) -> float:
    """Hz of a MIDI note."""
    return 440.0 * 2 ** ((note - 69) / 12)


def _events(rng: np.random.Generator, n: int, per_second: float) -> Iterator[int]:
    """Random samples at which something happens."""
    yield from np.sort(rng.integers(0, n, size=1 + rng.poisson(per_second * n / RATE)))


def _add(out: Wave, start: int, part: Wave) -> None:
    """Add a part at a sample, cut at the end."""
    part = part[: len(out) - start]
    out[start : start + len(part)] += part


_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 6, 7, 10))
_CHORDS = ((0, 4, 7), (0, 3, 7), (0, 4, 7, 11), (0, 3, 7, 10), (0, 5, 7), (0, 4, 7, 10))


def _notes(rng: np.random.Generator, n: int, seconds: float) -> Iterator[tuple[int, int, float]]:
    """A random walk over a scale: start, samples and MIDI note."""
    scale, root, step = _SCALES[rng.integers(len(_SCALES))], rng.integers(40, 64), int(rng.integers(0, 14))
    start = 0
    while start < n:
        length = int(seconds * RATE * rng.choice([0.5, 1.0, 1.0, 2.0]))
        step = int(np.clip(step + rng.integers(-3, 4), 0, 20))
        yield start, length, float(root + 12 * (step // len(scale)) + scale[step % len(scale)])
        start += max(length, 1)


# ------------------------------------------------------------------ recipes to fit with


def _zeros(rng: np.random.Generator, n: int) -> Wave:
    return np.zeros(n)


def _dithered(rng: np.random.Generator, n: int) -> Wave:
    """Rounding noise of 16 bits."""
    return np.round(rng.standard_normal(n) * rng.uniform(0.3, 2.0)) / 32768


def _hum(rng: np.random.Generator, n: int) -> Wave:
    """Mains hum with harmonics over faint noise."""
    base, t = rng.choice([50.0, 60.0]), _time(n)
    wave = sum(rng.random() / k * np.sin(2 * np.pi * k * base * t + rng.uniform(0, 6.3)) for k in range(1, 9))
    return 10 ** rng.uniform(-4, -2.3) * (wave + rng.uniform(0.02, 0.5) * _colored(rng, n, 1.0))


def _room(rng: np.random.Generator, n: int) -> Wave:
    """A quiet room: low noise that drifts, sometimes with thumps."""
    wave = _colored(rng, n, rng.uniform(0.8, 2.2)) * (0.6 + 0.4 * _drift(rng, n, 0.7))
    if rng.random() < 0.5:
        for start in _events(rng, n, 0.4):
            length = int(rng.uniform(0.03, 0.2) * RATE)
            thump = _lowpass(rng.standard_normal(length), rng.uniform(100, 1500))
            _add(wave, start, rng.uniform(2, 15) * thump * _envelope(length, 0.003, length / RATE / 4))
    return 10 ** rng.uniform(-4, -2) * wave


def _noise(rng: np.random.Generator, n: int) -> Wave:
    return _colored(rng, n, rng.choice([-2, -1, 0, 1, 2]) + rng.uniform(-0.3, 0.3))


def _band_noise(rng: np.random.Generator, n: int) -> Wave:
    low = rng.uniform(60, 4000)
    return _band(_colored(rng, n, 0), low, low * rng.uniform(1.2, 6), int(rng.integers(1, 4)))


def _fan(rng: np.random.Generator, n: int) -> Wave:
    """Air noise with the tones of the blades."""
    blades, t = rng.uniform(30, 180), _time(n)
    tones = sum(np.sin(2 * np.pi * k * blades * t + rng.uniform(0, 6.3)) / k for k in range(1, 5))
    swell = 1 + 0.3 * np.sin(2 * np.pi * rng.uniform(0.2, 8) * t)
    return (_colored(rng, n, rng.uniform(0.8, 1.8)) + rng.uniform(0, 0.6) * tones) * swell


def _traffic(rng: np.random.Generator, n: int) -> Wave:
    """Passing cars: low noise that swells."""
    wave = 0.2 * _colored(rng, n, 1.5)
    for _ in range(rng.integers(1, 4)):
        near = np.exp(-(((_time(n) - rng.uniform(0, n / RATE)) / rng.uniform(0.4, 1.5)) ** 2))
        wave = wave + near * _band(_colored(rng, n, 1.0), rng.uniform(40, 120), rng.uniform(500, 2500))
    return wave


def _clicks(rng: np.random.Generator, n: int) -> Wave:
    wave = 10 ** rng.uniform(-3, -1) * _colored(rng, n, 1.0)
    for start in _events(rng, n, rng.uniform(2, 30)):
        length = int(rng.uniform(0.002, 0.03) * RATE) + 16
        _add(wave, start, rng.uniform(0.2, 1) * rng.standard_normal(length) * _envelope(length, 0.001, 0.005))
    return wave


def _modulated(rng: np.random.Generator, n: int) -> Wave:
    """Noise in two bands that come and go at the pace of syllables."""
    wave = np.zeros(n)
    for _ in range(2):
        low = rng.uniform(100, 3000)
        wave += _band(_colored(rng, n, 0), low, low * rng.uniform(1.3, 3)) * _drift(
            rng, n, rng.uniform(0.08, 0.5)
        )
    return wave


def _additive(rng: np.random.Generator) -> Callable[[int, float], Wave]:
    """An instrument of summed harmonics: samples and note -> wave."""
    count = int(rng.integers(1, 14))
    levels = rng.random(count) * np.arange(1, count + 1) ** -rng.uniform(0.5, 2.0)
    attack, decay = rng.uniform(0.003, 0.12), rng.uniform(0.1, 2.0)
    vibrato, depth = rng.uniform(4, 7), rng.choice([0.0, rng.uniform(0.0, 0.01)])

    def play(length: int, note: float) -> Wave:
        t = _time(length)
        wobble = depth * np.sin(2 * np.pi * vibrato * t) / (2 * np.pi * vibrato)
        phase = 2 * np.pi * _pitch(note) * (t + wobble)
        wave = sum(
            level * np.sin(k * phase) for k, level in enumerate(levels, 1) if k * _pitch(note) < RATE / 2
        )
        return wave * _envelope(length, attack, decay) * np.minimum((length - np.arange(length)) / 160, 1)

    return play


def _pluck(rng: np.random.Generator) -> Callable[[int, float], Wave]:
    """A plucked string (Karplus and Strong 1983)."""
    damping, blend = rng.uniform(0.985, 0.9995), rng.uniform(0.3, 0.7)

    def play(length: int, note: float) -> Wave:
        period = max(int(RATE / _pitch(note)), 2)
        burst = np.zeros(length)
        burst[: min(period, length)] = rng.uniform(-1, 1, min(period, length))
        feedback = np.zeros(period + 2)
        feedback[0], feedback[period], feedback[period + 1] = 1, -damping * blend, -damping * (1 - blend)
        return lfilter([1.0], feedback, burst)

    return play


def _instrument(rng: np.random.Generator) -> Callable[[int, float], Wave]:
    return _pluck(rng) if rng.random() < 0.35 else _additive(rng)


def _melody(rng: np.random.Generator, n: int) -> Wave:
    wave, play = np.zeros(n), _instrument(rng)
    for start, length, note in _notes(rng, n, rng.uniform(0.12, 0.6)):
        _add(wave, start, play(int(length * rng.uniform(0.8, 1.6)), note))
    return wave


def _chords(rng: np.random.Generator, n: int) -> Wave:
    wave, play, seconds = np.zeros(n), _instrument(rng), rng.uniform(0.4, 1.6)
    for start, length, note in _notes(rng, n, seconds):
        for interval in _CHORDS[rng.integers(len(_CHORDS))]:
            _add(wave, start, play(int(length * 1.2), note + interval))
    return wave


def _arpeggio(rng: np.random.Generator, n: int) -> Wave:
    wave, play, beat = np.zeros(n), _instrument(rng), rng.uniform(0.08, 0.25)
    root, chord = rng.integers(40, 70), _CHORDS[rng.integers(len(_CHORDS))]
    for number, start in enumerate(range(0, n, int(beat * RATE))):
        if number % 8 == 0:
            root, chord = root + rng.choice([-5, -2, 0, 2, 5]), _CHORDS[rng.integers(len(_CHORDS))]
        _add(
            wave, start, play(int(rng.uniform(1, 4) * beat * RATE), float(root + chord[number % len(chord)]))
        )
    return wave


def _drums(rng: np.random.Generator, n: int) -> Wave:
    wave, beat = np.zeros(n), rng.uniform(0.1, 0.3)
    patterns = rng.random((3, 8)) < np.array([[0.35], [0.3], [0.7]])
    patterns[0, 0] = True
    for number, start in enumerate(range(0, n, int(beat * RATE))):
        kick, snare, hat = patterns[:, number % 8]
        if kick:
            t = _time(4000)
            _add(wave, start, np.sin(2 * np.pi * (50 * t + 4 * (1 - np.exp(-t / 0.03)))) * np.exp(-t / 0.08))
        if snare:
            hit = _band(rng.standard_normal(3200), 180, 5000) * _envelope(3200, 0.001, 0.06)
            _add(wave, start, 0.5 * hit)
        if hat:
            hit = _band(rng.standard_normal(1600), 5000, 7800) * _envelope(1600, 0.001, 0.02)
            _add(wave, start, 0.2 * hit)
    return wave


def _band_of_players(rng: np.random.Generator, n: int) -> Wave:
    """Two or three of the other recipes of music together."""
    parts = [(_melody, _arpeggio)[rng.integers(2)], _chords, _drums][: rng.integers(2, 4)]
    return np.sum([_leveled(part(rng, n)) * rng.uniform(0.3, 1) for part in parts], axis=0)


def _sines(rng: np.random.Generator, n: int) -> Wave:
    waves = [
        rng.random() * np.sin(2 * np.pi * rng.uniform(80, 6000) * _time(n)) for _ in range(rng.integers(1, 4))
    ]
    return np.sum(waves, axis=0)


def _siren(rng: np.random.Generator, n: int) -> Wave:
    """A tone that sweeps up and down."""
    low, rate = rng.uniform(200, 1200), rng.uniform(0.2, 4)
    frequency = low * (1 + rng.uniform(0.3, 1.5) * (0.5 + 0.5 * np.sin(2 * np.pi * rate * _time(n))))
    phase = 2 * np.pi * np.cumsum(frequency) / RATE
    return np.sin(phase) + rng.uniform(0, 0.5) * np.sin(2 * phase) + rng.uniform(0, 0.3) * np.sin(3 * phase)


def _beeps(rng: np.random.Generator, n: int) -> Wave:
    wave, every, high = np.zeros(n), rng.uniform(0.15, 1.2), rng.uniform(400, 3500)
    for start in range(int(rng.uniform(0, every) * RATE), n, int(every * RATE)):
        length = int(rng.uniform(0.3, 0.8) * every * RATE)
        _add(wave, start, np.sin(2 * np.pi * high * _time(length)))
    return wave + 10 ** rng.uniform(-4, -1.5) * _colored(rng, n, 1.0)


FITTING: dict[str, dict[str, Recipe]] = {
    "silence": {"zeros": _zeros, "dither": _dithered, "hum": _hum, "room": _room},
    "noise": {
        "colored": _noise,
        "band": _band_noise,
        "fan": _fan,
        "traffic": _traffic,
        "clicks": _clicks,
        "modulated": _modulated,
    },
    "music": {
        "melody": _melody,
        "chords": _chords,
        "arpeggio": _arpeggio,
        "drums": _drums,
        "players": _band_of_players,
    },
    "tones": {"sines": _sines, "siren": _siren, "beeps": _beeps},
}

# ------------------------------------------------------------------ recipes to test with


def _thump_in_silence(rng: np.random.Generator, n: int) -> Wave:
    """Digital silence but for one knock on the microphone."""
    wave, length = np.zeros(n), int(rng.uniform(0.02, 0.1) * RATE)
    knock = _lowpass(rng.standard_normal(length), 400) * np.hanning(length)
    _add(wave, int(rng.uniform(0, 0.8) * n), rng.uniform(0.01, 0.3) * knock)
    return wave


def _buzz(rng: np.random.Generator, n: int) -> Wave:
    """A badly shielded line: clipped mains and hiss, quiet."""
    mains = np.clip(3 * np.sin(2 * np.pi * rng.choice([50.0, 60.0]) * _time(n)), -1, 1)
    hiss = rng.uniform(0.2, 1) * rng.standard_normal(n)
    return 10 ** rng.uniform(-4, -2.5) * (_lowpass(mains, 2000, 1) + hiss)


def _coarse(rng: np.random.Generator, n: int) -> Wave:
    """The noise of a device of 10 bits."""
    return np.round(_lowpass(rng.standard_normal(n), rng.uniform(500, 6000)) * rng.uniform(0.5, 2)) / 512


def _rain(rng: np.random.Generator, n: int) -> Wave:
    wave = 0.03 * _colored(rng, n, 0.5)
    for start in _events(rng, n, rng.uniform(80, 400)):
        t = _time(240)
        drop = np.sin(2 * np.pi * rng.uniform(1500, 6500) * t) * np.exp(-t / rng.uniform(0.001, 0.004))
        _add(wave, start, rng.exponential(0.2) * drop)
    return wave


def _wind(rng: np.random.Generator, n: int) -> Wave:
    """Noise through a resonance that wanders."""
    bands = [_band(rng.standard_normal(n), center / 1.3, center * 1.3) for center in (150, 250, 420, 700)]
    place = 3 * _drift(rng, n, rng.uniform(0.4, 1.2))
    gusts = 0.2 + _drift(rng, n, 0.6)
    return gusts * sum(np.exp(-((place - number) ** 2)) * band for number, band in enumerate(bands))


def _engine(rng: np.random.Generator, n: int) -> Wave:
    """Ignitions through the resonance of an exhaust."""
    rate = rng.uniform(18, 60) * (1 + 0.3 * _drift(rng, n, 1.0))
    fired = np.diff(np.floor(np.cumsum(rate) / RATE), prepend=0.0) * rng.uniform(0.7, 1.3, n)
    exhaust = _envelope(1600, 0.001, 0.02) * rng.standard_normal(1600)
    return _lowpass(fftconvolve(fired, exhaust)[:n], rng.uniform(600, 3000)) + 0.02 * _colored(rng, n, 1.0)


def _applause(rng: np.random.Generator, n: int) -> Wave:
    wave = np.zeros(n)
    for _ in range(rng.integers(6, 40)):
        clap = _band(rng.standard_normal(400), rng.uniform(500, 1200), rng.uniform(1800, 5000))
        clap *= _envelope(400, 0.001, 0.006)
        start = rng.uniform(0, 0.4)
        while start < n / RATE:
            _add(wave, int(start * RATE), rng.uniform(0.3, 1) * clap)
            start += rng.normal(0.25, 0.03)
    return wave


def _washing(rng: np.random.Generator, n: int) -> Wave:
    """A turning drum: noise that goes round, with knocks."""
    turn = rng.uniform(0.5, 3)
    wave = _colored(rng, n, 1.3) * (0.4 + 0.6 * np.sin(np.pi * turn * _time(n)) ** 2)
    for start in range(0, n, int(RATE / turn)):
        _add(wave, start, 3 * _lowpass(rng.standard_normal(1200), 300) * np.hanning(1200))
    return wave


def _fm(rng: np.random.Generator) -> Callable[[int, float], Wave]:
    """A voice of frequency modulation (Chowning 1973)."""
    ratio = rng.choice([0.5, 1.0, 1.41, 2.0, 3.0, 3.5, 7.0])
    index, fall = rng.uniform(0.5, 8), rng.uniform(0.1, 1.0)

    def play(length: int, note: float) -> Wave:
        t, f = _time(length), _pitch(note)
        wave = np.sin(2 * np.pi * f * t + index * np.exp(-t / fall) * np.sin(2 * np.pi * ratio * f * t))
        return wave * np.sin(np.pi * np.linspace(0, 1, length)) ** 0.3 * np.exp(-t / (2 * fall))

    return play


def _fm_tune(rng: np.random.Generator, n: int) -> Wave:
    wave, voices = np.zeros(n), [_fm(rng) for _ in range(rng.integers(1, 4))]
    for number, voice in enumerate(voices):
        for start, length, note in _notes(rng, n, rng.uniform(0.15, 0.8)):
            _add(wave, start, voice(length, note + 12 * number))
    return wave


def _saws(rng: np.random.Generator, n: int) -> Wave:
    """Detuned saw waves through a filter that opens and closes, as a string section."""
    wave = np.zeros(n)
    for start, length, note in _notes(rng, n, rng.uniform(0.5, 1.5)):
        for interval in rng.choice(_SCALES[0], size=3, replace=False):
            for detune in (-0.08, 0.0, 0.09):
                phase = (_pitch(note + interval + detune) * _time(length) + rng.random()) % 1
                _add(wave, start, (2 * phase - 1) * np.hanning(length) ** 0.5)
    return _lowpass(wave, rng.uniform(700, 4000), 3)


def _organ(rng: np.random.Generator, n: int) -> Wave:
    """Drawbars with a rotating loudspeaker."""
    bars, wave = rng.integers(0, 9, size=9) / 8, np.zeros(n)
    feet = (0.5, 1.5, 1, 2, 3, 4, 5, 6, 8)
    for start, length, note in _notes(rng, n, rng.uniform(0.4, 1.2)):
        for interval in (0, 4, 7):
            tones = (
                bar * np.sin(2 * np.pi * foot * _pitch(note + interval) * _time(length))
                for foot, bar in zip(feet, bars, strict=True)
            )
            _add(wave, start, sum(tones) * np.minimum(1, 50 * np.linspace(0, 1, length)))
    return wave * (1 + 0.4 * np.sin(2 * np.pi * rng.uniform(1, 7) * _time(n)))


def _bells(rng: np.random.Generator, n: int) -> Wave:
    """Struck metal: partials that are no harmonics."""
    partials = np.array([0.56, 0.92, 1.19, 1.71, 2.0, 2.74, 3.0, 3.76])
    wave, decay = np.zeros(n), rng.uniform(0.3, 1.5)
    for start, _, note in _notes(rng, n, rng.uniform(0.2, 0.7)):
        t = _time(int(2 * decay * RATE))
        struck = sum(np.sin(2 * np.pi * p * _pitch(note + 12) * t) * np.exp(-t * p / decay) for p in partials)
        _add(wave, start, struck)
    return wave


def _loop(rng: np.random.Generator, n: int) -> Wave:
    """A beat of synthetic drums under a saw bass."""
    wave, beat = np.zeros(n), rng.uniform(0.11, 0.24)
    root = rng.integers(28, 44)
    for number, start in enumerate(range(0, n, int(beat * RATE))):
        t = _time(int(beat * RATE))
        if number % 4 == 0:
            _add(wave, start, 2 * np.sin(40 * np.exp(-t * 18)) * np.exp(-t / 0.1))
        if number % 8 == 4:
            _add(wave, start, rng.standard_normal(len(t)) * np.exp(-t / 0.05))
        note = root + rng.choice([0, 0, 3, 7, 12])
        _add(wave, start, _lowpass(2 * ((_pitch(note) * t) % 1) - 1, rng.uniform(400, 2500)))
    return wave


def _telephone(rng: np.random.Generator, n: int) -> Wave:
    """Dialled keys (DTMF) or the tone of a busy line."""
    wave, busy = np.zeros(n), rng.random() < 0.4
    for start in range(0, n, int(rng.uniform(0.2, 0.9) * RATE)):
        low, high = (425, 425) if busy else (rng.choice([697, 770, 852, 941]), rng.choice([1209, 1336, 1477]))
        t = _time(int(rng.uniform(0.1, 0.4) * RATE))
        _add(wave, start, np.sin(2 * np.pi * low * t) + np.sin(2 * np.pi * high * t))
    return wave + 0.003 * rng.standard_normal(n)


def _alarm(rng: np.random.Generator, n: int) -> Wave:
    """Two square tones in turn, as an alarm clock or a monitor."""
    first, turn, t = rng.uniform(400, 2500), rng.uniform(1, 8), _time(n)
    tone = np.where((t * turn) % 1 < 0.5, first, first * rng.uniform(0.6, 0.9))
    return np.sign(np.sin(2 * np.pi * np.cumsum(tone) / RATE)) * ((t * turn / 4) % 1 < rng.uniform(0.5, 1))


def _morse(rng: np.random.Generator, n: int) -> Wave:
    keyed = np.repeat(rng.random(n // 960 + 1) < 0.6, 960)[:n]
    return np.sin(2 * np.pi * rng.uniform(450, 950) * _time(n)) * _lowpass(keyed.astype(float), 80)


TESTING: dict[str, dict[str, Recipe]] = {
    "silence": {"knock": _thump_in_silence, "buzz": _buzz, "coarse": _coarse},
    "noise": {"rain": _rain, "wind": _wind, "engine": _engine, "applause": _applause, "washing": _washing},
    "music": {"fm": _fm_tune, "saws": _saws, "organ": _organ, "bells": _bells, "loop": _loop},
    "tones": {"telephone": _telephone, "alarm": _alarm, "morse": _morse},
}


def _leveled(wave: Wave) -> Wave:
    return wave / max(np.abs(wave).max(), 1e-9)


def sounds(
    number: int, *, seed: int = 0, test: bool = False, kinds: Iterable[str] | None = None
) -> list[Sound]:
    """Made sounds, as many of each recipe; of `test` the recipes that no detector was fitted to.

    Args:
        number: Sounds of each kind.
        seed: Of all that is random.
        test: The recipes of `TESTING`; else those of `FITTING`.
        kinds: Some of silence, noise, music, tones; all by default.
    """
    table, made = TESTING if test else FITTING, []
    for kind in table if kinds is None else kinds:
        recipes = list(table[kind].items())
        for place in range(number):
            name, recipe = recipes[place % len(recipes)]
            rng = np.random.default_rng([seed, int(test), list(table).index(kind), place])
            wave = np.asarray(recipe(rng, int(rng.uniform(1, 6) * RATE)), dtype=float)
            if kind != "silence":  # its level is part of the recipe
                wave = _leveled(wave) * 10 ** rng.uniform(-1.5, 0)
            made.append(Sound(wave.clip(-1, 1).astype(np.float32), kind, name))
    return made


def spoken(waveform: Wave, *, seed: int) -> Wave:
    """A clip of speech as it may be recorded elsewhere: pauses, noise or music behind it, another room."""
    rng = np.random.default_rng([seed, 7])
    wave = np.asarray(waveform, dtype=float)
    if rng.random() < 0.4:
        silent = (rng.uniform(0, 1.5, size=2) * RATE).astype(int)
        wave = np.pad(wave, (silent[0], silent[1]))
    level = max(wave.std(), 1e-6)
    if rng.random() < 0.25:
        echo = rng.standard_normal(int(rng.uniform(0.1, 0.5) * RATE))
        echo *= np.exp(-_time(len(echo)) / rng.uniform(0.03, 0.15))
        echo[0] = rng.uniform(3, 15)
        wave = fftconvolve(wave, echo)[: len(wave)]
        wave *= level / max(wave.std(), 1e-6)
    if rng.random() < 0.25:
        wave = _lowpass(wave, rng.uniform(3000, 7500), 4)
    if rng.random() < 0.25:  # the tilt of another microphone
        wave = lfilter([1.0, rng.uniform(-0.8, 0.5)], [1.0], wave)
        wave *= level / max(wave.std(), 1e-6)
    if rng.random() < 0.5:
        kind = FITTING[rng.choice(["noise", "noise", "silence", "music"])]
        behind = np.asarray(list(kind.values())[rng.integers(len(kind))](rng, len(wave)), dtype=float)
        wave = wave + behind / max(behind.std(), 1e-9) * level * 10 ** (-rng.uniform(8, 40) / 20)
    wave = _leveled(wave) * 10 ** rng.uniform(-1.5, 0)
    return wave.astype(np.float32)


# ------------------------------------------------------------------ texts


def _installed(package: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ValueError(f"{name} is not installed; accepted: pip install Django Faker, for these texts")
    return Path(spec.origin).parent


def _plain(text: str) -> str | None:
    """A message of a user interface as plain words; None if little is left."""
    text = re.sub(r"<[^>]*>|%\(\w+\)[sd]|%[sd]|\{[^}]*\}|[\"“”«»_&]", " ", text.split("\n\n")[0])
    text = re.sub(r"\s+([.,:;?!])", r"\1", re.sub(r"\s+", " ", text)).strip(" :;,-")
    return text if sum(character.isalpha() for character in text) >= 4 else None


@functools.cache
def _messages(language: str) -> tuple[str, ...]:
    """Django's messages in a language; in English, the messages that others translate."""
    folder = _installed("django", "Django")
    found: set[str] = set()
    catalogs = f"locale/{'de' if language == 'en' else language}/LC_MESSAGES/django.mo"
    for file in sorted(folder.rglob(catalogs)):
        with file.open("rb") as opened:
            catalog = vars(gettext.GNUTranslations(opened))["_catalog"]
        for key, value in catalog.items():
            key = key[0] if isinstance(key, tuple) else key
            text = _plain(key if language == "en" else value) if key and value != key else None
            if text is not None:
                found.add(text)
    return tuple(sorted(found))


def _foreign_messages(language: str) -> list[str]:
    """Django's messages in another language, without those that a known one has too, and short names."""
    known = {message for name in KNOWN for message in _messages(name)}
    messages = (text for text in _messages(language) if text not in known)
    return [text for text in messages if len(text) > 11 or not text.isascii()]


def _words(locale: str) -> list[str]:
    """Faker's word list of a locale."""
    _installed("faker", "Faker")
    module = importlib.import_module(f"faker.providers.lorem.{locale}")
    return list(module.Provider.word_list)


def _in_language(language: str, locale: str | None, number: int, rng: np.random.Generator) -> Iterator[str]:
    """Messages, parts of them, and rows of words; some as a recogniser would write them."""
    messages = _messages(language) if language in KNOWN else _foreign_messages(language)
    words = [] if locale is None else _words(locale)
    joint = "" if language in ("ja", "zh_Hans", "zh_Hant") else " "
    for _ in range(number):
        if words and (not messages or rng.random() < 0.4):
            text = joint.join(rng.choice(words, size=rng.integers(2, 14)))
        else:
            text = messages[rng.integers(len(messages))]
            if rng.random() < 0.2:
                text = f"{text} {messages[rng.integers(len(messages))]}"
        if rng.random() < 0.4:
            text = re.sub(r"[^\w\s'’-]", "", text.lower())
        yield text


def other_languages(*, test: bool = False) -> list[str]:
    """Languages of `texts`, by Django's names; without those of the test and their variants unless `test`."""
    locales = _installed("django", "Django") / "conf" / "locale"
    names = sorted(file.parents[1].name for file in locales.glob("*/LC_MESSAGES/django.mo"))
    left = {*KNOWN, *(() if test else TEST_LANGUAGES)}
    base = [name.split("_")[0] for name in left]
    # made of the words of others, or nearly German
    left_out = {*base, "eo", "ia", "io", "lb"}
    return [name for name in names if name.split("_")[0] not in left_out]


def texts(number: int, *, seed: int = 0, languages: Sequence[str] | None = None) -> list[Text]:
    """Texts in other languages, `number` in all, as many of each (default: `other_languages()`)."""
    languages = other_languages() if languages is None else languages
    made = []
    for place, language in enumerate(languages):
        rng = np.random.default_rng([seed, 11, place])
        share = len(range(place, number, len(languages)))
        made += [Text(text, language) for text in _in_language(language, _FAKER.get(language), share, rng)]
    return made


def known_texts(number: int, *, seed: int = 0) -> list[Text]:
    """As `texts`, in the languages that the model knows: Django's tone must not give a language away."""
    made = []
    for place, (language, locale) in enumerate(KNOWN.items()):
        rng = np.random.default_rng([seed, 13, place])
        share = len(range(place, number, len(KNOWN)))
        # their word lists are sentences without order, which is no text of the language; but it is its words
        made += [Text(text, language) for text in _in_language(language, locale, share, rng)]
    return made


def _random_letters(rng: np.random.Generator, text: str) -> str:
    letters = list("abcdefghijklmnopqrstuvwxyz" + " " * rng.integers(2, 7))
    return "".join(rng.choice(letters, size=rng.integers(6, 60))).strip() or "xqz"


def _shuffled(rng: np.random.Generator, text: str) -> str:
    return "".join(rng.permutation(list(text)))


def _mashed(rng: np.random.Generator, text: str) -> str:
    rows = ("qwertyuiop", "asdfghjkl", "zxcvbnm", "asdfjklö", "1234567890")
    pieces = []
    for _ in range(rng.integers(1, 6)):
        row, start = rows[rng.integers(len(rows))], rng.integers(0, 5)
        pieces.append("".join(rng.choice(list(row[start : start + 5]), size=rng.integers(3, 12))))
    return rng.choice(["", " "]).join(pieces)


def _numbers(rng: np.random.Generator, text: str) -> str:
    return " ".join(
        str(rng.integers(0, 10 ** rng.integers(1, 9))) + rng.choice(["", "", ".", ",", "%", "/"])
        for _ in range(rng.integers(1, 10))
    )


def _address(rng: np.random.Generator, text: str) -> str:
    words = re.findall(r"[a-z]{2,}", text.lower())[:4] or ["index"]
    path = "/".join([*words, str(rng.integers(0, 99999))])
    scheme, domain = (
        rng.choice(["https://", "http://", "www.", "ftp://"]),
        rng.choice([".com", ".org", ".io"]),
    )
    return f"{scheme}{words[0]}{domain}/{path}"


def _symbols(rng: np.random.Generator, text: str) -> str:
    return "".join(rng.choice(list("!?.,;:-_#*+~=()[]{}<>|/\\&%$§@^ "), size=rng.integers(4, 40)))


def _pseudo_words(rng: np.random.Generator, text: str) -> str:
    """Syllables that make no word."""
    return " ".join(
        "".join(
            rng.choice(list("bdfgklmnprstvwxz")) + rng.choice(["a", "e", "i", "o", "u", "ou", "y"])
            for _ in range(rng.integers(1, 5))
        )
        for _ in range(rng.integers(2, 9))
    )


def _coded(rng: np.random.Generator, text: str) -> str:
    raw = rng.bytes(int(rng.integers(8, 40)))
    return raw.hex() if rng.random() < 0.5 else base64.b64encode(raw).decode()


def _reversed(rng: np.random.Generator, text: str) -> str:
    return text[::-1]


def _file_path(rng: np.random.Generator, text: str) -> str:
    names = [_coded(rng, "")[:6] for _ in range(rng.integers(2, 5))]
    root, separator = (("/", "/"), ("C:\\", "\\"))[rng.integers(2)]
    return root + separator.join(names) + rng.choice([".dat", ".tmp", ".bin"])


def _telephone_number(rng: np.random.Generator, text: str) -> str:
    country, area, own, extension = (rng.integers(least, 100 * least) for least in (1, 10, 10**5, 1))
    return f"+{country} {area} {own}-{extension}"


_NONSENSE: dict[bool, dict[str, Callable[[np.random.Generator, str], str]]] = {
    False: {
        "letters": _random_letters,
        "shuffled": _shuffled,
        "mashed": _mashed,
        "numbers": _numbers,
        "address": _address,
        "symbols": _symbols,
    },
    True: {
        "pseudo": _pseudo_words,
        "coded": _coded,
        "reversed": _reversed,
        "path": _file_path,
        "telephone": _telephone_number,
    },
}


def nonsense(texts: Sequence[str], number: int, *, seed: int = 0, test: bool = False) -> list[Text]:
    """Strings that are no language, some made of `texts` in an alphabet; of `test` by other recipes."""
    recipes, made = list(_NONSENSE[test].items()), []
    # shuffled Chinese is still made of words
    texts = [text for text in texts if re.search(r"[a-zA-Z]{2}", text)]
    for place in range(number):
        name, recipe = recipes[place % len(recipes)]
        rng = np.random.default_rng([seed, 17, int(test), place])
        made.append(Text(recipe(rng, texts[rng.integers(len(texts))]), name))
    return made


def test_texts() -> list[Text]:
    """Sentences of every day and of the clinic that were written for this test, in other languages."""
    with _SENTENCES.open(encoding="utf-8", newline="") as file:
        return [Text(row["text"], row["language"]) for row in csv.DictReader(file)]


# ------------------------------------------------------------------ rows


def outlier_rows(
    known: Sequence[str],
    *,
    seed: int = 0,
    test: bool = False,
    sounds_of_each: int = 150,
    foreign: int = 2400,
    strings: int = 400,
    languages: Sequence[str] | None = None,
) -> list[Utterance]:
    """Outliers as rows, each with audio or a text; `kind` is the sound's kind and recipe, or the text's kind.

    Args:
        known: Texts of the languages that the model knows, of which some strings are made.
        seed: Of all that is random.
        test: The test's recipes and sentences; `foreign` and `languages` then have no effect.
        sounds_of_each: Sounds of each kind.
        foreign: Texts in other languages.
        strings: Strings that are no language.
        languages: See `texts`. `other_languages(test=True)` adds other texts in the languages of the test, as
            is right for a checkpoint that is published; the default tells how it takes unknown languages.
    """
    rows = [
        Utterance(audio=sound.waveform, kind=f"{sound.kind}/{sound.recipe}")
        for sound in sounds(sounds_of_each, seed=seed, test=test)
    ]
    others = test_texts() if test else texts(foreign, seed=seed, languages=languages)
    made = nonsense(known, strings, seed=seed, test=test)
    rows += [Utterance(text=text.text, language=text.kind, kind="language") for text in others]
    return rows + [Utterance(text=text.text, kind=f"nonsense/{text.kind}") for text in made]
