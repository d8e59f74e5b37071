"""The tokens that features, probes and neurons are measured on: task, form, index and successor of each.

The index of a number or digit is its value; Monday, January, first, one, A and I have 1. (The paper gives none for
letters.) A tokenizer that splits numbers has the digits 0 to 9 in place of the numbers 0 to 500.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from circuit_claims.papers.successor_heads.dataset import (
    DIGITS,
    NO_INVERSION,
    PAPER_TASKS,
    ROMAN,
    Task,
    Vocabulary,
    assemble_dataset,
    splits_numbers,
)

COUNTED = Task("numbers", tuple(str(number) for number in range(501)), forms=NO_INVERSION)
NOBODY = -1


@dataclass(frozen=True)
class CountedTokens:
    """One row a token of a task: `successor` is the row of its successor in task and form, or `NOBODY`.

    A token of two tasks ("May", "V") stands in both; `distinct` keeps the first.
    """

    tokens: Int[np.ndarray, " n"]
    texts: tuple[str, ...]
    tasks: tuple[str, ...]
    index: Int[np.ndarray, " n"]
    successor: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.texts)

    def of(self, *tasks: str) -> Bool[np.ndarray, " n"]:
        """Which rows belong to these tasks."""
        return np.array([task in tasks for task in self.tasks], dtype=bool)

    def take(self, rows: Sequence[int] | np.ndarray) -> CountedTokens:
        """Some of the rows; a successor left out is nobody, unless its token stands in another row of those kept."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        place = {int(self.tokens[row]): at for at, row in reversed(list(enumerate(rows)))}
        followed = [int(self.tokens[self.successor[row]]) if self.successor[row] != NOBODY else None for row in rows]
        return CountedTokens(
            self.tokens[rows],
            tuple(self.texts[row] for row in rows),
            tuple(self.tasks[row] for row in rows),
            self.index[rows],
            np.array([NOBODY if token is None else place.get(token, NOBODY) for token in followed], dtype=np.int64),
        )

    def distinct(self) -> CountedTokens:
        """Each token once, in the first task it stands in."""
        return self.take(np.sort(np.unique(self.tokens, return_index=True)[1]))


def counted_tokens(tokens: Vocabulary, *, roman: bool = False) -> CountedTokens:
    """The tokens of the numbers 0 to 500 (or the digits) and the seven other tasks, and of Roman numerals if asked."""
    first = DIGITS if splits_numbers(tokens) else COUNTED
    data = assemble_dataset(tokens, (first, *PAPER_TASKS[1:], *((ROMAN,) if roman else ())))
    cyclic = {task.name: len(task.items) for task in data.tasks if task.cyclic}
    rows = {(entry.task, entry.form, entry.order): row for row, entry in enumerate(data.entries)}
    following = [
        rows.get((entry.task, entry.form, (entry.order + 1) % cyclic.get(entry.task, len(rows) + 1)), NOBODY)
        for entry in data.entries
    ]
    from_zero = (first.name,)
    return CountedTokens(
        np.array([entry.token for entry in data.entries], dtype=np.int64),
        tuple(entry.text for entry in data.entries),
        tuple(entry.task for entry in data.entries),
        np.array([entry.order + (entry.task not in from_zero) for entry in data.entries], dtype=np.int64),
        np.array(following, dtype=np.int64),
    )
