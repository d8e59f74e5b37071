"""The small statistics against simulation and against what they must be at the ends."""

import numpy as np
import pytest
from circuit_claims.judging.statistics import binomial_interval, prediction_interval
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(deadline=None)  # the first call imports scipy
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_exact_interval_holds_its_own_share(case):
    passed, n = case
    low, high = binomial_interval(passed, n)
    assert 0.0 <= low <= passed / n <= high <= 1.0


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9])
def test_the_exact_interval_covers_at_least_as_often_as_it_says(share):
    """20,000 draws: coverage of exactly 90 % would show below 89.2 % one time in 10,000."""
    draws = np.random.default_rng(0).binomial(30, share, 20_000)
    ends = np.array([binomial_interval(k, 30) for k in range(31)])
    covered = (ends[draws, 0] <= share) & (share <= ends[draws, 1])
    assert covered.mean() >= 0.892


def test_nothing_measured_is_everything_possible():
    assert binomial_interval(0, 0) == (0.0, 1.0)


def test_a_rerun_falls_into_its_prediction_interval_as_often_as_it_says():
    """20,000 pairs of runs: 90 % would show outside [89.2 %, 90.8 %] about one time in 5,000."""
    generator = np.random.default_rng(1)
    first, again = generator.normal(0, 0.3, 20_000), generator.normal(0, 0.4, 20_000)
    low, high = np.array([prediction_interval(value, 0.3, 0.4) for value in first]).T
    assert 0.892 <= ((low <= again) & (again <= high)).mean() <= 0.908
