"""The pytest plugin: options, one test per claim and subject, verdicts turned into outcomes, the report at the end."""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from circuit_claims.judging.claims import ClaimError
from circuit_claims.keeping.events import StreamError
from circuit_claims.keeping.profiles import PROFILES
from circuit_claims.running.contributions import ContributionError, Option, module_name
from circuit_claims.running.environment import describe
from circuit_claims.running.judge import Judge, Judged
from circuit_claims.running.papers import PAPERS, find_papers
from circuit_claims.running.run import RUN, Run, destination, options_line, quoted
from circuit_claims.running.selection import SelectionError

pytest_plugins = ("circuit_claims.running.fixtures",)
JUDGE = pytest.StashKey[Judge]()
SUBJECT_ARGUMENT = "subject"
OUTCOMES = (pytest.skip.Exception, pytest.fail.Exception, pytest.xfail.Exception)


def claim(*ids: str) -> pytest.MarkDecorator:
    """Mark a test as the one that measures these claims: `@claim("AB-05")`."""
    return pytest.mark.claim(*ids)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `pytest claims/`."""
    group = parser.getgroup("claims", "reproducibility of papers' claims")
    group.addoption("--claims-dir", default=None, help="the folder with the papers (default: claims/, or what ships)")
    group.addoption("--subjects", default="", help="names, paths, default, paper, runs or all; commas between")
    group.addoption("--models-dir", default=None, help="a folder with model files, looked at before the hub")
    group.addoption("--texts", default=None, help="a folder with text files (jsonl, jsonl.zst, parquet), asked first")
    group.addoption("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    group.addoption("--profile", default="standard", choices=sorted(PROFILES), help="how much is measured")
    group.addoption("--report", default=None, help="folder of this run's report (default: reports/<time>)")
    group.addoption("--store", default=None, help="folder of stored measurements (default: the user's cache)")
    group.addoption("--remeasure", action="store_true", help="measure everything anew, stored or not")
    group.addoption("--offline", action="store_true", help="fetch nothing from anywhere")
    group.addoption("--allow-tf32", action="store_true", help="let the accelerator round matrix products to tf32")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """Find the papers of this run, and add the options that they bring."""
    known = early_config.known_args_namespace
    words = known.file_or_dir or early_config.getini("testpaths")
    given = [path for word in words if (path := Path(str(word).partition("::")[0])).exists()]
    try:
        papers = find_papers(early_config.rootpath, given=given, claims_dir=known.claims_dir)
        options = papers.options
    except (ClaimError, ContributionError) as error:
        raise pytest.UsageError(str(error)) from None
    early_config.stash[PAPERS] = papers
    group = parser.getgroup("claims")
    for _, option in options:
        add_option(group, option)


def add_option(group: Any, option: Option) -> None:
    """Add what a paper brings as `--claims-NAME`, and as `--NAME` where no other plugin has that."""
    how: dict[str, Any] = {"dest": destination(option), "default": None, "help": option.help}
    how |= {"action": "store_true"} if option.flag else {}
    try:
        group.addoption(f"--claims-{option.name}", f"--{option.name}", **how)
    except ValueError:
        group.addoption(f"--claims-{option.name}", **how)


# First, because pytest's own junitxml plugin reads xmlpath when it is configured.
@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Read the claims once, settle where this run's report goes, and refuse what cannot be used."""
    config.addinivalue_line("markers", "claim(*ids): the claims of paper.toml that this test measures")
    worker = getattr(config, "workerinput", None)
    try:
        config.stash[RUN] = Run.from_options(
            config.option, config.stash[PAPERS], config.rootpath, worker, _past_capture(config)
        )
    except (ClaimError, ContributionError, SelectionError, ValueError) as error:
        raise pytest.UsageError(str(error)) from None
    if worker is None and not config.option.xmlpath and not config.option.collectonly:
        config.option.xmlpath = str(config.stash[RUN].run_dir / "junit.xml")


def _past_capture(config: pytest.Config) -> Callable[[str], None]:
    """Says a line while a test runs: what tests print is otherwise kept until they are over, and shown if they fail."""

    def tell(line: str) -> None:
        capture = config.pluginmanager.getplugin("capturemanager")
        with nullcontext() if capture is None else capture.global_and_fixture_disabled():
            print(f"\n{line}", file=sys.stderr, flush=True)

    return tell


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each xdist worker where the run's folder is, so that all append to one event stream."""
    node.workerinput["claims_run_dir"] = str(node.config.stash[RUN].run_dir)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Begin the event stream with what is about to be checked and on what."""
    config = session.config
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    run = config.stash[RUN]
    try:
        environment = describe(run.device)
        run.stream.start()
    except (ValueError, StreamError) as error:
        raise pytest.UsageError(str(error)) from None
    papers = [
        {key: getattr(paper, key) for key in ("id", "title", "authors", "venue", "year", "url")}
        for paper in run.papers.papers
    ]
    run.stream.write(
        "run",
        schema=1,
        id=run.run_dir.name,
        started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        argv=options_line(config.option, run.contributed),
        environment=environment,
        profile=run.profile.name,
        papers=papers,
        claims=[claim.model_dump(mode="json") for claim in run.claims.values()],
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per subject for each test marked with claims; all its claims must ask the same subjects."""
    ids = _claim_ids(metafunc.definition)
    if not ids or SUBJECT_ARGUMENT not in metafunc.fixturenames:
        return
    run = metafunc.config.stash[RUN]
    try:
        claims = run.papers.claims_of_test(ids, metafunc.definition.path)
    except ClaimError as error:
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: {error}") from None
    choices = {choice.subject: choice for claim in claims for choice in run.selection.choices(claim)}
    labels = [run.label(name) for name in choices]
    metafunc.parametrize(SUBJECT_ARGUMENT, list(choices.values()), ids=labels, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Tests beside a paper.toml are imported as part of that paper, so that two papers may use one name for a file."""
    paper = parent.config.stash[PAPERS].paper_at(module_path)
    return None if paper is None else PaperModule.from_parent(parent, path=module_path)


class PaperModule(pytest.Module):
    """A test file of a paper: `from .measures import ...` finds the module beside it, in every import mode."""

    def _getobj(self) -> Any:
        paper = self.config.stash[PAPERS].paper_at(self.path)
        try:
            return importlib.import_module(module_name(paper, self.path))
        except (ImportError, SyntaxError) as error:
            words = "".join(traceback.format_exception(error, limit=-3))
            raise self.CollectError(f"{self.path} cannot be imported\n{words}") from None


def _claim_ids(item: Any) -> tuple[str, ...]:
    return tuple(name for mark in item.iter_markers("claim") for name in mark.args)


@pytest.fixture
def judge(request: pytest.FixtureRequest) -> Judge:
    """`judge("AB-05", finding, evidence=[...])`: judge a claim of this test on its subject and record the verdict."""
    run = request.config.stash[RUN]
    subject = request.node.callspec.params[SUBJECT_ARGUMENT].subject
    claims = {name: run.claims[name] for name in _claim_ids(request.node)}
    claims = {name: claim for name, claim in claims.items() if run.asks(claim, subject)}
    rerun = " ".join(
        filter(None, [f"pytest {quoted(request.node.nodeid)}", options_line(request.config.option, run.contributed)])
    )
    made = Judge(claims, run.label(subject), request.node.nodeid, rerun, run.stream, run.papers.deviations)
    request.node.stash[JUDGE] = made
    return made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Turn an error inside a claim test into a `failed` verdict, and a `failed` verdict into a pytest error."""
    report = yield
    judge = item.stash.get(JUDGE, None)
    if judge is None:
        return report
    if call.excinfo is not None and not call.excinfo.errisinstance(OUTCOMES):
        try:
            judge.broke(call.excinfo.value, afterwards=call.when == "teardown")
        except StreamError as error:
            # Verdicts that cannot be recorded are not worth measuring.
            pytest.exit(str(error), returncode=pytest.ExitCode.INTERRUPTED)
    if report.failed and any(item.verdict.outcome == "failed" for item in judge.judged):
        report.claim_broke = True
    return report


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Any:
    """After the body of a claim test: reproduced passes, contradicted fails, inconclusive is an expected failure."""
    from circuit_claims.models.errors import DoesNotFit, ModelNotAvailable

    judge = pyfuncitem.stash.get(JUDGE, None)
    try:
        result = yield
    except (ModelNotAvailable, DoesNotFit) as error:
        if judge is None:
            raise
        judge.cannot_run(_why(error), getattr(error, "command", ""))
        pytest.skip(str(error))
    if judge is not None:
        if not judge.judged:
            raise AssertionError(f"{pyfuncitem.nodeid} judged none of its claims")
        _raise_outcome(judge.judged)
    return result


def _why(error: Exception) -> str:
    """What a report says of a model that is not here, or of what one that does not fit needs and has."""
    from circuit_claims.models.errors import DoesNotFit

    first, *others = (line.strip() for line in str(error).splitlines())
    numbers = [line for line in others if not line.startswith("Type:")] if isinstance(error, DoesNotFit) else []
    return "; ".join([first, *numbers])


def _raise_outcome(judged: list[Judged]) -> None:
    """The worst verdict decides: failed, then contradicted (or a deviation that holds again), then inconclusive."""
    broken = [item for item in judged if item.verdict.outcome == "failed"]
    missed = [item for item in judged if item.verdict.outcome == "contradicted" and item.deviation is None]
    stale = [item for item in judged if item.no_longer_deviates]
    if broken or missed or stale:
        notes = [f"{item.message}\n  listed in deviations.toml, but it holds: delete that entry" for item in stale]
        pytest.fail("\n\n".join([*(item.message for item in [*broken, *missed]), *notes]), pytrace=False)
    undecided = [item for item in judged if item.verdict.outcome != "reproduced"]
    if undecided:
        first = undecided[0]
        listed = f"; listed as a deviation since {first.deviation.date}" if first.deviation else ""
        pytest.xfail(f"{first.claim.id} {first.verdict.outcome}{listed}: {first.verdict.rule}")


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """A broken control or an error inside a claim test counts as an error, not as a failed claim."""
    return ("error", "E", "ERROR") if getattr(report, "claim_broke", False) else None


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Close the event stream; the report is written in the terminal summary, when JUnit's file is there too."""
    config = session.config
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        finished = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        with suppress(StreamError):  # without its end, the run is reported as one that was interrupted
            config.stash[RUN].stream.write("end", finished=finished, exitstatus=int(exitstatus))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Write the report and say per scope what came out, and where to read it."""
    if config.option.collectonly or hasattr(config, "workerinput"):
        return
    run = config.stash[RUN]
    terminalreporter.section("claims")
    for line in run.close():
        terminalreporter.write_line(line)
