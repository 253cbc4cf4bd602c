"""What raters' answers say of the systems, and how far they can be believed.

    ratings ─┬─► mean of each system on each criterion, intervals over items
             ├─► pairs: difference, intervals over items and over items and raters, tests, Holm, sample size
             ├─► agreement between raters (Krippendorff's alpha)
             └─► of each rater: consistency on repeated items, seconds, items not listened to; pull of a side

Ratings of one item hang together, and so do those of one rater. Intervals and tests over items speak of
these raters on other utterances; the wider interval over items and raters speaks of other raters too, where
there are three or more: with two, one degree of freedom (t = 12.7) makes it wider than the scale. Only the
first showing of an item counts, its repetition is for consistency alone.
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
TARGETS = (0.25, 0.5)  # points of the scale: differences for which the number of items is told
PREFERENCE_TARGETS = (0.1, 0.2)  # shares of the ratings
LEAST_RATERS = 3  # fewer tell nothing of other raters


@dataclass(frozen=True)
class Figure:
    """A system's mean on a criterion.

    Attributes:
        system: Its name.
        criterion: Of the key's criteria.
        mean: From 1 to 5.
        interval: 95 %, over items.
        items: Rated items.
        ratings: And how many ratings they have.
    """

    system: str
    criterion: str
    mean: float
    interval: Interval
    items: int
    ratings: int


@dataclass(frozen=True)
class Contrast:
    """Two systems on one criterion, or the preference between them.

    Attributes:
        measure: Criterion, or `preference`.
        a: Name of the first system.
        b: Of the second.
        figure_a: Mean of the first; of the preference, the share of ratings that prefer it.
        figure_b: Those of the second.
        difference: `figure_a` - `figure_b`.
        interval: Of the difference, 95 %, over items.
        interval_raters: Over items and raters, within what is possible; None with fewer than three raters.
        p_value: Over items.
        test: Swaps of the systems within items, or for the preference the sign test.
        p_holm: Adjusted for all contrasts of the table.
        wins: Items on which the first is better in the mean of the raters.
        ties: On which neither is.
        losses: On which the second is.
        items: Rated items.
        ratings: Their ratings.
        raters: Who gave them.
        standard_error: Of the difference over items.
        detectable: Smallest true difference found with 80 % power with so many items.
        items_needed: Items that would find so large a difference with 80 % power, these raters given.
    """

    measure: str
    a: str
    b: str
    figure_a: float
    figure_b: float
    difference: float
    interval: Interval
    interval_raters: Interval | None
    p_value: float
    test: Literal["swaps", "sign"]
    p_holm: float
    wins: int
    ties: int
    losses: int
    items: int
    ratings: int
    raters: int
    standard_error: float
    detectable: float
    items_needed: dict[str, int]


@dataclass(frozen=True)
class Rater:
    """One rater's work.

    Attributes:
        name: Who.
        items: Items rated, repetitions not counted.
        seconds: Median that an item was on the screen.
        unheard: Items rated without starting the recording.
        repeats: Items rated twice.
        same_preference: Share of these with the same preference; None without any.
        mean_change: Mean distance of the two ratings, in points; None without any.
    """

    name: str
    items: int
    seconds: float
    unheard: int
    repeats: int
    same_preference: float | None
    mean_change: float | None


@dataclass(frozen=True)
class Sides:
    """Which side was preferred: without a pull of one side, left and right alike.

    Attributes:
        left: Ratings that prefer what stood left.
        right: Right.
        same: Neither.
        p_value: Of a binomial test, ratings taken as independent.
    """

    left: int
    right: int
    same: int
    p_value: float


@dataclass(frozen=True)
class Scores:
    """All that `score` finds; as JSON its fields, with these names.

    Attributes:
        figures: Of each system and criterion.
        contrasts: Of each pair of systems that was shown, and each measure.
        agreement: {measure: Krippendorff's alpha}, over answers of the criteria, items of the preference.
        raters: Each.
        sides: Their pull.
    """

    figures: list[Figure]
    contrasts: list[Contrast]
    agreement: dict[str, Agreement]
    raters: list[Rater]
    sides: Sides


def score(
    ratings: Sequence[Rating], key: Mapping[str, Any], *, resamples: int = RESAMPLES, seed: int = 0
) -> Scores:
    """What the ratings say.

    Args:
        ratings: Of `read_ratings`.
        key: Of `read_key`.
        resamples: Of each bootstrap and permutation test.
        seed: The same seed gives the same intervals.

    Raises:
        RatingsError: A pair of systems was rated on fewer than two items.
    """
    criteria, systems = list(key["criteria"]), list(key["systems"])
    first = [one for one in ratings if not one.repeat]
    figures = []
    for system in systems:
        mine = [one for one in first if system in one.scores]
        for criterion in criteria if mine else ():
            values = [one.scores[system][criterion] for one in mine]
            ids = [one.id for one in mine]
            low, high = bootstrap(None, values, clusters=ids, metric="mean", resamples=resamples, seed=seed)
            figures.append(
                Figure(system, criterion, float(np.mean(values)), (low, high), len(set(ids)), len(mine))
            )
    found = []
    for pair in combinations(systems, 2):
        mine = [one for one in first if set(one.scores) == set(pair)]
        if len({one.id for one in mine}) < 2:
            count = len({one.id for one in mine})
            raise RatingsError(f"{pair[0]} and {pair[1]} are rated on {count} items; accepted: 2 or more")
        for measure in (*criteria, PREFERENCE):
            found.append(_contrast(mine, measure, pair, resamples=resamples, seed=seed))
    adjusted = holm([one["p_value"] for one in found])
    return Scores(
        figures=figures,
        contrasts=[Contrast(**one, p_holm=float(p)) for one, p in zip(found, adjusted, strict=True)],
        agreement={
            measure: _agreement(first, measure, systems, resamples=resamples, seed=seed)
            for measure in (*criteria, PREFERENCE)
        },
        raters=[_rater(name, ratings) for name in dict.fromkeys(one.rater for one in ratings)],
        sides=_sides(first),
    )


def crossed_standard_error(
    values: ArrayLike, *, items: ArrayLike, raters: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """Standard error of a mean over items and raters, both drawn with replacement, each by itself.

    That is the pigeonhole bootstrap (Owen, 2007), which errs to the wide side where ratings are crossed. It
    is multiplied by √(k / (k - 1)), k the fewer of items and raters, as in `significance.paired_bootstrap`.

    Args:
        values: `[n]`.
        items: Of each value `[n]`.
        raters: `[n]`.
        resamples: How many; those whose items and raters have no rating in common do not count.
        seed: The same seed gives the same value.

    Raises:
        ValueError: Fewer than two items or two raters.
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
    """The fewest items with which such a difference would be found with 80 % power.

    Args:
        standard_error: Of the difference observed over `units` items; it falls with the root of their number.
        units: How many these were.
        difference: True difference to find, above 0.
    """
    deviation = standard_error * math.sqrt(units)
    # the normal distribution's number is a little too small, Student's follows from there
    needed = max(2, math.floor((minimum_detectable_difference(deviation) / difference) ** 2))
    while minimum_detectable_difference(deviation / math.sqrt(needed), units=needed) > difference:
        needed += 1
    return needed


def _contrast(
    ratings: Sequence[Rating], measure: str, pair: tuple[str, str], *, resamples: int, seed: int
) -> dict[str, Any]:
    """A contrast's fields, but for the correction over all."""
    a, b = (np.array([_value(one, measure, name) for one in ratings], dtype=float) for name in pair)
    ids, raters = np.array([one.id for one in ratings]), np.array([one.rater for one in ratings])
    options: dict[str, Any] = {
        "clusters": ids,
        "metric": "mean",
        "resamples": resamples,
        "seed": seed,
    }
    found = paired_bootstrap(None, a, b, **options)
    _, item = np.unique(ids, return_inverse=True)
    sums = np.bincount(item, weights=a - b)
    wins, losses = int((sums > 0).sum()), int((sums < 0).sum())
    if measure == PREFERENCE:
        p_value = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    else:
        p_value = permutation_test(None, a, b, **options)
    return {
        "measure": measure,
        "a": pair[0],
        "b": pair[1],
        "figure_a": found.a,
        "figure_b": found.b,
        "difference": found.difference,
        "interval": found.interval,
        "interval_raters": _over_raters(
            a - b, ids, raters, widest=_widest(measure), resamples=resamples, seed=seed
        ),
        "p_value": p_value,
        "test": "sign" if measure == PREFERENCE else "swaps",
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
            for target in (PREFERENCE_TARGETS if measure == PREFERENCE else TARGETS)
        },
    }


def _over_raters(
    differences: Array, ids: Array, raters: Array, *, widest: float, resamples: int, seed: int
) -> Interval | None:
    """Interval over items and raters of a mean that lies between -`widest` and `widest`."""
    if len(set(raters)) < LEAST_RATERS:
        return None
    error = crossed_standard_error(differences, items=ids, raters=raters, resamples=resamples, seed=seed)
    # few raters have no percentiles to speak of: Student's t knows how few they are, but not the scale
    fewer = min(len(set(ids)), len(set(raters)))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, fewer - 1)) * error
    middle = float(differences.mean())
    return max(middle - half, -widest), min(middle + half, widest)


def _widest(measure: str) -> float:
    """The largest difference that there can be."""
    return 1 if measure == PREFERENCE else SCALE[-1] - SCALE[0]


def _value(rating: Rating, measure: str, system: str) -> int:
    return int(rating.preferred == system) if measure == PREFERENCE else rating.scores[system][measure]


def _agreement(
    ratings: Sequence[Rating], measure: str, systems: Sequence[str], *, resamples: int, seed: int
) -> Agreement:
    values: Sequence[int] = (-1, 0, 1) if measure == PREFERENCE else SCALE
    counts: dict[tuple[str, str], Array] = {}
    for one in ratings:
        a, b = sorted(one.scores, key=systems.index)
        if measure == PREFERENCE:
            given = {a: _value(one, measure, a) - _value(one, measure, b)}
        else:
            given = {system: scores[measure] for system, scores in one.scores.items()}
        for system, value in given.items():
            counts.setdefault((one.id, system), np.zeros(len(values)))[values.index(value)] += 1
    clusters = [id for id, _ in counts]
    return ordinal_agreement(np.stack(list(counts.values())), clusters, resamples=resamples, seed=seed)


def _rater(name: str, ratings: Sequence[Rating]) -> Rater:
    mine = [one for one in ratings if one.rater == name]
    first = {one.id: one for one in mine if not one.repeat}
    again = [(first[one.id], one) for one in mine if one.repeat and one.id in first]
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
        seconds=float(np.median([one.seconds for one in first.values()])) if first else 0.0,
        unheard=sum(not one.plays for one in first.values()),
        repeats=len(again),
        same_preference=float(np.mean(same)) if again else None,
        mean_change=float(np.mean(changes)) if again else None,
    )


def _sides(ratings: Sequence[Rating]) -> Sides:
    left = sum(one.preferred == one.left for one in ratings)
    right = sum(one.preferred == one.right for one in ratings)
    p_value = float(stats.binomtest(left, left + right).pvalue) if left + right else 1.0
    return Sides(left, right, len(ratings) - left - right, p_value)
