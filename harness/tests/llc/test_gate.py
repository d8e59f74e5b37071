"""The gate never says more than was checked: every way an estimate can be empty or wrong has its own true sentence."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from circuit_claims.llc.estimate import summarise
from circuit_claims.llc.gate import Surroundings
from circuit_claims.llc.sample import sample_llc
from circuit_claims.llc.sgld import SGLDSettings

from tests.llc.test_estimate import SETTINGS, traces

AROUND = Surroundings(10, 3.0, ceiling=8.5, control_llc=50.0)


def judged(found, settings=SETTINGS, around=AROUND):
    return summarise(found, replace(settings, num_chains=len(found.loss), num_draws=found.loss.shape[1]), around)


def notes(found):
    return [text for text in found.reasons if text.startswith("note:")]


def test_sound_chains_with_everything_checked_are_complete_and_say_what_was_checked():
    found = judged(traces())
    assert found.status == "complete"
    (reason,) = found.reasons
    assert reason.startswith("all 4 chains ran to the end and agree: R-hat 1.0")
    assert f"bulk ESS {found.diagnostics.ess_bulk:.0f}" in reason


def test_one_chain_agrees_with_nobody():
    found = judged(traces(chains=1))
    assert found.status == "partial"
    assert found.reasons == ("one whole chain: whether chains agree cannot be checked. Run 2 chains or more",)


def test_one_chain_left_of_four_agrees_with_nobody_either():
    broken = traces()
    broken.loss[1:, 50:] = np.nan
    broken.diverged_at[1:] = 50
    found = judged(broken)
    assert found.status == "diverged"
    assert any("one whole chain" in text for text in found.reasons)


def test_one_chain_whose_halves_differ_is_told_of_both():
    drift = traces(chains=1)
    drift.loss[0, 50:] += 1.0
    found = judged(drift)
    assert "one whole chain" in found.reasons[0]
    assert found.reasons[1].startswith("its halves disagree: R-hat")


@pytest.mark.parametrize("draws", [1, 2, 7])
def test_a_handful_of_draws_is_partial_and_has_no_error(draws):
    found = judged(traces(draws=draws))
    assert found.status == "partial"
    assert "a chain: R-hat, effective sample size and error need 8" in found.reasons[0]
    assert found.reasons[0].startswith(f"{draws} draw")
    assert math.isnan(found.mcse)
    assert found.interval is None


def test_a_single_draw_is_not_known_without_error():
    found = sample_llc(lambda w: (w**2).sum(1), torch.ones(3), n_beta=1.0, gamma=1.0, eps=1e-3, num_chains=1,
                       num_draws=1)  # fmt: skip
    assert found.status == "partial"
    assert found.interval is None
    assert "1 draw a chain" in " ".join(found.reasons)


def test_n_beta_zero_is_no_estimate():
    found = sample_llc(lambda w: (w**2).sum(1), torch.zeros(3), n_beta=0.0, gamma=1.0, eps=1e-3, num_draws=40)
    assert (found.mean, found.status) == (0.0, "partial")
    assert "0 by definition" in found.reasons[0]


def test_weights_that_do_not_enter_the_loss_are_named():
    found = sample_llc(lambda w: 0 * w.sum(1) + 2.0, torch.zeros(3), n_beta=9.0, gamma=1.0, eps=1e-3, num_draws=40)
    assert (found.mean, found.mcse, found.status) == (0.0, 0.0, "partial")
    assert "they do not enter it on these data" in found.reasons[0]


def test_chains_that_stand_still_are_named():
    """Steps of 1e-15 around 1.0 in fp32 change nothing."""
    found = sample_llc(lambda w: (w**2).sum(1), torch.ones(3), n_beta=9.0, gamma=1.0, eps=1e-30, num_draws=40)
    assert found.status == "partial"
    assert "the weights never moved. Try a larger eps" in found.reasons[0]


def test_chains_frozen_each_at_its_own_value_disagree():
    frozen = traces(loss=np.repeat(np.array([[1.0], [1.2], [1.4], [1.6]]), 100, 1))
    found = judged(frozen)
    assert found.status == "partial"
    assert "chains disagree: R-hat" in found.reasons[0]


def test_an_estimate_clearly_below_zero_is_no_learning_coefficient():
    found = judged(traces(start_loss=np.full((4, 100), 1.5)))
    assert found.interval.high < 0
    assert found.status == "partial"
    assert "w* is no minimum" in found.reasons[0]


def test_a_saddle_gives_an_estimate_below_zero():
    slopes = torch.tensor([-1.0, -1.0, 0.1])
    found = sample_llc(lambda w: (slopes * w**2).sum(1) / 2, torch.zeros(3), n_beta=10.0, gamma=60.0, eps=1e-3,
                       num_draws=400)  # fmt: skip
    assert found.mean < 0
    assert any("w* is no minimum" in text for text in found.reasons)


def test_an_estimate_around_zero_says_so_and_stays_complete():
    found = judged(traces(start_loss=np.full((4, 100), traces().loss.mean() - 1e-4)))
    assert found.status == "complete"
    assert notes(found) == ["note: the estimate cannot be told from 0"]


def test_a_start_above_the_loss_of_knowing_nothing_is_not_blamed_on_the_chains():
    found = judged(traces(), around=replace(AROUND, ceiling=0.65))
    assert found.status == "partial"
    assert "w* itself has a loss of 0.700, above 0.650" in found.reasons[0]


def test_one_chain_of_four_that_left_is_found_although_the_mean_did_not():
    one_out = traces()
    one_out.loss[3] += 0.5
    found = judged(one_out, around=replace(AROUND, ceiling=1.3))
    assert found.mean_loss < 1.3
    assert found.status == "outside the neighbourhood"
    assert "of 1 of 4 chains" in found.reasons[0]


@pytest.mark.parametrize(("draws", "value", "words"), [
    (0, math.nan, "was not measured (control_draws is 0)"), (8, math.nan, "gave no finite number"),
    (8, 1.0, "hardly confined the chains")])  # fmt: skip
def test_the_control_is_missed_and_held_against_the_estimate(draws, value, words):
    found = judged(traces(), replace(SETTINGS, control_draws=draws), replace(AROUND, control_llc=value))
    assert found.status == "complete"
    assert len(notes(found)) == 1
    assert words in notes(found)[0]


def test_a_control_well_above_the_estimate_needs_no_note():
    assert notes(judged(traces())) == []


def test_chains_further_from_w_star_than_it_is_long_say_so():
    found = judged(traces(), around=replace(AROUND, start_norm=0.1))
    assert found.status == "complete"
    assert notes(found)[0].startswith("note: the chains went")


def test_without_one_whole_chain_there_is_no_estimate():
    stopped = traces()
    stopped.loss[:, 60:] = np.nan
    found = judged(stopped)
    assert (found.status, found.interval) == ("partial", None)
    assert "none is whole: there is no estimate" in found.reasons[0]
    broken = traces()
    broken.loss[:] = np.nan
    broken.diverged_at[:] = 0
    assert "so there is no estimate" in judged(broken).reasons[0]


def test_the_gate_of_a_run_with_the_papers_settings_is_complete_on_a_bowl():
    """The gate passes what it should: strong curvature, four chains, 200 draws."""
    h = torch.tensor([50.0, 80.0, 100.0])
    found = sample_llc(lambda w: (h * w**2).sum(1) / 2, torch.full((3,), 0.0), n_beta=30.0, gamma=200.0, eps=1e-3)
    assert found.settings == SGLDSettings(30.0, 200.0, 1e-3)
    assert found.status == "complete"
