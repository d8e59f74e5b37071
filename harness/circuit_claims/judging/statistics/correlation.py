"""Correlations of few heads: Fisher's transformation, ranks, and the same within layers.

The heads are what is drawn anew. Monte Carlo noise of the values is part of how heads differ, and in these intervals
already: they speak of the correlation of values as measured, which noise pulls towards zero.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Shaped

from circuit_claims.errors import InputError
from circuit_claims.judging.measurement import Interval
from circuit_claims.judging.statistics.permutation import shuffled_orders
from circuit_claims.judging.statistics.resampling import LEVEL


def correlation(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    within: Shaped[np.ndarray, " n"] | None = None,
    *,
    ranks: bool = False,
) -> float:
    """Pearson's correlation, or with `ranks` Spearman's (ties at their mean rank); NaN where one side does not vary.

    With `within` values, or ranks within a group, are taken about their group's mean and the groups pooled: what is
    left of the correlation once layers (tasks) are held apart.

    >>> correlation(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]), ranks=True)
    0.5
    >>> layers = np.array([0, 0, 1, 1])
    >>> correlation(np.array([1.0, 2.0, 11.0, 12.0]), np.array([2.0, 1.0, 12.0, 11.0]), layers)
    -1.0
    """
    x, y = _checked(x, y)
    groups = np.zeros(len(x)) if within is None else np.asarray(within)
    first, second = (_centred(each, groups, ranks) for each in (x, y))
    spread = math.sqrt(float(first @ first) * float(second @ second))
    return float(np.clip(round(float(first @ second) / spread, 12), -1.0, 1.0)) if spread > 0 else math.nan


def row_correlations(
    x: Float[np.ndarray, "row n"], y: Float[np.ndarray, "row n"], *, ranks: bool = False
) -> Float[np.ndarray, " row"]:
    """`correlation` of each row of `x` with that of `y`, all at once: of resamples.

    >>> row_correlations(np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]), np.array([[3.0, 2.0, 1.0]] * 2)).tolist()
    [-1.0, nan]
    """
    from scipy.stats import rankdata

    first, second = (rankdata(each, axis=1) if ranks else np.asarray(each, dtype=np.float64) for each in (x, y))
    first, second = (each - each.mean(axis=1, keepdims=True) for each in (first, second))
    spread = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return np.clip(np.round((first * second).sum(axis=1) / np.where(spread > 0, spread, np.nan), 12), -1.0, 1.0)


def correlation_null(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    shuffles: int,
    generator: np.random.Generator,
    within: Shaped[np.ndarray, " n"] | None = None,
    *,
    ranks: bool = False,
) -> Float[np.ndarray, " shuffle"]:
    """`correlation` with `y` in as many random orders, within its groups: what it is if they have nothing to do.

    Values are ranked and centred once: an order changes neither.

    >>> found = correlation_null(np.arange(9.0), np.arange(9.0), 200, np.random.default_rng(0), ranks=True)
    >>> found.shape, bool(abs(found.mean()) < 0.1)
    ((200,), True)
    """
    x, y = _checked(x, y)
    groups = np.zeros(len(x)) if within is None else np.asarray(within)
    first, second = (_centred(each, groups, ranks) for each in (x, y))
    spread = math.sqrt(float(first @ first) * float(second @ second))
    orders = shuffled_orders(len(x), shuffles, generator, groups)
    return (
        np.clip(np.round(second[orders] @ first / spread, 12), -1.0, 1.0) if spread > 0 else np.full(shuffles, math.nan)
    )


def _checked(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError(
            f"correlation: expected two rows of as many finite numbers, found shapes {x.shape} and {y.shape}. "
            "Leave out what was not measured"
        )
    return x, y


def _centred(values: Float[np.ndarray, " n"], groups: np.ndarray, ranks: bool) -> Float[np.ndarray, " n"]:
    from scipy.stats import rankdata

    centred = np.zeros(len(values))
    for group in np.unique(groups):
        here = groups == group
        part = rankdata(values[here]) if ranks else values[here]
        centred[here] = part - part.mean()
    return centred


def correlation_interval(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    within: Shaped[np.ndarray, " n"] | None = None,
    level: float = LEVEL,
    *,
    ranks: bool = False,
) -> Interval:
    """Fisher's interval of `correlation`, heads drawn anew: tanh(artanh r +- z s), s = 1 / sqrt(n - 3).

    For ranks s^2 = (1 + r^2 / 2) / (n - 3) (Bonett and Wright 2000); each group of `within` beyond the first takes one
    degree of freedom. Pearson's asks for values near normal: of skewed ones take ranks. [-1, 1] where too few are left,
    or where one side does not vary.

    >>> x = np.arange(16.0)
    >>> found = correlation_interval(x, x + 4 * np.cos(3 * x), ranks=True)
    >>> round(found.low, 2), round(found.high, 2), found.method
    (0.77, 0.97, "Fisher's z of ranks (Bonett and Wright), 16 heads drawn anew")
    """
    from scipy.special import ndtri

    r = correlation(x, y, within, ranks=ranks)
    groups = 1 if within is None else len(np.unique(within))
    left = len(x) - groups - 2
    words = "ranks (Bonett and Wright)" if ranks else "values"
    apart = "" if within is None else f" within {groups} groups"
    method = f"Fisher's z of {words}{apart}, {len(x)} heads drawn anew"
    if left < 1 or not math.isfinite(r):
        return Interval(-1.0, 1.0, level, f"{method}: too few to tell")
    # All in order is the least that was seen of few ranks, not certainty: half a step of the statistic short of one.
    centre = math.atanh(float(np.clip(r, -1 + 1 / len(x) ** 3, 1 - 1 / len(x) ** 3)))
    half = float(ndtri((1 + level) / 2)) * math.sqrt((1 + r * r / 2 if ranks else 1.0) / left)
    return Interval(math.tanh(centre - half), math.tanh(centre + half), level, method)
