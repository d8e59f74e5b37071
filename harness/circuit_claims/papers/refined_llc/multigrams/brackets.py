"""Nested brackets and quotes: does the model know which one to close, and which heads does that knowledge need?

The authors report from unpublished work that multigram heads of both layers together carry nested brackets and quotes
(facts of Wang et al. 2025); the probe here is this project's: two different pairs, one within the other, filled with
random words, asked inside the inner one and again after it was closed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuit_claims.heads.composition import head_ablated, path_ablated
from circuit_claims.toy.model import AttentionOnly

KINDS = (("(", ")"), ("[", "]"), ("{", "}"), ('"', '"'))
FILLERS = 3


@dataclass(frozen=True)
class BracketProbes:
    """Rows of tokens, what should be closed at each row's end, and what should not; `outer` rows ask for the outer."""

    rows: Int[Tensor, "row pos"]
    right: Int[Tensor, " row"]
    wrong: Int[Tensor, " row"]
    outer: Bool[Tensor, " row"]


def closing_pairs(vocabulary: Mapping[str, int]) -> tuple[tuple[int, int], ...]:
    """Ids of opening (behind a space where that is a token) and closing mark of each kind that the vocabulary has."""
    found = []
    for opening, closing in KINDS:
        start = vocabulary.get(f" {opening}", vocabulary.get(opening))
        if start is not None and closing in vocabulary:
            found.append((start, vocabulary[closing]))
    return tuple(found)


def word_tokens(strings: Sequence[str], most: int = 500) -> tuple[int, ...]:
    """Ids of tokens that are a space and lower-case letters, three or more, the first `most` (commonest merges first).

    >>> word_tokens([" the", "the", " a", " (", " words"])
    (0, 4)
    """
    fits = (
        len(text) > 3 and text[0] == " " and text[1:].isalpha() and text.isascii() and text.islower()
        for text in strings
    )
    return tuple(index for index, good in enumerate(fits) if good)[:most]


def nested_probes(
    pairs: Sequence[tuple[int, int]], fillers: Sequence[int], bos: int, count: int, generator: torch.Generator
) -> BracketProbes:
    """`count` rows for every ordered choice of an outer and another inner pair, half of them asked after the inner.

    `BOS w w w ( w w w [ w w w` must close `[`; `BOS w w w ( w w w [ w ] w` must close `(`: equal lengths.
    Raises ValueError with fewer than two pairs, or without words to fill with.
    """
    if len(pairs) < 2 or not fillers:
        raise ValueError(
            "nested brackets: expected two kinds of brackets and some words as single tokens, found "
            f"{len(pairs)} kinds and {len(fillers)} words. Use a tokenizer with ( ) [ ] {{ }} as tokens"
        )
    rows, right, wrong, outer = [], [], [], []
    for outside in pairs:
        for inside in pairs:
            if inside == outside:
                continue
            for index in range(count):
                picks = torch.randint(len(fillers), (3 * FILLERS,), generator=generator).tolist()
                words = [fillers[pick] for pick in picks]
                after = index % 2 == 1
                tail = [words[-3], inside[1], words[-1]] if after else words[-3:]
                rows.append([bos, *words[:3], outside[0], *words[3:6], inside[0], *tail])
                ends = (outside[1], inside[1]) if after else (inside[1], outside[1])
                right.append(ends[0])
                wrong.append(ends[1])
                outer.append(after)
    return BracketProbes(torch.tensor(rows), torch.tensor(right), torch.tensor(wrong), torch.tensor(outer))


def margins(model: AttentionOnly, probes: BracketProbes) -> Float[Tensor, " row"]:
    """Logit of the right closing mark less that of the wrong one, in nats: above 0 the model knows which to close."""
    with torch.no_grad():
        resid = model.embed["W_E"][probes.rows]
        for block in model.blocks:
            resid = block(resid, model.positions(probes.rows.shape[1]))
    return _read(model, resid, probes)


@torch.no_grad()
def _read(model: AttentionOnly, resid: Float[Tensor, "row pos d"], probes: BracketProbes) -> Float[Tensor, " row"]:
    normed = model.ln_final(resid[:, -1])
    unembed, bias = model.unembed["W_U"], model.unembed["b_U"]
    direction = unembed[:, probes.right] - unembed[:, probes.wrong]
    return (normed * direction.T).sum(-1) + bias[probes.right] - bias[probes.wrong]


def head_margin_loss(model: AttentionOnly, probes: BracketProbes) -> Float[Tensor, "layer head row"]:
    """Margin lost when each head is ablated to its mean over the probes."""
    before = margins(model, probes)
    found = [before - _read(model, resid, probes) for _, _, resid in head_ablated(model, probes.rows)]
    return torch.stack(found).unflatten(0, (-1, model.config.n_heads))


def path_margin_loss(model: AttentionOnly, probes: BracketProbes) -> Float[Tensor, "writer reader row"]:
    """Margin lost when a head of layer 1 no longer sees (in queries, keys or values) one of layer 0."""
    before = margins(model, probes)
    found = [before - _read(model, resid, probes) for _, _, resid in path_ablated(model, probes.rows, through="QKV")]
    return torch.stack(found).unflatten(0, (-1, model.config.n_heads))
