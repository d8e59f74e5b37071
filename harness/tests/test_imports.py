"""No import circle: whoever reads a module can read what it stands on first, whichever import runs when."""

import ast
from collections.abc import Iterator
from pathlib import Path

import circuit_claims

PACKAGE = Path(circuit_claims.__file__).parent
ROOT = PACKAGE.name


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
