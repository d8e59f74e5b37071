"""Toy vocabularies, logits made from a table over ids, and a plain slow scorer: what the score tests stand on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from circuit_claims.papers.successor_heads.dataset import PAPER_TASKS, Entry, SuccessionDataset, spell
from torch import Tensor

ALL_TEXTS = tuple(
    dict.fromkeys(spell(item, form) for task in PAPER_TASKS for form in task.forms for item in task.items)
)


class Words:
    """A vocabulary that is just a list of texts; ids are places in the list."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.ids: Mapping[str, int] = {text: place for place, text in enumerate(dict.fromkeys(texts))}

    def single_token(self, text: str) -> int | None:
        return self.ids.get(text)

    def __len__(self) -> int:
        return len(self.ids)


def small_words() -> Words:
    """Days, number words and ordinals plain and after a space, the numbers 1 to 12: about a tenth of the dataset."""
    kept = {"days", "number words", "ordinal words"}
    texts = [
        spell(item, form) for task in PAPER_TASKS if task.name in kept for form in task.forms for item in task.items
    ]
    return Words([*texts, *(str(number) for number in range(1, 13)), " May", " Apr", " Jun", " June", " April"])


def layers_of(table: Tensor, dataset: SuccessionDataset) -> list[list[Tensor]]:
    """Group logits, layer by layer, out of a table (layer, head, input id, candidate id)."""
    return [[layer[:, list(group.inputs)][:, :, list(group.candidates)] for group in dataset.groups] for layer in table]


def planted_table(dataset: SuccessionDataset, words: Words, heads: int, generator: torch.Generator) -> Tensor:
    """Random logits (1, head, id, id), with a perfect successor in the last head."""
    table = torch.randn(1, heads, len(words), len(words), generator=generator)
    for entry, successor in plain_pairs(dataset):
        table[0, -1, entry.token, successor.token] = 100.0
    return table


def plain_pairs(dataset: SuccessionDataset) -> list[tuple[Entry, Entry]]:
    """Every (entry, successor) of the dataset by looking each of them up: no strands, no weights."""
    lookup = {(entry.task, entry.form, entry.order): entry for entry in dataset.entries}
    tasks = {task.name: task for task in dataset.tasks}
    pairs = []
    for entry in dataset.entries:
        task, following = tasks[entry.task], entry.order + 1
        if task.cyclic and dataset.wraps:
            following %= len(task.items)
        if (successor := lookup.get((entry.task, entry.form, following))) is not None:
            pairs.append((entry, successor))
    return pairs


def slow_scores(table: np.ndarray, dataset: SuccessionDataset, exclude_self: bool) -> tuple[float, float, float]:
    """Score, mean over tasks and copy score of one head from its table (input id, candidate id), entry by entry."""
    by_task: dict[str, list[bool]] = {}
    for entry, successor in plain_pairs(dataset):
        rivals = rivals_of(entry, dataset) - {successor.token}
        if exclude_self:
            rivals -= {entry.token}
        if rivals:
            best_rival = max(table[entry.token, rival] for rival in rivals)
            by_task.setdefault(entry.task, []).append(bool(table[entry.token, successor.token] > best_rival))
    everything = [passed for task in by_task.values() for passed in task]
    copies = [
        bool(table[entry.token, entry.token] > max(table[entry.token, rival] for rival in rivals))
        for entry in dataset.entries
        if (rivals := rivals_of(entry, dataset) - {entry.token})
    ]
    macro = float(np.mean([np.mean(task) for task in by_task.values()]))
    return float(np.mean(everything)), macro, float(np.mean(copies))


def rivals_of(entry: Entry, dataset: SuccessionDataset) -> set[int]:
    """Ids compared with one another in an entry's column: same task, and same form unless forms are mixed."""
    return {
        other.token
        for other in dataset.entries
        if other.task == entry.task and (dataset.mixed_forms or other.form == entry.form)
    }
