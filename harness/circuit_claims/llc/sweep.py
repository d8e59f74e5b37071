"""Sweeps over (checkpoint, weights, text, chain), one stored cell a chain: a killed sweep loses one cell at most."""

from __future__ import annotations

import gc
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from types import FunctionType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from circuit_claims.judging.measurement import Cost, Measurement
from circuit_claims.keeping.keys import Closure, closure
from circuit_claims.keeping.store import key_of
from circuit_claims.llc.estimate import Gate, LLCEstimate, Surroundings, summarise
from circuit_claims.llc.losses import DivergenceFrom, Loss, loss_of_knowing_nothing, named_loss
from circuit_claims.llc.module_potential import held_still
from circuit_claims.llc.refined import CachedPotential, Speed, make_potential
from circuit_claims.llc.sample import hessian_trace, prior_control
from circuit_claims.llc.sgld import Potential, SGLDSettings, Traces, run_chains
from circuit_claims.llc.slices import WeightSlice, digest, weight_slice

PER_SWEEP = ("num_chains", "chains_per_call", "threads", "max_seconds")


class CellStore(Protocol):
    """Where cells are kept; `circuit_claims.keeping.store.Store` is one."""

    def load(self, key: str) -> Measurement | None:
        """The cell under `key`, None where there is none."""
        ...

    def save(self, key: str, measurement: Measurement) -> None:
        """Keep a cell, whole or not at all."""
        ...


@dataclass(frozen=True)
class Place:
    """One estimate of a sweep: which checkpoint, which weights, which text."""

    checkpoint: str
    weights: str
    text: str


@dataclass(frozen=True)
class Progress:
    """Cells done of all, the one just finished, whether it was in the store, and the seconds the rest may take.

    `chain` is None where the cell is the Hessian trace of its place.
    """

    done: int
    total: int
    place: Place
    chain: int | None
    from_store: bool
    seconds_left: float


@dataclass(frozen=True)
class Sweep:
    """A plan: every checkpoint by every slice by every text, `settings.num_chains` chains each.

    `load_model` and `load_text` turn names into a model and its rows of tokens. `loss` is a built-in loss or a
    function; the function's `loss_name` stands for it in the key, and must change when it does. With `trace_probes`
    each place has one cell more: the trace of its Hessian block by that many probes.
    """

    checkpoints: Sequence[str]
    weights: Sequence[str]
    texts: Sequence[str]
    load_model: Callable[[str], nn.Module]
    load_text: Callable[[str], Tensor]
    settings: SGLDSettings
    loss: str | Loss = "next token"
    loss_name: str = ""
    biases: bool = True
    speed: Speed = field(default_factory=Speed)
    gate: Gate | None = None
    trace_probes: int = 0

    @property
    def cells(self) -> list[int | None]:
        """The cells of each place: its chains, and None for its Hessian trace where one is asked for."""
        return [*range(self.settings.num_chains), *([None] if self.trace_probes else [])]

    @property
    def num_cells(self) -> int:
        """Cells of all estimates together."""
        return len(self.checkpoints) * len(self.weights) * len(self.texts) * len(self.cells)


def run_sweep(
    plan: Sweep,
    store: CellStore,
    *,
    progress: Callable[[Progress], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[Place, LLCEstimate]:
    """Every estimate of the plan, from the store where its cells are there, measured and stored where they are not.

    Cells are keyed by weights, data, slice, loss, settings, seed, chain and the source of the engine, so nothing that
    changed is ever read for something else. Raises what `weight_slice` and the store raise.
    """
    found: dict[Place, LLCEstimate] = {}
    done, fresh, spent = 0, 0, 0.0
    for checkpoint in plan.checkpoints:
        model = plan.load_model(checkpoint)
        for name in plan.weights:  # all of them before hours are spent on the first
            weight_slice(model, name, biases=plan.biases)
        with held_still(model):
            for work in _works(plan, checkpoint, model):
                cells = []
                for chain in plan.cells:
                    began = clock()
                    cell, stored = work.cell(store, chain)
                    cells.append(cell)
                    done += 1
                    if not stored:
                        fresh, spent = fresh + 1, spent + clock() - began
                    if progress is not None:
                        left = (plan.num_cells - done) * spent / fresh if fresh else 0.0
                        progress(Progress(done, plan.num_cells, work.place, chain, stored, left))
                found[work.place] = assemble(cells, plan.settings, plan.gate)
                if work.release():
                    gc.collect()  # a potential and its tables hold each other: gigabytes, if left to chance
    return found


@dataclass
class _Work:
    """One place of a sweep; its potential is built when a cell of it is missing, and not before."""

    plan: Sweep
    place: Place
    where: WeightSlice
    loss: Loss
    identity: Mapping[str, Any]
    build: Callable[[], tuple[Potential, float | None]]
    _built: tuple[Potential, float | None] | None = None

    def cell(self, store: CellStore, chain: int | None) -> tuple[Measurement, bool]:
        """The cell of one chain (None: the Hessian trace), and whether it came from the store."""
        probes = self.plan.trace_probes
        key = key_of({**self.identity, **({"probes": probes} if chain is None else {"chain": chain})})
        cell = store.load(key)
        if cell is not None:
            return cell, True
        if self._built is None:
            self._built = self.build()
        if chain is None:
            cell = measure_trace(self._built[0], self.plan.settings, self.place, probes)
        else:
            cell = measure_cell(*self._built, self.plan.settings, self.place, chain)
        store.save(key, cell)
        return cell, False

    def release(self) -> bool:
        """Let go of the potential; whether there was one."""
        built, self._built = self._built, None
        return built is not None


def _works(plan: Sweep, checkpoint: str, model: nn.Module) -> Iterator[_Work]:
    loss, weights = named_loss(plan.loss), digest(model)
    for text, names in product(plan.texts, _by_layer(plan.weights)):
        data = plan.load_text(text)
        shared: list[Speed] = []
        for name in names:
            where = weight_slice(model, name, biases=plan.biases)
            identity = cell_identity(plan, cell_code(model, loss), weights, data, where, loss)

            def build(where=where, data=data, shared=shared) -> tuple[Potential, float | None]:
                potential = make_potential(model, data, where, loss, shared[0] if shared else plan.speed)
                if isinstance(potential, CachedPotential) and not shared:
                    shared.append(replace(plan.speed, prefix=potential.prefix))
                return potential, loss_of_knowing_nothing(loss, model, data)

            yield _Work(plan, Place(checkpoint, name, text), where, loss, identity, build)


def _by_layer(names: Sequence[str]) -> list[list[str]]:
    """Heads of one layer together, so that they share a cache; everything else alone."""
    groups: dict[str, list[str]] = {}
    for name in names:
        layer, colon, _ = name.partition(":")
        groups.setdefault(f"{layer.strip()}:" if colon else name, []).append(name)
    return list(groups.values())


def cell_code(model: nn.Module, loss: Loss) -> Closure:
    """The code that a cell hangs on: the engine's, the model's, the loss's; how chains are judged is no part of it."""
    about = loss if isinstance(loss, FunctionType) else type(loss)
    return closure(measure_cell, measure_trace, make_potential, loss_of_knowing_nothing, type(model), about)


def cell_identity(
    plan: Sweep, code: Closure, weights: str, data: Tensor, where: WeightSlice, loss: Loss
) -> dict[str, Any]:
    """Everything that decides a cell but its chain: what the key of the store digests."""
    loss_name = plan.loss_name or getattr(loss, "name", "")
    if not loss_name:
        raise ValueError("loss of a sweep: expected a built-in loss or a loss_name, found a function without one")
    rows = data.detach().cpu().contiguous()
    return {
        "measure": "llc cell",
        **code.parts(),
        "weights": weights,
        "data": hashlib.sha256(f"{tuple(rows.shape)}".encode() + rows.view(torch.uint8).numpy().tobytes()).hexdigest(),
        "slice": [
            [piece.name, [[part.start, part.stop] for part in piece.ranges], list(shape)]
            for piece, shape in zip(where.pieces, where.shapes, strict=True)
        ],
        "loss": loss_name,
        "reference": digest(loss.reference) if isinstance(loss, DivergenceFrom) else None,
        "settings": {k: v for k, v in asdict(plan.settings).items() if k not in PER_SWEEP},
        "path": [plan.speed.path, str(plan.speed.readout_dtype), plan.speed.cache_bytes, plan.speed.micro_batch],
    }


def measure_cell(
    potential: Potential, ceiling: float | None, settings: SGLDSettings, place: Place, chain: int
) -> Measurement:
    """One chain as a measurement; the n_beta = 0 control goes with chain 0."""
    began = time.perf_counter()
    traces = run_chains(potential, replace(settings, max_seconds=None), chains=[chain])
    control, distance = prior_control(potential, settings) if chain == 0 else (math.nan, math.nan)
    start = potential.start()
    sound = bool(traces.sound[0])
    excess = settings.n_beta * float((traces.loss - traces.start_loss).mean()) if sound else None
    return Measurement(
        quantity="local learning coefficient, one chain",
        value=excess,
        unit="n beta x nats",
        n=settings.num_draws,
        seed=settings.seed,
        batch=settings.batch_size,
        status="complete" if sound else "diverged",
        arrays={name: getattr(traces, name) for name in Traces.__dataclass_fields__},
        facts={
            **asdict(place),
            "chain": chain,
            "size": start.numel(),
            "start_norm": float(start.norm()),
            "ceiling": ceiling,
            "control_llc": control if math.isfinite(control) else None,
            "control_displacement": distance if math.isfinite(distance) else None,
        },
        cost=Cost(seconds=time.perf_counter() - began),
    )


def measure_trace(potential: Potential, settings: SGLDSettings, place: Place, probes: int) -> Measurement:
    """The trace of the Hessian over a place's weights by Hutchinson's probes; None as value where it is not finite."""
    began = time.perf_counter()
    trace, error = hessian_trace(potential, settings, probes)
    return Measurement(
        quantity="trace of the Hessian over the sampled weights",
        value=trace if math.isfinite(trace) else None,
        unit="nats",
        n=probes,
        seed=settings.seed,
        batch=settings.batch_size,
        facts={**asdict(place), "hessian_error": error if math.isfinite(error) else None},
        cost=Cost(seconds=time.perf_counter() - began),
    )


def assemble(cells: Sequence[Measurement], settings: SGLDSettings, gate: Gate | None = None) -> LLCEstimate:
    """The estimate of a place from the cells of its chains, and of its Hessian trace if there is one (the last)."""
    chains = [cell for cell in cells if cell.arrays]
    trace = next((cell for cell in cells if not cell.arrays), None)
    traces = Traces(*(np.concatenate([cell.arrays[name] for cell in chains]) for name in Traces.__dataclass_fields__))
    facts = chains[0].facts
    around = Surroundings(
        size=facts["size"],
        start_norm=facts["start_norm"],
        ceiling=facts["ceiling"],
        control_llc=math.nan if facts["control_llc"] is None else facts["control_llc"],
        control_displacement=math.nan if facts["control_displacement"] is None else facts["control_displacement"],
        hessian_trace=None if trace is None else trace.value,
        hessian_error=None if trace is None else trace.facts["hessian_error"],
        facts={name: facts[name] for name in ("checkpoint", "weights", "text")},
    )
    cost = Cost(seconds=sum(cell.cost.seconds for cell in cells))
    return summarise(traces, replace(settings, num_chains=len(chains)), around, gate, cost)
