"""From a run's event stream to `Results` and `RunRecord`. Whatever can be read is kept; whatever cannot is said."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from circuit_claims.errors import ClaimsError
from circuit_claims.judging.verdicts import OUTCOMES
from circuit_claims.report.model import (
    CalibrationRecord,
    ClaimRecord,
    ControlRecord,
    CostRecord,
    DeviationRecord,
    FalseAlarmRecord,
    MeasurementRecord,
    Missing,
    OracleRecord,
    PaperRecord,
    Results,
    RunRecord,
    SessionRecord,
    SetAside,
    SubjectRecord,
    VerdictRecord,
    scope_rank,
    tallies,
    tally_words,
)
from circuit_claims.report.text import natural, without_addresses

EVENTS = "events.jsonl"
# pytest's exit statuses of a run that reached its end: all passed, some failed, nothing selected.
FINISHED = (0, 1, 5)
Event = Mapping[str, Any]


class ReportError(ClaimsError, ValueError):
    """A report that cannot be made or read; the text says what was expected, what was found, what to type next."""


@dataclass(frozen=True)
class Collected:
    """What one event stream holds: what was found, and when, where and at what cost."""

    results: Results
    run: RunRecord


@dataclass
class _Gathered:
    """The events sorted by kind, later ones replacing earlier ones of the same claim and subject."""

    sessions: list[SessionRecord] = field(default_factory=list)
    profile: str = ""
    papers: dict[str, PaperRecord] = field(default_factory=dict)
    claims: dict[str, ClaimRecord] = field(default_factory=dict)
    subjects: dict[str, SubjectRecord] = field(default_factory=dict)
    verdicts: dict[tuple[str, str], VerdictRecord] = field(default_factory=dict)
    costs: dict[tuple[str, str], CostRecord] = field(default_factory=dict)
    set_aside: list[SetAside] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    repeated: dict[tuple[str, str], int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)


def read_run(run_dir: Path) -> Collected:
    """Read `run_dir/events.jsonl`. Raises `ReportError` where there is no such file or not one whole event in it."""
    path = Path(run_dir) / EVENTS
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ReportError(
            f"no run to report\n  expected {path}\n  found    no such file\n"
            "  Type: pytest claims/ --claims-report FOLDER, then claims report FOLDER"
        ) from None
    events, notes = parse_events(data)
    if not events:
        found = f"{len(notes):,} torn lines" if notes else f"{len(data):,} bytes"
        raise ReportError(
            f"no run to report\n  expected events in {path}\n  found    {found} and not one whole event\n"
            "  Type: pytest claims/ --claims-report FOLDER, to run the claims again"
        )
    return collect(events, notes)


def parse_events(data: bytes) -> tuple[list[Event], list[str]]:
    """The events in `data` and notes on lines that could not be read.

    A line torn by a kill is dropped; where a restarted run went on in the same line, what follows the tear is kept.
    Bytes that are not UTF-8 become visible escapes.
    """
    events: list[Event] = []
    notes: list[str] = []
    lines = data.split(b"\n")
    for number, raw in enumerate(lines, start=1):
        line = raw.decode("utf-8", "surrogateescape").strip()
        if not line:
            continue
        event = _whole(line)
        if event is None:
            place = "the last line" if number == len(lines) else f"line {number}"
            event = _after_the_tear(line)
            kept = "what followed the tear is kept" if event is not None else "it is left out"
            notes.append(f"{place} of the event stream is torn ({len(raw):,} bytes): {kept}")
        if event is not None:
            events.append(event)
    return events, notes


def _whole(line: str) -> Event | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict):
        return None
    suspect = not line.isascii() or "\\ud" in line.lower()
    return _without_surrogates(event) if suspect else event


def _without_surrogates(value: Any) -> Any:
    """Lone surrogates, from JSON escapes or from bytes that are not UTF-8, become visible escapes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return [_without_surrogates(item) for item in value] if isinstance(value, list) else value


def _after_the_tear(line: str) -> Event | None:
    start = line.rfind('{"event"')
    return _whole(line[start:]) if start > 0 else None


def collect(events: Iterable[Event], notes: Iterable[str] = ()) -> Collected:
    """Sort `events` into results and run. Pure and independent of the order in which workers reported.

    Of several verdicts on the same claim and subject the last one counts, and a note says so. Events of an unknown
    kind are counted in a note. A verdict that cannot be read counts as `failed`: it never vanishes.
    """
    gathered = _Gathered(notes=list(notes))
    for event in events:
        handler = _HANDLERS.get(str(event.get("event")))
        if handler is None:
            kind = str(event.get("event"))
            gathered.unknown[kind] = gathered.unknown.get(kind, 0) + 1
            continue
        try:
            handler(gathered, event)
        except (ValidationError, TypeError, ValueError, KeyError, AttributeError) as error:
            gathered.notes.append(f"a {event['event']!r} event could not be read and is left out: {_brief(error)}")
    return Collected(_results(gathered), _run(gathered))


def _results(gathered: _Gathered) -> Results:
    verdicts = tuple(sorted(gathered.verdicts.values(), key=lambda verdict: _place(gathered, verdict)))
    reported = {verdict.claim for verdict in verdicts}
    claims = tuple(sorted(gathered.claims.values(), key=lambda claim: (natural(claim.paper), natural(claim.id))))
    unreported = tuple(Missing(claim=claim.id) for claim in claims if claim.id not in reported)
    return Results(
        complete=bool(gathered.sessions) and gathered.sessions[-1].exitstatus in FINISHED,
        profile=gathered.profile,
        papers=tuple(sorted(gathered.papers.values(), key=lambda paper: natural(paper.id))),
        claims=claims,
        subjects=tuple(sorted(gathered.subjects.values(), key=lambda subject: natural(subject.name))),
        verdicts=verdicts,
        unreported=unreported,
        tallies={scope: tally_words(row) for scope, row in tallies(verdicts).items()},
    )


def _place(gathered: _Gathered, verdict: VerdictRecord) -> tuple[Any, ...]:
    claim = gathered.claims.get(verdict.claim)
    paper = claim.paper if claim else ""
    return natural(paper), natural(verdict.claim), scope_rank(verdict.scope), natural(verdict.subject)


def _run(gathered: _Gathered) -> RunRecord:
    notes = list(gathered.notes)
    for (claim, subject), count in sorted(gathered.repeated.items()):
        notes.append(f"{claim} on {subject} was reported {count + 1} times: the last verdict counts")
    for kind, count in sorted(gathered.unknown.items()):
        notes.append(f"{count} event(s) of the unknown kind {kind!r} were passed over")
    if gathered.sessions and len({json.dumps(s.environment, sort_keys=True) for s in gathered.sessions}) > 1:
        notes.append("the environment changed between the sessions of this run: the last one is shown")
    costs = tuple(gathered.costs[key] for key in sorted(gathered.costs, key=lambda key: tuple(map(natural, key))))
    return RunRecord(
        sessions=tuple(gathered.sessions), costs=costs, set_aside=tuple(gathered.set_aside), notes=tuple(notes)
    )


def _on_run(gathered: _Gathered, event: Event) -> None:
    argv = event.get("argv") or ()
    session = _known(SessionRecord, event, {"finished", "exitstatus", "argv"})
    gathered.sessions.append(SessionRecord(**session, argv=(argv,) if isinstance(argv, str) else tuple(map(str, argv))))
    gathered.profile = str(event.get("profile") or gathered.profile)
    for paper in event.get("papers") or ():
        gathered.papers[str(paper["id"])] = PaperRecord(**_known(PaperRecord, paper))
    for claim in event.get("claims") or ():
        gathered.claims[str(claim["id"])] = ClaimRecord(**_known(ClaimRecord, claim))


def _on_end(gathered: _Gathered, event: Event) -> None:
    if not gathered.sessions:
        gathered.sessions.append(SessionRecord())
    changes = {"finished": str(event.get("finished", "")), "exitstatus": event.get("exitstatus")}
    gathered.sessions[-1] = SessionRecord(**{**dict(gathered.sessions[-1]), **changes})


def _on_subject(gathered: _Gathered, event: Event) -> None:
    name = str(event["name"])
    gathered.subjects[name] = SubjectRecord(name=name, card=event.get("card") or {})


def _on_store(gathered: _Gathered, event: Event) -> None:
    gathered.set_aside.append(SetAside(path=str(event.get("path", "")), reason=str(event.get("reason", ""))))


def _on_verdict(gathered: _Gathered, event: Event) -> None:
    key = (str(event.get("claim", "")), str(event.get("subject") or ""))
    if key in gathered.verdicts:
        gathered.repeated[key] = gathered.repeated.get(key, 0) + 1
    try:
        verdict, cost = _verdict(event), _cost(event)
    except (ValidationError, TypeError, ValueError, AttributeError, KeyError) as error:
        reason = f"the verdict's event could not be read: {_brief(error)}"
        scope = str(event.get("scope") or "not stated")
        verdict = VerdictRecord(claim=key[0], subject=key[1], scope=scope, outcome="failed", reason=reason)
        cost = CostRecord(claim=key[0], subject=key[1])
    gathered.verdicts[key], gathered.costs[key] = verdict, cost


def _verdict(event: Event) -> VerdictRecord:
    fields = _known(VerdictRecord, event, {"measurement", "controls", "deviation", "evidence", "calibration"})
    fields |= {"subject": event.get("subject") or "", "scope": event.get("scope") or "not stated"}
    if event.get("outcome") == "not run":  # as streams up to version 0.1 say it
        fields["outcome"] = "not here"
    elif event.get("outcome") not in OUTCOMES:
        problem = f"expected an outcome among {', '.join(OUTCOMES)}, found {event.get('outcome')!r}"
        fields |= {"outcome": "failed", "reason": "; ".join(filter(None, [str(event.get("reason") or ""), problem]))}
    fields["reason"] = without_addresses(str(fields.get("reason", "")))
    deviation = event.get("deviation")
    return VerdictRecord(
        **fields,
        measurement=_measurement(event.get("measurement")),
        controls=tuple(_control(control) for control in event.get("controls") or ()),
        calibration=_calibration(event.get("calibration") or {}),
        evidence=tuple(event.get("evidence") or ()),
        deviation=DeviationRecord(reason=str(deviation.get("reason", "")), date=str(deviation.get("date", "")))
        if deviation
        else None,
    )


def _measurement(data: Mapping[str, Any] | None) -> MeasurementRecord | None:
    if not data:
        return None
    return MeasurementRecord(**_known(MeasurementRecord, data))


def _control(data: Mapping[str, Any]) -> ControlRecord:
    record = _known(ControlRecord, data, {"measurement"})
    return ControlRecord(**record, measurement=_measurement(data.get("measurement")))


def _calibration(data: Mapping[str, Any]) -> CalibrationRecord:
    return CalibrationRecord(
        false_alarms=tuple(FalseAlarmRecord(**_known(FalseAlarmRecord, one)) for one in data.get("false_alarms", ())),
        oracles=tuple(
            OracleRecord(**_known(OracleRecord, one, {"measurement"}), measurement=_measurement(one.get("measurement")))
            for one in data.get("oracles", ())
        ),
    )


def _cost(event: Event) -> CostRecord:
    measurement = event.get("measurement") or {}
    cost = measurement.get("cost") or {}
    origins = {
        str(control.get("name", "")): str((control.get("measurement") or {}).get("origin", ""))
        for control in event.get("controls") or ()
    }
    return CostRecord(
        claim=str(event["claim"]),
        subject=str(event.get("subject") or ""),
        seconds=event.get("seconds"),
        measured_seconds=cost.get("seconds"),
        peak_bytes=cost.get("peak_bytes"),
        origin=str(measurement.get("origin", "")),
        controls=origins,
    )


def _known(record: type, data: Mapping[str, Any], without: frozenset[str] | set[str] = frozenset()) -> dict[str, Any]:
    """The fields of `data` that `record` has; what a newer writer added is passed over, null means the default."""
    names = set(record.model_fields) - without
    return {name: data[name] for name in names if name in data and data[name] is not None}


def _brief(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}, found {str(first['input'])[:80]!r}"
    return f"{type(error).__name__}: {str(error)[:200]}"


_HANDLERS = {
    "run": _on_run,
    "end": _on_end,
    "subject": _on_subject,
    "store": _on_store,
    "verdict": _on_verdict,
}
