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
        "label_correct": np.full((2, CONTEXTS, CASES), COPYING, dtype=np.int8),
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
    found = quantities.behaviour_share(table, counted, ("successorship",), "cases")
    assert found.value == np.mean(table.arrays["label"][0, 0] == SUCCESSION)
    assert found.interval.low < found.value < found.interval.high
    both = quantities.behaviour_share(table, counted, BEHAVIOURS[:4], "cases")
    assert both.value == pytest.approx(1 - np.mean(table.arrays["label"][0, 0] == OTHER))
    pooled = quantities.winning(table, others=True)
    assert (pooled.n, pooled.shares[COPYING]) == (2 * CONTEXTS * CASES, 1.0)


def test_cases_that_all_agree_still_have_an_interval():
    """Each document counts as one case then: nothing is seen of how alike its cases are."""
    table = table_of([SUCCESSION], [OTHER])
    found = quantities.behaviour_share(table, quantities.winning(table), ("successorship",), "cases")
    assert found.value == found.interval.high == 1.0
    assert found.interval.low == pytest.approx(quantities.cluster_share_interval(np.ones(6), np.arange(6)).low)
    assert found.redrawn == {"documents": CONTEXTS // 2}


def test_no_case_gives_no_share_and_no_verdict():
    table = table_of([SUCCESSION], [OTHER], won=np.zeros((3, CONTEXTS, CASES), dtype=bool))
    assert math.isnan(quantities.behaviour_share(table, quantities.winning(table), ("successorship",), "cases").value)
    assert quantities.leads(table, [quantities.winning(table)], DRAWS, "cases").status == "partial"
    assert spread_of(table).status == "partial"


def test_a_document_counts_with_all_its_cases():
    """Cases of one document are drawn together: documents of one kind each give the wider interval."""
    table = table_of([OTHER], [OTHER])
    label = table.arrays["label"].copy()
    label[:, 0, : CONTEXTS // 2] = SUCCESSION
    clustered = quantities.behaviour_share(
        table_of([OTHER], [OTHER], label=label), quantities.winning(table_of([OTHER], [OTHER], label=label)),
        ("successorship",), "cases",
    )  # fmt: skip
    mixed = table_of([SUCCESSION, OTHER], [OTHER])
    spread = quantities.behaviour_share(mixed, quantities.winning(mixed), ("successorship",), "cases")
    assert clustered.interval.width > 3 * spread.interval.width


@pytest.mark.parametrize(
    ("own", "leader", "support"),
    [
        ([SUCCESSION, SUCCESSION, COPYING], "successorship", 1.0),
        ([COPYING, COPYING, SUCCESSION], "copying", 0.0),
    ],
)
def test_the_commonest_behaviour_leads(own, leader, support):
    table = table_of(own, [COPYING])
    found = quantities.leads(table, [quantities.winning(table)], DRAWS, "cases")
    assert (found.value, found.support["successorship"], found.status) == (leader, support, "complete")
    assert found.redrawn == {"documents": CONTEXTS // 2}
    if leader == "copying":
        assert found.rivals["successorship"].label == "copying"
        assert found.rivals["successorship"].ahead > 0.99


def test_cases_of_none_of_the_four_do_not_say_which_leads():
    table = table_of([OTHER], [COPYING])
    label = table.arrays["label"].copy()
    label[:, 0, 0] = SUCCESSION
    few = table_of([OTHER], [COPYING], label=label)
    assert quantities.leads(table, [quantities.winning(table)], DRAWS, "cases").status == "partial"
    found = quantities.leads(few, [quantities.winning(few)], DRAWS, "cases")
    assert (found.n, dict(found.redrawn)) == (CASES, {"documents": 1})


def test_to_lead_in_all_rows_is_to_lead_in_each():
    table = table_of([SUCCESSION, SUCCESSION, COPYING], [COPYING])
    good, bad = quantities.winning(table), quantities.winning(table, others=True)
    alone = quantities.leads(table, [good, good], DRAWS, "x")
    assert alone.support["successorship"] == 1.0
    both = quantities.leads(table, [good, bad], DRAWS, "x")
    assert (both.value, both.support["successorship"]) == (quantities.NONE_LEADS, 0.0)
    assert both.rivals["successorship"].ahead > 0.95, "one row in which another leads is enough"


def test_cases_of_which_it_is_not_known_what_is_promoted_do_not_count():
    table = table_of([SUCCESSION], [OTHER])
    labels = table.arrays["label"][0, 0].copy()
    labels[0] = -1
    assert quantities.count(table, table.arrays["won"][0], labels).n == (CONTEXTS - 1) * CASES


def test_only_cases_whose_loss_rises_are_counted_as_reduced():
    change = np.where(np.arange(CASES) < 10, 1.0, -1.0) * np.ones((6, CONTEXTS // 2, 1))
    table = table_of([SUCCESSION], [COPYING], change=change, other_change=change[:2])
    assert quantities.counted(table, 3).n == 10 * CONTEXTS // 2
    assert quantities.reducing_of_other(table, 0).shares[COPYING] == 1.0
    assert quantities.counted(table, 0, "label_drawn").shares[OTHER] == 1.0
    assert quantities.counted(table, 0, "label_correct", 1).shares[COPYING] == 1.0


def spread_of(table: Measurement) -> Measurement:
    return quantities.spread_order(table, quantities.named_counts(table), DRAWS)


def test_the_head_that_does_more_things_spreads_wider_and_what_is_unexplained_is_none_of_them():
    wide = table_of([SUCCESSION, ACRONYM, GREATER, COPYING], [COPYING, COPYING, COPYING, OTHER])
    assert spread_of(wide).support[quantities.HEAD_FIRST] == 1.0
    assert spread_of(wide).redrawn == {"documents": CONTEXTS // 2, "heads": 2}
    narrow = table_of([COPYING, OTHER], [COPYING, SUCCESSION])
    assert spread_of(narrow).support[quantities.HEAD_FIRST] == 0.0
    assert spread_of(narrow).rivals[quantities.HEAD_FIRST].ahead == 1.0


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_share_of_loss_saved_adds_up(seed):
    generator = np.random.default_rng(seed)
    change = generator.normal(1.0, 0.2, (6, CONTEXTS // 2, CASES)).astype(np.float32)
    table = table_of([SUCCESSION], [OTHER], seed, change=change)
    found = quantities.saved(table, table.arrays["change"][0], 50)
    marks = table.arrays["succession"][: CONTEXTS // 2]
    assert found.share[0] == pytest.approx(float(change[0][marks].sum() / change[0].sum()), rel=1e-5)
    assert found.part == marks.mean()
    assert found.means["all"][0] == pytest.approx(float(change[0].mean()), rel=1e-5)


def saves(table: Measurement, change: np.ndarray) -> Measurement:
    return quantities.saves_on_succession(table, quantities.saved(table, change, DRAWS))


def test_loss_saved_on_succession_is_found_where_it_is_and_not_where_it_is_not():
    table = table_of([SUCCESSION], [OTHER])
    marks = table.arrays["succession"][: CONTEXTS // 2]
    order = quantities.SUCCESSION_FIRST
    for change, support in ((np.where(marks, 1.0, 0.1), 1.0), (np.where(marks, 0.1, 1.0), 0.0)):
        assert saves(table, change).support[order] == support
    below = saves(table, np.where(marks, -0.1, -1.0))
    assert below.support[order] == 0.0, "to do less harm is not to save"
    assert (below.rivals[order].label, below.rivals[order].ahead) == ("nothing", 1.0)


def test_documents_without_succession_do_not_count():
    table = table_of([SUCCESSION], [OTHER])
    marks = table.arrays["succession"].copy()
    marks[2:] = False
    few = table_of([SUCCESSION], [OTHER], succession=marks)
    assert saves(few, np.ones((CONTEXTS // 2, CASES))).redrawn == {"documents": 1}


def test_prompts_are_won_by_the_largest_drop():
    drop = np.zeros((64, 5))
    drop[:, 2] = 1.0
    arrays = {"drop": drop, "cluster": np.arange(64) // 2}
    table = Measurement("made up", None, n=64, seed=0, arrays=arrays)
    won = quantities.prompts_won(table, quantities.wins_of(table, [2]))
    assert (won.value, won.n, dict(won.redrawn)) == (1.0, 64, {"documents": 32})
    assert won.interval.low == pytest.approx(quantities.cluster_share_interval(np.ones(32), np.arange(32)).low)
    assert quantities.wins_of(table, [0, 1]).sum() == 0.0
    drop[:32, 3] = 2.0
    assert quantities.prompts_won(table, quantities.wins_of(table, [2])).value == 0.5
