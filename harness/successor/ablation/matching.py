"""Random heads to set beside a chosen one: of its layer, or of its size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from harness.successor.ablation.results import DirectEffects, Head


def sizes(effects: Sequence[DirectEffects]) -> Float[np.ndarray, " head"]:
    """Each head's mean absolute effect (mean ablation) on the correct token's logit over all cases of all contexts."""
    total = sum(np.abs(one.mean.astype(np.float64)).sum(1) for one in effects)
    return total / sum(one.mean.shape[1] for one in effects)


def matched_heads(
    effects: Sequence[DirectEffects],
    head: Head,
    count: int,
    generator: np.random.Generator,
    by: Literal["layer", "size"] = "size",
) -> list[Head]:
    """`count` heads drawn at random from those most like `head`, which is never among them.

    `layer`: from its layer, where heads read and are read from the same places. `size`: from the 3 x `count` heads
    whose mean absolute effect is nearest to its own, whatever they do, so that what is special about the chosen head
    is not that it does much. Raises ValueError where there are too few, KeyError for a head the model does not have.
    """
    heads, own = effects[0].heads, effects[0].row(head)
    others = np.delete(np.arange(len(heads)), own)
    if by == "layer":
        pool = others[heads[others, 0] == head[0]]
    else:
        size = sizes(effects)
        pool = others[np.argsort(np.abs(size[others] - size[own]), kind="stable")[: 3 * count]]
    if len(pool) < count:
        raise ValueError(f"heads like {head} by {by}: expected at least {count}, found {len(pool)}; ask for fewer")
    chosen = generator.choice(pool, count, replace=False)
    return [(int(layer), int(number)) for layer, number in heads[np.sort(chosen)]]
