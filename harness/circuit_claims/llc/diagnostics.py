"""Have the chains settled, and how well is their mean known? ArviZ's rank diagnostics, and the classical three.

Geweke, Heidelberger-Welch and Raftery-Lewis follow the R package coda, as Wang et al. (2025) report them.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import linalg, special, stats


@dataclass(frozen=True)
class ChainDiagnostics:
    """Of the sound chains together: rank-normalised split R-hat, bulk and tail ESS, MCSE of the mean (draw units).

    Of each chain: `geweke` z-scores; `stationary_p` and `half_width` of Heidelberger and Welch (p-value of the
    stationarity test, half width of the 95 % interval over the mean); `dependence` of Raftery and Lewis (draws needed
    over draws needed if they were independent; above 5 is bad). NaN where a figure does not exist.
    """

    r_hat: float
    ess_bulk: float
    ess_tail: float
    mcse: float
    geweke: tuple[float, ...]
    stationary_p: tuple[float, ...]
    half_width: tuple[float, ...]
    dependence: tuple[float, ...]


FEWEST_DRAWS = 8
NONE = ChainDiagnostics(math.nan, math.nan, math.nan, math.nan, (), (), (), ())


def diagnose(draws: Float[np.ndarray, "chain draw"]) -> ChainDiagnostics:
    """Diagnostics of finite draws; all NaN for fewer than eight draws a chain or draws that never move."""
    if draws.size == 0 or draws.shape[1] < FEWEST_DRAWS or np.ptp(draws) <= 1e-12 * np.abs(draws).max():
        return NONE
    import arviz

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
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
    stationary_p, half_width = zip(*map(heidelberger_welch, draws), strict=True)
    each = (tuple(map(geweke, draws)), stationary_p, half_width, tuple(map(raftery_lewis, draws)))
    return ChainDiagnostics(r_hat, bulk, tail, mcse, *each)


def spectrum_at_zero(chain: Float[np.ndarray, " draw"]) -> float:
    """Spectral density at frequency zero of an autoregression fitted by Yule and Walker, its order chosen by AIC.

    The variance of the mean of n draws is this over n.
    """
    n, centred = len(chain), chain - chain.mean()
    top = min(n - 1, int(10 * math.log10(n)))
    cov = np.array([centred[: n - lag] @ centred[lag:] / n for lag in range(top + 1)])
    if cov[0] <= 0:
        return 0.0
    best, density = math.inf, cov[0]
    for order in range(top + 1):
        weights = linalg.solve_toeplitz(cov[:order], cov[1 : order + 1]) if order else np.zeros(0)
        residual = max(cov[0] - weights @ cov[1 : order + 1], 1e-300)
        aic = n * math.log(residual) + 2 * order
        if aic < best:
            best, density = aic, residual * n / (n - order - 1) / (1 - weights.sum()) ** 2
    return float(density)


def geweke(chain: Float[np.ndarray, " draw"], first: float = 0.1, last: float = 0.5) -> float:
    """z-score of the mean of the first 10 % of draws against that of the last 50 % (Geweke 1992)."""
    n = len(chain)
    head, tail = chain[: max(2, int(first * n))], chain[n - max(2, int(last * n)) :]
    spread = spectrum_at_zero(head) / len(head) + spectrum_at_zero(tail) / len(tail)
    return float((head.mean() - tail.mean()) / math.sqrt(spread)) if spread > 0 else math.nan


def cramer_von_mises_cdf(x: float) -> float:
    """Limit distribution of the Cramer-von Mises statistic (Anderson and Darling 1952)."""
    if x <= 0:
        return 0.0
    k = np.arange(8)
    u = (4 * k + 1) ** 2 / (16 * x)
    scale = special.gamma(k + 0.5) * np.sqrt(4 * k + 1) / (special.gamma(k + 1) * math.pi**1.5 * math.sqrt(x))
    return float(np.sum(scale * np.exp(-2 * u) * special.kve(0.25, u)))


def heidelberger_welch(chain: Float[np.ndarray, " draw"], alpha: float = 0.05) -> tuple[float, float]:
    """p-value of stationarity, after dropping tenths of the chain up to a half until it passes; relative half width.

    The half width is that of the 95 % interval of the mean of what is left, over that mean (Heidelberger, Welch 1983).
    """
    n = len(chain)
    density = spectrum_at_zero(chain[n // 2 :])
    p_value, kept = 0.0, chain
    for tenth in range(6):
        kept = chain[tenth * n // 10 :]
        bridge = np.cumsum(kept) - kept.mean() * np.arange(1, len(kept) + 1)
        statistic = float(np.sum(bridge**2) / (len(kept) ** 2 * density)) if density > 0 else math.inf
        p_value = 1 - cramer_von_mises_cdf(statistic) if math.isfinite(statistic) else 0.0
        if p_value > alpha:
            break
    half = 1.96 * math.sqrt(spectrum_at_zero(kept) / len(kept))
    return p_value, half / abs(float(kept.mean())) if kept.mean() else math.inf


def raftery_lewis(chain: Float[np.ndarray, " draw"], q: float = 0.025, s: float = 0.95) -> float:
    """Dependence factor: draws needed to know quantile `q` with probability `s`, over those of independent draws.

    Thins until the indicator of the quantile is a first-order Markov chain by BIC (Raftery and Lewis 1992). NaN where
    the indicator never moves.
    """
    below = (chain <= np.quantile(chain, q)).astype(int)
    step = 1
    while True:
        thinned = below[::step]
        if len(thinned) < 4:
            return math.nan
        triples = np.zeros((2, 2, 2))
        np.add.at(triples, (thinned[:-2], thinned[1:-1], thinned[2:]), 1)
        if _second_order_evidence(triples) < 2 * math.log(len(thinned) - 2):
            break
        step += 1
    pairs = np.zeros((2, 2))
    np.add.at(pairs, (thinned[:-1], thinned[1:]), 1)
    rows = pairs.sum(1)
    if rows.min() == 0 or pairs[0, 1] == 0 or pairs[1, 0] == 0:
        return math.nan
    up, down = pairs[0, 1] / rows[0], pairs[1, 0] / rows[1]
    z = stats.norm.ppf((1 + s) / 2)
    tolerance = 0.005
    wanted = (2 - up - down) * up * down * z**2 / ((up + down) ** 3 * tolerance**2) * step
    independent = q * (1 - q) * (z / tolerance) ** 2
    rate = abs(1 - up - down)
    burnin = math.ceil(math.log((up + down) * 0.001 / max(up, down)) / math.log(rate)) * step if 0 < rate < 1 else step
    return float((burnin + wanted) / independent)


def _second_order_evidence(triples: Float[np.ndarray, "2 2 2"]) -> float:
    """G^2 of the second-order chain against the first-order one."""
    first = triples.sum(2, keepdims=True) * triples.sum(0, keepdims=True)
    middle = triples.sum((0, 2), keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = triples * np.log(triples * middle / first)
    return float(2 * np.nansum(terms))
