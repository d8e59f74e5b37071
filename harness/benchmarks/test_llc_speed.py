"""How fast one draw of one head's chain is, beside devinterp 2.0.1 and the floor, in one run on the same data.

Run it with:  tox -e devinterp2 -- harness/benchmarks/test_llc_speed.py --benchmark-enable -s
(without devinterp its column is left out: pytest harness/benchmarks/test_llc_speed.py --benchmark-enable -s)

The model is the paper's two-layer one (3,355,016 parameters), weights as initialised; a draw is one SGLD step with its
loss and gradient. devinterp runs without observables, on the same module, sampling only the head by its masks. The
clock is read at each draw, and the first half of a run is left out, so what is done once does not count; the rounds of
all ways take turns and their medians are shown. `kept logits` keeps all that a sequence gives (the paper repeats 16
batches), `logits anew` all but what is as wide as the vocabulary (20 MB a sequence of 1,024). The floor is one
cross-entropy, forward and backward, over logits that are already there.

On one core CPU seconds are shown, which other work on the machine weighs on least. On two cores it is wall seconds:
devinterp's threads work within each product, our chains run side by side. There the machine must be quiet.

What a draw must do, batch 8 x 128 (n = 1,016 predictions, d = 256, k = 32, V = 5,000; MAC: one multiply-add):

| step                                          | MAC                     | 10^9 |
|-----------------------------------------------|-------------------------|------|
| plain: logits, and back to the residual       | 2 n d V                 | 2.60 |
| last layer: n z M, mean of M, z against mass  | 3 n k V                 | 0.49 |
| last layer, logits anew: N as well            | n d V                   | 1.30 |
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from circuit_claims.llc.refined import Speed, refined_llc
from circuit_claims.llc.slices import weight_slice
from circuit_claims.toy.model import AttentionOnly
from tests.llc import oracles
from torch.nn import functional as F

VOCAB, HEAD, EARLY_HEAD = 5000, "1:6", "0:3"
AT_LEAST = 5.0


Way = Callable[[int, Callable[[], None]], None]  # makes so many draws, and ticks at each


@dataclass(frozen=True)
class Case:
    """Batch shape, draws of the shorter run, rounds."""

    batch: int
    length: int
    draws: int
    rounds: int


CASES = {"8x128": Case(8, 128, 40, 3), "32x1024": Case(32, 1024, 8, 1)}


def ways(case: Case, threads: int) -> dict[str, Way]:
    """Each way to make `draws` draws, as a function of their number."""
    model = AttentionOnly().initialise(seed=1)
    source = torch.Generator().manual_seed(0)
    data = torch.randint(0, VOCAB, (case.batch * 2, case.length), generator=source)
    run = {"n_beta": 30.0, "gamma": 200.0, "eps": 1e-3, "batch_size": case.batch, "mala_every": 0, "control_draws": 0}

    def ours(weights: str, **speed):
        def make(draws: int, tick: Callable[[], None]) -> None:
            found = refined_llc(model, data, weights=weights, speed=Speed(**speed), num_chains=threads, threads=threads,
                                num_draws=draws // threads, progress=lambda *_: tick(), **run)  # fmt: skip
            assert found.traces.sound.all()

        return make

    keep, small = 6 << 30, len(data) * case.length * 256 * 4 * 5
    table = {
        f"{HEAD}, kept logits": ours(HEAD, cache_bytes=keep),
        f"{HEAD}, logits anew": ours(HEAD, cache_bytes=small),
        f"{HEAD}, logits anew, bfloat16 readout": ours(HEAD, cache_bytes=small, readout_dtype=torch.bfloat16),
        f"{EARLY_HEAD}": ours(EARLY_HEAD, cache_bytes=keep),
        f"{EARLY_HEAD}, bfloat16 readout": ours(EARLY_HEAD, cache_bytes=keep, readout_dtype=torch.bfloat16),
        f"{HEAD}, plain path": ours(HEAD, path="plain"),
        "floor: one cross-entropy": cross_entropies(case),
    }
    if oracles.installed() == "2.0.1":
        for head in (HEAD, EARLY_HEAD):
            masks = oracles.masks_of(model, weight_slice(model, head))
            table[f"devinterp 2.0.1, {head}"] = reference(model, data, masks, case)
    return table


def cross_entropies(case: Case) -> Way:
    """The floor: forward and backward over one batch's logits."""
    source = torch.Generator().manual_seed(1)
    count = case.batch * (case.length - 1)
    logits = torch.randn(count, VOCAB, generator=source)
    targets = torch.randint(0, VOCAB, (count,), generator=source)

    def make(draws: int, tick: Callable[[], None]) -> None:
        for _ in range(draws):
            leaf = logits.detach().requires_grad_()
            F.cross_entropy(leaf, targets).backward()
            tick()

    return make


def reference(model: AttentionOnly, data: torch.Tensor, masks: dict, case: Case) -> Way:
    """devinterp's sampler on the same module and data, without observables."""

    def make(draws: int, tick: Callable[[], None]) -> None:
        from devinterp.slt.lm_loss import compute_per_token_loss

        def loss(model, tokens):
            tick()
            return compute_per_token_loss(model, tokens)

        oracles.llc(model, data, lr=1e-3, n_beta=30.0, localization=200.0, param_masks=masks, loss_fn=loss,
                    num_chains=1, num_draws=draws, batch_size=case.batch, num_init_loss_batches=1)  # fmt: skip

    return make


def per_draw(make: Way, draws: int, clock: Callable[[], float]) -> float:
    """Seconds a draw over the second half of a run."""
    ticks: list[float] = []
    make(draws, lambda: ticks.append(clock()))
    late = ticks[len(ticks) // 2 :]
    return (late[-1] - late[0]) / (len(late) - 1)


@pytest.mark.benchmark(group="llc")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", list(CASES))
def test_speed_of_a_draw(shape, threads, benchmark):
    """Asserted beside devinterp at 8 x 128 on two cores: a last-layer head at least five times its speed, per draw."""
    if not benchmark.enabled:
        pytest.skip("a timing, not a check: needs a quiet machine. Add --benchmark-enable -s to run it")
    case, before = CASES[shape], torch.get_num_threads()
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    try:
        table = ways(case, threads)
        times: dict[str, list[float]] = {name: [] for name in table}

        def rounds() -> None:
            for name, make in table.items():
                times[name].append(per_draw(make, case.draws, clock))

        benchmark.pedantic(rounds, rounds=case.rounds, iterations=1)
    finally:
        torch.set_num_threads(before)
    middle = {name: statistics.median(values) for name, values in times.items()}
    show(shape, threads, middle)
    benchmark.extra_info.update({"shape": shape, "threads": threads, "seconds": middle, "load": os.getloadavg()})
    theirs = middle.get(f"devinterp 2.0.1, {HEAD}")
    if theirs is not None and shape == "8x128" and threads == 2:
        assert theirs / middle[f"{HEAD}, kept logits"] >= AT_LEAST


def show(shape: str, threads: int, middle: dict[str, float]) -> None:
    """The table, with the ratio to the floor and to devinterp on the same head."""
    floor = middle["floor: one cross-entropy"]
    print(
        f"\n{shape}, {threads} {'core, CPU' if threads == 1 else 'cores, wall'} seconds, load {os.getloadavg()[0]:.1f}"
    )
    for name, seconds in middle.items():
        head = EARLY_HEAD if name.startswith(EARLY_HEAD) else HEAD
        theirs = middle.get(f"devinterp 2.0.1, {head}")
        ratio = f"  devinterp/this {theirs / seconds:5.1f}" if theirs and not name.startswith("devinterp") else ""
        print(f"  {name:42s} {seconds * 1e3:9.1f} ms  of the floor {seconds / floor:5.2f}{ratio}")
    print(json.dumps({"shape": shape, "threads": threads, "ms": {k: round(v * 1e3, 2) for k, v in middle.items()}}))
