"""How much of this paper each profile measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from circuit_claims.api import PROFILES, Context, Profile

PAPER = "successor_heads"


@dataclass(frozen=True)
class ProfileAmounts:
    """`contexts` of 512 tokens are read by each subject on natural text, losses are taken on the first `loss_contexts`
    of them, and `listings` prompts end in a numbered list. Only subjects with a successor head are read. In the
    standard profile losses are taken on seven or eight documents: over fewer than six nothing is decided.

    `autoencoders` are trained for mod-10 features, `probe_seeds` probes of each modulus, on every `numbers_step`-th
    number where numbers have to be read in context; index and domain maps learn from up to `swapped_pairs`, and edits
    are made in the whole model at `context_scales` (none: left out). `lens_tokens` fit the lens of the headless path.
    """

    lens_tokens: int
    contexts: int
    loss_contexts: int
    listings: int
    autoencoders: int
    probe_seeds: int
    numbers_step: int
    swapped_pairs: int
    context_scales: tuple[float, ...]


AMOUNTS: Mapping[str, ProfileAmounts] = {
    "quick": ProfileAmounts(
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
    "standard": ProfileAmounts(
        lens_tokens=8_192,
        contexts=16,
        loss_contexts=8,
        listings=64,
        autoencoders=8,
        probe_seeds=5,
        numbers_step=2,
        swapped_pairs=4_000,
        context_scales=(2.0,),
    ),
    "full": ProfileAmounts(
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


def amounts_of(context: Context) -> ProfileAmounts:
    """How much of this paper the run measures."""
    return context.profile.amounts_of(PAPER)


def profile_of(name: str, **changes: Any) -> Profile:
    """A profile with this paper's amounts, some of them changed, for measuring without a run of the claims."""
    return replace(PROFILES[name], amounts={PAPER: replace(AMOUNTS[name], **changes)})
