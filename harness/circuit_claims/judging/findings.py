"""A finding: what a claim test hands to `judge`, with its controls and with data where the answer is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from circuit_claims.judging.calibration import DRAWS, Calibration, DrawFalse, Keep, Make, calibrate, call
from circuit_claims.judging.claims import Claim
from circuit_claims.judging.measurement import Measurement
from circuit_claims.judging.verdicts import Control, outcome_of


@dataclass(frozen=True)
class Finding:
    """A measurement and, by name, how to measure each control a claim may ask for.

    Controls are functions so that only those a claim names are measured. `false` are ways to draw data in which the
    claim is false by construction and all else is kept (a generator in, a measurement out), `oracles` data in which
    it is true, on the same text, tokens and sizes: the claim's own rule is calibrated on both. `without` are the same
    quantity without the instrument (a coefficient with n_beta = 0, the Hessian's trace in its place): where the
    verdict is the same the instrument adds nothing.

    >>> from circuit_claims.judging.measurement import Interval
    >>> def score(value):
    ...     return Measurement("score", value, Interval(value - 0.1, value + 0.1))
    >>> finding = Finding(score(0.8), {"untrained weights": lambda: score(0.1)},
    ...                   false={"labels shuffled": lambda generator: score(generator.uniform(0, 0.2))},
    ...                   oracles={"a perfect head": lambda: score(1.0)})
    >>> sorted(finding.controls), finding.measurement.value
    (['untrained weights'], 0.8)
    """

    measurement: Measurement
    controls: Mapping[str, Callable[[], Measurement]]
    false: Mapping[str, DrawFalse] = field(default_factory=dict)
    oracles: Mapping[str, Make] = field(default_factory=dict)
    without: Mapping[str, Make] = field(default_factory=dict)

    def controls_for(self, claim: Claim) -> tuple[Control, ...]:
        """The controls `claim` names, measured: negative ones must fail its rule, positive ones must pass it.

        A name this finding does not know is left out; `judge` then reports it as not measured.
        """
        known = self.controls
        negative = [Control(name, "fail", known[name]()) for name in claim.controls if name in known]
        positive = [Control(name, "pass", known[name]()) for name in claim.positive_controls if name in known]
        return (*negative, *positive)

    def calibration_for(self, claim: Claim, draws: int = DRAWS, keep: Keep = call) -> Calibration:
        """The rule of `claim` on data in which it is false and on data in which it is true."""
        return calibrate(claim, outcome_of, self.false, self.oracles, draws, keep)

    def without_for(self, claim: Claim) -> dict[str, str]:
        """What the claim's rule says of the same quantity without the instrument, by what took its place."""
        return {name: outcome_of(claim, make()) for name, make in self.without.items()}
