"""What a figure hangs on, read off the sources: every definition that a measure can reach, and the libraries they use.

From a function (or class) the names in its code are followed to where they are defined, through imports at the top of
modules and inside functions, absolute and relative, within its own package and this one. What is reached is digested as
syntax without docstrings: a comment, a caption elsewhere or a formatter changes no key, any changed code that the
figure hangs on does. Imports under `if TYPE_CHECKING` are not followed; those of other libraries give their versions.

Nothing is imported for it. What only shows at run time stays unseen: `getattr` with a computed name, a class that comes
in as an argument (a measure's subject and its fields are looked at, `closure_of_measure`).
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from circuit_claims.errors import ClaimsError

OWN = __name__.partition(".")[0]
# Part of no figure: how a run is led, kept and shown, what holds a figure and what is made of it afterwards, how
# weights come here (their digests are in the key), the wording of messages.
APART = tuple(
    f"{OWN}.{room}"
    for room in (
        "running", "report", "keeping", "errors", "places", "judging.claims", "judging.evidence", "judging.findings",
        "judging.measurement", "judging.messages", "judging.verdicts", "models.cache", "models.errors",
        "models.progress", "models.registry", "models.resolve", "models.sources", "models.wheels",
    )
)  # fmt: skip
# Libraries that compute nothing: types, terminals, locks, downloads.
IDLE = frozenset({
    "beartype", "filelock", "huggingface_hub", "jaxtyping", "platformdirs", "psutil", "pydantic", "rich", "tqdm",
    "typer", "typing_extensions",
})  # fmt: skip
# Libraries whose name in code is not their distribution's, less the ones that `metadata` is asked about.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "transformer_lens": "transformer-lens", "PIL": "pillow", "yaml": "PyYAML"}

Root = Callable[..., Any] | type


class SourceMissing(ClaimsError, ValueError):
    """The source of something that is to be digested cannot be read."""


@dataclass(frozen=True)
class Closure:
    """What some code hangs on: definitions as "module:name", and the version of each library by its distribution."""

    definitions: tuple[str, ...]
    libraries: Mapping[str, str]
    digest: str

    @property
    def modules(self) -> frozenset[str]:
        """The modules that something was reached in."""
        return frozenset(name.partition(":")[0] for name in self.definitions)

    def parts(self) -> dict[str, Any]:
        """What goes into a key: the digest of the code, and the libraries' versions."""
        return {"source": self.digest, "libraries": dict(self.libraries)}


def closure_of_measure(function: Callable[..., Any], subject: Any, *texts: Any) -> Closure:
    """The closure of a measure of `subject`: of the function, the subject's class and the classes of its fields.

    A measure asks its subject for scores or weights, so the code behind the question is the subject's; and that of the
    `texts` that it is given as parameters.
    """
    return closure(*dict.fromkeys([function, *(kind for each in (subject, *texts) for kind in _classes(each))]))


def _classes(subject: Any) -> list[type]:
    """Of a subject and of what it was made of; a subject around another one (a model and a text) is seen through."""
    found = [type(subject)] if _is_code(type(subject)) else []
    if dataclasses.is_dataclass(subject):
        for value in (getattr(subject, each.name) for each in dataclasses.fields(subject) if each.init):
            if callable(getattr(value, "identity", None)):
                found += _classes(value)
            elif _is_code(type(value)):
                found.append(type(value))
    return found


def _is_code(kind: type) -> bool:
    """Whether a class is somebody's code that a figure may hang on: not a builtin's, not a keeper's or a run's."""
    module = kind.__module__
    if _top(module) in sys.stdlib_module_names:
        return False
    return not any(module == room or module.startswith(f"{room}.") for room in (f"{OWN}.keeping", f"{OWN}.running"))


@functools.cache
def closure(*roots: Root) -> Closure:
    """Everything that the code of `roots` (functions, classes) can reach; found once a process.

    Roots are digested whatever room they stand in. `measure` asks for it by itself; it is needed where a `CellPlan`
    says what decides its cells. Raises `SourceMissing` where the source of a root cannot be found.

    >>> from circuit_claims.judging.statistics import bootstrap_counts
    >>> closure(bootstrap_counts).definitions
    ('circuit_claims.judging.statistics.resampling:bootstrap_counts',)
    >>> sorted(closure(bootstrap_counts).parts())
    ['libraries', 'source']
    """
    functions = {_top(root.__module__) for root in roots if not isinstance(root, type)}
    others = {_top(root.__module__) for root in roots} - functions
    walk = _Walk({OWN, *functions, *(top for top in others if not library_version(top))} - sys.stdlib_module_names)
    for root in roots:
        walk.begin(root)
    lines = {f"{module}:{name}": text for (module, name), text in walk.reached.items()}
    digest = hashlib.sha256()
    for name in sorted(lines):
        digest.update(f"{name}\0{lines[name]}\0".encode("utf-8", "surrogatepass"))
    libraries = {name: version for each in sorted(walk.libraries) for name, version in library_version(each)}
    return Closure(tuple(sorted(lines)), libraries, digest.hexdigest())


def readable(*roots: Root) -> list[Root]:
    """Those of `roots` whose source can be read: what was typed in a notebook or at a prompt is left out."""
    return [root for root in roots if _top(root.__module__) in sys.modules and _module(root.__module__) is not None]


def library_version(name: str) -> list[tuple[str, str]]:
    """Distribution and version of an importable name, without the build's suffix; nothing where none provides it."""
    candidates = [DISTRIBUTIONS.get(name, name)]
    for candidate in candidates:
        try:
            return [(candidate, metadata.version(candidate).partition("+")[0])]
        except metadata.PackageNotFoundError:
            candidates += [other for other in _providers().get(name, []) if other not in candidates]
    return []


@functools.cache
def _providers() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _top(module: str) -> str:
    return module.partition(".")[0]


def _apart(module: str) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in APART)


@dataclass
class _Walk:
    """Definitions reached so far, with their syntax as text, and the libraries met on the way."""

    packages: set[str]
    reached: dict[tuple[str, str], str] = field(default_factory=dict)
    libraries: set[str] = field(default_factory=set)
    entered: set[str] = field(default_factory=set)

    def begin(self, root: Root) -> None:
        """From a function or class; one inside a function stands for all of that function."""
        if _top(root.__module__) not in self.packages:
            self.library(root.__module__)
            return
        module = _module(root.__module__)
        if module is None:
            raise SourceMissing(
                f"source of {root.__qualname__}: expected to find the file of module {root.__module__}, found none\n"
                "  A measure is written in a module that can be imported, not typed at a prompt"
            )
        name = root.__qualname__.partition(".")[0]
        if name in module.definitions:
            self.define(module, name)
        else:
            self.whole(module)

    def nobodys(self, module: str) -> bool:
        """Whether a module belongs to no library: an author's own helpers, digested as the measure beside them is."""
        top = _top(module)
        if top in sys.stdlib_module_names or top in IDLE or library_version(top) or _module(top) is None:
            return False
        self.packages.add(top)
        return True

    def library(self, module: str) -> None:
        """Note the library that a module belongs to; Python's own and those that compute nothing are left out."""
        self.libraries |= {_top(module)} - sys.stdlib_module_names - IDLE

    def follow(self, name: str, path: tuple[str, ...]) -> None:
        """Whatever `path` means in the module called `name`: a definition, something imported there, a submodule."""
        if _top(name) not in self.packages and not self.nobodys(name):
            self.library(name)
            return
        module = None if _apart(name) else _module(name)
        if module is None:
            return
        if not path:
            self.whole(module)
            return
        first, rest = path[0], path[1:]
        if first in module.definitions or first in module.imports:
            self.named(module, first, rest, {})
        elif _module(f"{name}.{first}") is not None:
            self.enter(module)
            self.follow(f"{name}.{first}", rest)
        elif "__getattr__" in module.definitions and first in module.typing:
            self.follow(*_joined(module.typing[first], rest))
        elif "*" in module.imports:
            self.enter(module)
            self.follow(module.imports["*"][0], path)
        elif not first.startswith("__"):
            self.whole(module)

    def named(self, module: _Module, name: str, rest: tuple[str, ...], local: Mapping[str, _Target]) -> None:
        """A name as it stands in code of `module`; names that are nobody's are builtins or variables."""
        if name in local:
            self.follow(*_joined(local[name], rest))
        if name in module.definitions:
            self.define(module, name)
        if name in module.imports:
            self.enter(module)
            self.follow(*_joined(module.imports[name], rest))

    def define(self, module: _Module, name: str) -> None:
        """Take a definition, and go where its code leads."""
        if (module.name, name) in self.reached:
            return
        parts = [_code(node, module.package) for node in module.definitions[name]]
        self.reached[module.name, name] = "\n".join(part.text for part in parts)
        self.enter(module)
        for part in parts:
            self.code(module, part)

    def enter(self, module: _Module) -> None:
        """What happens when a module is imported, and the packages above it: statements that name nothing."""
        if module.name in self.entered:
            return
        self.entered.add(module.name)
        if parent := module.name.rpartition(".")[0]:
            above = _module(parent)
            if above is not None and not _apart(parent):
                self.enter(above)
        for index, node in enumerate(module.effects):
            part = _code(node, module.package)
            self.reached[module.name, f"statement {index}"] = part.text
            self.code(module, part)
        for name in module.registered:
            if any(self.own(module, decorator) for decorator in module.decorators(name)):
                self.define(module, name)

    def own(self, module: _Module, name: str) -> bool:
        """Whether a decorator may register what it decorates: one of the package's, not a keeper's."""
        while (target := module.imports.get(name)) is not None and target[1] is not None:
            if _top(target[0]) not in self.packages or _apart(target[0]):
                return False
            above = _module(target[0])
            if above is None:
                return False
            module, name = above, target[1]  # a face hands on what is defined elsewhere
        return name in module.definitions

    def whole(self, module: _Module) -> None:
        """All of a module: it is passed on as a value, or something in it cannot be told apart."""
        self.enter(module)
        for name in module.definitions:
            self.define(module, name)

    def code(self, module: _Module, part: _Code) -> None:
        """Every name in some code, with the attributes behind it."""
        for name, rest in part.names:
            self.named(module, name, rest, part.imports)


_Target = tuple[str, str | None]


def _joined(target: _Target, rest: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    module, name = target
    return module, rest if name is None else (name, *rest)


@dataclass(frozen=True)
class _Code:
    """A statement as text, the names in it, and the imports inside it."""

    text: str
    names: tuple[tuple[str, tuple[str, ...]], ...]
    imports: Mapping[str, _Target]


@functools.cache
def _code(node: ast.stmt, package: str) -> _Code:
    return _Code(_as_text(node), tuple(dict.fromkeys(_names(node))), _imports(node, package)[0])


@dataclass(frozen=True)
class _Module:
    """A module's source: what each name is defined by, where others are imported from, and what is only done."""

    name: str
    package: str
    definitions: Mapping[str, list[ast.stmt]] = field(default_factory=dict)
    imports: Mapping[str, _Target] = field(default_factory=dict)
    typing: Mapping[str, _Target] = field(default_factory=dict)
    effects: tuple[ast.stmt, ...] = ()

    @property
    def registered(self) -> list[str]:
        """Definitions that carry a decorator."""
        return [name for name, nodes in self.definitions.items() if any(_decorators(node) for node in nodes)]

    def decorators(self, name: str) -> set[str]:
        """The names of a definition's decorators."""
        return {each for node in self.definitions[name] for each in _decorators(node)}


def _decorators(node: ast.stmt) -> list[str]:
    found = []
    for decorator in getattr(node, "decorator_list", []):
        while isinstance(decorator, (ast.Call, ast.Attribute)):
            decorator = decorator.func if isinstance(decorator, ast.Call) else decorator.value
        found += [decorator.id] if isinstance(decorator, ast.Name) else []
    return found


def _names(node: ast.AST) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names that are read in some code, each with the attributes that are taken from it."""
    ahead: list[ast.AST] = [node]
    while ahead:
        each = ahead.pop()
        path: list[str] = []
        while isinstance(each, ast.Attribute):
            path.insert(0, each.attr)
            each = each.value
        if isinstance(each, ast.Name):
            yield each.id, tuple(path)
        else:
            ahead.extend(ast.iter_child_nodes(each))


def _imports(node: ast.AST, package: str) -> tuple[dict[str, _Target], dict[str, _Target]]:
    """Names that imports anywhere in some code bind, to where they lead; apart, those under `if TYPE_CHECKING`."""
    real: dict[str, _Target] = {}
    typing: dict[str, _Target] = {}
    ahead: list[tuple[ast.AST, bool]] = [(node, False)]
    while ahead:
        each, only_typing = ahead.pop()
        into = typing if only_typing else real
        if isinstance(each, ast.Import):
            for alias in each.names:
                into[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0], None,
                )  # fmt: skip
        elif isinstance(each, ast.ImportFrom):
            source = _absolute(each, package)
            into.update({alias.asname or alias.name: (source, alias.name) for alias in each.names})
        elif isinstance(each, ast.If) and _is_type_checking(each.test):
            ahead += [(child, True) for child in each.body] + [(child, only_typing) for child in each.orelse]
        else:
            ahead += [(child, only_typing) for child in ast.iter_child_nodes(each)]
    return real, typing


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    above = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


@functools.cache
def _module(name: str) -> _Module | None:
    """A module's source, read and taken apart; None where there is no such module, or no source of it."""
    path = _file(name)
    if path is None:
        return None
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise SourceMissing(f"source of {name}\n  expected  Python in {path}\n  found     {error}") from error
    imports, typing = dict[str, _Target](), dict[str, _Target]()
    definitions: dict[str, list[ast.stmt]] = {}
    effects = []
    for node in tree.body:
        if isinstance(node, ast.If) and _is_type_checking(node.test) and not node.orelse:
            typing.update(_imports(node, package)[1])
            continue
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            real, only_typing = _imports(node, package)
            imports.update(real)
            typing.update(only_typing)
        if isinstance(node, (ast.Import, ast.ImportFrom)) or _is_text(node):
            continue
        bound = _bound(node)
        for each in bound:
            definitions.setdefault(each, []).append(node)
        if not bound:
            effects.append(node)
    return _Module(name, package, definitions, imports, typing, tuple(effects))


def _bound(node: ast.stmt) -> list[str]:
    """Names that a statement at the top of a module binds."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    names = dict[str, None]()
    ahead: list[ast.AST] = [node]
    while ahead:
        each = ahead.pop()
        if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names[each.name] = None
        elif isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
            names[each.id] = None
        elif isinstance(each, (ast.Subscript, ast.Attribute)) and isinstance(each.ctx, ast.Store):
            root = each.value
            while isinstance(root, (ast.Subscript, ast.Attribute)):
                root = root.value
            names |= {root.id: None} if isinstance(root, ast.Name) else {}
        elif not isinstance(each, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            ahead.extend(ast.iter_child_nodes(each))
    return list(names)


def _file(name: str) -> Path | None:
    """The source file of a module, found without importing it or the packages above it."""
    loaded = sys.modules.get(name)
    origin = getattr(loaded, "__file__", None)
    if origin is None and loaded is not None and hasattr(loaded, "__path__"):
        return None  # a folder without __init__.py
    if origin is None:
        parent, _, last = name.rpartition(".")
        for folder in _folders(parent):
            for path in (folder / last / "__init__.py", folder / f"{last}.py"):
                if path.is_file():
                    return path
        return None
    path = Path(origin)
    return path if path.suffix == ".py" and path.is_file() else None


def _folders(package: str) -> list[Path]:
    """Where the modules of a package lie; of none, the folders that imports look in."""
    if not package:
        return [Path(entry or ".") for entry in sys.path]
    loaded = sys.modules.get(package)
    if loaded is not None and hasattr(loaded, "__path__"):
        return [Path(entry) for entry in loaded.__path__]
    if "." not in package:
        spec = importlib.util.find_spec(package)
        return [Path(entry) for entry in (spec.submodule_search_locations or [])] if spec else []
    path = _file(package)
    if path is not None:
        return [path.parent] if path.name == "__init__.py" else []
    parent, _, last = package.rpartition(".")
    return [folder / last for folder in _folders(parent) if (folder / last).is_dir()]


def _is_text(node: ast.AST) -> bool:
    """A docstring, or a string that stands alone."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _as_text(node: Any) -> str:
    """Syntax as text: without positions, docstrings and empty fields, so that it is the same in every Python."""
    if isinstance(node, ast.AST):
        pairs = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
        return f"{type(node).__name__}({','.join(f'{name}={_as_text(value)}' for name, value in pairs)})"
    if isinstance(node, list):
        return f"[{','.join(_as_text(each) for each in node if not _is_text(each))}]"
    return f"{type(node).__name__} {node!r}"


def forget() -> None:
    """Read sources anew: what changed on disk since, this process does not see otherwise."""
    for cache in (closure, _module, _code):
        cache.cache_clear()
