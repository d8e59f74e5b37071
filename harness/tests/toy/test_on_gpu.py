"""The script for an accelerator does its parts on a CPU too, goes on where it stopped, and survives being cut up."""

from __future__ import annotations

import json

import pytest
from benchmarks import on_gpu
from circuit_claims.toy import fast
from circuit_claims.toy.checkpoints import RunFolder

from tests.toy.test_training import small_corpus


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Texts of 16 tokens, kernels as they stand, a peak that nobody waits for."""
    monkeypatch.setattr(fast, "_compiled", lambda kernel: kernel)
    monkeypatch.setattr(on_gpu, "open_corpus", lambda folder: small_corpus())
    monkeypatch.setattr(on_gpu, "matmul_peak", lambda *settings, **more: 1e12)
    monkeypatch.setattr(on_gpu, "SAVE_EVERY", 2)


def call(folder, *words):
    settings = ("--device", "cpu", "--steps", "4", "--batch", "2", "--corpus", str(folder), *words)
    on_gpu.main(["--into", str(folder), *settings])
    return json.loads((folder / "on_gpu.json").read_text())


def test_training_stops_when_its_minutes_are_over_and_goes_on(tmp_path, monkeypatch):
    clock = iter([0.0, 0.0, 61.0, 61.0])  # begun, asked before the part, after each of two updates
    monkeypatch.setattr(on_gpu, "monotonic", lambda: next(clock, 0.0))
    first = call(tmp_path, "--parts", "training", "--minutes", "1")["training"]
    assert (first["step"], first["finished"]) == (2, False)
    second = call(tmp_path, "--parts", "training")["training"]
    assert (second["step"], second["finished"]) == (4, True)
    assert RunFolder.open(tmp_path / "run").steps[-1] == 4
    before = (tmp_path / "on_gpu.json").read_text()
    call(tmp_path, "--parts", "training")
    assert (tmp_path / "on_gpu.json").read_text() == before


def test_coefficients_are_timed_against_the_bandwidth(tmp_path, monkeypatch):
    monkeypatch.setattr(on_gpu, "HEADS", ("1:6",))
    monkeypatch.setattr(on_gpu, "bandwidth", lambda device: 1e10)
    found = call(tmp_path, "--parts", "coefficients", "--rows", "1", "--draws", "2")["coefficients"]
    assert found["finished"]
    assert found["coefficients"].keys() == {"1:6"}
    assert found["share of bandwidth"] > 0


def test_large_files_are_cut_and_joined(tmp_path):
    content = bytes(range(256)) * 10_000  # 2.56 million
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state").write_bytes(content)
    (tmp_path / "small").write_bytes(b"small")
    on_gpu.cut_into_pieces(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "small", "state.piece0", "state.piece1", "state.piece2",
    ]  # fmt: skip
    on_gpu.join_pieces(tmp_path)
    assert (tmp_path / "run" / "state").read_bytes() == content
    assert not list(tmp_path.rglob("*.piece*"))


def test_training_without_a_corpus_says_what_to_type(tmp_path):
    with pytest.raises(SystemExit, match="Type: --corpus"):
        on_gpu.main(["--into", str(tmp_path), "--device", "cpu", "--parts", "training"])
