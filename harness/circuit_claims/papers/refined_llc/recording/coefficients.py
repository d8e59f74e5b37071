"""Refined coefficients over training: what is sampled on which text, resumably.

Weight-refined (wrLLC): one head, on the training mixture. Weight- and data-refined (wdrLLC): one head, on other data.
Data-refined (drLLC): all weights, on other data. Settings are the paper's (eps 1e-3, n beta 30, gamma 200, 4 chains of
200 draws, no burn-in), except that a batch is 8 rows of 128 tokens where the paper has 32 of 1,024: for two cores.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from circuit_claims.api import CellPlan, CellStore, Measurement, MemoryStore, Meter, Progress, closure, fill_all
from circuit_claims.llc.losses import Loss
from circuit_claims.llc.module_potential import held_still
from circuit_claims.llc.refined import Speed
from circuit_claims.llc.sgld import Potential, SGLDSettings, generator, rows_of
from circuit_claims.llc.slices import weight_slice
from circuit_claims.llc.sweep import Bench, Estimand, assemble
from circuit_claims.papers.refined_llc.recording.cells import Cell, CellKey, cell_of
from circuit_claims.toy.model import AttentionOnly

PAPER = SGLDSettings(n_beta=30.0, gamma=200.0, eps=1e-3, batch_size=8)
LENGTH, ROWS, PROBES, NOISE_DRAWS = 129, 512, 8, 8
NOISE = 2**20 + 7  # a stream of batches that no chain and no other control draws from


@dataclass(frozen=True)
class SweepPart:
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

    def estimands(self, model: AttentionOnly, keys: Sequence[CellKey]) -> dict[CellKey, Estimand]:
        """What the engine is to estimate of one checkpoint; on the CPU chains run side by side, each on its thread."""
        rows = {name: self.texts[name].to(self.device) for name in {key.text for key in keys}}
        on_cpu = self.device == "cpu"
        return {
            key: Estimand(
                data=rows[key.text],
                where=weight_slice(model, key.weights),
                loss=self.losses[key.loss],
                settings=replace(
                    self.settings[key.setting],
                    chains_per_call=1 if on_cpu else None,
                    threads=torch.get_num_threads() if on_cpu else 1,
                ),
                speed=Speed(
                    cache_bytes=self.cache_bytes,
                    readout_dtype=self.readout if ":" in key.weights else torch.float32,
                ),
                probes=PROBES,
            )
            for key in keys
        }


def measure_cells(
    keys: Sequence[CellKey],
    given: Ingredients,
    kept: CellStore | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[Cell]:
    """Each cell, from `kept` where its chains are there, measured and kept where they are not.

    A killed sweep loses what was running, one cell at most. Progress counts cells; how they are kept, by the chain and
    under what decides it, is `circuit_claims.llc.sweep`'s.
    """
    store, tally = MemoryStore() if kept is None else kept, Meter("cells", len(keys), progress)
    for checkpoint, some in groupby(keys, key=lambda key: key.checkpoint):
        model = given.models(checkpoint).to(given.device)
        with held_still(model):
            bench = Bench(model, given.estimands(model, list(some)))
            tally.begin()
            for key in bench.estimands:
                cell, stored = _cell(bench, key, store)
                tally.tick(key, stored=stored)
                yield cell
            bench.release()


def _cell(bench: Bench, key: CellKey, store: CellStore) -> tuple[Cell, bool]:
    """A cell with its controls, and whether all of it was in the store."""
    each, fresh = bench.estimands[key], list[bool]()

    def note(one: Progress) -> None:
        fresh.append(not one.stored)

    chains = fill_all(bench.plan(key), store, progress=note)
    found = assemble(list(chains.values()), each.settings)
    noise = fill_all(_noise_plan(bench, key, found.mean_displacement), store, progress=note)[key]
    value = math.nan if noise.value is None else float(noise.value)
    return cell_of(key, found, value, each.settings.seed), not any(fresh)


def _noise_plan(bench: Bench, key: CellKey, displacement: float) -> CellPlan[CellKey]:
    """The control that needs to know how far the chains went: a cell of its own."""
    settings = bench.estimands[key].settings
    parts = {
        **bench.identity(key),
        "measure": "llc noise control",
        "source of the control": closure(noise_llc).digest,
        "draws": NOISE_DRAWS,
        "displacement": displacement if math.isfinite(displacement) else None,
    }

    def make(names: Sequence[CellKey]) -> list[Measurement]:
        values = [noise_llc(bench.potential(name), settings, displacement) for name in names]
        finite = [value if math.isfinite(value) else None for value in values]
        return [Measurement("loss of noise as long as the chains went", each, seed=settings.seed) for each in finite]

    return CellPlan({key: parts}, make)


def rows_digest(rows: Int[Tensor, "row pos"]) -> str:
    """sha256 over the shape and the ids of token rows."""
    ids = np.ascontiguousarray(rows.cpu().numpy(), dtype="<i8")
    return hashlib.sha256(f"{ids.shape}".encode() + ids.tobytes()).hexdigest()


def noise_llc(potential: Potential, settings: SGLDSettings, displacement: float, draws: int = NOISE_DRAWS) -> float:
    """n beta times the mean excess loss of w* plus isotropic noise as long as the chains' mean |w - w*|: a control.

    Equal to the coefficient only where SGLD found no better directions than chance does. NaN without a displacement.
    """
    if not math.isfinite(displacement):
        return math.nan
    start = potential.start()
    source = generator(settings.seed, 0, NOISE, start.device)
    num_rows = potential.num_rows or 0
    batches = rows_of(settings.seed, [NOISE], num_rows, settings.batch_size or num_rows)
    excess = []
    for _ in range(draws):
        noise = torch.randn(start.shape, generator=source, dtype=start.dtype, device=start.device)
        rows = next(batches)
        moved = start + displacement * noise / noise.norm()
        excess.append(float(potential.value(moved[None], rows)[0] - potential.value_at_start(1, rows)[0]))
    return settings.n_beta * float(np.mean(excess))
