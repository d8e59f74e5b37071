"""How fast direct effects of all heads are: against ablating head by head, and over 128 contexts of 512 tokens.

Run it with:  pytest harness/benchmarks/test_ablation_speed.py --benchmark-enable -s
The ways are compared on one thread in CPU seconds, so that other work on the machine weighs on none of them; all 128
contexts run on two threads, in seconds of the clock.

Counted before anything was measured, for one context of SmolLM2-135M (d_model 576, 30 layers of 9 query and 3 key-value
heads of width 64, d_mlp 1,536; 512 positions; one multiply-add, MAC, is two FLOP):

| step                                                    | MAC                                    | 10^9   |
|---------------------------------------------------------|----------------------------------------|--------|
| layers, without attention between positions             | 512 30 (2.67 d_model^2 + 3 d_model d_mlp) |  54.4  |
| attention between positions, without causal savings     | 30 512^2 2 d_model                     |   9.1  |
| correct tokens' rows and residuals back through W_O     | 512 30 2 d_model^2                     |  10.2  |
| quadratic form of the final norm, 1 + 4 replacements    | 512 30 5 64 d_model                    |   2.8  |
| head by head: a forward pass a head                     | 270 63.5                               | 17,145 |

So all heads cost about 1.2 passes, and head by head 270: a ratio of 220, if both ran at the same share of the machine's
speed. "With care" keeps the pass, and carries each head's write to the final norm for itself: no layer runs again.
No way here reads out the whole vocabulary, which would favour ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

MODEL = "smollm2-135m"
LENGTH, PART, REFERENCE, THREADS, BY_HAND = 512, 4, 16, 2, 4
LEAST_RATIO = 20.0
MOST_BYTES = 6e9
WHOLE = {"smollm2-135m": 240.0, "qwen2.5-coder-0.5b": 900.0}

FRESH_PROCESS = """
import json, sys, tempfile, time
from pathlib import Path
import numpy as np
from circuit_claims.keeping.measure import peak_bytes
from circuit_claims.models.resolve import resolve
from circuit_claims.keeping.store import Store
from circuit_claims.heads.effects.cells import Plan, measure_contexts
from circuit_claims.heads.effects.forward import open_model
from circuit_claims.texts import standard_text

name, count, length, reference, threads = sys.argv[1], *map(int, sys.argv[2:])
local = resolve(name, offline=True)
rows = np.array(local.tokenizer().encode(standard_text("python-docs")))[: (count + reference) * length]
rows = rows.reshape(-1, length)
began = time.monotonic()
plan = Plan(lambda: open_model(local), {"model": local.digest}, rows[:count], rows[count:], threads=threads)
told = lambda p: p.done % 16 or print(f"{p.step} {p.done}/{p.total}, {p.seconds_left:.0f} s left", file=sys.stderr)
with tempfile.TemporaryDirectory() as folder:
    effects = measure_contexts(plan, Store(Path(folder)), told)
    seconds = time.monotonic() - began
same = float(np.mean([(one.frozen_winner == one.recomputed_winner).mean() for one in effects]))
gap = max(one.gap for one in effects)
heads, cases = len(effects[0].heads), sum(one.mean.shape[1] for one in effects)
print(json.dumps(dict(seconds=seconds, peak=peak_bytes(), heads=heads, cases=cases, gap=gap, same=same)))
"""


def found(name: str) -> Any:
    """The model, or a skip that says what to type."""
    from circuit_claims.models.errors import ModelNotAvailable
    from circuit_claims.models.resolve import resolve

    try:
        return resolve(name, offline=True)
    except ModelNotAvailable as error:
        pytest.skip(f"needs real weights: {error}")


@dataclass
class Bench:
    """A model, a part of the contexts, and everything the ways by hand are given for free."""

    local: Any
    model: Any
    contexts: np.ndarray
    reference: np.ndarray
    plan: Any


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if not request.config.getoption("benchmark_enable"):
        pytest.skip("takes minutes; type: pytest harness/benchmarks/test_ablation_speed.py --benchmark-enable -s")
    from circuit_claims.heads.effects.cells import Plan
    from circuit_claims.heads.effects.forward import open_model
    from circuit_claims.texts import standard_text

    local = found(MODEL)
    model = open_model(local)
    rows = np.array(local.tokenizer().encode(standard_text("python-docs")))[: (PART + REFERENCE) * LENGTH]
    rows = rows.reshape(-1, LENGTH)
    identity = {"model": local.digest}
    plan = Plan(lambda: model, identity, rows[:PART], rows[PART:], threads=1)
    plan.opened()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Bench(local, model, rows[:PART], rows[PART:], plan)
    torch.set_num_threads(threads)


def by_hand(bench: Bench, layer: int, head: int) -> Tensor:
    """One whole pass for one head: a hook sees its write change by mean ablation, another adds that at the end."""
    model, reference = bench.model, bench.plan.opened().reference
    tokens = torch.from_numpy(bench.contexts[0])
    mean = reference.sums[layer].sum((0,))[head] / (len(reference.digests) * LENGTH)
    final: dict[str, Tensor] = {}

    def see(module: Any, args: tuple) -> None:
        z = args[0][0].unflatten(-1, (model.dims.n_heads, -1))[:, head]
        final["change"] = model.write(layer, head, mean.float() - z)

    def end(module: Any, args: tuple) -> None:
        final["before"] = args[0][0]

    body = model.network.base_model
    hooks = [
        model.layers[layer].get_submodule(model.names.attention_out).register_forward_pre_hook(see),
        body.get_submodule(model.names.final_norm).register_forward_pre_hook(end),
    ]
    with torch.inference_mode():
        body(tokens[None], use_cache=False)
        for hook in hooks:
            hook.remove()
        points = torch.stack([final["before"], final["before"] + final["change"]])[:, :-1]
        logits = (model.final_norm(points) * model.W_U[tokens[1:]]).sum(-1)
    return logits[0] - logits[1]


def with_care(bench: Bench) -> Tensor:
    """One pass for all heads, then each head's write carried to the final norm for itself."""
    model, reference = bench.model, bench.plan.opened().reference
    (run,) = model.run(torch.from_numpy(bench.contexts[:1]))
    rows, found = model.W_U[run.correct], []
    with torch.inference_mode():
        plain = (model.final_norm(run.final[:-1]) * rows).sum(-1)
        for layer, head in model.heads.tolist():
            output = reference.replacement(run, layer, "mean")[0, :, head]
            change = model.write(layer, head, output - run.z[layer][:-1, head])
            found.append(plain - (model.final_norm(run.final[:-1] + change) * rows).sum(-1))
    return torch.stack(found)


def timed(work: Any) -> tuple[Any, float]:
    began = time.process_time()
    made = work()
    return made, time.process_time() - began


@pytest.mark.weights
def test_all_heads_at_once_are_far_faster_than_head_by_head(bench: Bench, tmp_path: Any) -> None:
    """A part, in one run: the same effects, and the CPU seconds of each way for one context."""
    from circuit_claims.heads.effects.cells import measure_contexts
    from circuit_claims.keeping.store import Store

    by_hand(bench, 0, 0)  # warm
    effects, seconds = timed(lambda: measure_contexts(bench.plan, Store(tmp_path)))
    ours = seconds / PART
    rows = np.random.default_rng(0).choice(len(bench.model.heads), BY_HAND, replace=False)
    lost, seconds = timed(lambda: [by_hand(bench, *bench.model.heads[row].tolist()) for row in rows])
    plain = seconds / BY_HAND * len(bench.model.heads)
    careful, cared = timed(lambda: with_care(bench))
    for row, one in zip(rows, lost, strict=True):
        np.testing.assert_allclose(effects[0].mean[row], one.numpy(), atol=1e-4)
    np.testing.assert_allclose(effects[0].mean, careful.numpy(), atol=1e-4)
    print(f"\nall heads at once, mean and 4 repeats {ours:8.2f} s a context")
    print(f"head by head, mean alone              {plain:8.2f} s a context, ratio {plain / ours:.0f}")
    print(f"on one pass with care, mean alone     {cared:8.2f} s a context, ratio {cared / ours:.2f}")
    assert plain / ours >= LEAST_RATIO


@pytest.mark.weights
@pytest.mark.parametrize("name", WHOLE)
def test_128_contexts_in_a_fresh_process(name: str, request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("benchmark_enable"):
        pytest.skip("takes minutes; type: pytest harness/benchmarks/test_ablation_speed.py --benchmark-enable -s")
    found(name)
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
    words = [sys.executable, "-c", FRESH_PROCESS, name, "128", str(LENGTH), str(REFERENCE), str(THREADS)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    cost = json.loads(done.stdout.splitlines()[-1])
    print(
        f"\n{name}: {cost['heads']} heads, {cost['cases']:,} cases in {cost['seconds']:.0f} s, peak"
        f" {cost['peak'] / 1e9:.2f} GB; heads and the rest add up to {cost['gap']:.1e};"
        f" the same winner with the final norm frozen in {cost['same']:.1%} of cases"
    )
    assert cost["gap"] < 1e-4
    assert cost["seconds"] <= WHOLE[name]
    assert cost["peak"] <= MOST_BYTES
