"""Modal coverage on features whose owners are known: the slow reference, what moves together, and what is redrawn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from circuit_claims.papers.successor_heads.counting.coverage import NOBODY, coverage_of, covered_by_mode
from circuit_claims.papers.successor_heads.counting.known import residues_of_others
from hypothesis import given
from hypothesis import strategies as st

RESIDUE = np.arange(100) % 10
FORMS = np.repeat(np.arange(100), 2)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@given(st.lists(st.lists(st.integers(-1, 3), min_size=20, max_size=20), min_size=1, max_size=3))
def test_coverage_is_the_slow_one(rows):
    """Run by run and residue by residue: the commonest feature's share of all tokens."""
    feature, residue = np.asarray(rows), np.arange(20) % 4
    if (feature == NOBODY).all():
        with pytest.raises(ValueError, match="expected tokens with a most important feature"):
            coverage_of(feature, residue, np.arange(20), rng(), 10)
        return
    shares = []
    for one in range(4):
        mine = feature[:, residue == one]
        if (mine != NOBODY).any():
            counts = [Counter(row[row != NOBODY].tolist()).most_common(1) for row in mine]
            shares.append(np.mean([found[0][1] / 5 if found else 0.0 for found in counts]))
    assert coverage_of(feature, residue, np.arange(20), rng(), 10).value == pytest.approx(np.mean(shares))
    covered = covered_by_mode(feature, residue)
    assert not covered[feature == NOBODY].any()


def test_forms_of_one_string_are_drawn_as_one():
    """Two forms that agree say no more than one; two that are independent say more."""
    own = rng().random((8, 100)) < 0.6
    feature = np.where(own, RESIDUE, 100 + np.arange(800).reshape(8, 100))
    once = coverage_of(feature, RESIDUE, np.arange(100), rng())
    twice = coverage_of(feature[:, FORMS], RESIDUE[FORMS], FORMS, rng())
    assert once.value == pytest.approx(twice.value)
    assert once.interval.width == pytest.approx(twice.interval.width)
    apart = coverage_of(feature[:, FORMS], RESIDUE[FORMS], np.arange(200), rng())
    assert apart.interval.width < twice.interval.width
    assert dict(twice.redrawn) == {"strings": 100, "autoencoders": 8}


def test_runs_and_strings_both_count():
    """Runs that differ as wholes, then strings that do: either alone gives the interval its width."""
    by_run = np.where((np.arange(8) < 4)[:, None], RESIDUE, NOBODY)
    assert coverage_of(by_run, RESIDUE, np.arange(100), rng()).interval.width > 0.4
    by_string = np.where(np.arange(100) < 50, RESIDUE, NOBODY) * np.ones((8, 1), dtype=int)
    assert 0.1 < coverage_of(by_string, RESIDUE, np.arange(100), rng()).interval.width < 0.4


def test_intervals_cover_where_runs_and_strings_have_a_chance_of_their_own():
    """200 data sets, each with 6 runs and 100 strings of different ease: fewer than 165 covered has probability 1 %."""
    generator, covered = np.random.default_rng(1), 0
    for _ in range(200):
        runs, strings = generator.normal(0, 0.15, (6, 1)), generator.normal(0, 0.15, 100)
        own = generator.random((6, 100)) < np.clip(0.6 + runs + strings, 0, 1)
        feature = np.where(own, RESIDUE, 100 + np.arange(600).reshape(6, 100))
        interval = coverage_of(feature, RESIDUE, np.arange(100), generator, 400).interval
        covered += interval.low <= 0.6 <= interval.high
    assert covered >= 165


def test_residues_of_others_keep_forms_alike():
    dealt = residues_of_others(RESIDUE[FORMS], FORMS, rng())
    assert (dealt[::2] == dealt[1::2]).all()
    assert sorted(dealt.tolist()) == sorted(RESIDUE[FORMS].tolist())
    assert (dealt != RESIDUE[FORMS]).any()
