"""What is found once a session: equal to reading anew, in any order of the strings, and never another model's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from circuit_claims.heads.ov_circuit import INPUT_PATHS, group_logits
from circuit_claims.heads.planted import TensorTable, random_tensors, small_config
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.papers.successor_heads.dataset import PAPER_TASKS, SuccessionDataset, assemble_dataset, succession
from circuit_claims.papers.successor_heads.succession import once
from circuit_claims.papers.successor_heads.succession.score import NOBODY, Winners, find_winners
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.small_models import ARCHITECTURES
from tests.successor_heads.test_sweep import VOCABULARY

PATHS = ("embed", *INPUT_PATHS)
DATASET = succession(VOCABULARY)


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    once._KEPT.clear()
    yield
    once._KEPT.clear()


def opened(architecture: str = "llama", seed: int = 3, **choices: bool) -> CircuitWeights:
    config = small_config(architecture, 24, len(VOCABULARY))
    return CircuitWeights.open(random_tensors(config, torch.Generator().manual_seed(seed)), **choices)


def plainly(weights: CircuitWeights, dataset: SuccessionDataset, path: str, bos: int | None = None) -> Winners:
    """The slow way: every path and every dataset reads the weights."""
    choices = {"norms": weights.norms, "biases": weights.biases}
    return find_winners(group_logits(weights, dataset.groups, path, bos=bos, **choices), dataset)


def assert_same(found: Winners, expected: Winners) -> None:
    for name in ("heads", "winner", "winner_but_self"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def in_another_order(places: list[int]) -> SuccessionDataset:
    days = replace(PAPER_TASKS[3], items=tuple(PAPER_TASKS[3].items[place] for place in places))
    return assemble_dataset(VOCABULARY, [days, PAPER_TASKS[1]])


class ReadOnce:
    """Weights of which every tensor may be read in one pass only."""

    def __init__(self, table: TensorTable) -> None:
        self.table, self.config, self.digest, self.open = table, table.config, table.digest, True

    def names(self) -> tuple[str, ...]:
        return self.table.names()

    def read(self, name: str) -> torch.Tensor:
        assert self.open, f"{name} was read again"
        return self.table.read(name)

    def rows(self, name: str, ids: list[int]) -> torch.Tensor:
        assert self.open, f"{name} was read again"
        return self.table.rows(name, ids)


@pytest.mark.parametrize("choices", [{}, {"norms": False}, {"biases": False}], ids=str)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_pass_for_all_paths_equals_a_pass_for_each(architecture, choices):
    weights = opened(architecture, **choices)
    for bos in (None, 0):
        together = once.winners_of_paths(weights, DATASET, PATHS, bos)
        for path, found in zip(PATHS, together, strict=True):
            assert_same(found, plainly(weights, DATASET, path, bos))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.permutations(range(7)))
def test_another_order_of_the_strings_is_known_without_reading(order):
    weights, wrong = opened(), in_another_order(order)
    source = ReadOnce(weights.tensors)
    kept = replace(weights, tensors=source)
    once.winners_of_paths(kept, DATASET, ("mlp0", "embed"))
    source.open = False
    for path, found in zip(("embed", "mlp0"), once.winners_of_paths(kept, wrong, ("embed", "mlp0")), strict=True):
        assert_same(found, plainly(weights, wrong, path))


def test_only_what_is_not_known_is_read():
    weights = opened()
    mixed = succession(VOCABULARY, mixed_forms=True)
    once.winners_of_paths(weights, DATASET, ("mlp0",))
    assert_same(once.winners_of_paths(weights, mixed, ("mlp0",))[0], plainly(weights, mixed, "mlp0"))
    again = replace(weights, tensors=ReadOnce(weights.tensors))
    again.tensors.open = False
    assert_same(once.winners_of_paths(again, mixed, ("mlp0",))[0], plainly(weights, mixed, "mlp0"))
    with pytest.raises(AssertionError, match="was read again"):
        once.winners_of_paths(again, mixed, ("mlp0", "embed"))


def test_nothing_is_taken_from_other_weights_choices_or_first_tokens():
    first = once.winners_of_paths(opened(), DATASET, ("residual",), 0)[0]
    others = [(opened(seed=4), 0), (opened(norms=False), 0), (opened(), 1), (opened(), None)]
    for weights, bos in others:
        found = once.winners_of_paths(weights, DATASET, ("residual",), bos)[0]
        assert_same(found, plainly(weights, DATASET, "residual", bos))
        assert np.any(found.winner != first.winner)


def test_a_tie_is_nobodys_in_every_order():
    """All candidates alike: nobody wins any column, whichever way the strings stand."""
    weights = opened()
    table = weights.tensors
    flat = replace(table, tensors={**table.tensors, "lm_head.weight": torch.ones_like(table.read("lm_head.weight"))})
    weights = replace(weights, tensors=flat)
    for dataset in (DATASET, in_another_order([3, 1, 0, 2, 6, 5, 4])):
        (found,) = once.winners_of_paths(weights, dataset, ("mlp0",))
        assert (found.winner == NOBODY).all()
        assert (found.winner_but_self == NOBODY).all()


def test_no_more_than_the_last_readings_are_kept(monkeypatch):
    monkeypatch.setattr(once, "KEPT_READINGS", 2)
    for seed in range(5):
        once.winners_of_paths(opened(seed=seed), DATASET, ("mlp0",))
    assert len(once._KEPT) == 2
    digests = {reading.digest for reading in once._KEPT}
    assert digests == {opened(seed=seed).tensors.digest for seed in (3, 4)}
