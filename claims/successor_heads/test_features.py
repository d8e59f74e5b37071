"""Section 3: what the head counts by. Mod-10 features, probes of the index, neurons, and index and domain apart."""

from circuit_claims.api import claim
from circuit_claims.papers.successor_heads.counting.evidence import (
    coverage_by_residue,
    decoded_numerals,
    feature_logits,
    firing_curves,
    neuron_spectra,
    probe_accuracy,
    probe_rows_against_features,
    right_by_task,
    shares_of_pairs,
)
from circuit_claims.papers.successor_heads.counting.findings import counting


@claim("SH-10", "SH-12", "SH-12b", "SH-12c", "SH-12e")
def test_a_mod_ten_probe_carries_over_to_other_tasks(subject, judge):
    """Section 3: 94 of 102 tokens out of distribution; no other modulus from 2 to 25 does as well."""
    heads = counting(subject)
    judge("SH-10", heads.right_out_of_distribution(), evidence=[right_by_task(heads.probes())])
    judge("SH-12", heads.best_modulus(), evidence=[probe_accuracy(heads.probes())])
    judge("SH-12e", heads.least_drop())
    judge("SH-12b", heads.right_in("days"))
    judge("SH-12c", heads.right_in("months"))


@claim("SH-10b", "SH-12d")
def test_the_last_digit_carries_over_where_numbers_are_split(subject, judge):
    """Section 3, adapted: the same probes on the residual at the last digit of numbers read in context."""
    heads = counting(subject)
    shown = right_by_task(heads.last_digit(), heads.what_last_digits_hold())
    judge("SH-10b", heads.right_from_the_last_digit(), evidence=[shown])
    judge("SH-12d", heads.best_modulus_of_the_last_digit(), evidence=[probe_accuracy(heads.last_digit())])


@claim("SH-11", "SH-14")
def test_one_feature_stands_for_each_residue(subject, judge):
    """Section 3: f_i, most important to most numbers that end in i, points where the probe's row P_i does."""
    heads = counting(subject)
    judge("SH-11", heads.rows_and_features(), evidence=[probe_rows_against_features(heads.features())])
    judge("SH-14", heads.modal_coverage(), evidence=[coverage_by_residue(heads.features()), *feature_logits(heads)])


@claim("SH-13")
def test_the_important_neurons_fire_every_ten(subject, judge):
    """Section 3: ten is the commonest period among the sixteen neurons whose ablation costs the successor most."""
    heads = counting(subject)
    finding = heads.commonest_period()
    judge("SH-13", finding, evidence=[firing_curves(finding.measurement), neuron_spectra(finding.measurement)])


@claim("SH-19", "SH-19b", "SH-20", "SH-20b")
def test_index_and_domain_are_linear_parts(subject, judge):
    """Section 3: swapped pairs decode as the token with one's index and the other's domain; after the head, fewer."""
    heads = counting(subject)
    judge("SH-19", heads.swapped_pairs("decoded"), evidence=[shares_of_pairs(heads.factored())])
    judge("SH-19b", heads.numerals(), evidence=[decoded_numerals(heads.factored())])
    judge("SH-20", heads.swapped_pairs("counted"))
    judge("SH-20b", heads.numerals_counted_on())
