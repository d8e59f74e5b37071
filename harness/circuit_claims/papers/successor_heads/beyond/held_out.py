"""The held-out task as a finding: does the head that leads on the dataset count in Roman numerals too (SH-24)?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from circuit_claims.api import Finding, Measurement, cluster_share_interval, measure, permutation_p_value
from circuit_claims.papers.successor_heads.succession.measures import Settings, sweep_of, weights_of
from circuit_claims.papers.successor_heads.succession.planted_subject import PlantedSubject


@measure
def roman_score(subject: Any, *, settings: dict[str, Any], draws: int, shuffles: int) -> Measurement:
    """The score, on Roman numerals, of the head that leads on the dataset; array `null`: under shuffled numerals."""
    from circuit_claims.papers.successor_heads.beyond.roman import roman

    chosen = Settings(**settings)
    main = sweep_of(subject, chosen, draws, shuffles).scores
    layer, number = (int(place) for place in main.heads[int(main.ranking("score")[0])])
    found = roman(
        weights_of(subject, chosen),
        subject.tokens,
        (layer, number),
        path=chosen.path,
        bos=subject.tokens.bos_id,
        bootstrap_draws=draws,
        shuffles=shuffles,
        seed=chosen.seed,
    )
    facts = {
        "head": found.head,
        "rank": found.rank,
        "copy_score": found.copy_score,
        "available": found.available,
        "null_band": list(found.null_band),
    }
    table = Measurement(
        "score of the leading head on Roman numerals",
        None,
        n=found.pairs,
        seed=chosen.seed,
        arrays={"null": found.null, "winner": found.winner},
        facts=facts,
    )
    read = scored(table, found.hits, found.strings)
    return replace(table, value=read.value, interval=read.interval, p_value=read.p_value, redrawn=read.redrawn)


def scored(table: Measurement, hits: np.ndarray, strings: np.ndarray) -> Measurement:
    """The score of one head that passes `hits` (one a pair, which starts from one of `strings`), and its p-value."""
    value = float(hits.mean())
    return table.derive(
        table.quantity,
        value,
        interval=cluster_share_interval(hits.astype(float), strings),
        p_value=permutation_p_value(value, table.arrays["null"], slack=1e-9),
        redrawn={"strings": len(np.unique(strings))},
    )


@dataclass(frozen=True)
class HeldOut:
    """The leading head of one subject on Roman numerals."""

    subject: Any

    def measured(self, subject: Any, **changes: Any) -> Measurement:
        profile = self.subject.context.profile
        amounts = {"draws": profile.bootstrap_draws, "shuffles": profile.shuffles}
        return roman_score(subject, settings=Settings(**changes).parameters(), **amounts)

    def score(self, *, absent: bool = False) -> Finding:
        """The leading head's score; the null of one head chosen on other tokens needs no correction for the choice.

        `absent`: the claim is that it does not count, so that what is false of it and what true change places.
        """
        from circuit_claims.papers.successor_heads.dataset import roman_dataset
        from circuit_claims.papers.successor_heads.succession.known import KnownAnswers

        planted, table = PlantedSubject(self.subject.context), self.measured(self.subject)
        one_head = np.zeros((1, 2), dtype=np.int64)
        known = KnownAnswers(roman_dataset(self.subject.tokens), one_head, table.arrays["winner"][None])

        def shuffled(generator: np.random.Generator) -> Measurement:
            scores = known.shuffled(generator)
            return scored(table, scores.hits[0], scores.string)

        def perfect() -> Measurement:
            scores = known.true(np.random.default_rng(0))
            return scored(table, np.ones(len(scores.string), dtype=bool), scores.string)

        ways = {"order of the numerals shuffled": shuffled}, {"a perfect head on the same numerals": perfect}
        if absent:
            ways = ({"a perfect head on the same numerals": lambda generator: perfect()},
                    {"order of the numerals shuffled": lambda: shuffled(np.random.default_rng(0))})  # fmt: skip
        return Finding(
            table,
            {
                "untrained weights": lambda: self.measured(self.subject, weights="untrained"),
                "planted successor head": lambda: self.measured(planted),
            },
            *ways,
        )


def roman_numerals(subject: Any) -> HeldOut:
    """Roman numerals I to XX, which are not in the dataset."""
    return HeldOut(subject)
