"""Moduli compared by what their probes know beyond chance, on tokens they never saw (SH-10, SH-12, SH-12d).

A probe mod 2 is right half of the time without knowing anything. So each modulus stands against its own chance:

    skill = (share right - 1/m) / (1 - 1/m)          0: chance, 1: always right

Strings (all tokens of one spelling) and probes are drawn anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from circuit_claims.api import (
    Interval,
    Measurement,
    bootstrap_counts,
    cluster_interval,
    first_of,
    percentile_interval,
)

DRAWS = 2000
QUICK = 400


def string_numbers(texts: Sequence[str]) -> Int[np.ndarray, " n"]:
    """One number a spelling, whatever its case and the space before it."""
    return np.unique([text.strip().lower() for text in texts], return_inverse=True)[1]


def skill(share: np.ndarray, moduli: np.ndarray) -> np.ndarray:
    """Shares right against each modulus' chance; moduli run along the last axis."""
    return (share - 1 / moduli) / (1 - 1 / moduli)


def share_draws(
    right: np.ndarray, string: Int[np.ndarray, " n"], draws: int, generator: np.random.Generator
) -> Float[np.ndarray, "draw modulus"]:
    """Share right of each modulus in bootstrap draws over probes and strings; `right` is (modulus, probe, n)."""
    probes, strings = right.shape[1], int(string.max()) + 1
    member = (string[:, None] == np.arange(strings)).astype(np.float64)  # (n, string)
    rows = bootstrap_counts(probes, draws, generator) / probes
    columns = bootstrap_counts(strings, draws, generator)
    means = np.tensordot(rows, right.astype(np.float64) @ member, axes=(1, 1))  # (draw, modulus, string)
    return np.einsum("dms,ds->dm", means, columns, optimize=True) / (columns @ member.sum(0))[:, None]


def right_of(table: Measurement, index: np.ndarray | None = None) -> np.ndarray:
    """Which tokens each probe of each modulus gets right, (modulus, probe, n), if they have these indices."""
    moduli, arrays = np.asarray(table.facts["moduli"]), table.arrays
    asked = arrays["index"] if index is None else index
    return arrays["predictions"] == (asked % moduli[:, None])[:, None, :]


def shuffled_within_tasks(table: Measurement, generator: np.random.Generator) -> np.ndarray:
    """Which would be right if the indices of each task were handed out anew to its strings."""
    index, task = table.arrays["index"].copy(), table.arrays["task"]
    for one in np.unique(task):
        index[task == one] = generator.permutation(index[task == one])
    return right_of(table, index)


def with_modulus_right(
    table: Measurement, share: float, generator: np.random.Generator, modulus: int = 10
) -> np.ndarray:
    """The same tokens, of which the probes of one modulus get this share right and know nothing of the rest."""
    right = right_of(table).copy()
    row = table.facts["moduli"].index(modulus)
    right[row] = generator.random(right.shape[2]) < share
    return right


def best_modulus(table: Measurement, right: np.ndarray, generator: np.random.Generator, draws: int) -> Measurement:
    """The modulus whose probes know most beyond chance out of distribution."""
    moduli = np.asarray(table.facts["moduli"])
    drawn = skill(share_draws(right, table.arrays["string"], draws, generator), moduli)
    return _first(table, "modulus with the best probe out of distribution", skill(right.mean((1, 2)), moduli), drawn)


def least_drop(table: Measurement, right: np.ndarray, generator: np.random.Generator, draws: int) -> Measurement:
    """The modulus that loses least skill from left-out numbers to other tasks, of those that were learned.

    Learned: skill of a half on the numbers left out. Partial, so that nothing is concluded, where none was.
    """
    moduli, within = np.asarray(table.facts["moduli"]), table.arrays["within"]
    inside = skill(within, moduli)
    kept = inside >= 0.5
    name = "modulus that drops least out of distribution"
    if kept.sum() < 2:
        return table.derive(name, None, status="partial", redrawn=_redrawn(table))
    drawn = skill(share_draws(right, table.arrays["string"], draws, generator), moduli) - inside
    estimate = skill(right.mean((1, 2)), moduli) - inside
    return _first(table, name, estimate[kept], drawn[:, kept], moduli[kept])


def share_right(
    table: Measurement, right: np.ndarray, generator: np.random.Generator, draws: int, modulus: int = 10
) -> Measurement:
    """Share of the tokens whose residue the probes of one modulus get right."""
    row = table.facts["moduli"].index(modulus)
    drawn = share_draws(right[[row]], table.arrays["string"], draws, generator)[:, 0]
    redrawn = _redrawn(table)
    method = f"{draws:,} bootstrap draws over probes and strings"
    interval = percentile_interval(drawn, method, redrawn=redrawn["strings"])
    low, high = max(interval.low, 0.0), min(interval.high, 1.0)
    return table.derive(
        f"share right out of distribution, mod {modulus}",
        float(right[row].mean()),
        interval=replace(interval, low=low, high=high),
        unit="share of tokens",
        redrawn=redrawn,
    )


COUNTED_IN = {"days": (7, "days of seven"), "months": (12, "months of twelve")}
"""The modulus whose probe is asked about each of these tasks (SH-12b, SH-12c), and the claim's unit."""


def count_in_task(table: Measurement, right: np.ndarray, task: str) -> Measurement:
    """How many of a task's tokens the probes of its own modulus get right, on average; `right` as in `right_of`.

    There are no more days or months than these: what might have come out otherwise is the training of the probe.
    """
    modulus, unit = COUNTED_IN[task]
    here = _in_task(table, task)
    counts = right[table.facts["moduli"].index(modulus)][:, here].sum(1)
    asked = int(here.sum())
    return table.derive(
        f"{task} right", float(counts.mean()), interval=over_probes(counts, asked), unit=unit, n=asked,
        redrawn={"probes": len(counts)},
    )  # fmt: skip


def with_task_known(table: Measurement, task: str, share: float, generator: np.random.Generator) -> np.ndarray:
    """The same tokens, of which each probe of a task's modulus gets this share right, drawn token by token."""
    probes = table.arrays["predictions"].shape[1]
    return _with_row(table, task, generator.random((probes, _in_task(table, task).sum())) < share)


def with_so_many_right(table: Measurement, task: str, count: int) -> np.ndarray:
    """The same tokens, of which every probe of a task's modulus gets so many right."""
    return _with_row(table, task, np.arange(_in_task(table, task).sum()) < count)


def _with_row(table: Measurement, task: str, known: np.ndarray) -> np.ndarray:
    right = right_of(table).copy()
    right[table.facts["moduli"].index(COUNTED_IN[task][0])][:, _in_task(table, task)] = known
    return right


def _in_task(table: Measurement, task: str) -> np.ndarray:
    return table.arrays["task"] == table.facts["tasks"].index(task)


def over_probes(counts: Int[np.ndarray, " probe"], asked: int) -> Interval:
    """The interval of the mean number right of those `asked`, over probes that are trained anew."""
    found = cluster_interval(counts, np.arange(len(counts)))
    method = f"{found.method.replace('clusters', 'probes')}, within 0 to {asked}"
    return replace(found, low=max(found.low, 0.0), high=min(found.high, float(asked)), method=method)


def _redrawn(table: Measurement) -> dict[str, int]:
    return {"strings": int(table.arrays["string"].max()) + 1}


def _first(
    table: Measurement, quantity: str, estimate: np.ndarray, drawn: np.ndarray, moduli: np.ndarray | None = None
) -> Measurement:
    names = [str(modulus) for modulus in (table.facts["moduli"] if moduli is None else moduli)]
    found = first_of(names, estimate, drawn)
    return table.derive(
        quantity, found.leader, support=found.support, rivals=found.rivals, redrawn=_redrawn(table),
        facts={"skill or drop": dict(zip(names, np.round(estimate, 4).tolist(), strict=True))},
    )  # fmt: skip
