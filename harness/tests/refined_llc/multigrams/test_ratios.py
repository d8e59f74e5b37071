"""Ratios read off ablations, where the answer is known; false and true data of the claims that rest on them."""

from pathlib import Path

import numpy as np
import pytest
from circuit_claims.judging.claims import load_paper
from circuit_claims.judging.measurement import Measurement
from circuit_claims.judging.statistics import bootstrap_counts
from circuit_claims.judging.verdicts import apply_rule
from circuit_claims.papers.refined_llc.curves.tables import shuffled_pairs
from circuit_claims.papers.refined_llc.multigrams import known_effects as known
from circuit_claims.papers.refined_llc.multigrams import ratios
from circuit_claims.papers.refined_llc.multigrams.ratios import closer_ratio, overlap_growth

PAPER = load_paper(Path(__file__).resolve().parents[4] / "claims" / "refined_llc" / "paper.toml")
FIRST, SECOND = np.arange(8) < 4, np.arange(8) >= 2
BLANK = Measurement("nested", None)
HEADS = [[0, 1, 2], [0, 2]]


def rng(seed=0):
    return np.random.default_rng(seed)


def holds(claim, measurement):
    return apply_rule(PAPER.claim(claim), measurement).outcome == "reproduced"


def rate(claim, draw):
    """The share of 200 data sets that the claim's rule calls reproduced."""
    source = rng(1)
    return np.mean([holds(claim, draw(source)) for _ in range(200)])


def effects(shared, seed=0):
    source = np.random.default_rng(seed)
    common = source.normal(size=(6, 100))
    return shared * common + source.normal(size=(2, 3, 6, 100))


def test_tokens_that_come_to_coincide_do_and_unrelated_ones_do_not():
    heads = [[0, 1, 2], [0, 2]]
    more = overlap_growth(effects(3.0), effects(0.0, 1), heads, 100, np.random.default_rng(0), {})
    assert more.interval.low > 3
    same = overlap_growth(effects(0.0), effects(0.0, 1), heads, 100, np.random.default_rng(0), {})
    assert same.interval.low < 1
    none = overlap_growth(effects(0.0), effects(0.0), [[], [1]], 10, np.random.default_rng(0), {})
    assert none.status == "partial"


def test_the_overlap_is_that_of_a_plain_loop():
    late, early = effects(2.0), effects(1.0, 1)
    found = overlap_growth(late, early, [[0], [1]], 10, np.random.default_rng(0), {})

    def plain(table):
        sets = [set(np.argsort(-table[layer, head].flatten())[:12]) for layer, head in ((0, 0), (1, 1))]
        return len(sets[0] & sets[1]) / len(sets[0] | sets[1])

    assert found.value == pytest.approx(plain(late) / max(plain(early), 1e-12))


def test_a_ratio_at_closers_is_read_against_that_at_the_start():
    source, blank = np.random.default_rng(0), Measurement("nested", None)
    plain = (source.random(40) + 1, source.random(40) + 1)
    found = closer_ratio((3 * plain[0], plain[1]), plain, 200, np.random.default_rng(0), blank)
    assert found.value == pytest.approx(3.0)
    assert found.interval.low > 2
    none = closer_ratio(plain, plain, 200, np.random.default_rng(0), blank)
    assert none.interval.low < 1 < none.interval.high


def test_overlaps_of_rows_drawn_anew_are_those_of_the_rows_themselves():
    """Against the rows drawn one by one; which copies of the last token are taken is left open there."""
    table, counts = effects(1.0), bootstrap_counts(6, 30, rng())
    for top in (0.02, 0.3):
        found = ratios.drawn_overlaps(table, HEADS, counts, top)
        drawn = [table[:, :, np.repeat(np.arange(6), each)] for each in counts]
        slow = np.array([ratios.overlaps(one, top)[np.ix_(*HEADS)].mean() for one in drawn])
        assert found == pytest.approx(slow, abs=0.06)
        assert np.mean(found - slow) == pytest.approx(0, abs=0.01)
    once = np.ones((1, 6), dtype=int)
    assert ratios.drawn_overlaps(table, HEADS, once)[0] == pytest.approx(ratios.overlaps(table)[np.ix_(*HEADS)].mean())


def test_checkpoints_that_differ_in_nothing_seldom_come_to_coincide_and_layers_in_one_order_do():
    late, early = rng().normal(size=(2, 2, 3, 24, 60)) ** 2
    late = late + 0.5 * rng(2).normal(size=(24, 60)) ** 2

    def growth(pair):
        return overlap_growth(*pair, HEADS, 400, rng(), {})

    assert rate("RL-31", lambda source: growth(known.rows_traded(late, early, source))) <= 0.10
    assert holds("RL-31", growth((known.layers_together(late, HEADS), early)))


def test_each_head_keeps_its_effects_where_layers_are_put_in_one_order():
    table = effects(0.0)
    made = known.layers_together(table, HEADS)
    assert (made[0] == table[0]).all()
    assert (np.sort(made[1].reshape(3, -1)) == np.sort(table[1].reshape(3, -1))).all()
    assert ratios.overlaps(made)[np.ix_(*HEADS)].mean() > ratios.overlaps(table)[np.ix_(*HEADS)].mean()


def path_values(source, lead=0.0):
    """Logs with effects of rows, of columns and of each pair; what marked pairs lead by."""
    values = source.normal(size=(8, 1)) + source.normal(size=(1, 8)) + 0.3 * source.normal(size=(8, 8))
    return values + lead * np.outer(FIRST, SECOND)


def test_paths_under_other_names_seldom_lead_and_lifted_ones_do():
    values = path_values(rng(), 2.0)

    def lead(table):
        return ratios.path_lead(table, FIRST, SECOND, BLANK)

    assert rate("RL-31c", lambda source: lead(shuffled_pairs(values, source))) <= 0.10
    assert holds("RL-31c", lead(known.paths_lifted(values, FIRST, SECOND)))
    assert lead(values).redrawn == {"heads": 16}
    none = ratios.path_lead(values, np.zeros(8, dtype=bool), SECOND, BLANK)
    assert (none.status, none.value) == ("partial", None)


def test_a_model_whose_paths_all_matter_more_at_closers_says_nothing_of_multigram_heads():
    source = rng()
    arrays = {"closers": 5 + source.random((8, 8, 20)), "elsewhere": 1 + source.random((8, 8, 20))}
    nested = Measurement("nested", None, arrays=arrays)
    found = ratios.path_lead(ratios.closer_logs(nested), FIRST, SECOND, nested)
    assert found.facts["closers over elsewhere"] > 3
    assert not holds("RL-31c", found)
