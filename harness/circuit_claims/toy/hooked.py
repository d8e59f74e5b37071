"""The attention-only model on transformer-lens' hook points: to look inside it and to intervene."""

from __future__ import annotations

from typing import TYPE_CHECKING

from circuit_claims.models import bridge
from circuit_claims.toy.model import AttentionOnly
from circuit_claims.toy.stepwise import forward_visited, point_names

if TYPE_CHECKING:
    from circuit_claims.models.bridge import HookedRootModule


def hooked(model: AttentionOnly) -> HookedRootModule:
    """The attention-only model on transformer-lens' hook points, by their usual names (blocks.0.attn.hook_pattern).

    For `run_with_hooks` and `run_with_cache` (which gives a plain dict). It holds the model itself, not a copy: what
    changes there shows here. Logits are those of `AttentionOnly.forward` to 1e-5, by the steps of `forward_visited`.

    >>> from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig
    >>> import torch
    >>> model = AttentionOnly(AttentionOnlyConfig(n_layers=1, d_vocab=11, n_ctx=4)).initialise(seed=1)
    >>> logits, cache = hooked(model).run_with_cache(torch.tensor([[1, 2, 3]]))
    >>> cache["blocks.0.attn.hook_pattern"].shape
    torch.Size([1, 8, 3, 3])
    """
    return bridge.on_hook_points(
        model, point_names(model.config), lambda tokens, visit: forward_visited(model, tokens, visit)
    )
