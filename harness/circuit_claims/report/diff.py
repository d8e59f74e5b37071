"""Two or more runs side by side: verdicts that changed, values that shifted, environments that differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

from circuit_claims.errors import InputError
from circuit_claims.judging.json_values import to_plain
from circuit_claims.report.files import load_results, load_run
from circuit_claims.report.model import (
    ClaimRecord,
    IntervalRecord,
    MeasurementRecord,
    Results,
    RunRecord,
    VerdictRecord,
)
from circuit_claims.report.render import page
from circuit_claims.report.text import OUTCOME_MARKS, natural, one_line
from circuit_claims.report.views import measured_words

Shift = Literal["identical", "rounding", "no shift seen", "shifted", "not comparable"]
ALPHA = 0.05
ROUNDING = 1e-6
SHIFT_WORDS: Mapping[str, str] = {
    "identical": "the same figures to the last digit",
    "rounding": "differs by less than one part in a million",
    "no shift seen": "differs by no more than the intervals explain",
    "shifted": "differs by more than the intervals explain",
    "not comparable": "nothing to compare: not measured in both, or no interval",
}


@dataclass(frozen=True)
class RunCell:
    """One claim on one subject in one run."""

    outcome: str
    scope: str
    measurement: MeasurementRecord | None
    unit: str = ""

    @property
    def measured(self) -> str:
        """Value and interval in words."""
        return measured_words(self.measurement, self.unit)


@dataclass(frozen=True)
class ValueShift:
    """A run's value against the first run's: how they differ, and the p-value of the test (Holm's, over the diff)."""

    shift: Shift
    p_value: float | None = None

    @property
    def words(self) -> str:
        """The shift, with its p-value where a test was made."""
        return self.shift if self.p_value is None else f"{self.shift}, p = {self.p_value:.2g}"


@dataclass(frozen=True)
class DiffRow:
    """One claim on one subject in all runs: a cell a run (None: not in it), a comparison a later run."""

    claim: str
    title: str
    subject: str
    cells: tuple[RunCell | None, ...]
    comparisons: tuple[ValueShift, ...]

    @property
    def changed(self) -> bool:
        """Whether any two runs that have it came to different outcomes."""
        return len({cell.outcome for cell in self.cells if cell}) > 1

    @property
    def shifted(self) -> bool:
        """Whether any later run's value differs from the first's by more than the intervals explain."""
        return any(comparison.shift == "shifted" for comparison in self.comparisons)

    @property
    def partial(self) -> bool:
        """Whether some runs have it and others do not."""
        return None in self.cells


@dataclass(frozen=True)
class Setting:
    """One part of the environment in each run."""

    name: str
    values: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether the runs differ in it."""
        return len(set(self.values)) > 1


@dataclass(frozen=True)
class Diff:
    """Runs side by side, the first one the reference: rows in the claims' order, settings by name."""

    names: tuple[str, ...]
    rows: tuple[DiffRow, ...]
    settings: tuple[Setting, ...]
    incomplete: tuple[str, ...] = ()

    @property
    def changed(self) -> tuple[DiffRow, ...]:
        """Rows whose verdict changed."""
        return tuple(row for row in self.rows if row.changed)

    @property
    def shifted(self) -> tuple[DiffRow, ...]:
        """Rows whose value shifted while the verdict stayed."""
        return tuple(row for row in self.rows if row.shifted and not row.changed)

    @property
    def partial(self) -> tuple[DiffRow, ...]:
        """Rows that some runs lack."""
        return tuple(row for row in self.rows if row.partial)

    @property
    def same(self) -> tuple[DiffRow, ...]:
        """Rows that are in all runs with one outcome and no shift."""
        return tuple(row for row in self.rows if not (row.changed or row.shifted or row.partial))


def diff_runs(paths: Sequence[Path]) -> Diff:
    """Two or more runs side by side, each a run's folder or a `results.json`; the first is the reference.

    Raises `ValueError` for fewer than two and `ReportError` for one that cannot be read.
    """
    if len(paths) < 2:
        raise InputError(f"a comparison needs two runs or more, found {len(paths)}\n  Type: claims diff RUN_A RUN_B")
    paths = [Path(path) for path in paths]
    return compare_runs(_names(paths), [load_results(path) for path in paths], [load_run(path) for path in paths])


def compare_runs(names: Sequence[str], results: Sequence[Results], runs: Sequence[RunRecord]) -> Diff:
    """Named results side by side with the environments they were measured in. Pure."""
    claims = {claim.id: claim for one in reversed(results) for claim in one.claims}
    tables = [{(verdict.claim, verdict.subject): verdict for verdict in one.verdicts} for one in results]
    keys = sorted({key for table in tables for key in table}, key=lambda key: tuple(map(natural, key)))
    rows = tuple(_row(key, claims.get(key[0]), [table.get(key) for table in tables]) for key in keys)
    incomplete = tuple(name for name, one in zip(names, results, strict=True) if not one.complete)
    return Diff(tuple(names), _adjusted(rows), _settings(results, runs), incomplete)


def shift_between(first: MeasurementRecord | None, second: MeasurementRecord | None) -> ValueShift:
    """How `second` differs from `first`: the same figures, rounding, or by a two-sided z-test on their intervals.

    Each interval is read as normal at its own level. Runs on the same items share most of their sampling error,
    which the test does not know; so it errs towards seeing no shift.
    """
    if first is None or second is None:
        return ValueShift("not comparable")
    if _figures(first) == _figures(second):
        return ValueShift("identical")
    a, b = first.value, second.value
    if isinstance(a, str) or isinstance(b, str):
        return ValueShift("shifted" if a != b else "no shift seen")
    if a is None or b is None or not (math.isfinite(a) and math.isfinite(b)):
        return ValueShift("not comparable")
    if math.isclose(a, b, rel_tol=ROUNDING, abs_tol=1e-12):
        return ValueShift("rounding")
    error = math.hypot(_standard_error(first.interval), _standard_error(second.interval))
    if not math.isfinite(error):
        return ValueShift("not comparable")
    p_value = math.erfc(abs(a - b) / error / math.sqrt(2)) if error > 0 else 0.0
    return ValueShift("shifted" if p_value < ALPHA else "no shift seen", p_value)


def _figures(measurement: MeasurementRecord) -> Any:
    kept = measurement.model_dump(include={"value", "interval", "support", "p_value", "n", "status"})
    return to_plain(kept)


def _standard_error(interval: IntervalRecord | None) -> float:
    if interval is None:
        return math.inf
    return (interval.high - interval.low) / (2 * NormalDist().inv_cdf(0.5 + interval.level / 2))


def _row(key: tuple[str, str], claim: ClaimRecord | None, verdicts: Sequence[VerdictRecord | None]) -> DiffRow:
    cells = tuple(
        RunCell(verdict.outcome, verdict.scope, verdict.measurement, claim.unit if claim else "") if verdict else None
        for verdict in verdicts
    )
    measured = [cell.measurement if cell else None for cell in cells]
    comparisons = tuple(shift_between(measured[0], other) for other in measured[1:])
    return DiffRow(key[0], claim.title if claim else "", key[1], cells, comparisons)


def _adjusted(rows: tuple[DiffRow, ...]) -> tuple[DiffRow, ...]:
    """Holm's correction over every test in the diff, so that many rows do not make one of them look shifted."""
    tests = sorted(
        (comparison.p_value, row, column)
        for row, one in enumerate(rows)
        for column, comparison in enumerate(one.comparisons)
        if comparison.p_value is not None
    )
    made: dict[tuple[int, int], ValueShift] = {}
    largest = 0.0
    for rank, (p_value, row, column) in enumerate(tests):
        largest = min(1.0, max(largest, p_value * (len(tests) - rank)))
        made[row, column] = ValueShift("shifted" if largest < ALPHA else "no shift seen", largest)
    return tuple(
        DiffRow(one.claim, one.title, one.subject, one.cells, tuple(
            made.get((row, column), comparison) for column, comparison in enumerate(one.comparisons)
        ))
        for row, one in enumerate(rows)
    )  # fmt: skip


def _settings(results: Sequence[Results], runs: Sequence[RunRecord]) -> tuple[Setting, ...]:
    tables = [{"profile": one.profile, **_flat(run.environment)} for one, run in zip(results, runs, strict=True)]
    names = sorted({name for table in tables for name in table}, key=natural)
    return tuple(Setting(name, tuple(table.get(name, "") or "not recorded" for table in tables)) for name in names)


def _flat(environment: Mapping[str, Any]) -> dict[str, str]:
    packages = environment.get("packages") or {}
    plain = {name: str(value) for name, value in environment.items() if name != "packages" and value is not None}
    return {**plain, **{f"{name} (package)": str(value) for name, value in dict(packages).items() if name != "torch"}}


def _names(paths: Sequence[Path]) -> tuple[str, ...]:
    """The folders' own names; where two are called the same, numbered in the order given."""
    plain = [(path.parent if path.suffix == ".json" else path).resolve().name or str(path) for path in paths]
    return tuple(
        name if plain.count(name) == 1 else f"{name} ({plain[: index + 1].count(name)})"
        for index, name in enumerate(plain)
    )


def render_diff(compared: Diff) -> str:
    """The comparison as a page of the report's kind: no scripts, nothing loaded, the same bytes for the same runs."""
    title = f"Circuit claims: {len(compared.names)} runs side by side"
    return page("diff.html.j2", title=title, diff=compared, headline=diff_headline(compared), shift_words=SHIFT_WORDS)


def diff_headline(compared: Diff) -> str:
    """The comparison in one sentence."""
    differ = sum(setting.changed for setting in compared.settings)
    around = "1 setting of the environment differs." if differ == 1 else f"{differ} settings of the environment differ."
    return (
        f"{len(compared.rows)} verdicts compared over {len(compared.names)} runs: {len(compared.changed)} changed, "
        f"{len(compared.shifted)} more with a shifted value, {len(compared.partial)} not in every run; "
        f"{around}"
    )


def diff_text(compared: Diff) -> str:
    """The comparison for a terminal: what changed first, then what shifted, what is missing, what differs around it.

    Control characters of names and values are shown as escapes, so that no run can paint the reader's terminal.
    """
    lines = [diff_headline(compared)]
    lines += [f"  {name} was interrupted: what it lacks may only not have been reached" for name in compared.incomplete]
    parts: tuple[tuple[str, Sequence[DiffRow], Callable[[DiffRow], list[str]]], ...] = (
        ("verdicts that changed", compared.changed, lambda row: _row_lines(row, compared.names)),
        ("values that shifted", compared.shifted, lambda row: _row_lines(row, compared.names)),
        ("not in every run", compared.partial, lambda row: _row_lines(row, compared.names)),
    )
    for title, rows, show in parts:
        if rows:
            lines += ["", title, *(line for row in rows for line in show(row))]
    changed = [setting for setting in compared.settings if setting.changed]
    if changed:
        lines += ["", "environment", *(f"  {item.name}: {' | '.join(item.values)}" for item in changed)]
    return "\n".join(one_line(line) for line in lines)


def _row_lines(row: DiffRow, names: Sequence[str]) -> list[str]:
    lines = [f"  {row.claim} on {row.subject}"]
    width = max(map(len, names))
    for index, (name, cell) in enumerate(zip(names, row.cells, strict=True)):
        words = "not in this run" if cell is None else f"{OUTCOME_MARKS[cell.outcome]} {cell.outcome}, {cell.measured}"
        against = f"   [{row.comparisons[index - 1].words}]" if index and cell else ""
        lines.append(f"    {name:<{width}}  {words}{against}")
    return lines
