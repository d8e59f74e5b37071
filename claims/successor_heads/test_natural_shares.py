"""The section on natural text: the shares of the paper's table beside those of succession."""

from circuit_claims.api import claim
from circuit_claims.papers.successor_heads.natural_text.evidence import behaviour_bars, paper_shares, shares_by_kind
from circuit_claims.papers.successor_heads.natural_text.on_text import head_on_text, judge_share

PAPER = paper_shares(__file__)
SHARES = shares_by_kind(PAPER)
# By claim the kind of case and the behaviour.
OTHER_SHARES = {
    "SH-21e": ("winning", "acronym"),
    "SH-22g": ("direct, mean", "copying"),
    "SH-22h": ("direct, resample", "acronym"),
    "SH-22i": ("direct, resample", "copying"),
    "SH-22j": ("indirect, mean", "successorship"),
    "SH-22k": ("indirect, mean", "acronym"),
    "SH-22l": ("indirect, mean", "copying"),
    "SH-22m": ("indirect, resample", "successorship"),
    "SH-22n": ("indirect, resample", "acronym"),
    "SH-22o": ("indirect, resample", "copying"),
    "SH-22p": ("total, mean", "acronym"),
    "SH-22q": ("total, mean", "copying"),
    "SH-22r": ("total, resample", "acronym"),
    "SH-22s": ("total, resample", "copying"),
}
GREATER_SHARES = {
    "SH-21f": ("winning", "greater-than"),
    "SH-22t": ("direct, resample", "greater-than"),
    "SH-22u": ("indirect, mean", "greater-than"),
    "SH-22v": ("indirect, resample", "greater-than"),
    "SH-22w": ("total, mean", "greater-than"),
    "SH-22x": ("total, resample", "greater-than"),
}


@claim(
    "SH-21e",
    "SH-22g",
    "SH-22h",
    "SH-22i",
    "SH-22j",
    "SH-22k",
    "SH-22l",
    "SH-22m",
    "SH-22n",
    "SH-22o",
    "SH-22p",
    "SH-22q",
    "SH-22r",
    "SH-22s",
)
def test_the_other_shares_of_its_cases(subject, text, judge):
    """Natural text: how many of its cases show an acronym, copying or, in the indirect effect, succession."""
    head = head_on_text(subject, text)
    for claim_id, (kind, behaviour) in OTHER_SHARES.items():
        judge_share(judge, head, SHARES, claim_id, kind, behaviour, [behaviour_bars(head, PAPER, kind)])


@claim("SH-21f", "SH-22t", "SH-22u", "SH-22v", "SH-22w", "SH-22x")
def test_the_shares_of_greater_than(subject, text, judge):
    """Natural text: how many of its cases show greater-than, where numbers are whole tokens."""
    head = head_on_text(subject, text)
    for claim_id, (kind, behaviour) in GREATER_SHARES.items():
        judge_share(judge, head, SHARES, claim_id, kind, behaviour, [behaviour_bars(head, PAPER, kind)])
