"""What a batch gives that no head of one layer changes, computed once a sequence and kept while memory lasts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuit_claims.llc.losses import DivergenceFrom, NextToken
from circuit_claims.toy.potentials.readout import FoldedReadout, LogSumExp

if TYPE_CHECKING:
    from circuit_claims.toy.model import AttentionOnly

BLOCK = 16


class RowTable:
    """Tensors computed on first use, in fixed blocks of rows; a table beyond `budget` bytes is computed anew each time.

    `compute(rows)` returns one row of results for each row asked for. All rows are kept or none. The blocks are fixed
    so that a row's bits do not depend on which rows were asked for before: a resumed sweep equals an unbroken one.
    """

    def __init__(self, compute: Callable[[Tensor], Tensor], num_rows: int, budget: int) -> None:
        self._compute, self._num_rows, self._budget = compute, num_rows, budget
        self._table: Tensor | None = None
        self._known = torch.zeros(-(-num_rows // BLOCK), dtype=torch.bool)
        self._lock = threading.RLock()
        self.kept: bool | None = None if budget > 0 else False

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return 0 if self._table is None else self._table.nbytes

    def fill(self, rows: Int[Tensor, " batch"]) -> None:
        """Compute the blocks of `rows` that are not known yet, if the table is one that is kept."""
        if self.kept is False:
            return
        blocks = (rows.cpu() // BLOCK).unique()
        if self.kept and bool(self._known[blocks].all()):
            return
        with self._lock:
            self._fill_blocks(blocks)

    def _fill_blocks(self, blocks: Tensor) -> None:
        for block in blocks[~self._known[blocks]].tolist():
            part = torch.arange(block * BLOCK, min((block + 1) * BLOCK, self._num_rows))
            found = self._compute(part)
            if self._table is None:
                self.kept = found[0].nbytes * self._num_rows <= self._budget
                if not self.kept:
                    return
                self._table = torch.empty(self._num_rows, *found.shape[1:], dtype=found.dtype, device=found.device)
            self._table[part[0] : part[-1] + 1] = found
            self._known[block] = True

    def rows(self, rows: Int[Tensor, " batch"]) -> Tensor:
        """The results of `rows`, stacked."""
        self.fill(rows)
        table = self._table
        return table[rows.to(table.device)] if self.kept and table is not None else self._compute(rows)

    def row(self, row: int) -> Tensor | None:
        """A view of one row that is known, None otherwise."""
        table = self._table
        return table[row] if self.kept and table is not None and self._known[row // BLOCK] else None


@dataclass(frozen=True)
class Targets:
    """Of some sequences: the linear part e . x + t of the loss."""

    directions: Float[Tensor, "batch pos d"]
    offsets: Float[Tensor, "batch pos"]


class AttentionPrefix:
    """The residual stream around one layer of an attention-only model at w*, for every sequence of `data`.

    Shared by all heads of the layer and all chains: `normed` is the layer's input after its LayerNorm, `after` the
    stream behind the layer, `directions` and `offsets` the linear part of the loss. `spare_bytes` of the cache are left
    for the tables of one head. Tables that do not fit are computed when asked for.
    """

    def __init__(
        self,
        model: AttentionOnly,
        data: Int[Tensor, "rows pos"],
        layer: int,
        loss: NextToken | DivergenceFrom,
        *,
        cache_bytes: int = 2 << 30,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model, self.data, self.layer, self.loss = model, data, layer, loss
        self.device = next(model.parameters()).device
        self.readout = FoldedReadout.of(model, dtype)
        self._exact = self.readout if dtype == torch.float32 else FoldedReadout.of(model)
        self.length = data.shape[1] - 1
        self.positions = model.positions(self.length).detach()
        self.is_last = layer == model.config.n_layers - 1
        self.num_rows = len(data)
        self.spare_bytes = cache_bytes - self.num_rows * 4 * self.length * (3 * model.config.d_model + 1)
        small = cache_bytes if self.spare_bytes >= 0 else 0
        self.normed = RowTable(self._normed, self.num_rows, small)
        self.after = RowTable(self._after, self.num_rows, small)
        self.directions = RowTable(lambda rows: self._linear(rows)[0], self.num_rows, small)
        self.offsets = RowTable(lambda rows: self._linear(rows)[1], self.num_rows, small)
        self.start_losses = RowTable(self._start_losses, self.num_rows, 1 << 40)

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return sum(t.nbytes for t in (self.normed, self.after, self.directions, self.offsets, self.start_losses))

    def tokens(self, rows: Int[Tensor, " batch"]) -> Int[Tensor, "batch pos"]:
        """The sequences of `rows`."""
        return self.data[rows.to(self.data.device)].to(self.device)

    def targets(self, rows: Int[Tensor, " batch"]) -> Targets:
        """Linear part of the loss of the sequences of `rows`."""
        if self.directions.kept is False:
            return Targets(*self._linear(rows))
        return Targets(self.directions.rows(rows), self.offsets.rows(rows))

    def _before(self, rows: Tensor) -> Tensor:
        resid = self.model.embed["W_E"][self.tokens(rows)[:, :-1]]
        for block in self.model.blocks[: self.layer]:
            resid = block(resid, self.positions)
        return resid

    @torch.no_grad()
    def _normed(self, rows: Tensor) -> Tensor:
        return self.model.blocks[self.layer].ln1(self._before(rows))

    @torch.no_grad()
    def _after(self, rows: Tensor) -> Tensor:
        return self.model.blocks[self.layer](self._before(rows), self.positions)

    @torch.no_grad()
    def _final(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        resid = self.after.rows(rows)
        for block in self.model.blocks[self.layer + 1 :]:
            resid = block(resid, self.positions)
        return self.readout.normalise(resid)

    @torch.no_grad()
    def _linear(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss.linear_part(self.tokens(rows), self._exact.weight, self._exact.bias)

    @torch.no_grad()
    def _start_losses(self, rows: Tensor) -> Tensor:
        targets = self.targets(rows)
        centred, inverse = self._final(rows)
        x = centred * inverse
        lse = LogSumExp.apply(x.flatten(0, 1), self.readout).view_as(targets.offsets)
        return (lse - (x * targets.directions).sum(-1) - targets.offsets).double().mean(1)
