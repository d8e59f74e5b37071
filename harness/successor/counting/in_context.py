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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness.successor.counting.steering import NOBODY, RESIDUES, SteeringTable, layout, strict_winner
from harness.successor.counting.steering_tokens import Items

BEFORE = 2
CELLS_PER_PASS = 25
SEQUENCES_PER_PASS = 32


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
    vectors: Float[Tensor, "residue d_model"],
    scales: Sequence[float],
    *,
    first: int | None = None,
    device: str = "cpu",
) -> InContext | None:
    """Make every edit of a task's table in the model's own forward pass. None for a task without any cell.

    `bridge` needs `run_with_hooks(tokens, fwd_hooks=..., logits_to_keep=1)` and the hook point `blocks.0.hook_out`.
    """
    rows, expected = layout(items)
    if not rows:
        return None
    own = [items.index[place] % RESIDUES for place in rows]
    sequences = prompts(items, rows, first)
    shape = (len(scales), len(rows), RESIDUES)
    winner = np.full(shape, NOBODY)
    edited, kept = np.full(shape, np.nan), np.full(shape, np.nan)
    for number, scale in enumerate(scales):
        for row, place in enumerate(rows):
            step = scale * (vectors - vectors[own[row]])  # (residue, d_model)
            log_p = torch.cat(list(_next_tokens(bridge, sequences[row], step, device)))  # (residue, vocab)
            in_task = log_p[:, list(items.tokens)]
            winner[number, row] = strict_winner(in_task)
            for residue in range(RESIDUES):
                edited[number, row, residue] = _at(in_task[residue], expected[row, residue])
                kept[number, row, residue] = _at(in_task[residue], items.successor_of(items.index[place]))
    table = SteeringTable(items, tuple(scales), rows, tuple(own), expected, winner)
    return InContext(table, edited, kept)


def _at(values: Float[Tensor, " c"], place: int | None) -> float:
    return float("nan") if place is None or place == NOBODY else float(values[place])


def _next_tokens(
    bridge: Any, sequence: Sequence[int], steps: Float[Tensor, "edit d_model"], device: str
) -> Iterator[Float[Tensor, "edit vocab"]]:
    """Log probabilities of the next token after one prompt, under each edit of its last position."""
    for part in steps.split(CELLS_PER_PASS):
        tokens = torch.tensor(sequence, dtype=torch.long, device=device).expand(len(part), -1)
        hooks = [("blocks.0.hook_out", _adder(part.to(device)))]
        with torch.no_grad():
            logits = bridge.run_with_hooks(tokens, fwd_hooks=hooks, logits_to_keep=1)
        yield logits[:, -1].float().log_softmax(-1).cpu()


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

    Raises `ValueError` for an empty sequence.
    """
    if not all(len(sequence) for sequence in sequences):
        raise ValueError("residual at the last token: expected one token or more in every sequence, found none in one")
    found: dict[int, Tensor] = {}
    by_length: dict[int, list[int]] = {}
    for place, sequence in enumerate(sequences):
        by_length.setdefault(len(sequence), []).append(place)
    for places in by_length.values():
        for start in range(0, len(places), SEQUENCES_PER_PASS):
            part = places[start : start + SEQUENCES_PER_PASS]
            head = [] if first is None else [first]
            tokens = torch.tensor([[*head, *sequences[place]] for place in part], dtype=torch.long, device=device)
            found |= dict(zip(part, _below(bridge, tokens, layer), strict=True))
    return torch.stack([found[place] for place in range(len(sequences))])


def _below(bridge: Any, tokens: Int[Tensor, "sequence length"], layer: int) -> Float[Tensor, "sequence d_model"]:
    kept: list[Tensor] = []

    def keep(resid: Tensor, hook: Any) -> None:
        kept.append(resid[:, -1].detach().float().cpu())

    with torch.no_grad():
        bridge.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.hook_in", keep)], logits_to_keep=1)
    return kept[0]
