"""Sections 4.1 and 4.2: what the refined coefficient of a head says of the head, over training and over data."""

from circuit_claims.api import claim
from circuit_claims.papers.refined_llc.curves import evidence as show
from circuit_claims.papers.refined_llc.curves.findings import coefficients
from circuit_claims.papers.refined_llc.curves.settings import settings_of, under_settings
from circuit_claims.papers.refined_llc.multigrams.findings import PathAblations


@claim("RL-10")
def test_multigram_heads_have_higher_coefficients_than_simple_ones(subject, judge):
    """Section 4.1: at the end, heads with low wrLLC do simple things, heads with high wrLLC memorise multigrams."""
    rllc = coefficients(subject)
    settings = judge.under("RL-10", under_settings(rllc.by_kind, rllc.recorded_texts))
    curves = show.wrllc_curves(rllc.table("training mixture"), rllc.types)
    tables = [show.controls_table(rllc, PathAblations(subject)), show.types_table(subject), show.measured_again(rllc)]
    evidence = [curves, *tables, settings]
    judge("RL-10", rllc.by_kind(), evidence=evidence, text=rllc.text_use("training mixture"))


@claim("RL-11")
def test_clusters_of_curves_give_the_head_types(subject, judge):
    """Section 4.1: wrLLC curves of layer 1, clustered by k-means, give the types."""
    rllc = coefficients(subject)
    settings = judge.under("RL-11", settings_of(rllc.clusterings()))
    evidence = [show.cluster_evidence(rllc), settings]
    judge("RL-11", rllc.clusters(), evidence=evidence, text=rllc.text_use("training mixture"))


@claim("RL-13")
def test_heads_start_alike_and_drift_apart(subject, judge):
    """Interviews: the spread over heads grows."""
    rllc = coefficients(subject)
    evidence = [show.wrllc_curves(rllc.table("training mixture"), rllc.types)]
    judge("RL-13", rllc.drift(), evidence=evidence, text=rllc.text_use("training mixture"))


@claim("RL-14")
def test_layer_0_memorises_first(subject, judge):
    """Interviews: memorisation is faster in layer 0 than in layer 1."""
    rllc = coefficients(subject)
    settings = judge.under("RL-14", settings_of(rllc.rises()))
    evidence = [show.layer_curves(rllc), settings]
    judge("RL-14", rllc.rise_by_layer(), evidence=evidence, text=rllc.text_use("training mixture"))


@claim("RL-20")
def test_induction_heads_lead_on_code(subject, judge):
    """Section 4.2: on code the induction heads' wdrLLC is above the other heads'."""
    rllc = coefficients(subject)
    settings = judge.under("RL-20", under_settings(rllc.on_code, rllc.recorded_texts))
    evidence = [*show.code_panels(rllc), settings]
    judge("RL-20", rllc.on_code(), evidence=evidence, text=rllc.text_use("code"))


@claim("RL-20b")
def test_induction_heads_rise_on_code(subject, judge):
    """Section 4.2: the induction heads' wdrLLC is higher on code than on the training mixture."""
    rllc = coefficients(subject)
    texts = rllc.text_use("code", "training mixture")
    judge("RL-20b", rllc.code_against_mixture(), evidence=show.code_panels(rllc), text=texts)


@claim("RL-21")
def test_the_two_induction_heads_separate_on_code(subject, judge):
    """Interviews: alike on the training mixture, apart on code."""
    rllc = coefficients(subject)
    texts = rllc.text_use("code", "training mixture")
    judge("RL-21", rllc.separation(), evidence=show.code_panels(rllc), text=texts)


@claim("RL-22")
def test_the_data_refined_coefficient_differs_by_data(subject, judge):
    """Appendix: drLLCs differ by data."""
    rllc = coefficients(subject)
    judge("RL-22", rllc.data_refined(), evidence=[show.by_data(rllc)], text=rllc.data_texts())
