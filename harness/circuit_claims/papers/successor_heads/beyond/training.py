"""How the leading head came about over training (SH-25): one sweep a saved step, and how sudden the rise was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from circuit_claims.api import Finding, Interval, Measurement, measure
from circuit_claims.papers.successor_heads.succession.measures import Settings, sweep_of
from circuit_claims.papers.successor_heads.succession.planted_subject import PlantedSubject

# Every doubling that Pythia's published steps allow, so that no gap hides a jump.
STEPS = (
    0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000, 143000,
)  # fmt: skip


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
    method = f"{draws:,} bootstrap draws over tokens, the same at every step"
    return Measurement(
        "largest share of the rise within one doubling of the step",
        min(curve.steepest, 1e9),
        Interval(low, high, curve.level, method),
        unit="share of the rise",
        n=scores[0].pair_count,
        seed=chosen.seed,
        arrays={"x": np.asarray(steps), "y": curve.value, "low": curve.low, "high": curve.high},
        facts=facts,
    )


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
        return Finding(self.table, {"planted phase change": lambda: self._curve(planted)})


def emergence(subject: Any) -> ScoreOverTraining:
    """The subject's training, step by step. Raises `ModelNotAvailable` where an early step cannot be had."""
    return ScoreOverTraining(subject)
