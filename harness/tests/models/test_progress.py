"""Progress: silent for what is quick, one line where there is no terminal, a bar where there is one."""

from __future__ import annotations

import io

import pytest
from circuit_claims.models import progress as module
from circuit_claims.models.progress import Counter, quiet, shown
from rich.console import Console


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test sets."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed; `terminal` is decided by the console that a test makes."""
    return io.StringIO()


def console(monkeypatch: pytest.MonkeyPatch, written: io.StringIO, terminal: bool) -> None:
    made = Console(file=written, force_terminal=terminal, width=100)
    monkeypatch.setattr("rich.console.Console", lambda **settings: made)


def test_what_is_quick_is_not_shown(clock, written, monkeypatch):
    console(monkeypatch, written, terminal=False)
    with shown(None) as bar:
        bar("checking", 1, 2)
        clock[0] = 1.9
        bar("checking", 2, 2)
    assert written.getvalue() == ""


def test_without_a_terminal_a_slow_step_is_one_line(clock, written, monkeypatch):
    console(monkeypatch, written, terminal=False)
    with shown(None) as bar:
        for second in range(9):
            clock[0] = float(second)
            bar("converting [bold]hostile[/bold] name", second, 9)
        bar("next step")
    assert written.getvalue() == "converting [bold]hostile[/bold] name ...\n"


def test_on_a_terminal_a_slow_step_is_a_bar(clock, written, monkeypatch):
    console(monkeypatch, written, terminal=True)
    with shown(None) as bar:
        bar("downloading", 0, 4_000_000)
        clock[0] = 3.0
        bar("downloading", 1_000_000, 4_000_000)
    assert "downloading" in written.getvalue()
    assert "MB" in written.getvalue()


def test_a_progress_that_is_given_is_used():
    with shown(quiet) as bar:
        assert bar is quiet


def test_a_counter_adds_up():
    heard = []
    counter = Counter(lambda what, done=0, total=None: heard.append((what, done, total)), "hashing", 5)
    counter(2)
    counter(3)
    assert heard == [("hashing", 2, 5), ("hashing", 5, 5)]
