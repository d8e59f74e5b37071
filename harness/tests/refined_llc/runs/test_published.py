"""The authors' checkpoints: converted when asked, never opened as code. All files here are made up."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from circuit_claims.keeping.cells import MemoryStore
from circuit_claims.keeping.measure import Context
from circuit_claims.models.errors import DamagedWeights, RegistryError, UnsafeFile
from circuit_claims.papers.refined_llc.runs.live import LiveRun
from circuit_claims.papers.refined_llc.runs.published import convert_checkpoints, read_weights
from circuit_claims.papers.refined_llc.runs.registry import published_folder
from circuit_claims.toy.checkpoints import CARD, RunError, RunFolder
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig

NAME = "L2W256-3m-rr"
ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def weights():
    return {name: tensor.clone() for name, tensor in AttentionOnly().initialise(seed=5).state_dict().items()}


def with_buffers(weights):
    """As the library the authors used saves a model: causal masks beside the parameters."""
    masks = {f"blocks.{layer}.attn.mask": torch.ones(4, 4).tril().bool() for layer in (0, 1)}
    ignore = {f"blocks.{layer}.attn.IGNORE": torch.tensor(-torch.inf) for layer in (0, 1)}
    return {**weights, **masks, **ignore}


@pytest.fixture
def saved(tmp_path, weights):
    def save(content=None, name="checkpoint_0000100.pth"):
        content = (
            {"model_state_dict": with_buffers(weights), "optimizer_state_dict": {"state": {}}}
            if content is None
            else content
        )
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def test_a_checkpoint_becomes_safetensors_with_its_digests(tmp_path, saved, weights):
    files = [saved(), saved(name="checkpoint_0050000.pth")]
    written = convert_checkpoints(NAME, files, cache_dir=tmp_path / "cache")
    assert [path.name for path in written] == ["step_00000101.safetensors", "step_00050001.safetensors"]
    run = RunFolder.open(published_folder(NAME, tmp_path / "cache"))
    assert run.steps == (101, 50_001), "label s is the state after update s + 1"
    assert all(torch.equal(value, weights[name]) for name, value in run.model(101).state_dict().items())
    card = json.loads((run.folder / CARD).read_text())
    assert set(card["digests"]) == {"101", "50001"}
    assert card["converted_from"]["101"]["label"] == 100


def test_a_converted_run_answers_the_claims(tmp_path, saved, weights):
    convert_checkpoints(NAME, [saved()], cache_dir=tmp_path)
    live = LiveRun(RunFolder.open(published_folder(NAME, tmp_path)), Context(MemoryStore()), NAME, "published")
    rows, total = live.position_norms()
    assert rows[3] == pytest.approx(float(weights["pos_embed.W_pos"][3].norm()), rel=1e-6)
    assert total == pytest.approx(sum(float(one.double().square().sum()) for one in weights.values()) ** 0.5, rel=1e-6)
    composition = live.k_composition().values
    assert composition.shape == (1, 8, 8)
    assert composition.mean() == pytest.approx(0.0625, abs=0.002), "1/16: what independent weights have"
    scores = live.head_scores("previous")
    assert scores.values.shape == (1, 2, 8)
    live.check_untouched()
    live.run.path(101).write_bytes(b"")
    with pytest.raises(DamagedWeights, match="changed while the claims ran"):
        live.check_untouched()


class Runs:
    """Pickled, this runs a command when it is opened without care."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("where", ["alone", "beside the weights", "among the weights", "plain pickle"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, weights, where):
    target, path = tmp_path / "ran", tmp_path / "checkpoint_0000100.pth"
    hostile = Runs(target)
    if where == "plain pickle":
        path.write_bytes(pickle.dumps(hostile))
    elif where == "alone":
        torch.save(hostile, path)
    elif where == "beside the weights":
        torch.save({"model_state_dict": weights, "optimizer_state_dict": hostile}, path)
    else:
        torch.save({"model_state_dict": {**weights, "extra": hostile}}, path)
    with pytest.raises(UnsafeFile, match="it was not opened") as caught:
        convert_checkpoints(NAME, [path], cache_dir=tmp_path / "cache")
    assert not target.exists()
    assert "weights_only" not in str(caught.value), "torch's way round the check is not passed on"
    assert not (tmp_path / "cache").exists()


def test_a_damaged_file_is_told_from_a_hostile_one(saved):
    path = saved()
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not a checkpoint at all"):
        path.write_bytes(content)
        with pytest.raises((DamagedWeights, UnsafeFile), match=r"checkpoint_0000100.pth"):
            read_weights(path)


@pytest.mark.parametrize(
    "content", [[1, 2], {}, {"model_state_dict": {}}, {"a": 1.0}, {1: torch.zeros(2)}, torch.zeros(3)]
)
def test_a_file_without_a_model_is_refused(saved, content):
    with pytest.raises(DamagedWeights, match="holds no model"):
        read_weights(saved(content))


def test_foreign_weights_are_refused_by_name(tmp_path, saved, weights):
    wrong = dict(weights)
    del wrong["unembed.b_U"]
    with pytest.raises(RunError, match=r"unembed.b_U"):
        convert_checkpoints(NAME, [saved(wrong)], cache_dir=tmp_path / "cache")
    with pytest.raises(RunError, match=r"inf or nan in embed.W_E"):
        convert_checkpoints(
            NAME, [saved({**weights, "embed.W_E": weights["embed.W_E"] * torch.nan})], cache_dir=tmp_path
        )
    narrow = AttentionOnly(AttentionOnlyConfig(d_vocab=50)).initialise(seed=0).state_dict()
    with pytest.raises(RunError, match=r"embed.W_E"):
        convert_checkpoints(NAME, [saved(narrow)], cache_dir=tmp_path / "cache")


def test_a_file_without_a_label_is_refused(tmp_path, saved):
    with pytest.raises(DamagedWeights, match=r"expected a name such as checkpoint_0000100.pth"):
        convert_checkpoints(NAME, [saved(name="final.pth")], cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("name", ["recorded-run", "own-run", "gpt2", "../../x"])
def test_only_published_runs_are_converted(tmp_path, saved, name):
    with pytest.raises(RegistryError, match="expected one of L2W256-3m-rr, L2W256-s-3"):
        convert_checkpoints(name, [saved()], cache_dir=tmp_path / "cache")


def test_the_command_converts_and_refuses(tmp_path, saved):
    environment = {**os.environ, "CIRCUIT_CLAIMS_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    path, bad = saved(), tmp_path / "checkpoint_0000200.pth"
    bad.write_bytes(pickle.dumps(Runs(tmp_path / "ran")))

    def run(*words):
        line = [
            sys.executable,
            "-c",
            "from circuit_claims.running.command_line import main; main()",
            "convert-checkpoint",
            NAME,
            *words,
        ]
        return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=300)

    done = run(str(path))
    assert done.returncode == 0, done.stderr
    assert "step_00000101.safetensors" in done.stdout
    done = run(str(bad))
    assert done.returncode == 2
    assert "it was not opened" in done.stderr
    assert not (tmp_path / "ran").exists()
