"""Head scores where the answer is known, on a model's own tokens and sizes: a shuffled successor map, a perfect head.

Made from the winners that the sweep found, so that nothing is read from the weights again. Everything but the claimed
relation is kept: comparison sets, forms, pairs and the bootstrap over strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from circuit_claims.papers.successor_heads.dataset import SuccessionDataset
from circuit_claims.papers.successor_heads.succession.nulls import random_orders
from circuit_claims.papers.successor_heads.succession.score import Resamples, SuccessorScores

DRAWS = 400
"""Bootstrap draws of a data set whose answer is known: enough for its interval, and made 200 times a claim."""


@dataclass(frozen=True)
class KnownAnswers:
    """Scores of all heads of one sweep under maps that were made up. `winner` as in `Winners.of`."""

    dataset: SuccessionDataset
    heads: Int[np.ndarray, "head 2"]
    winner: Int[np.ndarray, "head column"]
    exclude_self: bool = False

    def shuffled(self, generator: np.random.Generator) -> SuccessorScores:
        """All heads against one random order of each task's strings, the same for all forms of a string."""
        orders = [np.asarray(maps[1]) for maps in random_orders(self.dataset, 1, generator)]
        return self._scores(orders, generator)

    def true(self, generator: np.random.Generator) -> SuccessorScores:
        """All heads against the true order."""
        return self._scores([np.arange(len(strand.orders)) for strand in self.dataset.strands], generator)

    def perfect(self, scores: SuccessorScores, rows: Sequence[int]) -> SuccessorScores:
        """The same scores with some heads perfect: they pass every pair."""
        hits = scores.hits.copy()
        hits[list(rows)] = True
        return replace(scores, hits=hits)

    def _scores(self, orders: Sequence[np.ndarray], generator: np.random.Generator) -> SuccessorScores:
        hits, weight, task, string = [], [], [], []
        for strand, order in zip(self.dataset.strands, orders, strict=True):
            rivals = len(self.dataset.groups[strand.group].candidates) - 2 + (not self.exclude_self)
            if rivals < 1 or not strand.links:
                continue
            places, (first, second) = np.asarray(strand.places)[order], np.asarray(strand.links).T
            column = int(self.dataset.group_starts[strand.group]) + places[first]
            hits.append(self.winner[:, column] == places[second])
            weight.append(np.full(len(first), strand.weight))
            task.append(np.full(len(first), strand.task))
            string.append(self.dataset.columns.string[column])
        tasks, strings = np.concatenate(task), np.concatenate(string)
        return SuccessorScores(
            heads=self.heads,
            task_names=self.dataset.task_names,
            hits=np.concatenate(hits, axis=1),
            weight=np.concatenate(weight),
            task=tasks,
            string=strings,
            copy_score=np.zeros(len(self.heads)),
            resamples=Resamples.of(strings, tasks, DRAWS, generator),
            exclude_self=self.exclude_self,
            wraps=self.dataset.wraps,
        )


def exchanged(
    first: Bool[np.ndarray, "head pair"],
    second: Bool[np.ndarray, "head pair"],
    string: Int[np.ndarray, " pair"],
    generator: np.random.Generator,
) -> tuple[Bool[np.ndarray, "head pair"], Bool[np.ndarray, "head pair"]]:
    """Two tables of passes with their labels exchanged at random, string by string: neither can be the better."""
    strings, place = np.unique(string, return_inverse=True)
    swap = (generator.random(len(strings)) < 0.5)[place]
    return np.where(swap, second, first), np.where(swap, first, second)
