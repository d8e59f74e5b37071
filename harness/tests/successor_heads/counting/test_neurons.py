"""Neurons: values and ablations against the plain model, planted periods found, shuffled indices and noise refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from circuit_claims.heads.planted import random_tensors, small_config
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.papers.successor_heads.counting.features import head_logits, successor_probability
from circuit_claims.papers.successor_heads.counting.neurons import (
    ablation_drops,
    commonest_period,
    explained_by_period,
    hidden_of,
    neuron_periods,
    neuron_values,
    spectra,
)
from circuit_claims.papers.successor_heads.counting.tokens import NOBODY

from tests.helpers.small_models import ARCHITECTURES
from tests.successor_heads.counting.counters import PERIODS, counter, shuffled


@pytest.fixture(params=ARCHITECTURES)
def weights(request) -> CircuitWeights:
    """A small random model of each architecture."""
    return CircuitWeights.open(random_tensors(small_config(request.param, 20, 24), torch.Generator().manual_seed(0)))


def test_neurons_make_up_mlp0(weights: CircuitWeights) -> None:
    x = weights.embed(torch.arange(24))
    mlp = weights.mlp(0)
    assert torch.allclose(mlp.post_norm(mlp.out(neuron_values(weights, x))), weights.mlp0(x), atol=1e-5)


def test_an_ablation_is_a_zeroed_column_of_the_output_matrix(weights: CircuitWeights) -> None:
    """Against the plain thing: the MLP without that column, run again."""
    tokens = torch.arange(6)
    x, logits = weights.embed(tokens), head_logits(weights, (1, 2), torch.arange(24))
    successors = torch.tensor([1, 2, NOBODY, 4, 5, 0])
    mlp = weights.mlp(0)
    drops = ablation_drops(mlp, hidden_of(mlp, x), successors, logits)
    whole = successor_probability(logits(mlp(x)), successors)
    for neuron in (0, 7, drops.shape[1] - 1):
        columns = mlp.out.weight.clone()
        columns[:, neuron] = 0
        without = replace(mlp, out=replace(mlp.out, weight=columns))
        expected = whole - successor_probability(logits(without(x)), successors)
        assert drops[:, neuron] == pytest.approx(expected.numpy(), abs=1e-5)
    assert (drops[2] == 0).all()
    assert np.abs(drops).max() > 1e-4


@pytest.mark.parametrize("period", PERIODS)
def test_the_planted_period_is_the_commonest_and_a_shuffled_index_has_none(period: int) -> None:
    here = counter(period)
    mlp = here.weights.mlp(0)
    hidden = neuron_values(here.weights, here.weights.embed(torch.from_numpy(here.tokens.tokens)))
    drops = ablation_drops(mlp, hidden, here.successors, here.logits)
    # As many neurons as residues are planted; behind them come those of the slow magnitude code, with its wavelengths.
    found = commonest_period(hidden, drops, here.tokens.index, top=period, shuffles=199, alpha=0.1)
    assert found.value == period
    assert (found.interval.low, found.interval.high) == (period, period)
    assert found.support == {str(period): 1.0}
    periodic = found.arrays["p_value"] < 0.1 / period
    assert periodic.sum() == found.facts["periodic"] >= 3
    assert (found.arrays["period"][periodic] == period).mean() > 0.5
    control = commonest_period(hidden, drops, shuffled(here.tokens.index), shuffles=199, alpha=0.1)
    assert control.value != period
    assert control.facts["periodic"] <= 2  # 16 curves at 0.1 / 16 each: three or more in 0.02 % of shuffles


def test_a_comb_keeps_its_period_and_a_sine_shows_in_its_spectrum() -> None:
    """Spikes every ten indices have power at 1/10, 2/10, ...: their period is ten all the same."""
    positions = np.arange(100)
    comb = (positions % 10 == 3).astype(float)
    sine = np.sin(2 * np.pi * positions / 10) + 0.02 * positions
    curves = np.stack([comb, sine], axis=1)
    explained = explained_by_period(positions, curves)
    assert explained[10 - 2] == pytest.approx([1.0, 1.0], abs=0.01)
    assert explained[5 - 2].max() < 0.6
    assert spectra(curves)[:, 1].argmax() == 9  # frequency 10 / 100
    assert spectra(curves)[:, 1].sum() == pytest.approx(1.0)
    assert np.isnan(explained_by_period(positions[:20], curves[:20])[-1]).all()


def test_noise_has_a_period_as_often_as_the_test_allows() -> None:
    """200 curves of white noise at level 0.1: more than 34 significant ones have probability 0.002."""
    generator = np.random.default_rng(0)
    hidden = torch.from_numpy(generator.normal(size=(60, 200)))
    found = neuron_periods(hidden, np.ones((1, 200)), np.arange(60), generator, top=200, shuffles=99)
    assert 6 <= (found.p_value <= 0.1).sum() <= 34


def test_too_few_indices_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 indices, found 3"):
        neuron_periods(torch.zeros(3, 2), np.zeros((3, 2)), np.arange(3), np.random.default_rng(0))


def explained_class_by_class(positions: np.ndarray, curves: np.ndarray, period: int) -> np.ndarray:
    """The plain form: the mean of each residue class in turn, what is left around it, and the classes paid for."""
    line = np.stack([np.ones(len(positions)), positions - positions.mean()], axis=1)
    level = curves - line @ np.linalg.lstsq(line, curves, rcond=None)[0]
    classes, left = positions % period, np.zeros(curves.shape[1])
    for residue in np.unique(classes):
        members = level[classes == residue]
        left += ((members - members.mean(0)) ** 2).sum(0)
    n, present = len(positions), len(np.unique(classes))
    return 1 - left / (level**2).sum(0) * (n - 1) / (n - present)


@pytest.mark.parametrize("positions", [np.arange(1, 101), np.arange(3, 200, 7), np.arange(0, 90, 6)])
def test_class_means_of_all_periods_are_those_of_one_class_after_the_other(positions) -> None:
    """With every residue present, and where the positions leave some out."""
    curves = np.random.default_rng(0).normal(size=(len(positions), 5)) + 0.1 * positions[:, None]
    found = explained_by_period(positions, curves, PERIODS)
    for row, period in enumerate(PERIODS):
        if len(positions) < 2 * period:
            assert np.isnan(found[row]).all()
        else:
            assert found[row] == pytest.approx(explained_class_by_class(positions, curves, period), abs=1e-10)


def test_a_neuron_that_never_changes_has_no_period() -> None:
    """All that is left of its curve is rounding; it must not look explained."""
    constant = np.full((100, 3), [0.0, 0.1, 1e6])
    assert np.abs(np.nan_to_num(explained_by_period(np.arange(100), constant, PERIODS))).max() < 0.2
