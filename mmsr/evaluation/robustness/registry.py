"""The registry of perturbations: their names, units and titles in commands, curves and reports.

A new one is a function that makes its curves, as in `perturbations`, and one entry. The function is named by
its path, so that a command's help imports neither torch nor scikit-learn.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmsr.evaluation.robustness.curves import Curve


@dataclass(frozen=True)
class Perturbation:
    """A way of making rows worse."""

    title: str  # in reports
    unit: str  # of its severities, for the command's help
    needs: tuple[str, ...]  # fields that every row must have
    usual: tuple[Any, ...]  # severities, numbers or names, from mild to bad
    curves: str  # path of the function that makes its curves, from a `Material` and severities
    series: Mapping[str, str] = field(default_factory=dict)  # titles of series whose name is a code

    def load(self) -> Callable[..., list[Curve]]:
        """Imports the function that makes its curves."""
        make: Callable[..., list[Curve]] = pkgutil.resolve_name(self.curves)
        return make


_HERE = "mmsr.evaluation.robustness.perturbations:"

PERTURBATIONS: dict[str, Perturbation] = {
    "noise": Perturbation("noise", "dB", ("audio",), (20, 10, 5, 0, -5), f"{_HERE}noise"),
    "reverb": Perturbation("reverb", "RT60 in s", ("audio",), (0.3, 0.6, 1.2), f"{_HERE}reverb"),
    "codec": Perturbation(
        "codec",
        "opus, mp3, vorbis, g711 or gsm",
        ("audio",),
        ("opus", "mp3", "g711", "gsm"),
        f"{_HERE}codec",
    ),
    "wer": Perturbation(
        "misheard words",
        "errors per word",
        ("text",),
        (0.1, 0.2, 0.3, 0.5),
        f"{_HERE}word_errors",
        series={"asr_text": "recogniser's words"},
    ),
    "missing": Perturbation(
        "missing", "share of rows", ("audio", "text"), (0.25, 0.5, 0.75, 1), f"{_HERE}missing"
    ),
    "clip": Perturbation("cut short", "seconds kept", ("audio",), (2, 1, 0.5), f"{_HERE}clip"),
}


def titles(kind: str, series: str = "") -> tuple[str, str]:
    """Returns the titles of a kind and of a series of its curves; unknown ones keep their names."""
    known = PERTURBATIONS.get(kind)
    return (kind, series) if known is None else (known.title, known.series.get(series, series))


def units() -> str:
    """What the severities of each perturbation are, for the command's help."""
    return "; ".join(f"{name}: {kind.unit}" for name, kind in PERTURBATIONS.items())
