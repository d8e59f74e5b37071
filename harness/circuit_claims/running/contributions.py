"""What a paper brings beside its claims, declared in one place: options, amounts, traits, kinds of subjects, commands.

A `paper.toml` names its contribution: `[paper] contribution = "measures:CONTRIBUTION"`. The module is looked for beside
the `paper.toml` first, then among what is installed. Reading it must be cheap: it is imported when claims are
collected, so functions are given as "module:function" and imported when they are first called.

    CONTRIBUTION = Contribution(
        amounts={"quick": Amounts(contexts=4), "standard": Amounts(contexts=64), "full": Amounts(contexts=512)},
        traits={"two_layers": Trait("not applicable: fewer than two layers", "measures:has_two_layers")},
    )
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circuit_claims.errors import ClaimsError
from circuit_claims.judging.claims import Paper
from circuit_claims.running.options import ClaimsOption

PACKAGE_PREFIX = "claims_of_"
Function = str | Callable[..., Any]


class ContributionError(ClaimsError, ValueError):
    """What a paper brings cannot be used; the text says what was expected, what was found, what to type next."""


@dataclass(frozen=True)
class Trait:
    """Something a claim `requires` of its subject: `has(subject)`, and the `reason` a report gives where it has not.

    >>> two_layers = Trait("not applicable: fewer than two layers", lambda subject: subject.n_layers > 1)
    >>> two_layers.reason
    'not applicable: fewer than two layers'
    """

    reason: str
    has: Function


@dataclass(frozen=True)
class Presupposition:
    """Something a claim `presupposes` of models beyond those it lists, found by measuring.

    `missing(subject)` is None where the thing is there, else the reason in a sentence and the `Measurement` that says
    so (or None): the claim then does not apply, and nothing else is measured.

    >>> everybody_has_one = Presupposition(lambda subject: None)
    >>> everybody_has_one.missing("pythia-1.4b") is None
    True
    """

    missing: Function


@dataclass(frozen=True)
class SubjectKind:
    """How rows of one `kind` in `runs.toml` become subjects.

    `open(row, run)` gives the subject, or raises `ModelNotAvailable` with the command that would bring it. A subject
    has `name`, `context`, `identity()`, `card()` and `check_untouched()`, as `circuit_claims.api.Subject` has.
    `state(row)` says in a line for `claims doctor` whether it is here and what to type.

    >>> SubjectKind(open="subjects:open_run", state="subjects:state_of_run").open  # imported when first called
    'subjects:open_run'
    """

    open: Function
    state: Function | None = None


@dataclass(frozen=True)
class Contribution:
    """Everything one paper adds to the harness; each part may be left out.

    `options` are typed `--claims-NAME`, and `--NAME` where nobody else has that; an opener finds them in
    `run.options[name]`. `amounts` says by the profile's name how much is measured: an object of the paper's own, for
    its tests to read with `context.profile.amounts_of(paper_id)` and hand to measures as parameters. `traits` are by
    the name in `requires`, `presuppositions` by the name in `presupposes`, `subject_kinds` by the `kind` in runs.toml,
    `commands` by the word after `claims` (functions for typer), `figures` by the `type` of a subclass of `Evidence`:
    `draw(record, name)`, with the fields as they stand in the event, gives an `Exhibit`.
    `card(subject)` gives lines for every subject's card in the report, an empty dict where it has nothing to say.

    >>> added = Contribution(traits={"two_layers": Trait("fewer than two layers", "measures:has_two_layers")})
    >>> sorted(added.traits), added.options
    (['two_layers'], ())
    """

    options: tuple[ClaimsOption, ...] = ()
    amounts: Mapping[str, Any] = field(default_factory=dict)
    traits: Mapping[str, Trait] = field(default_factory=dict)
    presuppositions: Mapping[str, Presupposition] = field(default_factory=dict)
    subject_kinds: Mapping[str, SubjectKind] = field(default_factory=dict)
    commands: Mapping[str, Function] = field(default_factory=dict)
    figures: Mapping[str, Function] = field(default_factory=dict)
    card: Function | None = None


def contribution_of(paper: Paper) -> Contribution:
    """What `paper` brings; an empty contribution where its `paper.toml` names none. Raises `ContributionError`."""
    if not paper.contribution:
        return Contribution()
    made = function_of(paper, paper.contribution)
    if not isinstance(made, Contribution):
        raise _error(paper, paper.contribution, "a Contribution", f"a {type(made).__name__}")
    return made


def function_of(paper: Paper, named: Function) -> Any:
    """What "module:name" stands for in the eyes of `paper`: a module beside its paper.toml, or an installed one."""
    if not isinstance(named, str):
        return named
    module, colon, name = named.partition(":")
    if not (module and colon and name):
        raise _error(paper, named, 'a module and a name, as in "measures:CONTRIBUTION"', repr(named))
    first = module.partition(".")[0]
    own = (paper.folder / f"{first}.py").is_file() or (paper.folder / first / "__init__.py").is_file()
    full = f"{package_of(paper)}.{module}" if own else module
    try:
        found = importlib.import_module(full)
    except ModuleNotFoundError as error:
        if error.name is None or not full.startswith(error.name):
            raise _error(paper, named, "a module that can be imported", f"{error}") from error
        raise _error(paper, named, f"{first}.py beside the paper.toml, or an installed module", "neither") from None
    except Exception as error:
        raise _error(paper, named, "a module that can be imported", f"{type(error).__name__}: {error}") from error
    if not hasattr(found, name):
        raise _error(paper, named, f"{name} in {found.__file__}", "no such name")
    return getattr(found, name)


def package_of(paper: Paper) -> str:
    """The name under which modules in the paper's folder are imported: `claims_of_<id>`, whatever the folder is called.

    Two papers may have modules and test files of one name, and `from .measures import ...` works in each.
    """
    name, where = f"{PACKAGE_PREFIX}{paper.id}", [str(paper.folder)]
    if name not in sys.modules or list(sys.modules[name].__path__) != where:
        for stale in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
            del sys.modules[stale]
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = where
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return name


def module_name(paper: Paper, path: Path) -> str:
    """The importable name of a Python file in the paper's folder."""
    parts = path.resolve().relative_to(paper.folder.resolve()).with_suffix("").parts
    return ".".join((package_of(paper), *parts))


def _error(paper: Paper, named: str, expected: str, found: str) -> ContributionError:
    return ContributionError(
        f"{paper.folder / 'paper.toml'}: {named} cannot be used\n  expected  {expected}\n  found     {found}\n"
        "  Mend `contribution` in [paper], or what it names, and run again."
    )
