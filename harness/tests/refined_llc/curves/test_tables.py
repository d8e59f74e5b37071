"""What claims read off a table of coefficients, on tables where the answer is known, and on noise."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from circuit_claims.papers.refined_llc.curves import known
from circuit_claims.papers.refined_llc.curves import tables as ct
from circuit_claims.papers.refined_llc.curves.planted import planted_table

STEPS = (1, 10, 100, 1000, 10000)
HEADS = tuple(f"{layer}:{head}" for layer in range(2) for head in range(3))


def table(mean, error=0.01, sound=None):
    mean = np.asarray(mean, dtype=float)
    return ct.HeadTable(STEPS[: len(mean)], HEADS[: mean.shape[1]], mean, np.full(mean.shape, error),
                        np.ones(mean.shape, dtype=bool) if sound is None else sound)  # fmt: skip


def rng():
    return np.random.default_rng(0)


RISING = table(np.outer(np.arange(5), [1, 1.1, 0.9, 3, 3.1, 2.9]))


EIGHT = tuple(f"1:{head}" for head in range(8))
GROUPS = {"layer 0": HEADS[:3], "layer 1": HEADS[3:]}
LAYERS = ["0"] * 8 + ["1"] * 8


def row(values, error=0.01):
    values = np.asarray([values], dtype=float)
    return ct.HeadTable((1,), EIGHT, values, np.full(values.shape, error), np.ones(values.shape, dtype=bool))


@pytest.mark.parametrize(
    ("values", "support"),
    [([9, 8, 1, 2, 3, 4, 5, 6], 27 / 28), ([9, 5.5, 1, 2, 3, 4, 5, 6], 26 / 28), ([1, 2, 3, 4, 5, 6, 7, 8], 0.0)],
)
def test_two_heads_lead_six_only_where_hardly_any_other_two_would_as_much(values, support):
    """Against a slow count over all 28 pairs."""
    groups = {"induction": EIGHT[:2], "others": EIGHT[2:]}
    found = ct.group_order(row(values), groups)
    slow = np.mean([sum(values[:2]) <= sum(pair) + 1e-12 for pair in itertools.combinations(values, 2)])
    assert found.support["induction > others"] == pytest.approx(1 - slow) == pytest.approx(support)
    assert found.rivals["induction > others"].ahead == found.support["others > induction"]
    assert found.redrawn == {"heads": 8}


def test_labels_dealt_out_at_random_are_called_an_order_in_a_twentieth_each_way():
    groups, values, source = {"a": EIGHT[:2], "b": EIGHT[2:]}, row([3.0, 1.5, 1.0, 2.0, 9.0, 4.0, 5.0, 6.0]), rng()
    supports = [ct.group_order(known.shuffled_heads(values, source), groups).support["a > b"] for _ in range(600)]
    assert np.mean(np.array(supports) >= 0.95) < 0.075  # one in 28 by construction; false alarm below 1 in 10,000


def test_values_in_the_claimed_order_are_found_to_be_in_it():
    groups = {"a": EIGHT[:2], "b": EIGHT[2:]}
    assert ct.group_order(known.lifted(row(np.arange(8.0)), groups), groups).support["a > b"] > 0.95


def test_a_kind_of_head_that_is_not_there_leaves_the_claim_undecided():
    found = ct.group_order(RISING, {"multigram": HEADS, "simple": []})
    assert (found.status, found.value) == ("partial", None)
    assert "simple" in found.facts["why"]


def test_too_many_estimates_that_fail_the_gate_make_the_table_partial():
    sound = np.ones((5, 6), dtype=bool)
    sound[0, :3] = False  # a tenth
    assert table(np.zeros((5, 6)), sound=sound).status == "complete"
    sound[1, 0] = False
    assert table(np.zeros((5, 6)), sound=sound).status == "partial"


def test_heads_that_drift_apart_do_and_backwards_they_do_not():
    found = ct.spread_growth(planted_table(), 200, rng())
    assert found.interval.low > 1
    assert min(found.facts["growth by layer"]) == found.value
    assert ct.spread_growth(known.backwards(planted_table()), 200, rng()).interval.high < 1


def test_one_layer_that_does_not_drift_apart_is_enough():
    table = planted_table()
    still = replace(table, mean=np.where([head[0] == "1" for head in table.heads], table.mean[-1], table.mean))
    found = ct.spread_growth(still, 200, rng())
    assert found.value == pytest.approx(1.0)
    assert max(found.facts["growth by layer"]) > 2


def test_heads_whose_ends_were_traded_are_seldom_called_drifting():
    source, table = rng(), planted_table()
    found = [ct.spread_growth(known.traded_ends(table, source), 200, source).interval.low > 1 for _ in range(100)]
    assert np.mean(found) <= 0.10


@pytest.mark.parametrize(
    ("curve", "step"),
    [
        ([0.0, 0.0, 4.0, 4.0, 4.0], 100), ([5.0, 1.0, 2.0, 4.0, 5.0], 1000), ([5.0, 4.0, 3.0, 2.0, 1.0], np.inf),
        ([3.0, 3.0, 3.0, 3.0, 3.0], np.inf), ([9.0, 0.0, 9.0, 0.0, 9.0], 10000),
    ],
)  # fmt: skip
def test_half_of_a_rise_is_a_checkpoint_that_was_seen(curve, step):
    assert ct.half_rise(STEPS, np.array(curve)) == step


def slow_half_rise(steps, values):
    """One curve at a time, as the definition reads."""
    goal = values.min() + (values[-1] - values.min()) / 2
    if not values[-1] > values.min():
        return np.inf
    below = np.flatnonzero(values < goal)
    return float(steps[int(below[-1]) + 1]) if len(below) else float(steps[0])


def test_landmarks_of_many_curves_are_those_of_each():
    curves = rng().integers(0, 6, size=(300, 5)).astype(float)
    assert ct.half_rise(STEPS, curves).tolist() == [slow_half_rise(STEPS, one) for one in curves]
    assert ct.peak(STEPS, curves).tolist() == [STEPS[int(one.argmax())] for one in curves]


def test_the_layer_that_rises_first_is_first():
    curves = np.array([[0, 0], [4, 0], [4, 0], [4, 4], [4, 4]]).repeat(3, axis=1)
    found = ct.landmark_order(table(curves), GROUPS, ct.half_rise, 60, rng())
    assert (found.value, found.support) == ("layer 0 > layer 1", {"layer 0 > layer 1": 1.0})
    assert found.rivals["layer 1 > layer 0"].ahead == 1.0
    swapped = ct.landmark_order(known.layers_exchanged(table(curves)), GROUPS, ct.half_rise, 60, rng())
    assert swapped.rivals["layer 0 > layer 1"].ahead == 1.0


@pytest.mark.parametrize("landmark", [ct.peak, ct.half_rise])
def test_landmarks_at_one_checkpoint_are_no_order_whatever_lies_between(landmark):
    curves = np.array([[0, 0], [0, 0], [4, 2.1], [4, 4], [4, 4.001]]).repeat(3, axis=1)
    found = ct.landmark_order(table(curves, error=0.0), GROUPS, ct.half_rise, 20, rng())
    assert (found.value, found.support) == ("layer 0 = layer 1", {"no order": 1.0})
    assert max(rival.ahead for rival in found.rivals.values()) == 0.0
    assert ct.landmark_order(RISING, GROUPS, landmark, 20, rng()).value == "layer 0 = layer 1"


def test_two_heads_part_on_code_where_no_other_pair_parts_as_much():
    """Against a slow count over all 28 pairs, and for a pair that parts no more than others."""
    mixture, code = np.array([1, 1.1, 3, 4, 5, 6, 7, 8]), np.array([1, 9, 3, 4, 5.1, 6, 7.2, 8])
    ratio = {
        pair: abs(code[pair[0]] - code[pair[1]]) / abs(mixture[pair[0]] - mixture[pair[1]])
        for pair in itertools.combinations(range(8), 2)
    }
    for pair in ((0, 1), (2, 5), (4, 6)):
        found = ct.separation_rank(row(code, 0.0), row(mixture, 0.0), [EIGHT[at] for at in pair], 5, rng())
        slow = np.mean([other < ratio[pair] for one, other in ratio.items() if one != pair])
        assert found.value == pytest.approx(slow)
        assert found.facts["code over mixture"] == pytest.approx(ratio[pair])
    assert known.most_parted([row(code), row(mixture)]) == tuple(EIGHT[:2])
    assert ct.separation_rank(row(code), row(mixture), EIGHT[:2], 50, rng()).interval.low == 1.0
    assert ct.separation_rank(row(code), row(mixture), EIGHT[:1], 10, rng()).status == "partial"


def test_a_rise_counts_only_where_it_is_the_heads_own_and_more_than_the_others():
    low = row(np.linspace(1, 2, 8))
    cases = {
        "they alone": ([5, 5.1, 0, 0.1, 0.2, 0.1, 0, 0.2], True),
        "all alike": ([5, 5.1, 5, 5.1, 5.2, 5.1, 5, 5.2], False),
        "less than the others": ([1, 1.1, 5, 5.1, 5.2, 5.1, 5, 5.2], False),
        "they fall least": ([-1, -1.1, -5, -5.1, -5.2, -5.1, -5, -5.2], False),
    }
    for name, (rises, holds) in cases.items():
        found = ct.rise_between_texts(row(low.mean[0] + rises), low, EIGHT[:2])
        assert (found.interval.low > 0) == holds, name
        assert found.interval.low <= found.value <= found.interval.high
    tables = known.lifted_rise([low, row(np.linspace(2, 1, 8))], EIGHT[:2])
    assert ct.rise_between_texts(*tables, EIGHT[:2]).interval.low > 0


def test_labels_dealt_out_at_random_rise_by_chance_in_a_twentieth():
    source, low = rng(), row(np.linspace(1, 2, 8))
    both = [row(low.mean[0] + [5, 5.1, 0.3, 0.1, 0.2, 0.1, 0, 0.2]), low]
    dealt = [known.shuffled_together(both, source) for _ in range(300)]
    assert np.mean([ct.rise_between_texts(*one, EIGHT[:2]).interval.low > 0 for one in dealt]) <= 0.10


def test_the_ratio_of_texts_is_found_and_its_interval_covers():
    """The 90 % interval covers the truth in 300 simulations 84 to 96 % of the time (false alarm below 1 in 1,000)."""
    source, hits = rng(), 0
    truth = np.exp(np.sqrt(2) * 0.3)
    for _ in range(300):
        values = 60 * np.exp(0.3 * source.normal(size=(8, 1))) * (1 + 0.02 * source.normal(size=(8, 4)))
        found = ct.text_ratio(values, "abcdefgh")
        hits += found.interval.low <= truth <= found.interval.high
    assert 0.84 < hits / 300 < 0.96


def test_texts_that_are_alike_have_a_ratio_of_one_however_few_the_chains():
    source = rng()
    values = 60 + 3 * source.normal(size=(200, 2))
    assert ct.text_ratio(values, [str(text) for text in range(200)]).value < 1.03
    apart = ct.text_ratio(np.array([[60.0, 60.0], [90.0, 90.0]]), "ab")
    assert (apart.value, apart.redrawn) == (pytest.approx(1.5), {"texts": 2, "chains": 2})
    assert ct.text_ratio(np.array([[-1.0, 0.5], [9.0, 9.0]]), "ab").status == "partial"


def test_chains_dealt_out_leave_little_between_texts():
    values = 60 * np.exp(0.3 * rng().normal(size=(8, 1))) * (1 + 0.02 * rng().normal(size=(8, 4)))
    source = rng()
    low = [ct.text_ratio(known.chains_dealt_out(values, source), "abcdefgh").interval.low for _ in range(200)]
    assert np.mean(np.array(low) > 1.1) <= 0.10


def test_what_only_differs_by_layer_does_not_correlate_within_them():
    source = rng()
    step = np.repeat([0.0, 9.0], 8)
    x, y = step + source.normal(size=16), step + source.normal(size=16)
    assert ct.rank_correlation(x, y, 99, rng()).interval.low > 0
    assert ct.rank_correlation(x, y, 99, rng(), LAYERS).interval.low < 0
    same = ct.rank_correlation(x, x + 0.1 * source.normal(size=16), 99, rng(), LAYERS)
    assert same.interval.low > 0.5
    assert (same.p_value, same.redrawn) == (0.01, {"heads": 16})
    assert ct.rank_correlation(x, np.zeros(16), 50, rng()).status == "partial"


def test_counts_dealt_out_within_layers_are_seldom_called_a_correlation():
    """One-sided at 5 %: of 300 shuffles more than 10 % but for one time in 5,000."""
    source = rng()
    x = np.repeat([0.0, 9.0], 8) + source.normal(size=16)
    y = np.repeat([0.0, 90.0], 8) + source.normal(size=16)
    found = [ct.rank_correlation(x, known.shuffled_within(y, LAYERS, source), 1, source, LAYERS) for _ in range(300)]
    assert np.mean([one.interval.low > 0 for one in found]) <= 0.10
    ordered = ct.rank_correlation(x, known.in_the_order_of(x, y, LAYERS), 1, source, LAYERS)
    assert ordered.value == pytest.approx(1.0)


def test_pairs_of_heads_are_redrawn_as_heads():
    """Two tables with effects of rows and of columns, no more in common than chance: seldom called a correlation."""
    source = rng()

    def pairs():
        return source.normal(size=(8, 1)) + source.normal(size=(1, 8)) + source.normal(size=(8, 8))

    found = [ct.pair_correlation(pairs(), pairs(), 200, source) for _ in range(60)]
    assert np.mean([one.interval.low > 0 for one in found]) <= 0.15  # 0.05 by construction, 1 in 1,000 by chance
    x = pairs()
    assert ct.pair_correlation(x, x + 0.1 * source.normal(size=(8, 8)), 200, source).interval.low > 0.5


def test_a_table_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="1 steps x 2 heads"):
        ct.HeadTable((1,), ("0:0", "0:1"), np.zeros((2, 2)), np.zeros((2, 2)), np.ones((2, 2), dtype=bool))
