"""Quantities read off a made-up table of cases whose shares, orders and loss are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from circuit_claims.judging.measurement import Measurement
from circuit_claims.papers.successor_heads.natural_text import quantities
from circuit_claims.papers.successor_heads.natural_text.behaviours import BEHAVIOURS
from hypothesis import given, settings
from hypothesis import strategies as st

SUCCESSION, ACRONYM, GREATER, COPYING, OTHER = range(len(BEHAVIOURS))
CONTEXTS, CASES, DRAWS = 12, 40, 300


def table_of(own: list[int], others: list[int], seed: int = 0, **changes: np.ndarray) -> Measurement:
    """Two contexts a document, three heads; the first wins cases of the labels `own`, the others of `others`."""
    generator = np.random.default_rng(seed)
    label = np.stack([generator.choice(labels, (CONTEXTS, CASES)) for labels in (own, others, others)])
    kind = generator.integers(0, 2, (CONTEXTS, CASES)).astype(np.int8)
    arrays = {
        "cluster": np.arange(CONTEXTS) // 2,
        "won": np.ones((3, CONTEXTS, CASES), dtype=bool),
        "label": np.stack([label, label]).astype(np.int8),
        "label_drawn": np.full((CONTEXTS, CASES), OTHER, dtype=np.int8),
        "change": np.ones((6, CONTEXTS // 2, CASES), dtype=np.float32),
        "other_change": np.ones((2, CONTEXTS // 2, CASES), dtype=np.float32),
        "kind": kind,
        "succession": generator.random((CONTEXTS, CASES)) < 0.5,
    }
    return Measurement(
        "made up", None, n=CONTEXTS * CASES, seed=seed, arrays=arrays | changes, facts={"kinds": ["a", "b"]}
    )


def test_shares_are_those_of_the_cases_and_the_interval_holds_them():
    table = table_of([SUCCESSION, SUCCESSION, COPYING, OTHER], [COPYING])
    counted = quantities.winning(table)
    assert counted.n == CONTEXTS * CASES
    assert counted.counts.shape == (CONTEXTS // 2, len(BEHAVIOURS))
    found = quantities.behaviour_share(table, counted, ("successorship",), DRAWS, "cases")
    assert found.value == np.mean(table.arrays["label"][0, 0] == SUCCESSION)
    assert found.interval.low < found.value < found.interval.high
    both = quantities.behaviour_share(table, counted, BEHAVIOURS[:4], DRAWS, "cases")
    assert both.value == pytest.approx(1 - np.mean(table.arrays["label"][0, 0] == OTHER))
    pooled = quantities.winning(table, others=True)
    assert (pooled.n, pooled.shares[COPYING]) == (2 * CONTEXTS * CASES, 1.0)


def test_cases_that_all_agree_still_have_an_interval():
    table = table_of([SUCCESSION], [OTHER])
    found = quantities.behaviour_share(table, quantities.winning(table), ("successorship",), DRAWS, "cases")
    assert found.value == found.interval.high == 1.0
    assert 0.9 < found.interval.low < 1.0


def test_no_case_gives_no_share_and_no_verdict():
    table = table_of([SUCCESSION], [OTHER], won=np.zeros((3, CONTEXTS, CASES), dtype=bool))
    assert math.isnan(
        quantities.behaviour_share(table, quantities.winning(table), ("successorship",), DRAWS, "cases").value
    )
    assert quantities.leads(table, [quantities.winning(table)], "successorship", DRAWS, "cases").status == "partial"
    assert quantities.spread_order(table, DRAWS).status == "partial"


def test_a_document_counts_with_all_its_cases():
    """Cases of one document are drawn together: documents of one kind each give the wider interval."""
    table = table_of([OTHER], [OTHER])
    label = table.arrays["label"].copy()
    label[:, 0, : CONTEXTS // 2] = SUCCESSION
    clustered = quantities.behaviour_share(
        table_of([OTHER], [OTHER], label=label), quantities.winning(table_of([OTHER], [OTHER], label=label)),
        ("successorship",), DRAWS, "cases",
    )  # fmt: skip
    mixed = table_of([SUCCESSION, OTHER], [OTHER])
    spread = quantities.behaviour_share(mixed, quantities.winning(mixed), ("successorship",), DRAWS, "cases")
    assert clustered.interval.width > 3 * spread.interval.width


@pytest.mark.parametrize(
    ("own", "leads"), [([SUCCESSION, SUCCESSION, COPYING], 1.0), ([COPYING, COPYING, SUCCESSION], 0.0), ([OTHER], 0.0)]
)
def test_the_commonest_behaviour_leads(own, leads):
    table = table_of(own, [COPYING])
    found = quantities.leads(table, [quantities.winning(table)], "successorship", DRAWS, "cases")
    assert found.support[f"successorship > {quantities.REST}"] == leads
    assert found.status == "complete"


def test_to_lead_in_all_rows_is_to_lead_in_each():
    table = table_of([SUCCESSION, SUCCESSION, COPYING], [COPYING])
    good, bad = quantities.winning(table), quantities.winning(table, others=True)
    alone = quantities.leads(table, [good, good], "successorship", DRAWS, "x")
    assert alone.support[f"successorship > {quantities.REST}"] == 1.0
    both = quantities.leads(table, [good, bad], "successorship", DRAWS, "x").support
    assert both[f"successorship > {quantities.REST}"] == 0.0


def test_only_cases_whose_loss_rises_are_counted_as_reduced():
    change = np.where(np.arange(CASES) < 10, 1.0, -1.0) * np.ones((6, CONTEXTS // 2, 1))
    table = table_of([SUCCESSION], [COPYING], change=change, other_change=change[:2])
    assert quantities.reducing(table, 3).n == 10 * CONTEXTS // 2
    assert quantities.reducing(table, 0, other=True).shares[COPYING] == 1.0
    assert quantities.reducing(table, 0, labels="label_drawn").shares[OTHER] == 1.0


def test_the_head_that_does_more_things_spreads_wider_and_heads_in_its_place_do_not():
    wide = table_of([SUCCESSION, ACRONYM, GREATER, COPYING], [COPYING, COPYING, COPYING, OTHER])
    order = "the head > matched random heads"
    assert quantities.spread_order(wide, DRAWS).support[order] == 1.0
    narrow = table_of([OTHER], [COPYING, OTHER])
    assert quantities.spread_order(narrow, DRAWS).support[order] == 0.0
    alike = quantities.spread_order(wide, DRAWS, place=None)
    assert 0.05 < alike.support[order] < 0.95


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_share_of_loss_saved_adds_up(seed):
    generator = np.random.default_rng(seed)
    change = generator.normal(1.0, 0.2, (6, CONTEXTS // 2, CASES)).astype(np.float32)
    table = table_of([SUCCESSION], [OTHER], seed, change=change)
    found = quantities.saved(table, 0, 50)
    marks = table.arrays["succession"][: CONTEXTS // 2]
    assert found.share[0] == pytest.approx(float(change[0][marks].sum() / change[0].sum()), rel=1e-5)
    assert found.part == marks.mean()
    assert found.means["all"][0] == pytest.approx(float(change[0].mean()), rel=1e-5)


def test_loss_saved_on_succession_is_found_where_it_is_and_not_where_it_is_not():
    table = table_of([SUCCESSION], [OTHER])
    marks = table.arrays["succession"][: CONTEXTS // 2]
    order = "succession > matched"
    for change, support in ((np.where(marks, 1.0, 0.1), 1.0), (np.where(marks, 0.1, 1.0), 0.0)):
        assert quantities.saves_on_succession(table, 0, DRAWS, change).support[order] == support
    below = quantities.saves_on_succession(table, 0, DRAWS, np.where(marks, -0.1, -1.0))
    assert below.support[order] == 0.0, "to do less harm is not to save"


def test_prompts_are_won_by_the_largest_drop():
    drop = np.zeros((64, 5))
    drop[:, 2] = 1.0
    arrays = {"drop": drop, "cluster": np.arange(64) // 4}
    table = Measurement("made up", None, n=64, seed=0, arrays=arrays)
    won = quantities.prompts_won(table, [2], DRAWS)
    assert (won.value, won.n) == (1.0, 64)
    assert won.interval.low == pytest.approx(0.9543, abs=1e-3), "Clopper and Pearson's for 64 of 64"
    assert quantities.prompts_won(table, [0, 1], DRAWS).value == 0.0
    drop[:32, 3] = 2.0
    assert quantities.prompts_won(table, [2], DRAWS).value == 0.5
