"""The quantities that claims are judged on, read off the table of head scores. Pure: a measurement in, one out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_claims.api import Interval, Measurement, Rival, first_of, permutation_p_value

if TYPE_CHECKING:
    from circuit_claims.papers.successor_heads.succession.score import Metric, SuccessorScores

METRIC_WORDS: dict[Metric, str] = {"score": "paper's weighting", "macro_score": "mean over tasks"}


def tabulate(scores: SuccessorScores, null: Any, seed: int) -> Measurement:
    """Everything the quantities below need, as arrays with one row a head and facts per metric.

    `scores` are all heads' successor scores, `null` their scores under shuffled successor maps.
    """
    arrays: dict[str, np.ndarray] = {
        "heads": scores.heads,
        "copy_score": scores.copy_score,
        "task_scores": scores.task_scores,
        "task_pairs": scores.task_pairs,
    }
    facts: dict[str, Any] = {
        "tasks": list(scores.task_names),
        "convention": scores.convention,
        "draws": len(scores.resamples.counts),
        "shuffles": null.shuffles,
    }
    for metric in METRIC_WORDS:
        arrays[metric] = scores.value(metric)
        arrays[f"{metric}_interval"] = scores.intervals(metric)
        arrays[f"{metric}_null"] = null.maxima(metric)
        lead = scores.lead(metric)
        facts[metric] = {
            "half_width": scores.half_width(metric),
            "p_value": null.p_value(metric),
            "lead": [_finite(number) for number in (lead.value, lead.low, lead.high)],
        }
        arrays |= _who_leads(scores, metric)
    leader = int(scores.ranking("score")[0])
    arrays["leader_task_interval"] = np.stack([scores.task_interval(task, leader) for task in scores.task_names])
    name = scores.name(leader)
    n = scores.pair_count
    redrawn = {"strings": len(scores.resamples.strings)}
    return Measurement(
        "successor scores of all heads", name, n=n, seed=seed, redrawn=redrawn, arrays=arrays, facts=facts
    )


def _who_leads(scores: SuccessorScores, metric: Metric) -> dict[str, np.ndarray]:
    """For each head its support as the leader, and the row of who stands against it most firmly with how firmly."""
    rows = [str(row) for row in range(len(scores.heads))]
    ranking = first_of(rows, scores.value(metric), scores.draws[metric])
    rivals = [ranking.rivals.get(row, Rival("0", 0.0)) for row in rows]
    return {
        f"{metric}_support": np.asarray([ranking.support.get(row, 0.0) for row in rows]),
        f"{metric}_rival": np.asarray([int(rival.label) for rival in rivals]),
        f"{metric}_ahead": np.asarray([rival.ahead for rival in rivals]),
    }


def quick_table(scores: SuccessorScores, null: np.ndarray) -> Measurement:
    """What the quantities below need of the paper's weighting alone, for data whose answer is known.

    `null` holds the best head's score under shuffled maps.
    """
    best = float(scores.score.max())
    lead = scores.lead("score")
    facts: dict[str, Any] = {
        "draws": len(scores.resamples.counts),
        "score": {
            "half_width": scores.half_width("score"),
            "p_value": permutation_p_value(best, null, slack=1e-9),
            "lead": [_finite(number) for number in (lead.value, lead.low, lead.high)],
        },
    }
    arrays = {
        "heads": scores.heads,
        "score": scores.score,
        "macro_score": scores.macro_score,
        **_who_leads(scores, "score"),
    }
    redrawn = {"strings": len(scores.resamples.strings)}
    return Measurement("scores", None, n=scores.pair_count, redrawn=redrawn, arrays=arrays, facts=facts)


def _finite(number: float) -> float:
    """JSON has no infinity: a ratio over a runner-up of zero is kept as a number nothing real reaches."""
    return float(min(number, 1e9))


def head_label(table: Measurement, row: int) -> str:
    """A head as the paper writes it, such as L12H0."""
    layer, head = table.arrays["heads"][row]
    return f"L{layer}H{head}"


def ranking(table: Measurement, metric: Metric) -> np.ndarray:
    """Rows from the best head to the worst; equal scores in model order."""
    return np.argsort(-table.arrays[metric], kind="stable")


def _method(table: Measurement, metric: Metric) -> str:
    return f"{table.facts['draws']:,} bootstrap draws over strings, {METRIC_WORDS[metric]}"


def leader(table: Measurement, metric: Metric = "score") -> Measurement:
    """Which head has the highest score, with the share of bootstrap draws in which each head came first."""
    support = table.arrays[f"{metric}_support"]
    names = {head_label(table, int(row)): float(support[row]) for row in np.flatnonzero(support > 0)}
    best = head_label(table, int(ranking(table, metric)[0]))
    ahead, rival = table.arrays[f"{metric}_ahead"], table.arrays[f"{metric}_rival"]
    rivals = {
        head_label(table, row): Rival(head_label(table, int(rival[row])), float(ahead[row]))
        for row in range(len(ahead))
    }
    return table.derive("head with the highest successor score", best, support=names, rivals=rivals)


def lead_over_runner_up(table: Measurement, metric: Metric = "score") -> Measurement:
    """The best score over the second best, leader and runner-up chosen anew in every bootstrap draw."""
    value, low, high = table.facts[metric]["lead"]
    interval = Interval(low, high, 0.90, _method(table, metric))
    return table.derive("score of the leader over the runner-up's", value, interval=interval, unit="times")


def best_head(table: Measurement, metric: Metric = "score") -> Measurement:
    """The highest score of all heads, with a simultaneous interval and the null of the maximum."""
    row, half = int(ranking(table, metric)[0]), table.facts[metric]["half_width"]
    value = float(table.arrays[metric][row])
    method = _method(table, metric) + ", simultaneous over all heads"
    interval = Interval(max(value - half, 0.0), min(value + half, 1.0), 0.90, method)
    p_value = table.facts[metric]["p_value"]
    facts = {"head": head_label(table, row), "mean over tasks": float(table.arrays["macro_score"][row])}
    return table.derive("highest successor score", value, interval=interval, p_value=p_value, facts=facts)


def heads_with_every_day(table: Measurement) -> Measurement:
    """The heads that give every day its successor, joined by commas; all days are measured, so nothing is resampled."""
    hits, days = table.arrays["day_hits"], int(table.facts["days"])
    if not days:
        raise ValueError("heads with every day: expected days as single tokens, found none with this tokenizer")
    names = ",".join(head_label(table, int(row)) for row in np.flatnonzero(hits == days)) or "none"
    # A census: heads other than these do not have every day, in any resample.
    counted = {names: Rival("nobody", 0.0)}
    return table.derive("heads with every day", names, support={names: 1.0}, rivals=counted, redrawn={})


def days_of_the_runner_up(table: Measurement) -> Measurement:
    """Days given their successor by the best head but one: a count over all days, exact."""
    value = float(np.sort(table.arrays["day_hits"])[-2])
    return table.derive("days of the runner-up", value, interval=Interval(value, value, 0.90, "a count, exact"),
                        redrawn={})  # fmt: skip


def day_hits(result: Any) -> tuple[np.ndarray, int]:
    """For every head, how many days (after a space) it gives their successor, and how many days there are."""
    from circuit_claims.papers.successor_heads.succession.score import form_hits

    if "days" not in result.dataset.table() or not result.dataset.table()["days"]["space"]:
        return np.zeros(len(result.scores.heads), dtype=np.int64), 0
    hits, days = form_hits(result.winners, result.dataset, "days", "space")
    return np.asarray(hits, dtype=np.int64), days
