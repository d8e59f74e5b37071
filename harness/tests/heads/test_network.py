"""One face for every network: against plain references that share no code with it, on every architecture and kind."""

from __future__ import annotations

import json

import pytest
import torch
from circuit_claims.errors import InputError
from circuit_claims.heads.composition import composition, composition_between
from circuit_claims.heads.head_types import (
    current_token_scores,
    prefix_matching_scores,
    previous_token_scores,
)
from circuit_claims.heads.head_types_planted import planted_induction, planted_types_model
from circuit_claims.heads.network import network_of
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.models.resolve import resolve
from circuit_claims.toy.checkpoints import CARD, RunFolder, save_checkpoint
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig

from tests.helpers.small_models import ARCHITECTURES, save_small_model

TOKENS = torch.tensor([[0, 3, 300, 41, 7, 9], [0, 8, 2, 41, 41, 5]])
TOY = AttentionOnlyConfig(n_layers=2, d_model=32, n_heads=4, d_head=8, n_ctx=16, d_vocab=400, init_std=0.3)
HEAD = (1, 2)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pretrained(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    local = resolve(save_small_model(request.param, root / "model"), cache_dir=root / "cache")
    return local, network_of(local)


@pytest.fixture(scope="module")
def toy():
    model = AttentionOnly(TOY).initialise(seed=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".b_" in name:
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(len(name)))
    return model


def plain_of(local):
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(
        local.folder, dtype=torch.float32, attn_implementation="eager"
    )


def plain_output(model):
    """The output projection of the last layer's heads, and whether it is stored turned (GPT-2)."""
    found = [
        module for name, module in model.named_modules() if name.endswith(("attn.c_proj", "o_proj", "attention.dense"))
    ]
    return found[HEAD[0]]


@torch.no_grad()
def plain_ablated(model, tokens, n_heads, change):
    """Logits with one head's input to the output projection changed, by a hook of torch itself."""

    def pre(module, args):
        z = args[0].unflatten(-1, (n_heads, -1)).clone()
        z[:, :, HEAD[1]] = change(z)[:, :, HEAD[1]]
        return (z.flatten(-2), *args[1:])

    handle = plain_output(model).register_forward_pre_hook(pre)
    try:
        return model(tokens).logits
    finally:
        handle.remove()


CHANGES = {
    "zero": torch.zeros_like,
    "mean": lambda z: z.mean((0, 1), keepdim=True).expand_as(z),
    "resample": lambda z: z.flip(0),  # of two rows, the other
}


@torch.no_grad()
def test_a_pretrained_network_is_the_model(pretrained):
    local, network = pretrained
    plain = plain_of(local)
    found = plain(TOKENS, output_attentions=True)
    assert torch.allclose(network.forward(TOKENS), found.logits, atol=1e-5)
    assert torch.allclose(network.patterns(TOKENS), torch.stack(found.attentions, 1), atol=1e-6)
    losses = -found.logits.log_softmax(-1)[:, :-1].gather(-1, TOKENS[:, 1:, None])[..., 0]
    assert torch.allclose(network.loss(TOKENS), losses, atol=1e-5)
    assert (network.n_layers, network.n_heads, network.d_model) == (2, 4, 32)
    assert network.d_vocab == found.logits.shape[-1]


@pytest.mark.parametrize("by", CHANGES)
def test_ablating_a_head_of_a_pretrained_network(pretrained, by):
    local, network = pretrained
    before = network.forward(TOKENS)
    with network.ablated([HEAD], by):
        without = network.forward(TOKENS)
    assert torch.allclose(without, plain_ablated(plain_of(local), TOKENS, 4, CHANGES[by]), atol=1e-5)
    assert torch.equal(network.forward(TOKENS), before)
    assert not torch.allclose(without, before, atol=1e-4)


def test_weights_of_a_pretrained_network_are_those_of_its_files(pretrained):
    local, network = pretrained
    weights = CircuitWeights.open(local.tensors())
    layer, heads = weights.layer(1), network.weights(1)
    assert torch.equal(heads.W_O, layer.W_O.transpose(1, 2))
    query, key, value = weights.qkv(1, (0, 1, 2))
    repeats = network.n_heads // weights.dims.n_kv_heads
    for wide, matrix, times in ((heads.W_Q, query, 1), (heads.W_K, key, repeats), (heads.W_V, value, repeats)):
        by_head = matrix.weight.unflatten(0, (-1, weights.dims.d_head)).transpose(1, 2)
        assert torch.equal(wide, by_head.repeat_interleave(times, 0))


def test_heads_write_what_the_layer_adds(pretrained):
    local, network = pretrained
    _, cache = network.run_with_cache(TOKENS, ["blocks.1.hook_attn_out"])
    written = network.head_outputs(TOKENS)[:, 1].sum(1)
    if local.tensors().config["model_type"] == "gemma3_text":
        assert written.shape == cache["blocks.1.hook_attn_out"].shape  # a norm stands behind the heads
        return
    rest = cache["blocks.1.hook_attn_out"] - written
    assert torch.allclose(rest, rest[0, 0].expand_as(rest), atol=1e-5)  # the shared bias alone


def test_untrained_weights_are_a_network_of_the_same_shape(pretrained):
    local, network = pretrained
    one, same, other = (network_of(local, weights="untrained", seed=seed) for seed in (0, 0, 1))
    logits = [each.forward(TOKENS) for each in (network, one, same, other)]
    assert torch.equal(logits[1], logits[2])
    assert not torch.allclose(logits[1], logits[0], atol=1e-3)
    assert not torch.allclose(logits[1], logits[3], atol=1e-4)
    assert logits[1].shape == logits[0].shape


@torch.no_grad()
def test_an_attention_only_network_is_the_model(toy):
    network = network_of(toy)
    assert torch.allclose(network.forward(TOKENS), toy(TOKENS), atol=1e-5)
    query = key = toy.blocks[0].ln1(toy.embed["W_E"][TOKENS]) + toy.positions(6)
    for head in range(4):
        q = query @ toy.blocks[0].attn.W_Q[head] + toy.blocks[0].attn.b_Q[head]
        k = key @ toy.blocks[0].attn.W_K[head] + toy.blocks[0].attn.b_K[head]
        scores = (q @ k.transpose(1, 2) / 8**0.5).masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
        assert torch.allclose(network.patterns(TOKENS)[:, 0, head], scores.softmax(-1), atol=1e-6)
    for reader in ("K", "Q", "V"):
        assert torch.equal(composition_between(network, 0, 1, reader), composition(toy, reader))


def test_a_head_without_output_weights_is_a_zero_ablated_head(toy):
    network = network_of(toy)
    with network.ablated([HEAD]):
        without = network.forward(TOKENS)
    other = AttentionOnly(TOY)
    other.load_state_dict(toy.state_dict())
    with torch.no_grad():
        other.blocks[HEAD[0]].attn.W_O[HEAD[1]].zero_()
        assert torch.allclose(without, other(TOKENS), atol=1e-5)


def test_means_may_be_those_of_other_rows(toy):
    network = network_of(toy)
    with network.ablated([HEAD], "mean"):
        of_the_same = network.forward(TOKENS)
    with network.ablated([HEAD], "mean", of=TOKENS):
        assert torch.equal(network.forward(TOKENS), of_the_same)
        one_row = network.forward(TOKENS[:1])
    assert torch.allclose(one_row, of_the_same[:1], atol=1e-5)


def test_a_checkpoint_of_a_run_is_its_network(toy, tmp_path):
    config = {name: getattr(TOY, name) for name in vars(TOY)}
    (tmp_path / CARD).write_text(json.dumps({"model": config}))
    for step, model in ((0, AttentionOnly(TOY).initialise(0)), (7, toy)):
        save_checkpoint(tmp_path, step, model)
    run = RunFolder.open(tmp_path)
    assert torch.allclose(network_of(run).forward(TOKENS), network_of(toy).forward(TOKENS), atol=1e-5)
    start = AttentionOnly(TOY).initialise(0)
    assert torch.allclose(network_of(run, step=0).forward(TOKENS), network_of(start).forward(TOKENS), atol=1e-5)
    untrained = network_of(run, weights="untrained", seed=0)
    assert torch.allclose(untrained.forward(TOKENS), network_of(start).forward(TOKENS), atol=1e-5)
    with pytest.raises(InputError, match="no tokenizer"):
        network_of(run).tokens("text")


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda network: network.forward(torch.full((1, 17), 3)), "at most 16 tokens, found 17"),
        (lambda network: network.forward(torch.tensor([[400]])), "from 0 to 399, found 400"),
        (lambda network: network.forward(torch.tensor([[-1]])), "found -1"),
        (lambda network: network.ablated([(2, 0)]).__enter__(), r"below \(2, 4\), found \(2, 0\)"),
    ],
)
def test_what_cannot_be_run_is_refused(toy, ask, words):
    with pytest.raises(InputError, match=words):
        ask(network_of(toy))


def test_a_subject_without_weights_is_refused():
    with pytest.raises(InputError, match="Recorded numbers have no weights"):
        network_of(object())


def test_resampling_one_row_alone_is_refused(toy):
    network = network_of(toy)
    with network.ablated([HEAD], "resample"), pytest.raises(InputError, match="two rows"):
        network.forward(TOKENS[:1])


def test_text_is_read_with_the_token_in_front(pretrained):
    _, network = pretrained
    assert network.tokens(" Monday").shape[0] == 1
    repeated = network.repeated_tokens(3, 5, torch.Generator().manual_seed(0))
    front = int(network.bos_id is not None)
    assert torch.equal(repeated[:, front : front + 5], repeated[:, front + 5 :])


def slow_prefix(pattern, period):
    """One plain loop: from each token of the second half to the one after its first copy."""
    length = len(pattern)
    return sum(pattern[q][q - period + 1] for q in range(length - period, length)) / period


def test_scores_of_patterns_equal_plain_loops(toy):
    network = network_of(toy)
    tokens = network.repeated_tokens(3, 6, torch.Generator().manual_seed(0))
    patterns = network.patterns(tokens)
    matching, before, same = (
        prefix_matching_scores(patterns, 6), previous_token_scores(patterns), current_token_scores(patterns)
    )  # fmt: skip
    for row, layer, head in ((0, 0, 0), (2, 1, 3)):
        one = patterns[row, layer, head].tolist()
        assert matching[row, layer, head].item() == pytest.approx(slow_prefix(one, 6), abs=1e-6)
        assert before[row, layer, head].item() == pytest.approx(sum(one[q][q - 1] for q in range(1, 12)) / 11, abs=1e-6)
        assert same[row, layer, head].item() == pytest.approx(sum(one[q][q] for q in range(1, 12)) / 11, abs=1e-6)


@pytest.mark.parametrize("d_vocab", [500, 20_000])
def test_a_planted_induction_head_matches_copies_and_is_what_copies(d_vocab):
    network = network_of(planted_induction(d_vocab, n_ctx=128))
    tokens = network.repeated_tokens(4, 24, torch.Generator().manual_seed(0))
    patterns = network.patterns(tokens)
    scores = prefix_matching_scores(patterns, 24).mean(0)
    assert (scores > 0.5).nonzero().tolist() == [[1, 6]]
    assert (previous_token_scores(patterns).mean(0) > 0.5).nonzero().tolist() == [[0, 1]]
    late = network.loss(tokens)[:, 25:].mean()
    with network.ablated([(1, 6)]):
        assert network.loss(tokens)[:, 25:].mean() > late + 1
    with network.ablated([(1, 5)]):
        assert abs(network.loss(tokens)[:, 25:].mean() - late) < 0.1


def test_the_other_planted_model_is_seen_through_the_same_face():
    network = network_of(planted_types_model({"0:1": "previous-token", "1:6": "induction"}))
    table = composition_between(network, 0, 1)
    assert divmod(int(table.argmax()), 8) == (1, 6)
    with pytest.raises(ValueError, match="a later one to read"):
        composition_between(network, 1, 0)
