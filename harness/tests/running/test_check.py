"""`claims check`: what ships is sound, and every fault is refused without measuring, with its nearest name."""

from __future__ import annotations

import subprocess
import sys

import pytest
from circuit_claims.judging.claims import ClaimError
from circuit_claims.places import CHECKOUT
from circuit_claims.running.authoring.check import check_papers
from circuit_claims.running.authoring.scaffold import new_paper

from tests.helpers import forked


@pytest.fixture
def folder(tmp_path):
    return new_paper("trial", tmp_path).folder


def faults(folder) -> str:
    return "\n".join(check_papers((), folder.parents[1]).faults)


def change(folder, file, old, new):
    path = folder / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_what_ships_is_sound():
    checked = check_papers((), CHECKOUT)
    assert checked.faults == ()
    assert (checked.papers, checked.claims > 50, checked.tests > 40, checked.evidence > 50) == (2, True, True, True)


FAULTS = [
    ("paper.toml", '["gpt2"]', '["gtp2"]', ("TRI-01: unknown subject 'gtp2'", "nearest   gpt2")),
    ("paper.toml", '"none: random tokens"', '"pyton-docs"', ("unknown text 'pyton-docs'", "nearest   python-docs")),
    ("paper.toml", '# requires = ["training_', 'requires = ["trainng_', ("unknown trait", "nearest   training_revis")),
    ("paper.toml", '["shuffled tokens"', '["shufled tokens"', ("unknown control", "nearest   shuffled tokens")),
    ("paper.toml", '["planted induction', '["planted inducton', ("unknown control", "nearest   planted induct")),
    ("paper.toml", '"share of attention"', '"shares"', ("unknown unit 'shares'", "nearest   share")),
    ("paper.toml", '"share of attention"', '"share of atention"', ("unknown unit", "nearest   share of attention")),
    ("paper.toml", "expected = 0.5", "expected = nan", ("expected", "finite")),
    ("paper.toml", "margin = 0.1", "margin = inf", ("margin", "finite")),
    ("test_claims.py", "from .measures", "from .measurs", ("imports 'measurs'", "nearest   measures")),
    ("test_claims.py", "every_head, prefix", "every_heads, prefix", ("imports 'every_heads'", "nearest   every_head")),
    ("paper.toml", "margin_reason =", "margin_reson =", ("margin_reson: is not a field", "nearest margin_reason")),
    ("paper.toml", '"at_least"\n', '"atleast"\n', ("kind:", "'at_least'", "found 'atleast'")),
    ("paper.toml", 'id = "TRI-01"', 'id = "TRI-02"', ("TRI-02 has no test", "no claim TRI-01", "nearest   TRI-02")),
    ("paper.toml", '# contribution = "measures', 'contribution = "measurs', ("measurs.py beside", "neither")),
    ("test_claims.py", '@claim("TRI-01")', '@claim("TRI-10")', ("no claim TRI-10", "TRI-01 has no test")),
    ("test_claims.py", 'judge("TRI-01"', 'judge("TRI-10"', ("judges TRI-10", "TRI-01 is not judged")),
    ("test_claims.py", "(subject, judge)", "(judge)", ("has no argument 'subject'",)),
    ("test_claims.py", "(subject, judge)", "(subject, text, judge)", ("unknown text 'none: random tokens' of TRI-01",)),
    ("test_claims.py", '@claim("TRI-01")', "", ("is a test without a claim", '@claim("TRI-01") over a test')),
    ("test_claims.py", '@claim("TRI-01")', '@claim(*["TRI-01"])', ("one that is computed",)),
    ("measures.py", "vmin=0", "vmn=0", ("measures.py:", "HeadMap: no such field 'vmn'", "nearest   vmin")),
    ("measures.py", 'title="Prefix matching of every head",', "", ("HeadMap: a field is missing", "expected  title")),
    ("measures.py", "return HeadMap(", "return HeadMap(3,", ("HeadMap", "1 without one")),
    ("measures.py", "def every_head", "def every head", ("measures.py: cannot be read",)),
    ("deviations.toml", "# None", '[[deviation]]\nclaim = "TRI-1"', ("deviation TRI-1 cannot be used",)),
]  # fmt: skip


def test_a_function_that_the_contribution_names_has_to_be_there(folder):
    change(folder, "paper.toml", '# contribution = "measures', 'contribution = "brought')
    (folder / "brought.py").write_text(
        "from circuit_claims.api import Contribution, Trait\n"
        'CONTRIBUTION = Contribution(traits={"deep": Trait("shallow", "measures:is_deep")},\n'
        '                            card="measures:every_head")\n'
    )
    (found,) = check_papers((), folder.parents[1]).faults
    assert "measures:is_deep cannot be used" in found
    assert "no such name" in found


@pytest.mark.parametrize(("file", "old", "new", "messages"), FAULTS, ids=[fault[2][:24] for fault in FAULTS])
def test_a_fault_is_named_with_what_was_meant(folder, file, old, new, messages):
    if file == "deviations.toml":
        (folder / file).write_text(new)
    else:
        change(folder, file, old, new)
    found = faults(folder)
    assert all(message in found for message in messages), found
    assert file in found or file == "paper.toml"


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("def test_more(subject, judge):\n    pass\n", '@claim("ID") over a test with `judge`'),
        ('def test_more(subject):\n    judge("TRI-01", 0)\n', '@claim("TRI-01") over a test with `judge`'),
    ],
    ids=["takes judge", "calls judge"],
)
def test_a_test_that_judges_without_a_claim_is_a_fault(folder, test, expected):
    """Such a test fails when it is run: it belongs to no claim."""
    before = check_papers((), folder.parents[1])
    (folder / "test_more.py").write_text(test)
    found = check_papers((), folder.parents[1])
    (fault,) = found.faults
    assert "test_more.py:1: test_more is a test without a claim" in fault
    assert expected in fault
    assert found.tests == before.tests


def test_a_test_that_judges_nothing_needs_no_claim(folder):
    (folder / "test_more.py").write_text("def test_more(subject):\n    assert subject\n")
    assert faults(folder) == ""


def test_a_test_with_a_text_needs_claims_with_one(folder):
    change(folder, "paper.toml", "none: random tokens", "none")
    assert faults(folder) == ""
    change(folder, "test_claims.py", "(subject, judge)", "(subject, text, judge)")
    (fault,) = check_papers((), folder.parents[1]).faults
    assert "unknown text 'none' of TRI-01" in fault
    assert "a name of `claims list --texts`, as the test has the argument `text`" in fault


def test_test_files_are_those_that_pytest_collects(folder):
    (folder / "test_claims.py").rename(folder / "claims_test.py")
    assert faults(folder) == ""
    change(folder, "claims_test.py", 'judge("TRI-01"', 'judge("TRI-10"')
    assert "TRI-01 is not judged" in faults(folder)


def test_a_test_that_hands_its_judge_to_a_function_is_left_to_the_run(folder):
    change(folder, "test_claims.py", '    judge("TRI-01", prefix', "    judge_all(judge, prefix")
    assert faults(folder) == ""


def test_a_deviation_must_be_of_a_claim_and_a_subject_that_there_are(folder):
    entry = '[[deviation]]\nclaim = "TRI-02"\nsubject = "gtp2"\nreason = "r"\ndate = 2026-01-31\n'
    (folder / "deviations.toml").write_text(entry)
    found = faults(folder)
    assert all(words in found for words in ("no claim TRI-02", "nearest   TRI-01", "unknown subject", "nearest   gpt2"))


def test_two_texts_in_one_test_are_refused(folder):
    paper = (folder / "paper.toml").read_text()
    claim = paper[paper.index("[[claim]]") :].replace("TRI-01", "TRI-02").replace("none: random tokens", "python-docs")
    (folder / "paper.toml").write_text(paper.replace("none: random tokens", "pile") + claim)
    change(folder, "test_claims.py", '@claim("TRI-01")', '@claim("TRI-01", "TRI-02")')
    change(folder, "test_claims.py", "(subject, judge)", "(subject, text, judge)")
    change(folder, "test_claims.py", '    judge("TRI-01"', '    judge("TRI-02", None)\n    judge("TRI-01"')
    found = check_papers((), folder.parents[1]).faults
    assert len(found) == 1, found
    assert "two texts in one test" in found[0]
    assert "'pile' of TRI-01, 'python-docs' of TRI-02" in found[0]


def test_a_unit_of_the_paper_s_own_and_a_text_of_its_own_are_known(folder):
    change(folder, "paper.toml", '"share of attention"', '"days of seven"')
    change(folder, "paper.toml", '"none: random tokens"', '"ship-logs"')
    assert "'days of seven'" in faults(folder)
    change(folder, "paper.toml", "# units =", "units =")
    row = 'name = "ship-logs"\ntitle = "t"\nkind = "documents"\nlicence = "l"\nfiles = ["l.jsonl"]\n'
    (folder / "texts.toml").write_text("schema = 1\n[[text]]\n" + row)
    assert faults(folder) == ""


def test_all_faults_of_all_papers_are_listed_and_the_status_is_one(folder):
    second = new_paper("second", folder.parents[1]).folder
    for place in (folder, second):
        change(place, "paper.toml", '["gpt2"]', '["gtp2"]')
        change(place, "measures.py", "vmin=0", "vmn=0")
    done = forked.run(["claims", "check"], folder.parents[1], {"COLUMNS": "80"})
    assert done.status == 1
    assert done.text.count("unknown subject 'gtp2'") == 2
    assert done.text.count("no such field 'vmn'") == 2
    assert "2 papers, 2 claims, 2 tests" in done.text
    assert "faults found: 4" in done.text
    only = check_papers([second], folder.parents[1])
    assert (only.papers, len(only.faults)) == (1, 2), "a folder that is given is checked alone"


def test_two_papers_with_one_id_are_refused(folder):
    second = new_paper("second", folder.parents[1]).folder
    for file in ("paper.toml", "test_claims.py"):
        change(second, file, "SEC-01", "TRI-01")
    assert "the id TRI-01 is given twice" in faults(folder)


def test_a_folder_without_a_paper_is_refused(tmp_path):
    with pytest.raises(ClaimError, match=r"no paper\.toml in it"):
        check_papers([tmp_path], tmp_path)


def test_checking_imports_no_torch():
    code = (
        "import sys; from pathlib import Path; from circuit_claims.running.authoring.check import check_papers; "
        "assert not check_papers((), Path.cwd()).faults; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr
