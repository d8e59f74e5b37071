"""The papers of a run: where they are looked for, and everything they bring, asked by name."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from circuit_claims.judging.claims import Claim, ClaimError, Deviation, Paper, load_deviations, load_papers
from circuit_claims.judging.claims import paper_folders as folders_in
from circuit_claims.keeping.profiles import PROFILES, Profile
from circuit_claims.models.registry import REGISTRY, ModelRow, load_registry
from circuit_claims.models.runs import RunRow, load_runs
from circuit_claims.places import CLAIMS, PACKAGE
from circuit_claims.running.contributions import (
    Contribution,
    ContributionError,
    Function,
    SubjectKind,
    Trait,
    contribution_of,
    function_of,
)
from circuit_claims.running.options import ClaimsOption
from circuit_claims.running.searched import folders_with_paper, holds_paper
from circuit_claims.texts.registry import TEXTS, TextRow, load_texts

ENTRY_POINTS = "circuit_claims.papers"
TRAITS: Mapping[str, Trait] = {
    "training_revisions": Trait(
        "not applicable: no weights of earlier training steps are published",
        "circuit_claims.running.subjects:has_training_revisions",
    ),
}


@dataclass(frozen=True)
class Papers:
    """The papers of a run and what they bring. `typed` is what follows `pytest` to run their claims."""

    papers: tuple[Paper, ...]
    typed: str = "claims/"

    def __post_init__(self) -> None:
        _refuse_doubled_parts(self)
        for paper in self.papers:
            for claim in paper.claims:
                for trait in claim.requires:
                    self._trait(paper, claim, trait)

    @cached_property
    def claims(self) -> dict[str, Claim]:
        """All claims by id."""
        return {claim.id: claim for paper in self.papers for claim in paper.claims}

    @cached_property
    def deviations(self) -> tuple[Deviation, ...]:
        """What the papers' `deviations.toml` list."""
        return tuple(item for paper in self.papers for item in load_deviations(paper.folder / "deviations.toml"))

    @cached_property
    def contributions(self) -> tuple[tuple[Paper, Contribution], ...]:
        """Each paper with what it brings. Raises `ContributionError`."""
        return tuple((paper, contribution_of(paper)) for paper in self.papers)

    @cached_property
    def models(self) -> Mapping[str, ModelRow]:
        """The general models and those of the papers, by name."""
        return load_registry(REGISTRY, *self._beside("models.toml"))

    @cached_property
    def texts(self) -> Mapping[str, TextRow]:
        """The general texts and those of the papers, by name."""
        return load_texts(TEXTS, *self._beside("texts.toml"))

    @cached_property
    def runs(self) -> Mapping[str, RunRow]:
        """What the papers' claims are asked of beside models, by name: training runs, recorded numbers."""
        return load_runs(*self._beside("runs.toml"))

    def _beside(self, name: str) -> list[Path]:
        return [path for paper in self.papers if (path := paper.folder / name).is_file()]

    @cached_property
    def own_subjects(self) -> frozenset[str]:
        """Every subject that some claim lists as its paper's own: the group `paper` of the option for subjects."""
        return frozenset(name for claim in self.claims.values() for name in claim.subjects.get("reproduction", ()))

    def profile(self, name: str) -> Profile:
        """The profile called `name`, with the amounts that each paper brings for it."""
        amounts = {}
        for paper, brings in self.contributions:
            if brings.amounts and name not in brings.amounts:
                given = ", ".join(brings.amounts)
                raise ContributionError(
                    f"{paper.contribution}: `amounts` has none for the profile {name!r}\n"
                    f"  expected  one for each of {', '.join(PROFILES)}\n  found     {given}"
                )
            if brings.amounts:
                amounts[paper.id] = brings.amounts[name]
        return replace(PROFILES[name], amounts=amounts)

    @cached_property
    def options(self) -> tuple[tuple[Paper, ClaimsOption], ...]:
        """The options of pytest that the papers bring."""
        brought = ((paper, option) for paper, brings in self.contributions for option in brings.options)
        return tuple((paper, replace(option, passed_on=True)) for paper, option in brought)

    def subject_kind(self, row: RunRow) -> tuple[Paper, SubjectKind]:
        """How rows of this kind are opened, and the paper that says so. Raises `ContributionError` for an unknown."""
        kinds = {name: (paper, kind) for paper, one in self.contributions for name, kind in one.subject_kinds.items()}
        if row.kind not in kinds:
            raise ContributionError(
                f"runs.toml: {row.name} is of the kind {row.kind!r}, which no paper of this run can open\n"
                f"  expected  one of {', '.join(sorted(kinds)) or 'the kinds a contribution brings: there are none'}\n"
                f"  found     {row.kind}{_nearest(row.kind, kinds)}\n"
                "  Add it to `subject_kinds` of the paper's contribution."
            )
        return kinds[row.kind]

    def card_lines(self, subject: Any) -> dict[str, Any]:
        """What the papers add to the card of `subject`."""
        lines: dict[str, Any] = {}
        for paper, brings in self.contributions:
            if brings.card is not None:
                lines.update(function_of(paper, brings.card)(subject))
        return lines

    def named(self, part: str) -> dict[str, tuple[Paper, Function]]:
        """All `commands` or `figures` by name, each with the paper in whose eyes its function is named."""
        return {name: (paper, named) for paper, one in self.contributions for name, named in getattr(one, part).items()}

    def figures(self) -> dict[str, Callable[[Mapping[str, Any], str], Any]]:
        """How the kinds of evidence that the papers bring are drawn; each is imported when it is first asked for."""

        def later(paper: Paper, named: Function) -> Callable[[Mapping[str, Any], str], Any]:
            return lambda evidence, name: function_of(paper, named)(evidence, name)

        return {kind: later(paper, named) for kind, (paper, named) in self.named("figures").items()}

    def not_applicable(self, subject: Any, claims: Iterable[Claim]) -> str:
        """Why claims that require a trait cannot be asked of `subject`; empty when they can."""
        by_id = {paper.id: paper for paper in self.papers}
        for claim in claims:
            for name in claim.requires:
                trait = self._trait(by_id[claim.paper], claim, name)
                if not function_of(by_id[claim.paper], trait.has)(subject):
                    return trait.reason
        return ""

    def presupposition_missing(self, subject: Any, claim: Claim) -> tuple[str, Any] | None:
        """What `claim` presupposes and `subject` has not: the reason and the measurement that says so; None if all."""
        paper = next(paper for paper in self.papers if paper.id == claim.paper)
        known = next(brings.presuppositions for one, brings in self.contributions if one is paper)
        for name in claim.presupposes:
            if name not in known:
                raise ClaimError(
                    f"{paper.folder / 'paper.toml'}: {claim.id} presupposes the unknown thing {name!r}\n"
                    f"  expected  one of {', '.join(known) or 'those of the paper, which brings none'}\n"
                    f"  found     {name}{_nearest(name, known)}\n"
                    "  Mend `presupposes`, or add it to `presuppositions` of the paper's contribution."
                )
            if (missing := function_of(paper, known[name].missing)(subject)) is not None:
                return missing
        return None

    def _trait(self, paper: Paper, claim: Claim, name: str) -> Trait:
        known = {**TRAITS, **next(brings.traits for one, brings in self.contributions if one is paper)}
        if name not in known:
            raise ClaimError(
                f"{paper.folder / 'paper.toml'}: {claim.id} requires the unknown trait {name!r}\n"
                f"  expected  one of {', '.join(known)}\n  found     {name}{_nearest(name, known)}\n"
                "  Mend `requires`, or add the trait to the paper's contribution."
            )
        return known[name]

    def paper_at(self, path: Path) -> Paper | None:
        """The paper in whose folder `path` lies."""
        inside = set(path.resolve().parents)
        return next((paper for paper in self.papers if paper.folder in inside), None)

    def claims_of_test(self, ids: Sequence[str], path: Path) -> list[Claim]:
        """The claims a test in the file `path` is marked with: those of the paper in whose folder it lies.

        Raises `ClaimError` for an id that is not in that paper, with the nearest there are.
        """
        paper = self.paper_at(path)
        known = self.claims if paper is None else {claim.id: claim for claim in paper.claims}
        for name in ids:
            if name not in known:
                where = "any paper.toml" if paper is None else str(paper.folder / "paper.toml")
                raise ClaimError(f"no claim {name} in {where}{_nearest(name, known)}\n  Type: claims list")
        return [known[name] for name in ids]


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f"\n  nearest   {', '.join(near)}" if near else ""


def _refuse_doubled_parts(papers: Papers) -> None:
    """Names that are common to a run must be given by one paper: options, kinds of subjects, commands and figures."""
    seen: dict[tuple[str, str], Paper] = {}
    for paper, brings in papers.contributions:
        parts = {
            "option": [option.name for option in brings.options],
            "kind of subject": brings.subject_kinds,
            "command": brings.commands,
            "kind of figure": brings.figures,
        }
        for part, name in ((part, name) for part, names in parts.items() for name in names):
            other = seen.setdefault((part, name), paper)
            if other is not paper and other.contribution != paper.contribution:
                raise ContributionError(
                    f"the {part} {name!r} is brought by two papers\n  expected  a name of its own for each\n"
                    f"  found     {other.contribution} of {other.id}\n  and       {paper.contribution} of {paper.id}"
                )


def find_papers(root: Path, *, given: Iterable[Path] = (), claims_dir: str | Path | None = None) -> Papers:
    """The papers of a run that was started in `root`.

    `claims_dir` where it is said, else the folder `claims/` in `root`; also every folder or file in `given` that holds
    or lies beside a `paper.toml`. Where there is none of these, what ships with the harness. The papers of installed
    packages (entry points of the group `circuit_claims.papers`) always join. A `paper.toml` that nobody named and that
    has neither [paper] nor [[claim]] is somebody else's and passed over. Raises `ClaimError`, `ContributionError`.
    """
    named = [_claims_dir(claims_dir)] if claims_dir else []
    searched = [] if claims_dir else [place for place in (root / "claims",) if folders_with_paper(place)]
    searched += [place for path in given for place in _places_of(path)]
    folders = [folder for place in searched for folder in folders_with_paper(place)]
    installed = _installed()
    places = [*named, *searched] or ([] if installed and not folders_in(CLAIMS) else [CLAIMS])
    papers = load_papers(*(named + folders or places), *installed)
    return Papers(papers, typed_place(places[0] if places else installed[0]))


def shipped_papers() -> Papers:
    """The papers that ship with the harness."""
    return Papers(load_papers(CLAIMS), typed_place(CLAIMS))


def typed_place(place: Path) -> str:
    """How a place with papers is typed after `pytest`, from the current folder."""
    place = place.resolve()
    if place.is_relative_to(PACKAGE):
        return f"--pyargs {'.'.join((PACKAGE.name, *place.relative_to(PACKAGE).parts))}"
    here = Path.cwd()
    shown = str(place.relative_to(here)) if place.is_relative_to(here) else str(place)
    return "." if shown == "." else shlex.quote(shown + os.sep)


def _claims_dir(given: str | Path) -> Path:
    place = Path(given)
    if not folders_in(place):
        found = "no paper.toml in it or in a folder of it" if place.is_dir() else "no such folder"
        raise ClaimError(
            f"--claims-dir {given}\n  expected  a folder with a folder for each paper, and a paper.toml in each\n"
            f"  found     {found}, looked for from {Path.cwd()}\n  Type: --claims-dir with the right folder."
        )
    return place


def _places_of(path: Path) -> list[Path]:
    """Where papers lie that `path`, a folder or a test file, is about: in it, in its `claims/`, or above it."""
    for place in (path, path / "claims"):
        if place.is_dir() and folders_with_paper(place):
            return [place]
    return [place for place in path.resolve().parents if holds_paper(place)][:1]


def _installed() -> list[Path]:
    from importlib.metadata import entry_points
    from importlib.util import find_spec

    places = []
    for point in entry_points(group=ENTRY_POINTS):
        spec = find_spec(point.module)
        found = [Path(place) for place in (spec.submodule_search_locations or ()) if spec] if spec else []
        holding = [place for place in found if folders_in(place)]
        if not holding:
            raise ClaimError(
                f"the entry point {point.name} of {point.dist.name if point.dist else 'an installed package'}\n"
                f"  expected  a package with a paper.toml in it or in a folder of it\n  found     {point.value}, "
                f"{'without one' if found else 'which cannot be imported'}"
            )
        places += holding
    return places
