"""Tables with a known answer made of the tables at hand: what a claim says is false in them, or true, and no more.

All values, errors and sizes are kept; only what the claim speaks of is dealt out anew, or put in its order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from circuit_claims.papers.refined_llc.curves.tables import HeadTable

HEADS = "labels dealt out to the heads at random"
WITHIN = "counts dealt out to the heads of each layer at random"
ENDS = "each head's first and last place among its layer's heads traded at random"
TEXTS = "chains dealt out to the texts at random"
CALIBRATION = 400  # draws of an uncertainty in each of the 200 data sets with a known answer
LIFTED = "these values, the highest of them the claimed heads'"
PARTED = "these values, those of the two heads that part most the claimed heads'"


def shuffled_heads(table: HeadTable, generator: np.random.Generator) -> HeadTable:
    """The same columns under other heads' names."""
    order = generator.permutation(len(table.heads))
    return replace(table, mean=table.mean[:, order], error=table.error[:, order], sound=table.sound[:, order])


def shuffled_together(tables: Sequence[HeadTable], generator: np.random.Generator) -> list[HeadTable]:
    """Tables of the same heads, all under the same other heads' names."""
    seed = int(generator.integers(2**63))
    return [shuffled_heads(table, np.random.default_rng(seed)) for table in tables]


def lifted(table: HeadTable, groups: Mapping[str, Sequence[str]]) -> HeadTable:
    """The last row's values of these heads in another order: the first group has the highest, the next the next."""
    names = [head for heads in groups.values() for head in heads]
    last = table.of(names).at(table.steps[-1])
    order = np.argsort(-last.mean[0], kind="stable")
    return replace(last, mean=last.mean[:, order], error=last.error[:, order], sound=last.sound[:, order])


def lifted_rise(tables: Sequence[HeadTable], heads: Sequence[str]) -> list[HeadTable]:
    """Tables of two texts, heads renamed so that those named rise most from the second to the first, and do rise."""
    higher, lower = (table.at(table.steps[-1]) for table in tables)
    names = [*heads, *(head for head in higher.heads if head not in heads)]
    order = np.argsort(lower.mean[0] - higher.mean[0], kind="stable")
    lift = max(0.0, float((lower.mean - higher.mean)[0, order][: len(heads)].max()))
    lift = np.where(np.isin(names, heads), lift + float(np.ptp(higher.mean - lower.mean)), 0.0)
    raised = replace(higher, heads=tuple(names), mean=higher.mean[:, order] + lift)
    return [raised, replace(lower, heads=tuple(names), mean=lower.mean[:, order])]


def most_parted(tables: Sequence[HeadTable]) -> tuple[str, str]:
    """Of two tables of the same heads the pair that at last lies apart most in the first, by how far in the second."""
    names = tables[0].heads
    last = [each.of(names).mean[-1] for each in tables]
    first, second = np.triu_indices(len(names), 1)
    apart = [np.abs(each[first] - each[second]) for each in last]
    best = int((apart[0] / np.maximum(apart[1], 1e-12)).argmax())
    return names[first[best]], names[second[best]]


def traded_ends(table: HeadTable, generator: np.random.Generator) -> HeadTable:
    """First and last rows whose heads are as far apart: deviations from the layer's mean trade places, head by head."""
    mean = table.mean.copy()
    layers = np.array([head[0] for head in table.heads])
    for layer in np.unique(layers):
        at = np.flatnonzero(layers == layer)
        ends = mean[[0, -1]][:, at]
        levels = ends.mean(axis=1, keepdims=True)
        swap = generator.random(len(at)) < 0.5
        apart = np.where(swap, (ends - levels)[::-1], ends - levels)
        mean[0, at], mean[-1, at] = apart + levels
    return replace(table, mean=mean)


def shuffled_within(
    values: Float[np.ndarray, " head"], groups: Sequence[str], generator: np.random.Generator
) -> Float[np.ndarray, " head"]:
    """The same values, those of each group (layer) among its own heads in another order."""
    names, dealt = np.asarray(groups), np.asarray(values).copy()
    for group in np.unique(names):
        at = np.flatnonzero(names == group)
        dealt[at] = dealt[generator.permutation(at)]
    return dealt


def in_the_order_of(
    x: Float[np.ndarray, " head"], y: Float[np.ndarray, " head"], groups: Sequence[str]
) -> Float[np.ndarray, " head"]:
    """The values of `y`, within each group in the order of `x`."""
    names, sorted_y = np.asarray(groups), np.asarray(y).copy()
    for group in np.unique(names):
        at = np.flatnonzero(names == group)
        sorted_y[at[np.argsort(x[at], kind="stable")]] = np.sort(y[at])
    return sorted_y


def chains_dealt_out(
    per_chain: Float[np.ndarray, "text chain"], generator: np.random.Generator
) -> Float[np.ndarray, "text chain"]:
    """The same chains under other texts' names: texts that differ in nothing but their chains."""
    return generator.permutation(per_chain.flatten()).reshape(per_chain.shape)


def texts_apart(per_chain: Float[np.ndarray, "text chain"], factor: float) -> Float[np.ndarray, "text chain"]:
    """Texts whose coefficients differ, typically, by `factor`; each one's chains about its own as far as they were."""
    from scipy.special import ndtri

    texts, means = len(per_chain), per_chain.mean(1, keepdims=True)
    scores = ndtri((np.arange(texts) + 0.5) / texts)
    logs = scores / scores.std(ddof=1) * np.log(factor) / np.sqrt(2)
    return per_chain / means * np.exp(np.log(means).mean() + logs)[:, None]


def backwards(table: HeadTable) -> HeadTable:
    """The same rows from last to first, under the steps from first to last."""
    return replace(table, mean=table.mean[::-1], error=table.error[::-1], sound=table.sound[::-1])


def layers_exchanged(table: HeadTable) -> HeadTable:
    """A table of two layers, each layer's columns under the heads of the other."""
    half = len(table.heads) // 2
    order = np.roll(np.arange(len(table.heads)), half)
    return replace(table, mean=table.mean[:, order], error=table.error[:, order], sound=table.sound[:, order])


def types_of_others(types: Mapping[str, str]) -> dict[str, str]:
    """The same types, each head with that of the head three places on."""
    kinds = list(types.values())
    return dict(zip(types, kinds[3:] + kinds[:3], strict=True))
