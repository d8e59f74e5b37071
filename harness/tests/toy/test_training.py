"""Training: the fast loss equals the plain one, a killed run ends as an undisturbed one, wrong settings are refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from circuit_claims.toy import fast, training
from circuit_claims.toy.checkpoints import RunError, RunFolder, ship, spread
from circuit_claims.toy.corpus import Corpus
from circuit_claims.toy.fast import (
    BlockedAttention,
    CrossEntropy,
    can_compile,
    causal_mask,
    exponentials,
    exponentials_of_logits,
    fast_loss,
    gradient_of,
    plain_loss,
)
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig, attend
from circuit_claims.toy.training import Phase, Recipe, Trainer, checkpoint_steps, flops_per_token, recipe_of

compiled_kernel = fast._compiled
PAPER_WIDTH = Recipe.model
SMALL = Recipe(steps=12, batch=2, n_ctx=16)


def small_corpus(rows: int = 64, n_ctx: int = 16) -> Corpus:
    tokens = np.random.default_rng(0).integers(0, 5000, (rows, n_ctx)).astype(np.uint16)
    return Corpus(tokens, tokens[:8], {"digest": "made up", "tokenizer": "none"})


def train(folder, recipe=SMALL, until=None, **settings):
    trainer = Trainer(recipe, small_corpus(), folder, save_every=4, **settings)
    for step in trainer.advance():
        if step.number == until:
            break
    return trainer


def narrow(recipe):
    """The paper's model but narrower: what a run keeps and goes on from does not hang on the width."""
    return AttentionOnlyConfig(n_layers=recipe.n_layers, n_ctx=recipe.n_ctx, d_model=32, n_heads=4, d_head=8)


@pytest.fixture(autouse=True)
def narrow_models(monkeypatch):
    monkeypatch.setattr(Recipe, "model", property(narrow))


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    """The kernels as they stand: compiling each for every shape would take longer than all else here."""
    monkeypatch.setattr(fast, "_compiled", lambda kernel: kernel)


@pytest.mark.skipif(not can_compile(), reason="no C++ compiler here; install g++ to run this")
def test_compiled_kernels_give_what_the_plain_ones_give():
    draw = torch.Generator().manual_seed(0)
    scores, grad = (torch.randn(2, 2, 6, 9, generator=draw).bfloat16() for _ in range(2))
    mask, flow = causal_mask(6, 9), torch.randn(2, 2, 6, 1, generator=draw)
    logits, bias = (4 * torch.randn(5, 700, generator=draw)).bfloat16(), torch.randn(700, generator=draw)
    for kernel, arguments in (
        (exponentials, (scores, mask, 0.3)),
        (gradient_of, (scores, grad, flow, 0.3)),
        (exponentials_of_logits, (logits, bias)),
    ):
        for compiled, plain in zip(compiled_kernel(kernel)(*arguments), kernel(*arguments), strict=True):
            assert torch.allclose(compiled.float(), plain.float(), rtol=0.01, atol=1e-6)


def model_with_biases(layers: int) -> AttentionOnly:
    config = AttentionOnlyConfig(
        n_layers=layers, n_ctx=256, d_vocab=700, d_model=64, n_heads=4, d_head=16, init_std=0.2
    )
    model = AttentionOnly(config).initialise(seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".b_" in name:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    return model


# bf16 has 8 bits: gradients through two layers of rounded products agree to one part in twenty.
@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("length", [7, 128, 200])
@pytest.mark.parametrize("layers", [1, 2])
def test_the_fast_loss_and_its_gradients_are_the_plain_ones(layers, length, dtype, apart):
    model = model_with_biases(layers)
    tokens = torch.randint(0, 700, (3, length), generator=torch.Generator().manual_seed(2))
    plain = torch.autograd.grad(plain_loss(model, tokens), list(model.parameters()))
    quick = torch.autograd.grad(fast_loss(model, tokens, dtype), list(model.parameters()), allow_unused=True)
    assert fast_loss(model, tokens, dtype).item() == pytest.approx(plain_loss(model, tokens).item(), rel=apart / 25)
    for (name, _), expected, found in zip(model.named_parameters(), plain, quick, strict=True):
        if name.endswith("b_K"):
            assert expected.abs().max() < 1e-6  # the softmax does not see it, which is why the fast path leaves it out
            assert found is None
        else:
            assert (found - expected).norm() < apart * expected.norm(), name


def test_the_gradient_of_a_target_that_is_all_but_certain_keeps_its_digits():
    """In bf16 1 - p of p = 0.999 would be 0 or 0.004 if it were taken from the rounded table."""
    hidden, weight = torch.ones(1, 1, dtype=torch.bfloat16, requires_grad=True), torch.zeros(1, 5).bfloat16()
    bias = torch.tensor([8.3, 0.0, 0.0, 0.0, 0.0], requires_grad=True)
    target = torch.tensor([0])
    found = torch.autograd.grad(CrossEntropy.apply(hidden, weight, bias, target), bias)[0]
    expected = torch.softmax(bias.detach(), 0) - torch.eye(5)[0]
    torch.testing.assert_close(found, expected, rtol=0.01, atol=1e-6)


def test_the_loss_curve_is_that_of_the_plain_step(tmp_path, monkeypatch):
    """Twelve updates; AdamW divides by small second moments, which lets rounding grow, so not to the last digit."""
    monkeypatch.setattr(Recipe, "model", PAPER_WIDTH)  # narrow, it would have learnt next to nothing by then
    curves = []
    for loss in (fast_loss, lambda model, tokens, dtype: plain_loss(model, tokens)):
        monkeypatch.setattr(training, "fast_loss", loss)
        trainer = Trainer(SMALL, small_corpus(), tmp_path / str(len(curves)))
        curves.append([trainer.update(trainer.rows(step)).item() for step in range(SMALL.steps)])
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)
    assert curves[0][-1] < curves[0][0] - 0.1


def test_blocked_attention_lets_nobody_see_the_future():
    inputs = torch.randn(3, 1, 2, 150, 8, generator=torch.Generator().manual_seed(0))
    out = BlockedAttention.apply(inputs)
    assert torch.allclose(out, attend(*inputs), atol=1e-5)
    changed = inputs.clone()
    changed[:, :, :, 140:] += 1
    assert torch.equal(BlockedAttention.apply(changed)[:, :, :140], out[:, :, :140])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_cut_anywhere_ends_with_the_same_weights(tmp_path, precision):
    recipe = replace(SMALL, precision=precision)
    whole = train(tmp_path / "whole", recipe)
    for cut in (1, 6, 8, 11):
        train(tmp_path / "cut", recipe, until=cut)
    again = train(tmp_path / "cut", recipe)
    for (name, left), right in zip(whole.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(left, right), name
    read = [(tmp_path / name / "loss.csv").read_text() for name in ("whole", "cut")]
    assert read[0] == read[1]


def test_a_killed_process_loses_nothing_that_was_saved(tmp_path):
    """SIGKILL at whatever moment it comes; the same command then ends as an undisturbed run does."""
    script = (
        "import sys, time; from pathlib import Path; from dataclasses import replace\n"
        "from circuit_claims.toy import fast; fast._compiled = lambda kernel: kernel\n"
        "from tests.toy.test_training import Recipe, narrow, train, SMALL\n"
        "Recipe.model = property(narrow)\n"
        "train(Path(sys.argv[1]), replace(SMALL, steps=30), until=29)\n"
        "time.sleep(300)\n"  # never at its end, however late the signal
    )
    folder, command = tmp_path / "killed", [sys.executable, "-c", script, str(tmp_path / "killed")]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())})
    while process.poll() is None and not (folder / "step_00000013.safetensors").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended by itself, so nothing was killed"
    again, whole = train(folder, replace(SMALL, steps=30)), train(tmp_path / "whole", replace(SMALL, steps=30))
    for left, right in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(left, right)


def test_training_lowers_the_loss_on_what_it_has_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(Recipe, "model", PAPER_WIDTH)
    corpus = Corpus(
        np.repeat(small_corpus().train[:2], 40, axis=0), small_corpus().train[:2], {"digest": "", "tokenizer": ""}
    )
    trainer = Trainer(replace(SMALL, steps=30), corpus, tmp_path)
    before = trainer.held_out_loss()
    list(trainer.advance())
    assert trainer.held_out_loss() < before - 2


def test_a_run_opens_and_ships(tmp_path):
    trained = train(tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    assert run.steps == tuple(sorted(checkpoint_steps(12, 2_500) | {0}))
    assert torch.equal(run.model(12).embed["W_E"], trained.model.embed["W_E"])
    shipped = ship(run, tmp_path / "shipped", (0, 12), {"licence": "CC0"})
    assert shipped.steps == (0, 12)
    assert torch.allclose(shipped.model(12).embed["W_E"], trained.model.embed["W_E"], atol=1e-4)
    assert shipped.losses()["step"][-1] == 12
    path = tmp_path / "shipped" / "step_00000012.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RunError, match="changed or damaged"):
        shipped.model(12)


def test_a_step_that_is_not_there_names_its_neighbours(tmp_path):
    train(tmp_path / "run")
    with pytest.raises(RunError, match="nearest   "):
        RunFolder.open(tmp_path / "run").model(5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 0}, "steps above 0"),
        ({"precision": "fp8"}, "fp32 or bf16"),
        ({"n_ctx": 1}, "at least 2 tokens"),
        ({"lr": -1.0}, "lr above 0"),
    ],
)
def test_settings_out_of_range_are_refused(change, said):
    with pytest.raises(RunError, match=said):
        replace(SMALL, **change)


def test_too_few_rows_and_other_contexts_are_refused(tmp_path):
    with pytest.raises(RunError, match="smaller batch"):
        Trainer(replace(SMALL, batch=65), small_corpus(), tmp_path)
    with pytest.raises(RunError, match="rows of 32 tokens"):
        Trainer(replace(SMALL, n_ctx=32), small_corpus(), tmp_path)


def test_each_pass_reads_every_row_once_in_an_order_of_its_own(tmp_path):
    recipe = replace(
        SMALL, steps=48, later=(Phase(20, 6, 1e-3, 0.05),)
    )  # 40 + 168 rows of 64: three passes and a quarter
    trainer = Trainer(recipe, small_corpus(), tmp_path)
    read = [tuple(row.tolist()) for step in range(48) for row in trainer.rows(step)]
    assert len(read) == recipe.rows_before(48) == 208
    passes = [read[start : start + 64] for start in (0, 64, 128)]
    assert [len(set(one)) for one in passes] == [64, 64, 64]
    assert len({tuple(one) for one in passes}) == 3
    assert recipe.tokens_before(21) == (40 + 6) * 16


def test_a_run_goes_on_to_more_steps_and_a_later_batch(tmp_path):
    train(tmp_path)
    longer = replace(SMALL, steps=16, later=(Phase(12, 4, 1e-3, 0.05),))
    assert train(tmp_path, longer).step == 16
    with pytest.raises(RunError, match="other settings"):
        train(tmp_path, replace(longer, later=(Phase(3, 4, 1e-3, 0.05),)))


def test_a_batch_read_in_parts_is_the_same_step(tmp_path, monkeypatch):
    recipe = replace(SMALL, batch=7)
    whole = train(tmp_path / "whole", recipe, until=1)
    monkeypatch.setattr(training, "PART_TOKENS", 48)  # three rows at once: parts of 3, 3 and 1
    parts = train(tmp_path / "parts", recipe, until=1)
    assert parts._sum.item() == pytest.approx(whole._sum.item(), abs=1e-5)
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        gradients = one.grad, other.grad
        torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_later_phases_change_rate_and_decay_from_their_step_on(tmp_path):
    long = replace(SMALL, steps=16)
    plain = train(tmp_path / "plain", long)
    changed = replace(long, later=(Phase(12, 2, 1e-4, 500.0),))
    other = train(tmp_path / "other", changed)
    ten = [RunFolder.open(tmp_path / name).model(10).state_dict() for name in ("plain", "other")]
    assert all(torch.equal(ten[0][name], ten[1][name]) for name in ten[0])
    # Four more updates, each of which takes 5 % off: rate 1e-4 times 500.
    shares = other.model.embed["W_E"].norm() / plain.model.embed["W_E"].norm()
    assert shares.item() == pytest.approx(0.95**4, abs=0.02)
    assert recipe_of(json.loads((tmp_path / "other" / "run_card.json").read_text())["recipe"]) == changed


@pytest.mark.parametrize(
    "later",
    [(Phase(3, 2, 1e-3, -0.1),), (Phase(9, 2, 1e-3, 0.1), Phase(3, 2, 1e-3, 0.1)), (Phase(3, 2, 0.0, 0.1),)],
)
def test_phases_out_of_order_or_range_are_refused(later):
    with pytest.raises(RunError, match="later phases"):
        replace(SMALL, later=later)


@pytest.mark.parametrize("typed", ["", "41000", "41000:32:1e-3", "x:32:1e-3:0.05", "1:2:3:4:5"])
def test_phases_typed_wrong_say_how_to_type_them(typed):
    with pytest.raises(RunError, match="STEP:BATCH:RATE:DECAY"):
        Phase.parse(typed)


def test_a_folder_with_another_run_is_left_alone(tmp_path):
    train(tmp_path, until=3)
    with pytest.raises(RunError, match="other settings"):
        train(tmp_path, replace(SMALL, seed=2))


def test_two_trainings_in_one_folder_are_refused(tmp_path):
    going = Trainer(SMALL, small_corpus(), tmp_path).advance()
    next(going)
    with pytest.raises(RunError, match="one at work"):
        next(Trainer(SMALL, small_corpus(), tmp_path).advance())


def test_a_damaged_state_says_what_to_do(tmp_path):
    train(tmp_path, until=6)
    (tmp_path / "state.safetensors").write_bytes(b"nonsense")
    with pytest.raises(RunError, match="Delete it"):
        train(tmp_path)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    with pytest.raises(RunError, match="the loss is"):
        train(tmp_path, replace(SMALL, lr=1e30))


def test_the_schedule_is_logarithmic_and_linear():
    steps = checkpoint_steps(50_000, 2_500)
    assert {1, 10, 100, 1_000, 10_000, 2_500, 47_500, 50_000} <= steps
    assert max(steps) == 50_000
    assert spread(sorted(steps), 11)[0] == 1
    assert len(spread(sorted(steps), 11)) == 11


def test_operations_are_counted_as_the_formula_for_two_layers_has_them():
    # by hand: 6 x (2 x (4 x 256 x 256 + 2 x 256 x 512.5) + 256 x 5000)
    assert flops_per_token(AttentionOnlyConfig()) == 6 * (2 * (262_144 + 262_400) + 1_280_000)
