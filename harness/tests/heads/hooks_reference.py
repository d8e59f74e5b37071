"""The effective OV circuit measured the slow way: forward passes of transformer-lens, one head at a time, with hooks.

No weight matrix is touched here: the head's input is injected into the running model, all other heads are silenced,
and what the head alone writes is carried to the end of the model and read out there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def replaced_by(value: Tensor | float) -> Callable[..., Tensor]:
    """A hook that writes `value` over whatever passes."""
    return lambda tensor, hook: torch.zeros_like(tensor) + value


def watched(bridge: Any, tokens: Tensor, name: str, hooks: list[tuple[str, Any]]) -> Tensor:
    """What passes the hook point `name` (after other hooks there), at the last position."""
    seen: dict[str, Tensor] = {}
    with torch.no_grad():
        bridge.run_with_hooks(tokens, fwd_hooks=[*hooks, (name, lambda tensor, hook: seen.update({"value": tensor}))])
    return seen["value"][:, -1:].clone()


def reference_input(bridge: Any, tokens: Tensor, path: str, layer: int, bos: int | None = None) -> Tensor:
    """What the heads of `layer` read, (n, 1, d_model), by the definition of each path."""
    alone = tokens[:, None]
    if path == "residual":
        before = [] if bos is None else [torch.full_like(alone, bos)]
        return watched(bridge, torch.cat([*before, alone], dim=1), f"blocks.{layer}.hook_in", [])
    bare = [("pos_embed.hook_out", replaced_by(0.0))] if hasattr(bridge, "pos_embed") else []
    if path == "embed":
        return watched(bridge, alone, "blocks.0.hook_in", bare)
    if path == "block0":
        return watched(bridge, alone, "blocks.0.hook_out", bare)
    without_attention = [*bare, ("blocks.0.hook_attn_out", replaced_by(0.0))]
    name = {"mlp0": "blocks.0.hook_mlp_out", "embed+mlp0": "blocks.0.hook_out"}[path]
    return watched(bridge, alone, name, without_attention)


def reference_logits(bridge: Any, layer: int, head: int, resid: Tensor, candidates: Tensor) -> Tensor:
    """Logits (n, c) of one head that attends to a lone token whose residual stream is `resid` (n, 1, d_model)."""
    return reference_logits_of_heads(bridge, layer, [head], resid, candidates)[0]


def reference_logits_of_heads(
    bridge: Any, layer: int, heads: Sequence[int], resid: Tensor, candidates: Tensor
) -> Tensor:
    """The same of several heads, (head, n, c): each has rows of its own in the batch, in which it alone speaks."""
    here, last = f"blocks.{layer}", f"blocks.{bridge.cfg.n_layers - 1}"
    tokens, resid = torch.zeros(len(heads) * len(resid), 1, dtype=torch.long), resid.repeat(len(heads), 1, 1)
    speaks = torch.tensor(heads).repeat_interleave(len(tokens) // len(heads))  # one a row
    silent = [(f"{here}.hook_in", replaced_by(resid)), (f"{here}.attn.hook_z", replaced_by(0.0))]
    shared = watched(bridge, tokens, f"{here}.attn.hook_out", silent)  # b_O, which belongs to no head

    def only_this_head(z: Tensor, hook: Any) -> Tensor:
        every = z.reshape(*z.shape[:2], bridge.cfg.n_heads, -1)
        kept = torch.zeros_like(every)
        kept[range(len(tokens)), :, speaks] = every[range(len(tokens)), :, speaks]
        return kept.reshape(z.shape)

    alone = [
        (f"{here}.hook_in", replaced_by(resid)),
        (f"{here}.attn.hook_z", only_this_head),
        (f"{here}.attn.hook_out", lambda out, hook: out - shared),
    ]
    write = watched(bridge, tokens, f"{here}.hook_attn_out", alone)
    with torch.no_grad():
        logits = bridge.run_with_hooks(tokens, fwd_hooks=[(f"{last}.hook_out", replaced_by(write))])
    return logits[:, -1, candidates].unflatten(0, (len(heads), -1))
