"""Heads whose score is known before it is measured: planted successors, the wrong order, untrained weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from circuit_claims.heads.groups import Group
from circuit_claims.heads.ov_circuit import group_logits
from circuit_claims.heads.planted import (
    planted_folder,
    planted_model,
    random_tensors,
    small_config,
    untrained_like,
    wrong_order,
)
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.models.bridge import boot
from circuit_claims.models.files.tensors import TensorSource, open_tensors
from circuit_claims.models.resolve import resolve
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.heads.hooks_reference import reference_input, reference_logits
from tests.helpers.small_models import ARCHITECTURES, DAYS, MONTHS, NUMBERS, save_small_model

LAYER, HEAD = 1, 2
LETTERS = [chr(ord("A") + place) for place in range(26)]
TEXTS = [list(DAYS), [f" {month}" for month in MONTHS], LETTERS, list(NUMBERS)]
CYCLIC = (True, True, False, False)
# Lists of ids; the last shares tokens with the first three and gives them other successors.
ORDERS = [list(range(20, 27)), list(range(40, 52)), list(range(60, 86)), [20, 60, 44, 3, 5, 7]]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def passing(logits: Tensor, cyclic: bool) -> Tensor:
    """Share of a list's tokens whose successor beats every other token of the list, for each head; (head,)."""
    n = logits.shape[-1]
    marks = []
    for place in range(n if cyclic else n - 1):
        column, wanted = logits[:, place], (place + 1) % n
        others = torch.cat([column[:, :wanted], column[:, wanted + 1 :]], dim=1)
        marks.append(column[:, wanted] > others.amax(1))
    return torch.stack(marks).float().mean(0)


def scores(tensors: TensorSource, orders: Sequence[Sequence[int]], cyclic: Sequence[bool] = CYCLIC) -> Tensor:
    """Mean over the lists of the share of tokens that pass; (layer, head)."""
    groups = [Group(tuple(order), tuple(order)) for order in orders]
    layers = [
        torch.stack([passing(*item) for item in zip(tables, cyclic, strict=True)]).mean(0)
        for tables in group_logits(CircuitWeights.open(tensors), groups)
    ]
    return torch.stack(layers)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_planted_successor_head_scores_one(architecture: str) -> None:
    table = planted_model(ORDERS, generator=generator(), architecture=architecture, head=(LAYER, HEAD), cyclic=CYCLIC)
    found = scores(table, ORDERS)
    assert found[LAYER, HEAD] == 1.0
    found[LAYER, HEAD] = 0.0
    assert found.max() < 0.5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_head_with_the_wrong_order_does_not(architecture: str) -> None:
    # A shuffled list keeps any given step with probability 1 / (n - 1): half of all steps kept has no chance.
    wrong = wrong_order(ORDERS, generator(1))
    table = planted_model(wrong, generator=generator(), architecture=architecture, head=(LAYER, HEAD), cyclic=CYCLIC)
    assert scores(table, wrong)[LAYER, HEAD] == 1.0
    assert scores(table, ORDERS)[LAYER, HEAD] < 0.5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_planted_folder_is_a_successor_in_the_running_model(architecture: str, tmp_path: Path) -> None:
    folder = planted_folder(tmp_path, TEXTS, generator=generator(2), architecture=architecture, cyclic=CYCLIC)
    model = resolve(folder, offline=True)
    bridge, tokenizer = boot(model), model.tokenizer()
    orders = [[tokenizer.single_token(text) for text in order] for order in TEXTS]
    assert None not in {token for order in orders for token in order}
    assert scores(model.tensors(), orders)[LAYER, HEAD] == 1.0
    for order, cyclic in zip(orders, CYCLIC, strict=True):
        tokens = torch.tensor(order)
        resid = reference_input(bridge, tokens, "mlp0", LAYER)
        assert passing(reference_logits(bridge, LAYER, HEAD, resid, tokens)[None], cyclic) == 1.0


def test_random_weights_score_like_chance() -> None:
    # With an unembedding drawn anew, each of 10 candidates comes first equally often: a model's mean score has mean
    # 0.1 and lies in [0, 1]. By Chernoff's bound 60 models average 0.35 or more with probability 2e-6 at most.
    n_models, bound, order = 60, 0.35, list(range(10))
    config = small_config("llama", len(order), len(order))
    means = [scores(random_tensors(config, generator(seed)), [order], [True]).mean() for seed in range(n_models)]
    divergence = bound * math.log(bound / 0.1) + (1 - bound) * math.log((1 - bound) / 0.9)
    assert math.exp(-n_models * divergence) < 2e-6
    assert 0.0 < torch.stack(means).mean() < bound


def test_too_narrow_a_model_cannot_be_planted() -> None:
    from circuit_claims.heads.planted import plant

    table = random_tensors(small_config("llama", 8, 300), generator())
    with pytest.raises(ValueError, match=r"more dimensions than tokens[\s\S]*small_config"):
        plant(table, [list(range(200))], head=(0, 0), generator=generator())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_untrained_weights_stand_where_training_starts(architecture: str, tmp_path: Path) -> None:
    trained = open_tensors(save_small_model(architecture, tmp_path, tied=False))
    untrained = untrained_like(trained, generator(5))
    assert untrained.names() == trained.names()
    for name in trained.names():
        drawn = untrained.read(name)
        assert drawn.shape == trained.read(name).shape
        if drawn.ndim == 2:
            smaller = architecture == "gpt2" and name.endswith("c_proj.weight")
            # The sample deviation of N > 250 draws is off by 20 % or more with probability under 1e-5.
            assert float(drawn.std()) == pytest.approx(0.02 / 2.0 if smaller else 0.02, rel=0.2)
        else:
            start = 1.0 if name.endswith(".weight") and architecture != "gemma3_text" else 0.0
            assert torch.equal(drawn, torch.full_like(drawn, start))


def test_untrained_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    trained = open_tensors(save_small_model("llama", tmp_path))
    first, again, other = (untrained_like(trained, generator(seed)) for seed in (5, 5, 6))
    name = "model.embed_tokens.weight"
    again.read("model.layers.1.self_attn.v_proj.weight")  # What was read before must not matter.
    assert torch.equal(first.read(name), again.read(name))
    assert first.digest == again.digest != other.digest != trained.digest
    assert not torch.equal(first.read(name), other.read(name))
    one, two = (first.read(f"model.layers.{layer}.self_attn.v_proj.weight") for layer in range(2))
    assert not torch.equal(one, two)


@settings(max_examples=30, deadline=None)
@given(ids=st.lists(st.integers(0, 199), max_size=12))
def test_rows_of_untrained_weights_are_rows_of_the_whole(ids: list[int]) -> None:
    source = untrained_like(random_tensors(small_config("qwen2", 8, 200), generator()), generator(1))
    name = "model.embed_tokens.weight"
    assert torch.equal(source.rows(name, ids), source.read(name)[torch.tensor(ids, dtype=torch.long)])
