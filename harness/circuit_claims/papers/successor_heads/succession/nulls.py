"""What scores look like by chance: the successor map shuffled within each task, and the best head under it.

The paper takes the best of hundreds of heads and gives no null. Here the strings of each task are put in a random
order, the same for all forms of a string, and every head is scored against "the next string in that order". A head
passes a shuffled pair exactly when its winner is the shuffled successor, so the winners found once serve all shuffles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from circuit_claims.api import permutation_p_value
from circuit_claims.papers.successor_heads.dataset import Strand, SuccessionDataset
from circuit_claims.papers.successor_heads.succession.score import Metric, Winners, usable_pairs

BAND_LEVEL = 0.95
LARGEST_TABLE = 64


@dataclass(frozen=True)
class NullOfBestHead:
    """Scores under shuffled successor maps. Shares in [0, 1].

    `score` and `macro_score` have shape (shuffle, head); `observed` holds the largest true score of each metric.
    The null of the maximum is the row-wise maximum: the best head of each shuffle.
    """

    score: Float[np.ndarray, "shuffle head"]
    macro_score: Float[np.ndarray, "shuffle head"]
    observed: dict[Metric, float]

    @property
    def shuffles(self) -> int:
        """How many shuffled maps were scored."""
        return len(self.score)

    def maxima(self, metric: Metric = "macro_score") -> Float[np.ndarray, " shuffle"]:
        """The best head's score in each shuffle."""
        return {"score": self.score, "macro_score": self.macro_score}[metric].max(axis=1)

    def p_value(self, metric: Metric = "macro_score", observed: float | None = None) -> float:
        """Chance of a best head this good under the null: (1 + shuffles at or above) / (1 + shuffles).

        `observed` is the score to be compared, by default the largest true score. Never 0, so never overstated.
        """
        value = self.observed[metric] if observed is None else observed
        # Scores are ratios of small integers summed in different orders; a hair keeps equal ones equal.
        return permutation_p_value(value, self.maxima(metric), slack=1e-9)

    def band(self, metric: Metric = "macro_score", level: float = BAND_LEVEL) -> tuple[float, float]:
        """Central `level` range of the best head's score under the null."""
        low, high = np.quantile(self.maxima(metric), [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def shuffled_null(
    winners: Winners,
    dataset: SuccessionDataset,
    *,
    generator: np.random.Generator,
    shuffles: int = 1000,
    exclude_self: bool = False,
) -> NullOfBestHead:
    """Scores of all heads against `shuffles` random orders of each task's strings.

    Every strand keeps its number of pairs and their pattern (chain, gap, cycle); only which string stands where is
    drawn. Exact under the hypothesis that a head treats the strings of a task alike, whatever it does to the forms of
    one string. Raises ValueError where the dataset has no usable pair.
    """
    usable_pairs(dataset, exclude_self)  # refuses a dataset without any
    rivals = np.asarray([len(group.candidates) - 2 + (not exclude_self) for group in dataset.groups])
    orders = random_orders(dataset, shuffles, generator)
    heads, tasks = len(winners.heads), len(dataset.tasks)
    # Counts, which fp32 holds exactly up to 16 million.
    passed, total = np.zeros((tasks, shuffles + 1, heads), dtype=np.float32), np.zeros(tasks)
    for strand, maps in zip(dataset.strands, orders, strict=True):
        if rivals[strand.group] >= 1 and strand.links:
            start, size = int(dataset.group_starts[strand.group]), len(dataset.groups[strand.group].candidates)
            local = winners.of(exclude_self)[:, start : start + size]
            passed[strand.task] += strand.weight * _hits(local, strand, maps, size)
            total[strand.task] += strand.weight * len(strand.links)
    score = passed.sum(axis=0) / total.sum()
    macro = (passed[total > 0] / total[total > 0, None, None]).mean(axis=0)
    observed: dict[Metric, float] = {"score": float(score[0].max()), "macro_score": float(macro[0].max())}
    return NullOfBestHead(score[1:], macro[1:], observed)


def random_orders(
    dataset: SuccessionDataset, shuffles: int, generator: np.random.Generator
) -> Iterator[Int[np.ndarray, "map string"]]:
    """For each strand, its strings in their true order (row 0) and in `shuffles` random ones."""
    keys = [generator.random((shuffles, len(task.items))) for task in dataset.tasks]
    for strand in dataset.strands:
        shuffled = np.argsort(keys[strand.task][:, list(strand.orders)], axis=1)
        yield np.concatenate([np.arange(len(strand.orders))[None], shuffled])


def _hits(
    winner: Int[np.ndarray, "head column"], strand: Strand, maps: Int[np.ndarray, "map string"], size: int
) -> Float[np.ndarray, "map head"]:
    """How many of a strand's pairs each head gets under each map.

    Heads and maps both name one target for a column. In small sets every (column, target) has a row of all heads, and
    the rows a map names are added up; in large ones few heads agree with a map, and a sparse product counts those.
    """
    places = np.asarray(strand.places)[maps]  # (map, string)
    first, second = np.asarray(strand.links).T
    cells = places[:, first] * size + places[:, second]  # (map, link)
    won = winner >= 0
    if size <= LARGEST_TABLE:
        table = np.zeros((size * size, len(winner)), dtype=np.float32)
        head, column = np.nonzero(won)
        table[column * size + winner[head, column], head] = 1.0
        return torch.nn.functional.embedding_bag(torch.from_numpy(cells), torch.from_numpy(table), mode="sum").numpy()
    chosen = np.arange(winner.shape[1]) * size + winner.astype(np.int64)  # (head, column)
    return (_incidence(cells, np.ones_like(cells, dtype=bool), size) @ _incidence(chosen, won, size).T).toarray()


def _incidence(cells: Int[np.ndarray, "row k"], kept: np.ndarray, size: int) -> csr_array:
    """Sparse 0/1 matrix (row, size * size) with a one at every kept cell."""
    ends = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    return csr_array((np.ones(int(ends[-1]), dtype=np.float32), cells[kept], ends), shape=(len(cells), size * size))
