"""How often the rules are wrong, on 10,000 synthetic claims each way, at the edge where being wrong is easiest.

Every rule promises at most 5 % false verdicts at the edge of its margin. With 10,000 claims a rate of exactly 5 %
shows as at most 5.9 % but for one time in 20,000 (binomial, one-sided), which is the false-alarm chance of each test.
"""

import numpy as np
import pytest
from circuit_claims.judging.claims import Claim
from circuit_claims.judging.measurement import Interval, Measurement, Rival
from circuit_claims.judging.verdicts import ALPHA, Control, judge

CLAIMS = 10_000
MOST = 0.059
BASE = {
    "id": "TY-01", "paper": "toy", "title": "t", "locus": "s", "quantity": "q", "unit": "u", "trust": "P",
    "margin_reason": "r", "subjects": ("m",), "text": "none", "controls": ("far",), "cost": "seconds",
}  # fmt: skip
Z = 1.6448536269514722


def claim(kind, expected, margin):
    return Claim.model_validate({**BASE, "kind": kind, "expected": expected, "margin": margin})


def rates(wanted, measurements, far):
    control = (Control("far", "fail", far),)
    outcomes = [judge(wanted, measurement, control).outcome for measurement in measurements]
    assert "failed" not in outcomes
    return {name: outcomes.count(name) / len(outcomes) for name in ("reproduced", "contradicted", "inconclusive")}


def normal(truth, sd=1.0, seed=0):
    """Estimates with a normal error and the exact 90 % interval around each."""
    for estimate in np.random.default_rng(seed).normal(truth, sd, CLAIMS):
        yield Measurement("q", float(estimate), Interval(estimate - Z * sd, estimate + Z * sd))


@pytest.mark.parametrize(
    ("kind", "expected", "margin", "false_truth", "far"),
    [
        ("value", 0.0, 4.0, 4.0, Interval(99, 100)),
        ("value", 0.0, 4.0, -4.0, Interval(99, 100)),
        ("at_least", 5.0, 2.0, 3.0, Interval(-100, -99)),
        ("at_most", 5.0, 2.0, 7.0, Interval(99, 100)),
        ("correlation", 5.0, 2.0, 3.0, Interval(-100, -99)),
    ],
)
def test_neither_verdict_is_wrong_too_often_at_the_edge_of_the_margin(kind, expected, margin, false_truth, far):
    """At the edge both errors are at their largest: just outside it is false, just inside it is true."""
    found = rates(claim(kind, expected, margin), normal(false_truth), Measurement("q", far.low, far))
    assert found["reproduced"] <= MOST
    assert found["contradicted"] <= MOST


def test_a_true_claim_is_found_true_and_a_false_one_false_when_there_is_enough_data():
    far = Measurement("q", -100.0, Interval(-100, -99))
    assert rates(claim("at_least", 5.0, 2.0), normal(7.0, 0.5), far)["reproduced"] > 0.99
    assert rates(claim("at_least", 5.0, 2.0), normal(1.0, 0.5), far)["contradicted"] > 0.99


def bootstrapped(gap, items=60, draws=400, seed=1):
    """Two heads whose scores differ by `gap` on average: support by the bootstrap over items."""
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(items, np.full(items, 1 / items), size=draws)
    for _ in range(CLAIMS):
        share = float(np.mean(counts @ generator.normal(gap, 1.0, items) > 0))
        support, rival = {"a": share, "b": 1 - share, "a > b": share}, Rival("b", 1 - share)
        yield Measurement("q", "a" if share > 0.5 else "b", support=support, rivals={"a": rival, "a > b": rival})


@pytest.mark.parametrize(("kind", "expected"), [("identity", "a"), ("order", ("a", "b"))])
def test_a_leader_among_equals_is_seldom_declared(kind, expected):
    """Two equal heads: each verdict is an error. The bootstrap of 60 items is a little narrow: 6.5 % is allowed."""
    far = Measurement("q", "c", support={"c": 1.0})
    found = rates(claim(kind, expected, ALPHA), bootstrapped(0.0), far)
    assert found["reproduced"] <= 0.065
    assert found["contradicted"] <= 0.065


def maxima(true_best, heads=40, items=200, seed=2):
    """Pass shares of `heads` heads, the best of true share `true_best`, with Bonferroni's simultaneous interval."""
    generator = np.random.default_rng(seed)
    share = np.full(heads, 0.05)
    share[0] = true_best
    from scipy.stats import beta

    null = np.sort(generator.binomial(items, 0.05, (20_000, heads)).max(axis=1))
    passed = generator.binomial(items, share, (CLAIMS, heads)).max(axis=1)
    low = beta.ppf(0.05 / heads, passed, items - passed + 1)
    high = beta.ppf(1 - 0.05 / heads, passed + 1, items - passed)
    p_value = (1 + len(null) - np.searchsorted(null, passed)) / (1 + len(null))
    for at in range(CLAIMS):
        yield Measurement("q", passed[at] / items, Interval(low[at], high[at]), p_value=float(p_value[at]))


@pytest.mark.parametrize(
    ("kind", "far_share", "far_p"), [("existence", 0.01, 1.0), ("absence", 0.99, 0.0001)], ids=["existence", "absence"]
)
def test_a_best_head_at_the_threshold_is_seldom_called_above_or_below(kind, far_share, far_p):
    far = Measurement("q", far_share, Interval(far_share - 0.005, far_share + 0.005), p_value=far_p)
    found = rates(claim(kind, 0.5, 0.0), maxima(0.5), far)
    assert found["reproduced"] <= MOST
    assert found["contradicted"] <= MOST


def test_a_maximum_over_chance_heads_is_seldom_called_a_head():
    """No head at all (every share 0.05) against a threshold below the chance maximum: the null must hold it back."""
    far = Measurement("q", 0.0, Interval(0.0, 0.0), p_value=1.0)
    found = rates(claim("existence", 0.0, 0.0), maxima(0.05), far)
    assert found["reproduced"] <= MOST


def bands(offset, points=5, seed=3):
    """A curve measured with normal errors at `points` places; bands at 99 %, simultaneous at 95 % by Bonferroni."""
    z = 2.5758293035489004
    for noise in np.random.default_rng(seed).normal(0.0, 1.0, (CLAIMS, points)):
        y = offset + noise
        arrays = {"x": np.arange(float(points)), "low": y - z, "high": y + z}
        yield Measurement("q", None, arrays=arrays)


@pytest.mark.parametrize("offset", [6.0, -6.0])
def test_a_curve_at_the_edge_of_its_margin_is_seldom_decided(offset):
    wanted = claim("curve", tuple((float(x), 0.0) for x in range(5)), 6.0)
    far = {"x": np.arange(5.0), "low": np.full(5, 99.0), "high": np.full(5, 100.0)}
    found = rates(wanted, bands(offset), Measurement("q", None, arrays=far))
    assert found["reproduced"] <= MOST
    assert found["contradicted"] <= MOST
