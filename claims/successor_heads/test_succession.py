"""Section 3 and appendix I: which head leads, how far, and whether it passes the paper's threshold."""

from circuit_claims.api import claim
from circuit_claims.papers.successor_heads.succession.evidence import (
    both_weightings,
    null_of_the_maximum,
    path_maps,
    ranked_heads,
    task_bars,
)
from circuit_claims.papers.successor_heads.succession.measures import across_settings, successor_scores


@claim("SH-04")
def test_l12h0_leads(subject, judge):
    """Section 3: the best head of Pythia-1.4B is L12H0."""
    scores = successor_scores(subject, path="mlp0")
    judge("SH-04", scores.leader(planted="L12H0"), evidence=[ranked_heads(scores)])


@claim("SH-05")
def test_one_head_stands_out(subject, judge):
    """Appendix I: the best head's score is eight times the runner-up's."""
    scores = successor_scores(subject, path="mlp0")
    settings = judge.under("SH-05", {name: one.lead_over_runner_up() for name, one in across_settings(subject)})
    judge("SH-05", scores.lead_over_runner_up(), evidence=[ranked_heads(scores), settings])


@claim("SH-06")
def test_no_head_passes_the_threshold(subject, judge):
    """Section 3: GPT-2 Large has no head above 0.5."""
    scores = successor_scores(subject, path="mlp0")
    judge("SH-06", scores.no_head(), evidence=[ranked_heads(scores), null_of_the_maximum(scores)])


@claim("SH-07")
def test_a_successor_head_exists(subject, judge):
    """Section 3: heads above 0.5 exist from 31M to 12B, in GPT-2, Pythia and Llama-2."""
    scores = successor_scores(subject, path="mlp0")
    settings = judge.under("SH-07", {name: one.best_head() for name, one in across_settings(subject)})
    evidence = [*path_maps(subject), task_bars(scores), both_weightings(scores), null_of_the_maximum(scores), settings]
    judge("SH-07", scores.best_head(), evidence=evidence)


@claim("SH-27")
def test_l9h1_alone_gets_every_day(subject, judge):
    """Later work: L9H1 is the only head of GPT-2 small that gets 7 of 7 days."""
    judge("SH-27", successor_scores(subject, path="mlp0").heads_with_every_day())


@claim("SH-27b")
def test_the_others_get_at_most_three_days(subject, judge):
    """Later work: every other head of GPT-2 small gets at most 3 of 7 days."""
    judge("SH-27b", successor_scores(subject, path="mlp0").days_of_the_runner_up())
