"""How the leading head came about over training, and how sudden its rise was (SH-25).

The head that leads at the last revision is followed back through the earlier ones. Suddenness is read off the curve of
its score against doublings of the training step: the largest part of the whole rise that falls within one doubling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from circuit_claims.api import LEVEL, expanded_level, expansion
from circuit_claims.papers.successor_heads.succession.score import Metric, SuccessorScores, order_statistics


@dataclass(frozen=True)
class EmergenceCurve:
    """The leader-at-the-end's score at each revision, and how much of its rise came at once.

    `value` (revision,) with `low` and `high`, a band that holds for all revisions together. `doublings` is
    log2(1 + step). `steepest` is the largest share of the rise within one doubling (see `steepest_share`), between
    `low` and `high` of `steepest_interval`; `steepest_from` is the step where that doubling begins. `widest_gap` is
    the largest distance between neighbouring revisions, in doublings: a jump inside a gap wider than 1 is spread
    evenly over it, so the share of such a series is a lower bound. `support` is the share of bootstrap draws in which
    this head leads at the end.
    """

    head: str
    metric: Metric
    steps: Int[np.ndarray, " revision"]
    value: Float[np.ndarray, " revision"]
    low: Float[np.ndarray, " revision"]
    high: Float[np.ndarray, " revision"]
    rise: float
    steepest: float
    steepest_interval: tuple[float, float]
    steepest_from: float
    widest_gap: float
    support: float
    level: float

    @property
    def doublings(self) -> Float[np.ndarray, " revision"]:
        """The horizontal axis: log2(1 + step), so that step 0 has a place and one unit is a doubling."""
        return in_doublings(self.steps)


def in_doublings(steps: Sequence[int] | np.ndarray) -> Float[np.ndarray, " revision"]:
    """log2(1 + step).

    >>> in_doublings([0, 1, 3, 7]).tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    return np.log2(1.0 + np.asarray(steps, dtype=np.float64))


def rises_within_a_doubling(
    doublings: Float[np.ndarray, " revision"], values: Float[np.ndarray, "*curve revision"]
) -> tuple[Float[np.ndarray, " window"], Float[np.ndarray, "*curve window"]]:
    """Start of each window of one doubling that can hold the largest rise, and the rise of each curve in it.

    Curves are straight lines between revisions (in doublings). The rise over [x, x + 1] is then straight in x between
    the places where x or x + 1 is a revision, so its maximum lies at one of those. A series shorter than one doubling
    has the one window that covers it.
    """
    first, last = doublings[0], max(doublings[-1] - 1.0, doublings[0])
    starts = np.concatenate([doublings, doublings - 1.0])
    starts = np.unique(starts[(starts >= first) & (starts <= last)])
    return starts, _interpolation(doublings, np.minimum(starts + 1.0, doublings[-1]), values) - _interpolation(
        doublings, starts, values
    )


def _interpolation(x: np.ndarray, at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Straight-line interpolation of many curves at once: `np.interp` along the last axis."""
    right = np.clip(np.searchsorted(x, at, side="right"), 1, len(x) - 1)
    share = (at - x[right - 1]) / (x[right] - x[right - 1])
    return values[..., right - 1] * (1 - share) + values[..., right] * share


def steepest_share(
    doublings: Float[np.ndarray, " revision"], values: Float[np.ndarray, "*curve revision"]
) -> Float[np.ndarray, "*curve"]:
    """Largest rise within one doubling over the rise from the first revision to the last; inf where there is none.

    1 for a score that jumps from its first value to its last between two neighbouring revisions, 1/n for one that
    rises evenly over n doublings; above 1 for one that overshoots and falls back.
    """
    _, rises = rises_within_a_doubling(doublings, values)
    total = values[..., -1] - values[..., 0]
    return np.divide(rises.max(axis=-1), total, out=np.full(np.shape(total), np.inf), where=total > 0)


def steepest_interval(
    doublings: Float[np.ndarray, " revision"],
    draws: Float[np.ndarray, "draw revision"],
    strings: float | Sequence[int] | None = None,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Percentiles of the steepest share over bootstrap draws of the curve, without interpolation (some are inf).

    Further out for as few `strings` as were drawn anew (`judging.statistics.percentiles`).
    """
    return order_statistics(np.sort(steepest_share(doublings, draws)), expanded_level(strings, level))


def emergence_curve(
    steps: Sequence[int],
    revisions: Sequence[SuccessorScores],
    *,
    metric: Metric = "macro_score",
    level: float = LEVEL,
) -> EmergenceCurve:
    """The curve of the head that leads at the last revision, with its band and the suddenness of its rise.

    `revisions` are the scores at `steps`, on one dataset and with the same bootstrap (one seed), so that every draw
    follows the same strings through training. The band is of max-type over revisions, the interval of the share by
    percentiles, both stretched for as few strings as each task has. Noise can only add to the largest of many rises,
    so the share leans high. Raises ValueError for fewer than three revisions, steps out of order, or revisions that
    were not resampled alike.
    """
    _check(steps, revisions)
    head = int(revisions[-1].ranking(metric)[0])
    value = np.asarray([scores.value(metric)[head] for scores in revisions])
    draws = np.stack([scores.draws[metric][:, head] for scores in revisions], axis=1).astype(np.float64)
    strings = revisions[-1].resamples.sizes
    half = float(np.quantile(np.abs(draws - value).max(axis=1), level))
    half = half * expansion(strings, level) if half else 0.0
    doublings = in_doublings(steps)
    starts, rises = rises_within_a_doubling(doublings, value)
    return EmergenceCurve(
        head=revisions[-1].name(head),
        metric=metric,
        steps=np.asarray(steps, dtype=np.int64),
        value=value,
        low=np.clip(value - half, 0.0, 1.0),
        high=np.clip(value + half, 0.0, 1.0),
        rise=float(value[-1] - value[0]),
        steepest=float(steepest_share(doublings, value)),
        steepest_interval=steepest_interval(doublings, draws, strings, level),
        steepest_from=float(2.0 ** starts[int(rises.argmax())] - 1.0),
        widest_gap=float(np.diff(doublings).max()),
        support=float(revisions[-1].support(metric)[head]),
        level=level,
    )


def _check(steps: Sequence[int], revisions: Sequence[SuccessorScores]) -> None:
    if len(steps) != len(revisions) or len(steps) < 3:
        raise ValueError(
            f"emergence: expected at least 3 revisions with one step each, found {len(steps)} steps and "
            f"{len(revisions)} revisions"
        )
    if steps[0] < 0 or any(later <= earlier for earlier, later in pairwise(steps)):
        raise ValueError(f"emergence: expected training steps from 0 up in rising order, found {list(steps)}")
    first = revisions[0]
    for step, scores in zip(steps, revisions, strict=True):
        alike = scores.hits.shape == first.hits.shape and np.array_equal(scores.string, first.string)
        if not alike or not np.array_equal(scores.resamples.counts, first.resamples.counts):
            raise ValueError(
                f"emergence: expected every revision to have the heads, tokens and bootstrap draws of step {steps[0]}, "
                f"found others at step {step}; score all revisions with one dataset and one seed"
            )
