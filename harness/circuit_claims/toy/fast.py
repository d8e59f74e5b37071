"""The training loss in bf16 on a CPU: the same function as the plain one, with two kernels that move fewer bytes.

`plain_loss` is the reference. What `fast_loss` changes: matrix products in bf16; causal attention in blocks of rows
that skip what the mask hides; and a cross-entropy whose forward pass leaves the gradient of the logits behind, so that
the batch x vocabulary table is written twice and never read in fp32.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from jaxtyping import BFloat16, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from circuit_claims.toy.model import AttentionOnly

ROWS = 128
Scores = BFloat16[Tensor, "batch head row col"]


def plain_loss(model: AttentionOnly, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats of each next token, in the model's own precision."""
    logits = model(tokens)[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def fast_loss(model: AttentionOnly, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, ""]:
    """`plain_loss` with bf16 products; weights, residual stream, norms and the optimiser's sums stay fp32."""
    positions = model.positions(tokens.shape[1]).bfloat16()
    resid = model.embed["W_E"][tokens]  # (batch, pos, d)
    for block in model.blocks:
        normed = block.ln1(resid).bfloat16()
        located, attn = normed + positions, block.attn
        # No pattern depends on b_K: its gradient is zero, and AdamW would blow rounding noise up into a random walk.
        query, key = heads_of(located, attn.W_Q, attn.b_Q), heads_of(located, attn.W_K, torch.zeros_like(attn.b_K))
        mixed = BlockedAttention.apply(query, key, heads_of(normed, attn.W_V, attn.b_V))  # (batch, head, pos, k)
        written = mixed.transpose(1, 2).flatten(2) @ attn.W_O.flatten(0, 1).bfloat16()
        resid = resid + written.float() + attn.b_O
    hidden = model.ln_final(resid)[:, :-1].flatten(0, 1).bfloat16()  # (batch * (pos - 1), d)
    unembed = model.unembed
    return CrossEntropy.apply(hidden, unembed["W_U"].bfloat16(), unembed["b_U"], tokens[:, 1:].flatten())


def heads_of(
    inputs: BFloat16[Tensor, "batch pos d"], weight: Float[Tensor, "head d k"], bias: Float[Tensor, "head k"]
) -> BFloat16[Tensor, "batch head pos k"]:
    """Queries, keys or values of each head, contiguous so that the products below need no copies."""
    heads, width, size = weight.shape
    flat = inputs @ weight.permute(1, 0, 2).reshape(width, heads * size).bfloat16() + bias.flatten().bfloat16()
    return flat.unflatten(-1, (heads, size)).transpose(1, 2).contiguous()


class BlockedAttention(torch.autograd.Function):
    """Causal softmax attention over blocks of `ROWS` queries; the patterns are kept in bf16 for the gradient."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(batch, head, pos, k) each, bf16; returns the same shape."""
        patterns, out = [], torch.empty_like(query)
        turned = key.transpose(-1, -2).contiguous()
        for start in range(0, query.shape[2], ROWS):
            stop = min(start + ROWS, query.shape[2])
            scores = query[:, :, start:stop] @ turned[..., :stop]
            patterns.append(_compiled(softmax_of)(scores, causal_mask(stop - start, stop), query.shape[-1] ** -0.5))
            out[:, :, start:stop] = patterns[-1] @ value[:, :, :stop]
        ctx.save_for_backward(query, key, value, out, *patterns)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients with respect to queries, keys and values; sums over blocks in fp32."""
        query, key, value, out, *patterns = ctx.saved_tensors
        turned = value.transpose(-1, -2).contiguous()
        # The sum over columns of pattern x gradient is that of output x gradient, which is sixteen times smaller.
        flow = (grad.float() * out.float()).sum(-1, keepdim=True)  # (batch, head, pos, 1)
        to_query = torch.empty_like(query)
        to_key, to_value = torch.zeros_like(key, dtype=torch.float32), torch.zeros_like(value, dtype=torch.float32)
        for pattern, start in zip(patterns, range(0, query.shape[2], ROWS), strict=True):
            stop = pattern.shape[-1]
            rows = grad[:, :, start:stop].contiguous()
            to_pattern = rows @ turned[..., :stop]
            to_scores = _compiled(gradient_of)(pattern, to_pattern, flow[:, :, start:stop], query.shape[-1] ** -0.5)
            to_query[:, :, start:stop] = to_scores @ key[:, :, :stop]
            to_key[:, :, :stop] += to_scores.transpose(-1, -2) @ query[:, :, start:stop]
            to_value[:, :, :stop] += pattern.transpose(-1, -2) @ rows
        return to_query, to_key.bfloat16(), to_value.bfloat16()


@cache
def causal_mask(rows: int, cols: int) -> Float[Tensor, "row col"]:
    """What the last `rows` rows of a causal mask of `cols` columns add to scores: 0 or minus infinity."""
    return torch.full((rows, cols), float("-inf")).triu(cols - rows + 1)


def softmax_of(scores: Scores, mask: Float[Tensor, "row col"], scale: float) -> Scores:
    """Attention patterns of scores; the softmax itself in fp32."""
    scaled = scores.float() * scale + mask
    weights = torch.exp(scaled - scaled.amax(-1, keepdim=True))
    return (weights / weights.sum(-1, keepdim=True)).bfloat16()


def gradient_of(pattern: Scores, grad: Scores, flow: Float[Tensor, "batch head row one"], scale: float) -> Scores:
    """Gradient of the scores from the gradient of the patterns; hidden entries have pattern 0, so need no mask."""
    return (pattern.float() * (grad.float() - flow) * scale).bfloat16()


class CrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of `hidden @ W_U + b_U`; the gradient of the logits is made in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        """(n, d) bf16, (d, vocab) bf16, (vocab) fp32, (n) int; returns a scalar in nats."""
        loss, to_logits = loss_and_gradient(hidden @ weight, bias, targets)
        ctx.save_for_backward(hidden, weight, to_logits)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients with respect to hidden, weight and bias."""
        hidden, weight, to_logits = ctx.saved_tensors
        # A product with ones sums rows many times faster than a reduction over bf16 does.
        to_bias = torch.ones(1, len(hidden), dtype=torch.bfloat16) @ to_logits
        to_weight = hidden.T.contiguous() @ to_logits
        return grad * (to_logits @ weight.T), grad * to_weight, grad * to_bias[0].float(), None


def loss_and_gradient(
    logits: BFloat16[Tensor, "n vocab"], bias: Float[Tensor, " vocab"], targets: Int[Tensor, " n"]
) -> tuple[Float[Tensor, ""], BFloat16[Tensor, "n vocab"]]:
    """Mean cross-entropy in nats and its gradient with respect to the logits."""
    totals, to_logits = _compiled(softmax_and_total)(logits, bias)  # (n), (n, vocab)
    correct = logits.gather(1, targets[:, None]).float() + bias[targets, None]
    share = torch.exp(correct - totals[:, None])
    to_logits[torch.arange(len(targets)), targets] = ((share - 1) / len(targets)).bfloat16().squeeze(1)
    return (totals[:, None] - correct).mean(), to_logits


def softmax_and_total(
    logits: BFloat16[Tensor, "n vocab"], bias: Float[Tensor, " vocab"]
) -> tuple[Float[Tensor, " n"], BFloat16[Tensor, "n vocab"]]:
    """Log of the sum of exponentials of each row, and probabilities over the number of rows."""
    full = logits.float() + bias
    top = full.amax(-1, keepdim=True)
    weights = torch.exp(full - top)
    total = weights.sum(-1, keepdim=True)
    return (top + torch.log(total)).squeeze(-1), (weights / (total * len(logits))).bfloat16()


@cache
def _compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel compiled where a C++ compiler is at hand, as it stands where not: equal but for rounding."""
    return torch.compile(kernel, dynamic=False) if can_compile() else kernel


def can_compile() -> bool:
    """Whether torch can compile for the CPU on this machine."""
    return shutil.which("g++") is not None or shutil.which("clang++") is not None
