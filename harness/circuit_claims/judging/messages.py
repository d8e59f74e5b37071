"""Verdicts in plain words: what a person reads when a claim misses."""

from __future__ import annotations

from collections.abc import Mapping

from circuit_claims.judging.claims import Claim, trust_words
from circuit_claims.judging.measurement import Measurement
from circuit_claims.judging.numbers import number
from circuit_claims.judging.verdicts import Verdict, expected_labels, expected_points

PHRASES = {
    "value": "",
    "at_least": "at least ",
    "at_most": "at most ",
    "order": "in the order ",
    "identity": "",
    "existence": "one above ",
    "absence": "none above ",
    "correlation": "correlation at or beyond ",
    "curve": "the curve through ",
}


def measurement_line(measurement: Measurement) -> str:
    """One line: value, interval, what it was taken over."""
    parts = [f"{number(measurement.value)} {measurement.unit}".strip()]
    if measurement.interval is not None:
        interval = measurement.interval
        parts.append(f"{interval.level:.0%} interval [{number(interval.low)}, {number(interval.high)}]")
    if measurement.p_value is not None:
        parts.append(f"p = {measurement.p_value:.2g} under the null")
    over = f"n = {measurement.n:,}" if measurement.n else ""
    method = measurement.interval.method if measurement.interval else ""
    seed = "" if measurement.seed is None else f"seed {measurement.seed}"
    return "   ".join(filter(None, [*parts, ", ".join(filter(None, [over, method, seed]))]))


def paper_says(claim: Claim) -> str:
    """One line: the expected value with its margin, trust mark in words and place in the paper."""
    expected = expected_value(claim)
    return f"{PHRASES[claim.kind]}{expected} (margin {claim.margin:g})   {trust_words(claim.trust)}, {claim.locus}"


def expected_value(claim: Claim) -> str:
    """The expected value alone: a number, a label, labels in their order, or the points of a curve."""
    if claim.kind == "curve":
        return ", ".join(f"({number(x)}, {number(y)})" for x, y in expected_points(claim))
    return " > ".join(expected_labels(claim)) if claim.kind == "order" else number(claim.expected)


def verdict_text(
    claim: Claim, subject: str, scope: str, measurement: Measurement | None, verdict: Verdict, ways: Mapping[str, str]
) -> str:
    """The message of one verdict: the paper's value, the measured one, the controls, what would flip it.

    `ways` are the lines to type by what they do ("re-run", "to run"); empty ones are left out.
    """
    lines = [f"{claim.id} on {subject}: {verdict.outcome} ({scope})", f"  claim     {claim.title}"]
    lines.append(f"  paper     {paper_says(claim)}")
    if measurement is not None:
        lines.append(f"  measured  {measurement_line(measurement)}")
    if verdict.controls:
        shown = ", ".join(f"{item.control.name} {number(item.control.measurement.value)}" for item in verdict.controls)
        fine = all(item.as_it_must_be for item in verdict.controls)
        lines.append(f"  controls  {shown}   {'as they must be' if fine else 'NOT AS THEY MUST BE'}")
    last = {"reason": verdict.reason, "flip": verdict.flip, **ways}
    return "\n".join([*lines, *(f"  {name:<9} {text}" for name, text in last.items() if text)])
