"""Bootstrap, permutation and exact intervals: the statistics that every measure shares.

Pure: numbers and a generator in, numbers out. What is redrawn (strings, documents, heads, runs) is the caller's to
choose: the units that the sentence speaks of.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from circuit_claims.judging.measurement import Interval

LEVEL = 0.90
"""Coverage of every interval unless a claim says otherwise."""


def bootstrap_counts(units: int, draws: int, generator: np.random.Generator) -> Int[np.ndarray, "draw unit"]:
    """How often each of `units` clusters is taken in each draw: with replacement, as many as there are.

    A statistic that is a sum over clusters is then one product with these counts.

    >>> bootstrap_counts(5, 3, np.random.default_rng(0)).sum(axis=1).tolist()
    [5, 5, 5]
    """
    return generator.multinomial(units, np.full(units, 1 / units), draws)


def percentiles(draws: Float[np.ndarray, " draw"], level: float = LEVEL) -> tuple[float, float]:
    """The ends of the central `level` of some draws."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def percentile_interval(draws: Float[np.ndarray, " draw"], method: str, level: float = LEVEL) -> Interval:
    """The percentile bootstrap interval: the central `level` of the draws, `method` saying what was drawn.

    >>> percentile_interval(np.arange(101.0), "draws over tokens", level=0.50)
    Interval(low=25.0, high=75.0, level=0.5, method='draws over tokens')
    """
    return Interval(*percentiles(draws, level), level, method)


def percentile_band(
    draws: Float[np.ndarray, "draw *points"], level: float = LEVEL
) -> tuple[Float[np.ndarray, "*points"], Float[np.ndarray, "*points"]]:
    """The same at each point of a curve, each point's own (not simultaneous): low and high."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def or_binomial(ends: tuple[float, float], passed: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The wider, at each end, of a share's bootstrap interval and the exact binomial one over its cases.

    Where all cases agree a bootstrap has no width, and says more than was seen.

    >>> [round(end, 3) for end in or_binomial((0.0, 0.0), 0, 20)]
    [0.0, 0.139]
    """
    exact = binomial_interval(passed, n, level)
    return min(float(ends[0]), exact[0]), max(float(ends[1]), exact[1])


def permutation_p_value(value: float, null: Float[np.ndarray, " shuffle"], slack: float = 0.0) -> float:
    """Chance of a value at least this high under the null: (1 + shuffles at or above) / (1 + shuffles).

    `slack` is what rounding may take off a value that equals the null's.

    >>> permutation_p_value(2.0, np.array([0.0, 1.0, 2.0]))
    0.5
    """
    return float((1 + (null >= value - slack).sum()) / (1 + len(null)))


def binomial_interval(passed: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Clopper and Pearson's exact interval for a share of `passed` in `n`; (0, 1) where n is 0.

    >>> [round(end, 3) for end in binomial_interval(0, 20)]
    [0.0, 0.139]
    """
    # The quantiles of beta distributions; scipy.stats has them too, and takes a second to import.
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = float(betaincinv(passed, n - passed + 1, tail)) if passed > 0 else 0.0
    high = float(betaincinv(passed + 1, n - passed, 1 - tail)) if passed < n else 1.0
    return low, high


def prediction_interval(value: float, standard_error: float, again: float, level: float = LEVEL) -> tuple[float, float]:
    """Where a re-run's value falls with probability `level`, given a first value and both runs' standard errors.

    Normal errors, independent runs: value +- z sqrt(standard_error^2 + again^2). For recorded cells and for two
    versions of a library; an interval of the first run alone would be too narrow by a factor of up to sqrt(2).

    >>> low, high = prediction_interval(1.0, 0.3, 0.4)
    >>> round(high - low, 3)
    1.645
    """
    from scipy.special import ndtri

    half = float(ndtri((1 + level) / 2)) * math.hypot(standard_error, again)
    return value - half, value + half


def cluster_means(
    values: Float[np.ndarray, "row *rest"],
    clusters: Int[np.ndarray, " row"],
    draws: int,
    generator: np.random.Generator,
) -> Float[np.ndarray, "draw *rest"]:
    """Means over rows in bootstrap draws of whole clusters (documents, strings): rows of one are drawn together.

    >>> values, documents = np.array([1.0, 1.0, 3.0, 3.0]), np.array([0, 0, 1, 1])
    >>> sorted(set(cluster_means(values, documents, 200, np.random.default_rng(0)).tolist()))
    [1.0, 2.0, 3.0]
    """
    names, places = np.unique(np.asarray(clusters), return_inverse=True)
    member = (places[:, None] == np.arange(len(names))).astype(np.float64)  # (row, cluster)
    sums = np.tensordot(member.T, np.asarray(values, dtype=np.float64), 1)
    counts = bootstrap_counts(len(names), draws, generator)
    sizes = (counts @ member.sum(0)).reshape(draws, *[1] * (sums.ndim - 1))
    return np.tensordot(counts, sums, 1) / sizes


def cluster_interval(
    values: Float[np.ndarray, " row"],
    clusters: Int[np.ndarray, " row"],
    draws: int,
    generator: np.random.Generator,
    level: float = LEVEL,
) -> Interval:
    """The percentile interval of the mean of `values` when whole clusters are drawn anew.

    >>> cluster_interval(np.ones(6), np.arange(6), 100, np.random.default_rng(0)).method
    'bootstrap over 6 clusters, 100 draws'
    """
    method = f"bootstrap over {len(np.unique(clusters)):,} clusters, {draws:,} draws"
    return percentile_interval(cluster_means(values, clusters, draws, generator), method, level)


def permutation_null(
    statistic: Callable[[Int[np.ndarray, " n"]], float], n: int, shuffles: int, generator: np.random.Generator
) -> Float[np.ndarray, " shuffle"]:
    """`statistic` of as many random orders of `n` things: what it would be if their order meant nothing.

    >>> values = np.arange(50.0)
    >>> null = permutation_null(lambda order: float(np.corrcoef(values, values[order])[0, 1]), 50, 99,
    ...                         np.random.default_rng(0))
    >>> permutation_p_value(1.0, null)
    0.01
    """
    return np.array([statistic(generator.permutation(n)) for _ in range(shuffles)])


def maximum_null(scores: Float[np.ndarray, "draw *heads"]) -> Float[np.ndarray, " draw"]:
    """The highest of all heads in each draw from the null: what the best of many is to be compared with.

    >>> maximum_null(np.array([[[0.1, 0.3]], [[0.2, 0.0]]])).tolist()
    [0.3, 0.2]
    """
    return np.asarray(scores).reshape(len(scores), -1).max(1)
