"""Edits inside the whole model: the planted counter booted by transformer-lens, where the head is known to follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.models.architectures import CircuitWeights
from harness.models.architectures_forward import residuals
from harness.models.bridge import boot
from harness.models.resolve import resolve
from harness.successor.counting.in_context import edit_in_context, last_residuals, prompts
from harness.successor.counting.planted_counter import counter_folder
from harness.successor.counting.steering import contrasts, mlp0_of
from harness.successor.counting.steering_tokens import Items, counted_items


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("counter")
    return resolve(counter_folder(folder / "model"), cache_dir=folder / "cache")


@pytest.fixture(scope="module")
def bridge(model):
    return boot(model)


@pytest.fixture(scope="module")
def vectors(model) -> torch.Tensor:
    tokens = model.tokenizer()
    weights = CircuitWeights.open(model.tensors())
    numbers = mlp0_of(weights, [tokens.single_token(str(number)) for number in range(500)])
    means = numbers.reshape(50, 10, -1).mean(0)
    means = means - means.mean(0)
    unit = means / means.norm(dim=1, keepdim=True)
    return unit * contrasts(numbers, torch.arange(500) % 10, unit)[:, None]


def items(model, task: str) -> Items:
    return counted_items(model.tokenizer(), [task])[0]


def test_the_whole_model_follows_an_edit_where_the_head_counts_by_the_circle(model, bridge, vectors):
    found = edit_in_context(bridge, items(model, "ordinal words"), vectors, (0.0, 1.0))
    before, after = found.table.rates(edited_only=True)
    assert before < 0.1
    assert after > 0.8
    edited = found.table.edited
    assert found.edited[1][edited].mean() > found.edited[0][edited].mean() + 3, "nats"
    assert found.own[1][edited].mean() < found.own[0][edited].mean() - 3


def test_it_does_not_where_the_head_counts_by_another(model, bridge, vectors):
    found = edit_in_context(bridge, items(model, "days"), vectors, (1.0,))
    assert found.table.rates(edited_only=True)[0] < 0.1


def test_an_edit_of_nothing_is_the_model_itself(model, bridge, vectors):
    months = items(model, "months")
    found = edit_in_context(bridge, months, vectors, (0.0,))
    sequence = prompts(months, [2], None)[0]
    with torch.no_grad():
        plain = bridge(torch.tensor([sequence]))[0, -1].log_softmax(-1)
    april = months.tokens[3]
    assert np.allclose(found.own[0, 2], float(plain[april]), atol=1e-4)


def test_prompts_go_round_in_cyclic_tasks_and_start_short_in_others(model):
    months, words = items(model, "months"), items(model, "number words")
    tokens = model.tokenizer()
    spelt = ["".join(map(tokens.decode, prompt)) for prompt in prompts(months, [0, 4], None)]
    assert spelt == [" November December January", " March April May"]
    assert prompts(words, [0, 2], 7) == [[7, words.tokens[0]], [7, *words.tokens[:3]]]


def test_the_residual_at_the_last_token_is_the_streamed_one(model, bridge):
    """Against the two-position forward pass that is written from the weights alone, and in the order asked."""
    weights = CircuitWeights.open(model.tensors())
    tokens = [model.tokenizer().single_token(text) for text in (" seven", "12", " May")]
    alone = list(residuals(weights, torch.tensor(tokens)))[1]
    after = list(residuals(weights, torch.tensor(tokens), 0))[1]
    assert torch.allclose(last_residuals(bridge, [[token] for token in tokens], 1), alone, atol=1e-3)
    mixed = last_residuals(bridge, [[0, tokens[0]], [tokens[1]], [0, tokens[2]]], 1)
    assert torch.allclose(mixed, torch.stack([after[0], alone[1], after[2]]), atol=1e-3)


def test_a_sequence_of_nothing_is_refused(bridge):
    with pytest.raises(ValueError, match="expected one token or more"):
        last_residuals(bridge, [[1], []], 1)
