"""Evidence beside the claims that go beyond the paper's tables: Roman numerals, the head over training."""

from __future__ import annotations

import numpy as np

from circuit_claims.api import Curve, Curves, Evidence, NullDistribution
from circuit_claims.papers.successor_heads.beyond.held_out import HeldOut
from circuit_claims.papers.successor_heads.beyond.training import ScoreOverTraining


def numerals_null(held_out: HeldOut) -> Evidence:
    """The head's score on the numerals beside its scores under shuffled numerals."""
    table = held_out.measured(held_out.subject)
    singles = ", ".join(f"{count} {form}" for form, count in table.facts["available"].items())
    return NullDistribution(
        title=f"{table.facts['head']} on Roman numerals I to XX",
        caption=f"Single-token numerals: {singles}; {table.n} pairs. Rank {table.facts['rank']} of all heads on "
        f"them, copy score {table.facts['copy_score']:.2f}. Grey: the same head under shuffled numerals.",
        values=table.arrays["null"].tolist(),
        observed=float(table.value),  # type: ignore[arg-type]
        label="successor score on Roman numerals",
    )


def curve_over_training(training: ScoreOverTraining) -> Evidence:
    """The head's curve with its band over training steps."""
    arrays, head = training.table.arrays, training.table.facts["head"]
    curve = Curve(name=head, y=arrays["y"].tolist(), low=arrays["low"].tolist(), high=arrays["high"].tolist())
    return Curves(
        title=f"{head} over training",
        caption="Successor score of the head that leads at the end, against log2(1 + step); the band holds for "
        "all steps together at 90 %.",
        x=np.log2(1.0 + arrays["x"]).tolist(),
        series=[curve],
        xlabel="log2(1 + training step)",
        ylabel="successor score",
    )
