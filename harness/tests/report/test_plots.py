"""Figures: the same bytes every time, sound inside a page, said in words, unharmed by what they are given."""

from __future__ import annotations

import itertools
import math
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from circuit_claims.report.figures import plots
from circuit_claims.report.figures.axes import LABEL
from circuit_claims.report.figures.evidence import exhibit
from circuit_claims.report.figures.palette import INKS, LEVELS, scale
from circuit_claims.report.figures.plots import PlotPoint
from circuit_claims.report.text import one_line, visible
from circuit_claims.report.views import band_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.sample import evidence

DRAWN = [item for item in evidence() if item["type"] not in ("table", "text")]
SVG = "{http://www.w3.org/2000/svg}"


def texts(figure: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(figure).iter(f"{SVG}text")]


@pytest.mark.parametrize("item", DRAWN, ids=lambda item: item["type"])
def test_a_figure_is_the_same_bytes_again_whatever_the_settings_around_it(item, monkeypatch) -> None:
    import matplotlib

    first = exhibit(item, "one").figure
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 40)
    monkeypatch.setitem(matplotlib.rcParams, "svg.hashsalt", None)
    assert exhibit(item, "one").figure == first
    assert matplotlib.rcParams["font.size"] == 40


def test_figures_are_the_same_bytes_in_another_process() -> None:
    script = (
        "import hashlib; from circuit_claims.report.figures.evidence import exhibit\n"
        "from tests.report.sample import evidence\n"
        "print(hashlib.sha256(''.join(str(exhibit(e, 'x').figure) for e in evidence()).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("item", DRAWN, ids=lambda item: item["type"])
def test_a_figure_fits_a_strict_page(item) -> None:
    figure = exhibit(item, "fig").figure
    assert figure is not None
    root = ET.fromstring(figure)
    assert not re.search(r"\sstyle=|<style|<script|\son\w+=|<!--|<image|DejaVu|\d{4}-\d\d-\d\dT", figure)
    assert root.get("role") == "img"
    said = {element.get("id"): element.text for element in root if element.tag in (f"{SVG}title", f"{SVG}desc")}
    assert root.get("aria-labelledby", "").split() == list(said)
    assert all(said.values())
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert all(name.startswith("fig-") for name in ids)
    used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', figure)
    assert {a or b for a, b in used} <= set(ids)


def test_two_figures_in_a_page_share_no_id() -> None:
    one, two = (exhibit(DRAWN[0], name).figure or "" for name in ("a", "b"))
    assert not set(re.findall(r'\bid="([^"]+)"', one)) & set(re.findall(r'\bid="([^"]+)"', two))


@given(st.text(st.characters(), min_size=1, max_size=LABEL), st.text(st.characters(), max_size=12))
@settings(max_examples=40, deadline=None)
def test_any_label_is_drawn_as_it_is(label: str, unit: str) -> None:
    item = {"type": "bars", "labels": [label], "values": [0.5], "label": unit, "title": label}
    shown = exhibit(item, "x")
    assert shown.figure is not None, shown.trouble
    drawn = texts(shown.figure)
    # A control character is written by its escape, which may take a name over one line.
    assert one_line(label) in drawn or len(one_line(label)) > LABEL
    assert not one_line(unit) or one_line(unit) in drawn
    assert ET.fromstring(shown.figure).findtext(f"{SVG}title") == visible(label)


NUMBERS = st.one_of(st.none(), st.floats(), st.sampled_from(["NaN", "Infinity", "-Infinity", "x"]), st.integers(-9, 9))


@given(st.lists(NUMBERS, min_size=1, max_size=5), NUMBERS, NUMBERS)
@settings(max_examples=15, deadline=None)
def test_no_number_breaks_a_report(values: list[object], threshold: object, observed: object) -> None:
    labels = [str(index) for index in range(len(values))]
    for item in (
        {"type": "bars", "labels": labels, "values": values, "threshold": threshold, "null": observed},
        {"type": "distribution", "values": values, "observed": observed},
        {"type": "head_map", "values": [values], "vmin": threshold, "vmax": observed, "mark": [0, 0]},
        {"type": "lines", "x": values, "series": [{"name": "a", "y": values, "low": values, "high": values}]},
    ):
        shown = exhibit(item, "x")
        assert shown.figure is not None or "could not be drawn" in shown.trouble


@pytest.mark.parametrize(
    "item", [{}, {"type": "hologram"}, {"type": "head_map"}, {"type": "lines", "x": [1]}, {"type": "table", "rows": 3}]
)
def test_evidence_that_cannot_be_drawn_says_why(item) -> None:
    assert exhibit(item, "x").trouble


def test_the_marked_head_and_the_highest_are_named() -> None:
    figure = exhibit(DRAWN[0], "x").figure or ""
    assert "marked: L12H7, 0.58" in texts(figure)
    assert "Highest: L12H7 0.58" in (ET.fromstring(figure).findtext(f"{SVG}desc") or "")


def two_layers(**changes) -> dict:
    values = [[0.01, 0.29, 0.03, 0.02, 0.22, 0.05, 0.06, 0.07], [0.12, 0.13, 0.14, 0.15, 0.16, 0.17, None, 0.18]]
    return {"type": "head_map", "title": "Previous-token score", "values": values, "label": "attention", **changes}


def test_heads_are_named_as_the_second_paper_names_them_where_asked() -> None:
    shown = exhibit(two_layers(mark=[[0, 1], [0, 4]], head_names="1:6"), "x")
    assert "marked: 0:1, 0.29; 0:4, 0.22" in texts(shown.figure)
    said = ET.fromstring(shown.figure).findtext(f"{SVG}desc") or ""
    assert "Highest: 0:1 0.29, 0:4 0.22, 1:7 0.18" in said
    assert said.endswith("Marked: 0:1, 0:4.")
    assert [row[0] for row in shown.grid.rows[:3]] == ["0:1", "0:4", "1:7"]
    assert "LH" not in re.sub(r"\d", "", said)
    assert [row[0] for row in exhibit(two_layers(), "x").grid.rows[:3]] == ["L0H1", "L0H4", "L1H7"]


@pytest.mark.parametrize("mark", [[9, 9], [[0, 1], [5, 5]], [0], "L0H1", [[]], [None]])
def test_marks_that_are_no_heads_of_the_map_are_refused(mark) -> None:
    shown = exhibit(two_layers(mark=mark), "x")
    assert "mark: " in shown.trouble
    assert shown.figure is None


def test_an_unknown_way_of_naming_heads_is_told() -> None:
    assert "could not be drawn" in exhibit(two_layers(head_names="six"), "x").trouble


def test_a_settings_table_without_marks_says_that_nothing_changes() -> None:
    item = {"type": "table", "title": "Settings under which the verdict changes", "columns": ["a"], "rows": [["x"]]}
    assert exhibit(item | {"mark_rows": []}, "x").key == "Under none of these settings does the verdict change."
    assert exhibit(item | {"mark_rows": [0]}, "x").key == ""
    assert exhibit({**item, "title": "Heads", "mark_rows": []}, "x").key == ""


@pytest.mark.parametrize("draws", [[0.1] * 9, [0.1, 0.2] * 9, [index / 900 for index in range(900)]])
def test_a_distribution_shows_every_draw_once(draws: list[float]) -> None:
    figure = exhibit({"type": "distribution", "values": draws, "observed": 0.5}, "x").figure or ""
    bars = [one for one in ET.fromstring(figure).iter(f"{SVG}path") if "f-null" in one.get("class", "")]
    assert len(bars) == min(len(set(draws)), 30)


def test_a_heat_map_of_a_thousand_heads_stays_small() -> None:
    values = [[(layer * head % 7) / 7 for head in range(25)] for layer in range(48)]
    figure = exhibit({"type": "head_map", "values": values, "vmin": 0, "vmax": 1}, "x").figure or ""
    assert len(figure) < 150_000


def test_the_strip_shows_paper_measured_and_controls() -> None:
    points = [PlotPoint("m", 2.4, 1.9, 3.1), PlotPoint("shuffled", 1.1, 1.0, math.inf, "negative")]
    figure = plots.strip(points, band_of("at_least", 8.0, 2.0), 8.0, "ratio", "x")
    assert {"m", "shuffled", "paper 8", "ratio"} <= set(texts(figure))
    said = ET.fromstring(figure).findtext(f"{SVG}desc") or ""
    assert "Counts as reproduced from 6 to ∞. measured m: 2.4, interval 1.9 to 3.1" in said


@pytest.mark.parametrize(
    ("kind", "expected", "band"),
    [("value", 8.0, (6.0, 10.0)), ("at_least", 8.0, (6.0, math.inf)), ("at_most", 8.0, (-math.inf, 10.0)),
     ("existence", 8.0, (6.0, math.inf)), ("absence", 8.0, (-math.inf, 10.0)),
     ("correlation", 8.0, (6.0, math.inf)), ("correlation", -8.0, (-math.inf, -6.0))],
)  # fmt: skip
def test_the_band_is_what_the_rule_calls_reproduced(kind: str, expected: float, band: tuple[float, float]) -> None:
    assert band_of(kind, expected, 2.0) == band


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize(
    "name", ["ink", "muted", "measured", "paper", "mark", "control", "series2", "series3", "series4"]
)
@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_colours_stand_out_from_the_ground(name: str, scheme: int) -> None:
    bright, dark = sorted((luminance(INKS[name][scheme]), luminance(INKS["ground"][scheme])), reverse=True)
    assert (bright + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_an_outline_stands_out_from_the_highest_cells_and_from_the_lowest(scheme: int) -> None:
    outline = luminance(INKS["mark"][scheme])
    for end in (scale()[0], scale()[-1]):
        bright, dark = sorted((outline, luminance(end[scheme])), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) > 1.9


def test_long_names_of_rows_take_two_lines_and_the_rest_is_cut():
    label = "the head asked about > matched random heads and then some words that have no room here"
    drawn = texts(exhibit({"type": "bars", "labels": [label], "values": [0.5]}, "x").figure or "")
    assert "the head asked about >" in drawn
    endless = texts(exhibit({"type": "bars", "labels": ["a " + "x" * 90], "values": [0.5]}, "x").figure or "")
    assert max(map(len, endless)) <= LABEL
    blank = exhibit({"type": "bars", "labels": [" " * 60], "values": [0.5]}, "x")
    assert blank.figure is not None, blank.trouble
    assert any(text.startswith("matched random heads") and text.endswith("…") for text in drawn)


def test_controls_that_differ_in_their_last_words_are_told_apart() -> None:
    names = ["planted counter without the bias", "planted counter without the order", "planted counter"]
    points = [PlotPoint(name, 0.5, role="negative") for name in names]
    drawn = texts(plots.strip(points, (0.0, 1.0), 0.5, "share", "x"))
    assert {"without the bias", "without the order"} <= set(drawn)
    assert drawn.count("planted counter") == 3
    assert not any("…" in text for text in drawn)


@pytest.mark.parametrize(
    ("x", "ticks"), [([-10, -5, 0, 5, 10], {"−10", "−5", "0"}), ([0.0, 0.25, 0.5], {"0.1", "0.2"})]
)
def test_whole_positions_have_whole_ticks(x, ticks) -> None:
    y = [3.0 + 0.01 * place for place in range(len(x))]
    item = {"type": "lines", "x": x, "series": [{"name": "a", "y": y, "low": None, "high": None}]}
    drawn = set(texts(exhibit(item, "x").figure or ""))
    assert ticks <= drawn
    assert "−7.5" not in drawn


def test_many_points_are_a_line_and_few_are_dots() -> None:
    def uses(count: int) -> int:
        y = [float(place % 3) for place in range(count)]
        item = {"type": "lines", "x": list(range(count)), "series": [{"name": "a", "y": y, "low": None, "high": None}]}
        return str(exhibit(item, "x").figure).count("<use")

    assert uses(40) > 40
    assert uses(400) < 40


def test_the_scale_runs_evenly_in_lightness_so_it_reads_in_grey() -> None:
    for scheme, sign in ((0, -1), (1, 1)):
        steps = [luminance(pair[scheme]) for pair in scale()]
        assert len(steps) == LEVELS
        assert all(sign * (after - before) > 0 for before, after in itertools.pairwise(steps))


def test_importing_the_report_loads_neither_matplotlib_nor_torch() -> None:
    script = (
        "import sys, circuit_claims.report; print([m for m in ('matplotlib', 'torch', 'scipy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
