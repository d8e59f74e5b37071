"""Rules on head scores, calibrated: a shuffled successor map is not called reproduced, a perfect head is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from circuit_claims.judging.claims import load_paper
from circuit_claims.judging.verdicts import apply_rule
from circuit_claims.keeping.cells import MemoryStore
from circuit_claims.keeping.measure import Context
from circuit_claims.papers.successor_heads.amounts import profile_of
from circuit_claims.papers.successor_heads.beyond.held_out import roman_numerals
from circuit_claims.papers.successor_heads.succession.known import KnownAnswers, exchanged
from circuit_claims.papers.successor_heads.succession.measures import Settings, dataset_of, successor_scores, sweep_of
from circuit_claims.papers.successor_heads.succession.paths import input_paths, order_on
from circuit_claims.papers.successor_heads.succession.planted_subject import PlantedSubject
from circuit_claims.papers.successor_heads.succession.quantities import ranking

ROOT = Path(__file__).parents[3]
PAPER = load_paper(ROOT / "claims" / "successor_heads" / "paper.toml")


@pytest.fixture(scope="module")
def planted() -> PlantedSubject:
    return PlantedSubject(Context(MemoryStore(), profile=profile_of("quick")))


FINDINGS = {
    "SH-05": lambda subject: successor_scores(subject).lead_over_runner_up(),
    "SH-07": lambda subject: successor_scores(subject).best_head(),
    "SH-06": lambda subject: successor_scores(subject).no_head(),
    "SH-09": lambda subject: input_paths(subject).order_of("mlp0", "embed"),
    "SH-24": lambda subject: roman_numerals(subject).score(),
    "SH-24b": lambda subject: roman_numerals(subject).score(absent=True),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_a_rule_tells_a_shuffled_map_from_a_perfect_head(planted, name):
    finding, claim = FINDINGS[name](planted), PAPER.claim(name)
    expected = "contradicted" if name in ("SH-06", "SH-24b") else "reproduced"
    assert apply_rule(claim, finding.measurement).outcome == expected
    assert set(claim.over) <= set(finding.measurement.redrawn)
    calibration = finding.calibration_for(claim, draws=60)
    assert calibration.worst is not None
    assert calibration.worst.rate <= 0.10
    assert calibration.oracles
    assert not calibration.blind


def test_the_oracle_of_the_lead_is_a_ceiling_over_heads_at_chance(planted):
    """SH-05: one head right on every pair, in every draw; all others, the second planted head too, at chance."""
    scores = successor_scores(planted)
    known, row = scores._known, int(ranking(scores.table, "score")[0])
    shuffled = known.shuffled(np.random.default_rng(scores.settings.seed))
    perfect = known.perfect(shuffled, [row])
    others = np.delete(np.arange(len(perfect.heads)), row)
    assert perfect.hits[row].all()
    np.testing.assert_allclose(perfect.draws["score"][:, row], 1, rtol=1e-6)
    assert perfect.score[others].max() == shuffled.score[others].max() < 0.3
    (oracle,) = scores.lead_over_runner_up().oracles.values()
    assert oracle().value == pytest.approx(1 / shuffled.score[others].max())


def test_who_leads_is_told_from_who_is_said_to():
    subject = PlantedSubject(Context(MemoryStore(), profile=profile_of("quick")), heads=((1, 1),))
    finding = successor_scores(subject).leader(planted="L1H1")
    claim = PAPER.claim("SH-04").model_copy(update={"expected": "L1H1"})
    assert apply_rule(claim, finding.measurement).outcome == "reproduced"
    assert apply_rule(claim.model_copy(update={"expected": "L0H0"}), finding.measurement).outcome == "contradicted"
    calibration = finding.calibration_for(claim, draws=60)
    assert calibration.worst is not None
    assert calibration.worst.rate <= 0.10
    assert not calibration.blind


def test_the_true_order_gives_the_scores_of_the_sweep(planted):
    result = sweep_of(planted, Settings(), 10, 10)
    known = KnownAnswers(dataset_of(planted.tokens, Settings()), result.winners.heads, result.winners.winner)
    scores = known.true(np.random.default_rng(0))
    np.testing.assert_allclose(scores.score, result.scores.score)
    np.testing.assert_allclose(scores.macro_score, result.scores.macro_score)
    assert known.perfect(scores, [0]).score[0] == 1.0


def test_passes_exchanged_by_string_keep_every_pair_and_move_forms_together():
    first, second = np.ones((1, 6), dtype=bool), np.zeros((1, 6), dtype=bool)
    one, other = exchanged(first, second, np.array([0, 0, 1, 1, 2, 2]), np.random.default_rng(1))
    assert (one ^ other).all()
    assert (one[0, ::2] == one[0, 1::2]).all()


def test_equal_draws_of_an_order_agree_with_the_measured_one(planted):
    table = input_paths(planted).measured("mlp0", "embed")
    hits = (table.arrays["first"], table.arrays["second"])
    again = order_on(table, ("mlp0", "embed"), hits, np.random.default_rng(0))
    assert again.value == table.value
    assert again.support["mlp0 > embed"] == pytest.approx(table.support["mlp0 > embed"], abs=0.1)
