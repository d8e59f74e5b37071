"""Many measurements that are kept one by one: planned, kept as each ends, resumed, by whoever does the work.

A `CellPlan` names its cells (a head, a chain, a context, ...) by the parts of their keys, and says how the cells of one
group are made, in one call. `fill` looks each one up, has the missing ones made by an executor and keeps each as it
ends, so that what is killed loses what was being made and no more. Every cell is a `Measurement`.

>>> from circuit_claims.judging.measurement import Measurement
>>> def square(names):
...     return [Measurement("square", name**2) for name in names]
>>> plan = CellPlan({name: {"measure": "square", "of": name} for name in (2, 3)}, square)
>>> cells = dict(fill(plan, MemoryStore()))
>>> cells[3].value
9
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from filelock import FileLock

from circuit_claims.judging.measurement import Measurement
from circuit_claims.keeping.executors import Executor, Failure, InProcess, Outcomes, WorkerDied
from circuit_claims.keeping.store import Store, key_of

Name = TypeVar("Name", bound=Hashable)


class CellStore(Protocol):
    """Where cells are kept: a folder, or the memory of a process. `context.store` of a run is one.

    >>> def count(store: CellStore, keys: Sequence[str]) -> int:
    ...     return sum(store.load(key) is not None for key in keys)
    >>> count(MemoryStore(), ["0" * 64])
    0
    """

    def load(self, key: str) -> Measurement | None:
        """The cell under `key`, None where there is none."""
        ...

    def save(self, key: str, measurement: Measurement, *, anew: bool = False) -> None:
        """Keep a cell, whole or not at all; with `anew` in place of an older one."""
        ...


class MemoryStore:
    """A store that lasts as long as the process: for tests, and for what need not be kept.

    >>> store = MemoryStore()
    >>> store.save("a key", Measurement("answer", 42))
    >>> store.load("a key").value
    42
    """

    def __init__(self) -> None:
        self._cells: dict[str, Measurement] = {}

    def load(self, key: str) -> Measurement | None:
        """The cell under `key`, if any."""
        return self._cells.get(key)

    def save(self, key: str, measurement: Measurement, *, anew: bool = False) -> None:
        """Keep a cell."""
        del anew
        self._cells[key] = measurement


@dataclass(frozen=True)
class CellPlan(Generic[Name]):
    """Which cells there are, and how they are made.

    `cells` maps each name to what decides the cell: JSON values whose digest is its key. `make` gets the missing cells
    of a group (as `group` tells them; each cell alone, if not said), or of `groups_per_call` groups, and returns their
    measurements in that order. Groups are made in the order of their first cells, those that are `late` last.
    `prepare` is called once, here and beforehand, if anything is missing.

    What decides a cell is its subject, its settings and its code: put `closure(function).parts()` among the parts.

    >>> def squares(names):
    ...     return [Measurement("square", name**2) for name in names]
    >>> plan = CellPlan({name: {"measure": "square", "of": name} for name in (2, 3)}, squares)
    >>> [cell.value for cell in fill_all(plan, MemoryStore()).values()]
    [4, 9]
    """

    cells: Mapping[Name, Mapping[str, Any]]
    make: Callable[[Sequence[Name]], Sequence[Measurement]]
    group: Callable[[Name], Hashable] = lambda name: name
    groups_per_call: int = 1
    late: Callable[[Any], bool] = lambda group: False
    prepare: Callable[[], Any] = lambda: None

    @cached_property
    def keys(self) -> dict[Name, str]:
        """The key of each cell."""
        return {name: key_of(parts) for name, parts in self.cells.items()}

    def calls(self, missing: Sequence[Name]) -> list[tuple[Name, ...]]:
        """The missing cells, divided into calls of `make`."""
        groups: dict[Hashable, list[Name]] = {}
        for name in missing:
            groups.setdefault(self.group(name), []).append(name)
        ordered, size = sorted(groups, key=self.late), self.groups_per_call
        parts = [ordered[start : start + size] for start in range(0, len(ordered), size)]
        return [tuple(name for group in part for name in groups[group]) for part in parts]


@dataclass(frozen=True)
class Progress:
    """Cells done of all in one step of the work, the one just done, and the seconds the rest may take.

    `stored` says that it was there already, which tells nothing about the speed. `cell` is None where none is named.

    >>> def line(step: Progress) -> str:
    ...     return f"{step.done} of {step.total} {step.step}"
    >>> line(Progress("cells", 3, 8, seconds_left=12.0))
    '3 of 8 cells'
    """

    step: str
    done: int
    total: int
    seconds_left: float
    cell: Any = None
    stored: bool = False


Report = Callable[[Progress], None]


@dataclass
class Meter:
    """Counts what is done of `total` and reports it, over one plan or several; safe to be called from threads.

    >>> meter = Meter("heads", 2, lambda step: print(step.done, "of", step.total, step.step))
    >>> meter.begin()
    >>> meter.tick("1:6")
    1 of 2 heads
    """

    step: str
    total: int
    report: Report | None = None
    clock: Callable[[], float] = time.monotonic
    _done: int = 0
    _fresh: int = 0
    _began: float | None = None
    _spent: float = 0.0
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def begin(self) -> None:
        """Work on something that is missing begins now."""
        self._began = self.clock()

    def tick(self, cell: Any = None, *, stored: bool = False, more: int = 1) -> None:
        """So many more are done; time counts from the last that was not stored."""
        with self._lock:
            self._done += more
            if not stored:
                now = self.clock()
                self._spent += now - (now if self._began is None else self._began)
                self._began, self._fresh = now, self._fresh + more
            if self.report is not None:
                each = self._spent / self._fresh if self._fresh else 0.0
                left = each * (self.total - self._done)
                self.report(Progress(self.step, self._done, self.total, left, cell, stored))


def fill(
    plan: CellPlan[Name],
    store: CellStore,
    *,
    executor: Executor | None = None,
    progress: Report | Meter | None = None,
    anew: bool = False,
) -> Iterator[tuple[Name, Measurement]]:
    """Each cell of the plan with its name: first what the store has, then what is missing, as it is made and kept.

    With `anew` nothing is read, and what is made takes the older one's place. A call that raises ends the work once
    what is running is done and kept; the error carries a note that names its cells. A worker process that dies loses
    its cells alone: the others are made, and then `WorkerDied` is raised. Ctrl-C begins nothing more and keeps what
    was running; what is not asked for any more (a broken loop over the iterator) is not made.
    """
    tally = progress if isinstance(progress, Meter) else Meter("cells", len(plan.cells), progress)
    missing = []
    for name, key in plan.keys.items():
        cell = None if anew else store.load(key)
        if cell is None:
            missing.append(name)
        else:
            tally.tick(name, stored=True)
            yield name, cell
    if missing:
        yield from _made(plan, missing, store, executor or InProcess(), tally, anew)


def fill_all(plan: CellPlan[Name], store: CellStore, **how: Any) -> dict[Name, Measurement]:
    """Every cell of a plan by name, in the plan's order, from the store or made and kept there; see `fill` for `how`.

    >>> store, plan = MemoryStore(), CellPlan({"a": {"of": 1}}, lambda names: [Measurement("one", 1) for _ in names])
    >>> fill_all(plan, store, progress=lambda step: print("there already:", step.stored))["a"].value
    there already: False
    1
    >>> fill_all(plan, store, progress=lambda step: print("there already:", step.stored))["a"].value
    there already: True
    1
    """
    cells = dict(fill(plan, store, **how))
    return {name: cells[name] for name in plan.cells}


@contextmanager
def one_at_a_time(store: CellStore, what: str) -> Iterator[None]:
    """Of several processes on one store the first does `what`; the others wait, and then find what it kept.

    Else each would do the same work of minutes. `what` is a word of the work's own. A store in memory is nobody else's.

    >>> plan = CellPlan({"seed": {"measure": "seed"}}, lambda names: [Measurement("seed", 7) for _ in names])
    >>> with one_at_a_time(store := MemoryStore(), "comparison"):
    ...     print(fill_all(plan, store)["seed"].value)
    7
    """
    if not isinstance(store, Store):
        yield
        return
    store.root.mkdir(parents=True, exist_ok=True)
    with FileLock(store.root / f"{what}.lock"):
        yield


def _made(
    plan: CellPlan[Name],
    missing: Sequence[Name],
    store: CellStore,
    executor: Executor,
    tally: Meter,
    anew: bool,
) -> Iterator[tuple[Name, Measurement]]:
    keeper = _Keeper(plan, store, tally, anew, len(missing))
    plan.prepare()
    tally.begin()
    outcomes = executor.run(plan.make, ((names, names) for names in plan.calls(missing)))
    try:
        for names, result in outcomes:
            if isinstance(result, Failure) and not isinstance(result.error, WorkerDied):
                _drain(outcomes, keeper)
                keeper.refuse(names, result.error)
            yield from keeper.keep(names, result)
    except KeyboardInterrupt:
        _drain(outcomes, keeper)
        raise
    finally:
        outcomes.close()
    if keeper.lost:
        names, error = keeper.lost[0]
        keeper.refuse([name for names, _ in keeper.lost for name in names], error)


def _drain(outcomes: Outcomes, keeper: _Keeper) -> None:
    """Stop the executor, and keep what it still hands over."""
    with suppress(KeyboardInterrupt, StopIteration):
        outcome = outcomes.throw(KeyboardInterrupt())
        while True:
            for _ in keeper.keep(*outcome):
                pass
            outcome = next(outcomes)


@dataclass
class _Keeper(Generic[Name]):
    """Keeps the cells of a call, counts them, and remembers the calls that were lost."""

    plan: CellPlan[Name]
    store: CellStore
    tally: Meter
    anew: bool
    wanted: int
    done: int = 0
    lost: list[tuple[Sequence[Name], BaseException]] = field(default_factory=list)

    def keep(
        self, names: Sequence[Name], result: Sequence[Measurement] | Failure
    ) -> Iterator[tuple[Name, Measurement]]:
        """Save the cells of a call, all of them before the first is handed on."""
        if isinstance(result, Failure):
            self.lost.append((names, result.error))
            return
        pairs = list(zip(names, result, strict=True))
        for name, cell in pairs:
            self.store.save(self.plan.keys[name], cell, anew=self.anew)
            self.done += 1
            self.tally.tick(name)
        yield from pairs

    def refuse(self, names: Sequence[Name], error: BaseException) -> None:
        """Raise what went wrong, with a note that says for which cells and what is safe."""
        told = ", ".join(str(name) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        kept = (
            f"; {self.done} of {self.wanted} missing cells are measured and kept: the same command goes on from there"
        )
        error.add_note(f"while measuring {told}{kept if self.wanted > 1 else ''}")
        raise error
