"""Figures of slices of the rows, and whether the worst slice is worse than the worst of so many has to be.

predictions, attributes by id ─► rows of each value (numbers: of each quarter) ─► figures with intervals
     ─► the worst slice ─► the same worst when right and wrong answers are dealt out anew

Slices are judged by accuracy, as the literature of worst groups does (Sagawa et al., 2020): macro-F1 stands
beside it, but in a slice that lacks a label a single wrong answer with that label takes a third of it away.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmsr.evaluation.entries import bootstrap_intervals, label_pairs, speakers_of
from mmsr.evaluation.metrics import Array, sentiment_metrics
from mmsr.records import Prediction

LEAST = 30  # rows that a slice needs to be called the worst
PERMUTATIONS = 2000
FIELDS = ("language", "kind", "speaker")  # what predictions carry
_FEW = 8  # as many different numbers are values, more are cut into quarters
_CHUNK = 100  # permutations at a time

Attributes = Mapping[str, Mapping[str, str | float | None]]
"""{attribute: {row id: value}}; an attribute with a unit has it in its name, such as `audio_seconds`."""


def slice_figures(
    rows: Sequence[Prediction],
    labels: Sequence[str],
    *,
    attributes: Attributes | None = None,
    least: int = LEAST,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns `slices`, `worst_slice` and `slice_rows` (`least`) of one condition's predictions.

    `slices` is {attribute: {value: entry}} with `n`, `accuracy`, `macro_f1`, `interval` and `interval_over`,
    of a single row without the latter two. The attributes are language, kind and speaker, where the rows have
    them, and those given, whose numbers are cut at their quartiles; rows without a value are under "unknown";
    rows without a label are left out.

    `worst_slice` is the slice of `least` rows or more with the lowest accuracy (None where fewer than two
    have so many): its entry, `attribute` and `value`, with `of`, how many slices were looked at, `overall`,
    the accuracy of all rows, and what the lowest accuracy of these slices is if slices make no difference:
    `expected`, the `expected_interval` of 95 %, and `p_value`, of it being as low. For those the right and
    wrong answers are permuted over all rows, each slice keeping its rows. So several looks, and slices that
    overlap, are accounted for; that the rows of a speaker are alike is a difference that the test may find.

    Raises:
        ValueError: `least` is below 2, or a label is not in `labels`.
    """
    if least < 2:
        raise ValueError(f"least is {least}; accepted: 2 rows or more")
    rows = [row for row in rows if row.label is not None and row.predicted_label is not None]
    members: dict[tuple[str, str], list[int]] = {}
    given = {field: {row.id: getattr(row, field) for row in rows} for field in FIELDS} | dict(
        attributes or {}
    )
    for attribute, values in given.items():
        of_rows = [values.get(row.id) for row in rows]
        if any(value is not None for value in of_rows):
            # a speaker may be called by a number, and is a speaker nevertheless
            named = ["unknown" if value is None else str(value) for value in of_rows]
            for row, value in enumerate(named if attribute in FIELDS else _values(of_rows)):
                members.setdefault((attribute, value), []).append(row)
    slices: dict[str, dict[str, Any]] = {}
    for (attribute, value), places in sorted(members.items(), key=lambda item: _order(*item[0])):
        entry = _figures([rows[place] for place in places], labels)
        slices.setdefault(attribute, {})[value] = entry
    worst = _worst(rows, members, slices, least=least, seed=seed)
    return {"slices": slices, "worst_slice": worst, "slice_rows": least}


def worst_slice_line(worst: Mapping[str, Any] | None, *, least: int = LEAST) -> str:
    """What a person should know of `worst_slice`."""
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
    """Whether an attribute's slices are numbers, or quarters of them, which have an order of their own."""
    known = [name for name in names if name != "unknown"]
    quarters = any(name.startswith("Q1: ") for name in known)
    return quarters or (attribute not in FIELDS and all(_number(name) is not None for name in known))


def _figures(rows: Sequence[Prediction], labels: Sequence[str]) -> dict[str, Any]:
    gold, predicted = label_pairs(rows)
    figures = sentiment_metrics(gold, predicted, labels)
    speakers = speakers_of(rows)
    entry = {name: figures[name] for name in ("n", "accuracy", "macro_f1")}
    if intervals := bootstrap_intervals(gold, predicted, speakers=speakers):
        entry |= {"interval": intervals, "interval_over": "rows" if speakers is None else "speakers"}
    return entry


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
    chance = _worst_by_chance(right, shares, seed=seed)
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


def _worst_by_chance(right: Array, shares: Array, *, seed: int) -> Array:
    """Lowest share of right answers over slices `[k, n]` when `right [n]` is permuted, `[PERMUTATIONS]`."""
    generator = np.random.default_rng(seed)
    lowest = []
    for _ in range(PERMUTATIONS // _CHUNK):
        dealt = generator.permuted(np.repeat(right[:, None], _CHUNK, axis=1), axis=0)  # [n, permutations]
        lowest.append((shares @ dealt).min(axis=0))
    return np.concatenate(lowest)


def _values(given: Sequence[str | float | None]) -> list[str]:
    """Each row's value as a slice is called: a text itself, a number by its quarter."""
    numbers = [_number(value) for value in given]
    there = [number for number in numbers if number is not None]
    texts = any(value is not None and number is None for value, number in zip(given, numbers, strict=True))
    if texts or len(set(there)) <= _FEW:
        return ["unknown" if value is None else _name(value) for value in given]
    inner = np.quantile(there, [0.25, 0.5, 0.75])
    quarter = [None if number is None else int(np.searchsorted(inner, number)) for number in numbers]
    names = {}
    for i in range(4):
        pairs = zip(numbers, quarter, strict=True)
        inside = [number for number, its in pairs if its == i and number is not None]
        if inside:
            names[i] = f"Q{i + 1}: {min(inside):.3g} to {max(inside):.3g}"
    return ["unknown" if its is None else names[its] for its in quarter]


def _name(value: str | float) -> str:
    """A value as text; a whole number without a point, such as so many words."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _order(attribute: str, value: str) -> tuple[str, bool, float, str]:
    """By what slices are sorted: numbers as numbers, then texts."""
    number = _number(value)
    return attribute, number is None, number or 0.0, value


def _number(value: str | float | None) -> float | None:
    try:
        number = None if value is None else float(value)
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) else None
