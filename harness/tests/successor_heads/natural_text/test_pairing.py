"""Labels of many cases at once are those that the rules give one by one."""

from __future__ import annotations

import numpy as np
from circuit_claims.papers.successor_heads.natural_text.behaviours import BEHAVIOURS, Line, behaviour_of
from circuit_claims.papers.successor_heads.natural_text.pairing import pair
from hypothesis import given, settings
from hypothesis import strategies as st

WORDS = [
    "<s>", " Monday", " Tuesday", "1", "2", " 3", "09", "10", "74", "82", "a", " B", "C", " the", " Federal", " Bureau",
    " of", "not", "n", "\n", " ", ".", ",", " May", "FB", " FBO", " III", " iv", "IV", " second", " Third", "ord",
]  # fmt: skip
TARGETS = [*WORDS, "FBO", " F", "75", "11", "", " tuesday", "  "]


@given(st.lists(st.sampled_from(WORDS), min_size=3, max_size=20), st.integers(0, 10_000), st.sampled_from([1, 5]))
@settings(max_examples=300, deadline=None)
def test_all_at_once_is_one_by_one(tokens, seed, top):
    generator = np.random.default_rng(seed)
    line = Line(tuple(tokens))
    looked_at = [(line, generator.permutation(np.arange(-1, len(tokens)))[:6].tolist()) for _ in range(8)]
    targets = generator.integers(len(TARGETS), size=8)
    found = pair(looked_at, TARGETS, 5).labels(targets, top)
    expected = [
        behaviour_of(line, attended, TARGETS[target], top)
        for (_, attended), target in zip(looked_at, targets, strict=True)
    ]
    assert [BEHAVIOURS[label] for label in found] == expected


def test_a_case_that_looks_at_nothing_shows_nothing():
    found = pair([(Line(("1", "2")), [0, -1])], ["2"], 5).labels(np.array([0]), 5)
    assert [BEHAVIOURS[label] for label in found] == ["other"]
