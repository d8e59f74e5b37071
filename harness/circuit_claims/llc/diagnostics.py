"""Have the chains settled, and how well is their mean known? ArviZ's rank diagnostics, those that the gate reads."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class ChainDiagnostics:
    """Of the sound chains together: rank-normalised split R-hat, bulk and tail ESS, MCSE of the mean (draw units).

    NaN where a figure does not exist.
    """

    r_hat: float
    ess_bulk: float
    ess_tail: float
    mcse: float


FEWEST_DRAWS = 8
NONE = ChainDiagnostics(math.nan, math.nan, math.nan, math.nan)


def diagnose(draws: Float[np.ndarray, "chain draw"]) -> ChainDiagnostics:
    """Diagnostics of finite draws; all NaN for fewer than eight draws a chain or draws that never move."""
    if draws.size == 0 or draws.shape[1] < FEWEST_DRAWS or np.ptp(draws) <= 1e-12 * np.abs(draws).max():
        return NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz  # says on its first import of a day that it is being rebuilt

        halves = draws if len(draws) > 1 else draws[:, : draws.shape[1] // 2 * 2].reshape(2, -1)
        r_hat, bulk, tail, mcse = (
            float(np.asarray(figure).item())
            for figure in (
                arviz.rhat(halves, method="rank"),
                arviz.ess(draws, method="bulk"),
                arviz.ess(draws, method="tail"),
                arviz.mcse(draws, method="mean"),
            )
        )
    return ChainDiagnostics(r_hat, bulk, tail, mcse)
