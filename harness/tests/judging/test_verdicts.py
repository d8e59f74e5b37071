"""The rules of each kind on cases where the outcome is plain, and the sentences that go with them."""

import numpy as np
import pytest
from circuit_claims.judging.calibration import Calibration, FalseAlarm, Oracle
from circuit_claims.judging.claims import Claim
from circuit_claims.judging.measurement import Interval, Measurement, Rival
from circuit_claims.judging.statistics import FEWEST_CLUSTERS
from circuit_claims.judging.verdicts import NOT_JUDGED, Control, judge, not_judged, tally
from hypothesis import given
from hypothesis import strategies as st

BASE = {
    "id": "TY-01", "paper": "toy", "title": "t", "locus": "s", "quantity": "q", "unit": "u", "trust": "P",
    "margin_reason": "r", "subjects": ("m",), "text": "none", "controls": ("shuffled",), "cost": "seconds",
}  # fmt: skip


def claim(kind, expected, margin, **more):
    return Claim.model_validate({**BASE, "kind": kind, "expected": expected, "margin": margin, **more})


def found(low, high, **more):
    return Measurement("q", (low + high) / 2, Interval(low, high), **more)


def led(rival, ahead, against):
    """A measurement in which `rival` is ahead of the label (or pair) `against` in a share of `ahead` resamples."""
    return Measurement("q", rival, support={rival: ahead}, rivals={against: Rival(rival, ahead)})


def outcome(claim, measurement, negative=None):
    """Judge with a negative control that misses by far unless another is given."""
    control = negative or Measurement(
        "q", -1e6, Interval(-1e6, -1e6), p_value=1.0, support={"none": 1.0},
        arrays={"x": np.array([0.0, 1.0]), "low": np.full(2, -1e6), "high": np.full(2, -1e6)},
    )  # fmt: skip
    return judge(claim, measurement, (Control("shuffled", "fail", control),))


@pytest.mark.parametrize(
    ("kind", "expected", "margin", "measurement", "wanted"),
    [
        ("value", 8.0, 2.0, found(7.0, 9.0), "reproduced"),
        ("value", 8.0, 2.0, found(2.0, 3.0), "contradicted"),
        ("value", 8.0, 2.0, found(5.0, 9.0), "inconclusive"),
        ("at_least", 8.0, 2.0, found(6.0, 30.0), "reproduced"),
        ("at_least", 8.0, 2.0, found(1.9, 3.1), "contradicted"),
        ("at_least", 8.0, 2.0, found(5.0, 7.0), "inconclusive"),
        ("correlation", 0.8, 0.3, found(0.55, 0.9), "reproduced"),
        ("correlation", 0.8, 0.3, found(-0.2, 0.3), "contradicted"),
        ("existence", 0.5, 0.0, found(0.51, 0.7, p_value=0.001), "reproduced"),
        ("existence", 0.5, 0.0, found(0.51, 0.7, p_value=0.2), "inconclusive"),
        ("existence", 0.5, 0.0, found(0.1, 0.5, p_value=0.001), "contradicted"),
        ("identity", "L12H0", 0.05, Measurement("q", "L12H0", support={"L12H0": 0.97, "L1H1": 0.03}), "reproduced"),
        ("identity", "L12H0", 0.05, led("L1H1", 0.97, "L12H0"), "contradicted"),
        ("identity", "L12H0", 0.05, led("L1H1", 0.94, "L12H0"), "inconclusive"),
        ("identity", "L12H0", 0.05, led("L1H1", 0.97, "L1H1"), "contradicted"),
        ("identity", "L12H0", 0.05, Measurement("q", "L1H1", support={"L12H0": 0.0, "L1H1": 1.0}), "inconclusive"),
        ("identity", "L12H0", 0.05, Measurement("q", "L12H0", support={"L12H0": 0.6, "L1H1": 0.4}), "inconclusive"),
        ("order", ("a", "b"), 0.05, Measurement("q", "a > b", support={"a > b": 0.99}), "reproduced"),
        ("order", ("a", "b"), 0.05, led("b", 0.99, "a > b"), "contradicted"),
        ("order", ("a", "b", "c"), 0.05, led("c", 0.99, "b > c"), "contradicted"),
        ("order", ("a", "b", "c"), 0.05, led("b", 0.60, "a > b"), "inconclusive"),
    ],
)
def test_each_rule_on_plain_cases(kind, expected, margin, measurement, wanted):
    assert outcome(claim(kind, expected, margin), measurement).outcome == wanted


def test_no_margin_is_named_that_cannot_be():
    order = claim("order", ("a", "b"), 0.05)
    for measured, wanted in ((Measurement("q", "a > b", support={"a > b": 1.0}), "reproduced"),
                             (led("b", 1.0, "a > b"), "contradicted")):  # fmt: skip
        assert outcome(order, measured).flip == f"would be {wanted} at any margin: all resamples agree"
    some = outcome(order, led("b", 0.98, "a > b"))
    assert some.flip == "would no longer be contradicted at a margin below 0.02"


@pytest.mark.parametrize(
    ("measurement", "wanted"),
    [(found(0.0, 0.4, p_value=0.9), "reproduced"), (found(0.6, 0.9, p_value=0.001), "contradicted")],
)
def test_absence_is_judged_against_a_model_that_has_one(measurement, wanted):
    planted = found(0.9, 1.0, p_value=0.001)
    assert outcome(claim("absence", 0.5, 0.0), measurement, planted).outcome == wanted


def test_at_most_is_the_mirror_of_at_least():
    control = found(0.9, 1.0)
    assert outcome(claim("at_most", 0.01, 0.01), found(0.0, 0.02), control).outcome == "reproduced"
    assert outcome(claim("at_most", 0.01, 0.01), found(0.03, 0.05), control).outcome == "contradicted"
    assert outcome(claim("at_most", 0.01, 0.01), found(0.01, 0.05), control).outcome == "inconclusive"


def curve(low, high):
    return Measurement("q", None, arrays={"x": np.array([0.0, 1.0]), "low": np.array(low), "high": np.array(high)})


def test_a_curve_needs_every_point_inside_and_falls_by_one_outside():
    wanted = claim("curve", ((0.0, 1.0), (1.0, 2.0)), 0.5)
    assert outcome(wanted, curve([0.8, 1.8], [1.2, 2.2])).outcome == "reproduced"
    assert outcome(wanted, curve([0.8, 2.8], [1.2, 3.2])).outcome == "contradicted"
    assert outcome(wanted, curve([0.8, 1.2], [1.2, 2.2])).outcome == "inconclusive"
    with pytest.raises(ValueError, match="x = 1, which was not measured"):
        judge(wanted, Measurement("q", None, arrays={"x": np.array([0.0]), "low": np.zeros(1), "high": np.ones(1)}))


def test_the_flip_names_the_margin_at_which_the_verdict_changes():
    wanted, measured = claim("at_least", 8.0, 2.0), found(1.9, 3.1)
    verdict = outcome(wanted, measured)
    assert verdict.flip == "would no longer be contradicted at a margin of 4.9 or more"
    assert outcome(claim("at_least", 8.0, 4.91), measured).outcome == "inconclusive"
    assert outcome(claim("at_least", 8.0, 4.89), measured).outcome == "contradicted"


@given(st.floats(-5, 5), st.floats(0, 3), st.floats(-5, 5), st.floats(0.01, 3))
def test_value_never_says_both_and_agrees_with_its_flip(middle, half, expected, margin):
    verdict = outcome(claim("value", expected, margin), found(middle - half, middle + half))
    inside = abs(middle - expected) + half <= margin
    outside = abs(middle - expected) - half > margin
    tolerance = 1e-9 * (1 + abs(middle) + abs(expected))
    if (
        abs(abs(middle - expected) + half - margin) > tolerance
        and abs(abs(middle - expected) - half - margin) > tolerance
    ):
        wanted = "reproduced" if inside else "contradicted" if outside else "inconclusive"
        assert verdict.outcome == wanted


def test_a_control_that_passes_when_it_must_fail_makes_the_verdict_failed():
    verdict = outcome(claim("at_least", 0.5, 0.0), found(0.6, 0.9), negative=found(0.6, 0.9))
    assert verdict.outcome == "failed"
    assert verdict.reason == "control 'shuffled' must fail but came out reproduced"


def test_a_positive_control_that_fails_makes_the_verdict_failed():
    wanted = claim("at_least", 0.5, 0.0, positive_controls=("planted",))
    controls = (Control("shuffled", "fail", found(0, 0.1)), Control("planted", "pass", found(0.4, 0.6)))
    assert "planted" in judge(wanted, found(0.6, 0.9), controls).reason


def test_a_claim_without_its_control_is_not_trusted():
    verdict = judge(claim("at_least", 0.5, 0.0), found(0.6, 0.9))
    assert (verdict.outcome, verdict.reason) == ("failed", "control not measured: shuffled")


@pytest.mark.parametrize("status", ["partial", "diverged"])
def test_an_unfinished_measurement_decides_nothing(status):
    verdict = outcome(claim("at_least", 0.5, 0.0), found(0.6, 0.9, status=status))
    assert (verdict.outcome, verdict.reason) == ("inconclusive", f"measurement is {status}")


def test_a_value_that_is_not_finite_decides_nothing():
    measurement = Measurement("q", float("nan"), Interval(0.9, 1.0))
    assert outcome(claim("at_least", 0.5, 0.0), measurement).outcome == "inconclusive"


def test_a_point_without_an_interval_is_refused():
    with pytest.raises(ValueError, match="a verdict needs an interval"):
        judge(claim("value", 1.0, 0.1), Measurement("q", 1.0))


def test_an_interval_at_a_lower_level_is_refused():
    with pytest.raises(ValueError, match=r"level 0\.9 or more"):
        judge(claim("value", 1.0, 0.1), Measurement("q", 1.0, Interval(0.95, 1.05, level=0.5)))


def test_a_maximum_without_its_null_is_refused():
    with pytest.raises(ValueError, match="null of the maximum"):
        judge(claim("existence", 0.5, 0.0), found(0.6, 0.9))


def test_a_claim_that_was_not_judged_is_counted_beside_the_rate_and_never_in_it():
    ran = tally([("reproduction", "reproduced"), ("reproduction", "contradicted")])["reproduction"]
    pairs = [("reproduction", not_judged(outcome, "why").outcome) for outcome in NOT_JUDGED]
    more = tally([("reproduction", "reproduced"), ("reproduction", "contradicted"), *pairs])["reproduction"]
    assert (ran.of("reproduced"), ran.n, ran.not_judged) == (1, 2, 0)
    assert (more.of("reproduced"), more.n, more.not_judged) == (1, 2, 4)
    assert more.words() == (
        "1 of 2 judged reproduced, 1 contradicted, 0 inconclusive; not judged: 1 does not apply, "
        "1 cannot be decided here, 1 needs an accelerator, 1 not here"
    )


def test_scopes_are_counted_apart():
    counts = tally([("reproduction", "not here"), ("generalisation", "reproduced")])
    assert (counts["reproduction"].of("reproduced"), counts["generalisation"].of("reproduced")) == (0, 1)


AT_LEAST = claim("at_least", 0.5, 0.0)
FAR = (Control("shuffled", "fail", found(0.0, 0.1)),)


@pytest.mark.parametrize(
    ("reproduced", "wanted"), [(0, "reproduced"), (20, "reproduced"), (21, "failed"), (200, "failed")]
)
def test_a_rule_that_calls_the_false_reproduced_in_more_than_a_tenth_has_no_say(reproduced, wanted):
    alarm = FalseAlarm("labels shuffled", {"reproduced": reproduced, "contradicted": 200 - reproduced})
    verdict = judge(AT_LEAST, found(0.6, 0.9), FAR, Calibration((alarm,)))
    assert verdict.outcome == wanted
    assert ("cannot tell: with labels shuffled" in verdict.reason) == (wanted == "failed")


@pytest.mark.parametrize("low", [0.6, 0.1])
def test_where_the_true_is_not_reproduced_nothing_is_decided_and_the_ceiling_is_named(low):
    oracle = Oracle("a perfect head", "inconclusive", found(0.3, 0.6))
    verdict = judge(AT_LEAST, found(low, low + 0.1), FAR, Calibration((), (oracle,)))
    assert verdict.outcome == "cannot be decided here"
    assert verdict.reason == "a perfect head, where the claim is true, gives 0.45 [0.3, 0.6]: inconclusive"


def test_false_alarms_weigh_more_than_an_oracle():
    alarm = FalseAlarm("labels shuffled", {"reproduced": 200})
    oracle = Oracle("a perfect head", "contradicted", found(0.1, 0.2))
    assert judge(AT_LEAST, found(0.6, 0.9), FAR, Calibration((alarm,), (oracle,))).outcome == "failed"


@pytest.mark.parametrize(
    ("over", "redrawn", "wanted"),
    [
        (("documents",), {"documents": FEWEST_CLUSTERS}, "reproduced"),
        (("documents",), {"documents": FEWEST_CLUSTERS - 1}, "inconclusive"),
        (("documents", "chains"), {"documents": 30, "chains": 4}, "reproduced"),
        (("chains",), {"chains": 4}, "reproduced"),
        (("heads", "documents"), {"heads": 8, "documents": 3}, "inconclusive"),
        (("documents",), {"tokens": 3000}, "failed"),
    ],
)
def test_what_the_claim_generalises_over_is_redrawn_and_there_are_enough_of_it(over, redrawn, wanted):
    claimed = claim("at_least", 0.5, 0.0, over=over)
    assert judge(claimed, found(0.6, 0.9, redrawn=redrawn), FAR).outcome == wanted


def test_what_takes_the_place_of_the_instrument_stands_beside_the_verdict():
    verdict = judge(AT_LEAST, found(0.6, 0.9), FAR, without={"n_beta = 0": "reproduced"})
    assert (verdict.outcome, dict(verdict.without)) == ("reproduced", {"n_beta = 0": "reproduced"})
