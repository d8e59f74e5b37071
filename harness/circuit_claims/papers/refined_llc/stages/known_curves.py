"""Curves of the coefficient with a known answer, made of a run's own: a claim is false in them, or true, and no more.

Each gives one data set with its own interval: the curve that is so by construction, found under the noise of single
checkpoints, measured by the functions of `measures`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from circuit_claims.api import Measurement
from circuit_claims.papers.refined_llc.curves.known import CALIBRATION
from circuit_claims.papers.refined_llc.runs.recorded_planted import LOSS_NOISE
from circuit_claims.papers.refined_llc.runs.training_run import RunCurves
from circuit_claims.papers.refined_llc.stages import curve_quantities as cq
from circuit_claims.papers.refined_llc.stages.boundaries import PUBLISHED_BOUNDARIES, log_step, stage_changes
from circuit_claims.papers.refined_llc.stages.first_generation import FirstGeneration

SHUFFLED = "the checkpoints' steps shuffled"
STAGED = "planted curve with the published stages"
LEVEL_STAGE = "this curve with the change over LM3 taken off, its noise drawn anew"
OTHER_STAGES = "these changes, those of other stages, their noise drawn anew"
ALL_OR_NONE = "a loss that accounts for the whole fall, or for none of it, noise drawn anew"
HALF = "a loss that accounts for half of this fall"
ONE_LOSS = "this test loss, chains that all subtract the one initial loss"
MANY_LOSSES = "this test loss, chains that each subtract their share of it, as published"


def shuffled_boundaries(curves: RunCurves, generator: np.random.Generator) -> Measurement:
    """The critical points of the curve with each checkpoint's value under another one's step."""
    order = generator.permutation(len(curves.steps))
    moved = replace(curves, values=curves.values[order], draw=lambda source: curves.draw(source)[order])
    return cq.boundaries_of(moved, CALIBRATION, generator)[0]


def without_the_fall(curves: RunCurves, generator: np.random.Generator) -> Measurement:
    """The changes over the stages of a curve that ends LM3 where it began it; what comes later is moved along."""
    first, last = (log_step(np.array(step)) for step in PUBLISHED_BOUNDARIES[cq.FALL : cq.FALL + 2])
    share = np.clip((log_step(curves.steps) - first) / (last - first), 0, 1)
    fall = stage_changes(curves.steps, curves.values)[cq.FALL]
    return cq.changes_of(_found_anew(curves, generator, lambda values: values - fall * share), CALIBRATION, generator)


def _found_anew(
    curves: RunCurves, generator: np.random.Generator, made: Callable[[np.ndarray], np.ndarray]
) -> RunCurves:
    """The curve that `made` makes of this one, as another measurement might have found it, with its own noise."""
    moved = made(curves.values) - curves.values
    noise = curves.draw(generator) - curves.values
    return replace(
        curves, values=curves.values + moved + noise, draw=lambda source: curves.draw(source) + moved + noise
    )


def changes_of_other_stages(curves: RunCurves, generator: np.random.Generator) -> Measurement:
    """The changes in another order of the stages than their own."""
    again = _found_anew(curves, generator, lambda values: values)
    best = stage_changes(again.steps, again.values)
    drawn = stage_changes(again.steps, np.stack([again.draw(generator) for _ in range(CALIBRATION)]))
    order = np.arange(len(best))
    while (order == np.arange(len(best))).all():
        order = generator.permutation(len(best))
    return cq.banded_changes(best[order], drawn[:, order], again)


def all_or_none_survives(curves: RunCurves, generator: np.random.Generator) -> Measurement:
    """The share of the fall that survives where the loss accounts for all of it, or for nothing, one at random."""
    found = _found_anew(curves, generator, lambda values: values)
    return _surviving(found, curves, float(generator.integers(2)), generator)


def half_survives(curves: RunCurves, generator: np.random.Generator) -> Measurement:
    """The share of the fall that survives where the loss accounts for half of it."""
    return _surviving(curves, curves, 0.5, generator)


def _surviving(found: RunCurves, curves: RunCurves, accounted: float, generator: np.random.Generator) -> Measurement:
    taken = accounted * stage_changes(curves.steps, curves.values)[cq.FALL]
    published = cq.changes_of(found, CALIBRATION, generator)
    arrays = {**published.arrays, "y": published.arrays["y"] - taken, "fall": published.arrays["fall"] - taken}
    return cq.share_of_fall(replace(published, arrays=arrays), published)


def planted_spread(
    loss: Float[np.ndarray, " step"], first_generation: bool, generator: np.random.Generator
) -> Measurement:
    """How the spread follows this loss where chains differ by their own noise, and by what they subtract or not."""
    settings = FirstGeneration()
    kept = settings.draws - 1
    noise = settings.n_beta * LOSS_NOISE * np.sqrt(kept) / settings.draws
    chains = noise * generator.standard_normal((len(loss), settings.chains))
    if first_generation:
        shares = np.arange(1, settings.chains + 1) / settings.chains
        chains = chains - settings.n_beta * kept / settings.draws * shares * loss[:, None]
    return cq.ratio_through_origin(loss, chains.std(axis=1, ddof=1), CALIBRATION, generator)
