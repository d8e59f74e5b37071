"""Loss changes of chosen heads, and what they attend to and promote: equal to brute force over the whole vocabulary."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from circuit_claims.heads.effects import losses
from circuit_claims.heads.effects.losses import FinalResiduals, HeadReadout, VocabularyPanel, loss_changes
from circuit_claims.heads.effects.settings import ABLATIONS, EFFECTS, HeadSettings
from circuit_claims.heads.effects.views import GROUP, most_attended, most_promoted, top_of
from torch.nn.functional import cross_entropy

from tests.heads.effects.plain_effects import plain_logits


def plain_loss(logits, run):
    return cross_entropy(logits[:-1], run.correct, reduction="none").detach()


@pytest.mark.parametrize("head", [(0, 1), (1, 3)])
def test_losses_equal_brute_force(bench, head, monkeypatch):
    monkeypatch.setattr(losses, "VOCABULARY_BLOCK", 100)
    monkeypatch.setattr(losses, "CASES_AT_ONCE", 8)
    run, reference = bench.runs[0], bench.reference()
    loss, (changes,) = loss_changes([(HeadReadout.of(bench.model, head), HeadSettings())], run, reference)
    own = plain_loss(bench.model.network(bench.contexts[:1]).logits[0], run)
    torch.testing.assert_close(loss, own, atol=1e-5, rtol=1e-5)
    for ablation in ABLATIONS:
        outputs = reference.replacement(run, head[0], ablation)[:, :, head[1]]
        for effect in EFFECTS:
            ablated = [plain_loss(plain_logits(bench.model, run.tokens, *head, one, effect), run) for one in outputs]
            expected = torch.stack(ablated).mean(0) - own
            torch.testing.assert_close(changes[effect, ablation], expected, atol=1e-5, rtol=0)
            assert changes["total", ablation].abs().max() > 1e-2


def test_only_what_is_asked_is_run(bench_of, monkeypatch):
    bench = bench_of("llama")
    monkeypatch.setattr(type(bench.model), "run_from", lambda *_: pytest.fail("ran layers for a direct effect"))
    readout, settings = HeadReadout.of(bench.model, (0, 0)), HeadSettings(effects=("direct",), ablations=("mean",))
    _, (changes,) = loss_changes([(readout, settings)], bench.runs[0], bench.reference())
    assert list(changes) == [("direct", "mean")]


def test_nothing_reads_the_last_layers_heads_in_a_parallel_model(bench_of):
    """GPT-NeoX' last MLP runs beside attention: the whole effect is direct. In the other architectures it is not."""
    for architecture, reads in (("gpt_neox", False), ("llama", True)):
        bench = bench_of(architecture)
        asked = [(HeadReadout.of(bench.model, (1, 0)), HeadSettings())]
        _, (changes,) = loss_changes(asked, bench.runs[0], bench.reference())
        assert (changes["indirect", "mean"].abs().max() > 1e-3) == reads
        assert ((changes["total", "mean"] - changes["direct", "mean"]).abs().max() > 1e-3) == reads


def test_heads_that_do_not_exist_are_refused(bench_of):
    with pytest.raises(KeyError, match="a layer below 2 and a head below 4"):
        HeadReadout.of(bench_of("gpt2").model, (2, 0))


def test_the_most_attended_positions(bench_of):
    bench = bench_of("gemma3_text")
    (pattern,) = bench.model.patterns(bench.runs[0], 1, [2])
    places, shares = most_attended(pattern, 4)
    assert places.shape == shares.shape == (19, 4)
    assert places[0].tolist() == [0, -1, -1, -1]
    assert shares[0].tolist() == [1.0, 0.0, 0.0, 0.0]
    for case in range(3, 19):
        best = sorted(range(case + 1), key=lambda position: -pattern[case, position])[:4]
        assert places[case].tolist() == best
        torch.testing.assert_close(shares[case], pattern[case, best])


def test_more_positions_than_there_are_are_padded(bench_of):
    model = bench_of("gpt2").model
    (run,) = model.run(bench_of("gpt2").contexts[:1, :3])
    places, shares = most_attended(model.patterns(run, 0, [0])[0], 5)
    assert places.shape == (2, 5)
    assert (places[:, 3:] == -1).all()
    torch.testing.assert_close(shares.sum(1), torch.ones(2))


def test_the_most_promoted_tokens(bench):
    """What the head's own write alone adds to each logit, both norms held at their scales."""
    head, run, model = (1, 1), bench.runs[0], bench.model
    tokens, logits = most_promoted(HeadReadout.of(model, head), run, 7)
    write = model.write(*head, run.z[1][:-1, 1])
    post, final = model.blocks[1].post_norm, model.final_norm
    if post.kind != "none":
        y = run.written[1][:-1]
        write = write * post.weight * torch.rsqrt(y.square().mean(-1, keepdim=True) + post.eps)
    x = run.final[:-1]
    if final.kind == "layer":
        write, x = (v - v.mean(-1, keepdim=True) for v in (write, x))
    added = (write * final.weight * torch.rsqrt(x.square().mean(-1, keepdim=True) + final.eps)) @ model.W_U.T
    best = added.topk(7, dim=-1)
    torch.testing.assert_close(logits, best.values, atol=1e-5, rtol=1e-5)
    assert (tokens == best.indices).float().mean() > 0.98


@pytest.mark.parametrize("columns", [GROUP * GROUP * 2, GROUP * GROUP + 5, 40])
def test_the_largest_entries_are_topks(columns):
    """Also where several stand side by side, and where the last columns are fewer than a group."""
    rows = torch.rand(9, columns, generator=torch.Generator().manual_seed(0))
    rows[3, -4:] += 2
    rows[4] -= 5
    values, places = top_of(rows, 6)
    expected = rows.topk(6, dim=-1)
    assert torch.equal(values, expected.values)
    assert torch.equal(places, expected.indices)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_heads_asked_about_together_are_what_they_are_alone(architecture, bench_of):
    bench = bench_of(architecture)
    asked = [
        (HeadReadout.of(bench.model, (0, 1)), HeadSettings()),
        (HeadReadout.of(bench.model, (1, 2)), HeadSettings(effects=("indirect",), ablations=("resample",))),
        (HeadReadout.of(bench.model, (1, 0)), HeadSettings(effects=("direct",))),
    ]
    loss, together = loss_changes(asked, bench.runs[0], bench.reference())
    assert [len(changes) for changes in together] == [6, 1, 2]
    for one, changes in zip(asked, together, strict=True):
        alone, (expected,) = loss_changes([one], bench.runs[0], bench.reference())
        assert torch.equal(loss, alone)
        assert all(torch.equal(changes[name], expected[name]) for name in expected)


def test_rounding_drops_out_of_losses_near_zero(bench_of):
    """Ablating a head moves the loss of a sure case by less than a logit is rounded by: its sign must stand."""
    bench = bench_of("llama")
    model = replace(bench.model, W_U=bench.model.W_U * 200)
    x = bench.runs[0].final
    logits = model.final_norm(x.double()) @ model.W_U.double().T
    correct = logits.argmax(-1)
    exact = logits.logsumexp(-1) - logits.amax(-1)
    base = VocabularyPanel(x if model.final_norm.weight is None else x * model.final_norm.weight, model.W_U)
    (found,) = losses.losses_at(model, [FinalResiduals(x, base)], correct)
    sure = (exact < 1e-2) & (logits.amax(-1) > 16)
    assert sure.sum() >= 3
    assert torch.finfo(torch.float32).eps * logits.amax(-1)[sure].min() > 1e-6
    torch.testing.assert_close(found[sure], exact[sure], atol=2e-7, rtol=1e-4)
