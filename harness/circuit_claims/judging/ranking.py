"""Who comes first, and how firmly somebody else does: the shares that claims of kind `identity` and `order` rest on.

The best of many rivals is ahead of the true leader by chance more often the more of them there are. So the
strongest rival, the one with the greatest studentised lead, stands against a label only as firmly as Bonferroni's
bound over all rivals allows: with one rival that is the plain share of resamples, with 300 its choice is paid for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

from circuit_claims.judging.measurement import Rival

_TINY = 1e-24


@dataclass(frozen=True)
class Ranking:
    """`leader` by the estimate, `support` (share of resamples with each label first, or with each order), `rivals`.

    >>> Ranking("L5H1", {"L5H1": 0.97, "L5H8": 0.03}, {"L5H8": Rival("L5H1", 0.97)}).support["L5H1"]
    0.97
    """

    leader: str
    support: Mapping[str, float]
    rivals: Mapping[str, Rival]


def first_of(
    labels: Sequence[str], estimate: Float[np.ndarray, " label"], draws: Float[np.ndarray, "draw label"]
) -> Ranking:
    """Which label has the highest value: for claims of kind `identity`.

    `estimate` holds the values, `draws` their resamples (all labels redrawn together, so that what they share is
    shared). Ties at the top of a resample support "no leader". Raises ValueError for shapes that do not fit.

    >>> draws = np.random.default_rng(0).normal([2.0, 0.0, 0.1], 0.1, (500, 3))
    >>> ranking = first_of(["a", "b", "c"], np.array([2.0, 0.0, 0.1]), draws)
    >>> ranking.leader, ranking.support["a"], ranking.rivals["c"]
    ('a', 1.0, Rival(label='a', ahead=1.0))
    """
    _fit(labels, estimate, draws)
    first = draws.max(axis=1)
    leads = draws == first[:, None]
    leads &= (leads.sum(axis=1) == 1)[:, None]
    support = {label: float(share) for label, share in zip(labels, leads.mean(axis=0), strict=True) if share > 0}
    if (undecided := 1 - float(leads.any(axis=1).mean())) > 0:
        support["no leader"] = undecided
    rivals = dict(zip(labels, _strongest(labels, estimate, draws), strict=True)) if len(labels) > 1 else {}
    return Ranking(labels[int(np.argmax(estimate))], support, rivals)


def order_of(
    labels: Sequence[str], estimate: Float[np.ndarray, " label"], draws: Float[np.ndarray, "draw label"]
) -> Ranking:
    """In which order the labels' values fall, highest first: for claims of kind `order`.

    `support` is keyed by the whole order, "a > b > c"; `rivals` by each pair "a > b", with the share of resamples in
    which b is ahead of a, allowing for the number of pairs (any of them may break an order). Equal values
    support "no order".

    >>> draws = np.random.default_rng(0).normal([2.0, 1.0], 0.1, (500, 2))
    >>> ranking = order_of(["a", "b"], np.array([2.0, 1.0]), draws)
    >>> ranking.leader, ranking.support, ranking.rivals["b > a"].ahead, ranking.rivals["a > b"].ahead
    ('a > b', {'a > b': 1.0}, 1.0, 0.0)
    """
    _fit(labels, estimate, draws)
    ranks = np.argsort(-draws, axis=1, kind="stable")
    descending = np.take_along_axis(draws, ranks, axis=1)
    strict = (np.diff(descending, axis=1) < 0).all(axis=1)
    orders, counts = np.unique(ranks[strict], axis=0, return_counts=True)
    support = {
        " > ".join(labels[int(i)] for i in order): int(n) / len(draws) for order, n in zip(orders, counts, strict=True)
    }
    if not strict.all():
        support["no order"] = 1 - float(strict.mean())
    pairs = len(labels) * (len(labels) - 1) // 2
    rivals: dict[str, Rival] = {}
    for one, other in combinations(range(len(labels)), 2):
        for ahead, behind in ((one, other), (other, one)):
            share = float((draws[:, behind] > draws[:, ahead]).mean())
            rivals[f"{labels[ahead]} > {labels[behind]}"] = Rival(labels[behind], max(1 - pairs * (1 - share), 0.0))
    leader = " > ".join(labels[int(i)] for i in np.argsort(-np.asarray(estimate), kind="stable"))
    return Ranking(leader, support, rivals)


def _strongest(labels: Sequence[str], estimate: np.ndarray, draws: np.ndarray) -> Iterator[Rival]:
    """Of each label the rival with the greatest studentised lead over it, and how firmly it is ahead."""
    covariance = np.cov(draws.T)
    variance = np.diag(covariance)
    spread = np.sqrt(np.maximum(variance[:, None] + variance[None, :] - 2 * covariance, _TINY))
    leads = (estimate[None, :] - estimate[:, None]) / spread  # (label, rival)
    np.fill_diagonal(leads, -np.inf)
    for place, rival in enumerate(leads.argmax(axis=1)):
        share = float((draws[:, rival] > draws[:, place]).mean())
        if len(labels) > 2:
            share = min(share, 1 - (len(labels) - 1) * _upper_tail(float(leads[place, rival])))
        yield Rival(labels[int(rival)], max(share, 0.0))


def _upper_tail(z: float) -> float:
    """The chance that a standard normal variable exceeds `z`."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def _fit(labels: Sequence[str], estimate: np.ndarray, draws: np.ndarray) -> None:
    shapes = np.shape(estimate), np.shape(draws)
    if shapes != ((len(labels),), (len(draws), len(labels))):
        raise ValueError(
            f"a ranking of {len(labels)} labels: expected estimates of shape ({len(labels)},) and draws of shape "
            f"(draws, {len(labels)}), found {shapes[0]} and {shapes[1]}"
        )
