"""The fast sweep against the slow reference through transformer-lens, for every architecture and input path."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import pytest
import torch
from circuit_claims.heads.groups import Group
from circuit_claims.heads.ov_circuit import INPUT_PATHS, effective_ov_logits, group_logits, head_inputs, headless_logits
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.models.bridge import boot
from circuit_claims.models.errors import ModelNotAvailable
from circuit_claims.models.resolve import LocalModel, resolve

from tests.heads.hooks_reference import reference_input, reference_logits_of_heads, watched
from tests.helpers.small_models import ARCHITECTURES, save_small_model

PATHS = (*INPUT_PATHS, "embed")
TOKENS, CANDIDATES, BOS = torch.tensor([300, 7, 411, 300, 258]), torch.tensor([400, 5, 258, 301, 300, 77]), 0
N_LAYERS = 3


@dataclass(frozen=True)
class Pair:
    """The same saved model opened both ways."""

    weights: CircuitWeights
    bridge: Any


@pytest.fixture(scope="module", params=[(name, tied) for name in ARCHITECTURES for tied in (True, False)], ids=str)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    architecture, tied = request.param
    folder = tmp_path_factory.mktemp(architecture)
    save_small_model(architecture, folder, seed=3, n_layers=N_LAYERS, tied=tied)
    return opened_both_ways(resolve(folder, offline=True))


def opened_both_ways(model: LocalModel) -> Pair:
    return Pair(CircuitWeights.open(model.tensors()), boot(model))


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, over the largest expected value."""
    return float((found - expected).abs().max() / expected.abs().max())


def bos_of(path: str) -> int | None:
    return BOS if path == "residual" else None


@pytest.mark.parametrize("path", PATHS)
def test_the_sweep_equals_the_slow_reference(pair: Pair, path: str) -> None:
    groups = [Group(tuple(TOKENS.tolist()), tuple(CANDIDATES.tolist()))]
    plain = list(effective_ov_logits(pair.weights, TOKENS, CANDIDATES, path, bos=bos_of(path)))
    fast = list(group_logits(pair.weights, groups, path, bos=bos_of(path)))
    assert len(plain) == len(fast) == N_LAYERS
    for layer in range(N_LAYERS):
        resid = reference_input(pair.bridge, TOKENS, path, layer, bos_of(path))
        assert plain[layer].shape == (pair.weights.n_heads, len(TOKENS), len(CANDIDATES))
        heads = range(pair.weights.n_heads)
        slow = reference_logits_of_heads(pair.bridge, layer, heads, resid, CANDIDATES)
        for head, expected in zip(heads, slow, strict=True):
            assert relative_error(plain[layer][head], expected) < 1e-5, (layer, head)
            assert relative_error(fast[layer][0][head], expected) < 1e-5, (layer, head)


@pytest.mark.parametrize("bos", [None, BOS])
def test_the_streamed_residual_is_the_models_own(pair: Pair, bos: int | None) -> None:
    for layer, resid in enumerate(head_inputs(pair.weights, TOKENS, "residual", bos)):
        expected = reference_input(pair.bridge, TOKENS, "residual", layer, bos)[:, 0]
        assert relative_error(resid, expected) < 1e-5, layer


@pytest.mark.parametrize("path", ["mlp0", "embed+mlp0", "block0", "embed"])
def test_the_readout_without_a_head_equals_the_slow_reference(pair: Pair, path: str) -> None:
    resid = reference_input(pair.bridge, TOKENS, path, 0)
    last = f"blocks.{N_LAYERS - 1}.hook_out"
    read_out = [(last, lambda tensor, hook: resid)]
    expected = watched(pair.bridge, TOKENS[:, None], "unembed.hook_out", read_out)[:, 0, CANDIDATES]
    assert relative_error(headless_logits(pair.weights, TOKENS, CANDIDATES, path), expected) < 1e-5


@pytest.fixture(scope="module")
def smollm2() -> Pair:
    try:
        return opened_both_ways(resolve("smollm2-135m", offline=True))
    except ModelNotAvailable as error:
        pytest.skip(f"needs real weights: {error}")


@pytest.mark.weights
@pytest.mark.parametrize("path", ["mlp0", "residual"])
@pytest.mark.parametrize("layer", [0, 1, 14, 29])
def test_the_sweep_equals_the_slow_reference_on_smollm2_as_shipped(smollm2: Pair, layer: int, path: str) -> None:
    tokens, candidates = torch.tensor([28, 5000, 33, 17]), torch.tensor([29, 400, 34, 33, 28])
    groups = [Group(tuple(tokens.tolist()), tuple(candidates.tolist()))]
    plain, fast = (
        next(islice(layers, layer, None))
        for layers in (
            effective_ov_logits(smollm2.weights, tokens, candidates, path),
            group_logits(smollm2.weights, groups, path),
        )
    )
    resid = reference_input(smollm2.bridge, tokens, path, layer)
    heads = range(smollm2.weights.n_heads)
    slow = reference_logits_of_heads(smollm2.bridge, layer, heads, resid, candidates)
    for head, expected in zip(heads, slow, strict=True):
        assert relative_error(plain[head], expected) < 1e-5, head
        assert relative_error(fast[0][head], expected) < 1e-5, head
