"""Figures of many heads: named, coloured by kind, spoken, and safe with strange names and missing numbers."""

import itertools
import math

import pytest
from circuit_claims.report.figures.evidence import exhibit
from circuit_claims.report.figures.plots_heads import spread_apart
from hypothesis import given
from hypothesis import strategies as st

KINDS = ["previous-token", "induction", "multigram"]
NASTY = '<script>alert("1")</script> & $x^2$'


def series(name, kind, y, **more):
    return {"name": name, "kind": kind, "y": y, **more}


CURVES = {
    "type": "head_curves", "title": "wrLLC", "kinds": KINDS, "x": [0, 100, 1000], "xlabel": "step", "xscale": "log",
    "panels": [{"name": "layer 1", "series": [
        series("1:6", "induction", [0.0, 1.0, 2.0], low=[0, 0.9, 1.8], high=[0.1, 1.1, 2.2]),
        series(NASTY, "no such kind", [0.0, None, 3.0]),
    ]}],
}  # fmt: skip
SCATTER = {"type": "scatter", "title": "scatter", "kinds": KINDS, "xlabel": "multigrams", "ylabel": "wrLLC",
           "points": [{"name": "1:6", "kind": "induction", "x": 3, "y": 2.5, "low": 2, "high": 3},
                      {"name": NASTY, "kind": "", "x": None, "y": 1}]}  # fmt: skip
CLUSTERS = {"type": "cluster_map", "title": "clusters", "heads": ["1:0", "1:6"],
            "kinds_of_heads": ["multigram", "induction"],
            "rows": [{"name": NASTY, "clusters": [0, 1], "agreement": 1.0}]}  # fmt: skip
PATTERN = {"type": "pattern", "title": "pattern",
           "panels": [{"name": "1:6", "tokens": ["<bos>", NASTY], "rows": [[1, 0], [0.25, 0.75]]}]}  # fmt: skip


@pytest.mark.parametrize("evidence", [CURVES, SCATTER, CLUSTERS, PATTERN], ids=lambda each: each["type"])
def test_each_figure_is_drawn_escaped_named_and_the_same_twice(evidence):
    first, second = exhibit(evidence, "f1"), exhibit(evidence, "f1")
    assert first.trouble == ""
    assert str(first.figure) == str(second.figure)
    assert "<script>" not in str(first.figure)
    assert "<desc" in str(first.figure)
    assert "style=" not in str(first.figure)


def test_curves_say_what_each_head_is_and_where_it_ends():
    figure = str(exhibit(CURVES, "f1").figure)
    assert "1:6 (induction) 2" in figure
    assert exhibit(CURVES, "f1").grid.columns == ("step", "1:6", NASTY)


def test_stages_stand_behind_the_curves_and_are_spoken():
    stages = [["LM1", 0, 100], [NASTY, 100, 1000], ["odd", None, 5]]
    plain, staged = exhibit(CURVES, "f1"), exhibit({**CURVES, "stages": stages, "each": "setting"}, "f1")
    assert staged.trouble == ""
    assert "LM1 from 0 to 100" in str(staged.figure)
    assert "<script>" not in str(staged.figure)
    assert "One curve for each setting" in staged.key
    assert "stages" in staged.key
    assert "stages" not in plain.key


def test_the_pattern_says_where_the_last_token_looks():
    assert "0.75" in str(exhibit(PATTERN, "f1").figure)


def test_clusters_have_a_table_with_types_and_the_index():
    grid = exhibit(CLUSTERS, "f1").grid
    assert grid.columns == ("method", "index", "1:0 (multigram)", "1:6 (induction)")
    assert grid.rows == ((NASTY, "1", "1", "2"),)


@pytest.mark.parametrize("evidence", [CURVES, SCATTER, CLUSTERS, PATTERN], ids=lambda each: each["type"])
def test_evidence_that_lacks_a_part_says_so_and_stays_out(evidence):
    for key in ("panels", "points", "rows"):
        broken = {name: value for name, value in evidence.items() if name != key}
        assert (exhibit(broken, "f1").trouble != "") == (key in evidence)


@given(st.lists(st.floats(-1, 2), max_size=12))
def test_labels_keep_their_order_and_their_distance(values):
    places = spread_apart(sorted(values), (0.0, 1.0), gap=0.05)
    gaps = [after - before for before, after in itertools.pairwise(places)]
    assert all(gap >= 0.05 - 1e-9 for gap in gaps)
    assert all(math.isfinite(place) and place <= 1 + 1e-9 for place in places)
