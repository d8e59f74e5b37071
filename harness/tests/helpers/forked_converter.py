"""The converter of GGUF files without its start: what it does, in a process forked from one that imported transformers.

A conversion of a small model takes a tenth of a second, the imports before it six. `test_resolve` starts the real
process where it kills one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing.reduction import DupFd
from typing import IO, Any

from tests.helpers.forked import forkserver


class ForkedConverter:
    """Stands in for `subprocess.Popen` in `circuit_claims.models.files.convert`: the same pipes, the same job."""

    def __init__(self, command: list[str], *, stdin: int, stdout: int, stderr: IO[str], **rest: Any) -> None:
        assert (command[1:-1], stdin, stdout) == (["-m", JOB], subprocess.PIPE, subprocess.PIPE)
        (read, self._alive), (self._said, write) = os.pipe(), os.pipe()
        handles = [DupFd(handle) for handle in (read, write, stderr.fileno())]
        self._process = forkserver().Process(target=_convert, args=(command[-1], handles), daemon=True)
        self._process.start()
        os.close(read)
        os.close(write)
        self.stdout = os.fdopen(self._said)

    @property
    def returncode(self) -> int | None:
        """As `subprocess.Popen` has it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.exitcode

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def wait(self) -> int | None:
        """Wait for its end."""
        self._process.join()
        os.close(self._alive)
        return self._process.exitcode


JOB = "circuit_claims.models.files.convert"


def _convert(job: str, handles: list[Any]) -> None:
    for place, handle in enumerate(handles):
        os.dup2(handle.detach(), place)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = [JOB, job]
    from circuit_claims.models.files.convert import run_job

    status = run_job()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
