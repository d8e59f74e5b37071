"""The sweep end to end on planted models: true by construction, false by construction, untrained."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from circuit_claims.heads.planted import planted_model, untrained_like, wrong_order
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.papers.successor_heads.dataset import succession
from circuit_claims.papers.successor_heads.succession.sweep import SweepResult, judge_winners, sweep_heads

from tests.helpers.small_models import ARCHITECTURES
from tests.successor_heads.toy import Words, plain_pairs

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
VOCABULARY = Words([*DAYS, *(f" {day}" for day in DAYS), *(f" {word}" for word in WORDS)])
ORDERS = [list(range(7)), list(range(7, 14)), list(range(14, 24))]
CYCLIC = (True, True, False)


def swept(architecture: str, orders: list[list[int]], *, drawn: int = 0, **choices) -> SweepResult:
    generator = torch.Generator().manual_seed(drawn)
    table = planted_model(orders, generator=generator, architecture=architecture, cyclic=CYCLIC)
    settings = {"bootstrap_draws": 200, "shuffles": 199} | choices
    return sweep_heads(CircuitWeights.open(table), succession(VOCABULARY), **settings)


@pytest.mark.parametrize("drawn", range(5))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_planted_successor_head_scores_one(architecture, drawn):
    result = swept(architecture, ORDERS, drawn=drawn)
    leader = result.scores.row("L1H2")
    assert result.scores.score[leader] == result.scores.macro_score[leader] == 1.0
    assert result.scores.ranking()[0] == leader
    assert result.null.p_value("macro_score") == result.null.p_value("score") == 1 / 200
    assert result.head_map()[1, 2] == 1.0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_head_with_a_shuffled_map_does_not(architecture):
    orders = wrong_order(ORDERS, torch.Generator().manual_seed(1))
    scores = swept(architecture, orders).scores
    assert scores.score[scores.row("L1H2")] < 0.5


def test_untrained_weights_stay_inside_the_null():
    """12 untrained models of 8 heads: an exact p-value falls to 0.05 in 5 or more with a probability below 2e-4."""
    table = planted_model(ORDERS, generator=torch.Generator().manual_seed(0), cyclic=CYCLIC)
    alarms = 0
    for seed in range(12):
        weights = CircuitWeights.open(untrained_like(table, torch.Generator().manual_seed(seed)))
        result = sweep_heads(weights, succession(VOCABULARY), bootstrap_draws=2, shuffles=99, seed=seed)
        alarms += result.null.p_value("macro_score") <= 0.05
    assert alarms < 5


def test_the_json_is_the_documented_one_and_sorted():
    result = swept("llama", ORDERS, exclude_self=True)
    data = json.loads(json.dumps(result.to_json("planted"), allow_nan=False))
    assert list(data) == ["model", "path", "exclude_self", "heads", "null"]
    assert (data["model"], data["path"], data["exclude_self"]) == ("planted", "mlp0", True)
    assert len(data["heads"]) == 8
    assert list(data["heads"][0]) == ["layer", "head", "score", "macro_score", "interval", "copy_score", "tasks"]
    assert data["heads"][0]["tasks"] == {"number words": 1.0, "days": 1.0}
    macro = [head["macro_score"] for head in data["heads"]]
    assert macro == sorted(macro, reverse=True)
    assert all(head["interval"][0] <= head["interval"][1] for head in data["heads"])
    assert data["null"]["settings"]["pairs"] == len(plain_pairs(result.dataset))
    assert data["null"]["settings"]["not_applicable"] == []
    assert 0 < data["null"]["macro_score"]["p_value"] <= 1


def test_the_same_seed_gives_the_same_figures_and_another_only_another_bootstrap():
    first, again, other = (swept("llama", ORDERS, seed=seed).to_json("m") for seed in (0, 0, 7))
    assert first == again
    assert other["null"]["settings"]["seed"] == 7
    assert [head["interval"] for head in other["heads"]] != [head["interval"] for head in first["heads"]]
    assert [head["macro_score"] for head in other["heads"]] == [head["macro_score"] for head in first["heads"]]


def test_winners_judged_again_equal_a_sweep_with_that_rule():
    plain = swept("qwen2", ORDERS)
    again = judge_winners(
        plain.winners, plain.dataset, path="mlp0", exclude_self=True, bootstrap_draws=200, shuffles=199
    )
    assert again.to_json("m") == swept("qwen2", ORDERS, exclude_self=True).to_json("m")
    without = judge_winners(plain.winners, succession(VOCABULARY, wraps=False), path="mlp0", shuffles=9)
    assert without.scores.pair_count == plain.scores.pair_count - 2
    assert "without the cyclic wraps" in without.scores.convention


def test_other_settings_give_other_figures_of_the_same_shape():
    base = swept("gpt2", ORDERS)
    for choice in ({"norms": False}, {"biases": False}, {"path": "block0"}, {"path": "residual", "bos": 0}):
        other = swept("gpt2", ORDERS, **choice)
        assert other.scores.score.shape == base.scores.score.shape
        assert np.any(other.scores.score != base.scores.score)
    with pytest.raises(ValueError, match="input path"):
        swept("gpt2", ORDERS, path="mlp1")
