"""The effective OV circuit of every head of a model, from its weight tensors alone (Gould et al. 2024, section 2).

Choices, all of them parameters: the input path, the model's norms, the model's biases. As shipped, a head's value is
W_V norm(resid) + b_V, its write W_O value (then Gemma's norm after attention), its logits W_U final_norm(write): the
final norm acts on the head's own write, and its shift is the same for every head and token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuit_claims.errors import InputError
from circuit_claims.heads.groups import Group
from circuit_claims.models.architectures.forward import block0, residuals
from circuit_claims.models.architectures.layers import CircuitWeights, Layer, Norm

INPUT_PATHS = ("mlp0", "embed+mlp0", "block0", "residual")
"""The paths of the settings table; `embed`, W_E in place of MLP_0(W_E), is understood besides."""


def head_inputs(
    weights: CircuitWeights, tokens: Int[Tensor, " n"], path: str = "mlp0", bos: int | None = None
) -> Iterator[Float[Tensor, "n d_model"]]:
    """What the heads of each layer read (before their norm), one tensor a layer.

    Every path but `residual` gives the same tensor to all layers:
    `mlp0`        MLP_0(W_E), with MLP_0's own norms, skipping attention (the paper's)
    `embed`       W_E alone
    `embed+mlp0`  W_E + MLP_0(W_E): block 0 without its attention, in parallel models as in sequential ones
    `block0`      block 0 of the lone token, which attends to itself; no position
    `residual`    the token, after `bos` where one is given, run through all layers below the head; with positions

    Many models use whatever comes first as an attention sink, and a lone first token then carries little else: give
    `bos` wherever the question is about a token inside a text.

    Raises `ValueError` for another path, `UnknownToken` for an id outside the vocabulary.
    """
    if path == "residual":
        return residuals(weights, tokens, bos)
    if path not in STATIC_PATHS:
        known = ", ".join((*INPUT_PATHS, "embed"))
        raise InputError(f"input path of the circuit: expected one of {known}\n  found {path!r}\n  Type: --path mlp0")
    return repeat(STATIC_PATHS[path](weights, tokens), weights.n_layers)


def _embed_and_mlp0(weights: CircuitWeights, tokens: Int[Tensor, " n"]) -> Float[Tensor, "n d_model"]:
    embedded = weights.embed(tokens)
    return embedded + weights.mlp0(embedded)


STATIC_PATHS: dict[str, Callable[[CircuitWeights, Tensor], Tensor]] = {
    "mlp0": lambda weights, tokens: weights.mlp0(weights.embed(tokens)),
    "embed": CircuitWeights.embed,
    "embed+mlp0": _embed_and_mlp0,
    "block0": block0,
}


def effective_ov_logits(
    weights: CircuitWeights,
    tokens: Int[Tensor, " n"],
    candidates: Int[Tensor, " c"],
    path: str = "mlp0",
    *,
    norms: bool = True,
    biases: bool = True,
    bos: int | None = None,
) -> Iterator[Float[Tensor, "head n c"]]:
    """What each head would add to the logits of `candidates` if it attended to each of `tokens`.

    The effective OV circuit W_U W_OV MLP_0(W_E) (Gould et al. 2024, eq. 2), one layer at a time, with the model's own
    norms and biases unless they are switched off (see `CircuitWeights`). Logits in nats, fp32. Raises `UnknownToken`
    for an id outside the vocabulary and `ValueError` for an unknown path.
    """
    weights = weights.with_choices(norms=norms, biases=biases)
    readout = weights.unembed(candidates)  # (d_model, c)
    for layer, resid in zip(weights.layers(), head_inputs(weights, tokens, path, bos), strict=True):
        value = layer.values(layer.norm(resid))  # (n, kv_head, d_head)
        write = layer.outputs(value)  # (head, n, d_model)
        yield weights.final_norm(write) @ readout  # (head, n, c)


def headless_logits(
    weights: CircuitWeights,
    tokens: Int[Tensor, " n"],
    candidates: Int[Tensor, " c"],
    path: str = "mlp0",
    *,
    norms: bool = True,
    biases: bool = True,
) -> Float[Tensor, "n c"]:
    """Logits of `candidates` read out without any head: W_U final_norm(MLP_0(W_E)), in nats.

    Any path that is the same for all layers will do; raises `ValueError` for `residual`, which has no single layer.
    """
    if path == "residual":
        raise InputError("readout without a head: expected a path that does not depend on the layer, found 'residual'")
    weights = weights.with_choices(norms=norms, biases=biases)
    resid = next(head_inputs(weights, tokens, path))  # (n, d_model)
    return weights.final_norm(resid) @ weights.unembed(candidates)


def group_logits(
    weights: CircuitWeights,
    groups: Sequence[Group],
    path: str = "mlp0",
    *,
    norms: bool = True,
    biases: bool = True,
    bos: int | None = None,
) -> Iterator[list[Float[Tensor, "head n_g c_g"]]]:
    """`effective_ov_logits` within each group only: one list a layer, one tensor a group.

    Candidates are taken through W_O once a layer, so that a comparison costs d_head instead of d_model; the norms'
    denominators come from each head's Gram matrix (see `FoldedLayer`). Same values and errors as the plain version.
    """
    return path_logits(weights, groups, (path,), norms=norms, biases=biases, bos=bos)


def path_logits(
    weights: CircuitWeights,
    groups: Sequence[Group],
    paths: Sequence[str],
    *,
    norms: bool = True,
    biases: bool = True,
    bos: int | None = None,
) -> Iterator[list[Float[Tensor, "head_x_path n_g c_g"]]]:
    """`group_logits` on several input paths in one pass over the layers: each head's paths stand side by side."""
    weights = weights.with_choices(norms=norms, biases=biases)
    tokens, rows = _distinct([group.inputs for group in groups])
    candidates, columns = _distinct([group.candidates for group in groups])
    final_norm = weights.final_norm
    readout, shift = weighed_readout(final_norm, weights.unembed(candidates))
    inputs = zip(*(head_inputs(weights, tokens, path, bos) for path in paths), strict=True)
    for layer, resids in zip(weights.layers(), inputs, strict=True):
        value = layer.by_head(layer.values(layer.norm(torch.cat(resids))))  # (head, path n, d_head)
        folded = fold_layer(layer, final_norm, readout)
        value = value / folded.scale(value)
        # All inputs with all candidates: more products than the groups need, but far fewer and larger operations.
        table = (value @ folded.readout).add_(shift).unflatten(1, (len(paths), -1))  # (head, path, n, c)
        yield [
            table[:, :, row[:, None], column].flatten(0, 1)  # (head path, n_g, c_g)
            for row, column in zip(rows, columns, strict=True)
        ]


def _distinct(parts: Sequence[Sequence[int]]) -> tuple[Int[Tensor, " m"], list[Int[Tensor, " n"]]]:
    """The distinct ids over all parts, and for each part the places of its ids among them."""
    ids = torch.tensor([token for part in parts for token in part], dtype=torch.long)
    distinct, places = torch.unique(ids, return_inverse=True)
    return distinct, list(places.split([len(part) for part in parts]))


def weighed_readout(
    final_norm: Norm, readout: Float[Tensor, "d_model c"]
) -> tuple[Float[Tensor, "d_model c"], Float[Tensor, " c"]]:
    """The unembedding times the final norm's weights, and the logits that the norm's shift gives every write."""
    shift = torch.zeros(readout.shape[1]) if final_norm.bias is None else final_norm.bias @ readout
    return _weighed(final_norm, readout), shift


def _weighed(norm: Norm, rows: Float[Tensor, "d_model k"]) -> Float[Tensor, "d_model k"]:
    """Rows multiplied by the norm's weights, where it has any."""
    return rows if norm.weight is None else rows * norm.weight[:, None]


@dataclass(frozen=True)
class FoldedLayer:
    """A layer's output matrix, its norm and the final norm folded into one small readout for each head.

    The norm of a write W v is the root of v' (W'W) v / d_model + eps: `final_gram` and `post_gram` hold W'W / d_model
    for the final norm and for Gemma's norm after attention; they are d_head wide where the write is d_model wide.
    """

    readout: Float[Tensor, "head d_head c"]
    final_gram: Float[Tensor, "head d_head d_head"] | None
    final_eps: float
    post_gram: Float[Tensor, "head d_head d_head"] | None
    post_eps: float

    def scale(self, value: Float[Tensor, "head n d_head"]) -> Float[Tensor, "head n 1"] | float:
        """What the logits of each head and token are divided by: root mean squares of the write."""
        if self.final_gram is None:
            return 1.0
        final = _mean_square(value, self.final_gram)
        if self.post_gram is None:
            return (final + self.final_eps).sqrt()
        post = _mean_square(value, self.post_gram) + self.post_eps
        return (final + self.final_eps * post).sqrt()


def _mean_square(
    value: Float[Tensor, "head n d_head"], gram: Float[Tensor, "head d_head d_head"]
) -> Float[Tensor, "head n 1"]:
    return ((value @ gram) * value).sum(-1, keepdim=True).clamp_min(0.0)


def _gram(matrix: Float[Tensor, "head d_model d_head"]) -> Float[Tensor, "head d_head d_head"]:
    return matrix.transpose(1, 2) @ matrix / matrix.shape[1]


def fold_layer(layer: Layer, final_norm: Norm, readout: Float[Tensor, "d_model c"]) -> FoldedLayer:
    """Take the candidates' readout back through the norms and W_O of a layer's heads."""
    out = _weighed(layer.post_norm, layer.out)  # (d_model, head d_head)
    if final_norm.kind == "layer":
        out = out - out.mean(0)
    through = (out.T @ readout).unflatten(0, (layer.n_heads, -1))  # (head, d_head, c)
    if final_norm.weight is None:
        return FoldedLayer(through, None, 0.0, None, 0.0)
    grams = [part.unflatten(-1, (layer.n_heads, -1)).transpose(0, 1) for part in (out, layer.out)]
    final = _gram(grams[0])
    if layer.post_norm.weight is None:
        return FoldedLayer(through, final, final_norm.eps, None, 0.0)
    return FoldedLayer(through, final, final_norm.eps, _gram(grams[1]), layer.post_norm.eps)
