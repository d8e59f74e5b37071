"""The affine lens on planted maps, the path without a head on planted readouts, and residuals through a real bridge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from circuit_claims.heads.ov_circuit import headless_logits
from circuit_claims.heads.planted import planted_model, random_tensors, small_config
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.models.bridge import load_plain
from circuit_claims.models.resolve import resolve
from circuit_claims.papers.successor_heads.dataset import succession
from circuit_claims.papers.successor_heads.succession.lens import (
    Residuals,
    answers_lens,
    collect_residuals,
    fit_affine_lens,
    fit_affine_lenses,
    fit_text_lens,
    headless_scores,
    static_inputs,
    token_windows,
)

from tests.helpers.small_models import ARCHITECTURES, save_small_model
from tests.successor_heads.test_sweep import CYCLIC, ORDERS, VOCABULARY
from tests.successor_heads.toy import slow_scores


def planted_map(n: int = 400, d: int = 12, noise: float = 0.0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator) * torch.logspace(-1, 1, d) + 3.0
    weight, bias = torch.randn(d, d + 2, generator=generator), torch.randn(d + 2, generator=generator)
    return x, weight, bias, x @ weight + bias + noise * torch.randn(n, d + 2, generator=generator)


def test_a_planted_affine_map_is_found():
    x, weight, bias, y = planted_map()
    lens = fit_affine_lens(x, y, ridge=1e-10)
    torch.testing.assert_close(lens.weight, weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(lens.bias, bias, rtol=1e-4, atol=1e-3)
    assert lens.r_squared == pytest.approx(1.0, abs=1e-6)
    assert (lens.fitted, lens.held_out) == (320, 80)


def test_where_there_is_no_map_the_lens_explains_nothing_held_out():
    """320 rows of noise on 12 inputs: the lens explains about -12/320 of what was held out."""
    x, *_ = planted_map()
    noise = torch.randn(400, 14, generator=torch.Generator().manual_seed(9))
    lens = fit_affine_lens(x, noise)
    assert -0.15 < lens.r_squared < 0.0
    assert lens.baseline < 0.0


def test_the_fit_solves_the_ridge_equations():
    """Against numpy's least squares on rows extended by the penalty."""
    x, _, _, y = planted_map(noise=1.0)
    lens = fit_affine_lens(x, y, ridge=0.1, held_out=0.25)
    kept = x[:300].double().numpy()
    centred, wanted = kept - kept.mean(0), y[:300].double().numpy() - y[:300].double().numpy().mean(0)
    penalty = np.sqrt(0.1 * np.mean((centred**2).sum(0))) * np.eye(12)
    expected = np.linalg.lstsq(np.vstack([centred, penalty]), np.vstack([wanted, np.zeros((12, 14))]), rcond=None)[0]
    np.testing.assert_allclose(lens.weight.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_constant_inputs_leave_the_mean():
    lens = fit_affine_lens(torch.ones(10, 3), torch.arange(10.0)[:, None], held_out=0.0)
    torch.testing.assert_close(lens(torch.ones(1, 3)), torch.tensor([[4.5]]))
    assert np.isnan(lens.r_squared)


def test_rows_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="found 3 inputs, 4 targets"):
        fit_affine_lens(torch.zeros(3, 2), torch.zeros(4, 2))


def test_windows_are_consecutive_and_whole():
    assert token_windows(list(range(10)), 3, 5).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert token_windows(list(range(10)), 3, 2).shape == (2, 3)
    with pytest.raises(ValueError, match="text of 2 tokens: expected at least one window of 3"):
        token_windows([1, 2], 3, 1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_plain_readout_equals_the_circuits_own(architecture):
    weights = CircuitWeights.open(
        random_tensors(small_config(architecture, 24, len(VOCABULARY)), torch.Generator().manual_seed(3))
    )
    dataset = succession(VOCABULARY)
    scores = headless_scores(weights, dataset, generator=np.random.default_rng(0), bootstrap_draws=2)
    everything = torch.arange(len(VOCABULARY))
    table = headless_logits(weights, everything, everything).numpy()
    expected = slow_scores(table, dataset, exclude_self=False)
    assert (scores.score[0], scores.macro_score[0], scores.copy_score[0]) == pytest.approx(expected)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma3_text"])
def test_a_lens_fitted_on_the_answers_scores_high_and_the_plain_readout_does_not(architecture):
    """What the lens could do if the answer were there to be read: the control that SH-08 needs."""
    table = planted_model(ORDERS, generator=torch.Generator().manual_seed(1), architecture=architecture, cyclic=CYCLIC)
    weights, dataset = CircuitWeights.open(table), succession(VOCABULARY)
    rng = np.random.default_rng(0)
    answers = headless_scores(weights, dataset, generator=rng, lens=answers_lens(weights, dataset), bootstrap_draws=2)
    plain = headless_scores(weights, dataset, generator=rng, bootstrap_draws=2)
    assert answers.score[0] > 0.9
    assert plain.score[0] < 0.5


def test_a_text_in_which_every_token_is_followed_by_its_successor_teaches_the_lens_to_count():
    """Planted residuals: the final residual at each token unembeds to its successor; unrelated ones do not."""
    table = planted_model(ORDERS, generator=torch.Generator().manual_seed(1), cyclic=CYCLIC)
    weights, dataset = CircuitWeights.open(table), succession(VOCABULARY)
    after = {order[i]: order[(i + 1) % len(order)] for order in ORDERS for i in range(len(order))}
    tokens = torch.randint(0, 24, (600,), generator=torch.Generator().manual_seed(2))
    unembed = weights.unembed(torch.arange(24)).T
    right = unembed[[after[int(token)] for token in tokens]] - unembed.mean(0)
    wrong = right[torch.randperm(600, generator=torch.Generator().manual_seed(3))]
    found = []
    for final in (right, wrong):
        lens = fit_text_lens(weights, Residuals(tokens, final), ridges=(1e-6,))
        scores = headless_scores(weights, dataset, generator=np.random.default_rng(0), lens=lens, bootstrap_draws=2)
        found.append(scores.score[0])
    assert found[0] > 0.9
    assert found[1] < 0.5


def test_the_residual_path_has_no_single_readout():
    weights = CircuitWeights.open(planted_model(ORDERS, generator=torch.Generator().manual_seed(1), cyclic=CYCLIC))
    with pytest.raises(ValueError, match="does not depend on the layer"):
        headless_scores(weights, succession(VOCABULARY), generator=np.random.default_rng(0), path="residual")


def test_inputs_of_repeated_tokens_are_those_of_each():
    weights = CircuitWeights.open(planted_model(ORDERS, generator=torch.Generator().manual_seed(1), cyclic=CYCLIC))
    tokens = torch.tensor([5, 2, 5, 9])
    torch.testing.assert_close(static_inputs(weights, tokens), weights.mlp0(weights.embed(tokens)))


def bridge_residuals(folder, windows: torch.Tensor, n_layers: int, skip: int) -> torch.Tensor:
    """The plain reference: transformer-lens' hook after the last block, one window at a time."""
    from transformer_lens.model_bridge import TransformerBridge

    bridge, seen = TransformerBridge.boot_transformers(str(folder), device="cpu", dtype=torch.float32), []
    hook = (f"blocks.{n_layers - 1}.hook_out", lambda tensor, hook: seen.append(tensor[0, skip:]))
    with torch.no_grad():
        for window in windows:
            bridge.run_with_hooks(window[None], fwd_hooks=[hook])
    return torch.cat(seen)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_residuals_are_those_of_transformer_lens_in_the_texts_order(architecture, tmp_path):
    """Nine windows, so that the last pass is not full; the first two positions of each are left out."""
    folder = save_small_model(architecture, tmp_path / architecture)
    model = resolve(folder, cache_dir=tmp_path / "cache")
    windows = torch.randint(0, 300, (9, 8), generator=torch.Generator().manual_seed(0))
    found = collect_residuals(load_plain(model), windows, skip=2)
    expected = bridge_residuals(folder, windows, CircuitWeights.open(model.tensors()).n_layers, skip=2)
    assert found.tokens.tolist() == windows[:, 2:].flatten().tolist()
    torch.testing.assert_close(found.final, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_residuals_unembed_to_the_models_logits(tmp_path):
    """The final residual, normed and unembedded from the weights alone, gives the model's own logits."""
    model = resolve(save_small_model("llama", tmp_path / "llama"), cache_dir=tmp_path / "cache")
    network, weights = load_plain(model), CircuitWeights.open(model.tensors())
    windows = torch.randint(0, 300, (5, 8), generator=torch.Generator().manual_seed(0))
    residuals = collect_residuals(network, windows)
    with torch.no_grad():
        expected = network(windows).logits[:, 1:].flatten(0, 1)
    found = weights.final_norm(residuals.final) @ weights.unembed(torch.arange(expected.shape[-1]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_one_fit_for_all_ridges_is_the_fit_of_each():
    """The slow way: every ridge forms its own products."""
    x, _, _, y = planted_map(noise=1.0)
    for lens in fit_affine_lenses(x, y, ridges=(1e-3, 1.0, 100.0)):
        alone = fit_affine_lens(x, y, ridge=lens.ridge)
        assert torch.equal(lens.weight, alone.weight)
        assert torch.equal(lens.bias, alone.bias)
        assert (lens.r_squared, lens.baseline) == (alone.r_squared, alone.baseline)


def test_the_ridge_is_chosen_by_what_it_explains_on_held_out_positions(monkeypatch):
    """Inputs with more dimensions than positions and targets of noise: the least ridge fits best and explains least."""
    from circuit_claims.papers.successor_heads.succession import lens as module

    generator = torch.Generator().manual_seed(0)
    inputs, final = (torch.randn(60, width, generator=generator) for width in (80, 4))
    monkeypatch.setattr(module, "static_inputs", lambda weights, tokens, path: inputs)
    found = fit_text_lens(None, Residuals(torch.arange(60), final), ridges=(1e-6, 1e4))
    assert found.ridge == 1e4
    assert found.r_squared == max(fit_affine_lens(inputs, final, ridge=ridge).r_squared for ridge in (1e-6, 1e4))
