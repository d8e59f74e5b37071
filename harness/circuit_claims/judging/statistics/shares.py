"""Shares: exact and Jeffreys intervals of independent items, and the same over clusters of items that move together."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Shaped

from circuit_claims.judging.measurement import Interval
from circuit_claims.judging.statistics.clusters import cluster_sums, cluster_variance
from circuit_claims.judging.statistics.resampling import LEVEL


def binomial_interval(passed: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Clopper and Pearson's exact interval for a share of `passed` in `n`; (0, 1) where n is 0.

    It covers at least `level` whatever the true share, so more on average. For bounds and rates of false alarms; for an
    interval that covers `level` on average, `jeffreys_interval`. `n` need not be whole: an effective number of items.

    >>> [round(end, 3) for end in binomial_interval(0, 20)]
    [0.0, 0.139]
    """
    # The quantiles of beta distributions; scipy.stats has them too, and takes a second to import.
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = float(betaincinv(passed, n - passed + 1, tail)) if passed > 0 else 0.0
    high = float(betaincinv(passed + 1, n - passed, 1 - tail)) if passed < n else 1.0
    return low, high


def jeffreys_interval(passed: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Jeffreys' interval for a share of `passed` in `n`: covers `level` on average over true shares, not at each.

    Quantiles of the beta distribution with half a success and half a failure added; the end is 0 or 1 where none or all
    passed (Brown, Cai and DasGupta 2001). (0, 1) where n is 0.

    >>> [round(end, 3) for end in jeffreys_interval(7, 7)]
    [0.768, 1.0]
    """
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = float(betaincinv(passed + 0.5, n - passed + 0.5, tail)) if passed > 0 else 0.0
    high = float(betaincinv(passed + 0.5, n - passed + 0.5, 1 - tail)) if passed < n else 1.0
    return low, high


def share_interval(passed: int, n: int, level: float = LEVEL, *, exact: bool = False) -> Interval:
    """The interval of a share of independent items: Jeffreys', or with `exact` Clopper and Pearson's.

    >>> share_interval(7, 7).method
    "Jeffreys' interval of 7 independent items"
    """
    low, high = (binomial_interval if exact else jeffreys_interval)(passed, n, level)
    name = "exact binomial" if exact else "Jeffreys'"
    return Interval(low, high, level, f"{name} interval of {n:,} independent items")


def cluster_share_interval(
    values: Shaped[np.ndarray, " row"], clusters: Shaped[np.ndarray, " row"], level: float = LEVEL
) -> Interval:
    """The interval of a share over rows (0/1, or shares in [0, 1]) when whole clusters are drawn anew.

    Jeffreys' interval for as many independent items as the clusters are worth (Korn and Graubard 1998; with Jeffreys'
    in place of the exact one: Dean and Pagano 2015). The design effect and its degrees of freedom are those of
    `cluster_interval`. Where all rows agree nothing is seen of how alike the rows of a cluster are, and each cluster
    counts as one item: never a width of zero.

    >>> found = cluster_share_interval(np.ones(30), np.repeat(np.arange(10), 3))
    >>> round(found.low, 3), found.high
    (0.829, 1.0)
    """
    items, share, count = effective_items(values, clusters, level)
    low, high = jeffreys_interval(items * share, items, level)
    return Interval(low, high, level, f"Jeffreys' interval of {items:.1f} effective items in {count:,} clusters")


def effective_items(
    values: Shaped[np.ndarray, " row"], clusters: Shaped[np.ndarray, " row"], level: float = LEVEL
) -> tuple[float, float, int]:
    """How many independent items the clusters are worth for their share; the share; the number of clusters."""
    from scipy.special import ndtri, stdtrit

    share, variance, freedom = cluster_variance(values, clusters)
    rows, count = len(values), len(cluster_sums(values, clusters)[0])
    if not 0.0 < share < 1.0 or count == 1:
        return float(count), min(max(share, 0.0), 1.0), count
    tails = float(ndtri((1 + level) / 2) / stdtrit(freedom, (1 + level) / 2)) ** 2
    worth = share * (1 - share) / variance if variance > 0 else math.inf
    return min(worth, float(rows)) * tails, share, count


def or_binomial(ends: tuple[float, float], passed: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """The wider, at each end, of a share's bootstrap interval and the exact binomial one over its cases.

    Where all cases agree a bootstrap has no width, and says more than was seen.
    `n` counts what is independent: where cases of one cluster agree, the number of clusters.

    >>> [round(end, 3) for end in or_binomial((0.0, 0.0), 0, 20)]
    [0.0, 0.139]
    """
    exact = binomial_interval(passed, n, level)
    return min(float(ends[0]), exact[0]), max(float(ends[1]), exact[1])
