"""What a planted counter is to be: read before any weights are made, so without torch."""

from __future__ import annotations

from dataclasses import dataclass

MOST_RESIDUES = 12


@dataclass(frozen=True)
class CounterPlan:
    """What is planted. `greater_than` False leaves out the head's preference for greater magnitudes."""

    period: int = 10
    greater_than: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not 3 <= self.period <= MOST_RESIDUES:
            raise ValueError(f"period of the planted circle: expected 3 to {MOST_RESIDUES}, found {self.period}")
