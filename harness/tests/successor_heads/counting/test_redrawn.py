"""What claims on counting generalise over: named, redrawn, refused where it was not, and undecided where it is few."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from circuit_claims.judging.claims import load_paper
from circuit_claims.judging.measurement import Interval, Measurement
from circuit_claims.judging.verdicts import apply_rule, judge
from circuit_claims.papers.successor_heads.counting import known, moduli
from circuit_claims.papers.successor_heads.counting.neurons import (
    PERIODS,
    explained_by_period,
    explained_in_draws,
    votes_on,
)

PAPER = load_paper(Path(__file__).resolve().parents[4] / "claims" / "successor_heads" / "paper.toml")
POSITIONS = np.arange(200)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_claims_that_redraw_nothing_say_that_everything_is_counted():
    counts = [claim for claim in PAPER.claims if not claim.over]
    assert [claim.id for claim in counts] == ["SH-01", "SH-26", "SH-27", "SH-27b"]
    assert all("counted, so that chance has no part in it" in claim.note for claim in counts)


@pytest.mark.parametrize("name", ["SH-11", "SH-12b", "SH-12c", "SH-13", "SH-14", "SH-18", "SH-18b", "SH-25"])
def test_a_measurement_that_redrew_something_else_is_refused(name):
    claim = replace_controls(PAPER.claim(name))
    label = str(claim.expected)
    found = Measurement("a figure", 1.0, Interval(0.9, 1.1), support={label: 1.0}, redrawn={"tokens": 100})
    verdict = judge(claim, found)
    assert verdict.outcome == "failed"
    assert "but the measurement redrew tokens" in verdict.reason
    few = judge(claim, replace(found, redrawn=dict.fromkeys(claim.over, 5)))
    assert few.outcome == "inconclusive"
    assert "needs at least 6" in few.rule


def replace_controls(claim):
    return claim.model_copy(update={"controls": (), "positive_controls": ()})


def probed(days: list[int]) -> Measurement:
    """A table in which the probe mod 7 gets so many days right, one number a probe."""
    index = np.arange(1, 8)
    right = np.arange(7) < np.asarray(days)[:, None]
    predictions = np.where(right, index % 7, (index + 1) % 7)[None]
    return Measurement(
        "probes",
        None,
        arrays={"predictions": predictions, "index": index, "task": np.zeros(7, dtype=int), "string": np.arange(7)},
        facts={"moduli": [7], "tasks": ["days"]},
    )


@pytest.mark.parametrize(
    ("days", "outcome"),
    [
        ([0, 0, 0, 0, 0, 0], "reproduced"),
        ([1, 0, 2, 1, 0, 1], "reproduced"),
        ([7, 6, 7, 7, 6, 7], "contradicted"),
        ([0, 7, 0, 7, 0, 7], "inconclusive"),
        ([0, 0, 0, 0, 0], "inconclusive"),
    ],
)
def test_days_are_counted_and_probes_redrawn(days, outcome):
    table = probed(days)
    found = moduli.count_in_task(table, moduli.right_of(table), "days")
    assert found.value == pytest.approx(np.mean(days))
    assert dict(found.redrawn) == {"probes": len(days)}
    assert 0 <= found.interval.low <= found.value <= found.interval.high <= 7
    assert apply_rule(PAPER.claim("SH-12b"), found).outcome == outcome


def test_an_interval_over_probes_covers_their_mean():
    """1,000 sets of six probes, each right on days at a chance of its own: the truth is covered nine times in ten."""
    generator, covered = np.random.default_rng(0), 0
    for _ in range(1_000):
        counts = generator.binomial(7, generator.beta(4, 4, 6))
        interval = moduli.over_probes(counts, 7)
        covered += interval.low <= 3.5 <= interval.high
    assert 860 <= covered <= 940


def cosines(truth: float, runs: int = 8) -> Measurement:
    """Rows and features whose directions have this cosine, each run and each probe with noise of its own."""
    generator, size = rng(), 64
    row = truth * np.eye(size)[0] + np.sqrt(1 - truth**2) * np.eye(size)[1]
    features = np.eye(size)[0] + 0.5 * generator.normal(size=(runs, 10, size)) / 8
    rows = row + 0.1 * generator.normal(size=(6, 10, size)) / 8

    def of(first, second):
        unit = [each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (first, second)]
        return unit[0] @ np.swapaxes(unit[1], -1, -2)

    whole = rows.sum(0), features.sum(0)
    without = {"autoencoders": of(whole[0], whole[1] - features), "probes": of(whole[0] - rows, whole[1])}
    return known.cosine_of(of(*whole), without, np.ones(10, dtype=bool))


@pytest.mark.parametrize(("truth", "outcome"), [(0.7, "reproduced"), (0.2, "contradicted"), (0.558, "inconclusive")])
def test_rows_and_features_are_alike_as_many_runs_would_have_it(truth, outcome):
    found = cosines(truth)
    assert dict(found.redrawn) == {"autoencoders": 8, "probes": 6}
    assert found.value == pytest.approx(truth, abs=0.02)
    assert found.interval.low <= found.value <= found.interval.high
    assert abs(found.facts["as found"]) < abs(found.value)
    assert apply_rule(PAPER.claim("SH-11"), found).outcome == outcome


def test_few_runs_leave_rows_and_features_open():
    assert apply_rule(PAPER.claim("SH-11"), cosines(0.7, runs=5)).outcome == "inconclusive"


def comb(period: int, strings: np.ndarray = POSITIONS, noise: float = 0.3) -> np.ndarray:
    """Sixteen neurons that are functions of the index mod a period, and noise."""
    generator = np.random.default_rng(period)
    return generator.normal(size=(period, 16))[strings % period] + noise * generator.normal(size=(len(strings), 16))


def voted(curves: np.ndarray, draws: int = 200) -> Measurement:
    ranked = np.tile(np.arange(curves.shape[1]), (draws + 1, 1))
    weights = rng().multinomial(len(curves), np.full(len(curves), 1 / len(curves)), draws)
    return known.period_as_label(votes_on(POSITIONS[: len(curves)], curves, ranked, 0.3, weights))


@pytest.mark.parametrize(
    ("period", "outcome"), [(10, "reproduced"), (7, "contradicted"), (20, "contradicted"), (5, "contradicted")]
)
def test_the_commonest_period_has_rivals(period, outcome):
    found = voted(comb(period))
    assert found.value == str(period)
    assert dict(found.redrawn) == {"strings": 200}
    assert apply_rule(PAPER.claim("SH-13"), found).outcome == outcome
    if outcome == "contradicted":
        assert found.rivals["10"].label == str(period)
        assert found.rivals["10"].ahead > 0.99


def test_neurons_without_a_period_and_two_periods_that_lead_alike_decide_nothing():
    nothing = voted(rng().normal(size=(200, 16)))
    assert nothing.value == "0"
    assert dict(nothing.support) == {"no leader": 1.0}
    halves = voted(np.hstack([comb(10)[:, :8], comb(7)[:, :8]]))
    for found in (nothing, halves):
        assert apply_rule(PAPER.claim("SH-13"), found).outcome == "inconclusive"


def test_a_curve_of_noise_keeps_no_period_when_strings_are_drawn_anew():
    """Positions that are drawn twice explain nothing more: on average no period does better than chance."""
    curves = rng().normal(size=(300, 40))
    weights = rng().multinomial(300, np.full(300, 1 / 300), 100)
    explained = explained_in_draws(np.arange(300), curves, weights).mean((0, 2))
    assert np.abs(explained[: PERIODS.index(20)]).max() < 0.02
    once = explained_in_draws(np.arange(300), curves, np.ones((1, 300), dtype=int))[0]
    assert once == pytest.approx(explained_by_period(np.arange(300), curves), abs=1e-9)
