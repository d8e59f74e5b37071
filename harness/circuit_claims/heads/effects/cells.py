"""Ablations of many contexts, one stored cell a context: killed and resumed, alone or on threads, the same arrays.

On the CPU each pass is computed on one thread of torch; `threads` of them run side by side. So the number of threads
touches no bit of a context's result; nor does the company of a context in its pass, as far as has been seen.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from circuit_claims.heads.effects.direct import direct_effects
from circuit_claims.heads.effects.forward import AblationModel, Pass, open_model
from circuit_claims.heads.effects.losses import Changes, HeadReadout, loss_changes
from circuit_claims.heads.effects.reference import Reference, digest_of, reference_of
from circuit_claims.heads.effects.results import DirectEffects, Head, HeadEffects
from circuit_claims.heads.effects.settings import Ablations, HeadSettings
from circuit_claims.heads.effects.views import most_attended, most_promoted
from circuit_claims.judging.measurement import Cost, Measurement
from circuit_claims.keeping.cells import CellPlan, CellStore, Meter, Report, fill_all
from circuit_claims.keeping.executors import In, Out, Threads, in_order
from circuit_claims.keeping.keys import closure

MOST_THREADS = 8
EVERY_HEAD = "every head"


@dataclass(frozen=True)
class AblationCell:
    """What is asked (every head, or one) about the context of this number in a plan."""

    context: int
    asked: Any

    def __str__(self) -> str:
        what = self.asked if self.asked == EVERY_HEAD else f"head {self.asked[0]}:{self.asked[1]}"
        return f"{what} in context {self.context}"


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
    reference: Int[np.ndarray, "donor pos"]
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
            tally = Meter("reference", len(self.reference), report)
            tally.begin()

            def gather(part: np.ndarray) -> list[Pass]:
                runs = self.runs(model, part)
                tally.tick(more=len(part))
                return runs

            parts = [self.reference[at : at + self.batch] for at in range(0, len(self.reference), self.batch)]
            passes = self.side_by_side(gather, parts)
            self._opened.append(Opened(model, reference_of((run for runs in passes for run in runs), self.ablations)))
        return self._opened[0]

    @property
    def workers(self) -> int:
        """Calls side by side: on an accelerator one."""
        if self.device != "cpu":
            return 1
        return self.threads or min(torch.get_num_threads(), MOST_THREADS)

    def executor(self) -> Threads:
        """Contexts side by side, each on one thread of torch: results do not hang on how many there are.

        That scales better than threads within one context.
        """
        before = torch.get_num_threads()
        return Threads(self.workers, partial(torch.set_num_threads, 1), partial(torch.set_num_threads, before))

    def side_by_side(self, work: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
        """`work` of each item (of each context, say) on the plan's threads, in the items' order."""
        return in_order(self.executor(), work, items)

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

    def cells(self, questions: Sequence[Any], settings: Mapping[str, Any]) -> dict[AblationCell, dict[str, Any]]:
        """The parts of the key of each cell: every question about every context."""
        shared = {**self.identities(), "settings": dict(settings)}
        digests = [digest_of(row) for row in _tokens(self.contexts)]
        return {
            AblationCell(place, asked): {**shared, "context": digest, "asked": asked}
            for place, digest in enumerate(digests)
            for asked in questions
        }


def _tokens(rows: Int[np.ndarray, "context pos"]) -> Int[Tensor, "context pos"]:
    return torch.from_numpy(np.array(rows, dtype=np.int64))


def measure_contexts(
    plan: Plan, store: CellStore, report: Report | None = None, *, anew: bool = False
) -> list[DirectEffects]:
    """Direct effects of every head in every case, context by context; from the store where they are there.

    With `anew` nothing is read from it. Raises what opening the model, `AblationModel.run`, the reference and the
    store raise.
    """

    def make(cells: Sequence[AblationCell]) -> list[Measurement]:
        began, opened = time.perf_counter(), plan.opened()
        runs = plan.runs(opened.model, plan.contexts[[cell.context for cell in cells]])
        effects = [direct_effects(opened.model, run, opened.reference) for run in runs]
        seconds = (time.perf_counter() - began) / len(cells)
        return [_cell(plan, "logit lost, all heads", found.arrays(), seconds) for found in effects]

    wanted = plan.cells([EVERY_HEAD], {})
    filled = _filled(plan, CellPlan(wanted, make, prepare=lambda: plan.opened(report)), store, report, anew, plan.batch)
    return [DirectEffects.from_arrays(cell.arrays) for cell in filled.values()]


def measure_heads(
    plan: Plan,
    heads: Sequence[Head] | Mapping[Head, HeadSettings],
    store: CellStore,
    report: Report | None = None,
    settings: HeadSettings | None = None,
    *,
    anew: bool = False,
) -> dict[Head, list[HeadEffects]]:
    """Losses, attention and promoted tokens of chosen heads, context by context; one cell a context and head.

    What is asked of the heads is `settings`, or for each what stands beside it. Heads asked about together share
    passes and the unablated logits. Errors as for `measure_contexts`, and KeyError for a head the model does not have.
    """
    given = heads if isinstance(heads, Mapping) else dict.fromkeys(heads, settings or HeadSettings())
    asked = {(int(layer), int(head)): what for (layer, head), what in given.items()}

    def prepare() -> None:
        opened = plan.opened(report)
        for head in asked:
            opened.readout(head)

    def make(cells: Sequence[AblationCell]) -> list[Measurement]:
        opened = plan.opened()
        return _chosen(plan, opened, [(opened.readout(cell.asked), asked[cell.asked]) for cell in cells], cells[0])

    parts = [plan.cells([head], what.parameters()) for head, what in asked.items()]
    wanted = {cell: key for of_head in parts for cell, key in of_head.items()}
    in_turn = dict(sorted(wanted.items(), key=lambda item: item[0].context))
    filled = _filled(plan, CellPlan(in_turn, make, prepare=prepare), store, report, anew)
    found: dict[Head, list[HeadEffects]] = {head: [] for head in asked}
    for name, cell in filled.items():
        found[name.asked].append(HeadEffects.from_arrays(name.asked, cell.arrays))
    return found


def _filled(
    plan: Plan,
    cells: CellPlan[AblationCell],
    store: CellStore,
    report: Report | None,
    anew: bool,
    contexts_per_call: int = 1,
) -> dict[AblationCell, Measurement]:
    """The cells, context by context. Those whose pass is in memory come last: threads end at about the same time."""
    grouped = replace(
        cells, group=lambda cell: cell.context, groups_per_call=contexts_per_call, late=lambda at: plan.is_kept(at)
    )
    tally = Meter("ablation", len(cells.cells), report)
    return fill_all(grouped, store, executor=plan.executor(), progress=tally, anew=anew)


def _chosen(
    plan: Plan, opened: Opened, asked: Sequence[tuple[HeadReadout, HeadSettings]], cell: AblationCell
) -> list[Measurement]:
    """The cells of one context: all chosen heads on one pass."""
    began = time.perf_counter()
    (run,) = plan.runs(opened.model, plan.contexts[[cell.context]])
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
