"""No import circle: whoever reads a module can read what it stands on first, whichever import runs when.

And papers go through the face: what import-linter sees of the package, here for the files that are none of its modules.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import circuit_claims
import pytest
from circuit_claims.places import CHECKOUT, CLAIMS

PACKAGE = Path(circuit_claims.__file__).parent
ROOT = PACKAGE.name
GUESTS = (CLAIMS, PACKAGE / "running/authoring/templates", CHECKOUT / "harness/tests/api/third_paper.py")
CONTRACT = "papers-through-the-face"


def runtime_imports(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import that runs, in functions too; those for type checkers alone are left out."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from runtime_imports(node.orelse)
        else:
            yield from runtime_imports([child for child in ast.walk(node) if child is not node and is_import(child)])


def is_import(node: ast.AST) -> bool:
    return isinstance(node, (ast.Import, ast.ImportFrom))


def modules(package: Path) -> dict[str, Path]:
    """The package's modules by their dotted names; a folder's `__init__` by the folder's."""
    names = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def graph(package: Path) -> dict[str, set[str]]:
    """Which module imports which, by name: `from a import b` is an import of `a.b` where that is a module."""
    known = modules(package)
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        asked = set()
        for node in runtime_imports(ast.parse(path.read_text(encoding="utf-8")).body):
            if isinstance(node, ast.Import):
                asked |= {alias.name for alias in node.names}
            elif node.module:
                full = [f"{node.module}.{alias.name}" for alias in node.names]
                asked |= {one if one in known else node.module for one in full}
        found[name] = (asked & set(known)) - {name}
    return found


def circles(found: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which reaches the others, by walking away what imports nothing that is left."""
    left = {name: set(below) for name, below in found.items()}
    while leaves := {name for name, below in left.items() if not below & set(left)}:
        left = {name: below for name, below in left.items() if name not in leaves}
    while tops := set(left) - {one for below in left.values() for one in below}:
        left = {name: below for name, below in left.items() if name not in tops}
    return [[name, *sorted(below & set(left))] for name, below in sorted(left.items())]


def test_no_module_reaches_itself():
    assert circles(graph(PACKAGE)) == []


def behind_the_face() -> tuple[str, ...]:
    """The rooms that the contract for papers closes to them."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (each for each in project["tool"]["importlinter"]["contracts"] if each["id"] == CONTRACT)
    return tuple(contract["forbidden_modules"])


def past_the_face(source: str) -> list[str]:
    """The modules behind the face that a file imports from, in functions and for type checkers too."""
    asked = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            asked += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            asked += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in asked if any(f"{name}.".startswith(f"{room}.") for room in behind_the_face())]


@pytest.mark.parametrize("place", GUESTS, ids=lambda place: place.stem)
def test_what_is_written_for_papers_imports_nothing_behind_the_face(place):
    files = [place] if place.is_file() else [path for end in ("py", "py.template") for path in place.rglob(f"*.{end}")]
    found = {path.name: past_the_face(path.read_text(encoding="utf-8")) for path in files}
    assert files
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        "from circuit_claims.judging.statistics import LEVEL",
        "from circuit_claims import keeping",
        "def late():\n    import circuit_claims.running.plugin",
        "from circuit_claims.errors import InputError",
    ],
)
def test_an_import_past_the_face_is_seen(line):
    assert past_the_face(line)
    assert not past_the_face("from circuit_claims.api import LEVEL\nfrom circuit_claims.heads.probes import Probes")


def test_a_circle_through_a_function_is_seen(tmp_path):
    package = tmp_path / ROOT
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "above.py").write_text(f"from {ROOT} import below\n")
    (package / "below.py").write_text(f"def late():\n    import {ROOT}.above\n")
    (package / "typed.py").write_text(
        f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from {ROOT} import user\n"
    )
    (package / "user.py").write_text(f"from {ROOT} import typed\n")
    found = circles(graph(package))
    assert [names[0] for names in found] == [f"{ROOT}.above", f"{ROOT}.below"]
