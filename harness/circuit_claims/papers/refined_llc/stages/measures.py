"""What the claims on the coefficient's curve measure: stage boundaries, the fall, the estimator's fault (RL-02, RL-40).

Measures take a `TrainingRun` and never see a claim. The published stages enter as definitions: what LM3 is, not where
this curve's critical points lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from circuit_claims.api import Finding, Interval, Measurement, measure, percentile_interval
from circuit_claims.judging.statistics import LEVEL, percentile_band
from circuit_claims.papers.refined_llc.runs.training_run import Rearranged, RunCurves, TrainingRun
from circuit_claims.papers.refined_llc.stages.boundaries import (
    FIRST_STEP,
    LENGTH,
    PUBLISHED_BOUNDARIES,
    STAGE_NAMES,
    fit_smoother,
    stage_changes,
)
from circuit_claims.papers.refined_llc.stages.first_generation import FirstGeneration
from circuit_claims.papers.refined_llc.stages.run_measures import planted_run

if TYPE_CHECKING:
    from circuit_claims.papers.refined_llc.runs.recorded import RecordedRun

BOUNDARIES = len(STAGE_NAMES) - 1
FALL = STAGE_NAMES.index("LM3")
BLOCK = 50  # checkpoints resampled together: the spread's misfit drifts over thousands of steps
LENGTHS: tuple[float | None, ...] = (LENGTH, 0.15, 0.3, None)
# A boundary that is not found in this share of draws or more is not called measured.
MISSING = 0.05


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
    curves, generator = llc_of(run, n_layers=n_layers, corrected=corrected), np.random.default_rng(seed)
    kept = curves.steps >= FIRST_STEP
    smoother = fit_smoother(curves.steps, curves.values, length)
    resampled = np.stack([curves.draw(generator)[kept] for _ in range(draws)])
    with np.errstate(invalid="ignore"):
        found = np.log2(smoother.boundaries(resampled))
        best = np.log2(smoother.boundaries(curves.values[None, kept])[0])
    low, high = _band(found)
    ends = percentile_band(resampled @ smoother.curve.T)
    return Measurement(
        "critical points of the smoothed LLC",
        ", ".join("none" if np.isnan(at) else f"{2**at:,.0f}" for at in best),
        n=int(kept.sum()),
        redrawn={"checkpoints": int(kept.sum())},
        seed=seed,
        unit="steps",
        arrays={
            "x": np.arange(1.0, BOUNDARIES + 1), "y": best, "low": low, "high": high,
            "steps": smoother.steps, "curve": smoother.curve @ curves.values[kept],
            "curve_low": ends[0], "curve_high": ends[1],
        },
        facts={"length": smoother.length, "noise": smoother.noise, "found_in": (~np.isnan(found)).mean(0).tolist()},
    )  # fmt: skip


def _band(found: Float[np.ndarray, "draw boundary"]) -> tuple[np.ndarray, np.ndarray]:
    tail = (1 - LEVEL) / 2 / found.shape[1]
    missing = np.isnan(found).mean(0) > MISSING
    low, high = np.nanquantile(np.where(missing, 0.0, found), [tail, 1 - tail], axis=0)
    return np.where(missing, np.nan, low), np.where(missing, np.nan, high)


@measure
def changes(run: TrainingRun, *, n_layers: int, corrected: bool, draws: int, seed: int) -> Measurement:
    """Change of the LLC over the five published stages, checkpoint to checkpoint, with a simultaneous band.

    The last stage ends at the last checkpoint that has a coefficient. Arrays: `x` (1 to 5), `y`, `low`, `high`, and
    `fall` (draw,) the change over LM3 under resampling.
    """
    curves, generator = llc_of(run, n_layers=n_layers, corrected=corrected), np.random.default_rng(seed)
    best = stage_changes(curves.steps, curves.values)
    found = np.stack([stage_changes(curves.steps, curves.draw(generator)) for _ in range(draws)])
    tail = (1 - LEVEL) / 2 / len(best)
    low, high = np.quantile(found, [tail, 1 - tail], axis=0)
    return Measurement(
        "change of the LLC over each stage",
        ", ".join(f"{change:+.2f}" for change in best),
        n=len(curves.steps),
        redrawn={"checkpoints": len(curves.steps)},
        seed=seed,
        unit="LLC",
        arrays={"x": np.arange(1.0, len(best) + 1), "y": best, "low": low, "high": high, "fall": found[:, FALL]},
        facts={"method": curves.method, "last": int(curves.steps[-1])},
    )


@measure
def spread_ratio(run: RecordedRun, *, n_layers: int, draws: int, seed: int) -> Measurement:
    """How many times the test loss the LLC's spread over chains is: least squares through the origin, over checkpoints.

    The interval resamples the residuals in blocks of `BLOCK` neighbouring checkpoints. Arrays: `loss`, `spread`,
    `steps`. Facts: the line with an intercept, the correlation, and the median of the single ratios.
    """
    spread, loss = run.llc_spread(n_layers), run.loss_curve(n_layers)
    x, y = loss.values[np.searchsorted(loss.steps, spread.steps)], spread.values
    ratio, generator = float(x @ y / (x @ x)), np.random.default_rng(seed)
    found = [float(x @ (ratio * x + _in_blocks(y - ratio * x, generator)) / (x @ x)) for _ in range(draws)]
    slope, offset = np.polyfit(x, y, 1)
    return Measurement(
        "the LLC's spread over chains over the test loss",
        ratio,
        percentile_interval(
            np.array(found), f"{draws:,} bootstrap draws of residuals in blocks of {BLOCK} checkpoints"
        ),
        unit="times",
        n=len(x),
        redrawn={"checkpoints": len(x)},
        seed=seed,
        arrays={"loss": x, "spread": y, "steps": spread.steps},
        facts={
            "slope": float(slope),
            "offset": float(offset),
            "correlation": float(np.corrcoef(x, y)[0, 1]),
            "median ratio": float(np.median(y / x)),
        },
    )


def _in_blocks(residual: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    starts = generator.integers(len(residual), size=-(-len(residual) // BLOCK))
    return residual[(starts[:, None] + np.arange(BLOCK)).ravel() % len(residual)][: len(residual)]


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
        return Finding(self.table(), self._controls(self.table))

    def first_boundary(self) -> Finding:
        """Where LM1 ends, in doublings (RL-02): alone, since near a plateau the place is far less certain."""

        def measured(run: Any = None, **settings: Any) -> Measurement:
            return _first(self.table(run, **settings))

        return Finding(measured(), self._controls(measured))

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

        return Finding(measured(), self._controls(measured))

    def corrected_changes(self) -> Finding:
        """The changes over all stages with the estimator's fault taken off (RL-40)."""
        made = self.changes(corrected=True)
        controls = {
            "as published": self.changes,
            "shuffled steps": lambda: self.changes(_shuffled(self.run), corrected=True),
            "planted first-generation estimator": lambda: self.changes(planted_run(self.run), corrected=True),
        }
        return Finding(made, controls)

    def surviving_fall(self) -> Finding:
        """The corrected change over LM3 as a share of the published one, both from the same draws (RL-40)."""

        def share(run: Any, corrected: bool = True) -> Measurement:
            right, published = self.changes(run, corrected=corrected), self.changes(run)
            low, high = np.quantile(right.arrays["fall"] / published.arrays["fall"], [0.05, 0.95])
            value = float(right.arrays["y"][FALL] / published.arrays["y"][FALL])
            interval = Interval(float(low), float(high), LEVEL, right.facts["method"])
            return right.derive("corrected fall in LM3 over the published one", value, interval=interval, unit="share")

        controls = {
            "as published": lambda: share(self.run, corrected=False),
            "shuffled steps": lambda: share(_shuffled(self.run)),
        }
        return Finding(share(self.run), controls)

    def spread(self) -> Finding:
        """How the spread over chains follows the test loss (RL-40)."""

        def ratio(run: Any) -> Measurement:
            return spread_ratio(run, n_layers=2, draws=self.draws, seed=self.seed)

        controls = {
            "estimator with one initial loss": lambda: ratio(planted_run(self.run, first_generation=False)),
            "planted first-generation estimator": lambda: ratio(planted_run(self.run)),
        }
        return Finding(ratio(self.run), controls)

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
