"""Runs side by side: planted changes are found, equal runs differ in nothing, chance does not look like a shift."""

from __future__ import annotations

import copy
from pathlib import Path

import html5lib
import numpy as np
import pytest
from circuit_claims.report import diff_runs, diff_text, render_diff, write_report
from circuit_claims.report.collect import ReportError, collect
from circuit_claims.report.diff import ALPHA, Diff, compare_runs, shift_between
from circuit_claims.report.model import MeasurementRecord, Results, RunRecord
from hypothesis import given
from hypothesis import strategies as st

from tests.report.sample import (
    ENVIRONMENT,
    end_event,
    measurement,
    run_event,
    sample_events,
    verdict,
    write_events,
)


def measured(value: float | str | None, low: float | None = None, high: float | None = None) -> MeasurementRecord:
    interval = None if low is None else {"low": low, "high": high, "level": 0.9}
    return MeasurementRecord.model_validate({"value": value, "interval": interval})


def changed_run() -> list[dict]:
    """The sample with four planted changes: a verdict, a value, a missing subject, and the torch version."""
    events = [copy.deepcopy(event) for event in sample_events() if event.get("subject") != "synthetic-deep"]
    events[0]["environment"] = {**ENVIRONMENT, "torch": "9.9"}
    for event in events:
        if (event.get("claim"), event.get("subject")) == ("SY-07", "synthetic-small"):
            event["outcome"] = "inconclusive"
        if (event.get("claim"), event.get("subject")) == ("SY-05", "synthetic-wide"):
            event["measurement"] = measurement(5.0, 4.6, 5.4)
    return events


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [write_events(tmp_path / "before"), write_events(tmp_path / "after", changed_run())]


def test_planted_changes_are_found_and_nothing_else(runs: list[Path]) -> None:
    made = diff_runs(runs)
    assert [(row.claim, row.subject) for row in made.changed] == [("SY-07", "synthetic-small")]
    assert [(row.claim, row.subject) for row in made.shifted] == [("SY-05", "synthetic-wide")]
    assert {row.subject for row in made.partial} == {"synthetic-deep"}
    assert [(item.name, item.values) for item in made.settings if item.changed] == [("torch", ("0.0.1", "9.9"))]
    same = [comparison.shift for row in made.same for comparison in row.comparisons]
    assert set(same) == {"identical", "not comparable"}


def test_equal_runs_differ_in_nothing(runs: list[Path]) -> None:
    made = diff_runs([runs[0], runs[0], runs[0]])
    assert made.names == ("before (1)", "before (2)", "before (3)")
    assert made.changed == made.shifted == made.partial == ()
    assert not [item for item in made.settings if item.changed]
    assert "0 changed, 0 more with a shifted value, 0 not in every run" in diff_text(made)


def _diff(first: Results, second: Results) -> Diff:
    return compare_runs(("A", "B"), (first, second), (RunRecord(), RunRecord()))


def test_results_alone_can_be_compared() -> None:
    made = _diff(collect(sample_events()).results, collect(changed_run()).results)
    assert made.names == ("A", "B")
    assert len(made.changed) == 1


def test_written_results_and_folders_compare_alike(runs: list[Path]) -> None:
    from_events = diff_runs(runs)
    written = [write_report(run).results for run in runs]
    assert diff_runs(written) == from_events


def test_the_text_tells_every_planted_change(runs: list[Path]) -> None:
    said = diff_text(diff_runs(runs))
    for words in ("1 changed, 1 more with a shifted value", "SY-07 on synthetic-small", "✓ reproduced",
                  "? inconclusive", "shifted, p = ", "not in this run", "torch: 0.0.1 | 9.9"):  # fmt: skip
        assert words in said
    parts = ["\nverdicts that changed", "\nvalues that shifted", "\nnot in every run", "\nenvironment"]
    assert sorted(parts, key=said.index) == parts


def test_an_interrupted_run_is_named(tmp_path: Path) -> None:
    paths = [write_events(tmp_path / "whole"), write_events(tmp_path / "cut", sample_events()[:-3])]
    assert diff_runs(paths).incomplete == ("cut",)
    assert "cut was interrupted" in diff_text(diff_runs(paths))
    assert "cut was interrupted" in render_diff(diff_runs(paths))


def test_the_page_is_strict_and_shows_every_run(runs: list[Path]) -> None:
    page = render_diff(diff_runs([*runs, runs[0]]))
    assert page == render_diff(diff_runs([*runs, runs[0]]))
    tree = html5lib.parse(page, treebuilder="etree", namespaceHTMLElements=False)
    assert not list(tree.iter("script"))
    assert [
        one for one in tree.iter("meta") if str(one.get("content")).startswith("default-src 'none'; style-src 'sha")
    ]
    heads = [
        "".join(head.itertext()) for head in next(iter(tree.iter("table"))).iter("th") if head.get("scope") == "col"
    ]
    assert heads == ["claim", "subject", "before (1)", "after", "before (2)"]
    assert all(table.find("caption") is not None for table in tree.iter("table"))


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_hostile_names_neither_break_the_page_nor_paint_the_terminal(text: str) -> None:
    results = collect([run_event(), verdict("SY-05", text, "failed", reason=text), end_event()]).results
    made = compare_runs((text, "b"), (results, results), (RunRecord(), RunRecord()))
    assert not [line for line in diff_text(made).splitlines() if not line.replace("\u202f", " ").isprintable()]
    tree = html5lib.parse(render_diff(made), treebuilder="etree", namespaceHTMLElements=False)
    assert [one.get("class") for one in tree.iter("main")] == [None]
    assert len(list(tree.iter("section"))) == 6


def test_kinds_of_difference() -> None:
    cases = [
        (measured(2.0, 1.0, 3.0), measured(2.0, 1.0, 3.0), "identical"),
        (measured(2.0, 1.0, 3.0), measured(2.0 + 1e-9, 1.0, 3.0), "rounding"),
        (measured(2.0, 1.0, 3.0), measured(2.5, 1.5, 3.5), "no shift seen"),
        (measured(2.0, 1.9, 2.1), measured(5.0, 4.9, 5.1), "shifted"),
        (measured(2.0, 2.0, 2.0), measured(3.0, 3.0, 3.0), "shifted"),
        (measured(2.0), measured(3.0), "not comparable"),
        (measured("L1H1"), measured("L2H2"), "shifted"),
        (measured(float("nan"), 1.0, 2.0), measured(1.0, 0.5, 2.0), "not comparable"),
        (measured(float("nan")), measured(float("nan")), "identical"),
    ]
    assert [shift_between(one, two).shift for one, two, _ in cases] == [kind for _, _, kind in cases]
    assert shift_between(None, measured(1.0)).shift == "not comparable"


def test_the_test_for_a_shift_keeps_its_level() -> None:
    """2,000 pairs of honest intervals around one truth: false alarms at most at the level.

    With a true rate of 0.05 the count has mean 100 and standard deviation 9.7: the bound of 140 is passed by chance
    with probability below 1e-4.
    """
    draws, width = np.random.default_rng(0).normal(0.0, 1.0, (2000, 2)), 1.6448536269514722
    pairs = [[measured(float(x), float(x) - width, float(x) + width) for x in pair] for pair in draws]
    assert 60 <= sum(shift_between(*pair).shift == "shifted" for pair in pairs) <= 140


def test_many_rows_do_not_make_one_of_them_look_shifted() -> None:
    """One pair at p = 0.02 alone is a shift; among a hundred rows that hold it is not (Holm)."""

    def event(index: int, value: float) -> dict:
        return verdict("SY-05", f"m{index}", "inconclusive", measurement=measurement(value, value - 1, value + 1))

    shift = 2.0
    alone = [collect([run_event(), event(0, value), end_event()]).results for value in (0.0, shift)]
    (row,) = _diff(*alone).rows
    p_value = row.comparisons[0].p_value
    assert p_value is not None
    assert 0.01 < p_value < ALPHA
    assert row.shifted
    many = [
        collect([run_event(), event(0, value), *(event(i, value / 40) for i in range(1, 100)), end_event()]).results
        for value in (0.0, shift)
    ]
    assert not _diff(*many).shifted


def test_one_run_is_not_a_comparison(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs two runs or more, found 1"):
        diff_runs(runs[:1])
    with pytest.raises(ReportError, match="no results to read"):
        diff_runs([runs[0], tmp_path / "nowhere"])
