"""Evidence beside a verdict, as plain data that the report draws: heat maps, bars, tables, null distributions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from circuit_claims.api import Bars, Evidence, HeadMap, Measurement, NullDistribution, RankedBars, Table
from circuit_claims.papers.successor_heads.succession.measures import DatasetFinding, Settings, SuccessorScoreTable
from circuit_claims.papers.successor_heads.succession.paths import Headless, InputPaths
from circuit_claims.papers.successor_heads.succession.quantities import METRIC_WORDS, head_label, ranking

THRESHOLD = 0.5
SHOWN = 12


def _grid(table: Measurement, column: str) -> list[list[float | None]]:
    heads, values = table.arrays["heads"], table.arrays[column]
    grid: list[list[float | None]] = [[None] * int(heads[:, 1].max() + 1) for _ in range(int(heads[:, 0].max()) + 1)]
    for (layer, head), value in zip(heads, values, strict=True):
        grid[int(layer)][int(head)] = float(value)
    return grid


def score_map(scores: SuccessorScoreTable, column: str = "score") -> Evidence:
    """A heat map over layers and heads of one column of the table, the leader marked."""
    table = scores.table
    best = table.arrays["heads"][ranking(table, "score")[0]]
    words = {"score": "successor score", "macro_score": "mean over tasks", "copy_score": "copy score"}[column]
    return HeadMap(
        title=f"{words.capitalize()} of every head, input path {scores.settings.label}",
        caption=f"{table.facts['convention']}. The marked head is the leader by the paper's weighting.",
        values=_grid(table, column),
        vmin=0.0,
        vmax=1.0,
        mark=[[int(best[0]), int(best[1])]],
        label=words,
    )


def path_maps(subject: Any) -> list[Evidence]:
    """One heat map for each input path, then the copy score of the same heads on the paper's path."""
    from circuit_claims.heads.ov_circuit import INPUT_PATHS

    chosen = [Settings(path=path) for path in INPUT_PATHS]
    if subject.tokens.bos_id is None:
        chosen.append(Settings(path="residual", first="end of text"))
    # Where a head copies and increments, this is the map on which it shows.
    chosen.append(replace(chosen[-1], exclude_self=True))
    maps = [score_map(SuccessorScoreTable(subject, settings)) for settings in chosen]
    return [*maps, score_map(SuccessorScoreTable(subject, Settings()), "copy_score")]


def ranked_heads(scores: SuccessorScoreTable) -> Evidence:
    """The best heads with their own intervals, the null of the maximum as a band, and the paper's threshold."""
    table, metric = scores.table, scores.metric
    rows = ranking(table, metric)[:SHOWN]
    intervals = table.arrays[f"{metric}_interval"][rows]
    return RankedBars(
        title=f"The {len(rows)} best heads, {METRIC_WORDS[metric]}",
        caption="Bars: 90 % bootstrap intervals over tokens, each head's own. Band: where the best of all heads "
        "lies when the successor map is shuffled (central 95 %).",
        labels=[head_label(table, int(row)) for row in rows],
        values=table.arrays[metric][rows].tolist(),
        low=intervals[:, 0].tolist(),
        high=intervals[:, 1].tolist(),
        null_band=_null_band(table, metric),
        threshold=THRESHOLD,
    )


def _null_band(table: Measurement, metric: str) -> list[float]:
    return np.quantile(table.arrays[f"{metric}_null"], [0.025, 0.975]).tolist()


def both_weightings(scores: SuccessorScoreTable) -> Evidence:
    """The best heads under the paper's weighting and the mean over tasks, side by side, with their copy scores."""
    table = scores.table
    rows = ranking(table, "score")[:SHOWN]
    columns = ["head", "paper's weighting", "mean over tasks", "copy score", *table.facts["tasks"]]
    cells = [
        [
            head_label(table, int(row)),
            *(_share(float(table.arrays[name][row])) for name in ("score", "macro_score", "copy_score")),
            *(_share(value) for value in table.arrays["task_scores"][row]),
        ]
        for row in rows
    ]
    return Table(
        title="The best heads under both weightings, and task by task",
        caption=table.facts["convention"],
        columns=columns,
        rows=cells,
        mark_rows=[],
    )


def _share(value: float) -> str:
    return "no pair" if np.isnan(value) else f"{value:.3f}"


def task_bars(scores: SuccessorScoreTable) -> Evidence:
    """The leader's score task by task with intervals, the threshold, and the null of the maximum."""
    table = scores.table
    row = int(ranking(table, "score")[0])
    kept = np.flatnonzero(table.arrays["task_pairs"] > 0)
    intervals = table.arrays["leader_task_interval"][kept]
    return Bars(
        title=f"{head_label(table, row)} task by task",
        caption="Share of each task's pairs whose successor beats every other token of the task. "
        "90 % bootstrap intervals over the task's tokens; a task with few tokens has a wide one.",
        labels=[f"{table.facts['tasks'][task]} ({int(table.arrays['task_pairs'][task])})" for task in kept],
        values=table.arrays["task_scores"][row][kept].tolist(),
        low=intervals[:, 0].tolist(),
        high=intervals[:, 1].tolist(),
        threshold=THRESHOLD,
        null=_null_band(table, "score")[1],
    )


def null_of_the_maximum(scores: SuccessorScoreTable) -> Evidence:
    """The best head's score under shuffled successor maps, and the true one."""
    table, metric = scores.table, scores.metric
    return NullDistribution(
        title="The best head under shuffled successor maps",
        caption=f"{table.facts['shuffles']:,} shuffles within each task; the best of all heads each time. "
        f"p = {table.facts[metric]['p_value']:.2g}.",
        values=table.arrays[f"{metric}_null"].tolist(),
        observed=float(table.arrays[metric].max()),
        label="highest successor score",
    )


def path_table(paths: InputPaths, first: str, second: str) -> Evidence:
    """The best head's score on both paths, and what the first path's leader scores on each."""
    table = paths.measured(first, second)
    best, same, leader = table.facts["values"], table.facts["leader values"], table.facts["leader"]
    return Table(
        title="Successor score by input path",
        caption=f"{table.n:,} pairs, paper's weighting. Right: {leader}, the leader on {first}.",
        columns=["input path", "best head", leader],
        rows=[[path, f"{best[path]:.3f}", f"{same[path]:.3f}"] for path in (first, second)],
        mark_rows=[],
    )


def lens_table(headless: Headless) -> Evidence:
    """The score by each readout, and how well the lens explains the final residual on text it was not fitted on."""
    facts, names = headless.table.facts, {"plain": "plain", "affine": "affine lens", "answers": "lens on the answers"}
    rows = [
        [words, f"{row['score']:.3f}", f"{row['macro']:.3f}", f"{row['passed']} of {row['pairs']}"]
        for name, words in names.items()
        for row in [facts["readouts"][name]]
    ]
    return Table(
        title="The path without a head, by readout",
        caption=f"The lens was fitted on {facts['fitted']:,} positions and explains {facts['r_squared']:.2f} of "
        f"the final residual's variance on {facts['held_out']:,} others (their mean: {facts['baseline']:.2f}; "
        f"ridge {facts['ridge']:g}, chosen by that share). "
        f"Chance, one in as many as each comparison has tokens, is {facts['chance']:.3f} on this dataset: 1 % goes "
        "with the paper's 200 numbers. The lens on the answers is the control: it shows that a lens can score.",
        columns=["readout", "paper's weighting", "mean over tasks", "distinct pairs passed"],
        rows=rows,
        mark_rows=[],
    )


def availability_table(found: DatasetFinding) -> Evidence:
    """Which strings of each task the tokenizer has as one token, by surface form."""
    from circuit_claims.papers.successor_heads.dataset import FORMS

    table = found.dataset.table()
    rows = [
        [task, *(str(forms.get(form, "-")) for form in FORMS), str(sum(forms.values()))]
        for task, forms in table.items()
    ]
    return Table(
        title="The dataset by task and surface form",
        caption=f"{len(found.dataset.entries):,} entries, {found.dataset.distinct_tokens:,} distinct tokens.",
        columns=["task", *FORMS, "sum"],
        rows=rows,
        mark_rows=[],
    )
