"""The section on natural text: what the successor head does on real text, and how much of the loss it saves there."""

from circuit_claims.api import claim
from circuit_claims.papers.successor_heads.natural_text.evidence import (
    behaviour_bars,
    ceilings,
    head_chosen,
    heads_by_wins,
    heads_on_listings,
    listing_passages,
    loss_bars,
    paper_shares,
    passages,
    rules_agree,
    shares_by_kind,
    spread_bars,
)
from circuit_claims.papers.successor_heads.natural_text.on_text import head_on_text

PAPER = paper_shares(__file__)
SHARES = shares_by_kind(PAPER)
# The shares of the paper's table that no other claim is about: by claim the kind of case and the behaviour.
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


@claim("SH-21", "SH-21b", "SH-21c", "SH-21d")
def test_what_it_wins_is_mostly_succession(subject, text, judge):
    """Natural text: of the cases in which the head matters most, most are one of four behaviours, succession first."""
    head, claimed = head_on_text(subject, text), SHARES["winning"]
    bars, which = behaviour_bars(head, PAPER, "winning"), [head_chosen(head), heads_by_wins(head)]

    def succession(one):
        return one.winning_share("successorship", claimed=claimed)

    def first(one):
        return one.winning_leads(claimed)

    def any_of_four(one):
        return one.winning_share(claimed=claimed)

    settings = judge.under("SH-21", head.by_other_rules(succession))
    judge("SH-21", succession(head), evidence=[settings, ceilings(head), bars, *which, passages(head)])
    judge("SH-21b", first(head), evidence=[judge.under("SH-21b", head.by_other_rules(first)), bars])
    agree = rules_agree(head)
    judge("SH-21c", any_of_four(head), evidence=[judge.under("SH-21c", head.by_other_rules(any_of_four)), bars, agree])
    judge("SH-21d", head.spread(), evidence=[spread_bars(head)])


@claim("SH-22", "SH-22b", "SH-22c", "SH-22d", "SH-22e")
def test_succession_leads_where_the_direct_effect_counts(subject, text, judge):
    """Natural text: in the cases whose loss the head reduces, succession leads unless the direct effect is left out."""
    head = head_on_text(subject, text)
    bars, more = behaviour_bars(head, PAPER), [ceilings(head), passages(head, "direct, mean")]
    rows = {
        "SH-22": ("direct", "resample"),
        "SH-22b": ("direct", "mean"),
        "SH-22c": ("total", "mean"),
        "SH-22d": ("total", "resample"),
    }
    for claim_id, (effect, ablation) in rows.items():
        claimed = SHARES[f"{effect}, {ablation}"]

        def share(one, effect=effect, ablation=ablation, claimed=claimed):
            return one.reducing_share(effect, ablation, claimed)

        settings = judge.under(claim_id, head.by_other_rules(share))
        judge(claim_id, share(head), evidence=[settings, bars, *(more if claim_id == "SH-22" else [])])

    def leads(one):
        return one.reducing_leads("direct", "total", claimed=SHARES)

    settings = judge.under("SH-22e", head.by_other_rules(leads))
    judge("SH-22e", leads(head), evidence=[settings, bars, rules_agree(head)])


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
    judge_shares(judge, head_on_text(subject, text), OTHER_SHARES)


@claim("SH-21f", "SH-22t", "SH-22u", "SH-22v", "SH-22w", "SH-22x")
def test_the_shares_of_greater_than(subject, text, judge):
    """Natural text: how many of its cases show greater-than, where numbers are whole tokens."""
    judge_shares(judge, head_on_text(subject, text), GREATER_SHARES)


def judge_shares(judge, head, claims):
    """Judge the share of each claim's behaviour among its kind of case."""
    for claim_id, (kind, behaviour) in claims.items():

        def share(one, kind=kind, behaviour=behaviour):
            if kind == "winning":
                return one.winning_share(behaviour, claimed=SHARES[kind])
            effect, ablation = kind.split(", ")
            return one.reducing_share(effect, ablation, SHARES[kind], behaviour)

        settings = judge.under(claim_id, head.by_other_rules(share))
        judge(claim_id, share(head), evidence=[settings, behaviour_bars(head, PAPER, kind)])


@claim("SH-22f")
def test_greater_than_leads_in_the_indirect_effect(subject, text, judge):
    """Natural text: in the indirect effect alone succession does not lead; greater-than does."""
    head = head_on_text(subject, text)

    def leads(one):
        return one.reducing_leads("indirect", claimed=SHARES)

    bars = behaviour_bars(head, PAPER, "indirect, mean", "indirect, resample")
    judge("SH-22f", leads(head), evidence=[judge.under("SH-22f", head.by_other_rules(leads)), bars])


@claim("SH-23")
def test_it_wins_on_numbered_lists(subject, text, judge):
    """Natural text: on 64 listings from real text L12H0 is the winning head in 64."""
    listings = head_on_text(subject, text).listings()
    judge(
        "SH-23", listings.won(), evidence=[heads_on_listings(listings), listing_passages(listings)], text=listings.text
    )


@claim("SH-23b")
def test_it_saves_loss_where_succession_is_involved(subject, text, judge):
    """Natural text: the head is important for a low loss on examples that involve succession."""
    head = head_on_text(subject, text)
    judge("SH-23b", head.saves_on_succession(), evidence=loss_bars(head))
