"""Probes: the grid against autograd and scikit-learn, the planted period found, shuffled indices not learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from circuit_claims.heads.probes import (
    MODULI,
    ProbeSettings,
    probe_rows,
    shuffled_index,
    train_probes,
)
from circuit_claims.judging.statistics import binomial_interval
from circuit_claims.papers.successor_heads.counting.probes_transfer import (
    Asked,
    modulus_of_the_probes,
    out_of_distribution,
    successes_in_task,
)

from tests.heads.plain_probes import train_one_probe
from tests.successor_heads.counting.counters import PERIODS, counter


def circle(n: int = 120, d_model: int = 16, period: int = 10, noise: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors with a circle of a period in the first two dimensions, noise everywhere."""
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(n)
    x = noise * torch.randn(n, d_model, generator=generator)
    angle = 2 * torch.pi * index / period
    x[:, :2] += torch.stack([angle.cos(), angle.sin()], dim=1)
    return x, index


def test_the_grid_equals_autograd_one_by_one() -> None:
    x, index = circle()
    chosen = ProbeSettings(epochs=5)
    grid = train_probes(x, index, [4, 9], MODULI, chosen)
    for row, seed in enumerate(grid.seeds):
        for modulus in MODULI:
            alone = train_one_probe(x, index, seed, modulus, chosen)
            here = grid.columns(modulus)
            assert (grid.weights[row, here] - alone.weights[0]).abs().max() < 1e-4
            assert (grid.bias[row, here] - alone.bias[0]).abs().max() < 1e-4
    assert grid.weights.abs().max() > 0.005


def test_a_probe_does_not_depend_on_its_company() -> None:
    x, index = circle()
    chosen = ProbeSettings(epochs=5)
    grid = train_probes(x, index, [0, 1, 2], MODULI, chosen)
    alone = train_probes(x, index, [1], [10], chosen)
    assert (grid.weights[1, grid.columns(10)] - alone.weights[0]).abs().max() < 1e-4


def test_a_converged_probe_is_scikit_learns_logistic_regression() -> None:
    """Noisy labels leave the data inseparable, so that the loss has one minimum; the residues' common shift is free."""
    from sklearn.linear_model import LogisticRegression

    x, index = circle(300, d_model=4, noise=1.0)
    chosen = ProbeSettings(learning_rate=0.02, batch=270, epochs=1500)
    ours = train_probes(x, index, [0], [5], chosen)
    kept = ours.trained[0].numpy()
    inside = ((x - ours.centre) * ours.scale).numpy()
    theirs = LogisticRegression(C=np.inf, tol=1e-8, max_iter=2000).fit(inside[kept], index.numpy()[kept] % 5)
    probabilities = ours.logits(x, 5)[0].softmax(1).numpy()
    assert np.abs(probabilities - theirs.predict_proba(inside)).max() < 2e-3


@pytest.mark.parametrize("period", PERIODS)
def test_the_planted_period_is_found_and_others_are_not(period: int) -> None:
    """Held-out numbers: all of them at the planted period, no more than chance allows at the others.

    False alarm: the upper end of the 99.9 % binomial interval of 4 x 12 guesses, for each of two moduli.
    """
    here = counter(period)
    index = torch.from_numpy(here.tokens.index)
    probes = train_probes(here.vectors, index, [0, 1, 2, 3])
    left_out = probes.held_out(len(index))

    def right(modulus: int) -> np.ndarray:
        return (probes.predictions(here.vectors, modulus) == here.residues(modulus))[left_out]

    assert binomial_interval(int(right(period).sum()), right(period).size)[0] > 0.9
    for other in {7, 12, 10} - {period}:
        assert right(other).mean() <= binomial_interval(right(other).size // other + 1, right(other).size, 0.999)[1]


def test_shuffled_indices_are_not_learned() -> None:
    here = counter(10)
    index = torch.from_numpy(here.tokens.index)
    seeds = [0, 1, 2, 3]
    labels = shuffled_index(index, seeds)
    assert all(sorted(row.tolist()) == sorted(index.tolist()) for row in labels)
    probes = train_probes(here.vectors, labels, seeds, [10])
    right = probes.predictions(here.vectors, 10) == (labels % 10).numpy()
    left_out = probes.held_out(len(index))
    assert binomial_interval(int(right[left_out].sum()), int(left_out.sum()))[0] < 0.2


def test_shuffling_moves_forms_of_one_number_together() -> None:
    index, groups = torch.tensor([5, 5, 6, 6, 1, 2]), torch.tensor([0, 0, 0, 0, 1, 1])
    (new,) = shuffled_index(index, [3], groups)
    assert new[0] == new[1]
    assert new[2] == new[3]
    assert {int(new[0]), int(new[2])} == {5, 6}
    assert {int(new[4]), int(new[5])} == {1, 2}


def test_the_report_out_of_distribution() -> None:
    """A circle of period 10 carries over to new tokens with the same code, and to nothing at 7."""
    x, index = circle(200, d_model=4, noise=0.05)
    probes = train_probes(x, index, [0, 1, 2], [7, 9, 10], ProbeSettings(epochs=60, learning_rate=0.02))
    other, places = circle(40, d_model=4, noise=0.05)
    asked = Asked(other, places.numpy(), tuple(map(str, range(40))), ("days",) * 7 + ("words",) * 33)
    found = out_of_distribution(probes, asked, 10)
    assert found.value == 1.0
    assert found.facts["failures"] == []
    assert found.facts["by task"] == {"days": [7.0, 7], "words": [33.0, 33]}
    assert out_of_distribution(probes, asked, 7).interval.high < 0.5
    assert len(out_of_distribution(probes, asked, 7).facts["failures"]) > 20
    assert successes_in_task(probes, asked, "days", 10).value == 7
    with pytest.raises(ValueError, match="expected one of days, words"):
        successes_in_task(probes, asked, "months", 10)
    best = modulus_of_the_probes(probes, asked, x, index.numpy())
    assert best.value == "10"
    assert best.support["10"] == pytest.approx(1.0)
    assert best.facts["least drop"] == 10


def test_rows_are_the_directions_of_the_residues() -> None:
    x, index = circle(200, d_model=2, noise=0.05)
    rows = probe_rows(train_probes(x, index, [0, 1], [10], ProbeSettings(epochs=60, learning_rate=0.02)))
    angle = 2 * torch.pi * torch.arange(10) / 10
    planted = torch.stack([angle.cos(), angle.sin()], dim=1)
    assert (rows[:, :2] * planted).sum(1).min() > 0.9
    assert torch.allclose(rows.norm(dim=1), torch.ones(10), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"moduli": [1]}, "moduli of 2 or more"),
        ({"index": torch.full((120,), -1)}, "indices of 0 or more"),
        ({"index": torch.arange(7)}, "one index a vector"),
        ({"seeds": []}, "a seed"),
    ],
    ids=str,
)
def test_what_cannot_be_learned_is_refused(change, words) -> None:
    x, index = circle()
    with pytest.raises((ValueError, RuntimeError), match=words):
        train_probes(x, **{"index": index, "seeds": [0], **change})


def test_a_modulus_that_was_not_trained_is_refused() -> None:
    x, index = circle()
    with pytest.raises(ValueError, match="expected one of 5, 6, found 10"):
        train_probes(x, index, [0], [5, 6], ProbeSettings(epochs=1)).columns(10)
