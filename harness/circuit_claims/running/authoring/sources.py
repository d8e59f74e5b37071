"""What can be read of a paper's Python files without importing them: tests, texts, calls of evidence types.

The files are those in the paper's folder and those that they import from the package the paper belongs to.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from circuit_claims.places import PACKAGE

FACE = ("circuit_claims.api", "circuit_claims.judging.evidence")
# What pytest collects unless its option `python_files` says otherwise.
TEST_FILES = ("test_*.py", "*_test.py")
OWN_PAPERS = f"{PACKAGE.name}.papers."


@dataclass(frozen=True)
class ClaimTest:
    """A test that judges: the `ids` of the claims it is `marked` with, those its body judges, its `arguments`.

    `readable` is False where an id is not written out, so that neither list is whole; `handed_on` where the body gives
    `judge` to a function, which may judge others (a claim left without a verdict shows when the test is run).
    """

    file: Path
    line: int
    name: str
    ids: tuple[str, ...]
    judged: tuple[str, ...]
    arguments: frozenset[str]
    marked: bool
    readable: bool
    handed_on: bool


@dataclass(frozen=True)
class EvidenceCall:
    """A call of an evidence type of the face: its fields; `open` where others may come by `**`."""

    file: Path
    line: int
    kind: str
    fields: tuple[str, ...]
    positional: int
    open: bool


@dataclass(frozen=True)
class MissingImport:
    """An import from a file of the folder that gives nothing: the file or the name, and those that there are."""

    file: Path
    line: int
    name: str
    there_are: tuple[str, ...]


@dataclass(frozen=True)
class Sources:
    """The parsed files of a paper; `broken` are those that are no Python, with the reason."""

    folder: Path
    trees: Mapping[Path, ast.Module]
    broken: Mapping[Path, str]

    @cached_property
    def tests(self) -> tuple[ClaimTest, ...]:
        """The tests of the folder that are marked with claims."""
        return tuple(test for test in self._judging if test.marked)

    @cached_property
    def unmarked(self) -> tuple[ClaimTest, ...]:
        """The tests of the folder that judge without being marked with a claim."""
        return tuple(test for test in self._judging if not test.marked)

    @cached_property
    def _judging(self) -> tuple[ClaimTest, ...]:
        own = {file: tree for file, tree in self.trees.items() if file.is_relative_to(self.folder)}
        files = {file: tree for file, tree in own.items() if any(map(file.match, TEST_FILES))}
        return tuple(test for file, tree in files.items() for test in _judging_tests(file, tree))

    @cached_property
    def texts(self) -> frozenset[str]:
        """Every text that is written out, and every argument given by name: `random_head=` is "random head"."""
        nodes = [node for tree in self.trees.values() for node in ast.walk(tree)]
        texts = (node.value for node in nodes if isinstance(node, ast.Constant))
        names = (node.arg.replace("_", " ") for node in nodes if isinstance(node, ast.keyword) and node.arg)
        return frozenset((*names, *(text for text in texts if isinstance(text, str))))

    @cached_property
    def evidence(self) -> tuple[EvidenceCall, ...]:
        """Every call of an evidence type of the face."""
        return tuple(call for file, tree in self.trees.items() for call in _evidence_calls(file, tree))

    @cached_property
    def missing_imports(self) -> tuple[MissingImport, ...]:
        """Relative imports of the folder's files that find no file, or no such name in it."""
        own = {file: tree for file, tree in self.trees.items() if file.is_relative_to(self.folder)}
        return tuple(missing for file, tree in own.items() for missing in self._missing_in(file, tree))

    def _missing_in(self, file: Path, tree: ast.Module) -> Iterator[MissingImport]:
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            place = file.parents[node.level - 1]
            at = place.joinpath(*(node.module or "").split("."))
            target = next((one for one in (at.with_suffix(".py"), at / "__init__.py") if one in self.trees), None)
            modules = tuple(sorted(one.stem for one in place.glob("*.py") if one.stem != "__init__"))
            if node.module and target is None and not at.is_dir() and at.with_suffix(".py") not in self.broken:
                yield MissingImport(file, node.lineno, node.module, modules)
            elif names := _defined(self.trees[target]) if target else ():
                known = {*names, *(one.stem for one in at.glob("*.py"))}
                for alias in node.names:
                    if alias.name not in known and alias.name != "*":
                        yield MissingImport(file, node.lineno, alias.name, tuple(sorted(known)))

    def says(self, name: str) -> bool:
        """Whether `name` is written out, or is what an f-string can give."""
        return name in self.texts or any(pattern.fullmatch(name) for pattern in self._patterns)

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        nodes = (node for tree in self.trees.values() for node in ast.walk(tree) if isinstance(node, ast.JoinedStr))
        return tuple(pattern for node in nodes if (pattern := _pattern(node)) is not None)


def read_sources(folder: Path) -> Sources:
    """Parse the Python files in `folder`, and what they import from the same package or from a paper's."""
    trees: dict[Path, ast.Module] = {}
    broken: dict[Path, str] = {}
    waiting = sorted(path.resolve() for path in folder.rglob("*.py"))
    while waiting:
        file = waiting.pop(0)
        if file in trees or file in broken:
            continue
        try:
            trees[file] = ast.parse(file.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError, ValueError) as error:
            broken[file] = str(error)
            continue
        waiting += [path for name in _imported(trees[file]) if (path := _file_of(name, folder)) is not None]
    return Sources(folder.resolve(), trees, broken)


def _defined(tree: ast.Module) -> tuple[str, ...]:
    """The names a module gives; none where that cannot be read off (a star import, a `__getattr__`)."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names += [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
    return () if {"*", "__getattr__"} & set(names) else tuple(names)


def _imported(tree: ast.Module) -> Iterator[str]:
    """Absolute names that may be modules: relative imports are of the folder, which is read whole."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file_of(name: str, folder: Path) -> Path | None:
    """Where the module `name` lies, if it is of the package that the paper is part of; nothing is imported."""
    top, *rest = name.split(".")
    if top == PACKAGE.name:
        if not name.startswith(OWN_PAPERS):
            return None
        places = [PACKAGE]
    else:
        spec = _top_level(top)
        places = [Path(place).resolve() for place in (spec or ())]
        if not any(folder.resolve().is_relative_to(place) for place in places):
            return None
    for place in places:
        at = place.joinpath(*rest)
        for file in (at.with_suffix(".py"), at / "__init__.py"):
            if file.is_file():
                return file.resolve()
    return None


def _top_level(name: str) -> Sequence[str] | None:
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return None
    return list(spec.submodule_search_locations) if spec and spec.submodule_search_locations else None


def _judging_tests(file: Path, tree: ast.Module) -> Iterator[ClaimTest]:
    """The tests that are marked with claims, and those without a mark that take `judge` or call it with an id."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test"):
            continue
        marks = [mark for mark in node.decorator_list if isinstance(mark, ast.Call) and _is_claim(mark.func)]
        given = [argument for mark in marks for argument in mark.args]
        asked = [call.args[0] for call in ast.walk(node) if isinstance(call, ast.Call) and _is_judge(call)]
        arguments = frozenset(one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs))
        if not (marks or "judge" in arguments or _written_out(asked)):
            continue
        yield ClaimTest(
            file, node.lineno, node.name, tuple(_written_out(given)), tuple(_written_out(asked)), arguments,
            marked=bool(marks),
            readable=len(_written_out(given)) == len(given) and len(_written_out(asked)) == len(asked),
            handed_on=any(_hands_on(call) for call in ast.walk(node) if isinstance(call, ast.Call)),
        )  # fmt: skip


def _is_claim(function: ast.expr) -> bool:
    """`claim`, `api.claim`, `pytest.mark.claim`."""
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    return name == "claim"


def _is_judge(call: ast.Call) -> bool:
    """`judge("AB-01", ...)`, which gives a verdict; `judge.under` gives none."""
    return isinstance(call.func, ast.Name) and call.func.id == "judge" and bool(call.args)


def _hands_on(call: ast.Call) -> bool:
    """Whether a call has `judge` itself among its arguments."""
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return any(isinstance(one, ast.Name) and one.id == "judge" for one in given)


def _written_out(nodes: Sequence[ast.expr]) -> list[str]:
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def _pattern(node: ast.JoinedStr) -> re.Pattern[str] | None:
    """What an f-string can give; None for one that says nothing by itself."""
    parts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
    if sum(len(part) for part in parts if isinstance(part, str)) < 3:
        return None
    return re.compile("".join(".+" if part is None else re.escape(str(part)) for part in parts))


def _evidence_calls(file: Path, tree: ast.Module) -> Iterator[EvidenceCall]:
    names, modules = _bound_to_the_face(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        kind = _kind(node.func, names, modules)
        if kind:
            fields = tuple(word.arg for word in node.keywords if word.arg is not None)
            yield EvidenceCall(file, node.lineno, kind, fields, len(node.args), len(fields) < len(node.keywords))


def _bound_to_the_face(tree: ast.Module) -> tuple[dict[str, str], set[str]]:
    """What a file calls the names of the face, and how it spells the face itself."""
    names: dict[str, str] = {}
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in FACE:
            names.update({alias.asname or alias.name: alias.name for alias in node.names})
        elif isinstance(node, ast.ImportFrom):
            whole = ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)
            modules.update(short for short, full in whole if full in FACE)
        elif isinstance(node, ast.Import):
            modules.update(alias.asname or alias.name for alias in node.names if alias.name in FACE)
    return names, modules


def _kind(function: ast.expr, names: Mapping[str, str], modules: set[str]) -> str:
    if isinstance(function, ast.Name):
        return names.get(function.id, "")
    if isinstance(function, ast.Attribute) and ast.unparse(function.value) in modules:
        return function.attr
    return ""
