"""The attention-only model on transformer-lens' hook points: the same numbers, and interventions that act."""

import pytest
import torch
from circuit_claims.toy.hooked import hooked
from circuit_claims.toy.stepwise import forward_visited, point_names

from tests.toy.test_potentials import SMALL, small_model

TOKENS = torch.randint(0, SMALL.d_vocab, (3, SMALL.n_ctx), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def model():
    return small_model().eval()


@torch.no_grad()
def test_step_by_step_it_is_the_same_model(model):
    seen = []

    def visit(name, tensor):
        seen.append(name)
        return tensor

    torch.testing.assert_close(forward_visited(model, TOKENS, visit), model(TOKENS), atol=1e-5, rtol=1e-5)
    assert tuple(seen) == point_names(model.config)


def test_gradients_are_the_same_too(model):
    def gradient(forward):
        return torch.autograd.grad(forward().square().mean(), list(model.parameters()))

    plain = gradient(lambda: model(TOKENS))
    stepped = gradient(lambda: forward_visited(model, TOKENS, lambda _, tensor: tensor))
    for one, other in zip(plain, stepped, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_the_cache_has_every_point_under_its_usual_name(model):
    logits, cache = hooked(model).run_with_cache(TOKENS)
    torch.testing.assert_close(logits, model(TOKENS), atol=1e-5, rtol=1e-5)
    assert tuple(cache) == point_names(model.config)
    pattern = cache["blocks.1.attn.hook_pattern"]
    assert pattern.shape == (3, 4, 12, 12)
    torch.testing.assert_close(pattern.sum(-1), torch.ones(3, 4, 12))
    assert (pattern.triu(1) == 0).all()
    write = cache["blocks.1.hook_resid_post"] - cache["blocks.1.hook_resid_pre"]
    torch.testing.assert_close(write, cache["blocks.1.hook_attn_out"], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_head_silenced_by_a_hook_is_a_head_without_output_weights(model):
    """Zeroing z of head 1:2 by a hook, and W_O of head 1:2 in a copy, are the same ablation; neither is the model."""

    def silence(z, hook):
        assert hook.name == "blocks.1.attn.hook_z"
        z[:, :, 2] = 0
        return z

    ablated = hooked(model).run_with_hooks(TOKENS, fwd_hooks=[("blocks.1.attn.hook_z", silence)])
    copy = small_model().eval()
    copy.load_state_dict(model.state_dict())
    copy.blocks[1].attn.W_O[2] = 0
    torch.testing.assert_close(ablated, copy(TOKENS), atol=1e-5, rtol=1e-5)
    assert (ablated - model(TOKENS)).abs().max() > 0.1


@torch.no_grad()
def test_hooks_leave_nothing_behind(model):
    wrapped = hooked(model)
    before = wrapped(TOKENS)
    wrapped.run_with_hooks(TOKENS, fwd_hooks=[("hook_embed", lambda tensor, hook: tensor * 0)])
    assert torch.equal(before, wrapped(TOKENS))
    assert wrapped.model is model
