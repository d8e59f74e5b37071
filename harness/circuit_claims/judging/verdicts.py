"""Verdicts: a claim and a measurement in, an outcome out. Pure: no files, no clocks, no models.

Every rule rests on the measurement's interval, never on its point. At a two-sided level of 0.90 the chance that a
rule says `reproduced` of a claim that is false by just its margin, or `contradicted` of one that is true by just its
margin, is at most 0.05; `harness/tests/judging/test_error_rates.py` checks that on 10,000 synthetic claims each way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from types import MappingProxyType
from typing import Any, Literal, cast

from circuit_claims.judging.calibration import MOST_FALSE_ALARMS, UNCALIBRATED, Calibration
from circuit_claims.judging.claims import Claim
from circuit_claims.judging.measurement import Interval, Measurement, Rival
from circuit_claims.judging.numbers import number
from circuit_claims.judging.statistics import FEWEST_CLUSTERS

Outcome = Literal[
    "reproduced",
    "contradicted",
    "inconclusive",
    "failed",
    "does not apply",
    "cannot be decided here",
    "needs an accelerator",
    "not here",
]
NotJudged = Literal["does not apply", "cannot be decided here", "needs an accelerator", "not here"]
JUDGED: tuple[Outcome, ...] = ("reproduced", "contradicted", "inconclusive", "failed")
NOT_JUDGED: tuple[NotJudged, ...] = ("does not apply", "cannot be decided here", "needs an accelerator", "not here")
OUTCOMES: tuple[Outcome, ...] = (*JUDGED, *NOT_JUDGED)
Must = Literal["fail", "pass"]
LEVEL = 0.90
ALPHA = 0.05
NOISE = frozenset({"chains"})
"""What is redrawn for its Monte Carlo error alone: no sentence generalises over it."""


@dataclass(frozen=True)
class Control:
    """A control's measurement and what it must do: `fail` (negative) or `pass` (positive) the claim's own rule."""

    name: str
    must: Must
    measurement: Measurement


@dataclass(frozen=True)
class ControlOutcome:
    """How a control came out under the claim's own rule, and whether that is as it must be."""

    control: Control
    outcome: Outcome

    @property
    def as_it_must_be(self) -> bool:
        """A negative control is never `reproduced`; a positive one always is."""
        return (self.outcome == "reproduced") == (self.control.must == "pass")


@dataclass(frozen=True)
class Verdict:
    """Outcome of one claim on one subject, the rule that gave it, what would flip it, and what stands beside it.

    `without` says what the rule makes of the same quantity without the instrument, by what took its place.
    """

    outcome: Outcome
    rule: str
    flip: str = ""
    reason: str = ""
    controls: tuple[ControlOutcome, ...] = ()
    calibration: Calibration = UNCALIBRATED
    without: Mapping[str, str] = field(default_factory=dict)


def judge(
    claim: Claim,
    measurement: Measurement,
    controls: tuple[Control, ...] = (),
    calibration: Calibration = UNCALIBRATED,
    without: Mapping[str, str] = MappingProxyType({}),
) -> Verdict:
    """Judge `measurement` by the rule of the claim's kind.

    A measurement that is partial or diverged is `inconclusive`, and so is one with fewer than `FEWEST_CLUSTERS` of
    what the claim generalises over. A control the claim names but that was not measured, or one that did not come out
    as it must, makes the verdict `failed`, and so does a rule that calls more than `MOST_FALSE_ALARMS` of false data
    reproduced: the instrument is not to be trusted. Where data in which the claim is true are not reproduced it
    cannot be decided here.
    """
    outcomes = tuple(ControlOutcome(control, _rule(claim, control.measurement).outcome) for control in controls)
    verdict = _rule(claim, measurement)
    beside: dict[str, Any] = {"controls": outcomes, "calibration": calibration, "without": without}
    troubles = (
        _other_unit(claim, measurement), _unstated(claim, measurement), _control_trouble(claim, outcomes),
        _false_alarm(calibration),
    )  # fmt: skip
    if trouble := next(filter(None, troubles), ""):
        return replace(verdict, outcome="failed", reason=trouble, **beside)
    if calibration.blind:
        return replace(verdict, outcome="cannot be decided here", reason=_ceiling(calibration), **beside)
    return replace(verdict, **beside)


def apply_rule(claim: Claim, measurement: Measurement) -> Verdict:
    """The rule of the claim's kind on `measurement` alone, without controls: for calibration and tables of settings."""
    return _rule(claim, measurement)


def outcome_of(claim: Claim, measurement: Measurement) -> str:
    """What the rule of the claim's kind says of `measurement` alone."""
    return _rule(claim, measurement).outcome


def not_judged(outcome: NotJudged, reason: str) -> Verdict:
    """The verdict on a claim that was not judged: one of `NOT_JUDGED`; `reason` says why and what would change it."""
    return Verdict(outcome, rule="none applied", reason=reason)


def _other_unit(claim: Claim, measurement: Measurement) -> str:
    """A figure in another unit than the claim's cannot be compared with it."""
    if measurement.unit in ("", claim.unit):
        return ""
    return f"the claim is in {claim.unit}, the measurement in {measurement.unit}"


def _unstated(claim: Claim, measurement: Measurement) -> str:
    """What the claim generalises over has to be redrawn."""
    missing = [unit for unit in claim.over if unit not in measurement.redrawn]
    if not missing or measurement.status != "complete":
        return ""
    redrew = ", ".join(measurement.redrawn) or "nothing that is stated"
    return f"the claim generalises over {', '.join(missing)}, but the measurement redrew {redrew}"


def _false_alarm(calibration: Calibration) -> str:
    worst = calibration.worst
    if worst is None or worst.rate <= MOST_FALSE_ALARMS:
        return ""
    return (
        f"the rule cannot tell: with {worst.how} it calls {worst.rate:.1%} of {worst.draws} data sets reproduced, "
        f"more than {MOST_FALSE_ALARMS:.0%}"
    )


def _ceiling(calibration: Calibration) -> str:
    """How far the figures come where the claim is true."""
    words = []
    for oracle in calibration.blind:
        measured, interval = oracle.measurement, oracle.measurement.interval
        ends = "" if interval is None else f" [{number(interval.low)}, {number(interval.high)}]"
        words.append(f"{oracle.how}, where the claim is true, gives {number(measured.value)}{ends}: {oracle.outcome}")
    return "; ".join(words)


def _control_trouble(claim: Claim, outcomes: tuple[ControlOutcome, ...]) -> str:
    given = {outcome.control.name for outcome in outcomes}
    wanted = [*claim.controls, *claim.positive_controls]
    if missing := [name for name in wanted if name not in given]:
        return f"control not measured: {', '.join(missing)}"
    broken = [item for item in outcomes if not item.as_it_must_be]
    return "; ".join(
        f"control '{item.control.name}' must {item.control.must} but came out {item.outcome}" for item in broken
    )


def _rule(claim: Claim, measurement: Measurement) -> Verdict:
    if measurement.status != "complete":
        return Verdict("inconclusive", "needs a complete measurement", reason=f"measurement is {measurement.status}")
    if isinstance(measurement.value, float) and not math.isfinite(measurement.value):
        return Verdict("inconclusive", "needs a finite value", reason=f"measured value is {measurement.value}")
    few = {unit: measurement.redrawn.get(unit, FEWEST_CLUSTERS) for unit in claim.over if unit not in NOISE}
    if few and min(few.values()) < FEWEST_CLUSTERS:
        unit = min(few, key=lambda name: few[name])
        rule = f"needs at least {FEWEST_CLUSTERS} {unit} to generalise over"
        return Verdict("inconclusive", rule, f"decided with {FEWEST_CLUSTERS} {unit} or more", f"{few[unit]} {unit}")
    return _RULES[claim.kind](claim, measurement)


def _interval(measurement: Measurement, low_level: float = LEVEL) -> Interval:
    if measurement.interval is None:
        raise ValueError(f"{measurement.quantity}: a verdict needs an interval, found none")
    if measurement.interval.level < low_level - 1e-9:
        found = measurement.interval.level
        raise ValueError(f"{measurement.quantity}: expected an interval at level {low_level} or more, found {found}")
    return measurement.interval


def expected_number(claim: Claim) -> float:
    """What a claim of a numeric kind expects, in the claim's unit; `Claim` has checked that it is a number."""
    return cast(float, claim.expected)


def expected_labels(claim: Claim) -> tuple[str, ...]:
    """What a claim of kind `order` expects: labels from first to last."""
    return cast("tuple[str, ...]", claim.expected)


def expected_points(claim: Claim) -> tuple[tuple[float, float], ...]:
    """What a claim of kind `curve` expects: points (x, y)."""
    return cast("tuple[tuple[float, float], ...]", claim.expected)


def _value(claim: Claim, measurement: Measurement) -> Verdict:
    """Equivalence test: the interval inside the margin, outside it altogether, or neither."""
    interval, expected, margin = _interval(measurement), expected_number(claim), claim.margin
    far = max(abs(interval.low - expected), abs(interval.high - expected))
    inside = interval.low <= expected <= interval.high
    near = 0.0 if inside else min(abs(interval.low - expected), abs(interval.high - expected))
    rule = f"{interval.level:.0%} interval inside {expected:g} ± {margin:g}"
    if far <= margin:
        return Verdict("reproduced", rule, f"would no longer be reproduced at a margin below {far:.3g}")
    if near > margin:
        return Verdict("contradicted", rule, f"would no longer be contradicted at a margin of {near:.3g} or more")
    return Verdict("inconclusive", rule, _undecided(far, near))


def _undecided(far: float, near: float) -> str:
    last = f"contradicted at a margin below {near:.3g}" if near > 0 else "no margin makes it contradicted"
    return f"would be reproduced at a margin of {far:.3g} or more; {last}"


def _one_sided(claim: Claim, interval: Interval, sign: int, words: str) -> Verdict:
    """`sign` +1: at least `expected`, -1: at most. Distances are how far each end falls short of `expected`."""
    expected, margin = expected_number(claim), claim.margin
    worst = expected - interval.low if sign > 0 else interval.high - expected
    best = expected - interval.high if sign > 0 else interval.low - expected
    end = ("low end" if sign > 0 else "high end") + f" of the {interval.level:.0%} interval"
    rule = f"{end} {words} {expected:g} {'less' if sign > 0 else 'plus'} the margin {margin:g}"
    if worst <= margin:
        least = f"a margin below {worst:.3g}" if worst > 0 else f"an expected value moved by more than {-worst:.3g}"
        return Verdict("reproduced", rule, f"would no longer be reproduced at {least}")
    if best > margin:
        return Verdict("contradicted", rule, f"would no longer be contradicted at a margin of {best:.3g} or more")
    last = f"contradicted at a margin below {best:.3g}" if best > 0 else "no margin makes it contradicted"
    return Verdict("inconclusive", rule, f"would be reproduced at a margin of {worst:.3g} or more; {last}")


def _at_least(claim: Claim, measurement: Measurement) -> Verdict:
    return _one_sided(claim, _interval(measurement), +1, "at or above")


def _at_most(claim: Claim, measurement: Measurement) -> Verdict:
    return _one_sided(claim, _interval(measurement), -1, "at or below")


def _correlation(claim: Claim, measurement: Measurement) -> Verdict:
    """A correlation of the stated sign at least as strong as `expected` less the margin."""
    sign = 1 if expected_number(claim) >= 0 else -1
    return _one_sided(claim, _interval(measurement), sign, "at or beyond")


def _identity(claim: Claim, measurement: Measurement) -> Verdict:
    return _by_support(claim, measurement, str(claim.expected), f"{claim.expected} comes first")


def _order(claim: Claim, measurement: Measurement) -> Verdict:
    """`support` holds, under the claim's own order joined by ' > ', the share of resamples with that order."""
    order = " > ".join(expected_labels(claim))
    return _by_support(claim, measurement, order, f"the order {order} holds")


def _by_support(claim: Claim, measurement: Measurement, label: str, words: str) -> Verdict:
    if not measurement.support:
        raise ValueError(f"{measurement.quantity}: a verdict of kind {claim.kind} needs bootstrap support, found none")
    share, margin = measurement.support.get(label, 0.0), claim.margin
    rule = f"{words} in at least {1 - margin:.0%} of resamples ({share:.1%} found)"
    if share >= 1 - margin:
        return Verdict("reproduced", rule, _at_smaller_margin("reproduced", 1 - share))
    rival = _rival(claim, measurement)
    if rival is not None and rival.ahead >= 1 - margin:
        rule = f"{rule}; {rival.label} ahead of it in {rival.ahead:.1%}, all rivals allowed for"
        return Verdict("contradicted", rule, _at_smaller_margin("contradicted", 1 - rival.ahead))
    last = (
        "nobody is named against it" if rival is None else f"contradicted at a margin of {1 - rival.ahead:.3g} or more"
    )
    return Verdict("inconclusive", rule, f"would be reproduced at a margin of {1 - share:.3g} or more; {last}")


def _rival(claim: Claim, measurement: Measurement) -> Rival | None:
    """Who stands most firmly against the claimed label; in a claimed order, against any of its pairs.

    A label that is not among those measured at all has every one of them ahead of it.
    """
    if claim.kind == "identity":
        label = str(claim.expected)
        if measurement.rivals and label not in measurement.rivals:
            return Rival(str(measurement.value), 1.0)
        return measurement.rivals.get(label)
    pairs = [f"{ahead} > {behind}" for ahead, behind in combinations(expected_labels(claim), 2)]
    known = [measurement.rivals[pair] for pair in pairs if pair in measurement.rivals]
    return max(known, key=lambda rival: rival.ahead, default=None)


def _at_smaller_margin(outcome: str, least: float) -> str:
    """What would flip a verdict on shares of resamples; nothing does where all of them agree."""
    if least <= 0:
        return f"would be {outcome} at any margin: all resamples agree"
    return f"would no longer be {outcome} at a margin below {least:.3g}"


def _existence(claim: Claim, measurement: Measurement) -> Verdict:
    return _maximum(claim, measurement, exists=True)


def _absence(claim: Claim, measurement: Measurement) -> Verdict:
    return _maximum(claim, measurement, exists=False)


def _maximum(claim: Claim, measurement: Measurement, exists: bool) -> Verdict:
    """A maximum over many heads: a simultaneous interval against the threshold, and the null of the maximum.

    One head is above the threshold when the simultaneous interval's low end is, strictly, and the maximum is beyond
    its own null distribution at 0.05; none is when the high end is at or below the threshold.
    """
    interval = _interval(measurement)
    if measurement.p_value is None:
        raise ValueError(f"{measurement.quantity}: a maximum needs the null of the maximum (p_value), found none")
    threshold = expected_number(claim) + (-claim.margin if exists else claim.margin)
    some = interval.low > threshold and measurement.p_value <= ALPHA
    none = interval.high <= threshold
    rule = (
        f"{interval.level:.0%} interval ({interval.method}) against {threshold:g}, "
        f"and p = {measurement.p_value:.3g} under the null, at {ALPHA:g}"
    )
    flip = f"would flip with the threshold at {interval.low if some else interval.high:.3g}"
    if some or none:
        return Verdict("reproduced" if some == exists else "contradicted", rule, flip)
    return Verdict("inconclusive", rule, f"decided for a threshold outside [{interval.low:.3g}, {interval.high:.3g}]")


def _curve(claim: Claim, measurement: Measurement) -> Verdict:
    """Every expected point within the margin: arrays `x`, `low`, `high` hold a simultaneous band at level 0.90."""
    missing = {"x", "low", "high"} - set(measurement.arrays)
    if missing:
        raise ValueError(f"{measurement.quantity}: a curve needs arrays x, low and high, found no {sorted(missing)}")
    band = {float(x): index for index, x in enumerate(measurement.arrays["x"])}
    inside, outside = [], []
    for x, y in expected_points(claim):
        if x not in band:
            raise ValueError(f"{measurement.quantity}: the claim asks for x = {x:g}, which was not measured")
        low, high = float(measurement.arrays["low"][band[x]]), float(measurement.arrays["high"][band[x]])
        inside.append(low >= y - claim.margin and high <= y + claim.margin)
        outside.append(low > y + claim.margin or high < y - claim.margin)
    rule = f"band within ± {claim.margin:g} at {sum(inside)} of {len(inside)} points, outside at {sum(outside)}"
    outcome: Outcome = "reproduced" if all(inside) else "contradicted" if any(outside) else "inconclusive"
    return Verdict(outcome, rule, "see the points in the table" if outcome != "reproduced" else "")


_RULES: Mapping[str, Callable[[Claim, Measurement], Verdict]] = {
    "value": _value,
    "at_least": _at_least,
    "at_most": _at_most,
    "order": _order,
    "identity": _identity,
    "existence": _existence,
    "absence": _absence,
    "correlation": _correlation,
    "curve": _curve,
}


@dataclass(frozen=True)
class Tally:
    """Counts of one scope by outcome. `n` counts what was judged; what was not stands beside it with its reason."""

    counts: Mapping[Outcome, int] = field(default_factory=dict)

    def of(self, outcome: Outcome) -> int:
        """How many came out as `outcome`."""
        return self.counts.get(outcome, 0)

    @property
    def n(self) -> int:
        """All that was judged, failed ones too."""
        return sum(self.of(outcome) for outcome in JUDGED)

    @property
    def not_judged(self) -> int:
        """All that was asked for and not judged."""
        return sum(self.of(outcome) for outcome in NOT_JUDGED)

    def words(self) -> str:
        """The headline of one scope: "k of n judged reproduced, c contradicted, i inconclusive; not judged: ..."."""
        text = f"{self.of('reproduced')} of {self.n} judged reproduced, {self.of('contradicted')} contradicted, "
        text += f"{self.of('inconclusive')} inconclusive"
        text += f", {self.of('failed')} failed" if self.of("failed") else ""
        rest = [f"{self.of(outcome)} {outcome}" for outcome in NOT_JUDGED if self.of(outcome)]
        return text + (f"; not judged: {', '.join(rest)}" if rest else "")


def tally(verdicts: list[tuple[str, Outcome]]) -> dict[str, Tally]:
    """Count `(scope, outcome)` pairs per scope; one scope is never counted as another."""
    counts: dict[str, dict[Outcome, int]] = {}
    for scope, outcome in verdicts:
        row = counts.setdefault(scope, {})
        row[outcome] = row.get(outcome, 0) + 1
    return {scope: Tally(row) for scope, row in counts.items()}
