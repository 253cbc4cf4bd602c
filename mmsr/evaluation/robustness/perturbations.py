"""Perturbations of test rows, as curves for `mmsr.evaluation.robustness.curves`.

    row ─► audio: augmentations of `data.audio.augmentation`, at one severity ─► bytes of an au file
        └► text: `confusions`, at one error rate ─► text

Random draws depend on the seed and the row's id alone: every model gets the same noise and the same errors,
and a worse point has the same draws as a milder one.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import soundfile
import torch

from mmsr.data.audio.augmentation import Augmentation, Codec, Noise, Reverb, row_generator
from mmsr.data.audio.decoding import Audio
from mmsr.evaluation.error_rates import edits, units
from mmsr.evaluation.metrics import has_text
from mmsr.evaluation.robustness.confusions import Confusions
from mmsr.evaluation.robustness.curves import Change, Curve, Point
from mmsr.evaluation.robustness.registry import PERTURBATIONS
from mmsr.extras import check_installed
from mmsr.records import SAMPLE_RATE, Utterance


@dataclass(frozen=True)
class Material:
    """Input of perturbations."""

    rows: Sequence[Utterance]  # of `curves.clean_rows`
    confusions: Confusions  # for word errors
    noise: str | None = None  # folder of recorded noise; None for generated pink noise
    seed: int = 0


def perturbations(
    material: Material,
    *,
    kinds: Sequence[str] | None = None,
    severities: Mapping[str, Sequence[str]] | None = None,
) -> list[Curve]:
    """Returns the curves of `kinds` of `PERTURBATIONS`, by default all that the rows allow.

    `severities`, as typed, replace the usual ones of a kind.

    Raises:
        ValueError: An unknown kind, one that the rows do not allow, or an invalid severity.
    """
    severities = severities or {}
    for name in (*(kinds or ()), *severities):
        if name not in PERTURBATIONS:
            raise ValueError(f"kind {name!r} is unknown; accepted: {', '.join(PERTURBATIONS)}")
    first = material.rows[0]
    able = [name for name, kind in PERTURBATIONS.items() if all(map(first.has, kind.needs))]
    for name in kinds or ():
        if name not in able:
            needs = " and ".join(PERTURBATIONS[name].needs)
            raise ValueError(f"kind {name!r} needs {needs} in every row; accepted here: {', '.join(able)}")
    curves: list[Curve] = []
    for name in kinds or able:
        kind = PERTURBATIONS[name]
        values = [_severity(name, value) for value in severities.get(name, kind.usual)]
        try:
            curves += kind.load()(material, values)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return curves


def _severity(name: str, value: str | float) -> str | float:
    usual = PERTURBATIONS[name].usual[0]
    if isinstance(usual, str):
        return value
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"severity {name}={value} is no number; accepted: such as {usual:g}") from None


def noise(material: Material, values: Sequence[float]) -> list[Curve]:
    """Noise at a signal-to-noise ratio (dB): pink, or recorded."""
    options: dict[str, Any] = {"colors": ["pink"], "folder": material.noise, "p": 1.0}
    points = [Point(snr, _edited_audio(Noise(snr_db=(snr, snr), **options), material.seed)) for snr in values]
    source = "pink noise" if material.noise is None else "recorded noise"
    return [Curve("noise", f"signal-to-noise ratio (dB), {source}", "clean", tuple(points))]


def reverb(material: Material, values: Sequence[float]) -> list[Curve]:
    """Rooms with a reverberation time (s)."""
    points = [
        Point(rt60, _edited_audio(Reverb(rt60=(rt60, rt60), drr_db=(0.0, 0.0), p=1.0), material.seed))
        for rt60 in values
    ]
    return [Curve("reverb", "RT60 (s), direct sound to echo 0 dB", 0.0, tuple(points))]


def codec(material: Material, values: Sequence[str]) -> list[Curve]:
    """Lossy formats."""
    points = [Point(kind, _edited_audio(Codec(kinds=[kind], p=1.0), material.seed)) for kind in values]
    return [Curve("codec", "format (g711, gsm: telephone, 8 kHz)", "clean", tuple(points))]


def word_errors(material: Material, values: Sequence[float]) -> list[Curve]:
    """Transcripts at a word error rate, and the recogniser's where there are any."""
    check_installed("kind wer", "jiwer")
    axis = "word error rate (errors / words)"
    points = []
    for rate in values:
        worse = {str(row.id): _with_errors(material, row, rate) for row in material.rows}
        points.append(Point(rate, _replaced("text", worse), _error_rate(material.rows, worse)))
    curves = [Curve("wer", axis, 0.0, tuple(points), "simulated")]
    recognised = [row for row in material.rows if row.has("asr_text")]
    if any(row.asr_text != row.text for row in recognised):
        texts = {str(row.id): row.asr_text for row in recognised}
        rate = round(_error_rate(material.rows, texts), 4)
        curves.append(Curve("wer", axis, 0.0, (Point(rate, _replaced("text", texts)),), "asr_text"))
    return curves


def missing(material: Material, values: Sequence[float]) -> list[Curve]:
    """A share of the rows without audio, or without text.

    Raises:
        ValueError: A share is not above 0, to 1.
    """
    curves = []
    for column in ("audio", "text"):
        # one order, so that a higher share includes a lower one
        order = sorted(str(row.id) for row in material.rows)
        random.Random(f"{material.seed}/{column}").shuffle(order)
        points = []
        for share in values:
            if not 0 < share <= 1:
                raise ValueError(f"share is {share:g}; accepted: above 0, to 1")
            lost = dict.fromkeys(order[: round(share * len(order))])
            points.append(Point(share, _replaced(column, lost, keep=True)))
        curves.append(Curve("missing", "share of rows without it", 0.0, tuple(points), column))
    return curves


def clip(material: Material, values: Sequence[float]) -> list[Curve]:
    """Audio cut to some seconds, from its start or its middle.

    Raises:
        ValueError: It is cut to less than 0.1 s.
    """
    axis = "audio kept (s), transcript whole" if material.rows[0].text else "audio kept (s)"
    curves = []
    for series, place in (("start", 0.0), ("middle", 0.5)):
        points = []
        for seconds in values:
            if seconds < 0.1:
                raise ValueError(f"{seconds:g} s; accepted: 0.1 or more")
            points.append(Point(seconds, _edited_audio(_Cut(seconds, place), material.seed)))
        curves.append(Curve("clip", axis, "whole", tuple(points), series))
    return curves


class _Cut(Augmentation):
    """Keeps some seconds of a clip, from its start (place 0) or its middle (0.5)."""

    needs_torchaudio = False

    def __init__(self, seconds: float, place: float):
        super().__init__(p=1.0)
        self.samples, self.place = round(seconds * SAMPLE_RATE), place

    def change(self, row: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Cut a row `[s]`."""
        start = int(self.place * max(0, len(row) - self.samples))
        return row[start : start + self.samples]


def _edited_audio(augmentation: Augmentation, seed: int) -> Change:
    """A change that applies an augmentation to the audio, with a random generator of the row."""
    load: Callable[[Any], Any] = Audio(SAMPLE_RATE)

    def change(row: Utterance) -> Utterance:
        generator = row_generator(seed, epoch=0, row_id=str(row.id))
        worse = augmentation(torch.from_numpy(load(row.audio)), generator=generator)
        file = io.BytesIO()
        # au: a wav file of floats holds the time of writing
        soundfile.write(file, worse.numpy(), SAMPLE_RATE, format="AU", subtype="FLOAT")
        return replace(row, audio=file.getvalue())

    return change


def _replaced(column: str, values: Mapping[str, str | None], *, keep: bool = False) -> Change:
    """A change that sets a column to values by id; rows without one are left out, or kept unchanged."""

    def change(row: Utterance) -> Utterance | None:
        if row.id in values:
            return replace(row, **{column: values[str(row.id)]})
        return row if keep else None

    return change


def _with_errors(material: Material, row: Utterance, rate: float) -> str | None:
    """A row's text with errors; None where no word is left and there is audio."""
    try:
        worse = material.confusions.degrade(
            row.text or "", wer=rate, language=row.language, seed=material.seed, identity=str(row.id)
        )
    except ValueError as error:
        raise ValueError(f"row {row.id!r}: {error}") from error
    return worse if has_text(worse) else (None if row.has("audio") else row.text)


def _error_rate(rows: Sequence[Utterance], worse: Mapping[str, str | None]) -> float:
    """Edits of all rows divided by their words (characters in unspaced languages)."""
    pairs = [(row.text or "", worse[str(row.id)] or "", row.language) for row in rows if row.id in worse]
    words = sum(len(units(text, language)) for text, _, language in pairs)
    return sum(edits(*pair) for pair in pairs) / max(1, words)
