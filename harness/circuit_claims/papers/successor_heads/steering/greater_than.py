"""Whether a head, or a feature, favours values above the successor over those below it (Gould et al. 2024, section 4).

The paper shows curves and gives no number (SH-18). Here values at one distance d above and below the successor s are
held against each other, the logit of s + d against that of s - d: logits fall off with distance, and so the plain mean
of all values above would only tell where in the task s stands. The token itself (d = 1) is left out: a head that takes
its own token out of the running would otherwise look as if it favoured greater values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from circuit_claims.api import (
    Interval,
    bootstrap_counts,
    cluster_interval,
    or_binomial,
    percentile_interval,
    stratified_counts,
)
from circuit_claims.papers.successor_heads.steering.arithmetic import RESIDUES, HeadLogits
from circuit_claims.papers.successor_heads.steering.tokens import Items

NEAREST = 2
DRAWS_AT_ONCE = 100
"""Bootstrap draws held at a time: two hundred numbers have ten thousand pairs."""
TASKS = ("numbers", "number words", "ordinal words")
"""Tasks of values that do not turn around."""


@dataclass(frozen=True)
class Comparisons:
    """Pairs of values of one task, one at each distance above and below a successor; rows in the order of `centre`.

    `source` is who is read (the place of a string, or a feature), `successor` the place that the pair lies around,
    `above` and `below` the places compared, `won` whether the greater one has the higher logit (ties: a half).
    `values` is how many strings the task has.
    """

    task: str
    values: int
    source: Int[np.ndarray, " pair"]
    successor: Int[np.ndarray, " pair"]
    above: Int[np.ndarray, " pair"]
    below: Int[np.ndarray, " pair"]
    won: Float[np.ndarray, " pair"]

    @cached_property
    def _begins(self) -> Int[np.ndarray, " centre"]:
        """Where the pairs of each centre begin: a source, and a place around which its pairs lie."""
        moved = (np.diff(self.source) != 0) | (np.diff(self.successor) != 0)
        return np.concatenate([[0], 1 + np.flatnonzero(moved)])

    @cached_property
    def sources(self) -> Int[np.ndarray, " source"]:
        """Who is read, each once."""
        return np.unique(self.source)

    def share(
        self, strings: Float[np.ndarray, "draw value"], features: Float[np.ndarray, "draw feature"] | None = None
    ) -> Float[np.ndarray, " draw"]:
        """The mean over sources of the mean over their centres of the share of pairs that the greater value wins.

        `strings` says how often each draw takes each value, `features` each feature; None where the sources are strings
        themselves. A pair counts as often as both its values are there.
        """
        drawn = strings.T  # (value, draw): rows lie together in memory
        # A hair more than never, so that no centre is empty.
        weight = drawn[self.above] * drawn[self.below] + 1e-9  # (pair, draw)
        total = np.add.reduceat(weight, self._begins)
        weight *= self.won[:, None]
        won = np.add.reduceat(weight, self._begins) / total  # (centre, draw)
        # A head reads each string around one place, a feature around every value it could mean.
        around = np.ones_like(won) if features is None else drawn[self.successor[self._begins]] + 1e-9
        member = (self.sources[:, None] == self.source[self._begins]).astype(np.float64)  # (source, centre)
        each = member @ (won * around) / (member @ around)
        taken = (drawn if features is None else features.T)[self.sources] + 1e-9
        return (each * taken).sum(0) / taken.sum(0)

    def shares(self) -> Float[np.ndarray, " source"]:
        """The share of each source, as it is."""
        centres = np.add.reduceat(self.won, self._begins) / np.diff([*self._begins, len(self.won)])
        centre = self.source[self._begins]
        return np.asarray([centres[centre == one].mean() for one in self.sources])


@dataclass(frozen=True)
class Bias:
    """Shares of pairs (s + d, s - d) in which the greater value has the higher logit, ties counted half.

    `value` is the mean over tasks of the mean over a task's sources (tokens, or features), so that two hundred numbers
    do not drown ten ordinals. 0.5: no bias. `features`: how many features there are, 0 where strings are read.
    """

    pairs: tuple[Comparisons, ...]
    features: int = 0

    @cached_property
    def shares(self) -> tuple[Float[np.ndarray, " source"], ...]:
        """The share of each source, by task."""
        return tuple(one.shares() for one in self.pairs)

    @property
    def value(self) -> float:
        """Mean over tasks."""
        return float(np.mean([shares.mean() for shares in self.shares]))

    @property
    def by_task(self) -> dict[str, float]:
        """Mean over a task's sources, for each task with values on both sides of a successor."""
        return {one.task: float(shares.mean()) for one, shares in zip(self.pairs, self.shares, strict=True)}

    @property
    def n(self) -> int:
        """How many sources there are."""
        return sum(len(shares) for shares in self.shares)

    @property
    def redrawn(self) -> dict[str, int]:
        """What is drawn anew: strings, whether read or compared, and features."""
        strings = {"strings": sum(one.values for one in self.pairs)}
        return {**strings, "features": self.features} if self.features else strings

    def draws(self, generator: np.random.Generator, draws: int) -> Float[np.ndarray, " draw"]:
        """The value in bootstrap draws over the strings of each task and over features.

        A string that is not drawn is neither read nor compared: a head that puts a task's strings in one order,
        whatever it reads, shows one accident and not as many as it reads. A feature is drawn for all tasks at once.
        """
        sizes = [one.values for one in self.pairs]
        strings = stratified_counts(np.repeat(np.arange(len(sizes)), sizes), draws, generator)
        features = bootstrap_counts(self.features, draws, generator).astype(float) if self.features else None
        by_task = np.split(strings, np.cumsum(sizes)[:-1], axis=1)
        found = []
        for at in np.array_split(np.arange(draws), -(-draws // DRAWS_AT_ONCE)):
            chosen = None if features is None else features[at]
            each = [one.share(drawn[at], chosen) for one, drawn in zip(self.pairs, by_task, strict=True)]
            found.append(np.mean(each, axis=0))
        return np.concatenate(found)

    def interval(self, generator: np.random.Generator, draws: int) -> Interval:
        """The bootstrap's, expanded for as few strings read as a task has, or features; never narrower than the exact
        binomial one of all sources where these all agree."""
        few = self.features or [len(shares) for shares in self.shares]
        over = "strings and features" if self.features else "strings"
        method = f"{draws:,} bootstrap draws over {over}, whether read or compared"
        found = percentile_interval(self.draws(generator, draws), method, redrawn=few)
        if found.width > 1e-9:
            return found
        low, high = or_binomial((found.low, found.high), self.value * self.n, self.n)
        return Interval(low, high, found.level, f"exact binomial over {self.n} sources that all agree")


@dataclass(frozen=True)
class BiasOverDraws:
    """The bias of many draws of the weights: the mean of their values, and an interval over the draws."""

    biases: tuple[Bias, ...]

    @property
    def value(self) -> float:
        """Mean over draws."""
        return float(np.mean([bias.value for bias in self.biases]))

    @property
    def n(self) -> int:
        """How many draws there are."""
        return len(self.biases)

    @property
    def by_task(self) -> dict[str, float]:
        """The mean alone: draws stand in the place of tasks."""
        return {"draws of the weights": self.value}

    @property
    def redrawn(self) -> dict[str, int]:
        """What is drawn anew."""
        return {"draws of the weights": self.n}

    def interval(self, generator: np.random.Generator, draws: int) -> Interval:
        """Student's t over the draws of the weights; nothing else is drawn."""
        return cluster_interval(np.asarray([bias.value for bias in self.biases]), np.arange(self.n))


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
    orders: Sequence[Sequence[int] | np.ndarray] | None = None,
) -> Bias:
    """The bias of a head from its logits, with each task's strings in their own order or in another."""
    found = []
    for number, table in enumerate(tables):
        order = np.arange(len(table)) if orders is None else np.asarray(orders[number])
        logits = table[np.ix_(order, order)]  # (value, value)
        found.append(_comparisons(tasks[number], logits, [(place, place + 1) for place in range(len(logits) - 1)]))
    return Bias(_known(tasks, found))


def over_draws(biases: Sequence[Bias]) -> BiasOverDraws:
    """One bias of many draws of the weights: the interval is one over draws."""
    return BiasOverDraws(tuple(biases))


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
    for task, table, index in zip(tasks, tables, indices, strict=True):
        centres = [
            (residue, place)
            for residue in range(len(table))
            for place, number in enumerate(index)
            if _meant(number, residue)
        ]
        found.append(_comparisons(task, table, centres))
    return Bias(_known(tasks, found), features=RESIDUES)


def _meant(index: int, residue: int) -> bool:
    return index % RESIDUES == (residue + 1) % RESIDUES


def _comparisons(
    task: str, logits: Float[np.ndarray, "source value"], centres: Sequence[tuple[int, int]]
) -> Comparisons:
    """All pairs around the place of each centre (source, place), in the logits of that source."""
    rows = [
        (source, place, place + distance, place - distance)
        for source, place in centres
        for distance in range(NEAREST, min(place, logits.shape[1] - 1 - place) + 1)
    ]
    source, successor, above, below = np.asarray(rows, dtype=np.int64).reshape(-1, 4).T
    greater, lesser = logits[source, above], logits[source, below]
    won = (greater > lesser) + 0.5 * (greater == lesser)
    return Comparisons(task, logits.shape[1], source, successor, above, below, won)


def _known(tasks: Sequence[str], found: Sequence[Comparisons]) -> tuple[Comparisons, ...]:
    kept = tuple(one for one in found if len(one.won))
    if not kept:
        names = ", ".join(tasks) or "none"
        raise ValueError(
            f"greater-than bias: expected a task with values on both sides of a successor, found {names}"
            "\n  Choose a subject whose tokenizer has digits, number words or ordinals as single tokens."
        )
    return kept


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
