"""Cases pooled over contexts, with intervals by bootstrap over documents: cases of one document are not independent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from harness.measurement import Interval


@dataclass(frozen=True)
class Pooled:
    """Ratios of sums over cases, one a column, and the same ratios in each resample of the documents.

    Draws of several columns come from the same resamples: differences and orders between columns are read off them.
    """

    values: Float[np.ndarray, " column"]
    draws: Float[np.ndarray, "draw column"]
    documents: int
    cases: Float[np.ndarray, " column"]

    def interval(self, column: int = 0, level: float = 0.90) -> Interval | None:
        """The percentile interval of one column; None where no case counts towards it, or documents are fewer than two.

        Resamples in which no case of the column occurs are left out.
        """
        return _interval(self.draws[:, column], self.documents, level)

    def difference(self, column: int, other: int, level: float = 0.90) -> tuple[float, Interval | None]:
        """One column less another, with the interval of the difference from the same resamples."""
        draws = self.draws[:, column] - self.draws[:, other]
        return float(self.values[column] - self.values[other]), _interval(draws, self.documents, level)

    def support(self) -> Float[np.ndarray, " column"]:
        """The share of resamples in which each column is the largest; ties are shared out, gaps count for none."""
        first = self.draws == self.draws.max(1, keepdims=True)
        return (first / np.maximum(first.sum(1, keepdims=True), 1)).sum(0) / len(self.draws)


def _interval(draws: Float[np.ndarray, " draw"], documents: int, level: float) -> Interval | None:
    sound = draws[np.isfinite(draws)]
    if documents < 2 or not len(sound):
        return None
    tail = (1 - level) / 2
    low, high = np.quantile(sound, [tail, 1 - tail])
    return Interval(float(low), float(high), level, f"bootstrap over {documents} documents, {len(sound):,} draws")


def pool(
    amounts: Float[np.ndarray, "case column"],
    counts: Shaped[np.ndarray, "case column"],
    documents: Int[np.ndarray, " case"],
    generator: np.random.Generator,
    draws: int = 2000,
) -> Pooled:
    """sum(amounts) / sum(counts) for each column, with documents drawn anew `draws` times.

    For the share of cases of each kind, `amounts` says (0 or 1) which kind a case is and `counts` is 1 throughout; for
    the mean loss change of two kinds, `counts` says which kind a case is and `amounts` is the change there and 0
    elsewhere; for a share of a total, `counts` is the total's amounts. Raises ValueError where shapes do not match.

    >>> kinds = np.array([[1, 0], [1, 0], [0, 1], [1, 0]])
    >>> shares = pool(kinds, np.ones((4, 2)), np.array([0, 0, 1, 1]), np.random.default_rng(0), draws=100)
    >>> shares.values.tolist()
    [0.75, 0.25]
    """
    amounts, counts = np.asarray(amounts, float), np.asarray(counts, float)
    if amounts.ndim != 2 or amounts.shape != counts.shape or len(documents) != len(amounts) or not len(amounts):
        raise ValueError(
            "pooled cases: expected amounts and counts of one shape, case x column, and a document for each case"
            f"\n  found {amounts.shape}, {counts.shape} and {np.shape(documents)}"
        )
    _, places = np.unique(documents, return_inverse=True)
    size = int(places.max()) + 1
    above, below = (_sums(table, places, size) for table in (amounts, counts))
    times = generator.multinomial(size, np.full(size, 1 / size), size=draws)  # (draw, document)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Pooled(above.sum(0) / below.sum(0), (times @ above) / (times @ below), size, below.sum(0))


def _sums(table: Float[np.ndarray, "case column"], places: Int[np.ndarray, " case"], size: int) -> np.ndarray:
    total = np.zeros((size, table.shape[1]))
    np.add.at(total, places, table)
    return total
