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

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness.models.architectures import Norm
from harness.successor.ablation.forward import AblationModel, Block, Pass
from harness.successor.ablation.reference import Reference
from harness.successor.ablation.results import DirectEffects
from harness.successor.ablation.settings import ABLATIONS, Ablation, FinalNorm


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


def _written(block: Block, y: Float[Tensor, "case d_model"]) -> Written:
    weight = block.post_norm.weight
    return Written(y, y if weight is None else y * weight, scale_of(block.post_norm, y))


def _through(model: AblationModel, layer: int, vectors: Float[Tensor, "case d_model"]) -> Float[Tensor, "head case d"]:
    """`vectors` taken back through each head's part of W_O."""
    back = vectors @ model.blocks[layer].W_O  # (case, head d_head)
    return back.unflatten(-1, (model.dims.n_heads, -1)).transpose(0, 1)


def _gram(model: AblationModel, layer: int, norm: Norm, weight: Tensor | None) -> Float[Tensor, "head d d"]:
    """W_O' W_O of each head, weighed and centred as `norm` does it."""
    out = model.blocks[layer].W_O if weight is None else model.blocks[layer].W_O * weight[:, None]
    if norm.kind == "layer":
        out = out - out.mean(0)
    by_head = out.unflatten(-1, (model.dims.n_heads, -1)).permute(1, 0, 2)  # (head, d_model, d_head)
    return by_head.transpose(1, 2) @ by_head


class LayerEffects:
    """The heads of one layer in one context: logit lost for any change of their outputs."""

    def __init__(self, model: AblationModel, run: Pass, layer: int, readout: Readout) -> None:
        block = model.blocks[layer]
        self.readout, self.post_norm, self.width = readout, block.post_norm, model.dims.d_model
        self.written = _written(block, run.written[layer][:-1])
        g = block.post_norm.weight
        toward, x = (v if g is None else v * g for v in (readout.toward, readout.x))
        self.logit, self.cross = _through(model, layer, toward), _through(model, layer, x)  # (head, case, d_head)
        self.gram = _gram(model, layer, model.final_norm, g)
        if g is not None:
            self._prepare_norm(model, layer, g)

    def _prepare_norm(self, model: AblationModel, layer: int, g: Tensor) -> None:
        """What the change of Gemma's norm after attention needs besides."""
        written, readout = self.written, self.readout
        self.own_cross = _through(model, layer, written.weighed * g)
        self.post_cross = _through(model, layer, written.y)
        self.post_gram = _gram(model, layer, Norm(), None)
        self.own_logit = _dots(readout.toward, written.weighed)
        self.own_x = _dots(readout.x, written.weighed)
        self.own_square = _dots(written.weighed, written.weighed)

    def contributions(self, z: Float[Tensor, "head case d_head"]) -> Float[Tensor, "head case"]:
        """Each head's part of the correct token's logit, both norms frozen: these and the rest add up to it."""
        return self._each(self.logit, z) / (self.written.scale * self.readout.scale)

    def lost(self, change: Float[Tensor, "head repeat case d_head"]) -> dict[FinalNorm, Tensor]:
        """Logit lost by the correct token when the heads' outputs change so, one head at a time: both norms frozen, and
        both recomputed. (head, repeat, case), float64.
        """
        along = self._each(self.logit[:, None], change)
        cross = self._each(self.cross[:, None], change)
        square = self._square(change, self.gram)
        frozen = -along / (self.written.scale * self.readout.scale)
        if self.post_norm.kind != "none":
            along, cross, square = self._normed(change, along, cross, square)
        scale = (self.readout.scale.square() + (2 * cross + square) / self.width).clamp_min(0.0).sqrt()
        recomputed = self.readout.along / self.readout.scale - (self.readout.along + along) / scale
        return {"frozen": frozen, "recomputed": recomputed}

    def _normed(self, change: Tensor, along: Tensor, cross: Tensor, square: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same three numbers when Gemma's norm after attention sees the change as well."""
        before = self.written.scale
        grown = 2 * self._each(self.post_cross[:, None], change) + self._square(change, self.post_gram)
        after = 1 / (before.square() + grown / self.width).clamp_min(self.post_norm.eps).sqrt()
        shrunk = after - 1 / before
        both = self._each(self.own_cross[:, None], change)
        return (
            after * along + shrunk * self.own_logit,
            after * cross + shrunk * self.own_x,
            after.square() * square + 2 * after * shrunk * both + shrunk.square() * self.own_square,
        )

    @staticmethod
    def _each(through: Float[Tensor, "head *case d_head"], z: Float[Tensor, "head *case d_head"]) -> Tensor:
        return torch.linalg.vecdot(through, z).double()

    @staticmethod
    def _square(change: Float[Tensor, "head repeat case d_head"], gram: Float[Tensor, "head d_head d_head"]) -> Tensor:
        flat = change.flatten(1, 2)  # (head, repeat case, d_head)
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
        self.rest = self.rest - centred(self.model.final_norm, own.double() / effects.written.scale[:, None])

    def whole(self) -> Contributions:
        """All parts, beside the logit of the plain forward pass."""
        plain = (self.model.final_norm(self.run.final[:-1]) * self.model.W_U[self.run.correct]).sum(-1)
        rest = _dots(self.readout.toward, self.rest) / self.readout.scale + self.readout.shift
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
        for ablation in ABLATIONS:
            change = reference.replacement(run, layer, ablation) - run.z[layer]  # (repeat, pos, head, d_head)
            for norm, drops in effects.lost(by_head(change[:, :-1]).contiguous()).items():
                lost.setdefault((ablation, norm), []).append(drops.mean(1))
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
