"""Stages of training from the critical points of the coefficient's curve, and what RL-40 corrects of it. Pure.

Hoogland et al. 2024 (arXiv 2402.02364, section 4) divide training where the derivative of the LLC in log step
vanishes. Their published code holds the boundaries as numbers and takes the derivative, without smoothing, as the mean
of the difference quotients to both sides in log(step + 1); how the curve was smoothed before is not given. Here a
Gaussian process (RBF kernel, white noise, amplitude and noise by marginal likelihood) is fitted in log(step + 1) and
differentiated. Its length is `LENGTH`, settled on planted curves alone: with the likeliest length, the usual choice,
corners are rounded and the last planted boundary moves by 0.2 doublings; at `LENGTH` all four come out within 0.1.
Claims on boundaries are judged at `LENGTH` and shown at the likeliest length and others beside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

# The stages LM1 to LM5 as the papers give them: what a stage is, not what is expected of a curve.
PUBLISHED_BOUNDARIES = (0, 900, 6_500, 8_500, 17_000, 50_000)
STAGE_NAMES = ("LM1", "LM2", "LM3", "LM4", "LM5")
# Labels below lie so thin in log step (0, 100, 200) that a derivative there is an artefact of the smoother.
FIRST_STEP, SEARCHED_FROM = 100, 300
# From here on the kernel's length holds two checkpoints or more, which a fall takes to be seen.
RESOLVED_FROM = 1_000
FLAT = 0.05
LENGTH = 0.2
GRID = 1_200
LENGTHS = (0.05, 3.0)
SMALLEST = 1e-300  # a curve without any variance still has a logarithm


@dataclass(frozen=True)
class Smoother:
    """A Gaussian process with its hyperparameters settled: linear in the values, so that one fit serves all draws.

    `positions` (n,) and `grid` (m,) are log(step + 1), `curve` (m, n) and `slope` (m, n) give the smoothed curve and
    its derivative on the grid from values at the positions. `length` is the kernel's length in e-foldings, `noise` the
    standard deviation that the fit leaves to single values.
    """

    positions: Float[np.ndarray, " n"]
    grid: Float[np.ndarray, " m"]
    curve: Float[np.ndarray, "m n"]
    slope: Float[np.ndarray, "m n"]
    length: float
    noise: float

    @property
    def steps(self) -> Float[np.ndarray, " m"]:
        """The grid in training steps."""
        return np.expm1(self.grid)

    def boundaries(self, values: Float[np.ndarray, "draw n"]) -> Float[np.ndarray, "draw boundary"]:
        """`critical_steps` of many curves at once, each from `FIRST_STEP` on."""
        curves, slopes = values @ self.curve.T, values @ self.slope.T
        pairs = zip(curves, slopes, strict=True)
        return np.stack([critical_steps(self.steps, curve, slope) for curve, slope in pairs])


def log_step(steps: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """log(step + 1), the authors' axis: step 0 has a place."""
    return np.log1p(np.asarray(steps, dtype=np.float64))


def fit_smoother(
    steps: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"], length: float | None = LENGTH
) -> Smoother:
    """The smoother of a curve from step `FIRST_STEP` on; a `length` of None takes the likeliest.

    Raises ValueError for fewer than ten values.
    """
    kept = np.asarray(steps) >= FIRST_STEP
    positions, centred = log_step(np.asarray(steps)[kept]), np.asarray(values)[kept]
    if len(positions) < 10:
        raise ValueError(f"smoothing a curve: expected 10 checkpoints or more, found {len(positions)}")
    if length is None:
        length = _likeliest_length(positions, centred)
    spectrum = _Spectrum.of(positions, length)
    _, amplitude, noise = spectrum.likelihood(centred - centred.mean())
    grid = np.linspace(positions[0], positions[-1], GRID)
    gap = grid[:, None] - positions
    cross = np.exp(-(gap**2) / (2 * length**2))
    centre = np.eye(len(positions)) - 1.0 / len(positions)  # the process is of the values less their mean
    weights = spectrum.inverse(noise / amplitude) @ centre
    curve, slope = cross @ weights + 1.0 / len(positions), (-gap / length**2 * cross) @ weights
    return Smoother(positions, grid, curve, slope, length, math.sqrt(noise))


@dataclass(frozen=True)
class _Spectrum:
    """Eigenvectors and eigenvalues of the kernel of one length: every ratio of noise to signal follows cheaply."""

    vectors: Float[np.ndarray, "n n"]
    values: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, positions: np.ndarray, length: float) -> _Spectrum:
        values, vectors = np.linalg.eigh(np.exp(-((positions[:, None] - positions) ** 2) / (2 * length**2)))
        return cls(vectors, np.maximum(values, 0.0))

    def inverse(self, ratio: float) -> Float[np.ndarray, "n n"]:
        return (self.vectors / (self.values + ratio)) @ self.vectors.T

    def likelihood(self, centred: Float[np.ndarray, " n"]) -> tuple[float, float, float]:
        """Least negative log likelihood over amplitude and noise; the amplitude follows from the ratio of the two."""
        from scipy.optimize import minimize_scalar

        projected, n = (self.vectors.T @ centred) ** 2, len(centred)

        def negative(log_ratio: float) -> float:
            scale = self.values + math.exp(log_ratio)
            fit = max(float((projected / scale).sum()), SMALLEST)
            return 0.5 * n * math.log(fit / n) + 0.5 * float(np.log(scale).sum())

        found = minimize_scalar(negative, bounds=(-18.0, 2.0), method="bounded")
        ratio = math.exp(found.x)
        amplitude = max(float((projected / (self.values + ratio)).sum()), SMALLEST) / n
        return float(found.fun), amplitude, amplitude * ratio


def _likeliest_length(positions: np.ndarray, values: np.ndarray) -> float:
    """The kernel's length of largest marginal likelihood, within `LENGTHS`, to a few per cent."""
    from scipy.optimize import minimize_scalar

    def negative(log_length: float) -> float:
        return _Spectrum.of(positions, math.exp(log_length)).likelihood(values - values.mean())[0]

    ends = tuple(map(math.log, LENGTHS))
    return math.exp(minimize_scalar(negative, bounds=ends, method="bounded", options={"xatol": 0.02}).x)


def critical_steps(
    steps: Float[np.ndarray, " m"], curve: Float[np.ndarray, " m"], slope: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " boundary"]:
    """The four boundaries of five stages around a smoothed curve's largest fall; NaN where there is no such boundary.

    Second and third: where the largest fall from step `RESOLVED_FROM` on begins and ends (zeros of the derivative).
    First: the last critical point before it, fourth: the first after the climb that follows, where critical points are
    zeros of the derivative and places where it comes nearest to zero and is below `FLAT` of its largest value; where
    no place is as flat as that, the flattest before and the first turn after.
    """
    searched = int(np.searchsorted(steps, SEARCHED_FROM))
    resolved = int(np.searchsorted(steps, RESOLVED_FROM))
    falls = _runs(slope[resolved:] < 0, resolved)
    falls = [(start, end) for start, end in falls if start > resolved and end < len(slope) - 1]
    if not falls:
        return np.full(4, np.nan)
    begin, end = max(falls, key=lambda fall: curve[fall[0]] - curve[fall[1]])
    flat = _flattest(slope, searched, begin - 1)
    limit = FLAT * np.abs(slope[searched:]).max()
    before = [at for at in flat if abs(slope[at]) < limit] or sorted(flat, key=lambda at: -abs(slope[at]))
    peak = end + 1 + int(slope[end + 1 :].argmax())
    turns = _flattest(slope, peak, len(slope) - 1)
    after = [at for at in turns if abs(slope[at]) < limit] or turns
    places = [before[-1] if before else None, begin, end, after[0] if after else None]
    return np.array([np.nan if at is None else _zero_near(steps, slope, at) for at in places])


def _runs(mask: np.ndarray, offset: int) -> list[tuple[int, int]]:
    """First and last index of each stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(first) + offset, int(last) - 1 + offset) for first, last in edges.reshape(-1, 2)]


def _flattest(slope: np.ndarray, first: int, last: int) -> list[int]:
    """Indices strictly between where |slope| is smaller than at both neighbours."""
    size = np.abs(slope[first : last + 1])
    least = (size[1:-1] < size[:-2]) & (size[1:-1] <= size[2:])
    return (np.flatnonzero(least) + first + 1).tolist()


def _zero_near(steps: np.ndarray, slope: np.ndarray, at: int) -> float:
    """The step where the derivative changes sign next to `at`, by a straight line; where it does not, that of `at`."""
    for left, right in ((at - 1, at), (at, at + 1)):
        if left >= 0 and right < len(slope) and slope[left] * slope[right] < 0:
            share = slope[left] / (slope[left] - slope[right])
            return float(steps[left] + share * (steps[right] - steps[left]))
    return float(steps[at])


def stage_changes(
    steps: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"], boundaries: tuple[int, ...] = PUBLISHED_BOUNDARIES
) -> Float[np.ndarray, " stage"]:
    """Change of a curve over each stage, from the checkpoint nearest to its first step to that nearest to its last.

    >>> stage_changes(np.array([0, 10, 20]), np.array([1.0, 5.0, 4.0]), (0, 10, 25)).tolist()
    [4.0, -1.0]
    """
    ends = [float(values[int(np.abs(np.asarray(steps) - boundary).argmin())]) for boundary in boundaries]
    return np.array([after - before for before, after in pairwise(ends)])
