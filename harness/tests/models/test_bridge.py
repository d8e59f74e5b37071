"""Booting whole models: raw weights, memory stated and checked before anything is loaded."""

from __future__ import annotations

import re

import pytest
import torch
from circuit_claims.models import bridge
from circuit_claims.models.bridge import boot, check_fits, memory_needed
from circuit_claims.models.errors import DamagedWeights, DoesNotFit
from circuit_claims.models.resolve import resolve

from tests.helpers.small_models import ARCHITECTURES, save_small_model
from tests.models.damage import flip_bit

TOKENS = torch.tensor([[0, 3, 300, 41, 7]])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_booted_model_is_the_model(architecture, tied, tmp_path):
    import transformers

    folder = save_small_model(architecture, tmp_path / "model", tied=tied)
    booted = boot(resolve(folder, cache_dir=tmp_path / "cache"))
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        difference = (booted(TOKENS) - plain(TOKENS).logits).abs().max().item()
    assert difference < 1e-5
    assert {parameter.dtype for parameter in booted.parameters()} == {torch.float32}


def test_a_model_for_token_ids_alone_is_booted_without_its_vocabulary(copy_of, tmp_path, monkeypatch):
    local = resolve(copy_of("gemma3_text"), cache_dir=tmp_path / "cache")
    whole = boot(local)
    monkeypatch.setattr(bridge, "_tokenizer", lambda model: pytest.fail("the vocabulary was read"))
    booted = boot(local, text=False)
    assert booted.tokenizer.vocab_size == 1
    with torch.no_grad():
        assert torch.equal(booted(TOKENS), whole(TOKENS))


def test_half_precision_is_booted_in_fp32(copy_of, tmp_path):
    from tests.models.damage import edit_json, rewrite

    folder = copy_of("llama")
    rewrite(folder, lambda tensors: tensors.update({name: t.to(torch.bfloat16) for name, t in tensors.items()}))
    edit_json(folder / "config.json", dtype="bfloat16")
    booted = boot(resolve(folder, cache_dir=tmp_path / "cache"))
    assert {parameter.dtype for parameter in booted.parameters()} == {torch.float32}


def test_a_model_that_does_not_fit_is_refused_with_need_and_have(saved, tmp_path, monkeypatch):
    model = resolve(saved["llama"], cache_dir=tmp_path)
    monkeypatch.setattr(bridge, "memory_free", lambda device: 500_000_000)
    monkeypatch.setattr(bridge, "_load", lambda model: pytest.fail("loaded although it does not fit"))
    with pytest.raises(DoesNotFit, match=re.escape("needs 1.0 GB")) as caught:
        boot(model)
    assert "found 0.5 GB free" in str(caught.value)


def test_what_is_needed_grows_with_the_weights(saved, tmp_path):
    model = resolve(saved["llama"], cache_dir=tmp_path)
    parameters = sum(parameter.numel() for parameter in boot(model).parameters())
    assert model.weights_bytes == 4 * parameters
    assert memory_needed(model) > model.weights_bytes
    check_fits(model, "cpu")


def test_damage_is_found_before_a_boot(copy_of, tmp_path):
    folder = copy_of("qwen2")
    model = resolve(folder, cache_dir=tmp_path / "cache")
    flip_bit(folder / "model.safetensors", "model.norm.weight")
    with pytest.raises(DamagedWeights, match="is not what was stored"):
        boot(model)


@pytest.mark.gpu
def test_a_booted_model_is_the_model_on_a_gpu(saved, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here; on a machine with one, type: pytest -m gpu harness/tests/models")
    model = resolve(saved["gemma3_text"], cache_dir=tmp_path)
    with torch.no_grad():
        difference = (boot(model, "cuda")(TOKENS.cuda()).cpu() - boot(model)(TOKENS)).abs().max().item()
    assert difference < 1e-4
