"""A progress bar for whatever takes longer than two seconds, and one plain line where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import rich.progress

PATIENCE = 2.0


@runtime_checkable
class DownloadProgress(Protocol):
    """Told what is being done, how far it is, and out of how much (`None`: not known)."""

    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None:
        """Called as often as the worker likes, and at least a few times a second."""


def quiet(what: str, done: int = 0, total: int | None = None) -> None:
    """A progress that shows nothing."""


class _Bar:
    """One rich bar at a time on standard error, shown once a step has lasted `PATIENCE` seconds."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._bar: tuple[rich.progress.Progress, rich.progress.TaskID] | None = None
        self._step, self._since, self._told = "", 0.0, False

    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None:
        now = time.monotonic()
        if what != self._step:
            self.close()
            self._step, self._since, self._told = what, now, False
        if now - self._since < PATIENCE:
            return
        if not self._console.is_terminal:
            if not self._told:
                self._console.print(f"{what} ...", markup=False, highlight=False)
            self._told = True
            return
        if self._bar is None:
            self._bar = self._open(total)
        bar, task = self._bar
        bar.update(task, completed=done, total=total)

    def _open(self, total: int | None) -> tuple[rich.progress.Progress, rich.progress.TaskID]:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        sizes = (DownloadColumn(), TimeRemainingColumn()) if total else ()
        text = TextColumn("{task.description}", markup=False)
        bar = Progress(text, BarColumn(), *sizes, TimeElapsedColumn(), console=self._console, transient=True)
        task = bar.add_task(self._step, total=total)
        bar.start()
        return bar, task

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar[0].stop()
        self._bar = None


@contextmanager
def shown(progress: DownloadProgress | None) -> Iterator[DownloadProgress]:
    """`progress` itself, or for `None` a bar on standard error that is taken down at the end."""
    if progress is not None:
        yield progress
        return
    bar = _Bar()
    try:
        yield bar
    finally:
        bar.close()


class Counter:
    """Turns "so many more bytes" into "so many bytes of the total" for one step."""

    def __init__(self, progress: DownloadProgress, what: str, total: int) -> None:
        self._progress, self._what, self._total, self._done = progress, what, total, 0

    def __call__(self, more: int) -> None:
        self._done += more
        self._progress(self._what, self._done, self._total)
