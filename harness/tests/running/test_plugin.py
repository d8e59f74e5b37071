"""The plugin, seen from outside: pytest runs inside pytest on a toy paper, and its outcome and events are read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import forked
from tests.helpers.toy_project import make_project

ROOT = Path(__file__).resolve().parents[3]
HOLDS = '@claim("TY-01")\ndef test_it(subject, judge):\n    judge("TY-01", found(0.6, 0.9))\n'
MISSES = HOLDS.replace("0.6, 0.9", "0.1, 0.3")
OPEN = HOLDS.replace("0.6, 0.9", "0.3, 0.9")
DEVIATION = '[[deviation]]\nclaim = "TY-01"\nsubject = "gpt2"\nreason = "known"\ndate = 2026-01-01\n'


def run(root, *words, **environment):
    command = ["pytest", "claims/", "-p", "no:cacheprovider", "--report", "out", "--store", "store", *words]
    done = forked.run(command, root, environment)
    return done.status, done.text


def events(root, kind):
    lines = (root / "out" / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


@pytest.mark.parametrize(
    ("tests", "deviations", "outcome", "words", "status"),
    [
        (HOLDS, "", "reproduced", "1 passed", 0),
        (MISSES, "", "contradicted", "1 failed", 1),
        (OPEN, "", "inconclusive", "1 xfailed", 0),
        (MISSES, DEVIATION, "contradicted", "1 xfailed", 0),
        (HOLDS, DEVIATION, "reproduced", "1 failed", 1),
        (HOLDS.replace("0.9)", "0.9, control=0.8)"), "", "failed", "1 error", 1),
        (HOLDS.replace("found(0.6, 0.9)", "1 / 0"), "", "failed", "1 error", 1),
    ],
    ids=["holds", "misses", "open", "listed", "listed but holds", "broken control", "error"],
)
def test_each_verdict_has_its_pytest_outcome(tmp_path, tests, deviations, outcome, words, status):
    root = make_project(tmp_path, tests, deviations=deviations)
    code, text = run(root)
    assert words in text
    assert code == status, text
    (verdict,) = events(root, "verdict")
    assert (verdict["outcome"], verdict["subject"], verdict["scope"]) == (outcome, "gpt2", "reproduction")
    assert (root / "out" / "index.html").exists()
    assert (root / "out" / "junit.xml").exists()
    assert events(root, "end")[0]["exitstatus"] == status


def test_a_long_measurement_can_say_something_before_it_is_over(tmp_path):
    """A test that passes shows nothing of what it prints; what it tells is seen."""
    told = "from circuit_claims.running.run import RUN\n" + HOLDS.replace(
        "(subject, judge)", "(subject, judge, request)"
    ).replace(
        "    judge(", '    print("kept")\n    request.config.stash[RUN].context.tell("about two hours")\n    judge('
    )
    code, text = run(make_project(tmp_path, told))
    assert code == 0, text
    assert "\nabout two hours\n" in text
    assert "kept" not in text


def test_a_miss_says_what_came_out_and_by_how_much(tmp_path):
    _, text = run(make_project(tmp_path, MISSES))
    assert "TY-01 on gpt2: contradicted (reproduction)" in text
    assert "at least 0.5 (margin 0)   stated in the paper, section 1" in text
    assert "0.2   90% interval [0.1, 0.3]" in text
    assert "would no longer be contradicted at a margin of 0.2 or more" in text


def test_the_rerun_line_runs(tmp_path):
    root = make_project(tmp_path, HOLDS)
    run(root)
    line = events(root, "verdict")[0]["rerun"]
    assert line.startswith('pytest "claims/toy/test_toy.py::test_it[gpt2]"')
    done = subprocess.run(f"{sys.executable} -m {line}", shell=True, cwd=root, capture_output=True, timeout=300)
    assert done.returncode == 0
    assert b"1 passed" in done.stdout


def test_a_test_that_judges_nothing_is_an_error(tmp_path):
    root = make_project(tmp_path, HOLDS.replace('judge("TY-01", found(0.6, 0.9))', "pass"))
    code, text = run(root)
    assert code == 1
    assert "judged none of its claims" in text
    assert events(root, "verdict")[0]["outcome"] == "failed"


def test_every_claim_of_a_test_is_recorded_when_one_misses(tmp_path):
    tests = '@claim("TY-01", "TY-02")\ndef test_it(subject, judge):\n'
    tests += '    judge("TY-01", found(0.1, 0.2))\n    judge("TY-02", found(0.6, 0.7))\n'
    root = make_project(tmp_path, tests, claims=("TY-01", "TY-02"))
    code, text = run(root)
    assert [item["outcome"] for item in events(root, "verdict")] == ["contradicted", "reproduced"]
    assert "1 failed" in text
    assert code == 1


def test_claims_that_share_a_test_do_not_count_its_time_twice(tmp_path):
    tests = 'import time\n\n\n@claim("TY-01", "TY-02")\ndef test_it(subject, judge):\n    time.sleep(0.4)\n'
    tests += '    judge("TY-01", found(0.6, 0.9))\n    judge("TY-02", found(0.6, 0.7))\n'
    root = make_project(tmp_path, tests, claims=("TY-01", "TY-02"))
    run(root)
    first, second = (item["seconds"] for item in events(root, "verdict"))
    assert first > 0.4
    assert second < first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--subjects", "pythia-1.4"), "nearest   pythia-1.4b"),
        (("--device", "cuda:99"), "found here cpu"),
        (("--profile", "huge"), "invalid choice"),
    ],
)
def test_a_wrong_option_is_refused_with_the_right_ones(tmp_path, words, message):
    code, text = run(make_project(tmp_path, HOLDS), *words)
    assert code == 4, text
    assert message in text


def test_an_incomplete_claim_stops_the_run_and_names_the_field(tmp_path):
    root = make_project(tmp_path, HOLDS)
    path = root / "claims/toy/paper.toml"
    path.write_text(path.read_text().replace('trust = "P"\n', ""))
    code, text = run(root)
    assert code == 4
    assert "TY-01 cannot be used" in text
    assert "trust: expected this field" in text


def test_a_model_that_cannot_be_had_is_not_run_and_says_what_to_type(tmp_path):
    root = make_project(tmp_path, HOLDS, conftest="", subjects=("pythia-31m",))
    code, text = run(root, "--offline", CIRCUIT_CLAIMS_CACHE=str(tmp_path / "cache"))
    assert code == 0
    (verdict,) = events(root, "verdict")
    assert verdict["outcome"] == "not here"
    assert verdict["command"] == "claims fetch pythia-31m"
    assert verdict["rerun"] == "", "the same line would leave it not judged again"
    assert "1 skipped" in text


def test_two_workers_write_one_report(tmp_path):
    tests = "".join(HOLDS.replace("test_it", f"test_{i}").replace("TY-01", f"TY-0{i}") for i in (1, 2, 3, 4))
    root = make_project(tmp_path, tests, claims=("TY-01", "TY-02", "TY-03", "TY-04"))
    code, text = run(root, "-n", "2")
    assert code == 0, text
    assert sorted(item["claim"] for item in events(root, "verdict")) == ["TY-01", "TY-02", "TY-03", "TY-04"]
    assert len(events(root, "run")) == len(events(root, "end")) == 1


def test_collecting_the_claims_imports_neither_torch_nor_transformers():
    code = (
        "import sys, pytest\n"
        "status = pytest.main(['claims', '--collect-only', '-qq', '-p', 'no:cacheprovider'])\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'scipy', 'sklearn'} & set(sys.modules)\n"
        "print('status', int(status), 'heavy', sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "status 0 heavy []", done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (("--models-dir", "nowhere"), ("--models-dir nowhere", "expected  a folder", "nothing of that name", "Type:")),
        (("--texts", "a-file"), ("--texts a-file", "expected  a folder that is there", "found     a file", "Type:")),
        (("--store", "a-file"), ("--store a-file", "expected  a folder", "found     a file", "Type: pytest claims/")),
        (("--subjects", "nowhere"), ("unknown subject 'nowhere'", "expected", "Type: claims list --subjects")),
        (("--profile", "fast"), ("--profile", "invalid choice", "quick")),
    ],
    ids=lambda value: value[0].lstrip("-"),
)
def test_an_option_that_names_nothing_is_refused_before_anything_is_measured(tmp_path, words, messages):
    root = make_project(tmp_path, HOLDS)
    (root / "a-file").write_text("text")
    code, text = run(root, *words)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert all(message in text for message in messages), text
    assert "Traceback" not in text
    assert not (root / "out").exists()
