"""The shuffled null: against explicit relabelling, its false-alarm rate by simulation, and its power on a plant."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from circuit_claims.papers.successor_heads.dataset import SuccessionDataset, Task, assemble_dataset, succession
from circuit_claims.papers.successor_heads.succession.nulls import random_orders, shuffled_null
from circuit_claims.papers.successor_heads.succession.score import Winners, find_winners, score_heads

from tests.successor_heads.toy import Words, layers_of, planted_table, small_words

WORDS = small_words()


def random_winners(dataset: SuccessionDataset, heads: int, rng: np.random.Generator, same_forms: bool) -> Winners:
    """Heads that name a random string of the set in each column; `same_forms`: one answer for all forms of a task."""
    answer = {task.name: rng.integers(0, len(task.items), (heads, len(task.items))) for task in dataset.tasks}
    parts = []
    for strand in dataset.strands:
        place_of = np.full(len(dataset.tasks[strand.task].items), -1)
        place_of[list(strand.orders)] = strand.places
        shared = place_of[answer[dataset.task_names[strand.task]][:, list(strand.orders)]]
        parts.append(shared if same_forms else rng.integers(0, len(strand.orders), shared.shape))
    winner = np.concatenate(parts, axis=1)
    names = np.stack([np.zeros(heads, dtype=int), np.arange(heads)], axis=1)
    return Winners(names, winner, winner)


def slow_null_score(winner: np.ndarray, dataset: SuccessionDataset, orders: list[np.ndarray], shuffle: int) -> float:
    """One head's score under one shuffle: relabel, look each shuffled successor up, count."""
    passed = total = 0
    for strand, order in zip(dataset.strands, orders, strict=True):
        start = dataset.group_starts[strand.group]
        for first, second in strand.links:
            source, target = order[shuffle][first], order[shuffle][second]
            passed += strand.weight * (winner[start + strand.places[source]] == strand.places[target])
            total += strand.weight
    return passed / total


@pytest.mark.parametrize("mixed_forms", [False, True], ids=["one form", "mixed"])
def test_every_shuffle_equals_an_explicit_relabelling(mixed_forms):
    dataset = succession(WORDS, mixed_forms=mixed_forms)
    rng = np.random.default_rng(1)
    size = np.asarray([len(group.candidates) for group in dataset.groups])[dataset.columns.group]
    winner = rng.integers(-1, size, (3, len(size)))  # -1: a tie
    null = shuffled_null(
        Winners(np.zeros((3, 2), int), winner, winner), dataset, generator=np.random.default_rng(2), shuffles=20
    )
    orders = list(random_orders(dataset, 20, np.random.default_rng(2)))
    for shuffle in range(20):
        expected = [slow_null_score(winner[head], dataset, orders, shuffle + 1) for head in range(3)]
        np.testing.assert_allclose(null.score[shuffle], expected)


def test_the_observed_scores_are_those_of_the_true_order():
    dataset = succession(WORDS)
    table = planted_table(dataset, WORDS, 4, torch.Generator().manual_seed(0))
    winners = find_winners(layers_of(table, dataset), dataset)
    for exclude_self in (False, True):
        rng = np.random.default_rng(0)
        scores = score_heads(winners, dataset, generator=rng, exclude_self=exclude_self, bootstrap_draws=2)
        null = shuffled_null(winners, dataset, generator=rng, shuffles=5, exclude_self=exclude_self)
        assert null.observed["score"] == pytest.approx(scores.score.max())
        assert null.observed["macro_score"] == pytest.approx(scores.macro_score.max())


def test_a_planted_head_stands_out_as_far_as_the_shuffles_can_tell():
    dataset = succession(WORDS)
    table = planted_table(dataset, WORDS, 8, torch.Generator().manual_seed(0))
    winners = find_winners(layers_of(table, dataset), dataset)
    null = shuffled_null(winners, dataset, generator=np.random.default_rng(0), shuffles=199)
    for metric in ("score", "macro_score"):
        assert null.p_value(metric) == 1 / 200
        assert null.band(metric)[1] < 0.6


@pytest.mark.parametrize("same_forms", [False, True], ids=["forms apart", "forms alike"])
def test_false_alarms_are_as_rare_as_the_level_says(same_forms):
    """300 models of 12 random heads, 99 shuffles, level 5 %.

    The test is exact, so false alarms are at most Binomial(300, 0.05): 33 or more have a probability below 3e-5 for
    each metric. A test that never alarms would pass too; the planted head above is what rules it out.
    """
    dataset = succession(WORDS)
    rng = np.random.default_rng(5)
    alarms = {"score": 0, "macro_score": 0}
    for _ in range(300):
        winners = random_winners(dataset, 12, rng, same_forms)
        null = shuffled_null(winners, dataset, generator=rng, shuffles=99)
        for metric in alarms:
            alarms[metric] += null.p_value(metric) <= 0.05
    assert max(alarms.values()) < 33


def test_a_maximum_over_more_heads_is_larger_by_chance():
    dataset = succession(WORDS)
    rng = np.random.default_rng(6)
    few, many = (
        shuffled_null(random_winners(dataset, heads, rng, False), dataset, generator=rng, shuffles=99)
        for heads in (2, 200)
    )
    assert many.band("macro_score")[0] > few.band("macro_score")[0]
    assert many.p_value("macro_score", observed=few.observed["macro_score"]) > 0.9


def test_a_constant_answer_and_a_copy_gain_nothing_from_any_order():
    """A head that always says one string passes one pair of a cycle in every order; a copying head none."""
    cycle = Task("cycle", ("a", "b", "c", "d", "e"), cyclic=True)
    dataset = assemble_dataset(Words("abcde"), [cycle])
    winner = np.stack([np.full(5, 2), np.arange(5)])
    null = shuffled_null(Winners(np.zeros((2, 2), int), winner, winner), dataset, generator=np.random.default_rng(0))
    assert set(null.score[:, 0]) == {0.2}
    assert set(null.score[:, 1]) == {0.0}
    assert null.p_value("score") == 1.0


def test_a_dataset_without_pairs_is_refused():
    nobody = Winners(np.zeros((1, 2), int), np.zeros((1, 1), int), np.zeros((1, 1), int))
    with pytest.raises(ValueError, match="at least one pair, found none"):
        shuffled_null(nobody, succession(Words(["Monday"])), generator=np.random.default_rng(0))
