"""Who leads, and who stands against it: known cases, and how often a true leader is called beaten among many."""

import numpy as np
import pytest
from circuit_claims.judging.claims import Claim
from circuit_claims.judging.measurement import Measurement, Rival
from circuit_claims.judging.ranking import first_of, order_of
from circuit_claims.judging.verdicts import apply_rule
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

BASE = {
    "id": "TY-01", "paper": "toy", "title": "t", "locus": "s", "quantity": "q", "unit": "u", "trust": "P",
    "margin_reason": "r", "subjects": ("m",), "text": "none", "controls": ("far",), "cost": "seconds", "margin": 0.05,
}  # fmt: skip
DATA_SETS = 300
MOST = 0.09  # a true rate of 0.05 gives more than this in 300 data sets but for one time in 400 (binomial)


def names(count):
    return [str(number) for number in range(count)]


def said(kind, expected, ranking):
    claim = Claim.model_validate({**BASE, "kind": kind, "expected": expected})
    return apply_rule(claim, Measurement("q", ranking.leader, support=ranking.support, rivals=ranking.rivals)).outcome


def rankings(truth, rank, seed):
    """Those of data sets with standard normal errors whose resamples have the same errors anew."""
    generator = np.random.default_rng(seed)
    for _ in range(DATA_SETS):
        estimate = truth + generator.normal(size=len(truth))
        draws = estimate + generator.normal(size=(400, len(truth)))
        yield rank(names(len(truth)), estimate, draws)


def outcomes(truth, kind, expected, seed):
    """The rule on such data sets."""
    rank = first_of if kind == "identity" else order_of
    return [said(kind, expected, ranking) for ranking in rankings(truth, rank, seed)]


@pytest.mark.parametrize("count", [2, 8, 50, 300])
def test_a_leader_by_one_standard_error_is_seldom_called_contradicted(count):
    """The old rule (little support of its own) said so of 12 % among 8, of 62 % among 50, of 88 % among 300."""
    truth = np.zeros(count)
    truth[0] = 1.0
    found = outcomes(truth, "identity", "0", count)
    assert found.count("contradicted") / DATA_SETS <= MOST


@pytest.mark.parametrize("count", [2, 8, 50, 300])
def test_among_equals_nobody_is_declared_or_beaten_too_often(count):
    found = outcomes(np.zeros(count), "identity", "0", count + 1)
    assert found.count("contradicted") / DATA_SETS <= MOST
    assert found.count("reproduced") / DATA_SETS <= MOST


@pytest.mark.parametrize("count", [2, 8, 50, 300])
def test_a_clear_rival_contradicts_and_a_clear_leader_holds(count):
    truth = np.zeros(count)
    truth[1] = 12.0
    found = {(said("identity", "0", each), said("identity", "1", each)) for each in rankings(truth, first_of, 3)}
    assert found == {("contradicted", "reproduced")}


@pytest.mark.parametrize("labels", [2, 5, 8])
def test_a_true_order_with_near_neighbours_is_seldom_called_contradicted(labels):
    """The old rule said so of 66 % of true orders of five."""
    truth = np.arange(labels, 0, -1) * 1.0
    found = outcomes(truth, "order", names(labels), labels)
    assert found.count("contradicted") / DATA_SETS <= MOST
    wrong, right = names(labels)[::-1], names(labels)
    found = {
        (said("order", wrong, each), said("order", right, each)) for each in rankings(truth * 12, order_of, labels)
    }
    assert found == {("contradicted", "reproduced")}


def test_a_rival_that_shares_the_leaders_noise_is_told_from_one_that_does_not():
    """Redrawn together: a lead of one standard error of each is sure where the errors are the same."""
    generator = np.random.default_rng(0)
    shared = generator.normal(size=(1000, 1))
    draws = np.array([1.0, 0.0]) + shared + 0.01 * generator.normal(size=(1000, 2))
    assert first_of(["a", "b"], np.array([1.0, 0.0]), draws).rivals["b"].ahead == 1.0
    assert first_of(["a", "b"], np.array([1.0, 0.0]), draws).rivals["a"].ahead == 0.0


def test_equal_values_lead_nobody_and_are_no_order():
    draws = np.ones((10, 3))
    assert first_of(names(3), np.ones(3), draws).support == {"no leader": 1.0}
    assert order_of(names(3), np.ones(3), draws).support == {"no order": 1.0}


@given(st.integers(2, 6), st.integers(0, 10_000))
def test_shares_are_shares_and_two_labels_cannot_both_be_surely_beaten_by_each_other(count, seed):
    generator = np.random.default_rng(seed)
    estimate = generator.normal(size=count)
    draws = estimate + generator.normal(size=(100, count))
    first, order = first_of(names(count), estimate, draws), order_of(names(count), estimate, draws)
    assert sum(first.support.values()) <= 1 + 1e-9
    assert sum(order.support.values()) <= 1 + 1e-9
    for rival in (*first.rivals.values(), *order.rivals.values()):
        assert 0.0 <= rival.ahead <= 1.0
    for one, other in (("0", "1"), ("1", "0")):
        assert order.rivals[f"{one} > {other}"].ahead + order.rivals[f"{other} > {one}"].ahead <= 1 + 1e-9


FIVE = np.array([[3.0, 1.0, 2.0], [3.0, 3.0, 2.0], [1.0, 2.0, 0.0], [5.0, 4.0, 4.0], [2.0, 2.5, 1.0]])


def test_support_counts_the_resamples_that_each_leads_alone():
    ranking = first_of(["a", "b", "c"], np.array([2.8, 2.5, 1.8]), FIVE)
    assert ranking.leader == "a"
    assert ranking.support == {"a": 2 / 5, "b": 2 / 5, "no leader": pytest.approx(1 / 5)}


def test_a_single_label_leads_and_has_no_rival():
    ranking = first_of(["a"], np.array([1.0]), np.array([[1.0], [2.0]]))
    assert (ranking.leader, ranking.support, ranking.rivals) == ("a", {"a": 1.0}, {})


def test_one_rival_is_ahead_in_the_plain_share_of_resamples():
    ranking = first_of(["a", "b"], np.array([2.8, 2.5]), FIVE[:, :2])
    assert ranking.rivals == {"a": Rival("b", 2 / 5), "b": Rival("a", 2 / 5)}


def test_of_several_rivals_the_one_with_the_greatest_studentised_lead_counts_with_all_allowed_for():
    """By hand: c leads a by less than b does, but far more surely."""
    generator = np.random.default_rng(0)
    estimate, spread = np.array([0.0, 3.0, 2.0]), np.array([0.1, 3.0, 0.4])
    draws = estimate + generator.normal(size=(4_000, 3)) * spread
    against = first_of(["a", "b", "c"], estimate, draws).rivals["a"]
    deviation = np.std(draws[:, 2] - draws[:, 0], ddof=1)
    bound = 1 - 2 * stats.norm.sf(2.0 / deviation)
    assert against.label == "c"
    assert against.ahead == pytest.approx(min(bound, (draws[:, 2] > draws[:, 0]).mean()))
    # Who is ahead of nobody stands against nobody.
    assert first_of(["a", "b", "c"], estimate, draws).rivals["b"].ahead == 0.0


def test_an_order_counts_whole_orders_and_pairs_and_ties_are_none():
    ranking = order_of(["a", "b", "c"], np.array([2.8, 2.5, 1.8]), FIVE)
    assert ranking.leader == "a > b > c"
    assert ranking.support == {"a > c > b": 1 / 5, "b > a > c": 2 / 5, "no order": pytest.approx(2 / 5)}
    # b is ahead of a in two of five: three pairs leave nothing of that; a is ahead of c in all.
    assert ranking.rivals["a > b"] == Rival("b", 0.0)
    assert ranking.rivals["c > a"] == Rival("a", 1.0)
    assert ranking.rivals["b > c"].ahead == 0.0  # c is ahead of b in one of five
    assert ranking.rivals["c > b"].ahead == 0.0  # and b of c in three, with a tie
    assert set(ranking.rivals) == {"a > b", "b > a", "a > c", "c > a", "b > c", "c > b"}


@pytest.mark.parametrize("rank", [first_of, order_of])
def test_shapes_that_do_not_fit_are_refused_with_both(rank):
    words = (
        r"a ranking of 2 labels: expected estimates of shape \(2,\) and draws of shape \(draws, 2\), found \(3,\) and"
    )
    with pytest.raises(ValueError, match=words + r" \(5, 3\)"):
        rank(["a", "b"], np.zeros(3), FIVE)
    with pytest.raises(ValueError, match="found"):
        rank(["a", "b", "c"], np.zeros(3), FIVE[:, :2])
