"""Made-up recorded runs in which the second paper's findings hold by construction, in the recorded file's own form.

The coefficient climbs and falls in the five stages with a derivative of zero at every boundary, and is passed through
the published first-generation estimator chain by chain. Two previous-token heads form before two induction heads, and
K-composition of multigram heads rises. Noise is drawn from one seed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from circuit_claims.papers.refined_llc.runs.recorded import CURRENT_TOKEN, HEADS, RecordedData
from circuit_claims.papers.refined_llc.stages.boundaries import PUBLISHED_BOUNDARIES, log_step
from circuit_claims.papers.refined_llc.stages.first_generation import FirstGeneration

LABELS = np.arange(0, 50_001, 100)
TRUE_LEVELS = (42.0, 105.5, 135.5, 134.66, 146.1, 147.9)
LOSS_LEVELS = (7.94, 4.35, 3.63, 3.56, 3.30, 3.215)
ONE_LAYER_LEVELS = (34.0, 70.0, 104.0, 109.0, 115.5, 116.0)
LOSS_NOISE = 0.44  # of one draw: leaves the mean over 20 chains of 200 draws a noise of 0.15, as recorded
PREVIOUS, INDUCTION = ("0:1", "0:4"), ("1:6", "1:7")


def through_levels(levels: Sequence[float], boundaries: Sequence[int] = PUBLISHED_BOUNDARIES) -> np.ndarray:
    """A curve over `LABELS` through `levels` at the boundaries, smooth, with zero derivative in log step at each."""
    at, places = log_step(LABELS), log_step(np.array(boundaries))
    stage = np.clip(np.searchsorted(places, at, side="right") - 1, 0, len(places) - 2)
    share = (at - places[stage]) / np.diff(places)[stage]
    heights = np.asarray(levels, dtype=np.float64)
    return heights[stage] + np.diff(heights)[stage] * share**2 * (3 - 2 * share)


def planted_numbers(*, seed: int = 0, first_generation: bool = True) -> dict[str, Any]:
    """The numbers of a run in which every recorded claim holds, in the recorded file's form.

    `first_generation` False passes the same sampled losses through the estimator as it should have been.
    """
    generator = np.random.default_rng(seed)
    two, one = (_coefficient(levels, generator, first_generation) for levels in (TRUE_LEVELS, ONE_LAYER_LEVELS))
    loss = through_levels(LOSS_LEVELS).tolist()
    return {
        "source": "made up",
        "steps": LABELS.tolist(),
        "L2_test_loss": loss,
        "L1_per_token_loss": {"-1": loss},
        "L2_llc_mean": two[0], "L2_llc_std": two[1], "L1_llc_mean": one[0], "L1_llc_std": one[1],
        "L2_prev_scores": _scores(PREVIOUS, 0.25, 9_000, (0.03, 0.06, 0.13), generator),
        "L2_prefix_scores": _scores(INDUCTION, 0.06, 12_000, (0.01, -0.008, -0.008), generator),
        "L2_kcomp": _composition(generator),
        "L2_norm": np.linspace(95.6, 328.0, len(LABELS)).tolist(),
        "L2_pos_row_norms_step0": generator.normal(0.8, 0.035, 1024).tolist(),
    }  # fmt: skip


def planted_data(*, seed: int = 0, first_generation: bool = True) -> RecordedData:
    """The same as data to open a `RecordedRun` on; nothing is written to disk."""
    numbers = planted_numbers(seed=seed, first_generation=first_generation)
    return RecordedData(Path("planted"), json.dumps(numbers).encode())


def _coefficient(
    levels: Sequence[float], generator: np.random.Generator, first_generation: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Mean over chains and spread over chains by label, of chains that sample the planted coefficient."""
    settings = FirstGeneration()
    initial, true = through_levels(LOSS_LEVELS), through_levels(levels)
    estimate = settings.estimate if first_generation else settings.estimate_right
    shape = (len(LABELS), settings.chains, settings.draws)
    losses = (initial + true / settings.n_beta)[:, None, None] + LOSS_NOISE * generator.standard_normal(shape)
    losses[:, :, 0] = initial[:, None]
    found = estimate(losses)
    names = [str(label) for label in LABELS.tolist()]
    means, spreads = found.mean(1), found.std(1, ddof=1)
    return dict(zip(names, means.tolist(), strict=True)), dict(zip(names, spreads.tolist(), strict=True))


def _rise(at: int, width: float = 0.15) -> Float[np.ndarray, " label"]:
    """From 0 to 1 around step `at`, over a few times `width` e-foldings."""
    return 1.0 / (1.0 + np.exp(-(log_step(LABELS) - np.log(at)) / width))


def _scores(
    heads: Sequence[str], height: float, at: int, base: tuple[float, float, float], generator: np.random.Generator
) -> list[Any]:
    """Every head at `base[0]`, moving by `base[1]` in layer 0 and `base[2]` in layer 1, the named ones rising."""
    moves = np.array(base[1:])[:, None] * np.ones(HEADS)
    values = base[0] + moves * _rise(2_000)[:, None, None]
    for index, name in enumerate(heads):
        layer, head = map(int, name.split(":"))
        values[:, layer, head] += height * (1 - 0.1 * index) * _rise(at)
    return (values + 2e-4 * generator.standard_normal(values.shape)).tolist()


def _composition(generator: np.random.Generator) -> dict[str, list[float]]:
    """From 1/sqrt(d_model) down to 0.02 by step 6,500; then up, to 0.06 where both heads are multigram heads."""
    pairs = {}
    for writer in range(HEADS[1]):
        for reader in range(HEADS[1]):
            name = f"0:{writer}"
            end = 0.031 if name in PREVIOUS else 0.05 if name in CURRENT_TOKEN else 0.06
            if f"1:{reader}" in INDUCTION:
                end = 0.14 if name in PREVIOUS else 0.06
            curve = 0.02 + 0.0425 * (1 - _rise(1_500)) + (end - 0.02) * _rise(15_000)
            pairs[f"{writer}->{reader}"] = (curve + 5e-5 * generator.standard_normal(len(LABELS))).tolist()
    return pairs
