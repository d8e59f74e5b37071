"""Verdicts in words: numbers a person can read, and a message that says what to type."""

from __future__ import annotations

import re
import tomllib

import pytest
from circuit_claims.judging.claims import Claim
from circuit_claims.judging.measurement import Interval, Measurement
from circuit_claims.judging.messages import measurement_line, paper_says, verdict_text
from circuit_claims.judging.numbers import number
from circuit_claims.judging.verdicts import Control, judge, not_judged
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.toy_project import CLAIM

(RAW,) = tomllib.loads(CLAIM.format(id="TY-01", subjects='["gpt2"]'))["claim"]


def claim(**changes) -> Claim:
    return Claim.model_validate({**RAW, "paper": "toy", **changes})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.0, "1"), (0.5, "0.5"), (0.12345, "0.123"), (12.345, "12.3"), (-2.5, "-2.5"), (637, "637"),
        (999.4, "999"), (999.7, "1,000"), (1041.0, "1,041"), (1234.5, "1,234"), (-1234.6, "-1,235"),
        (123456.7, "123,457"), (999999.4, "999,999"), (1e6, "1,000,000"), (1234567.8, "1,234,568"),
        (0.00001234, "1.23e-05"), (float("inf"), "∞"), (float("nan"), "not a number"), (None, "none"),
        ("L12H0", "L12H0"),
    ],
)  # fmt: skip
def test_a_number_reads_well(value, text):
    assert number(value) == text


@given(st.floats(-999_999, 999_999).filter(lambda value: value == 0 or abs(value) > 1e-3))
def test_no_exponent_below_a_million_and_three_digits_kept(value):
    text = number(value)
    assert "e" not in text
    assert abs(float(text.replace(",", "")) - value) <= 0.005 * abs(value)


def test_a_measurement_says_what_it_was_taken_over():
    interval = Interval(0.25, 1234.5, 0.9, "bootstrap over tokens")
    whole = Measurement("score", 0.5, interval, "share", p_value=0.004, n=1041, seed=7)
    text = measurement_line(whole)
    assert text.startswith("0.5 share   90% interval [0.25, 1,234]   p = 0.004 under the null   n = 1,041, bootstrap")
    assert text.endswith("bootstrap over tokens, seed 7")
    assert measurement_line(Measurement("leader", "L1H2")) == "L1H2"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "at least 0.5 (margin 0)   stated in the paper, section 1"),
        ({"kind": "value", "expected": 1041.0}, "1,041 (margin 0)   stated in the paper, section 1"),
        ({"kind": "identity", "expected": "L12H0", "margin": 0.05}, "L12H0 (margin 0.05)"),
        ({"kind": "order", "expected": ["a", "b"], "margin": 0.05, "trust": "?"}, "in the order a > b (margin 0.05)"),
        ({"kind": "absence"}, "none above 0.5"),
    ],
)  # fmt: skip
def test_the_paper_s_value_is_said_with_its_margin_and_trust(changes, text):
    assert paper_says(claim(**changes)).startswith(text)


def test_a_miss_says_value_controls_reason_and_the_line_that_runs_it_again():
    found = Measurement("score", 0.2, Interval(0.1, 0.3), n=5)
    control = Control("nothing", "fail", Measurement("score", 0.0, Interval(0.0, 0.0)))
    verdict = judge(claim(), found, (control,))
    text = verdict_text(claim(), "gpt2", "reproduction", found, verdict, {"re-run": 'pytest "a[b]"', "to run": ""})
    lines = text.splitlines()
    assert lines[0] == "TY-01 on gpt2: contradicted (reproduction)"
    assert "  measured  0.2   90% interval [0.1, 0.3]   n = 5" in lines
    assert "  controls  nothing 0   as they must be" in lines
    assert lines[-1] == '  re-run    pytest "a[b]"'
    assert not re.search(r"^  to run", text, re.MULTILINE)


def test_a_broken_control_is_said_aloud():
    found = Measurement("score", 0.8, Interval(0.7, 0.9))
    verdict = judge(claim(), found, (Control("nothing", "fail", found),))
    text = verdict_text(claim(), "gpt2", "reproduction", found, verdict, {})
    assert "nothing 0.8   NOT AS THEY MUST BE" in text


def test_a_claim_that_was_not_judged_names_only_the_line_that_would_run_it():
    ways = {"re-run": "", "to run": "claims fetch gpt2"}
    text = verdict_text(claim(), "gpt2", "reproduction", None, not_judged("not here", "no weights"), ways)
    assert text.splitlines()[-2:] == ["  reason    no weights", "  to run    claims fetch gpt2"]
    assert "re-run" not in text
    assert "measured" not in text


def test_a_verdict_is_said_line_for_line():
    found = Measurement("score", 0.2, Interval(0.1, 0.3, 0.95, "rows"), "share", p_value=0.0123, n=1_041, seed=3)
    controls = (
        Control("nothing", "fail", Measurement("score", 0.9, Interval(0.9, 0.9))),
        Control("planted", "pass", Measurement("score", 1.0, Interval(1.0, 1.0))),
    )
    asked = claim(controls=["nothing"], positive_controls=["planted"], unit="share")
    verdict = judge(asked, found, controls)
    ways = {"re-run": "pytest x", "to run": "", "a longer way": "claims y"}
    assert verdict_text(asked, "gpt2", "generalisation", found, verdict, ways).splitlines() == [
        "TY-01 on gpt2: failed (generalisation)",
        f"  claim     {asked.title}",
        "  paper     at least 0.5 (margin 0)   stated in the paper, section 1",
        "  measured  0.2 share   95% interval [0.1, 0.3]   p = 0.012 under the null   n = 1,041, rows, seed 3",
        "  controls  nothing 0.9, planted 1   NOT AS THEY MUST BE",
        "  reason    control 'nothing' must fail but came out reproduced",
        "  flip      would no longer be contradicted at a margin of 0.2 or more",
        "  re-run    pytest x",
        "  a longer way claims y",
    ]


def test_what_was_not_measured_has_no_line_of_its_own():
    text = verdict_text(claim(), "gpt2", "reproduction", None, not_judged("not here", "no weights"), {})
    assert [line.split()[0] for line in text.splitlines()] == ["TY-01", "claim", "paper", "reason"]


@pytest.mark.parametrize(
    ("kind", "expected", "text"),
    [
        ("at_most", 0.5, "at most 0.5"), ("existence", 0.5, "one above 0.5"),
        ("correlation", -0.5, "correlation at or beyond -0.5"),
        ("curve", [[0, 1.0], [10, 0.1234]], "the curve through (0, 1), (10, 0.123)"),
    ],
)  # fmt: skip
def test_each_kind_of_claim_has_its_phrase(kind, expected, text):
    assert paper_says(claim(kind=kind, expected=expected)).startswith(f"{text} (margin 0)")
