"""What is read off ablations: how far affected tokens coincide, and where paths matter. Pure: numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from circuit_claims.api import (
    LEVEL,
    Interval,
    Measurement,
    bootstrap_counts,
    pair_arrangements,
    pair_difference_interval,
    percentile_interval,
)

TOP = 0.02
KEPT = 2  # times the most affected tokens are sorted; more where a draw needs more
SMALLEST = 1e-12


def overlap_growth(
    end: Float[np.ndarray, "layer head row pos"],
    early: Float[np.ndarray, "layer head row pos"],
    heads: Sequence[Sequence[int]],
    draws: int,
    generator: np.random.Generator,
    facts: Mapping[str, Any],
    top: float = TOP,
) -> Measurement:
    """Mean Jaccard overlap of the most affected tokens of multigram heads of both layers, at the end over early on.

    The most affected are the share `top` of positions; rows are drawn anew with replacement.
    """
    quantity = "growth of the overlap of affected tokens between layers"
    if not all(heads):
        return Measurement(quantity, None, status="partial", facts={**facts, "why": "a layer has no multigram heads"})
    count = end.shape[2]
    counts = bootstrap_counts(count, draws, generator)
    found = drawn_overlaps(end, heads, counts, top) / np.maximum(drawn_overlaps(early, heads, counts, top), SMALLEST)
    late, first = (float(overlaps(effects, top)[np.ix_(*heads)].mean()) for effects in (end, early))
    interval = percentile_interval(found, f"{draws:,} bootstrap draws over {count} rows", redrawn=count)
    more = {"overlap at the end": late, "overlap early": first}
    value = late / max(first, SMALLEST)
    return Measurement(quantity, value, interval=interval, unit="times", n=count, redrawn={"rows of text": count},
                       facts={**facts, **more})  # fmt: skip


def overlaps(effects: Float[np.ndarray, "layer head row pos"], top: float = TOP) -> Float[np.ndarray, "head head"]:
    """Jaccard overlap of the share `top` of positions that a layer-0 and a layer-1 head affect most, every pair.

    >>> overlaps(np.arange(8.0).reshape(2, 1, 1, 4), top=0.5).tolist()
    [[1.0]]
    """
    flat = effects.reshape(*effects.shape[:2], -1)
    count = max(1, round(top * flat.shape[2]))
    masks = np.zeros(flat.shape, dtype=np.float32)
    np.put_along_axis(masks, np.argpartition(-flat, count - 1, axis=2)[:, :, :count], 1.0, axis=2)
    both = masks[0] @ masks[1].T
    return both / (2 * count - both)


def drawn_overlaps(
    effects: Float[np.ndarray, "layer head row pos"],
    heads: Sequence[Sequence[int]],
    counts: Int[np.ndarray, "draw row"],
    top: float = TOP,
    kept: int = KEPT,
) -> Float[np.ndarray, " draw"]:
    """The mean of `overlaps` over pairs of these heads in draws of rows, `counts` saying how often each was drawn.

    A token of a row drawn twice counts twice; of the last one taken as many copies as there is room for.
    """
    tokens = effects[0, 0].size
    count = max(1, round(top * tokens))
    size = min(kept * count, tokens)
    sides = [[_taken(effects[layer, head], counts, count, size) for head in heads[layer]] for layer in (0, 1)]
    if any((taken.sum(1) < count).any() for side in sides for _, taken in side):
        return drawn_overlaps(effects, heads, counts, top, 2 * kept)
    total = np.zeros(len(counts))
    for own, mine in sides[0]:
        for other, theirs in sides[1]:
            _, left, right = np.intersect1d(own, other, assume_unique=True, return_indices=True)
            both = np.minimum(mine[:, left], theirs[:, right]).sum(1)
            total += both / (2 * count - both)
    return total / (len(sides[0]) * len(sides[1]))


def _taken(
    effects: Float[np.ndarray, "row pos"], counts: Int[np.ndarray, "draw row"], count: int, size: int
) -> tuple[Int[np.ndarray, " token"], Int[np.ndarray, "draw token"]]:
    """The `size` most affected tokens, most first, and how many copies of each are among a draw's first `count`."""
    flat = effects.ravel()
    first = np.argpartition(-flat, size - 1)[:size]
    order = first[np.argsort(-flat[first], kind="stable")]
    copies = counts[:, order // effects.shape[1]]
    return order, np.clip(count - (np.cumsum(copies, axis=1) - copies), 0, copies)


def closer_logs(nested: Measurement) -> Float[np.ndarray, "writer reader"]:
    """Log of each path's mean effect at nested closers over that elsewhere, of a table of `nested_brackets`."""
    closers, elsewhere = (np.maximum(nested.arrays[side].mean(2), SMALLEST) for side in ("closers", "elsewhere"))
    return np.log(closers / elsewhere)


def path_lead(
    values: Float[np.ndarray, "writer reader"],
    first: Bool[np.ndarray, " writer"],
    second: Bool[np.ndarray, " reader"],
    source: Measurement,
) -> Measurement:
    """By what factor paths between marked heads exceed the others, `values` being logs: heads are the units.

    The interval holds every factor that no renaming of the heads of both layers rejects. Noise of the rows of text is
    one reason why paths differ, and is dealt out with them.
    """
    labels = np.outer(first, second)
    quantity = "path ablation at nested closers over elsewhere, over that of other paths"
    if not 0 < labels.sum() < labels.size:
        facts = {**source.facts, "why": "no paths between multigram heads, or no others"}
        return source.derive(quantity, None, status="partial", facts=facts)
    lead = float(values[labels].mean() - values[~labels].mean())
    interval = pair_difference_interval(values, first, second)
    # As many pairs are marked in every arrangement: their sum leads where their mean does.
    sums = pair_arrangements(first, second) @ values.ravel()
    p_value = float((sums >= sums[0] - 1e-12 * max(1.0, abs(sums[0]))).mean())
    facts = {
        **source.facts, "closers over elsewhere": float(np.exp(values[labels].mean())),
        "the same of other paths": float(np.exp(values[~labels].mean())), "p": p_value,
    }  # fmt: skip
    low, high = float(np.exp(interval.low)), float(np.exp(interval.high))
    return source.derive(
        quantity, float(np.exp(lead)), interval=Interval(low, high, LEVEL, interval.method), unit="times", facts=facts,
        redrawn={"heads": len(first) + len(second)},
    )  # fmt: skip


def closer_ratio(
    now: tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]],
    start: tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]] | None,
    draws: int,
    generator: np.random.Generator,
    source: Measurement,
) -> Measurement:
    """Effect at closers over effect elsewhere, `now` over at the `start`; rows of both drawn anew with replacement.

    Without a `start`, the plain ratio.
    """

    def ratio(sides: tuple[np.ndarray, np.ndarray], rows: Any = slice(None)) -> float:
        return float(sides[0][rows].mean() / max(sides[1][rows].mean(), 1e-12))

    def anew(sides: tuple[np.ndarray, np.ndarray] | None) -> float:
        return ratio(sides, generator.integers(len(sides[0]), size=len(sides[0]))) if sides else 1.0

    found = np.array([anew(now) / anew(start) for _ in range(draws)])
    apart = ", those of the start drawn apart" if start else ""
    method = f"{draws:,} bootstrap draws over {len(now[0])} rows{apart}"
    interval = percentile_interval(found, method, redrawn=len(now[0]))
    reference = ratio(start) if start else 1.0
    facts = {**source.facts, "closers over elsewhere": ratio(now), "the same at initialisation": reference}
    quantity = "path ablation at nested closers over elsewhere" + (", over that at initialisation" if start else "")
    redrawn = {"rows of text": len(now[0])}
    return source.derive(
        quantity, ratio(now) / reference, interval=interval, unit="times", facts=facts, redrawn=redrawn
    )
