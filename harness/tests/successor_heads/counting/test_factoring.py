"""Index and domain maps on the planted counter, where both parts are linear by construction, and where they are not."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.papers.successor_heads.counting.factoring import (
    Domains,
    counted_on,
    decoded,
    learn_maps,
    measured,
    swapped_pairs,
)
from circuit_claims.papers.successor_heads.counting.planted.counter import HEAD, planted_counter, token_ids
from circuit_claims.papers.successor_heads.counting.planted.subject import CounterTokens
from circuit_claims.papers.successor_heads.steering.arithmetic import HeadLogits, mlp0_of
from circuit_claims.papers.successor_heads.steering.tokens import counted_items

TOKENS = CounterTokens(token_ids())
MANY = 2000


@functools.cache
def planted() -> tuple[Domains, HeadLogits]:
    weights = CircuitWeights.open(planted_counter())
    items = counted_items(TOKENS)
    vectors = mlp0_of(weights, [token for one in items for token in one.tokens])
    return Domains.of(items, vectors), HeadLogits.open(weights, HEAD)


@functools.cache
def facts(shuffled: bool = False) -> dict:
    return measured(*planted(), pairs=MANY, draws=100, shuffled=shuffled).facts


def test_left_out_pairs_decode_in_both_spaces():
    assert facts()["held out"]["decoded"]["value"] > 0.95
    assert facts()["held out"]["counted"]["value"] > 0.85
    assert facts()["held out"]["true"]["value"] > 0.9


def test_numerals_are_read_but_for_those_that_are_letters():
    shares = dict(facts()["numerals"])
    assert all(shares[number] == 0.0 for number in (1, 5, 10))
    assert all(share > 0.5 for number, share in shares.items() if number not in (1, 5, 10))


def test_without_an_index_in_common_nothing_decodes():
    assert facts(True)["held out"]["decoded"]["value"] < 0.3
    assert facts(True)["roman"]["decoded"]["value"] < 0.3
    assert facts()["domain only"]["decoded"]["value"] < 0.2


def test_swapped_pairs_are_what_they_say():
    domains, _ = planted()
    pairs = swapped_pairs(domains, np.random.default_rng(0), 300, x_from=[1, 2, 3], y_from=[1, 2, 3])
    assert np.array_equal(domains.index[pairs.z], domains.index[pairs.x])
    assert np.array_equal(domains.domain[pairs.z], domains.domain[pairs.y])
    assert (domains.domain[pairs.x] != domains.domain[pairs.y]).all()
    assert len({*zip(pairs.x.tolist(), pairs.y.tolist(), strict=True)}) == len(pairs)


def test_exactly_linear_parts_decode_exactly_and_the_basis_changes_nothing():
    """Vectors made as index part plus domain part: the maps find both; distances are those of the whole space."""
    domains, _ = planted()
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(600, 40, generator=generator), torch.randn(20, 40, generator=generator)
    vectors = parts[0][domains.index] + 3 * parts[1][domains.domain]
    made = Domains.of(domains.items, vectors)
    assert torch.allclose(torch.cdist(made.vectors, made.vectors), torch.cdist(vectors, vectors), atol=0.05)
    rng = np.random.default_rng(0)
    pairs = swapped_pairs(made, rng, 600, x_from=range(8), y_from=range(8))
    maps = learn_maps(made, pairs.take(np.arange(100, len(pairs))), rng)
    assert decoded(made, maps, pairs.take(np.arange(100))).mean() > 0.9


def test_the_true_vector_is_counted_on_as_the_head_counts():
    domains, readout = planted()
    pairs = swapped_pairs(domains, np.random.default_rng(0), 200, x_from=[1, 2], y_from=[1, 2])
    top, wanted = counted_on(domains, None, pairs, readout)
    asked = wanted >= 0
    assert np.array_equal(top[asked], wanted[asked])
    last = [domains.index[pairs.z] == index for index in (10, 20)]
    ordinals, words = (domains.domain[pairs.z] == number for number in (2, 1))
    assert np.array_equal(~asked, (last[0] & ordinals) | (last[1] & words)), "only tenth and twenty have no successor"


def test_too_few_pairs_are_refused_with_what_was_found():
    domains, _ = planted()
    pairs = swapped_pairs(domains, np.random.default_rng(0), 5, x_from=[1], y_from=[2])
    with pytest.raises(ValueError, match="expected ten swapped pairs or more, found 5"):
        learn_maps(domains, pairs, np.random.default_rng(0))


def test_an_interval_over_tokens_is_wider_than_one_over_pairs():
    """All pairs of one token x fail together: forty tokens, not sixteen hundred coins."""
    x, y = (side.ravel() for side in np.meshgrid(np.arange(40), np.arange(40), indexing="ij"))
    from circuit_claims.papers.successor_heads.counting.swapped import SwappedPairs, pair_share

    value, low, high = pair_share(x % 2 == 0, SwappedPairs(x, y, y), np.random.default_rng(0), 1000)
    assert value == 0.5
    assert high - low > 0.2
