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
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int

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
ROUNDING = 1e-14  # of the largest eigenvalue: what is below is rounding alone
SMALLEST = 1e-300  # a curve without any variance still has a logarithm


@dataclass(frozen=True)
class Smoother:
    """A Gaussian process with its hyperparameters settled: linear in the values, so that one fit serves all draws.

    `positions` (n,) and `grid` (m,) are log(step + 1). `weights` (r, n) take values at the positions to the kernel's
    leading eigenvectors, `curve_basis` and `slope_basis` (m, r) these to the smoothed curve, less the values' mean, and
    to its derivative on the grid. `length` is the kernel's length in e-foldings, `noise` the standard deviation that
    the fit leaves to single values.
    """

    positions: Float[np.ndarray, " n"]
    grid: Float[np.ndarray, " m"]
    weights: Float[np.ndarray, "r n"]
    curve_basis: Float[np.ndarray, "m r"]
    slope_basis: Float[np.ndarray, "m r"]
    length: float
    noise: float

    @property
    def steps(self) -> Float[np.ndarray, " m"]:
        """The grid in training steps."""
        return np.expm1(self.grid)

    def curves(self, values: Float[np.ndarray, "*draw n"]) -> Float[np.ndarray, "*draw m"]:
        """The smoothed curve of each row of values."""
        return (values @ self.weights.T) @ self.curve_basis.T + values.mean(-1)[..., None]

    def slopes(self, values: Float[np.ndarray, "*draw n"]) -> Float[np.ndarray, "*draw m"]:
        """Its derivative in log step."""
        return (values @ self.weights.T) @ self.slope_basis.T

    def boundaries(self, values: Float[np.ndarray, "draw n"]) -> Float[np.ndarray, "draw boundary"]:
        """`critical_steps` of many curves at once, each from `FIRST_STEP` on."""
        return critical_steps(self.steps, self.curves(values), self.slopes(values))


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
    spectrum = _spectrum(tuple(positions.tolist()), length)
    _, amplitude, noise = spectrum.likelihood(centred - centred.mean())
    grid, curve_basis, slope_basis = _bases(tuple(positions.tolist()), length)
    count = curve_basis.shape[1]
    weights = spectrum.vectors[:, -count:].T / (spectrum.values[-count:, None] + noise / amplitude)
    weights = weights - weights.mean(1, keepdims=True)  # the process is of the values less their mean
    return Smoother(positions, grid, weights, curve_basis, slope_basis, length, math.sqrt(noise))


@lru_cache(maxsize=4)
def _spectrum(positions: tuple[float, ...], length: float) -> _Spectrum:
    return _Spectrum.of(np.array(positions), length)


@lru_cache(maxsize=4)
def _bases(positions: tuple[float, ...], length: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The grid, and on it the curve and the slope of each eigenvector that is not lost in rounding."""
    at, spectrum = np.array(positions), _spectrum(positions, length)
    vectors = spectrum.vectors[:, spectrum.values > ROUNDING * spectrum.values[-1]]
    grid = np.linspace(at[0], at[-1], GRID)
    gap = grid[:, None] - at
    cross = np.exp(-(gap**2) / (2 * length**2))
    return grid, cross @ vectors, (-gap / length**2 * cross) @ vectors


@dataclass(frozen=True)
class _Spectrum:
    """Eigenvectors and eigenvalues of the kernel of one length: every ratio of noise to signal follows cheaply."""

    vectors: Float[np.ndarray, "n n"]
    values: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, positions: np.ndarray, length: float) -> _Spectrum:
        values, vectors = np.linalg.eigh(np.exp(-((positions[:, None] - positions) ** 2) / (2 * length**2)))
        return cls(vectors, np.maximum(values, 0.0))

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
    steps: Float[np.ndarray, " m"], curves: Float[np.ndarray, "draw m"], slopes: Float[np.ndarray, "draw m"]
) -> Float[np.ndarray, "draw boundary"]:
    """The four boundaries of five stages around each smoothed curve's largest fall; NaN where there is none such.

    Second and third: where the largest fall from step `RESOLVED_FROM` on begins and ends (zeros of the derivative).
    First: the last critical point before it, fourth: the first after the climb that follows, where critical points are
    zeros of the derivative and places where it comes nearest to zero and is below `FLAT` of its largest value; where
    no place is as flat as that, the flattest before and the first turn after.
    """
    searched, resolved = (int(np.searchsorted(steps, at)) for at in (SEARCHED_FROM, RESOLVED_FROM))
    at, size = np.arange(len(steps)), np.abs(slopes)
    begin, end = _largest_falls(curves, slopes, resolved)
    turns = np.zeros(slopes.shape, dtype=bool)  # where |slope| is smaller than at both neighbours
    turns[:, 1:-1] = (size[:, 1:-1] < size[:, :-2]) & (size[:, 1:-1] <= size[:, 2:])
    flat = turns & (size < FLAT * size[:, searched:].max(1, keepdims=True))
    peak = np.where(at > end[:, None], slopes, -np.inf).argmax(1)
    before, after = (at > searched) & (at < begin[:, None] - 1), at > peak[:, None]
    flattest = np.where(turns & before, size, np.inf).argmin(1)
    first = np.where((flat & before).any(1), _last(flat & before), flattest)
    fourth = np.where((flat & after).any(1), (flat & after).argmax(1), (turns & after).argmax(1))
    found = np.stack([_zero_near(steps, slopes, place) for place in (first, begin, end, fourth)], axis=1)
    none = begin < 0
    missing = np.stack([none | ~(turns & before).any(1), none, none, none | ~(turns & after).any(1)], axis=1)
    return np.where(missing, np.nan, found)


def _last(mask: Bool[np.ndarray, "draw m"]) -> Int[np.ndarray, " draw"]:
    return mask.shape[1] - 1 - mask[:, ::-1].argmax(1)


def _largest_falls(
    curves: Float[np.ndarray, "draw m"], slopes: Float[np.ndarray, "draw m"], resolved: int
) -> tuple[Int[np.ndarray, " draw"], Int[np.ndarray, " draw"]]:
    """Where each curve's largest stretch of falling begins and ends, after `resolved` and before the end; -1: none."""
    falling = np.pad(slopes[:, resolved:] < 0, ((0, 0), (1, 1))).astype(np.int8)
    edges = np.diff(falling, axis=1)
    (draw, begin), (_, end) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    begin, end = begin + resolved, end - 1 + resolved
    whole = (begin > resolved) & (end < slopes.shape[1] - 1)
    draw, begin, end = draw[whole], begin[whole], end[whole]
    depth = curves[draw, begin] - curves[draw, end]
    order = np.lexsort((-np.arange(len(depth)), depth))  # the deepest, and of equals the first, is written last
    found = np.full((2, len(curves)), -1)
    found[0, draw[order]], found[1, draw[order]] = begin[order], end[order]
    return found[0], found[1]


def _zero_near(
    steps: Float[np.ndarray, " m"], slopes: Float[np.ndarray, "draw m"], at: Int[np.ndarray, " draw"]
) -> Float[np.ndarray, " draw"]:
    """The step where the derivative changes sign next to `at`, by a straight line; where it does not, that of `at`."""
    rows, place = np.arange(len(at)), np.clip(at, 0, len(steps) - 1)
    found = steps[place]
    for left in (place, place - 1):  # the earlier of the two is written last
        start, stop = np.clip(left, 0, len(steps) - 2), np.clip(left, 0, len(steps) - 2) + 1
        before, after = slopes[rows, start], slopes[rows, stop]
        crosses = (start == left) & (before * after < 0)
        share = before / np.where(crosses, before - after, 1.0)
        found = np.where(crosses, steps[start] + share * (steps[stop] - steps[start]), found)
    return found


def stage_changes(
    steps: Int[np.ndarray, " n"],
    values: Float[np.ndarray, "*draw n"],
    boundaries: tuple[int, ...] = PUBLISHED_BOUNDARIES,
) -> Float[np.ndarray, "*draw stage"]:
    """Change of each curve over each stage, from the checkpoint nearest to its first step to that nearest to its last.

    >>> stage_changes(np.array([0, 10, 20]), np.array([1.0, 5.0, 4.0]), (0, 10, 25)).tolist()
    [4.0, -1.0]
    """
    ends = [int(np.abs(np.asarray(steps) - boundary).argmin()) for boundary in boundaries]
    return np.diff(np.asarray(values)[..., ends], axis=-1)
