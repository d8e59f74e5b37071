"""How the leading head came about over training (SH-25): one sweep a saved step, and how sudden the rise was."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from circuit_claims.api import LEVEL, Finding, Interval, Measurement, measure
from circuit_claims.papers.successor_heads.succession.measures import Settings, sweep_of
from circuit_claims.papers.successor_heads.succession.planted_subject import PlantedSubject

# Every doubling that Pythia's published steps allow, so that no gap hides a jump.
STEPS = (
    0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000, 143000,
)  # fmt: skip
DRAWS = 400
"""Bootstrap draws of a curve whose answer is known."""


@measure
def training_curve(
    subject: Any, *, steps: list[int], identities: list[Any], settings: dict[str, Any], draws: int, shuffles: int
) -> Measurement:
    """The score, at each step, of the head that leads at the last one, and the steepest doubling of its rise.

    Each step's weights are opened, swept and let go before the next. `identities` are the steps' digests: the curve is
    kept under all of them, not only under the subject's own. Arrays `x` (step), `y`, `low`, `high` hold the
    curve with a band for all steps together.
    """
    from circuit_claims.papers.successor_heads.beyond.emergence import emergence_curve

    chosen = Settings(**settings)
    scores = [sweep_of(subject.at_step(step), chosen, draws, shuffles).scores for step in steps]
    curve = emergence_curve(steps, scores, metric="score")
    low, high = (min(end, 1e9) for end in curve.steepest_interval)
    facts = {"head": curve.head, "rise": curve.rise, "from": curve.steepest_from, "widest_gap": curve.widest_gap}
    strings = scores[-1].resamples.sizes
    return Measurement(
        "largest share of the rise within one doubling of the step",
        min(curve.steepest, 1e9),
        Interval(low, high, curve.level, _drawn(draws, strings)),
        unit="share of the rise",
        n=scores[0].pair_count,
        redrawn={"strings": sum(strings)},
        seed=chosen.seed,
        arrays={
            "x": np.asarray(steps),
            "y": curve.value,
            "low": curve.low,
            "high": curve.high,
            **_passes(scores, curve.head),
        },
        facts=facts,
    )


def _passes(scores: list[Any], head: str) -> dict[str, np.ndarray]:
    """Which pairs one head passes at each step, and what these pairs are: the same at all steps."""
    last = scores[-1]
    return {
        "hits": np.stack([one.hits[one.row(head)] for one in scores]),  # (step, pair)
        **{name: getattr(last, name) for name in ("weight", "task", "string")},
    }


def grown(table: Measurement, hits: np.ndarray, generator: np.random.Generator) -> Measurement:
    """The steepest doubling of a head that passes these pairs at each step, (step, pair); strings are drawn anew."""
    from circuit_claims.papers.successor_heads.beyond.emergence import in_doublings, steepest_interval, steepest_share
    from circuit_claims.papers.successor_heads.succession.score import Resamples, SuccessorScores

    x, weight, task, string = (table.arrays[name] for name in ("x", "weight", "task", "string"))
    resamples = Resamples.of(string, task, DRAWS, generator)
    # Steps in the place of heads: all are scored on the same strings.
    scores = SuccessorScores(
        heads=np.zeros((len(x), 2), dtype=np.int64), task_names=tuple(str(one) for one in range(int(task.max()) + 1)),
        hits=hits, weight=weight, task=task, string=string, copy_score=np.zeros(len(x)), resamples=resamples,
        exclude_self=False, wraps=True,
    )  # fmt: skip
    doublings, draws = in_doublings(x), scores.draws["score"].astype(np.float64)
    low, high = (min(end, 1e9) for end in steepest_interval(doublings, draws, resamples.sizes))
    return table.derive(
        table.quantity,
        min(float(steepest_share(doublings, scores.score)), 1e9),
        interval=Interval(low, high, LEVEL, _drawn(DRAWS, resamples.sizes)),
        unit=table.unit,
        redrawn={"strings": sum(resamples.sizes)},
    )


def _drawn(draws: int, strings: tuple[int, ...]) -> str:
    """What the interval rests on, in words."""
    over = f"{sum(strings):,} strings within {len(strings)} tasks"
    return f"{draws:,} bootstrap draws over {over}, the same at every step, percentiles expanded for as few"


def at_one_step(table: Measurement, generator: np.random.Generator) -> Measurement:
    """SH-25 where every pair comes out as at the first step up to a step drawn at random, and as at the last from then.

    A step no more than one doubling after the one before: what lies in a wider gap nobody has seen.
    """
    gaps = np.diff(np.log2(1.0 + table.arrays["x"]))
    step = 1 + int(generator.choice(np.flatnonzero(gaps <= 1.0 + 1e-9)))
    hits, after = table.arrays["hits"], np.arange(len(gaps) + 1) >= step
    return grown(table, np.where(after[:, None], hits[-1], hits[0]), generator)


def one_after_another(table: Measurement, generator: np.random.Generator) -> Measurement:
    """SH-25 where the strings come from their first outcome to their last one by one, evenly over the doublings."""
    doublings, hits = np.log2(1.0 + table.arrays["x"]), table.arrays["hits"]
    strings, place = np.unique(table.arrays["string"], return_inverse=True)
    share = (generator.permutation(len(strings)) + 0.5) / len(strings)
    when = doublings[0] + share[place] * (doublings[-1] - doublings[0])
    return grown(table, np.where(doublings[:, None] >= when, hits[-1], hits[0]), generator)


@dataclass(frozen=True)
class ScoreOverTraining:
    """The leading head of one subject, followed through its saved training steps."""

    subject: Any
    steps: tuple[int, ...] = STEPS

    @property
    def table(self) -> Measurement:
        """The stored curve."""
        return self._curve(self.subject)

    def _curve(self, subject: Any) -> Measurement:
        profile = self.subject.context.profile
        settings = Settings().parameters()
        amounts = {"draws": profile.bootstrap_draws, "shuffles": profile.shuffles}
        identities = [subject.at_step(step).identity() for step in self.steps]
        return training_curve(subject, steps=list(self.steps), identities=identities, settings=settings, **amounts)

    def steepest_doubling(self) -> Finding:
        """How much of the rise falls within one doubling; the control is a run in which the head appears at once."""
        planted = PlantedSubject(self.subject.context)
        table = self.table
        return Finding(
            table,
            {"planted phase change": lambda: self._curve(planted)},
            false={"the whole rise between two neighbouring steps": partial(at_one_step, table)},
            oracles={
                "string after string, evenly over the doublings": lambda: one_after_another(
                    table, np.random.default_rng(0)
                )
            },
        )


def emergence(subject: Any) -> ScoreOverTraining:
    """The subject's training, step by step. Raises `ModelNotAvailable` where an early step cannot be had."""
    return ScoreOverTraining(subject)
