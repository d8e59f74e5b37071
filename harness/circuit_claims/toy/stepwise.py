"""The attention-only model one named step at a time: every intermediate is shown to a visitor, who may replace it.

Names and shapes are transformer-lens' own (blocks.0.attn.hook_pattern, ...). `AttentionOnly.forward` fuses these steps
for speed; this spells them out, for looking and for intervening. `toy.hooked` puts transformer-lens'
hook points on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuit_claims.toy.model import Attention, AttentionOnly, AttentionOnlyConfig, LayerNorm

Visit = Callable[[str, Tensor], Tensor]

BEFORE = ("hook_embed", "hook_pos_embed")
AFTER = ("ln_final.hook_scale", "ln_final.hook_normalized", "unembed.hook_in", "unembed.hook_out")
IN_LAYER = (
    "hook_resid_pre", "ln1.hook_scale", "ln1.hook_normalized", "attn.hook_q", "attn.hook_k", "attn.hook_v",
    "attn.hook_attn_scores", "attn.hook_pattern", "attn.hook_z", "hook_attn_out", "hook_resid_post",
)  # fmt: skip


def point_names(config: AttentionOnlyConfig) -> tuple[str, ...]:
    """Every name a visitor sees, in the order it sees them.

    >>> point_names(AttentionOnlyConfig(n_layers=1))[2:4]
    ('blocks.0.hook_resid_pre', 'blocks.0.ln1.hook_scale')
    """
    layers = (f"blocks.{layer}.{name}" for layer in range(config.n_layers) for name in IN_LAYER)
    return (*BEFORE, *layers, *AFTER)


def forward_visited(
    model: AttentionOnly, tokens: Int[Tensor, "batch pos"], visit: Visit
) -> Float[Tensor, "batch pos vocab"]:
    """Logits in nats; `visit(name, tensor)` gets each intermediate and returns what the rest is computed from.

    Queries, keys, values and z are (batch, pos, head, k), scores and patterns (batch, head, query, key), scores -inf
    where a key lies after its query. Positions of hook_pos_embed are repeated over the batch. Raises ValueError where
    the context is shorter than the tokens.
    """
    resid = visit("hook_embed", model.embed["W_E"][tokens])
    positions = visit("hook_pos_embed", model.positions(tokens.shape[1]).expand(len(tokens), -1, -1))
    for layer, block in enumerate(model.blocks):
        at = f"blocks.{layer}."
        resid = visit(f"{at}hook_resid_pre", resid)
        normed = _norm(block.ln1, resid, f"{at}ln1.", visit)
        write = visit(f"{at}hook_attn_out", _attention(block.attn, normed, positions, f"{at}attn.", visit))
        resid = visit(f"{at}hook_resid_post", resid + write)
    final = visit("unembed.hook_in", _norm(model.ln_final, resid, "ln_final.", visit))
    return visit("unembed.hook_out", final @ model.unembed["W_U"] + model.unembed["b_U"])


def _norm(norm: LayerNorm, resid: Float[Tensor, "batch pos d"], at: str, visit: Visit) -> Float[Tensor, "batch pos d"]:
    centred = resid - resid.mean(-1, keepdim=True)
    scale = visit(f"{at}hook_scale", (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt())  # (batch, pos, 1)
    return visit(f"{at}hook_normalized", centred / scale) * norm.w + norm.b


def _attention(
    attn: Attention, normed: Float[Tensor, "batch pos d"], positions: Float[Tensor, "batch pos d"], at: str,
    visit: Visit,
) -> Float[Tensor, "batch pos d"]:  # fmt: skip
    located, length = normed + positions, normed.shape[1]
    query = visit(f"{at}hook_q", _heads(located, attn.W_Q) + attn.b_Q)
    key = visit(f"{at}hook_k", _heads(located, attn.W_K) + attn.b_K)
    value = visit(f"{at}hook_v", _heads(normed, attn.W_V) + attn.b_V)
    later = torch.ones(length, length, dtype=torch.bool, device=normed.device).triu(1)
    scores = torch.einsum("bqhk,bshk->bhqs", query, key) / math.sqrt(query.shape[-1])
    scores = visit(f"{at}hook_attn_scores", scores.masked_fill(later, -math.inf))
    pattern = visit(f"{at}hook_pattern", scores.softmax(-1))
    mixed = visit(f"{at}hook_z", torch.einsum("bhqs,bshk->bqhk", pattern, value))
    return torch.einsum("bqhk,hkd->bqd", mixed, attn.W_O) + attn.b_O


def _heads(inputs: Float[Tensor, "batch pos d"], weight: Float[Tensor, "head d k"]) -> Tensor:
    return torch.einsum("bpd,hdk->bphk", inputs, weight)
