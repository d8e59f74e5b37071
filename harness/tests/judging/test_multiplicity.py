"""Chances under a claim that is false by just its margin, and Benjamini and Hochberg's q-values by family."""

import numpy as np
import pytest
from circuit_claims.judging.claims import Claim
from circuit_claims.judging.measurement import Interval, Measurement
from circuit_claims.judging.multiplicity import chance_if_false, q_values
from circuit_claims.judging.verdicts import apply_rule
from hypothesis import given
from hypothesis import strategies as st

BASE = {
    "id": "TY-01", "paper": "toy", "title": "t", "locus": "s", "quantity": "q", "unit": "u", "trust": "P",
    "margin_reason": "r", "subjects": ("m",), "text": "none", "controls": ("far",), "cost": "seconds",
}  # fmt: skip


def claim(kind, expected, margin=0.0):
    return Claim.model_validate({**BASE, "kind": kind, "expected": expected, "margin": margin})


@given(
    st.sampled_from(["at_least", "at_most", "correlation", "value"]), st.floats(-3, 3), st.floats(0.1, 2),
    st.floats(0, 3),
)  # fmt: skip
def test_a_claim_is_reproduced_just_where_its_chance_is_a_twentieth_or_less(kind, middle, half, margin):
    claimed = claim(kind, 0.5, margin)
    measurement = Measurement("q", middle, Interval(middle - half, middle + half))
    chance = chance_if_false(claimed, measurement)
    if abs(chance - 0.05) > 1e-6:
        assert (chance < 0.05) == (apply_rule(claimed, measurement).outcome == "reproduced")


def test_the_chance_at_the_edge_is_uniform():
    """Estimates of a truth at the edge: a chance below x in a share x of them (within 0.02, one in 10^4 by chance)."""
    values = np.random.default_rng(0).normal(0.0, 1.0, 10_000)
    half = 1.6448536269514722
    chances = [
        chance_if_false(claim("at_least", 0.0), Measurement("q", v, Interval(v - half, v + half))) for v in values
    ]
    for level in (0.01, 0.1, 0.5):
        assert abs(np.mean(np.array(chances) < level) - level) < 0.02


def test_labels_maxima_and_what_has_none():
    support = Measurement("q", "a", support={"a": 0.97, "a > b": 0.9})
    assert chance_if_false(claim("identity", "a", 0.05), support) == pytest.approx(0.03)
    assert chance_if_false(claim("order", ("a", "b"), 0.05), support) == pytest.approx(0.1)
    best = Measurement("q", 0.9, Interval(0.89, 0.91), p_value=0.04)
    assert chance_if_false(claim("existence", 0.5), best) == 0.04
    assert chance_if_false(claim("curve", ((0.0, 1.0),), 0.1), Measurement("q", None)) is None
    assert chance_if_false(claim("at_least", 0.5), Measurement("q", 1.0)) is None


def test_a_count_is_sure():
    assert chance_if_false(claim("at_least", 0.5), Measurement("q", 1.0, Interval(1.0, 1.0))) == 0.0
    assert chance_if_false(claim("at_least", 1.5), Measurement("q", 1.0, Interval(1.0, 1.0))) == 1.0


def test_q_values_by_hand_within_each_family():
    found = q_values({"a": 0.01, "b": 0.03, "c": 0.5, "d": 0.03}, {"a": "x", "b": "x", "c": "x", "d": "y"})
    assert found == pytest.approx({"a": 0.03, "b": 0.045, "c": 0.5, "d": 0.03})


def test_of_three_families_none_counts_for_another():
    chances = {"a": 0.01, "b": 0.04, "c": 0.5, "d": 0.02}
    families = {"a": "x", "b": "x", "c": "y", "d": "z"}
    assert q_values(chances, families) == pytest.approx({"a": 0.02, "b": 0.04, "c": 0.5, "d": 0.02})


def test_no_chances_no_q_values():
    assert q_values({}, {}) == {}
