"""Claims on the coefficient's curve on data with a known answer; boundaries of many curves against one at a time."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from circuit_claims.judging.claims import load_paper
from circuit_claims.judging.verdicts import apply_rule
from circuit_claims.papers.refined_llc.runs.recorded_planted import LABELS, TRUE_LEVELS, through_levels
from circuit_claims.papers.refined_llc.stages import boundaries as sb
from circuit_claims.papers.refined_llc.stages import known_curves as known
from circuit_claims.papers.refined_llc.stages.measures import FALL, llc_of, stages

PAPER = load_paper(Path(__file__).resolve().parents[4] / "claims" / "refined_llc" / "paper.toml")
FINDINGS = {
    "RL-02": lambda found: found.boundaries(),
    "RL-02b": lambda found: found.fall(),
    "RL-02c": lambda found: found.first_boundary(),
    "RL-40": lambda found: found.spread(),
    "RL-40b": lambda found: found.corrected_changes(),
    "RL-40c": lambda found: found.surviving_fall(),
}
# A plateau is found to no better than half a doubling, half of a fall to no better than the planted noise allows.
NOT_EVEN_PLANTED = {"RL-02c", "RL-40c"}


@pytest.mark.parametrize("claim", FINDINGS)
def test_a_claim_is_seldom_reproduced_where_it_is_false_and_is_where_it_is_true(planted, claim):
    finding = FINDINGS[claim](stages(planted))
    calibration = finding.calibration_for(PAPER.claim(claim))
    assert finding.measurement.unit == PAPER.claim(claim).unit
    assert calibration.worst is not None
    assert calibration.worst.rate <= 0.10
    outcomes = [oracle.outcome for oracle in calibration.oracles]
    assert outcomes == ["reproduced"] or (claim in NOT_EVEN_PLANTED and outcomes == ["inconclusive"])


def test_a_curve_without_the_fall_is_called_falling_in_a_twentieth(planted):
    """By construction; of 200 at least one but for one time in 28,000, and at most a tenth."""
    calibration = stages(planted).fall().calibration_for(PAPER.claim("RL-02b"))
    assert 0 < calibration.false_alarms[0].rate <= 0.10


def test_what_is_taken_off_the_fall_leaves_the_other_stages_as_they_were(planted):
    curves = llc_of(planted)
    quiet = replace(curves, draw=lambda _: curves.values)
    before = sb.stage_changes(curves.steps, curves.values)
    after = known.without_the_fall(quiet, np.random.default_rng(0)).arrays["y"]
    assert after[FALL] == pytest.approx(0)
    assert np.delete(after, FALL) == pytest.approx(np.delete(before, FALL))
    half = known.half_survives(quiet, np.random.default_rng(0))
    assert half.value == pytest.approx(0.5)
    assert apply_rule(PAPER.claim("RL-40c"), half).outcome == "reproduced"


def one_at_a_time(steps, curve, slope):
    """Boundaries of one smoothed curve, in plain loops."""
    searched, resolved = (int(np.searchsorted(steps, at)) for at in (sb.SEARCHED_FROM, sb.RESOLVED_FROM))
    signs = [at for at in range(resolved, len(slope)) if at == resolved or (slope[at] < 0) != (slope[at - 1] < 0)]
    stretches = [(first, last - 1) for first, last in pairwise([*signs, len(slope)]) if slope[first] < 0]
    falls = [(first, last) for first, last in stretches if first > resolved and last < len(slope) - 1]
    if not falls:
        return [np.nan] * 4
    begin, end = max(falls, key=lambda fall: curve[fall[0]] - curve[fall[1]])
    size = np.abs(slope)
    turns = [at for at in range(1, len(slope) - 1) if size[at - 1] > size[at] <= size[at + 1]]
    limit = sb.FLAT * size[searched:].max()
    before = [at for at in turns if searched < at < begin - 1]
    peak = end + 1 + int(slope[end + 1 :].argmax())
    after = [at for at in turns if at > peak]
    first = [at for at in before if size[at] < limit][-1:] or sorted(before, key=lambda at: size[at])[:1]
    fourth = [at for at in after if size[at] < limit][:1] or after[:1]
    places = [*(first or [None]), begin, end, *(fourth or [None])]
    return [np.nan if at is None else zero_beside(steps, slope, at) for at in places]


def zero_beside(steps, slope, at):
    for left in (at - 1, at):
        if 0 <= left < len(slope) - 1 and slope[left] * slope[left + 1] < 0:
            share = slope[left] / (slope[left] - slope[left + 1])
            return steps[left] + share * (steps[left + 1] - steps[left])
    return steps[at]


@pytest.mark.parametrize("noise", [0.1, 1.0, 20.0])
def test_boundaries_of_many_curves_are_those_of_each(noise):
    kept = LABELS >= sb.FIRST_STEP
    values = through_levels(TRUE_LEVELS) + noise * np.random.default_rng(0).normal(size=(25, len(LABELS)))
    smoother = sb.fit_smoother(LABELS, values[0])
    curves, slopes = smoother.curves(values[:, kept]), smoother.slopes(values[:, kept])
    slow = [one_at_a_time(smoother.steps, *each) for each in zip(curves, slopes, strict=True)]
    assert np.array_equal(smoother.boundaries(values[:, kept]), slow, equal_nan=True)
