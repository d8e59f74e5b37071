"""`claims new`: what it writes is sound, passes without any download, runs beside others, and is refused in words."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import get_args

import pytest
from circuit_claims.errors import InputError
from circuit_claims.judging.claims import AskedScope, Claim, CostClass, Kind, Origin, Paper, load_paper
from circuit_claims.running.authoring.check import check_papers
from circuit_claims.running.authoring.scaffold import TEMPLATES, id_prefix, new_paper

from tests.helpers import forked
from tests.helpers.small_models import save_small_model


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder of somebody's with two papers, each as `claims new` wrote it, and a small random model."""
    root = tmp_path_factory.mktemp("home")
    for name in ("induction_trial", "other_trial"):
        new_paper(name, root)
    save_small_model("llama", root / "small")
    return root


def run(root, *words):
    environment = {"CIRCUIT_CLAIMS_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return forked.run(words, root, environment)


def claims_of(root, *words):
    common = ("-p", "no:cacheprovider", "--claims-report", "out", "--claims-store", "store", "--claims-offline")
    done = run(root, "pytest", *words, *common)
    verdicts = json.loads((root / "out" / "results.json").read_text())["verdicts"]
    shutil.rmtree(root / "out")
    return done, {(verdict["claim"], verdict["subject"]): verdict for verdict in verdicts}


def test_its_lines_are_no_longer_than_the_project_s(home):
    """What is written inside the clone meets the clone's own lint."""
    written = [path for path in (home / "claims").rglob("*") if path.suffix in (".py", ".toml")]
    assert len(written) > 6
    long = [(path.name, line) for path in written for line in path.read_text().splitlines() if len(line) > 120]
    assert [entry for entry in long if entry[0].endswith(".py")] == []


def test_it_passes_as_it_stands_where_there_are_no_weights(home):
    done, verdicts = claims_of(home, "claims/induction_trial")
    assert done.status == 0, done.text
    assert {verdict["outcome"] for verdict in verdicts.values()} == {"not here"}
    assert verdicts["IT-01", "gpt2"]["command"] == "claims fetch gpt2"
    assert "4 passed" in done.text


def test_two_of_them_with_files_of_one_name_give_verdicts_beside_each_other(home):
    done, verdicts = claims_of(home, "claims/", "-k", "test_claims", "--claims-subjects", "small")
    assert done.status == 1, done.text
    for claim in ("IT-01", "OT-01"):
        judged = verdicts[claim, "small"]
        assert (judged["outcome"], judged["scope"]) == ("contradicted", "generalisation"), judged["reason"]
        controls = {control["name"]: control["outcome"] for control in judged["controls"]}
        nothing = dict.fromkeys(("shuffled tokens", "untrained weights"), "contradicted")
        assert controls == {**nothing, "planted induction head": "reproduced"}


def test_both_are_sound_and_listed(home):
    assert check_papers((), home).faults == ()
    listed = run(home, "claims", "list")
    assert (listed.status, "IT-01" in listed.text, "OT-01" in listed.text) == (0, True, True)
    done = run(home, "claims", "check", "claims/other_trial")
    assert (done.status, "1 paper, 1 claim, 1 test, 3 controls, 1 figure: sound" in done.text) == (0, True)


def test_every_field_and_kind_is_explained_in_the_paper_it_writes():
    text = (TEMPLATES / "paper.toml.template").read_text()
    for name in (*Claim.model_fields, *Paper.model_fields):
        if name not in ("paper", "claims", "folder"):  # set by where it stands
            assert re.search(rf"^(# )?{name} = ", text, re.MULTILINE), f"{name} is not explained"
    for kind in get_args(Kind):
        assert f'#   "{kind}" ' in text, f"kind {kind} is not explained"
    for word in (*get_args(AskedScope), *get_args(CostClass), *get_args(Origin)):
        assert word in text


def test_the_example_of_each_kind_is_an_expected_value_of_it(home):
    text = (TEMPLATES / "paper.toml.template").read_text()
    examples = re.findall(r'^#   "(\w+)" .*  expected = (.+)$', text, re.MULTILINE)
    assert {kind for kind, _ in examples} == set(get_args(Kind))
    (claim,) = load_paper(home / "claims" / "induction_trial" / "paper.toml").claims
    for kind, example in examples:
        Claim.model_validate({**claim.model_dump(), "kind": kind, "expected": json.loads(example)})


def test_the_claims_new_command_says_what_it_wrote_and_what_to_type(tmp_path):
    done = run(tmp_path, "claims", "new", "heads", "--into", "papers/ours")
    assert done.status == 0, done.text
    assert "wrote papers/ours/heads/paper.toml" in done.text
    assert "  pytest papers/ours/heads\n" in done.text
    assert not list((tmp_path / "papers" / "ours").glob(".*")), "nothing half written is left"


@pytest.mark.parametrize(
    ("name", "into", "message"),
    [
        ("induction_trial", "claims", "is there already"),
        ("Induction-Heads", "claims", "Type: claims new induction_heads"),
        ("../up", "claims", "expected  lower-case letters"),
        ("class", "claims", "Type: claims new my_paper"),
        ("fine", "../elsewhere", "expected  a folder below"),
        ("fine", "claims/other_trial", "which is a paper itself"),
        ("successor_heads", "claims", "a name that no paper of this run has"),
    ],
)
def test_what_cannot_be_written_is_refused(home, name, into, message):
    before = sorted(path for path in home.rglob("*") if "__pycache__" not in str(path))
    with pytest.raises(InputError, match=re.escape(message)):
        new_paper(name, home, Path(into))
    assert sorted(path for path in home.rglob("*") if "__pycache__" not in str(path)) == before


def test_prefixes_are_ids_of_their_own():
    taken: list[str] = []
    for name in ("a", "heads", "heads_2", "heads_3", "in_context_learning_and_induction_heads", "x9"):
        prefix = id_prefix(name, taken)
        assert re.fullmatch("[A-Z]{2,6}", prefix)
        assert f"{prefix}-01" not in taken
        taken.append(f"{prefix}-01")


def test_a_path_after_subjects_does_not_move_the_run_elsewhere(home):
    """Without an ini file pytest's root is a common ancestor of all paths, here the one above `home`."""
    elsewhere = home.parent / f"{home.name}-models" / "small"
    shutil.copytree(home / "small", elsewhere)
    _, verdicts = claims_of(home, "claims/other_trial", "-k", "test_claims", "--claims-subjects", str(elsewhere))
    assert verdicts["OT-01", "small"]["rerun"].startswith('pytest "claims/other_trial/test_claims.py::')


def test_an_installed_package_is_asked_by_its_name_beside_a_folder_of_claims(home):
    new_paper("packaged", home, Path("package/papers"))
    for folder in ("package", "package/papers"):
        (home / folder / "__init__.py").write_text("")
    done = run(home, "pytest", "--pyargs", "package.papers", "--collect-only", "-q", "--claims-offline")
    assert done.status == 0, done.text
    assert "test_claims.py::test_a_head_attends_to_what_followed_the_last_time[gpt2]" in done.text
