"""How long 100 autoencoder runs and the grid of 24 x 100 probes take on a default model, batched and one by one.

Run it with:  pytest harness/benchmarks/test_counting_speed.py --benchmark-enable -s
(the vectors are those of MODEL where it is on this machine, else random ones of its shape: the time hardly differs)

Batched is timed whole. One by one is what `train_one` and `train_one_probe` do, autograd and torch's own Adam with
all of torch's threads; a part of its runs is timed and multiplied, which the table says. Both ways in one session,
their parts taking turns; what is compiled is compiled before. The machine must be quiet.

What a step must do, for qwen2.5-coder-0.5b (258 vectors that span r = 257 dimensions, 232 of them trained on):

| per seed                            | steps | 10^6 multiply-adds a step                 | bytes moved by Adam a step |
|-------------------------------------|-------|-------------------------------------------|----------------------------|
| autoencoder, D = 512, batch 64      | 400   | dense: 5 x 64 x 512 x r = 42              | 24 x 2 x 512 x r = 6.3 M   |
| the same, as it is here             |       | encoder 8.4 + 4 x r per active code ~ 10  | rows that are awake only   |
| 24 probes, 324 classes, batch 32    | 800   | 2 x 32 x 324 x d_model (896) = 19         | 24 x 324 x 896 = 7.0 M     |

so 100 seeds' autoencoders need at least 4 x 10^11 multiply-adds and 1.5 to 2.5 x 10^11 bytes, the probes 1.5 x 10^12
and 5.6 x 10^11. At 5 x 10^10 multiply-adds and, from main memory, 10^10 bytes a second and core that is 12 s and 43 s
on two cores; the probes train ten seeds at a time, whose parameters stay in the cache, so their bytes move faster. One
by one the bytes and products are no fewer, and each probe's step has some forty calls of torch for a product of
32 x 25 x 896.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from circuit_claims.heads.autoencoders.training import AutoencoderSettings, train_autoencoders
from circuit_claims.heads.probes import MODULI, ProbeSettings, train_probes
from tests.heads.plain_autoencoders import train_one
from tests.heads.plain_probes import train_one_probe

MODEL, SHAPE = "qwen2.5-coder-0.5b", (258, 896)
SEEDS = tuple(range(100))
ALONE, ALONE_MODULI = 2, (2, 10, 25)
MOST_SECONDS, AT_LEAST = 180.0, 10.0


def vectors() -> tuple[torch.Tensor, torch.Tensor, str]:
    """MLP_0(W_E) of the model's counting tokens and their indices; random ones where the model is not here."""
    from circuit_claims.models.architectures.layers import CircuitWeights
    from circuit_claims.models.errors import ModelError
    from circuit_claims.models.resolve import resolve
    from circuit_claims.papers.successor_heads.counting.tokens import counted_tokens

    try:
        model = resolve(MODEL, offline=True)
    except ModelError:
        x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
        return x, torch.arange(len(x)) % 27, f"random vectors of {MODEL}'s shape"
    tokens, weights = counted_tokens(model.tokenizer()).distinct(), CircuitWeights.open(model.tensors())
    x = weights.mlp0(weights.embed(torch.from_numpy(tokens.tokens)))
    return x, torch.from_numpy(tokens.index), MODEL


def seconds(run: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@pytest.mark.benchmark(group="counting")
def test_speed_of_the_grid(benchmark) -> None:
    """Both together in at most three minutes, and at least ten times faster than one after the other."""
    if not benchmark.enabled:
        pytest.skip("a timing, not a check: needs a quiet machine. Add --benchmark-enable -s to run it")
    x, index, what = vectors()
    threads = min(2, os.cpu_count() or 1)
    torch.set_num_threads(threads)
    short = replace(AutoencoderSettings(), epochs=1), replace(ProbeSettings(), epochs=1)
    train_autoencoders(x, SEEDS[:4], short[0])  # compiles
    train_probes(x, index, SEEDS[:4], settings=short[1])
    together: dict[str, float] = {}
    alone: dict[str, list[float]] = {"autoencoders": [], "probes": []}

    def one_by_one() -> None:
        alone["autoencoders"] += [seconds(partial(train_one, x, seed)) for seed in range(ALONE)]
        alone["probes"] += [seconds(partial(train_one_probe, x, index, 0, m)) for m in ALONE_MODULI]

    def whole() -> None:
        one_by_one()
        together["autoencoders"] = seconds(lambda: train_autoencoders(x, SEEDS))
        one_by_one()
        together["probes"] = seconds(lambda: train_probes(x, index, SEEDS))
        one_by_one()

    benchmark.pedantic(whole, rounds=1, iterations=1)
    runs = {"autoencoders": len(SEEDS), "probes": len(SEEDS) * len(MODULI)}
    each = {name: statistics.median(alone[name]) for name in runs}
    figures = {name: {"batched": together[name], "one by one": each[name] * runs[name]} for name in runs}
    figures["both"] = {way: sum(figures[name][way] for name in runs) for way in ("batched", "one by one")}
    show(what, threads, figures, alone)
    benchmark.extra_info.update({"vectors": what, "threads": threads, "seconds": figures, "load": os.getloadavg()})
    assert figures["both"]["batched"] <= MOST_SECONDS
    assert figures["both"]["one by one"] / figures["both"]["batched"] >= AT_LEAST


def show(what: str, threads: int, figures: dict[str, dict[str, float]], alone: dict[str, list[float]]) -> None:
    """The table; one by one is a part of the runs, multiplied."""
    print(f"\n{what}, {threads} threads, load {os.getloadavg()[0]:.1f}; {len(SEEDS)} seeds")
    for name, row in figures.items():
        timed = f"   ({len(alone[name])} runs timed)" if name in alone else ""
        print(
            f"  {name:14s} batched {row['batched']:8.1f} s   one by one {row['one by one']:8.1f} s"
            f"   ratio {row['one by one'] / row['batched']:5.1f}{timed}"
        )
    print(json.dumps(figures))
