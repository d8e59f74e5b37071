"""Section 2.1 and Hoogland et al. 2024: the stages of training, read off the coefficient's curve."""

from circuit_claims.api import claim
from circuit_claims.papers.refined_llc.stages import run_evidence as show
from circuit_claims.papers.refined_llc.stages.measures import stages


@claim("RL-02", "RL-02c")
def test_stages_end_at_critical_points(subject, judge):
    """Boundaries are where the derivative of the LLC in log step vanishes."""
    run_stages = stages(subject)
    settings = judge.under("RL-02", run_stages.settings())
    evidence = [show.coefficient_curves(run_stages), show.boundaries_table(run_stages), settings]
    judge("RL-02", run_stages.boundaries(), evidence=evidence)
    judge("RL-02c", run_stages.first_boundary(), evidence=[show.boundaries_table(run_stages)])


@claim("RL-02b")
def test_the_third_stage_is_a_fall(subject, judge):
    """The coefficient goes down in LM3, between two climbs."""
    run_stages = stages(subject)
    judge("RL-02b", run_stages.fall(), evidence=[show.changes_table(run_stages), show.coefficient_curves(run_stages)])


@claim("RL-40")
def test_the_spread_over_chains_follows_the_loss(subject, judge):
    """The published estimator subtracts (k/20) of the initial loss in chain k."""
    run_stages = stages(subject)
    judge("RL-40", run_stages.spread(), evidence=[show.spread_scatter(run_stages)])


@claim("RL-40b", "RL-40c")
def test_the_fall_survives_the_correction(subject, judge):
    """With one initial loss for all chains the stages keep their signs, and LM3 half of its fall."""
    run_stages = stages(subject)
    judge(
        "RL-40b",
        run_stages.corrected_changes(),
        evidence=[show.changes_table(run_stages), show.coefficient_curves(run_stages)],
    )
    judge("RL-40c", run_stages.surviving_fall(), evidence=[show.changes_table(run_stages)])
