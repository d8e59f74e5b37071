"""Verdicts put together for a reader: what came out badly, worst first, and what one command would run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from circuit_claims.judging.verdicts import NOT_JUDGED
from circuit_claims.report.model import ClaimRecord, VerdictRecord, scope_rank
from circuit_claims.report.views import PaperView, VerdictView, band_of, terms_of

BADNESS = ("contradicted", "failed", "inconclusive")
RANK = {outcome: place for place, outcome in enumerate(NOT_JUDGED)}


@dataclass(frozen=True)
class BadGroup:
    """A claim that came out badly in one way and one scope, with the subjects it did so on."""

    claim: ClaimRecord
    outcome: str
    scope: str
    paper: str
    verdicts: tuple[VerdictView, ...]


def badly(views: Sequence[PaperView]) -> tuple[BadGroup, ...]:
    """What came out badly, worst first: contradicted, failed, inconclusive; surprises before known deviations.

    Then the paper's own models before others, and by how many margins the interval lies from the values that would
    have counted as reproduced. Subjects on which a claim came out the same way stand together.
    """
    every = [view for paper in views for claim in paper.claims for view in claim.verdicts]
    bad = sorted((view for view in every if view.record.outcome in BADNESS), key=_badness)
    groups: dict[tuple[Any, ...], list[VerdictView]] = {}
    for view in bad:
        key = (view.claim.id, view.record.outcome, view.record.scope, view.record.deviation is None, view.paper)
        groups.setdefault(key, []).append(view)
    return tuple(
        BadGroup(members[0].claim, key[1], key[2], members[0].paper_and_margin, tuple(members))
        for key, members in groups.items()
    )


@dataclass(frozen=True)
class HeldGroup:
    """A claim that was reproduced in one scope, with the subjects it was reproduced on."""

    claim: ClaimRecord
    scope: str
    verdicts: tuple[VerdictView, ...]


def held(views: Sequence[PaperView]) -> tuple[HeldGroup, ...]:
    """What was reproduced, the paper's own models first, then as the papers give it."""
    groups: dict[tuple[str, str], list[VerdictView]] = {}
    for view in (view for paper in views for claim in paper.claims for view in claim.verdicts):
        if view.record.outcome == "reproduced":
            groups.setdefault((view.claim.id, view.record.scope), []).append(view)
    made = [HeldGroup(members[0].claim, key[1], tuple(members)) for key, members in groups.items()]
    return tuple(sorted(made, key=lambda group: scope_rank(group.scope)))


@dataclass(frozen=True)
class NotJudgedGroup:
    """Claims that were not judged on a subject for one reason, and the command that would change it, if any would."""

    outcome: str
    command: str
    subject: str
    reason: str
    verdicts: tuple[VerdictView, ...]


def not_judged_groups(views: Sequence[PaperView]) -> tuple[NotJudgedGroup, ...]:
    """Verdicts that were not judged, those of one outcome, subject, reason and command together, most claims first."""
    groups: dict[tuple[str, str, str, str], list[VerdictView]] = {}
    for view in (view for paper in views for claim in paper.claims for view in claim.verdicts):
        record = view.record
        if record.outcome in NOT_JUDGED:
            key = (record.outcome, record.command or record.rerun, record.subject, record.reason)
            groups.setdefault(key, []).append(view)
    made = [NotJudgedGroup(*key, tuple(members)) for key, members in groups.items()]
    return tuple(
        sorted(made, key=lambda group: (RANK[group.outcome], -len(group.verdicts), group.subject, group.command))
    )


def _badness(view: VerdictView) -> tuple[Any, ...]:
    verdict = view.record
    return (
        BADNESS.index(verdict.outcome),
        verdict.deviation is not None,
        scope_rank(verdict.scope),
        -_distance(verdict, view.claim),
        verdict.claim,
        verdict.subject,
    )


def _distance(verdict: VerdictRecord, claim: ClaimRecord) -> float:
    expected, margin = terms_of(verdict, claim)
    measurement = verdict.measurement
    if expected is None or measurement is None or measurement.interval is None:
        return 0.0
    low, high = band_of(claim.kind, expected, margin)
    gap = max(low - measurement.interval.high, measurement.interval.low - high, 0.0)
    return gap / (margin or abs(expected) or 1.0) if math.isfinite(gap) else 0.0
