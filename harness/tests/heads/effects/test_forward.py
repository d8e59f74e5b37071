"""Passes of a model opened for ablation: the model's own numbers, kept, and gone on with from any layer."""

from __future__ import annotations

import pytest
import torch
from circuit_claims.heads.effects.forward import open_model

from tests.helpers.small_models import save_small_model


def test_a_pass_is_the_models_own(bench):
    """Final residual, attention and head outputs are those of transformers' own model with eager attention."""
    import transformers

    plain = transformers.AutoModelForCausalLM.from_pretrained(bench.local.folder, attn_implementation="eager").eval()
    runs = bench.model.run(bench.contexts)
    with torch.no_grad():
        out = plain(bench.contexts, output_attentions=True, output_hidden_states=True)
    for row, run in enumerate(runs):
        logits = bench.model.final_norm(run.final) @ bench.model.W_U.T
        torch.testing.assert_close(logits, out.logits[row], atol=1e-5, rtol=1e-5)
        for layer, heads in ((0, [2, 3]), (1, [0])):
            patterns = bench.model.patterns(run, layer, heads)
            torch.testing.assert_close(patterns, out.attentions[layer][row][heads], atol=1e-6, rtol=0)
        torch.testing.assert_close(run.resid[1], out.hidden_states[1][row], atol=1e-5, rtol=1e-5)


def test_what_heads_write_adds_up_to_what_attention_writes(bench):
    run, model = bench.runs[0], bench.model
    for layer, block in enumerate(model.blocks):
        total = sum(model.write(layer, head, run.z[layer][:, head]) for head in range(model.dims.n_heads))
        total = total if block.b_O is None else total + block.b_O
        torch.testing.assert_close(total, run.written[layer], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", [0, 1])
def test_going_on_unchanged_gives_the_same_final_residual(bench, layer):
    """Also for a context out of a batch, whose masks and positions are cut out of the batch's."""
    run = bench.runs[4]
    again = bench.model.run_from(run, layer, lambda z: z, variants=3)
    torch.testing.assert_close(again, run.final.expand(3, -1, -1), atol=1e-5, rtol=1e-5)


def test_passes_of_other_threads_do_not_meet(bench_of):
    """Two threads on one model: each finds its own context's numbers on its own tape."""
    from concurrent.futures import ThreadPoolExecutor

    bench = bench_of("gemma3_text")
    rows = [bench.contexts[[row]] for row in range(6)] * 5
    alone = [bench.model.run(row)[0].final for row in rows]
    with ThreadPoolExecutor(4) as pool:
        together = [runs[0].final for runs in pool.map(bench.model.run, rows)]
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize(
    ("contexts", "message"),
    [
        (torch.tensor([[0, 100_000]]), "another model's tokenizer"),
        (torch.tensor([[-1, 3]]), "expected 0 to"),
        (torch.tensor([[3]]), "expected 2 to 64 tokens, found 1"),
        (torch.zeros(1, 65, dtype=torch.long), "expected 2 to 64 tokens, found 65"),
    ],
)
def test_contexts_that_cannot_be_run_are_refused(bench_of, contexts, message):
    with pytest.raises(ValueError, match=message):
        bench_of("gpt2").model.run(contexts)


def test_soft_capped_logits_are_refused(tmp_path):
    """Heads' contributions to such logits do not add up."""
    import json

    from circuit_claims.models.architectures.names import UnsupportedArchitecture
    from circuit_claims.models.resolve import resolve

    folder = save_small_model("gemma3_text", tmp_path / "capped")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "final_logit_softcapping": 30.0}))
    with pytest.raises(UnsupportedArchitecture, match="soft-capped"):
        open_model(resolve(folder, cache_dir=tmp_path / "cache"))
