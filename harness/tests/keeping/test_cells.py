"""The engine for cells: kept as each ends, resumed bit for bit after kills, whoever does the work."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from circuit_claims.judging.measurement import Measurement
from circuit_claims.keeping.cells import CellPlan, MemoryStore, Meter, fill, fill_all, one_at_a_time
from circuit_claims.keeping.executors import Failure, InProcess, Processes, Threads, WorkerDied, in_order
from circuit_claims.keeping.store import Store

NAMES = tuple(range(8))


def cell(name: int) -> Measurement:
    """What is known beforehand: numbers drawn from the name."""
    drawn = np.random.default_rng(name).normal(size=16)
    return Measurement("drawn", float(drawn[0]), arrays={"drawn": drawn}, seed=name)


def draw(names) -> list[Measurement]:
    return [cell(name) for name in names]


def draw_slowly(names) -> list[Measurement]:
    time.sleep(0.05)
    return draw(names)


def die_at_three(names) -> list[Measurement]:
    if 3 in names:
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(names)


def fail_at_three(names) -> list[Measurement]:
    if 3 in names:
        raise KeyError("no such head")
    return draw(names)


def plan(make=draw, names=NAMES, **how) -> CellPlan[int]:
    return CellPlan({name: {"measure": "drawn", "of": name} for name in names}, make, **how)


def right(cells) -> bool:
    return all(np.array_equal(found.arrays["drawn"], cell(name).arrays["drawn"]) for name, found in cells.items())


EXECUTORS = [InProcess(), Threads(1), Threads(3), Processes(2)]


def named(executor) -> str:
    """The executor's kind and how many it uses: what two workers of a test run agree on."""
    return f"{type(executor).__name__.lower()}-{getattr(executor, 'workers', 1)}"


@pytest.mark.parametrize("executor", EXECUTORS, ids=named)
def test_every_executor_gives_the_same_cells(executor, tmp_path):
    store = Store(tmp_path)
    cells = fill_all(plan(), store, executor=executor)
    assert tuple(cells) == NAMES
    assert right(cells)
    assert all(store.load(key) is not None for key in plan().keys.values())


def test_what_is_there_is_not_made_again_and_comes_first():
    store, made = MemoryStore(), []
    fill_all(plan(names=NAMES[3:6]), store)
    cells = list(fill(plan(lambda names: made.extend(names) or draw(names)), store))
    assert [name for name, _ in cells] == [3, 4, 5, 0, 1, 2, 6, 7]
    assert made == [0, 1, 2, 6, 7]


def test_anew_reads_nothing_and_takes_the_old_ones_place(tmp_path):
    store = Store(tmp_path)
    fill_all(plan(lambda names: [cell(name + 100) for name in names]), store)
    assert right(fill_all(plan(), store, anew=True))
    assert right(fill_all(plan(lambda names: pytest.fail("made again")), store))


def test_groups_share_a_call_and_late_ones_come_last():
    calls = []

    def make(names):
        calls.append(tuple(names))
        return draw(names)

    fill_all(plan(make, group=lambda name: name // 2, groups_per_call=2, late=lambda group: group == 0), MemoryStore())
    assert calls == [(2, 3, 4, 5), (6, 7, 0, 1)]


def test_nothing_is_prepared_where_nothing_is_missing():
    store, prepared = MemoryStore(), []
    for _ in range(2):
        fill_all(plan(prepare=lambda: prepared.append(threading.current_thread())), store)
    assert prepared == [threading.main_thread()]


@pytest.mark.parametrize("executor", EXECUTORS, ids=named)
def test_an_error_names_its_cell_and_loses_none_of_the_others(executor, tmp_path):
    store = Store(tmp_path)
    with pytest.raises(KeyError, match="no such head") as caught:
        fill_all(plan(fail_at_three), store, executor=executor)
    assert any("while measuring 3; " in note and "are measured and kept" in note for note in caught.value.__notes__)
    kept = [name for name, key in plan().keys.items() if store.load(key) is not None]
    assert kept[:3] == [0, 1, 2]
    assert 3 not in kept
    again = []
    fill_all(plan(lambda names: again.extend(names) or draw(names)), store)
    assert again == [name for name in NAMES if name not in kept]


def test_a_worker_process_that_dies_loses_its_own_cell_alone(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(WorkerDied, match="ended by signal 9") as caught:
        fill_all(plan(die_at_three), store, executor=Processes(2))
    assert "while measuring 3; 7 of 8" in caught.value.__notes__[0]
    assert [name for name, key in plan().keys.items() if store.load(key) is None] == [3]
    assert right(fill_all(plan(), store))


def test_work_that_cannot_travel_is_refused_in_words():
    with pytest.raises(Exception, match=r"pickle|local") as caught:
        fill_all(plan(lambda names: draw(names)), MemoryStore(), executor=Processes(1))
    assert "no lambda in it" in caught.value.__notes__[0]


class Watched(Threads):
    """Raises Ctrl-C in the main thread once the first result is there."""

    def run(self, work, tasks):
        outcomes = super().run(work, tasks)
        yield next(outcomes)
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as interrupt:
            yield outcomes.throw(interrupt)
            yield from outcomes


def test_ctrl_c_begins_nothing_more_and_keeps_what_was_running(tmp_path):
    store, begun = Store(tmp_path), []

    def make(names):
        begun.extend(names)
        return draw_slowly(names)

    with pytest.raises(KeyboardInterrupt):
        fill_all(plan(make), store, executor=Watched(2))
    kept = [name for name, key in plan().keys.items() if store.load(key) is not None]
    assert kept == sorted(begun)
    assert 1 < len(kept) < 5


@pytest.mark.parametrize("executor", [InProcess(), Threads(2)], ids=named)
def test_a_loop_that_is_left_makes_no_more(executor):
    begun = []

    def make(names):
        begun.extend(names)
        return draw_slowly(names)

    cells = fill(plan(make, names=range(50)), MemoryStore(), executor=executor)
    next(cells)
    cells.close()
    time.sleep(0.2)
    assert len(begun) < 8


def test_progress_counts_and_says_what_is_left():
    seen, store = [], MemoryStore()
    ticks = iter(range(100))
    fill_all(plan(names=NAMES[:2]), store)
    fill_all(plan(), store, progress=Meter("cells", 8, seen.append, lambda: float(next(ticks))))
    assert [one.done for one in seen] == list(range(1, 9))
    assert [one.stored for one in seen] == [True] * 2 + [False] * 6
    assert [one.seconds_left for one in seen] == [0.0, 0.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
    assert [one.cell for one in seen] == list(NAMES)


def test_results_come_in_order_and_what_raises_is_raised():
    def slow_at_first(item):
        time.sleep(0.1 if item == 0 else 0.0)
        return item

    assert list(in_order(Threads(3), slow_at_first, range(20))) == list(range(20))
    with pytest.raises(ZeroDivisionError):
        list(in_order(Threads(2), lambda item: 1 / item, [2, 1, 0, 3]))


def test_threads_begin_and_end_once_each():
    begun, ended = [], []
    executor = Threads(2, lambda: begun.append(threading.current_thread()), lambda: ended.append(True))
    assert {name for name, _ in executor.run(lambda item: time.sleep(0.01), [(1, 1), (2, 2), (3, 3)])} == {1, 2, 3}
    assert len(begun) == len(set(begun)) == 2
    assert threading.main_thread() not in begun
    assert ended == [True]


def test_a_call_that_raises_comes_as_a_failure():
    ((name, outcome),) = InProcess().run(lambda item: [][item], [("first", 0)])
    assert (name, type(outcome)) == ("first", Failure)
    assert isinstance(outcome.error, IndexError)


def test_a_damaged_cell_is_set_aside_and_measured_again(tmp_path):
    bad, store = [], Store(tmp_path, on_bad=lambda path, reason: bad.append(path))
    fill_all(plan(), Store(tmp_path))
    folder = store.path(plan().keys[4])
    (folder / "arrays.safetensors").write_bytes((folder / "arrays.safetensors").read_bytes()[:-3])
    made = []
    assert right(fill_all(plan(lambda names: made.extend(names) or draw(names)), store))
    assert made == [4]
    assert len(bad) == 1
    assert bad[0].exists()


# Kills and second writers, in processes of their own.

SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
from tests.keeping.test_cells import plan, draw_slowly, NAMES
from circuit_claims.keeping.cells import fill_all
from circuit_claims.keeping.executors import InProcess, Threads
from circuit_claims.keeping.store import Store
print("ready", flush=True)
fill_all(plan(draw_slowly, names=range(24)), Store({root!r}), executor={executor})
"""


def started(root: Path, executor: str) -> subprocess.Popen:
    script = SCRIPT.format(tests=str(Path(__file__).parents[2]), root=str(root), executor=executor)
    # What a shell starts in the background ignores Ctrl-C, and so would its children.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = subprocess.Popen([sys.executable, "-c", listen + script], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def contents(root: Path) -> dict[str, str]:
    """Every record and array of a store; what a cell cost is no part of what was measured."""
    files = [*root.glob("??/*/measurement.json"), *root.glob("??/*/arrays.safetensors")]
    whole = [file for file in files if ".draft" not in str(file)]
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in whole}


@pytest.mark.parametrize("executor", ["InProcess()", "Threads(2)"])
def test_killed_in_the_middle_and_resumed_gives_the_same_bits(executor, tmp_path):
    fill_all(plan(names=range(24)), Store(tmp_path / "whole"))
    chance, stages = random.Random(3), []
    for _ in range(3):
        process = started(tmp_path / "killed", executor)
        time.sleep(chance.uniform(0.1, 0.5))
        process.kill()
        process.wait()
        stages.append(len(contents(tmp_path / "killed")) // 2)
    assert any(0 < stage < 24 for stage in stages), f"the kills hit no work: {stages}"
    again = []
    fill_all(plan(lambda names: again.extend(names) or draw(names), names=range(24)), Store(tmp_path / "killed"))
    assert len(again) == 24 - stages[-1]
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_two_writers_leave_what_one_leaves(tmp_path):
    fill_all(plan(names=range(24)), Store(tmp_path / "one"))
    both = [started(tmp_path / "two", executor) for executor in ("InProcess()", "Threads(2)")]
    assert [process.wait() for process in both] == [0, 0]
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert not list((tmp_path / "two").rglob(".draft*"))


def test_of_several_on_one_store_one_does_the_work(tmp_path):
    made = []

    def work():
        with one_at_a_time(Store(tmp_path / "new" / "store"), "drawing"):
            fill_all(plan(lambda names: made.extend(names) or draw_slowly(names)), Store(tmp_path / "new" / "store"))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == list(NAMES)


def test_other_work_on_a_store_is_not_waited_for(tmp_path):
    with one_at_a_time(Store(tmp_path), "drawing"), one_at_a_time(Store(tmp_path), "judging"):
        assert {path.stem for path in tmp_path.glob("*.lock")} == {"drawing", "judging"}


def test_ctrl_c_in_a_terminal_keeps_what_is_done(tmp_path):
    process = started(tmp_path / "store", "Threads(2)")
    while len(contents(tmp_path / "store")) < 4:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) != 0
    assert 4 <= len(contents(tmp_path / "store")) < 2 * 24
