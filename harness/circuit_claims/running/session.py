"""A pytest session with claims in it: what it expects, how each test ended, and the report at its end."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from circuit_claims.errors import ClaimsError
from circuit_claims.judging.claims import ClaimError
from circuit_claims.judging.verdicts import NOT_JUDGED
from circuit_claims.keeping.atomic import write_text_atomically
from circuit_claims.keeping.by_content import kept
from circuit_claims.keeping.events import StreamError
from circuit_claims.running.contributions import ContributionError
from circuit_claims.running.judge import Judge, Judged
from circuit_claims.running.machine import describe
from circuit_claims.running.options import OPTIONS, SUBJECT_ARGUMENT, chosen, claim_ids, home_of, options_line
from circuit_claims.running.papers import Papers
from circuit_claims.running.run import RUN, Run, quoted
from circuit_claims.running.selection import SelectionError

JUDGE = pytest.StashKey[Judge]()
NOTICE = pytest.StashKey[Path]()
SKIPPED = (pytest.skip.Exception, pytest.xfail.Exception)


class Session:
    """Everything the plugin does once a claim was met. `lines` are what the terminal says at the end."""

    def __init__(self, config: pytest.Config, papers: Papers, folder: Path) -> None:
        self.config = config
        try:
            self.options = (*OPTIONS, *(option for _, option in papers.options))
            self.option = chosen(config, self.options)
            self.run = Run.from_options(self.option, papers, folder, _past_capture(config))
        except (ClaimError, ContributionError, SelectionError, ValueError) as error:
            raise pytest.UsageError(str(error)) from None
        config.stash[RUN] = self.run
        self.lines: Sequence[str] = ()
        self.expected: list[dict[str, str]] | None = None
        self.ended: dict[str, str] = {}

    def expect(self, items: Sequence[pytest.Item]) -> None:
        """Note the claims of these tests; an xdist worker says them to the process that began it."""
        judges = [judge for item in items if (judge := self.judge_of(item)) is not None]
        expected = [
            {"claim": name, "subject": judge.subject, "node": judge.node} for judge in judges for name in judge.claims
        ]
        if (worker := getattr(self.config, "workerinput", None)) is not None:
            write_text_atomically(Path(worker["claims_notice"]), json.dumps(expected))
        elif expected:
            self.begin(expected)

    def begin(self, expected: list[dict[str, str]]) -> None:
        """Begin the event stream with what is about to be checked and on what, once a session."""
        if self.expected is not None:
            return
        run = self.run
        try:
            environment = describe(run.device)
            run.stream.start()
        except (ValueError, StreamError) as error:
            raise pytest.UsageError(str(error)) from None
        names = ("id", "title", "authors", "venue", "year", "url")
        run.stream.write(
            "run",
            schema=1,
            id=run.run_dir.name,
            started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            argv=options_line(self.option, self.options),
            environment=environment,
            profile=run.profile.name,
            papers=[{name: getattr(paper, name) for name in names} for paper in run.papers.papers],
            claims=[claim.model_dump(mode="json") for claim in run.claims.values()],
        )
        self.expected = expected
        self._write_junit_too()
        self.config.pluginmanager.register(self, "circuit_claims-session")

    def _write_junit_too(self) -> None:
        """JUnit's file beside the report, unless the user asked for it elsewhere or does without pytest's writer."""
        config = self.config
        if not config.pluginmanager.hasplugin("junitxml") or config.option.xmlpath:
            return
        from _pytest.junitxml import LogXML, xml_key

        names = ("suite_name", "logging", "duration_report", "family", "log_passing_tests")
        settings = [config.getini(f"junit_{name}") for name in names]
        xml = LogXML(str(self.run.run_dir / "junit.xml"), config.option.junitprefix, *settings)
        config.stash[xml_key] = xml
        config.pluginmanager.register(xml)
        xml.pytest_sessionstart()

    def judge_of(self, item: Any) -> Judge | None:
        """The judge of a claim test, made when first asked for; None for a test that is not asked of a subject."""
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if not claim_ids(item) or SUBJECT_ARGUMENT not in parameters:
            return None
        if JUDGE not in item.stash:
            subject = parameters[SUBJECT_ARGUMENT].subject
            claims = [self.run.claims[name] for name in claim_ids(item)]
            asked = {claim.id: claim for claim in claims if self.run.asks(claim, subject)}
            item.stash[JUDGE] = self._judge(asked, self.run.label(subject), item.nodeid)
        return item.stash[JUDGE]

    def _judge(self, claims: dict[str, Any], label: str, node: str) -> Judge:
        # Node ids begin at pytest's root, which may lie above the folder that the line is typed in.
        above = home_of(self.config).relative_to(self.config.rootpath).as_posix()
        typed = node.removeprefix(f"{above}/")
        rerun = " ".join(filter(None, [f"pytest {quoted(typed)}", options_line(self.option, self.options)]))
        return Judge(claims, label, node, rerun, self.run.stream, self.run.papers.deviations, self._kept)

    def _kept(self, function: Any, *given: Any) -> Any:
        """What a calibration gives, from the run's store; nothing is opened before something is judged."""
        return kept(self.run.context.store, function, *given, anew=self.run.remeasure)

    @contextmanager
    def not_here_is_skipped(self, item: pytest.Function) -> Iterator[None]:
        """A model that turns out not to be here, or not to fit, leaves the claims not judged, with the way out."""
        from circuit_claims.models.errors import DoesNotFit, ModelNotAvailable

        judge = self.judge_of(item)
        try:
            yield
        except (ModelNotAvailable, DoesNotFit) as error:
            if judge is None:
                raise
            judge.not_judged(_why(error), getattr(error, "command", ""))
            pytest.skip(str(error))

    def conclude(self, item: pytest.Function) -> None:
        """After the body of a test: every claim of it was judged, and the worst verdict is the test's outcome."""
        judge = self.judge_of(item)
        if judge is None:
            return
        if not judge.judged:
            raise AssertionError(f"{item.nodeid} judged none of its claims")
        if missing := judge.without_verdict():
            names = ", ".join(claim.id for claim in missing)
            raise AssertionError(f"{item.nodeid} ended without a verdict on {names}")
        _raise_outcome(judge.judged, quiet=bool(self.config.option.runxfail))

    def settle(self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
        """However a test ended, its claims have a verdict; `failed` ones make it an error."""
        judge = self.judge_of(item)
        if judge is None:
            return
        try:
            if call.excinfo is not None:
                self._settle_ending(judge, call.excinfo.value, call.when)
        except StreamError as error:
            # Verdicts that cannot be recorded are not worth measuring.
            pytest.exit(str(error), returncode=pytest.ExitCode.INTERRUPTED)
        if report.failed and any(item.verdict.outcome == "failed" for item in judge.judged):
            report.claim_broke = True  # type: ignore[attr-defined]

    def _settle_ending(self, judge: Judge, error: BaseException, when: str) -> None:
        if isinstance(error, SKIPPED):
            judge.not_judged(str(error).splitlines()[0] if str(error) else "the test was skipped", judge.rerun)
        elif not isinstance(error, pytest.fail.Exception):
            judge.broke(error, afterwards=when == "teardown")
        else:
            judge.broke(error)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember why a test failed; in JUnit's file a broken measurement is an error, not a failure."""
        if report.failed:
            lines = [line.strip() for line in str(report.longrepr).splitlines() if line.strip()]
            self.ended[report.nodeid] = lines[-1] if lines else f"it failed in {report.when}"
        if getattr(report, "claim_broke", False) and report.when == "call":
            self._is_an_error(report)

    def _is_an_error(self, report: pytest.TestReport) -> None:
        if not self.config.pluginmanager.hasplugin("junitxml"):
            return
        from _pytest.junitxml import xml_key

        if (xml := self.config.stash.get(xml_key, None)) is not None:
            entry = xml.node_reporter(report)
            text = str(report.longrepr)
            entry.append_failure = lambda report: entry._add_simple("error", text.splitlines()[0], text)

    def finish(self, session: pytest.Session, exitstatus: int) -> None:
        """Give every expected claim an outcome, close the stream, write the report."""
        if self.expected is None or hasattr(self.config, "workerinput"):
            return
        # Without its end, the run is reported as one that was interrupted.
        with suppress(StreamError):
            self._record_missing(session)
            self.run.stream.write("end", finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"), exitstatus=exitstatus)
        self.lines = self.run.close()
        if not self.config.pluginmanager.hasplugin("terminalreporter"):
            print(*self.lines, sep="\n", file=sys.stderr)

    def _record_missing(self, session: pytest.Session) -> None:
        from circuit_claims.report.collect import parse_events

        events, _ = parse_events(self.run.stream.path.read_bytes())
        done = {(event.get("claim"), event.get("subject")) for event in events if event.get("event") == "verdict"}
        stopped = session.shouldfail or session.shouldstop or "it was interrupted"
        for entry in self.expected or ():
            if (entry["claim"], entry["subject"]) in done:
                continue
            judge = self._judge({entry["claim"]: self.run.claims[entry["claim"]]}, entry["subject"], entry["node"])
            if entry["node"] in self.ended:
                judge.broke(UnjudgedError(self.ended[entry["node"]]))
            else:
                judge.not_judged(f"the session ended before this test: {stopped}", judge.rerun)


class UnjudgedError(ClaimsError):
    """A test ended, by a crash or out of time, before it could judge."""


def new_notice(config: pytest.Config) -> str:
    """Where xdist's workers say which claims they met: one file for all, as all collect the same tests."""
    if NOTICE not in config.stash:
        config.stash[NOTICE] = Path(tempfile.gettempdir()) / f"circuit-claims-{os.getpid()}-{uuid.uuid4().hex}.json"
        config.add_cleanup(lambda: config.stash[NOTICE].unlink(missing_ok=True))
    return str(config.stash[NOTICE])


def read_notice(config: pytest.Config) -> list[dict[str, str]]:
    """What the workers met; nothing where they met no claim."""
    path = config.stash[NOTICE]
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def _past_capture(config: pytest.Config) -> Callable[[str], None]:
    """Says a line while a test runs: what tests print is otherwise kept until they are over, and shown if they fail."""

    def tell(line: str) -> None:
        capture: Any = config.pluginmanager.getplugin("capturemanager")
        with nullcontext() if capture is None else capture.global_and_fixture_disabled():
            print(f"\n{line}", file=sys.stderr, flush=True)

    return tell


def _why(error: Exception) -> str:
    """What a report says of a model that is not here, or of what one that does not fit needs and has."""
    from circuit_claims.models.errors import DoesNotFit

    first, *others = (line.strip() for line in str(error).splitlines())
    numbers = [line for line in others if not line.startswith("Type:")] if isinstance(error, DoesNotFit) else []
    return "; ".join([first, *numbers])


def _raise_outcome(judged: list[Judged], *, quiet: bool) -> None:
    """The worst verdict decides: failed, then contradicted (or a deviation that holds again), then inconclusive.

    `quiet`: with --runxfail pytest has no expected failures. A listed deviation is then a failure as any other, and
    what stays undecided is skipped: it did not pass.
    """
    broken = [item for item in judged if item.verdict.outcome == "failed"]
    missed = [item for item in judged if item.verdict.outcome == "contradicted" and (quiet or item.deviation is None)]
    stale = [item for item in judged if item.no_longer_deviates]
    if broken or missed or stale:
        notes = [f"{item.message}\n  listed in deviations.toml, but it holds: delete that entry" for item in stale]
        pytest.fail("\n\n".join([*(item.message for item in [*broken, *missed]), *notes]), pytrace=False)
    open_here = [item for item in judged if item.verdict.outcome in NOT_JUDGED]
    if len(open_here) == len(judged):
        pytest.skip(f"{open_here[0].verdict.outcome}: {open_here[0].verdict.reason}")
    undecided = [item for item in judged if item.verdict.outcome in ("inconclusive", "contradicted")]
    if undecided:
        first = undecided[0]
        listed = f"; listed as a deviation since {first.deviation.date}" if first.deviation else ""
        words = f"{first.claim.id} {first.verdict.outcome}{listed}: {first.verdict.rule}"
        pytest.skip(words) if quiet else pytest.xfail(words)
