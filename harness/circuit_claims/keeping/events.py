"""The event stream of a run: one JSON object a line, appended whole and at once, so a killed run keeps its lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from circuit_claims.errors import ClaimsError
from circuit_claims.judging.json_values import to_plain

NAME = "events.jsonl"
SCHEMA = 1


class StreamError(ClaimsError, OSError):
    """The event stream cannot be written; the text says where, why, and what to type."""


class EventStream:
    """Appends events to `events.jsonl` in a run's folder. Several processes may append to one file at once.

    Both methods raise `StreamError` where the file cannot be written.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = Path(run_dir) / NAME

    def start(self) -> None:
        """Begin anew: an older stream in the same folder is kept under a numbered name."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                number = 1 + sum(1 for _ in self.path.parent.glob("events.*.jsonl"))
                self.path.rename(self.path.with_name(f"events.{number}.jsonl"))
            self.path.touch()
        except OSError as error:
            raise self._refusal(error) from error

    def write(self, event: str, **fields: Any) -> None:
        """Append one line. A single unbuffered write of the whole line: a kill can tear at most the last one."""
        plain = to_plain({"event": event, **fields})
        line = json.dumps(plain, default=_plain, ensure_ascii=True, allow_nan=False) + "\n"
        try:
            with open(self.path, "ab", buffering=0) as file:
                data = line.encode()
                while data:
                    data = data[file.write(data) :]
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> StreamError:
        return StreamError(
            f"cannot write the events of this run\n  expected  {self.path} to be writable, with room\n"
            f"  found     {error}\n  Free some space, or type: pytest claims/ --claims-report ANOTHER_FOLDER"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, np.generic):
        return to_plain(value.item())
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)
