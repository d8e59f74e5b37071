"""Quantities of the heads of a run, from their scores and compositions alone: leaders, formation, means over pairs.

What is measured and what a known answer is made of pass through the same functions.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

from circuit_claims.api import (
    LEVEL,
    Interval,
    Measurement,
    Ranking,
    bootstrap_counts,
    first_of,
    order_of,
    percentile_interval,
    permutation_p_value,
)
from circuit_claims.papers.refined_llc.runs.recorded import PREFIX_FROM, PREVIOUS_FROM
from circuit_claims.papers.refined_llc.runs.training_run import Score

TYPE_OF: dict[Score, tuple[str, int]] = {"previous": ("previous-token", 0), "prefix": ("induction", 1)}
# A type has formed where its leading heads' mean score reaches what makes a head one of it.
FORMED: dict[Score, float] = {"previous": PREVIOUS_FROM, "prefix": PREFIX_FROM}
LEADERS = 2


def leading(scores: Float[np.ndarray, " head"], draws: Float[np.ndarray, "draw head"], layer: int) -> Ranking:
    """Which `LEADERS` heads of a layer have the highest scores together, with the rivals of each such set.

    >>> leading(np.array([3.0, 1.0, 2.0]), np.array([[3.0, 1.0, 2.0], [3.1, 1.0, 2.0]]), 0).leader
    '0:0, 0:2'
    """
    sets = list(combinations(range(len(scores)), LEADERS))
    labels = [", ".join(f"{layer}:{head}" for head in each) for each in sets]
    chosen = np.array(sets)
    return first_of(labels, scores[chosen].sum(1), draws[:, chosen].sum(2))


def best_score(
    value: Float[np.ndarray, " head"],
    drawn: Float[np.ndarray, "draw head"],
    first: Float[np.ndarray, "draw head"],
    method: str,
) -> Measurement:
    """The highest of some heads' scores, its interval simultaneous over them, the null the highest of their `first`."""
    half = float(np.quantile(np.abs(drawn - value).max(1), LEVEL))
    null, best = first.max(1), float(value.max())
    return Measurement(
        "highest score",
        best,
        Interval(best - half, best + half, LEVEL, f"{method}; simultaneous over heads"),
        unit="mean attention",
        p_value=permutation_p_value(best, null),
        n=len(value),
        arrays={"null": null, "final": value},
    )


def order_of_rises(
    steps: Int[np.ndarray, " step"],
    curves: Float[np.ndarray, "type step"],
    drawn: Float[np.ndarray, "draw type step"],
) -> Measurement:
    """Which type of `TYPE_OF` has made half of its rise first, by checkpoints; `drawn` are its curves with noise."""
    kinds, formed = [kind for kind, _ in TYPE_OF.values()], np.array([FORMED[score] for score in TYPE_OF])
    places = rise_places(curves, formed)
    ranking = order_of(kinds, -places, -rise_places(drawn, formed))
    some = bool((places < len(steps)).any())
    tie = "not resolved by the checkpoints" if some else "neither"
    return Measurement(
        "step at which each type has made half of its rise",
        ranking.leader if len(set(places.tolist())) > 1 else tie,
        support=ranking.support or {tie: 1.0},
        rivals=ranking.rivals,
        n=len(steps),
        status="complete" if some else "partial",
        arrays={"steps": steps, "curves": curves},
        facts={"half": [_finite(half_rise_of_type(steps, *each)) for each in curves_by_type(curves)], "types": kinds},
    )


def rise_places(
    curves: Float[np.ndarray, "*batch type step"], formed: Float[np.ndarray, " type"]
) -> Int[np.ndarray, "*batch type"]:
    """The first checkpoint after which each curve stays above half of its rise; their number where it never formed.

    >>> rise_places(np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]]), np.array([0.5, 0.5])).tolist()
    [2, 4]
    """
    level = ((curves.min(-1) + curves[..., -1]) / 2)[..., None]
    rises = (curves[..., :-1] < level) & (curves[..., 1:] >= level)
    last = curves.shape[-1] - 1 - rises[..., ::-1].argmax(-1)
    return np.where(rises.any(-1) & (curves[..., -1] >= formed), last, curves.shape[-1])


def curves_by_type(curves: Float[np.ndarray, "type step"]) -> list[tuple[np.ndarray, float]]:
    """Each type's curve with the score at which it has formed."""
    return [(curve, FORMED[score]) for score, curve in zip(TYPE_OF, curves, strict=True)]


def half_rise_of_type(steps: np.ndarray, curve: Float[np.ndarray, " step"], formed: float) -> float:
    """`last_half_rise` of a type that formed, inf of one that did not."""
    return last_half_rise(steps, curve) if curve[-1] >= formed else float("inf")


def last_half_rise(steps: np.ndarray, curve: Float[np.ndarray, " step"]) -> float:
    """The step where a curve last passes, upwards, half-way from its least value to its last; inf where it does not.

    >>> round(last_half_rise(np.array([0, 1, 3, 7]), np.array([0.0, 0.0, 1.0, 1.0])), 6)
    1.828427
    """
    level = (float(curve.min()) + float(curve[-1])) / 2
    rises = np.flatnonzero((curve[:-1] < level) & (curve[1:] >= level))
    if not len(rises):
        return float("inf")
    at = int(rises[-1])
    share = (level - curve[at]) / (curve[at + 1] - curve[at])
    left, right = np.log1p(steps[at]), np.log1p(steps[at + 1])
    return float(np.expm1(left + share * (right - left)))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def growth_of_pairs(pairs: Float[np.ndarray, "2 row column"], means: Float[np.ndarray, "draw 2"]) -> Measurement:
    """The mean over pairs of heads at the end over that before, `means` being both as drawn over heads and their noise.

    The percentiles are expanded for the heads of the layer that has fewer.
    """
    before, after = pairs.mean((1, 2))
    method = f"{len(means):,} bootstrap draws over heads of both layers"
    return Measurement(
        "growth of a mean over pairs of heads",
        float(after / before),
        percentile_interval(means[:, 1] / means[:, 0], method, redrawn=min(pairs.shape[1:])),
        unit="times",
        n=pairs[0].size,
        redrawn={"heads": sum(pairs.shape[1:])},
    )


def means_of_pairs(
    drawn: Float[np.ndarray, "draw step row column"], generator: np.random.Generator
) -> Float[np.ndarray, "draw step"]:
    """The mean over pairs of each draw, its rows and its columns drawn anew as well: the same at every step."""
    draws, _, rows, columns = drawn.shape
    left, right = (bootstrap_counts(count, draws, generator) / count for count in (rows, columns))
    return np.einsum("dsrc,dr,dc->ds", drawn, left, right, optimize=True)


def mean_at_the_end(table: Measurement) -> Measurement:
    """The mean over pairs at the last checkpoint, of a table of `composition_rise`."""
    draws, pairs = table.arrays["last"], table.arrays["pairs"]
    method = f"{len(draws):,} bootstrap draws over heads of both layers"
    interval = percentile_interval(draws, method, redrawn=min(pairs.shape[1:]))
    quantity = f"{table.quantity.partition(',')[0]} at the last checkpoint"
    return table.derive(quantity, float(pairs[1].mean()), interval=interval, unit="composition")
