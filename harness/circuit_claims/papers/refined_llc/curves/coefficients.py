"""Refined coefficients over training: what is sampled on which text, resumably.

Weight-refined (wrLLC): one head, on the training mixture. Weight- and data-refined (wdrLLC): one head, on other data.
Data-refined (drLLC): all weights, on other data. Settings are the paper's (eps 1e-3, n beta 30, gamma 200, 4 chains of
200 draws, no burn-in), except that a batch is 8 rows of 128 tokens where the paper has 32 of 1,024: for two cores.
"""

from __future__ import annotations

import gc
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from circuit_claims.api import Measurement
from circuit_claims.keeping.store import key_of
from circuit_claims.llc.losses import Loss, loss_of_knowing_nothing
from circuit_claims.llc.module_potential import held_still
from circuit_claims.llc.refined import CachedPotential, Speed, make_potential
from circuit_claims.llc.sample import estimate
from circuit_claims.llc.sgld import Potential, SGLDSettings, generator, rows_of
from circuit_claims.llc.slices import digest, weight_slice
from circuit_claims.papers.refined_llc.curves.cells import Cell, CellKey, cell_of
from circuit_claims.toy.model import AttentionOnly

PAPER = SGLDSettings(n_beta=30.0, gamma=200.0, eps=1e-3, batch_size=8)
LENGTH, ROWS, PROBES, NOISE_DRAWS = 129, 512, 8, 8
SPEED_ALONE = ("chains_per_call", "threads", "max_seconds")
NOISE = 2**20 + 7  # a stream of batches that no chain and no other control draws from


@dataclass(frozen=True)
class Part:
    """A part of a sweep: every checkpoint by every slice of weights by every text under one loss and setting."""

    checkpoints: Sequence[str]
    weights: Sequence[str]
    texts: Sequence[str]
    loss: str = "next token"
    setting: str = "paper"

    def cells(self) -> list[CellKey]:
        """Its cells, in an order in which those that share a cache of the engine follow each other."""
        return [
            CellKey(checkpoint, weights, text, self.loss, self.setting)
            for checkpoint in self.checkpoints
            for text in self.texts
            for weights in sorted(self.weights)
        ]


@dataclass(frozen=True)
class Ingredients:
    """What the names in cell keys stand for. `models` may be slow: each checkpoint is asked for once in a row.

    `readout` is the dtype of a head's products with the vocabulary; slices that are no head are read in fp32.
    """

    models: Callable[[str], AttentionOnly]
    texts: Mapping[str, Int[Tensor, "row pos"]]
    losses: Mapping[str, Loss]
    settings: Mapping[str, SGLDSettings]
    device: str = "cpu"
    cache_bytes: int = 2 << 30
    readout: torch.dtype = torch.float32


@dataclass(frozen=True)
class Step:
    """Progress: cells done of all, the one just finished, whether it was measured now, seconds left at this pace."""

    done: int
    total: int
    key: CellKey
    fresh: bool
    seconds_left: float


class KeptCells(Protocol):
    """Where finished estimates are kept while a sweep runs; `circuit_claims.keeping.store.Store` is one."""

    def load(self, key: str) -> Measurement | None: ...

    def save(self, key: str, measurement: Measurement) -> None: ...


def measure_cells(
    keys: Sequence[CellKey],
    given: Ingredients,
    kept: KeptCells | None = None,
    progress: Callable[[Step], None] | None = None,
) -> Iterator[Cell]:
    """Each cell, from `kept` where it is there, measured and kept where it is not: a killed sweep loses one cell.

    Cells are kept under the digests of weights, rows and reference and the settings, not under the engine's source:
    what guards recorded cells against a changed engine is that every run compares some with live ones.
    """
    done, fresh, spent = 0, 0, 0.0
    for checkpoint, some in groupby(keys, key=lambda key: key.checkpoint):
        bench = _Bench(given.models(checkpoint).to(given.device), given)
        with held_still(bench.model):
            for key in some:
                name = key_of(bench.identity(key))
                stored = kept.load(name) if kept is not None else None
                cell = bench.measure(key) if stored is None else _unpack(key, stored)
                if stored is None:
                    gc.collect()  # a potential and its tables hold each other: gigabytes, if left to chance
                    fresh, spent = fresh + 1, spent + cell.numbers["seconds"]
                    if kept is not None:
                        kept.save(name, _pack(cell))
                done += 1
                if progress is not None:
                    left = (len(keys) - done) * spent / fresh if fresh else 0.0
                    progress(Step(done, len(keys), key, stored is None, left))
                yield cell


def rows_digest(rows: Int[Tensor, "row pos"]) -> str:
    """sha256 over the shape and the ids of token rows."""
    ids = np.ascontiguousarray(rows.cpu().numpy(), dtype="<i8")
    return hashlib.sha256(f"{ids.shape}".encode() + ids.tobytes()).hexdigest()


class _Bench:
    """One checkpoint, the engine's cache of the last (text, loss, layer), which all heads of that layer share."""

    def __init__(self, model: AttentionOnly, given: Ingredients) -> None:
        self.model, self.given, self._weights = model, given, digest(model)
        self._rows: dict[str, Tensor] = {}
        self._place: tuple[str, ...] = ()
        self._speed: Speed | None = None

    def rows(self, text: str) -> Tensor:
        """The rows of a text on the device: one tensor, since the engine's cache goes by identity."""
        if text not in self._rows:
            self._rows[text] = self.given.texts[text].to(self.given.device)
        return self._rows[text]

    def identity(self, key: CellKey) -> dict[str, Any]:
        """What decides a cell: what it is kept under."""
        loss = self.given.losses[key.loss]
        reference = getattr(loss, "reference", None)
        settings = asdict(self.given.settings[key.setting])
        kind = str(self.given.readout).removeprefix("torch.")
        return {
            "measure": "recorded cell",
            "weights": self._weights,
            "slice": key.weights,
            "rows": rows_digest(self.given.texts[key.text]),
            "loss": [key.loss, None if reference is None else digest(reference)],
            "settings": {name: value for name, value in settings.items() if name not in SPEED_ALONE},
            "probes": [PROBES, NOISE_DRAWS],
            **({} if self.given.readout == torch.float32 or ":" not in key.weights else {"readout": kind}),
        }

    def potential(self, key: CellKey) -> Potential:
        """The loss as a function of the sampled weights."""
        place = (key.text, key.loss, key.weights.partition(":")[0])
        if place != self._place:
            self._place, self._speed = place, None
        speed = self._speed or Speed(cache_bytes=self.given.cache_bytes, readout_dtype=self.given.readout)
        where, loss = weight_slice(self.model, key.weights), self.given.losses[key.loss]
        made = make_potential(self.model, self.rows(key.text), where, loss, speed)
        if isinstance(made, CachedPotential) and self._speed is None:
            self._speed = replace(speed, prefix=made.prefix)
        return made

    def measure(self, key: CellKey) -> Cell:
        """The cell of `key`, its controls with it."""
        settings, loss = self.given.settings[key.setting], self.given.losses[key.loss]
        on_cpu = self.given.device == "cpu"
        threads = torch.get_num_threads() if on_cpu else 1
        side_by_side = replace(settings, chains_per_call=1 if on_cpu else None, threads=threads)
        potential = self.potential(key)
        ceiling = loss_of_knowing_nothing(loss, self.model, self.rows(key.text))
        found = estimate(potential, side_by_side, ceiling=ceiling, trace_probes=PROBES)
        return cell_of(key, found, noise_llc(potential, settings, found.mean_displacement), settings.seed)


def noise_llc(potential: Potential, settings: SGLDSettings, displacement: float, draws: int = NOISE_DRAWS) -> float:
    """n beta times the mean excess loss of w* plus isotropic noise as long as the chains' mean |w - w*|: a control.

    Equal to the coefficient only where SGLD found no better directions than chance does. NaN without a displacement.
    """
    if not math.isfinite(displacement):
        return math.nan
    start = potential.start()
    source = generator(settings.seed, 0, NOISE, start.device)
    batches = rows_of(settings.seed, [NOISE], potential.num_rows, settings.batch_size or potential.num_rows)
    excess = []
    for _ in range(draws):
        noise = torch.randn(start.shape, generator=source, dtype=start.dtype, device=start.device)
        rows = next(batches)
        moved = start + displacement * noise / noise.norm()
        excess.append(float(potential.value(moved[None], rows)[0] - potential.value_at_start(1, rows)[0]))
    return settings.n_beta * float(np.mean(excess))


def _pack(cell: Cell) -> Measurement:
    return Measurement(
        "recorded cell",
        value=cell.mean if math.isfinite(cell.mean) else None,
        seed=cell.seed,
        status="complete" if cell.status == "complete" else "diverged" if cell.status == "diverged" else "partial",
        arrays={
            "per_chain": cell.per_chain,
            "trace": cell.trace,
            **{name: np.array([value]) for name, value in cell.numbers.items()},
        },
        facts={"gate": cell.status},
    )


def _unpack(key: CellKey, stored: Measurement) -> Cell:
    arrays = stored.arrays
    numbers = {name: float(array[0]) for name, array in arrays.items() if name not in ("per_chain", "trace")}
    return Cell(key, numbers, arrays["per_chain"], arrays["trace"], stored.facts["gate"], stored.seed or 0)
