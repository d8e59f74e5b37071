"""Means over clusters, over few of them and over two kinds at once: t intervals that fit the design.

A cluster is what would be drawn anew: a document with all its cases, a string with all its forms, a head with all its
pairs. Cases of one cluster are alike, so the number of clusters says how much was seen, not the number of cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped

from circuit_claims.errors import InputError
from circuit_claims.judging.measurement import Interval
from circuit_claims.judging.statistics.resampling import LEVEL


def t_interval(value: float, variance: float, freedom: float, method: str, level: float = LEVEL) -> Interval:
    """value +- t(freedom) sqrt(variance); the whole line where there are no degrees of freedom.

    >>> t_interval(1.0, 0.01, 5.0, "made up").width > t_interval(1.0, 0.01, 50.0, "made up").width
    True
    """
    if not freedom > 0 or not math.isfinite(variance):
        return Interval(-math.inf, math.inf, level, f"{method}: too few to tell")
    from scipy.special import stdtrit

    half = float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(max(variance, 0.0))
    return Interval(value - half, value + half, level, method)


def cluster_sums(
    values: Shaped[np.ndarray, " row"], clusters: Shaped[np.ndarray, " row"]
) -> tuple[Float[np.ndarray, " cluster"], Float[np.ndarray, " cluster"]]:
    """Sum of the values and number of rows of each cluster, clusters in sorted order.

    >>> [each.tolist() for each in cluster_sums(np.array([1.0, 2.0, 4.0]), np.array(["b", "a", "b"]))]
    [[2.0, 5.0], [1.0, 2.0]]
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.shape != np.shape(clusters) or not len(values):
        raise InputError(
            f"values of clusters: expected one number and one cluster a row, found shapes {values.shape} and "
            f"{np.shape(clusters)}. Give two arrays of the same length, at least one row"
        )
    places = np.unique(np.asarray(clusters), return_inverse=True)[1]
    return np.bincount(places, weights=values), np.bincount(places).astype(np.float64)


def cluster_interval(
    values: Shaped[np.ndarray, " row"], clusters: Shaped[np.ndarray, " row"], level: float = LEVEL
) -> Interval:
    """The interval of the mean over rows when whole clusters are drawn anew: t, for few clusters of unequal sizes.

    The spread is that of the clusters' sums about the mean, corrected for what a large cluster hides by pulling the
    mean to itself; the degrees of freedom are Satterthwaite's (Bell and McCaffrey 2002; Imbens and Kolesar 2016), for
    clusters whose rows correlate as they do here. Equal sizes: Student's t of the clusters' means.
    The width is zero where all rows are equal: for shares use `cluster_share_interval`.

    >>> found = cluster_interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), np.arange(6))
    >>> round(found.low, 3), round(found.high, 3), found.method
    (1.961, 5.039, 't over 6 clusters, 5.0 degrees of freedom')
    """
    mean, variance, freedom = cluster_variance(values, clusters)
    count = len(np.unique(clusters))
    return t_interval(mean, variance, freedom, f"t over {count:,} clusters, {freedom:.1f} degrees of freedom", level)


def cluster_variance(
    values: Shaped[np.ndarray, " row"], clusters: Shaped[np.ndarray, " row"]
) -> tuple[float, float, float]:
    """Mean over rows, variance of that mean over draws of clusters, and its degrees of freedom (0 for one cluster)."""
    sums, sizes = cluster_sums(values, clusters)
    total = sizes.sum()
    mean = float(sums.sum() / total)
    if len(sizes) == 1:
        return mean, math.nan, 0.0
    rho = intraclass_correlation(values, clusters)
    weight = sizes / total
    model = sizes * (1 - rho) + rho * sizes**2  # variance of each cluster's sum, for rows of variance one
    spread = float((((sums - sizes * mean) ** 2) / (1 - weight)).sum())
    # spread is a quadratic form S'MS of the clusters' sums, M = (I - w1')' C (I - w1'): its mean and variance follow.
    expected, squared = _moments(weight, model)
    variance = spread * float(model.sum()) / expected / total**2
    return mean, variance, expected**2 / squared


def _moments(weight: Float[np.ndarray, " cluster"], model: Float[np.ndarray, " cluster"]) -> tuple[float, float]:
    """tr(M V) and tr(M V M V) for V = diag(model), in linear time.

    M = C - (Cw)1' - 1(Cw)' + (w'Cw) 11', C = diag(1 / (1 - w)).
    """
    c = 1 / (1 - weight)
    a, b = c * weight, float((c * weight**2).sum())
    diagonal = c - 2 * a + b
    total, with_a, with_aa = float(model.sum()), float((model * a).sum()), float((model * a**2).sum())
    # Off the diagonal M is b - a_g - a_h: the sum over all g, h, less the diagonal, plus the true diagonal.
    everywhere = b**2 * total**2 + 2 * with_aa * total + 2 * with_a**2 - 4 * b * with_a * total
    corner = float((model**2 * ((b - 2 * a) ** 2)).sum())
    return float((diagonal * model).sum()), everywhere - corner + float((model**2 * diagonal**2).sum())


def intraclass_correlation(values: Shaped[np.ndarray, " row"], clusters: Shaped[np.ndarray, " row"]) -> float:
    """How alike rows of one cluster are: the analysis of variance's estimate, in [0, 1]; 1 where no cluster has two.

    >>> intraclass_correlation(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1]))
    1.0
    """
    sums, sizes = cluster_sums(values, clusters)
    total, groups = sizes.sum(), len(sizes)
    if groups == 1 or total == groups:
        return 1.0
    means = sums / sizes
    square = float((np.asarray(values, dtype=np.float64) ** 2).sum())
    within = max(square - float((sums * means).sum()), 0.0) / (total - groups)
    between = float((sizes * (means - sums.sum() / total) ** 2).sum()) / (groups - 1)
    typical = (total - float((sizes**2).sum()) / total) / (groups - 1)
    spread = between + (typical - 1) * within
    return float(np.clip((between - within) / spread, 0.0, 1.0)) if spread > 0 else 1.0


def two_way_interval(values: Float[np.ndarray, "row column"], level: float = LEVEL) -> Interval:
    """The interval of the mean over all pairs of a row and a column, both drawn anew: heads of one layer by another.

    The mean's variance is that of rows, of columns and of what is left, from the two-way analysis of variance
    (Cameron, Gelbach and Miller 2011 for the general case); Satterthwaite's degrees of freedom.
    Raises `InputError` for a table with a gap or with a single row or column.

    >>> two_way_interval(np.add.outer(np.arange(8.0), np.arange(8.0))).method
    't over 8 rows and 8 columns (two-way clusters), 14.0 degrees of freedom'
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
        raise InputError(
            f"pairs of rows and columns: expected a full table of at least 2 x 2 finite numbers, found shape "
            f"{values.shape} with {int((~np.isfinite(values)).sum())} gaps. Leave incomplete rows out"
        )
    rows, columns = values.shape
    by_row, by_column, mean = values.mean(1), values.mean(0), float(values.mean())
    rest = values - by_row[:, None] - by_column + mean
    squares = [columns * by_row.var(ddof=1), rows * by_column.var(ddof=1),
               float((rest**2).sum()) / ((rows - 1) * (columns - 1))]  # fmt: skip
    freedoms = [rows - 1, columns - 1, (rows - 1) * (columns - 1)]
    variance, freedom = _satterthwaite(np.array(squares) / values.size, np.array([1.0, 1.0, -1.0]), freedoms)
    method = f"t over {rows} rows and {columns} columns (two-way clusters), {freedom:.1f} degrees of freedom"
    return t_interval(mean, variance, freedom, method, level)


def pair_interval(values: Float[np.ndarray, "unit unit"], level: float = LEVEL) -> Interval:
    """The interval of the mean over all pairs of two different units of one set, the units drawn anew.

    `values[i, j]` is the pair's value, the same both ways; the diagonal is not read. Each unit has a part in all its
    pairs (the diallel's analysis of variance; Aronow, Samii and Assenova 2015 for the general case).
    Raises `InputError` for fewer than 4 units, a table that is not symmetric, or one with a gap.

    >>> sums = np.add.outer(np.arange(8.0), np.arange(8.0))
    >>> pair_interval(sums).method
    't over 8 units in 28 pairs, 7.0 degrees of freedom'
    """
    values = np.array(values, dtype=np.float64)
    n = len(values)
    off = ~np.eye(n, dtype=bool)
    if values.shape != (n, n) or n < 4 or not np.allclose(values[off], values.T[off]):
        raise InputError(
            f"pairs of one set: expected a symmetric table of at least 4 units without gaps, found shape {values.shape}"
        )
    values[~off] = 0.0
    mean, totals = float(values[off].mean()), values.sum(1)
    effect = (totals - totals.mean()) / (n - 2)
    rest = (values - mean - effect[:, None] - effect)[off]
    residual = float((rest**2).sum()) / 2 / (n * (n - 3) / 2)
    squares = np.array([4 * totals.var(ddof=1) / (n * (n - 2) ** 2), residual])
    weights = np.array([1.0, 2 / (n * (n - 1)) - 4 / (n * (n - 2))])
    variance, freedom = _satterthwaite(squares, weights, [n - 1, n * (n - 3) / 2])
    method = f"t over {n} units in {n * (n - 1) // 2} pairs, {freedom:.1f} degrees of freedom"
    return t_interval(mean, variance, freedom, method, level)


def jackknife_interval(
    value: float, without: Sequence[Float[np.ndarray, " unit"]], level: float = LEVEL
) -> tuple[float, Interval]:
    """A smooth figure of units of one or several kinds, all drawn anew: the figure for many units, and its interval.

    `value` is the figure of all units; `without` holds, for each kind, the figures with one unit of it left out. The
    cosine of a mean is too low where few directions are averaged, and a bootstrap draw, with fewer different ones,
    lies below it again: the jackknife takes that bias off (Efron and Tibshirani 1993, chapters 10 and 11). t, with
    Satterthwaite's degrees of freedom over the kinds; the whole line where a kind has fewer than two units.

    >>> values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    >>> found, interval = jackknife_interval(3.5, [(21.0 - values) / 5])
    >>> round(found, 3), round(interval.low, 3), round(interval.high, 3)
    (3.5, 1.961, 5.039)
    """
    counts = [len(each) for each in without]
    method = f"jackknife t over {' and '.join(str(count) for count in counts)} units"
    if min(counts) < 2:
        return value, t_interval(value, math.nan, 0.0, method, level)
    pseudo = [count * value - (count - 1) * np.asarray(each) for count, each in zip(counts, without, strict=True)]
    found = value + sum(float(each.mean()) - value for each in pseudo)
    squares = np.array([each.var(ddof=1) / len(each) for each in pseudo])
    spread = float((squares**2 / (np.array(counts) - 1)).sum())
    freedom = float(squares.sum()) ** 2 / spread if spread > 0 else min(counts) - 1.0
    method = f"{method}, {freedom:.1f} degrees of freedom"
    return found, t_interval(found, float(squares.sum()), freedom, method, level)


def welch_interval(
    values: Float[np.ndarray, " head"], labels: Bool[np.ndarray, " head"], level: float = LEVEL
) -> Interval:
    """By how much the heads with the label exceed the others, where the two groups may differ in spread: Welch's t.

    Wide for a group of two. Where the spreads may be taken as equal `difference_interval` says more. The whole line
    where a group has fewer than two heads.

    >>> found = welch_interval(np.array([9.0, 8.0, 1.0, 2.0, 3.0, 2.5, 1.5, 2.2]), np.arange(8) < 2)
    >>> round(found.low, 1), round(found.high, 1), found.method
    (4.6, 8.3, "Welch's t of 2 against 6 heads, 1.7 degrees of freedom")
    """
    groups = [np.asarray(values, dtype=np.float64)[np.asarray(labels, dtype=bool) == kind] for kind in (True, False)]
    method = f"Welch's t of {len(groups[0])} against {len(groups[1])} heads"
    if min(map(len, groups)) < 2:
        return t_interval(0.0, math.nan, 0.0, method, level)
    parts = np.array([group.var(ddof=1) / len(group) for group in groups])
    spread = float((parts**2 / [len(group) - 1 for group in groups]).sum())
    freedom = float(parts.sum() ** 2 / spread) if spread > 0 else len(values) - 2.0
    value = float(groups[0].mean() - groups[1].mean())
    return t_interval(value, float(parts.sum()), freedom, f"{method}, {freedom:.1f} degrees of freedom", level)


def _satterthwaite(
    squares: Float[np.ndarray, " part"], weights: Float[np.ndarray, " part"], freedoms: list[int] | list[float]
) -> tuple[float, float]:
    """The weighted sum of mean squares and its degrees of freedom; no less than the largest negative part undone."""
    parts = squares * weights
    # Where subtraction leaves less than noise alone would give, the residual's own share is kept.
    variance = max(float(parts.sum()), float(np.abs(parts[-1])))
    spread = float((parts**2 / np.asarray(freedoms)).sum())
    return variance, variance**2 / spread if spread > 0 else float(min(freedoms))
