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


def test_runs_count_under_scopes_of_their_own(tmp_path):
    """Listed among the claim's subjects or not: numbers the authors recorded never count as a reproduction."""
    listed = CLAIM.replace('"toy-model"', '"toy-model", "recorded-run", "own-run"')
    for text in (CLAIM, listed):
        claim = load_paper(write(tmp_path, CITATION + text)).claims[0]
        scopes = [claim.scope_of(name) for name in ("toy-model", "recorded-run", "own-run", "own-run (local)")]
        assert scopes == ["reproduction", "reanalysis", "replication", "generalisation"]


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


def test_every_claim_of_the_project_names_a_margin_reason_and_a_control():
    papers = load_papers(Path(__file__).resolve().parents[3] / "claims")
    claims = [claim for paper in papers for claim in paper.claims]
    assert {claim.id[:5] for claim in claims} >= {
        *(f"SH-{number:02d}" for number in (1, 4, 5, 6, 7, 8, 9, 24, 25, 26, 27)),
        *(f"RL-{number:02d}" for number in (1, 2, 3, 4, 10, 11, 12, 13, 14, 20, 21, 22, 30, 31, 32, 40)),
    }
    assert all(isinstance(claim, Claim) and claim.margin_reason and claim.controls for claim in claims)
