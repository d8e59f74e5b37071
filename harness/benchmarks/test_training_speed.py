"""How fast `claims train` trains the two-layer model: tokens a second, and the share of the matrix-product peak.

Run it with:  pytest harness/benchmarks/test_training_speed.py --benchmark-enable -s
on a machine that does nothing else, with OMP_NUM_THREADS as training is to have it.

What a token costs, counted before anything was measured (d_model 256, 8 heads of 32, context 512, vocabulary 5,000; a
multiply-add is two FLOP; backward twice forward): projections 4 d^2 and scores and mixing 2 d (n_ctx + 1) / 2 a layer,
readout d V; with two layers 6 (2 (262,144 + 131,328) + 1,280,000) = 12.4 MFLOP. The readout is six tenths of it, and
its logits, 2,048 x 5,000 a part, are what has to be moved: 41 MB in fp32 for each time they are written or read, which
is why the step in bf16 writes them twice and never reads them in fp32.

The plain step is the same model in fp32 with torch's own cross-entropy and attention patterns; both ways take the same
batch through the same AdamW. Peak and steps are measured by turns in one process, so that a clock that changes weighs
on all alike, and the best of each counts. The process starts as `claims train` starts its own (freed memory is kept).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

BATCHES, CONTEXT, ROUNDS = (4, 32), 512, 5
LEAST_SHARE, LEAST_GAIN = 0.25, 1.2
# Below this, the machine has no bf16 products worth the name, and fp32 is what one should train with.
BF16_PAYS = 1.5

MEASURE = """
import json, sys, time
from pathlib import Path

import numpy as np
import torch

from circuit_claims.toy.corpus import Corpus
from circuit_claims.toy.training import Recipe, Trainer, flops_per_token, matmul_peak

batch, context, rounds = map(int, sys.argv[1:])
rows = np.random.default_rng(0).integers(0, 4_999, (batch, context)).astype(np.uint16)
corpus = Corpus(rows, rows, {"digest": "made up", "tokenizer": "none"})
recipes = {name: Recipe(2, 1, batch, context, precision=name) for name in ("fp32", "bf16")}
trainers = {name: Trainer(recipe, corpus, Path(".")) for name, recipe in recipes.items()}
dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
seconds, peak = {name: [] for name in recipes}, {name: [] for name in recipes}
for turn in range(rounds + 1):
    for name, trainer in trainers.items():
        peak[name].append(matmul_peak(dtypes[name]))
        for _ in range(max(1, 8 // batch)):
            began = time.perf_counter()
            trainer.update(trainer.rows(0))
            seconds[name].append(time.perf_counter() - began)
needed = flops_per_token(recipes["fp32"].model)
speed = {name: batch * context / min(found) for name, found in seconds.items()}
share = {name: speed[name] * needed / max(peak[name]) for name in speed}
best = {name: max(found) for name, found in peak.items()}
print(json.dumps(dict(speed=speed, share=share, peak=best, needed=needed, threads=torch.get_num_threads())))
"""


def measured(batch: int) -> dict[str, Any]:
    """Speeds, shares and peaks of one batch, from a process of its own."""
    from circuit_claims.toy.command import ROOMY

    command = [sys.executable, "-c", MEASURE, *map(str, (batch, CONTEXT, ROUNDS))]
    ran = subprocess.run(command, env={**ROOMY, **os.environ}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def tables(request: pytest.FixtureRequest) -> dict[int, dict[str, Any]]:
    if not request.config.getoption("benchmark_enable"):
        pytest.skip(
            "needs a quiet machine; type: pytest harness/benchmarks/test_training_speed.py --benchmark-enable -s"
        )
    return {batch: measured(batch) for batch in BATCHES}


def test_tokens_a_second_and_share_of_the_peak(tables: dict[int, dict[str, Any]]) -> None:
    first = next(iter(tables.values()))
    print(f"\n{first['needed'] / 1e6:.1f} MFLOP a token, {first['threads']} thread(s), context {CONTEXT}")
    for batch, found in tables.items():
        for name in ("fp32", "bf16"):
            words = f"{found['share'][name]:.0%} of {found['peak'][name] / 1e9:,.0f} GFLOP/s of {name} products"
            print(f"{batch:3d} rows a step, {name}: {found['speed'][name]:,.0f} tokens/s, {words}")
    large = tables[max(tables)]
    assert large["share"]["fp32"] >= LEAST_SHARE


def test_bf16_is_worth_it_where_the_machine_has_it(tables: dict[int, dict[str, Any]]) -> None:
    large = tables[max(tables)]
    products = large["peak"]["bf16"] / large["peak"]["fp32"]
    if products < BF16_PAYS:
        pytest.skip(f"bf16 products are {products:.1f} times as fast as fp32 here: train with --precision fp32")
    gain = large["speed"]["bf16"] / large["speed"]["fp32"]
    print(f"\nbf16 over the plain fp32 step: {gain:.2f} times; products alone {products:.1f} times")
    assert gain >= LEAST_GAIN
