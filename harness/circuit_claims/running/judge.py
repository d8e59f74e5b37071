"""The `judge` a claim test calls: it judges a finding, writes the verdict to the event stream, and keeps the worst."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from circuit_claims.judging.calibration import Calibration, Keep, call
from circuit_claims.judging.claims import Claim, Deviation
from circuit_claims.judging.evidence import Evidence, Table
from circuit_claims.judging.findings import Finding
from circuit_claims.judging.measurement import Measurement
from circuit_claims.judging.messages import measurement_line, verdict_text
from circuit_claims.judging.multiplicity import chance_if_false
from circuit_claims.judging.verdicts import JUDGED, NOT_JUDGED, NotJudged, Verdict, apply_rule, judge, not_judged
from circuit_claims.keeping.events import EventStream
from circuit_claims.keeping.store import to_json


@dataclass(frozen=True)
class Judged:
    """One claim judged on one subject: the verdict, the message that tells it, and a deviation that expects it."""

    claim: Claim
    verdict: Verdict
    message: str
    deviation: Deviation | None

    @property
    def no_longer_deviates(self) -> bool:
        """A listed deviation that has started to hold: the list is out of date, and the test turns red."""
        return self.deviation is not None and self.verdict.outcome == "reproduced"


@dataclass(frozen=True)
class TextUse:
    """Which text a test measures on, as the report names it; `stand_in` if it is not the one the claim is about.

    >>> TextUse("source files of Python 3.12, standing in for code of the Pile", stand_in=True).stand_in
    True
    """

    label: str
    stand_in: bool


@dataclass
class Judge:
    """Judges the claims of one test on one subject. `judge("AB-05", finding, evidence=[...])` records a verdict.

    A test has it as its argument `judge`, and may hand it on:

    >>> def judge_lead(judge: Judge, lead: Finding, bars: Evidence) -> None:
    ...     judge("AB-05", lead, evidence=[bars])

    `text` is set where the test measures on a text: on another than the paper's, even the paper's own model
    generalises.
    """

    claims: Mapping[str, Claim]
    subject: str
    node: str
    rerun: str
    stream: EventStream
    deviations: Sequence[Deviation] = ()
    keep: Keep = call
    text: TextUse | None = None
    judged: list[Judged] = field(default_factory=list)
    settled: dict[str, Judged] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def __call__(
        self, claim_id: str, finding: Finding, evidence: Sequence[Evidence] = (), text: TextUse | None = None
    ) -> Judged:
        """Judge claim `claim_id` on `finding`; `text` where this one claim was measured on another than the rest.

        Raises `KeyError` for a claim the test did not declare.
        """
        self.text = text or self.text
        claim = self._claim(claim_id)
        if claim_id in self.settled:
            return self.settled[claim_id]
        without, calibration = finding.without_for(claim), finding.calibration_for(claim, keep=self.keep)
        verdict = judge(claim, finding.measurement, finding.controls_for(claim), calibration, without)
        return self._record(claim, verdict, finding.measurement, evidence)

    def under(self, claim_id: str, settings: Mapping[str, Finding]) -> Evidence:
        """A table of the verdict under each setting, the claim's own first; rows that differ from it are marked."""
        claim = self._claim(claim_id)
        verdicts = {name: apply_rule(claim, finding.measurement).outcome for name, finding in settings.items()}
        own = next(iter(verdicts.values()))
        rows = [[name, verdicts[name], measurement_line(finding.measurement)] for name, finding in settings.items()]
        return Table(
            title="Settings under which the verdict changes",
            caption="The first row is the setting the claim is judged under; marked rows come out differently.",
            columns=["setting", "verdict", "measured"],
            rows=rows,
            mark_rows=[index for index, verdict in enumerate(verdicts.values()) if verdict != own],
        )

    def not_judged(self, reason: str, command: str = "", outcome: NotJudged = "not here") -> None:
        """Record every claim of the test that has no verdict yet as not judged, with the command to type."""
        for claim in self.without_verdict():
            self._record(claim, not_judged(outcome, reason), None, (), command)

    def does_not_apply(self, claim_id: str, reason: str, measurement: Measurement | None = None) -> None:
        """Record a claim as not applying, with the figure that says so; the test's body may judge it all the same."""
        claim = self._claim(claim_id)
        self.settled[claim_id] = self._record(claim, not_judged("does not apply", reason), measurement, ())

    def broke(self, error: BaseException, *, afterwards: bool = False) -> None:
        """Record every claim of the test that has no verdict yet as failed, with the error.

        `afterwards`: what a verdict stood on turned out to be broken, so those given already fail too; of two verdicts
        on one claim and subject the last one counts.
        """
        reason = f"{type(error).__name__}: {error}"
        for claim in list(self.claims.values()) if afterwards else self.without_verdict():
            self._record(claim, Verdict("failed", rule="none applied", reason=reason), None, ())

    def without_verdict(self) -> list[Claim]:
        """The claims of the test that have none yet."""
        done = {item.claim.id for item in self.judged}
        return [claim for claim in self.claims.values() if claim.id not in done]

    def _claim(self, claim_id: str) -> Claim:
        if claim_id not in self.claims:
            raise KeyError(f"{claim_id}: expected one of the test's own claims ({', '.join(self.claims)})")
        return self.claims[claim_id]

    def _record(
        self,
        claim: Claim,
        verdict: Verdict,
        measurement: Measurement | None,
        evidence: Sequence[Evidence],
        command: str = "",
    ) -> Judged:
        deviation = next(
            (item for item in self.deviations if (item.claim, item.subject) == (claim.id, self.subject)), None
        )
        scope = "generalisation" if self.text and self.text.stand_in else claim.scope_of(self.subject)
        # The same options would leave it not judged again: what runs it is `command`.
        rerun = "" if verdict.outcome in NOT_JUDGED and measurement is None else self.rerun
        ways = {"re-run": rerun, "to run": command}
        message = verdict_text(claim, self.subject, scope, measurement, verdict, ways)
        # Each verdict counts from the one before: claims that share a test must not count its time twice.
        began, self.started = self.started, time.perf_counter()
        self.stream.write(
            "verdict",
            claim=claim.id,
            subject=self.subject,
            scope=scope,
            text="" if self.text is None else self.text.label,
            node=self.node,
            **_verdict_fields(claim, verdict),
            chance_if_false=None if measurement is None else _chance(claim, verdict, measurement),
            measurement=None if measurement is None else _measurement_json(measurement),
            evidence=[one.to_json() for one in evidence],
            deviation=None if deviation is None else deviation.model_dump(mode="json"),
            rerun=rerun,
            command=command,
            seconds=self.started - began,
        )
        self.judged.append(Judged(claim, verdict, message, deviation))
        return self.judged[-1]


def _chance(claim: Claim, verdict: Verdict, measurement: Measurement) -> float | None:
    """Of judged, complete measurements alone."""
    judged = verdict.outcome in JUDGED and verdict.outcome != "failed" and measurement.status == "complete"
    return chance_if_false(claim, measurement) if judged else None


def _verdict_fields(claim: Claim, verdict: Verdict) -> dict[str, Any]:
    return {
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "rule": verdict.rule,
        "flip": verdict.flip,
        "expected": claim.expected,
        "margin": claim.margin,
        "controls": [
            {
                "name": item.control.name,
                "must": item.control.must,
                "outcome": item.outcome,
                "as_it_must_be": item.as_it_must_be,
                "measurement": _measurement_json(item.control.measurement),
            }
            for item in verdict.controls
        ],
        "calibration": _calibration_fields(verdict.calibration),
        "without": dict(verdict.without),
    }


def _calibration_fields(calibration: Calibration) -> dict[str, Any]:
    return {
        "false_alarms": [{"how": one.how, "outcomes": dict(one.outcomes)} for one in calibration.false_alarms],
        "oracles": [
            {"how": one.how, "outcome": one.outcome, "measurement": _measurement_json(one.measurement)}
            for one in calibration.oracles
        ],
    }


def _measurement_json(measurement: Measurement) -> dict[str, Any]:
    cost = {"seconds": measurement.cost.seconds, "peak_bytes": measurement.cost.peak_bytes}
    key = measurement.facts.get("key")
    return {**to_json(measurement), "cost": cost, "origin": measurement.origin, "key": key}
