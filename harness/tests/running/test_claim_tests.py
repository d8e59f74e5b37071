"""The project's own claims and the tests that measure them: one for each, and re-run by the line the report gives."""

from __future__ import annotations

import ast
import json
import shlex
from collections import Counter
from pathlib import Path

import pytest
from circuit_claims.judging.claims import load_deviations, load_paper

from tests.helpers import forked
from tests.helpers.subjects import save_planted_subject

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = sorted(path.parent for path in (ROOT / "claims").glob("*/paper.toml"))


def declared(folder: Path) -> list[str]:
    """Every id in a `@claim(...)` over a test of the folder, as often as it stands there."""
    trees = [ast.parse(path.read_text()) for path in sorted(folder.glob("test_*.py"))]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    calls = [call for function in functions for call in function.decorator_list if isinstance(call, ast.Call)]
    marks = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "claim"]
    return [argument.value for call in marks for argument in call.args if isinstance(argument, ast.Constant)]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_claim_is_measured_by_exactly_one_test(folder):
    assert Counter(declared(folder)) == Counter(claim.id for claim in load_paper(folder / "paper.toml").claims)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_deviation_is_of_a_claim_there_is(folder):
    known = {claim.id for claim in load_paper(folder / "paper.toml").claims}
    assert {deviation.claim for deviation in load_deviations(folder / "deviations.toml")} <= known


def verdicts(folder: Path) -> list[dict]:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "verdict"]


def test_the_line_that_runs_a_claim_again_does(tmp_path):
    """From the project's root, as it stands in the report: one test, the same verdict, and nothing else."""
    model = save_planted_subject(tmp_path / "a model", tasks=("days", "months", "letters"))
    environment = {"CIRCUIT_CLAIMS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    options = ["--subjects", str(model), "--profile", "quick", "--store", str(tmp_path / "store")]
    common = ["-p", "no:cacheprovider", "--offline", "--report"]
    words = ["pytest", "claims/successor_heads/test_succession.py", *options, *common, str(tmp_path / "first")]
    done = forked.run(words, ROOT, environment, output=tmp_path)
    assert done.status == 0, done.text
    ran = [verdict for verdict in verdicts(tmp_path / "first") if verdict["outcome"] != "not here"]
    assert {verdict["claim"] for verdict in ran} == {"SH-05", "SH-07"}
    assert {verdict["rerun"] for verdict in verdicts(tmp_path / "first") if verdict["outcome"] == "not here"} == {""}

    line = next(verdict["rerun"] for verdict in ran if verdict["claim"] == "SH-05")
    assert "test_one_head_stands_out[a model]" in line
    words = [*shlex.split(line), *common, str(tmp_path / "second")]
    done = forked.run(words, ROOT, environment, output=tmp_path)
    assert done.status == 0, done.text
    (again,) = verdicts(tmp_path / "second")
    first = next(verdict for verdict in ran if verdict["claim"] == "SH-05")
    kept = ("claim", "subject", "outcome", "node", "rerun", "flip", "rule")
    assert [again[name] for name in kept] == [first[name] for name in kept]
    assert again["measurement"]["value"] == first["measurement"]["value"]
    assert again["measurement"]["origin"] == "store"
