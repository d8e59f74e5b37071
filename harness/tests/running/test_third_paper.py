"""A paper of somebody else's, in a folder of theirs: listed, collected, run and reported without an edit elsewhere.

Its measures, a kind of subject, an option, amounts, a trait, a command, a model and a text are its own; a second paper
beside it has test files and modules of the same names.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from circuit_claims.api import console

from tests.helpers import forked
from tests.helpers.toy_project import CLAIM, PAPER, as_toml

MEASURES = '''
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from circuit_claims.api import (
    ClaimsOption,
    Contribution,
    Evidence,
    Finding,
    InputError,
    Interval,
    Measurement,
    SubjectKind,
    Trait,
    measure,
)


@dataclass(frozen=True)
class Amounts:
    waves: int


@dataclass(frozen=True)
class Sea:
    name: str
    context: Any
    depth: float

    def identity(self):
        return {"depth": self.depth}

    def card(self):
        return {"title": "a sea"}

    def check_untouched(self):
        pass


def open_sea(row, run):
    return Sea(row.name, run.context, run.options["depth"] or row.settings["depth"])


def state_of_sea(row):
    return f"{row.settings['depth']} deep"


def depth(option, given):
    try:
        return float(given)
    except ValueError:
        raise InputError(f"{option} {given}: expected a number") from None


def is_deep(subject):
    return isinstance(subject, Sea) and subject.depth > 1


def card(subject):
    return {"waves": subject.depth} if isinstance(subject, Sea) else {}


class Chart(Evidence):
    type: ClassVar[str] = "chart"
    soundings: str


def charts():
    return [Chart(title="A chart", soundings="1 2 3")]


def draw_chart(evidence, name):
    from circuit_claims.api import Exhibit

    return Exhibit(title="A chart", text=f"soundings {evidence['soundings']}")


def plumb():
    """Say how deep the sea is."""
    print("PLUMBED")


@measure
def height(subject, *, waves: int) -> Measurement:
    return Measurement("score", subject.depth / waves, Interval(0.6, 0.9), n=waves)


def finding(subject) -> Finding:
    amounts = subject.context.profile.amounts_of("waves")
    flat = Measurement("score", 0.0, Interval(0.0, 0.1))
    return Finding(height(subject, waves=amounts.waves), {"nothing": lambda: flat})


CONTRIBUTION = Contribution(
    options=(ClaimsOption("depth", "how deep the sea is", check="measures:depth"),),
    amounts={name: Amounts(waves) for name, waves in (("quick", 10), ("standard", 100), ("full", 1000))},
    traits={"deep": Trait("not applicable: the sea is shallow", "measures:is_deep")},
    subject_kinds={"sea": SubjectKind("measures:open_sea", "measures:state_of_sea")},
    commands={"plumb": "measures:plumb"},
    figures={"chart": "measures:draw_chart"},
    card="measures:card",
)
'''
TESTS = (
    "from circuit_claims.api import claim\n\nfrom .measures import charts, finding\n\n\n"
    '@claim("{id}")\ndef test_it(subject, judge):\n'
    '    judge("{id}", finding(subject), evidence=charts())\n'
)
RUN = '[[run]]\nname = "{}"\nkind = "sea"\ntitle = "t"\nlicence = "l"\nsource = "s"\nsettings = {{ depth = {} }}\n'
MODELS = (
    'schema = 1\n[[model]]\nname = "toy-lm"\ntitle = "t"\narchitecture = "llama"\nformat = "hf"\nparameters = 10\n'
    'licence = "MIT"\nhub = { repo = "nobody/nowhere" }\n'
)
TEXTS = (
    'schema = 1\n[[text]]\nname = "ship-logs"\ntitle = "t"\nkind = "documents"\nlicence = "l"\nfiles = ["logs.jsonl"]\n'
)
WAVES = {"replication": ["north-sea"], "reanalysis": ["pond"], "reproduction": ["toy-lm"]}
# The second paper's measures have the same names and another answer.
TIDES = (
    "from circuit_claims.api import Finding, Interval, Measurement\n\n\n"
    "def charts():\n    return []\n\n\n"
    "def finding(subject):\n"
    '    flat = Measurement("score", 0.0, Interval(0.0, 0.1))\n'
    '    return Finding(Measurement("score", 0.2, Interval(0.1, 0.3), n=5), {"nothing": lambda: flat})\n'
)


@pytest.fixture
def home(tmp_path) -> Path:
    """A repository of somebody's with papers in `elsewhere/`, far from this clone."""
    for name, claim_id, measures, subjects in (
        ("waves", "TW-01", MEASURES, WAVES), ("tides", "TD-01", TIDES, {"replication": ["north-sea"]}),
    ):  # fmt: skip
        folder = tmp_path / "elsewhere" / name
        folder.mkdir(parents=True)
        paper = PAPER.replace('id = "toy"', f'id = "{name}"')
        claim = CLAIM.format(id=claim_id, subjects=as_toml(subjects))
        if name == "waves":
            paper += 'contribution = "measures:CONTRIBUTION"\n'
            claim += 'requires = ["deep"]\norigin = "derived"\n'
        (folder / "paper.toml").write_text(paper + claim)
        (folder / "measures.py").write_text(measures)
        (folder / "test_heads.py").write_text(TESTS.format(id=claim_id))
    waves = tmp_path / "elsewhere" / "waves"
    (waves / "runs.toml").write_text("schema = 1\n" + RUN.format("north-sea", 70.0) + RUN.format("pond", 0.5))
    (waves / "models.toml").write_text(MODELS)
    (waves / "texts.toml").write_text(TEXTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def run(home: Path, *words: str) -> forked.Done:
    environment = {"CIRCUIT_CLAIMS_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return forked.run(words, home, environment)


def claims_of(home: Path, *words: str) -> forked.Done:
    common = ("-p", "no:cacheprovider", "--claims-report", "out", "--claims-store", "store", "--claims-offline")
    return run(home, "pytest", *words, *common)


def verdicts(home: Path) -> dict[tuple[str, str], dict]:
    results = json.loads((home / "out" / "results.json").read_text())
    return {(verdict["claim"], verdict["subject"]): verdict for verdict in results["verdicts"]}


def test_it_is_run_and_reported_beside_a_paper_with_files_of_the_same_names(home):
    done = claims_of(home, "elsewhere/", "--claims-profile", "quick", "--claims-depth", "8")
    assert done.status == 1, done.text
    found = verdicts(home)
    assert {key: (verdict["outcome"], verdict["scope"]) for key, verdict in found.items()} == {
        ("TW-01", "north-sea"): ("reproduced", "replication"),
        ("TW-01", "pond"): ("reproduced", "reanalysis"),
        ("TW-01", "toy-lm"): ("not here", "reproduction"),
        ("TD-01", "north-sea"): ("contradicted", "replication"),
    }
    judged = found["TW-01", "north-sea"]
    assert judged["measurement"]["value"] == 0.8, "8 deep by the option, 10 waves by the quick profile's amounts"
    assert "--claims-depth 8" in judged["rerun"] or "--depth 8" in judged["rerun"]
    assert found["TW-01", "toy-lm"]["command"] == "claims fetch toy-lm"
    results = json.loads((home / "out" / "results.json").read_text())
    assert {claim["id"]: claim["origin"] for claim in results["claims"]} == {"TW-01": "derived", "TD-01": "paper"}
    cards = {subject["name"]: subject["card"] for subject in results["subjects"]}
    assert cards["north-sea"] == {"title": "a sea", "waves": 8.0}
    page = (home / "out" / "index.html").read_text()
    assert all(words in page for words in ("derived", "A chart", "soundings 1 2 3"))
    assert run(home, "claims", "report", "out").status == 0


def test_a_subject_without_a_trait_is_not_asked_and_its_reason_is_the_paper_s(home):
    assert claims_of(home, "elsewhere/waves").status == 0
    assert verdicts(home)["TW-01", "pond"]["reason"] == "not applicable: the sea is shallow"
    assert verdicts(home)["TW-01", "north-sea"]["measurement"]["value"] == 0.7, "70 deep by its row, 100 waves"


def test_an_option_is_checked_before_anything_is_measured(home):
    done = claims_of(home, "elsewhere/waves", "--claims-depth", "unknown")
    assert done.status == pytest.ExitCode.USAGE_ERROR
    assert "depth unknown: expected a number" in done.text
    assert not (home / "out").exists()


@pytest.mark.parametrize("words", [(), ("--claims-dir", "elsewhere")], ids=["claims/ of this folder", "--claims-dir"])
def test_the_command_line_knows_it(home, words):
    if not words:
        (home / "elsewhere").rename(home / "claims")
    listed, models = run(home, "claims", "list", *words), run(home, "claims", "list", "--subjects", *words)
    texts, doctor = run(home, "claims", "list", "--texts", *words), run(home, "claims", "doctor", *words)
    assert [done.status for done in (listed, models, texts, doctor)] == [0] * 4
    assert "TW-01" in listed.text
    assert "TD-01" in listed.text
    assert all(word in models.text for word in ("toy-lm", "north-sea", "replication", "pond", "reanalysis"))
    assert "ship-logs" in texts.text
    assert "70.0 deep" in doctor.text
    assert f"run with: pytest {words[1] if words else 'claims'}/\n" in doctor.text
    if not words:
        assert "PLUMBED" in run(home, "claims", "plumb").text


INI, PROJECT = "[pytest]\naddopts = -q\n  --claims-dir elsewhere\n", "[tool.pytest.ini_options]\naddopts = {}\n"


@pytest.mark.parametrize(
    ("file", "text", "given", "found"),
    [
        ("pytest.ini", INI, None, "elsewhere"),
        ("pytest.ini", INI, "other", "other"),
        ("pytest.ini", "[pytest]\n", None, None),
        ("pytest.ini", "no section", None, None),
        ("pyproject.toml", PROJECT.format("'--claims-dir=elsewhere'"), None, "elsewhere"),
        ("pyproject.toml", PROJECT.format("['-q', '--claims-dir', 'elsewhere']"), None, "elsewhere"),
        ("pyproject.toml", "[tool]\npytest = 3\n", None, None),
        ("pyproject.toml", "not toml", None, None),
    ],
)
def test_the_folder_that_pytest_is_told_of_is_read(tmp_path, monkeypatch, file, text, given, found):
    (tmp_path / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert console.claims_dir_of_pytest(given and Path(given)) == (found and Path(found))


def test_the_command_line_knows_the_folder_that_pytest_is_told_of(home):
    (home / "pytest.ini").write_text("[pytest]\naddopts = --claims-dir elsewhere\n")
    listed, checked, plumbed = run(home, "claims", "list"), run(home, "claims", "check"), run(home, "claims", "plumb")
    assert "TW-01" in listed.text
    assert "2 papers" in checked.text, checked.text
    assert "PLUMBED" in plumbed.text


@pytest.mark.parametrize(
    ("file", "old", "new", "messages"),
    [
        ("paper.toml", "measures:CONTRIBUTION", "measure:CONTRIBUTION", ("measure.py beside", "neither")),
        ("paper.toml", "measures:CONTRIBUTION", "measures:OTHER", ("OTHER in", "no such name")),
        ("paper.toml", "measures:CONTRIBUTION", "measures", ("a module and a name", "'measures'")),
        ("paper.toml", "measures:CONTRIBUTION", "measures:height", ("expected  a Contribution", "function")),
        ("paper.toml", '"deep"', '"steep"', ("requires the unknown trait 'steep'", "nearest   deep")),
        ("measures.py", "import Any,", "import Nobody,", ("cannot be used", "ImportError", "Nobody")),
        ("measures.py", '"full", 1000', '"huge", 1000', ("none for the profile 'full'", "quick, standard, huge")),
        ("runs.toml", 'kind = "sea"', 'kind = "see"', ("north-sea is of the kind 'see'", "nearest   sea")),
        ("models.toml", '"toy-lm"', '"gpt2"', ("found twice: gpt2, first in", "models.toml")),
        ("test_heads.py", '@claim("TW-01")', '@claim("TD-01")', ("no claim TD-01 in", "waves", "nearest   TW-01")),
    ],
)  # fmt: skip
def test_what_it_brings_wrongly_is_named(home, file, old, new, messages):
    path = home / "elsewhere" / "waves" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    profile = ("--claims-profile", "full") if "1000" in old else ()
    done = claims_of(home, "elsewhere/", *profile)
    assert done.status != 0
    assert all(message in done.text for message in messages), done.text
    assert "INTERNALERROR" not in done.text


def test_a_clash_of_claims_names_both_files(home):
    shutil.copytree(home / "elsewhere" / "waves", home / "elsewhere" / "copy")
    path = home / "elsewhere" / "copy" / "paper.toml"
    path.write_text(path.read_text().replace('id = "waves"', 'id = "copy"'))
    done = claims_of(home, "elsewhere/")
    assert done.status == pytest.ExitCode.USAGE_ERROR
    assert "the id TW-01 is given twice" in done.text
    assert all(str(home / "elsewhere" / name / "paper.toml") in done.text for name in ("copy", "waves"))
