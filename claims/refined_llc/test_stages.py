"""Section 2.1 and Hoogland et al. 2024: the stages of training, read off the coefficient's curve."""

from circuit_claims.papers.refined_llc.stages import run_evidence as show
from circuit_claims.papers.refined_llc.stages.measures import stages
from circuit_claims.running.plugin import claim


@claim("RL-02", "RL-02c")
def test_stages_end_at_critical_points(subject, judge):
    """Boundaries are where the derivative of the LLC in log step vanishes."""
    found = stages(subject)
    settings = judge.under("RL-02", found.settings())
    evidence = [show.coefficient_curves(found), show.boundaries_table(found), settings]
    judge("RL-02", found.boundaries(), evidence=evidence)
    judge("RL-02c", found.first_boundary(), evidence=[show.boundaries_table(found)])


@claim("RL-02b")
def test_the_third_stage_is_a_fall(subject, judge):
    """The coefficient goes down in LM3, between two climbs."""
    found = stages(subject)
    judge("RL-02b", found.fall(), evidence=[show.changes_table(found), show.coefficient_curves(found)])


@claim("RL-40")
def test_the_spread_over_chains_follows_the_loss(subject, judge):
    """The published estimator subtracts (k/20) of the initial loss in chain k."""
    found = stages(subject)
    judge("RL-40", found.spread(), evidence=[show.spread_scatter(found)])


@claim("RL-40b", "RL-40c")
def test_the_fall_survives_the_correction(subject, judge):
    """With one initial loss for all chains the stages keep their signs, and LM3 half of its fall."""
    found = stages(subject)
    judge("RL-40b", found.corrected_changes(), evidence=[show.changes_table(found), show.coefficient_curves(found)])
    judge("RL-40c", found.surviving_fall(), evidence=[show.changes_table(found)])
