"""The store: what was saved comes back, what was damaged does not, and two writers do each other no harm."""

import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
from circuit_claims.judging.measurement import Cost, Interval, Measurement
from circuit_claims.keeping.store import ARRAYS, RECORD, Store, StoreError, key_of, measurement_from_json, to_json
from hypothesis import given, settings
from hypothesis import strategies as st

KEY = key_of({"measure": "toy"})


def example(**changes):
    fields = {
        "quantity": "score", "value": 0.5, "interval": Interval(0.4, 0.6, 0.9, "bootstrap"), "n": 7, "seed": 3,
        "arrays": {"scores": np.arange(6, dtype=np.float32).reshape(2, 3)}, "facts": {"leader": "L1H2"},
        "support": {"L1H2": 1.0}, "cost": Cost(1.5, 100),
    }  # fmt: skip
    return Measurement(**{**fields, **changes})


def same(first, second):
    assert to_json(first) == to_json(second)
    assert first.arrays.keys() == second.arrays.keys()
    assert all(np.array_equal(first.arrays[name], second.arrays[name]) for name in first.arrays)


def test_what_was_saved_comes_back_marked_as_stored(tmp_path):
    store = Store(tmp_path)
    store.save(KEY, example())
    found = store.load(KEY)
    same(found, example())
    assert (found.origin, found.cost) == ("store", Cost(1.5, 100))


def test_an_unknown_key_is_none_and_an_impossible_one_is_refused(tmp_path):
    assert Store(tmp_path).load(KEY) is None
    for bad in ("../../etc/passwd", "A" * 64, KEY[:-1]):
        with pytest.raises(StoreError, match="64 hexadecimal digits"):
            Store(tmp_path).load(bad)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "L12H0", None, 0.1 + 0.2])
def test_every_value_survives_json(value):
    there = json.loads(json.dumps(to_json(example(value=value)), allow_nan=False))
    assert repr(measurement_from_json(there).value) == repr(value)


def entry_files(tmp_path):
    folder = Store(tmp_path).path(KEY)
    return [folder / RECORD, folder / ARRAYS]


@pytest.mark.parametrize("which", [0, 1])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_one_flipped_bit_anywhere_is_noticed_and_the_entry_set_aside(tmp_path_factory, which, data):
    tmp_path = tmp_path_factory.mktemp("store")
    told = []
    store = Store(tmp_path, on_bad=lambda path, reason: told.append((path, reason)))
    store.save(KEY, example())
    path = entry_files(tmp_path)[which]
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 2))] ^= 1 << data.draw(st.integers(0, 6))
    path.write_bytes(bytes(raw))
    found = store.load(KEY)
    if found is not None:
        same(found, example())  # a flip inside JSON white space or case of an escape changes nothing
    else:
        assert len(told) == 1
        assert told[0][0].is_dir()
        assert store.load(KEY) is None
        store.save(KEY, example())
        same(store.load(KEY), example())


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("keep", [0, 10])
def test_a_truncated_file_is_set_aside(tmp_path, which, keep):
    told = []
    store = Store(tmp_path, on_bad=lambda path, reason: told.append(reason))
    store.save(KEY, example())
    path = entry_files(tmp_path)[which]
    path.write_bytes(path.read_bytes()[:keep])
    assert store.load(KEY) is None
    assert len(told) == 1


def test_an_entry_moved_to_another_key_is_not_believed(tmp_path):
    store = Store(tmp_path)
    store.save(KEY, example())
    other = store.path(key_of({"measure": "other"}))
    other.parent.mkdir(parents=True, exist_ok=True)
    os.rename(store.path(KEY), other)
    assert store.load(other.name) is None


def test_a_second_writer_changes_nothing(tmp_path):
    store = Store(tmp_path)
    store.save(KEY, example())
    before = [path.read_bytes() for path in entry_files(tmp_path)]
    store.save(KEY, example(value=0.9))
    assert before == [path.read_bytes() for path in entry_files(tmp_path)]


def test_a_measurement_made_anew_takes_the_old_ones_place(tmp_path):
    store = Store(tmp_path)
    store.save(KEY, example())
    store.save(KEY, example(value=0.9), anew=True)
    same(store.load(KEY), example(value=0.9))
    assert store.load(KEY).value == 0.9


def test_a_store_that_cannot_be_written_says_what_to_type(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(StoreError, match="pytest claims/ --claims-store ANOTHER_FOLDER"):
        Store(blocked).save(KEY, example())


def test_a_full_disk_leaves_no_entry(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        Store(tmp_path).save(KEY, example())
    assert Store(tmp_path).load(KEY) is None
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".draft")]


def _write_many(root):
    for number in range(30):
        Store(root).save(key_of({"n": number}), example(value=float(number)))


def test_two_writers_at_once_leave_every_entry_sound(tmp_path):
    processes = [multiprocessing.get_context("fork").Process(target=_write_many, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert [Store(tmp_path).load(key_of({"n": number})).value for number in range(30)] == [float(n) for n in range(30)]


def _write_forever(root):
    number = 0
    while True:
        Store(root).save(key_of({"n": number}), example(value=float(number), arrays={"a": np.zeros(5000)}))
        number += 1


@pytest.mark.parametrize("delay", [0.02, 0.05, 0.11, 0.23])
def test_a_killed_writer_leaves_whole_entries_or_none(tmp_path, delay):
    process = multiprocessing.get_context("fork").Process(target=_write_forever, args=(tmp_path,))
    process.start()
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    told = []
    store = Store(tmp_path, on_bad=lambda path, reason: told.append(reason))
    number = 0
    while (found := store.load(key_of({"n": number}))) is not None:
        assert found.value == float(number)
        number += 1
    assert told == []


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=5), st.booleans()), max_size=5))
def test_a_key_depends_on_the_content_and_not_on_the_order(parts):
    assert key_of(parts) == key_of(dict(reversed(list(parts.items()))))
    assert key_of(parts) != key_of({**parts, "another": 1}) or "another" in parts


def test_names_come_back_in_the_order_they_went_in(tmp_path):
    """A measure that goes through the tasks of a stored table draws as it did when the table was made."""
    store = Store(tmp_path)
    store.save("ab" * 32, Measurement("m", 1.0, facts={"items": {"numbers": 1, "days": 2}, "a": 3}))
    found = store.load("ab" * 32)
    assert list(found.facts) == ["items", "a"]
    assert list(found.facts["items"]) == ["numbers", "days"]
