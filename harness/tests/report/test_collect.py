"""From events to results: torn lines, restarts, unknown kinds, repeats, order of workers, and the counting rule."""

from __future__ import annotations

import json
import random

import pytest
from circuit_claims.judging.verdicts import JUDGED, NOT_JUDGED, OUTCOMES
from circuit_claims.report.collect import Collected, ReportError, collect, parse_events, read_run
from circuit_claims.report.files import results_bytes
from circuit_claims.report.model import SCOPES
from circuit_claims.report.opening import state_words
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.sample import (
    end_event,
    measurement,
    run_event,
    sample_events,
    subject_event,
    to_lines,
    verdict,
)

SAMPLE = to_lines(sample_events())
PAIRS = st.lists(st.tuples(st.sampled_from(SCOPES), st.sampled_from(OUTCOMES)), max_size=30)


def counted(pairs: list[tuple[str, str]]) -> dict[str, dict[str, int]]:
    events = [verdict("SY-05", f"model-{index}", outcome, scope=scope) for index, (scope, outcome) in enumerate(pairs)]
    return dict(collect([run_event(), *events, end_event()]).results.tallies)


@given(PAIRS, st.sampled_from(SCOPES), st.sampled_from([*NOT_JUDGED, "not run"]))
def test_what_was_not_judged_stands_beside_the_rate_and_changes_none(
    pairs: list[tuple[str, str]], scope: str, outcome: str
) -> None:
    before, after = counted(pairs), counted([*pairs, (scope, outcome)])
    name = "not here" if outcome == "not run" else outcome
    was = before.get(scope, dict.fromkeys(["n", *OUTCOMES], 0))
    assert after == {**before, scope: {**was, name: was[name] + 1}}


@given(PAIRS)
def test_no_scope_is_counted_as_another(pairs: list[tuple[str, str]]) -> None:
    tallies = counted(pairs)
    assert sum(row["n"] for row in tallies.values()) == sum(outcome in JUDGED for _, outcome in pairs)
    for scope, row in tallies.items():
        own = [outcome for name, outcome in pairs if name == scope]
        assert row == {"n": sum(one in JUDGED for one in own), **{outcome: own.count(outcome) for outcome in OUTCOMES}}


@given(st.integers(0, len(SAMPLE)))
@settings(max_examples=60, deadline=None)
def test_a_stream_cut_anywhere_keeps_every_whole_line(cut: int) -> None:
    whole = SAMPLE[:cut].count(b"\n")
    events, notes = parse_events(SAMPLE[:cut])
    # A cut just before a line's end leaves that line whole.
    assert len(events) in (whole, whole + 1)
    assert len(notes) <= 1
    made = collect(events, notes)
    assert len(made.results.verdicts) == sum(event["event"] == "verdict" for event in events)
    if len(events) < len(sample_events()):
        assert not made.results.complete


def test_a_torn_last_line_is_left_out_and_told() -> None:
    made = collect(*parse_events(SAMPLE[:-9]))
    assert "the last line of the event stream is torn" in made.run.notes[0]
    assert made.results.verdicts == collect(sample_events()).results.verdicts
    assert state_words(made.results, made.run).startswith("interrupted: 6 of 7 claims reported")


def test_a_restart_in_the_middle_of_a_torn_line_loses_only_the_torn_event() -> None:
    first = to_lines([run_event(), verdict("SY-05", "a", "reproduced"), verdict("SY-06", "a", "reproduced")])
    events, notes = parse_events(first[:-30] + to_lines([run_event(), verdict("SY-07", "a", "reproduced")]))
    assert [event.get("claim") for event in events] == [None, "SY-05", None, "SY-07"]
    assert "what followed the tear is kept" in notes[0]


def test_bytes_that_are_not_text_do_not_stop_the_report() -> None:
    events, notes = parse_events(b'\xff\xfe\x00\n{"event":"store","path":"\xff"}\n[1]\n"x"\n' + SAMPLE)
    assert len(events) == 1 + len(sample_events())
    assert events[0]["path"] == "\\udcff"
    assert len(notes) == 3


def test_the_last_of_two_verdicts_counts_and_a_note_says_so() -> None:
    events = [run_event(), verdict("SY-05", "m", "reproduced"), verdict("SY-05", "m", "contradicted"), end_event()]
    made = collect(events)
    assert [item.outcome for item in made.results.verdicts] == ["contradicted"]
    assert made.run.notes == ("SY-05 on m was reported 2 times: the last verdict counts",)
    assert made.results.tallies["generalisation"]["n"] == 1


def test_unknown_kinds_are_passed_over_with_a_note() -> None:
    made = collect([run_event(), {"event": "weather"}, {"event": "weather"}, {}, end_event()])
    assert made.run.notes == (
        "1 event(s) of the unknown kind 'None' were passed over",
        "2 event(s) of the unknown kind 'weather' were passed over",
    )
    assert made.results.complete


def test_fields_a_newer_writer_added_are_passed_over() -> None:
    extra = verdict("SY-05", "m", "reproduced", mood="good", measurement={**measurement(9.0, 8.5, 9.5), "mood": 1})
    made = collect([run_event(), extra, end_event()])
    assert made.results.verdicts[0].outcome == "reproduced"


@pytest.mark.parametrize(
    "broken",
    [
        {"outcome": "splendid"},
        {"outcome": None},
        {"measurement": {"value": [1]}},
        {"measurement": 3},
        {"controls": [{"name": "x", "must": "dance", "outcome": "reproduced"}]},
        {"evidence": ["x"]},
        {"deviation": "x"},
    ],
)
def test_a_verdict_that_cannot_be_read_fails_and_never_vanishes(broken: dict[str, object]) -> None:
    made = collect([run_event(), verdict("SY-05", "m", "reproduced") | broken, end_event()])
    (found,) = made.results.verdicts
    assert found.outcome == "failed"
    assert found.reason


@pytest.mark.parametrize(
    "event", [{"event": "subject"}, {"event": "run", "papers": [{}]}, {"event": "run", "claims": [3]}]
)
def test_other_events_that_cannot_be_read_leave_a_note(event: dict[str, object]) -> None:
    made = collect([event, verdict("SY-05", "m", "reproduced")])
    assert "could not be read and is left out" in made.run.notes[0]
    assert len(made.results.verdicts) == 1


@given(st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_the_order_in_which_workers_report_changes_nothing(order: random.Random) -> None:
    first, *middle, last = sample_events()
    shuffled = order.sample(middle, len(middle))
    assert results_bytes(collect([first, *shuffled, last]).results) == results_bytes(collect(sample_events()).results)


def test_results_do_not_depend_on_when_and_where_and_from_which_store() -> None:
    other = []
    for event in sample_events():
        changed = json.loads(json.dumps(event))
        if event["event"] == "run":
            changed |= {"id": "other", "started": "2001", "environment": {"torch": "9"}, "argv": "--store x"}
        if event["event"] == "verdict":
            changed["seconds"] = 99.0
            for one in filter(None, [changed["measurement"], *(c["measurement"] for c in changed["controls"])]):
                one |= {"cost": {"seconds": 9.0, "peak_bytes": 1}, "origin": "store"}
        other.append(changed)
    one, two = collect(sample_events()), collect([event for event in other if event["event"] != "store"])
    assert results_bytes(one.results) == results_bytes(two.results)
    assert one.run != two.run


def test_a_resumed_run_ends_with_the_results_of_one_that_was_never_interrupted() -> None:
    events = sample_events()
    resumed = [*events[:12], *events]
    assert results_bytes(collect(resumed).results) == results_bytes(collect(events).results)


@pytest.mark.parametrize(
    ("status", "complete"), [(0, True), (1, True), (5, True), (2, False), (3, False), (None, False)]
)
def test_only_a_run_that_reached_its_end_is_complete(status: int | None, complete: bool) -> None:
    events = [run_event(), verdict("SY-05", "m", "reproduced")]
    made = collect(events if status is None else [*events, end_event(exitstatus=status)])
    assert made.results.complete is complete
    assert state_words(made.results, made.run).startswith("finished" if complete else "interrupted: 1 of 7")


def test_numbers_that_are_not_finite_are_kept_by_name() -> None:
    value = {"not finite": "inf"}
    event = verdict("SY-05", "m", "inconclusive", measurement=measurement(value, float("-inf"), float("inf")))
    made = collect(parse_events(to_lines([run_event(), event]))[0])
    found = made.results.verdicts[0].measurement
    assert found is not None
    assert (found.value, found.interval.low, found.interval.high) == (float("inf"), float("-inf"), float("inf"))
    assert json.loads(results_bytes(made.results))["verdicts"][0]["measurement"]["value"] == "Infinity"


def test_memory_addresses_do_not_tell_two_equal_failures_apart() -> None:
    runs = [
        collect([run_event(), verdict("SY-05", "m", "failed", reason=f"TypeError: <Head at 0x7f{tail}>"), end_event()])
        for tail in ("00aa11bb22", "33cc44dd55")
    ]
    assert results_bytes(runs[0].results) == results_bytes(runs[1].results)


def test_a_folder_without_events_says_what_to_type(tmp_path) -> None:
    with pytest.raises(ReportError, match=r"expected .*events\.jsonl\n.*no such file\n  Type: pytest claims/"):
        read_run(tmp_path)


def test_an_empty_stream_is_a_run_of_which_nothing_is_known() -> None:
    assert collect(*parse_events(b"")) == Collected(collect([]).results, collect([]).run)
    assert not collect([]).results.complete


def test_a_subject_described_twice_is_one_subject() -> None:
    assert len(collect([subject_event("m"), subject_event("m")]).results.subjects) == 1


@pytest.mark.parametrize(("data", "found"), [(b"", "0 bytes"), (b'{"event": "ses\n{"ev', "2 torn lines")])
def test_a_stream_without_a_whole_event_is_no_run(tmp_path: Path, data: bytes, found: str) -> None:
    (tmp_path / "events.jsonl").write_bytes(data)
    with pytest.raises(ReportError, match=f"expected events in .*\n  found    {found}.*\n  Type: pytest claims/"):
        read_run(tmp_path)
