"""The face: complete, documented with examples that run, and light to import."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from circuit_claims import api
from circuit_claims.judging import statistics

LATE = sorted(api._LATE)
# What has no place of its own to ask for: the module where it stands, with its text below it.
CONSTANTS = {
    "FEWEST_CLUSTERS": "circuit_claims.judging.statistics.resampling",
    "LEVEL": "circuit_claims.judging.statistics.resampling",
    "PROFILES": "circuit_claims.keeping.profiles",
}


def home_of(name: str) -> ModuleType:
    """The module in which a name of the face is defined; a module is its own."""
    thing = getattr(api, name)
    return thing if isinstance(thing, ModuleType) else importlib.import_module(CONSTANTS.get(name) or thing.__module__)


def text_of(name: str) -> str:
    """A name's docstring; a constant's is the text below it in its module."""
    if name not in CONSTANTS:
        return inspect.getdoc(getattr(api, name)) or ""
    body = ast.parse(Path(str(home_of(name).__file__)).read_text(encoding="utf-8")).body
    for node, below in pairwise(body):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(one, ast.Name) and one.id == name for one in targets):
            return inspect.cleandoc(ast.literal_eval(ast.unparse(below)))
    return ""


@pytest.mark.parametrize("name", api.__all__)
def test_everything_in_the_face_is_there_and_says_what_it_is(name):
    assert home_of(name) is not api
    assert len(text_of(name)) > 20
    assert name not in CONSTANTS or getattr(home_of(name), name) is getattr(api, name)


def test_the_face_has_of_the_statistics_what_their_table_lists_by_case():
    listed = re.findall(r"`(\w+)`", statistics.__doc__)
    assert sorted(set(statistics.__all__) & set(api.__all__)) == sorted(listed)


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = api.nothing


def test_a_name_that_is_fetched_late_is_listed_with_the_others():
    assert set(api.__all__) <= set(dir(api))


def test_what_is_fetched_late_is_declared_for_type_checkers_and_keys():
    source = inspect.getsource(api)
    declared = source.split("if TYPE_CHECKING:")[1].split("__all__")[0]
    assert all(re.search(rf"\b{name}\b", declared) for name in LATE)


@pytest.mark.parametrize("name", api.__all__)
def test_the_examples_run(name):
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    given, text = vars(home_of(name)).copy(), text_of(name)
    found = doctest.DocTestParser().get_doctest(text, given, name, None, None)
    assert found.examples, "no example"
    runner.run(found)
    assert runner.summarize(verbose=False).failed == 0


def test_importing_the_face_loads_no_torch():
    script = (
        "import sys, circuit_claims.api\n"
        "print([m for m in ('torch', 'transformers', 'scipy', 'typer') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
