"""The weights that attention heads' circuits are made of, read one layer at a time from any of five architectures.

Everything is fp32 on the CPU. A head's value is W_V norm(resid) + b_V and its write W_O value: the value bias belongs
to the head (the attention pattern sums to one, so it passes through W_O whatever the head attends to). The output bias
b_O is shared by the layer and belongs to no head. In grouped-query models one value head serves several query heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from circuit_claims.errors import ClaimsError
from circuit_claims.models.architectures.names import (
    Dimensions,
    Names,
    UnsupportedArchitecture,
    dimensions_of,
    found_prefix,
    found_unembedding,
    names_of,
)
from circuit_claims.models.files.tensors import TensorSource

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


class UnknownToken(ClaimsError, ValueError):
    """A token id outside the model's vocabulary."""


@dataclass(frozen=True)
class Norm:
    """A layer norm (`layer`), a root-mean-square norm (`rms`) or nothing at all (`none`).

    `weight` is what the normalised vector is multiplied by: for Gemma, 1 + the stored weight.
    """

    kind: Literal["layer", "rms", "none"] = "none"
    weight: Float[Tensor, " width"] | None = None
    bias: Float[Tensor, " width"] | None = None
    eps: float = 0.0

    def __call__(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The normalised vectors, scaled and (LayerNorm) shifted."""
        if self.weight is None:
            return x
        if self.kind == "layer":
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


@dataclass(frozen=True)
class Projection:
    """A linear map, (out, in), with or without a bias."""

    weight: Float[Tensor, "out width"]
    bias: Float[Tensor, " out"] | None = None

    def __call__(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch out"]:
        """The mapped vectors."""
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class Layer:
    """What the heads of one layer read, and what they write (not where they look).

    `value` maps to all value heads at once, (kv_head d_head, d_model); `out` from all heads, (d_model, head d_head).
    """

    index: int
    n_heads: int
    n_kv_heads: int
    norm: Norm
    value: Projection
    out: Float[Tensor, "d_model head_x_d_head"]
    post_norm: Norm

    def values(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n kv_head d_head"]:
        """Values of normed residual vectors, b_V included; one for each key-value head."""
        return self.value(x).unflatten(-1, (self.n_kv_heads, -1))

    def by_head(self, value: Float[Tensor, "n kv_head d_head"]) -> Float[Tensor, "head n d_head"]:
        """The value each query head sees: query head h is served by key-value head h // (n_heads / n_kv_heads)."""
        return value.repeat_interleave(self.n_heads // self.n_kv_heads, dim=1).transpose(0, 1)

    @property
    def W_O(self) -> Float[Tensor, "head d_model d_head"]:
        """Each head's part of the output matrix."""
        return self.out.unflatten(-1, (self.n_heads, -1)).transpose(0, 1)

    def outputs(self, value: Float[Tensor, "n kv_head d_head"]) -> Float[Tensor, "head n d_model"]:
        """What each head adds to the residual stream when it attends to one token alone.

        Gemma norms the sum of all heads' writes; here the norm acts on the head's own write. The two differ by a
        positive factor for each token and head, which changes no comparison between candidates: the final norm of an
        RMS model removes it again (up to its epsilon), and without that norm every candidate's logit is multiplied by
        the same factor. Only the norm's weights matter to the score, and those are applied.
        """
        write = self.by_head(value) @ self.W_O.transpose(1, 2)  # (head, n, d_model)
        return self.post_norm(write)


@dataclass(frozen=True)
class Mlp:
    """The MLP of one block between its own norms: post_norm(out(act(gate x) * up x)) or post_norm(out(act(in x)))."""

    norm: Norm
    inwards: tuple[Projection, ...]
    out: Projection
    activation: Callable[[Tensor], Tensor]
    post_norm: Norm

    def __call__(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """What the MLP adds to the residual stream."""
        x = self.norm(x)
        hidden = self.activation(self.inwards[0](x))
        for up in self.inwards[1:]:
            hidden = hidden * up(x)
        return self.post_norm(self.out(hidden))


@dataclass(frozen=True)
class CircuitWeights:
    """A model opened for its circuits: reads the tensors asked for, when they are asked for.

    Two choices that the paper leaves open are switches, both on as the model is shipped:
    `norms` applies the norms that stand between the parts of a circuit (before MLP_0, before and after a head, before
    the unembedding); `biases` applies the shift of those norms and the value bias. MLP_0's own biases are part of
    MLP_0 and always stay.
    """

    tensors: TensorSource
    names: Names
    dims: Dimensions
    prefix: str
    unembedding: str
    norms: bool = True
    biases: bool = True

    @classmethod
    def open(cls, tensors: TensorSource, *, norms: bool = True, biases: bool = True) -> CircuitWeights:
        """Find out how `tensors` are named and laid out. Raises `UnsupportedArchitecture`."""
        names, dims = names_of(tensors.config), dimensions_of(tensors.config)
        if dims.activation not in ACTIVATIONS:
            raise UnsupportedArchitecture(
                f"activation of the MLPs: expected one of {', '.join(ACTIVATIONS)}\n  found {dims.activation!r}"
            )
        present = frozenset(tensors.names())
        prefix = found_prefix(names, present)
        return cls(tensors, names, dims, prefix, found_unembedding(names, dims, prefix, present), norms, biases)

    def with_choices(self, *, norms: bool, biases: bool) -> CircuitWeights:
        """The same weights with other choices."""
        return self if (norms, biases) == (self.norms, self.biases) else replace(self, norms=norms, biases=biases)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.dims.n_layers

    @property
    def n_heads(self) -> int:
        """Number of query heads in each layer."""
        return self.dims.n_heads

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.dims.d_model

    def known(self, tokens: Int[Tensor, " n"]) -> list[int]:
        """The ids as a list. Raises `UnknownToken` for one outside the vocabulary."""
        ids = tokens.tolist()
        strange = [token for token in ids if not 0 <= token < self.dims.d_vocab]
        if strange:
            raise UnknownToken(
                f"token ids: expected 0 to {self.dims.d_vocab - 1}, the vocabulary of the model"
                f"\n  found {', '.join(map(str, strange[:5]))}"
                "\n  Were they looked up with another model's tokenizer?"
            )
        return ids

    def embed(self, tokens: Int[Tensor, " n"]) -> Float[Tensor, "n d_model"]:
        """The bare embedding W_E, times sqrt(d_model) for Gemma, without positions (GPT-2's learned ones included)."""
        return self.tensors.rows(f"{self.prefix}{self.names.embed}.weight", self.known(tokens)) * self.dims.embed_scale

    def unembed(self, candidates: Int[Tensor, " c"]) -> Float[Tensor, "d_model c"]:
        """Columns of W_U; none of the five architectures has a bias here."""
        return self.tensors.rows(self.unembedding, self.known(candidates)).T

    @cached_property
    def final_norm(self) -> Norm:
        """The norm before the unembedding."""
        return self._norm(f"{self.prefix}{self.names.final_norm}")

    def mlp0(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """MLP_0 of residual vectors, with its own norms, skipping attention layer 0 (Gould et al. 2024, eq. 2)."""
        return self.mlp(0)(x)

    def mlp(self, index: int) -> Mlp:
        """The MLP of block `index`."""
        names, here = self.names, self.block_prefix(index)
        *inwards, out = [self._projection(f"{here}{name}", self.dims.mlp_bias) for name in names.mlp]
        return Mlp(
            norm=self._norm(f"{here}{names.mlp_norm}"),
            inwards=tuple(inwards),
            out=out,
            activation=ACTIVATIONS[self.dims.activation],
            post_norm=self._norm(here + names.mlp_post_norm if names.mlp_post_norm else None),
        )

    def layers(self) -> Iterator[Layer]:
        """The layers from the first to the last, each read when it is asked for."""
        return map(self.layer, range(self.n_layers))

    def layer(self, index: int) -> Layer:
        """The heads of layer `index`: norm, value and output matrices."""
        names, here = self.names, self.block_prefix(index)
        (value,) = self.qkv(index, (2,))
        return Layer(
            index=index,
            n_heads=self.dims.n_heads,
            n_kv_heads=self.dims.n_kv_heads,
            norm=self._norm(f"{here}{names.head_norm}"),
            value=value if self.biases else replace(value, bias=None),
            out=self._matrix(f"{here}{names.attention_out}"),
            post_norm=self._norm(here + names.head_post_norm if names.head_post_norm else None),
        )

    def qkv(self, index: int, which: Sequence[int]) -> tuple[Projection, ...]:
        """Projections to queries (0), keys (1) or values (2) of layer `index`, heads one after another."""
        names, here = self.names, self.block_prefix(index)
        if names.qkv_layout == "split":
            return tuple(self._projection(f"{here}{names.qkv[place]}", self.dims.qkv_bias) for place in which)
        fused = self._projection(f"{here}{names.qkv[0]}", self.dims.qkv_bias)
        weight, bias = fused.weight, fused.bias
        return tuple(
            Projection(self._part(weight, place), None if bias is None else self._part(bias, place)) for place in which
        )

    def _part(self, fused: Tensor, place: int) -> Tensor:
        """Queries, keys or values out of a fused matrix or bias."""
        if self.names.qkv_layout == "by matrix":
            return fused.chunk(3)[place]
        return fused.unflatten(0, (self.dims.n_heads, 3, -1))[:, place].flatten(0, 1)

    def block_prefix(self, index: int) -> str:
        """What the names of block `index`'s tensors begin with."""
        return f"{self.prefix}{self.names.block.format(index)}"

    def _matrix(self, name: str) -> Float[Tensor, "out in"]:
        stored = self.tensors.read(f"{name}.weight")
        return stored.T if self.names.transposed else stored

    def _projection(self, name: str, bias: bool) -> Projection:
        return Projection(self._matrix(name), self.tensors.read(f"{name}.bias") if bias else None)

    def _norm(self, name: str | None) -> Norm:
        """The norm of that name; none at all where the architecture has none here or the choice is to leave it out."""
        if name is None or not self.norms:
            return Norm()
        weight = self.tensors.read(f"{name}.weight")
        shift = self.names.norm_has_shift and self.biases
        return Norm(
            kind="layer" if self.names.norm_kind == "layer" else "rms",
            weight=weight + 1.0 if self.names.norm_kind == "rms+1" else weight,
            bias=self.tensors.read(f"{name}.bias") if shift else None,
            eps=self.dims.eps,
        )
