"""The positive control as a subject: a model in which one head is a perfect successor on the whole dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from circuit_claims.api import Context
from circuit_claims.papers.successor_heads.dataset import DIGITS, PAPER_TASKS, ROMAN, Form, Task, spell

if TYPE_CHECKING:
    from circuit_claims.heads.planted import TensorTable

# Numbers above 20 would only widen the model: with these the control has about 300 tokens.
TASKS: tuple[Task, ...] = (DIGITS, *PAPER_TASKS[1:], ROMAN)


@dataclass(frozen=True)
class WordTokens:
    """A vocabulary in which each string of the planted tasks is one token, and nothing else is."""

    ids: Mapping[str, int]
    bos_id: int | None = None

    def single_token(self, text: str) -> int | None:
        """The id of `text`, or None."""
        return self.ids.get(text)


@dataclass(frozen=True)
class PlantedSubject:
    """A random small model with `heads` made perfect successors by construction; measured like any other subject.

    `grown` mixes the random weights (0) with the planted ones (1).
    """

    context: Context
    heads: tuple[tuple[int, int], ...] = ((1, 2),)
    seed: int = 0
    name: str = "planted"
    grown: float = 1.0

    def identity(self) -> dict[str, Any]:
        """What the planted weights are drawn from; the code that plants them is part of every measure's key."""
        return {"planted": [list(head) for head in self.heads], "seed": self.seed, "grown": self.grown}

    def at_step(self, step: int) -> PlantedSubject:
        """The same model at a training step of a made-up run in which the head appears all at once, at step 512."""
        return replace(self, grown=float(step >= 512))

    @cached_property
    def tokens(self) -> WordTokens:
        """The planted vocabulary; id 0 is kept for the end of text."""
        texts = dict.fromkeys(spell(item, form) for task in TASKS for form in task.forms for item in task.items)
        return WordTokens({text: index for index, text in enumerate(texts, start=1)})

    @cached_property
    def tensors(self) -> TensorTable:
        """The planted weights: a two-layer Llama with random matrices and the heads solved for."""
        import torch

        from circuit_claims.heads.planted import plant, random_tensors, small_config

        generator = torch.Generator().manual_seed(self.seed)
        orders, cyclic = self._orders()
        tokens = {token for order in orders for token in order}
        bare = table = random_tensors(small_config("llama", len(tokens), max(tokens) + 1), generator)
        for head in self.heads:
            table = plant(table, orders, head=head, generator=generator, cyclic=cyclic)
        mixed = {name: torch.lerp(bare.tensors[name], table.tensors[name], self.grown) for name in table.tensors}
        return replace(table, tensors=mixed)

    def _orders(self) -> tuple[list[list[int]], Sequence[bool]]:
        lists: list[tuple[Task, Form]] = [(task, form) for task in TASKS for form in task.forms]
        orders = [[self.tokens.ids[spell(item, form)] for item in task.items] for task, form in lists]
        return orders, [task.cyclic for task, _ in lists]
