"""The function behind `claims llc`: any model, resumed from a store, written as JSON."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from harness.llc.command import lines, load_attention_only, load_rows, run_llc
from harness.llc.sweep import Place
from harness.store import Store
from harness.tests.llc.test_attention_only_model import small_model
from harness.tests.small_models import save_small_model

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
    first = found[Place(str(path), "1:2", str(rows))]
    assert written["estimates"][0]["value"] == first.mean
    assert written["estimates"][0]["settings"]["n_beta"] == 30.0
    assert [p.from_store for p in seen] == [False] * 4
    assert any("control" in line for line in lines(found))
    again = run_llc(str(path), ["1:2", "0:1"], str(rows), store=Store(tmp_path / "s"), progress=seen.append, **RUN)
    assert [p.from_store for p in seen[4:]] == [True] * 4
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


def test_what_does_not_fit_is_refused_with_a_way_out(own_model, tmp_path):
    path, rows = own_model
    with pytest.raises(ValueError, match="no tokenizer of its own"):
        run_llc(str(path), ["1:2"], "python-docs", **RUN)
    np.save(tmp_path / "flat.npy", np.zeros(7))
    with pytest.raises(ValueError, match="rows x tokens"):
        load_rows(str(tmp_path / "flat.npy"), None, 4, 8)
    save_file({"something": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"expected embed\.W_E"):
        run_llc(str(tmp_path / "other.safetensors"), ["1:2"], str(rows), **RUN)
