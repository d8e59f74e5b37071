"""The pytest fixtures that claims stand on: the device, the subject of a test, and the text it is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from circuit_claims.running.plugin import run_of

if TYPE_CHECKING:
    from circuit_claims.running.judge import Judge
    from circuit_claims.running.selection import Choice

__all__ = ["device", "open_chosen", "subject", "text"]


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """The torch device of this process, as `--device` asks (under xdist, one visible accelerator a worker)."""
    return run_of(request.config).device


@pytest.fixture(scope="session")
def open_chosen(request: pytest.FixtureRequest) -> Callable[[Choice], Any]:
    """Opens the subject of a choice: a training run by its name in fixtures/runs.toml, anything else as a model."""
    from circuit_claims.papers.refined_llc.runs.registry import load_runs, open_run
    from circuit_claims.running.subjects import open_subject

    run, opened = run_of(request.config), dict[str, Any]()

    def open_it(choice: Choice) -> Any:
        if choice.subject not in load_runs():
            return open_subject(choice, run)
        if choice.subject not in opened:
            opened[choice.subject] = open_run(choice.subject, run)
        return opened[choice.subject]

    return open_it


@pytest.fixture
def subject(request: pytest.FixtureRequest, judge: Judge, open_chosen: Callable[[Choice], Any]) -> Iterator[object]:
    """The model or training run a claim is asked of. Where it is not here, the claim is not run, with the way out."""
    from circuit_claims.models.errors import ModelNotAvailable

    choice, run = request.param, run_of(request.config)
    if not choice.asked:
        judge.cannot_run(choice.reason, choice.command)
        pytest.skip(f"{choice.reason}; type: {choice.command}")
    if run.device == "cpu" and any(claim.cost == "gpu hours" for claim in judge.claims.values()):
        judge.cannot_run("only an accelerator runs this in reasonable time", "pytest claims/ --device cuda")
        pytest.skip("only an accelerator runs this in reasonable time; type: pytest claims/ --device cuda")
    try:
        opened = open_chosen(choice)
    except ModelNotAvailable as error:
        judge.cannot_run(str(error).splitlines()[0], error.command)
        pytest.skip(str(error))
    if reason := opened.not_applicable(judge.claims.values()):
        judge.cannot_run(reason)
        pytest.skip(reason)
    run.introduce(opened)
    yield opened
    opened.check_untouched()


@pytest.fixture
def text(request: pytest.FixtureRequest, judge: Judge) -> object:
    """The text the test's claims name, or what stands in for it; the verdict then says so and only generalises.

    The hub is asked for it where the paper's own model is measured; others take it if it is here (--texts, or fetched
    before). A text that cannot be had and has no stand-in leaves the claims not run, with the way out.
    """
    from circuit_claims.running.judge import TextUse
    from circuit_claims.texts import TextNotAvailable, open_text

    run = run_of(request.config)
    (name,) = {claim.text for claim in judge.claims.values()}
    own = all(judge.subject in claim.subjects for claim in judge.claims.values())
    try:
        found = open_text(name, texts_dir=run.texts_dir, fetch=own and not run.offline, stand_in=True)
    except TextNotAvailable as error:
        judge.cannot_run(str(error).splitlines()[0], error.command)
        pytest.skip(str(error))
    judge.text = TextUse(f"{found.label}, sha256 {found.digest[:12]}", stand_in=bool(found.stands_for))
    return found
