"""Ablations with a known answer made of a model's own: what a claim says is false in them, or true, and no more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

TRADED_ROWS = "each row's effects at the end and early on traded at random"
TOGETHER = "these effects, at the end those of layer 1 in the order of layer 0's"
NAMES_OF_BOTH = "names dealt out to the heads of both layers at random"
PATHS_LEAD = "these paths' ratios, the highest of them between multigram heads"


def rows_traded(
    end: Float[np.ndarray, "layer head row pos"],
    early: Float[np.ndarray, "layer head row pos"],
    generator: np.random.Generator,
) -> tuple[Float[np.ndarray, "layer head row pos"], Float[np.ndarray, "layer head row pos"]]:
    """Effects at two checkpoints that differ in nothing: each row trades them or not, for all heads together."""
    trade = (generator.random(end.shape[2]) < 0.5)[:, None]
    return np.where(trade, early, end), np.where(trade, end, early)


def layers_together(
    effects: Float[np.ndarray, "layer head row pos"], heads: Sequence[Sequence[int]]
) -> Float[np.ndarray, "layer head row pos"]:
    """Each of these heads of layer 1 affects most what those of layer 0 affect most, with the effects that it has."""
    made, shape = effects.copy(), effects.shape[2:]
    order = np.argsort(effects[0, heads[0]].mean(0).ravel(), kind="stable")
    for head in heads[1]:
        dealt = np.empty(order.size, dtype=effects.dtype)
        dealt[order] = np.sort(effects[1, head].ravel())
        made[1, head] = dealt.reshape(shape)
    return made


def paths_lifted(
    values: Float[np.ndarray, "writer reader"], first: Bool[np.ndarray, " writer"], second: Bool[np.ndarray, " reader"]
) -> Float[np.ndarray, "writer reader"]:
    """The same values, the highest of them those of paths between marked heads."""
    labels = np.outer(first, second)
    made, ordered = np.empty_like(values), np.sort(values.ravel())[::-1]
    made[labels], made[~labels] = ordered[: labels.sum()], ordered[labels.sum() :]
    return made
