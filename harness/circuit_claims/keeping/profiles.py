"""How much a run does: three named profiles, from a check of the machinery to everything there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Profile:
    """`bootstrap_draws` for intervals, `shuffles` for nulls, and how many default subjects are asked (None: all).

    `amounts` are the papers' own, by the paper's id: what only that paper's measures can do less or more of.

    >>> quick = Profile("quick", 500, 200, default_subjects=1, amounts={"induction_heads": {"rows": 16}})
    >>> quick.amounts_of("induction_heads")["rows"]
    16
    """

    name: str
    bootstrap_draws: int
    shuffles: int
    default_subjects: int | None
    amounts: Mapping[str, Any] = field(default_factory=dict)

    def amounts_of(self, paper: str) -> Any:
        """The amounts that the paper of that id brings for this profile; raises KeyError where it brings none."""
        if paper not in self.amounts:
            raise KeyError(
                f"the profile {self.name!r} has no amounts of {paper}: expected them in `amounts` of the paper's "
                f"contribution, found those of {', '.join(self.amounts) or 'no paper'}"
            )
        return self.amounts[paper]


PROFILES: Mapping[str, Profile] = {
    "quick": Profile("quick", bootstrap_draws=500, shuffles=200, default_subjects=1),
    "standard": Profile("standard", bootstrap_draws=2_000, shuffles=1_000, default_subjects=None),
    "full": Profile("full", bootstrap_draws=10_000, shuffles=10_000, default_subjects=None),
}
"""The profiles by name, without the papers' amounts: for measuring without a run of the claims, as tests do.

>>> PROFILES["quick"].bootstrap_draws
500
"""
