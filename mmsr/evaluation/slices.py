"""Metrics of slices of the rows, and whether the worst slice is worse than chance explains.

predictions, attributes by id ─► rows of each value (numbers: of each quarter) ─► metrics with intervals
     ─► the worst slice ─► the worst slice when right and wrong answers are permuted

Slices are ranked by accuracy, as in the literature on worst groups (Sagawa et al., 2020). In a slice that
lacks a label, a single wrong answer with that label costs macro-F1 a third.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmsr.evaluation.entries import interval_fields, label_pairs
from mmsr.evaluation.metrics import sentiment_metrics
from mmsr.languages import language_code
from mmsr.records import Prediction

LEAST = 30  # rows that a slice needs to be called the worst
PERMUTATIONS = 2000
FIELDS = ("language", "kind", "speaker")  # attributes that predictions have
_FEW = 8  # an attribute with more different numbers than this is cut at its quartiles
_CHUNK = 100  # permutations at a time

Attributes = Mapping[str, Mapping[str, str | float | None]]
"""{attribute: {row id: value}}; the unit is part of the name, such as `audio_seconds`."""


def slice_metrics(
    rows: Sequence[Prediction],
    labels: Sequence[str],
    *,
    attributes: Attributes | None = None,
    least: int = LEAST,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns `slices`, `worst_slice` and `slice_rows` (`least`) of one condition's predictions.

    `slices` is {attribute: {value: entry}} with `n`, `accuracy`, `macro_f1`, `interval` and `interval_over`
    (the last two not of a single row). The attributes are language, kind and speaker, as far as rows have
    them, and those given; numbers are cut at their quartiles. Rows without a value are under "unknown", rows
    without a label are left out.

    `worst_slice` is the slice of `least` rows or more with the lowest accuracy (None where fewer than two
    have so many): its entry, `attribute` and `value`; `of`, the number of such slices; `overall`, the
    accuracy of all rows; and from permutations of right and wrong answers over all rows the lowest accuracy
    to expect by chance, `expected` with its 95 % `expected_interval`, and the `p_value` of this one. So many
    slices, and overlapping ones, are accounted for.

    Raises:
        ValueError: `least` is below 2, or a label is not in `labels`.
    """
    if least < 2:
        raise ValueError(f"least is {least}; accepted: 2 rows or more")
    rows = [row for row in rows if row.label is not None and row.predicted_label is not None]
    members: dict[tuple[str, str], list[int]] = {}
    given: dict[str, Any] = {field: {row.id: getattr(row, field) for row in rows} for field in FIELDS}
    given["language"] = {row.id: language_code(row.language) for row in rows}
    given |= attributes or {}
    for attribute, values in given.items():
        of_rows = [values.get(row.id) for row in rows]
        if any(value is not None for value in of_rows):
            # values of fields are names, even of numbered speakers
            names = ["unknown" if value is None else str(value) for value in of_rows]
            for place, name in enumerate(names if attribute in FIELDS else _values(of_rows)):
                members.setdefault((attribute, name), []).append(place)
    slices: dict[str, dict[str, Any]] = {}
    for (attribute, value), places in sorted(members.items(), key=lambda item: _order(*item[0])):
        inside = [rows[place] for place in places]
        metrics = sentiment_metrics(*label_pairs(inside), labels)
        entry = {name: metrics[name] for name in ("n", "accuracy", "macro_f1")}
        slices.setdefault(attribute, {})[value] = entry | interval_fields(inside)
    worst = _worst(rows, members, slices, least=least, seed=seed)
    return {"slices": slices, "worst_slice": worst, "slice_rows": least}


def worst_slice_line(worst: Mapping[str, Any] | None, *, least: int = LEAST) -> str:
    """Returns `worst_slice` as a line of text."""
    if worst is None:
        return f"no worst slice: fewer than two slices have {least} rows"
    low, high = worst["interval"]["accuracy"]
    chance_low, chance_high = worst["expected_interval"]
    p = "< .001" if worst["p_value"] < 0.001 else f"= {worst['p_value']:.3f}".replace("0.", ".", 1)
    return (
        f"worst of {worst['of']} slices: {worst['attribute']} {worst['value']}, "
        f"accuracy {worst['accuracy']:.3f} [{low:.3f}, {high:.3f}] on {worst['n']} rows, "
        f"{worst['overall']:.3f} on all; if slices made no difference, the worst of as many would be "
        f"{worst['expected']:.3f} [{chance_low:.3f}, {chance_high:.3f}] (p {p})"
    )


def are_numbers(attribute: str, names: Sequence[str]) -> bool:
    """Returns whether an attribute's slices are numbers, or quarters of them."""
    known = [name for name in names if name != "unknown"]
    quarters = any(name.startswith("Q1: ") for name in known)
    return quarters or (attribute not in FIELDS and all(_number(name) is not None for name in known))


def _worst(
    rows: Sequence[Prediction],
    members: Mapping[tuple[str, str], Sequence[int]],
    slices: Mapping[str, Mapping[str, Any]],
    *,
    least: int,
    seed: int,
) -> dict[str, Any] | None:
    # all rows together are no slice
    names = [name for name, places in members.items() if least <= len(places) < len(rows)]
    if len(names) < 2:
        return None
    worst = min(names, key=lambda name: (slices[name[0]][name[1]]["accuracy"], name))
    entry = slices[worst[0]][worst[1]]
    right = np.array([row.label == row.predicted_label for row in rows], dtype=np.float32)
    shares = np.zeros((len(names), len(rows)), dtype=np.float32)
    for place, name in enumerate(names):
        shares[place, list(members[name])] = 1 / len(members[name])
    generator = np.random.default_rng(seed)
    lowest = []  # accuracy over slices, of each permutation
    for _ in range(PERMUTATIONS // _CHUNK):
        permuted = generator.permuted(np.repeat(right[:, None], _CHUNK, axis=1), axis=0)  # [n, permutations]
        lowest.append((shares @ permuted).min(axis=0))
    chance = np.concatenate(lowest)
    as_low = int((chance <= entry["accuracy"] + 1e-5).sum())  # equal but for rounding is equal
    low, high = np.quantile(chance, [0.025, 0.975])
    return {
        "attribute": worst[0],
        "value": worst[1],
        **entry,
        "of": len(names),
        "overall": float(right.mean()),
        "expected": float(chance.mean()),
        "expected_interval": [float(low), float(high)],
        "p_value": (1 + as_low) / (1 + len(chance)),
    }


def _values(given: Sequence[str | float | None]) -> list[str]:
    """The name of each row's slice: a text itself, a number or its quarter."""
    numbers = [_number(value) for value in given]
    there = [number for number in numbers if number is not None]
    texts = any(value is not None and number is None for value, number in zip(given, numbers, strict=True))
    if texts or len(set(there)) <= _FEW:
        whole = (int(v) if isinstance(v, float) and v.is_integer() else v for v in given)
        return ["unknown" if value is None else str(value) for value in whole]
    inner = np.quantile(there, [0.25, 0.5, 0.75])
    quarters = np.searchsorted(inner, there)
    names = {}
    for quarter in set(quarters.tolist()):
        inside = [number for number, its in zip(there, quarters, strict=True) if its == quarter]
        names[quarter] = f"Q{quarter + 1}: {min(inside):.3g} to {max(inside):.3g}"
    return ["unknown" if n is None else names[int(np.searchsorted(inner, n))] for n in numbers]


def _order(attribute: str, value: str) -> tuple[str, bool, float, str]:
    """Sorting key of slices: numbers as numbers, then texts."""
    number = _number(value)
    return attribute, number is None, number or 0.0, value


def _number(value: str | float | None) -> float | None:
    try:
        number = None if value is None else float(value)
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) else None
