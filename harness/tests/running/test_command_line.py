"""The `claims` command as a stranger types it: what it prints, what it writes, and how it refuses."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from circuit_claims.judging.claims import load_papers
from circuit_claims.models.registry import load_registry
from circuit_claims.report import load_results
from circuit_claims.toy.command import ROOMY

from tests.helpers import forked
from tests.helpers.subjects import save_planted_subject
from tests.report.sample import write_events

ROOT = Path(__file__).resolve().parents[3]
TASKS = {"numbers", "days", "months", "letters"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with good and bad models, and two runs; the cache of models lies in it and is empty at first."""
    root = tmp_path_factory.mktemp("cli")
    save_planted_subject(root / "planted")
    for name in ("pickle", "short"):
        shutil.copytree(root / "planted", root / name)
    torch.save({"lm_head.weight": torch.zeros(3)}, root / "pickle" / "model.safetensors")
    short = root / "short" / "model.safetensors"
    short.write_bytes(short.read_bytes()[:-1000])
    (root / "a-file").write_text("not a folder")
    (root / "empty").mkdir()
    shutil.copytree(root / "planted", root / "two")
    shutil.copy(root / "two" / "model.safetensors", root / "two" / "adapter.safetensors")
    (root / "two" / "model.safetensors").rename(root / "two" / "weights.safetensors")
    return root


@pytest.fixture
def claims(place):
    def run(*words, **environment):
        # With `ROOMY` set, `claims train` does not start its process again, which one forked from a server cannot do.
        environment = {"CIRCUIT_CLAIMS_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1", **ROOMY, **environment}
        done = forked.run(("claims", *words), place, environment)
        assert "Traceback" not in done.text
        return done.status, done.text

    return run


def test_without_arguments_it_says_what_there_is(claims):
    status, text = claims()
    assert status == 2
    assert "pytest claims/" in text
    for name in ("list", "doctor", "fetch", "sweep", "llc", "report", "diff"):
        assert f"{name} " in text


def test_it_is_installed_as_a_module_that_runs():
    command = [sys.executable, "-m", "circuit_claims.running.command_line", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, "doctor" in done.stdout) == (0, True)


def test_every_claim_is_listed_with_what_the_paper_says(claims):
    status, text = claims("list")
    assert status == 0
    for claim in (claim for paper in load_papers(ROOT / "claims") for claim in paper.claims):
        assert claim.id in text
    assert "at least 8" in text
    assert "1,041" in text


@pytest.mark.parametrize("columns", ["80", "160"])
def test_every_model_is_listed_under_the_name_to_type(claims, columns):
    status, text = claims("list", "--subjects", COLUMNS=columns)
    assert status == 0
    for name in load_registry():
        assert name in text


def test_the_doctor_says_what_to_type_for_every_model_that_is_not_here(claims):
    started = time.perf_counter()
    status, text = claims("doctor")
    assert status == 0
    for name in load_registry():
        assert f"Type: claims fetch {name}\n" in text
    assert "GiB free" in text
    assert time.perf_counter() - started < 30


def test_a_sweep_writes_the_documented_json(claims, place):
    status, text = claims("sweep", "planted", "--path", "mlp0", "--json", "made/sweep.json", "--top", "3")
    assert status == 0, text
    assert "L1H2" in text
    found = json.loads((place / "made" / "sweep.json").read_text())
    assert list(found) == ["model", "path", "exclude_self", "heads", "null"]
    assert (found["model"], found["path"], found["exclude_self"]) == ("planted", "mlp0", False)
    assert len(found["heads"]) == 8
    for head in found["heads"]:
        assert list(head) == ["layer", "head", "score", "macro_score", "interval", "copy_score", "tasks"]
        assert set(head["tasks"]) == TASKS
        assert [type(head[name]) for name in ("layer", "head", "score")] == [int, int, float]
        assert 0 <= head["interval"][0] <= head["interval"][1] <= 1
        assert abs(head["macro_score"] - sum(head["tasks"].values()) / len(TASKS)) < 1e-6
    order = [head["macro_score"] for head in found["heads"]]
    assert order == sorted(order, reverse=True)
    assert (found["heads"][0]["layer"], found["heads"][0]["head"], order[0]) == (1, 2, 1.0)
    assert order[1] < 0.5
    assert found["null"]["macro_score"]["band"][1] < 0.5
    assert found["null"]["macro_score"]["p_value"] < 0.01


def test_a_sweep_without_the_token_itself_says_so(claims, place):
    status, _ = claims("sweep", "planted", "--path", "block0", "--exclude-self", "--json", "other.json")
    assert status == 0
    found = json.loads((place / "other.json").read_text())
    assert (found["path"], found["exclude_self"]) == ("block0", True)


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (("sweep", "pythia"), ("no model called 'pythia'", "Type: claims list --subjects")),
        (
            ("sweep", "planted", "--path", "mlp1"),
            ("expected one of mlp0, embed+mlp0", "found 'mlp1'", "Type: --path mlp0"),
        ),
        (("sweep", "planted", "--models-dir", "nowhere"), ("--models-dir nowhere", "expected  a folder", "nothing of")),
        (("doctor", "--models-dir", "a-file"), ("expected  a folder that is there", "found     a file", "Type: --")),
        (
            ("sweep", "empty"),
            ("empty has no weights: expected model.safetensors", "found     nothing", "Type the path"),
        ),
        (
            ("sweep", "two"),
            ("2 safetensors files and no", "found     adapter.safetensors, weights.safetensors", "rename the file"),
        ),
        (
            ("sweep", "planted", "--json", "a-file/x.json"),
            ("cannot write a-file/x.json", "expected a file in"),
        ),
        (("sweep", "planted", "--json", "planted"), ("cannot write planted", "it is a folder")),
        (("sweep", "planted", "--top", "0"), ("--top", "greater than or equal to 1")),
        (("sweep", "pickle"), ("pickle", "Only safetensors and GGUF are read")),
        (("sweep", "short"), ("not a whole safetensors file", "fetch or copy it again")),
        (("sweep", "a-file"), ("is not a GGUF file", "found b'not", "Type the path of")),
        (("sweep",), ("Missing argument",)),
        (("sweep", "pythia-70m", "--offline"), ("not on this machine", "offline", "Type: claims fetch pythia-70m")),
        (("train", "--text", ".", "--run", "r", "--precision", "fp8"), ("found 'fp8'", "Type: --precision bf16")),
        (
            ("train", "--text", ".", "--run", "r", "--mixture", "nowhere.toml"),
            ("mixture nowhere.toml", "[[source]] tables", "No such file", "Type: --mixture with"),
        ),
        (("convert-checkpoint", "L2", "x.pth"), ("'L2' is no published run", "L2W256-3m-rr", "Type: claims list")),
        (("convert-checkpoint", "L2W256-3m-rr", "x.pth"), ("expected a name such as checkpoint_0000100.pth", "x.pth")),
        (("fetch", "gpt3"), ("no model called 'gpt3'", "Type: claims list --subjects")),
        (("fetch", "smollm2-135m", "--offline"), ("not asked: offline", "Type: claims fetch smollm2-135m")),
        (("report", "planted"), ("no run in planted", "expected events.jsonl", "Type: claims report")),
        (("diff", "planted"), ("needs two runs", "found 1", "Type: claims diff")),
        (("diff", "planted", "--all"), ("needs two runs", "found 0", "Type: claims diff")),
        (("diff", "planted", "nowhere"), ("no results to read", "expected", "Type: pytest claims/")),
        (("sweeep", "planted"), ("No such command",)),
    ],
    ids=lambda value: " ".join(value) if value and isinstance(value[0], str) and " " not in value[0] else "",
)
def test_what_cannot_be_done_is_refused_in_words(claims, words, messages):
    status, text = claims(*words)
    assert status == 2, text
    for message in messages:
        assert message in text


def test_a_path_that_cannot_be_written_is_refused_before_anything_is_looked_for(claims):
    status, text = claims("sweep", "pythia-70m", "--offline", "--json", "a-file/x.json")
    assert (status, "cannot write a-file/x.json" in text, "pythia-70m" in text) == (2, True, False)


def test_a_folder_given_is_fetched_by_reading_it_through(claims):
    status, text = claims("fetch", "planted")
    assert (status, "planted: verified in planted" in text) == (0, True)


@pytest.fixture(scope="module")
def runs(place):
    for name in ("runs/monday", "runs/tuesday"):
        write_events(place / name)
    return place / "runs"


def test_a_report_is_written_from_the_events_alone(claims, runs):
    for name in ("index.html", "results.json", "run.json"):
        (runs / "monday" / name).unlink(missing_ok=True)
    status, text = claims("report", "runs/monday")
    assert (status, "report: runs/monday/index.html" in text) == (0, True)
    assert (runs / "monday" / "index.html").exists()
    assert load_results(runs / "monday").verdicts


def test_runs_are_set_side_by_side_in_words_and_as_a_page(claims, runs, place):
    for name in ("monday", "tuesday"):
        claims("report", f"runs/{name}")
    status, text = claims("diff", "runs/monday", "runs/tuesday", "--html", "both.html")
    assert status == 0, text
    assert "compared over 2 runs: 0 changed" in text
    page = (place / "both.html").read_text()
    assert all(name in page for name in ("monday", "tuesday"))
    assert claims("diff", "runs", "--all") == (0, text)


def test_a_page_that_cannot_be_written_is_refused(claims, runs):
    status, text = claims("diff", "runs/monday", "runs/tuesday", "--html", "a-file/both.html")
    assert (status, "cannot write a-file/both.html" in text) == (2, True)


def test_coefficients_of_two_heads_are_written_and_kept(claims, place):
    words = ("llc", "planted", "--weights", "1:2", "--weights", "0:0", "--text", "python-docs", "--chains", "2")
    words += ("--draws", "5", "--batch", "2", "--length", "16", "--device", "cpu", "--json", "llc.json")
    status, text = claims(*words, CIRCUIT_CLAIMS_STORE=str(place / "llc-store"))
    assert status == 0, text
    first = (place / "llc.json").read_text()
    estimates = json.loads(first)["estimates"]
    assert {row["weights"] for row in estimates} == {"1:2", "0:0"}
    assert all(f"Hessian trace {row['hessian_trace']:.4g}" in text for row in estimates)
    status, text = claims(*words, CIRCUIT_CLAIMS_STORE=str(place / "llc-store"))
    assert status == 0
    assert text.count("(kept)") == 2 * (2 + 1), "two chains and the Hessian trace of each head"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--weights", "99:0", "--text", "python-docs", "--length", "16"), "(layers 0 to 1)\n  Type: --weights 0:0"),
        (("--weights", "head 3", "--text", "python-docs", "--length", "16"), "Type: --weights 0:0"),
        (("--weights", "1:2", "--text", "python-docs"), "Type: --length 64"),
        (("--weights", "1:2", "--text", "no-such-text"), "no-such-text"),
        (
            ("--weights", "1:2", "--text", "python-docs", "--eps", "-1"),
            "expected a step size above 0, found -1.0\n  Type: --eps 0.001",
        ),
    ],
)
def test_coefficients_that_cannot_be_had_are_refused_in_words(claims, place, words, message):
    status, text = claims("llc", "planted", *words, CIRCUIT_CLAIMS_STORE=str(place / "llc-store"))
    assert status == 2
    assert message in text
    assert "Loading weights" not in text, "transformers' own bar"
