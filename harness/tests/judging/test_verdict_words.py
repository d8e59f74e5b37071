"""What a verdict says of itself, word for word: the rule, what would flip it, and what stopped it.

A reader acts on these sentences, and every number in them is computed: each branch of each rule is pinned here.
"""

import re

import numpy as np
import pytest
from circuit_claims.judging.calibration import Calibration, FalseAlarm, Oracle
from circuit_claims.judging.measurement import Interval, Measurement
from circuit_claims.judging.verdicts import NOT_JUDGED, Control, apply_rule, judge, not_judged, outcome_of, tally

from tests.judging.test_verdicts import claim, found, led


def curve(*rows):
    """A band through points (x, low, high)."""
    x, low, high = (np.array(column) for column in zip(*rows, strict=True))
    return Measurement("q", None, arrays={"x": x, "low": low, "high": high})


FIRST = "L12H0 comes first in at least 95% of resamples (0.0% found); L1H1 ahead of it in "


@pytest.mark.parametrize(
    ("kind", "expected", "margin", "measurement", "outcome", "rule", "flip", "reason"),
    [
        ("value", 8.0, 2.0, found(7.0, 9.5), "reproduced",
         "90% interval inside 8 ± 2",
         "would no longer be reproduced at a margin below 1.5", ""),
        ("value", 8.0, 2.0, found(2.0, 3.25), "contradicted",
         "90% interval inside 8 ± 2",
         "would no longer be contradicted at a margin of 4.75 or more", ""),
        ("value", 8.0, 2.0, found(12.75, 13.0), "contradicted",
         "90% interval inside 8 ± 2",
         "would no longer be contradicted at a margin of 4.75 or more", ""),
        ("value", 8.0, 2.0, found(5.0, 9.0), "inconclusive",
         "90% interval inside 8 ± 2",
         "would be reproduced at a margin of 3 or more; no margin makes it contradicted", ""),
        ("value", 8.0, 2.0, found(4.0, 7.0), "inconclusive",
         "90% interval inside 8 ± 2",
         "would be reproduced at a margin of 4 or more; contradicted at a margin below 1", ""),
        ("at_least", 8.0, 2.0, found(6.5, 30.0), "reproduced",
         "low end of the 90% interval at or above 8 less the margin 2",
         "would no longer be reproduced at a margin below 1.5", ""),
        ("at_least", 8.0, 2.0, found(9.25, 30.0), "reproduced",
         "low end of the 90% interval at or above 8 less the margin 2",
         "would no longer be reproduced at an expected value moved by more than 1.25", ""),
        ("at_least", 8.0, 2.0, found(1.9, 3.1), "contradicted",
         "low end of the 90% interval at or above 8 less the margin 2",
         "would no longer be contradicted at a margin of 4.9 or more", ""),
        ("at_least", 8.0, 2.0, found(5.0, 7.0), "inconclusive",
         "low end of the 90% interval at or above 8 less the margin 2",
         "would be reproduced at a margin of 3 or more; contradicted at a margin below 1", ""),
        ("at_least", 8.0, 2.0, found(5.0, 9.0), "inconclusive",
         "low end of the 90% interval at or above 8 less the margin 2",
         "would be reproduced at a margin of 3 or more; no margin makes it contradicted", ""),
        ("at_most", 8.0, 2.0, found(1.0, 9.5), "reproduced",
         "high end of the 90% interval at or below 8 plus the margin 2",
         "would no longer be reproduced at a margin below 1.5", ""),
        ("at_most", 8.0, 2.0, found(1.0, 6.75), "reproduced",
         "high end of the 90% interval at or below 8 plus the margin 2",
         "would no longer be reproduced at an expected value moved by more than 1.25", ""),
        ("at_most", 8.0, 2.0, found(12.0, 13.0), "contradicted",
         "high end of the 90% interval at or below 8 plus the margin 2",
         "would no longer be contradicted at a margin of 4 or more", ""),
        ("at_most", 8.0, 2.0, found(9.0, 11.0), "inconclusive",
         "high end of the 90% interval at or below 8 plus the margin 2",
         "would be reproduced at a margin of 3 or more; contradicted at a margin below 1", ""),
        ("at_most", 8.0, 2.0, found(7.0, 11.0), "inconclusive",
         "high end of the 90% interval at or below 8 plus the margin 2",
         "would be reproduced at a margin of 3 or more; no margin makes it contradicted", ""),
        ("correlation", 0.8, 0.3, found(0.55, 0.9), "reproduced",
         "low end of the 90% interval at or beyond 0.8 less the margin 0.3",
         "would no longer be reproduced at a margin below 0.25", ""),
        ("correlation", -0.8, 0.3, found(-0.9, -0.55), "reproduced",
         "high end of the 90% interval at or beyond -0.8 plus the margin 0.3",
         "would no longer be reproduced at a margin below 0.25", ""),
        ("correlation", -0.8, 0.3, found(0.1, 0.2), "contradicted",
         "high end of the 90% interval at or beyond -0.8 plus the margin 0.3",
         "would no longer be contradicted at a margin of 0.9 or more", ""),
        ("existence", 0.5, 0.1, found(0.41, 0.7, p_value=0.001), "reproduced",
         "90% interval () against 0.4, and p = 0.001 under the null, at 0.05",
         "would flip with the threshold at 0.41", ""),
        ("existence", 0.5, 0.1, found(0.1, 0.4, p_value=0.001), "contradicted",
         "90% interval () against 0.4, and p = 0.001 under the null, at 0.05",
         "would flip with the threshold at 0.4", ""),
        ("existence", 0.5, 0.1, found(0.3, 0.7, p_value=0.0123), "inconclusive",
         "90% interval () against 0.4, and p = 0.0123 under the null, at 0.05",
         "decided for a threshold outside [0.3, 0.7]", ""),
        ("absence", 0.5, 0.1, found(0.61, 0.7, p_value=0.05), "contradicted",
         "90% interval () against 0.6, and p = 0.05 under the null, at 0.05",
         "would flip with the threshold at 0.61", ""),
        ("absence", 0.5, 0.1, found(0.1, 0.6, p_value=0.5), "reproduced",
         "90% interval () against 0.6, and p = 0.5 under the null, at 0.05",
         "would flip with the threshold at 0.6", ""),
        ("absence", 0.5, 0.1, found(0.61, 0.7, p_value=0.051), "inconclusive",
         "90% interval () against 0.6, and p = 0.051 under the null, at 0.05",
         "decided for a threshold outside [0.61, 0.7]", ""),
        ("identity", "L12H0", 0.05, Measurement("q", "L12H0", support={"L12H0": 0.97}), "reproduced",
         "L12H0 comes first in at least 95% of resamples (97.0% found)",
         "would no longer be reproduced at a margin below 0.03", ""),
        ("identity", "L12H0", 0.05, Measurement("q", "L12H0", support={"L12H0": 1.0}), "reproduced",
         "L12H0 comes first in at least 95% of resamples (100.0% found)",
         "would be reproduced at any margin: all resamples agree", ""),
        ("identity", "L12H0", 0.05, led("L1H1", 0.97, "L12H0"), "contradicted",
         FIRST + "97.0%, all rivals allowed for",
         "would no longer be contradicted at a margin below 0.03", ""),
        ("identity", "L12H0", 0.05, led("L1H1", 1.0, "L12H0"), "contradicted",
         FIRST + "100.0%, all rivals allowed for",
         "would be contradicted at any margin: all resamples agree", ""),
        ("identity", "L12H0", 0.05, led("L1H1", 0.94, "L12H0"), "inconclusive",
         "L12H0 comes first in at least 95% of resamples (0.0% found)",
         "would be reproduced at a margin of 1 or more; contradicted at a margin of 0.06 or more", ""),
        ("identity", "L12H0", 0.05, led("L1H1", 0.97, "L1H1"), "contradicted",
         FIRST + "100.0%, all rivals allowed for",
         "would be contradicted at any margin: all resamples agree", ""),
        ("identity", "L12H0", 0.05, Measurement("q", "L1H1", support={"L12H0": 0.2, "L1H1": 0.8}), "inconclusive",
         "L12H0 comes first in at least 95% of resamples (20.0% found)",
         "would be reproduced at a margin of 0.8 or more; nobody is named against it", ""),
        ("order", ("a", "b"), 0.05, Measurement("q", "a > b", support={"a > b": 0.99}), "reproduced",
         "the order a > b holds in at least 95% of resamples (99.0% found)",
         "would no longer be reproduced at a margin below 0.01", ""),
        ("order", ("a", "b", "c"), 0.05, led("c", 0.99, "b > c"), "contradicted",
         "the order a > b > c holds in at least 95% of resamples (0.0% found); "
         "c ahead of it in 99.0%, all rivals allowed for",
         "would no longer be contradicted at a margin below 0.01", ""),
        ("order", ("a", "b", "c"), 0.05, led("b", 0.60, "a > b"), "inconclusive",
         "the order a > b > c holds in at least 95% of resamples (0.0% found)",
         "would be reproduced at a margin of 1 or more; contradicted at a margin of 0.4 or more", ""),
        ("curve", [(0, 1.0), (1, 2.0)], 0.5, curve((0, 0.5, 1.5), (1, 1.6, 2.4)), "reproduced",
         "band within ± 0.5 at 2 of 2 points, outside at 0",
         "", ""),
        ("curve", [(0, 1.0), (1, 2.0)], 0.5, curve((0, 0.4, 1.5), (1, 1.6, 2.4)), "inconclusive",
         "band within ± 0.5 at 1 of 2 points, outside at 0",
         "see the points in the table", ""),
        ("curve", [(0, 1.0), (1, 2.0)], 0.5, curve((0, 0.5, 1.5), (1, 2.6, 2.7)), "contradicted",
         "band within ± 0.5 at 1 of 2 points, outside at 1",
         "see the points in the table", ""),
        ("curve", [(0, 1.0), (1, 2.0)], 0.5, curve((0, 0.1, 0.4), (1, 1.6, 2.6)), "contradicted",
         "band within ± 0.5 at 0 of 2 points, outside at 1",
         "see the points in the table", ""),
        ("value", 8.0, 2.0, found(7.0, 9.0, status="partial"), "inconclusive",
         "needs a complete measurement",
         "", "measurement is partial"),
        ("value", 8.0, 2.0, Measurement("q", float("nan"), Interval(1, 2)), "inconclusive",
         "needs a finite value",
         "", "measured value is nan"),
    ],
)  # fmt: skip
def test_each_branch_of_each_rule_says_what_it_did(kind, expected, margin, measurement, outcome, rule, flip, reason):
    asked = claim(kind, expected, margin)
    verdict = apply_rule(asked, measurement)
    assert (verdict.outcome, verdict.rule, verdict.flip, verdict.reason) == (outcome, rule, flip, reason)
    assert outcome_of(asked, measurement) == outcome


@pytest.mark.parametrize(
    ("over", "redrawn", "rule", "flip", "reason"),
    [
        (
            ("strings", "chains"), {"strings": 5, "chains": 2},
            "needs at least 6 strings to generalise over", "decided with 6 strings or more", "5 strings",
        ),
        (
            ("strings", "heads"), {"strings": 5, "heads": 3},
            "needs at least 6 heads to generalise over", "decided with 6 heads or more", "3 heads",
        ),
    ],
)  # fmt: skip
def test_too_few_units_are_counted_and_chains_are_none(over, redrawn, rule, flip, reason):
    verdict = apply_rule(claim("value", 8.0, 2.0, over=over), found(7.0, 9.0, redrawn=redrawn))
    assert (verdict.outcome, verdict.rule, verdict.flip, verdict.reason) == ("inconclusive", rule, flip, reason)
    enough = dict.fromkeys(over, 6) | {"chains": 1}
    assert apply_rule(claim("value", 8.0, 2.0, over=over), found(7.0, 9.0, redrawn=enough)).outcome == "reproduced"


def alarm(how, reproduced):
    return FalseAlarm(how, {"reproduced": reproduced, "inconclusive": 200 - reproduced})


FAR = Control("shuffled", "fail", found(-9.0, -8.0))


def said(measurement=None, controls=(FAR,), calibration=None, **more):
    asked = claim("value", 8.0, 2.0, **more)
    verdict = judge(asked, measurement or found(7.0, 9.0), controls, calibration or Calibration())
    return verdict.outcome, verdict.reason


@pytest.mark.parametrize(
    ("given", "outcome", "reason"),
    [
        ({}, "reproduced", ""),
        ({"measurement": found(7.0, 9.0, unit="v")}, "failed", "the claim is in u, the measurement in v"),
        (
            {"over": ("strings", "heads"), "measurement": found(7.0, 9.0)},
            "failed", "the claim generalises over strings, heads, but the measurement redrew nothing that is stated",
        ),
        (
            {"over": ("strings",), "measurement": found(7.0, 9.0, redrawn={"tokens": 9, "rows": 7})},
            "failed", "the claim generalises over strings, but the measurement redrew tokens, rows",
        ),
        ({"controls": ()}, "failed", "control not measured: shuffled"),
        ({"controls": (), "positive_controls": ("planted",)}, "failed", "control not measured: shuffled, planted"),
        (
            {"controls": (Control("shuffled", "fail", found(7.5, 8.5)), Control("planted", "pass", found(0.0, 1.0))),
             "positive_controls": ("planted",)},
            "failed",
            "control 'shuffled' must fail but came out reproduced; "
            "control 'planted' must pass but came out contradicted",
        ),
        (
            {"calibration": Calibration((alarm("labels shuffled", 21), alarm("none", 2)))},
            "failed",
            "the rule cannot tell: with labels shuffled it calls 10.5% of 200 data sets reproduced, more than 10%",
        ),
        ({"calibration": Calibration((alarm("labels shuffled", 20),))}, "reproduced", ""),
        (
            {"calibration": Calibration((), (
                Oracle("a perfect head", "inconclusive", found(0.25, 9.5)),
                Oracle("a planted head", "contradicted", Measurement("q", 2.0)),
                Oracle("a model", "reproduced", found(7.0, 9.0)),
            ))},
            "cannot be decided here",
            "a perfect head, where the claim is true, gives 4.88 [0.25, 9.5]: inconclusive; "
            "a planted head, where the claim is true, gives 2: contradicted",
        ),
    ],
)  # fmt: skip
def test_what_stops_a_verdict_is_said(given, outcome, reason):
    assert said(**given) == (outcome, reason)


def test_what_was_not_judged_says_that_no_rule_was_applied():
    for outcome in NOT_JUDGED:
        verdict = not_judged(outcome, "no weights")
        assert (verdict.outcome, verdict.rule, verdict.reason) == (outcome, "none applied", "no weights")


@pytest.mark.parametrize(
    ("outcomes", "words"),
    [
        (["reproduced"], "1 of 1 judged reproduced, 0 contradicted, 0 inconclusive"),
        (
            ["reproduced", "contradicted", "contradicted", "inconclusive", "failed", "not here"],
            "1 of 5 judged reproduced, 2 contradicted, 1 inconclusive, 1 failed; not judged: 1 not here",
        ),
        (
            ["not here", "not here", "does not apply", "cannot be decided here", "needs an accelerator"],
            "0 of 0 judged reproduced, 0 contradicted, 0 inconclusive; "
            "not judged: 1 does not apply, 1 cannot be decided here, 1 needs an accelerator, 2 not here",
        ),
    ],
)
def test_the_headline_of_a_scope_counts_every_outcome(outcomes, words):
    counted = tally([("one", outcome) for outcome in outcomes] + [("other", "failed")])
    assert counted["one"].words() == words
    assert (counted["one"].n + counted["one"].not_judged, counted["other"].n) == (len(outcomes), 1)


@pytest.mark.parametrize(
    ("kind", "expected", "measurement", "words"),
    [
        ("value", 1.0, Measurement("score", 1.0), "score: a verdict needs an interval, found none"),
        (
            "value", 1.0, Measurement("score", 1.0, Interval(0.9, 1.1, 0.8)),
            "score: expected an interval at level 0.9 or more, found 0.8",
        ),
        (
            "identity", "a", Measurement("score", "a"),
            "score: a verdict of kind identity needs bootstrap support, found none",
        ),
        ("existence", 1.0, found(0.0, 1.0), "q: a maximum needs the null of the maximum (p_value), found none"),
        (
            "curve", [(0, 1.0)], Measurement("score", None, arrays={"x": np.zeros(1)}),
            "score: a curve needs arrays x, low and high, found no ['high', 'low']",
        ),
        ("curve", [(2, 1.0)], curve((0, 0.5, 1.5)), "q: the claim asks for x = 2, which was not measured"),
    ],
)  # fmt: skip
def test_a_measurement_that_no_rule_can_judge_is_refused_with_what_is_missing(kind, expected, measurement, words):
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        apply_rule(claim(kind, expected, 0.1), measurement)
