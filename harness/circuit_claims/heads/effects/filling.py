"""Fill a store with cells, context by context, side by side: what is missing is made, and kept once it is made."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import torch

from circuit_claims.judging.measurement import Measurement

In, Out = TypeVar("In"), TypeVar("Out")


class CellStore(Protocol):
    """Where cells are kept; `circuit_claims.keeping.store.Store` is one."""

    def load(self, key: str) -> Measurement | None:
        """The cell under `key`, None where there is none."""
        ...

    def save(self, key: str, measurement: Measurement) -> None:
        """Keep a cell, whole or not at all."""
        ...


@dataclass(frozen=True)
class Progress:
    """Contexts done of all in one step of the work, and the seconds the rest of that step may take."""

    step: Literal["reference", "ablation"]
    done: int
    total: int
    seconds_left: float


Report = Callable[[Progress], None]


class Clock:
    """Counts contexts of one step and tells the report; contexts found in the store say nothing about the speed."""

    def __init__(self, step: Literal["reference", "ablation"], total: int, stored: int, report: Report | None) -> None:
        self._step, self._total, self._stored, self._done = step, total, stored, stored
        self._report, self._began, self._lock = report, time.monotonic(), threading.Lock()
        if stored:
            self.tick(0)

    def tick(self, more: int = 1) -> None:
        """So many more contexts are done."""
        if self._report is None:
            return
        with self._lock:
            self._done += more
            fresh = self._done - self._stored
            each = (time.monotonic() - self._began) / fresh if fresh else 0.0
            self._report(Progress(self._step, self._done, self._total, each * (self._total - self._done)))


@dataclass(frozen=True)
class Job:
    """One cell: its context, what is asked of it, and the key it is filed under."""

    context: int
    asked: Any
    key: str


def fill(
    jobs: Sequence[Job],
    store: CellStore,
    prepare: Callable[[], Callable[[list[Job]], Sequence[Measurement]]],
    *,
    contexts_per_call: int = 1,
    workers: int = 1,
    report: Report | None = None,
    short: Callable[[int], bool] = lambda context: False,
) -> list[Measurement]:
    """The cells of all jobs, in their order; `prepare` is called once, and only if some are missing.

    What it returns makes the cells of a few contexts' jobs. A cell is stored before the next is begun on that thread.
    Contexts that are `short` of work come last, so that threads end at about the same time.
    """
    cells = {job.key: cell for job in jobs if (cell := store.load(job.key)) is not None}
    missing: dict[int, list[Job]] = {}
    for job in jobs:
        if job.key not in cells:
            missing.setdefault(job.context, []).append(job)
    if missing:
        make = prepare()
        total = len({job.context for job in jobs})
        clock = Clock("ablation", total, total - len(missing), report)

        def work(contexts: Sequence[int]) -> dict[str, Measurement]:
            some = [job for context in contexts for job in missing[context]]
            made = dict(zip((job.key for job in some), make(some), strict=True))
            for key, cell in made.items():
                store.save(key, cell)
            clock.tick(len(contexts))
            return made

        for made in side_by_side(work, in_parts(sorted(missing, key=short), contexts_per_call), workers):
            cells |= made
    return [cells[job.key] for job in jobs]


def in_parts(items: Sequence[In], size: int) -> list[Sequence[In]]:
    """The items in order, `size` at a time."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def side_by_side(work: Callable[[In], Out], items: Iterable[In], workers: int) -> Iterator[Out]:
    """`work` of each item, in order, `workers` at once, each on one thread of torch whatever their number.

    One thread a context: results do not hang on how many there are, and contexts side by side scale better than
    threads within one. What has not begun when something fails, or Ctrl-C comes, is dropped.
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
