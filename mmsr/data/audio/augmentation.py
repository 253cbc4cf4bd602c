"""Changes to training audio that a label should survive: noise, rooms, telephones, lost packets.

    waveform [s] ─► each augmentation in the order of the config, with its probability p ─► waveform [s']

**Label safety.** In this field the voice is evidence: loudness, pitch and speed can *be* the label, as they
are in the demo corpus. So nothing is on unless the config names it, ranges begin narrow, and each class says
under "Evidence lost" what a model can no longer learn from a row that it changed. A waveform beyond full
scale is scaled down to it, which keeps every ratio (the signal-to-noise ratio too) and lowers the level.

Everything is drawn from one generator, a row's own (`row_generator`): the same seed, epoch and row give the
same samples in any process, in any order, and after a resumption. A row that `balance` draws several times in
an epoch sounds different each time.

torchaudio computes what it has. torch-audiomentations draws from the global generator alone, and
audiomentations keeps soxr below 1.0: neither fits here.

Notation used for tensor shapes: `b` batch, `s` samples, `f` frames, `l` encoder layers, `d` width.
"""

import hashlib
import importlib.util
import inspect
import io
import math
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from mmsr.data.audio.decoding import Audio, AudioError

_T = TypeVar("_T")

_RATE = 16000
_ENDINGS = {f".{form.lower()}" for form in soundfile.available_formats() if form != "RAW"}
_ENDINGS |= {".opus", ".oga", ".m4a", ".mp4", ".webm"}

# Of the phase vocoder, in samples: 64 ms hold some periods of a low voice.
_WINDOW = 1024
# libsndfile's formats and the rate that each is fed with.
_CODECS = {
    "g711": ("WAV", "ULAW", 8000),
    "gsm": ("WAV", "GSM610", 8000),
    "mp3": ("MP3", "MPEG_LAYER_III", 16000),
    "vorbis": ("OGG", "VORBIS", 16000),
    "opus": ("OGG", "OPUS", 16000),
}


class Augmentation(torch.nn.Module):
    """One kind of change, made to each row with probability `p`; in eval mode, nothing.

    Args:
        p: How likely a row is changed, from 0 (never) to 1 (always).

    Raises:
        ValueError: An option is out of its range, or a library is missing.
    """

    of: ClassVar[Literal["waveform", "states"]] = "waveform"
    needs_torchaudio: ClassVar[bool] = True
    stretch: float = 1.0
    """By how much a row can become longer."""

    def __init__(self, *, p: float = 0.5):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p is {p}; accepted: a probability, from 0 to 1")
        if self.needs_torchaudio and importlib.util.find_spec("torchaudio") is None:
            raise ValueError("needs torchaudio: pip install 'mmsr[audio]'")
        self.p = p

    @torch.no_grad()
    def forward(
        self, values: Tensor, mask: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Change one row, or each row of a padded batch by a draw of its own.

        Args:
            values: `[s]` without a mask, `[b, s]` with one (states: `[f, ...]`, `[b, f, ...]`).
            mask: `[b, s]`, 1 where a sample is real. Padding stays as it is. Where a row's length changes,
                the batch is padded again, with zeros on the right.
            generator: Where the draws come from, a CPU generator; torch's own if None.

        Returns:
            The changed values, and their mask (None without one).
        """
        if mask is None:
            if self.of == "waveform" and values.ndim != 1:
                raise ValueError(
                    f"values has shape {list(values.shape)}; accepted: [s], or [b, s] with its mask"
                )
            return self._row(values, generator), None
        if mask.shape != values.shape[:2]:
            raise ValueError(
                f"mask has shape {list(mask.shape)} and values {list(values.shape)}; accepted: [b, s] of both"
            )
        real = mask.bool()
        rows = [self._row(row[there], generator) for row, there in zip(values, real, strict=True)]
        if all(len(row) == there.sum() for row, there in zip(rows, real, strict=True)):
            changed = values.clone()
            changed[real] = torch.cat(rows)
            return changed, mask
        lengths = torch.tensor([len(row) for row in rows], device=mask.device)
        mask = (torch.arange(int(lengths.max()), device=mask.device) < lengths[:, None]).to(mask.dtype)
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), mask

    def _row(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
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
    A silent clip has no such ratio and is left alone.

    Args:
        snr_db: Lowest and highest ratio, in dB; drawn evenly between them.
        colors: Noise made here, white (hiss) or pink (falling by 3 dB an octave, nearer to rooms and crowds).
        folder: Recordings, found in its subfolders too, that are used instead; of a long one a piece, a
            short one again and again. They are decoded at each use: short files are quicker.
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
        self.files = None if folder is None else _recordings(folder)
        self._audio = Audio(_RATE)

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Add noise to a row `[s]`."""
        from torchaudio.functional import add_noise

        snr = torch.tensor(_uniform(*self.snr_db, generator), device=row.device)
        noise = self._noise(len(row), generator).to(row.device)
        return add_noise(row, noise, snr) if row.any() else row

    def _noise(self, length: int, generator: torch.Generator | None) -> Tensor:
        if self.files is not None:
            return self._recorded(_choice(self.files, generator), length, generator)
        noise = torch.randn(length, generator=generator)
        if _choice(self.colors, generator) == "white":
            return noise
        spectrum = torch.fft.rfft(noise)
        pink = torch.fft.irfft(spectrum / torch.arange(len(spectrum)).clamp(min=1).sqrt(), n=length)
        return pink if pink.any() else noise

    def _recorded(self, path: str, length: int, generator: torch.Generator | None) -> Tensor:
        noise = torch.from_numpy(self._audio(path))
        if not noise.any():
            raise AudioError(f"{path}: is silent; accepted: noise")
        noise = noise.repeat(math.ceil(length / len(noise)) + 1)
        start = int(_uniform(0, len(noise) - length + 1, generator))
        piece = noise[start : start + length]
        return piece if piece.any() else noise[int(noise.abs().argmax()) :].repeat(2)[:length]  # a pause


class Reverb(Augmentation):
    """Puts the voice into a room; the clip's energy and length are kept, the echo after its end is cut off.

    Evidence lost: how words end and pauses, which the echo fills; the contrast of loud and soft. Pitch, speed
    and the mean level stay.

    Args:
        rt60: Shortest and longest time, in seconds, in which the room's echo falls by 60 dB: .2 is furnished,
            .6 a classroom. The synthetic room is white noise with that decay.
        drr_db: Lowest and highest ratio of the direct sound's energy to the echo's, in dB: near or far.
        folder: Recorded room impulse responses that are used instead, each from its peak on.
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
        self.files = None if folder is None else _recordings(folder)
        self._audio = Audio(_RATE)

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Convolve a row `[s]` with a room."""
        from torchaudio.functional import fftconvolve

        room = self._room(generator).to(row.device)
        # Silence after the echo, so that the transform's length has small factors: four times as fast.
        room = torch.nn.functional.pad(room, (0, -(len(row) + len(room) - 1) % 1024))
        wet = fftconvolve(row, room)[: len(row)]
        energy = wet.norm()
        return wet * (row.norm() / energy) if energy else row

    def _room(self, generator: torch.Generator | None) -> Tensor:
        if self.files is not None:
            path = _choice(self.files, generator)
            room = torch.from_numpy(self._audio(path))
            if not room.any():
                raise AudioError(f"{path}: is silent; accepted: a room's impulse response")
            return room[int(room.abs().argmax()) :]
        rt60, ratio = _uniform(*self.rt60, generator), _uniform(*self.drr_db, generator)
        time = torch.arange(1, int(rt60 * _RATE)) / _RATE
        echo = torch.randn(len(time), generator=generator) * 10 ** (-3 * time / rt60)
        return torch.cat([torch.ones(1), echo / echo.norm() * 10 ** (-ratio / 20)])


class Speed(Augmentation):
    """Plays a clip faster or slower, its pitch with it (Ko et al., 2015); its length changes.

    Evidence lost: speaking rate and pitch, both evidence of arousal; so the factors lie near to 1. The usual
    .9 and 1.1 move the pitch by 1.7 semitones.

    Args:
        factors: Of which one is drawn; 1.05 is five percent faster. Whole percents.
        p: See `Augmentation`.
    """

    def __init__(self, *, factors: Sequence[float] = (0.95, 1.05), p: float = 0.5):
        super().__init__(p=p)
        percents = [round(100 * factor) for factor in factors]
        right = percents and all(50 <= percent <= 200 for percent in percents)
        if not right or any(
            abs(100 * f - percent) > 1e-6 for f, percent in zip(factors, percents, strict=True)
        ):
            raise ValueError(f"factors is {list(factors)}; accepted: numbers from .5 to 2 in whole percents")
        self.percents = percents
        self.stretch = max(1.0, 100 / min(percents))

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Resample a row `[s]` to `[ceil(s / factor)]`."""
        from torchaudio.functional import resample

        # As torchaudio's Speed does, which cuts a factor such as .57 to .56, and from 16,000 Hz on would meet
        # rates without a common divisor, for which its resampler takes seconds.
        return resample(row, _choice(self.percents, generator), 100)


class Pitch(Augmentation):
    """Shifts the pitch, the formants with it, and keeps the length, by a phase vocoder: slow.

    Evidence lost: pitch, and who speaks; the vocoder blurs onsets. Speed and level stay. A semitone upward
    sounds more aroused by itself, so the range is narrow.

    Args:
        semitones: Lowest and highest shift.
        p: See `Augmentation`.
    """

    def __init__(self, *, semitones: Sequence[float] = (-0.5, 0.5), p: float = 0.5):
        super().__init__(p=p)
        self.semitones = _range("semitones", semitones, least=-24, most=24)

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Shift a row `[s]`: stretched in time, then played faster or slower by as much."""
        from torchaudio.transforms import TimeStretch

        factor = 2 ** (_uniform(*self.semitones, generator) / 12)
        if len(row) <= _WINDOW:  # too short to hear a pitch in
            return row
        window = torch.hann_window(_WINDOW, device=row.device)
        layout = {"n_fft": _WINDOW, "hop_length": _WINDOW // 4, "window": window}
        spectra = torch.stft(row, **layout, return_complex=True)  # type: ignore[arg-type]
        stretch = TimeStretch(hop_length=_WINDOW // 4, n_freq=len(spectra)).to(row.device)
        slow = torch.istft(stretch(spectra, 1 / factor), **layout)  # type: ignore[arg-type]
        # torchaudio's own pitch_shift resamples between rates without a common divisor: up to 25 s a clip.
        shifted = soxr.resample(slow.cpu().numpy(), _RATE * factor, _RATE)
        return _to_length(shifted, len(row)).to(row.device)


class Gain(Augmentation):
    """Makes a clip louder or softer as a whole, up to full scale at most.

    Evidence lost: loudness, which tells anger from sadness; the contrast of loud and soft within it stays.

    Args:
        db: Lowest and highest change, in dB; 6 is about double.
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
    """Encodes and decodes a clip as a line or a file would: real codecs, in memory, through libsndfile.

    Evidence lost: with g711 and gsm all above 4 kHz (breath, sharp consonants), with gsm much of the voice's
    quality too; with the others little. Level, pitch and speed stay.

    Args:
        kinds: Of which one is drawn: g711 (telephone), gsm (older mobile telephones), mp3, vorbis, opus
            (voice messages; slow).
        p: See `Augmentation`.
    """

    needs_torchaudio = False

    def __init__(self, *, kinds: Sequence[str] = ("g711", "gsm", "mp3"), p: float = 0.5):
        super().__init__(p=p)
        able = [kind for kind, (form, subtype, _) in _CODECS.items() if soundfile.check_format(form, subtype)]
        self.kinds = _choices("kinds", kinds, able)

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Send a row `[s]` through a codec."""
        form, subtype, rate = _CODECS[_choice(self.kinds, generator)]
        file = io.BytesIO()
        sent = soxr.resample(row.cpu().numpy(), _RATE, rate) if rate != _RATE else row.cpu().numpy()
        if not len(sent):  # one sample has no half
            return row
        soundfile.write(file, sent, rate, format=form, subtype=subtype)
        file.seek(0)
        heard, rate = soundfile.read(file, dtype="float32")
        heard = soxr.resample(heard, rate, _RATE) if rate != _RATE else heard
        return _to_length(heard, len(row)).to(row.device)  # gsm comes in blocks


class TimeMask(Augmentation):
    """Silences pieces of a clip, as lost packets do.

    Evidence lost: whatever was said there; a single telling word can be gone while the label stays.

    Args:
        count: How many pieces.
        seconds: Longest piece; each is drawn between nothing and this.
        share: Largest share of a clip that one piece may take.
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
                row = mask_along_axis(row[None], round(self.seconds * _RATE), 0.0, 1, p=self.share)[0]
        return row


class SpecAugment(Augmentation):
    """Masks frames, and features where asked, of a log-mel or of encoder states (Park et al., 2019).

    In a config it acts on a frozen encoder's stored states, before the model mixes its layers. A wav2vec2
    that is trained masks its own states (its `mask_time_prob`), and is given no other masks here.

    Evidence lost: what was said in the masked frames.

    Args:
        time_masks: How many runs of frames.
        frames: Longest run; each is drawn between nothing and this. A wav2vec2's or Whisper's frame is 20 ms.
        feature_masks: How many runs of features. A log-mel's are neighbours in pitch; an encoder's are not.
        features: Longest run of features.
        share: Largest share of either axis that one run may take.
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
        for name, value in (("time_masks", time_masks), ("feature_masks", feature_masks)):
            _check(name, value, value >= 0, "0 or more")
        for name, value in (("frames", frames), ("features", features)):
            _check(name, value, value >= 1, "1 or more")
        from torchaudio import transforms

        self.masks = transforms.SpecAugment(
            time_masks, frames, feature_masks, features, iid_masks=False, p=share
        )

    def change(self, row: Tensor, generator: torch.Generator | None) -> Tensor:
        """Set runs of a row `[f, d]` or `[f, l, d]`, of all layers alike, to the mean of all its values."""
        with _torch_draws_from(generator):  # in float32: torchaudio counts frames in the values' type
            return self.masks(row.movedim(0, -1)).movedim(-1, 0)


AUGMENTATIONS: dict[str, type[Augmentation]] = {
    "noise": Noise,
    "reverb": Reverb,
    "speed": Speed,
    "pitch": Pitch,
    "gain": Gain,
    "codec": Codec,
    "time_mask": TimeMask,
    "spec_augment": SpecAugment,
}


class Augmentations(torch.nn.ModuleDict):
    """Several augmentations, by name, one after another.

    Args:
        config: Name of each (see `AUGMENTATIONS`) and its options, in the order in which they are made, such
            as `{reverb: {}, noise: {snr_db: [5, 20], p: 0.5}}`.

    Raises:
        ValueError: A name or an option is unknown, or an option out of its range.
    """

    def __init__(self, config: Mapping[str, Mapping[str, Any]]):
        from jsonargparse import ArgumentParser  # of the extra `train`; the degradations here do without

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

    @property
    def stretch(self) -> float:
        """By how much a row can become longer."""
        return math.prod((part.stretch for part in self._parts.values()), start=1.0)

    def names(self, of: Literal["waveform", "states"]) -> list[str]:
        """Which of them change waveforms, or states."""
        return [name for name, part in self._parts.items() if part.of == of]

    def forward(
        self, values: Tensor, mask: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Change one row `[s]`, or a batch `[b, s]` with its mask: see `Augmentation.forward`."""
        for part in self._parts.values():
            values, mask = part(values, mask, generator=generator)
        return values, mask


def row_generator(seed: int, *, epoch: int, row_id: str, draw: int = 0) -> torch.Generator:
    """The generator of one row in one epoch: no other row, and no order of rows, changes its draws.

    `draw` counts from 0 where an epoch has the row several times.
    """
    again = f".{draw}" if draw else ""
    digest = hashlib.sha256(f"{seed}/{epoch}{again}/{row_id}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _to_length(samples: np.ndarray, length: int) -> Tensor:
    """Cut or fill with silence at the end."""
    return torch.from_numpy(np.pad(samples, (0, max(0, length - len(samples))))[:length].copy())


def _uniform(low: float, high: float, generator: torch.Generator | None) -> float:
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


def _choice(options: Sequence[_T], generator: torch.Generator | None) -> _T:
    return options[int(torch.randint(len(options), (), generator=generator))]


@contextmanager
def _torch_draws_from(generator: torch.Generator | None) -> Iterator[None]:
    """Let a library that draws from torch's own generator draw from this one."""
    if generator is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        yield


def _check(name: str, value: object, right: bool, accepted: str) -> None:
    if not right:
        raise ValueError(f"{name} is {value}; accepted: {accepted}")


def _range(
    name: str, value: Sequence[float], *, least: float = -math.inf, most: float = math.inf
) -> tuple[float, float]:
    right = isinstance(value, Sequence) and len(value) == 2 and least <= value[0] <= value[1] <= most
    within = (
        "" if math.isinf(least) else f" of {least:g}" + (" or more" if math.isinf(most) else f" to {most:g}")
    )
    _check(name, value, right, f"[low, high]{within}, low at most high")
    return float(value[0]), float(value[1])


def _choices(name: str, value: Sequence[str], accepted: Sequence[str]) -> list[str]:
    right = not isinstance(value, str) and len(value) > 0 and set(value) <= set(accepted)
    _check(name, value, right, f"a list of {', '.join(accepted)}")
    return list(value)


def _recordings(folder: str) -> list[str]:
    files = sorted(str(path) for path in Path(folder).rglob("*") if path.suffix.lower() in _ENDINGS)
    if not files:
        state = "holds no audio file" if Path(folder).is_dir() else "is not a folder"
        raise ValueError(
            f"folder {folder} {state}; accepted: a folder of recordings (wav, flac, ogg, mp3 ...)"
        )
    return files
