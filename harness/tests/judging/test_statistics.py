"""The small statistics against simulation and against what they must be at the ends."""

import numpy as np
import pytest
from circuit_claims.judging.statistics import (
    binomial_interval,
    bootstrap_counts,
    or_binomial,
    percentile_band,
    percentile_interval,
    percentiles,
    permutation_p_value,
    prediction_interval,
)
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


def test_a_bootstrap_over_clusters_covers_the_mean_of_what_they_come_from():
    """2,000 samples of 40 clusters: an interval that covered 82 % or less would pass less than one time in 1,000."""
    generator, covered = np.random.default_rng(2), 0
    for sample in generator.normal(1.0, 1.0, (2_000, 40)):
        draws = bootstrap_counts(40, 200, generator) @ sample / 40
        low, high = percentiles(draws)
        covered += low <= 1.0 <= high
    assert 0.84 <= covered / 2_000 <= 0.92


def test_every_draw_takes_as_many_clusters_as_there_are_and_each_as_often():
    counts = bootstrap_counts(7, 20_000, np.random.default_rng(3))
    assert (counts.sum(1) == 7).all()
    assert counts.mean(0) == pytest.approx(np.ones(7), abs=0.04)  # five standard errors


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0.5, 0.99))
def test_an_interval_leaves_the_same_share_on_either_side(values, level):
    interval = percentile_interval(np.array(values), "draws over things", level)
    mirrored = percentile_interval(-np.array(values), "draws over things", level)
    assert min(values) <= interval.low <= interval.high <= max(values)
    assert (-mirrored.high, -mirrored.low) == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-6)
    assert interval.level == level


def test_a_band_is_each_points_own_interval():
    draws = np.random.default_rng(4).normal(size=(100, 3))
    low, high = percentile_band(draws)
    assert [percentiles(column) for column in draws.T] == list(zip(low, high, strict=True))


def test_where_all_cases_agree_the_exact_interval_gives_the_width():
    assert or_binomial((1.0, 1.0), 12, 12) == binomial_interval(12, 12)
    assert or_binomial((0.0, 1.0), 6, 12) == (0.0, 1.0)


def test_a_p_value_is_low_as_often_as_it_says_under_the_null():
    """5,000 draws of the null of 99 shuffles: a share of one in ten lies outside [8.4 %, 11.6 %] 1 in 5,000."""
    draws = np.random.default_rng(5).normal(size=(5_000, 100))
    p_values = np.array([permutation_p_value(row[0], row[1:]) for row in draws])
    assert 0.084 <= (p_values <= 0.10).mean() <= 0.116
    assert permutation_p_value(1.0 - 1e-12, np.array([1.0]), slack=1e-9) == 1.0
