"""What the claims on the coefficient's curve measure: stage boundaries, the fall, the estimator's fault (RL-02, RL-40).

Measures take a `TrainingRun` and never see a claim. The published stages enter as definitions: what LM3 is, not where
this curve's critical points lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_claims.api import LEVEL, Finding, Interval, Measurement, measure, percentile_band, percentile_interval
from circuit_claims.papers.refined_llc.runs.training_run import Rearranged, RunCurves, TrainingRun
from circuit_claims.papers.refined_llc.stages import known_curves as known
from circuit_claims.papers.refined_llc.stages.boundaries import (
    FIRST_STEP,
    LENGTH,
    PUBLISHED_BOUNDARIES,
)
from circuit_claims.papers.refined_llc.stages.curve_quantities import (
    FALL,
    boundaries_of,
    changes_of,
    ratio_through_origin,
    share_of_fall,
)
from circuit_claims.papers.refined_llc.stages.first_generation import FirstGeneration
from circuit_claims.papers.refined_llc.stages.run_measures import planted_run

if TYPE_CHECKING:
    from circuit_claims.papers.refined_llc.runs.recorded import RecordedRun

LENGTHS: tuple[float | None, ...] = (LENGTH, 0.15, 0.3, None)


def llc_of(run: Any, *, n_layers: int = 2, corrected: bool = False) -> RunCurves:
    """The run's LLC as published, or with what the first-generation estimator makes it too high by taken off."""
    curves = run.llc_curve(n_layers)
    if not corrected:
        return curves
    excess, loss = FirstGeneration().excess, run.loss_curve(n_layers)
    rows = np.searchsorted(loss.steps, curves.steps)

    def draw(generator: np.random.Generator) -> np.ndarray:
        return curves.draw(generator) - excess * loss.values[rows]

    return replace(curves, values=curves.values - excess * loss.values[rows], draw=draw)


@measure
def stage_boundaries(
    run: TrainingRun, *, n_layers: int, corrected: bool, length: float | None, draws: int, seed: int
) -> Measurement:
    """The four critical points around the largest fall of the smoothed LLC, in doublings, with a simultaneous band.

    Arrays: `x` (1 to 4), `y`, `low`, `high` in log2(step) (Bonferroni over boundaries; NaN where a boundary is found in
    too few draws), and for the figure `steps`, `curve`, `curve_low`, `curve_high` and `published`, the unsmoothed one.
    """
    curves = llc_of(run, n_layers=n_layers, corrected=corrected)
    found, smoother, resampled = boundaries_of(curves, draws, np.random.default_rng(seed), length)
    low, high = percentile_band(smoother.curves(resampled))
    best = smoother.curves(curves.values[curves.steps >= FIRST_STEP])
    smooth = {"steps": smoother.steps, "curve": best, "curve_low": low, "curve_high": high}
    return replace(found, seed=seed, arrays={**found.arrays, **smooth})


@measure
def changes(run: TrainingRun, *, n_layers: int, corrected: bool, draws: int, seed: int) -> Measurement:
    """Change of the LLC over the five published stages, checkpoint to checkpoint, with a simultaneous band.

    The last stage ends at the last checkpoint that has a coefficient. Arrays: `x` (1 to 5), `y`, `low`, `high`, and
    `fall` (draw,) the change over LM3 under resampling.
    """
    curves = llc_of(run, n_layers=n_layers, corrected=corrected)
    return replace(changes_of(curves, draws, np.random.default_rng(seed)), seed=seed)


@measure
def spread_ratio(run: RecordedRun, *, n_layers: int, draws: int, seed: int) -> Measurement:
    """How many times the test loss the LLC's spread over chains is: least squares through the origin, over checkpoints.

    The interval resamples the residuals in blocks of `BLOCK` neighbouring checkpoints. Arrays: `loss`, `spread`,
    `steps`. Facts: the line with an intercept, the correlation, and the median of the single ratios.
    """
    spread, loss = run.llc_spread(n_layers), run.loss_curve(n_layers)
    x = loss.values[np.searchsorted(loss.steps, spread.steps)]
    found = ratio_through_origin(x, spread.values, draws, np.random.default_rng(seed))
    return replace(found, seed=seed, arrays={**found.arrays, "steps": spread.steps})


@dataclass(frozen=True)
class Stages:
    """The stages of one run, as findings."""

    run: Any
    seed: int = 0

    @property
    def draws(self) -> int:
        """Bootstrap draws, as the run's profile has them."""
        return self.run.context.profile.bootstrap_draws

    def table(
        self, run: Any = None, *, n_layers: int = 2, corrected: bool = False, length: float | None = LENGTH
    ) -> Measurement:
        """The stored boundaries of a run (this one unless another is given) under one setting."""
        run = self.run if run is None else run
        settings = {"n_layers": n_layers, "corrected": corrected, "length": length}
        return stage_boundaries(run, **settings, draws=self.draws, seed=self.seed)

    def changes(self, run: Any = None, *, n_layers: int = 2, corrected: bool = False) -> Measurement:
        """The stored changes over the published stages."""
        run = self.run if run is None else run
        return changes(run, n_layers=n_layers, corrected=corrected, draws=self.draws, seed=self.seed)

    def boundaries(self) -> Finding:
        """Where the critical points lie (RL-02)."""
        curves = llc_of(self.run)
        return Finding(
            self.table(),
            self._controls(self.table),
            false={known.SHUFFLED: lambda generator: known.shuffled_boundaries(curves, generator)},
            oracles={known.STAGED: lambda: self.table(planted_run(self.run))},
        )

    def first_boundary(self) -> Finding:
        """Where LM1 ends, in doublings (RL-02): alone, since near a plateau the place is far less certain."""

        def measured(run: Any = None, **settings: Any) -> Measurement:
            return _first(self.table(run, **settings))

        curves = llc_of(self.run)
        return Finding(
            measured(),
            self._controls(measured),
            false={known.SHUFFLED: lambda generator: _first(known.shuffled_boundaries(curves, generator))},
            oracles={known.STAGED: lambda: measured(planted_run(self.run))},
        )

    def settings(self) -> dict[str, Finding]:
        """The boundaries under other smoothing lengths, and of the corrected curve, the claim's own setting first."""
        names = {length: f"length {length:g} e-foldings" if length else "likeliest length" for length in LENGTHS}
        made = {}
        for corrected, words in ((False, "as published"), (True, "corrected")):
            for length in LENGTHS:
                found = self.table(corrected=corrected, length=length)
                made[f"{words}, {names[length]}"] = Finding(found, {})
        return made

    def fall(self) -> Finding:
        """The change over LM3 (RL-02)."""

        def measured(run: Any = None, **settings: Any) -> Measurement:
            return _fall(self.changes(run, **settings))

        curves = llc_of(self.run)
        return Finding(
            measured(),
            self._controls(measured),
            false={known.LEVEL_STAGE: lambda generator: _fall(known.without_the_fall(curves, generator))},
            oracles={known.STAGED: lambda: measured(planted_run(self.run))},
        )

    def corrected_changes(self) -> Finding:
        """The changes over all stages with the estimator's fault taken off (RL-40)."""
        curves = llc_of(self.run, corrected=True)
        controls = {
            "as published": self.changes,
            "shuffled steps": lambda: self.changes(_shuffled(self.run), corrected=True),
            "planted first-generation estimator": lambda: self.changes(planted_run(self.run), corrected=True),
        }
        return Finding(
            self.changes(corrected=True),
            controls,
            false={known.OTHER_STAGES: lambda generator: known.changes_of_other_stages(curves, generator)},
            oracles={known.STAGED: controls["planted first-generation estimator"]},
        )

    def surviving_fall(self) -> Finding:
        """The corrected change over LM3 as a share of the published one, both from the same draws (RL-40)."""

        def share(run: Any, corrected: bool = True) -> Measurement:
            return share_of_fall(self.changes(run, corrected=corrected), self.changes(run))

        controls = {
            "as published": lambda: share(self.run, corrected=False),
            "shuffled steps": lambda: share(_shuffled(self.run)),
        }
        curves = llc_of(self.run)
        return Finding(
            share(self.run),
            controls,
            false={known.ALL_OR_NONE: lambda generator: known.all_or_none_survives(curves, generator)},
            oracles={known.HALF: lambda: known.half_survives(curves, np.random.default_rng(self.seed))},
        )

    def spread(self) -> Finding:
        """How the spread over chains follows the test loss (RL-40)."""

        def ratio(run: Any) -> Measurement:
            return spread_ratio(run, n_layers=2, draws=self.draws, seed=self.seed)

        controls = {
            "estimator with one initial loss": lambda: ratio(planted_run(self.run, first_generation=False)),
            "planted first-generation estimator": lambda: ratio(planted_run(self.run)),
        }
        own = ratio(self.run)
        return Finding(
            own,
            controls,
            false={known.ONE_LOSS: lambda generator: known.planted_spread(own.arrays["loss"], False, generator)},
            oracles={known.MANY_LOSSES: lambda: known.planted_spread(
                own.arrays["loss"], True, np.random.default_rng(self.seed))},
        )  # fmt: skip

    def _controls(self, measured: Callable[..., Measurement]) -> dict[str, Callable[[], Measurement]]:
        return {
            "shuffled steps": lambda: measured(_shuffled(self.run)),
            "one-layer run": lambda: measured(n_layers=1),
            "planted stages": lambda: measured(planted_run(self.run)),
        }


def _shuffled(run: Any) -> Rearranged:
    return Rearranged(run, shuffle="steps")


def _fall(table: Measurement) -> Measurement:
    first, last = PUBLISHED_BOUNDARIES[FALL : FALL + 2]
    interval = percentile_interval(table.arrays["fall"], table.facts["method"])
    quantity = f"change of the LLC from step {first:,} to {last:,}"
    return table.derive(quantity, float(table.arrays["y"][FALL]), interval=interval, unit="LLC")


def _first(table: Measurement) -> Measurement:
    value, low, high = (float(table.arrays[name][0]) for name in ("y", "low", "high"))
    method = "bootstrap draws of checkpoint noise, simultaneous over boundaries"
    interval = None if np.isnan([low, high]).any() else Interval(low, high, LEVEL, method)
    value = value if interval else float("nan")
    return table.derive("log2 of the step of the first critical point", value, interval=interval, unit="doublings")


def stages(run: Any) -> Stages:
    """The stages of a run's training. Raises `RunNotAvailable` where the run has no curve of its coefficient."""
    return Stages(run)
