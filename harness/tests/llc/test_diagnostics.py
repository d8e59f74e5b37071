"""The diagnostics on chains whose autocorrelation is known, and against a stationary and a drifting chain."""

import math

import numpy as np
import pytest
from circuit_claims.llc.diagnostics import (
    cramer_von_mises_cdf,
    diagnose,
    geweke,
    heidelberger_welch,
    raftery_lewis,
    spectrum_at_zero,
)
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


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_the_spectral_density_at_zero_of_an_autoregression(rho):
    found = [spectrum_at_zero(chain) for chain in autoregression(rho, 2000, seed=2, chains=20)]
    assert np.mean(found) == pytest.approx(1 / (1 - rho) ** 2, rel=0.15)


def test_geweke_is_standard_normal_for_stationary_chains_and_large_for_a_drift():
    """False-alarm probability of the test of the spread: below 1e-4 (400 chains, chi-square)."""
    scores = np.array([geweke(chain) for chain in autoregression(0.5, 1000, seed=3, chains=400)])
    assert 0.7 < scores.std() < 1.35
    assert abs(geweke(autoregression(0.5, 1000, seed=4)[0] + np.linspace(0, 5, 1000))) > 5


def test_heidelberger_and_welch_pass_a_stationary_chain_and_doubt_a_drift():
    still = [heidelberger_welch(10 + chain)[0] for chain in autoregression(0.3, 800, seed=5, chains=60)]
    moving = [heidelberger_welch(chain + np.linspace(0, 5, 800))[0] for chain in autoregression(0.3, 800, 6, chains=20)]
    assert np.mean(np.array(still) > 0.05) > 0.9
    assert np.median(moving) < 0.05 < 0.3 < np.median(still)


def test_heidelberger_and_welch_drop_a_transient_and_give_the_width_of_the_rest():
    chain = 10 + autoregression(0.0, 800, seed=7)[0]
    chain[:80] += 30 * np.exp(-np.arange(80) / 10)
    p_value, width = heidelberger_welch(chain)
    assert p_value > 0.05
    assert width == pytest.approx(1.96 / math.sqrt(720) / 10, rel=0.4)


def test_the_cramer_von_mises_law_has_its_tabulated_quantiles():
    for probability, quantile in [(0.90, 0.34730), (0.95, 0.46136), (0.99, 0.74346)]:
        assert cramer_von_mises_cdf(quantile) == pytest.approx(probability, abs=1e-4)
    assert cramer_von_mises_cdf(0.0) == 0.0


def test_raftery_and_lewis_want_about_as_many_draws_as_independence_does_and_more_when_sticky():
    independent = raftery_lewis(np.random.default_rng(8).normal(size=4000))
    sticky = raftery_lewis(autoregression(0.95, 4000, seed=9)[0])
    assert 0.8 < independent < 1.6
    assert sticky > 3


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
    from circuit_claims.llc.estimate import Surroundings, summarise
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
