"""Scores of systems from ratings, and how reliable they are.

    ratings ─┬─► mean of each system on each criterion, intervals over items
             ├─► pairs: difference, intervals over items and over items and raters, tests, Holm, sample size
             ├─► agreement between raters (Krippendorff's alpha)
             └─► for each rater: consistency on repeated items, seconds, items not listened to; preferred side

Ratings of one item are not independent, nor are those of one rater. Intervals and tests over items hold for
these raters on other items. The wider interval over items and raters holds for other raters too; it needs
three raters, since with two (one degree of freedom, t = 12.7) it is wider than the scale. Only the first
rating of a repeated item counts; the second one is for consistency.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from mmsr.evaluation.human.agreement import Agreement, ordinal_agreement
from mmsr.evaluation.human.ratings import SCALE, Rating, RatingsError
from mmsr.evaluation.human.sheet import PREFERENCE
from mmsr.evaluation.significance import (
    CONFIDENCE,
    RESAMPLES,
    Interval,
    bootstrap,
    holm,
    minimum_detectable_difference,
    paired_bootstrap,
    permutation_test,
)

Array = NDArray[Any]
TARGETS = (0.25, 0.5)  # differences, in points of the scale, for which the number of items is computed
PREFERENCE_TARGETS = (0.1, 0.2)  # the same, in shares of the ratings
LEAST_RATERS = 3  # for an interval over raters


@dataclass(frozen=True)
class Figure:
    """The mean rating of a system on a criterion."""

    system: str
    criterion: str
    mean: float  # from 1 to 5
    interval: Interval  # 95 %, over items
    items: int  # number of rated items
    ratings: int  # number of their ratings


@dataclass(frozen=True)
class Contrast:
    """Two systems on one criterion, or the preference between them."""

    measure: str  # criterion, or `preference`
    a: str  # first system
    b: str  # second system
    figure_a: float  # mean of `a`; for the preference, the share of ratings that prefer it
    figure_b: float
    difference: float  # `figure_a` - `figure_b`
    interval: Interval  # 95 % of the difference, over items
    interval_raters: Interval | None  # over items and raters; None with fewer than three raters
    p_value: float  # over items
    test: Literal["swaps", "sign"]  # swaps of the systems within items; for the preference, the sign test
    p_holm: float  # adjusted for all contrasts
    wins: int  # number of items with a higher mean rating of `a`
    ties: int  # number of items with equal mean ratings
    losses: int  # number of items with a higher mean rating of `b`
    items: int  # number of rated items
    ratings: int  # number of their ratings
    raters: int
    standard_error: float  # of the difference, over items
    detectable: float  # smallest true difference found with 80 % power with so many items
    items_needed: dict[str, int]  # number of items that find a difference with 80 % power, by difference


@dataclass(frozen=True)
class Rater:
    """The work of one rater."""

    name: str
    items: int  # number of rated items, without repetitions
    seconds: float  # median time of an item on the screen
    unheard: int  # number of items that were rated without starting the recording
    repeats: int  # number of items that were rated twice
    same_preference: float | None  # share of these with the same preference; None if there are none
    mean_change: float | None  # mean distance of their two ratings, in points; None if there are none


@dataclass(frozen=True)
class Sides:
    """The preferred sides; without a bias, left and right are preferred alike."""

    left: int  # number of ratings that prefer the left answer
    right: int  # number of ratings that prefer the right answer
    same: int  # number of ratings without a preference
    p_value: float  # of a binomial test that takes ratings as independent


@dataclass(frozen=True)
class Scores:
    """The result of `score`; scores.json has the same fields."""

    figures: list[Figure]  # of each system on each criterion
    contrasts: list[Contrast]  # of each pair of systems on each measure
    agreement: dict[str, Agreement]  # by measure; over answers for criteria, over items for the preference
    raters: list[Rater]
    sides: Sides


def score(
    ratings: Sequence[Rating], key: Mapping[str, Any], *, resamples: int = RESAMPLES, seed: int = 0
) -> Scores:
    """Compute means, differences, agreement and consistency.

    Args:
        ratings: The result of `read_ratings`.
        key: The result of `read_key`.
        resamples: Resamples of each bootstrap and permutation test.
        seed: The seed of both.

    Raises:
        RatingsError: A pair of systems was rated on fewer than two items.
    """
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    systems, measures = list(key["systems"]), (*key["criteria"], PREFERENCE)
    first = [rating for rating in ratings if not rating.repeat]
    figures = []
    for system in systems:
        mine = [rating for rating in first if system in rating.scores]
        ids = [rating.id for rating in mine]
        for criterion in key["criteria"] if mine else ():
            values = [rating.scores[system][criterion] for rating in mine]
            interval = bootstrap(None, values, clusters=ids, metric="mean", **options)
            mean = float(np.mean(values))
            figures.append(Figure(system, criterion, mean, interval, len(set(ids)), len(mine)))
    contrasts = []
    for a, b in combinations(systems, 2):
        mine = [rating for rating in first if set(rating.scores) == {a, b}]
        if (count := len({rating.id for rating in mine})) < 2:
            raise RatingsError(f"{a} and {b} are rated on {count} items; accepted: 2 or more")
        contrasts += [_contrast(mine, measure, (a, b), options) for measure in measures]
    adjusted = holm([contrast["p_value"] for contrast in contrasts])
    return Scores(
        figures=figures,
        contrasts=[Contrast(**each, p_holm=float(p)) for each, p in zip(contrasts, adjusted, strict=True)],
        agreement={measure: _agreement(first, measure, systems, options) for measure in measures},
        raters=[_rater(name, ratings) for name in dict.fromkeys(rating.rater for rating in ratings)],
        sides=_sides(first),
    )


def crossed_standard_error(
    values: ArrayLike, *, items: ArrayLike, raters: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """Standard error of a mean, with items and raters both drawn with replacement.

    It is a pigeonhole bootstrap (Owen, 2007), which is conservative for crossed ratings, multiplied by
    √(k / (k - 1)) for the smaller number k of items or raters, as in `significance.paired_bootstrap`.

    Args:
        values: `[n]`.
        items: The item of each value `[n]`.
        raters: The rater of each value `[n]`.
        resamples: The number of resamples; those without any rating are left out.
        seed: The seed of the bootstrap.

    Raises:
        ValueError: There are fewer than two items or two raters.
    """
    item_names, item = np.unique(np.asarray(items), return_inverse=True)
    rater_names, rater = np.unique(np.asarray(raters), return_inverse=True)
    fewer = min(len(item_names), len(rater_names))
    if fewer < 2:
        raise ValueError(
            f"{len(item_names)} items and {len(rater_names)} raters; accepted: two or more of each"
        )
    sums, counts = np.zeros((2, len(rater_names), len(item_names)))
    np.add.at(sums, (rater, item), np.asarray(values, dtype=float))
    np.add.at(counts, (rater, item), 1)
    generator = np.random.default_rng(seed)
    drawn_raters, drawn_items = (
        generator.multinomial(size, np.full(size, 1 / size), size=resamples).astype(float)
        for size in counts.shape
    )
    top, bottom = (((drawn_raters @ table) * drawn_items).sum(axis=1) for table in (sums, counts))
    there = bottom > 0
    return float(np.std(top[there] / bottom[there], ddof=1)) * math.sqrt(fewer / (fewer - 1))


def items_needed(standard_error: float, *, units: int, difference: float) -> int:
    """The smallest number of items that finds a difference with 80 % power.

    Args:
        standard_error: The standard error of the difference over `units` items.
        units: The number of these items.
        difference: The true difference to find, above 0.
    """
    deviation = standard_error * math.sqrt(units)
    # the normal distribution gives a number slightly too small; count on from there with Student's
    needed = max(2, math.floor((minimum_detectable_difference(deviation) / difference) ** 2))
    while minimum_detectable_difference(deviation / math.sqrt(needed), units=needed) > difference:
        needed += 1
    return needed


def _contrast(
    ratings: Sequence[Rating], measure: str, pair: tuple[str, str], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of a `Contrast`, without `p_holm`."""
    preference = measure == PREFERENCE
    a, b = (np.array([_value(rating, measure, name) for rating in ratings], dtype=float) for name in pair)
    ids = np.array([rating.id for rating in ratings])
    raters = np.array([rating.rater for rating in ratings])
    paired: dict[str, Any] = {"clusters": ids, "metric": "mean", **options}
    found = paired_bootstrap(None, a, b, **paired)
    _, item = np.unique(ids, return_inverse=True)
    sums = np.bincount(item, weights=a - b)
    wins, losses = int((sums > 0).sum()), int((sums < 0).sum())
    widest = 1 if preference else SCALE[-1] - SCALE[0]
    targets = PREFERENCE_TARGETS if preference else TARGETS
    return {
        "measure": measure,
        "a": pair[0],
        "b": pair[1],
        "figure_a": found.a,
        "figure_b": found.b,
        "difference": found.difference,
        "interval": found.interval,
        "interval_raters": _over_raters(a - b, ids, raters, widest, options),
        "p_value": _sign_test(wins, losses) if preference else permutation_test(None, a, b, **paired),
        "test": "sign" if preference else "swaps",
        "wins": wins,
        "ties": found.units - wins - losses,
        "losses": losses,
        "items": found.units,
        "ratings": found.rows,
        "raters": len(set(raters)),
        "standard_error": found.standard_error,
        "detectable": minimum_detectable_difference(found.standard_error, units=found.units),
        "items_needed": {
            f"{target:g}": items_needed(found.standard_error, units=found.units, difference=target)
            for target in targets
        },
    }


def _sign_test(wins: int, losses: int) -> float:
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def _over_raters(
    differences: Array, ids: Array, raters: Array, widest: float, options: Mapping[str, Any]
) -> Interval | None:
    """The interval over items and raters of a mean between -`widest` and `widest`."""
    if len(set(raters)) < LEAST_RATERS:
        return None
    error = crossed_standard_error(differences, items=ids, raters=raters, **options)
    # few raters give poor percentiles; Student's t allows for their number, but not for the scale
    fewer = min(len(set(ids)), len(set(raters)))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, fewer - 1)) * error
    middle = float(differences.mean())
    return max(middle - half, -widest), min(middle + half, widest)


def _value(rating: Rating, measure: str, system: str) -> int:
    return int(rating.preferred == system) if measure == PREFERENCE else rating.scores[system][measure]


def _agreement(
    ratings: Sequence[Rating], measure: str, systems: Sequence[str], options: Mapping[str, Any]
) -> Agreement:
    values: Sequence[int] = (-1, 0, 1) if measure == PREFERENCE else SCALE
    counts: dict[tuple[str, str], Array] = {}
    for rating in ratings:
        a, b = sorted(rating.scores, key=systems.index)
        if measure == PREFERENCE:
            given = {a: _value(rating, measure, a) - _value(rating, measure, b)}
        else:
            given = {system: scores[measure] for system, scores in rating.scores.items()}
        for system, value in given.items():
            counts.setdefault((rating.id, system), np.zeros(len(values)))[values.index(value)] += 1
    return ordinal_agreement(np.stack(list(counts.values())), [id for id, _ in counts], **options)


def _rater(name: str, ratings: Sequence[Rating]) -> Rater:
    mine = [rating for rating in ratings if rating.rater == name]
    first = {rating.id: rating for rating in mine if not rating.repeat}
    again = [(first[rating.id], rating) for rating in mine if rating.repeat and rating.id in first]
    same = [before.preferred == after.preferred for before, after in again]
    changes = [
        abs(value - after.scores[system][criterion])
        for before, after in again
        for system, scores in before.scores.items()
        for criterion, value in scores.items()
    ]
    return Rater(
        name=name,
        items=len(first),
        seconds=float(np.median([rating.seconds for rating in first.values()])) if first else 0.0,
        unheard=sum(not rating.plays for rating in first.values()),
        repeats=len(again),
        same_preference=float(np.mean(same)) if again else None,
        mean_change=float(np.mean(changes)) if again else None,
    )


def _sides(ratings: Sequence[Rating]) -> Sides:
    left = sum(rating.preferred == rating.left for rating in ratings)
    right = sum(rating.preferred == rating.right for rating in ratings)
    return Sides(left, right, len(ratings) - left - right, _sign_test(left, right))
