"""Who does the work of a plan: this thread, several threads, several processes. Results come as they end.

An executor is one method, `run(work, tasks)`: `work` is called once for each task's argument, and pairs (name, result)
come back in whatever order they end. What a call raises comes as a `Failure`. Closing the iterator, or throwing
KeyboardInterrupt into it, begins no further task; what was running then is waited for and still handed over, except
where the interrupt came twice.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any, Protocol, TypeVar

from circuit_claims.errors import ClaimsError

In = TypeVar("In")
Out = TypeVar("Out")
NamedTask = tuple[Any, Any]
"""A task's name, and the argument that the work gets."""
NamedResult = tuple[Any, Any]
"""A task's name, and what came of it: the work's result, or a `Failure`."""
Outcomes = Generator[NamedResult, None, None]
Work = Callable[[Any], Any]


class WorkerDied(ClaimsError, RuntimeError):
    """A worker process ended in the middle of a task: killed, out of memory, or crashed."""


@dataclass(frozen=True)
class Failure:
    """What a task raised in place of a result."""

    error: BaseException


class Executor(Protocol):
    """Runs tasks. Ray or a cluster's queue fit behind it as well."""

    def run(self, work: Work, tasks: Iterable[NamedTask]) -> Outcomes:
        """(name, `work(argument)`) of each task (name, argument), as they end."""
        ...


@dataclass(frozen=True)
class InProcess:
    """One task after the other, here."""

    def run(self, work: Work, tasks: Iterable[NamedTask]) -> Outcomes:
        """See `Executor`; an interrupt inside a task passes through."""
        for name, argument in tasks:
            yield name, _tried(work, argument)


@dataclass(frozen=True)
class Threads:
    """So many threads; `begin` is called once in each, `end` here when all are done (torch's number of threads)."""

    workers: int
    begin: Callable[[], Any] = lambda: None
    end: Callable[[], Any] = lambda: None

    def run(self, work: Work, tasks: Iterable[NamedTask]) -> Outcomes:
        """See `Executor`. At most `workers` tasks wait beside those that run, so that little is lost in memory."""
        ahead, running = iter(tasks), dict[Future, Any]()
        pool = ThreadPoolExecutor(self.workers, initializer=self.begin)
        try:
            while _fill(ahead, running, 2 * self.workers, lambda each: pool.submit(_tried, work, each)):
                yield from _ended(running)
        except KeyboardInterrupt:
            for future in [future for future in running if future.cancel()]:
                del running[future]
            while running:
                yield from _ended(running)
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            self.end()


def _fill(ahead: Iterator[NamedTask], running: dict[Future, Any], most: int, submit: Callable[[Any], Future]) -> bool:
    while len(running) < most and (task := next(ahead, None)) is not None:
        running[submit(task[1])] = task[0]
    return bool(running)


def _ended(running: dict[Future, Any]) -> Iterator[NamedResult]:
    done = wait(running, return_when=FIRST_COMPLETED).done
    for future in [future for future in running if future in done]:  # in the order they were handed in
        yield running.pop(future), future.result()


def _tried(work: Work, argument: Any) -> Any:
    try:
        return work(argument)
    except Exception as error:
        return Failure(error)


def in_order(executor: Executor, work: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    """`work` of each item, in the items' order, whatever order they end in. Raises what a call raised.

    >>> list(in_order(Threads(2), abs, [-1, 2, -3]))
    [1, 2, 3]
    """
    early, turn, outcomes = dict[int, Any](), 0, executor.run(work, enumerate(items))
    try:
        for number, result in outcomes:
            if isinstance(result, Failure):
                raise result.error
            early[number] = result
            while turn in early:
                yield early.pop(turn)
                turn += 1
    finally:
        outcomes.close()


@dataclass(frozen=True)
class Processes:
    """So many worker processes. `work` travels to each once, so what it keeps lasts from task to task.

    `work`, arguments and results are pickled; processes are spawned, so a script that uses them needs
    `if __name__ == "__main__"`. A process that dies takes its own task with it (`WorkerDied`); another is started.
    """

    workers: int

    def run(self, work: Work, tasks: Iterable[NamedTask]) -> Outcomes:
        """See `Executor`."""
        ahead, idle, busy = iter(tasks), deque[_Worker](), dict[Connection, _Worker]()
        try:
            while _hand_out(ahead, idle, busy, work, self.workers):
                yield from _answers(idle, busy)
        except KeyboardInterrupt:
            while busy:
                yield from _answers(idle, busy)
            raise
        finally:
            for worker in (*idle, *busy.values()):
                worker.stop()


def _hand_out(ahead: Iterator[NamedTask], idle: deque, busy: dict, work: Work, workers: int) -> bool:
    while len(busy) < workers and (task := next(ahead, None)) is not None:
        worker = idle.popleft() if idle else _Worker.start(work)
        worker.ask(task)
        busy[worker.line] = worker
    return bool(busy)


def _answers(idle: deque[_Worker], busy: dict[Connection, _Worker]) -> Iterator[NamedResult]:
    ready = set(wait_for(list(busy)))
    for line in [line for line in busy if line in ready]:
        worker = busy.pop(line)
        result = worker.answer()
        if worker.process.is_alive():
            idle.append(worker)
        yield worker.task, result


@dataclass
class _Worker:
    """A process, the line to it, and the task it is at."""

    process: Any
    line: Connection
    task: Any = None

    @classmethod
    def start(cls, work: Work) -> _Worker:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there,), daemon=True)
        process.start()
        there.close()
        try:
            here.send(work)
        except Exception as error:
            process.terminate()
            error.add_note("work for other processes: expected something that can be pickled, no lambda in it")
            raise
        return cls(process, here)

    def ask(self, task: NamedTask) -> None:
        """Send a task; one that died in between is noticed when its answer is read."""
        self.task, argument = task
        with suppress(OSError):
            self.line.send(argument)

    def answer(self) -> Any:
        """The result, or that the process is no more."""
        try:
            return self.line.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            how = f"by signal {-code}" if code is not None and code < 0 else f"with status {code}"
            return Failure(WorkerDied(f"the worker process of {self.task} ended {how}: killed, or out of memory"))

    def stop(self) -> None:
        """End the process, at once if it is busy: whoever asked does not wait for the answer any more."""
        self.line.close()
        self.process.terminate()
        self.process.join()


def _serve(line: Connection) -> None:
    """A worker process: takes the work, then answers each argument until the line is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says when to stop
    try:
        work = line.recv()
        while True:
            result = _tried(work, line.recv())
            try:
                line.send(_portable(result))
            except (TypeError, AttributeError, pickle.PicklingError) as error:
                refused = TypeError(f"result of a worker process: expected one that can be pickled, found: {error}")
                line.send(Failure(refused))
    except (EOFError, OSError):
        return


def _portable(result: Any) -> Any:
    """A failure whose exception cannot travel is told in words; its traceback goes along as a note."""
    if not isinstance(result, Failure):
        return result
    told = "".join(traceback.format_exception(result.error))
    result.error.add_note(f"in a worker process:\n{told}")
    try:
        pickle.loads(pickle.dumps(result))
    except Exception:
        return Failure(RuntimeError(told))
    return result
