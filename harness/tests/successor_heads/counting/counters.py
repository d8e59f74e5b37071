"""Planted counters for the tests of this package, made once: vectors, tokens and what their head makes of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.papers.successor_heads.counting.features import Logits, head_logits
from circuit_claims.papers.successor_heads.counting.planted.counter import HEAD, planted_counter, token_ids
from circuit_claims.papers.successor_heads.counting.tokens import CountedTokens, counted_tokens
from circuit_claims.papers.successor_heads.succession.planted_subject import WordTokens

PERIODS = (10, 7, 12)


@dataclass(frozen=True)
class Counter:
    """The planted counter's numbers 0 to 119 after a space, and its head's logits of the same tokens."""

    weights: CircuitWeights
    tokens: CountedTokens
    vectors: torch.Tensor
    successors: torch.Tensor
    logits: Logits

    def residues(self, modulus: int) -> np.ndarray:
        """Classes of the numbers mod `modulus`."""
        return self.tokens.index % modulus


@functools.cache
def counter(period: int) -> Counter:
    """The planted counter of a period."""
    weights, every = CircuitWeights.open(planted_counter(period)), counted_tokens(WordTokens(token_ids()))
    spaced = np.array([text.startswith(" ") for text in every.texts])
    tokens = every.take(every.of("numbers") & (every.index < 120) & spaced)
    ids = torch.from_numpy(tokens.tokens)
    vectors = weights.mlp0(weights.embed(ids))
    return Counter(weights, tokens, vectors, torch.from_numpy(tokens.successor), head_logits(weights, HEAD, ids))


def shuffled(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """The control: the same classes handed out anew."""
    return np.random.default_rng(seed).permutation(values)
