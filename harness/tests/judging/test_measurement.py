"""What a measurement is: refused when it makes no sense, unchangeable, portable, and read for another quantity."""

import json
import math
import pickle

import numpy as np
import pytest
from circuit_claims.judging.claims import Claim, ClaimError, Paper
from circuit_claims.judging.findings import Finding
from circuit_claims.judging.json_values import to_number, to_plain
from circuit_claims.judging.measurement import Cost, Interval, Measurement, Rival

FULL = Measurement(
    "score", 0.7, Interval(0.6, 0.8, 0.90, "bootstrap over rows"), "share", {"L0H1": 0.9}, {"L0H1": Rival("L1H0", 0.4)},
    {"rows": 64}, 0.01, 64, 3, "float64", 8, "complete", {"draws": np.arange(6.0).reshape(2, 3)}, {"why": "seen"},
    Cost(1.5, 10), "recorded",
)  # fmt: skip
PLAIN = ("quantity", "value", "interval", "unit", "p_value", "n", "seed", "dtype", "batch", "status", "cost", "origin")
TABLES = ("support", "rivals", "redrawn", "facts")


def test_an_interval_out_of_order_or_of_no_level_is_refused():
    with pytest.raises(ValueError, match=r"expected low <= high, found \[0.3, 0.2\]"):
        Interval(0.3, 0.2)
    with pytest.raises(ValueError, match="out of order"):
        Interval(math.nan, 0.2)
    for level in (0.0, 1.0, 90.0):
        with pytest.raises(ValueError, match=f"must lie between 0 and 1, found {level}"):
            Interval(0.1, 0.2, level)
    assert Interval(0.2, 0.2).width == 0.0
    assert Interval(-1.0, 2.5) == Interval(-1.0, 2.5, 0.90, "")
    assert Interval(-1.0, 2.5).width == 3.5


def test_a_status_that_is_none_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="expected one of complete, partial, diverged, found 'done'"):
        Measurement("q", 1.0, status="done")  # type: ignore[arg-type]


def test_its_tables_are_its_own_and_cannot_be_changed():
    facts = {"n": 1}
    found = Measurement("q", 1.0, facts=facts)
    facts["n"] = 2
    assert found.facts == {"n": 1}
    for name in (*TABLES, "arrays"):
        with pytest.raises(TypeError):
            getattr(found, name)["x"] = 1


def test_it_travels_to_another_process_whole_and_still_read_only():
    again = pickle.loads(pickle.dumps(FULL))
    assert all(getattr(again, name) == getattr(FULL, name) for name in (*PLAIN, *TABLES))
    assert (again.arrays["draws"] == FULL.arrays["draws"]).all()
    with pytest.raises(TypeError):
        again.facts["x"] = 1
    with pytest.raises(TypeError):
        again.arrays["x"] = np.zeros(1)


def test_read_for_another_quantity_it_keeps_where_it_came_from_and_drops_what_it_said():
    other = FULL.derive("rank", 2.0)
    assert (other.quantity, other.value, other.interval, other.p_value, other.unit) == ("rank", 2.0, None, None, "")
    assert [dict(getattr(other, name)) for name in ("support", "rivals", "arrays", "facts")] == [{}] * 4
    kept = ("n", "seed", "dtype", "batch", "status", "cost", "origin", "redrawn")
    assert [getattr(other, name) for name in kept] == [getattr(FULL, name) for name in kept]
    named = FULL.derive("rank", 2.0, unit="place", interval=Interval(1, 3), redrawn={"heads": 8}, facts={"a": 1})
    assert (named.unit, named.interval, named.redrawn, named.facts) == ("place", Interval(1, 3), {"heads": 8}, {"a": 1})


def test_as_a_dataset_each_axis_has_a_name_and_the_facts_come_along():
    found = FULL.to_xarray()
    assert found["draws"].dims == ("draws_0", "draws_1")
    assert (found["draws"].values == FULL.arrays["draws"]).all()
    assert found.attrs == {"quantity": "score", "unit": "share", "facts": json.dumps({"why": "seen"})}


def test_numbers_that_are_not_finite_have_names_in_strict_json_and_come_back():
    values = {"a": (1.5, math.inf), 2: [-math.inf, {"b": np.float64("nan")}], "c": None, "d": "text", "e": True}
    plain = to_plain(values)
    assert plain == {"a": [1.5, "Infinity"], "2": ["-Infinity", {"b": "NaN"}], "c": None, "d": "text", "e": True}
    json.dumps(plain, allow_nan=False)
    assert (to_number("Infinity"), to_number("-Infinity"), to_number(0.5), to_number("x")) == (
        math.inf, -math.inf, 0.5, "x",
    )  # fmt: skip
    assert math.isnan(to_number("NaN"))
    # What older stores wrote, and a table that only looks like it.
    assert (to_plain({"not finite": "inf"}), to_number({"not finite": "-inf"})) == ("Infinity", -math.inf)
    assert to_plain({"not finite": "odd"}) == "odd"
    assert to_plain({"not finite": "inf", "n": 1}) == {"not finite": "inf", "n": 1}
    assert to_number({"n": 1}) == {"n": 1}


def toy(**changes):
    return Claim.model_validate({
        "id": "TY-01", "paper": "toy", "title": "t", "locus": "s", "quantity": "q", "unit": "u", "trust": "P",
        "margin_reason": "r", "subjects": ("m",), "text": "none", "controls": ("low", "gone"), "cost": "seconds",
        "kind": "at_least", "expected": 0.5, "margin": 0.0, "positive_controls": ("high",), **changes,
    })  # fmt: skip


def test_a_finding_measures_the_controls_a_claim_names_and_no_other():
    made = []

    def control(name, value):
        return lambda: made.append(name) or Measurement(name, value)

    named = {name: control(name, value) for name, value in (("high", 0.9), ("low", 0.1), ("other", 0.3))}
    found = Finding(Measurement("q", 0.8), named).controls_for(toy())
    assert [(one.name, one.must, one.measurement.value) for one in found] == [
        ("low", "fail", 0.1),
        ("high", "pass", 0.9),
    ]
    assert made == ["low", "high"]


def test_a_claim_is_found_by_its_id_or_the_others_are_named():
    paper = Paper.model_construct(id="toy", claims=(toy(), toy(id="TY-02")))
    assert paper.claim("TY-02").id == "TY-02"
    with pytest.raises(ClaimError) as error:
        paper.claim("TY-03")
    assert str(error.value) == "no claim TY-03 in toy\n  expected one of TY-01, TY-02\n  Type: claims list"
