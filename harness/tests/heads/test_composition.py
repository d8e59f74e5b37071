"""Composition scores against full matrices, path ablation against a plain loop, both on planted circuits."""

import pytest
import torch
from circuit_claims.heads.composition import composition, head_loss_changes, head_writes, path_effects, token_losses
from circuit_claims.heads.head_types_planted import PAPER_LIKE, planted_types_model
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig
from torch.nn import functional as F

SMALL = AttentionOnlyConfig(d_model=16, n_heads=2, d_head=8, n_ctx=9, d_vocab=11, init_std=0.5)


@pytest.mark.parametrize("reader", ["K", "Q", "V"])
@pytest.mark.parametrize("gain", [False, True])
def test_composition_equals_norms_of_full_matrices(reader, gain):
    model = AttentionOnly(SMALL).initialise(3)
    with torch.no_grad():
        model.blocks[1].ln1.w.add_(torch.rand(16, generator=torch.Generator().manual_seed(0)))
    found = composition(model, reader, gain=gain)
    first, second = model.blocks[0].attn, model.blocks[1].attn
    scale = model.blocks[1].ln1.w.diag() if gain else torch.eye(16)
    for writer in range(2):
        for read in range(2):
            ov = first.W_V[writer] @ first.W_O[writer]
            qk = second.W_Q[read] @ second.W_K[read].T
            inner = {"K": qk @ scale, "Q": qk.T @ scale, "V": (scale @ second.W_V[read] @ second.W_O[read]).T}[reader]
            slow = (inner @ ov.T).norm() / (inner.norm() * ov.norm())
            assert float(found[writer, read]) == pytest.approx(float(slow.detach()), rel=1e-4)


def test_untrained_heads_compose_as_independent_matrices_do():
    found = composition(AttentionOnly().initialise(1))
    assert found.shape == (8, 8)
    assert float(found.mean()) == pytest.approx(0.0625, abs=0.002)


def test_a_planted_induction_head_composes_with_the_previous_token_heads_alone():
    found = composition(planted_types_model(PAPER_LIKE))
    planted = [found[writer, reader] for writer in (1, 4) for reader in (6, 7)]
    others = [found[writer, reader] for writer in (0, 2, 3, 5, 6, 7) for reader in (6, 7)]
    assert min(planted) > 1.5 * max(others)


def test_path_ablation_equals_a_plain_forward_pass_with_one_input_replaced():
    model = AttentionOnly(SMALL).initialise(3)
    tokens = torch.randint(0, 11, (3, 9), generator=torch.Generator().manual_seed(2))
    found = path_effects(model, tokens)[1, 0]
    with torch.no_grad():
        pos, resid = model.pos_embed["W_pos"][:8], model.embed["W_E"][tokens[:, :-1]]
        write = head_writes(model, 0, model.blocks[0].ln1(resid))[:, 1]
        resid = model.blocks[0](resid, pos)
        true, false = (model.blocks[1].ln1(x) for x in (resid, resid - write + write.mean((0, 1))))
        attn, total = model.blocks[1].attn, resid + model.blocks[1].attn.b_O
        mask = torch.ones(8, 8).tril().log()
        for head in range(2):
            keys = (false if head == 0 else true) + pos
            scores = ((true + pos) @ attn.W_Q[head]) @ (keys @ attn.W_K[head]).transpose(1, 2) / 8**0.5
            total = total + (scores + mask).softmax(-1) @ (true @ attn.W_V[head]) @ attn.W_O[head]
        ablated = token_losses(model, total, tokens)
        plain = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    torch.testing.assert_close(found, ablated - plain.view(3, 8), atol=1e-5, rtol=1e-4)


def test_cutting_the_path_to_a_planted_induction_head_costs_repeated_text_and_nothing_else_does():
    roles = {"0:1": "previous-token", "1:6": "induction"}
    half = torch.stack([torch.randperm(24, generator=torch.Generator().manual_seed(row)) for row in range(6)])
    repeated = torch.cat([half, half], 1)
    for order in (None, torch.arange(6).roll(1)):
        effect = path_effects(planted_types_model(roles), repeated, order=order)[..., 24:].mean((2, 3))
        assert float(effect[1, 6]) > 0.5
        effect[1, 6] = 0
        assert float(effect.abs().max()) < 0.05


def test_ablating_a_head_equals_zeroing_its_output_matrix_and_adding_its_mean():
    model = AttentionOnly(SMALL).initialise(3)
    tokens = torch.randint(0, 11, (3, 9), generator=torch.Generator().manual_seed(2))
    found = head_loss_changes(model, tokens)
    with torch.no_grad():
        base = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        mean = head_writes(model, 0, model.blocks[0].ln1(model.embed["W_E"][tokens[:, :-1]]))[:, 1].mean((0, 1))
        model.blocks[0].attn.W_O[1] = 0
        model.blocks[0].attn.b_O += mean
        slow = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), reduction="none") - base
    torch.testing.assert_close(found[0, 1], slow.view(3, 8), atol=1e-5, rtol=1e-4)


def test_one_layer_has_nothing_to_compose():
    with pytest.raises(ValueError, match="two layers"):
        composition(AttentionOnly(AttentionOnlyConfig(n_layers=1, d_vocab=11)).initialise(0))
