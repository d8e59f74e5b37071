"""Direct effects of every head on the correct token's logit, without running anything again.

The correct token's logit is a function of the final residual x alone: l = w . x / s(x) + c, where w is its row of W_U
times the final norm's weights (centred for LayerNorm), s(x) the norm's scale, c what the norm's shift adds. A head adds
W_O z to x, so that all a change dz of its output does to l hangs on numbers of its own width:

    w . W_O dz = (W_O' w) . dz       and, for the scale,  |x + W_O dz|^2 = |x|^2 + 2 (W_O' x) . dz + dz' (W_O' W_O) dz

W_O' w and W_O' x cost as much as one W_O a layer for all heads together; every ablation after that is d_head wide
instead of d_model. For all heads of a model, all positions and all ablations that is about as much as two more W_O a
layer, where ablating head by head costs one forward pass each.

Where attention's output is normed before it is added (Gemma 3: a = g * y / r(y), y = sum of W_O z), the head's own
write is the change of a. Ablated, y becomes y + W_O dz and r follows from numbers of the same kind; then
da = g * W_O dz / r' + g * y (1 / r' - 1 / r). With that norm frozen too, the second term is gone and heads add up.
A loss needs every token's logit, which for all heads would be heads x positions x d_model x d_vocab operations (10^15
for the smallest default model): see `losses` for chosen heads.

Everything is fp32. Passes in bf16 are three times as fast on machines with AMX, but on SmolLM2-135M (one context of 512
tokens) they moved an effect by 2 % of its usual size and gave another winning head in 1.2 % of cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuit_claims.heads.effects.forward import AblationModel, DecoderBlock, Pass
from circuit_claims.heads.effects.reference import Reference
from circuit_claims.heads.effects.results import DirectEffects
from circuit_claims.heads.effects.settings import ABLATIONS, Ablation, FinalNorm
from circuit_claims.models.architectures.layers import Norm


def centred(norm: Norm, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
    """What the norm divides by its scale: the vector itself, for LayerNorm less its mean."""
    return x - x.mean(-1, keepdim=True) if norm.kind == "layer" else x


def scale_of(norm: Norm, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
    """What the norm divides by: the root mean square of the (centred) vector; float64, one where there is no norm."""
    if norm.kind == "none":
        return torch.ones(x.shape[:-1], dtype=torch.float64, device=x.device)
    return (centred(norm, x.double()).square().mean(-1) + norm.eps).sqrt()


@dataclass(frozen=True)
class Readout:
    """The logit of each case's correct token around the final residual x: (toward . x) / scale + shift."""

    x: Float[Tensor, "case d_model"]
    toward: Float[Tensor, "case d_model"]
    along: Float[Tensor, " case"]
    scale: Float[Tensor, " case"]
    shift: Float[Tensor, " case"]

    @property
    def logit(self) -> Float[Tensor, " case"]:
        """The correct token's logit, unablated; float64."""
        return self.along / self.scale + self.shift


def readout_of(model: AblationModel, final: Float[Tensor, "case d_model"], tokens: Int[Tensor, " case"]) -> Readout:
    """The readout of `tokens`, one a case, from final residuals."""
    norm, rows = model.final_norm, model.W_U[tokens]
    x = centred(norm, final)
    toward = centred(norm, rows if norm.weight is None else rows * norm.weight)
    shift = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    if norm.bias is not None:
        shift = rows.double() @ norm.bias.double()
    return Readout(x, toward, _dots(toward, x), scale_of(norm, final), shift)


def _dots(left: Float[Tensor, "*batch width"], right: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
    return (left.double() * right.double()).sum(-1)


@dataclass(frozen=True)
class Written:
    """What one layer's attention writes, case by case: y before Gemma's norm, g * y, and the norm's scale r(y)."""

    y: Float[Tensor, "case d_model"]
    weighed: Float[Tensor, "case d_model"]
    scale: Float[Tensor, " case"]


def _written(block: DecoderBlock, y: Float[Tensor, "case d_model"]) -> Written:
    weight = block.post_norm.weight
    return Written(y, y if weight is None else y * weight, scale_of(block.post_norm, y))


def _through(
    model: AblationModel, layer: int, vectors: Sequence[Float[Tensor, "case d_model"]]
) -> Float[Tensor, "head case vector d_head"]:
    """`vectors` taken back through each head's part of W_O."""
    cases, heads = len(vectors[0]), model.dims.n_heads
    found = vectors[0].new_empty(heads, cases, len(vectors), model.dims.d_head)
    for place, one in enumerate(vectors):
        back = one @ model.blocks[layer].W_O  # (case, head d_head)
        found[:, :, place] = back.unflatten(-1, (heads, -1)).transpose(0, 1)
    return found


def _gram(model: AblationModel, layer: int, norm: Norm, weight: Tensor | None) -> Float[Tensor, "head d d"]:
    """W_O' W_O of each head, weighed and centred as `norm` does it; found once a model."""
    key = (layer, norm.kind, weight is None)
    if key not in model.grams:
        out = model.blocks[layer].W_O if weight is None else model.blocks[layer].W_O * weight[:, None]
        if norm.kind == "layer":
            out = out - out.mean(0)
        by_head = out.unflatten(-1, (model.dims.n_heads, -1)).permute(1, 0, 2)  # (head, d_model, d_head)
        model.grams[key] = by_head.transpose(1, 2) @ by_head
    return model.grams[key]


class LayerEffects:
    """The heads of one layer in one context: logit lost for any change of their outputs."""

    def __init__(self, model: AblationModel, run: Pass, layer: int, readout: Readout) -> None:
        block = model.blocks[layer]
        self.readout, self.post_norm, self.width = readout, block.post_norm, model.dims.d_model
        self.written = _written(block, run.written[layer][:-1])
        g = block.post_norm.weight
        toward, x = (v if g is None else v * g for v in (readout.toward, readout.x))
        self.gram = _gram(model, layer, model.final_norm, g)
        back = [toward, x]
        if g is not None:
            back += [self.written.weighed * g, self.written.y]
            self._prepare_norm(model, layer)
        self.through = _through(model, layer, back)

    def _prepare_norm(self, model: AblationModel, layer: int) -> None:
        """What the change of Gemma's norm after attention needs besides."""
        written, readout = self.written, self.readout
        self.post_gram = _gram(model, layer, Norm(), None)
        self.own_logit = _dots(readout.toward, written.weighed)[:, None]
        self.own_x = _dots(readout.x, written.weighed)[:, None]
        self.own_square = _dots(written.weighed, written.weighed)[:, None]

    def contributions(self, z: Float[Tensor, "head case d_head"]) -> Float[Tensor, "head case"]:
        """Each head's part of the correct token's logit, both norms frozen: these and the rest add up to it."""
        along = torch.linalg.vecdot(self.through[:, :, 0], z).double()
        return along / (self.written.scale * self.readout.scale)

    def lost(self, change: Float[Tensor, "head case repeat d_head"]) -> dict[FinalNorm, Tensor]:
        """Logit lost by the correct token when the heads' outputs change so, one head at a time: both norms frozen, and
        both recomputed. (head, case, repeat), float64.
        """
        dots = (self.through @ change.transpose(-1, -2)).double()  # (head, case, vector, repeat)
        along, cross, *others = dots.unbind(2)
        square = self._square(change, self.gram)
        before = self.readout.scale[:, None]
        frozen = -along / (self.written.scale[:, None] * before)
        if others:
            along, cross, square = self._normed(along, cross, square, others, self._square(change, self.post_gram))
        scale = (before.square() + (2 * cross + square) / self.width).clamp_min(0.0).sqrt()
        own = self.readout.along[:, None]
        return {"frozen": frozen, "recomputed": own / before - (own + along) / scale}

    def _normed(
        self, along: Tensor, cross: Tensor, square: Tensor, others: Sequence[Tensor], post_square: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same three numbers when Gemma's norm after attention sees the change as well."""
        both, post_cross = others
        before = self.written.scale[:, None]
        grown = 2 * post_cross + post_square
        after = 1 / (before.square() + grown / self.width).clamp_min(self.post_norm.eps).sqrt()
        shrunk = after - 1 / before
        return (
            after * along + shrunk * self.own_logit,
            after * cross + shrunk * self.own_x,
            after.square() * square + 2 * after * shrunk * both + shrunk.square() * self.own_square,
        )

    @staticmethod
    def _square(change: Float[Tensor, "head case repeat d_head"], gram: Float[Tensor, "head d_head d_head"]) -> Tensor:
        flat = change.flatten(1, 2)  # (head, case repeat, d_head)
        return torch.linalg.vecdot(flat @ gram, flat).double().unflatten(1, change.shape[1:3])


def by_head(z: Float[Tensor, "*repeat pos head d_head"]) -> Float[Tensor, "head *repeat pos d_head"]:
    """Head outputs with the heads in front."""
    return z.movedim(-2, 0)


@dataclass(frozen=True)
class Contributions:
    """The correct token's logit, taken apart: what each head adds and what all else adds (final norm frozen)."""

    heads: Float[Tensor, "head case"]
    rest: Float[Tensor, " case"]
    logit: Float[Tensor, " case"]

    @property
    def gap(self) -> float:
        """The largest difference between the sum of all parts and the logit itself."""
        return float((self.heads.sum(0) + self.rest - self.logit).abs().max())


class _Parts:
    """Gathers contributions layer by layer; what is left of the final residual at the end is the rest."""

    def __init__(self, model: AblationModel, run: Pass, readout: Readout) -> None:
        self.model, self.run, self.readout = model, run, readout
        self.rest, self.heads = readout.x.double(), []

    def add(self, layer: int, effects: LayerEffects) -> None:
        """Take what the heads of one layer wrote."""
        block = self.model.blocks[layer]
        self.heads.append(effects.contributions(by_head(self.run.z[layer][:-1])))
        y = effects.written.y if block.b_O is None else effects.written.y - block.b_O
        own = y if block.post_norm.weight is None else y * block.post_norm.weight
        if block.post_norm.kind != "none":
            own = own / effects.written.scale[:, None]
        self.rest -= own

    def whole(self) -> Contributions:
        """All parts, beside the logit of the plain forward pass."""
        plain = (self.model.final_norm(self.run.final[:-1]) * self.model.W_U[self.run.correct]).sum(-1)
        rest = _dots(self.readout.toward, centred(self.model.final_norm, self.rest))
        rest = rest / self.readout.scale + self.readout.shift
        return Contributions(torch.cat(self.heads), rest, plain.double())


@torch.inference_mode()
def contributions(model: AblationModel, run: Pass) -> Contributions:
    """Every head's contribution to the correct token's logit, and the rest, each found without the others.

    The rest is embeddings, MLPs, attention's output biases and the final norm's shift, read out of the vectors
    themselves: the final residual less everything heads wrote. The logit is that of the plain forward pass.
    """
    readout = readout_of(model, run.final[:-1], run.correct)
    parts = _Parts(model, run, readout)
    for layer in range(model.dims.n_layers):
        parts.add(layer, LayerEffects(model, run, layer, readout))
    return parts.whole()


def _changes(
    z: Float[Tensor, "pos head d_head"], outputs: Sequence[Float[Tensor, "repeat pos_or_1 head d_head"]]
) -> Float[Tensor, "head case repeat d_head"]:
    """What replacing the heads' outputs changes them by, case by case, in one array."""
    cases, places = len(z) - 1, sum(map(len, outputs))
    found = z.new_empty(z.shape[1], cases, places, z.shape[2])
    start = 0
    for output in outputs:
        part = found[:, :, start : start + len(output)].permute(2, 1, 0, 3)  # (repeat, case, head, d_head)
        torch.sub(output[:, :cases], z[:-1], out=part)
        start += len(output)
    return found


@torch.inference_mode()
def direct_effects(model: AblationModel, run: Pass, reference: Reference) -> DirectEffects:
    """Logits the correct token loses, for every head and case, under mean and resample ablation in one sweep.

    Exact: what hooks on the model would give, up to rounding (see `plain`). With the final norm frozen the effect is
    linear in the head's output, so that resampling averages to ablation by the donors' mean; recomputed it is not.
    """
    readout = readout_of(model, run.final[:-1], run.correct)
    parts = _Parts(model, run, readout)
    lost: dict[tuple[Ablation, FinalNorm], list[Tensor]] = {}
    for layer in range(model.dims.n_layers):
        effects = LayerEffects(model, run, layer, readout)
        parts.add(layer, effects)
        outputs = {ablation: reference.replacement(run, layer, ablation) for ablation in ABLATIONS}
        for norm, drops in effects.lost(_changes(run.z[layer], list(outputs.values()))).items():
            by_ablation = drops.split([len(output) for output in outputs.values()], dim=-1)
            for ablation, part in zip(ABLATIONS, by_ablation, strict=True):
                lost.setdefault((ablation, norm), []).append(part.mean(-1))
    table = {name: torch.cat(drops).float().cpu().numpy() for name, drops in lost.items()}
    return DirectEffects(
        heads=model.heads.numpy(),
        correct_logit=readout.logit.float().cpu().numpy(),
        mean=table["mean", reference.ablations.final_norm],
        resample=table["resample", reference.ablations.final_norm],
        frozen_winner=table["mean", "frozen"].argmax(0),
        recomputed_winner=table["mean", "recomputed"].argmax(0),
        gap=parts.whole().gap,
    )
