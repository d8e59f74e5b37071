"""The plugin beside other plugins and other people's tests: it takes no name, needs no plugin, and writes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.helpers import forked
from tests.helpers.toy_project import CLAIM, HELPERS, PAPER, make_project

ROOT = Path(__file__).resolve().parents[3]
HOLDS = '@claim("TY-01")\ndef test_it(subject, judge):\n    judge("TY-01", found(0.6, 0.9))\n'
BREAKS = HOLDS.replace("found(0.6, 0.9)", "1 / 0").replace("TY-01", "TY-02").replace("test_it", "test_broken")
MISSES = HOLDS.replace("0.6, 0.9", "0.1, 0.3").replace("TY-01", "TY-03").replace("test_it", "test_miss")
OPTIONAL = ("benchmark", "timeout", "terminal", "junitxml", "xdist", "cacheprovider")
ALL = ("TY-01", "TY-02", "TY-03")
OWNS_PROFILE = """
def pytest_addoption(parser):
    parser.addoption("--profile", action="store_true", default=False, help="somebody else's")
"""


def run(root: Path, *words: str) -> tuple[int, str]:
    done = forked.run(["pytest", "-p", "no:cacheprovider", *words], root)
    return done.status, done.text


def verdicts(folder: Path) -> dict[str, dict]:
    return {verdict["claim"]: verdict for verdict in json.loads((folder / "results.json").read_text())["verdicts"]}


def events(folder: Path, kind: str) -> list[dict]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def test_it_loads_in_a_stranger_s_session_without_anything_heavy(tmp_path):
    """The entry point is loaded by every session of an environment; it may not cost what a claim costs."""
    (tmp_path / "test_theirs.py").write_text("def test_theirs():\n    pass\n")
    code = (
        "import sys, pytest\n"
        "status = pytest.main(['-q', '-p', 'no:cacheprovider', '-p', 'no:jaxtyping', '-p', 'no:hypothesispytest'])\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'circuit_claims.running.session', 'circuit_claims.running.run'}\n"
        "print(int(status), 'circuit_claims.running.plugin' in sys.modules, sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.stdout.splitlines()[-1] == "0 True []", done.stdout + done.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[:1] not in "._") == ["test_theirs.py"]


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_a_short_option_that_another_plugin_has_is_left_to_it(tmp_path, first):
    root = make_project(tmp_path, HOLDS)
    (root / "profiling.py").write_text(OWNS_PROFILE)
    if not first:
        (root / "conftest.py").write_text(OWNS_PROFILE)
    words = ["-p", "profiling"] if first else []
    words += ["--profile", "--claims-profile", "quick", "--report", "out", "--store", "store", "claims/"]
    status, text = run(root, *words)
    assert status == 0, text
    (started,) = events(root / "out", "run")
    assert started["profile"] == "quick"
    assert started["argv"] == "--claims-profile quick --store store"
    assert "--claims-profile quick" in events(root / "out", "verdict")[0]["rerun"]


def test_lines_to_type_use_the_long_name_of_an_option_that_another_plugin_has(tmp_path):
    root = make_project(tmp_path, HOLDS, conftest="")
    (root / "conftest.py").write_text(OWNS_PROFILE.replace("profile", "device"))
    paper = root / "claims" / "toy" / "paper.toml"
    paper.write_text(paper.read_text().replace('cost = "seconds"', 'cost = "gpu hours"'))
    words = ["--claims-device", "cpu", "--offline", "--report", "out", "--store", "store", "claims/"]
    status, text = run(root, *words)
    assert status == 0, text
    assert verdicts(root / "out")["TY-01"]["command"] == "pytest claims/ --claims-device cuda"


def test_a_refused_option_is_called_by_the_name_that_works_here(tmp_path):
    root = make_project(tmp_path, HOLDS)
    (root / "conftest.py").write_text(OWNS_PROFILE.replace("profile", "store"))
    (root / "a-file").touch()
    status, text = run(root, "--claims-store", "a-file", "claims/")
    assert status == pytest.ExitCode.USAGE_ERROR, text
    assert "--claims-store a-file" in text
    assert "Type: pytest claims/ --claims-store ANOTHER_FOLDER" in text


def test_the_clone_itself_needs_no_optional_plugin():
    """A flag of a plugin in the clone's addopts would stop pytest where that plugin is left out."""
    words = [word for name in OPTIONAL for word in ("-p", f"no:{name}")]
    status, text = run(ROOT, *words, "--collect-only", "claims/successor_heads/test_dataset.py")
    assert status == 0, text


def test_no_optional_plugin_is_needed(tmp_path):
    root = make_project(tmp_path, HOLDS)
    words = [word for name in OPTIONAL for word in ("-p", f"no:{name}")]
    status, text = run(root, *words, "--report", "out", "--store", "store", "claims/")
    assert status == 0, text
    assert verdicts(root / "out")["TY-01"]["outcome"] == "reproduced"
    assert "1 of 1 judged reproduced" in text
    assert not (root / "out" / "junit.xml").exists()


STATES_LIMIT = """
import pytest

@pytest.fixture(autouse=True)
def limits(request):
    yield
    marker = request.node.get_closest_marker("timeout")
    print("LIMIT", request.node.name, request.config.option.timeout, marker and marker.args)

def pytest_report_header(config):
    from circuit_claims.running.plugin import SESSION
    return f"CLAIMS {SESSION in config.stash}"
"""


def test_a_package_of_others_named_with_pyargs_is_no_claims_session(tmp_path):
    """Nothing of it is imported to find that out: here the import of its tests would leave a trace."""
    folder = tmp_path / "otherpkg" / "tests"
    folder.mkdir(parents=True)
    (tmp_path / "otherpkg" / "__init__.py").touch()
    (folder / "__init__.py").write_text("import sys\nprint('IMPORTED BY', sys._getframe(1).f_code.co_name)\n")
    (folder / "test_a.py").write_text("def test_a():\n    pass\n")
    (tmp_path / "conftest.py").write_text(STATES_LIMIT)
    status, text = run(tmp_path, "-s", "-p", "conftest", "--pyargs", "otherpkg.tests.test_a")
    assert status == 0, text
    assert "CLAIMS False" in text
    assert "LIMIT test_a None None" in text


def test_a_package_with_papers_named_with_pyargs_is_a_claims_session(tmp_path):
    root = make_project(tmp_path, HOLDS)
    (root / "claims").rename(root / "theirs")
    for folder in ("theirs", "theirs/toy"):
        (root / folder / "__init__.py").touch()
    (root / "conftest.py").write_text(STATES_LIMIT)
    for word in ("theirs", "theirs.toy", "theirs.toy.test_toy"):
        status, text = run(root, "-p", "conftest", "--collect-only", "--pyargs", word)
        assert status == 0, text
        assert "CLAIMS True" in text


def test_the_time_limit_is_that_of_claims_alone(tmp_path):
    root = make_project(tmp_path, HOLDS)
    (root / "test_theirs.py").write_text("def test_theirs():\n    pass\n")
    (root / "conftest.py").write_text(STATES_LIMIT)
    status, text = run(root, "-s", "--report", "out", "--store", "store", ".")
    assert status == 0, text
    assert "LIMIT test_theirs None None" in text
    assert "LIMIT test_it[gpt2] None (900.0,)" in text
    status, text = run(root, "-s", "--timeout", "60", "--report", "out2", "--store", "store", ".")
    assert status == 0, text
    assert "LIMIT test_it[gpt2] 60.0 None" in text


@pytest.mark.parametrize("folder", ["manuscript", "claims/manuscript", "."])
def test_a_paper_toml_of_somebody_else_is_passed_over(tmp_path, folder):
    place = tmp_path / folder
    place.mkdir(parents=True, exist_ok=True)
    (place / "paper.toml").write_text('[build]\nengine = "lualatex"\n')
    (place / "test_theirs.py").write_text("def test_theirs():\n    pass\n")
    (tmp_path / "conftest.py").write_text(STATES_LIMIT)
    for word in (".", folder):
        status, text = run(tmp_path, "-p", "conftest", word)
        assert status == 0, text
        assert "CLAIMS False" in text


def test_a_paper_toml_of_a_paper_that_is_wrong_elsewhere_stays_an_error(tmp_path):
    root = make_project(tmp_path, HOLDS)
    paper = root / "claims" / "toy" / "paper.toml"
    whole = paper.read_text()
    for text in (whole + '\n[build]\nengine = "lualatex"\n', whole + "\n[build\n"):
        paper.write_text(text)
        status, text = run(root, ".")
        assert status == pytest.ExitCode.USAGE_ERROR, text
        assert "paper.toml" in text


def test_two_papers_may_have_a_test_file_of_one_name(tmp_path):
    """Under pytest's own import mode, in a repository without a setting for it."""
    root = make_project(tmp_path, HOLDS)
    other = root / "claims" / "other"
    other.mkdir()
    text = PAPER.replace('"toy"', '"other"') + CLAIM.format(id="OT-01", subjects='["gpt2"]')
    (other / "paper.toml").write_text(text)
    (other / "test_toy.py").write_text("import torch\n" + HELPERS + HOLDS.replace("TY-01", "OT-01"))
    status, text = run(root, "--import-mode=prepend", "--report", "out", "--store", "store")
    assert status == 0, text
    assert set(verdicts(root / "out")) == {"TY-01", "OT-01"}


@pytest.mark.parametrize(
    "words",
    [("-k", "nothing", "claims/"), ("claims/toy/test_toy.py::test_of_no_such_name",), ("--collect-only", "claims/")],
    ids=["nothing selected", "wrong node id", "collect only"],
)
def test_a_session_that_checks_no_claim_writes_no_report(tmp_path, words):
    root = make_project(tmp_path, HOLDS)
    run(root, "--report", "out", "--store", "store", *words)
    assert not (root / "out").exists()
    assert not (root / "reports").exists()


def test_a_broken_measurement_is_an_error_and_a_contradiction_a_failure_for_junit(tmp_path):
    root = make_project(tmp_path, HOLDS + BREAKS + MISSES, claims=ALL)
    status, text = run(root, "--report", "out", "--store", "store", "--junitxml", "theirs.xml", "claims/")
    assert status == 1, text
    (suite,) = ElementTree.parse(root / "theirs.xml").getroot()
    assert (suite.get("errors"), suite.get("failures"), suite.get("tests")) == ("1", "1", "3")


def test_what_was_expected_has_an_outcome_when_the_session_stops_early(tmp_path):
    root = make_project(tmp_path, MISSES + HOLDS, claims=ALL)
    status, text = run(root, "-x", "--report", "out", "--store", "store", "claims/")
    assert status == 1, text
    found = verdicts(root / "out")
    assert found["TY-03"]["outcome"] == "contradicted"
    assert found["TY-01"]["outcome"] == "not here"
    assert "the session ended before this test: stopping after 1 failures" in found["TY-01"]["reason"]


def test_what_was_expected_has_an_outcome_when_a_worker_dies(tmp_path):
    dies = HOLDS.replace('judge("TY-01", found(0.6, 0.9))', "__import__('os')._exit(3)")
    root = make_project(tmp_path, dies + MISSES, claims=ALL)
    status, text = run(root, "-n", "1", "--report", "out", "--store", "store", "claims/")
    assert status == 1, text
    found = verdicts(root / "out")
    assert found["TY-01"]["outcome"] == "failed"
    assert "crashed" in found["TY-01"]["reason"]
    assert found["TY-03"]["outcome"] == "contradicted"


def test_a_skip_a_failing_fixture_and_a_forgotten_claim_have_outcomes(tmp_path):
    skips = HOLDS.replace('judge("TY-01", found(0.6, 0.9))', '__import__("pytest").skip("no time for it")')
    fixture = "import pytest\n\n\n@pytest.fixture\ndef breaks():\n    raise OSError('no disk')\n\n\n"
    errs = '@claim("TY-02")\ndef test_errs(breaks, subject, judge):\n    judge("TY-02", found(0.6, 0.9))\n'
    half = '@claim("TY-03", "TY-04")\ndef test_half(subject, judge):\n    judge("TY-03", found(0.6, 0.9))\n'
    root = make_project(tmp_path, skips + fixture + errs + half, claims=(*ALL, "TY-04"))
    status, text = run(root, "--report", "out", "--store", "store", "claims/")
    assert status == 1, text
    found = verdicts(root / "out")
    assert (found["TY-01"]["outcome"], found["TY-01"]["reason"]) == ("not here", "no time for it")
    assert (found["TY-02"]["outcome"], found["TY-02"]["reason"]) == ("failed", "OSError: no disk")
    assert (found["TY-03"]["outcome"], found["TY-04"]["outcome"]) == ("reproduced", "failed")
    assert "ended without a verdict on TY-04" in found["TY-04"]["reason"]


def test_runxfail_changes_no_verdict(tmp_path):
    undecided = HOLDS.replace("0.6, 0.9", "0.3, 0.9")
    root = make_project(tmp_path, undecided)
    status, text = run(root, "--runxfail", "--report", "out", "--store", "store", "claims/")
    assert status == 0, text
    assert "1 skipped" in text
    assert verdicts(root / "out")["TY-01"]["outcome"] == "inconclusive"
