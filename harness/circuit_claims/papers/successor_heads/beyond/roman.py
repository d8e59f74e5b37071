"""Whether a head found on the paper's dataset also counts in Roman numerals, which are not in it (SH-24)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from circuit_claims.api import LEVEL, permutation_p_value
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.papers.successor_heads.dataset import Vocabulary, roman_dataset
from circuit_claims.papers.successor_heads.succession.nulls import BAND_LEVEL
from circuit_claims.papers.successor_heads.succession.sweep import sweep_heads


@dataclass(frozen=True)
class RomanScore:
    """One head's successor score on the held-out Roman numerals, a share of `pairs` pairs (both forms counted).

    `low` to `high` is its bootstrap interval over tokens at `level`. `null` holds the same head's score under
    shuffled orders of the numerals, `null_band` their central 95 %, and `p_value` the chance of this score or more
    under them (with the +1 correction). The head was chosen on other tokens, so nothing is corrected for the choice.
    `hits` are its passes, `strings` the numeral that each pair starts from, `winner` its winner of every column.
    `rank` is its place among all heads on the numerals (1: best), `available` how many numerals there are a form.
    """

    head: str
    score: float
    low: float
    high: float
    level: float
    pairs: int
    null: Float[np.ndarray, " shuffle"]
    null_band: tuple[float, float]
    p_value: float
    rank: int
    copy_score: float
    available: dict[str, int]
    hits: Bool[np.ndarray, " pair"]
    strings: Int[np.ndarray, " pair"]
    winner: Int[np.ndarray, " column"]


def roman(
    weights: CircuitWeights, tokens: Vocabulary, head: tuple[int, int], *, level: float = LEVEL, **settings: Any
) -> RomanScore:
    """The score of `head` (layer, head) on the numerals I to XX that the tokenizer has as single tokens.

    `settings` are those of `sweep_heads` (path, exclude_self, bos, seed, ...). Raises ValueError when the tokenizer has
    no two neighbouring numerals (the claim is then not applicable), KeyError for a head that the model does not have.
    """
    dataset = roman_dataset(tokens)
    result = sweep_heads(weights, dataset, **settings)
    scores, row = result.scores, result.scores.row(f"L{head[0]}H{head[1]}")
    score, null = float(scores.score[row]), result.null_of(row).score[:, 0]
    low, high = scores.intervals("score", level)[row]
    band = np.quantile(null, [(1 - BAND_LEVEL) / 2, (1 + BAND_LEVEL) / 2])
    return RomanScore(
        head=scores.name(row),
        score=score,
        low=float(low),
        high=float(high),
        level=level,
        pairs=scores.pair_count,
        null=null,
        null_band=(float(band[0]), float(band[1])),
        # A hair keeps scores equal that were summed in another order.
        p_value=permutation_p_value(score, null, slack=1e-9),
        rank=1 + int((scores.score > score).sum()),
        copy_score=float(scores.copy_score[row]),
        available={form: single for forms in dataset.table().values() for form, single in forms.items()},
        hits=scores.hits[row],
        strings=scores.string,
        winner=result.winners.of(scores.exclude_self)[row],
    )
