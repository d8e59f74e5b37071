"""How the cost of a coefficient grows with chains, heads, sequence length and vocabulary: a table and a plot.

Run it with:  pytest harness/benchmarks/test_llc_growth.py --benchmark-enable -s
It writes llc_growth.md and llc_growth.svg beside itself. Every point is a process of its own on one thread, so that its
peak memory is its own; times are CPU seconds. The base point is one head of the last layer of the paper's two-layer
model, one chain, 12 draws, batch 8 x 128, 16 rows, vocabulary 5,000.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BASE = {"chains": 1, "heads": 1, "length": 128, "vocabulary": 5000}
AXES = {
    "chains": [1, 2, 4, 8],
    "heads": [1, 2, 4, 8],
    "length": [64, 128, 256, 512],
    "vocabulary": [1250, 2500, 5000, 10000],
}
DRAWS = 12

PROCESS = """
import json, resource, sys, time
import torch
torch.set_num_threads(1)
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig
from circuit_claims.keeping.cells import MemoryStore
from circuit_claims.llc.sgld import SGLDSettings
from circuit_claims.llc.sweep import Sweep, run_sweep
import arviz, numba

def peak():
    lines = open("/proc/self/status").read() if sys.platform == "linux" else ""
    if "VmHWM:" in lines:
        return int(lines.split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

point, draws = json.loads(sys.argv[1]), int(sys.argv[2])
model = AttentionOnly(AttentionOnlyConfig(d_vocab=point["vocabulary"])).initialise(1)
rows = torch.randint(0, point["vocabulary"], (16, point["length"]), generator=torch.Generator().manual_seed(0))

def run(count, heads, chains):
    settings = SGLDSettings(n_beta=30.0, gamma=200.0, eps=1e-3, num_chains=chains, num_draws=count, batch_size=8,
                            chains_per_call=1, mala_every=0, control_draws=0)
    names = [f"1:{head}" for head in range(heads)]
    began = time.process_time()
    run_sweep(Sweep(["m"], names, ["t"], lambda _: model, lambda _: rows, settings), MemoryStore())
    return time.process_time() - began

run(1, 1, 1)
bare = peak()
seconds = run(draws, point["heads"], point["chains"])
print(json.dumps({"seconds": seconds, "peak": peak(), "bare": bare}))
"""


def measure(axis: str, value: int) -> dict[str, float]:
    """CPU seconds of the whole run, of one draw, and peak bytes, at the base point with one number changed."""
    point = {**BASE, axis: value}
    command = [sys.executable, "-c", PROCESS, json.dumps(point), str(DRAWS)]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(made.stdout.strip().splitlines()[-1])
    found["per_draw"] = found["seconds"] / (DRAWS * point["chains"] * point["heads"])
    return found


@pytest.mark.benchmark(group="llc")
def test_how_the_cost_grows(benchmark):
    """Time grows no faster than in proportion (with a quarter's room) in chains, heads and vocabulary."""
    if not benchmark.enabled:
        pytest.skip("a timing, not a check: needs a quiet machine. Add --benchmark-enable -s to run it")
    found: dict[str, dict[int, dict[str, float]]] = {}

    def all_points() -> None:
        for axis, values in AXES.items():
            found[axis] = {value: measure(axis, value) for value in values}

    benchmark.pedantic(all_points, rounds=1, iterations=1)
    text = table(found)
    print("\n" + text)
    (HERE / "llc_growth.md").write_text(text, encoding="utf-8")
    plot(found)
    benchmark.extra_info.update({"growth": {axis: {str(k): v for k, v in row.items()} for axis, row in found.items()}})
    for axis in ("chains", "heads", "vocabulary"):
        low, high = AXES[axis][0], AXES[axis][-1]
        assert found[axis][high]["seconds"] <= 1.25 * high / low * found[axis][low]["seconds"]


def table(found: dict[str, dict[int, dict[str, float]]]) -> str:
    """The figures as Markdown."""
    lines = [
        "# What a coefficient costs",
        "",
        f"One head of the last layer, {DRAWS} draws, batch 8 x 128, 16 rows, one thread; one number changed at a time.",
        "Written by `pytest harness/benchmarks/test_llc_growth.py --benchmark-enable`.",
        "",
        "| axis | value | CPU s, whole run | CPU ms a draw | peak memory, MB |",
        "|---|---|---|---|---|",
    ]
    for axis, row in found.items():
        for value, point in row.items():
            figures = f"{point['seconds']:.2f} | {point['per_draw'] * 1e3:.1f} | {point['peak'] / 1e6:.0f}"
            lines.append(f"| {axis} | {value:,} | {figures} |")
    return "\n".join(lines) + "\n"


def plot(found: dict[str, dict[int, dict[str, float]]]) -> None:
    """Time and memory against each axis, one column an axis."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "llc growth"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, len(found), figsize=(3 * len(found), 5), sharey="row", layout="constrained")
    for column, (axis, row) in enumerate(found.items()):
        values = list(row)
        panels[0, column].loglog(values, [row[value]["seconds"] for value in values], marker="o")
        panels[1, column].loglog(values, [row[value]["peak"] / 1e6 for value in values], marker="o", color="C1")
        panels[1, column].set_xlabel(axis)
    panels[0, 0].set_ylabel("CPU seconds")
    panels[1, 0].set_ylabel("peak memory, MB")
    figure.savefig(HERE / "llc_growth.svg", metadata={"Date": None})
    pyplot.close(figure)
