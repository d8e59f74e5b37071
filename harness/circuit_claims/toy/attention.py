"""Causal attention, all heads at once: what the model, its cached potentials and the instruments on its heads share."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def project(
    inputs: Float[Tensor, "batch pos d"], weight: Float[Tensor, "head d k"], bias: Float[Tensor, "head k"]
) -> Float[Tensor, "batch head pos k"]:
    """Queries, keys or values of each head."""
    heads, width, size = weight.shape
    flat = F.linear(inputs, weight.transpose(1, 2).reshape(heads * size, width), bias.flatten())
    return flat.unflatten(-1, (heads, size)).transpose(1, 2)


def attend(
    query: Float[Tensor, "batch head pos k"],
    key: Float[Tensor, "batch head pos k"],
    value: Float[Tensor, "batch head pos k"],
) -> Float[Tensor, "batch head pos k"]:
    """Causal softmax attention, scores over sqrt(k)."""
    return F.scaled_dot_product_attention(query, key, value, is_causal=True)
