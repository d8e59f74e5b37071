"""The planted counter as a subject: how it is found in a run, without torch until its weights are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from circuit_claims.api import Context
from circuit_claims.papers.successor_heads.counting.planted.plan import CounterPlan

if TYPE_CHECKING:
    from circuit_claims.heads.planted import TensorTable


@dataclass(frozen=True)
class CounterTokens:
    """The planted vocabulary: each string of the planted tasks is one token."""

    ids: Mapping[str, int]
    bos_id: int | None = None

    def single_token(self, text: str) -> int | None:
        """The id of `text`, or None."""
        return self.ids.get(text)


@dataclass(frozen=True)
class CounterSubject:
    """The planted counter as a subject, measured like any other."""

    context: Context
    plan: CounterPlan = field(default_factory=CounterPlan)
    name: str = "planted counter"

    def identity(self) -> dict[str, Any]:
        """What is planted; the code that plants it is part of every measure's key."""
        return {"planted counter": dict(vars(self.plan))}

    @cached_property
    def tokens(self) -> CounterTokens:
        """The planted vocabulary."""
        from circuit_claims.papers.successor_heads.counting.planted.counter import token_ids

        return CounterTokens(token_ids())

    @cached_property
    def tensors(self) -> TensorTable:
        """The planted weights."""
        from circuit_claims.papers.successor_heads.counting.planted.counter import planted_counter

        return planted_counter(self.plan.period, greater_than=self.plan.greater_than, seed=self.plan.seed)
