"""The pytest fixtures that claims stand on: the device, the subject of a test, and the text it is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from circuit_claims.running.plugin import run_of

if TYPE_CHECKING:
    from circuit_claims.running.judge import Judge
    from circuit_claims.running.run import Run
    from circuit_claims.running.selection import Choice

__all__ = ["device", "open_chosen", "subject", "text"]


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """The torch device of this process, as `--device` asks (under xdist, one visible accelerator a worker)."""
    return run_of(request.config).device


@pytest.fixture(scope="session")
def open_chosen(request: pytest.FixtureRequest) -> Callable[[Choice], Any]:
    """Opens the subject of a choice: by its name in a paper's runs.toml as its kind says, anything else as a model."""
    from circuit_claims.running.contributions import function_of
    from circuit_claims.running.subjects import open_subject

    run, opened = run_of(request.config), dict[str, Any]()

    def open_it(choice: Choice) -> Any:
        row = run.papers.runs.get(choice.subject)
        if row is None:
            return open_subject(choice, run)
        if row.name not in opened:
            paper, kind = run.papers.subject_kind(row)
            opened[row.name] = function_of(paper, kind.open)(row, run)
        return opened[row.name]

    return open_it


@pytest.fixture
def subject(request: pytest.FixtureRequest, judge: Judge, open_chosen: Callable[[Choice], Any]) -> Iterator[object]:
    """The model or training run a claim is asked of. Where it is not here nothing is judged, and the way out said."""
    from circuit_claims.models.errors import ModelNotAvailable

    choice, run = request.param, run_of(request.config)
    if not choice.asked:
        judge.not_judged(choice.reason, choice.command)
        pytest.skip(f"{choice.reason}; type: {choice.command}")
    if run.device == "cpu" and any(claim.cost == "gpu hours" for claim in judge.claims.values()):
        reason = "only an accelerator runs this in reasonable time"
        command = f"pytest {run.papers.typed} {run.spelled('device')} cuda"
        judge.not_judged(reason, command, "needs an accelerator")
        pytest.skip(f"{reason}; type: {command}")
    try:
        opened = open_chosen(choice)
    except ModelNotAvailable as error:
        judge.not_judged(str(error).splitlines()[0], error.command)
        pytest.skip(str(error))
    if reason := run.papers.not_applicable(opened, judge.claims.values()):
        judge.not_judged(reason, outcome="does not apply")
        pytest.skip(reason)
    run.introduce(opened)
    _settle_presuppositions(opened, judge, run)
    yield opened
    opened.check_untouched()


def _settle_presuppositions(opened: Any, judge: Judge, run: Run) -> None:
    """Claims about a thing that a model beyond those they list does not have do not apply to it."""
    for claim in judge.claims.values():
        listed = judge.subject in claim.listed
        missing = None if listed else run.papers.presupposition_missing(opened, claim)
        if missing is not None:
            judge.does_not_apply(claim.id, *missing)
    if judge.claims and not judge.without_verdict():
        pytest.skip(next(iter(judge.judged)).verdict.reason)


@pytest.fixture
def text(request: pytest.FixtureRequest, judge: Judge) -> object:
    """The text the test's claims name, or what stands in for it; the verdict then says so and only generalises.

    The hub is asked for it where the paper's own model is measured; others take it if it is here (--texts, or fetched
    before). A text that cannot be had and has no stand-in leaves the claims not judged, with the way out.
    """
    from circuit_claims.running.judge import TextUse
    from circuit_claims.texts import TextNotAvailable, open_text

    run = run_of(request.config)
    (name,) = {claim.text for claim in judge.claims.values()}
    own = all(claim.scope_of(judge.subject) != "generalisation" for claim in judge.claims.values())
    try:
        fetch, rows = own and not run.offline, run.papers.texts
        found = open_text(name, texts_dir=run.texts_dir, fetch=fetch, stand_in=True, rows=rows)
    except TextNotAvailable as error:
        judge.not_judged(str(error).splitlines()[0], error.command)
        pytest.skip(str(error))
    judge.text = TextUse(f"{found.label}, sha256 {found.digest[:12]}", stand_in=bool(found.stands_for))
    return found
