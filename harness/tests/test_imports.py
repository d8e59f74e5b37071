"""No import circle: whoever reads a module can read what it stands on first, whichever import runs when.

And papers go through the face: what import-linter sees of the package, here for the files that are none of its modules.
"""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import circuit_claims
import pytest
from circuit_claims import papers
from circuit_claims.places import CHECKOUT, CLAIMS

PACKAGE = Path(circuit_claims.__file__).parent
ROOT = PACKAGE.name
TEMPLATES = PACKAGE / "running/authoring/templates"
# The last one writes a stranger's files: what they import stands in its strings.
GUESTS = (
    CLAIMS,
    TEMPLATES,
    CHECKOUT / "harness/tests/api/third_paper.py",
    CHECKOUT / "harness/tests/running/test_third_paper.py",
)
# Rooms that are the harness's own and no library for papers, though the contract is silent on them.
NO_LIBRARIES = ("circuit_claims.report",)
CONTRACT = "papers-through-the-face"


def runtime_imports(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import that runs, in functions too; those for type checkers alone are left out."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from runtime_imports(node.orelse)
        else:
            below = (child for child in ast.walk(node) if child is not node)
            yield from (child for child in below if isinstance(child, (ast.Import, ast.ImportFrom)))


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
    """The rooms that are closed to papers: those of the contract, and what is no library."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (each for each in project["tool"]["importlinter"]["contracts"] if each["id"] == CONTRACT)
    return (*contract["forbidden_modules"], *NO_LIBRARIES)


def past_the_face(source: str) -> list[str]:
    """The modules behind the face that a file imports from, in functions and for type checkers too."""
    asked = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            asked += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            asked += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in asked if any(f"{name}.".startswith(f"{room}.") for room in behind_the_face())]


def words_past_the_face(text: str) -> list[str]:
    """The modules behind the face that a text names anywhere: in a comment, in a file it writes, in a toml."""
    rooms = "|".join(re.escape(room) for room in behind_the_face())
    return re.findall(rf"\b(?:{rooms})\b[\w.]*", text)


def leaks(place: Path) -> dict[Path, list[str]]:
    """What lies in `place` that names a module behind the face, by the file's path."""
    ends = (".py", ".toml", ".template")
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.name.endswith(ends)]
    assert files, f"nothing to read in {place}"
    found = {}
    for path in files:
        text = path.read_text(encoding="utf-8")
        code = path.name.endswith((".py", ".py.template"))
        found[path] = (past_the_face(text) if code else []) + words_past_the_face(text)
    return {path: names for path, names in found.items() if names}


@pytest.mark.parametrize("place", GUESTS, ids=lambda place: place.stem)
def test_what_is_written_for_papers_names_nothing_behind_the_face(place):
    assert leaks(place) == {}


def test_a_leak_is_seen_in_each_of_two_files_of_one_name_and_in_words(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "measures.py").write_text("from circuit_claims.api import LEVEL\n")
    (tmp_path / "one" / "measures.py").write_text("from circuit_claims import keeping\n")
    (tmp_path / "two" / "paper.toml.template").write_text("# a circuit_claims.running.contributions.Contribution\n")
    assert leaks(tmp_path) == {
        tmp_path / "one" / "measures.py": ["circuit_claims.keeping"],
        tmp_path / "two" / "paper.toml.template": ["circuit_claims.running.contributions.Contribution"],
    }


def test_the_papers_room_says_which_rooms_are_closed_and_which_are_open():
    text = papers.__doc__ or ""
    assert "circuit_claims.api" in text
    assert all(f"`{room}`" in text for room in ("judging", "keeping", "running"))
    assert all(f"`{room}`" in text for room in ("heads", "llc", "toy", "models", "texts"))
    assert "Every other room" not in text


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
