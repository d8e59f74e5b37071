"""What this paper's claims require of a model, and what a report says of its tokens."""

from __future__ import annotations

from typing import Any

from circuit_claims.api import Subject
from circuit_claims.papers.successor_heads.contribution import LONG_CONTEXT
from circuit_claims.papers.successor_heads.dataset import splits_numbers, succession


def whole_numbers(subject: Subject) -> bool:
    """Whether the tokenizer keeps numbers such as 42 whole: as the registry says, or read off the tokenizer."""
    row = subject.model.row
    known = None if row is None else row.traits.multi_digit_numbers
    return not splits_numbers(subject.tokens) if known is None else known


def split_numbers(subject: Subject) -> bool:
    """Whether the tokenizer splits numbers such as 42."""
    return not whole_numbers(subject)


def long_contexts(subject: Subject) -> bool:
    """Whether the model reads as many tokens as the paper's contexts have; a configuration may set no limit."""
    from circuit_claims.models.architectures.names import dimensions_of

    return not 0 < dimensions_of(subject.tensors.config).n_ctx < LONG_CONTEXT


def card_lines(subject: Any) -> dict[str, Any]:
    """How many entries each task of the succession dataset has with a model's tokenizer; nothing for other subjects."""
    if not isinstance(subject, Subject):
        return {}
    return {"tokenizer": {task: sum(forms.values()) for task, forms in succession(subject.tokens).table().items()}}
