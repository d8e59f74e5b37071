"""Figures that hang on data alone: made once for the same content, anew for any other, never kept of what is unseen."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from circuit_claims.judging.findings import Finding
from circuit_claims.judging.measurement import Interval, Measurement
from circuit_claims.keeping.by_content import NoDigest, content_of, kept
from circuit_claims.keeping.cells import MemoryStore
from circuit_claims.keeping.measure import Context
from circuit_claims.keeping.profiles import PROFILES

from ..judging.test_calibration import CLAIM

MADE = []


@dataclass(frozen=True)
class Table:
    """Some data."""

    values: np.ndarray
    name: str = "table"

    def mean(self) -> Measurement:
        MADE.append(self.name)
        return Measurement("mean", float(self.values.mean()), arrays={"values": self.values})


@dataclass(frozen=True)
class Subject:
    """Something of an identity."""

    context: Context
    name: str = "subject"

    def identity(self):
        return {"subject": self.name}


def mean(table, scale=1.0):
    MADE.append(table.name)
    return Measurement("mean", scale * float(table.values.mean()))


@pytest.fixture(autouse=True)
def nothing_made():
    MADE.clear()


def table(**changes):
    return replace(Table(np.arange(6.0)), **changes)


def test_equal_content_is_made_once():
    store = MemoryStore()
    found = [kept(store, mean, table(), 2.0) for _ in range(3)]
    assert [one.value for one in found] == [5.0] * 3
    assert MADE == ["table"]
    assert kept(store, mean, table(), 2.0, anew=True).value == 5.0
    assert len(MADE) == 2


def functions():
    """Ways to say the same with something changed, each under a name."""

    def over(values, scale=1.0, plus=lambda: 0.0):
        return lambda: Measurement("sum", scale * float(values.sum()) + plus())

    five = 5.0
    return {
        "as it is": over(np.arange(6.0)), "other numbers": over(np.arange(1.0, 7.0)),
        "other kind of number": over(np.arange(6, dtype=np.int64)), "other shape": over(np.arange(6.0)[None]),
        "other scale": over(np.arange(6.0), 2.0), "a function in it": over(np.arange(6.0), plus=lambda: 1.0),
        "which closes over a number": over(np.arange(6.0), plus=lambda: five), "a method": table().mean,
        "of another table": table(values=np.ones(6)).mean, "of another name": table(name="other").mean,
        "a partial function": partial(mean, table()), "with another number": partial(mean, table(), scale=3.0),
        "a generator": partial(over(np.arange(6.0)), np.random.default_rng(0)),
        "in another state": partial(over(np.arange(6.0)), np.random.default_rng(1)),
        "a subject": partial(mean, Subject(Context(MemoryStore()))),
        "another": partial(mean, Subject(Context(MemoryStore()), "other")),
        "in another profile": partial(mean, Subject(Context(MemoryStore(), profile=PROFILES["quick"]))),
        "a measurement": partial(mean, Measurement("m", 1.0)),
        "with an interval": partial(mean, Measurement("m", 1.0, interval=Interval(0.0, 2.0, 0.9, "t"))),
        "with an array": partial(mean, Measurement("m", 1.0, arrays={"a": np.zeros(2)})),
        "mapping": partial(mean, {"a": 1, "b": 2}), "mapping in another order": partial(mean, {"b": 2, "a": 1}),
        "one list": partial(mean, [1, 2], [3]), "divided elsewhere": partial(mean, [1], [2, 3]),
    }  # fmt: skip


def test_whatever_a_function_holds_is_told_apart():
    digests = {name: content_of(function)["data"] for name, function in functions().items()}
    again = {name: content_of(function)["data"] for name, function in functions().items()}
    assert digests == again, "built anew the same content has the same digest"
    assert len(set(digests.values())) == len(digests)


def test_cost_is_no_content_of_a_measurement():
    one = Measurement("m", 1.0, arrays={"a": np.zeros(2)})
    assert content_of(one) == content_of(replace(one, origin="store", cost=replace(one.cost, seconds=9.0)))


def test_code_and_libraries_are_in_the_content():
    found = content_of(table().mean)
    assert found["libraries"]["numpy"] == np.__version__
    assert found["source"] != content_of(functions()["as it is"])["source"]


def test_what_has_no_digest_is_made_each_time():
    store, opened = MemoryStore(), open(__file__, "rb")  # noqa: SIM115
    with opened, pytest.raises(NoDigest, match="BufferedReader"):
        content_of([opened])

    def name_of(file):
        MADE.append(file.name)
        return Measurement("length", float(len(file.name)))

    assert kept(store, name_of, opened).value == kept(store, name_of, opened).value
    assert len(MADE) == 2


def test_an_array_of_objects_is_read_item_by_item():
    words = np.array(["a", "b"], dtype=object)
    assert content_of(words) == content_of(words.copy())
    assert content_of(words) != content_of(words[::-1].copy())


def test_a_value_that_holds_itself_ends():
    endless = [1]
    endless.append(endless)
    assert content_of(endless) == content_of(endless)


def finding(true: float) -> Finding:
    def around(value: float) -> Measurement:
        MADE.append(value)
        return Measurement("m", value, interval=Interval(value - 0.1, value + 0.1, 0.9, "t"))

    return Finding(around(true), {}, {"noise": lambda source: around(source.normal())}, {"so": lambda: around(true)})


def test_a_calibration_is_made_once_for_one_rule_and_the_same_data():
    keep = partial(kept, MemoryStore())
    first = finding(8.0).calibration_for(CLAIM, 200, keep)
    assert len(MADE) == 202
    assert finding(8.0).calibration_for(CLAIM, 200, keep).false_alarms == first.false_alarms
    assert len(MADE) == 203, "the measurement itself, and nothing of the calibration"
    finding(9.0).calibration_for(CLAIM, 200, keep)
    assert len(MADE) == 205, "another truth: the oracle anew, and not the noise, which is the same"
    finding(9.0).calibration_for(CLAIM.model_copy(update={"margin": 0.1}), 200, keep)
    assert len(MADE) == 406, "another rule: all false data sets judged anew"
