"""Agreement between raters: Krippendorff's alpha of ordinal ratings.

The package `krippendorff` computes it too, but under GPL-3, and without an interval over items.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsr.evaluation.significance import RESAMPLES, Interval, expanded_interval

Array = NDArray[Any]


class Agreement(NamedTuple):
    """Krippendorff's alpha."""

    alpha: float | None  # 1 is agreement, 0 chance; None if nothing was rated twice or all ratings are equal
    # 95 %, a bootstrap over clusters; None without alpha, or with fewer than two clusters
    interval: Interval | None
    units: int  # number of units with two ratings or more


def ordinal_agreement(
    counts: ArrayLike, clusters: ArrayLike | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> Agreement:
    """Agreement of ratings on an ordinal scale.

    Args:
        counts: The number of raters who gave each value to each unit, `[u, v]`, values in their order.
        clusters: The cluster of each unit `[u]`, drawn as a whole; by default each unit is one.
        resamples: Resamples of the bootstrap.
        seed: The seed of the bootstrap.
    """
    values = np.asarray(counts, dtype=float)
    names = np.arange(len(values)) if clusters is None else np.asarray(clusters)
    paired = values.sum(axis=-1) >= 2
    if not paired.any():
        return Agreement(None, None, 0)
    _, cluster = np.unique(names[paired], return_inverse=True)
    pairs = np.zeros((cluster.max() + 1, *(values.shape[-1:] * 2)))
    np.add.at(pairs, cluster, coincidences(values[paired]))
    alpha = float(ordinal_alpha(pairs.sum(axis=0)))
    interval = None
    if not np.isnan(alpha) and len(pairs) > 1:
        generator = np.random.default_rng(seed)
        drawn = generator.multinomial(len(pairs), np.full(len(pairs), 1 / len(pairs)), size=resamples)
        replicates = ordinal_alpha(np.tensordot(drawn.astype(float), pairs, axes=1))
        interval = expanded_interval(replicates[~np.isnan(replicates)], len(pairs))
    return Agreement(None if np.isnan(alpha) else alpha, interval, int(paired.sum()))


def coincidences(counts: Array) -> Array:
    """Pairs of values within units with two ratings or more, `[u, v] -> [u, v, v]` (Krippendorff, 2011)."""
    ordered = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(counts.shape[1])
    return ordered / (counts.sum(axis=-1) - 1)[:, None, None]


def ordinal_alpha(pairs: Array) -> Array:
    """Alpha of coincidences `[..., v, v]`; NaN if all values are equal.

    The distance of two values is that of their mid-ranks, which differ between resamples.
    """
    marginal = pairs.sum(axis=-1)
    total = marginal.sum(axis=-1)
    rank = marginal.cumsum(axis=-1) - marginal / 2
    distance = (rank[..., :, None] - rank[..., None, :]) ** 2
    observed = (pairs * distance).sum(axis=(-2, -1))
    expected = (marginal[..., :, None] * marginal[..., None, :] * distance).sum(axis=(-2, -1)) / (total - 1)
    with np.errstate(invalid="ignore"):
        return 1 - observed / expected
