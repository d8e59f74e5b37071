"""Loss changes of chosen heads: direct, indirect and total effects over the whole vocabulary.

The loss needs every token's logit: d_model x d_vocab operations a case, more than all layers together in small models.
Three savings, all exact. Indirect and total effects run only the layers from the head's own upwards, on the residual
that the unablated pass kept. A change of the head's own write spans only d_head dimensions: with U = W_U W_O of the
head (taken through the final norm's weights), found once, logits after a change dz are

    (logits * s + U dz) / s'          s, s' the final norm's scale before and after

so that a direct effect costs d_head x d_vocab. Where attention's output y is normed (Gemma 3: g * y / r), the change of
a write is g * W_O dz / r' + (1 / r' - 1 / r) g * y: the first part is as narrow, the second one product for all changes
of that head. And all losses of a context are found in one sweep over the vocabulary, from products that they share
(`VocabularyPanel`): the unablated logits serve every direct effect of every head, and an indirect effect, which is a
total one with the own write put back, takes both of its parts from the other two.
All norms are recomputed here, whatever `Ablations.final_norm` says of logits: a loss has no parts to add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuit_claims.heads.effects.direct import centred, scale_of
from circuit_claims.heads.effects.forward import AblationModel, Pass
from circuit_claims.heads.effects.reference import Reference
from circuit_claims.heads.effects.results import Head
from circuit_claims.heads.effects.settings import Ablation, Effect, HeadSettings

# So that a block of a product is still in the cache when it is read.
VOCABULARY_BLOCK = 1024
CASES_AT_ONCE = 128

Changes = dict[tuple[Effect, Ablation], Float[Tensor, " case"]]


@dataclass(frozen=True)
class HeadReadout:
    """One head's way to the logits: W_U W_O, through the norms' weights.

    Takes 4 d_vocab d_head bytes, and is worth keeping over contexts.
    """

    model: AblationModel
    head: Head

    @classmethod
    def of(cls, model: AblationModel, head: Head) -> HeadReadout:
        """The readout of one head. Raises KeyError for one the model does not have."""
        layers, heads = model.dims.n_layers, model.dims.n_heads
        if not (0 <= head[0] < layers and 0 <= head[1] < heads):
            raise KeyError(f"head {head}: expected a layer below {layers} and a head below {heads}")
        return cls(model, head)

    @cached_property
    def promotes(self) -> Float[Tensor, "d_vocab d_head"]:
        """What each unit of the head's output adds to each token's logit, but for the scales of the final norm and of
        Gemma's norm after attention."""
        layer, head = self.head
        width, block, norm = self.model.dims.d_head, self.model.blocks[layer], self.model.final_norm
        out = block.W_O[:, head * width : (head + 1) * width].T  # (d_head, d_model)
        out = centred(norm, out if block.post_norm.weight is None else out * block.post_norm.weight)
        return self.model.W_U @ (out if norm.weight is None else out * norm.weight).T


@dataclass(frozen=True, eq=False)
class VocabularyPanel:
    """A product that logits are made of: what `vectors` add to each token's logit, but for the final norm's scale."""

    vectors: Float[Tensor, "case width"]
    table: Float[Tensor, "d_vocab width"] = field(repr=False)


@dataclass(frozen=True)
class FinalResiduals:
    """Final residuals x, one a case, whose logits are (base + the sum of factor * panel) / scale of x.

    A factor is a number, or one a case, (case, 1).
    """

    x: Float[Tensor, "case d_model"]
    base: VocabularyPanel
    changes: tuple[tuple[VocabularyPanel, float | Tensor], ...] = ()

    def panels(self) -> tuple[VocabularyPanel, ...]:
        """The products it is made of."""
        return (self.base, *(panel for panel, _ in self.changes))

    def logits(self, values: Mapping[VocabularyPanel, Tensor], cases: slice, scale: Tensor, out: Tensor) -> Tensor:
        """Logits of some cases in one block of the vocabulary, written to `out`; `scale` is one over the norm's."""
        total = values[self.base][cases]
        for panel, factor in self.changes:
            if isinstance(factor, Tensor):
                total = torch.addcmul(total, values[panel][cases], factor[cases], out=out)
            else:
                total = torch.add(total, values[panel][cases], alpha=factor, out=out)
        return torch.mul(total, scale[cases], out=out)


@torch.inference_mode()
def losses_at(
    model: AblationModel, points: Sequence[FinalResiduals], correct: Int[Tensor, " case"]
) -> Float[Tensor, "point case"]:
    """Loss of the correct token (nats, float64) at each point, in one sweep over the vocabulary."""
    norm = model.final_norm
    scales = [scale_of(norm, point.x).reciprocal().float()[:, None] for point in points]
    panels = list(dict.fromkeys(panel for point in points for panel in point.panels()))
    room = model.W_U.new_empty(len(panels), len(correct), VOCABULARY_BLOCK)
    # One column more: the correct token's, from the very same products, so that their rounding drops out of a loss.
    right = model.W_U.new_empty(len(panels), len(correct), 1)
    parts = []
    for start in range(0, len(model.W_U), VOCABULARY_BLOCK):
        block = slice(start, min(start + VOCABULARY_BLOCK, len(model.W_U)))
        values = room[:, :, : block.stop - start]
        for panel, product in zip(panels, values, strict=True):
            torch.mm(panel.vectors, panel.table[block].T, out=product)
        here = ((correct >= block.start) & (correct < block.stop)).nonzero()[:, 0]
        right[:, here, 0] = values[:, here, correct[here] - start]
        shift = None if norm.bias is None else norm.bias @ model.W_U[block].T
        parts.append(_partitions(points, dict(zip(panels, values, strict=True)), scales, shift))
    shift = None if norm.bias is None else (model.W_U[correct] @ norm.bias)[:, None]
    logits = _partitions(points, dict(zip(panels, right, strict=True)), scales, shift)
    return torch.stack(parts).logsumexp(0) - logits


def _partitions(
    points: Sequence[FinalResiduals],
    values: Mapping[VocabularyPanel, Float[Tensor, "case token"]],
    scales: Sequence[Float[Tensor, "case 1"]],
    shift: Float[Tensor, "*case token"] | None,
) -> Float[Tensor, "point case"]:
    """Log of the summed exponentials of each point's logits in one block of the vocabulary, float64."""
    cases, width = next(iter(values.values())).shape
    found = torch.empty(len(points), cases, dtype=torch.float64, device=scales[0].device)
    work = scales[0].new_empty(min(cases, CASES_AT_ONCE), width)
    for first in range(0, cases, CASES_AT_ONCE):
        some = slice(first, min(first + CASES_AT_ONCE, cases))
        for row, point in enumerate(points):
            logits = point.logits(values, some, scales[row], work[: some.stop - first])
            if shift is not None:
                logits.add_(shift if shift.ndim == 1 else shift[some])
            found[row, some] = _log_sum_exp(logits)
    return found


def _log_sum_exp(logits: Float[Tensor, "case token"]) -> Float[Tensor, " case"]:
    """The same as torch's, in place; float64 from the sum on, since losses are compared that differ by little."""
    most = logits.amax(-1, keepdim=True)
    return logits.sub_(most).exp_().sum(-1).double().log_().add_(most[:, 0])


def own_write(
    model: AblationModel, run: Pass, head: Head, change: Float[Tensor, "variant case d_head"]
) -> Float[Tensor, "variant case d_model"]:
    """What the residual gains, at the head's own layer, when its output changes so; every norm recomputed."""
    layer, number = head
    write, norm = model.write(layer, number, change), model.blocks[layer].post_norm
    if norm.kind == "none":
        return write
    before = run.written[layer][:-1]
    return norm(before + write) - norm(before)


def _weighed(model: AblationModel, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
    """A final residual as the unembedding sees it, but for the final norm's scale and shift."""
    norm = model.final_norm
    return centred(norm, x) if norm.weight is None else centred(norm, x) * norm.weight


class HeadChange:
    """One head ablated in one context: every mean and repeat in turn is a `variant`."""

    def __init__(self, readout: HeadReadout, run: Pass, reference: Reference, settings: HeadSettings) -> None:
        self.readout, self.model, self.run, self.settings = readout, readout.model, run, settings
        layer, number = readout.head
        own = run.z[layer][:, number]
        outputs = [reference.replacement(run, layer, name)[:, :, number] for name in settings.ablations]
        self.sizes = [len(output) for output in outputs]
        self.outputs = torch.cat([output.expand(-1, len(own), -1) for output in outputs])  # (variant, pos, d_head)
        self.change = (self.outputs - own)[:, :-1]  # (variant, case, d_head)
        self.writes = own_write(self.model, run, readout.head, self.change)

    def points(self, clean: VocabularyPanel) -> dict[Effect, list[FinalResiduals]]:
        """Where losses are wanted, for every effect that was asked for, one point a variant."""
        parts, run, effects = self._parts(), self.run, self.settings.effects
        found: dict[Effect, list[FinalResiduals]] = {}
        if "direct" in effects:
            here = zip(self.writes, parts, strict=True)
            found["direct"] = [FinalResiduals(run.final[:-1] + write, clean, part) for write, part in here]
        if {"indirect", "total"} & set(effects):
            above = [FinalResiduals(x, VocabularyPanel(_weighed(self.model, x), self.model.W_U)) for x in self._above()]
            found["total"] = above
            found["indirect"] = [
                FinalResiduals(point.x - write, point.base, tuple((panel, -factor) for panel, factor in part))
                for point, write, part in zip(above, self.writes, parts, strict=True)
            ]
        return {effect: found[effect] for effect in effects}

    def _parts(self) -> list[tuple[tuple[VocabularyPanel, float | Tensor], ...]]:
        """What each variant's own write adds to the logits."""
        layer, norm = self.readout.head[0], self.model.blocks[self.readout.head[0]].post_norm
        table = self.readout.promotes
        if norm.kind == "none":
            return [((VocabularyPanel(change, table), 1.0),) for change in self.change]
        y = self.run.written[layer][:-1]
        whole = VocabularyPanel(_weighed(self.model, y if norm.weight is None else y * norm.weight), self.model.W_U)
        after = y + self.model.write(*self.readout.head, self.change)  # (variant, case, d_model)
        before, scales = 1 / scale_of(norm, y), 1 / scale_of(norm, after)
        return [
            ((VocabularyPanel(change * scale[:, None].float(), table), 1.0), (whole, (scale - before)[:, None].float()))
            for change, scale in zip(self.change, scales, strict=True)
        ]

    def _above(self) -> Float[Tensor, "variant case d_model"]:
        """Final residuals with everything above the head run anew."""
        layer, number = self.readout.head

        def replace(z: Tensor) -> Tensor:
            z = z.clone()
            z[:, :, number] = self.outputs
            return z

        return self.model.run_from(self.run, layer, replace, len(self.outputs))[:, :-1]

    def changes(self, losses: Mapping[Effect, Float[Tensor, "variant case"]], own: Float[Tensor, " case"]) -> Changes:
        """Loss gained for every effect and ablation, averaged over repeats."""
        return {
            (effect, name): (part.mean(0) - own).float()
            for effect, found in losses.items()
            for name, part in zip(self.settings.ablations, found.split(self.sizes), strict=True)
        }


@torch.inference_mode()
def loss_changes(
    asked: Sequence[tuple[HeadReadout, HeadSettings]], run: Pass, reference: Reference
) -> tuple[Float[Tensor, " case"], list[Changes]]:
    """The model's loss in each case of a context, and what ablating each head alone adds to it (nats).

    Total effects ablate the head at every position of the prefix at once, as a hook on the model does.
    """
    model = asked[0][0].model
    clean = VocabularyPanel(_weighed(model, run.final[:-1]), model.W_U)
    heads = [HeadChange(readout, run, reference, settings) for readout, settings in asked]
    wanted = [head.points(clean) for head in heads]
    points = [point for effects in wanted for variants in effects.values() for point in variants]
    own, *others = losses_at(model, [FinalResiduals(run.final[:-1], clean), *points], run.correct)
    left, changes = iter(others), []
    for head, effects in zip(heads, wanted, strict=True):
        losses: dict[Effect, Tensor] = {
            effect: torch.stack([next(left) for _ in variants]) for effect, variants in effects.items()
        }
        changes.append(head.changes(losses, own))
    return own.float(), changes
