"""Whether a head, or a feature, favours values above the successor over those below it (Gould et al. 2024, section 4).

The paper shows curves and gives no number (SH-18). Here values at one distance d above and below the successor s are
held against each other, the logit of s + d against that of s - d: logits fall off with distance, and so the plain mean
of all values above would only tell where in the task s stands. The token itself (d = 1) is left out: a head that takes
its own token out of the running would otherwise look as if it favoured greater values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from circuit_claims.api import binomial_interval, percentiles
from circuit_claims.papers.successor_heads.steering.arithmetic import RESIDUES, HeadLogits
from circuit_claims.papers.successor_heads.steering.tokens import Items

NEAREST = 2
TASKS = ("numbers", "number words", "ordinal words")
"""Tasks of values that do not turn around."""


@dataclass(frozen=True)
class Bias:
    """Shares of pairs (s + d, s - d) in which the greater value has the higher logit, ties counted half.

    One share a source (a token, or a feature in one task), grouped by task; `value` is the mean over tasks of the mean
    over a task's sources, so that two hundred numbers do not drown ten ordinals. 0.5: no bias.
    """

    tasks: tuple[str, ...]
    shares: tuple[Float[np.ndarray, " source"], ...]

    @property
    def value(self) -> float:
        """Mean over tasks."""
        return float(np.mean([shares.mean() for shares in self.shares]))

    @property
    def n(self) -> int:
        """How many sources there are."""
        return sum(len(shares) for shares in self.shares)

    def draws(self, generator: np.random.Generator, draws: int) -> Float[np.ndarray, " draw"]:
        """The value in bootstrap draws over the sources of each task."""
        means = [generator.choice(shares, (draws, len(shares))).mean(axis=1) for shares in self.shares]
        return np.mean(means, axis=0)

    def interval(self, generator: np.random.Generator, draws: int) -> tuple[float, float]:
        """90 % interval: the bootstrap's, expanded for as few sources as a task has, and never narrower than the exact
        binomial one of all of them (sources that all agree have a bootstrap of no width)."""
        low, high = percentiles(self.draws(generator, draws), redrawn=[len(shares) for shares in self.shares])
        if low < high:
            return low, high
        return binomial_interval(round(self.value * self.n), self.n)


def share_above(logits: Float[np.ndarray, " c"], at: int) -> float:
    """Share of distances d >= 2 at which candidate at + d outdoes candidate at - d; nan where none has both.

    >>> share_above(np.asarray([0.0, 1.0, 2.0, 3.0, 4.0]), 2)
    1.0
    """
    reach = min(at, len(logits) - 1 - at)
    distances = np.arange(NEAREST, reach + 1)
    if not len(distances):
        return float("nan")
    above, below = logits[at + distances], logits[at - distances]
    return float(np.mean((above > below) + 0.5 * (above == below)))


def head_bias(readout: HeadLogits, tasks: Sequence[Items], orders: Sequence[Sequence[int]] | None = None) -> Bias:
    """The bias of the OV circuit, token by token: logits of a task's values where the head reads MLP_0(W_E(t)).

    `orders` puts each task's strings in another order, for a control. Raises `ValueError` where no task has a token
    with values at one distance on both sides of its successor.
    """
    return bias_of_logits([one.task for one in tasks], head_tables(readout, tasks), orders=orders)


def head_tables(readout: HeadLogits, tasks: Sequence[Items]) -> list[Float[np.ndarray, "value value"]]:
    """What the head makes of each value of a task, as logits of all of them."""
    return [readout.logits(readout.read(one.tokens), one.tokens).cpu().numpy() for one in tasks]


def bias_of_logits(
    tasks: Sequence[str],
    tables: Sequence[Float[np.ndarray, "value value"]],
    *,
    orders: Sequence[Sequence[int] | np.ndarray] | None = None,
) -> Bias:
    """The bias of a head from its logits, with each task's strings in their own order or in another."""
    found = []
    for number, table in enumerate(tables):
        order = np.arange(len(table)) if orders is None else np.asarray(orders[number])
        logits = table[np.ix_(order, order)]  # (value, value)
        found.append(np.asarray([share_above(row, place + 1) for place, row in enumerate(logits[:-1])]))
    return _bias(tasks, found)


def over_draws(biases: Sequence[Bias]) -> Bias:
    """One bias of many draws of the weights: each draw's value is a source, so the interval is one over draws."""
    return Bias(("draws of the weights",), (np.asarray([bias.value for bias in biases]),))


def feature_bias(readout: HeadLogits, tasks: Sequence[Items], vectors: Float[Tensor, "residue d_model"]) -> Bias:
    """The bias of features: logits of a task's values where the head reads f_i, around each value it could mean.

    Feature i favours all values that end in i + 1; each of them in turn is taken for the successor, and its share is
    the mean over these. One source a feature and task.
    """
    return bias_of_feature_logits(
        [one.task for one in tasks], feature_tables(readout, tasks, vectors), [one.index for one in tasks]
    )


def feature_tables(
    readout: HeadLogits, tasks: Sequence[Items], vectors: Float[Tensor, "residue d_model"]
) -> list[Float[np.ndarray, "residue value"]]:
    """What the head makes of each feature, as logits of a task's values."""
    return [readout.logits(vectors, one.tokens).cpu().numpy() for one in tasks]


def bias_of_feature_logits(
    tasks: Sequence[str], tables: Sequence[Float[np.ndarray, "residue value"]], indices: Sequence[Sequence[int]]
) -> Bias:
    """The bias of features from their logits of the values that have these indices."""
    found = []
    for table, index in zip(tables, indices, strict=True):
        shares = [
            _nanmean([share_above(row, place) for place, number in enumerate(index) if _meant(number, residue)])
            for residue, row in enumerate(table)
        ]
        found.append(np.asarray(shares))
    return _bias(tasks, found)


def _meant(index: int, residue: int) -> bool:
    return index % RESIDUES == (residue + 1) % RESIDUES


def _nanmean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _bias(tasks: Sequence[str], found: Sequence[np.ndarray]) -> Bias:
    known = [(task, shares[~np.isnan(shares)]) for task, shares in zip(tasks, found, strict=True)]
    kept = [(task, shares) for task, shares in known if len(shares)]
    if not kept:
        names = ", ".join(tasks) or "none"
        raise ValueError(
            f"greater-than bias: expected a task with values on both sides of a successor, found {names}"
            "\n  Choose a subject whose tokenizer has digits, number words or ordinals as single tokens."
        )
    return Bias(tuple(task for task, _ in kept), tuple(shares for _, shares in kept))


def mean_profile(
    readout: HeadLogits, items: Items, reach: int = RESIDUES
) -> tuple[np.ndarray, Float[np.ndarray, " distance"]]:
    """Distances -reach to reach from the successor, and the mean logit there over a task's tokens, each token's mean
    over its task taken off; nan at a distance no token has."""
    logits = readout.logits(readout.read(items.tokens), items.tokens).cpu().numpy()
    logits = logits - logits.mean(axis=1, keepdims=True)
    distances = np.arange(-reach, reach + 1)
    successors = np.arange(1, len(logits))
    columns = successors[:, None] + distances  # (token, distance)
    inside = (columns >= 0) & (columns < logits.shape[1])
    values = np.where(inside, logits[successors[:, None] - 1, np.clip(columns, 0, logits.shape[1] - 1)], np.nan)
    counts = inside.sum(0)
    return distances, np.where(counts > 0, np.nansum(values, 0) / np.maximum(counts, 1), np.nan)
