"""The diagnostics on chains whose autocorrelation is known, and on chains that disagree or drift."""

import math

import numpy as np
import pytest
from circuit_claims.llc.diagnostics import diagnose
from scipy import stats


def autoregression(rho, n, seed, chains=1):
    noise = np.random.default_rng(seed).normal(size=(chains, n + 200))
    out = np.zeros_like(noise)
    for t in range(1, n + 200):
        out[:, t] = rho * out[:, t - 1] + noise[:, t]
    return out[:, 200:]


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_the_effective_sample_size_of_an_autoregression(rho):
    found = diagnose(autoregression(rho, 5000, seed=1, chains=4))
    assert found.ess_bulk == pytest.approx(20000 * (1 - rho) / (1 + rho), rel=0.25)
    assert found.r_hat < 1.02
    assert found.mcse == pytest.approx(1 / (1 - rho) / math.sqrt(20000), rel=0.2)


def test_chains_at_different_levels_are_told_apart():
    assert diagnose(autoregression(0.0, 200, seed=10, chains=4) + np.arange(4)[:, None] * 3).r_hat > 1.5


def test_one_chain_is_split_in_two():
    assert diagnose(autoregression(0.0, 400, seed=11)).r_hat < 1.05
    drifting = autoregression(0.0, 400, seed=12) + np.linspace(0, 10, 400)
    assert diagnose(drifting).r_hat > 1.5


@pytest.mark.parametrize("draws", [np.zeros((0, 50)), np.ones((4, 50)), np.random.default_rng(0).normal(size=(4, 5))])
def test_what_cannot_be_diagnosed_is_nan(draws):
    assert math.isnan(diagnose(draws).r_hat)


def test_student_intervals_cover_as_often_as_they_say():
    """300 synthetic runs of 90 %: false-alarm probability 1e-4 (binomial), 2 % allowed for the error of the ESS."""
    from circuit_claims.llc.estimate import summarise
    from circuit_claims.llc.gate import Surroundings
    from circuit_claims.llc.sgld import SGLDSettings, Traces

    settings = SGLDSettings(n_beta=1.0, gamma=1.0, eps=1e-3, num_chains=4, num_draws=100)
    hits = 0
    for seed in range(300):
        loss = autoregression(0.5, 100, seed=seed, chains=4)
        zero = np.zeros_like(loss)
        found = summarise(Traces(loss, zero, zero, zero[:, :0], np.full(4, -1)), settings, Surroundings(1, 1.0))
        hits += found.interval.low < 0 < found.interval.high
    low, high = stats.binom.ppf([5e-5, 1 - 5e-5], 300, 0.9)
    assert low - 6 <= hits <= high
