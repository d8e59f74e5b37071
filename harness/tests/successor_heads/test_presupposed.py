"""Claims about a successor head are asked of models that have one, as the kept sweep tells."""

from __future__ import annotations

from dataclasses import replace

from circuit_claims.keeping.cells import MemoryStore
from circuit_claims.keeping.measure import Context
from circuit_claims.papers.successor_heads.amounts import profile_of
from circuit_claims.papers.successor_heads.succession.measures import Settings, SuccessorScoreTable
from circuit_claims.papers.successor_heads.succession.planted_subject import PlantedSubject
from circuit_claims.papers.successor_heads.succession.presupposed import no_successor_head, stands_out


def subject(**changes) -> PlantedSubject:
    return PlantedSubject(Context(MemoryStore(), profile=profile_of("quick")), **changes)


def test_a_planted_head_is_one():
    assert no_successor_head(subject()) is None


def test_random_weights_have_none_and_the_figures_say_so():
    reason, measured = no_successor_head(subject(grown=0.0)) or ("", None)
    assert reason.startswith("no successor head: L")
    assert "times its runner-up" in reason
    assert measured is not None
    assert measured.interval.low <= 1


def test_two_heads_that_share_the_lead_are_no_successor_head():
    assert no_successor_head(subject(heads=((1, 1), (1, 2)))) is not None


def test_a_lead_within_the_null_of_the_maximum_is_none():
    table = SuccessorScoreTable(subject(), Settings()).table
    within = replace(table, facts={**table.facts, "score": {**table.facts["score"], "p_value": 0.2}})
    assert stands_out(table) is None
    assert stands_out(within) is not None
