"""Training runs as subjects: known by name, asked only of claims that list them, each under a scope of its own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from circuit_claims.keeping.cells import MemoryStore
from circuit_claims.keeping.keys import closure
from circuit_claims.keeping.measure import Context
from circuit_claims.keeping.profiles import PROFILES
from circuit_claims.papers.refined_llc.runs import live
from circuit_claims.papers.refined_llc.runs.recorded import FILE
from circuit_claims.papers.refined_llc.runs.recorded_planted import planted_numbers
from circuit_claims.papers.refined_llc.runs.registry import published_runs
from circuit_claims.papers.refined_llc.runs.training_run import RunNotAvailable
from circuit_claims.places import CLAIMS
from circuit_claims.running.contributions import function_of
from circuit_claims.running.papers import shipped_papers
from circuit_claims.running.selection import Selection, SelectionError, parse_subjects
from circuit_claims.toy.checkpoints import CARD, save_checkpoint
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig

from tests.helpers import forked
from tests.helpers.toy_project import make_project
from tests.running.test_selection import DEFAULTS, OWN, REGISTRY, claim

PAPERS = shipped_papers()
RUNS = PAPERS.runs
CONTRIBUTION = "circuit_claims.papers.refined_llc.contribution:CONTRIBUTION"
SCOPES = {"reproduction": ("L2W256-3m-rr", "L2W256-s-3"), "replication": ("own-run",), "reanalysis": ("recorded-run",)}
NAMES = ("recorded-run", "own-run", "L2W256-3m-rr", "L2W256-s-3")
# A claim of a recorded run, an own run and a published one: what each says of itself is the finding.
TESTS = (
    '@claim("TY-01")\ndef test_it(subject, judge):\n    assert subject.kind == "recorded"\n'
    '    judge("TY-01", found(0.6, 0.9))\n'
)


def selection(text=""):
    wanted = parse_subjects(text, REGISTRY, DEFAULTS, RUNS, OWN)
    return Selection(wanted, DEFAULTS, PROFILES["standard"], frozenset(REGISTRY) | frozenset(RUNS), frozenset(RUNS))


def of_runs(others=False):
    return claim(others, subjects=SCOPES)


def test_the_registry_names_every_run_the_claims_list():
    assert tuple(RUNS) == NAMES
    assert published_runs() == NAMES[2:]
    assert {name: row.kind for name, row in RUNS.items()} == {
        "recorded-run": "recorded",
        "own-run": "own",
        "L2W256-3m-rr": "published",
        "L2W256-s-3": "published",
    }


def test_runs_are_asked_of_the_claims_that_list_them():
    assert [choice.subject for choice in selection().choices(of_runs())] == list(of_runs().listed)
    assert all(choice.asked for choice in selection().choices(of_runs()))
    models = [choice.subject for choice in selection().choices(claim())]
    assert not set(models) & set(NAMES)


def test_a_run_asked_for_by_name_is_not_asked_of_claims_on_models():
    chosen = selection("recorded-run")
    assert {choice.subject: choice.asked for choice in chosen.choices(of_runs())} == {
        name: name == "recorded-run" for name in NAMES
    }
    assert not any(choice.asked for choice in chosen.choices(claim()))
    assert {choice.subject for choice in chosen.choices(claim())} == {"paper-1", "paper-2"}


def test_names_and_groups_of_runs_are_read():
    assert parse_subjects("runs", REGISTRY, DEFAULTS, RUNS, OWN) == NAMES
    assert parse_subjects("paper", REGISTRY, DEFAULTS, RUNS, OWN) == (
        "paper-1",
        "paper-2",
        "L2W256-3m-rr",
        "L2W256-s-3",
    )
    assert parse_subjects("own-run,small", REGISTRY, DEFAULTS, RUNS) == ("own-run", "small")
    with pytest.raises(SelectionError, match="nearest   own-run"):
        parse_subjects("own-runs", REGISTRY, DEFAULTS, RUNS)


def test_a_folder_named_like_a_run_does_not_count_as_it(tmp_path):
    folder = tmp_path / "own-run"
    folder.mkdir()
    label = selection(str(folder)).label(str(folder))
    assert label == "own-run (local)"
    assert of_runs(True).scope_of(label) == "generalisation"


def session(tmp_path, **given):
    options = {"recorded": None, "own-run": tmp_path / "none", **given}
    return SimpleNamespace(texts_dir=None, context=Context(MemoryStore()), options=options)


def open_run(name, run):
    paper, kind = PAPERS.subject_kind(RUNS[name])
    return function_of(paper, kind.open)(RUNS[name], run)


def test_runs_that_are_not_here_say_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setenv("CIRCUIT_CLAIMS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CIRCUIT_CLAIMS_RECORDED", raising=False)
    for name, words in (("recorded-run", "--claims-recorded DIR"), ("own-run", "--claims-own-run CLONE/fixtures/"),
                        ("L2W256-s-3", "claims convert-checkpoint L2W256-s-3")):  # fmt: skip
        with pytest.raises(RunNotAvailable) as caught:
            open_run(name, session(tmp_path))
        assert words in caught.value.command


def own_run(folder: Path) -> Path:
    """Two small checkpoints, the second with other weights, as training leaves them."""
    config = AttentionOnlyConfig(d_model=32, n_heads=2, d_head=16, n_ctx=130)
    folder.mkdir()
    for step in (0, 100):
        save_checkpoint(folder, step, AttentionOnly(config).initialise(seed=step))
    (folder / CARD).write_text(json.dumps({"model": vars(config), "tokenizer": ""}))
    return folder


def test_an_own_run_is_measured_at_each_checkpoint(tmp_path):
    run = open_run("own-run", session(tmp_path, **{"own-run": own_run(tmp_path / "run")}))
    assert (run.kind, run.steps) == ("own", (0, 100))
    curves = run.head_scores("previous")
    assert curves.values.shape == (2, 2, 2)
    assert not (curves.values[0] == curves.values[1]).all()
    drawn = curves.draw(np.random.default_rng(0))
    assert drawn.shape == curves.values.shape
    assert set(run.head_types()) == {"0:0", "0:1", "1:0", "1:1"}
    assert json.loads(json.dumps(run.card()))["checkpoints"] == "0, 100"
    with pytest.raises(RunNotAvailable, match="not measured live"):
        run.llc_curve()


def test_scores_of_a_checkpoint_are_kept_for_its_weights_and_seed(tmp_path, monkeypatch):
    one = session(tmp_path, **{"own-run": own_run(tmp_path / "run")})
    run, made = open_run("own-run", one), []
    scored = live.head_type_scores
    monkeypatch.setattr(live, "head_type_scores", lambda *given: made.append(1) or scored(*given))
    monkeypatch.setattr(live, "closure", lambda *roots: closure(scored))  # the function in the way has no source
    first = run.scores_at(100)
    again = replace(run, _scores={}).scores_at(100)
    assert len(made) == 1
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in vars(first))
    replace(run, _scores={}, seed=run.seed + 1).scores_at(100)
    replace(run, _scores={}).scores_at(0)
    assert len(made) == 3


def runs_project(root: Path, subjects: dict) -> Path:
    """A project with a paper of its own whose claims are asked of this paper's runs."""
    make_project(root, TESTS, conftest="", subjects=subjects, contribution=CONTRIBUTION)
    shutil.copy(CLAIMS / "refined_llc" / "runs.toml", root / "claims" / "toy")
    return root


def test_scopes_are_counted_apart_in_a_run_of_the_claims(tmp_path):
    root = runs_project(tmp_path, {**SCOPES, "reproduction": ["L2W256-3m-rr"]})
    (root / "none").mkdir()
    (root / "numbers").mkdir()
    (root / "numbers" / FILE).write_text(json.dumps(planted_numbers()))
    words = ("pytest", "claims/", "-p", "no:cacheprovider", "--report", "out", "--store", "store")
    environment = {"CIRCUIT_CLAIMS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = forked.run((*words, "--recorded", "numbers", "--own-run", "none"), root, environment)
    assert done.status == 0, done.text
    assert "reproduction: 0 of 0 judged reproduced, 0 contradicted, 0 inconclusive; not judged: 1 not here" in done.text
    assert "reanalysis: 1 of 1 judged reproduced, 0 contradicted, 0 inconclusive" in done.text
    assert "replication: 0 of 0 judged reproduced, 0 contradicted, 0 inconclusive; not judged: 1 not here" in done.text
    results = json.loads((root / "out" / "results.json").read_text())
    left = {verdict["subject"]: verdict for verdict in results["verdicts"] if verdict["outcome"] == "not here"}
    assert left["L2W256-3m-rr"]["command"].startswith("claims convert-checkpoint L2W256-3m-rr")
    assert "pickles" in left["L2W256-3m-rr"]["reason"]
    (judged,) = [verdict for verdict in results["verdicts"] if verdict["outcome"] == "reproduced"]
    assert "--recorded numbers" in judged["rerun"]


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (("--claims-own-run", "nowhere"), ("expected  a folder", "nothing of that name", "Type:")),
        (("--own-run", "nowhere"), ("own-run nowhere", "expected  a folder")),
        (("--claims-recorded", "nowhere"), ("a folder or a file", "nothing of that name", "Type:")),
        (("--recorded", "a-file"), ("recorded a-file", "expected JSON", "Expecting value")),
        (("--recorded", "claims"), ("expected two_layer_attention_only_501_checkpoints.json",)),
    ],
    ids=lambda value: value[0].lstrip("-"),
)
def test_an_option_that_names_nothing_is_refused_before_anything_is_measured(tmp_path, words, messages):
    root = runs_project(tmp_path, {"reanalysis": ["recorded-run"]})
    (root / "a-file").write_text("text")
    done = forked.run(("pytest", "claims/", "-p", "no:cacheprovider", "--report", "out", *words), root, {})
    assert done.status == pytest.ExitCode.USAGE_ERROR
    assert all(message in done.text for message in messages), done.text
    assert "Traceback" not in done.text
    assert not (root / "out").exists()


def test_a_damaged_recorded_file_is_refused_before_anything_is_judged(tmp_path):
    root = runs_project(tmp_path, {"reanalysis": ["recorded-run"]})
    (root / "numbers").mkdir()
    (root / "numbers" / FILE).write_text('{"steps": [0, 100')
    words = ("pytest", "claims/", "-p", "no:cacheprovider", "--report", "out", "--store", "store")
    done = forked.run((*words, "--recorded", "numbers"), root, {"OMP_NUM_THREADS": "1"})
    assert done.status == pytest.ExitCode.USAGE_ERROR
    assert not (root / "out").exists()
    assert "is not the authors' recorded numbers" in done.text
