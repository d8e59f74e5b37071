"""results.json: what its schema says, readable when old, refused with a reason when newer, damaged or foreign."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import jsonschema
import pytest
from circuit_claims.keeping import atomic
from circuit_claims.keeping.atomic import NoSpaceLeft
from circuit_claims.report import files as report_files
from circuit_claims.report import load_results, write_report
from circuit_claims.report.collect import Collected, ReportError, collect
from circuit_claims.report.files import SCHEMA_FILE, json_bytes, load_run, results_bytes, results_schema
from circuit_claims.report.model import stable_view

from tests.report.sample import measurement, run_event, sample_events, to_lines, verdict, write_events

# One head map and no other figures but the strips: what is tested here is files, not drawings.
EVENTS = [event | ({"evidence": event["evidence"][:1]} if "evidence" in event else {}) for event in sample_events()]


@pytest.fixture(scope="module")
def collected() -> Collected:
    return collect(EVENTS)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return write_events(tmp_path / "run", EVENTS)


def test_the_published_schema_is_the_one_of_the_code() -> None:
    published = json.loads(SCHEMA_FILE.read_bytes())
    assert published == results_schema(), "type: python -m circuit_claims.report.files"
    jsonschema.Draft202012Validator.check_schema(published)


def test_results_are_as_the_schema_says(collected: Collected) -> None:
    strange = verdict("SY-05", "m", "inconclusive", measurement=measurement(float("nan"), 1.0, float("inf")))
    for made in (collected, collect([]), collect([run_event(), strange])):
        jsonschema.Draft202012Validator(results_schema()).validate(json.loads(results_bytes(made.results)))


@pytest.mark.parametrize("change", [{"mood": 1}, {"verdicts": [{"claim": "x"}]}, {"complete": None}, {"schema": 4}])
def test_the_schema_refuses_what_is_not_a_result(collected: Collected, change: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(results_schema()).validate(stable_view(collected.results) | change)


def test_what_is_written_is_read_back(run_dir: Path, collected: Collected) -> None:
    paths = write_report(run_dir)
    for path in (run_dir, paths.results):
        assert load_results(path) == collected.results
        assert load_run(path) == collected.run


def test_results_hold_no_time_cost_origin_or_place(run_dir: Path) -> None:
    text = write_report(run_dir).results.read_text()
    for word in ("seconds", "peak_bytes", "started", "finished", "environment", "2000-01-01T", "argv"):
        assert f'"{word}"' not in text
    assert "2000-01-01T" not in text
    verdicts = json.loads(text)["verdicts"]
    assert not any("origin" in (verdict["measurement"] or {}) for verdict in verdicts), "where it was measured"


def test_writing_twice_gives_the_same_bytes(run_dir: Path) -> None:
    first = {name: path.read_bytes() for name, path in vars(write_report(run_dir)).items()}
    assert {name: path.read_bytes() for name, path in vars(write_report(run_dir)).items()} == first


def test_a_run_without_a_report_is_read_from_its_events(run_dir: Path, collected: Collected) -> None:
    assert load_results(run_dir) == collected.results
    assert load_run(run_dir) == collected.run


def test_a_newer_file_is_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"schema": 7, "wonders": []}')
    with pytest.raises(
        ReportError, match=r"newer harness\n  expected schema 3 or older\n  found    schema 7\n  Type: pip"
    ):
        load_results(tmp_path)


def test_an_older_file_goes_through_its_upgrade(tmp_path: Path, collected: Collected, monkeypatch) -> None:
    """A version 0 that never was: tallies under another name."""
    old = stable_view(collected.results) | {"schema": 0}
    old["counts"] = old.pop("tallies")
    (tmp_path / "results.json").write_bytes(json_bytes(old))
    with pytest.raises(ReportError, match=r"cannot be brought up to date(.|\n)*schema 0"):
        load_results(tmp_path)
    rename = {0: lambda data: {**{key: data[key] for key in data if key != "counts"}, "tallies": data["counts"]}}
    monkeypatch.setattr(report_files, "UPGRADES", {**rename, 1: lambda data: data, 2: lambda data: data})
    assert load_results(tmp_path) == collected.results


def test_version_1_listed_subjects_without_scopes(tmp_path: Path, collected: Collected) -> None:
    """The verdicts say what each counted as; a text that stood in made one a generalisation, not the subject."""
    old = stable_view(collected.results) | {"schema": 1}
    for claim in old["claims"]:
        claim["subjects"], claim["applies_to"] = ["a", "b", "c"], "paper"
        del claim["others"], claim["origin"]
    verdict = old["verdicts"][0]
    scopes = {"a": "replication", "b": "generalisation"}
    old["verdicts"] = [verdict | {"subject": name, "scope": scope} for name, scope in scopes.items()]
    (tmp_path / "results.json").write_bytes(json_bytes(old))
    claims = {claim.id: claim for claim in load_results(tmp_path).claims}
    assert claims[verdict["claim"]].subjects == {"replication": ("a",), "reproduction": ("b", "c")}
    assert (claims[verdict["claim"]].others, claims[verdict["claim"]].origin) == (False, "paper")


def test_version_2_counted_what_was_not_run(tmp_path: Path, collected: Collected) -> None:
    old = stable_view(collected.results) | {"schema": 2}
    old["verdicts"] = [{**old["verdicts"][0], "outcome": "not run"}, old["verdicts"][1]]
    old["tallies"] = {"reproduction": {"n": 5, "reproduced": 1, "not run": 4}}
    (tmp_path / "results.json").write_bytes(json_bytes(old))
    new = load_results(tmp_path)
    assert new.verdicts[0].outcome == "not here"
    row = new.tallies["reproduction"]
    assert (row["n"], row["reproduced"], row["not here"], row["does not apply"]) == (1, 1, 4, 0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is damaged\n  expected JSON"),
        ("[1]", "expected a JSON object\n  found    a list"),
        ("{}", "not a file of this harness"),
        ('{"schema": true}', "not a file of this harness"),
        ('{"schema": 3}', "expected complete: Field required"),
        ('{"schema": 3, "complete": true, "mood": 3}', "expected mood: Extra inputs"),
    ],
)
def test_what_is_no_result_is_refused_with_the_place(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ReportError) as caught:
        load_results(tmp_path / "results.json")
    assert complaint in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"no results to read\n  expected .*nowhere"):
        load_results(tmp_path / "nowhere")


def test_a_full_disk_leaves_the_old_report(run_dir: Path, monkeypatch) -> None:
    paths = write_report(run_dir)
    before = {path: path.read_bytes() for path in vars(paths).values()}
    (run_dir / "events.jsonl").write_bytes(to_lines(EVENTS[:-4]))

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(NoSpaceLeft, match="the old file is unchanged"):
        write_report(run_dir)
    assert {path: path.read_bytes() for path in before} == before
    assert not list(run_dir.glob(".*.part"))
