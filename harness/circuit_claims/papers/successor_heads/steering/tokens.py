"""The tokens that steering works on: one task in one surface form, with the index that each string has.

The index of a number is its value; Monday, January, first, one and A have 1. (The paper gives no index for letters.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from circuit_claims.papers.successor_heads.dataset import (
    DIGITS,
    NUMBERS,
    PAPER_TASKS,
    ROMAN,
    Form,
    Task,
    Vocabulary,
    spell,
    splits_numbers,
)

BY_NAME = {task.name: task for task in (*PAPER_TASKS, DIGITS, ROMAN)}
PREFERRED: tuple[Form, ...] = ("space", "plain", "inverted+space", "inverted")


@dataclass(frozen=True)
class Items:
    """The single-token strings of one task in one form, in order. `index[place]` is what the string counts as."""

    task: str
    form: Form
    texts: tuple[str, ...]
    tokens: tuple[int, ...]
    index: tuple[int, ...]
    around: int | None = None
    """How many strings a cyclic task has; None where the last one has no successor."""

    @cached_property
    def _places(self) -> dict[int, int]:
        return {number: place for place, number in enumerate(self.index)}

    def place_of(self, index: int) -> int | None:
        """Where the string of that index stands, None where the tokenizer has none."""
        return self._places.get(index)

    def successor_of(self, index: int) -> int | None:
        """Where the successor of the string with that index stands; None for an index that the task does not have."""
        if index not in self._places:
            return None
        if self.around is not None and index == self.around:
            return self.place_of(1)
        return self.place_of(index + 1)


def items_of(tokens: Vocabulary, task: Task, form: Form | None = None) -> Items | None:
    """A task's single tokens in one form: the one with most of them, after a space where two have equally many.

    None where fewer than two strings are single tokens in any form: there is nothing to compare.
    """
    forms: list[Form] = [form] if form else [one for one in PREFERRED if one in task.forms]
    found = max((_in_form(tokens, task, one) for one in forms), key=lambda items: len(items.tokens))
    return found if len(found.tokens) > 1 else None


def _in_form(tokens: Vocabulary, task: Task, form: Form) -> Items:
    first = 0 if task is DIGITS else 1
    ids = {order: tokens.single_token(spell(item, form)) for order, item in enumerate(task.items)}
    kept = [(order, token) for order, token in ids.items() if token is not None]
    return Items(
        task.name,
        form,
        tuple(task.items[order] for order, _ in kept),
        tuple(token for _, token in kept),
        tuple(order + first for order, _ in kept),
        len(task.items) if task.cyclic else None,
    )


def counted_items(tokens: Vocabulary, names: Sequence[str] = ()) -> tuple[Items, ...]:
    """The tasks of that name (all eight and Roman numerals by default) that the tokenizer has.

    A tokenizer that splits numbers has `digits` in their place.
    """
    wanted = names or [task.name for task in (*PAPER_TASKS, ROMAN)]
    split = splits_numbers(tokens)
    tasks = [DIGITS if split and BY_NAME[name] is NUMBERS else BY_NAME[name] for name in wanted]
    return tuple(items for task in tasks if (items := items_of(tokens, task)) is not None)
