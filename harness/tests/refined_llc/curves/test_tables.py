"""What claims read off a table of coefficients, on tables where the answer is known, and on noise."""

import numpy as np
import pytest
from circuit_claims.papers.refined_llc.curves import tables as ct
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

STEPS = (1, 10, 100, 1000, 10000)
HEADS = tuple(f"{layer}:{head}" for layer in range(2) for head in range(3))


def table(mean, error=0.01, sound=None):
    mean = np.asarray(mean, dtype=float)
    return ct.HeadTable(STEPS[: len(mean)], HEADS[: mean.shape[1]], mean, np.full(mean.shape, error),
                        np.ones(mean.shape, dtype=bool) if sound is None else sound)  # fmt: skip


def rng():
    return np.random.default_rng(0)


RISING = table(np.outer(np.arange(5), [1, 1.1, 0.9, 3, 3.1, 2.9]))


def test_the_group_that_is_higher_leads_in_every_draw():
    groups = {"multigram": HEADS[3:], "simple": HEADS[:3]}
    found = ct.group_order(RISING, groups, 50, rng())
    assert found.value == "multigram > simple"
    assert found.support == {"multigram > simple": 1.0}
    assert found.facts["means"]["simple"] == pytest.approx(4.0)


def test_groups_that_are_alike_lead_half_the_time():
    found = ct.group_order(table(np.zeros((5, 6)), error=1.0), {"a": HEADS[:3], "b": HEADS[3:]}, 400, rng())
    assert 0.4 < found.support["a > b"] < 0.6  # false alarm 1 in 10,000


def test_a_kind_of_head_that_is_not_there_leaves_the_claim_undecided():
    found = ct.group_order(RISING, {"multigram": HEADS, "simple": []}, 10, rng())
    assert (found.status, found.value) == ("partial", None)
    assert "simple" in found.facts["why"]


def test_too_many_estimates_that_fail_the_gate_make_the_table_partial():
    sound = np.ones((5, 6), dtype=bool)
    sound[0, :3] = False  # a tenth
    assert table(np.zeros((5, 6)), sound=sound).status == "complete"
    sound[1, 0] = False
    assert table(np.zeros((5, 6)), sound=sound).status == "partial"


def test_heads_that_drift_apart_do_and_backwards_they_do_not():
    apart = table(np.outer([0.1, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6]))
    assert ct.spread_growth(apart, 50, rng()).value == pytest.approx(40.0)
    assert ct.spread_growth(apart, 50, rng()).interval.low > 1
    assert ct.spread_growth(table(apart.mean[::-1]), 50, rng()).interval.high < 1
    shuffled = ct.spread_growth(apart, 200, rng(), shuffle=True)
    assert shuffled.interval.low < 1 < shuffled.interval.high


def test_half_rise_lies_between_steps_by_log_step():
    assert ct.first_half_rise(STEPS, np.array([0.0, 0.0, 4.0, 4.0, 4.0])) == pytest.approx(
        np.expm1(np.log([11, 101]).mean())
    )
    assert ct.first_half_rise(STEPS, np.array([5.0, 4.0, 3.0, 2.0, 1.0])) == 1.0


def test_the_layer_that_rises_first_is_first_and_shuffled_steps_are_undecided():
    curves = np.array([[0, 0], [4, 0], [4, 0], [4, 4], [4, 4]]).repeat(3, axis=1)
    groups = {"layer 0": HEADS[:3], "layer 1": HEADS[3:]}
    found = ct.landmark_order(table(curves), groups, ct.first_half_rise, 60, rng())
    assert found.support == {"layer 0 > layer 1": 1.0}
    mixed = ct.landmark_order(table(curves), groups, ct.first_half_rise, 200, rng(), shuffle=True)
    assert mixed.support["layer 0 > layer 1"] < 0.95


def test_peaks_at_one_step_are_no_order():
    groups = {"layer 0": HEADS[:3], "layer 1": HEADS[3:]}
    assert ct.landmark_order(RISING, groups, ct.peak, 20, rng()).value == "layer 0 = layer 1"


def test_two_heads_that_part_on_code():
    code, mixture = table([[1, 5, 0]]), table([[1, 2, 0]])
    found = ct.separation_ratio(code, mixture, HEADS[:2], 100, rng())
    assert found.value == pytest.approx(4.0)
    assert 3.8 < found.interval.low < 4 < found.interval.high < 4.2
    assert ct.separation_ratio(code, mixture, HEADS[:1], 10, rng()).status == "partial"


def test_texts_are_ordered_by_the_heads_mean():
    found = ct.text_order({"code": table([[5, 5, 0]]), "mixture": table([[1, 1, 9]])}, HEADS[:2], 20, rng())
    assert found.support == {"code > mixture": 1.0}


def test_variance_between_data_sets_is_found_and_its_interval_covers():
    """The 90 % interval covers the truth in 300 simulations 84 to 96 % of the time (false alarm below 1 in 1,000)."""
    source, truth, hits = rng(), 4 / (4 + 1), 0
    for _ in range(300):
        values = source.normal(size=(8, 1)) * 2 + source.normal(size=(8, 4))
        found = ct.between_share(values, [str(i) for i in range(8)])
        hits += found.interval.low <= truth <= found.interval.high
    assert 0.84 < hits / 300 < 0.96


def test_data_labels_dealt_out_at_random_leave_little_between_them():
    values = rng().normal(size=(8, 1)) * 9 + rng().normal(size=(8, 4))
    assert ct.between_share(values, "abcdefgh").value > 0.9
    assert ct.between_share(values, "abcdefgh", rng()).interval.low < 0.5


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=12))
def test_rank_correlation_is_scipys(pairs):
    x, y = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    if x.std() == 0 or y.std() == 0:
        assert np.isnan(ct.spearman(x, y))
    else:
        assert ct.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)


def test_a_correlation_that_is_there_is_found_and_one_of_shuffled_labels_is_not():
    x = np.arange(16.0)
    found = ct.rank_correlation(x, x + rng().normal(size=16), 300, rng())
    assert found.interval.low > 0.5
    assert found.p_value < 0.01
    assert ct.shuffled_correlation(x, x, 300, rng()).interval.low < 0
    assert ct.rank_correlation(x, np.zeros(16), 50, rng()).status == "partial"


def test_a_table_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="1 steps x 2 heads"):
        ct.HeadTable((1,), ("0:0", "0:1"), np.zeros((2, 2)), np.zeros((2, 2)), np.ones((2, 2), dtype=bool))
