"""Comparing a cell with another measurement of it: as many false alarms as stated, on chains whose truth is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from circuit_claims.llc.sgld import SGLDSettings
from circuit_claims.papers.refined_llc.recording.cells import BLOCKS, NUMBERS, Cell, CellKey
from circuit_claims.papers.refined_llc.recording.compare import (
    CellComparison,
    block_error,
    compare_cells,
    memory,
    refuse_differences,
)
from circuit_claims.papers.refined_llc.recording.compare import RecordedCellDiffers as Differs

PAPER = SGLDSettings(30.0, 200.0, 1e-3, batch_size=8)
SLOW = replace(PAPER, gamma=50.0, eps=3e-4)
CURVATURES = np.array([0.0, 0.0, 2.0, 10.0, 40.0])  # flat directions forget slowest


def sampled(settings, cells, generator, batch_noise=0.3):
    """Block means of SGLD on a quadratic loss from w* = 0, four chains a cell: (cell, chain, block)."""
    pull = settings.n_beta * CURVATURES + settings.gamma
    w = np.zeros((cells, settings.num_chains, len(CURVATURES)))
    draws = np.empty((cells, settings.num_chains, settings.num_draws))
    for step in range(settings.num_draws):
        # A draw is read on its batch, and what the batch adds goes with the loss itself.
        excess = (0.5 * (CURVATURES + 1.0) * w**2).sum(-1)
        draws[..., step] = settings.n_beta * excess * (1 + batch_noise * generator.normal(size=excess.shape))
        w += -settings.eps / 2 * pull * w + math.sqrt(settings.eps) * generator.normal(size=w.shape)
    return np.stack([part.mean(-1) for part in np.array_split(draws, BLOCKS, axis=-1)], -1)


def as_cell(trace):
    numbers = dict.fromkeys(NUMBERS, 1.0) | {"mean": float(trace.mean())}
    return Cell(CellKey("9", "1:6", "code"), numbers, trace.mean(1), trace, "complete", seed=0)


@pytest.mark.parametrize("settings", [PAPER, SLOW], ids=["paper's setting", "slow chains"])
def test_alarms_come_as_often_as_stated(settings):
    """At 0.01, 3,000 pairs: 30 are due; more than 60, or fewer than 3, come once in ten million."""
    generator = np.random.default_rng(0)
    pairs = sampled(settings, 6_000, generator).reshape(3_000, 2, 4, BLOCKS)
    found = [compare_cells(as_cell(one), as_cell(other), settings, false_alarm=0.01) for one, other in pairs]
    alarms = sum(not one.agrees for one in found)
    assert 3 <= alarms <= 60


def test_it_is_far_tighter_than_four_means_allow():
    """By blocks of draws instead of four means a side, at the false alarm that runs have."""
    from scipy.stats import t

    traces = sampled(PAPER, 200, np.random.default_rng(1)).reshape(100, 2, 4, BLOCKS)
    found = [compare_cells(as_cell(one), as_cell(other), PAPER) for one, other in traces]
    wide = [float(t.ppf(1 - 5e-5, 6)) * math.hypot(*(one.mean(1).std(ddof=1) / 2 for one in pair)) for pair in traces]
    assert np.median([one.allowed for one in found]) < 0.65 * np.median(wide)


def test_a_change_of_six_joint_errors_is_seen():
    """The bound lies at about 4.4 of them, so one in twenty slips through; more than 30 of 200 once in a million."""
    generator = np.random.default_rng(2)
    traces = sampled(PAPER, 400, generator).reshape(200, 2, 4, BLOCKS)
    missed = 0
    for one, other in traces:
        shift = 6 * math.hypot(block_error(one, PAPER)[0], block_error(other, PAPER)[0])
        missed += compare_cells(as_cell(one), as_cell(other + shift), PAPER).agrees
    assert missed <= 30


def test_chains_that_remember_everything_leave_their_own_means():
    error, freedom = block_error(np.random.default_rng(0).normal(size=(4, BLOCKS)), replace(PAPER, gamma=0.0))
    assert (memory(replace(PAPER, gamma=0.0), BLOCKS), freedom) == (BLOCKS, 3.0)
    assert error > 0


def test_a_diverged_chain_is_left_out_and_one_alone_says_nothing():
    trace = np.random.default_rng(0).normal(size=(4, BLOCKS))
    trace[0] = np.nan
    assert block_error(trace, PAPER) == block_error(trace[1:], PAPER)
    assert block_error(trace[:2], PAPER) == (math.inf, 1.0)
    assert compare_cells(as_cell(trace[1:]), as_cell(trace[:2]), PAPER).allowed == math.inf


@pytest.mark.parametrize(("recorded", "live", "agrees"), [(math.nan,) * 2 + (True,), (1.0, math.nan, False)])
def test_cells_whose_chains_all_diverged_agree_with_their_like_alone(recorded, live, agrees):
    assert CellComparison(CellKey("9", "1:6", "code"), recorded, live, math.inf).agrees is agrees


def test_the_blanks_that_a_table_pads_few_draws_with_count_for_nothing():
    trace = np.random.default_rng(0).normal(size=(4, 12))
    padded = np.concatenate([trace, np.full((4, BLOCKS - 12), np.nan)], 1)
    assert block_error(padded, PAPER) == block_error(trace, PAPER)


def test_what_all_chains_do_alike_is_no_noise():
    trace = np.random.default_rng(0).normal(size=(4, BLOCKS))
    assert block_error(trace + np.linspace(-50, 0, BLOCKS), PAPER)[0] == pytest.approx(block_error(trace, PAPER)[0])


def test_every_cell_that_differs_is_named():
    trace = np.random.default_rng(0).normal(size=(4, BLOCKS))
    far = compare_cells(as_cell(trace), as_cell(trace + 100), PAPER)
    near = compare_cells(as_cell(trace), as_cell(trace), PAPER)
    refuse_differences([near])
    with pytest.raises(Differs, match="1 recorded cell differs") as error:
        refuse_differences([near, far])
    assert "1:6 at 9 on code" in str(error.value)
    assert "--remeasure" in str(error.value)
