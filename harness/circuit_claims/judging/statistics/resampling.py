"""Bootstrap draws and what is read off them: for any statistic that is a function of how often each unit was drawn.

Percentiles of bootstrap draws are too narrow where few units are drawn: over n of them the draws' variance is too small
by (n - 1) / n, and normal tails are shorter than Student's. Told the number of units, the functions here read the
percentiles further out (Hesterberg 2015: the expanded percentile interval).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from circuit_claims.judging.measurement import Interval

LEVEL = 0.90
"""Coverage of every interval unless a claim says otherwise.

>>> Interval(0.2, 0.4).level == LEVEL
True
"""

FEWEST_CLUSTERS = 6
"""Below this many units drawn anew nothing is concluded: an interval over them rests on its assumptions alone.

>>> 5 < FEWEST_CLUSTERS  # five documents decide nothing
True
"""

Redrawn = float | Sequence[int]
"""How many units were drawn anew: their number, or `effective_clusters` where they are of unequal sizes; in strata that
`stratified_counts` draws each in itself, how many in each."""


def bootstrap_counts(units: int, draws: int, generator: np.random.Generator) -> Int[np.ndarray, "draw unit"]:
    """How often each of `units` clusters is taken in each draw: with replacement, as many as there are.

    A statistic that is a sum over clusters is then one product with these counts.

    >>> bootstrap_counts(5, 3, np.random.default_rng(0)).sum(axis=1).tolist()
    [5, 5, 5]
    """
    return generator.multinomial(units, np.full(units, 1 / units), draws)


def stratified_counts(
    strata: Shaped[np.ndarray, " unit"], draws: int, generator: np.random.Generator
) -> Float[np.ndarray, "draw unit"]:
    """Weights of each unit in each draw, each stratum drawn in itself and kept at its size (Rao and Wu 1988).

    One unit fewer than a stratum has is drawn, and the counts stretched to its size: the variance of a sum is then
    right in every stratum, however small. A stratum of one unit keeps it. Give `percentiles` the strata's sizes.

    >>> weights = stratified_counts(np.array(["days"] * 7 + ["months"] * 12), 4, np.random.default_rng(0))
    >>> weights[:, :7].sum(axis=1).round(6).tolist()
    [7.0, 7.0, 7.0, 7.0]
    """
    weights = np.ones((draws, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(np.asarray(strata) == stratum)
        n = len(members)
        if n > 1:
            weights[:, members] = generator.multinomial(n - 1, np.full(n, 1 / n), draws) * (n / (n - 1))
    return weights


def effective_clusters(sizes: Shaped[np.ndarray, " cluster"]) -> float:
    """How many clusters of one size carry as much as these: (sum n)^2 / sum n^2; their number where sizes are equal.

    >>> effective_clusters(np.array([4, 4, 4])), effective_clusters(np.array([10, 1, 1]))
    (3.0, 1.411764705882353)
    """
    sizes = np.asarray(sizes, dtype=np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def expansion(redrawn: Redrawn, level: float = LEVEL) -> float:
    """How much further from the middle an end lies than the bootstrap's own: t / z times sqrt(n / (n - 1)).

    In strata the draws' variance is right, and only the tails are longer; strata of one unit count for nothing. For
    half-widths; infinite where fewer than two units are drawn.

    >>> round(expansion(6), 2), round(expansion(200), 2)
    (1.34, 1.01)
    """
    from scipy.special import ndtri, stdtrit

    sizes = np.atleast_1d(np.asarray(redrawn, dtype=np.float64))
    sizes = sizes[sizes > 1]
    if not len(sizes):
        return math.inf
    # As many degrees of freedom as a mean over strata has, each with the same share in it.
    freedom = (1 / sizes).sum() ** 2 / (1 / (sizes**2 * (sizes - 1))).sum()
    ratio = float(stdtrit(freedom, (1 + level) / 2) / ndtri((1 + level) / 2))
    return ratio * (1.0 if np.ndim(redrawn) else math.sqrt(sizes[0] / (sizes[0] - 1)))


def expanded_level(redrawn: Redrawn | None, level: float = LEVEL) -> float:
    """The level at which plain percentiles of bootstrap draws cover `level`, where so many units were drawn anew.

    >>> round(expanded_level(6), 3), round(expanded_level(50), 3), expanded_level(None)
    (0.973, 0.91, 0.9)
    """
    if redrawn is None:
        return level
    from scipy.special import ndtr, ndtri

    return float(2 * ndtr(ndtri((1 + level) / 2) * expansion(redrawn, level)) - 1)


def percentiles(
    draws: Float[np.ndarray, " draw"], level: float = LEVEL, redrawn: Redrawn | None = None
) -> tuple[float, float]:
    """The ends of the central `level` of some draws; further out where `redrawn` says that few units were drawn anew.

    Leave `redrawn` out only where nothing was: draws of a known error, of a null, of a Monte Carlo estimate.

    >>> percentiles(np.arange(101.0), level=0.50), percentiles(np.arange(101.0), level=0.50, redrawn=8)[1] > 75
    ((25.0, 75.0), True)
    """
    low, high = percentile_band(draws, level, redrawn)
    return float(low), float(high)


def percentile_interval(
    draws: Float[np.ndarray, " draw"], method: str, level: float = LEVEL, redrawn: Redrawn | None = None
) -> Interval:
    """The percentile bootstrap interval, `method` saying what was drawn; expanded for the number of units `redrawn`.

    >>> percentile_interval(np.arange(101.0), "draws over tokens", level=0.50)
    Interval(low=25.0, high=75.0, level=0.5, method='draws over tokens')
    >>> generator = np.random.default_rng(0)
    >>> draws = bootstrap_counts(8, 2_000, generator) @ np.arange(8.0) / 8
    >>> percentile_interval(draws, "2,000 bootstrap draws over documents", redrawn=8).method
    '2,000 bootstrap draws over documents, percentiles expanded for 8 units'
    """
    words = "" if redrawn is None else f", percentiles expanded for {_count(redrawn)}"
    return Interval(*percentiles(draws, level, redrawn), level, method + words)


def _count(redrawn: Redrawn) -> str:
    if isinstance(redrawn, Sequence | np.ndarray):
        return f"{sum(redrawn):,} units in {len(redrawn)} strata"
    return f"{redrawn:,} units" if redrawn == int(redrawn) else f"{redrawn:,.1f} effective units"


def percentile_band(
    draws: Float[np.ndarray, "draw *points"], level: float = LEVEL, redrawn: Redrawn | None = None
) -> tuple[Float[np.ndarray, "*points"], Float[np.ndarray, "*points"]]:
    """The ends of `percentiles` at each point of a curve, each point's own (not simultaneous): low and high.

    >>> low, high = percentile_band(np.stack([np.arange(101.0), np.arange(101.0) * 2], axis=1), level=0.50)
    >>> low.tolist(), high.tolist()
    ([25.0, 50.0], [75.0, 150.0])
    """
    central = expanded_level(redrawn, level)
    low, high = np.quantile(draws, [(1 - central) / 2, (1 + central) / 2], axis=0)
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
