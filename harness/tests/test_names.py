"""One name, one meaning: a public name is defined once in the package, or stands below with the reason why not.

Constants in capitals are left out: each is read beside the functions of its own module.
"""

import ast
from collections import defaultdict
from pathlib import Path

import circuit_claims

PACKAGE = Path(circuit_claims.__file__).parent

# Names that more than one module may define, each with the reason.
SHARED = {
    "judge": "the fixture of a claim's test hands the measurement to the function of that name",
}


def public_names(path: Path):
    """The public functions, classes and types at the top of a module."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = []
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        yield from (name for name in names if not name.startswith("_") and not name.isupper())


def definitions():
    places = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for name in public_names(path):
            places[name].add(path.relative_to(PACKAGE).as_posix())
    return places


def test_a_public_name_is_defined_once():
    twice = {name: sorted(files) for name, files in definitions().items() if len(files) > 1 and name not in SHARED}
    assert twice == {}


def test_every_exception_is_still_needed():
    places = definitions()
    assert [name for name in SHARED if len(places[name]) < 2] == []
