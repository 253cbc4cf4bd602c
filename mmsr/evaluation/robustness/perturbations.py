"""Ways of making test rows worse, as curves for `mmsr.evaluation.robustness.curves`.

    row ─► audio: augmentations of `data.audio.augmentation`, at one severity ─► an au file's bytes
        └► text: `confusions`, at one error rate ─► text

What is drawn for a row depends on the seed and the row's id alone: each model meets the same noise and the
same errors, and a worse point has the milder one's draws, only stronger.
"""

from __future__ import annotations

import importlib.util
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
from mmsr.records import Utterance

_RATE = 16000


@dataclass(frozen=True)
class Material:
    """What perturbations are made of.

    Attributes:
        rows: Rows of `curves.clean_rows`.
        confusions: Of the error rate's curve.
        noise: Folder of recorded noise; None for pink noise made here.
        seed: Of all draws.
    """

    rows: Sequence[Utterance]
    confusions: Confusions
    noise: str | None = None
    seed: int = 0


def perturbations(
    material: Material,
    *,
    kinds: Sequence[str] | None = None,
    severities: Mapping[str, Sequence[str]] | None = None,
) -> list[Curve]:
    """Curves of several kinds.

    Args:
        material: What they are made of.
        kinds: Of `PERTURBATIONS`; by default all that the rows allow.
        severities: Points of a kind, as they are typed, instead of the usual ones.

    Raises:
        ValueError: An unknown kind, one that the rows have nothing for, or a severity that cannot be.
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


def _severity(name: str, value: str | float) -> Any:
    kind = PERTURBATIONS[name]
    if not kind.numbers:
        return value
    try:
        return float(value)
    except ValueError:
        raise ValueError(
            f"severity {name}={value} is no number; accepted: such as {kind.usual[0]:g}"
        ) from None


def noise(material: Material, values: Sequence[float]) -> list[Curve]:
    """Noise at a signal-to-noise ratio (dB): pink, or recorded."""
    options: dict[str, Any] = {"colors": ["pink"], "folder": material.noise, "p": 1.0}
    points = [Point(snr, _heard(Noise(snr_db=(snr, snr), **options), material.seed)) for snr in values]
    what = "pink noise" if material.noise is None else "recorded noise"
    return [Curve("noise", f"signal-to-noise ratio (dB), {what}", "clean", tuple(points))]


def reverb(material: Material, values: Sequence[float]) -> list[Curve]:
    """Rooms with a reverberation time (s)."""
    points = [
        Point(rt60, _heard(Reverb(rt60=(rt60, rt60), drr_db=(0.0, 0.0), p=1.0), material.seed))
        for rt60 in values
    ]
    return [Curve("reverb", "RT60 (s), direct sound to echo 0 dB", 0.0, tuple(points))]


def codec(material: Material, values: Sequence[str]) -> list[Curve]:
    """Lossy formats."""
    points = [Point(kind, _heard(Codec(kinds=[kind], p=1.0), material.seed)) for kind in values]
    return [Curve("codec", "format (g711, gsm: telephone, 8 kHz)", "clean", tuple(points))]


def word_errors(material: Material, values: Sequence[float]) -> list[Curve]:
    """Transcripts at a word error rate, and the recogniser's own where there is one."""
    if importlib.util.find_spec("jiwer") is None:
        raise ValueError("needs jiwer: pip install 'mmsr[asr]'; accepted without it: the other --kinds")
    axis = "word error rate (errors / words)"
    points = []
    for rate in values:
        worse = {str(row.id): _misheard(material, row, rate) for row in material.rows}
        points.append(Point(rate, _replaced("text", worse), _error_rate(material.rows, worse)))
    curves = [Curve("wer", axis, 0.0, tuple(points), "simulated")]
    heard = {str(row.id): row.asr_text for row in material.rows if row.has("asr_text")}
    if any(heard[str(row.id)] != row.text for row in material.rows if row.id in heard):
        rate = round(_error_rate(material.rows, heard), 4)
        curves.append(Curve("wer", axis, 0.0, (Point(rate, _replaced("text", heard)),), "asr_text"))
    return curves


def missing(material: Material, values: Sequence[float]) -> list[Curve]:
    """A share of the rows without audio, or without text."""
    curves = []
    for column in ("audio", "text"):
        # in one order, so that what a lower share lacks a higher one lacks too
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
    """So many seconds of the audio, from its start or its middle."""
    axis = "audio kept (s), transcript whole" if material.rows[0].text else "audio kept (s)"
    curves = []
    for series, place in (("start", 0.0), ("middle", 0.5)):
        points = []
        for seconds in values:
            if seconds < 0.1:
                raise ValueError(f"{seconds:g} s; accepted: 0.1 or more")
            points.append(Point(seconds, _heard(_Piece(seconds, place), material.seed)))
        curves.append(Curve("clip", axis, "whole", tuple(points), series))
    return curves


class _Piece(Augmentation):
    """Keeps so many seconds of a clip, from its start (place 0) or its middle (.5)."""

    needs_torchaudio = False

    def __init__(self, seconds: float, place: float):
        super().__init__(p=1.0)
        self.samples, self.place = round(seconds * _RATE), place

    def change(self, row: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Cut a row `[s]`."""
        start = int(self.place * max(0, len(row) - self.samples))
        return row[start : start + self.samples]


def _heard(augmentation: Augmentation, seed: int) -> Change:
    """The change of a row's audio by an augmentation, drawn by the row's own generator."""
    load: Callable[[Any], Any] = Audio(_RATE)

    def change(row: Utterance) -> Utterance:
        generator = row_generator(seed, epoch=0, row_id=str(row.id))
        worse, _ = augmentation(torch.from_numpy(load(row.audio)), generator=generator)
        file = io.BytesIO()
        # au, since a wav file of floats carries the time at which it was written
        soundfile.write(file, worse.numpy(), _RATE, format="AU", subtype="FLOAT")
        return replace(row, audio=file.getvalue())

    return change


def _replaced(column: str, values: Mapping[str, str | None], *, keep: bool = False) -> Change:
    """The change of a column to values by id; rows without one are left out, or kept as they are."""

    def change(row: Utterance) -> Utterance | None:
        if row.id in values:
            return replace(row, **{column: values[str(row.id)]})
        return row if keep else None

    return change


def _misheard(material: Material, row: Utterance, rate: float) -> str | None:
    """A row's text with errors; None where none of it is left and there is audio to answer from."""
    try:
        worse = material.confusions.degrade(
            row.text or "", wer=rate, language=row.language, seed=material.seed, identity=str(row.id)
        )
    except ValueError as error:
        raise ValueError(f"row {row.id!r}: {error}") from error
    return worse if has_text(worse) else (None if row.has("audio") else row.text)


def _error_rate(rows: Sequence[Utterance], worse: Mapping[str, str | None]) -> float:
    """Edits of all rows by their words (characters, where words are not spaced)."""
    pairs = [(row.text or "", worse[str(row.id)] or "", row.language) for row in rows if row.id in worse]
    words = sum(len(units(text, language)) for text, _, language in pairs)
    return sum(edits(*pair) for pair in pairs) / max(1, words)
