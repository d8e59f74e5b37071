"""Sudden and gradual training curves whose answer is known, straight from numbers and from small saved models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from circuit_claims.heads.planted import TensorTable, plant, random_tensors, small_config
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.models.files.tensors import TensorSource, open_tensors
from circuit_claims.papers.successor_heads.beyond.emergence import (
    EmergenceCurve,
    emergence_curve,
    in_doublings,
    rises_within_a_doubling,
    steepest_share,
)
from circuit_claims.papers.successor_heads.dataset import succession
from circuit_claims.papers.successor_heads.succession.score import SuccessorScores
from circuit_claims.papers.successor_heads.succession.sweep import sweep_heads
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.successor_heads.test_score import many_token_scores
from tests.successor_heads.test_sweep import CYCLIC, ORDERS, VOCABULARY

STEPS = [0, *(2**power for power in range(11))]  # Pythia's early revisions, and on to 1024


def revisions_of(chances: list[float], seed: int = 0, tokens: int = 300) -> list[SuccessorScores]:
    """Scores of two heads over training: the first passes each token from the revision where its chance allows."""
    ease = np.random.default_rng(seed).random((2, tokens))
    base = many_token_scores(np.zeros(2), tokens, np.random.default_rng(seed))
    fields = {name: getattr(base, name) for name in base.__dataclass_fields__}
    return [SuccessorScores(**fields | {"hits": ease < [[chance], [0.05]]}) for chance in chances]


def test_a_sudden_rise_is_seen_and_placed():
    curve = emergence_curve(STEPS, revisions_of([0.02] * 6 + [0.9] * 6), metric="score")
    assert curve.head == "L0H0"
    assert curve.steepest == pytest.approx(1.0, abs=1e-9)
    assert curve.steepest_interval[0] > 0.95
    assert 15 <= curve.steepest_from <= 32  # the jump lies between steps 16 and 32
    assert curve.support == 1.0


def test_a_gradual_rise_is_not_sudden():
    """An even rise over ten doublings: a tenth in each; noise may lift the largest, but not to a third."""
    chances = (0.02 + 0.88 * in_doublings(STEPS) / in_doublings(STEPS)[-1]).tolist()
    curve = emergence_curve(STEPS, revisions_of(chances), metric="score")
    assert 1 / 11 < curve.steepest < 0.2
    assert curve.steepest_interval[1] < 0.33
    assert np.all((curve.low <= curve.value) & (curve.value <= curve.high))
    assert curve.widest_gap == 1.0


def test_even_jump_and_overshoot_have_the_shares_they_must():
    even = np.arange(9.0)
    assert steepest_share(even, even) == pytest.approx(1 / 8)
    jump = (even >= 4).astype(float)
    assert steepest_share(even, jump) == 1.0
    assert steepest_share(even, jump + (even == 5)) == 1.0
    assert steepest_share(even, jump + 2 * (even == 6)) == 2.0
    assert steepest_share(even, -even) == np.inf
    assert steepest_share(even[:3] / 4, even[:3]) == 1.0  # a series shorter than a doubling


def test_a_jump_in_a_wide_gap_is_spread_over_it():
    """What was not looked at cannot be called sudden: four doublings without a revision give at most a quarter each."""
    coarse = np.array([0.0, 4.0, 8.0])
    assert steepest_share(coarse, np.array([0.0, 1.0, 1.0])) == pytest.approx(0.25)


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.floats(0.05, 3.0), min_size=2, max_size=8),
    heights=st.lists(st.floats(0.0, 1.0), min_size=9, max_size=9),
)
def test_the_windows_at_revisions_hold_the_largest_rise(gaps, heights):
    """Against a fine grid of windows, and invariant to where the score starts and to its unit."""
    x = np.concatenate([[0.0], np.cumsum(gaps)])
    y = np.asarray(heights[: len(x)])
    grid = np.linspace(0.0, max(x[-1] - 1.0, 0.0), 500)
    by_grid = (np.interp(np.minimum(grid + 1.0, x[-1]), x, y) - np.interp(grid, x, y)).max()
    _, rises = rises_within_a_doubling(x, y)
    assert rises.max() >= by_grid - 1e-9
    assert rises_within_a_doubling(x, 3 * y + 2)[1].max() == pytest.approx(3 * rises.max(), abs=1e-9)


def save(table: TensorTable, folder: Path) -> TensorSource:
    folder.mkdir()
    tensors = {name: tensor.contiguous() for name, tensor in table.tensors.items()}
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(table.config)), encoding="utf-8")
    return open_tensors(folder)


def train(learnt: list[int], folder: Path) -> EmergenceCurve:
    """Saved revisions of one small model, in which the head has learnt the first `learnt[k]` lists at revision k."""
    start = random_tensors(small_config("llama", 24, 24), torch.Generator().manual_seed(0))
    scores = []
    for place, lists in enumerate(learnt):
        generator = torch.Generator().manual_seed(1)
        chosen, cyclic = ORDERS[:lists], CYCLIC[:lists]
        table = plant(start, chosen, head=(1, 2), generator=generator, cyclic=cyclic) if lists else start
        weights = CircuitWeights.open(save(table, folder / f"step{place}"))
        scores.append(sweep_heads(weights, succession(VOCABULARY), bootstrap_draws=200, shuffles=2).scores)
    return emergence_curve([4**place - 1 for place in range(len(learnt))], scores, metric="score")


def test_saved_models_that_learn_at_once_and_list_by_list(tmp_path):
    """Revisions two doublings apart: all lists in one gap is half the rise in a doubling, a list at a time less."""
    (tmp_path / "sudden").mkdir()
    (tmp_path / "gradual").mkdir()
    sudden = train([0, 0, 3, 3], tmp_path / "sudden")
    gradual = train([0, 1, 2, 3], tmp_path / "gradual")
    assert sudden.head == gradual.head == "L1H2"
    assert sudden.value[-1] == gradual.value[-1] == 1.0
    assert sudden.widest_gap == 2.0
    assert sudden.steepest == pytest.approx(0.5)
    assert gradual.steepest < 0.3
    assert gradual.steepest_interval[1] < sudden.steepest_interval[0]


def test_series_that_cannot_be_compared_are_refused():
    good = revisions_of([0.1, 0.5, 0.9])
    with pytest.raises(ValueError, match="at least 3 revisions"):
        emergence_curve([0, 1], good[:2])
    with pytest.raises(ValueError, match=r"rising order, found \[0, 2, 1\]"):
        emergence_curve([0, 2, 1], good)
    with pytest.raises(ValueError, match="found others at step 2"):
        emergence_curve([0, 1, 2], [*good[:2], *revisions_of([0.9], seed=3)])
