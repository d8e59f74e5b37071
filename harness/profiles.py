"""How much a run does: three named profiles, from a check of the machinery to everything there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """`bootstrap_draws` for intervals, `shuffles` for nulls, and how many default subjects are asked (None: all).

    `contexts` of 512 tokens are read by each subject on natural text, losses are taken on the first `loss_contexts` of
    them, and `listings` prompts end in a numbered list. In the standard profile the three default subjects read about
    32 contexts between them.
    """

    name: str
    bootstrap_draws: int
    shuffles: int
    default_subjects: int | None
    lens_tokens: int
    contexts: int
    loss_contexts: int
    listings: int


PROFILES: Mapping[str, Profile] = {
    "quick": Profile(
        "quick",
        bootstrap_draws=500,
        shuffles=200,
        default_subjects=1,
        lens_tokens=2_048,
        contexts=6,
        loss_contexts=3,
        listings=16,
    ),
    "standard": Profile(
        "standard",
        bootstrap_draws=2_000,
        shuffles=1_000,
        default_subjects=None,
        lens_tokens=8_192,
        contexts=11,
        loss_contexts=6,
        listings=64,
    ),
    "full": Profile(
        "full",
        bootstrap_draws=10_000,
        shuffles=10_000,
        default_subjects=None,
        lens_tokens=16_384,
        contexts=128,
        loss_contexts=128,
        listings=64,
    ),
}
