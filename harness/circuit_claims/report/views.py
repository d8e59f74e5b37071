"""From results and run to what each part of the page shows: plain frozen data, words already chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from circuit_claims.judging.claims import trust_words
from circuit_claims.judging.evidence import Bars
from circuit_claims.judging.numbers import number
from circuit_claims.judging.statistics import binomial_interval
from circuit_claims.judging.verdicts import JUDGED
from circuit_claims.report.figures import plots
from circuit_claims.report.figures.evidence import Exhibit, exhibit
from circuit_claims.report.model import (
    ClaimRecord,
    CostRecord,
    MeasurementRecord,
    PaperRecord,
    Results,
    RunRecord,
    SubjectRecord,
    VerdictRecord,
)
from circuit_claims.report.text import OUTCOME_MARKS, duration, expected_words, size, slug

ORIGIN_WORDS: Mapping[str, str] = {
    "live": "measured in this run",
    "store": "read from the store, where an earlier run left it",
    "recorded": "recorded: shipped with the project",
}
MARK_OF_MARKED = "◆"
SHOWN_IN_FULL = (*JUDGED, "cannot be decided here")


@dataclass(frozen=True)
class VerdictView:
    """One claim on one subject as its section shows it."""

    record: VerdictRecord
    claim: ClaimRecord
    anchor: str
    measured: str
    paper: str
    strip: Markup | None
    strip_key: str
    exhibits: tuple[Exhibit, ...]
    provenance: tuple[tuple[str, str], ...]
    controls_words: str
    calibration: tuple[tuple[str, str], ...]

    @property
    def mark(self) -> str:
        """The sign of the outcome; it never stands without the word."""
        return OUTCOME_MARKS[self.record.outcome]

    @property
    def same_without(self) -> str:
        """Without which instruments the rule says the same of a judged claim, in a sentence; nothing where none."""
        same = [name for name, outcome in self.record.without.items() if outcome == self.record.outcome]
        if not same or self.record.outcome not in JUDGED:
            return ""
        return f"The same comes of {' and of '.join(same)}: the instrument adds nothing here."

    @property
    def paper_and_margin(self) -> str:
        """The paper's value and the margin around it in one phrase."""
        margin = self.record.margin
        return self.paper if margin is None else f"{self.paper}, margin {number(margin)}"


@dataclass(frozen=True)
class ClaimView:
    """One claim with its verdicts, the paper's own models first."""

    record: ClaimRecord
    anchor: str
    paper_words: str
    trust_words: str
    verdicts: tuple[VerdictView, ...]

    @property
    def judged(self) -> tuple[VerdictView, ...]:
        """The verdicts that rest on something measured, whatever their outcome."""
        return tuple(view for view in self.verdicts if view.record.outcome in SHOWN_IN_FULL)

    @property
    def not_judged(self) -> tuple[VerdictView, ...]:
        """The subjects on which nothing was judged, for a reason that fits in a line."""
        return tuple(view for view in self.verdicts if view.record.outcome not in SHOWN_IN_FULL)


@dataclass(frozen=True)
class PaperView:
    """One paper with its claims."""

    record: PaperRecord
    anchor: str
    link: str
    claims: tuple[ClaimView, ...]

    @property
    def silent(self) -> int:
        """How many of its claims have no verdict on any subject, not even that it was not judged."""
        return sum(not claim.verdicts for claim in self.claims)


@dataclass(frozen=True)
class SubjectView:
    """One subject's card: names and values, nested tables as rows of their own."""

    record: SubjectRecord
    anchor: str
    rows: tuple[tuple[str, str], ...]


def claim_anchor(claim_id: str) -> str:
    """The id of a claim's section in the page."""
    return slug("claim", claim_id)


def verdict_anchor(verdict: VerdictRecord) -> str:
    """The id of a verdict's section in the page."""
    return slug("verdict", verdict.claim, verdict.subject)


def paper_views(results: Results, run: RunRecord) -> tuple[PaperView, ...]:
    """Papers with their claims and verdicts, in the order of the results; what names no known paper comes last."""
    papers = {paper.id: paper for paper in results.papers}
    claims = _claims_with_strays(results)
    for claim in claims:
        papers.setdefault(claim.paper, PaperRecord(id=claim.paper, title=claim.paper or "Claims of no stated paper"))
    costs = {(cost.claim, cost.subject): cost for cost in run.costs}
    views = []
    for paper in papers.values():
        own = tuple(_claim_view(claim, results, run, costs) for claim in claims if claim.paper == paper.id)
        if own:
            views.append(PaperView(paper, slug("paper", paper.id), safe_link(paper.url), own))
    return tuple(views)


def _claims_with_strays(results: Results) -> tuple[ClaimRecord, ...]:
    """The claims of the run, and one made up for each verdict whose claim the run did not announce."""
    known = {claim.id for claim in results.claims}
    strays = dict.fromkeys(verdict.claim for verdict in results.verdicts if verdict.claim not in known)
    return (*results.claims, *(ClaimRecord(id=name, title="not announced by the run") for name in strays))


def _claim_view(
    claim: ClaimRecord, results: Results, run: RunRecord, costs: Mapping[tuple[str, str], CostRecord]
) -> ClaimView:
    cards = {subject.name: subject for subject in results.subjects}
    verdicts = tuple(
        verdict_view(verdict, claim, costs.get((verdict.claim, verdict.subject)), cards.get(verdict.subject), run)
        for verdict in results.verdicts
        if verdict.claim == claim.id
    )
    return ClaimView(
        record=claim,
        anchor=claim_anchor(claim.id),
        paper_words=expected_words(claim.kind, claim.expected, claim.unit),
        trust_words=trust_words(claim.trust),
        verdicts=verdicts,
    )


def verdict_view(
    verdict: VerdictRecord, claim: ClaimRecord, cost: CostRecord | None, card: SubjectRecord | None, run: RunRecord
) -> VerdictView:
    """Everything the section of one verdict shows; figures are drawn here."""
    anchor = verdict_anchor(verdict)
    expected = claim.expected if verdict.expected is None else verdict.expected
    return VerdictView(
        record=verdict,
        claim=claim,
        anchor=anchor,
        measured=measured_words(verdict.measurement, claim.unit),
        paper=expected_words(claim.kind, expected, claim.unit),
        strip=_strip(verdict, claim, f"{anchor}-strip"),
        strip_key=_strip_key(verdict),
        exhibits=tuple(exhibit(item, f"{anchor}-{index}") for index, item in enumerate(verdict.evidence)),
        provenance=_provenance(verdict, cost, card, run),
        controls_words=controls_words(verdict),
        calibration=tuple(calibration_rows(verdict)),
    )


def measured_words(measurement: MeasurementRecord | None, unit: str) -> str:
    """Value, unit and interval in one phrase: "2.4 ratio (90 % interval 1.9 to 3.1)"; "nothing" without one."""
    if measurement is None or (measurement.value is None and measurement.interval is None):
        return "nothing"
    words = number(measurement.value)
    if not isinstance(measurement.value, str):
        words = f"{words} {measurement.unit or unit}".strip()
    interval = measurement.interval
    if interval is not None and interval.low == interval.high:
        words += ", a count: nothing redrawn changes it"
    elif interval is not None:
        words += f" ({interval.level:.0%} interval {number(interval.low)} to {number(interval.high)})"
    return words.replace("% ", "\u202f% ")


def controls_words(verdict: VerdictRecord) -> str:
    """How many controls came out as they must, in one phrase; none measured is said too."""
    if not verdict.controls:
        return "no control measured"
    total = len(verdict.controls)
    broken = [control.name for control in verdict.controls if not control.as_it_must_be]
    words = f"{total - len(broken)} of {total} {'control' if total == 1 else 'controls'} held"
    return f"{words} (not: {', '.join(broken)})" if broken else words


def calibration_rows(verdict: VerdictRecord) -> Iterator[tuple[str, str]]:
    """Could the rule have said otherwise? What it says of false and of true data, and without the instrument."""
    for alarm in verdict.calibration.false_alarms:
        low, high = binomial_interval(alarm.outcomes.get("reproduced", 0), alarm.draws)
        words = f"{alarm.rate:.1%} of {alarm.draws} called reproduced ({low:.1%} to {high:.1%})"
        yield f"where it is false: {alarm.how}", words.replace("%", "\u202f%")
    for oracle in verdict.calibration.oracles:
        measured = measured_words(oracle.measurement, "")
        yield f"where it is true: {oracle.how}", f"{oracle.outcome}, {measured}"
    for name, outcome in verdict.without.items():
        same = outcome == verdict.outcome
        yield name, f"{outcome}: the same without the instrument, which adds nothing here" if same else outcome
    if verdict.measurement and verdict.outcome in JUDGED and not verdict.calibration.false_alarms:
        yield "where it is false", "not calibrated: no data were made in which the claim is false"


def band_of(kind: str, expected: float, margin: float) -> tuple[float, float]:
    """The values that count as reproduced for a numeric claim, given the paper's value and the margin."""
    if kind in ("at_least", "existence") or (kind == "correlation" and expected >= 0):
        return expected - margin, math.inf
    if kind in ("at_most", "absence", "correlation"):
        return -math.inf, expected + margin
    return expected - margin, expected + margin


def _strip(verdict: VerdictRecord, claim: ClaimRecord, name: str) -> Markup | None:
    """The strip of a numeric claim, the shares of resamples of a claim about labels, or nothing to draw."""
    measurement = verdict.measurement
    expected, margin = terms_of(verdict, claim)
    if measurement is None:
        return None
    if isinstance(measurement.value, float) and expected is not None and not math.isnan(measurement.value):
        points = [_point(verdict.subject, measurement, "measured")]
        points += [
            _point(control.name, control.measurement, "negative" if control.must == "fail" else "positive")
            for control in verdict.controls
            if control.measurement is not None and isinstance(control.measurement.value, float)
        ]
        unit = measurement.unit or claim.unit
        return plots.strip(points, band_of(claim.kind, expected, margin), expected, unit, name)
    if any(share > 0 for share in measurement.support.values()):
        ranking = sorted(measurement.support.items(), key=lambda item: (-item[1], item[0]))[:8]
        title = "Share of resamples in which each comes first"
        shares = Bars(
            title=title,
            labels=[label for label, _ in ranking],
            values=[share for _, share in ranking],
            threshold=1.0 - margin,
            label="share of resamples",
        )
        return plots.bars(shares, name, title)
    return None


def _strip_key(verdict: VerdictRecord) -> str:
    if verdict.measurement is None or not isinstance(verdict.measurement.value, float):
        return "Dashed line: the share that counts as reproduced."
    musts = {control.must for control in verdict.controls}
    words = ["● measured, with its interval"]
    words += ["◇ control that must fail"] if "fail" in musts else []
    words += ["■ control that must pass"] if "pass" in musts else []
    return "; ".join([*words, "shaded: counts as reproduced"]) + "."


def terms_of(verdict: VerdictRecord, claim: ClaimRecord) -> tuple[float | None, float]:
    """The paper's value, None where it is no number, and the margin a verdict was given under."""
    expected = claim.expected if verdict.expected is None else verdict.expected
    margin = claim.margin if verdict.margin is None else verdict.margin
    is_number = isinstance(expected, (int, float)) and not isinstance(expected, bool)
    return (float(expected) if is_number else None), float(margin or 0.0)


def _point(name: str, measurement: MeasurementRecord, role: str) -> plots.PlotPoint:
    interval = measurement.interval
    ends = (None, None) if interval is None else (interval.low, interval.high)
    return plots.PlotPoint(name, float(measurement.value), *ends, role)  # type: ignore[arg-type]


def _provenance(
    verdict: VerdictRecord, cost: CostRecord | None, card: SubjectRecord | None, run: RunRecord
) -> tuple[tuple[str, str], ...]:
    measurement, environment = verdict.measurement, run.environment
    rows = [
        ("weights", str((card.card if card else {}).get("digest") or "")),
        ("source", str((card.card if card else {}).get("source") or "")),
        ("code", str(environment.get("commit") or "")),
        ("packages", packages_words(environment)),
        ("platform", str(environment.get("platform") or "")),
        ("device", str(environment.get("device") or "")),
    ]
    if measurement is not None:
        rows += [
            ("quantity", measurement.quantity),
            ("items measured", f"{measurement.n:,}" if measurement.n else ""),
            ("interval by", measurement.interval.method if measurement.interval else ""),
            ("redrawn", ", ".join(f"{count:,} {unit}" for unit, count in measurement.redrawn.items())),
            ("seed", "" if measurement.seed is None else str(measurement.seed)),
            ("number type", measurement.dtype),
            ("batch", "" if measurement.batch is None else str(measurement.batch)),
            ("status", measurement.status),
            ("store key", measurement.key),
        ]
    if cost is not None:
        rows += [
            ("origin", ORIGIN_WORDS.get(cost.origin, cost.origin)),
            ("time to measure", "" if cost.measured_seconds is None else duration(cost.measured_seconds)),
            ("peak memory", size(cost.peak_bytes) if cost.peak_bytes else ""),
            ("time in the test", "" if cost.seconds is None else duration(cost.seconds)),
        ]
    return tuple((name, value) for name, value in [*rows, ("test", verdict.node)] if value)


def packages_words(environment: Mapping[str, Any]) -> str:
    """Python and package versions on one line, torch among them."""
    packages = dict(environment.get("packages") or {})
    python = environment.get("python")
    versions = [f"Python {python}"] if python else []
    if environment.get("torch"):
        packages.setdefault("torch", environment["torch"])
    return ", ".join([*versions, *(f"{name} {version}" for name, version in sorted(packages.items()))])


def subject_views(results: Results) -> tuple[SubjectView, ...]:
    """The cards of the subjects."""
    return tuple(
        SubjectView(subject, slug("subject", subject.name), tuple(_flat(subject.card))) for subject in results.subjects
    )


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in table.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            rows += _flat(value, f"{name}: ")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            rows.append((name, ", ".join(map(_card_value, value))))
        elif value not in (None, ""):
            rows.append((name, _card_value(value)))
    return rows


def _card_value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return number(value)


def safe_link(url: str) -> str:
    """`url` if it is one that only leads elsewhere (http or https), else nothing."""
    return url if url.startswith(("https://", "http://")) else ""
