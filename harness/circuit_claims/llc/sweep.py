"""Sweeps over (checkpoint, weights, text, chain), one stored cell a chain: a killed sweep loses one cell at most."""

from __future__ import annotations

import gc
import hashlib
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import product
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from circuit_claims.judging.measurement import Cost, Measurement
from circuit_claims.keeping.cells import CellPlan, CellStore, Report, Tally, fill_all
from circuit_claims.keeping.executors import Executor
from circuit_claims.keeping.keys import Closure, closure, readable
from circuit_claims.llc.estimate import LLCEstimate, summarise
from circuit_claims.llc.gate import Gate, Surroundings
from circuit_claims.llc.losses import DivergenceFrom, Loss, loss_of_knowing_nothing, named_loss
from circuit_claims.llc.module_potential import held_still
from circuit_claims.llc.refined import CachedPotential, Speed, make_potential
from circuit_claims.llc.sample import hessian_trace, prior_control
from circuit_claims.llc.sgld import Potential, SGLDSettings, Traces, run_chains
from circuit_claims.llc.slices import WeightSlice, digest, weight_slice

PER_SWEEP = ("num_chains", "chains_per_call", "threads", "max_seconds")
TRACE = "hessian trace"


@dataclass(frozen=True, order=True)
class SweepPoint:
    """One estimate of a sweep: which checkpoint, which weights, which text."""

    checkpoint: str
    weights: str
    text: str

    def __str__(self) -> str:
        return f"{self.weights} of {self.checkpoint} on {self.text}"


@dataclass(frozen=True)
class ChainCell:
    """A cell of an estimate: one chain, or (`chain` is None) the trace of its Hessian."""

    point: Any
    chain: int | None

    def __str__(self) -> str:
        return f"{TRACE if self.chain is None else f'chain {self.chain}'} of {self.point}"


@dataclass(frozen=True)
class Estimand:
    """What is estimated at one point: rows of tokens, weights, loss, settings; `loss_name` stands in the key.

    `probes` of the Hessian's trace are a cell of their own, none at 0.
    """

    data: Tensor
    where: WeightSlice
    loss: Loss
    settings: SGLDSettings
    speed: Speed = field(default_factory=Speed)
    loss_name: str = ""
    probes: int = 0

    @property
    def chains(self) -> list[int | None]:
        """Its cells: the chains, and None for the Hessian trace where one is asked for."""
        return [*range(self.settings.num_chains), *([None] if self.probes else [])]


class Bench:
    """One model and what is estimated of it. Makes cells, and keeps the potential of the point it is at.

    Heads of one layer on the same rows under the same loss share the cache of the exact path.
    """

    def __init__(self, model: nn.Module, estimands: Mapping[Any, Estimand]) -> None:
        self.model, self.estimands = model, estimands
        self._lock, self._alone, self._point, self._potential = threading.Lock(), threading.Lock(), None, None
        self._shared: tuple[Any, Speed] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "estimands": self.estimands}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    @cached_property
    def weights(self) -> str:
        """The digest of the model's weights."""
        return digest(self.model)

    def identity(self, point: Any) -> dict[str, Any]:
        """What decides every cell of a point."""
        return cell_identity(self.model, self.weights, self.estimands[point])

    def plan(self, *points: Any) -> CellPlan[ChainCell]:
        """The cells of some points, or all. Chains that share a call or run side by side are made and kept together."""
        cells = {
            ChainCell(point, chain): {**parts, **({"probes": each.probes} if chain is None else {"chain": chain})}
            for point in points or self.estimands
            for each, parts in [(self.estimands[point], self.identity(point))]
            for chain in each.chains
        }
        return CellPlan(cells, self.make, group=self._group)

    def _group(self, cell: ChainCell) -> Hashable:
        settings = self.estimands[cell.point].settings
        return cell if settings.chains_per_call == settings.threads == 1 else cell.point

    def make(self, cells: Sequence[ChainCell]) -> list[Measurement]:
        """Cells of one point, measured."""
        point, each = cells[0].point, self.estimands[cells[0].point]
        potential = self.potential(point)
        ceiling = loss_of_knowing_nothing(each.loss, self.model, each.data)
        chains = [cell.chain for cell in cells if cell.chain is not None]
        with nullcontext() if getattr(potential, "thread_safe", False) else self._alone:
            made = dict(zip(chains, measure_chains(potential, ceiling, each.settings, chains), strict=True))
            return [
                measure_trace(potential, each.settings, each.probes) if cell.chain is None else made[cell.chain]
                for cell in cells
            ]

    def potential(self, point: Any) -> Potential:
        """The loss at a point as a function of the sampled weights; the last one is kept."""
        with self._lock:
            if self._potential is None or point != self._point:
                if self._potential is not None:
                    self.release()
                each = self.estimands[point]
                shares = (id(each.data), id(each.loss), each.where.label.partition(":")[0], each.speed)
                known = self._shared[1] if self._shared is not None and self._shared[0] == shares else each.speed
                self._potential = make_potential(self.model, each.data, each.where, each.loss, known)
                self._point = point
                if isinstance(self._potential, CachedPotential):
                    self._shared = (shares, replace(each.speed, prefix=self._potential.prefix))
            return self._potential

    def release(self) -> None:
        """Let go of the potential: with its tables it can take gigabytes, and they hold each other."""
        self._potential = None
        gc.collect()


@dataclass(frozen=True)
class Sweep:
    """A plan: every checkpoint by every slice by every text, `settings.num_chains` chains each.

    `load_model` and `load_text` turn names into a model and its rows of tokens. `loss` is a built-in loss or a
    function; the function's `loss_name` stands for it in the key, and must change when it does. With `trace_probes`
    each point has one cell more: the trace of its Hessian block by that many probes.
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
    def num_cells(self) -> int:
        """Cells of all estimates together."""
        each = self.settings.num_chains + bool(self.trace_probes)
        return len(self.checkpoints) * len(self.weights) * len(self.texts) * each

    def estimands(self, checkpoint: str, model: nn.Module) -> dict[SweepPoint, Estimand]:
        """What is estimated of one checkpoint, heads of a layer one after the other; ValueError for a wrong slice."""
        loss, texts = named_loss(self.loss), {text: self.load_text(text) for text in self.texts}
        slices = {name: weight_slice(model, name, biases=self.biases) for name in _by_layer(self.weights)}
        return {
            SweepPoint(checkpoint, name, text): Estimand(
                texts[text], where, loss, self.settings, self.speed, self.loss_name, self.trace_probes
            )
            for text, (name, where) in product(self.texts, slices.items())
        }


def run_sweep(
    plan: Sweep,
    store: CellStore,
    *,
    progress: Report | None = None,
    clock: Callable[[], float] = time.monotonic,
    executor: Executor | None = None,
) -> dict[SweepPoint, LLCEstimate]:
    """Every estimate of the plan, from the store where its cells are there, measured and stored where they are not.

    Cells are keyed by weights, data, slice, loss, settings, seed, chain and the code of the engine, so nothing that
    changed is ever read for something else. Raises what `weight_slice` and the store raise, and see `keeping.cells`.
    """
    found: dict[SweepPoint, LLCEstimate] = {}
    tally = Tally("chains", plan.num_cells, progress, clock)
    for checkpoint in plan.checkpoints:
        model = plan.load_model(checkpoint)
        with held_still(model):
            bench = Bench(model, plan.estimands(checkpoint, model))
            cells = fill_all(bench.plan(), store, executor=executor, progress=tally)
            bench.release()
        for point, each in bench.estimands.items():
            own = [cells[ChainCell(point, chain)] for chain in each.chains]
            found[point] = assemble(own, plan.settings, plan.gate, asdict(point))
    return found


def _by_layer(names: Sequence[str]) -> list[str]:
    """The names, heads of one layer together, so that they share a cache."""
    groups: dict[str, list[str]] = {}
    for name in names:
        layer, colon, _ = name.partition(":")
        groups.setdefault(f"{layer.strip()}:" if colon else name, []).append(name)
    return [name for group in groups.values() for name in group]


def cell_code(model: nn.Module, loss: Loss) -> Closure:
    """The code that a cell hangs on: the engine's, the model's, the loss's; how chains are judged is no part of it.

    A model or loss that was typed in a notebook is told apart by its weights and `loss_name` alone.
    """
    given = readable(type(model), loss if isinstance(loss, FunctionType) else type(loss))
    return closure(measure_chains, measure_trace, make_potential, loss_of_knowing_nothing, *given)


def cell_identity(model: nn.Module, weights: str, each: Estimand) -> dict[str, Any]:
    """Everything that decides a cell but its chain: what the key of the store digests."""
    loss_name = each.loss_name or getattr(each.loss, "name", "")
    if not loss_name:
        raise ValueError("loss of a sweep: expected a built-in loss or a loss_name, found a function without one")
    rows, loss, where = each.data.detach().cpu().contiguous(), each.loss, each.where
    return {
        "measure": "llc cell",
        **cell_code(model, loss).parts(),
        "weights": weights,
        "data": hashlib.sha256(f"{tuple(rows.shape)}".encode() + rows.view(torch.uint8).numpy().tobytes()).hexdigest(),
        "slice": [
            [piece.name, [[part.start, part.stop] for part in piece.ranges], list(shape)]
            for piece, shape in zip(where.pieces, where.shapes, strict=True)
        ],
        "loss": loss_name,
        "reference": digest(loss.reference) if isinstance(loss, DivergenceFrom) else None,
        "settings": {k: v for k, v in asdict(each.settings).items() if k not in PER_SWEEP},
        "path": [each.speed.path, str(each.speed.readout_dtype), each.speed.cache_bytes, each.speed.micro_batch],
        "device": each.data.device.type,
    }


def measure_chains(
    potential: Potential, ceiling: float | None, settings: SGLDSettings, chains: Sequence[int]
) -> Iterator[Measurement]:
    """Some chains as measurements, one each; the n_beta = 0 control goes with chain 0."""
    if not chains:
        return
    began = time.perf_counter()
    together = run_chains(potential, replace(settings, max_seconds=None), chains=chains)
    seconds, start = (time.perf_counter() - began) / len(chains), potential.start()
    for row, chain in enumerate(chains):
        traces = Traces(*(getattr(together, name)[row : row + 1] for name in Traces.__dataclass_fields__))
        began = time.perf_counter()
        control, distance = prior_control(potential, settings) if chain == 0 else (math.nan, math.nan)
        sound = bool(traces.sound[0])
        yield Measurement(
            quantity="local learning coefficient, one chain",
            value=settings.n_beta * float((traces.loss - traces.start_loss).mean()) if sound else None,
            unit="n beta x nats",
            n=settings.num_draws,
            seed=settings.seed,
            batch=settings.batch_size,
            status="complete" if sound else "diverged",
            arrays={name: getattr(traces, name) for name in Traces.__dataclass_fields__},
            facts={
                "chain": chain,
                "size": start.numel(),
                "start_norm": float(start.norm()),
                "ceiling": ceiling,
                "control_llc": control if math.isfinite(control) else None,
                "control_displacement": distance if math.isfinite(distance) else None,
            },
            cost=Cost(seconds=seconds + time.perf_counter() - began),
        )


def measure_trace(potential: Potential, settings: SGLDSettings, probes: int) -> Measurement:
    """The trace of the Hessian over a point's weights by Hutchinson's probes; None as value where it is not finite."""
    began = time.perf_counter()
    trace, error = hessian_trace(potential, settings, probes)
    return Measurement(
        quantity="trace of the Hessian over the sampled weights",
        value=trace if math.isfinite(trace) else None,
        unit="nats",
        n=probes,
        seed=settings.seed,
        batch=settings.batch_size,
        facts={"hessian_error": error if math.isfinite(error) else None},
        cost=Cost(seconds=time.perf_counter() - began),
    )


def assemble(
    cells: Sequence[Measurement], settings: SGLDSettings, gate: Gate | None = None, facts: Mapping[str, Any] = {}
) -> LLCEstimate:
    """The estimate of a point from the cells of its chains, and of its Hessian trace if there is one (the last)."""
    chains = [cell for cell in cells if cell.arrays]
    trace = next((cell for cell in cells if not cell.arrays), None)
    traces = Traces(*(np.concatenate([cell.arrays[name] for cell in chains]) for name in Traces.__dataclass_fields__))
    first = chains[0].facts
    around = Surroundings(
        size=first["size"],
        start_norm=first["start_norm"],
        ceiling=first["ceiling"],
        control_llc=math.nan if first["control_llc"] is None else first["control_llc"],
        control_displacement=math.nan if first["control_displacement"] is None else first["control_displacement"],
        hessian_trace=trace.value if trace is not None and isinstance(trace.value, float) else None,
        hessian_error=None if trace is None else trace.facts["hessian_error"],
        facts=facts,
    )
    cost = Cost(seconds=sum(cell.cost.seconds for cell in cells))
    return summarise(traces, replace(settings, num_chains=len(chains)), around, gate, cost)
