"""Commands in processes of their own that start at once: forked from a server that imported the heavy libraries."""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 300.0
# Neither running.plugin, whose asserts pytest rewrites as it imports it, nor running.command_line, which reads the
# width of the terminal; a name that cannot be imported is passed over by the server.
HEAVY = (
    "torch", "numpy", "scipy.stats", "transformers.models.llama.modeling_llama", "pydantic", "safetensors.torch",
    "tokenizers", "filelock", "platformdirs", "psutil", "hypothesis", "matplotlib.figure",
    "matplotlib.backends.backend_svg", "jinja2", "rich.console", "rich.table", "typer", "_pytest.junitxml",
    "_hypothesis_pytestplugin", "hypothesis.internal.observability", "pytest_benchmark.plugin", "pytest_timeout",
    "xdist.plugin",
    "circuit_claims.report", "circuit_claims.report.figures.plots", "circuit_claims.models.resolve",
    "circuit_claims.models.architectures.layers",
    "circuit_claims.papers.successor_heads.succession.sweep", "circuit_claims.heads.planted",
    "circuit_claims.papers.successor_heads.succession.measures",
)  # fmt: skip


def forkserver() -> Any:
    """The context whose processes are forked from the server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(HEAVY))
    return context


@dataclass(frozen=True)
class Done:
    """How a command ended (`status` below zero: the signal that ended it) and what it printed."""

    status: int
    text: str


@functools.cache
def _outputs() -> tempfile.TemporaryDirectory:
    """Where outputs go that are given no place: never into a command's own folder, which may be the clone."""
    return tempfile.TemporaryDirectory(prefix="outputs-")


class Command:
    """`pytest ...` or `claims ...`, started in `folder`; stdout and stderr go to one file in `output`, or elsewhere."""

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        output: Path | None = None,
    ) -> None:
        context = forkserver()
        handle, name = tempfile.mkstemp(".txt", "output-", output or _outputs().name)
        os.close(handle)
        self.output = Path(name)
        self.process = context.Process(
            target=_command, args=(list(words), folder, dict(environment or {}), self.output), daemon=True
        )
        self.process.start()

    def signal(self, number: int) -> None:
        """Send a signal, if the command is still running."""
        if self.process.is_alive():
            os.kill(self.process.pid, number)

    def wait(self, seconds: float = PATIENCE) -> Done | None:
        """How it ended, or None if it has not after `seconds`."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            return None
        return Done(self.process.exitcode, self.output.read_text(errors="replace"))


def run(
    words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None, output: Path | None = None
) -> Done:
    """Run a command to its end; an `AssertionError` if it does not end in five minutes."""
    command = Command(words, folder, environment, output)
    done = command.wait()
    if done is None:
        command.process.kill()
        raise AssertionError(f"{' '.join(words)} did not end in {PATIENCE:.0f} s")
    return done


def _command(words: list[str], folder: Path, environment: dict[str, str], output: Path) -> None:
    handle = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.chdir(folder)
    os.environ.update({"COLUMNS": "160", **environment})
    sys.argv = words
    # A shell that runs the tests in the background has its children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # What the server imported is no garbage: without this each of pytest's collections walks through all of it.
    gc.freeze()
    if words[0] == "pytest":
        import pytest

        sys.path.insert(0, os.getcwd())
        sys.exit(int(pytest.main(words[1:])))
    from circuit_claims.running.command_line import main

    sys.exit(main())
