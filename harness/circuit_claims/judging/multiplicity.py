"""Many verdicts at once: how many false ones their error rates allow, and q-values within families of claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from circuit_claims.judging.claims import Claim
from circuit_claims.judging.measurement import Measurement
from circuit_claims.judging.verdicts import expected_number


def chance_if_false(claim: Claim, measurement: Measurement) -> float | None:
    """The chance of figures at least as good, were the claim false by just its margin; None where no rule gives one.

    For a number: from the distance of the measured value to the edge of what would be reproduced, in standard errors
    (a 90 % interval is 3.29 of them wide; each side has its own half). For a maximum: its p-value under the null, or
    that distance where it is worse. For labels: the share of resamples in which another comes first.

    >>> from circuit_claims.judging.measurement import Interval
    >>> claim = Claim.model_construct(kind="at_least", expected=0.5, margin=0.0)
    >>> round(chance_if_false(claim, Measurement("share", 0.6, Interval(0.5, 0.7))), 3)
    0.05
    """
    if claim.kind in ("identity", "order"):
        label = str(claim.expected) if claim.kind == "identity" else " > ".join(map(str, claim.expected))  # type: ignore[arg-type]
        return 1.0 - measurement.support.get(label, 0.0) if measurement.support else None
    interval, value = measurement.interval, measurement.value
    if claim.kind == "curve" or interval is None or not isinstance(value, float) or not math.isfinite(value):
        return None
    low, high = _edges(claim)
    chances = []
    if math.isfinite(low):
        chances.append(_tail(value - low, value - interval.low, interval.level))
    if math.isfinite(high):
        chances.append(_tail(high - value, interval.high - value, interval.level))
    if measurement.p_value is not None and claim.kind == "existence":
        chances.append(measurement.p_value)
    return max(chances)


def q_values(chances: Mapping[str, float], families: Mapping[str, str]) -> dict[str, float]:
    """Benjamini and Hochberg's q-value of each, within its family: the least false discovery rate at which it counts.

    >>> q_values({"a": 0.01, "b": 0.04, "c": 0.04}, {"a": "x", "b": "x", "c": "y"})
    {'a': 0.02, 'b': 0.04, 'c': 0.04}
    """
    from scipy.stats import false_discovery_control

    found: dict[str, float] = {}
    for family in dict.fromkeys(families[name] for name in chances):
        members = [name for name in chances if families[name] == family]
        adjusted: Sequence[float] = false_discovery_control([chances[name] for name in members])
        found |= {name: float(q) for name, q in zip(members, adjusted, strict=True)}
    return {name: found[name] for name in chances}


def _edges(claim: Claim) -> tuple[float, float]:
    expected, margin = expected_number(claim), claim.margin
    if claim.kind in ("at_least", "existence") or (claim.kind == "correlation" and expected >= 0):
        return expected - margin, math.inf
    if claim.kind == "value":
        return expected - margin, expected + margin
    return -math.inf, expected + margin


def _tail(distance: float, half: float, level: float) -> float:
    """The chance of a value this far inside the edge; `half` is the interval's half on that side."""
    from scipy.special import ndtri

    if half <= 0:
        return 0.0 if distance >= 0 else 1.0
    z = distance / half * float(ndtri((1 + level) / 2))
    return 0.5 * math.erfc(z / math.sqrt(2))
