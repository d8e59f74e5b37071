"""A streaming forward pass of a lone token, from the tensors alone and one layer at a time.

Only two positions can occur, the token and, before it, a beginning-of-sequence token. Alone, a token attends to itself
with weight one, so that queries and keys need not be read at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from circuit_claims.models.architectures.layers import CircuitWeights, Layer, Norm
from circuit_claims.models.architectures.names import UnsupportedArchitecture, setting


def residuals(
    weights: CircuitWeights, tokens: Int[Tensor, " n"], bos: int | None = None
) -> Iterator[Float[Tensor, "n d_model"]]:
    """The residual stream before each layer, of each token alone (`bos` None) or right after the token `bos`.

    Equal to the model's own hidden states on the sequence [token] or [bos, token], GPT-2's learned positions included.
    Norms and biases always apply: the choices of `weights` are about circuits, not about the forward pass.
    """
    weights = weights.with_choices(norms=True, biases=True)
    resid = weights.embed(tokens) + _position(weights, 0 if bos is None else 1)
    first = None
    if bos is not None:
        first = weights.embed(torch.tensor([bos])) + _position(weights, 0)  # (1, d_model)
    for index in range(weights.n_layers):
        yield resid
        if index + 1 < weights.n_layers:
            resid, first = _block(weights, index, resid, first)


def block0(weights: CircuitWeights, tokens: Int[Tensor, " n"]) -> Float[Tensor, "n d_model"]:
    """The residual stream after one full block on the bare embedding, each token attending to itself alone.

    Attention, MLP and their norms and biases act as in the forward pass: one after the other, or side by side where
    the model is parallel. The bare embedding has no position: GPT-2's learned one is left out, as in `mlp0`.
    """
    weights = weights.with_choices(norms=True, biases=True)
    return _block(weights, 0, weights.embed(tokens), None)[0]


def _position(weights: CircuitWeights, place: int) -> Float[Tensor, "1 d_model"] | float:
    """GPT-2's learned position vector; the other architectures turn queries and keys instead."""
    if weights.names.positions is None:
        return 0.0
    return weights.tensors.rows(f"{weights.prefix}{weights.names.positions}.weight", [place])


def _block(
    weights: CircuitWeights, index: int, resid: Float[Tensor, "n d_model"], first: Float[Tensor, "1 d_model"] | None
) -> tuple[Float[Tensor, "n d_model"], Float[Tensor, "1 d_model"] | None]:
    """One block applied to the tokens and, where there is one, to the beginning-of-sequence token before them."""
    layer, mlp = weights.layer(index), weights.mlp(index)
    name = f"{weights.block_prefix(index)}{weights.names.attention_out}.bias"
    b_O = weights.tensors.read(name) if weights.dims.out_bias else None

    def advance(x: Tensor, z: Tensor) -> Tensor:
        mid = x + layer.post_norm(F.linear(z, layer.out, b_O))  # (n, d_model)
        return mid + mlp(x if weights.dims.parallel else mid)

    value = layer.values(layer.norm(resid))  # (n, kv_head, d_head)
    if first is None:
        return advance(resid, _flat(layer, value)), None
    first_value = layer.values(layer.norm(first))  # (1, kv_head, d_head)
    look = _attention_to_first(weights, layer, resid, first)[..., None]  # (n, head, 1)
    mixed = look * _served(layer, first_value) + (1 - look) * _served(layer, value)  # (n, head, d_head)
    return advance(resid, mixed.flatten(1)), advance(first, _flat(layer, first_value))


def _served(layer: Layer, value: Float[Tensor, "n kv_head d_head"]) -> Float[Tensor, "n head d_head"]:
    return layer.by_head(value).transpose(0, 1)


def _flat(layer: Layer, value: Float[Tensor, "n kv_head d_head"]) -> Float[Tensor, "n head_x_d_head"]:
    return _served(layer, value).flatten(1)


def _attention_to_first(
    weights: CircuitWeights, layer: Layer, resid: Float[Tensor, "n d_model"], first: Float[Tensor, "1 d_model"]
) -> Float[Tensor, "n head"]:
    """The share of attention that each head of the token at position 1 gives to the token at position 0."""
    dims, here = weights.dims, weights.block_prefix(layer.index)
    to_query, to_key = weights.qkv(layer.index, (0, 1))
    query_norm, key_norm = (
        _head_norm(weights, f"{here}{name}.weight" if name else None)
        for name in (weights.names.query_norm, weights.names.key_norm)
    )
    x, x_first = layer.norm(resid), layer.norm(first)
    query = query_norm(to_query(x).unflatten(-1, (dims.n_heads, dims.d_head)))  # (n, head, d_head)
    keys = [key_norm(to_key(item).unflatten(-1, (dims.n_kv_heads, dims.d_head))) for item in (x, x_first)]
    key, key_first = (item.repeat_interleave(dims.heads_per_kv, dim=1) for item in keys)
    # Query and own key are turned by the same angle, which their product does not see; position 0 is not turned.
    own = (query * key).sum(-1)  # (n, head)
    other = (_turned(query, _angles(weights.tensors.config, layer.index, dims.d_head)) * key_first).sum(-1)
    return torch.sigmoid((other - own) * _attention_scale(weights, layer.index))


def _head_norm(weights: CircuitWeights, name: str | None) -> Norm:
    """Gemma norms queries and keys of each head, with weights stored less one."""
    return Norm() if name is None else Norm("rms", weights.tensors.read(name) + 1.0, None, weights.dims.eps)


def _attention_scale(weights: CircuitWeights, index: int) -> float:
    """What attention scores are multiplied by: one over sqrt(d_head), or as the config says."""
    config = weights.tensors.config
    scale = float(config.get("query_pre_attn_scalar") or weights.dims.d_head) ** -0.5
    if weights.dims.architecture == "gpt2":
        scale = scale if config.get("scale_attn_weights", True) else 1.0
        scale /= index + 1 if config.get("scale_attn_by_inverse_layer_idx") else 1
    return scale


def _turned(
    query: Float[Tensor, "n head d_head"], angles: Float[Tensor, " pairs"] | None
) -> Float[Tensor, "n head d_head"]:
    """Queries turned by the rotary angles of position 1; dimension i is paired with i + pairs, the rest stays."""
    if angles is None:
        return query
    pairs = len(angles)
    left, right, rest = query[..., :pairs], query[..., pairs : 2 * pairs], query[..., 2 * pairs :]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([left * cos - right * sin, right * cos + left * sin, rest], dim=-1)


def _angles(config: Mapping[str, Any], index: int, d_head: int) -> Float[Tensor, " pairs"] | None:
    """Rotary angles per position of layer `index`, from old configs and new; None for GPT-2.

    Raises `UnsupportedArchitecture` for a way of stretching the angles that is not default, linear or llama3.
    """
    if config["model_type"] == "gpt2":
        return None
    theta, share, scaling = _rotary_settings(config, index)
    width = int(d_head * share)
    angles = 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    kind = setting(scaling, "rope_type", "type", default="default")
    if kind == "default":
        return angles
    if kind == "linear":
        return angles / scaling["factor"]
    if kind == "llama3":
        return _llama3_angles(angles, scaling)
    raise UnsupportedArchitecture(
        f"rotary positions: expected rope_type default, linear or llama3, found {kind!r}"
        "\n  Leave the beginning-of-sequence token out, or choose another input path than `residual`."
    )


def _rotary_settings(config: Mapping[str, Any], index: int) -> tuple[float, float, Mapping[str, Any]]:
    """Base, share of each head's width that is turned, and how angles are stretched."""
    params = config.get("rope_parameters") or {}
    scaling = config.get("rope_scaling") or {}
    if config["model_type"] != "gemma3_text":
        theta = setting(params, "rope_theta") or setting(config, "rope_theta", "rotary_emb_base", default=10_000.0)
        share = setting(params, "partial_rotary_factor")
        if share is None:
            share = setting(config, "rotary_pct", default=0.25 if config["model_type"] == "gpt_neox" else 1.0)
        return float(theta), float(share), scaling or params
    pattern = int(setting(config, "sliding_window_pattern", "_sliding_window_pattern", default=6))
    kinds = config.get("layer_types")
    local = kinds[index] == "sliding_attention" if kinds else bool((index + 1) % pattern)
    params = params.get("sliding_attention" if local else "full_attention") or {}
    old = ("rope_local_base_freq", 10_000.0) if local else ("rope_theta", 1_000_000.0)
    theta = setting(params, "rope_theta") or setting(config, old[0], default=old[1])
    return float(theta), 1.0, params if params or local else scaling


def _llama3_angles(angles: Float[Tensor, " pairs"], scaling: Mapping[str, Any]) -> Float[Tensor, " pairs"]:
    """Llama 3's stretching: slow angles divided by the factor, fast ones kept, those between mixed."""
    turns = scaling["original_max_position_embeddings"] * angles / (2 * math.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    keep = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - keep) * angles / scaling["factor"] + keep * angles
