"""How much one head reads from another: composition scores of weights, and ablation of the path between two heads.

K-composition is Elhage et al.'s (2021) ||W_QK W_OV^T|| / (||W_QK|| ||W_OV||) in Frobenius norms, as the authors of the
second paper record it for all pairs: 1/sqrt(d_model) (0.0625 at 256) for independent random weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from harness.attention_only.model import AttentionOnly, attend, project

Reader = Literal["K", "Q", "V"]


def composition(model: AttentionOnly, reader: Reader = "K", *, gain: bool = False) -> Float[Tensor, "writer reader"]:
    """Composition of every head of layer 0 with every head of layer 1, through keys, queries or values.

    `gain` multiplies the reader's input side by the gain of its LayerNorm, which the plain score leaves out.
    Raises ValueError for a model without a second layer.
    """
    _need_two_layers(model)
    first, second = model.blocks[0].attn, model.blocks[1].attn
    weight = model.blocks[1].ln1.w[None, :, None] if gain else 1.0
    if reader == "V":
        left, right = weight * second.W_V, second.W_O.transpose(1, 2)
    else:
        sides = (second.W_K, second.W_Q) if reader == "K" else (second.W_Q, second.W_K)
        left, right = weight * sides[0], sides[1]
    value, output = first.W_V, first.W_O.transpose(1, 2)
    # || left right^T output value^T || without a d x d matrix: norms of a product follow from the small Gram matrices.
    inner = torch.einsum("rdk,wdm->wrkm", left, output)  # (writer, reader, k, m)
    grams = [torch.einsum("hdk,hdm->hkm", each, each) for each in (right, value, left, output)]
    top = torch.einsum("wrkm,rkl,wrln,wmn->wr", inner, grams[0], inner, grams[1]).clamp_min(0).sqrt()
    reads = torch.einsum("rkl,rkl->r", grams[2], grams[0]).clamp_min(0).sqrt()
    writes = torch.einsum("wkl,wkl->w", grams[3], grams[1]).clamp_min(0).sqrt()
    return (top / (writes[:, None] * reads[None]).clamp_min(1e-30)).detach()


@dataclass(frozen=True)
class PathEffects:
    """Loss added, in nats, at each predicted position when a reader in layer 1 no longer sees one writer in layer 0."""

    loss_change: Float[Tensor, "writer reader row pos"]

    def means(self) -> Float[Tensor, "writer reader"]:
        """Mean over rows and positions."""
        return self.loss_change.mean((2, 3))


@torch.no_grad()
def path_effects(
    model: AttentionOnly, tokens: Int[Tensor, "row pos"], *, through: str = "K", resample: torch.Generator | None = None
) -> PathEffects:
    """Ablate every path from a head of layer 0 to the inputs `through` (some of "KQV") of a head of layer 1.

    The reader alone gets the residual stream with the writer's output replaced by its mean over all rows and
    positions, or, with `resample`, by the writer's output in another row at the same position. Everything else reads
    the true stream. Raises ValueError for a model without a second layer.
    """
    _need_two_layers(model)
    inputs, positions = tokens[:, :-1], model.positions(tokens.shape[1] - 1)
    block = model.blocks[1]
    writes = head_writes(model, 0, model.blocks[0].ln1(model.embed["W_E"][inputs]))
    resid = model.blocks[0](model.embed["W_E"][inputs], positions)
    mixed = block.attn.mix(block.ln1(resid), positions)  # (row, head, pos, k)
    whole = resid + mixed.transpose(1, 2).flatten(2) @ block.attn.W_O.flatten(0, 1) + block.attn.b_O
    before = token_losses(model, whole, tokens)
    order = None if resample is None else torch.randperm(len(tokens), generator=resample).to(tokens.device)
    heads, changes = model.config.n_heads, []
    for writer in range(heads):
        put = writes[:, writer].mean((0, 1)) if order is None else writes[order, writer]
        ablated = _read(block, resid, resid - writes[:, writer] + put, positions, through)
        difference = ablated - mixed
        for reader in range(heads):
            changed = whole + difference[:, reader] @ block.attn.W_O[reader]
            changes.append(token_losses(model, changed, tokens) - before)
    return PathEffects(torch.stack(changes).unflatten(0, (heads, heads)))


def _read(block: torch.nn.Module, resid: Tensor, altered: Tensor, positions: Tensor, through: str) -> Tensor:
    """What all heads of a layer gather when the inputs in `through` come from the altered stream."""
    true, false = block.ln1(resid), block.ln1(altered)
    attn, streams = block.attn, {letter: false if letter in through else true for letter in "QKV"}
    return attend(
        project(streams["Q"] + positions, attn.W_Q, attn.b_Q),
        project(streams["K"] + positions, attn.W_K, attn.b_K),
        project(streams["V"], attn.W_V, attn.b_V),
    )


@torch.no_grad()
def head_writes(
    model: AttentionOnly, layer: int, normed: Float[Tensor, "row pos d"]
) -> Float[Tensor, "row head pos d"]:
    """What each head of a layer adds to the residual stream, without the shared output bias."""
    attn = model.blocks[layer].attn
    mixed = attn.mix(normed, model.positions(normed.shape[1]))
    return torch.einsum("rhpk,hkd->rhpd", mixed, attn.W_O)


@torch.no_grad()
def token_losses(
    model: AttentionOnly, resid: Float[Tensor, "row pos d"], tokens: Int[Tensor, "row long"]
) -> Float[Tensor, "row pos"]:
    """Next-token loss of each position, in nats, from the residual stream behind the last layer."""
    logits = model.ln_final(resid) @ model.unembed["W_U"] + model.unembed["b_U"]
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(len(tokens), -1)


def _need_two_layers(model: AttentionOnly) -> None:
    if model.config.n_layers < 2:
        raise ValueError(
            f"composition of heads: expected a model of two layers, found {model.config.n_layers}. "
            "The one-layer run has no pairs of heads to compose"
        )
