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
from circuit_claims.papers.successor_heads.natural_text.on_text import by_every_rule, head_on_text, judge_share

PAPER = paper_shares(__file__)
SHARES = shares_by_kind(PAPER)


@claim("SH-21", "SH-21b", "SH-21c", "SH-21d")
def test_what_it_wins_is_mostly_succession(subject, text, judge):
    """Natural text: of the cases in which the head matters most, most are one of four behaviours, succession first."""
    head, claimed = head_on_text(subject, text), SHARES["winning"]
    bars, which = behaviour_bars(head, PAPER, "winning"), [head_chosen(head), heads_by_wins(head), passages(head)]
    judge_share(judge, head, SHARES, "SH-21", "winning", "successorship", [ceilings(head), bars, *which])
    by_every_rule(judge, "SH-21b", head, lambda one: one.winning_leads(claimed), [bars])
    by_every_rule(judge, "SH-21c", head, lambda one: one.winning_share(claimed=claimed), [bars, rules_agree(head)])
    judge("SH-21d", head.spread(), evidence=[spread_bars(head)])


@claim("SH-22", "SH-22b", "SH-22c", "SH-22d", "SH-22e")
def test_succession_leads_where_the_direct_effect_counts(subject, text, judge):
    """Natural text: in the cases whose loss the head reduces, succession leads unless the direct effect is left out."""
    head = head_on_text(subject, text)
    bars, more = behaviour_bars(head, PAPER), [ceilings(head), passages(head, "direct, mean")]
    judge_share(judge, head, SHARES, "SH-22", "direct, resample", "successorship", [bars, *more])
    judge_share(judge, head, SHARES, "SH-22b", "direct, mean", "successorship", [bars])
    judge_share(judge, head, SHARES, "SH-22c", "total, mean", "successorship", [bars])
    judge_share(judge, head, SHARES, "SH-22d", "total, resample", "successorship", [bars])

    def leads(one):
        return one.reducing_leads("direct", "total", claimed=SHARES)

    by_every_rule(judge, "SH-22e", head, leads, [bars, rules_agree(head)])


@claim("SH-22f")
def test_greater_than_leads_in_the_indirect_effect(subject, text, judge):
    """Natural text: in the indirect effect alone succession does not lead; greater-than does."""
    head = head_on_text(subject, text)
    bars = behaviour_bars(head, PAPER, "indirect, mean", "indirect, resample")
    by_every_rule(judge, "SH-22f", head, lambda one: one.reducing_leads("indirect", claimed=SHARES), [bars])


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
