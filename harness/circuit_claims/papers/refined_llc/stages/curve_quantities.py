"""Quantities of a curve of the coefficient, from its numbers alone: stage boundaries, changes over stages, its spread.

What is measured and what a known answer is made of pass through the same functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from circuit_claims.api import LEVEL, Measurement, percentile_interval
from circuit_claims.papers.refined_llc.runs.training_run import RunCurves
from circuit_claims.papers.refined_llc.stages.boundaries import (
    FIRST_STEP,
    LENGTH,
    STAGE_NAMES,
    Smoother,
    fit_smoother,
    stage_changes,
)

if TYPE_CHECKING:
    pass


BOUNDARIES = len(STAGE_NAMES) - 1
FALL = STAGE_NAMES.index("LM3")
BLOCK = 50  # checkpoints resampled together: the spread's misfit drifts over thousands of steps
# A boundary that is not found in this share of draws or more is not called measured.
MISSING = 0.05


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


def share_of_fall(corrected: Measurement, published: Measurement) -> Measurement:
    """The change over LM3 of one table of `changes` as a share of another's, of the same draws."""
    value = float(corrected.arrays["y"][FALL] / published.arrays["y"][FALL])
    interval = percentile_interval(corrected.arrays["fall"] / published.arrays["fall"], corrected.facts["method"])
    return corrected.derive("corrected fall in LM3 over the published one", value, interval=interval, unit="share")
