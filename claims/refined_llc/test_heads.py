"""Section 4.1 and the appendix on multigrams: what each head has memorised, against its coefficient."""

from circuit_claims.api import claim
from circuit_claims.papers.refined_llc.curves import evidence as show
from circuit_claims.papers.refined_llc.curves.findings import coefficients
from circuit_claims.papers.refined_llc.curves.roles import both_texts
from circuit_claims.papers.refined_llc.curves.settings import settings_of
from circuit_claims.papers.refined_llc.multigrams.evidence import sample_table
from circuit_claims.papers.refined_llc.multigrams.findings import PathAblations
from circuit_claims.papers.refined_llc.stages.run_evidence import loss_curves


@claim("RL-12")
def test_coefficients_go_with_memorised_multigrams(subject, judge):
    """Section 4.1: a head's final wrLLC correlates with the number of multigrams it has memorised."""
    rllc, ablations = coefficients(subject), PathAblations(subject)
    counts = ablations.counts()
    settings = judge.under("RL-12", settings_of(rllc.countings(ablations)))
    heads = [*show.score_curves(subject), show.attention_patterns(subject), *loss_curves(subject)]
    evidence = [show.multigram_scatter(rllc, counts), settings, *sample_table(ablations), *heads]
    texts = [rllc.text_use("training mixture"), ablations.text_use()]
    judge("RL-12", rllc.with_multigrams(counts), evidence=evidence, text=both_texts(*texts))
