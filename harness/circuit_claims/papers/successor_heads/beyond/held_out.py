"""The held-out task as a finding: does the head that leads on the dataset count in Roman numerals too (SH-24)?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from circuit_claims.api import Finding, Interval, Measurement, measure
from circuit_claims.judging.statistics import LEVEL, or_binomial
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
    return Measurement(
        "score of the leading head on Roman numerals",
        found.score,
        _interval(found.score, found.pairs, (found.low, found.high)),
        p_value=found.p_value,
        n=found.pairs,
        seed=chosen.seed,
        arrays={"null": found.null},
        facts=facts,
    )


def _interval(score: float, pairs: int, bootstrap: tuple[float, float]) -> Interval:
    """The wider of bootstrap and exact binomial: a score of 0 or 1 on few tokens has a bootstrap of no width."""
    ends = or_binomial(bootstrap, round(score * pairs), pairs)
    return Interval(*ends, LEVEL, f"exact binomial over {pairs} pairs")


@dataclass(frozen=True)
class HeldOut:
    """The leading head of one subject on Roman numerals."""

    subject: Any

    def measured(self, subject: Any, **changes: Any) -> Measurement:
        profile = self.subject.context.profile
        amounts = {"draws": profile.bootstrap_draws, "shuffles": profile.shuffles}
        return roman_score(subject, settings=Settings(**changes).parameters(), **amounts)

    def score(self) -> Finding:
        """The leading head's score; the null of one head chosen on other tokens needs no correction for the choice."""
        planted = PlantedSubject(self.subject.context)
        return Finding(
            self.measured(self.subject),
            {
                "shuffled successor map": self._one_shuffle,
                "untrained weights": lambda: self.measured(self.subject, weights="untrained"),
                "planted successor head": lambda: self.measured(planted),
            },
        )

    def _one_shuffle(self) -> Measurement:
        """The same head scored against one shuffled order of the numerals, and the other shuffles as its null."""
        found = self.measured(self.subject)
        first, *others = found.arrays["null"].tolist()
        p_value = (1 + sum(other >= first - 1e-9 for other in others)) / (1 + len(others))
        return found.derive(found.quantity, first, interval=_interval(first, found.n, (first, first)), p_value=p_value)


def roman_numerals(subject: Any) -> HeldOut:
    """Roman numerals I to XX, which are not in the dataset."""
    return HeldOut(subject)
