"""The lines a run ends with in the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from circuit_claims.judging.verdicts import tally


def headline(results: Path) -> Sequence[str]:
    """One line per scope from `results.json`: counts in the words of the report, worst news first."""
    verdicts = json.loads(Path(results).read_text(encoding="utf-8"))["verdicts"]
    counts = tally([(verdict["scope"], verdict["outcome"]) for verdict in verdicts])
    return [f"{scope}: {count.words()}" for scope, count in counts.items()]
