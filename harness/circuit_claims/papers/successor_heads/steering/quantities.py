"""The quantities that claims on vector arithmetic are judged on, read off stored steering tables. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from circuit_claims.api import LEVEL, Interval, Measurement, percentile_interval, percentiles

if TYPE_CHECKING:
    from circuit_claims.papers.successor_heads.steering.arithmetic import SteeringTable

USUAL = 1.0
SCALE_OF = {"months": 2.0}
"""The scale of an edit in the paper's recipe: 2 for months, 1 for every other task."""
FAILING = ("days", "letters")
LEAST_SUCCESS = 0.30
"""Below this rate at its best scale a curve has no peak to speak of: three times the one cell in ten of chance."""
PLATEAU = 0.9
"""A plateau is where the rate is at least this share of its highest."""


def tasks_of(table: Measurement) -> list[str]:
    """Tasks that have a steering table."""
    return list(table.facts["items"])


def tables_of(table: Measurement, task: str) -> list[SteeringTable]:
    """A task's steering tables, one for each set of vectors that was tried (one, or several random ones)."""
    from circuit_claims.papers.successor_heads.steering.arithmetic import RESIDUES, SCALES, SteeringTable
    from circuit_claims.papers.successor_heads.steering.tokens import Items

    if task not in table.facts["items"]:
        raise ValueError(f"steering table: expected one of {', '.join(tasks_of(table))}, found {task!r}")
    stated = table.facts["items"][task]
    index = tuple(stated["index"])
    items = Items(task, stated["form"], tuple(stated["texts"]), tuple(range(len(index))), index, stated["around"])
    rows = tuple(int(place) for place in table.arrays[f"{task}/rows"])
    own = tuple(index[place] % RESIDUES for place in rows)
    expected = table.arrays[f"{task}/expected"]
    scales = tuple(table.facts.get("scales", SCALES))
    return [SteeringTable(items, scales, rows, own, expected, winner) for winner in table.arrays[f"{task}/winner"]]


def success_rate(table: Measurement, task: str, draws: int) -> Measurement:
    """Share of a task's cells that succeed at the scale of the paper's recipe (SH-15); the mean of several sets."""
    from circuit_claims.papers.successor_heads.steering.arithmetic import rate_draws, rate_interval

    scale = SCALE_OF.get(task, USUAL)
    tables = tables_of(table, task)
    rates = [float(one.rates()[one.at(scale)]) for one in tables]
    ends = [rate_interval(one, scale, rate_draws(one, np.random.default_rng(0), draws)) for one in tables]
    low, high = np.mean(ends, axis=0)
    method = f"{draws:,} bootstrap draws over tokens and residues, or exact binomial over cells where wider"
    edited = float(np.mean([one.rates(edited_only=True)[one.at(scale)] for one in tables]))
    return table.derive(
        f"success rate on {task}",
        float(np.mean(rates)),
        interval=Interval(float(low), float(high), LEVEL, method),
        unit="share of cells",
        n=int(tables[0].cells.sum()),
        redrawn=redrawn(table, [task]),
        facts={"scale": scale, "cells that are edited": edited},
    )


def best_scale_of(table: Measurement, tasks: Sequence[str], draws: int) -> Measurement:
    """The scale at which most edited cells succeed, the mean over tasks (SH-16), in units of the feature's length.

    Partial, so that nothing is concluded, where even there fewer than `LEAST_SUCCESS` succeed: a flat curve has its
    highest point anywhere. Facts: the rate there, and the width of the plateau around it.
    """
    from circuit_claims.papers.successor_heads.steering.arithmetic import SCALES, best_scale

    rates, drawn = _pooled(table, tasks, draws)
    found = best_scale(drawn, SCALES)
    low, high = percentiles(found)
    value = float(best_scale(rates, SCALES))
    method = f"{draws:,} bootstrap draws over tokens and residues of each task"
    interval = Interval(float(min(low, value)), float(max(high, value)), LEVEL, method)
    wide = np.asarray(SCALES)[rates >= PLATEAU * rates.max()]
    facts = {
        "tasks": list(tasks),
        "success there": float(rates.max()),
        "plateau": [float(wide.min()), float(wide.max())],
    }
    return table.derive(
        "best scale of an edit",
        value,
        interval=interval,
        unit="times the feature",
        n=len(list(tasks)),
        status="complete" if rates.max() >= LEAST_SUCCESS else "partial",
        redrawn=redrawn(table, tasks),
        facts=facts,
    )


def redrawn(table: Measurement, tasks: Sequence[str]) -> dict[str, int]:
    """How many strings were edited, and towards how many residues: both are drawn anew."""
    tables = [tables_of(table, task)[0] for task in tasks]
    return {"strings": sum(len(one.rows) for one in tables), "residues": min(one.cells.shape[1] for one in tables)}


def with_places_shuffled(table: Measurement, generator: np.random.Generator) -> Measurement:
    """The same tables with the successor map of every task shuffled: what each cell should land on is another string.

    Every edit keeps its outcome, at every scale; cells that should land alike still do.
    """
    arrays = dict(table.arrays)
    for task in tasks_of(table):
        expected = arrays[f"{task}/expected"]
        order = generator.permutation(len(table.facts["items"][task]["texts"]))
        arrays[f"{task}/expected"] = np.where(expected >= 0, order[np.maximum(expected, 0)], expected)
    return replace(table, arrays=arrays)


def with_perfect_edits(
    table: Measurement, generator: np.random.Generator, rate_of: Mapping[str, float], best_at: Mapping[str, float]
) -> Measurement:
    """The same tables where cells land as they should, at random, as often as `rate_of` a task says (else always).

    With `best_at` every cell of a task succeeds at the scales within 0.2 of that one, and none elsewhere.
    """
    from circuit_claims.papers.successor_heads.steering.arithmetic import SCALES

    arrays, scales = dict(table.arrays), np.asarray(table.facts.get("scales", SCALES))
    for task in tasks_of(table):
        expected, winner = arrays[f"{task}/expected"], arrays[f"{task}/winner"]
        lands = generator.random(expected.shape) < rate_of.get(task, 1.0)
        near = np.abs(scales - best_at[task]) < 0.25 if task in best_at else np.ones(len(scales), dtype=bool)
        lands = near[:, None, None] & lands[None]  # (scale, row, residue)
        arrays[f"{task}/winner"] = np.broadcast_to(np.where(lands, expected, -1), winner.shape)
    return replace(table, arrays=arrays)


def _pooled(table: Measurement, tasks: Sequence[str], draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Rates of edited cells by scale, the mean over tasks and sets of vectors: as measured, and in bootstrap draws."""
    from circuit_claims.papers.successor_heads.steering.arithmetic import rate_draws

    generator = np.random.default_rng(0)
    every = [one for task in tasks for one in tables_of(table, task)]
    if not every:
        raise ValueError(f"steering tables of {', '.join(tasks)}: expected at least one, found none")
    rates = np.mean([one.rates(edited_only=True) for one in every], axis=0)
    return rates, np.mean([rate_draws(one, generator, draws, edited_only=True) for one in every], axis=0)


def lead_over_days_and_letters(table: Measurement, draws: int) -> Measurement:
    """How much more often edited cells of the other tasks succeed than those of days and letters (SH-17).

    The mean over tasks on each side, each task at the scale of the paper's recipe.
    """
    from circuit_claims.papers.successor_heads.steering.arithmetic import rate_draws

    generator = np.random.default_rng(0)
    means, drawn = [], []
    for wanted in (False, True):
        tasks = [task for task in tasks_of(table) if (task in FAILING) == wanted and task != "digits"]
        every = [(one, one.at(SCALE_OF.get(task, USUAL))) for task in tasks for one in tables_of(table, task)]
        means.append(float(np.mean([one.rates(edited_only=True)[at] for one, at in every])))
        drawn.append(np.mean([rate_draws(one, generator, draws, edited_only=True)[:, at] for one, at in every], axis=0))
    interval = percentile_interval(drawn[0] - drawn[1], f"{draws:,} bootstrap draws over tokens and residues of a task")
    return table.derive(
        "success rate of other tasks less that of days and letters",
        means[0] - means[1],
        interval=interval,
        unit="share of edited cells",
        n=len(tasks_of(table)),
        redrawn=redrawn(table, [task for task in tasks_of(table) if task != "digits"]),
        facts={"other tasks": means[0], "days and letters": means[1]},
    )
