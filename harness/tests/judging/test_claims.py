"""Claim files: complete ones are read as they stand, incomplete ones are refused by name."""

import tomllib
from pathlib import Path

import pytest
from circuit_claims.judging.claims import Claim, ClaimError, load_deviations, load_paper, load_papers, trust_words

CITATION = """
[paper]
id = "toy"
title = "A paper"
authors = ["A. Person"]
venue = "Nowhere 2024"
year = 2024
url = "https://example.org"
"""
CLAIM = """
[[claim]]
id = "TY-01"
title = "The score is a half"
locus = "section 1"
kind = "value"
quantity = "score"
unit = "share"
expected = 0.5
trust = "P"
margin = 0.1
margin_reason = "one digit is given"
subjects = ["toy-model"]
text = "none: weights only"
controls = ["shuffled"]
cost = "seconds"
"""
FIELDS = tuple(tomllib.loads(CLAIM)["claim"][0])


def write(folder: Path, text: str) -> Path:
    path = folder / "paper.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_complete_claim_is_read_as_it_stands(tmp_path):
    claim = load_paper(write(tmp_path, CITATION + CLAIM)).claims[0]
    assert (claim.id, claim.paper, claim.expected, claim.trust) == ("TY-01", "toy", 0.5, "P")
    assert claim.scope_of("toy-model") == "reproduction"
    assert claim.scope_of("another-model") == "generalisation"


SCOPES = 'subjects = { reproduction = ["a"], reanalysis = ["b"], replication = ["c", "d"], generalisation = ["e"] }\n'


def test_a_claim_says_what_its_subjects_count_as(tmp_path):
    claim = load_paper(write(tmp_path, CITATION + CLAIM.replace('subjects = ["toy-model"]\n', SCOPES))).claims[0]
    assert claim.listed == ("a", "b", "c", "d", "e")
    assert {name: claim.scope_of(name) for name in ("a", "b", "c", "d", "e", "f", "a (local)")} == {
        "a": "reproduction", "b": "reanalysis", "c": "replication", "d": "replication", "e": "generalisation",
        "f": "generalisation", "a (local)": "generalisation",
    }  # fmt: skip


def test_a_claim_may_list_nobody_where_others_are_asked(tmp_path):
    nobody = CITATION + CLAIM.replace('["toy-model"]', "[]")
    claim = load_paper(write(tmp_path, nobody)).claims[0]
    assert (claim.listed, claim.scope_of("gpt2"), claim.others) == ((), "generalisation", True)
    with pytest.raises(ClaimError, match="nobody would be asked"):
        load_paper(write(tmp_path, nobody + "others = false\n"))


@pytest.mark.parametrize(
    ("subjects", "complaint"),
    [
        ('{ reproduction = ["a"], replication = ["a"] }', "found twice: a"),
        ('{ reproduced = ["a"] }', "subjects.reproduced"),
        ('{ control = ["a"] }', "subjects.control"),
        ('{ reproduction = "a" }', "subjects.reproduction"),
        ('{ reproduction = [""] }', "subjects.reproduction"),
    ],
)
def test_scopes_that_say_nothing_clear_are_refused(tmp_path, subjects, complaint):
    with pytest.raises(ClaimError, match=complaint):
        load_paper(write(tmp_path, CITATION + CLAIM.replace('["toy-model"]', subjects)))


def test_what_a_paper_says_of_all_its_claims_holds_for_those_that_say_nothing(tmp_path):
    usual = CITATION + 'others = false\n[paper.subjects]\nreplication = ["run"]\n'
    silent = CLAIM.replace('subjects = ["toy-model"]\n', "").replace("TY-01", "TY-02")
    first, second = load_paper(write(tmp_path, usual + CLAIM + "others = true\n" + silent)).claims
    assert (first.subjects, first.others) == ({"reproduction": ("toy-model",)}, True)
    assert (second.subjects, second.others) == ({"replication": ("run",)}, False)


def test_a_claim_says_whose_sentence_it_is(tmp_path):
    text = CITATION + CLAIM + CLAIM.replace("TY-01", "TY-02") + 'origin = "later work"\n'
    assert [claim.origin for claim in load_paper(write(tmp_path, text)).claims] == ["paper", "later work"]
    with pytest.raises(ClaimError, match="origin"):
        load_paper(write(tmp_path, CITATION + CLAIM + 'origin = "ours"\n'))


@pytest.mark.parametrize(("old", "new"), [("TY-01", "TZ-01"), ('id = "toy"', 'id = "other"')])
def test_ids_are_unique_over_the_papers_of_a_run(tmp_path, old, new):
    """Of papers and of claims; a clash names both files."""
    for name, text in (("a", CITATION + CLAIM), ("b", (CITATION + CLAIM).replace(old, new))):
        (tmp_path / name).mkdir()
        write(tmp_path / name, text)
    with pytest.raises(ClaimError, match="is given twice") as caught:
        load_papers(tmp_path)
    assert all(str(tmp_path / name / "paper.toml") in str(caught.value) for name in ("a", "b"))
    assert len(load_papers(tmp_path / "a", tmp_path / "a", tmp_path / "a")) == 1, "one folder named twice is one paper"


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ("N", "the authors' published numbers"),
        ("P, N", "stated in the paper; the authors' published numbers"),
        ("?", "not given by the paper"),
        ("S, ?", "from reviews or reading notes only; its value not given by the paper"),
    ],
)
def test_trust_marks_in_words(marks, words):
    assert trust_words(marks) == words


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_refused_by_name(tmp_path, field):
    lines = [line for line in CLAIM.splitlines() if not line.startswith(f"{field} =")]
    with pytest.raises(ClaimError, match=field) as caught:
        load_paper(write(tmp_path, CITATION + "\n".join(lines)))
    assert "expected this field" in str(caught.value)


def test_an_unknown_field_is_refused(tmp_path):
    with pytest.raises(ClaimError, match="tolerance: is not a field"):
        load_paper(write(tmp_path, CITATION + CLAIM + "tolerance = 3\n"))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('trust = "P"', 'trust = "X"', "trust"),
        ('trust = "P"', 'trust = "P N"', "trust"),
        ('kind = "value"', 'kind = "guess"', "kind"),
        ("expected = 0.5", 'expected = "half"', "must be a number"),
        ("margin = 0.1", "margin = -0.1", "margin"),
        ('controls = ["shuffled"]', "controls = []", "controls"),
        ('kind = "value"', 'kind = "identity"', "must be a label"),
        ('kind = "value"', 'kind = "order"', "two or more labels"),
        ('kind = "value"', 'kind = "curve"', "points"),
    ],
)
def test_a_field_of_the_wrong_form_is_refused(tmp_path, old, new, complaint):
    with pytest.raises(ClaimError, match=complaint):
        load_paper(write(tmp_path, CITATION + CLAIM.replace(old, new)))


def test_a_label_claim_needs_its_margin_as_a_share(tmp_path):
    text = CLAIM.replace('"value"', '"identity"').replace("= 0.5", '= "L1H2"').replace("margin = 0.1", "margin = 3.0")
    with pytest.raises(ClaimError, match="share of resamples"):
        load_paper(write(tmp_path, CITATION + text))


def test_broken_toml_says_where(tmp_path):
    with pytest.raises(ClaimError, match="line 3"):
        load_paper(write(tmp_path, "[paper]\nid = 'x'\ntitle = \n"))


def test_two_claims_of_one_id_are_refused(tmp_path):
    with pytest.raises(ClaimError, match="TY-01 is given twice"):
        load_paper(write(tmp_path, CITATION + CLAIM + CLAIM))


def test_deviations_need_reason_and_date(tmp_path):
    path = tmp_path / "deviations.toml"
    path.write_text('[[deviation]]\nclaim = "TY-01"\nsubject = "m"\ndate = 2026-01-01\n')
    with pytest.raises(ClaimError, match="reason: expected this field"):
        load_deviations(path)
    assert load_deviations(tmp_path / "none.toml") == ()


def test_a_deviation_that_cannot_be_used_is_named_with_its_file(tmp_path):
    path = tmp_path / "deviations.toml"
    assert load_deviations(path) == ()
    path.write_text("")
    assert load_deviations(path) == ()
    path.write_text('[[deviation]]\nclaim = "TY-01"\n\n[[deviation]]\nsubject = "gpt2"\n')
    with pytest.raises(ClaimError) as error:
        load_deviations(path)
    assert str(error.value).splitlines()[0] == f"{path}: deviation TY-01 cannot be used"
    path.write_text('[[deviation]]\nsubject = "gpt2"\n')
    with pytest.raises(ClaimError, match="deviation without claim cannot be used"):
        load_deviations(path)


def test_every_claim_of_the_project_names_a_margin_reason_and_a_control():
    papers = load_papers(Path(__file__).resolve().parents[3] / "claims")
    claims = [claim for paper in papers for claim in paper.claims]
    assert {claim.id[:5] for claim in claims} >= {
        *(f"SH-{number:02d}" for number in (1, 4, 5, 6, 7, 8, 9, 24, 25, 26, 27)),
        *(f"RL-{number:02d}" for number in (1, 2, 3, 4, 10, 11, 12, 13, 14, 20, 21, 22, 30, 31, 32, 40)),
    }
    assert all(isinstance(claim, Claim) and claim.margin_reason and claim.controls for claim in claims)
