"""The pytest plugin: options, one test per claim and subject, verdicts turned into outcomes, the report at the end.

It is loaded wherever the package is installed, so nothing heavy is imported and nothing written before a claim is met:
what a session with claims does stands in `session.py`.
"""

from __future__ import annotations

import importlib
import os
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from circuit_claims.running.options import (
    OPTIONS,
    SHORT,
    SUBJECT_ARGUMENT,
    add_options,
    add_short_names,
    claim_ids,
    home_of,
)
from circuit_claims.running.searched import has_paper, holds_paper, place_of

if TYPE_CHECKING:
    from circuit_claims.running.judge import Judge
    from circuit_claims.running.papers import Papers
    from circuit_claims.running.run import Run
    from circuit_claims.running.session import Session

pytest_plugins = ("circuit_claims.running.fixtures",)
SESSION = pytest.StashKey["Session"]()
FOLDER = pytest.StashKey[Path]()
PAPERS = pytest.StashKey["Papers"]()
TIMEOUT = 900.0


def claim(*ids: str) -> pytest.MarkDecorator:
    """Mark a test as the one that measures these claims.

    >>> @claim("AB-05", "AB-06")
    ... def test_the_head_leads(subject, judge): ...
    >>> test_the_head_leads.pytestmark[0].args
    ('AB-05', 'AB-06')
    """
    return pytest.mark.claim(*ids)


def session_of(config: pytest.Config) -> Session:
    """What this session knows of its claims, read when it is first asked for; `pytest.UsageError` for wrong options."""
    if SESSION not in config.stash:
        from circuit_claims.running.session import Session

        config.stash[SESSION] = Session(config, papers_of(config), run_folder(config))
    return config.stash[SESSION]


def papers_of(config: pytest.Config) -> Papers:
    """The papers of this session, looked for when first asked for; `pytest.UsageError` for one it cannot use."""
    if PAPERS not in config.stash:
        from circuit_claims.errors import ClaimsError
        from circuit_claims.running.papers import find_papers

        known = getattr(config, "known_args_namespace", config.option)
        here = config.invocation_params.dir
        places = [place_of(word, here, known.pyargs) for word in _words(config)]
        try:
            given = [place for place, _ in filter(None, places)]
            found = find_papers(home_of(config), given=given, claims_dir=known.claims_dir)
            _ = found.options, found.models, found.texts, found.runs
        except ClaimsError as error:
            raise pytest.UsageError(str(error)) from None
        config.stash[PAPERS] = found
    return config.stash[PAPERS]


def run_of(config: pytest.Config) -> Run:
    """The run that the claims of this session belong to."""
    return session_of(config).run


def run_folder(config: pytest.Config) -> Path:
    """Where this run's report goes; it is made when there is something to report."""
    if FOLDER not in config.stash:
        told = getattr(config, "workerinput", {}).get("claims_run_dir") or config.option.claims_report
        stamp = time.strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}"
        config.stash[FOLDER] = Path(told) if told else home_of(config) / "reports" / stamp
    return config.stash[FOLDER]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `pytest claims/` under their full names."""
    add_options(parser)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser) -> Iterator[None]:
    """The options that the papers of this session bring, and the short names of all options.

    Those come last, when every plugin and conftest has added what it needs.
    """
    brought = [option for _, option in papers_of(early_config).options] if asked_for_claims(early_config) else []
    add_options(parser, brought)
    result = yield
    early_config.stash[SHORT] = add_short_names(parser, (*OPTIONS, *brought))
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; where claims are asked for, refuse at once what cannot be used."""
    config.addinivalue_line("markers", "claim(*ids): the claims of paper.toml that this test measures")
    if asked_for_claims(config):
        session_of(config)


def asked_for_claims(config: pytest.Config) -> bool:
    """Whether a paper lies at, above or just below what pytest was told to run; no test code is imported."""
    here, known = config.invocation_params.dir, config.known_args_namespace
    if known.claims_dir:
        return True
    for place, top in filter(None, (place_of(word, here, known.pyargs) for word in _words(config))):
        if has_paper(place.resolve(), (top or home_of(config)).resolve()):
            return True
    return False


def _words(config: pytest.Config) -> list[str]:
    """The folders, files or packages that pytest was told to run."""
    words = config.known_args_namespace.file_or_dir or config.getini("testpaths") or [config.invocation_params.dir]
    return [str(word).partition("::")[0] for word in words]


def pytest_itemcollected(item: pytest.Item) -> None:
    """A claim test may take a quarter of an hour, where pytest-timeout is there and nobody said otherwise."""
    config = item.config
    if not claim_ids(item) or not config.pluginmanager.hasplugin("timeout") or item.get_closest_marker("timeout"):
        return
    if config.option.timeout is None and not config.getini("timeout") and not os.environ.get("PYTEST_TIMEOUT"):
        item.add_marker(pytest.mark.timeout(TIMEOUT))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each xdist worker where the run's folder is, and where to say which claims it has met."""
    from circuit_claims.running.session import new_notice

    node.workerinput["claims_run_dir"] = str(run_folder(node.config))
    node.workerinput["claims_notice"] = new_notice(node.config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any) -> None:
    """The claims that a worker met are expected from now on, and the run begins with the first of them."""
    from circuit_claims.running.session import read_notice

    if expected := read_notice(node.config):
        session_of(node.config).begin(expected)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per subject for each test marked with claims; all its claims must ask the same subjects."""
    ids = claim_ids(metafunc.definition)
    if not ids or SUBJECT_ARGUMENT not in metafunc.fixturenames:
        return
    from circuit_claims.judging.claims import ClaimError

    run = run_of(metafunc.config)
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
    if not holds_paper(module_path.parent) or papers_of(parent.config).paper_at(module_path) is None:
        return None
    return ClaimsModule.from_parent(parent, path=module_path)


class ClaimsModule(pytest.Module):
    """A test file of a paper: `from .measures import ...` finds the module beside it, whatever the import mode is."""

    def _getobj(self) -> Any:
        from circuit_claims.running.contributions import module_name

        paper = papers_of(self.config).paper_at(self.path)
        assert paper is not None
        try:
            return importlib.import_module(module_name(paper, self.path))
        except (ImportError, SyntaxError) as error:
            words = "".join(traceback.format_exception(error, limit=-3))
            raise self.CollectError(f"{self.path} cannot be imported\n{words}") from None


# First, because an xdist worker says with this hook that it has collected: what it met must be written by then.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """What is expected from here on has an outcome at the end; a session in which no claim is left writes nothing."""
    if session.config.option.collectonly or not any(map(claim_ids, session.items)):
        return
    session_of(session.config).expect(session.items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test's first verdict counts the time from here, with the opening of its subject."""
    judge = session_of(item.config).judge_of(item) if claim_ids(item) else None
    if judge is not None:
        judge.started = time.perf_counter()


@pytest.fixture
def judge(request: pytest.FixtureRequest) -> Judge:
    """`judge("AB-05", finding, evidence=[...])`: judge a claim of this test on its subject and record the verdict."""
    made = session_of(request.config).judge_of(request.node)
    if made is None:
        pytest.fail(f"{request.node.nodeid}: expected @claim(...) over a test with the argument `subject`", False)
    return made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Turn an error inside a claim test into a `failed` verdict, and a `failed` verdict into a pytest error."""
    report = yield
    if claim_ids(item):
        session_of(item.config).settle(item, call, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Any:
    """After the body of a claim test: reproduced passes, contradicted fails, inconclusive is an expected failure."""
    if not claim_ids(pyfuncitem):
        return (yield)
    session = session_of(pyfuncitem.config)
    with session.not_here_is_skipped(pyfuncitem):
        result = yield
    session.conclude(pyfuncitem)
    return result


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """A broken control or an error inside a claim test counts as an error, not as a failed claim."""
    return ("error", "E", "ERROR") if getattr(report, "claim_broke", False) else None


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Give every claim that was expected an outcome, close the event stream and write the report."""
    if SESSION in session.config.stash:
        session.config.stash[SESSION].finish(session, int(exitstatus))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say per scope what came out, and where to read it."""
    lines = config.stash[SESSION].lines if SESSION in config.stash else ()
    if lines:
        terminalreporter.section("claims")
    for line in lines:
        terminalreporter.write_line(line)
