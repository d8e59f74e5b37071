"""Section 4: vector arithmetic. x = MLP_0(W_E(t)) + k (f_i - f_n), read by the head."""

from circuit_claims.api import claim
from circuit_claims.papers.successor_heads.counting.evidence import (
    bias_by_distance,
    feature_logits,
    in_context_tables,
    scale_sweep,
    steering_map,
    success_by_length,
)
from circuit_claims.papers.successor_heads.counting.findings import USUAL_TASKS, counting


@claim("SH-15")
def test_numbers_can_be_edited(subject, judge):
    """Section 4: 89 % of the cells of numbers 20 to 29 come out as the successor of the edited number."""
    heads = counting(subject)
    judge("SH-15", heads.success("numbers"), evidence=[steering_map(heads, "numbers"), *feature_logits(heads)])


@claim("SH-15b", "SH-16", "SH-16b")
def test_months_can_be_edited_with_twice_the_feature(subject, judge):
    """Section 4: 53 % of the cells of months; the best scale is 2 for months and 1 for every other task."""
    heads = counting(subject)
    judge("SH-15b", heads.success("months"), evidence=[steering_map(heads, "months"), success_by_length(heads)])
    others = [steering_map(heads, task) for task in ("number words", "ordinal words", "digits")]
    judge("SH-16", heads.best_scale(*USUAL_TASKS), evidence=[scale_sweep(heads), *others])
    judge("SH-16b", heads.best_scale("months"), evidence=in_context_tables(heads))


@claim("SH-17")
def test_days_and_letters_cannot(subject, judge):
    """Section 4: the same arithmetic fails on days and letters."""
    heads = counting(subject)
    tables = [steering_map(heads, task) for task in ("days", "letters")]
    judge("SH-17", heads.lead_over_days_and_letters(), evidence=tables)


@claim("SH-18", "SH-18b")
def test_greater_values_are_favoured_by_the_head_and_not_by_its_features(subject, judge):
    """Section 4: the OV circuit puts values above the successor before those below; the mod-10 features do not."""
    heads = counting(subject)
    judge("SH-18", heads.bias_of_the_head(), evidence=[bias_by_distance(heads)])
    judge("SH-18b", heads.bias_of_the_features(), evidence=feature_logits(heads))
