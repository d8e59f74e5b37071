"""Edits inside the whole model: the planted counter booted by transformer-lens, where the head is known to follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from circuit_claims.models.architectures.forward import residuals
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.models.bridge import boot
from circuit_claims.models.resolve import resolve
from circuit_claims.papers.successor_heads.counting.planted.counter import counter_folder
from circuit_claims.papers.successor_heads.steering import in_context
from circuit_claims.papers.successor_heads.steering.arithmetic import contrasts, mlp0_of
from circuit_claims.papers.successor_heads.steering.in_context import edit_in_context, last_residuals, prompts
from circuit_claims.papers.successor_heads.steering.tokens import Items, counted_items

from tests.helpers.small_models import ARCHITECTURES, D_MODEL, save_small_model


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
    (found,) = edit_in_context(bridge, items(model, "ordinal words"), [vectors], (0.0, 1.0))
    before, after = found.table.rates(edited_only=True)
    assert before < 0.1
    assert after > 0.8
    edited = found.table.edited
    assert found.edited[1][edited].mean() > found.edited[0][edited].mean() + 3, "nats"
    assert found.own[1][edited].mean() < found.own[0][edited].mean() - 3


def test_it_does_not_where_the_head_counts_by_another(model, bridge, vectors):
    (found,) = edit_in_context(bridge, items(model, "days"), [vectors], (1.0,))
    assert found.table.rates(edited_only=True)[0] < 0.1


def test_an_edit_of_nothing_is_the_model_itself(model, bridge, vectors):
    months = items(model, "months")
    (found,) = edit_in_context(bridge, months, [vectors], (0.0,))
    sequence = prompts(months, [2], None)[0]
    with torch.no_grad():
        plain = bridge(torch.tensor([sequence]))[0, -1].log_softmax(-1)
    april = months.tokens[3]
    assert np.allclose(found.own[0, 2], float(plain[april]), atol=1e-4)


def one_at_a_time(bridge, found, sequence, row: int, step: torch.Tensor) -> torch.Tensor:
    """Log probabilities of the task's tokens after a whole prompt, run alone and edited at its last position."""

    def edit(resid, hook):
        resid = resid.clone()
        resid[0, -1] += step
        return resid

    with torch.no_grad():
        logits = bridge.run_with_hooks(torch.tensor([sequence]), fwd_hooks=[("blocks.0.hook_out", edit)])
    return logits[0, -1].log_softmax(-1)[list(found.table.items.tokens)]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def small(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    local = resolve(save_small_model(request.param, folder / "model"), cache_dir=folder / "cache")
    return local, boot(local)


@pytest.mark.parametrize(("task", "first"), [("months", 0), ("ordinal words", None)])
def test_edits_behind_shared_beginnings_are_those_of_whole_prompts_one_at_a_time(small, task, first, monkeypatch):
    local, network = small
    monkeypatch.setattr(in_context, "CELLS_PER_PASS", 7)
    task_items = items(local, task)
    generator = torch.Generator().manual_seed(0)
    sets, scales = list(torch.randn(2, 10, D_MODEL, generator=generator)), (0.5, 2.0)
    both = edit_in_context(network, task_items, sets, scales, first=first)
    for vectors, found in zip(sets, both, strict=True):
        table = found.table
        for row, sequence in enumerate(prompts(task_items, table.rows, first)):
            for at, scale in enumerate(scales):
                for residue in (0, 4, table.own[row]):
                    step = scale * (vectors[residue] - vectors[table.own[row]])
                    log_p = one_at_a_time(network, found, sequence, row, step)
                    assert int(log_p.argmax()) == table.winner[at, row, residue]
                    successor = task_items.successor_of(task_items.index[table.rows[row]])
                    wanted = [table.expected[row, residue], -1 if successor is None else successor]
                    for place, value in zip(wanted, (found.edited, found.own), strict=True):
                        expected = float("nan") if place == -1 else float(log_p[place])
                        assert value[at, row, residue] == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_residuals_behind_shared_beginnings_are_those_of_whole_sequences(small):
    _, network = small
    sequences = [[300], [300, 301], [300, 301, 302], [300, 301, 303], [304], [305, 301, 302], [300, 301]]
    for first, layer in ((0, 1), (None, 1), (0, 0)):
        found = last_residuals(network, sequences, layer, first=first)
        for sequence, row in zip(sequences, found, strict=True):
            tokens = torch.tensor([[*([] if first is None else [first]), *sequence]])
            _, cache = network.run_with_cache(tokens)
            assert torch.allclose(row, cache[f"blocks.{layer}.hook_in"][0, -1], atol=1e-5)


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
