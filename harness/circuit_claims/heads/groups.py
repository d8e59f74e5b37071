"""Comparison sets: which tokens a head is asked about, and among which it must choose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """One comparison set: logits of `candidates` (c ids) are wanted in the column of each of `inputs` (n ids)."""

    inputs: tuple[int, ...]
    candidates: tuple[int, ...]
