"""Loss changes of chosen heads: direct, indirect and total effects over the whole vocabulary.

The loss needs every token's logit: d_model x d_vocab operations a case, more than all layers together in small models.
Two savings, both exact. Indirect and total effects run only the layers from the head's own upwards, on the residual
that the unablated pass kept. And a change of the head's own write spans only d_head dimensions: with U = W_U W_O of
the head (taken through the final norm's weights), found once, logits after a change dz are

    (logits * s + U dz) / s'          s, s' the final norm's scale before and after

so that a direct effect costs d_head x d_vocab, and so does an indirect effect, which is a total one with the own write
put back. Where attention's output is normed (Gemma 3) a write is not linear in dz and is read out in full.
All norms are recomputed here, whatever `Ablations.final_norm` says of logits: a loss has no parts to add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness.successor.ablation.direct import centred, scale_of
from harness.successor.ablation.forward import AblationModel, Pass
from harness.successor.ablation.reference import Reference
from harness.successor.ablation.results import Head
from harness.successor.ablation.settings import ABLATIONS, EFFECTS, Ablation, Effect

VOCABULARY_BLOCK = 4096

Changes = dict[tuple[Effect, Ablation], Float[Tensor, " case"]]


@dataclass(frozen=True)
class HeadReadout:
    """One head's way to the logits: `table` is W_U W_O, through the final norm's weights; None where it is not linear.

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
    def table(self) -> Float[Tensor, "d_vocab d_head"] | None:
        """What each unit of the head's output adds to each token's logit, but for the final norm's scale."""
        return self.promotes if self.model.blocks[self.head[0]].post_norm.kind == "none" else None

    @cached_property
    def promotes(self) -> Float[Tensor, "d_vocab d_head"]:
        """The same with Gemma's norm after attention frozen: its weights applied, its scale left out."""
        layer, head = self.head
        width, block, norm = self.model.dims.d_head, self.model.blocks[layer], self.model.final_norm
        out = block.W_O[:, head * width : (head + 1) * width].T  # (d_head, d_model)
        out = centred(norm, out if block.post_norm.weight is None else out * block.post_norm.weight)
        return self.model.W_U @ (out if norm.weight is None else out * norm.weight).T


@torch.inference_mode()
def losses(
    model: AblationModel, final: Float[Tensor, "variant case d_model"], correct: Int[Tensor, " case"]
) -> Float[Tensor, "variant case"]:
    """Loss of the correct token (nats) at final residuals, block by block of the vocabulary."""
    return torch.stack([_losses_around(model, x, correct, None, x.new_zeros(0, len(x), 0))[0] for x in final])


@torch.inference_mode()
def losses_around(
    readout: HeadReadout,
    final: Float[Tensor, "case d_model"],
    correct: Int[Tensor, " case"],
    writes: Float[Tensor, "variant case d_model"],
    outputs: Float[Tensor, "variant case d_head"],
) -> Float[Tensor, "1_and_variant case"]:
    """Loss at `final`, and at `final` plus each of `writes`, which are what changes `outputs` of the head come to."""
    if readout.table is None:
        return losses(readout.model, torch.cat([final[None], final + writes]), correct)
    return _losses_around(readout.model, final, correct, readout.table, outputs, writes)


def _losses_around(
    model: AblationModel,
    final: Float[Tensor, "case d_model"],
    correct: Int[Tensor, " case"],
    table: Float[Tensor, "d_vocab d_head"] | None,
    outputs: Float[Tensor, "variant case d_head"],
    writes: Float[Tensor, "variant case d_model"] | None = None,
) -> Float[Tensor, "1_and_variant case"]:
    norm = model.final_norm
    points = final[None] if writes is None else torch.cat([final[None], final + writes])
    scale = scale_of(norm, points).float()  # (1 + variant, case)
    x = centred(norm, final)
    x = x if norm.weight is None else x * norm.weight
    partition = torch.full(points.shape[:2], -torch.inf, device=final.device)
    for start in range(0, len(model.W_U), VOCABULARY_BLOCK):
        block = slice(start, start + VOCABULARY_BLOCK)
        base = x @ model.W_U[block].T  # (case, block), yet to be divided by the scale
        shift = None if norm.bias is None else norm.bias @ model.W_U[block].T
        for row in range(len(points)):
            logits = base if row == 0 else torch.addmm(base, outputs[row - 1], table[block].T)
            logits = logits / scale[row, :, None]
            logits = logits if shift is None else logits.add_(shift)
            partition[row] = torch.logaddexp(partition[row], logits.logsumexp(-1))
    right = (norm(points) * model.W_U[correct]).sum(-1)
    return partition - right


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


@torch.inference_mode()
def loss_changes(
    readout: HeadReadout,
    run: Pass,
    reference: Reference,
    effects: Sequence[Effect] = EFFECTS,
    ablations: Sequence[Ablation] = ABLATIONS,
) -> tuple[Float[Tensor, " case"], Changes]:
    """The model's loss in each case of a context, and what ablating one head adds to it (nats), averaged over repeats.

    Total effects ablate the head at every position of the prefix at once, as a hook on the model does.
    """
    layer, number = readout.head
    own = run.z[layer][:, number]
    replacements = {name: reference.replacement(run, layer, name)[:, :, number] for name in ablations}
    stacked = torch.cat([output.expand(-1, len(own), -1) for output in replacements.values()])  # (variant, pos, d_head)
    change = (stacked - own)[:, :-1]  # (variant, case, d_head)
    writes = own_write(readout.model, run, readout.head, change)
    found = losses_around(readout, run.final[:-1], run.correct, writes, change)
    loss, values = found[0], {"direct": found[1:]}
    if {"indirect", "total"} & set(effects):
        values["total"], values["indirect"] = _above(readout, run, stacked, writes, change)
    sizes = [len(output) for output in replacements.values()]
    parts = {effect: dict(zip(ablations, values[effect].split(sizes), strict=True)) for effect in effects}
    changes = {(effect, name): part.mean(0) - loss for effect in effects for name, part in parts[effect].items()}
    return loss, changes


def _above(
    readout: HeadReadout,
    run: Pass,
    stacked: Float[Tensor, "variant pos d_head"],
    writes: Float[Tensor, "variant case d_model"],
    change: Float[Tensor, "variant case d_head"],
) -> tuple[Float[Tensor, "variant case"], Float[Tensor, "variant case"]]:
    """Losses with everything above the head run anew: of the total effect, and with the own write put back."""
    layer, number = readout.head

    def replace(z: Tensor) -> Tensor:
        z = z.clone()
        z[:, :, number] = stacked
        return z

    final = readout.model.run_from(run, layer, replace, len(stacked))[:, :-1]
    pairs = [
        losses_around(readout, x, run.correct, -write[None], -dz[None])
        for x, write, dz in zip(final, writes, change, strict=True)
    ]
    total, indirect = torch.stack(pairs, dim=1)
    return total, indirect
