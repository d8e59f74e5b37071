"""Data whose answer is known, made from a table of cases: false ones, true ones, and how far a text lets a head go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from circuit_claims.judging.claims import load_paper
from circuit_claims.judging.measurement import Measurement
from circuit_claims.judging.verdicts import apply_rule
from circuit_claims.papers.successor_heads.natural_text import known, quantities
from circuit_claims.papers.successor_heads.natural_text.behaviours import BEHAVIOURS, Line
from circuit_claims.papers.successor_heads.natural_text.cases import find_examples, possible
from circuit_claims.papers.successor_heads.natural_text.quantities import BehaviourCounts

FOLDER = Path(__file__).resolve().parents[4] / "claims" / "successor_heads"
CLAIMS = {claim.id: claim for claim in load_paper(FOLDER / "paper.toml").claims}
SUCCESSION, ACRONYM, GREATER, COPYING, OTHER = range(len(BEHAVIOURS))
SHARES = {"successorship": 0.33, "acronym": 0.11, "greater-than": 0.10, "copying": 0.11}
WON = {"successorship": 0.434, "acronym": 0.238, "greater-than": 0.189}
CASES = 100


def table_of(contexts: int, follows: float, possible_share: float = 1.0, won: float = 0.2) -> Measurement:
    """A document a context; `follows` of the cases are ones in which the correct token follows an earlier one."""
    generator = np.random.default_rng(0)
    shape = (contexts, CASES)
    arrays = {
        "cluster": np.arange(contexts),
        "won": (generator.random(shape) < won)[None],
        "change": np.where(generator.random((6, *shape)) < 0.5, 1.0, -1.0),
        "follows": generator.random(shape) < follows,
        "possible": np.stack([generator.random(shape) < possible_share for _ in BEHAVIOURS]),
        "kind": generator.integers(0, 2, shape),
        "succession": generator.random(shape) < 0.1,
    }
    return Measurement("made up", None, seed=0, arrays=arrays, facts={"kinds": ["a", "b"]})


def verdict(claim: str, measurement: Measurement) -> str:
    return apply_rule(CLAIMS[claim], measurement).outcome


def share(table: Measurement, counted: BehaviourCounts) -> Measurement:
    return quantities.behaviour_share(table, counted, ("successorship",), "cases")


def test_a_head_with_the_papers_shares_is_reproduced_where_the_text_lets_it():
    table = table_of(30, follows=0.5)
    assert verdict("SH-22", share(table, known.planted(table, 1, SHARES))) == "reproduced"
    won = known.planted(table, None, WON)
    assert won.n == table.arrays["won"].sum()
    assert won.shares == pytest.approx([0.434, 0.238, 0.189, 0.0, 0.139], abs=0.01)
    assert verdict("SH-21", share(table, won)) == "reproduced"
    assert verdict("SH-21b", quantities.leads(table, [won], 300, "cases")) == "reproduced"


def test_where_the_text_holds_little_succession_not_even_a_perfect_head_reaches_it():
    table = table_of(30, follows=0.02, possible_share=0.1)
    for row, expected in ((None, "SH-21"), (1, "SH-22")):
        assert verdict(expected, share(table, known.planted(table, row, SHARES))) != "reproduced"
    assert known.ceiling(table, 1, "successorship") == pytest.approx(0.1, abs=0.03)
    assert known.ceiling(table, 1, "successorship", by_correct=True) == pytest.approx(0.02, abs=0.01)


def test_five_documents_decide_nothing_not_even_for_a_perfect_head():
    table = table_of(5, follows=0.5)
    assert verdict("SH-22", share(table, known.planted(table, 1, SHARES))) == "inconclusive"
    assert verdict("SH-23b", saves(table, known.saves_only_there(table))) == "inconclusive"


def test_with_their_names_exchanged_no_behaviour_leads_but_by_chance():
    """Also where a document holds many cases of one behaviour, as lists do."""
    generator = np.random.default_rng(1)
    rows = [BehaviourCounts(generator.multinomial(40, generator.dirichlet([0.3] * 5), 20))]
    table = table_of(20, follows=0.5)
    outcomes = [
        verdict("SH-21b", quantities.leads(table, known.renamed(rows, generator), 400, "cases")) for _ in range(200)
    ]
    assert outcomes.count("reproduced") <= 20
    again = known.renamed(rows, generator)[0].counts
    assert (np.sort(again[:, :4]) == np.sort(rows[0].counts[:, :4])).all()
    assert (again[:, 4] == rows[0].counts[:, 4]).all()


def heads(generator: np.random.Generator, others: int) -> np.ndarray:
    """A head that does four things, and others that do one or two."""
    even = generator.multinomial(12, [0.25] * 4, 12)
    narrow = [generator.multinomial(12, [0.0, 0.1, 0.0, 0.9], 12) for _ in range(others)]
    return np.stack([even, *narrow])


def test_a_head_that_does_four_things_spreads_wider_and_a_random_one_in_its_place_does_not():
    generator = np.random.default_rng(2)
    table, counts = table_of(12, follows=0.5), heads(generator, 19)
    assert verdict("SH-21d", quantities.spread_order(table, counts, 400)) == "reproduced"
    assert verdict("SH-21d", quantities.spread_order(table, known.even(counts), 400)) == "reproduced"
    outcomes = [
        verdict("SH-21d", quantities.spread_order(table, known.in_its_place(counts, 20, generator), 400))
        for _ in range(200)
    ]
    assert outcomes.count("reproduced") <= 20


def test_with_few_random_heads_beside_it_nothing_is_said_of_random_heads():
    counts = heads(np.random.default_rng(3), 5)
    assert verdict("SH-21d", quantities.spread_order(table_of(12, follows=0.5), counts, 400)) == "inconclusive"


def saves(table: Measurement, change: np.ndarray, marks: np.ndarray | None = None) -> Measurement:
    return quantities.saves_on_succession(table, quantities.saved(table, change, 400, marks))


def test_marks_dealt_out_anew_show_no_saving():
    table, generator = table_of(12, follows=0.5), np.random.default_rng(4)
    change = known.saves_only_there(table)
    assert verdict("SH-23b", saves(table, change)) == "reproduced"
    noisy = change + generator.normal(0.0, 1.0, change.shape)
    outcomes = [verdict("SH-23b", saves(table, noisy, known.marks_dealt(table, generator))) for _ in range(200)]
    assert outcomes.count("reproduced") <= 20
    assert known.marks_dealt(table, generator).sum() == table.arrays["succession"].sum()


def test_prompts_whose_winner_is_drawn_are_not_won():
    generator = np.random.default_rng(5)
    arrays = {"drop": np.zeros((64, 30)), "cluster": np.arange(64) // 2}
    table = Measurement("made up", None, arrays=arrays)
    assert verdict("SH-23", quantities.prompts_won(table, np.ones(64))) == "reproduced"
    assert verdict("SH-23", quantities.prompts_won(table, known.winners_dealt(table, generator))) == "contradicted"


def test_what_a_head_could_show_is_read_off_the_tokens_before():
    tokens = ("<s>", " the", " Sunday", " came", " then", " December", " and", " 9", ".", " Federal", " x")
    able = possible(Line(tokens))
    first = {name: int(np.argmax(able[BEHAVIOURS.index(name)])) for name in BEHAVIOURS}
    assert first == {"successorship": 2, "acronym": 1, "greater-than": 7, "copying": 1, "other": 0}


def test_the_correct_token_follows_one_that_stands_anywhere_before():
    tokens = ("<s>", " Monday", " was", " cold", " but", " Tuesday", " and", " Monday", ".")
    found = find_examples(tokens, {})
    assert np.flatnonzero(found.follows).tolist() == [4]
    assert not found.succession.any()
