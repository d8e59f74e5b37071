"""Permutation: what a statistic would be if labels meant nothing, and by how much two groups of few heads differ."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from circuit_claims.errors import InputError
from circuit_claims.judging.measurement import Interval
from circuit_claims.judging.statistics.resampling import LEVEL


def permutation_p_value(value: float, null: Float[np.ndarray, " shuffle"], slack: float = 0.0) -> float:
    """Chance of a value at least this high under the null: (1 + shuffles at or above) / (1 + shuffles).

    `slack` is what rounding may take off a value that equals the null's.

    >>> permutation_p_value(2.0, np.array([0.0, 1.0, 2.0]))
    0.5
    """
    return float((1 + (null >= value - slack).sum()) / (1 + len(null)))


def permutation_null(
    statistic: Callable[[Int[np.ndarray, " n"]], float],
    n: int,
    shuffles: int,
    generator: np.random.Generator,
    within: Shaped[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, " shuffle"]:
    """`statistic` of as many random orders of `n` things: what it would be if their order meant nothing.

    Things change places within their group (layer, task) alone where `within` names one for each.

    >>> values = np.arange(50.0)
    >>> null = permutation_null(lambda order: float(np.corrcoef(values, values[order])[0, 1]), 50, 99,
    ...                         np.random.default_rng(0))
    >>> permutation_p_value(1.0, null)
    0.01
    """
    return np.array([statistic(order) for order in shuffled_orders(n, shuffles, generator, within)])


def shuffled_orders(
    n: int, shuffles: int, generator: np.random.Generator, within: Shaped[np.ndarray, " n"] | None = None
) -> Int[np.ndarray, "shuffle n"]:
    """Random orders of `n` things, of those of each group among themselves where `within` names one for each.

    >>> shuffled_orders(4, 1, np.random.default_rng(0), within=np.array([0, 1, 0, 1])) % 2
    array([[0, 1, 0, 1]])
    """
    groups = np.zeros(n) if within is None else np.asarray(within)
    orders = np.tile(np.arange(n), (shuffles, 1))
    for group in np.unique(groups):
        at = np.flatnonzero(groups == group)
        orders[:, at] = generator.permuted(orders[:, at], axis=1)
    return orders


def maximum_null(scores: Float[np.ndarray, "draw *heads"]) -> Float[np.ndarray, " draw"]:
    """The highest of all heads in each draw from the null: what the best of many is to be compared with.

    >>> maximum_null(np.array([[[0.1, 0.3]], [[0.2, 0.0]]])).tolist()
    [0.3, 0.2]
    """
    return np.asarray(scores).reshape(len(scores), -1).max(1)


def arrangements(
    labels: Bool[np.ndarray, " head"],
    within: Shaped[np.ndarray, " head"] | None = None,
    most: int = 5_000,
    generator: np.random.Generator | None = None,
) -> Bool[np.ndarray, "arrangement head"]:
    """Every way to deal out the labels over the heads, within each layer where `within` names one; as they are first.

    At most `most`: where there are more, the given one and random ones from `generator` (seed 0 if none is given).

    >>> two_of_eight = np.arange(8) < 2
    >>> len(arrangements(two_of_eight)), len(arrangements(two_of_eight, within=np.arange(8) % 2))
    (28, 16)
    """
    labels = np.asarray(labels, dtype=bool)
    layers = np.zeros(len(labels)) if within is None else np.asarray(within)
    places = [np.flatnonzero(layers == layer) for layer in np.unique(layers)]
    if math.prod(math.comb(len(at), int(labels[at].sum())) for at in places) <= most:
        every = _every_way(tuple(tuple(at.tolist()) for at in places), tuple(int(labels[at].sum()) for at in places))
        return np.concatenate([labels[None], every[(every != labels).any(1)]])
    generator = generator or np.random.default_rng(0)
    ways = np.tile(labels, (most, 1))
    for at in places:
        ways[1:, at] = generator.permuted(ways[1:, at], axis=1)
    return ways


@lru_cache(maxsize=16)
def _every_way(places: tuple[tuple[int, ...], ...], labelled: tuple[int, ...]) -> Bool[np.ndarray, "arrangement head"]:
    chosen = [itertools.combinations(at, count) for at, count in zip(places, labelled, strict=True)]
    dealt = [list(itertools.chain(*each)) for each in itertools.product(*chosen)]
    ways = np.zeros((len(dealt), sum(map(len, places))), dtype=bool)
    np.put_along_axis(ways, np.array(dealt, dtype=np.int64).reshape(len(dealt), sum(labelled)), True, axis=1)
    return ways


def label_p_value(
    statistic: Callable[[Bool[np.ndarray, " head"]], float], ways: Bool[np.ndarray, "arrangement head"]
) -> float:
    """Share of `arrangements` under which `statistic` of the labels is at least as high as under the real, first one.

    With 2 heads of 8 it cannot be below 1/28. Values measured with Monte Carlo noise need no more: the noise is one
    reason why heads differ, and it is dealt out with them.

    >>> values = np.arange(8.0)
    >>> round(label_p_value(lambda chosen: values[chosen].mean(), arrangements(values >= 6)), 4)
    0.0357
    """
    found = np.array([statistic(way) for way in ways])
    return float((found >= found[0] - 1e-12 * max(1.0, abs(found[0]))).mean())


def difference_interval(
    values: Float[np.ndarray, " head"],
    labels: Bool[np.ndarray, " head"],
    within: Shaped[np.ndarray, " head"] | None = None,
    level: float = LEVEL,
    generator: np.random.Generator | None = None,
) -> Interval:
    """By how much the heads with the label exceed the others: all shifts that no permutation rejects.

    Exact for groups that differ by a shift, whatever the values' distribution, for 2 heads against 6 too: 28
    arrangements, the interval covers 26 of 28 (0.929). Within layers, values count about their layer's
    mean.
    The whole line where there are too few arrangements for the level. It is too narrow where the smaller group is the
    more spread: `welch_interval`.

    >>> found = difference_interval(np.array([9.0, 8.0, 1.0, 2.0, 3.0, 2.5, 1.5, 2.2]), np.arange(8) < 2)
    >>> round(found.low, 3), round(found.high, 3), found.method
    (5.0, 8.0, 'inverted permutation of labels over 8 heads (2 against 6), 28 arrangements')
    """
    values, labels = np.asarray(values, dtype=np.float64), np.asarray(labels, dtype=bool)
    layers = np.zeros(len(labels)) if within is None else np.asarray(within)
    means = np.array([labels[layers == layer].mean() for layer in layers])
    scale = float(labels @ (labels - means))
    if values.shape != labels.shape or not scale > 0:
        raise InputError(
            f"difference of two groups of heads: expected heads of both groups in one layer at least, found "
            f"{int(labels.sum())} with the label of {len(labels)}, {len(values)} values. Do not ask it of one group"
        )
    ways = arrangements(labels, within, generator=generator)
    groups = f"({int(labels.sum())} against {int((~labels).sum())}{'' if within is None else ', within layers'})"
    method = f"inverted permutation of labels over {len(labels)} heads {groups}, {len(ways):,} arrangements"
    return _shifts_not_rejected(values, ways, means, level, method)


def _shifts_not_rejected(
    values: Float[np.ndarray, " item"],
    ways: Bool[np.ndarray, "arrangement item"],
    means: Float[np.ndarray, " item"] | float,
    level: float,
    method: str,
) -> Interval:
    """The shifts of the labelled items (`ways[0]`) under which no more arrangements are as extreme than `level` lets.

    `means` are the labels' means, about which values count.
    """
    scale = float(ways[0] @ (ways[0] - means))
    found, left = (ways - means) @ values / scale, 1 - (ways - means) @ ways[0] / scale
    other = left > 1e-9
    # Under a true shift d the arrangement w is as extreme as the real one where d is past this point of it.
    points = np.sort((found[0] - found[other]) / left[other])
    rank = math.floor((1 - level) / 2 * len(ways) + 1e-9)
    if rank < 1:
        return Interval(-math.inf, math.inf, level, f"{method}: too few to tell")
    return Interval(float(points[rank - 1]), float(points[-rank]), level, method)


def pair_arrangements(
    first: Bool[np.ndarray, " row"], second: Bool[np.ndarray, " column"]
) -> Bool[np.ndarray, "arrangement pair"]:
    """`arrangements` of the rows by those of the columns: which pairs have both labels, as they are first.

    >>> pair_arrangements(np.array([True, False]), np.array([True, False])).astype(int).tolist()
    [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    """
    ways = np.einsum("ar,bc->abrc", arrangements(first), arrangements(second))
    return ways.reshape(-1, len(first) * len(second))


def pair_difference_interval(
    values: Float[np.ndarray, "row column"],
    first: Bool[np.ndarray, " row"],
    second: Bool[np.ndarray, " column"],
    level: float = LEVEL,
) -> Interval:
    """By how much pairs of a labelled row and a labelled column exceed the others: shifts that no renaming rejects.

    `difference_interval` for pairs of heads: names are dealt out to rows and to columns, so that whatever a row or a
    column has of its own goes with it. Exact for pairs that differ by a shift.

    >>> values = np.add.outer(np.arange(8.0), np.arange(8.0))
    >>> values[:2, :2] += 20
    >>> found = pair_difference_interval(values, np.arange(8) < 2, np.arange(8) < 2)
    >>> found.low > 5, found.method
    (True, 'inverted permutation of the names of 2 of 8 and 2 of 8 heads, 784 arrangements')
    """
    ways = pair_arrangements(first, second)
    marked = f"{int(first.sum())} of {len(first)} and {int(second.sum())} of {len(second)} heads"
    method = f"inverted permutation of the names of {marked}, {len(ways):,} arrangements"
    return _shifts_not_rejected(
        np.asarray(values, dtype=np.float64).ravel(), ways, float(ways[0].mean()), level, method
    )
