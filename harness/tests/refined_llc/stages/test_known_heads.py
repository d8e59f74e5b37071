"""Heads' claims on runs with a known answer: seldom reproduced where they are false, reproduced where they are true."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from circuit_claims.judging.claims import load_paper
from circuit_claims.papers.refined_llc.stages import head_quantities as hq
from circuit_claims.papers.refined_llc.stages import known_heads as known
from circuit_claims.papers.refined_llc.stages import run_measures as rm

PAPER = load_paper(Path(__file__).resolve().parents[4] / "claims" / "refined_llc" / "paper.toml")
FINDINGS = {
    "RL-01": rm.seed_of,
    "RL-03": lambda run: rm.heads(run).leaders("previous"),
    "RL-03b": lambda run: rm.heads(run).leaders("prefix"),
    "RL-03c": lambda run: rm.heads(run).best("previous"),
    "RL-03d": lambda run: rm.heads(run).best("prefix"),
    "RL-04": lambda run: rm.heads(run).formation(),
    "RL-32": lambda run: rm.composition_over_training(run).rise(),
    "RL-32b": lambda run: rm.composition_over_training(run).at_the_end(),
}


@pytest.fixture(scope="module")
def findings(planted):
    return {claim: make(planted) for claim, make in FINDINGS.items()}


@pytest.mark.parametrize("claim", FINDINGS)
def test_a_claim_is_seldom_reproduced_where_it_is_false_and_is_where_it_is_true(findings, claim):
    calibration = findings[claim].calibration_for(PAPER.claim(claim))
    assert calibration.worst is not None
    assert calibration.worst.rate <= 0.10
    assert [oracle.outcome for oracle in calibration.oracles] == ["reproduced"] * (claim != "RL-32b")


def test_a_run_in_which_one_type_never_formed_has_both_in_its_known_data(findings):
    own = findings["RL-04"].measurement
    curves = own.arrays["curves"] * np.array([[1.0], [0.0]])
    stunted = replace(own, arrays={**own.arrays, "curves": curves, "drawn": np.stack([curves] * 400)})
    assert known.formed_in_turn(stunted).value == "previous-token > induction"
    assert known.formed_at_once(stunted, np.random.default_rng(0)).value == "not resolved by the checkpoints"


def test_traded_pairs_keep_their_values_and_rise_as_often_as_they_fall(findings):
    own, source = findings["RL-32"].measurement, np.random.default_rng(0)
    values = np.array([known.pairs_traded(own, source).value for _ in range(200)])
    assert 0.3 < (values > 1).mean() < 0.7
    assert known.pairs_risen(own).value == pytest.approx(known.RECORDED_RISE)


def test_a_head_on_its_way_has_the_noise_of_its_own_height(findings):
    own, source = findings["RL-03d"].measurement, np.random.default_rng(0)
    first = 0.01 + 0.001 * source.normal(size=(400, 8))
    final = np.zeros((400, 8)) + 0.01
    final[:, 6] = 0.5 + 0.1 * source.normal(size=400)
    strong = replace(own, arrays={**own.arrays, "first_draws": first, "final_draws": final, "final": final.mean(0)})
    raised = known.one_head_raised(strong, hq.FORMED["prefix"])
    assert raised.value == pytest.approx(0.04, abs=1e-6)
    assert raised.interval.width / 2 == pytest.approx(1.645 * 0.1 * (0.03 / 0.49), rel=0.25)


def test_leading_heads_lead_under_any_names(findings):
    own = findings["RL-03"].measurement
    assert known.named_heads_lead(own, 0).value == own.value == "0:1, 0:4"
    dealt = {known.names_dealt_out(own, 0, np.random.default_rng(seed)).value for seed in range(20)}
    assert len(dealt) > 5


def test_half_rises_are_found_at_once_as_one_by_one():
    source, steps = np.random.default_rng(0), np.arange(0, 1200, 100)
    curves = np.cumsum(source.normal(size=(200, 2, 12)), axis=2)
    slow = [[hq.last_half_rise(steps, curve) if curve[-1] >= 0 else np.inf for curve in pair] for pair in curves]
    assert (hq.rise_places(curves, np.zeros(2)) == np.searchsorted(steps, slow)).all()
