"""Is an initialisation the published run's? Its positional rows' norms against those recorded after one update.

The run of Hoogland et al. 2024, which Wang et al. 2025 reuse, was seeded with 1. Its authors recorded the norms of the
1,024 rows of W_pos and the norm of all weights after the first update. One step of AdamW at lr 1e-3 moves each of a
row's numbers by 1e-3 up or down, hence its norm by about 1e-3, while norms of freshly drawn rows differ by 0.035: the
right seed must correlate at 1 / sqrt(1 + (1e-3 / 0.035)^2) = 0.9996, any other at 0 give or take 1 / sqrt(1,024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from circuit_claims.api import Interval, Measurement

if TYPE_CHECKING:
    from circuit_claims.toy.model import AttentionOnlyConfig

PUBLISHED_SEED = 1
OTHER_SEEDS = (0, 2, 3, 42)
Z_90 = 1.6448536269514722
LEARNING_RATE = 1e-3
FISHER = "Fisher's transformation over rows of W_pos"


@dataclass(frozen=True)
class SeedMatch:
    """How an initialisation compares with a recorded one: row norms of W_pos and the norm of all weights.

    `correlation` is Pearson's over rows, `low` and `high` its 90 % interval by Fisher's transformation,
    `largest_difference` the largest |norm - recorded norm| of a row, `total_norm` that of every weight, gains included.
    """

    seed: int
    correlation: float
    low: float
    high: float
    largest_difference: float
    total_norm: float
    row_norms: Float[np.ndarray, " pos"]


def initial_norms(seed: int, config: AttentionOnlyConfig | None = None) -> tuple[Float[np.ndarray, " pos"], float]:
    """Norms of the rows of W_pos, and of all weights together, of a model fresh from `seed` (fp64 sums)."""
    from circuit_claims.toy.model import AttentionOnly

    model = AttentionOnly(config).initialise(seed)
    rows = model.pos_embed["W_pos"].detach().double().norm(dim=1).numpy()
    squares = sum(float(parameter.detach().double().square().sum()) for parameter in model.parameters())
    return rows, math.sqrt(squares)


def compare_initialisation(
    seed: int, recorded_norms: Float[np.ndarray, " pos"], config: AttentionOnlyConfig | None = None
) -> SeedMatch:
    """Compare the model drawn from `seed` with recorded row norms of W_pos.

    Raises ValueError where the number of rows is not the model's context, or norms are not finite and above zero.

    >>> recorded, _ = initial_norms(seed=1)
    >>> round(compare_initialisation(1, recorded).correlation, 6)
    1.0
    >>> abs(compare_initialisation(2, recorded).correlation) < 0.1
    True
    """
    rows, total = initial_norms(seed, config)
    recorded = np.asarray(recorded_norms, dtype=np.float64)
    if recorded.shape != rows.shape or not (np.isfinite(recorded) & (recorded > 0)).all():
        raise ValueError(
            f"recorded row norms of W_pos: expected {len(rows):,} finite numbers above zero, found shape "
            f"{recorded.shape} with {int((~(recorded > 0)).sum())} that are not. Give the recorded run's "
            "L2_pos_row_norms_step0"
        )
    correlation = float(np.clip(np.corrcoef(rows, recorded)[0, 1], -1.0, 1.0))
    low, high = _fisher(correlation, len(rows))
    gap = float(np.abs(rows - recorded).max())
    return SeedMatch(seed, correlation, low, high, gap, total, rows)


def _fisher(correlation: float, n: int) -> tuple[float, float]:
    if abs(correlation) > 1 - 1e-15:
        return correlation, correlation
    centre, half = math.atanh(correlation), Z_90 / math.sqrt(n - 3)
    return math.tanh(centre - half), math.tanh(centre + half)


def rows_dealt_out(own: Measurement, generator: np.random.Generator) -> Measurement:
    """A comparison of `seed_match` with the recorded norms under other rows: what another seed's would be."""
    return _correlated(own, own.arrays["row_norms"], generator.permutation(own.arrays["recorded"]))


def one_update_on(seed: int = PUBLISHED_SEED, config: AttentionOnlyConfig | None = None) -> Measurement:
    """The seed's own rows against the same after one update of AdamW that moves every number by the rate up or down."""
    from circuit_claims.toy.model import AttentionOnly

    rows = AttentionOnly(config).initialise(seed).pos_embed["W_pos"].detach().double().numpy()
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=rows.shape)
    moved = np.linalg.norm(rows + LEARNING_RATE * signs, axis=1)
    quantity = f"correlation of positional row norms at initialisation with those an update later, seed {seed}"
    blank = Measurement(quantity, None, n=len(rows), redrawn={"rows of W_pos": len(rows)}, seed=seed)
    return _correlated(blank, np.linalg.norm(rows, axis=1), moved)


def _correlated(own: Measurement, norms: np.ndarray, recorded: np.ndarray) -> Measurement:
    value = float(np.corrcoef(norms, recorded)[0, 1])
    low, high = _fisher(value, len(norms))
    return own.derive(own.quantity, value, interval=Interval(low, high, 0.90, FISHER), unit="correlation")


def seed_match(
    recorded_norms: Float[np.ndarray, " pos"], recorded_total: float, *, seed: int = PUBLISHED_SEED
) -> Measurement:
    """The comparison of one seed as a measurement: the correlation, with the differences beside it as facts.

    `recorded_total` is the recorded norm of all weights (L2_norm at label 0). Negative controls: `OTHER_SEEDS`.
    """
    found = compare_initialisation(seed, recorded_norms)
    return Measurement(
        quantity=f"correlation of positional row norms at initialisation with the recorded ones, seed {seed}",
        value=found.correlation,
        interval=Interval(found.low, found.high, 0.90, FISHER),
        n=len(found.row_norms),
        redrawn={"rows of W_pos": len(found.row_norms)},
        seed=seed,
        arrays={"row_norms": found.row_norms, "recorded": np.asarray(recorded_norms, dtype=np.float64)},
        facts={
            "largest_difference": found.largest_difference,
            "total_norm": found.total_norm,
            "recorded_total_norm": float(recorded_total),
            "total_norm_difference": found.total_norm - float(recorded_total),
        },
    )
