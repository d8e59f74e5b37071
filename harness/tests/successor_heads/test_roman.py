"""The held-out numerals: a head planted to count in them, the same in a wrong order, and one that never saw them."""

from __future__ import annotations

import pytest
import torch
from circuit_claims.heads.planted import planted_model, wrong_order
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.papers.successor_heads.beyond.roman import RomanScore, roman
from circuit_claims.papers.successor_heads.dataset import ROMAN

from tests.successor_heads.toy import Words

NUMERALS = ROMAN.items[:12]
VOCABULARY = Words([*NUMERALS, *(f" {numeral}" for numeral in NUMERALS), *"abcdefghijkl"])
ORDERS = [list(range(12)), list(range(12, 24))]


def scored(orders: list[list[int]]) -> RomanScore:
    table = planted_model(orders, generator=torch.Generator().manual_seed(1), d_vocab=len(VOCABULARY))
    return roman(CircuitWeights.open(table), VOCABULARY, (1, 2), bootstrap_draws=200, shuffles=199)


def test_a_head_that_counts_in_numerals_is_found():
    found = scored(ORDERS)
    assert (found.head, found.score, found.rank, found.pairs) == ("L1H2", 1.0, 1, 22)
    assert found.p_value == 1 / 200
    assert found.null_band[1] < 0.5
    assert found.available == {"plain": 12, "space": 12}


@pytest.mark.parametrize(
    "orders",
    [wrong_order(ORDERS, torch.Generator().manual_seed(5)), [list(range(24, 36))]],
    ids=["wrong order", "other tokens only"],
)
def test_a_head_that_does_not_is_inside_its_null(orders):
    found = scored(orders)
    assert found.low <= found.score <= found.high
    assert found.score < 0.5
    assert found.p_value > 0.01


@pytest.mark.parametrize("numerals", [["I", "V", "X"], ["nothing"]], ids=["no neighbours", "none"])
def test_a_tokenizer_without_neighbouring_numerals_is_not_applicable(numerals):
    table = planted_model(ORDERS, generator=torch.Generator().manual_seed(1))
    with pytest.raises(ValueError, match="at least one pair, found none"):
        roman(CircuitWeights.open(table), Words(numerals), (1, 2))


def test_a_head_that_is_not_there_is_named():
    table = planted_model(ORDERS, generator=torch.Generator().manual_seed(1))
    with pytest.raises(KeyError, match="no head named L9H1: expected one from L0H0 to L1H3"):
        roman(CircuitWeights.open(table), VOCABULARY, (9, 1), bootstrap_draws=2, shuffles=2)
