"""Direct effects of all heads at once: equal to brute force, adding up to the logit, true on planted heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from circuit_claims.heads.effects.direct import contributions, direct_effects, readout_of, scale_of
from circuit_claims.heads.effects.settings import ABLATIONS

from tests.heads.effects.conftest import open_bench
from tests.heads.effects.plain_effects import plain_logits

ANSWER = 50
CHOICES = [
    {"means": "over positions", "donors": "same position"},
    {"means": "by position", "donors": "any position"},
]


def plain_lost(bench, reference, head, ablation):
    """Logit the correct token loses, by hooks and whole passes, averaged over repeats."""
    (layer, number), run = head, bench.runs[0]
    own = bench.model.final_norm(run.final) @ bench.model.W_U.T
    outputs = reference.replacement(run, layer, ablation)[:, :, number]
    lost = [own - plain_logits(bench.model, run.tokens, layer, number, output, "direct") for output in outputs]
    return torch.stack(lost).mean(0)[:-1].gather(1, run.correct[:, None])[:, 0].numpy()


@pytest.mark.parametrize("choices", CHOICES, ids=["over positions", "by position"])
def test_every_head_equals_brute_force(bench, choices):
    reference = bench.reference(**choices)
    found = direct_effects(bench.model, bench.runs[0], reference)
    largest = 0.0
    for row, (layer, head) in enumerate(found.heads.tolist()):
        for ablation in ABLATIONS:
            expected = plain_lost(bench, reference, (layer, head), ablation)
            np.testing.assert_allclose(found.drop(ablation)[row], expected, atol=1e-5)
            largest = max(largest, float(np.abs(expected).max()))
    assert largest > 0.1


def test_heads_and_the_rest_add_up_to_the_true_logit(bench):
    run = bench.runs[0]
    parts = contributions(bench.model, run)
    logits = bench.model.network(bench.contexts[:1]).logits[0, :-1].detach()
    true = logits.gather(1, run.correct[:, None])[:, 0].double()
    torch.testing.assert_close(parts.heads.sum(0) + parts.rest, true, atol=1e-5, rtol=0)
    assert parts.gap < 1e-5
    assert direct_effects(bench.model, run, bench.reference()).gap < 1e-5


def test_the_rest_is_embeddings_mlps_and_biases(bench):
    """The rest found the other way round: by hooks on what is not a head."""
    model, run, names = bench.model, bench.runs[0], bench.model.names
    seen = []
    hooks = [
        layer.get_submodule(names.mlp_post_norm or names.mlp[-1].rpartition(".")[0]).register_forward_hook(
            lambda module, args, output: seen.append(output[0])
        )
        for layer in model.layers
    ]
    model.network(bench.contexts[:1])
    for hook in hooks:
        hook.remove()
    other = run.resid[0] + sum(seen) + sum(block.b_O for block in model.blocks if block.b_O is not None)
    readout = readout_of(model, run.final[:-1], run.correct)
    expected = (readout.toward * other[:-1]).sum(-1) / readout.scale + readout.shift
    torch.testing.assert_close(contributions(model, run).rest, expected.detach(), atol=1e-5, rtol=0)


def test_frozen_effects_are_differences_of_contributions(bench):
    """With frozen norms, ablation by the donors' outputs averages to ablation by their mean: heads are linear."""
    reference = bench.reference(repeats=5, final_norm="frozen", means="by position")
    found = direct_effects(bench.model, bench.runs[0], reference)
    np.testing.assert_allclose(found.mean, found.resample, atol=1e-5)
    recomputed = direct_effects(bench.model, bench.runs[0], bench.reference(repeats=5, means="by position"))
    assert np.abs(recomputed.mean - recomputed.resample).max() > 1e-4
    assert np.array_equal(found.frozen_winner, found.winners())
    assert np.array_equal(found.recomputed_winner, recomputed.winners())
    assert np.array_equal(found.frozen_winner, recomputed.frozen_winner)


def test_a_frozen_effect_against_zero_is_the_contribution(bench):
    """Both norms' scales held: the logit without a head is the logit less its contribution, by plain arithmetic."""
    run, model = bench.runs[0], bench.model
    parts = contributions(model, run)
    scale = scale_of(model.final_norm, run.final[:-1])
    for row, (layer, head) in enumerate(model.heads.tolist()):
        block = model.blocks[layer]
        write = model.write(layer, head, run.z[layer][:-1, head]).double()
        if block.post_norm.weight is not None:
            write = write * block.post_norm.weight / scale_of(block.post_norm, run.written[layer][:-1])[:, None]
        without = readout_of(model, (run.final[:-1] - write).float(), run.correct)
        lost = readout_of(model, run.final[:-1], run.correct).along - without.along
        torch.testing.assert_close(parts.heads[row], lost / scale, atol=1e-5, rtol=0)


def silenced(bench, head):
    """Make one head write nothing, whatever it attends to."""
    layer, number = head
    width = bench.model.dims.d_head
    with torch.no_grad():
        bench.model.blocks[layer].W_O[:, number * width : (number + 1) * width] = 0


@pytest.mark.parametrize("architecture", ["gpt2", "gemma3_text"])
def test_a_head_that_writes_nothing_has_no_effect(architecture, tmp_path):
    from tests.helpers.small_models import save_small_model

    bench = open_bench(save_small_model(architecture, tmp_path / "model"), tmp_path / "cache")
    silenced(bench, (1, 2))
    runs = bench.model.run(bench.contexts)
    quiet = type(bench)(bench.local, bench.model, bench.contexts, runs)
    found = direct_effects(quiet.model, runs[0], quiet.reference())
    row = found.row((1, 2))
    assert np.abs(found.mean[row]).max() < 1e-6
    assert np.abs(found.resample[row]).max() < 1e-6
    others = np.delete(np.abs(found.mean), row, axis=0)
    assert others.max(1).min() > 1e-3


@pytest.mark.parametrize(("sign", "share"), [(1.0, 1.0), (-1.0, 0.0)], ids=["for it", "against it"])
def test_a_planted_head_wins_where_it_must(sign, share, tmp_path):
    """A head that speaks for one answer in the ablated context, and in no other, wins each case of that answer.

    The same head speaking against the answer wins none: ablating it would help.
    """
    from tests.helpers.small_models import save_small_model

    bench = open_bench(save_small_model("gpt2", tmp_path / "model", tied=False), tmp_path / "cache")
    contexts = bench.contexts % 100 + 100
    contexts[0] -= 100
    contexts[0, 1::2] = ANSWER
    plant_speaker(bench.model, head=2, sign=sign)
    runs = bench.model.run(contexts)
    planted = type(bench)(bench.local, bench.model, contexts, runs)
    found = direct_effects(planted.model, runs[0], planted.reference())
    asked = (runs[0].correct == ANSWER).numpy()
    for ablation in ABLATIONS:
        assert (found.winners(ablation) == found.row((0, 2)))[asked].mean() == share
        assert (found.rank((0, 2), ablation) == 0)[asked].mean() == share
    assert asked.sum() == 10


def plant_speaker(model, head, sign):
    """A head of layer 0 whose output is large for tokens below 100 and small from there on; it writes the answer."""
    d_model, d_head = model.dims.d_model, model.dims.d_head
    body = model.network.base_model
    with torch.no_grad():
        body.wpe.weight.zero_()
        body.wte.weight[:100, 0] += 50
        body.wte.weight[100:, 1] += 50
        values = slice(2 * d_model + head * d_head, 2 * d_model + (head + 1) * d_head)
        body.h[0].attn.c_attn.weight[:, values] = 0
        body.h[0].attn.c_attn.weight[0, values] = 1
        body.h[0].attn.c_attn.bias[values] = 0
        toward = model.W_U[ANSWER] * model.final_norm.weight
        model.blocks[0].W_O[:, head * d_head : (head + 1) * d_head] = sign * toward[:, None]


def test_a_head_that_does_not_exist_is_refused(bench_of):
    bench = bench_of("gpt2")
    with pytest.raises(KeyError, match="expected one of 8 heads"):
        direct_effects(bench.model, bench.runs[0], bench.reference()).row((7, 0))
