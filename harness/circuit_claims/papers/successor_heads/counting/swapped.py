"""Swapped pairs read off the stored table, as found and where the answer is known (SH-19, SH-20).

Indices shuffled within each domain: what a pair should decode as is another token of y's domain, the same one for all
pairs that asked for the first; what the maps and the head made of it stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from circuit_claims.api import (
    LEVEL,
    Interval,
    Measurement,
    bootstrap_counts,
    item_share_interval,
    or_binomial,
    percentiles,
)

QUICK = 400


@dataclass(frozen=True)
class SwappedPairs:
    """Swapped pairs as rows of `Domains`: index from `x`, domain from `y`, `z` the token that has both."""

    x: Int[np.ndarray, " pair"]
    y: Int[np.ndarray, " pair"]
    z: Int[np.ndarray, " pair"]

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: np.ndarray) -> SwappedPairs:
        """Some of the pairs."""
        return SwappedPairs(self.x[rows], self.y[rows], self.z[rows])


def pair_share(
    passed: Bool[np.ndarray, " pair"], pairs: SwappedPairs, generator: np.random.Generator, draws: int
) -> tuple[float, float, float]:
    """Share of pairs, with a 90 % interval: bootstrap over the tokens x and y at once, or the exact binomial over
    pairs where that is wider (pairs that share a token are not independent)."""
    if not len(passed):
        raise ValueError("share of decoded pairs: expected at least one pair, found none")
    x, y = (np.unique(side, return_inverse=True)[1] for side in (pairs.x, pairs.y))
    weight = _weights(generator, draws, x.max() + 1)[:, x] * _weights(generator, draws, y.max() + 1)[:, y]
    rates = weight @ passed / weight.sum(axis=1)
    few = min(weight_of.max() + 1 for weight_of in (x, y))
    return float(passed.mean()), *or_binomial(percentiles(rates, redrawn=int(few)), int(passed.sum()), len(passed))


def _weights(generator: np.random.Generator, draws: int, n: int) -> Float[np.ndarray, "draw token"]:
    """How often each draw takes each token; a hair more than never, so that no draw is empty."""
    return bootstrap_counts(n, draws, generator) + 1e-9


def passed(
    table: Measurement, group: str, space: str, shuffle: np.random.Generator | None = None
) -> Bool[np.ndarray, " pair"]:
    """Which pairs of a group ("held out", "roman") pass in a space ("decoded", "counted"); indices shuffled or not."""
    arrays = table.arrays
    if space == "counted":
        kept = arrays[f"{group}/wanted"] >= 0
        wanted, top = arrays[f"{group}/wanted"][kept], arrays[f"{group}/top"][kept]
        if shuffle is not None:
            wanted = _permuted(wanted, arrays["domain"][arrays[f"{group}/y"][kept]], shuffle)
        return top == wanted
    z = arrays[f"{group}/z"]
    if shuffle is not None:
        z = _permuted(z, arrays["domain"][z], shuffle, np.arange(len(arrays["domain"])), arrays["domain"])
    return arrays["tokens"][arrays[f"{group}/nearest"]] == arrays["tokens"][z]


def _permuted(
    wanted: np.ndarray,
    domain: np.ndarray,
    generator: np.random.Generator,
    every: np.ndarray | None = None,
    domain_of: np.ndarray | None = None,
) -> np.ndarray:
    """Wanted places (or rows) exchanged within each domain, alike for all pairs that want the same."""
    found = wanted.copy()
    for one in np.unique(domain):
        here = domain == one
        names = np.unique(wanted[here]) if every is None or domain_of is None else every[domain_of == one]
        found[here] = generator.permutation(names)[np.searchsorted(names, wanted[here])]
    return found


def share_of(
    table: Measurement, group: str, space: str, right: Bool[np.ndarray, " pair"], draws: int = QUICK
) -> Measurement:
    """The share of a group's pairs that pass, with its interval over the strings x and y."""
    arrays = table.arrays
    kept = arrays[f"{group}/wanted"] >= 0 if space == "counted" else np.ones(len(arrays[f"{group}/z"]), dtype=bool)
    pairs = SwappedPairs(*(arrays[f"{group}/{part}"][kept] for part in "xyz"))
    value, low, high = pair_share(right, pairs, np.random.default_rng(0), draws)
    method = "bootstrap over the strings of a pair, or exact binomial over pairs where wider"
    return table.derive(
        f"swapped pairs {space}, {group}",
        value,
        interval=Interval(low, high, LEVEL, method),
        unit="share of pairs",
        n=len(right),
        redrawn={"strings": min(len(np.unique(pairs.x)), len(np.unique(pairs.y)))},
    )


def numerals_of(table: Measurement, right: Bool[np.ndarray, " pair"], but: tuple[int, ...]) -> Measurement:
    """The share of numerals, but those of some indices, that most of their pairs decode."""
    index = table.arrays["index"][table.arrays["roman/x"]]
    asked = [number for number in np.unique(index) if number not in but]
    if not asked:
        raise ValueError("Roman numerals: expected some as single tokens, found none; choose another subject")
    most = sum(bool(right[index == number].mean() > 0.5) for number in asked)
    interval = item_share_interval(most, len(asked), exact=True)
    return table.derive("numerals decoded", most / len(asked), interval=interval, unit="share of numerals",
                        n=len(asked), redrawn={"strings": len(asked)})  # fmt: skip
