"""The attention-only model against a plain loop over heads and positions, and its sizes."""

import pytest
import torch
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig

SMALL = AttentionOnlyConfig(d_model=16, n_heads=4, d_head=4, n_ctx=12, d_vocab=31, init_std=0.4)


def small_model(seed: int = 3) -> AttentionOnly:
    model = AttentionOnly(SMALL).initialise(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".b" in name or name.endswith("ln1.w") or name.endswith("ln_final.w"):
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.3)
    return model


def slow_layer(block, resid, positions):
    """One sequence, one head and one position at a time."""
    normed = (resid - resid.mean(-1, keepdim=True)) / (resid.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    normed = normed * block.ln1.w + block.ln1.b
    a, write = block.attn, torch.zeros_like(resid) + block.attn.b_O
    for h in range(a.W_Q.shape[0]):
        q = (normed + positions) @ a.W_Q[h] + a.b_Q[h]
        k = (normed + positions) @ a.W_K[h] + a.b_K[h]
        v = normed @ a.W_V[h] + a.b_V[h]
        for t in range(len(resid)):
            pattern = ((q[t] @ k[: t + 1].T) / q.shape[1] ** 0.5).softmax(-1)
            write[t] += (pattern @ v[: t + 1]) @ a.W_O[h]
    return resid + write


def test_the_model_equals_a_plain_loop_over_heads_and_positions():
    model = small_model()
    tokens = torch.randint(0, 31, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        fast = model(tokens)
        for row, logits in zip(tokens, fast, strict=True):
            resid = model.embed["W_E"][row]
            for block in model.blocks:
                resid = slow_layer(block, resid, model.pos_embed["W_pos"])
            normed = torch.nn.functional.layer_norm(resid, (16,), model.ln_final.w, model.ln_final.b, 1e-5)
            slow = normed @ model.unembed["W_U"] + model.unembed["b_U"]
            torch.testing.assert_close(logits, slow, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("layers", "parameters"), [(2, 3_355_016), (1, 3_091_336)])
def test_the_papers_models_have_the_stated_number_of_parameters(layers, parameters):
    model = AttentionOnly(AttentionOnlyConfig(n_layers=layers))
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_one_seed_draws_the_same_weights_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first, second = AttentionOnly(SMALL).initialise(1), AttentionOnly(SMALL).initialise(1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.embed["W_E"], AttentionOnly(SMALL).initialise(2).embed["W_E"])


def test_values_and_the_residual_stream_carry_no_positions():
    model = small_model()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.W_Q.zero_(), block.attn.b_Q.zero_()  # every head attends evenly: positions can no longer matter
        one_token = torch.full((1, 12), 7)
        logits = model(one_token)[0]
    torch.testing.assert_close(logits, logits[:1].expand_as(logits), atol=1e-5, rtol=1e-5)


def test_a_sequence_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match="expected at most 12 tokens, found 13"):
        small_model()(torch.zeros(1, 13, dtype=torch.long))
