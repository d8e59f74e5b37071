"""Intervals over pairs, heads and correlated heads, beside the textbook's formula written out plainly."""

import math

import numpy as np
import pytest
from circuit_claims.errors import InputError
from circuit_claims.judging import statistics as st
from scipy import stats


def plain_t(value, variance, freedom, level=0.90):
    """The ends of value +- t sqrt(variance)."""
    half = stats.t.ppf((1 + level) / 2, freedom) * math.sqrt(variance)
    return value - half, value + half


def satterthwaite(parts, freedoms):
    """The degrees of freedom of a sum of independent mean squares."""
    return sum(parts) ** 2 / sum(part**2 / freedom for part, freedom in zip(parts, freedoms, strict=True))


@pytest.mark.parametrize("level", [0.90, 0.95])
def test_two_way_clusters_are_the_analysis_of_variance(level):
    generator = np.random.default_rng(0)
    rows, columns = 5, 7
    table = np.add.outer(generator.normal(size=rows), generator.normal(size=columns)) * 2
    table += generator.normal(size=table.shape)
    row_square = columns * ((table.mean(1) - table.mean()) ** 2).sum() / (rows - 1)
    column_square = rows * ((table.mean(0) - table.mean()) ** 2).sum() / (columns - 1)
    fitted = table.mean(1)[:, None] + table.mean(0)[None] - table.mean()
    rest = ((table - fitted) ** 2).sum() / ((rows - 1) * (columns - 1))
    parts = [row_square / 35, column_square / 35, -rest / 35]
    freedom = satterthwaite(parts, [rows - 1, columns - 1, (rows - 1) * (columns - 1)])
    found = st.two_way_interval(table, level)
    assert (found.low, found.high) == pytest.approx(plain_t(table.mean(), sum(parts), freedom, level))
    assert found.level == level
    assert found.method == f"t over 5 rows and 7 columns (two-way clusters), {freedom:.1f} degrees of freedom"


def test_pairs_without_row_or_column_keep_the_noise_of_the_pairs():
    """Rows and columns that differ by less than noise would: the mean is no surer than that noise makes it."""
    table = np.array([[1.0, -1.0], [-1.0, 1.0]])
    found = st.two_way_interval(table)
    # The residual's mean square is 4 with one degree of freedom; its share in the mean is 4 / 4.
    assert (found.low, found.high) == pytest.approx(plain_t(0.0, 1.0, 1.0))


def test_equal_pairs_have_no_width():
    found = st.two_way_interval(np.full((3, 4), 2.5))
    assert (found.low, found.high) == (2.5, 2.5)
    assert "2.0 degrees of freedom" in found.method


@pytest.mark.parametrize("level", [0.90, 0.80])
def test_pairs_of_one_set_are_the_diallels_analysis_of_variance(level):
    """Residuals by least squares on one effect a unit, in place of the closed form."""
    generator, n = np.random.default_rng(1), 6
    effects = generator.normal(size=n) * 2
    noise = np.triu(generator.normal(size=(n, n)), 1)
    table = np.add.outer(effects, effects) + noise + noise.T
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    design = np.array([[1.0 * (unit in pair) for unit in range(n)] for pair in pairs])
    values = np.array([table[pair] for pair in pairs])
    solved, *_ = np.linalg.lstsq(design, values, rcond=None)
    left = n * (n - 3) / 2
    residual = ((values - design @ solved) ** 2).sum() / left
    parts = [4 * solved.var(ddof=1) / n, residual * (2 / (n * (n - 1)) - 4 / (n * (n - 2)))]
    freedom = satterthwaite(parts, [n - 1, left])
    found = st.pair_interval(table, level)
    assert (found.low, found.high) == pytest.approx(plain_t(values.mean(), sum(parts), freedom, level))
    assert found.method == f"t over 6 units in 15 pairs, {freedom:.1f} degrees of freedom"


def test_the_diagonal_is_not_read_and_a_lopsided_table_is_refused():
    table = np.add.outer(np.arange(5.0), np.arange(5.0))
    other = table.copy()
    np.fill_diagonal(other, np.nan)
    assert st.pair_interval(table) == st.pair_interval(other)
    other[0, 1] += 1
    words = r"expected a symmetric table of at least 4 units without gaps, found shape \(5, 5\)"
    with pytest.raises(InputError, match=words):
        st.pair_interval(other)
    with pytest.raises(InputError, match="found shape \\(3, 3\\)"):
        st.pair_interval(table[:3, :3])
    st.pair_interval(table[:4, :4])


def test_two_groups_of_heads_are_welchs():
    values, labels = np.random.default_rng(2).normal(size=9), np.arange(9) < 3
    one, other = values[labels], values[~labels]
    welch = stats.ttest_ind(one, other, equal_var=False)
    found = st.welch_interval(values, labels, 0.95)
    ends = welch.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert found.method == f"Welch's t of 3 against 6 heads, {welch.df:.1f} degrees of freedom"


def test_equal_heads_differ_by_nothing_and_a_single_one_tells_nothing():
    flat = st.welch_interval(np.array([2.0, 2.0, 5.0, 5.0, 5.0]), np.array([True, True, False, False, False]))
    assert (flat.low, flat.high) == (-3.0, -3.0)
    assert flat.method == "Welch's t of 2 against 3 heads, 3.0 degrees of freedom"
    alone = st.welch_interval(np.arange(4.0), np.array([True, False, False, False]))
    assert (alone.low, alone.high) == (-math.inf, math.inf)
    assert alone.method == "Welch's t of 1 against 3 heads: too few to tell"


@pytest.mark.parametrize("within", [None, np.array([0] * 6 + [1] * 6)])
@pytest.mark.parametrize("ranks", [False, True])
def test_a_correlations_interval_is_fishers(within, ranks):
    """tanh(artanh r +- z s), s^2 = (1 + r^2 / 2 for ranks) / (n - 3 - groups beyond the first)."""
    generator = np.random.default_rng(3)
    x = generator.normal(size=12)
    y = x + generator.normal(size=12)
    r = st.correlation(x, y, within, ranks=ranks)
    left = 12 - 3 - (within is not None)
    half = stats.norm.ppf(0.975) * math.sqrt((1 + r**2 / 2 if ranks else 1) / left)
    found = st.correlation_interval(x, y, within, 0.95, ranks=ranks)
    assert (found.low, found.high) == pytest.approx((math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)))
    assert found.level == 0.95
    kind = "ranks (Bonett and Wright)" if ranks else "values"
    apart = "" if within is None else " within 2 groups"
    assert found.method == f"Fisher's z of {kind}{apart}, 12 heads drawn anew"


def test_a_perfect_correlation_is_half_a_step_short_of_one():
    found = st.correlation_interval(np.arange(8.0), np.arange(8.0), ranks=True)
    half = stats.norm.ppf(0.95) * math.sqrt(1.5 / 5)
    assert found.low == pytest.approx(math.tanh(math.atanh(1 - 1 / 512) - half))
    assert found.high == pytest.approx(math.tanh(math.atanh(1 - 1 / 512) + half))
    turned = st.correlation_interval(np.arange(8.0), -np.arange(8.0), ranks=True)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.parametrize(("n", "told"), [(3, False), (4, True)])
def test_four_heads_are_the_fewest_that_a_correlation_says_anything_of(n, told):
    found = st.correlation_interval(np.array([1.0, 3.0, 2.0, 4.0])[:n], np.arange(4.0)[:n])
    assert (found.low > -1.0) == told
    assert found.method.endswith(": too few to tell") != told


def test_clusters_of_equal_rows_count_as_one_item_each_and_others_as_they_vary():
    """Korn and Graubard's effective items: the share's own variance over that of clusters, less for few of them."""
    values = np.array([1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    clusters = np.repeat(np.arange(6), 2)
    share = values.mean()
    variance, freedom = st.cluster_variance(values, clusters)[1:]
    tails = (stats.norm.ppf(0.95) / stats.t.ppf(0.95, freedom)) ** 2
    items, found, count = st.effective_items(values, clusters)
    assert (found, count) == (share, 6)
    assert items == pytest.approx(min(share * (1 - share) / variance, 12) * tails)
    interval = st.cluster_share_interval(values, clusters)
    ends = stats.beta.ppf([0.05, 0.95], items * share + 0.5, items * (1 - share) + 0.5)
    assert (interval.low, interval.high) == pytest.approx(tuple(ends))
    assert interval.method == f"Jeffreys' interval of {items:.1f} effective items in 6 clusters"
    assert st.effective_items(values, clusters, 0.80)[0] != pytest.approx(items)
    # None or all: nothing is seen of how alike rows are; one cluster: nothing at all.
    assert st.effective_items(np.zeros(6), np.repeat(np.arange(3), 2)) == (3.0, 0.0, 3)
    assert st.effective_items(np.ones(6), np.repeat(np.arange(3), 2)) == (3.0, 1.0, 3)
    assert st.effective_items(np.array([0.0, 1.0]), np.zeros(2)) == (1.0, 0.5, 1)
    two = st.effective_items(np.array([0.0, 1.0, 1.0, 1.0]), np.array([0, 0, 1, 1]))
    assert two[0] not in (1.0, 2.0)
