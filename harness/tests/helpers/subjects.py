"""Models that the tests of the command line and of whole runs ask the claims of."""

from __future__ import annotations

from pathlib import Path

import torch
from circuit_claims.heads.planted import planted_folder
from circuit_claims.papers.successor_heads.dataset import spell
from circuit_claims.papers.successor_heads.succession.planted_subject import TASKS


def save_planted_subject(folder: Path, *, tasks: tuple[str, ...] = ("digits", "days", "months", "letters")) -> Path:
    """A Hugging Face folder with a small Llama whose head L1H2 is a perfect successor on the tasks named."""
    lists = [(task, form) for task in TASKS if task.name in tasks for form in task.forms]
    orders = [[spell(item, form) for item in task.items] for task, form in lists]
    cyclic = [task.cyclic for task, _ in lists]
    return planted_folder(folder, orders, generator=torch.Generator().manual_seed(0), cyclic=cyclic)
