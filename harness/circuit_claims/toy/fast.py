"""The training loss on a CPU: the same function as the plain one, by steps that move fewer bytes.

`plain_loss` is the reference. What `fast_loss` changes: causal attention in blocks of rows that skip what the mask
hides, on tables laid out for its products; a cross-entropy whose forward pass leaves behind what its
gradient needs, so that the table of batch x vocabulary is written twice and normalised never; and products in bf16
where they are asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from circuit_claims.toy.attention import project
from circuit_claims.toy.model import Attention, AttentionOnly

ROWS = 128
Scores = Float[Tensor, "batch head row col"]  # fp32 or bf16


def plain_loss(model: AttentionOnly, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats of each next token, in the model's own precision."""
    logits = model(tokens)[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def fast_loss(
    model: AttentionOnly, tokens: Int[Tensor, "batch pos"], dtype: torch.dtype = torch.float32
) -> Float[Tensor, ""]:
    """`plain_loss` with products in `dtype`; weights, residual stream, norms and the optimiser's sums stay fp32."""
    positions = model.positions(tokens.shape[1]).to(dtype)
    resid = model.embed["W_E"][tokens]  # (batch, pos, d)
    for block in model.blocks:
        inputs = heads_of(block.ln1(resid).to(dtype), block.attn, positions)
        mixed = BlockedAttention.apply(inputs).transpose(1, 2).flatten(2)  # (batch, pos, head * k)
        resid = resid + (mixed @ block.attn.W_O.flatten(0, 1).to(dtype)).float() + block.attn.b_O
    hidden = model.ln_final(resid)[:, :-1].flatten(0, 1).to(dtype)  # (batch * (pos - 1), d)
    unembed = model.unembed
    return CrossEntropy.apply(hidden, unembed["W_U"].to(dtype), unembed["b_U"], tokens[:, 1:].flatten())


def heads_of(
    normed: Float[Tensor, "batch pos d"], attn: Attention, positions: Float[Tensor, "pos d"]
) -> Float[Tensor, "three batch head pos k"]:
    """Queries, keys and values of all heads, contiguous so that the products to come need no copies.

    Three products: one of q and k, or of all three by W (x + p) = W x + W p, was measured and is no faster.
    """
    located, dtype = normed + positions, normed.dtype
    # No pattern depends on b_K: its gradient is zero, and AdamW would blow rounding noise up into a random walk.
    inputs = (
        (located, attn.W_Q, attn.b_Q), (located, attn.W_K, torch.zeros_like(attn.b_K)), (normed, attn.W_V, attn.b_V),
    )  # fmt: skip
    return torch.stack([project(one, weight.to(dtype), bias.to(dtype)) for one, weight, bias in inputs])


class BlockedAttention(torch.autograd.Function):
    """Causal softmax attention over blocks of `ROWS` queries, which skip most of what the mask hides.

    The exponentials are kept for the gradient as they are; what a softmax divides them by, the `totals` of their rows,
    is divided out of the sixteen times smaller outputs and gradients instead.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        """Queries, keys and values, (3, batch, head, pos, k) in fp32 or bf16; returns (batch, head, pos, k)."""
        query, key, value = inputs
        out, totals, kept = torch.empty_like(query), [], []
        for start in range(0, query.shape[2], ROWS):
            stop = min(start + ROWS, query.shape[2])
            scores = query[:, :, start:stop] @ key[:, :, :stop].transpose(-1, -2)
            weights, total = _compiled(exponentials)(scores, causal_mask(stop - start, stop), query.shape[-1] ** -0.5)
            out[:, :, start:stop] = (weights @ value[:, :, :stop]) / total
            kept.append(weights)
            totals.append(total)
        ctx.save_for_backward(inputs, out, torch.cat(totals, 2), *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradient with respect to queries, keys and values; sums over blocks in fp32."""
        inputs, out, totals, *kept = ctx.saved_tensors
        query, key, value = inputs
        to_query, to_key, to_value = to_inputs = torch.zeros_like(inputs, dtype=torch.float32)
        scaled = grad.float() / totals  # (batch, head, pos, k)
        # The sum over columns of weight x gradient is that of output x gradient.
        flow, scaled = (scaled * out.float()).sum(-1, keepdim=True), scaled.to(grad.dtype)
        for weights, start in zip(kept, range(0, query.shape[2], ROWS), strict=True):
            stop = weights.shape[-1]
            rows = scaled[:, :, start:stop]
            to_weights = rows @ value[:, :, :stop].transpose(-1, -2)
            arguments = weights, to_weights, flow[:, :, start:stop], query.shape[-1] ** -0.5
            to_scores = _compiled(gradient_of)(*arguments)
            to_query[:, :, start:stop] = to_scores @ key[:, :, :stop]
            to_key[:, :, :stop] += to_scores.transpose(-1, -2) @ query[:, :, start:stop]
            to_value[:, :, :stop] += weights.transpose(-1, -2) @ rows
        return to_inputs.to(grad.dtype)


@cache
def causal_mask(rows: int, cols: int) -> Float[Tensor, "row col"]:
    """What the last `rows` rows of a causal mask of `cols` columns add to scores: 0 or minus infinity."""
    return torch.full((rows, cols), float("-inf")).triu(cols - rows + 1)


def exponentials(
    scores: Scores, mask: Float[Tensor, "row col"], scale: float
) -> tuple[Scores, Float[Tensor, "batch head row one"]]:
    """Of masked scores less the largest of their row, and the sums that a softmax divides them by, in fp32."""
    scaled = scores.float() * scale + mask
    weights = torch.exp(scaled - scaled.amax(-1, keepdim=True))
    return weights.to(scores.dtype), weights.sum(-1, keepdim=True)


def gradient_of(weights: Scores, grad: Scores, flow: Float[Tensor, "batch head row one"], scale: float) -> Scores:
    """Gradient of the scores from that of the exponentials; hidden entries have weight 0, so need no mask."""
    return (weights.float() * (grad.float() - flow) * scale).to(weights.dtype)


class CrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of `hidden @ W_U + b_U`; what the gradient of the logits needs is made in the forward pass.

    That gradient is (exponential / total - [is the target]) / n. The table is kept without the division, which scales
    the 256 columns of `hidden` and of its gradient instead of 5,000 of logits.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        """(n, d) and (d, vocab) of one dtype, (vocab) fp32, (n) int; returns a scalar in nats."""
        logits = hidden @ weight
        correct = logits.gather(1, targets[:, None]).float() + bias[targets, None]
        table, top, total = _compiled(exponentials_of_logits)(logits, bias)
        # In fp32, not from the table: for a target that is all but certain the two nearly cancel.
        table.scatter_(1, targets[:, None], ((correct - top).exp() - total).to(table.dtype))
        ctx.save_for_backward(hidden, weight, table, total)
        return (top + total.log() - correct).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients with respect to hidden, weight and bias."""
        hidden, weight, table, total = ctx.saved_tensors
        scale = grad / (total * len(hidden))  # (n, 1)
        # A product sums rows many times faster than a reduction over bf16 does.
        to_bias = scale.T.to(table.dtype) @ table
        to_weight = (hidden * scale).to(table.dtype).T.contiguous() @ table
        return (table @ weight.T) * scale.to(table.dtype), to_weight, to_bias[0].float(), None


def exponentials_of_logits(
    logits: Float[Tensor, "n vocab"], bias: Float[Tensor, " vocab"]
) -> tuple[Float[Tensor, "n vocab"], Float[Tensor, "n one"], Float[Tensor, "n one"]]:
    """Of logits less the largest of their row; the largest; the sums of the exponentials, in fp32."""
    full = logits.float() + bias
    top = full.amax(-1, keepdim=True)
    weights = torch.exp(full - top)
    return weights.to(logits.dtype), top, weights.sum(-1, keepdim=True)


@cache
def _compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel compiled where a C++ compiler is at hand, as it stands where not: equal but for rounding."""
    return torch.compile(kernel, dynamic=False) if can_compile() else kernel


def can_compile() -> bool:
    """Whether torch can compile for the CPU on this machine."""
    return shutil.which("g++") is not None or shutil.which("clang++") is not None
