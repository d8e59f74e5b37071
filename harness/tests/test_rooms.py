"""What CONTRIBUTING promises of the package's rooms: how long a module and a function are, how many share a folder."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "circuit_claims"
MODULES = sorted(PACKAGE.rglob("*.py"))
LINES, OF_A_FUNCTION, IN_A_FOLDER = 600, 40, 14


def test_no_module_and_no_function_is_longer_than_promised():
    long = []
    for path in MODULES:
        if (lines := len(path.read_text().splitlines())) > LINES:
            long.append(f"{path.relative_to(PACKAGE)}: {lines} lines")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and _body(node) > OF_A_FUNCTION:
                long.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}: {_body(node)} lines")
    assert long == []


def _body(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = node.body[1] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body[0]
    return (node.end_lineno or 0) - first.lineno + 1


def test_a_folder_of_the_package_holds_few_modules():
    folders = {path.parent for path in MODULES}
    counts = {str(at.relative_to(PACKAGE)): len([p for p in at.glob("*.py") if p.stem != "__init__"]) for at in folders}
    assert {name: count for name, count in counts.items() if count > IN_A_FOLDER} == {}
