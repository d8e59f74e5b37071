"""Two measurements of one cell held against each other: how far apart Monte Carlo error alone would put them.

Four chains' means alone give three degrees of freedom, and at a false alarm in ten thousand Student's t then allows
eight standard errors. Blocks of draws give many more: how fast a chain forgets is known beforehand, since the pull
towards w* contracts every direction by 1 - eps gamma / 2 a step, and curvature only hastens that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from circuit_claims.api import ClaimsError
from circuit_claims.llc.sgld import SGLDSettings
from circuit_claims.papers.refined_llc.recording.cells import Cell, CellKey

# Two-sided, each comparison: two of them in a run raise a false alarm once in 5,000 runs.
FALSE_ALARM = 1e-4
FORGOTTEN = 0.05  # blocks count as independent once their correlation is below this


class RecordedCellDiffers(ClaimsError, AssertionError):
    """A cell measured again lies outside both measurements' Monte Carlo error: engine, weights or text changed."""


@dataclass(frozen=True)
class CellComparison:
    """One cell measured again with other random numbers: the recorded value, the live one, how far apart is allowed."""

    key: CellKey
    recorded: float
    live: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is within what Monte Carlo errors allow; where all chains diverged, both times."""
        both_diverged = math.isnan(self.recorded) and math.isnan(self.live)
        return both_diverged or abs(self.recorded - self.live) <= self.allowed


def compare_cells(
    recorded: Cell, live: Cell, settings: SGLDSettings, false_alarm: float = FALSE_ALARM
) -> CellComparison:
    """Two measurements of one cell with independent random numbers.

    Welch's t: each side's error and degrees of freedom are those of `block_error`.
    """
    from scipy.stats import t

    sides = [block_error(cell.trace, settings) for cell in (recorded, live)]
    errors, freedoms = (np.array(each) for each in zip(*sides, strict=True))
    joint = float(math.hypot(*errors))
    if not 0 < joint < math.inf:
        return CellComparison(recorded.key, recorded.mean, live.mean, joint)
    freedom = joint**4 / float((errors**4 / freedoms).sum())
    half = float(t.ppf(1 - false_alarm / 2, freedom)) * joint
    return CellComparison(recorded.key, recorded.mean, live.mean, half)


def block_error(trace: Float[np.ndarray, "chain block"], settings: SGLDSettings) -> tuple[float, float]:
    """Standard error of the mean over chains and blocks, with its degrees of freedom.

    What all chains do alike, the way from w* to where they settle, is no noise: the mean over chains is taken off each
    block. The variance of what is left is summed over the `memory` next blocks; that estimate is as good as one from
    (chains - 1) blocks / (memory + 1/2) independent values (Priestley 1981, 6.2.4, the truncated window). Where chains
    remember longer than that pays, the chains' own means and their number less one. One sound chain: infinity.
    """
    trace = trace[:, np.isfinite(trace).any(0)]  # a table pads the traces of few draws
    sound = trace[np.isfinite(trace).all(1)]
    chains, blocks = sound.shape
    if chains < 2:
        return math.inf, 1.0
    off = sound - sound.mean(0)
    reach = memory(settings, blocks)
    between = float(off.mean(1) @ off.mean(1)) / (chains - 1) / chains
    freedom = (chains - 1) * blocks / (reach + 0.5)
    if freedom <= chains - 1:
        return math.sqrt(between), float(chains - 1)
    products = [float((off[:, : blocks - lag] * off[:, lag:]).sum()) for lag in range(reach + 1)]
    within = (products[0] + 2 * sum(products[1:])) / (chains - 1) / chains / blocks**2
    # A sum cut short can come out too small, even negative, where blocks happen to alternate.
    return math.sqrt(max(within, products[0] / (chains - 1) / chains / blocks**2)), freedom


def memory(settings: SGLDSettings, blocks: int) -> int:
    """Blocks until a chain has forgotten all but `FORGOTTEN` of an excess in its loss, which goes with w squared.

    >>> memory(SGLDSettings(30.0, 200.0, 1e-3), 25), memory(SGLDSettings(30.0, 100.0, 1e-3), 25)
    (2, 4)
    """
    steps = settings.num_draws * settings.thin / blocks
    rate = abs(1 - settings.eps * settings.gamma / 2) ** (2 * steps)
    return 0 if rate == 0 else blocks if rate >= 1 else min(blocks, math.ceil(math.log(FORGOTTEN) / math.log(rate)))


def refuse_differences(found: Sequence[CellComparison]) -> None:
    """Raise `RecordedCellDiffers` naming every cell that does not agree."""
    wrong = [each for each in found if not each.agrees]
    if not wrong:
        return
    lines = [
        f"  {each.key}\n    expected  {each.recorded:.4g} as recorded, within {each.allowed:.2g}\n"
        f"    found     {each.live:.4g} live"
        for each in wrong
    ]
    raise RecordedCellDiffers(
        "\n".join(
            [
                f"{len(wrong)} recorded cell{'s differ' if len(wrong) > 1 else ' differs'} from what is measured here",
                *lines,
                "  The engine, the weights or the text changed since. Measure all anew: pytest claims/refined_llc "
                "--remeasure, and if that stands: claims record-cells",
            ]
        )
    )
