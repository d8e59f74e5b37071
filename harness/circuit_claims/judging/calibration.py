"""Could the rule have said otherwise? A claim's own rule on data in which it is false, and on data in which it is true.

*False-alarm rate*: the share called reproduced among at least 200 data sets in which the claim is false by
construction and all else is kept (labels shuffled within layers, the successor map shuffled within tasks, steps
shuffled). Above `MOST_FALSE_ALARMS` the rule cannot tell, and the verdict is `failed`.

*Oracle*: data on the same text, tokens and sizes in which the claim is true (a planted or perfect head). Where even
that is not reproduced, nothing can be decided here, whatever the figures say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol
from zlib import crc32

import numpy as np

from circuit_claims.judging.measurement import Measurement
from circuit_claims.judging.statistics import binomial_interval

if TYPE_CHECKING:
    from circuit_claims.judging.claims import Claim

DRAWS = 200
MOST_FALSE_ALARMS = 0.10

DrawFalse = Callable[[np.random.Generator], "Measurement"]
Make = Callable[[], "Measurement"]


@dataclass(frozen=True)
class FalseAlarm:
    """How often the rule called data reproduced in which the claim is false: `how` they were made, outcomes of all."""

    how: str
    outcomes: Mapping[str, int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "outcomes", MappingProxyType(dict(self.outcomes)))

    @property
    def draws(self) -> int:
        """How many data sets were judged."""
        return sum(self.outcomes.values())

    @property
    def rate(self) -> float:
        """The share called reproduced."""
        return self.outcomes.get("reproduced", 0) / self.draws

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 90 % interval of the rate."""
        return binomial_interval(self.outcomes.get("reproduced", 0), self.draws)


@dataclass(frozen=True)
class Oracle:
    """Data in which the claim is true by construction: how they were made, what was measured, what the rule said."""

    how: str
    outcome: str
    measurement: Measurement


@dataclass(frozen=True)
class Calibration:
    """What a claim's own rule says where the answer is known, on the sizes at hand."""

    false_alarms: tuple[FalseAlarm, ...] = ()
    oracles: tuple[Oracle, ...] = ()

    @property
    def worst(self) -> FalseAlarm | None:
        """The false alarms of the way in which the rule errs most."""
        return max(self.false_alarms, key=lambda alarm: alarm.rate, default=None)

    @property
    def blind(self) -> tuple[Oracle, ...]:
        """The oracles that were not reproduced."""
        return tuple(oracle for oracle in self.oracles if oracle.outcome != "reproduced")


UNCALIBRATED = Calibration()


class Keep(Protocol):
    """Calls a function, or has its measurement from a call before with the same code and the same data."""

    def __call__(self, function: Callable[..., Measurement], *given: Any) -> Measurement:
        """What `function(*given)` gives."""
        ...


def call(function: Callable[..., Measurement], *given: Any) -> Measurement:
    """Nothing is kept: the function is called."""
    return function(*given)


def calibrate(
    claim: Claim,
    rule: Callable[[Claim, Measurement], str],
    false: Mapping[str, DrawFalse],
    oracles: Mapping[str, Make],
    draws: int = DRAWS,
    keep: Keep = call,
) -> Calibration:
    """Apply `rule` (a claim and a measurement in, an outcome out) to `draws` false data sets a way and to each oracle.

    `false` makes one measurement with the claim false from a generator, `oracles` one with the claim true. The
    generators are seeded by the claim's id and the way's name: the same rates come out again. `keep` may have them from
    a run before.
    """
    alarms = [
        FalseAlarm(how, keep(outcomes_where_false, claim, rule, how, draw, draws).facts["outcomes"])
        for how, draw in false.items()
    ]
    made = [(how, keep(make)) for how, make in oracles.items()]
    return Calibration(tuple(alarms), tuple(Oracle(how, rule(claim, one), one) for how, one in made))


def outcomes_where_false(
    claim: Claim, rule: Callable[[Claim, Measurement], str], how: str, draw: DrawFalse, draws: int
) -> Measurement:
    """How often each outcome came of `draws` data sets that `draw` made: fact `outcomes`."""
    generator = np.random.default_rng([crc32(claim.id.encode()), crc32(how.encode())])
    counts = Counter(rule(claim, draw(generator)) for _ in range(draws))
    return Measurement("outcomes where the claim is false", None, n=draws, facts={"outcomes": dict(counts)})
