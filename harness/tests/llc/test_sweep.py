"""Sweeps: equal to single runs, resumable after any number of kills, keyed by everything that matters."""

import hashlib
import multiprocessing
import os
import random
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from circuit_claims.keeping.executors import Processes
from circuit_claims.keeping.store import Store
from circuit_claims.llc.losses import DivergenceFrom, NextToken
from circuit_claims.llc.refined import Speed, refined_llc
from circuit_claims.llc.sgld import SGLDSettings
from circuit_claims.llc.sweep import Sweep, SweepPoint, cell_code, run_sweep

from tests.toy.test_potentials import small_model

SETTINGS = SGLDSettings(n_beta=20.0, gamma=50.0, eps=1e-3, num_chains=2, num_draws=10, batch_size=4, chains_per_call=1)


def rows(text: str) -> torch.Tensor:
    return torch.randint(0, 31, (20, 12), generator=torch.Generator().manual_seed(len(text)))


def plan(**changes) -> Sweep:
    parts = {
        "checkpoints": ["3", "5"],
        "weights": ["1:0", "0:2", "1:3", "layer 0"],
        "texts": ["pile", "github"],
        "load_model": lambda name: small_model(int(name)),
        "load_text": rows,
        "settings": SETTINGS,
    }
    return Sweep(**{**parts, **changes})


class Counting:
    """A store in memory that counts."""

    def __init__(self) -> None:
        self.cells, self.saved = {}, 0

    def load(self, key):
        return self.cells.get(key)

    def save(self, key, measurement, *, anew=False):
        self.saved += 1
        self.cells[key] = measurement


def test_a_sweep_equals_single_runs_and_a_second_one_measures_nothing():
    store = Counting()
    found = run_sweep(plan(), store)
    assert len(found) == 16
    assert store.saved == 32
    settings = {k: v for k, v in asdict(SETTINGS).items() if k != "rmsprop"}
    single = refined_llc(small_model(5), rows("github"), weights="1:3", **settings)
    place = found[SweepPoint("5", "1:3", "github")]
    np.testing.assert_allclose(place.traces.loss, single.traces.loss, rtol=1e-6)
    assert place.mean == pytest.approx(single.mean, rel=1e-6)
    assert place.surroundings.control_llc == pytest.approx(single.surroundings.control_llc, rel=1e-5)
    assert place.status == single.status
    again = run_sweep(plan(), store)
    assert store.saved == 32
    assert all(np.array_equal(again[key].traces.loss, found[key].traces.loss) for key in found)


def test_more_chains_only_measure_the_new_ones():
    store = Counting()
    run_sweep(plan(weights=["1:0"], texts=["pile"], checkpoints=["3"]), store)
    run_sweep(plan(weights=["1:0"], texts=["pile"], checkpoints=["3"], settings=replace(SETTINGS, num_chains=5)), store)
    assert store.saved == 5


@pytest.mark.parametrize(
    "change",
    [{"load_model": lambda name: small_model(int(name) + 1)}, {"load_text": lambda name: rows(name) * 0 + 1},
     {"settings": replace(SETTINGS, eps=2e-3)}, {"settings": replace(SETTINGS, seed=1)}, {"biases": False},
     {"loss": DivergenceFrom(small_model(9))}, {"speed": Speed(path="plain")}, {"weights": ["1:1"]}],
)  # fmt: skip
def test_whatever_changes_a_cell_changes_its_key(change):
    """devinterp's cache key leaves out weights, data and mask; here each alone makes all cells new."""
    store, small = Counting(), {"weights": ["1:0"], "texts": ["pile"], "checkpoints": ["3"]}
    run_sweep(plan(**small), store)
    run_sweep(plan(**{**small, **change}), store)
    assert store.saved == 4


def test_the_hessian_trace_is_a_cell_of_its_own_and_leaves_the_chains_as_they_are(tmp_path):
    store, small = Store(tmp_path), {"weights": ["1:0"], "texts": ["pile"], "checkpoints": ["3"]}
    (bare,) = run_sweep(plan(**small), store).values()
    assert bare.surroundings.hessian_trace is None
    seen = []
    (found,) = run_sweep(plan(**small, trace_probes=6), store, progress=seen.append).values()
    assert [(step.cell.chain, step.stored) for step in seen] == [(0, True), (1, True), (None, False)]
    settings = {k: v for k, v in asdict(SETTINGS).items() if k != "rmsprop"}
    single = refined_llc(small_model(3), rows("pile"), weights="1:0", trace_probes=6, **settings)
    assert found.surroundings.hessian_trace == pytest.approx(single.surroundings.hessian_trace, rel=1e-5)
    assert found.surroundings.hessian_error == pytest.approx(single.surroundings.hessian_error, rel=1e-5)
    assert found.small_curvature_limit == pytest.approx(single.small_curvature_limit, rel=1e-5)
    assert found.settings == bare.settings
    (again,) = run_sweep(plan(**small, trace_probes=6), Store(tmp_path)).values()
    assert again.surroundings.hessian_trace == found.surroundings.hessian_trace


def test_every_slice_is_checked_before_the_first_is_measured():
    store = Counting()
    with pytest.raises(ValueError, match="head 9: the model has 4"):
        run_sweep(plan(weights=["1:0", "1:9"]), store)
    assert store.saved == 0


def test_cells_are_keyed_by_the_code_that_makes_them_and_by_none_that_judges_them():
    one = plan()
    model = one.load_model("3")
    source = cell_code(model, NextToken())
    rooms = {"llc.sgld", "llc.sample", "llc.module_potential", "llc.slices", "llc.losses", "toy.model"}
    assert {f"circuit_claims.{room}" for room in rooms} <= source.modules
    assert any(".toy.potentials" in module for module in source.modules)
    assert not {f"circuit_claims.llc.{judge}" for judge in ("estimate", "diagnostics", "gate")} & source.modules
    assert "torch" in source.libraries


def test_worker_processes_give_the_same_chains():
    small = {"weights": ["1:0", "layer 0"], "texts": ["pile"], "checkpoints": ["3"]}
    here, there = run_sweep(plan(**small), Counting()), run_sweep(plan(**small), Counting(), executor=Processes(1))
    for point, estimate in here.items():
        # To rounding: another process may have another number of threads.
        np.testing.assert_allclose(there[point].traces.loss, estimate.traces.loss, rtol=1e-5)


def test_progress_counts_cells_and_estimates_what_is_left():
    seen, store = [], Counting()
    ticks = iter(range(10_000))
    run_sweep(plan(), store, progress=seen.append, clock=lambda: float(next(ticks)))
    assert [p.done for p in seen] == list(range(1, 33))
    assert seen[0].total == 32
    assert seen[0].seconds_left == pytest.approx(31.0)
    assert seen[-1].seconds_left == 0.0
    seen.clear()
    run_sweep(plan(), store, progress=seen.append)
    assert all(p.stored for p in seen)


def test_a_function_needs_a_name_to_be_stored_under():
    with pytest.raises(ValueError, match="expected a built-in loss or a loss_name"):
        run_sweep(plan(loss=lambda forward, batch: forward(batch).mean((1, 2))), Counting())


def test_a_damaged_cell_is_set_aside_and_measured_again(tmp_path):
    small = {"weights": ["1:0"], "texts": ["pile"], "checkpoints": ["3"]}
    bad = []
    store = Store(tmp_path, on_bad=lambda path, reason: bad.append(reason))
    found = run_sweep(plan(**small), store)
    target = sorted(tmp_path.rglob("arrays.safetensors"))[0]
    target.write_bytes(target.read_bytes()[:-3])
    again = run_sweep(plan(**small), store)
    assert len(bad) == 1
    place = SweepPoint("3", "1:0", "pile")
    np.testing.assert_array_equal(again[place].traces.loss, found[place].traces.loss)


def contents(root: Path) -> dict[str, str]:
    """Every record and array of a store by its digest; what a cell cost is no part of what was measured."""
    files = [*root.rglob("measurement.json"), *root.rglob("arrays.safetensors")]
    return {
        str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if ".draft" not in str(f)
    }


def long_plan() -> Sweep:
    return plan(weights=["1:0", "0:2", "1:3", "0:1"], settings=replace(SETTINGS, num_draws=12, num_chains=3))


def work(root: str) -> None:
    torch.set_num_threads(1)
    run_sweep(long_plan(), Store(Path(root)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked children; run on Linux or macOS")
def test_twenty_kills_at_random_leave_the_store_that_an_unbroken_sweep_leaves(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # Once here: what is compiled at the first call is then there in every child, and the kills fall into the work.
    run_sweep(plan(weights=["1:0"], texts=["pile"], checkpoints=["3"]), Counting())
    context = multiprocessing.get_context("fork")
    whole = context.Process(target=work, args=(str(tmp_path / "whole"),))
    began = time.monotonic()
    whole.start()
    whole.join()
    took = time.monotonic() - began
    assert whole.exitcode == 0
    chance, kills, stages = random.Random(7), 0, []
    while kills < 20:
        child = context.Process(target=work, args=(str(tmp_path / "killed"),))
        child.start()
        child.join(timeout=chance.uniform(0.0, took / 14))
        if child.exitcode is not None:
            break
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        kills += 1
        stages.append(len(contents(tmp_path / "killed")) // 2)
    last = context.Process(target=work, args=(str(tmp_path / "killed"),))
    last.start()
    last.join()
    torch.set_num_threads(threads)
    assert kills == 20
    assert last.exitcode == 0
    assert len(set(stages)) > 3, f"the kills hit no work: {stages}"
    assert stages[-1] < 48, "the sweep was over before the last kill"
    assert len(contents(tmp_path / "whole")) == 2 * 48
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
