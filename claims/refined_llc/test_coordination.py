"""Section 4.3 and interviews: multigrams move from layer 0 to layer 1, whose heads come to work together."""

from circuit_claims.api import claim
from circuit_claims.papers.refined_llc.curves import evidence as show
from circuit_claims.papers.refined_llc.curves.findings import coefficients
from circuit_claims.papers.refined_llc.curves.settings import settings_of
from circuit_claims.papers.refined_llc.multigrams import evidence as together
from circuit_claims.papers.refined_llc.multigrams.findings import PathAblations


@claim("RL-30")
def test_layer_0_peaks_while_layer_1_still_rises(subject, judge):
    """Section 4.3: against the one-layer reference, layer 0's coefficient falls after LM2."""
    rllc = coefficients(subject)
    peaks = rllc.peak_by_layer()
    title, label = "rLLC against the one-layer reference", "rLLC"
    curves = show.wrllc_curves(rllc.against_reference(), rllc.types, title, label)
    settings = judge.under("RL-30", settings_of(rllc.peaks()))
    judge("RL-30", peaks, evidence=[curves, settings], text=rllc.text_use("training mixture"))


@claim("RL-31")
def test_affected_tokens_come_to_coincide(subject, judge):
    """Section 4.3: tokens affected by multigram heads of both layers coincide more at the end."""
    ablations = PathAblations(subject)
    settings = judge.under("RL-31", settings_of(ablations.overlap_settings()))
    evidence = [together.overlap_bars(ablations), *together.overlap_maps(ablations), settings]
    judge("RL-31", ablations.overlap(), evidence=evidence, text=ablations.text_use())


@claim("RL-31b")
def test_path_ablation_and_composition_agree(subject, judge):
    """Section 4.3: both name the same pairs of heads."""
    ablations = PathAblations(subject)
    settings = judge.under("RL-31b", settings_of(ablations.readers()))
    evidence = [*together.path_ablation_maps(ablations), settings]
    judge("RL-31b", ablations.paths_and_composition(), evidence=evidence, text=ablations.text_use())


@claim("RL-31c")
def test_coordination_carries_nested_brackets(subject, judge):
    """Section 4.3: paths between multigram heads matter most where nested brackets and quotes close."""
    ablations = PathAblations(subject)
    settings = judge.under("RL-31c", settings_of(ablations.nested_settings()))
    judge("RL-31c", ablations.nested_closers(), evidence=[*together.nested_table(ablations), settings])
