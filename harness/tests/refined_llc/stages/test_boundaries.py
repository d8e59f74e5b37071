"""Stages and the first-generation estimator: planted truths, the published procedure step by step, properties."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from circuit_claims.keeping.cells import MemoryStore
from circuit_claims.keeping.measure import Context
from circuit_claims.keeping.profiles import PROFILES
from circuit_claims.papers.refined_llc.runs.recorded import RecordedRun
from circuit_claims.papers.refined_llc.runs.recorded_planted import (
    LABELS,
    LOSS_LEVELS,
    TRUE_LEVELS,
    planted_data,
    through_levels,
)
from circuit_claims.papers.refined_llc.runs.training_run import Rearranged, RunCurves
from circuit_claims.papers.refined_llc.stages.boundaries import (
    FIRST_STEP,
    PUBLISHED_BOUNDARIES,
    fit_smoother,
    log_step,
    stage_changes,
)
from circuit_claims.papers.refined_llc.stages.first_generation import FirstGeneration
from circuit_claims.papers.refined_llc.stages.head_quantities import last_half_rise
from circuit_claims.papers.refined_llc.stages.measures import FALL, llc_of, stages
from circuit_claims.papers.refined_llc.stages.run_measures import formation, heads
from hypothesis import given, settings
from hypothesis import strategies as st

FEW = replace(PROFILES["quick"], bootstrap_draws=60)
KEPT = LABELS >= FIRST_STEP


@pytest.fixture(scope="module")
def run():
    return RecordedRun(planted_data(seed=3), Context(MemoryStore(), profile=FEW))


def boundaries(values, **length):
    return fit_smoother(LABELS, values, **length).boundaries(values[None, KEPT])[0]


def doublings(found, wanted):
    return np.abs(np.log2(found / np.asarray(wanted, dtype=float)))


def test_known_boundaries_are_found():
    """All four within 0.1 doublings, which is what the module says of its smoothing length."""
    curve = through_levels(TRUE_LEVELS)
    assert doublings(boundaries(curve), PUBLISHED_BOUNDARIES[1:-1]).max() < 0.1


def test_boundaries_elsewhere_are_found_there():
    wanted = (1_500, 4_000, 7_000, 20_000)
    curve = through_levels((10, 60, 90, 80, 110, 111), (0, *wanted, 50_000))
    assert doublings(boundaries(curve), wanted).max() < 0.06


def test_noise_moves_them_little():
    """Noise of 0.1; the fall of 0.84 in two thousand steps has a slope of 3 there. False alarm below 1e-3 by draws."""
    noisy = through_levels(TRUE_LEVELS) + 0.1 * np.random.default_rng(0).standard_normal(len(LABELS))
    assert doublings(boundaries(noisy)[1:3], (6_500, 8_500)).max() < 0.12


def test_a_curve_that_only_climbs_has_no_stages():
    assert np.isnan(boundaries(log_step(LABELS) * 10)).all()


def test_a_constant_curve_is_smoothed_to_itself():
    curve = np.full(len(LABELS), 7.0)
    smoother = fit_smoother(LABELS, curve)
    assert np.allclose(smoother.curves(curve[KEPT]), 7.0)
    assert np.abs(smoother.slopes(curve[KEPT])).max() < 1e-4


def test_the_slope_is_the_curve_s_derivative():
    values = through_levels(TRUE_LEVELS)
    smoother = fit_smoother(LABELS, values)
    curve, slope = smoother.curves(values[KEPT]), smoother.slopes(values[KEPT])
    inner = slice(50, -50)
    assert np.allclose(np.gradient(curve, smoother.grid)[inner], slope[inner], atol=0.05 * np.abs(slope).max())


def test_smoothing_equals_a_library_s():
    """scikit-learn's Gaussian process with the same kernel, noise and mean gives the same curve."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    steps = np.arange(100, 10_000, 200)
    values = np.sin(log_step(steps)) * 5 + 0.1 * np.random.default_rng(1).standard_normal(len(steps))
    own = fit_smoother(steps, values, 0.4)
    kernel = ConstantKernel(1.0, (1e-4, 1e6)) * RBF(0.4, "fixed") + WhiteKernel(1e-2, (1e-9, 1e3))
    other = GaussianProcessRegressor(kernel, n_restarts_optimizer=2, random_state=0)
    other.fit(own.positions[:, None], values - values.mean())
    expected = other.predict(own.grid[:, None]) + values.mean()
    assert np.abs(own.curves(values) - expected).max() < 0.02


def test_too_few_checkpoints_are_refused():
    with pytest.raises(ValueError, match="expected 10 checkpoints or more, found 5"):
        fit_smoother(np.arange(1, 6) * 100, np.zeros(5))


def published_procedure(losses, n_beta):
    """Chain after chain, draw after draw, with a running mean: what the authors' code does, told step by step."""
    chains, draws = losses.shape
    seen, running = np.zeros_like(losses), np.zeros_like(losses)
    for chain in range(chains):
        for draw in range(draws):
            seen[chain, draw] = losses[chain, draw]
            if draw:
                initial = seen[:, 0].mean()
                step = (draw * running[chain, draw - 1]) + n_beta * (losses[chain, draw] - initial)
                running[chain, draw] = step / (draw + 1)
    return running[:, -1]


def test_the_estimator_equals_the_published_procedure():
    losses = np.random.default_rng(0).normal(4.0, 0.5, (6, 15))
    small = FirstGeneration(chains=6, draws=15)
    assert np.allclose(small.estimate(losses), published_procedure(losses, small.n_beta))


@settings(max_examples=25, deadline=None)
@given(chains=st.integers(2, 30), draws=st.integers(2, 50), loss=st.floats(0.5, 9.0), llc=st.floats(0.0, 300.0))
def test_chains_that_agree_perfectly_show_the_derived_excess_and_spread(chains, draws, loss, llc):
    setting = FirstGeneration(chains=chains, draws=draws)
    losses = np.full((chains, draws), loss + llc / setting.n_beta)
    losses[:, 0] = loss
    found, right = setting.estimate(losses), setting.estimate_right(losses)
    assert found.std(ddof=1) == pytest.approx(setting.spread * loss)
    assert found.mean() - right.mean() == pytest.approx(setting.excess * loss)
    assert right.std() < 1e-9
    assert setting.corrected(found.mean(), loss) == pytest.approx(right.mean())


def test_the_published_settings_give_the_derived_numbers():
    setting = FirstGeneration()
    assert setting.n_beta == pytest.approx(100 / math.log(100))
    assert (round(setting.spread, 2), round(setting.excess, 2)) == (6.39, 10.26)


def test_stages_of_a_planted_run(run):
    found = stages(run)
    table = found.table()
    assert doublings(2 ** table.arrays["y"][1:3], (6_500, 8_500)).max() < 0.15
    assert (table.arrays["low"] <= table.arrays["y"]).all()
    assert (table.arrays["y"] <= table.arrays["high"]).all()
    true = np.diff(TRUE_LEVELS) * (1 - 1 / FirstGeneration().draws)
    assert np.abs(found.changes(corrected=True).arrays["y"] - true).max() < 1.2
    assert found.spread().measurement.value == pytest.approx(6.39, abs=0.05)


def test_the_right_estimator_has_no_spread_to_follow(run):
    control = stages(run).spread().controls["estimator with one initial loss"]()
    assert control.value < 0.5


def test_wrong_labels_leave_no_fall_behind(run):
    finding = stages(run).fall()
    assert finding.measurement.interval.high < 0
    control = finding.controls["shuffled steps"]()
    assert control.interval.low < 0 < control.interval.high


def test_the_correction_takes_off_a_multiple_of_the_loss(run):
    published, corrected = llc_of(run), llc_of(run, corrected=True)
    taken = published.values - corrected.values
    assert np.allclose(taken, FirstGeneration().excess * through_levels(LOSS_LEVELS)[: len(taken)])
    assert stage_changes(published.steps, published.values)[FALL] < 0


def test_planted_heads_lead_and_form_in_order(run):
    found = heads(run)
    assert found.leaders("previous").measurement.value == "0:1, 0:4"
    assert found.leaders("prefix").measurement.value == "1:6, 1:7"
    table = found.formation().measurement
    assert table.value == "previous-token > induction"
    assert np.allclose(table.facts["half"], (9_000, 12_000), rtol=0.12)
    shuffled = found.formation().controls["shuffled steps"]()
    assert shuffled.support.get("previous-token > induction", 0.0) < 0.9


def test_a_type_that_never_forms_gives_no_order(run):
    """A run that never trained has no typed heads: nothing is concluded from which score wobbled first."""
    table = formation(Rearranged(run, frozen=True), draws=20, seed=0)
    assert (table.status, table.value) == ("partial", "neither")
    assert table.facts["half"] == [None, None]


def test_labels_that_move_never_leave_a_pair_as_it_was(run):
    """Whatever the shift, the two leading heads' names are not those of the run."""
    right = Rearranged(run, shuffle="heads", seed=1)
    for seed in range(20):
        values = right.head_scores("previous").draw(np.random.default_rng(seed))
        assert set(np.argsort(-values[-1, 0])[:2].tolist()) != {1, 4}


def test_a_run_that_never_trained_stays_at_its_first_checkpoint(run):
    frozen = Rearranged(run, frozen=True).k_composition()
    assert (frozen.values == frozen.values[0]).all()
    assert frozen.values[0, 0, 0] == run.k_composition().values[0, 0, 0]


def test_half_of_a_rise():
    steps = np.array([0, 100, 200, 300])
    assert last_half_rise(steps, np.array([1.0, 0.0, 0.0, 2.0])) == pytest.approx(245, abs=3)
    assert last_half_rise(steps, np.array([3.0, 2.0, 1.0, 0.0])) == float("inf")


def test_curves_out_of_order_are_refused():
    with pytest.raises(ValueError, match="in rising order"):
        RunCurves(np.array([0, 0]), np.zeros(2), lambda _: np.zeros(2), "")


def test_half_rises_between_the_same_two_checkpoints_are_no_order(run):
    """The planted order is seen at every checkpoint, and not where there is one before and one after both rises."""

    class Coarse:
        def __getattr__(self, name):
            return getattr(run, name)

        def identity(self):
            return {**run.identity(), "checkpoints": "first and last"}

        def head_scores(self, score):
            full = run.head_scores(score)
            ends = [0, len(full.steps) - 1]
            return RunCurves(full.steps[ends], full.values[ends], lambda rng: full.draw(rng)[ends], full.method, 2)

    assert formation(run, draws=20, seed=0).support == {"previous-token > induction": 1.0}
    table = formation(Coarse(), draws=20, seed=0)
    assert table.value == "not resolved by the checkpoints"
    assert "previous-token > induction" not in table.support
