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
from circuit_claims.papers.refined_llc.stages import known_curves as known
from circuit_claims.papers.refined_llc.stages.boundaries import (
    FIRST_STEP,
    LENGTH,
    PUBLISHED_BOUNDARIES,
    STAGE_NAMES,
    Smoother,
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
    curves = llc_of(run, n_layers=n_layers, corrected=corrected)
    found, smoother, resampled = boundaries_of(curves, draws, np.random.default_rng(seed), length)
    low, high = percentile_band(smoother.curves(resampled))
    best = smoother.curves(curves.values[curves.steps >= FIRST_STEP])
    smooth = {"steps": smoother.steps, "curve": best, "curve_low": low, "curve_high": high}
    return replace(found, seed=seed, arrays={**found.arrays, **smooth})


def boundaries_of(
    curves: RunCurves, draws: int, generator: np.random.Generator, length: float | None = LENGTH
) -> tuple[Measurement, Smoother, Float[np.ndarray, "draw n"]]:
    """The boundaries of one curve, as `stage_boundaries` gives them, its smoother and the draws that it was put to."""
    kept = curves.steps >= FIRST_STEP
    smoother = fit_smoother(curves.steps, curves.values, length)
    resampled = np.stack([curves.draw(generator)[kept] for _ in range(draws)])
    with np.errstate(invalid="ignore"):
        found = np.log2(smoother.boundaries(resampled))
        best = np.log2(smoother.boundaries(curves.values[None, kept])[0])
    low, high = _band(found)
    measured = Measurement(
        "critical points of the smoothed LLC",
        ", ".join("none" if np.isnan(at) else f"{at:.2f}" for at in best),
        n=int(kept.sum()),
        redrawn={"checkpoints": int(kept.sum())},
        unit="doublings",
        arrays={"x": np.arange(1.0, BOUNDARIES + 1), "y": best, "low": low, "high": high},
        facts={"length": smoother.length, "noise": smoother.noise, "found_in": (~np.isnan(found)).mean(0).tolist()},
    )
    return measured, smoother, resampled


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
    curves = llc_of(run, n_layers=n_layers, corrected=corrected)
    return replace(changes_of(curves, draws, np.random.default_rng(seed)), seed=seed)


def changes_of(curves: RunCurves, draws: int, generator: np.random.Generator) -> Measurement:
    """The changes of one curve, as `changes` gives them."""
    best = stage_changes(curves.steps, curves.values)
    found = stage_changes(curves.steps, np.stack([curves.draw(generator) for _ in range(draws)]))
    return banded_changes(best, found, curves)


def banded_changes(
    best: Float[np.ndarray, " stage"], found: Float[np.ndarray, "draw stage"], curves: RunCurves
) -> Measurement:
    """Changes over the stages with their simultaneous band (Bonferroni over stages), from draws of all of them."""
    tail = (1 - LEVEL) / 2 / len(best)
    low, high = np.quantile(found, [tail, 1 - tail], axis=0)
    return Measurement(
        "change of the LLC over each stage",
        ", ".join(f"{change:+.2f}" for change in best),
        n=len(curves.steps),
        redrawn={"checkpoints": len(curves.steps)},
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
    x = loss.values[np.searchsorted(loss.steps, spread.steps)]
    found = ratio_through_origin(x, spread.values, draws, np.random.default_rng(seed))
    return replace(found, seed=seed, arrays={**found.arrays, "steps": spread.steps})


def ratio_through_origin(
    loss: Float[np.ndarray, " step"], spread: Float[np.ndarray, " step"], draws: int, generator: np.random.Generator
) -> Measurement:
    """The ratio of one spread to one loss over checkpoints, as `spread_ratio` gives it."""
    ratio = float(loss @ spread / (loss @ loss))
    residuals = _in_blocks(spread - ratio * loss, draws, generator)
    found = ratio + residuals @ loss / (loss @ loss)
    slope, offset = np.polyfit(loss, spread, 1)
    return Measurement(
        "the LLC's spread over chains over the test loss",
        ratio,
        percentile_interval(
            found,
            f"{draws:,} bootstrap draws of residuals in blocks of {BLOCK} checkpoints",
            redrawn=max(len(loss) // BLOCK, 2),
        ),
        unit="times",
        n=len(loss),
        redrawn={"checkpoints": len(loss)},
        arrays={"loss": loss, "spread": spread},
        facts={
            "slope": float(slope),
            "offset": float(offset),
            "correlation": float(np.corrcoef(loss, spread)[0, 1]),
            "median ratio": float(np.median(spread / loss)),
        },
    )


def _in_blocks(
    residual: Float[np.ndarray, " step"], draws: int, generator: np.random.Generator
) -> Float[np.ndarray, "draw step"]:
    count = len(residual)
    starts = generator.integers(count, size=(draws, -(-count // BLOCK)))
    places = (starts[:, :, None] + np.arange(BLOCK)).reshape(draws, -1)[:, :count]
    return residual[places % count]


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


def share_of_fall(corrected: Measurement, published: Measurement) -> Measurement:
    """The change over LM3 of one table of `changes` as a share of another's, of the same draws."""
    low, high = np.quantile(corrected.arrays["fall"] / published.arrays["fall"], [0.05, 0.95])
    value = float(corrected.arrays["y"][FALL] / published.arrays["y"][FALL])
    interval = Interval(float(low), float(high), LEVEL, corrected.facts["method"])
    return corrected.derive("corrected fall in LM3 over the published one", value, interval=interval, unit="share")


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
