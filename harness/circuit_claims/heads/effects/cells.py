"""Ablations of many contexts, one stored cell a context: killed and resumed, alone or on threads, the same arrays.

On the CPU each pass is computed on one thread of torch; `threads` of them run side by side. So the number of threads
touches no bit of a context's result; nor does the company of a context in its pass, as far as has been seen.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from circuit_claims.heads.effects.direct import direct_effects
from circuit_claims.heads.effects.filling import CellStore, Clock, Job, Report, fill, in_parts, side_by_side
from circuit_claims.heads.effects.forward import AblationModel, Pass, open_model
from circuit_claims.heads.effects.losses import Changes, HeadReadout, loss_changes
from circuit_claims.heads.effects.reference import Reference, digest_of, reference_of
from circuit_claims.heads.effects.results import DirectEffects, Head, HeadEffects
from circuit_claims.heads.effects.settings import Ablations, HeadSettings
from circuit_claims.heads.effects.views import most_attended, most_promoted
from circuit_claims.judging.measurement import Cost, Measurement
from circuit_claims.keeping.keys import closure
from circuit_claims.keeping.store import key_of

MOST_THREADS = 8


@dataclass(frozen=True)
class Opened:
    """A plan's model and its reference, ready for use."""

    model: AblationModel
    reference: Reference
    _readouts: dict[Head, HeadReadout] = field(default_factory=dict, repr=False, compare=False)

    def readout(self, head: Head) -> HeadReadout:
        """The readout of a head, kept for the next question. Raises KeyError for one the model does not have."""
        return self._readouts.setdefault(head, HeadReadout.of(self.model, head))


class Kept:
    """Passes kept in memory for later questions, the first that come, as long as they take `most` bytes or less."""

    def __init__(self, most: int = 0) -> None:
        self._left, self._passes, self._lock = most, dict[str, Pass](), threading.Lock()

    def of(self, contexts: Int[Tensor, "context pos"], run: Callable[[Tensor], list[Pass]]) -> list[Pass]:
        """The passes of contexts: from memory if all are there, else run."""
        names = [digest_of(row) for row in contexts]
        if all(name in self._passes for name in names):
            return [self._passes[name] for name in names]
        made = run(contexts)
        with self._lock:
            for name, one in zip(names, made, strict=True):
                if name not in self._passes and one.bytes <= self._left:
                    self._passes[name] = one
                    self._left -= one.bytes
        return made

    def __contains__(self, digest: str) -> bool:
        return digest in self._passes


@dataclass(frozen=True)
class Plan:
    """Which model, which contexts, which reference, which ablations.

    `load` opens the model (`forward.open_model`) and is called only if a cell is missing; `identity` tells that model
    from every other (digests). `contexts` and `reference` are rows of token ids; the reference may be the contexts
    themselves or others. `threads` contexts run side by side on the CPU (as many as torch has threads, if not said, but
    no more than eight: each takes a few hundred megabytes), and `batch` contexts share a forward pass. `kept` are
    passes that later questions take from memory: none, unless it is given room.
    """

    load: Callable[[], AblationModel]
    identity: Mapping[str, Any]
    contexts: Int[np.ndarray, "context pos"]
    reference: Int[np.ndarray, "reference pos"]
    ablations: Ablations = field(default_factory=Ablations)
    threads: int | None = None
    batch: int = 1
    device: str = "cpu"
    kept: Kept = field(default_factory=Kept, repr=False, compare=False)
    _opened: list[Opened] = field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("contexts", "reference"):
            rows = np.asarray(getattr(self, name))
            if rows.ndim != 2 or len(rows) == 0 or not np.issubdtype(rows.dtype, np.integer):
                raise ValueError(
                    f"{name} of an ablation: expected rows of token ids, context x position"
                    f"\n  found shape {rows.shape}, dtype {rows.dtype}"
                )

    def opened(self, report: Report | None = None) -> Opened:
        """The model, and the reference gathered with it; both are kept for the next question."""
        if not self._opened:
            model = self.load()
            clock = Clock("reference", len(self.reference), 0, report)

            def gather(part: np.ndarray) -> list[Pass]:
                runs = self.runs(model, part)
                clock.tick(len(part))
                return runs

            passes = side_by_side(gather, in_parts(self.reference, self.batch), self.workers)
            self._opened.append(Opened(model, reference_of((run for runs in passes for run in runs), self.ablations)))
        return self._opened[0]

    @property
    def workers(self) -> int:
        """Calls side by side: on an accelerator one."""
        if self.device != "cpu":
            return 1
        return self.threads or min(torch.get_num_threads(), MOST_THREADS)

    def runs(self, model: AblationModel, rows: Int[np.ndarray, "context pos"]) -> list[Pass]:
        """Passes of some contexts, `batch` at a time."""
        return [run for part in _tokens(rows).split(self.batch) for run in self.kept.of(part, model.run)]

    def is_kept(self, context: int) -> bool:
        """Whether the pass of the context with this number is in memory."""
        return digest_of(_tokens(self.contexts[context])) in self.kept

    def identities(self) -> dict[str, Any]:
        """What decides every cell of this plan, but for its context and what is asked."""
        reference = "".join(digest_of(row) for row in _tokens(self.reference))
        return {
            "measure": "ablation cell",
            **closure(open_model, reference_of, direct_effects, head_effects).parts(),
            "model": dict(self.identity),
            "reference": hashlib.sha256(reference.encode()).hexdigest(),
            "ablations": self.ablations.parameters(),
            "device": self.device.split(":")[0],
        }

    def jobs(self, questions: Sequence[Any], settings: Mapping[str, Any]) -> list[Job]:
        """One cell for every context and question."""
        shared = {**self.identities(), "settings": dict(settings)}
        digests = [digest_of(row) for row in _tokens(self.contexts)]
        return [
            Job(place, asked, key_of({**shared, "context": digest, "asked": asked}))
            for place, digest in enumerate(digests)
            for asked in questions
        ]


def _tokens(rows: Int[np.ndarray, "context pos"]) -> Int[Tensor, "context pos"]:
    return torch.from_numpy(np.array(rows, dtype=np.int64))


def measure_contexts(plan: Plan, store: CellStore, report: Report | None = None) -> list[DirectEffects]:
    """Direct effects of every head in every case, context by context; from the store where they are there.

    Raises what opening the model, `AblationModel.run`, the reference and the store raise.
    """

    def prepare() -> Callable[[list[Job]], list[Measurement]]:
        opened = plan.opened(report)

        def make(jobs: list[Job]) -> list[Measurement]:
            began = time.perf_counter()
            runs = plan.runs(opened.model, plan.contexts[[job.context for job in jobs]])
            effects = [direct_effects(opened.model, run, opened.reference) for run in runs]
            seconds = (time.perf_counter() - began) / len(jobs)
            return [_cell(plan, "logit lost, all heads", found.arrays(), seconds) for found in effects]

        return make

    jobs = plan.jobs(["every head"], {})
    how = {"contexts_per_call": plan.batch, "workers": plan.workers, "short": plan.is_kept}
    cells = fill(jobs, store, prepare, report=report, **how)
    return [DirectEffects.from_arrays(cell.arrays) for cell in cells]


def measure_heads(
    plan: Plan,
    heads: Sequence[Head] | Mapping[Head, HeadSettings],
    store: CellStore,
    report: Report | None = None,
    settings: HeadSettings | None = None,
) -> dict[Head, list[HeadEffects]]:
    """Losses, attention and promoted tokens of chosen heads, context by context; one cell a context and head.

    What is asked of the heads is `settings`, or for each what stands beside it. Heads asked about together share
    passes and the unablated logits. Errors as for `measure_contexts`, and KeyError for a head the model does not have.
    """
    given = heads if isinstance(heads, Mapping) else dict.fromkeys(heads, settings or HeadSettings())
    asked = {(int(layer), int(head)): what for (layer, head), what in given.items()}
    by_head = [plan.jobs([head], what.parameters()) for head, what in asked.items()]
    jobs = [job for of_context in zip(*by_head, strict=True) for job in of_context]

    def prepare() -> Callable[[list[Job]], list[Measurement]]:
        opened = plan.opened(report)
        readouts = {head: opened.readout(head) for head in asked}
        return lambda some: _chosen(plan, opened, [(readouts[job.asked], asked[job.asked]) for job in some], some[0])

    cells = fill(jobs, store, prepare, workers=plan.workers, report=report)
    found: dict[Head, list[HeadEffects]] = {head: [] for head in asked}
    for job, cell in zip(jobs, cells, strict=True):
        found[job.asked].append(HeadEffects.from_arrays(job.asked, cell.arrays))
    return found


def _chosen(
    plan: Plan, opened: Opened, asked: Sequence[tuple[HeadReadout, HeadSettings]], job: Job
) -> list[Measurement]:
    """The cells of one context: all chosen heads on one pass."""
    began = time.perf_counter()
    (run,) = plan.runs(opened.model, plan.contexts[[job.context]])
    found = head_effects(asked, run, opened.reference)
    seconds = (time.perf_counter() - began) / len(found)
    return [_cell(plan, "loss gained, one head", one.arrays(), seconds) for one in found]


def head_effects(
    asked: Sequence[tuple[HeadReadout, HeadSettings]], run: Pass, reference: Reference
) -> list[HeadEffects]:
    """All that is asked about some heads in one context."""
    loss, changes = loss_changes(asked, run, reference)
    return [
        _of_head(readout, settings, run, loss, change)
        for (readout, settings), change in zip(asked, changes, strict=True)
    ]


def _of_head(readout: HeadReadout, settings: HeadSettings, run: Pass, loss: Tensor, changes: Changes) -> HeadEffects:
    (layer, number), cases = readout.head, len(loss)
    attended = promoted = (torch.empty(cases, 0, dtype=torch.int64), torch.empty(cases, 0))
    if settings.attended:
        attended = most_attended(readout.model.patterns(run, layer, [number])[0], settings.attended)
    if settings.promoted:
        promoted = most_promoted(readout, run, settings.promoted)
    return HeadEffects(
        head=readout.head,
        loss=loss.cpu().numpy(),
        changes={name: change.cpu().numpy() for name, change in changes.items()},
        attended=attended[0].cpu().numpy().astype(np.int32),
        attention=attended[1].cpu().numpy(),
        promoted=promoted[0].cpu().numpy().astype(np.int32),
        promoted_logit=promoted[1].cpu().numpy(),
    )


def _cell(plan: Plan, quantity: str, arrays: Mapping[str, np.ndarray], seconds: float) -> Measurement:
    return Measurement(
        quantity=quantity,
        value=None,
        unit="nats",
        n=plan.contexts.shape[1] - 1,
        seed=plan.ablations.seed,
        arrays=arrays,
        cost=Cost(seconds=seconds),
    )
