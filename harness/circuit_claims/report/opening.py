"""The first screen in words: what was checked, on what, how it came out, and how sure that is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from circuit_claims.judging.calibration import MOST_FALSE_ALARMS
from circuit_claims.judging.multiplicity import q_values
from circuit_claims.judging.verdicts import ALPHA, JUDGED, LEVEL, NOT_JUDGED
from circuit_claims.report.model import Results, RunRecord, SessionRecord, VerdictRecord, tallies
from circuit_claims.report.text import OUTCOME_MARKS, SCOPE_MEANING, natural
from circuit_claims.report.views import packages_words, verdict_anchor

CONCLUDED = ("reproduced", "contradicted", "inconclusive")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
EXIT_WORDS = {
    0: "finished",
    1: "finished",
    2: "interrupted by the user",
    3: "stopped by an internal error",
    4: "stopped: the command line could not be used",
    5: "finished: nothing was selected",
}


@dataclass(frozen=True)
class Tick:
    """One verdict as a small linked sign: its outcome in words is in the label."""

    anchor: str
    mark: str
    outcome: str
    label: str


@dataclass(frozen=True)
class ScopeView:
    """One scope's counts in words, what the scope means, and a sign for each verdict in it."""

    name: str
    meaning: str
    words: str
    ticks: tuple[Tick, ...]


def scope_views(results: Results) -> tuple[ScopeView, ...]:
    """One view a scope that has verdicts; no verdict is counted in two."""
    return tuple(
        ScopeView(
            name=scope,
            meaning=SCOPE_MEANING.get(scope, "a scope this version does not know"),
            words=row.words(),
            ticks=tuple(_tick(verdict) for verdict in results.verdicts if verdict.scope == scope),
        )
        for scope, row in tallies(results.verdicts).items()
    )


def _tick(verdict: VerdictRecord) -> Tick:
    label = f"{verdict.claim} on {verdict.subject}: {verdict.outcome}"
    return Tick(verdict_anchor(verdict), OUTCOME_MARKS[verdict.outcome], verdict.outcome, label)


def state_words(results: Results, run: RunRecord) -> str:
    """ "finished", or how far the run came: "interrupted: N of M claims reported"."""
    total = len(results.claims)
    reported = total - len(results.unreported)
    status = run.sessions[-1].exitstatus if run.sessions else None
    if results.complete:
        return EXIT_WORDS.get(status or 0, "finished")
    words = "" if status is None else f" ({EXIT_WORDS.get(status, f'exit status {status}')})"
    return f"interrupted: {reported} of {total} claims reported{words}"


def checked_words(results: Results) -> str:
    """What was checked and on what, counted: "11 claims of 1 paper, asked of 3 subjects"."""
    subjects = list(dict.fromkeys(verdict.subject for verdict in results.verdicts if verdict.subject))
    papers = {claim.paper for claim in results.claims}
    counted = f"{_count(len(results.claims), 'claim')} of {_count(len(papers), 'paper')}"
    return f"{counted}, asked of {_count(len(subjects), 'subject')}"


def ran_subjects(results: Results) -> tuple[str, ...]:
    """Subjects something was run on, by name; the ones that were asked for and never ran are not among them."""
    ran = {verdict.subject for verdict in results.verdicts if verdict.outcome in JUDGED}
    return tuple(sorted(ran, key=natural))


def sureness(results: Results) -> tuple[str, ...]:
    """How far the verdicts can be trusted, one sentence each: intervals, controls, error rates, what is missing."""
    verdicts = results.verdicts
    judged = [verdict for verdict in verdicts if verdict.outcome in CONCLUDED]
    return tuple(
        filter(
            None,
            [
                _interval_words(judged, {claim.id for claim in results.claims if claim.kind == "curve"}),
                _control_words(verdicts),
                _calibration_words(judged),
                f"The rules use {LEVEL:.0%} intervals: a claim that is false by just its margin is called reproduced, "
                f"and one that is true by just its margin contradicted, in at most {ALPHA:.0%} of cases each. "
                "The harness's own tests check this on 10,000 synthetic claims each way.".replace("% ", "\u202f% "),
                _many_words(results, judged),
                _not_judged_words(verdicts),
            ],
        )
    )


def _interval_words(judged: Sequence[VerdictRecord], curves: Collection[str]) -> str:
    """How many verdicts rest on an interval, on resamples or, for a claim about a curve, on a band; the rest count."""
    if not judged:
        return "Nothing was judged."
    measured = [verdict.measurement for verdict in judged if verdict.measurement is not None]
    counts = sum(one.interval is not None and one.interval.low == one.interval.high for one in measured)
    resting = sum(
        verdict.claim in curves
        or (
            verdict.measurement is not None
            and (verdict.measurement.interval or verdict.measurement.support) is not None
        )
        for verdict in judged
    )
    words = f"{resting - counts} of {_count(len(judged), 'judged verdict')} rest on an interval or on resamples"
    return f"{words}; {_count(counts, 'verdict')} on a count that nothing redrawn changes." if counts else f"{words}."


def _calibration_words(judged: Sequence[VerdictRecord]) -> str:
    """How many verdicts stand beside the answer to: could the rule have said otherwise?"""
    calibrated = [verdict for verdict in judged if verdict.calibration.false_alarms]
    if not judged:
        return ""
    worst = max((alarm.rate for verdict in calibrated for alarm in verdict.calibration.false_alarms), default=0.0)
    true = sum(bool(verdict.calibration.oracles) for verdict in judged)
    words = (
        f"The rule of {len(calibrated)} of {_count(len(judged), 'verdict')} was applied to data in which its claim is "
        f"false, that of {true} to data in which it is true"
    )
    words += f"; at worst {worst:.1%} of false data were called reproduced (above {MOST_FALSE_ALARMS:.0%}: failed)"
    rest = len(judged) - len(calibrated)
    return (words + (f"; {rest} are not calibrated." if rest else ".")).replace("%", "\u202f%")


def _control_words(verdicts: Sequence[VerdictRecord]) -> str:
    controls = [control for verdict in verdicts for control in verdict.controls]
    if not controls:
        return "No controls were measured, so nothing here is guarded against an instrument that always says yes."
    right = sum(control.as_it_must_be for control in controls)
    fail = sum(control.must == "fail" for control in controls)
    return (
        f"{right} of {_count(len(controls), 'control')} came out as they must "
        f"({fail} that must fail the claim's rule, {len(controls) - fail} that must pass it)."
    )


def _many_words(results: Results, judged: Sequence[VerdictRecord]) -> str:
    """How many false verdicts the error rates allow, and how many survive a false discovery rate within families."""
    if len(judged) < 2:
        return ""
    kept = q_of(results)
    reproduced = [verdict for verdict in judged if verdict.outcome == "reproduced"]
    firm = sum(kept.get((verdict.claim, verdict.subject), 0.0) <= ALPHA for verdict in reproduced)
    allowed = len(judged) * ALPHA
    return (
        f"Were all {len(judged)} claims wrong by just their margins, {allowed:.1f} of them would be called reproduced, "
        f"and {allowed:.1f} contradicted were all right by just their margins; {firm} of {len(reproduced)} reproduced "
        f"keep a false discovery rate of {ALPHA:.0%} within their family.".replace("% ", "\u202f% ")
    )


def q_of(results: Results) -> dict[tuple[str, str], float]:
    """Benjamini and Hochberg's q-value of each judged verdict, within its family of claims on its scope."""
    families = {claim.id: claim.family or claim.id.rstrip(LETTERS) for claim in results.claims}
    chances = {
        f"{verdict.claim}\n{verdict.subject}": verdict.chance_if_false
        for verdict in results.verdicts
        if verdict.chance_if_false is not None
    }
    scope_of = {f"{verdict.claim}\n{verdict.subject}": verdict.scope for verdict in results.verdicts}
    names = {name: f"{families.get(name.split(chr(10))[0], name)} {scope_of[name]}" for name in chances}
    return {(name.split("\n")[0], name.split("\n")[1]): q for name, q in q_values(chances, names).items()}


def _not_judged_words(verdicts: Sequence[VerdictRecord]) -> str:
    counts = {outcome: sum(verdict.outcome == outcome for verdict in verdicts) for outcome in NOT_JUDGED}
    rest = [f"{count:,} {outcome}" for outcome, count in counts.items() if count]
    return f"Not judged, and counted in no rate: {', '.join(rest)}." if rest else ""


def session_rows(session: SessionRecord) -> tuple[tuple[str, str], ...]:
    """One start of the harness as names and values."""
    environment = session.environment
    status = "none recorded: the run was cut short" if session.exitstatus is None else str(session.exitstatus)
    rows = [
        ("run", session.id),
        ("started", session.started),
        ("finished", session.finished or "not recorded"),
        ("exit status", status),
        ("options", " ".join(session.argv)),
        ("code", str(environment.get("commit") or "")),
        ("packages", packages_words(environment)),
        ("platform", str(environment.get("platform") or "")),
        ("device", str(environment.get("device") or "")),
        ("threads", str(environment.get("threads") or "")),
    ]
    return tuple((name, value) for name, value in rows if value)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
