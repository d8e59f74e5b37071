"""A finding: what a claim test hands to `judge`, a measurement together with the controls measured beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from circuit_claims.judging.claims import Claim
from circuit_claims.judging.measurement import Measurement
from circuit_claims.judging.verdicts import Control


@dataclass(frozen=True)
class Finding:
    """A measurement and, by name, how to measure each control a claim may ask for.

    Controls are functions so that only those a claim names are measured.
    """

    measurement: Measurement
    controls: Mapping[str, Callable[[], Measurement]]

    def controls_for(self, claim: Claim) -> tuple[Control, ...]:
        """The controls `claim` names, measured: negative ones must fail its rule, positive ones must pass it.

        A name this finding does not know is left out; `judge` then reports it as not measured.
        """
        known = self.controls
        negative = [Control(name, "fail", known[name]()) for name in claim.controls if name in known]
        positive = [Control(name, "pass", known[name]()) for name in claim.positive_controls if name in known]
        return (*negative, *positive)
