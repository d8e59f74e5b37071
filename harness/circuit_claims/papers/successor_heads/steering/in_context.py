"""The same edit inside the whole model: beyond the paper, which never runs its vector arithmetic in a forward pass.

A prompt is the tokens that come before t in its task, up to two, and then t (" March April May"). The edit
k (f_i - f_n) is added to what block 0 puts out at t's position, which is the same as adding it to MLP_0's output there.
Everything above sees it, every head and not only the one the features were found with, and what counts is the next
token: whether the successor of the edited order becomes the likeliest of the task, and by how much its log probability
changes. Nothing here knows a model library: a transformer-lens bridge comes in as an argument.

For models that split numbers into digits, `last_residuals` gives the vectors that stand in for MLP_0(W_E) of whole
numbers: the residual stream at a number's last digit, below a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuit_claims.heads.read_behind import Hooks, Prefixes
from circuit_claims.papers.successor_heads.steering.arithmetic import (
    NOBODY,
    RESIDUES,
    SteeringTable,
    layout,
    strict_winner,
)
from circuit_claims.papers.successor_heads.steering.tokens import Items

BEFORE = 2
# More edits at once share the reading of the weights; so many logits of 262,144 tokens are 268 MB.
CELLS_PER_PASS = 256


@dataclass(frozen=True)
class InContext:
    """What the edit does to the next token: one table of winners, and log probabilities, by scale, row and residue.

    `edited` and `own` are log probabilities (nats, of the whole vocabulary) of the successor of the edited order and
    of the token's own successor; nan where the task has none.
    """

    table: SteeringTable
    edited: Float[np.ndarray, "scale row residue"]
    own: Float[np.ndarray, "scale row residue"]


def prompts(items: Items, rows: Sequence[int], first: int | None) -> list[list[int]]:
    """For each row: `first` (a beginning of sequence, where the model wants one), the tokens before it, the token.

    A cyclic task goes round, so that January comes after November and December.
    """
    made = []
    for place in rows:
        start = place - BEFORE
        if items.around is None or len(items.tokens) < items.around:
            start = max(start, 0)
        context = [items.tokens[at % len(items.tokens)] for at in range(start, place + 1)]
        made.append(([] if first is None else [first]) + context)
    return made


def edit_in_context(
    bridge: Any,
    items: Items,
    vectors: Sequence[Float[Tensor, "residue d_model"]],
    scales: Sequence[float],
    *,
    first: int | None = None,
    device: str = "cpu",
) -> tuple[InContext, ...]:
    """Make every edit of a task's table in the model's own forward pass, with each of some sets of vectors.

    One result a set; none at all for a task without any cell. `bridge` needs `run_with_hooks(tokens, fwd_hooks=...,
    logits_to_keep=1)`, the hook point `blocks.0.hook_out`, and what `Prefixes` asks for. All edits of a row are read
    behind the same tokens, which are run once.
    """
    rows, expected = layout(items)
    if not rows:
        return ()
    own = [items.index[place] % RESIDUES for place in rows]
    sets = torch.stack(list(vectors))  # (set, residue, d_model)
    once = sets[:, None] - sets[:, own][:, :, None]  # (set, row, residue, d_model)
    steps = torch.stack([scale * once for scale in scales], dim=1)  # (set, scale, row, residue, d_model)
    shape = steps.movedim(2, 0).shape[:-1]  # (row, set, scale, residue)
    log_p = _next_tokens(bridge, prompts(items, rows, first), steps.movedim(2, 0).flatten(1, 3), items.tokens, device)
    tables = log_p.reshape(*shape, -1).permute(1, 2, 0, 3, 4)  # (set, scale, row, residue, c)
    followed = [items.successor_of(items.index[place]) for place in rows]
    kept = np.asarray([[NOBODY if place is None else place] * RESIDUES for place in followed])  # (row, residue)
    return tuple(
        InContext(
            SteeringTable(items, tuple(scales), rows, tuple(own), expected, strict_winner(table)),
            _at(table, expected),
            _at(table, kept),
        )
        for table in tables
    )


def _at(
    values: Float[Tensor, "scale row residue c"], places: Int[np.ndarray, "row residue"]
) -> Float[np.ndarray, "scale row residue"]:
    """The value at each cell's place, nan where that is nobody's."""
    wanted = torch.from_numpy(np.where(places == NOBODY, 0, places)).expand(values.shape[:-1])
    chosen = values.gather(-1, wanted[..., None])[..., 0].double().numpy()
    return np.where(places == NOBODY, np.nan, chosen)


def _next_tokens(
    bridge: Any,
    sequences: Sequence[Sequence[int]],
    steps: Float[Tensor, "row edit d_model"],
    candidates: Sequence[int],
    device: str,
) -> Float[Tensor, "row edit c"]:
    """Log probabilities (of the whole vocabulary) of candidates for the token after each prompt, under each edit."""
    found = torch.empty(*steps.shape[:2], len(candidates))
    for rows in _of_one_length(sequences):
        before = Prefixes.read(bridge, [sequences[row][:-1] for row in rows], device)
        cells = torch.cartesian_prod(torch.arange(len(rows)), torch.arange(steps.shape[1]))  # (cell, 2)
        for here, edit in (part.unbind(1) for part in cells.split(CELLS_PER_PASS)):
            row = torch.tensor(rows)[here]
            tokens = torch.tensor([[sequences[at][-1]] for at in row.tolist()], dtype=torch.long, device=device)
            hooks = [("blocks.0.hook_out", _adder(steps[row, edit].to(device)))]
            with torch.no_grad():
                logits = bridge.run_with_hooks(tokens, fwd_hooks=hooks, logits_to_keep=1, **before.at(here))[:, -1]
            found[row, edit] = (logits[:, list(candidates)] - logits.logsumexp(-1, keepdim=True)).float().cpu()
    return found


def _of_one_length(sequences: Sequence[Sequence[int]]) -> list[list[int]]:
    """Places of the sequences, those of one length together."""
    by_length: dict[int, list[int]] = {}
    for place, sequence in enumerate(sequences):
        by_length.setdefault(len(sequence), []).append(place)
    return list(by_length.values())


def _adder(step: Float[Tensor, "edit d_model"]) -> Callable[..., Tensor]:
    def add(resid: Tensor, hook: Any) -> Tensor:
        resid = resid.clone()
        resid[:, -1] += step
        return resid

    return add


def last_residuals(
    bridge: Any, sequences: Sequence[Sequence[int]], layer: int, *, first: int | None = None, device: str = "cpu"
) -> Float[Tensor, "sequence d_model"]:
    """The residual stream below `layer` at the last token of each sequence, `first` put before each where given.

    Beginnings that sequences share are read once (12 before 120 to 129), and no layer above `layer` is run but for
    the first token. Raises `ValueError` for an empty sequence.
    """
    if not all(len(sequence) for sequence in sequences):
        raise ValueError("residual at the last token: expected one token or more in every sequence, found none in one")
    whole = [(*([] if first is None else [first]), *sequence) for sequence in sequences]
    found: dict[tuple[int, ...], Tensor] = {}
    before: list[tuple[int, ...]] = []
    kept = None
    for length in range(1, max(map(len, whole), default=0) + 1):
        here = list(dict.fromkeys(sequence[:length] for sequence in whole if len(sequence) >= length))
        resid, kept = _next_below(bridge, here, (before, kept), layer, device)
        found |= dict(zip(here, resid, strict=True))
        before = here
    return torch.stack([found[sequence] for sequence in whole])


def _next_below(
    bridge: Any,
    here: Sequence[tuple[int, ...]],
    behind: tuple[Sequence[tuple[int, ...]], Prefixes | None],
    layer: int,
    device: str,
) -> tuple[Float[Tensor, "beginning d_model"], Prefixes]:
    """The residual stream below a layer at the last of these tokens, read behind the beginnings one token shorter."""
    resid: list[Tensor] = []

    def keep(found: Tensor, hook: Any) -> None:
        resid.append(found[:, -1].detach().float().cpu())

    hooks: Hooks = [(f"blocks.{layer}.hook_in", keep)]
    before, kept = behind
    if kept is None:
        kept = Prefixes.read(bridge, here, device, hooks)
        return resid[0], kept
    places = {beginning: place for place, beginning in enumerate(before)}
    given = kept.at(torch.tensor([places[beginning[:-1]] for beginning in here]))
    tokens = torch.tensor([beginning[-1:] for beginning in here], dtype=torch.long, device=device)
    with torch.no_grad():
        # The layer itself is run: where it is the first, the run would not have kept its tokens.
        bridge.run_with_hooks(tokens, fwd_hooks=hooks, stop_at_layer=layer + 1, logits_to_keep=1, **given)
    return resid[0], Prefixes(given["past_key_values"], device)
