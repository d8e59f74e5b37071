"""Evidence: checked when it is made, with the name that was meant; plain in the stream and the same when read back."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from circuit_claims.judging import evidence as ev
from circuit_claims.judging.evidence import EvidenceError, evidence_from_json
from hypothesis import given
from hypothesis import strategies as st

CURVE = ev.Curve(name="L0H1", y=[0.1, 0.7], low=[0.0, 0.6], high=[0.2, 0.8], kind="induction")
TOKEN = ev.PassageToken(text=" Monday", rank=1, share=0.75)
ONE_OF_EACH = [
    ev.HeadMap(title="t", values=[[0.1, None], [0.2, math.inf]], mark=[(0, 0)], vmax=1),
    ev.GridMap(title="t", rows=["a"], columns=["b", "c"], values=[[1, 2]], marks=[(0, 1)], mark_label="so"),
    ev.Bars(title="t", labels=["a", "b"], values=[1, 2], low=[0, 1], high=[2, 3], null=[0.1, (0.1, 0.2)]),
    ev.RankedBars(title="t", labels=["a"], values=[0.5], null_band=[0.1, 0.2], threshold=0.5),
    ev.Curves(title="t", x=[1, 10], series=[CURVE], xscale="log"),
    ev.HeadCurves(title="t", x=[1, 2], panels=[ev.Panel(name="p", series=[CURVE])], stages=[("LM1", 0, 1)]),
    ev.NullDistribution(title="t", values=[0.1, 0.2], observed=0.9),
    ev.Table(title="t", columns=["a", "b"], rows=[["x", 0.5], [None, True]], mark_rows=[1], mark_label="so"),
    ev.TextBlock(title="t", text="said"),
    ev.StackedBars(title="t", segments=["a"], rows=[ev.StackedRow(label="r", values=[1.0]),
                                                    ev.StackedRow(label="none", values=[], n=0)]),
    ev.Passages(title="t", examples=[ev.PassageExample(tokens=[TOKEN], next="x", promoted=[(" a", 1.5)])]),
    ev.Scatter(title="t", points=[ev.ScatterPoint(name="L0H1", x=1, y=None)]),
    ev.ClusterMap(title="t", heads=["1:0"], kinds_of_heads=["a"],
                  rows=[ev.ClusterRow(name="k", clusters=[0], agreement=1.0)]),
    ev.Patterns(title="t", panels=[ev.PatternPanel(name="h", tokens=["a", "b"], rows=[[1, 0], [0.5, 0.5]])]),
]  # fmt: skip


@pytest.mark.parametrize("one", ONE_OF_EACH, ids=lambda one: one.type)
def test_each_kind_is_read_back_as_it_was(one):
    text = json.dumps(one.to_json())
    again = evidence_from_json(json.loads(text))
    assert type(again) is type(one)
    assert repr(again) == repr(one)
    assert json.dumps(again.to_json()) == text


@pytest.mark.parametrize("one", ONE_OF_EACH, ids=lambda one: one.type)
def test_each_kind_is_drawn(one):
    from circuit_claims.report.figures.evidence import exhibit

    assert exhibit(one.to_json(), "x").trouble == ""


def test_every_kind_is_in_the_list():
    assert {one.type for one in ONE_OF_EACH} == set(ev.KINDS)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ev.Bars(title="t", lables=["a"], values=[1]), "lables: no such field; did you mean 'labels'?"),
        (lambda: ev.Bars(title="t", labels=["a"], values=[1, 2]), "values: expected 1 entries, as many as labels"),
        (lambda: ev.Bars(title="t", labels=["a"], values=["1"]), "values: expected a number or None, found '1'"),
        (lambda: ev.Bars(title="t", labels=["a"], values=5), "values: expected a list of numbers, found 5"),
        (lambda: ev.Bars(title="t", labels="ab", values=[1, 2]), "labels: expected a list of texts"),
        (lambda: ev.Bars(labels=["a"], values=[1]), "title: is missing"),
        (lambda: ev.Bars(title="", labels=["a"], values=[1]), "title: expected words"),
        (lambda: ev.Curves(title="t", x=[1], series=[CURVE]), "y of 'L0H1': expected 1 entries, as many as x, found 2"),
        (lambda: ev.Curves(title="t", x=[1, 2], series=[CURVE], xscale="logarithmic"), "xscale"),
        (lambda: ev.HeadMap(title="t", values=[[1]], mark=[(1, 0)]), "mark: (1, 0) lies outside the map"),
        (lambda: ev.HeadMap(title="t", values=[]), "values: expected a row of heads"),
        (lambda: ev.GridMap(title="t", rows=["a"], columns=["b"], values=[[1, 2]]), "values, row 0: expected 1"),
        (lambda: ev.Table(title="t", columns=["a"], rows=[["x"]], mark_rows=[1]), "mark_rows: expected rows from 0"),
        (lambda: ev.ClusterRow(name="k", clusters=[0.5], agreement=1), "clusters: expected a whole number, found 0.5"),
        (lambda: ev.PatternPanel(name="h", tokens=["a"], rows=[[1, 0]]), "rows, row 0: expected 1 entries"),
    ],
)
def test_wrong_evidence_is_refused_where_it_is_made(make, words):
    with pytest.raises(EvidenceError) as refused:
        make()
    assert words in str(refused.value)


def test_what_is_wrong_inside_a_record_says_where():
    record = {"type": "lines", "title": "t", "x": [1], "series": [{"name": "a", "y": [1]}, {"name": "b", "why": [1]}]}
    with pytest.raises(EvidenceError, match=r"series\.1"):
        evidence_from_json(record)


def test_arrays_are_taken_as_they_are_and_nothing_is_shared():
    values = np.array([0.25, np.nan])
    bars = ev.Bars(title="t", labels=["a", "b"], values=values)
    values[0] = 9.0
    assert bars.values[0] == 0.25
    assert bars.replaced(title="u").title == "u"
    with pytest.raises(EvidenceError):
        bars.replaced(labels=["a"])
    with pytest.raises(Exception, match="frozen"):
        bars.title = "other"


@given(st.lists(st.one_of(st.none(), st.floats(), st.integers(-9, 9)), max_size=6))
def test_numbers_are_kept_as_given(values):
    one = ev.NullDistribution(title="t", values=values)
    assert repr(evidence_from_json(json.loads(json.dumps(one.to_json())))) == repr(one)
