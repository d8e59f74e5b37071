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

    `autoencoders` are trained for mod-10 features, `probe_seeds` probes of each modulus, on every `numbers_step`-th
    number where numbers have to be read in context; index and domain maps learn from up to `swapped_pairs`, and edits
    are made in the whole model at `context_scales` (none: left out).
    """

    name: str
    bootstrap_draws: int
    shuffles: int
    default_subjects: int | None
    lens_tokens: int
    contexts: int
    loss_contexts: int
    listings: int
    autoencoders: int
    probe_seeds: int
    numbers_step: int
    swapped_pairs: int
    context_scales: tuple[float, ...]


PROFILES: Mapping[str, Profile] = {
    "quick": Profile(
        "quick",
        bootstrap_draws=500,
        shuffles=200,
        default_subjects=1,
        lens_tokens=2_048,
        contexts=4,
        loss_contexts=2,
        listings=8,
        autoencoders=3,
        probe_seeds=2,
        numbers_step=5,
        swapped_pairs=2_000,
        context_scales=(),
    ),
    "standard": Profile(
        "standard",
        bootstrap_draws=2_000,
        shuffles=1_000,
        default_subjects=None,
        lens_tokens=8_192,
        contexts=11,
        loss_contexts=4,
        listings=64,
        autoencoders=8,
        probe_seeds=5,
        numbers_step=2,
        swapped_pairs=4_000,
        context_scales=(2.0,),
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
        autoencoders=100,
        probe_seeds=10,
        numbers_step=1,
        swapped_pairs=10_000,
        context_scales=(0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
    ),
}
