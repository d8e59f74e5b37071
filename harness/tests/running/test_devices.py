"""The device of a run: chosen by name, set so that two runs agree, and named in what could not be run on it."""

from __future__ import annotations

import json

import pytest
import torch
from circuit_claims.running.machine import choose_device, resolve_device
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import forked
from tests.helpers.subjects import save_planted_subject
from tests.helpers.toy_project import make_project


@pytest.mark.parametrize(
    ("option", "cuda", "mps", "worker", "device"),
    [
        ("auto", 0, False, None, "cpu"),
        ("auto", 0, True, None, "mps"),
        ("auto", 1, True, None, "cuda:0"),
        ("auto", 2, False, "gw0", "cuda:0"),
        ("auto", 2, False, "gw1", "cuda:1"),
        ("auto", 2, False, "gw5", "cuda:1"),
        ("auto", 0, False, "gw5", "cpu"),
        ("cuda", 3, False, None, "cuda:0"),
        ("cuda", 3, False, "gw2", "cuda:2"),
        ("cuda:1", 3, False, "gw2", "cuda:1"),
        ("cuda", 2, False, "master", "cuda:0"),
        ("cpu", 4, True, "gw1", "cpu"),
        ("mps", 0, True, None, "mps"),
    ],
)
def test_a_device_is_chosen(option, cuda, mps, worker, device):
    assert resolve_device(option, cuda, mps, worker) == device


@pytest.mark.parametrize(
    ("option", "cuda", "mps", "here"),
    [
        ("cuda", 0, False, "cpu"),
        ("cuda:2", 2, False, "cpu, cuda:0, cuda:1"),
        ("mps", 1, False, "cpu, cuda:0"),
        ("tpu", 0, True, "cpu, mps"),
        ("", 0, False, "cpu"),
    ],
)
def test_a_device_that_is_not_here_is_refused_with_those_that_are(option, cuda, mps, here):
    with pytest.raises(ValueError, match="expected auto, cpu, cuda") as caught:
        resolve_device(option, cuda, mps)
    assert f"found here {here}\n" in str(caught.value)


@given(st.integers(1, 8), st.integers(1, 64))
def test_workers_take_accelerators_in_turn(count, workers):
    taken = [resolve_device("auto", count, False, f"gw{number}") for number in range(workers)]
    loads = [taken.count(f"cuda:{number}") for number in range(count)]
    assert sum(loads) == workers
    assert max(loads) - min(loads) <= 1


@pytest.fixture
def settings_kept():
    """Torch's own switches, put back after the test."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = torch.get_deterministic_debug_mode(), [backend.allow_tf32 for backend in backends]
    yield
    torch.set_deterministic_debug_mode(before[0])
    for backend, value in zip(backends, before[1], strict=True):
        backend.allow_tf32 = value


@pytest.mark.parametrize("tf32", [False, True])
def test_algorithms_are_deterministic_and_tf32_is_off_unless_asked(settings_kept, tf32):
    torch.set_deterministic_debug_mode("default")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not tf32
    assert choose_device("cpu", tf32=tf32) == "cpu"
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.backends.cuda.matmul.allow_tf32 is tf32
    assert torch.backends.cudnn.allow_tf32 is tf32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible; run where nvidia-smi lists one")
def test_an_accelerator_multiplies_in_full_fp32(settings_kept):
    device = choose_device("cuda")
    left, right = torch.randn(2, 512, 512, generator=torch.Generator().manual_seed(0))
    found = (left.to(device) @ right.to(device)).cpu().double()
    exact = left.double() @ right.double()
    # tf32 keeps 10 bits: its error here is about 1e-3 of the largest entry, that of fp32 below 1e-6.
    assert (found - exact).abs().max() < 1e-5 * exact.abs().max()


def verdict_of(root, *words, **environment):
    command = ("pytest", "claims/", "-p", "no:cacheprovider", "--report", "out", "--store", "store", *words)
    done = forked.run(command, root, environment)
    events = [json.loads(line) for line in (root / "out" / "events.jsonl").read_text().splitlines()]
    (verdict,) = [event for event in events if event["event"] == "verdict"]
    return done, verdict


def test_a_model_that_does_not_fit_is_not_judged_and_says_need_and_have(tmp_path):
    tests = (
        '@claim("TY-01")\ndef test_it(subject, judge, monkeypatch):\n'
        "    from circuit_claims.models import bridge\n"
        "    from circuit_claims.models.resolve import resolve\n"
        '    monkeypatch.setattr(bridge, "memory_free", lambda device: 2_000_000)\n'
        '    bridge.boot(resolve("planted"), "cpu")\n'
    )
    root = make_project(tmp_path, tests)
    save_planted_subject(root / "planted", tasks=("days",))
    done, verdict = verdict_of(root, CIRCUIT_CLAIMS_CACHE=str(tmp_path / "cache"))
    assert done.status == 0, done.text
    assert verdict["outcome"] == "not here"
    assert verdict["reason"].startswith("planted does not fit on cpu; needs 1.0 GB (0.0 GB of fp32 weights")
    assert verdict["reason"].endswith("found 0.0 GB free")
    assert "Type:" not in verdict["reason"]


def test_a_claim_of_gpu_hours_needs_an_accelerator_on_a_cpu(tmp_path):
    tests = '@claim("TY-01")\ndef test_it(subject, judge):\n    raise AssertionError("it was run")\n'
    root = make_project(tmp_path, tests, conftest="")
    paper = root / "claims" / "toy" / "paper.toml"
    paper.write_text(paper.read_text().replace('cost = "seconds"', 'cost = "gpu hours"'))
    done, verdict = verdict_of(root, "--device", "cpu", "--offline")
    assert done.status == 0, done.text
    assert verdict["outcome"] == "needs an accelerator"
    assert verdict["reason"] == "only an accelerator runs this in reasonable time"
    assert verdict["command"] == "pytest claims/ --device cuda"
