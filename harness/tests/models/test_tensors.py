"""Weights by name: the numbers transformers would load, and every kind of damage refused."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from circuit_claims.models.errors import DamagedWeights, UnsafeFile, WeightsMismatch
from circuit_claims.models.files.manifest import TensorEntry, describe_folder
from circuit_claims.models.files.safe_files import inside, refuse_pickle
from circuit_claims.models.files.tensors import FolderTensors, open_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.helpers.small_models import ARCHITECTURES, save_small_model
from tests.models.damage import edit_json, flip_bit, pickled, rewrite, truncate

LAYERS = {"gpt2": "n_layer"}
BLOCK_OF = {"gpt2": "transformer.h.1.", "gpt_neox": "gpt_neox.layers.1."}


def first_matrix(source) -> str:
    return source.names()[0]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_tensors_are_those_transformers_loads(architecture, tied, tmp_path):
    import transformers

    folder = save_small_model(architecture, tmp_path / "model", tied=tied, seed=2)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    loaded = {
        name.replace("lm_head", "embed_out") if architecture == "gpt_neox" else name: parameter
        for name, parameter in model.named_parameters()
    }
    source = open_tensors(folder)
    assert set(source.names()) == set(loaded)
    assert all(torch.equal(source.read(name), loaded[name]) for name in source.names())
    assert source.config["tie_word_embeddings"] is tied


def test_half_precision_is_read_as_fp32(copy_of):
    folder = copy_of("llama")
    rewrite(folder, lambda tensors: tensors.update({name: t.to(torch.bfloat16) for name, t in tensors.items()}))
    source = open_tensors(folder)
    stored = load_file(folder / "model.safetensors")
    name = first_matrix(source)
    assert source.read(name).dtype == torch.float32
    assert torch.equal(source.read(name), stored[name].float())
    assert torch.equal(source.rows(name, [5, 2]), stored[name].float()[[5, 2]])


@settings(max_examples=40, deadline=None)
@given(ids=st.lists(st.integers(0, 99), max_size=12), block_rows=st.integers(1, 120))
def test_rows_are_rows_of_the_whole_whatever_the_blocks(ids, block_rows, tmp_path_factory):
    source = blocked(tmp_path_factory.mktemp("blocked"), block_rows)
    whole = source.read("matrix")
    assert torch.equal(source.rows("matrix", ids), whole[torch.tensor(ids, dtype=torch.long)])


def blocked(folder: Path, block_rows: int) -> FolderTensors:
    """A folder of one (100, 3) matrix with a checksum for every `block_rows` rows."""
    from circuit_claims.models.files.manifest import FileEntry, Manifest, sha256_of_tensor

    matrix = torch.arange(300.0).reshape(100, 3)
    save_file({"matrix": matrix}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    blocks = "".join(sha256_of_tensor(matrix[at : at + block_rows]) for at in range(0, 100, block_rows))
    entry = TensorEntry(
        "model.safetensors", "matrix", "float32", (100, 3), sha256_of_tensor(matrix), block_rows, blocks
    )
    files = {"model.safetensors": FileEntry((folder / "model.safetensors").stat().st_size, "")}
    return FolderTensors(folder, Manifest("blocked", "", files, {"matrix": entry}, {}, {}))


def test_a_flipped_bit_is_found_only_in_the_rows_it_lies_in(tmp_path):
    source = blocked(tmp_path, 10)
    flip_bit(tmp_path / "model.safetensors", "matrix")
    changed = FolderTensors(tmp_path, source._manifest)
    assert torch.equal(changed.rows("matrix", [3, 97]), torch.arange(300.0).reshape(100, 3)[[3, 97]])
    with pytest.raises(DamagedWeights, match="rows from 50"):
        changed.rows("matrix", [3, 50])
    with pytest.raises(DamagedWeights, match="has changed since it was stored"):
        changed.read("matrix")


def test_large_matrices_get_checksums_by_rows(tmp_path, monkeypatch):
    from circuit_claims.models.files import manifest as module

    folder = save_small_model("qwen2", tmp_path / "model")
    monkeypatch.setattr(module, "BLOCKED_FROM", 1)
    monkeypatch.setattr(module, "BLOCK_BYTES", 1000)
    entry = describe_folder(folder, "small", source={}).tensors["model.embed_tokens.weight"]
    assert entry.block_rows == 1000 // (32 * 4)
    assert len(entry.blocks) == 64 * -(-entry.shape[0] // entry.block_rows)
    source = FolderTensors(folder, describe_folder(folder, "small", source={}))
    assert torch.equal(
        source.rows("model.embed_tokens.weight", [7, 480]), source.read("model.embed_tokens.weight")[[7, 480]]
    )


def test_rows_outside_the_matrix_are_refused(saved):
    source = open_tensors(saved["llama"])
    with pytest.raises(ValueError, match=r"expected numbers from 0 to 488, found \[489, -1\]"):
        source.rows(first_matrix(source), [489, 3, -1])


def test_an_unknown_tensor_is_named(saved):
    with pytest.raises(KeyError, match="no tensor called 'nonsense'"):
        open_tensors(saved["llama"]).read("nonsense")


def test_the_digest_names_the_numbers_not_the_version_that_wrote_them(copy_of, saved):
    folder = copy_of("llama")
    edit_json(folder / "config.json", transformers_version="0.0.1", _name_or_path="elsewhere")
    assert open_tensors(folder).digest == open_tensors(saved["llama"]).digest
    edit_json(folder / "config.json", rms_norm_eps=0.5)
    assert open_tensors(folder).digest != open_tensors(saved["llama"]).digest


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_config_with_one_layer_more_is_refused(architecture, copy_of):
    folder = copy_of(architecture)
    edit_json(folder / "config.json", **{LAYERS.get(architecture, "num_hidden_layers"): 3, "layer_types": None})
    with pytest.raises(WeightsMismatch, match=r"config.json has 3 layers, the file 2"):
        open_tensors(folder)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_config_with_one_layer_less_is_refused(architecture, copy_of):
    folder = copy_of(architecture)
    edit_json(folder / "config.json", **{LAYERS.get(architecture, "num_hidden_layers"): 1, "layer_types": None})
    with pytest.raises(
        WeightsMismatch, match=r"unexpected \(\d+\): " + re.escape(BLOCK_OF.get(architecture, "model.layers.1."))
    ):
        open_tensors(folder)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_missing_tensor_is_named(architecture, copy_of):
    folder = copy_of(architecture)
    lost = open_tensors(folder).names()[-1]
    rewrite(folder, lambda tensors: tensors.pop(lost))
    with pytest.raises(WeightsMismatch, match=rf"missing \(1\): {re.escape(lost)}"):
        open_tensors(folder)


def test_an_unexpected_tensor_is_named(copy_of):
    folder = copy_of("gpt2")
    rewrite(folder, lambda tensors: tensors.update({"transformer.h.0.adapter.weight": torch.zeros(2)}))
    with pytest.raises(WeightsMismatch, match=r"unexpected \(1\): transformer.h.0.adapter.weight"):
        open_tensors(folder)


def test_a_wrong_shape_is_named_with_both_shapes(copy_of):
    folder = copy_of("gpt_neox")
    rewrite(folder, lambda t: t.update({"gpt_neox.layers.0.mlp.dense_4h_to_h.weight": torch.zeros(32, 49)}))
    with pytest.raises(WeightsMismatch, match=r"dense_4h_to_h.weight: expected \(32, 48\), found \(32, 49\)"):
        open_tensors(folder)


def test_a_transposed_matrix_is_a_wrong_shape(copy_of):
    folder = copy_of("gpt2")
    name = "transformer.h.0.mlp.c_fc.weight"
    rewrite(folder, lambda tensors: tensors.update({name: tensors[name].T}))
    with pytest.raises(WeightsMismatch, match=r"expected \(32, 48\), found \(48, 32\)"):
        open_tensors(folder)


def test_masks_of_old_checkpoints_and_names_without_prefix_are_understood(copy_of, saved):
    """openai-community/gpt2 on the hub is stored so: no `transformer.` in front, causal masks among the weights."""
    folder = copy_of("gpt2")

    def as_on_the_hub(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 4, 4)
        tensors["h.1.attn.masked_bias"] = torch.tensor(-1e4)

    rewrite(folder, as_on_the_hub)
    mine, plain = open_tensors(folder), open_tensors(saved["gpt2"])
    assert mine.names() == plain.names()
    assert all(torch.equal(mine.read(name), plain.read(name)) for name in plain.names())
    assert mine.digest == plain.digest


def test_rotary_buffers_of_pythia_are_left_out(copy_of, saved):
    folder = copy_of("gpt_neox")
    buffers = ("attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq")
    rewrite(folder, lambda t: t.update({f"gpt_neox.layers.0.{name}": torch.ones(3) for name in buffers}))
    assert open_tensors(folder).names() == open_tensors(saved["gpt_neox"]).names()


def test_a_tied_unembedding_stored_twice_must_be_the_embedding(copy_of):
    folder = copy_of("qwen2")
    rewrite(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    assert "lm_head.weight" not in open_tensors(folder).names()
    rewrite(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 1}))
    with pytest.raises(WeightsMismatch, match=r"unexpected \(1\): lm_head.weight"):
        open_tensors(folder)


def test_a_truncated_file_is_refused(copy_of):
    folder = copy_of("llama")
    truncate(folder / "model.safetensors")
    with pytest.raises(DamagedWeights, match=r"model.safetensors is not a whole safetensors file"):
        open_tensors(folder)


@pytest.mark.parametrize("make", [pickled, lambda path: path.write_bytes(pickle.dumps({"a": 1}, protocol=4))])
def test_a_pickle_called_safetensors_is_refused_by_its_bytes(make, copy_of):
    folder = copy_of("llama")
    make(folder / "model.safetensors")
    with pytest.raises(UnsafeFile, match="is a pickle or an archive by its first bytes"):
        open_tensors(folder)


@pytest.mark.parametrize("name", ["weights.bin", "weights.PT", "weights.pkl", "weights.ckpt"])
def test_a_pickle_is_refused_by_its_extension_unopened(name, tmp_path):
    (tmp_path / name).write_bytes(b"harmless")
    with pytest.raises(UnsafeFile, match="is a pickle by its extension"):
        open_tensors(tmp_path / name)


def test_a_folder_of_pickles_says_so(copy_of):
    folder = copy_of("llama")
    (folder / "model.safetensors").unlink()
    pickled(folder / "pytorch_model.bin")
    with pytest.raises(UnsafeFile, match=r"only as pickles \(pytorch_model.bin\)"):
        open_tensors(folder)


def test_a_header_length_that_looks_like_a_pickle_is_no_pickle(tmp_path):
    """A safetensors header of 640 bytes begins with the two bytes of a pickle of protocol 2."""
    path = tmp_path / "model.safetensors"
    for pad in range(0, 700, 8):
        save_file({"weight": torch.zeros(2)}, path, {"pad": "x" * pad})
        if path.read_bytes()[:2] == b"\x80\x02":
            break
    assert path.read_bytes()[:2] == b"\x80\x02"
    refuse_pickle(path)


def shard(folder: Path, names: dict[str, str]) -> None:
    """Replace the folder's one file by an index with the given file names."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = {name: names["even" if place % 2 == 0 else "odd"] for place, name in enumerate(tensors)}
    for file in set(index.values()):
        if "/" not in file and file.endswith(".safetensors"):
            save_file({name: tensors[name] for name in tensors if index[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def test_sharded_weights_are_read_from_all_files(copy_of, saved):
    folder = copy_of("gemma3_text")
    shard(folder, {"even": "model-00001-of-00002.safetensors", "odd": "model-00002-of-00002.safetensors"})
    mine, plain = open_tensors(folder), open_tensors(saved["gemma3_text"])
    assert all(torch.equal(mine.read(name), plain.read(name)) for name in plain.names())
    assert mine.digest == plain.digest


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/outside.safetensors", "a/../../b.safetensors"])
def test_an_index_that_climbs_out_is_refused(name, copy_of):
    folder = copy_of("llama")
    shard(folder, {"even": "model-00001-of-00002.safetensors", "odd": name})
    with pytest.raises(UnsafeFile, match="climbs out of its folder"):
        open_tensors(folder)


def test_an_index_that_names_a_pickle_is_refused(copy_of):
    folder = copy_of("llama")
    shard(folder, {"even": "model-00001-of-00002.safetensors", "odd": "pytorch_model.bin"})
    with pytest.raises(UnsafeFile, match=r"expected files ending in \.safetensors"):
        open_tensors(folder)


def test_several_files_without_an_index_are_refused(copy_of):
    folder = copy_of("llama")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    save_file({"x": torch.zeros(1)}, folder / "b.safetensors")
    with pytest.raises(DamagedWeights, match=r"2 safetensors files and no model\.safetensors\.index\.json"):
        open_tensors(folder)


@given(
    name=st.text(max_size=30)
    | st.lists(st.sampled_from(["..", "/", "\\", "a", ".", "C:", "\0"]), max_size=8).map("".join)
)
def test_no_name_leads_out_of_its_folder(name):
    folder = Path("/folder/of/a/model")
    try:
        path = inside(folder, name)
    except UnsafeFile:
        return
    import os.path

    assert os.path.normpath(path).startswith(str(folder))
