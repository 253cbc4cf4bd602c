"""Whether one system is better than another, from what both said of the same rows.

    gold [n], predictions [n] or [s, n] of s seeds ─► sums per unit ─► resampled or swapped sums ─► figures

The rows of one speaker are not independent, so what is drawn, and what is swapped, are units: the speakers
(or recordings) that `clusters` names, or the rows where it is None. Every figure here is a function of sums
over rows (the confusion matrix; a sum and a count), which are added up once per unit. A resample is then a
product of matrices, and 10,000 of them take a fraction of a second.

A *metric* is the name of one of labels (`metrics.METRICS`), or `mean`: of a number per row, such as ROUGE-L,
with `gold` None. A system of several seeds has the mean of their figures. Units are what varies in the
intervals and tests over rows: they speak of these trained models on other speakers. `seed_difference` speaks
of other trainings on these rows, `method_difference` of other trainings on other speakers.

Of rows that are all right no resample has a wrong one: there, and for shares of rows, `bootstrap` gives
Wilson's interval.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from mmsr.evaluation.metrics import METRICS, metrics_of

Array = NDArray[Any]
Interval = tuple[float, float]

RESAMPLES = 10_000
CONFIDENCE = 0.95
FEW_DISCORDANT = 25  # McNemar's test is the exact one below this
_CELLS = 4_000_000  # numbers held at a time: resamples are made in chunks of about so many cells


@dataclass(frozen=True)
class Difference:
    """The figure of `a` minus that of `b`, and how sure it is.

    Attributes:
        metric: Which figure.
        a: Figure of the first system, the mean over its seeds.
        b: Figure of the second.
        interval: Of the difference, at 95 % (see `paired_bootstrap`).
        standard_error: Of the difference over units.
        rows: Rows that both answered.
        units: Clusters, or rows, that were drawn.
    """

    metric: str
    a: float
    b: float
    interval: Interval
    standard_error: float
    rows: int
    units: int

    @property
    def difference(self) -> float:
        """`a` - `b`."""
        return self.a - self.b


class McNemar(NamedTuple):
    """McNemar's test: the rows that one system alone has right, and how they are shared out."""

    only_a: int
    only_b: int
    p_value: float
    method: Literal["exact", "mid-p"]


class Effect(NamedTuple):
    """A difference without a unit."""

    name: Literal["cohen_h", "standardised_difference"]
    value: float | None  # None where all units differ by the same, so that there is nothing to measure by


class SeedDifference(NamedTuple):
    """Difference of two systems over trainings; interval and p-value are None where either has one seed."""

    difference: float
    interval: Interval | None
    p_value: float | None


class MethodDifference(NamedTuple):
    """Difference of two ways of training, which is to hold for other seeds and other units."""

    difference: float
    interval: Interval
    p_value: float
    standard_error: float
    freedom: float  # degrees of freedom of Student's t


def paired_bootstrap(
    gold: ArrayLike | None,
    a: ArrayLike,
    b: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    metric: str = "macro_f1",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Difference of two systems' figures with a paired bootstrap interval over units.

    Each resample draws as many units as there are, with replacement, the same ones for both systems and all
    their seeds. The interval is the *expanded* percentile interval of Hesterberg (2015, "What Teachers Should
    Know About the Bootstrap", section 5.4): percentiles further out, by √(k / (k - 1)) and by Student's t for
    the normal distribution, since the plain ones are too narrow with few units k, as speakers are.
    `standard_error` has the same √(k / (k - 1)).

    Args:
        gold: Labels `[n]`; None for the metric `mean`.
        a: Predicted labels (numbers for `mean`) of the first system, `[n]`, or `[s, n]` of s seeds.
        b: Those of the second, in the same order of rows.
        clusters: Cluster of each row, `[n]`.
        metric: Name of a metric of labels, or mean.
        resamples: How many.
        seed: The same seed gives the same interval.

    Raises:
        ValueError: Shapes that do not fit, an unknown metric, or fewer than two units.
    """
    figure = figure_of(metric)
    counts = _Counts.of(gold, a, b, clusters=clusters, metric=metric)
    means_a, means_b = counts.mean_figures(figure, counts.totals[None])
    differences = np.concatenate(
        [np.subtract(*counts.mean_figures(figure, sums)) for sums in counts.drawn(resamples, seed)]
    )
    return Difference(
        metric=metric,
        a=float(means_a[0]),
        b=float(means_b[0]),
        interval=expanded_interval(differences, counts.units),
        standard_error=float(differences.std(ddof=1)) * math.sqrt(counts.units / (counts.units - 1)),
        rows=counts.rows,
        units=counts.units,
    )


def bootstrap(
    gold: ArrayLike | None,
    predicted: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    metric: str = "macro_f1",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Interval of one system's figure over units: `paired_bootstrap`'s, or Wilson's where that fails.

    The share of rows that are right (accuracy; a `mean` of booleans) has Wilson's interval. A bootstrap of 12
    rows, all of them right, has no width; where 95 % are right it covers that in less than half of such
    samples. Clusters, and several seeds, are drawn all the same.

    Where all draws give one figure, as where every row is right, Wilson's interval takes the clusters for
    rows: as if all rows of a speaker were one, which errs to the wide side. It does so for metrics whose
    labels weigh alike too, such as macro-F1: there k rows count as k · l² / (n Σ 1 / n_label), of n rows and
    l labels, which is less the rarer one of them is. A `mean` of other numbers, such as ratings or
    differences, is no share, and its bootstrap stays.

    Arguments and errors are as of `paired_bootstrap`, but that a single unit is allowed, of which nothing can
    be said: both ends are nan.
    """
    figure = figure_of(metric)
    counts = _Counts.of(gold, predicted, None, clusters=clusters, metric=metric, least=1)
    if counts.units == 1:
        return math.nan, math.nan
    known = METRICS.get(metric)
    of_outcomes = known is not None or np.asarray(predicted).dtype == bool
    is_share = known.is_share if known is not None else of_outcomes
    value = float(counts.mean_figures(figure, counts.totals[None])[0][0])
    if is_share and clusters is None and counts.seeds == 1:
        low, high = wilson_interval(value, counts.units)
        return float(low), float(high)
    figures = np.concatenate([counts.mean_figures(figure, sums)[0] for sums in counts.drawn(resamples, seed)])
    if of_outcomes and np.ptp(figures) < 1e-12:  # equal but for rounding is equal
        weight = _label_balance(counts) if known is not None and known.averages_labels else 1.0
        low, high = wilson_interval(value, counts.units * weight)
        return float(low), float(high)
    return expanded_interval(figures, counts.units)


def wilson_interval(share: ArrayLike, n: ArrayLike, *, confidence: float = CONFIDENCE) -> tuple[Array, Array]:
    """Wilson's score interval of shares of `n` rows that are right or wrong each (Wilson, 1927).

    Unlike a bootstrap's it has a width where all rows are right; on average over shares it covers as often as
    it says (Brown, Cai and DasGupta, 2001).

    Args:
        share: From 0 to 1, of any shape.
        n: How many rows, each by itself; need not be whole.
        confidence: Such as .95.
    """
    from statsmodels.stats.proportion import proportion_confint

    share, n = np.asarray(share, dtype=float), np.asarray(n, dtype=float)
    low, high = proportion_confint(share * n, n, alpha=1 - confidence, method="wilson")
    # of nothing but right ones the end is 1, which rounding may miss
    return np.clip(low, 0.0, share), np.clip(high, share, 1.0)


def seed_figures(gold: ArrayLike | None, predicted: ArrayLike, *, metric: str = "macro_f1") -> list[float]:
    """The figure of each seed of a system; arguments and errors are those of `bootstrap`."""
    counts = _Counts.of(gold, predicted, None, clusters=None, metric=metric, least=1)
    return [float(value) for value in figure_of(metric)(counts.totals)]


def permutation_test(
    gold: ArrayLike | None,
    a: ArrayLike,
    b: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    metric: str = "macro_f1",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> float:
    """Two-sided p-value of the difference: the systems' answers are swapped in units drawn by a fair coin.

    Were the systems alike, a unit's answers could as well have come from the other one. All answers to a
    unit change sides together. With several seeds the statistic is the figure of the summed confusion
    matrices of each system's seeds, each seed weighing alike, so that the numbers of seeds may differ. Units
    on which the systems do not differ count for nothing. Where all swaps of the others are no more than
    `resamples`, each is tried and the p-value is exact; otherwise it is (1 + extreme) / (1 + resamples),
    which never rejects too often (Phipson and Smyth, 2010). With k differing units it is 2 / 2**k or more.

    Arguments and errors are those of `paired_bootstrap`.
    """
    figure = figure_of(metric)
    counts = _Counts.of(gold, a, b, clusters=clusters, metric=metric)
    sums = [side.mean(axis=1) for side in (counts.sums[:, : counts.seeds], counts.sums[:, counts.seeds :])]
    first, second = (counts.multiplicity @ side for side in sums)
    differing = (sums[0] != sums[1]).any(axis=1)
    change, multiplicity = (sums[1] - sums[0])[differing], counts.multiplicity[differing]
    swappable = int(multiplicity.sum())
    if not swappable:
        return 1.0
    exact = swappable <= math.floor(math.log2(resamples))
    if exact:
        change = change.repeat(multiplicity, axis=0)
        flips: Iterator[Array] = iter([np.arange(2**swappable)[:, None] >> np.arange(swappable) & 1])
    else:
        generator = np.random.default_rng(seed)
        flips = (
            generator.binomial(multiplicity, 0.5, size=(size, len(multiplicity)))
            for size in _chunks(resamples, len(multiplicity) + change.shape[1])
        )
    observed = abs(float(figure(first) - figure(second)))
    extreme = 0
    for swapped in flips:
        moved = swapped.astype(float) @ change
        statistic = np.abs(figure(first + moved) - figure(second - moved))
        extreme += int((statistic >= observed - 1e-12).sum())  # equal but for rounding is equal
    return extreme / 2**swappable if exact else (1 + extreme) / (1 + resamples)


def mcnemar(gold: ArrayLike, a: ArrayLike, b: ArrayLike) -> McNemar:
    """McNemar's test that two systems are right equally often, over rows taken as independent.

    With fewer than 25 rows that one alone has right, the exact binomial test; otherwise its mid-p version,
    which is less conservative and holds its level (Fagerland, Lydersen and Laake, 2013).

    Args:
        gold: Labels `[n]`.
        a: Predicted labels of the first system `[n]`, of one seed: the test knows no more.
        b: Those of the second.

    Raises:
        ValueError: Shapes that do not fit.
    """
    gold, a, b = (np.asarray(values) for values in (gold, a, b))
    if not gold.shape == a.shape == b.shape or gold.ndim != 1:
        raise ValueError(f"gold, a and b have shapes {gold.shape}, {a.shape}, {b.shape}; accepted: all [n]")
    from statsmodels.stats.contingency_tables import mcnemar as test

    right_a, right_b = a == gold, b == gold
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    discordant, few = only_a + only_b, min(only_a, only_b)
    exact = float(test([[0, only_a], [only_b, 0]], exact=True).pvalue)
    if discordant < FEW_DISCORDANT:
        return McNemar(only_a, only_b, exact, "exact")
    # half of what is as extreme as the observed, on both sides; at equal counts the sides share it
    observed = float(stats.binom.pmf(few, discordant, 0.5))
    return McNemar(only_a, only_b, exact - observed if only_a != only_b else 1 - observed / 2, "mid-p")


def holm(p_values: ArrayLike) -> Array:
    """P-values of several comparisons, adjusted so that all together err at the level of one (Holm, 1979).

    Args:
        p_values: `[c]`.

    Returns:
        Adjusted p-values `[c]`, in the same order.

    Raises:
        ValueError: Not one axis, or a value that is not from 0 to 1.
    """
    from statsmodels.stats.multitest import multipletests

    given = np.asarray(p_values, dtype=float)
    if given.ndim != 1 or not ((given >= 0) & (given <= 1)).all():
        raise ValueError(f"p-values {given.tolist()}; accepted: a list of numbers from 0 to 1")
    # one p-value stays what it is; multipletests collects garbage in each call, which may take a second
    return multipletests(given, method="holm")[1] if len(given) > 1 else given


def seed_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval:
    """Student's t-interval of the mean over seeds.

    Raises:
        ValueError: Fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} seed has no interval; accepted: two seeds or more")
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values)
    return float(np.mean(values) - half), float(np.mean(values) + half)


def seed_difference(a: Sequence[float], b: Sequence[float]) -> SeedDifference:
    """Difference of two systems over seeds, which are independent of each other even where equally numbered.

    The interval is Welch's; the p-value is that of a permutation of the seeds between the systems, exact up
    to 10,000 permutations. Three seeds against three cannot have it below .1, four against four below .029.

    Args:
        a: Figure of each seed of the first system.
        b: Those of the second.
    """
    difference = float(np.mean(a) - np.mean(b))
    if len(a) < 2 or len(b) < 2:
        return SeedDifference(difference, None, None)
    if np.ptp(a) == np.ptp(b) == 0:
        interval = (difference, difference)  # scipy has no interval without any variance
    else:
        low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(CONFIDENCE)
        interval = (float(low), float(high))
    test = stats.permutation_test(
        (np.asarray(a, dtype=float), np.asarray(b, dtype=float)),
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return SeedDifference(difference, interval, float(test.pvalue))


def method_difference(
    gold: ArrayLike | None,
    a: ArrayLike,
    b: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    metric: str = "macro_f1",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> SeedDifference:
    """Difference of two ways of training, which is to hold for other seeds and other units.

    Its variance is that over units with the seeds as they are (`paired_bootstrap`'s standard error, squared)
    plus that of each system's mean over its seeds; interval and p-value are Student's, with the degrees of
    freedom of Welch and Satterthwaite. A resampling of three or five seeds would take their variance for a
    third or a fifth smaller than it is. Arguments and errors are those of `paired_bootstrap`.

    Returns:
        Interval and p-value are None where a system has one seed, of whose variance nothing is known.
    """
    found = paired_bootstrap(gold, a, b, clusters=clusters, metric=metric, resamples=resamples, seed=seed)
    sides = [seed_figures(gold, side, metric=metric) for side in (a, b)]
    if min(map(len, sides)) < 2:
        return SeedDifference(found.difference, None, None)
    return SeedDifference(*method_difference_of(found, *sides)[:3])


def method_difference_of(found: Difference, a: Sequence[float], b: Sequence[float]) -> MethodDifference:
    """`method_difference` of what is known already, and the standard error behind it.

    Args:
        found: Of `paired_bootstrap`.
        a: Figure of each seed of the first system, as of `seed_figures`.
        b: Those of the second.

    Raises:
        ValueError: Fewer than two seeds on a side.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"{len(a)} and {len(b)} seeds; accepted: two or more on each side")
    difference = found.difference
    parts = [(found.standard_error**2, found.units - 1)]
    parts += [(float(np.var(side, ddof=1)) / len(side), len(side) - 1) for side in (a, b)]
    variance = sum(part for part, _ in parts)
    if not variance > 1e-24:  # alike in all units and seeds: nothing varies, but swaps can still be counted
        p_value = 1.0 if abs(difference) < 1e-12 else 2.0 ** (1 - found.units)
        return MethodDifference(difference, (difference, difference), p_value, 0.0, found.units - 1)
    freedom = variance**2 / sum(part**2 / df for part, df in parts)
    error = math.sqrt(variance)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    p_value = 2 * float(stats.t.sf(abs(difference) / error, freedom))
    return MethodDifference(difference, (difference - half, difference + half), p_value, error, freedom)


def minimum_detectable_difference(
    standard_error: float,
    *,
    units: int | None = None,
    freedom: float | None = None,
    power: float = 0.8,
    level: float = 0.05,
) -> float:
    """The smallest true difference that a two-sided test would find with this power.

    (t[1 - level / 2] + t[power]) · standard error, with quantiles of Student's t of `units` - 1 degrees of
    freedom, or of the normal distribution without either (2.80 standard errors). It is what this test set
    can tell of these two systems: smaller differences mostly stay unseen, and not seeing one is no proof.

    Args:
        standard_error: Of the difference, as of `paired_bootstrap`.
        units: How many units it was drawn from.
        freedom: Degrees of freedom instead, as of `method_difference_of`.
        power: Share of such test sets on which the difference is found.
        level: Share of test sets on which one is found where there is none.

    Raises:
        ValueError: Fewer than two units.
    """
    if units is not None and units < 2:
        raise ValueError(f"units {units}; accepted: 2 or more")
    freedom = units - 1 if units is not None else freedom
    distribution = stats.norm if freedom is None else stats.t(freedom)
    return float((distribution.ppf(1 - level / 2) + distribution.ppf(power)) * standard_error)


def effect_size(difference: Difference) -> Effect:
    """Cohen's h of two shares; of other figures the difference in standard deviations of a unit's.

    h = 2 asin √a - 2 asin √b, of which .2 is called small, .5 medium and .8 large. A unit's standard
    deviation is the standard error times √units.
    """
    known = METRICS.get(difference.metric)
    if known is not None and known.is_share:
        return Effect("cohen_h", 2 * (math.asin(difference.a**0.5) - math.asin(difference.b**0.5)))
    deviation = difference.standard_error * math.sqrt(difference.units)
    return Effect("standardised_difference", difference.difference / deviation if deviation > 1e-12 else None)


def expanded_interval(values: Array, units: int) -> Interval:
    """95 % interval of bootstrap replicates of a figure over so many units (see `paired_bootstrap`)."""
    reach = math.sqrt(units / (units - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, units - 1)
    tail = stats.norm.sf(reach)
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def figure_of(metric: str) -> Callable[[Array], Array]:
    """The function from sums `[..., m]` to the metric's figures `[...]`.

    The sums of labels are a confusion matrix, `m` = true label · labels + predicted label; those of `mean`
    the rows' numbers added up, and how many they are.

    Raises:
        ValueError: An unknown metric; says which there are.
    """
    if metric == "mean":
        return _mean
    known = METRICS.get(metric)
    if known is None or known.from_confusion is None:
        accepted = ", ".join([*(known.name for known in metrics_of("label")), "mean"])
        raise ValueError(f"metric {metric!r} is unknown; accepted: {accepted}")
    from_confusion = known.from_confusion
    return lambda sums: from_confusion(_confusion(sums))


def _mean(sums: Array) -> Array:
    return sums[..., 0] / sums[..., 1]


def _confusion(sums: Array) -> Array:
    """Sums of labels `[..., m]` as confusion matrices `[..., l, l]`."""
    labels = math.isqrt(sums.shape[-1])
    return sums.reshape(*sums.shape[:-1], labels, labels)


def _label_balance(counts: "_Counts") -> float:
    """What a row counts for in a mean over labels: l² / (n Σ 1 / n_label), 1 where each has as many rows."""
    gold = _confusion(counts.totals[0]).sum(axis=-1)
    of_label = gold[gold > 0]
    return float(len(of_label) ** 2 / (of_label.sum() * (1 / of_label).sum()))


def _chunks(resamples: int, cells: int) -> Iterator[int]:
    """Sizes that add up to `resamples`, each with so few that its cells can be held."""
    size = max(1, _CELLS // cells)
    yield from (min(size, resamples - start) for start in range(0, resamples, size))


@dataclass(frozen=True)
class _Counts:
    """What the rows of each unit add up to.

    Attributes:
        sums: `[u, s, m]` of units u, of the seeds s of both systems one after the other.
        multiplicity: How many units have the same sums, `[u]`: alike rows are counted, not listed.
        seeds: How many of s are the first system's.
        rows: Rows in all.
    """

    sums: Array
    multiplicity: Array
    seeds: int
    rows: int

    @classmethod
    def of(
        cls,
        gold: ArrayLike | None,
        a: ArrayLike,
        b: ArrayLike | None,
        *,
        clusters: ArrayLike | None,
        metric: str,
        least: int = 2,
    ) -> "_Counts":
        sides = [np.atleast_2d(np.asarray(side)) for side in (a, b) if side is not None]
        rows = sides[0].shape[-1]
        if (gold is None) != (metric == "mean"):
            raise ValueError(
                f"metric {metric!r} and gold {'None' if gold is None else 'given'}; accepted: gold labels "
                f"with {', '.join(known.name for known in metrics_of('label'))}, None with mean"
            )
        given = {"a": sides[0][0], "b": sides[-1][0], "gold": gold, "clusters": clusters}
        for name, values in given.items():
            if values is not None and np.shape(values) != (rows,):
                raise ValueError(f"{name} has shape {np.shape(values)}; accepted: {rows} rows, as a has")
        answers = np.concatenate(sides)
        if gold is None:
            each = np.stack([answers.astype(float), np.ones(answers.shape)], axis=-1).swapaxes(0, 1)
            inverse, multiplicity = np.arange(rows), np.ones(rows, dtype=int)
        else:
            labels, coded = np.unique(np.vstack([np.asarray(gold)[None], answers]), return_inverse=True)
            coded = coded.reshape(len(answers) + 1, rows)
            patterns, inverse, multiplicity = np.unique(
                coded, axis=1, return_inverse=True, return_counts=True
            )
            cells = patterns[0] * len(labels) + patterns[1:]  # [s, pattern]
            each = np.eye(len(labels) ** 2)[cells.T]  # [pattern, s, m]
        if clusters is not None:
            names, cluster = np.unique(np.asarray(clusters), return_inverse=True)
            table = np.zeros((len(names), len(each)))
            np.add.at(table, (cluster, inverse.ravel()), 1)
            each = (table @ each.reshape(len(each), -1)).reshape(len(names), *each.shape[1:])
            multiplicity = np.ones(len(names), dtype=int)
        if multiplicity.sum() < least:
            what = "rows" if clusters is None else "clusters"
            raise ValueError(f"{multiplicity.sum()} {what}; accepted: {least} or more")
        return cls(each, multiplicity, len(sides[0]), rows)

    @property
    def units(self) -> int:
        return int(self.multiplicity.sum())

    @property
    def totals(self) -> Array:
        """`[s, m]`."""
        return np.tensordot(self.multiplicity, self.sums, axes=1)

    def drawn(self, resamples: int, seed: int) -> Iterator[Array]:
        """Sums of units drawn with replacement, `[r, s, m]`, in chunks of resamples r."""
        generator = np.random.default_rng(seed)
        shares = self.multiplicity / self.units
        flat = self.sums.reshape(len(self.sums), -1)
        for size in _chunks(resamples, sum(flat.shape)):
            drawn = generator.multinomial(self.units, shares, size=size).astype(float)
            yield (drawn @ flat).reshape(size, *self.sums.shape[1:])

    def mean_figures(self, figure: Callable[[Array], Array], sums: Array) -> tuple[Array, Array]:
        """Figure of each system, the mean over its seeds, from sums `[r, s, m]`: two arrays `[r]`."""
        figures = figure(sums)
        first, second = figures[:, : self.seeds], figures[:, self.seeds :]
        return first.mean(axis=1), second.mean(axis=1) if second.size else first.mean(axis=1)
