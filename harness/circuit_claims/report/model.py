"""What a report holds: `Results` (what was measured) apart from `RunRecord` (when, where, how long). Frozen records.

`Results` carries no time, duration, memory, host or origin, so two runs that measure the same thing have equal
results, byte for byte; everything that may differ between them is in `RunRecord`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from circuit_claims.judging.json_values import NAMES, to_number, to_plain
from circuit_claims.judging.verdicts import OUTCOMES, Outcome, Tally, tally

SCHEMA = 3
SCOPES = ("reproduction", "reanalysis", "replication", "generalisation", "self-check", "control")

_NUMBER_SCHEMA = {"anyOf": [{"type": "number"}, {"enum": list(NAMES)}]}
_VALUE_SCHEMA = {"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}]}
JsonNumber = Annotated[float, BeforeValidator(to_number), WithJsonSchema(_NUMBER_SCHEMA)]
Value = Annotated[float | str | None, BeforeValidator(to_number), WithJsonSchema(_VALUE_SCHEMA)]
Plain = Annotated[Any, BeforeValidator(to_plain)]
JsonTable = Annotated[dict[str, Any], BeforeValidator(to_plain)]


class Record(BaseModel):
    """Base of all records: immutable, and a field it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class IntervalRecord(Record):
    """A confidence interval, its level, and how it was made."""

    low: JsonNumber
    high: JsonNumber
    level: JsonNumber
    method: str = ""


class RivalRecord(Record):
    """Who stands most firmly against a label, and in what share of resamples."""

    label: str
    ahead: JsonNumber


class MeasurementRecord(Record):
    """One measured quantity without its cost and origin, which are in the run file."""

    quantity: str = ""
    value: Value = None
    interval: IntervalRecord | None = None
    unit: str = ""
    support: dict[str, JsonNumber] = {}
    rivals: dict[str, RivalRecord] = {}
    redrawn: dict[str, int] = {}
    p_value: JsonNumber | None = None
    n: int = 0
    seed: int | None = None
    dtype: str = ""
    batch: int | None = None
    status: str = "complete"
    facts: JsonTable = {}
    key: str = ""


class ControlRecord(Record):
    """A control, what it must do (`fail` or `pass` the claim's rule) and how it came out."""

    name: str
    must: Literal["fail", "pass"]
    outcome: Outcome
    measurement: MeasurementRecord | None = None

    @property
    def as_it_must_be(self) -> bool:
        """A negative control is never `reproduced`; a positive one always is."""
        return (self.outcome == "reproduced") == (self.must == "pass")


class FalseAlarmRecord(Record):
    """What the claim's rule said of data in which the claim is false: how they were made, counts by outcome."""

    how: str
    outcomes: dict[str, int]

    @property
    def draws(self) -> int:
        """How many data sets were judged."""
        return sum(self.outcomes.values())

    @property
    def rate(self) -> float:
        """The share called reproduced."""
        return self.outcomes.get("reproduced", 0) / max(self.draws, 1)


class OracleRecord(Record):
    """What the claim's rule said of data in which the claim is true: how they were made, what was measured."""

    how: str
    outcome: Outcome
    measurement: MeasurementRecord | None = None


class CalibrationRecord(Record):
    """The claim's rule where the answer is known."""

    false_alarms: tuple[FalseAlarmRecord, ...] = ()
    oracles: tuple[OracleRecord, ...] = ()


class DeviationRecord(Record):
    """A contradiction that was known beforehand: why, and since when."""

    reason: str
    date: str


class PaperRecord(Record):
    """A paper's citation."""

    id: str
    title: str = ""
    authors: tuple[str, ...] = ()
    venue: str = ""
    year: int | None = None
    url: str = ""


def _by_scope(given: Any) -> Any:
    """Event streams of older runs list the subjects without their scopes."""
    return {"reproduction": given} if isinstance(given, list | tuple) else given


class ClaimRecord(Record):
    """A claim as it stood when the run was made. `subjects` are those it lists, by the scope they count under."""

    id: str
    paper: str = ""
    title: str = ""
    locus: str = ""
    kind: str = ""
    quantity: str = ""
    unit: str = ""
    expected: Plain = None
    trust: str = "?"
    margin: JsonNumber | None = None
    margin_reason: str = ""
    subjects: Annotated[dict[str, tuple[str, ...]], BeforeValidator(_by_scope)] = {}
    text: str = ""
    controls: tuple[str, ...] = ()
    positive_controls: tuple[str, ...] = ()
    cost: str = ""
    others: bool = True
    origin: str = "paper"
    over: tuple[str, ...] = ()
    presupposes: tuple[str, ...] = ()
    family: str = ""
    requires: tuple[str, ...] = ()
    note: str = ""


class SubjectRecord(Record):
    """What was measured: a name and its card (architecture, sizes, licence, digest, tokens it has, ...)."""

    name: str
    card: JsonTable = {}


class VerdictRecord(Record):
    """One claim on one subject: outcome, rule, what would flip it, and everything it rests on."""

    claim: str
    subject: str
    scope: str
    outcome: Outcome
    text: str = ""
    node: str = ""
    reason: str = ""
    rule: str = ""
    flip: str = ""
    expected: Plain = None
    margin: JsonNumber | None = None
    measurement: MeasurementRecord | None = None
    controls: tuple[ControlRecord, ...] = ()
    calibration: CalibrationRecord = CalibrationRecord()
    without: dict[str, Outcome] = {}
    chance_if_false: JsonNumber | None = None
    evidence: tuple[JsonTable, ...] = ()
    deviation: DeviationRecord | None = None
    rerun: str = ""
    command: str = ""


class Missing(Record):
    """A claim the run set out to check and that has no verdict at all."""

    claim: str


class Results(Record):
    """What a run found: `results.json`. Equal for two runs that measured the same thing.

    `complete` is false for a run that was interrupted. `unreported` are claims with no verdict on any subject.
    A number that is not finite is the string NaN, Infinity or -Infinity, wherever it stands.
    """

    schema_version: Annotated[Literal[3], Field(alias="schema")] = SCHEMA
    complete: bool
    profile: str = ""
    papers: tuple[PaperRecord, ...] = ()
    claims: tuple[ClaimRecord, ...] = ()
    subjects: tuple[SubjectRecord, ...] = ()
    verdicts: tuple[VerdictRecord, ...] = ()
    unreported: tuple[Missing, ...] = ()
    tallies: dict[str, dict[str, int]] = {}

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, title="Results of a run of circuit claims"
    )


class CostRecord(Record):
    """What one verdict took: wall seconds of the test, and per measurement its own seconds, memory and origin."""

    claim: str
    subject: str
    seconds: JsonNumber | None = None
    measured_seconds: JsonNumber | None = None
    peak_bytes: int | None = None
    origin: str = ""
    controls: dict[str, str] = {}


class SessionRecord(Record):
    """One start of the harness: when, how it was called, on what, and how it ended (None: it did not end)."""

    id: str = ""
    started: str = ""
    finished: str = ""
    exitstatus: int | None = None
    argv: tuple[str, ...] = ()
    environment: JsonTable = {}


class SetAside(Record):
    """A damaged store entry that was set aside and measured again."""

    path: str = ""
    reason: str = ""


class RunRecord(Record):
    """When, where and how long: `run.json`, everything that may differ between two runs with equal results."""

    schema_version: Annotated[Literal[3], Field(alias="schema")] = SCHEMA
    sessions: tuple[SessionRecord, ...] = ()
    costs: tuple[CostRecord, ...] = ()
    set_aside: tuple[SetAside, ...] = ()
    notes: tuple[str, ...] = ()

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @property
    def environment(self) -> Mapping[str, Any]:
        """The environment of the last session, empty where none was recorded."""
        return self.sessions[-1].environment if self.sessions else {}


def stable_view(results: Results) -> dict[str, Any]:
    """`results` as strict JSON values that depend on what was measured alone; this is what `results.json` holds."""
    return to_plain(results.model_dump(by_alias=True, mode="python"))


def tallies(verdicts: tuple[VerdictRecord, ...]) -> dict[str, Tally]:
    """Counts per scope in the order of `SCOPES`, scopes the harness does not know last, by name."""
    counted = tally([(verdict.scope, verdict.outcome) for verdict in verdicts])
    return {scope: counted[scope] for scope in sorted(counted, key=scope_rank)}


def tally_words(row: Tally) -> dict[str, int]:
    """One scope's counts by outcome, with `n`, how many of them were judged."""
    return {"n": row.n, **{outcome: row.of(outcome) for outcome in OUTCOMES}}


def scope_rank(scope: str) -> tuple[int, str]:
    """Where a scope stands: the paper's own models first, controls last, unknown words after that."""
    return (SCOPES.index(scope) if scope in SCOPES else len(SCOPES), scope)
