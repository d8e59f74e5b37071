"""What an estimate says of itself: divergence, escape, doubt, and its two ways out."""

import json
import math

import numpy as np
import pytest
import torch
from circuit_claims.llc.estimate import summarise
from circuit_claims.llc.gate import Surroundings
from circuit_claims.llc.sample import sample_llc
from circuit_claims.llc.sgld import SGLDSettings, Traces

SETTINGS = SGLDSettings(n_beta=10.0, gamma=1.0, eps=1e-3, num_chains=4, num_draws=100)


def traces(chains=4, draws=100, seed=0, **changes):
    source = np.random.default_rng(seed)
    parts = {
        "loss": 1.0 + source.normal(size=(chains, draws)) * 0.1,
        "start_loss": np.full((chains, draws), 0.7),
        "displacement": np.abs(source.normal(size=(chains, draws))),
        "acceptance": np.full((chains, 4), 0.9),
        "diverged_at": np.full(chains, -1),
    }
    return Traces(**{**parts, **changes})


def test_the_mean_and_its_error_are_those_of_the_paired_draws():
    found = summarise(traces(), SETTINGS, Surroundings(10, 3.0))
    draws = 10 * (traces().loss - 0.7)
    assert found.mean == pytest.approx(draws.mean())
    assert found.mcse == pytest.approx(draws.std() / 20, rel=0.2)
    assert found.interval.low < found.mean < found.interval.high
    assert found.status == "complete"
    np.testing.assert_allclose(found.per_chain, draws.mean(1))


def test_a_diverged_chain_is_named_and_never_averaged_in():
    broken = traces()
    broken.loss[2, 30:] = np.nan
    broken.diverged_at[2] = 30
    found = summarise(broken, SETTINGS, Surroundings(10, 3.0))
    rest = np.delete(10 * (traces().loss - 0.7), 2, axis=0)
    assert found.mean == pytest.approx(rest.mean())
    assert math.isnan(found.per_chain[2])
    assert found.status == "diverged"
    assert "1 of 4 chains diverged, the first at step 30" in found.reasons[0]


def test_a_chain_that_diverged_under_a_real_run_is_left_out_even_of_its_sound_first_draws():
    """The step size is unstable for 8 of 16 chains only: chains with even numbers see curvature 1, odd ones 1e5."""
    curvature = torch.tensor([1.0, 1e5]).repeat(8)

    def loss(w):
        return curvature[: len(w)] * (w**2).sum(1) / 2

    found = sample_llc(loss, torch.zeros(3), n_beta=30.0, gamma=200.0, eps=1e-3, num_chains=16)
    assert found.status == "diverged"
    assert np.isnan(found.per_chain[1::2]).all()
    assert np.isfinite(found.per_chain[::2]).all()
    assert found.mean == pytest.approx(found.per_chain[::2].mean())


def test_when_every_chain_diverges_there_is_no_number():
    found = sample_llc(lambda w: 1e9 * (w**2).sum(1), torch.zeros(2), n_beta=30.0, gamma=200.0, eps=1e-3)
    assert found.status == "diverged"
    assert math.isnan(found.mean)
    assert found.interval is None
    assert found.to_measurement().value is None
    assert found.to_measurement().status == "diverged"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_divergence(value):
    def loss(w):
        size = (w**2).sum(1)
        return torch.where(size > 1e-4, value + 0 * size, size)

    found = sample_llc(loss, torch.zeros(2), n_beta=30.0, gamma=1.0, eps=1e-3)
    assert found.status == "diverged"
    assert (found.traces.diverged_at >= 0).all()


def test_a_mean_loss_above_that_of_knowing_nothing_is_outside_the_neighbourhood():
    found = summarise(traces(), SETTINGS, Surroundings(10, 3.0, ceiling=0.9))
    assert found.status == "outside the neighbourhood"
    assert "above 0.900" in found.reasons[0]
    assert found.to_measurement().status == "partial"
    assert found.to_measurement().facts["gate"] == "outside the neighbourhood"


def test_chains_that_disagree_or_crawl_are_partial():
    apart = traces()
    apart.loss[0] += 1.0
    found = summarise(apart, SETTINGS, Surroundings(10, 3.0))
    assert found.status == "partial"
    assert "R-hat" in found.reasons[0]
    walk = traces(loss=np.cumsum(np.random.default_rng(1).normal(size=(4, 100)), 1))
    assert "ESS" in " ".join(summarise(walk, SETTINGS, Surroundings(10, 3.0)).reasons)


def test_a_run_that_ran_out_of_time_is_partial_and_keeps_what_is_whole():
    found = sample_llc(lambda w: (w**2).sum(1), torch.zeros(2), n_beta=30.0, gamma=1.0, eps=1e-3, chains_per_call=1,
                       max_seconds=0.0)  # fmt: skip
    assert found.status == "partial"
    assert "4 of 4 chains were stopped" in found.reasons[0]
    assert math.isnan(found.mean)


def test_divergence_outranks_escape_and_both_are_told():
    broken = traces()
    broken.diverged_at[0] = 3
    broken.loss[0] = np.nan
    found = summarise(broken, SETTINGS, Surroundings(10, 3.0, ceiling=0.1))
    assert found.status == "diverged"
    assert [text.startswith("note") for text in found.reasons] == [False, False, True]


def test_a_measurement_carries_traces_and_facts_that_json_can_hold():
    found = summarise(traces(), SETTINGS, Surroundings(10, 3.0, ceiling=8.5, hessian_trace=4.0))
    measurement = found.to_measurement("wrLLC of 1:6")
    assert measurement.quantity == "wrLLC of 1:6"
    assert measurement.value == found.mean
    assert measurement.n == 400
    assert set(measurement.arrays) == {"loss", "start_loss", "per_chain", "displacement", "acceptance"}
    facts = json.loads(json.dumps(dict(measurement.facts), allow_nan=False))
    assert facts["settings"]["n_beta"] == 10.0
    assert facts["small_curvature_limit"] == pytest.approx(20.0)
    assert facts["mean_loss"] == pytest.approx(traces().loss.mean())


def test_inference_data_has_chains_and_draws():
    data = summarise(traces(), SETTINGS, Surroundings(10, 3.0)).to_inference_data()
    assert dict(data.posterior.sizes) == {"chain": 4, "draw": 100}
    np.testing.assert_allclose(data.posterior["llc"].values, 10 * (traces().loss - 0.7))
