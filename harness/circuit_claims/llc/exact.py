"""Learning coefficients that are known exactly: what a sampler must return, in closed form or by quadrature.

`n_beta` is the inverse temperature times the sample size, `gamma` the pull towards w*, `eps` the step size of SGLD.
All results are in the unit of n beta times the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float, Shaped
from scipy import integrate


@dataclass(frozen=True)
class LearningCoefficient:
    """A real log canonical threshold `value` (a fraction) and its `multiplicity`."""

    value: Fraction
    multiplicity: int


def quadratic(h: Float[np.ndarray, " d"], n_beta: float, gamma: float) -> float:
    """L = 1/2 sum h_i w_i^2 in continuous time: sum n_beta h_i / (2 (n_beta h_i + gamma)).

    It tends to rank/2 as gamma goes to 0.

    >>> quadratic(np.array([1.0, 1.0, 0.0]), n_beta=100.0, gamma=0.0)
    1.0
    """
    pull = n_beta * np.asarray(h, dtype=float)
    return float(np.sum(np.where(pull > 0, pull / (2 * np.where(pull + gamma > 0, pull + gamma, 1.0)), 0.0)))


def displacement_variance(
    h: Shaped[np.ndarray, " d"], steps: Shaped[np.ndarray, " k"], *, n_beta: float, gamma: float, eps: float, noise=0.0
) -> Float[np.ndarray, "k d"]:
    """Variance of each coordinate of w - w* after `steps` steps of SGLD from w*, on L = 1/2 sum h_i w_i^2.

    eps (1 - a^(2k)) / (1 - a^2) with a = 1 - eps A / 2, A = n_beta h + gamma. Minibatch noise of variance `noise` in
    the gradient adds (eps n_beta / 2)^2 noise to the eps of the numerator. A direction with A = 0 walks freely.
    Raises ValueError where eps A >= 4: no stationary state.
    """
    pull = n_beta * np.asarray(h, dtype=float) + gamma
    if np.any(eps * pull >= 4):
        raise ValueError(
            f"step size of SGLD: expected eps (n_beta h + gamma) < 4, found {float(np.max(eps * pull)):.3g}. "
            f"Try eps below {4 / float(np.max(pull)):.3g}"
        )
    decay = (1 - eps * pull / 2) ** 2
    injected = eps + (eps * n_beta / 2) ** 2 * np.broadcast_to(np.asarray(noise, dtype=float), decay.shape)
    count = np.asarray(steps)[:, None]
    still = np.isclose(decay, 1.0, atol=1e-14)
    return injected * np.where(still, count, (1 - decay**count) / np.where(still, 1.0, 1 - decay))


def quadratic_sgld(
    h: Float[np.ndarray, " d"], *, n_beta: float, gamma: float, eps: float, num_draws: int, burnin: int = 0, noise=0.0
) -> float:
    """The estimate SGLD has on average on L = 1/2 sum h_i w_i^2: from w*, draws read before each step.

    Exact for finite `eps` and `num_draws`, with gradient noise of variance `noise` (a number or one per direction).
    Raises ValueError where the step size is unstable.
    """
    steps = np.arange(burnin, burnin + num_draws)
    variance = displacement_variance(h, steps, n_beta=n_beta, gamma=gamma, eps=eps, noise=noise)
    return float(n_beta / 2 * np.sum(np.asarray(h) * variance.mean(0)))


def small_curvature(trace: float, n_beta: float, gamma: float) -> float:
    """Where every curvature is far below gamma / n_beta, the coefficient is n_beta / (2 gamma) times the trace.

    >>> round(small_curvature(1.0, n_beta=30.0, gamma=200.0), 12)
    0.075
    """
    return n_beta / (2 * gamma) * trace


def monomial(k: int) -> float:
    """L = w^(2k) with gamma = 0: 1 / (2k), for every n_beta."""
    return 1 / (2 * k)


def normal_crossing(k1: int, k2: int, n_beta: float) -> float:
    """L = w1^(2 k1) w2^(2 k2), uniform prior on [-1, 1]^2, at a finite `n_beta`: E[n_beta L].

    -log L is a sum of two exponential variables under the prior, so one integral is left.

    >>> round(normal_crossing(1, 1, 30.0), 4)
    0.3136
    """
    a, b = 1 / (2 * k1), 1 / (2 * k2)

    def density(u: float) -> float:
        return u * np.exp(-a * u) if k1 == k2 else (np.exp(-a * u) - np.exp(-b * u)) / (b - a)

    def moment(power: int) -> float:
        points = [float(np.log(n_beta))]
        upper = points[0] + 200.0 * max(k1, k2)

        def integrand(u: float) -> float:
            level = n_beta * np.exp(-u)
            return level**power * np.exp(-level) * density(u)

        return integrate.quad(integrand, 0, upper, points=points, limit=1000, epsabs=0, epsrel=1e-10)[0]

    return moment(1) / moment(0)


def rank_regression(m: int, h: int, n: int, r: int) -> Fraction:
    """Reduced-rank regression y = BAx (Aoyagi and Watanabe 2005): m inputs, h hidden, n outputs, true rank r.

    Raises ValueError where the true rank exceeds a layer.
    """
    if r > min(m, h, n):
        raise ValueError(f"true rank: expected at most {min(m, h, n)} for layers ({m}, {h}, {n}), found {r}")
    if m + h < n + r:
        return Fraction(h * m - h * r + n * r, 2)
    if n + h < m + r:
        return Fraction(h * n - h * r + m * r, 2)
    if m + n < h + r:
        return Fraction(m * n, 2)
    odd = (m + h + n + r) % 2
    return Fraction(-((h + r) ** 2) - m**2 - n**2 + 2 * (h + r) * (m + n) + 2 * m * n + odd, 8)


def deep_linear(sizes: Sequence[int], rank: int) -> LearningCoefficient:
    """A deep linear network with layers of `sizes` (inputs first) and true rank `rank` (Aoyagi 2024, theorem 1).

    With excess widths D_s = size - rank, the layers that count are the narrowest ones: the smallest set whose sum lies
    below (its number - 1) times the next width. Raises ValueError where the true rank exceeds a layer.

    >>> deep_linear((1, 1, 1, 1), rank=0)          # y = w1 w2 w3 x
    LearningCoefficient(value=Fraction(1, 2), multiplicity=3)
    """
    if len(sizes) < 2 or rank > min(sizes):
        raise ValueError(f"deep linear network: expected two layers or more, none below rank {rank}, found {sizes}")
    excess = sorted(size - rank for size in sizes)
    chosen = 2
    while chosen < len(excess) and sum(excess[:chosen]) >= (chosen - 1) * excess[chosen]:
        chosen += 1
    kept, ell = excess[:chosen], chosen - 1
    total = sum(kept)
    a = total - (-(-total // ell) - 1) * ell
    pairs = Fraction(total**2 - sum(width**2 for width in kept), 2)
    value = (
        Fraction(rank * (sizes[0] + sizes[-1]) - rank**2, 2)
        + Fraction(a * (ell - a), 4 * ell)
        - Fraction(ell * (ell - 1), 4) * Fraction(total, ell) ** 2
        + pairs / 2
    )
    return LearningCoefficient(value, a * (ell - a) + 1)


def rank_regression_at_zero(m: int, n: int, n_beta: float, gamma: float) -> float:
    """One hidden unit, true rank 0, at finite n_beta and gamma: L = 1/2 |b|^2 |a|^2, a in R^m, b in R^n.

    b is Gaussian given a, so Z(n_beta) is one integral over |a|^2, and the coefficient is -dlog Z / dlog n_beta:
    the mean of (n/2) n_beta s / (n_beta s + gamma) over s = |a|^2 weighted by (n_beta s + gamma)^(-n/2).
    """

    def moment(power: int) -> float:
        def integrand(u: float) -> float:
            s = np.exp(u)
            log = (m / 2) * u - gamma * s / 2 - (n / 2) * np.log1p(n_beta * s / gamma)
            return np.exp(log) * (n_beta * s / (n_beta * s + gamma)) ** power

        turn = float(np.log(gamma / n_beta))
        upper = float(np.log(200 / gamma))
        lower = min(turn, upper) - 80.0
        points = sorted({min(max(p, lower), upper) for p in (turn, float(np.log(1 / gamma)))})
        return integrate.quad(integrand, lower, upper, points=points, limit=2000, epsabs=0, epsrel=1e-10)[0]

    return n / 2 * moment(1) / moment(0)


def frozen_outer(outer: Float[np.ndarray, "n h"], covariance: Float[np.ndarray, "m m"]) -> float:
    """wrLLC of A in y = BAx with B frozen, gamma to 0: rank(B) rank(Sigma_x) / 2."""
    return float(np.linalg.matrix_rank(outer) * np.linalg.matrix_rank(covariance) / 2)


def frozen_inner(inner: Float[np.ndarray, "h m"], covariance: Float[np.ndarray, "m m"], outputs: int) -> float:
    """wrLLC of B in y = BAx with A frozen, gamma to 0: outputs rank(A Sigma_x A^T) / 2."""
    return float(outputs * np.linalg.matrix_rank(inner @ covariance @ inner.T) / 2)


def data_subspace(covariance: Float[np.ndarray, "m m"], outputs: int) -> float:
    """drLLC of linear regression on data that span k dimensions, gamma to 0: outputs k / 2."""
    return float(outputs * np.linalg.matrix_rank(covariance) / 2)
