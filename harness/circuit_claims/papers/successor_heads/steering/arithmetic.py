"""Vector arithmetic on what a head reads (Gould et al. 2024, section 4): SH-15, SH-16, SH-17.

    x = MLP_0(W_E(t)) + k (f_i - f_n)          n: index of t mod 10,  i: the residue wanted

and the head reads x: logits W_U W_OV x within t's task. A cell (t, i) succeeds when its winner is the successor of the
edited order, the one in t's decade that ends in i (the paper does not say which decade: numbers 20 to 29 stay there).
Cells whose edited order or successor the task does not have are left out. With i = n nothing is edited; the paper's
tables have these cells, so its rates are compared with all cells, and the rate without them stands beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuit_claims.api import bootstrap_counts, or_binomial, percentiles
from circuit_claims.models.architectures.layers import CircuitWeights, Layer, Mlp
from circuit_claims.papers.successor_heads.counting.features import one_head
from circuit_claims.papers.successor_heads.steering.tokens import Items

RESIDUES = 10
SCALES: tuple[float, ...] = tuple(round(0.1 * step, 1) for step in range(31))
NOBODY = -1
ROWS: dict[str, range] = {
    "numbers": range(20, 30),
    "number words": range(10, 21),
    "ordinal words": range(1, 11),
    "days": range(1, 8),
    "months": range(1, 13),
    "letters": range(1, 27),
    "digits": range(10),
}
"""Indices of the rows of each task's table: the paper's where it names them."""


@dataclass(frozen=True)
class HeadLogits:
    """What one head does with what it reads: logits W_U W_OV x, with the model's own norms and biases.

    The arithmetic of `heads.ov_circuit.effective_ov_logits`, for vectors that no token has. MLP_0 and the
    unembedding of each list of candidates are read (and checked against their sums) once, and kept with the readout.
    """

    weights: CircuitWeights
    layer: Layer
    _columns: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, weights: CircuitWeights, head: tuple[int, int]) -> HeadLogits:
        """The head (layer, head) of a model; its layer is read once and cut down to that head."""
        return cls(weights, one_head(weights.layer(head[0]), head[1]))

    def write(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """What the head adds to the residual stream where it reads `x` alone."""
        flat = x.reshape(-1, x.shape[-1])
        return self.layer.outputs(self.layer.values(self.layer.norm(flat)))[0].reshape(x.shape)

    def logits(self, x: Float[Tensor, "*batch d_model"], candidates: Sequence[int]) -> Float[Tensor, "*batch c"]:
        """Logits of the candidate ids."""
        return self.weights.final_norm(self.write(x)) @ self._unembed(tuple(candidates))

    def _unembed(self, candidates: tuple[int, ...]) -> Float[Tensor, "d_model c"]:
        if candidates not in self._columns:
            self._columns[candidates] = self.weights.unembed(torch.tensor(candidates, dtype=torch.long))
        return self._columns[candidates]

    @cached_property
    def _mlp0(self) -> Mlp:
        return self.weights.mlp(0)

    def read(self, tokens: Sequence[int]) -> Float[Tensor, "n d_model"]:
        """MLP_0(W_E(t)) of token ids: what the head reads in the paper."""
        return self._mlp0(self.weights.embed(torch.tensor(list(tokens), dtype=torch.long)))


def mlp0_of(weights: CircuitWeights, tokens: Sequence[int]) -> Float[Tensor, "n d_model"]:
    """MLP_0(W_E(t)) of token ids."""
    return weights.mlp0(weights.embed(torch.tensor(list(tokens), dtype=torch.long)))


def contrasts(
    vectors: Float[Tensor, "n d_model"], residues: Int[Tensor, " n"], directions: Float[Tensor, "residue d_model"]
) -> Float[Tensor, " residue"]:
    """How much further tokens of residue i lie along direction i than tokens of other residues do, on average.

    The length that an edit of scale 1 adds and takes away: the paper does not say how long its features are. Zero for
    a residue without a token.
    """
    along = vectors @ directions.T  # (n, residue)
    own = torch.nn.functional.one_hot(residues, len(directions)).to(along)  # (n, residue)
    inside = (along * own).sum(0) / own.sum(0).clamp_min(1)
    outside = (along * (1 - own)).sum(0) / (1 - own).sum(0).clamp_min(1)
    return torch.where(own.sum(0) > 0, inside - outside, torch.zeros_like(inside))


@dataclass(frozen=True)
class SteeringTable:
    """Who wins each cell of one task at each scale, as a place among the task's items; `NOBODY` where two tie.

    `expected` holds the successor of the edited order, `NOBODY` for a cell that has none; `rows` are places of the
    tokens edited, `own` their own residues.
    """

    items: Items
    scales: tuple[float, ...]
    rows: tuple[int, ...]
    own: tuple[int, ...]
    expected: Int[np.ndarray, "row residue"]
    winner: Int[np.ndarray, "scale row residue"]

    @cached_property
    def cells(self) -> Bool[np.ndarray, "row residue"]:
        """Which cells count."""
        return self.expected != NOBODY

    @cached_property
    def edited(self) -> Bool[np.ndarray, "row residue"]:
        """Cells that count and whose residue is not the token's own."""
        return self.cells & (np.arange(self.expected.shape[1]) != np.asarray(self.own)[:, None])

    @cached_property
    def success(self) -> Bool[np.ndarray, "scale row residue"]:
        """Cells that came out as expected."""
        return (self.winner == self.expected) & self.cells

    def at(self, scale: float) -> int:
        """The row of `success` for a scale; raises `ValueError` for one that was not swept."""
        if scale not in self.scales:
            raise ValueError(f"scale of an edit: expected one of {self.scales[0]} to {self.scales[-1]}, found {scale}")
        return self.scales.index(scale)

    def rates(self, *, edited_only: bool = False) -> Float[np.ndarray, " scale"]:
        """Share of cells that succeed, at each scale."""
        cells = self.edited if edited_only else self.cells
        return (self.success & cells).sum((1, 2)) / max(int(cells.sum()), 1)


def steering_table(
    readout: HeadLogits,
    items: Items,
    vectors: Float[Tensor, "residue d_model"],
    scales: Sequence[float] = SCALES,
) -> SteeringTable | None:
    """Edit every row's token towards every residue and ask the head.

    `vectors[i]` is f_i at the length that an edit of scale 1 has. None for a task without any cell.
    """
    rows, expected = layout(items)
    if not rows:
        return None
    own = [items.index[place] % RESIDUES for place in rows]
    start = readout.read([items.tokens[place] for place in rows])  # (row, d_model)
    step = vectors[None, :] - vectors[own][:, None]  # (row, residue, d_model)
    winners = []
    for scale in scales:
        logits = readout.logits(start[:, None] + scale * step, items.tokens)  # (row, residue, c)
        winners.append(strict_winner(logits))
    return SteeringTable(items, tuple(scales), rows, tuple(own), expected, np.stack(winners))


def layout(items: Items) -> tuple[tuple[int, ...], Int[np.ndarray, "row residue"]]:
    """The rows of a task's table that have a cell, and the place each cell should land on."""
    wanted = ROWS.get(items.task, range(1, len(items.tokens) + 1))
    rows = [place for place, index in enumerate(items.index) if index in wanted]
    orders = [[items.index[place] // RESIDUES * RESIDUES + residue for residue in range(RESIDUES)] for place in rows]
    places = [[items.successor_of(order) for order in row] for row in orders]
    cells = np.asarray([[NOBODY if place is None else place for place in row] for row in places], dtype=np.int64)
    kept = [number for number in range(len(rows)) if (cells[number] != NOBODY).any()]
    return tuple(rows[number] for number in kept), cells.reshape(len(rows), RESIDUES)[kept]


def strict_winner(logits: Float[Tensor, "*batch c"]) -> Int[np.ndarray, "*batch"]:
    """The place of the largest logit, `NOBODY` where two tie."""
    value, place = logits.topk(2, dim=-1)
    return torch.where(value[..., 0] > value[..., 1], place[..., 0], NOBODY).cpu().numpy()


def rate_draws(
    table: SteeringTable, generator: np.random.Generator, draws: int, *, edited_only: bool = False
) -> Float[np.ndarray, "draw scale"]:
    """Success rates at each scale in bootstrap draws that take rows and residues anew, each with replacement.

    Cells of a row share a token and cells of a column a feature: drawing cells one by one would pass both off as
    independent. A draw without any cell that counts takes the table's own rate.
    """
    cells = table.edited if edited_only else table.cells
    n_rows, n_residues = cells.shape
    rows = bootstrap_counts(n_rows, draws, generator).astype(float)  # (draw, row)
    columns = bootstrap_counts(n_residues, draws, generator).astype(float)
    total = np.einsum("br,rc,bc->b", rows, cells, columns, optimize=True)
    passed = np.einsum("br,krc,bc->bk", rows, table.success & cells, columns, optimize=True)
    own = table.rates(edited_only=edited_only)
    return np.where(total[:, None] > 0, passed / np.maximum(total, 1)[:, None], own)


def rate_interval(
    table: SteeringTable, scale: float, draws: Float[np.ndarray, "draw scale"], *, edited_only: bool = False
) -> tuple[float, float]:
    """90 % interval of a success rate: the wider of the bootstrap's and the exact binomial one over cells.

    A table in which all cells come out alike has a bootstrap of no width.
    """
    cells = table.edited if edited_only else table.cells
    at = table.at(scale)
    return or_binomial(percentiles(draws[:, at]), int((table.success[at] & cells).sum()), int(cells.sum()))


def best_scale(rates: Float[np.ndarray, "*draw scale"], scales: Sequence[float]) -> Float[np.ndarray, "*draw"]:
    """The scale with the highest rate; where several share it, the mean of those: the middle of a plateau.

    Zero where no scale does better than the smallest, no edit at all.
    """
    highest = rates >= rates.max(axis=-1, keepdims=True) - 1e-12
    middle = (highest * np.asarray(scales)).sum(-1) / highest.sum(-1)
    return np.where(highest[..., 0], 0.0, middle)


def rate_above(upper: Float[np.ndarray, " draw"], lower: Float[np.ndarray, " draw"]) -> float:
    """Share of draws in which the first rate is the higher one, ties counted half."""
    return float(np.mean((upper > lower) + 0.5 * (upper == lower)))
