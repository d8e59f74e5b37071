"""From a name or a path to verified weights, by way of the cache, whatever happens on the way."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from circuit_claims.models.errors import (
    DamagedCacheWarning,
    DamagedWeights,
    ModelError,
    ModelNotAvailable,
    RegistryError,
    UnsafeFile,
    WeightsMismatch,
)
from circuit_claims.models.files.tensors import open_tensors
from circuit_claims.models.registry import MODEL, FolderRow, ModelRow, PinnedFile, Traits, load_registry
from circuit_claims.models.resolve import present, resolve

from tests.helpers.small_gguf import GGUF_ARCHITECTURES, PAIRS, save_small_gguf
from tests.helpers.small_models import save_small_model
from tests.models.damage import edit_json, flip_bit, pickled, truncate

ROOT = Path(__file__).resolve().parents[3]


def row_of(path: Path, **changes) -> ModelRow:
    """A registry row that pins the file at `path`."""
    data = path.read_bytes()
    usual = {
        "name": "tiny",
        "title": "Tiny",
        "architecture": "llama",
        "format": "gguf",
        "parameters": 1,
        "licence": "none",
        "traits": Traits(multi_digit_numbers=False),
        "file": PinnedFile("tiny.gguf", len(data), hashlib.sha256(data).hexdigest()),
    }
    return MODEL.validate_python({**usual, **changes})


@pytest.fixture(scope="module")
def converted(saved_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the small llama's GGUF file is already converted."""
    cache = tmp_path_factory.mktemp("converted")
    resolve("tiny", models_dir=saved_gguf.parent, cache_dir=cache, registry={"tiny": row_of(saved_gguf)})
    return cache


def copy_cache(converted: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(converted, tmp_path / "cache"))


@pytest.mark.parametrize("architecture", [name for name in GGUF_ARCHITECTURES if name != "gpt2"])
def test_a_gguf_file_given_by_path_has_the_same_weights_in_the_cache(architecture, tmp_path):
    """transformers' reading, which fills the cache, equals the harness's own reading of the file, bit for bit."""
    folder = save_small_model(architecture, tmp_path / "model", vocab_words=PAIRS, seed=7)
    path = save_small_gguf(folder, tmp_path / "model.gguf", quantised=True, coarse_embedding=architecture == "qwen2")
    model = resolve(path, cache_dir=tmp_path / "cache")
    cached, direct = model.tensors(), open_tensors(path)
    assert cached.names() == direct.names()
    assert all(torch.equal(cached.read(name), direct.read(name)) for name in direct.names())
    assert cached.config["tie_word_embeddings"] is True
    assert (model.tokenizer().bos_id is not None) == (architecture == "gemma3_text")
    assert {file.name for file in model.folder.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert model.manifest.source["sha256"] == direct.digest


def test_the_second_time_no_source_is_asked(saved_gguf, converted):
    registry = {"tiny": row_of(saved_gguf)}
    started = time.monotonic()
    model = resolve("tiny", cache_dir=converted, offline=True, registry=registry)
    assert time.monotonic() - started < 1
    assert model.name == "tiny"
    assert model.source["from"] == "local folder"
    assert model.tokenizer().encode("ab") == [257]


def test_again_discards_the_entry_and_asks_the_sources(saved_gguf, converted, tmp_path):
    cache = copy_cache(converted, tmp_path)
    registry = {"tiny": row_of(saved_gguf)}
    with pytest.raises(ModelNotAvailable, match="Type: claims fetch tiny"):
        resolve("tiny", cache_dir=cache, offline=True, again=True, registry=registry)


def test_a_flipped_bit_in_the_cache_is_built_again_while_reading(saved_gguf, converted, tmp_path):
    cache = copy_cache(converted, tmp_path)
    model = resolve("tiny", models_dir=saved_gguf.parent, cache_dir=cache, registry={"tiny": row_of(saved_gguf)})
    name = "model.layers.0.self_attn.v_proj.weight"
    flip_bit(model.folder / "model.safetensors", name)
    with pytest.warns(DamagedCacheWarning, match="has changed since it was stored"):
        tensor = model.tensors().read(name)
    assert torch.equal(tensor, open_tensors(saved_gguf).read(name))


def test_verify_finds_a_flipped_bit_and_builds_again(saved_gguf, converted, tmp_path):
    cache = copy_cache(converted, tmp_path)
    model = resolve("tiny", models_dir=saved_gguf.parent, cache_dir=cache, registry={"tiny": row_of(saved_gguf)})
    assert model.verify() is model
    flip_bit(model.folder / "model.safetensors", "model.norm.weight")
    with pytest.warns(DamagedCacheWarning):
        sound = model.verify()
    assert sound.digest == model.digest
    assert sound.verify() is sound


def test_a_damaged_entry_whose_source_is_gone_says_what_to_type(saved_gguf, converted, tmp_path):
    cache = copy_cache(converted, tmp_path)
    model = resolve("tiny", cache_dir=cache, offline=True, registry={"tiny": row_of(saved_gguf)})
    truncate(model.folder / "model.safetensors")
    with pytest.warns(DamagedCacheWarning), pytest.raises(ModelNotAvailable, match="Type: claims fetch tiny"):
        resolve("tiny", cache_dir=cache, offline=True, registry={"tiny": row_of(saved_gguf)})


def test_a_gguf_file_with_a_layer_too_few_is_refused_and_nothing_is_cached(tmp_path):
    folder = save_small_model("llama", tmp_path / "model", vocab_words=PAIRS)
    path = save_small_gguf(folder, tmp_path / "model.gguf", block_count=3)
    with pytest.raises(WeightsMismatch, match=r"config.json has 3 layers, the file 2"):
        resolve(path, cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_a_conversion_killed_in_the_middle_is_done_again(saved_gguf, tmp_path):
    code = "import sys; from circuit_claims.models.resolve import resolve; resolve(sys.argv[1], cache_dir=sys.argv[2])"
    first = subprocess.Popen([sys.executable, "-c", code, str(saved_gguf), str(tmp_path)], cwd=ROOT)
    end = time.monotonic() + 60
    while not list(tmp_path.glob("models/.*building-*/*")):
        assert first.poll() is None, "the conversion ended before it could be killed"
        assert time.monotonic() < end, "the conversion wrote nothing"
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert not list(tmp_path.glob("models/small-llama*"))
    model = resolve(saved_gguf, cache_dir=tmp_path)
    assert model.verify() is model
    assert [path.name for path in (tmp_path / "models").iterdir()] == [model.folder.name]


def test_a_folder_is_read_where_it_is_and_never_written_to(saved, tmp_path):
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in saved["qwen2"].iterdir()}
    model = resolve(saved["qwen2"], cache_dir=tmp_path)
    assert model.folder == saved["qwen2"]
    assert torch.equal(
        model.tensors().read("model.norm.weight"), open_tensors(saved["qwen2"]).read("model.norm.weight")
    )
    assert before == {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in saved["qwen2"].iterdir()}


def test_a_folders_checksums_are_kept_and_used_again(saved, tmp_path, monkeypatch):
    first = resolve(saved["llama"], cache_dir=tmp_path)
    monkeypatch.setattr(
        "circuit_claims.models.files.folders.describe_folder", lambda *args, **kwargs: pytest.fail("read through again")
    )
    assert resolve(saved["llama"], cache_dir=tmp_path).digest == first.digest


def test_a_change_behind_an_unchanged_time_is_found_when_the_tensor_is_read(copy_of, tmp_path):
    folder = copy_of("llama")
    first = resolve(folder, cache_dir=tmp_path / "cache")
    name = "model.layers.0.mlp.up_proj.weight"
    flip_bit(folder / "model.safetensors", name)
    model = resolve(folder, cache_dir=tmp_path / "cache")
    with pytest.raises(DamagedWeights, match="while its size and time stayed the same"):
        model.tensors().read(name)
    again = resolve(folder, cache_dir=tmp_path / "cache")
    assert again.digest != first.digest
    assert torch.equal(again.tensors().read(name), open_tensors(folder).read(name))


def test_a_changed_config_behind_an_unchanged_time_is_found_at_once(copy_of, tmp_path):
    folder = copy_of("llama")
    first = resolve(folder, cache_dir=tmp_path / "cache")
    config = folder / "config.json"
    stat = config.stat()
    text = config.read_text()
    assert '"hidden_act": "silu"' in text
    with config.open("r+") as handle:
        handle.write(text.replace('"hidden_act": "silu"', '"hidden_act": "gelu"'))
    os.utime(config, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert config.stat().st_size == stat.st_size
    assert resolve(folder, cache_dir=tmp_path / "cache").digest != first.digest


def test_a_folder_in_models_dir_stands_for_the_registrys_model(saved, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "pythia-70m@step512").symlink_to(saved["gpt_neox"])
    model = resolve("pythia-70m@step512", models_dir=tmp_path / "models", cache_dir=tmp_path / "cache", offline=True)
    assert model.name == "pythia-70m@step512"
    assert model.row.revision == "step512"
    assert model.digest == open_tensors(saved["gpt_neox"]).digest
    with pytest.raises(ModelNotAvailable, match=r"no folder in .* called pythia-70m or pythia-70m has"):
        resolve("pythia-70m", models_dir=tmp_path / "models", cache_dir=tmp_path / "cache", offline=True)


def test_a_cache_that_cannot_be_written_does_not_stop_a_folder_from_being_read(saved, tmp_path):
    (tmp_path / "cache").write_text("a file where the cache should be")
    model = resolve(saved["gpt2"], cache_dir=tmp_path / "cache")
    assert model.digest == open_tensors(saved["gpt2"]).digest


def test_a_lone_tokenizer_has_tokens_and_no_weights(saved, tmp_path):
    path = saved["gpt_neox"] / "tokenizer.json"
    file = PinnedFile("tokenizer.json", path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    row = row_of(path, format="tokenizer", file=file)
    model = resolve("tiny", models_dir=saved["gpt_neox"], cache_dir=tmp_path, offline=True, registry={"tiny": row})
    assert model.tokenizer().single_token(" Monday") is not None
    assert model.digest == file.sha256
    with pytest.raises(ModelError, match="is a tokenizer without weights"):
        model.tensors()


def test_an_unknown_name_is_neither_a_model_nor_a_path(tmp_path):
    with pytest.raises(RegistryError, match="no model called 'nonsense'"):
        resolve("nonsense", cache_dir=tmp_path)


def test_a_pickle_given_by_path_is_refused(tmp_path):
    pickled(tmp_path / "weights.pt")
    with pytest.raises(UnsafeFile, match="is a pickle"):
        resolve(tmp_path / "weights.pt", cache_dir=tmp_path / "cache")


def test_not_fetching_asks_no_source_of_the_network(tmp_path):
    for choice in ({"offline": True}, {"fetch": False}):
        with pytest.raises(ModelNotAvailable) as caught:
            resolve("pythia-1.4b", cache_dir=tmp_path, **choice)
        assert {attempt.source: attempt.answer for attempt in caught.value.tried} == {
            "local folder": "none given (--models-dir FOLDER)",
            "hub EleutherAI/pythia-1.4b": "not asked: offline",
        }


def test_a_folder_of_another_kind_is_refused_with_its_kind(copy_of, tmp_path):
    folder = copy_of("llama")
    edit_json(folder / "config.json", model_type="mamba")
    with pytest.raises(ValueError, match="found 'mamba'"):
        resolve(folder, cache_dir=tmp_path / "cache")


def test_what_is_present_is_told_without_reading_it(saved, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    place = {"models_dir": models, "cache_dir": tmp_path / "cache"}
    assert present("smollm2-135m", **place) is None
    with (models / "some name.gguf").open("wb") as sparse:
        sparse.truncate(load_registry()["smollm2-135m"].file.bytes)
    assert present("smollm2-135m", **place) == models / "some name.gguf"
    (models / "gpt2").symlink_to(saved["gpt2"])
    assert present("gpt2", **place) == models / "gpt2"
    assert not (tmp_path / "cache").exists()


def test_what_is_in_the_cache_is_present(copy_of, tmp_path, monkeypatch):
    from tests.models.test_hub import Hub

    Hub(copy_of("gpt_neox"), monkeypatch)
    folder = resolve("pythia-31m", cache_dir=tmp_path / "cache").folder
    assert present("pythia-31m", cache_dir=tmp_path / "cache") == folder


def test_every_row_of_the_registry_says_what_to_type_where_nothing_is(tmp_path):
    rows = [row for row in load_registry().values() if isinstance(row, FolderRow) or row.hub or row.wheels]
    assert len(rows) == len(load_registry())
    for row in rows:
        with pytest.raises(ModelNotAvailable) as caught:
            resolve(row.name, models_dir=tmp_path, cache_dir=tmp_path / "cache", offline=True)
        assert caught.value.command == f"claims fetch {row.name}"
