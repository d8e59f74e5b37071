"""What a chosen head attends to and what it promotes, case by case: what its behaviours are judged by."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuit_claims.heads.effects.direct import centred, scale_of
from circuit_claims.heads.effects.forward import AblationModel, Pass
from circuit_claims.heads.effects.losses import HeadReadout

# So that a block of logits is still in the cache when the largest are looked for.
VOCABULARY_BLOCK = 4096
GROUP = 32


def most_attended(
    pattern: Float[Tensor, "pos pos"], top: int
) -> tuple[Int[Tensor, "case top"], Float[Tensor, "case top"]]:
    """Positions each case's last token attends to most, the most first, and their shares of its attention.

    A case with fewer than `top` positions is padded with position -1, share 0.
    """
    cases = len(pattern) - 1
    shares, places = pattern[:-1].topk(min(top, len(pattern)), dim=-1)
    beyond = places > torch.arange(cases, device=pattern.device)[:, None]
    places, shares = places.masked_fill(beyond, -1), shares.masked_fill(beyond, 0.0)
    missing = (0, top - places.shape[1])
    return torch.nn.functional.pad(places, missing, value=-1), torch.nn.functional.pad(shares, missing)


@torch.inference_mode()
def most_promoted(
    readout: HeadReadout, run: Pass, most: int
) -> tuple[Int[Tensor, "case most"], Float[Tensor, "case most"]]:
    """Tokens whose logits the head's own write raises most, the most first, and by how much (nats).

    The direct logit attribution W_U norm(W_O z), norms frozen at their unablated scales, without the final norm's
    shift: what the head adds, not what ablating it would change (the mean it is compared with has favourites too).
    """
    (layer, number), model = readout.head, readout.model
    z = run.z[layer][:-1, number]
    scale = scale_of(model.final_norm, run.final[:-1]) * scale_of(
        model.blocks[layer].post_norm, run.written[layer][:-1]
    )
    table, found = readout.promotes, []
    for start in range(0, len(table), VOCABULARY_BLOCK):
        values, tokens = top_of(z @ table[start : start + VOCABULARY_BLOCK].T, most)
        found.append((values, tokens + start))
    values, tokens = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    best = values.topk(most, dim=-1)
    return tokens.take_along_dim(best.indices, dim=-1), best.values / scale.float()[:, None]


@torch.inference_mode()
def promoted_in(model: AblationModel, run: Pass, head: tuple[int, int], cases: Int[Tensor, " asked"]) -> Tensor:
    """The token that a head promotes most in some cases of a pass: the first of `most_promoted`, for a few cases.

    Without the head's whole table of readouts, which only pays where most cases are asked for.
    """
    layer, number = head
    out, weight = model.write(layer, number, run.z[layer][cases, number]), model.blocks[layer].post_norm.weight
    out = centred(model.final_norm, out if weight is None else out * weight)
    norm = model.final_norm.weight
    return (model.W_U @ (out if norm is None else out * norm).T).argmax(0)


def top_of(rows: Float[Tensor, "row column"], most: int) -> tuple[Float[Tensor, "row most"], Int[Tensor, "row most"]]:
    """The largest entries of each row, the largest first, and their columns.

    As topk, but for order among equals, and several times faster on long rows: they lie in the `GROUP`s of columns
    with the largest maxima, and only these are looked through.
    """
    columns = rows.shape[1]
    if columns < GROUP * max(2 * most, GROUP):
        found = rows.topk(min(most, columns), dim=-1)
        return found.values, found.indices
    if columns % GROUP:
        rows = torch.nn.functional.pad(rows, (0, -columns % GROUP), value=-torch.inf)
    groups = rows.unflatten(1, (-1, GROUP))
    best = groups.amax(-1).topk(most, dim=-1).indices  # (row, most)
    inside = groups.take_along_dim(best[:, :, None], dim=1).flatten(1)  # (row, most GROUP)
    found = inside.topk(most, dim=-1)
    group = best.take_along_dim(found.indices // GROUP, dim=-1)
    return found.values, group * GROUP + found.indices % GROUP
