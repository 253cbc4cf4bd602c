"""Tests and intervals: whether one system is better than another, from their answers to the same rows.

    gold [n], predictions [n] or [s, n] of s seeds ─► sums per unit ─► resampled or swapped sums ─► values

The rows of one speaker are not independent. So units are resampled and swapped: speakers (or recordings), as
`clusters` names them, or rows where it is None. Every metric here is a function of sums over rows (the
confusion matrix; a sum and a count), which are added up once per unit. A resample is then a product of
matrices, and 10,000 of them take a fraction of a second.

`metric` names a metric of labels (`metrics.METRICS`), or is `mean`: of a number per row, such as ROUGE-L,
with `gold` None. A system of several seeds has the mean of their values. `paired_bootstrap` and
`permutation_test` generalise to other units, `seed_difference` to other seeds, `method_difference` to both.
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
_CELLS = 4_000_000  # numbers in memory at a time: resamples are drawn in chunks


@dataclass(frozen=True)
class Difference:
    """The difference of a metric between two systems."""

    metric: str
    a: float  # value of the first system, the mean over its seeds
    b: float
    interval: Interval  # 95 % interval of the difference (see `paired_bootstrap`)
    standard_error: float  # of the difference over units
    rows: int
    units: int  # number of clusters, or of rows, that were resampled

    @property
    def difference(self) -> float:
        """`a` - `b`."""
        return self.a - self.b


class McNemar(NamedTuple):
    """McNemar's test, with the number of rows that only one system has right."""

    only_a: int
    only_b: int
    p_value: float
    method: Literal["exact", "mid-p"]


class Effect(NamedTuple):
    """An effect size; None where the difference does not vary between units."""

    name: Literal["cohen_h", "standardised_difference"]
    value: float | None


class SeedDifference(NamedTuple):
    """Difference of two systems; interval and p-value are None where one of them has a single seed."""

    difference: float
    interval: Interval | None
    p_value: float | None


class MethodDifference(NamedTuple):
    """Difference of two ways of training, with Student's t of `freedom` degrees."""

    difference: float
    interval: Interval
    p_value: float
    standard_error: float
    freedom: float


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
    """Returns the difference of two systems with a paired bootstrap interval over units.

    Each resample draws as many units as there are, with replacement, the same for both systems and all seeds.
    The interval is the expanded percentile interval of Hesterberg (2015, "What Teachers Should Know About the
    Bootstrap", section 5.4), since plain percentiles are too narrow with few units k: √(k / (k - 1)) times
    wider, and of Student's t. `standard_error` has the same factor.

    Args:
        gold: Labels `[n]`; None for the metric `mean`.
        a: Predicted labels (numbers for `mean`) of the first system, `[n]`, or `[s, n]` of s seeds.
        b: Those of the second system.
        clusters: Cluster of each row `[n]`.
        metric: Name of a metric of labels, or `mean`.
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Raises:
        ValueError: Shapes that do not fit, an unknown metric, or fewer than two units.
    """
    function = _metric_function(metric)
    counts = _Counts.of(gold, a, b, clusters=clusters, metric=metric)
    value_a, value_b = counts.mean_values(function, counts.totals[None])
    differences = np.concatenate(
        [np.subtract(*counts.mean_values(function, sums)) for sums in counts.drawn(resamples, seed)]
    )
    return Difference(
        metric=metric,
        a=float(value_a[0]),
        b=float(value_b[0]),
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
    """Returns the 95 % interval of one system's metric over units.

    It is the interval of `paired_bootstrap`, or Wilson's where a bootstrap covers too rarely: of shares
    (accuracy, the `mean` of booleans) over rows, and wherever all resamples are equal, as where every row is
    right. There each cluster counts as one row, which errs to the wide side, and in metrics that average over
    labels, such as macro-F1, k units count as k · l² / (n Σ 1 / n_label), of n rows and l labels. A `mean` of
    other numbers is no share and keeps its bootstrap.

    Arguments and errors are those of `paired_bootstrap`. A single unit has the interval (nan, nan).
    """
    function = _metric_function(metric)
    counts = _Counts.of(gold, predicted, None, clusters=clusters, metric=metric, least=1)
    if counts.units == 1:
        return math.nan, math.nan
    known = METRICS.get(metric)
    of_outcomes = known is not None or np.asarray(predicted).dtype == bool
    is_share = known.is_share if known is not None else of_outcomes
    n: float = counts.units
    if not is_share or clusters is not None or counts.seeds > 1:
        values = np.concatenate(
            [counts.mean_values(function, sums)[0] for sums in counts.drawn(resamples, seed)]
        )
        if not of_outcomes or np.ptp(values) >= 1e-12:  # equal but for rounding is equal
            return expanded_interval(values, counts.units)
        if known is not None and known.averages_labels:
            gold_counts = _confusion(counts.totals[0]).sum(axis=-1)
            gold_counts = gold_counts[gold_counts > 0]
            n *= len(gold_counts) ** 2 / (gold_counts.sum() * (1 / gold_counts).sum())
    low, high = wilson_interval(counts.mean_values(function, counts.totals[None])[0][0], n)
    return float(low), float(high)


def wilson_interval(share: ArrayLike, n: ArrayLike, *, confidence: float = CONFIDENCE) -> tuple[Array, Array]:
    """Returns Wilson's score interval of shares of `n` right or wrong rows (Wilson, 1927).

    `share` (0 to 1) and `n`, which need not be whole, may have any shape.
    """
    from statsmodels.stats.proportion import proportion_confint

    share, n = np.asarray(share, dtype=float), np.asarray(n, dtype=float)
    low, high = proportion_confint(share * n, n, alpha=1 - confidence, method="wilson")
    return np.clip(low, 0.0, share), np.clip(high, share, 1.0)  # rounding may miss 0 and 1


def seed_values(gold: ArrayLike | None, predicted: ArrayLike, *, metric: str = "macro_f1") -> list[float]:
    """Returns the metric of each seed of a system; arguments and errors are those of `bootstrap`."""
    counts = _Counts.of(gold, predicted, None, clusters=None, metric=metric, least=1)
    return _metric_function(metric)(counts.totals).tolist()


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
    """Returns the two-sided p-value of a paired permutation test over units.

    All answers to a unit are swapped together. With several seeds the statistic is the metric of the summed
    confusion matrices of each system, every seed weighing alike, so that the numbers of seeds may differ.
    Units on which the systems do not differ are left out. With at most `resamples` possible swaps of the
    others the p-value is exact; otherwise it is (1 + extreme) / (1 + resamples), which never rejects too
    often (Phipson and Smyth, 2010).

    Arguments and errors are those of `paired_bootstrap`.
    """
    function = _metric_function(metric)
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
    observed = abs(float(function(first) - function(second)))
    extreme = 0
    for swapped in flips:
        moved = swapped.astype(float) @ change
        statistic = np.abs(function(first + moved) - function(second - moved))
        extreme += int((statistic >= observed - 1e-12).sum())  # equal but for rounding is equal
    return extreme / 2**swappable if exact else (1 + extreme) / (1 + resamples)


def mcnemar(gold: ArrayLike, a: ArrayLike, b: ArrayLike) -> McNemar:
    """McNemar's test that two systems are right equally often, over independent rows.

    The exact binomial test with fewer than 25 rows that only one system has right; else its mid-p version,
    which is less conservative (Fagerland, Lydersen and Laake, 2013).

    `gold`, `a` and `b` are labels `[n]`, those of the systems of one seed.

    Raises:
        ValueError: Shapes that do not fit.
    """
    from statsmodels.stats.contingency_tables import mcnemar as test

    gold, a, b = (np.asarray(values) for values in (gold, a, b))
    if not gold.shape == a.shape == b.shape or gold.ndim != 1:
        raise ValueError(f"gold, a and b have shapes {gold.shape}, {a.shape}, {b.shape}; accepted: all [n]")
    right_a, right_b = a == gold, b == gold
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    exact = float(test([[0, only_a], [only_b, 0]], exact=True).pvalue)
    if only_a + only_b < 25:
        return McNemar(only_a, only_b, exact, "exact")
    # half the probability of the observed counts, in both tails; equal counts are in both
    observed = float(stats.binom.pmf(only_a, only_a + only_b, 0.5))
    return McNemar(only_a, only_b, exact - observed if only_a != only_b else 1 - observed / 2, "mid-p")


def holm(p_values: ArrayLike) -> Array:
    """Returns p-values `[c]` of several comparisons, adjusted by Holm's method (1979).

    Raises:
        ValueError: Not one axis, or a value that is not from 0 to 1.
    """
    from statsmodels.stats.multitest import multipletests

    given = np.asarray(p_values, dtype=float)
    if given.ndim != 1 or not ((given >= 0) & (given <= 1)).all():
        raise ValueError(f"p-values {given.tolist()}; accepted: a list of numbers from 0 to 1")
    # multipletests collects garbage in each call, which may take a second
    return multipletests(given, method="holm")[1] if len(given) > 1 else given


def seed_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval:
    """Returns Student's t-interval of the mean over seeds.

    Raises:
        ValueError: Fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} seed has no interval; accepted: two seeds or more")
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values)
    return float(np.mean(values) - half), float(np.mean(values) + half)


def seed_difference(a: Sequence[float], b: Sequence[float]) -> SeedDifference:
    """Difference of two systems over independent seeds, from the value of each seed.

    The interval is Welch's. The p-value is that of a permutation of the seeds between the systems, exact up
    to 10,000 permutations; it is at least .1 with three seeds each, and .029 with four.
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


def method_difference(found: Difference, a: Sequence[float], b: Sequence[float]) -> MethodDifference:
    """Difference of two ways of training, for other seeds and other units than these.

    Its variance is that over units with the seeds as they are (the standard error of `paired_bootstrap`,
    squared) plus that of each system's mean over its seeds. Interval and p-value are Student's, with the
    degrees of freedom of Welch and Satterthwaite.

    Args:
        found: A `paired_bootstrap` of both systems.
        a: The `seed_values` of the first.
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
    if not variance > 1e-24:  # no unit or seed differs from another, but swaps can still be counted
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
    """Returns the smallest true difference that a two-sided test finds with this power.

    It is (t[1 - level / 2] + t[power]) · standard error, with quantiles of Student's t, or of the normal
    distribution (2.80 standard errors) without degrees of freedom.

    Give either the number of `units` or the degrees of `freedom` of the standard error, as of
    `method_difference`. `level` is the test's level of significance.

    Raises:
        ValueError: Fewer than two units.
    """
    if units is not None and units < 2:
        raise ValueError(f"units {units}; accepted: 2 or more")
    freedom = units - 1 if units is not None else freedom
    distribution = stats.norm if freedom is None else stats.t(freedom)
    return float((distribution.ppf(1 - level / 2) + distribution.ppf(power)) * standard_error)


def effect_size(difference: Difference) -> Effect:
    """Cohen's h of two shares, 2 asin √a - 2 asin √b; of other metrics the difference in standard deviations.

    The standard deviation is a unit's: the standard error times √units.
    """
    known = METRICS.get(difference.metric)
    if known is not None and known.is_share:
        return Effect("cohen_h", 2 * (math.asin(difference.a**0.5) - math.asin(difference.b**0.5)))
    deviation = difference.standard_error * math.sqrt(difference.units)
    return Effect("standardised_difference", difference.difference / deviation if deviation > 1e-12 else None)


def expanded_interval(values: Array, units: int) -> Interval:
    """Returns the 95 % interval of bootstrap replicates over so many units (see `paired_bootstrap`)."""
    reach = math.sqrt(units / (units - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, units - 1)
    tail = stats.norm.sf(reach)
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _metric_function(metric: str) -> Callable[[Array], Array]:
    """The function from sums `[..., m]` of `_Counts` to values `[...]` of a metric."""
    if metric == "mean":
        return lambda sums: sums[..., 0] / sums[..., 1]
    known = METRICS.get(metric)
    if known is None or known.from_confusion is None:
        accepted = ", ".join([*(known.name for known in metrics_of("label")), "mean"])
        raise ValueError(f"metric {metric!r} is unknown; accepted: {accepted}")
    from_confusion = known.from_confusion
    return lambda sums: from_confusion(_confusion(sums))


def _confusion(sums: Array) -> Array:
    """Sums of labels `[..., l * l]` as confusion matrices `[..., l, l]`."""
    labels = math.isqrt(sums.shape[-1])
    return sums.reshape(*sums.shape[:-1], labels, labels)


def _chunks(resamples: int, cells: int) -> Iterator[int]:
    """Sizes that add up to `resamples`, each of about `_CELLS` numbers."""
    size = max(1, _CELLS // cells)
    yield from (min(size, resamples - start) for start in range(0, resamples, size))


@dataclass(frozen=True)
class _Counts:
    """Sums over the rows of each unit: of labels a flat confusion matrix, of numbers their sum and count."""

    sums: Array  # [u, s, m] of units u and the seeds s of both systems
    multiplicity: Array  # number of units with the same sums [u]: equal rows are counted, not listed
    seeds: int  # how many of s belong to the first system
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
        """Yields sums `[r, s, m]` of units drawn with replacement, in chunks of resamples r."""
        generator = np.random.default_rng(seed)
        shares = self.multiplicity / self.units
        flat = self.sums.reshape(len(self.sums), -1)
        for size in _chunks(resamples, sum(flat.shape)):
            drawn = generator.multinomial(self.units, shares, size=size).astype(float)
            yield (drawn @ flat).reshape(size, *self.sums.shape[1:])

    def mean_values(self, function: Callable[[Array], Array], sums: Array) -> tuple[Array, Array]:
        """Each system's mean over its seeds `[r]`, from sums `[r, s, m]`."""
        values = function(sums)
        first, second = values[:, : self.seeds], values[:, self.seeds :]
        return first.mean(axis=1), second.mean(axis=1) if second.size else first.mean(axis=1)
