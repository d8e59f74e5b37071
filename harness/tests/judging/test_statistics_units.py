"""Intervals over clusters, pairs and heads where the answer is known: textbook cases, dense algebra, the ends."""

import math

import numpy as np
import pytest
from circuit_claims.errors import InputError
from circuit_claims.judging import statistics as st
from circuit_claims.judging.statistics.clusters import _moments
from scipy import stats


def test_clusters_of_one_size_give_students_t_of_their_means():
    values, clusters = np.random.default_rng(0).normal(size=24), np.repeat(np.arange(8), 3)
    means = values.reshape(8, 3).mean(1)
    low, high = stats.t.interval(0.90, 7, means.mean(), stats.sem(means))
    found = st.cluster_interval(values, clusters)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_the_degrees_of_freedom_are_those_of_the_dense_quadratic_form():
    sizes = np.array([1.0, 2.0, 7.0, 20.0, 3.0])
    weight, model = sizes / sizes.sum(), sizes * 0.7 + 0.3 * sizes**2
    centre = np.eye(5) - np.outer(weight, np.ones(5))  # rows: what is left of each cluster's sum
    form = centre.T @ np.diag(1 / (1 - weight)) @ centre @ np.diag(model)
    assert _moments(weight, model) == pytest.approx((np.trace(form), np.trace(form @ form)))


def test_one_cluster_says_nothing():
    found = st.cluster_interval(np.array([1.0, 2.0]), np.array([0, 0]))
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert "too few" in found.method
    assert st.cluster_share_interval(np.ones(9), np.zeros(9)).low < 0.5


def test_a_share_where_all_agree_has_a_width_and_counts_clusters():
    found = st.cluster_share_interval(np.ones(40), np.repeat(np.arange(10), 4))
    assert (found.low, found.high) == st.jeffreys_interval(10, 10)


def test_clusters_of_one_item_each_are_worth_about_as_many_items():
    items, share, count = st.effective_items(np.arange(200) % 2, np.arange(200))
    assert (share, count) == (0.5, 200)
    assert items == pytest.approx(200, rel=0.02)


@pytest.mark.parametrize(("passed", "n"), [(0, 7), (3, 7), (7, 7), (50, 200)])
def test_jeffreys_lies_within_the_exact_interval(passed, n):
    exact, jeffreys = st.binomial_interval(passed, n), st.jeffreys_interval(passed, n)
    assert exact[0] <= jeffreys[0] <= passed / n <= jeffreys[1] <= exact[1]


def test_pairs_are_no_more_certain_than_their_heads():
    effects = np.random.default_rng(1).normal(size=8)
    sums = np.add.outer(effects, effects)
    table = st.two_way_interval(np.repeat(effects[:, None], 8, axis=1))
    alone = st.cluster_interval(effects, np.arange(8))
    assert (table.low, table.high) == pytest.approx((alone.low, alone.high))  # columns add nothing
    pairs = st.pair_interval(sums)
    assert (pairs.low, pairs.high) == pytest.approx((2 * alone.low, 2 * alone.high))  # a pair is a sum of two heads


def test_a_table_with_a_gap_or_one_row_or_no_symmetry_is_refused():
    with pytest.raises(InputError, match="full table"):
        st.two_way_interval(np.array([[1.0, np.nan], [1.0, 2.0]]))
    with pytest.raises(InputError, match="full table"):
        st.two_way_interval(np.ones((1, 8)))
    with pytest.raises(InputError, match="symmetric"):
        st.pair_interval(np.arange(25.0).reshape(5, 5))
    with pytest.raises(InputError, match="same length"):
        st.cluster_interval(np.ones(3), np.arange(4))


def test_the_inverted_permutation_holds_just_the_shifts_that_no_permutation_rejects():
    generator = np.random.default_rng(2)
    values, labels = generator.normal(size=8), np.arange(8) < 2
    found, ways = st.difference_interval(values, labels), st.arrangements(labels)

    def p_values(shift):
        left = values - shift * labels
        differ = [lambda way, sign=sign: sign * (left[way].mean() - left[~way].mean()) for sign in (1, -1)]
        return [st.label_p_value(each, ways) for each in differ]

    step = 1e-6
    assert min(p_values(found.low + step)) > 0.05 >= min(p_values(found.low - step))
    assert min(p_values(found.high - step)) > 0.05 >= min(p_values(found.high + step))


def test_too_few_arrangements_leave_everything_possible():
    found = st.difference_interval(np.arange(8.0), np.arange(8) == 7)
    assert (found.low, found.high) == (-math.inf, math.inf)
    with pytest.raises(InputError, match="both groups"):
        st.difference_interval(np.arange(8.0), np.ones(8, dtype=bool))
    with pytest.raises(InputError, match="both groups"):
        st.difference_interval(np.arange(8.0), np.arange(8) < 4, within=np.arange(8) // 4)


def test_many_arrangements_are_drawn_and_keep_the_labels_within_layers():
    labels, layer = np.arange(30) % 3 == 0, np.arange(30) // 15
    ways = st.arrangements(labels, layer, most=500, generator=np.random.default_rng(3))
    assert ways.shape == (500, 30)
    assert (ways[0] == labels).all()
    assert (ways[:, :15].sum(1) == labels[:15].sum()).all()
    assert len(np.unique(ways, axis=0)) > 450


def test_welch_is_scipys():
    values, labels = np.random.default_rng(4).normal(size=12), np.arange(12) < 4
    expected = stats.ttest_ind(values[labels], values[~labels], equal_var=False).confidence_interval(0.90)
    found = st.welch_interval(values, labels)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert st.welch_interval(values, np.arange(12) < 1).high == math.inf


@pytest.mark.parametrize("ranks", [False, True])
def test_correlations_are_scipys(ranks):
    x, y = np.random.default_rng(5).integers(0, 5, (2, 16)).astype(float)
    expected = (stats.spearmanr if ranks else stats.pearsonr)(x, y)
    assert st.correlation(x, y, ranks=ranks) == pytest.approx(expected.statistic, abs=1e-9)
    if not ranks:
        found = st.correlation_interval(x, y)
        assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.90)))


def test_a_correlation_of_ranks_in_perfect_order_is_not_certain():
    found = st.correlation_interval(np.arange(8.0), np.arange(8.0) ** 2, ranks=True)
    assert found.low < found.high <= 1.0
    flat = st.correlation_interval(np.arange(8.0), np.ones(8))
    assert (flat.low, flat.high) == (-1.0, 1.0)
    with pytest.raises(InputError, match="finite"):
        st.correlation(np.array([1.0, np.nan]), np.ones(2))


def test_shuffles_within_groups_keep_each_things_group():
    groups = np.array([0, 0, 1, 1, 1])
    null = st.permutation_null(
        lambda order: float((groups[order] == groups).all()), 5, 50, np.random.default_rng(6), within=groups
    )
    assert null.all()


def test_expansion_is_hesterbergs_and_fades():
    draws = np.random.default_rng(7).normal(size=200_000)
    low, high = st.percentiles(draws, redrawn=8)
    assert high == pytest.approx(stats.t.ppf(0.95, 7) * math.sqrt(8 / 7), abs=0.03)
    assert low == pytest.approx(-high, abs=0.06)
    assert st.expanded_level(10_000) == pytest.approx(0.90, abs=1e-3)
    assert st.expansion(1) == math.inf


def test_weights_in_strata_have_the_variance_of_the_mean():
    strata, values = np.repeat([0, 1, 2], [7, 30, 1]), np.random.default_rng(8).normal(size=38)
    weights = st.stratified_counts(strata, 40_000, np.random.default_rng(9))
    assert (weights[:, 37] == 1).all()
    days = (weights * values)[:, :7].sum(1) / 7
    assert days.var() == pytest.approx(values[:7].var(ddof=1) / 7, rel=0.05)  # seven standard errors


@pytest.mark.parametrize("ranks", [False, True])
def test_correlations_of_many_rows_are_those_of_each(ranks):
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 5, size=(2, 40, 12)).astype(float)  # with ties
    x[3] = 2.0
    slow = [st.correlation(one, other, ranks=ranks) for one, other in zip(x, y, strict=True)]
    assert st.row_correlations(x, y, ranks=ranks) == pytest.approx(slow, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("ranks", [False, True])
@pytest.mark.parametrize("within", [None, np.repeat([0, 1, 1], 4)])
def test_the_null_of_a_correlation_is_that_of_each_order(ranks, within):
    x, y = np.random.default_rng(1).integers(0, 9, size=(2, 12)).astype(float)
    slow = st.permutation_null(
        lambda order: st.correlation(x, y[order], within, ranks=ranks), 12, 50, np.random.default_rng(2), within
    )
    fast = st.correlation_null(x, y, 50, np.random.default_rng(2), within, ranks=ranks)
    assert fast == pytest.approx(slow, abs=1e-9)


FIRST, SECOND = np.arange(8) < 3, np.arange(8) < 5


def test_the_lead_of_pairs_covers_whatever_rows_and_columns_have_of_their_own():
    """The 90 % interval covers the truth in 300 simulations 84 to 96 % of the time (false alarm below 1 in 1,000)."""
    source, hits = np.random.default_rng(0), 0
    for _ in range(300):
        values = source.normal(size=(8, 1)) + source.normal(size=(1, 8)) + 0.3 * source.normal(size=(8, 8))
        values += 0.7 * np.outer(FIRST, SECOND)
        found = st.pair_difference_interval(values, FIRST, SECOND)
        labels = np.outer(FIRST, SECOND)
        hits += found.low <= 0.7 <= found.high
        assert found.low <= values[labels].mean() - values[~labels].mean() <= found.high
    assert 0.84 < hits / 300 < 0.96


def test_pairs_with_a_single_column_are_heads():
    values = np.random.default_rng(0).normal(size=8)
    found = st.pair_difference_interval(values[:, None], FIRST, np.array([True]))
    alone = st.difference_interval(values, FIRST)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_the_jackknife_of_a_mean_is_students_t_of_it():
    values = np.random.default_rng(0).normal(2.0, 1.0, 9)
    found, interval = st.jackknife_interval(values.mean(), [(values.sum() - values) / 8])
    low, high = stats.t.interval(0.90, 8, values.mean(), stats.sem(values))
    assert found == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.level == 0.90
    assert interval.method == "jackknife t over 9 units, 8.0 degrees of freedom"


def test_the_jackknife_takes_off_the_bias_of_a_squared_mean():
    """The square of a mean of n lies above the squared truth by its variance over n, which the jackknife finds."""
    values = np.array([1.0, 4.0, 2.0, 7.0, 3.0])
    without = ((values.sum() - values) / 4) ** 2
    found, _ = st.jackknife_interval(values.mean() ** 2, [without])
    assert found == pytest.approx(values.mean() ** 2 - values.var(ddof=1) / 5)


def test_the_jackknife_of_two_kinds_adds_their_variances():
    """A sum of two means is Welch's case: both variances, and Satterthwaite's degrees of freedom."""
    first, second = np.random.default_rng(1).normal(size=6), np.random.default_rng(2).normal(3.0, 4.0, size=11)
    whole = first.mean() + second.mean()
    without = [(first.sum() - first) / 5 + second.mean(), first.mean() + (second.sum() - second) / 10]
    found, interval = st.jackknife_interval(whole, without, level=0.95)
    welch = stats.ttest_ind(first, -second, equal_var=False).confidence_interval(0.95)
    assert found == pytest.approx(whole)
    assert (interval.low, interval.high) == pytest.approx((welch.low, welch.high))
    assert interval.method.startswith("jackknife t over 6 and 11 units, ")


def test_the_jackknife_of_one_unit_says_nothing():
    found, interval = st.jackknife_interval(0.4, [np.array([0.3, 0.5]), np.array([0.4])])
    assert found == 0.4
    assert (interval.low, interval.high) == (-math.inf, math.inf)


def test_means_of_drawn_clusters_are_those_of_their_rows():
    """Against the plain form: the rows of each cluster, as often as it was taken."""
    values, clusters = np.random.default_rng(0).normal(size=(7, 2)), np.array([5, 5, 1, 1, 1, 9, 9])
    found = st.cluster_means(values, clusters, 50, np.random.default_rng(3))
    counts = st.bootstrap_counts(3, 50, np.random.default_rng(3))
    for taken, mean in zip(counts, found, strict=True):
        rows = np.concatenate([values[clusters == name] for name, times in zip((1, 5, 9), taken, strict=True)
                               for _ in range(times)])  # fmt: skip
        assert mean == pytest.approx(rows.mean(0))


def test_clusters_of_unequal_sizes_carry_less_than_their_number():
    assert st.effective_clusters(np.array([4, 4, 4])) == 3.0
    assert st.effective_clusters(np.array([3, 1])) == pytest.approx(16 / 10)


def test_a_share_of_independent_items_is_jeffreys_or_exact():
    found, exact = st.item_share_interval(3, 1_200), st.item_share_interval(3, 1_200, level=0.95, exact=True)
    assert (found.low, found.high) == pytest.approx(stats.beta.ppf([0.05, 0.95], 3.5, 1197.5))
    low, high = stats.binomtest(3, 1_200).proportion_ci(0.95, method="exact")
    assert (exact.low, exact.high) == pytest.approx((low, high))
    assert (found.level, exact.level) == (0.90, 0.95)
    assert found.method == "Jeffreys' interval of 1,200 independent items"
    assert exact.method == "exact binomial interval of 1,200 independent items"


def test_the_wider_end_of_two_intervals_counts_on_each_side():
    low, high = stats.binomtest(5, 20).proportion_ci(0.80, method="exact")
    assert st.or_binomial((0.0, 0.3), 5, 20, 0.80) == pytest.approx((0.0, high))
    assert st.or_binomial((0.24, 0.9), 5, 20, 0.80) == pytest.approx((low, 0.9))


def test_the_highest_of_all_heads_is_taken_draw_by_draw():
    scores = np.array([[[0.1, 0.3], [0.5, 0.2]], [[0.2, 0.0], [-1.0, 0.1]]])
    assert st.maximum_null(scores).tolist() == [0.5, 0.2]


@pytest.mark.parametrize(
    ("redrawn", "words"),
    [
        (1_200, "1,200 units"),
        (1_411.76, "1,411.8 effective units"),
        ([7, 12], "19 units in 2 strata"),
        (np.array([600, 600]), "1,200 units in 2 strata"),
    ],
)
def test_an_interval_says_how_many_units_it_was_expanded_for(redrawn, words):
    found = st.percentile_interval(np.arange(101.0), "draws", redrawn=redrawn)
    assert found.method == f"draws, percentiles expanded for {words}"
