"""The function behind `claims llc`: any model, resumed from a store, written as JSON."""

import json
import math

import numpy as np
import pytest
import torch
from circuit_claims.keeping.store import Store
from circuit_claims.llc.rows import cut_rows
from circuit_claims.llc.sweep import SweepPoint
from circuit_claims.running.commands.llc import estimate_lines, load_attention_only, load_model, run_llc
from circuit_claims.texts import standard_text
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig
from circuit_claims.toy.tokenizer import train_tokenizer
from safetensors.torch import save_file

from tests.helpers.small_models import save_small_model
from tests.toy.test_potentials import small_model

RUN = {"n_beta": 30.0, "gamma": 200.0, "eps": 1e-3, "chains": 2, "draws": 10, "batch": 4, "length": 12}


@pytest.fixture
def own_model(tmp_path):
    path = tmp_path / "own.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in small_model().state_dict().items()}, path)
    rows = np.random.default_rng(0).integers(0, 31, (20, 12))
    np.save(tmp_path / "rows.npy", rows)
    return path, tmp_path / "rows.npy"


def test_an_attention_only_file_from_weights_to_json(own_model, tmp_path):
    path, rows = own_model
    seen = []
    found = run_llc(str(path), ["1:2", "0:1"], str(rows), json_path=tmp_path / "out.json", store=Store(tmp_path / "s"),
                    progress=seen.append, **RUN)  # fmt: skip
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["schema"] == 1
    assert [row["weights"] for row in written["estimates"]] == ["1:2", "0:1"]
    first = found[SweepPoint(str(path), "1:2", str(rows))]
    assert written["estimates"][0]["value"] == first.mean
    assert written["estimates"][0]["settings"]["n_beta"] == 30.0
    assert [p.stored for p in seen] == [False] * 4
    assert any("control" in line for line in estimate_lines(found))
    again = run_llc(str(path), ["1:2", "0:1"], str(rows), store=Store(tmp_path / "s"), progress=seen.append, **RUN)
    assert [p.stored for p in seen[4:]] == [True] * 4
    assert {key: value.mean for key, value in again.items()} == {key: value.mean for key, value in found.items()}


def test_the_sizes_of_an_attention_only_model_are_read_off_its_shapes(own_model):
    model = load_attention_only(own_model[0])
    expected = small_model()
    assert (model.config.n_layers, model.config.n_heads, model.config.d_head) == (2, 4, 4)
    tokens = torch.arange(12)[None]
    assert torch.equal(model(tokens), expected(tokens))


@pytest.mark.parametrize("architecture", ["gpt2", "qwen2"])
def test_a_hugging_face_folder_on_a_text_that_python_ships(architecture, tmp_path):
    folder = save_small_model(architecture, tmp_path / architecture)
    found = run_llc(str(folder), ["1:1"], "python-docs", most_rows=16, offline=True, **RUN)
    (estimate,) = found.values()
    assert np.isfinite(estimate.mean)
    assert estimate.traces.loss.shape == (2, 10)


def test_the_trace_and_the_acceptance_are_told_and_written(own_model, tmp_path):
    path, rows = own_model
    run = {**RUN, "draws": 30, "json_path": tmp_path / "out.json"}
    (estimate,) = (found := run_llc(str(path), ["1:2"], str(rows), trace_probes=4, **run)).values()
    told = "\n".join(estimate_lines(found))
    assert f"Metropolis acceptance {estimate.acceptance:.3g}" in told
    assert f"Hessian trace {estimate.surroundings.hessian_trace:.4g} ± " in told
    assert f"the limit of small curvature, is {0.075 * estimate.surroundings.hessian_trace:.4g}" in told
    (written,) = json.loads((tmp_path / "out.json").read_text())["estimates"]
    assert written["hessian_trace"] == estimate.surroundings.hessian_trace
    assert written["small_curvature_limit"] == pytest.approx(0.075 * estimate.surroundings.hessian_trace)
    assert 0 < written["acceptance"] <= 1
    assert written["reasons"] == list(estimate.reasons)


def test_an_estimate_that_is_none_is_not_printed_as_a_number(own_model):
    path, rows = own_model
    found = run_llc(str(path), ["1:2"], str(rows), **{**RUN, "eps": 1e3})
    told = estimate_lines(found)
    assert "no estimate, no interval" not in told[0]
    assert "no estimate, diverged" in told[0]
    assert not any("nan" in line for line in told)
    assert any("acceptance not checked: fewer than 25 steps" in line for line in told)


@pytest.mark.parametrize("place", ["run/two_layer", "run"])
def test_a_text_is_read_with_the_tokenizer_of_the_models_run(place, tmp_path):
    """In the checkpoint's own folder or the one above it; the same windows as the tokenizer itself gives."""
    tokenizer = train_tokenizer([standard_text("python-docs")])
    folder = tmp_path / "run" / "two_layer"
    folder.mkdir(parents=True)
    (tmp_path / place / "tokenizer.json").write_text(tokenizer.definition)
    config = AttentionOnlyConfig(d_model=16, n_heads=4, d_head=4, n_ctx=12)
    weights = {name: tensor.half() for name, tensor in AttentionOnly(config).initialise(1).state_dict().items()}
    save_file(weights, folder / "step_00000100.safetensors")
    network, encode = load_model(str(folder / "step_00000100.safetensors"), models_dir=None, offline=True, device="cpu")
    assert next(network.parameters()).dtype == torch.float32
    words = "Numbers are created by numeric literals. " * 9
    rows = cut_rows(words, network, encode, text="T", length=12)
    np.testing.assert_array_equal(rows.flatten(), tokenizer.encode(words)[: rows.numel()])


def test_weights_of_another_shape_or_not_finite_are_refused(own_model, tmp_path):
    _, rows = own_model
    good = {name: tensor.contiguous() for name, tensor in small_model().state_dict().items()}
    for name, change, words in (("blocks.1.attn.W_V", good["blocks.1.attn.W_V"][:2], "expected  the tensors of"),
                                ("embed.W_E", good["embed.W_E"] * math.nan, "inf or nan in embed.W_E"),
                                ("blocks.0.attn.W_Q", torch.zeros(3), "expected embed.W_E")):  # fmt: skip
        save_file({**good, name: change.contiguous()}, tmp_path / "bad.safetensors")
        with pytest.raises(ValueError, match=words):
            run_llc(str(tmp_path / "bad.safetensors"), ["1:2"], str(rows), **RUN)


def test_a_file_that_is_not_the_models_is_refused(own_model, tmp_path):
    _, rows = own_model
    save_file({"something": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"expected embed\.W_E"):
        run_llc(str(tmp_path / "other.safetensors"), ["1:2"], str(rows), **RUN)
    with pytest.raises(ValueError, match="none of that name"):
        run_llc(str(tmp_path / "none.safetensors"), ["1:2"], str(rows), **RUN)
    (tmp_path / "torn.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ValueError, match="a whole safetensors file"):
        run_llc(str(tmp_path / "torn.safetensors"), ["1:2"], str(rows), **RUN)


@pytest.mark.parametrize(("change", "words"), [
    ({"eps": -1.0}, "eps of SGLD: expected a step size above 0"), ({"draws": 0}, "num_draws of SGLD"),
    ({"n_beta": math.nan}, "n_beta of SGLD"), ({"seed": -1}, "seed of SGLD: expected at least 0"),
    ({"batch": 21}, "Type: --batch 20"), ({"length": 13}, "Type: --length 12"),
    ({"length": 14}, "expected at most 13 tokens")])  # fmt: skip
def test_settings_that_do_not_fit_are_refused(own_model, change, words):
    path, rows = own_model
    with pytest.raises(ValueError, match=words):
        run_llc(str(path), ["1:2"], str(rows), **{**RUN, **change})


@pytest.mark.parametrize(("weights", "words"), [
    ("1:9", "head 9: the model has 4"), ("7:0", "layer 7: the model has 2"), ("L1H2", "expected a head such as '1:6'"),
    ("layer 3", "layer 3: the model has 2"), ("mlp", "'embed', 'pos_embed', 'unembed'"),
    ("", "expected a head")])  # fmt: skip
def test_slices_that_the_model_does_not_have_are_refused_with_those_it_has(own_model, weights, words):
    path, rows = own_model
    with pytest.raises(ValueError, match=words):
        run_llc(str(path), ["1:2", weights], str(rows), **RUN)
