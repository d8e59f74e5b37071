"""How much one head reads from another: composition scores of weights, and ablation of the path between two heads.

K-composition is Elhage et al.'s (2021) ||W_QK W_OV^T|| / (||W_QK|| ||W_OV||) in Frobenius norms, as Wang et al.
(2025) record it for all pairs: 1/sqrt(d_model) (0.0625 at 256) for independent random weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from circuit_claims.toy.attention import attend, project
from circuit_claims.toy.model import AttentionOnly, Block

if TYPE_CHECKING:
    from circuit_claims.heads.network import Network

Reader = Literal["K", "Q", "V"]
CHUNK = 8  # rows whose logits are held at once


def composition(model: AttentionOnly, reader: Reader = "K", *, gain: bool = False) -> Float[Tensor, "writer reader"]:
    """Composition of every head of layer 0 with every head of layer 1, through keys, queries or values.

    `gain` multiplies the reader's input side by the gain of its LayerNorm, which the plain score leaves out.
    Raises ValueError for a model without a second layer.
    """
    _need_two_layers(model)
    first, second = model.blocks[0].attn, model.blocks[1].attn
    weight = model.blocks[1].ln1.w[None, :, None] if gain else 1.0
    return _scores(first, second, reader, weight)


def composition_between(
    network: Network, writer: int, reader: int, through: Reader = "K"
) -> Float[Tensor, "writer reader"]:
    """Composition of every head of layer `writer` with every head of a later layer `reader`, of any decoder.

    From the matrices alone: gains of norms, and rotary turns between query and key, are left out. Raises ValueError
    where the reader does not lie behind the writer.

    >>> from circuit_claims.heads.head_types_planted import planted_types_model
    >>> from circuit_claims.heads.network import network_of
    >>> network = network_of(planted_types_model({"0:1": "previous-token", "1:6": "induction"}))
    >>> table = composition_between(network, 0, 1)
    >>> divmod(int(table.argmax()), 8)
    (1, 6)
    """
    if not 0 <= writer < reader < network.n_layers:
        raise ValueError(
            f"composition: expected a layer to write and a later one to read, of {network.n_layers}, found {writer} "
            f"and {reader}"
        )
    return _scores(network.weights(writer), network.weights(reader), through, 1.0)


def _scores(first: Any, second: Any, reader: Reader, weight: Any) -> Float[Tensor, "writer reader"]:
    """`first` and `second` have W_Q, W_K, W_V (head, d_model, d_head) and W_O (head, d_head, d_model)."""
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


Order = Int[Tensor, " row"] | None


@torch.no_grad()
def path_ablated(
    model: AttentionOnly, inputs: Int[Tensor, "row pos"], *, through: str = "K", order: Order = None
) -> Iterator[tuple[int, int, Float[Tensor, "row pos d"]]]:
    """The last residual stream with the path from one head of layer 0 to one of layer 1 cut, for every pair.

    The reader alone gets, at the inputs `through` (some of "KQV"), the stream with the writer's output replaced by its
    mean over all rows and positions, or, with `order`, by the writer's output in another row at the same position.
    Everything else reads the true stream. Raises ValueError for a model without a second layer.
    """
    _need_two_layers(model)
    positions, block = model.positions(inputs.shape[1]), model.blocks[1]
    writes = head_writes(model, 0, model.blocks[0].ln1(model.embed["W_E"][inputs]))
    resid = model.blocks[0](model.embed["W_E"][inputs], positions)
    mixed = block.attn.mix(block.ln1(resid), positions)  # (row, head, pos, k)
    whole = block(resid, positions)
    for writer in range(model.config.n_heads):
        put = replacement(writes[:, writer], order)
        difference = _read(block, resid, resid - writes[:, writer] + put, positions, through) - mixed
        for reader in range(model.config.n_heads):
            yield writer, reader, whole + difference[:, reader] @ block.attn.W_O[reader]


@torch.no_grad()
def head_ablated(
    model: AttentionOnly, inputs: Int[Tensor, "row pos"], *, order: Order = None
) -> Iterator[tuple[int, int, Float[Tensor, "row pos d"]]]:
    """The last residual stream with one head's output replaced, as in `path_ablated`, for all that reads it."""
    positions, resid = model.positions(inputs.shape[1]), model.embed["W_E"][inputs]
    for layer, block in enumerate(model.blocks):
        writes = head_writes(model, layer, block.ln1(resid))
        after = block(resid, positions)
        for head in range(model.config.n_heads):
            changed = after - writes[:, head] + replacement(writes[:, head], order)
            for later in model.blocks[layer + 1 :]:
                changed = later(changed, positions)
            yield layer, head, changed
        resid = after


@torch.no_grad()
def ablated_to(
    model: AttentionOnly, inputs: Int[Tensor, "row pos"], head: tuple[int, int], put: Float[Tensor, " d"]
) -> Float[Tensor, "row pos d"]:
    """The last residual stream with the write of `head` (layer, head) replaced by the same vector everywhere."""
    positions, resid = model.positions(inputs.shape[1]), model.embed["W_E"][inputs]
    for layer, block in enumerate(model.blocks):
        after = block(resid, positions)
        if layer == head[0]:
            after = after - head_writes(model, layer, block.ln1(resid))[:, head[1]] + put
        resid = after
    return resid


def replacement(write: Float[Tensor, "row pos d"], order: Order) -> Float[Tensor, "... d"]:
    """What stands in for an ablated write: its mean over rows and positions, or the write of other rows."""
    return write.mean((0, 1)) if order is None else write[order]


def path_effects(
    model: AttentionOnly, tokens: Int[Tensor, "row pos"], *, through: str = "K", order: Order = None
) -> Float[Tensor, "writer reader row pos"]:
    """Loss added, in nats, at each predicted position when a reader no longer sees one writer: see `path_ablated`."""
    return _loss_changes(model, tokens, path_ablated(model, tokens[:, :-1], through=through, order=order))


def head_loss_changes(
    model: AttentionOnly, tokens: Int[Tensor, "row pos"], *, order: Order = None
) -> Float[Tensor, "layer head row pos"]:
    """Loss added, in nats, at each predicted position when one head is ablated: see `head_ablated`."""
    return _loss_changes(model, tokens, head_ablated(model, tokens[:, :-1], order=order))


def _loss_changes(model: AttentionOnly, tokens: Tensor, ablated: Iterator[tuple[int, int, Tensor]]) -> Tensor:
    resid = model.embed["W_E"][tokens[:, :-1]]
    with torch.no_grad():
        for block in model.blocks:
            resid = block(resid, model.positions(tokens.shape[1] - 1))
        before = token_losses(model, resid, tokens)
        found = torch.stack([token_losses(model, changed, tokens) - before for _, _, changed in ablated])
    return found.unflatten(0, (-1, model.config.n_heads))


def _read(block: Block, resid: Tensor, altered: Tensor, positions: Tensor, through: str) -> Tensor:
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
    found = []
    for some, rows in zip(resid.split(CHUNK), tokens.split(CHUNK), strict=True):
        logits = model.ln_final(some) @ model.unembed["W_U"] + model.unembed["b_U"]
        losses = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
        found.append(losses.view(len(rows), -1))
    return torch.cat(found)


def _need_two_layers(model: AttentionOnly) -> None:
    if model.config.n_layers < 2:
        raise ValueError(
            f"composition of heads: expected a model of two layers, found {model.config.n_layers}. "
            "The one-layer run has no pairs of heads to compose"
        )
