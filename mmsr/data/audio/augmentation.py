"""Augmentation of training audio: noise, rooms, microphones, telephones, lost packets.

    waveform [s] ─► each augmentation in the order of the config, with probability p ─► waveform [s']

**Label safety.** A label can depend on loudness, pitch and speed. So nothing is on by default, ranges are
narrow, and each class lists under "Evidence lost" what a model cannot learn from a changed row. A waveform
beyond full scale is scaled down as a whole, which keeps every ratio and lowers the level.

All random numbers come from one generator, a row's own (`row_generator`): the same seed, epoch and row give
the same samples in any process, in any order and after a resumed run.

torchaudio computes what it has. torch-audiomentations draws from the global generator, and audiomentations
needs soxr below 1.0, so that neither is used.

Notation used for tensor shapes: `b` batch, `s` samples, `f` frames, `l` encoder layers, `d` width.
"""

import hashlib
import inspect
import io
import math
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.extras import check_installed
from mmsr.records import SAMPLE_RATE

_T = TypeVar("_T")

_ENDINGS = {f".{form.lower()}" for form in soundfile.available_formats() if form != "RAW"}
_ENDINGS |= {".opus", ".oga", ".m4a", ".mp4", ".webm"}

_WINDOW = 1024  # samples of the phase vocoder's window: 64 ms hold some periods of a low voice
# libsndfile's format, subtype and input rate of each codec.
_CODECS = {
    "g711": ("WAV", "ULAW", 8000),
    "gsm": ("WAV", "GSM610", 8000),
    "mp3": ("MP3", "MPEG_LAYER_III", 16000),
    "vorbis": ("OGG", "VORBIS", 16000),
    "opus": ("OGG", "OPUS", 16000),
}


class Augmentation(torch.nn.Module):
    """One kind of change, made to each row with probability `p`; the identity in eval mode.

    Args:
        p: Probability that a row is changed.

    Raises:
        ValueError: An option is out of its range, or a library is missing.
    """

    of: ClassVar[Literal["waveform", "states"]] = "waveform"
    needs_torchaudio: ClassVar[bool] = True
    stretch: float = 1.0
    """Largest factor by which a row becomes longer."""
    added_seconds: float = 0.0
    """Most seconds that are added to a row."""

    def __init__(self, *, p: float = 0.5):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p is {p}; accepted: a probability, from 0 to 1")
        if self.needs_torchaudio:
            check_installed(type(self).__name__, "torchaudio")
        self.p = p

    @torch.no_grad()
    def forward(self, row: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Change a row: a waveform `[s]`, or states `[f, ...]`.

        Args:
            row: The row, without padding.
            generator: A CPU generator; torch's default if None.
        """
        if self.of == "waveform" and row.ndim != 1:
            raise ValueError(f"row has shape {list(row.shape)}; accepted: [s]")
        if not self.training or not len(row) or _uniform(0, 1, generator) >= self.p:
            return row
        changed = self.change(row.float(), generator).to(row.dtype)
        return changed if self.of == "states" else changed / changed.abs().max().clamp(min=1)

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Change a row `[s]`, at least one sample long."""
        raise NotImplementedError


class Noise(Augmentation):
    """Adds noise at a signal-to-noise ratio over the whole clip, pauses included.

    Evidence lost: what is quieter than the noise, such as breath and whispering. Level, pitch and speed stay.
    A silent clip is not changed.

    Args:
        snr_db: Lowest and highest ratio in dB, drawn uniformly.
        colors: Synthetic noise: white (hiss) or pink (falls by 3 dB an octave, like rooms and crowds).
        folder: Recordings to use instead, also in subfolders; of a long one a piece, a short one repeated.
            They are decoded at each use, so short files are faster.
        p: See `Augmentation`.
    """

    def __init__(
        self,
        *,
        snr_db: Sequence[float] = (5.0, 20.0),
        colors: Sequence[Literal["white", "pink"]] = ("white", "pink"),
        folder: str | None = None,
        p: float = 0.5,
    ):
        super().__init__(p=p)
        self.snr_db = _range("snr_db", snr_db)
        self.colors = _choices("colors", colors, ("white", "pink"))
        self._recordings = None if folder is None else _Recordings(folder, "noise")

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Add noise to a row `[s]`."""
        from torchaudio.functional import add_noise

        snr = torch.tensor(_uniform(*self.snr_db, generator), device=row.device)
        noise = self._noise(len(row), generator).to(row.device)
        return add_noise(row, noise, snr) if row.any() else row

    def _noise(self, length: int, generator: torch.Generator | None) -> Tensor:
        if self._recordings is not None:
            noise = self._recordings.draw(generator)
            noise = noise.repeat(math.ceil(length / len(noise)) + 1)
            start = int(_uniform(0, len(noise) - length + 1, generator))
            piece = noise[start : start + length]
            # in place of a pause, what follows the peak
            return piece if piece.any() else noise[int(noise.abs().argmax()) :].repeat(2)[:length]
        noise = torch.randn(length, generator=generator)
        if _choice(self.colors, generator) == "white":
            return noise
        spectrum = torch.fft.rfft(noise)
        pink = torch.fft.irfft(spectrum / torch.arange(len(spectrum)).clamp(min=1).sqrt(), n=length)
        return pink if pink.any() else noise


class Reverb(Augmentation):
    """Adds a room's reverberation; the clip's energy and length are kept.

    Evidence lost: how words end and pauses, which the echo fills; the contrast of loud and soft. Pitch, speed
    and the mean level stay.

    Args:
        rt60: Shortest and longest time in seconds in which the echo falls by 60 dB: .2 is a furnished room,
            .6 a classroom. The synthetic room is white noise with that decay.
        drr_db: Lowest and highest ratio of direct sound to echo, in dB.
        folder: Recorded room impulse responses to use instead, each from its peak on.
        p: See `Augmentation`.
    """

    def __init__(
        self,
        *,
        rt60: Sequence[float] = (0.1, 0.5),
        drr_db: Sequence[float] = (0.0, 10.0),
        folder: str | None = None,
        p: float = 0.5,
    ):
        super().__init__(p=p)
        self.rt60 = _range("rt60", rt60, least=0.01)
        self.drr_db = _range("drr_db", drr_db)
        self._recordings = None if folder is None else _Recordings(folder, "a room's impulse response")

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Convolve a row `[s]` with a room."""
        from torchaudio.functional import fftconvolve

        room = self._room(generator).to(row.device)
        # Padded so that the transform's length has small factors: four times as fast.
        room = torch.nn.functional.pad(room, (0, -(len(row) + len(room) - 1) % 1024))
        wet = fftconvolve(row, room)[: len(row)]
        energy = wet.norm()
        return wet * (row.norm() / energy) if energy else row

    def _room(self, generator: torch.Generator | None) -> Tensor:
        if self._recordings is not None:
            room = self._recordings.draw(generator)
            return room[int(room.abs().argmax()) :]
        rt60, ratio = _uniform(*self.rt60, generator), _uniform(*self.drr_db, generator)
        time = torch.arange(1, int(rt60 * SAMPLE_RATE)) / SAMPLE_RATE
        echo = torch.randn(len(time), generator=generator) * 10 ** (-3 * time / rt60)
        return torch.cat([torch.ones(1), echo / echo.norm() * 10 ** (-ratio / 20)])


class Speed(Augmentation):
    """Changes speed and pitch together (Ko et al., 2015); the length changes.

    Evidence lost: speaking rate and pitch, which show arousal; so the factors are near 1. The usual .9 and
    1.1 move the pitch by 1.7 semitones.

    Args:
        factors: Factors to draw from, in whole percents; 1.05 is five percent faster.
        p: See `Augmentation`.
    """

    def __init__(self, *, factors: Sequence[float] = (0.95, 1.05), p: float = 0.5):
        super().__init__(p=p)
        percents = [round(100 * factor) for factor in factors]
        valid = bool(percents) and all(
            50 <= percent <= 200 and abs(100 * factor - percent) <= 1e-6
            for factor, percent in zip(factors, percents, strict=True)
        )
        _check("factors", list(factors), valid, "numbers from .5 to 2 in whole percents")
        self.percents = percents
        self.stretch = max(1.0, 100 / min(percents))

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Resample a row `[s]` to `[ceil(s / factor)]`."""
        from torchaudio.functional import resample

        # torchaudio's Speed truncates a factor such as .57 to .56, and is slow for rates without a divisor.
        return resample(row, _choice(self.percents, generator), 100)


class Pitch(Augmentation):
    """Shifts pitch and formants and keeps the length, by a phase vocoder: slow.

    Evidence lost: pitch, and who speaks; the vocoder blurs onsets. Speed and level stay. A semitone upward
    alone sounds more aroused, so the range is narrow.

    Args:
        semitones: Lowest and highest shift.
        p: See `Augmentation`.
    """

    def __init__(self, *, semitones: Sequence[float] = (-0.5, 0.5), p: float = 0.5):
        super().__init__(p=p)
        self.semitones = _range("semitones", semitones, least=-24, most=24)

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Shift a row `[s]`: stretch it in time, then resample it to its length."""
        from torchaudio.transforms import TimeStretch

        factor = 2 ** (_uniform(*self.semitones, generator) / 12)
        if len(row) <= _WINDOW:  # too short for a pitch
            return row
        window = torch.hann_window(_WINDOW, device=row.device)
        layout = {"n_fft": _WINDOW, "hop_length": _WINDOW // 4, "window": window}
        spectra = torch.stft(row, **layout, return_complex=True)  # type: ignore[arg-type]
        stretch = TimeStretch(hop_length=_WINDOW // 4, n_freq=len(spectra)).to(row.device)
        slow = torch.istft(stretch(spectra, 1 / factor), **layout)  # type: ignore[arg-type]
        # torchaudio's pitch_shift resamples between rates without a common divisor: up to 25 s a clip.
        shifted = soxr.resample(slow.cpu().numpy(), SAMPLE_RATE * factor, SAMPLE_RATE)
        return _to_length(shifted, len(row)).to(row.device)


class Gain(Augmentation):
    """Makes a clip louder or softer as a whole, at most up to full scale.

    Evidence lost: loudness, which tells anger from sadness; the contrast of loud and soft within it stays.

    Args:
        db: Lowest and highest change in dB.
        p: See `Augmentation`.
    """

    needs_torchaudio = False

    def __init__(self, *, db: Sequence[float] = (-3.0, 3.0), p: float = 0.5):
        super().__init__(p=p)
        self.db = _range("db", db)

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Scale a row `[s]`."""
        return row * 10 ** (_uniform(*self.db, generator) / 20)


class Codec(Augmentation):
    """Encodes and decodes a clip by a real codec, in memory, through libsndfile.

    Evidence lost: with g711 and gsm all above 4 kHz (breath, sharp consonants), with gsm much of the voice's
    quality too; with the others little. Level, pitch and speed stay.

    Args:
        kinds: Codecs to draw from: g711 (telephone), gsm (older mobile telephones), mp3, vorbis, opus (voice
            messages; slow).
        p: See `Augmentation`.
    """

    needs_torchaudio = False

    def __init__(self, *, kinds: Sequence[str] = ("g711", "gsm", "mp3"), p: float = 0.5):
        super().__init__(p=p)
        known = [name for name, (form, kind, _) in _CODECS.items() if soundfile.check_format(form, kind)]
        self.kinds = _choices("kinds", kinds, known)

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Send a row `[s]` through a codec."""
        form, subtype, rate = _CODECS[_choice(self.kinds, generator)]
        file = io.BytesIO()
        sent = soxr.resample(row.cpu().numpy(), SAMPLE_RATE, rate)
        if not len(sent):  # one sample at half the rate
            return row
        soundfile.write(file, sent, rate, format=form, subtype=subtype)
        file.seek(0)
        received, rate = soundfile.read(file, dtype="float32")
        back = soxr.resample(received, rate, SAMPLE_RATE)
        return _to_length(back, len(row)).to(row.device)  # gsm has blocks


class Equalizer(Augmentation):
    """Colours the sound as another microphone or loudspeaker would; energy and length are kept.

    The gain is drawn in dB at points from 100 Hz to 8 kHz, evenly spaced on a logarithmic axis, and
    interpolated between them; below 100 Hz it is as there. The phase does not change.

    Evidence lost: the balance of low and high frequencies, which tells a tense voice from a relaxed one, and
    vowels in part. Level, pitch and speed stay.

    Args:
        db: Lowest and highest gain at a point.
        points: Number of points.
        p: See `Augmentation`.
    """

    needs_torchaudio = False

    def __init__(self, *, db: Sequence[float] = (-6.0, 6.0), points: int = 6, p: float = 0.5):
        super().__init__(p=p)
        self.db = _range("db", db)
        _check("points", points, points >= 2, "2 or more")
        self.points = points

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Filter a row `[s]` by a random curve."""
        places = np.linspace(np.log(100), np.log(SAMPLE_RATE / 2), self.points)
        drawn = [_uniform(*self.db, generator) for _ in places]
        return _filtered(row, lambda hertz: 10 ** (np.interp(np.log(hertz.clip(1)), places, drawn) / 20))


class BandLimit(Augmentation):
    """Cuts low and high frequencies as cheap microphones and telephones do; energy and length are kept.

    The gain is that of Butterworth filters of order 4: -3 dB at each cut, beyond it 24 dB an octave. The
    phase does not change.

    Evidence lost: all beyond the cuts: the fundamental of low voices, breath and sharp consonants. Pitch can
    still be told from the harmonics; level and speed stay.

    Args:
        low_hz: Lowest and highest low cut, drawn uniformly; 0 is none.
        high_hz: Lowest and highest high cut, above every low cut; telephones have 3400.
        p: See `Augmentation`.
    """

    needs_torchaudio = False

    def __init__(
        self,
        *,
        low_hz: Sequence[float] = (50.0, 300.0),
        high_hz: Sequence[float] = (3000.0, 8000.0),
        p: float = 0.5,
    ):
        super().__init__(p=p)
        self.low_hz = _range("low_hz", low_hz, least=0, most=SAMPLE_RATE / 2)
        self.high_hz = _range("high_hz", high_hz, least=0, most=SAMPLE_RATE / 2)
        apart = self.low_hz[1] < self.high_hz[0]
        _check("high_hz", list(high_hz), apart, f"cuts above those of low_hz, {self.low_hz[1]:g}")

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Filter a row `[s]` by a random band."""
        low, high = _uniform(*self.low_hz, generator), _uniform(*self.high_hz, generator)
        return _filtered(
            row, lambda hertz: ((1 + (low / hertz.clip(1)) ** 8) * (1 + (hertz / high) ** 8)) ** -0.5
        )


class TimeMask(Augmentation):
    """Silences pieces of a clip, as lost packets do.

    Evidence lost: what was said there; the word that decides the label can be gone.

    Args:
        count: Number of pieces.
        seconds: Longest piece; each length is drawn between 0 and this.
        share: Largest share of a clip in one piece.
        p: See `Augmentation`.
    """

    def __init__(self, *, count: int = 2, seconds: float = 0.1, share: float = 0.1, p: float = 0.5):
        super().__init__(p=p)
        _check("count", count, count >= 1, "1 or more")
        _check("seconds", seconds, seconds > 0, "a positive number of seconds")
        _check("share", share, 0 < share <= 1, "more than 0, up to 1")
        self.count, self.seconds, self.share = count, seconds, share

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Silence pieces of a row `[s]`."""
        from torchaudio.functional import mask_along_axis

        with _torch_draws_from(generator):
            for _ in range(self.count):
                row = mask_along_axis(row[None], round(self.seconds * SAMPLE_RATE), 0.0, 1, p=self.share)[0]
        return row


class SpecAugment(Augmentation):
    """Masks frames and features of a log-mel or of encoder states (Park et al., 2019).

    In a config it acts on a frozen encoder's stored states, before the model mixes its layers. A wav2vec2
    that is trained masks its own states (`mask_time_prob`).

    Evidence lost: what was said in the masked frames.

    Args:
        time_masks: Number of runs of frames.
        frames: Longest run; each length is drawn between 0 and this. wav2vec2 and Whisper have 20 ms frames.
        feature_masks: Number of runs of features. Only a log-mel's neighbours are alike.
        features: Longest run of features.
        share: Largest share of either axis in one run.
        p: See `Augmentation`.
    """

    of = "states"

    def __init__(
        self,
        *,
        time_masks: int = 2,
        frames: int = 10,
        feature_masks: int = 0,
        features: int = 27,
        share: float = 0.2,
        p: float = 1.0,
    ):
        super().__init__(p=p)
        _check("share", share, 0 < share <= 1, "more than 0, up to 1")
        counts = {"time_masks": time_masks, "feature_masks": feature_masks}
        for name, value in {**counts, "frames": frames, "features": features}.items():
            least = 0 if name in counts else 1
            _check(name, value, value >= least, f"{least} or more")
        from torchaudio import transforms

        self.masks = transforms.SpecAugment(
            time_masks, frames, feature_masks, features, iid_masks=False, p=share
        )

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Set runs of a row `[f, d]` or `[f, l, d]`, the same in all layers, to the mean of its values."""
        with _torch_draws_from(generator):
            return self.masks(row.movedim(0, -1)).movedim(-1, 0)


class Silence(Augmentation):
    """Puts digital silence before and after a clip, as recordings that are not cut have; it becomes longer.

    Evidence lost: none, but for how soon a voice begins.

    Args:
        seconds: Shortest and longest silence, drawn for either side by itself.
        p: See `Augmentation`.
    """

    needs_torchaudio = False

    def __init__(self, *, seconds: Sequence[float] = (0.0, 1.0), p: float = 0.5):
        super().__init__(p=p)
        self.seconds = _range("seconds", seconds, least=0)
        self.added_seconds = 2 * self.seconds[1]

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Pad a row `[s]` to `[before + s + after]`."""
        before, after = (round(_uniform(*self.seconds, generator) * SAMPLE_RATE) for _ in range(2))
        return torch.nn.functional.pad(row, (before, after))


class NoiseGate(Augmentation):
    """Makes quiet parts quieter, as the noise suppression of telephones and a studio's quiet room do.

    A downward expander over frames of 20 ms, whose gain is interpolated between them.

    Evidence lost: breath, and how words fade out. Pitch, speed and the level of loud parts stay.

    Args:
        threshold_db: Lowest and highest threshold, in dB to the loudest frame.
        ratio: Lowest and highest ratio: a frame d dB below the threshold becomes ratio · d dB lower.
        p: See `Augmentation`.
    """

    needs_torchaudio = False

    def __init__(
        self,
        *,
        threshold_db: Sequence[float] = (-40.0, -20.0),
        ratio: Sequence[float] = (1.0, 3.0),
        p: float = 0.5,
    ):
        super().__init__(p=p)
        self.threshold_db = _range("threshold_db", threshold_db, most=0)
        self.ratio = _range("ratio", ratio, least=0)

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Attenuate the quiet parts of a row `[s]`."""
        threshold, ratio = _uniform(*self.threshold_db, generator), _uniform(*self.ratio, generator)
        frame = round(0.02 * SAMPLE_RATE)
        padded = torch.nn.functional.pad(row, (0, -len(row) % frame))
        power = padded.reshape(-1, frame).square().mean(1)
        if not power.any():
            return row
        level = 10 * (power / power.max()).clamp(min=1e-10).log10()
        gain = 10 ** (ratio * (level - threshold).clamp(max=0) / 20)
        smooth = torch.nn.functional.interpolate(gain[None, None], scale_factor=float(frame), mode="linear")
        return row * smooth[0, 0, : len(row)]


AUGMENTATIONS: dict[str, type[Augmentation]] = {
    "noise": Noise,
    "reverb": Reverb,
    "speed": Speed,
    "pitch": Pitch,
    "gain": Gain,
    "codec": Codec,
    "equalizer": Equalizer,
    "band_limit": BandLimit,
    "time_mask": TimeMask,
    "silence": Silence,
    "noise_gate": NoiseGate,
    "spec_augment": SpecAugment,
}


class Augmentations(torch.nn.ModuleDict):
    """Several augmentations by name, applied in order.

    Args:
        config: Names of `AUGMENTATIONS` and their options, in order, such as
            `{reverb: {}, noise: {snr_db: [5, 20], p: 0.5}}`.

    Raises:
        ValueError: A name or an option is unknown, or an option out of its range.
    """

    def __init__(self, config: Mapping[str, Mapping[str, Any]]):
        from jsonargparse import ArgumentParser  # in the extra `train`

        super().__init__()
        for name, options in config.items():
            kind = AUGMENTATIONS.get(name)
            if kind is None:
                raise ValueError(f"augment: {name!r} is unknown; accepted: {', '.join(AUGMENTATIONS)}")
            parser = ArgumentParser(exit_on_error=False)
            parser.add_class_arguments(kind)
            try:
                self[name] = kind(**parser.parse_object(dict(options)).as_dict())
            except (ArgumentError, ValueError) as error:
                known = ", ".join(inspect.signature(kind).parameters)
                hint = f"; accepted: {known}" if isinstance(error, ArgumentError) else ""
                raise ValueError(f"augment.{name}: {' '.join(str(error).split())}{hint}") from error

    @property
    def _parts(self) -> dict[str, Augmentation]:
        return {name: part for name, part in self.items() if isinstance(part, Augmentation)}

    def longest(self, seconds: np.ndarray) -> np.ndarray:
        """The most seconds that rows of these durations `[n]` can have afterwards; 0 stays 0 (no audio)."""
        for part in self._parts.values():
            seconds = np.where(seconds > 0, seconds * part.stretch + part.added_seconds, seconds)
        return seconds

    def names(self, of: Literal["waveform", "states"]) -> list[str]:
        """Names of those that change waveforms, or states."""
        return [name for name, part in self._parts.items() if part.of == of]

    def forward(self, row: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Change a row: see `Augmentation.forward`."""
        for part in self._parts.values():
            row = part(row, generator=generator)
        return row


def row_generator(seed: int, *, epoch: int, row_id: str, draw: int = 0) -> torch.Generator:
    """The generator of one row in one epoch, which depends on nothing else.

    `draw` counts from 0 if an epoch has the row several times.
    """
    again = f".{draw}" if draw else ""
    digest = hashlib.sha256(f"{seed}/{epoch}{again}/{row_id}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _filtered(row: Tensor, gain: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Multiply the spectrum of a row `[s]` by `gain` of its frequencies in Hz, and keep the row's energy."""
    length = len(row) + SAMPLE_RATE // 5  # .2 s of silence, for what rings at either end
    length += -length % 1024  # so that it has small factors
    factors = torch.from_numpy(gain(np.fft.rfftfreq(length, 1 / SAMPLE_RATE))).to(row)
    changed = torch.fft.irfft(torch.fft.rfft(row, n=length) * factors, n=length)[: len(row)]
    energy = changed.norm()
    return changed * (row.norm() / energy) if energy else row


def _to_length(samples: np.ndarray, length: int) -> Tensor:
    """Cut samples, or pad them with silence at the end."""
    return torch.from_numpy(np.pad(samples, (0, max(0, length - len(samples))))[:length].copy())


def _uniform(low: float, high: float, generator: torch.Generator | None) -> float:
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


def _choice(options: Sequence[_T], generator: torch.Generator | None) -> _T:
    return options[int(torch.randint(len(options), (), generator=generator))]


@contextmanager
def _torch_draws_from(generator: torch.Generator | None) -> Iterator[None]:
    """Seed torch's default generator from `generator` inside the block."""
    if generator is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        yield


def _check(name: str, value: object, valid: bool, accepted: str) -> None:
    if not valid:
        raise ValueError(f"{name} is {value}; accepted: {accepted}")


def _range(
    name: str, value: Sequence[float], *, least: float = -math.inf, most: float = math.inf
) -> tuple[float, float]:
    valid = isinstance(value, Sequence) and len(value) == 2 and least <= value[0] <= value[1] <= most
    within = (
        "" if math.isinf(least) else f" of {least:g}" + (" or more" if math.isinf(most) else f" to {most:g}")
    )
    _check(name, value, valid, f"[low, high]{within}, low at most high")
    return float(value[0]), float(value[1])


def _choices(name: str, value: Sequence[str], accepted: Sequence[str]) -> list[str]:
    valid = not isinstance(value, str) and len(value) > 0 and set(value) <= set(accepted)
    _check(name, value, valid, f"a list of {', '.join(accepted)}")
    return list(value)


class _Recordings:
    """Audio files of a folder and its subfolders, one drawn at a time; `what` they are for messages."""

    def __init__(self, folder: str, what: str):
        self._files = sorted(str(path) for path in Path(folder).rglob("*") if path.suffix.lower() in _ENDINGS)
        if not self._files:
            state = "holds no audio file" if Path(folder).is_dir() else "is not a folder"
            accepted = "a folder of recordings (wav, flac, ogg, mp3 ...)"
            raise ValueError(f"folder {folder} {state}; accepted: {accepted}")
        self._what, self._audio = what, Audio(SAMPLE_RATE)

    def draw(self, generator: torch.Generator | None) -> Tensor:
        """Samples `[s]` of a file."""
        path = _choice(self._files, generator)
        samples = torch.from_numpy(self._audio(path))
        if not samples.any():
            raise AudioError(f"{path}: is silent; accepted: {self._what}")
        return samples
