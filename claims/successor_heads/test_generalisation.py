"""Section 3 and the appendix on training: beyond the dataset, and over training."""

from circuit_claims.api import claim
from circuit_claims.papers.successor_heads.beyond.evidence import curve_over_training, numerals_null
from circuit_claims.papers.successor_heads.beyond.held_out import roman_numerals
from circuit_claims.papers.successor_heads.beyond.training import emergence


@claim("SH-24")
def test_the_head_counts_in_roman_numerals(subject, judge):
    """Section 3: the leading head of Pythia models generalises to Roman numerals."""
    roman = roman_numerals(subject)
    judge("SH-24", roman.score(), evidence=[numerals_null(roman)])


@claim("SH-24b")
def test_the_head_does_not_count_in_roman_numerals(subject, judge):
    """Section 3: the leading head of Llama-2-7B does not."""
    roman = roman_numerals(subject)
    judge("SH-24b", roman.score(absent=True), evidence=[numerals_null(roman)])


@claim("SH-25")
def test_the_head_emerges_without_a_phase_change(subject, judge):
    """Appendix: successor heads emerge over training with no phase change."""
    training = emergence(subject)
    judge("SH-25", training.steepest_doubling(), evidence=[curve_over_training(training)])
