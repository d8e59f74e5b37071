"""The face: complete, documented with examples that run, and light to import."""

from __future__ import annotations

import doctest
import importlib
import inspect
import subprocess
import sys

import pytest
from circuit_claims import api

LATE = sorted(api._LATE)
PLAIN_PARTS = {"EvidenceError"}


@pytest.mark.parametrize("name", api.__all__)
def test_everything_in_the_face_is_there_and_says_what_it_is(name):
    thing = getattr(api, name)
    assert inspect.getdoc(thing), name
    assert thing.__module__ != "circuit_claims.api"


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = api.nothing


def test_what_is_fetched_late_is_declared_for_type_checkers_and_keys():
    source = inspect.getsource(api)
    assert all(name in source.split("if TYPE_CHECKING:")[1].split("__all__")[0] for name in LATE)


@pytest.mark.parametrize("name", sorted({getattr(api, name).__module__ for name in api.__all__}))
def test_the_examples_run(name):
    module = importlib.import_module(name)
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    wanted = {name for name in api.__all__ if getattr(api, name).__module__ == module.__name__}
    for name in wanted:
        for test in finder.find(getattr(api, name), name, globs=vars(module).copy()):
            runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_importing_the_face_loads_no_torch():
    script = (
        "import sys, circuit_claims.api; print([m for m in ('torch', 'transformers', 'scipy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_name_has_an_example():
    assert [name for name in api.__all__ if ">>>" not in (inspect.getdoc(getattr(api, name)) or "")] == []
