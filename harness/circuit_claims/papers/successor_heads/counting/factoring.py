"""Index and domain as two linear parts of what a head reads (Gould et al. 2024, section 3): SH-19, SH-20.

    MLP_0(W_E(z)) ~ N MLP_0(W_E(x)) + D MLP_0(W_E(y))       z: the token with x's index in y's domain

N (index map) and D (domain map) are learned on swapped pairs (x, y) of two domains and tried on pairs left out, and on
Roman numerals x, of which the maps have seen none. How the paper learns its maps and decodes is not known here: these
are the ridge solution, the ridge the one that does best on tokens x left out. In *output space* a sum is decoded as the
token of the dataset whose MLP_0(W_E) is nearest, in *successor space* as the head's top token within y's domain, which
must be z's successor.

Left-out pairs are a weak test, the paper's own: each z is the target of other pairs that were learned from, so that
maps wide enough can know it by heart. Numerals are not: the control with shuffled indices tells the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuit_claims.api import Measurement
from circuit_claims.papers.successor_heads.counting.swapped import SwappedPairs, pair_share
from circuit_claims.papers.successor_heads.steering.arithmetic import HeadLogits, strict_winner
from circuit_claims.papers.successor_heads.steering.tokens import Items

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
TUNED_ON = 0.2
ROMAN = "roman numerals"


@dataclass(frozen=True)
class Domains:
    """All tokens of all domains, one row each: its vector, its domain and its index in it.

    `items[domain]` are a domain's strings. Vectors are given in an orthonormal `basis` of what they span, in which the
    maps are learned too: ridge solution and distances are the same there, and it is several times narrower.
    """

    items: tuple[Items, ...]
    basis: Float[Tensor, "d_model rank"]
    vectors: Float[Tensor, "token rank"]
    domain: Int[np.ndarray, " token"]
    index: Int[np.ndarray, " token"]

    @classmethod
    def of(cls, items: Sequence[Items], vectors: Float[Tensor, "token d_model"]) -> Domains:
        """`vectors` are MLP_0(W_E) of the items' tokens, one domain after another."""
        domain = np.repeat(np.arange(len(items)), [len(one.tokens) for one in items])
        basis = torch.linalg.qr(vectors.T).Q  # (d_model, rank)
        return cls(tuple(items), basis, vectors @ basis, domain, np.concatenate([one.index for one in items]))

    def with_shuffled_index(self, generator: np.random.Generator) -> Domains:
        """The same tokens with the indices of each domain handed out anew: nothing two domains share is left."""
        index = self.index.copy()
        for number in range(len(self.items)):
            index[self.domain == number] = generator.permutation(index[self.domain == number])
        return replace(self, index=index)

    @property
    def tokens(self) -> Int[np.ndarray, " token"]:
        """Vocabulary ids; a string of two tasks, such as "May", has one id in two rows."""
        return np.concatenate([one.tokens for one in self.items])

    def rows_of(self, domain: int) -> Int[np.ndarray, " token"]:
        """Rows of one domain."""
        return np.flatnonzero(self.domain == domain)


def swapped_pairs(
    domains: Domains, generator: np.random.Generator, most: int, *, x_from: Sequence[int], y_from: Sequence[int]
) -> SwappedPairs:
    """Random pairs of tokens of two domains, x from one of `x_from` and y from one of `y_from`, in random order.

    Every pair of domains has the same chance, so that the numbers do not drown the rest; no pair occurs twice.
    """
    where = {(int(d), int(i)): row for row, (d, i) in enumerate(zip(domains.domain, domains.index, strict=True))}
    sides = [(a, b) for a in x_from for b in y_from if a != b]
    found: dict[tuple[int, int], int] = {}
    for a, b in sides:
        rows = [row for row in domains.rows_of(a) if (b, int(domains.index[row])) in where]
        if rows:
            x = generator.choice(rows, -(-most // len(sides)))
            y = generator.choice(domains.rows_of(b), len(x))
            found |= {(int(p), int(q)): where[b, int(domains.index[p])] for p, q in zip(x, y, strict=True)}
    keys = np.asarray(list(found), dtype=np.int64).reshape(-1, 2)
    order = generator.permutation(len(keys))[:most]
    return SwappedPairs(keys[order, 0], keys[order, 1], np.asarray(list(found.values()), dtype=np.int64)[order])


@dataclass(frozen=True)
class Maps:
    """The learned index map and domain map, and what is added to their sum; in the basis of the domains."""

    index: Float[Tensor, "rank rank"]
    domain: Float[Tensor, "rank rank"]
    shift: Float[Tensor, " rank"]
    ridge: float

    def __call__(self, x: Float[Tensor, "pair rank"], y: Float[Tensor, "pair rank"]) -> Float[Tensor, "pair rank"]:
        """The vector that should stand for x's index in y's domain."""
        return x @ self.index.T + y @ self.domain.T + self.shift

    def domain_only(self) -> Maps:
        """Without the index map: a control."""
        return replace(self, index=torch.zeros_like(self.index))


def learn_maps(domains: Domains, pairs: SwappedPairs, generator: np.random.Generator) -> Maps:
    """The two maps by ridge regression on `pairs`.

    The ridge is the one that decodes most pairs whose x is among a fifth of the tokens left aside for it: pairs of
    tokens that were learned from would always ask for the smallest. Raises `ValueError` for fewer than ten pairs.
    """
    if len(pairs) < 10:
        raise ValueError(f"index and domain maps: expected ten swapped pairs or more, found {len(pairs)}")
    aside = generator.random(len(domains.index)) < TUNED_ON
    tuning, learning = (pairs.take(np.flatnonzero(part)) for part in (aside[pairs.x], ~aside[pairs.x]))
    if min(len(tuning), len(learning)) < 1:
        return next(iter(_solve(domains, pairs, RIDGES[:1])))
    shares = [float(decoded(domains, maps, tuning).mean()) for maps in _solve(domains, learning, RIDGES)]
    # Of equals the largest: it bends least to single tokens.
    best = max(range(len(RIDGES)), key=lambda place: (shares[place], place))
    return next(iter(_solve(domains, pairs, RIDGES[best : best + 1])))


def _solve(domains: Domains, pairs: SwappedPairs, ridges: Sequence[float]) -> list[Maps]:
    """Solved through the pairs' Gram matrix or the normal equations, whichever is smaller."""
    x = torch.cat([domains.vectors[pairs.x], domains.vectors[pairs.y]], dim=1)  # (pair, 2 rank)
    target = domains.vectors[pairs.z]
    # Of the pairs, not of the tokens: an offset left over would have to be made up by the maps.
    x_mean, target_mean = x.mean(0), target.mean(0)
    x, target = x - x_mean, target - target_mean
    dual = x.shape[0] < x.shape[1]
    gram = (x @ x.T if dual else x.T @ x).double()
    size = float(gram.diagonal().mean())
    found = []
    for ridge in ridges:
        penalised = gram + ridge * size * torch.eye(len(gram), dtype=torch.float64)
        right = target.double() if dual else (x.T @ target).double()
        solved = torch.linalg.solve(penalised, right).float()
        both = (x.T @ solved if dual else solved).T  # (rank, 2 rank)
        index, domain = both.chunk(2, dim=1)
        found.append(Maps(index, domain, target_mean - both @ x_mean, ridge))
    return found


def decoded(domains: Domains, maps: Maps, pairs: SwappedPairs) -> Bool[np.ndarray, " pair"]:
    """Output space: whether the token nearest to the sum, of all tokens of all domains, is z."""
    return domains.tokens[nearest_rows(domains, maps, pairs)] == domains.tokens[pairs.z]


def nearest_rows(domains: Domains, maps: Maps, pairs: SwappedPairs) -> Int[np.ndarray, " pair"]:
    """The row of the token nearest to each sum."""
    if not len(pairs):
        return np.zeros(0, dtype=np.int64)
    made = maps(domains.vectors[pairs.x], domains.vectors[pairs.y])
    return torch.cdist(made, domains.vectors).argmin(1).numpy()


def counted_on(
    domains: Domains, maps: Maps | None, pairs: SwappedPairs, readout: HeadLogits
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Successor space: the head's top token within y's domain and z's successor, as places in it; -2 and -1 for none.

    `maps` None reads z itself: what the head makes of the true vector, the best that maps can come to.
    """
    top, wanted = np.full(len(pairs), -2), np.full(len(pairs), -1)
    for number, items in enumerate(domains.items):
        rows = np.flatnonzero(domains.domain[pairs.y] == number)
        if not len(rows):
            continue
        here = pairs.take(rows)
        vectors = domains.vectors
        made = vectors[here.z] if maps is None else maps(vectors[here.x], vectors[here.y])
        target = np.asarray([_or_nobody(items.successor_of(int(domains.index[z]))) for z in here.z])
        winner = strict_winner(readout.logits(made @ domains.basis.T, items.tokens))
        top[rows], wanted[rows] = np.where(winner < 0, -2, winner), target
    return top, wanted


def _or_nobody(place: int | None) -> int:
    return -1 if place is None else place


@dataclass(frozen=True)
class _Tried:
    """Maps tried on pairs: which decode in output space, which are counted on, and what the true vector gives there."""

    pairs: SwappedPairs
    decoded: Bool[np.ndarray, " pair"]
    counted: Bool[np.ndarray, " pair"]
    true: Bool[np.ndarray, " pair"]
    asked: Bool[np.ndarray, " pair"]
    nearest: Int[np.ndarray, " pair"]
    top: Int[np.ndarray, " pair"]
    wanted: Int[np.ndarray, " pair"]

    @classmethod
    def of(cls, domains: Domains, maps: Maps, pairs: SwappedPairs, readout: HeadLogits) -> _Tried:
        top, wanted = counted_on(domains, maps, pairs, readout)
        of_true, _ = counted_on(domains, None, pairs, readout)
        nearest = nearest_rows(domains, maps, pairs)
        found = domains.tokens[nearest] == domains.tokens[pairs.z]
        return cls(pairs, found, top == wanted, of_true == wanted, wanted >= 0, nearest, top, wanted)

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """What `counting.swapped` reads: rows of the pairs, what was found for each and what was wanted."""
        parts = {"x": self.pairs.x, "y": self.pairs.y, "z": self.pairs.z}
        parts |= {"nearest": self.nearest, "top": self.top, "wanted": self.wanted}
        return {f"{name}/{part}": values for part, values in parts.items()}

    def share(self, which: str, generator: np.random.Generator, draws: int) -> dict[str, float | int]:
        """The share of one column as facts: value, low, high, n."""
        kept = np.ones(len(self.pairs), dtype=bool) if which == "decoded" else self.asked
        value, low, high = pair_share(
            getattr(self, which)[kept], self.pairs.take(np.flatnonzero(kept)), generator, draws
        )
        return {"value": value, "low": low, "high": high, "n": int(kept.sum())}


def measured(domains: Domains, readout: HeadLogits, *, pairs: int, draws: int, shuffled: bool = False) -> Measurement:
    """Learn the maps on four fifths of `pairs` swapped pairs and try them on the rest and on Roman numerals x.

    Facts: `held out` and `roman`, each with shares `decoded` (output space), `counted` and `true` (successor space, by
    the maps and by z's own vector), `domain only` (without the index map), and `numerals` (for each index the share of
    its pairs that decode). `shuffled` hands out the indices of the learned domains anew. Raises `ValueError` where the
    vocabulary has fewer than ten swapped pairs.
    """
    generator = np.random.default_rng(0)
    roman = [number for number, one in enumerate(domains.items) if one.task == ROMAN]
    learned = [number for number in range(len(domains.items)) if number not in roman]
    taught = domains.with_shuffled_index(generator) if shuffled else domains
    every = swapped_pairs(taught, generator, pairs, x_from=learned, y_from=learned)
    left_out = every.take(np.arange(len(every) // 5))
    maps = learn_maps(taught, every.take(np.arange(len(every) // 5, len(every))), generator)
    tried = _Tried.of(taught, maps, left_out, readout)
    bare = _Tried.of(taught, maps.domain_only(), left_out, readout)
    facts: dict[str, Any] = {"pairs": len(every), "ridge": maps.ridge, "domains": [one.task for one in domains.items]}
    columns = ("decoded", "counted", "true")
    facts["held out"] = {which: tried.share(which, generator, draws) for which in columns}
    facts["domain only"] = {which: bare.share(which, generator, draws) for which in columns[:2]}
    arrays = {"tokens": domains.tokens, "domain": domains.domain, "index": domains.index, **tried.arrays("held out")}
    numerals = swapped_pairs(domains, generator, pairs, x_from=roman, y_from=learned)
    if len(numerals):
        asked = _Tried.of(domains, maps, numerals, readout)
        facts["roman"] = {which: asked.share(which, generator, draws) for which in columns}
        arrays |= asked.arrays("roman")
        facts["numerals"] = _by_index(domains.index[numerals.x], asked.decoded)
    return Measurement("swapped pairs decoded", None, n=len(every), seed=0, arrays=arrays, facts=facts)


def _by_index(index: Int[np.ndarray, " pair"], passed: Bool[np.ndarray, " pair"]) -> list[list[float]]:
    return [[int(number), float(passed[index == number].mean())] for number in np.unique(index)]
