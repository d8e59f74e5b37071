"""The cache: whole entries or none, one builder at a time, damage set aside and said aloud."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from circuit_claims.models.cache import ModelCache, default_cache
from circuit_claims.models.errors import DamagedCacheWarning, DamagedWeights, ModelError
from circuit_claims.models.files.manifest import MANIFEST, describe_folder
from circuit_claims.models.files.tensors import open_tensors
from circuit_claims.models.progress import quiet

from tests.models.damage import flip_bit, truncate

ROOT = Path(__file__).resolve().parents[3]
# A builder in a process of its own: it logs that it began, waits where it is told to, and copies a small model.
BUILDER = textwrap.dedent(
    """
    import os, shutil, sys, time
    from pathlib import Path
    from circuit_claims.models.cache import ModelCache
    from circuit_claims.models.files.manifest import MANIFEST, describe_folder
    from circuit_claims.models.progress import quiet

    root, model, log, pause = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])

    def build(folder):
        with log.open("a") as out:
            out.write(f"{os.getpid()}\\n")
        shutil.copy(model / "config.json", folder)
        time.sleep(pause)
        shutil.copy(model / "model.safetensors", folder)
        manifest = describe_folder(folder, "small", source={}, made_by={"converter": "test"})
        (folder / MANIFEST).write_text(manifest.to_json())

    print(ModelCache(root).find_or_build("small", build, quiet)[1].digest, flush=True)
    """
)


def start_builder(root: Path, model: Path, log: Path, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER, str(root), str(model), str(log), str(pause)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def build_from(model: Path, calls: list[str] | None = None):
    def build(folder: Path) -> None:
        import shutil

        if calls is not None:
            calls.append(folder.name)
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            shutil.copy(model / name, folder)
        manifest = describe_folder(folder, "small", source={}, made_by={"converter": "test"})
        (folder / MANIFEST).write_text(manifest.to_json())

    return build


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "cache")


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


def test_an_entry_is_built_once_and_found_again(cache, saved):
    calls: list[str] = []
    first = cache.find_or_build("small", build_from(saved["llama"], calls), quiet)
    second = cache.find_or_build("small", build_from(saved["llama"], calls), quiet)
    assert len(calls) == 1
    assert first[1].digest == second[1].digest == open_tensors(saved["llama"]).digest


def test_two_processes_build_once(cache, saved, tmp_path):
    log = tmp_path / "log"
    builders = [start_builder(cache.root, saved["llama"], log, 1.0) for _ in range(2)]
    answers = [builder.communicate(timeout=120)[0].strip() for builder in builders]
    assert answers == [open_tensors(saved["llama"]).digest] * 2
    assert len(log.read_text().splitlines()) == 1


def test_a_builder_killed_in_the_middle_leaves_no_entry_and_no_litter(cache, saved, tmp_path):
    log = tmp_path / "log"
    builder = start_builder(cache.root, saved["llama"], log, 60.0)
    wait_for(log)
    os.kill(builder.pid, signal.SIGKILL)
    builder.wait()
    assert cache.find("small") is None
    assert list((cache.root / "models").glob(".small.building-*"))
    folder, _ = cache.find_or_build("small", build_from(saved["llama"]), quiet)
    assert [path.name for path in folder.parent.iterdir()] == ["small"]


def test_a_builder_that_fails_leaves_nothing(cache, saved):
    def fail(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cache.find_or_build("small", fail, quiet)
    assert list((cache.root / "models").iterdir()) == []


def test_a_builder_that_writes_nonsense_makes_no_entry(cache):
    with pytest.raises(DamagedWeights, match=r"is gone: expected .*manifest\.json"):
        cache.find_or_build("small", lambda folder: None, quiet)
    assert cache.find("small") is None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: truncate(folder / "model.safetensors"), r"model.safetensors: expected [\d,]+ bytes, found"),
        (lambda folder: (folder / "model.safetensors").unlink(), "found no such file"),
        (lambda folder: (folder / MANIFEST).unlink(), r"is gone: expected .*manifest\.json"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "is not readable JSON"),
        (lambda folder: (folder / MANIFEST).write_text('{"schema": 99}'), "expected schema 1, found 99"),
        (lambda folder: flip_byte(folder / "config.json"), r"config\.json is not what was stored"),
        (lambda folder: flip_byte(folder / "tokenizer.json"), r"tokenizer\.json is not what was stored"),
        (lambda folder: swap_digest(folder / MANIFEST), "contradicts itself"),
    ],
)
def test_damage_seen_at_once_is_set_aside_said_aloud_and_built_again(damage, said, cache, saved):
    folder, before = cache.find_or_build("small", build_from(saved["llama"]), quiet)
    damage(folder)
    with pytest.warns(DamagedCacheWarning, match=said):
        folder, after = cache.find_or_build("small", build_from(saved["llama"]), quiet)
    assert after.digest == before.digest
    assert len(list(folder.parent.glob("small.damaged-*"))) == 1


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap_digest(path: Path) -> None:
    from tests.models.damage import edit_json

    edit_json(path, digest="0" * 64)


def test_only_the_newest_bad_copy_is_kept(cache, saved):
    for _ in range(3):
        folder, _ = cache.find_or_build("small", build_from(saved["llama"]), quiet)
        truncate(folder / "model.safetensors")
        with pytest.warns(DamagedCacheWarning):
            assert cache.find("small") is None
    assert len(list(folder.parent.glob("small.damaged-*"))) == 1


def test_a_flipped_bit_found_while_reading_is_repaired_and_the_right_numbers_come_back(cache, saved):
    folder, manifest = cache.find_or_build("small", build_from(saved["llama"]), quiet)
    name = "model.layers.1.mlp.up_proj.weight"
    source = open_tensors(saved["llama"])
    flip_bit(folder / "model.safetensors", name)

    def repair(reason: str):
        cache.set_aside_if_damaged("small", reason)
        return cache.find_or_build("small", build_from(saved["llama"]), quiet)

    with pytest.raises(DamagedWeights, match=name):
        open_tensors(folder, manifest=manifest).read(name)
    with pytest.warns(DamagedCacheWarning, match=name):
        assert torch.equal(open_tensors(folder, manifest=manifest, repair=repair).read(name), source.read(name))


def test_an_entry_another_process_has_repaired_is_left_alone(cache, saved):
    folder, _ = cache.find_or_build("small", build_from(saved["llama"]), quiet)
    cache.set_aside_if_damaged("small", "found damaged, but built again by another since")
    assert folder.exists()
    assert not list(folder.parent.glob("small.damaged-*"))


def test_a_cache_that_cannot_be_written_says_how_to_have_another(tmp_path, saved):
    (tmp_path / "cache").write_text("a file where the cache should be")
    with pytest.raises(ModelError, match="Type: export CIRCUIT_CLAIMS_CACHE=FOLDER"):
        ModelCache(tmp_path / "cache").find_or_build("small", build_from(saved["llama"]), quiet)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("CIRCUIT_CLAIMS_CACHE", str(tmp_path / "here"))
    assert default_cache() == tmp_path / "here"
    monkeypatch.delenv("CIRCUIT_CLAIMS_CACHE")
    assert default_cache().name == "circuit-claims"
