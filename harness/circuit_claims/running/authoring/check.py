"""`claims check`: what can be known of a paper's folder without measuring, each fault with the nearest names.

Checked: every field of paper.toml; that subjects, texts, traits and units are known; that each claim has a test and
each test that judges its claims; that the folder's files find what they import from each other, and what the
contribution names; that each control is written out in the paper's code; the fields of evidence; deviations.toml.
Not checked: whether a control comes out as it must, and everything else that only shows when it is measured.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from circuit_claims.errors import ClaimsError
from circuit_claims.judging import evidence
from circuit_claims.judging.claims import Claim, ClaimError, Paper, load_deviations, load_paper, paper_folders
from circuit_claims.running.authoring.sources import ClaimTest, EvidenceCall, Sources, read_sources
from circuit_claims.running.contributions import contribution_of, function_of
from circuit_claims.running.papers import TRAITS, Papers, find_papers

UNITS = (
    "LLC", "bits", "correlation", "cosine", "doublings", "head", "heads", "layers", "logits", "nats", "order",
    "seconds", "share", "steps", "times", "tokens",
)  # fmt: skip
SHARE_OF = "share of "
TEXT = "text"
T = TypeVar("T")


@dataclass(frozen=True)
class Checked:
    """What was read and what is wrong with it; sound where there are no faults."""

    papers: int
    claims: int
    tests: int
    controls: int
    evidence: int
    faults: tuple[str, ...]

    def line(self) -> str:
        """What was checked, in a line."""
        counts = (
            (self.papers, "paper"), (self.claims, "claim"), (self.tests, "test"), (self.controls, "control"),
            (self.evidence, "figure"),
        )  # fmt: skip
        said = ", ".join(f"{count:,} {name}{'' if count == 1 else 's'}" for count, name in counts)
        return f"{said}: " + (f"faults found: {len(self.faults)}" if self.faults else "sound; nothing was measured")


def check_papers(folders: Iterable[Path], root: Path, claims_dir: Path | None = None) -> Checked:
    """Check the papers in `folders`, or those of a run started in `root` where none is given.

    Names of papers that lie beside are known, their faults are not looked for. Raises `ClaimError` for a folder
    without a paper.
    """
    given = tuple(folders)
    places = [place for folder in given for place in _papers_in(folder)] or _papers_here(root, claims_dir)
    checks, faults = [], []
    for place in dict.fromkeys(path.resolve() for path in places):
        try:
            checks.append(_Check(load_paper(place / "paper.toml"), read_sources(place)))
        except ClaimsError as error:
            faults.append(str(error))
    known = _Known.of([one.paper for one in checks], root, claims_dir, faults)
    for one in checks:
        faults += one.faults(known)
    if not faults:
        faults += _of_the_run(given, root, claims_dir)
    return Checked(
        len(checks),
        sum(len(one.paper.claims) for one in checks),
        sum(len(one.sources.tests) for one in checks),
        sum(len({*claim.controls, *claim.positive_controls}) for one in checks for claim in one.paper.claims),
        sum(len([call for call in one.sources.evidence if call.kind in _evidence_types()]) for one in checks),
        tuple(faults),
    )


def _papers_in(folder: Path) -> tuple[Path, ...]:
    found = paper_folders(folder)
    if not found:
        what = "no paper.toml in it or in a folder of it" if folder.is_dir() else "no such folder"
        raise ClaimError(
            f"claims check {folder}\n  expected  a paper's folder\n  found     {what}\n  Type: claims new NAME"
        )
    return found


def _papers_here(root: Path, claims_dir: Path | None) -> list[Path]:
    """The folders of a run's papers, whether they can be used or not."""
    place = claims_dir or root / "claims"
    return list(paper_folders(place)) or [paper.folder for paper in find_papers(root, claims_dir=claims_dir).papers]


def _of_the_run(given: tuple[Path, ...], root: Path, claims_dir: Path | None) -> list[str]:
    """What only shows when all papers of a run come together: ids, options and commands that two of them have."""
    try:
        papers = find_papers(root, given=given, claims_dir=claims_dir)
        _ = papers.models, papers.texts, papers.runs
    except ClaimsError as error:
        return [str(error)]
    return []


@dataclass(frozen=True)
class _Known:
    """The names that a run of these papers knows."""

    subjects: frozenset[str]
    texts: frozenset[str]

    @classmethod
    def of(cls, papers: list[Paper], root: Path, claims_dir: Path | None, faults: list[str]) -> _Known:
        """The names of all papers of a run, of those alone that can be read where the others cannot."""
        try:
            beside = [paper.folder for paper in papers]
            run = find_papers(root, given=beside, claims_dir=claims_dir)
        except ClaimsError:
            run = Papers.__new__(Papers)  # its rows are asked for, what stops a run is told elsewhere
            object.__setattr__(run, "papers", tuple(papers))
        rows = [_or_fault(lambda: frozenset(run.models), faults), _or_fault(lambda: frozenset(run.runs), faults)]
        return cls(rows[0] | rows[1], _or_fault(lambda: frozenset(run.texts), faults))


def _or_fault(read: Callable[[], frozenset[str]], faults: list[str]) -> frozenset[str]:
    try:
        return read()
    except ClaimsError as error:
        faults.append(str(error))
        return frozenset()


@dataclass(frozen=True)
class _Check:
    """One paper and its files."""

    paper: Paper
    sources: Sources

    def faults(self, known: _Known) -> Iterator[str]:
        """Everything that is wrong, file by file."""
        for claim in self.paper.claims:
            yield from self._of_claim(claim, known)
        yield from self._of_the_folder()
        yield from self._of_its_functions()
        yield from self._without_test()
        for test in self.sources.tests:
            yield from self._of_test(test, known)
        for test in self.sources.unmarked:
            ids = ", ".join(f'"{name}"' for name in test.judged) or '"ID"'
            where = f"{_shown(test.file)}:{test.line}: {test.name} is a test without a claim"
            yield _fault(where, f"@claim({ids}) over a test with `judge`", "none")
        for call in self.sources.evidence:
            yield from _of_evidence(call)
        for file, reason in self.sources.broken.items():
            yield _fault(f"{_shown(file)}: cannot be read", "Python", reason)
        yield from self._of_deviations(known)

    @property
    def _toml(self) -> str:
        return _shown(self.paper.folder / "paper.toml")

    @cached_property
    def _ids(self) -> tuple[str, ...]:
        return tuple(claim.id for claim in self.paper.claims)

    @cached_property
    def _traits(self) -> tuple[frozenset[str], str]:
        """The traits there are, and why the paper's own cannot be read."""
        try:
            return frozenset({*TRAITS, *contribution_of(self.paper).traits}), ""
        except ClaimsError as error:
            return frozenset(TRAITS), str(error)

    @cached_property
    def _presuppositions(self) -> frozenset[str]:
        return frozenset() if self._traits[1] else frozenset(contribution_of(self.paper).presuppositions)

    def _of_claim(self, claim: Claim, known: _Known) -> Iterator[str]:
        where = f"{self._toml}: {claim.id}"
        for name in claim.listed:
            if not _is_subject(name, known):
                yield _fault(
                    f"{where}: unknown subject {name!r}", "a name of `claims list --subjects`, or a path", name,
                    known.subjects,
                )  # fmt: skip
        if claim.text not in known.texts and claim.text != "none" and " " not in claim.text:
            expected = "a name of `claims list --texts`, or words such as 'none: weights only'"
            yield _fault(f"{where}: unknown text {claim.text!r}", expected, claim.text, known.texts)
        traits, trouble = self._traits
        for name in claim.requires:
            if name not in traits and not trouble:
                yield _fault(f"{where}: unknown trait {name!r} in `requires`", "a trait that is known", name, traits)
        for name in claim.presupposes:
            if name not in self._presuppositions and not trouble:
                expected = "one of `presuppositions` in the paper's contribution"
                yield _fault(f"{where}: unknown {name!r} in `presupposes`", expected, name, self._presuppositions)
        units = (*UNITS, *self.paper.units, *(text for text in self.sources.texts if text.startswith(SHARE_OF)))
        if claim.unit not in units:
            expected = f"one of {', '.join(UNITS)}, a {SHARE_OF}... that a measure gives, or one of `units` in [paper]"
            yield _fault(f"{where}: unknown unit {claim.unit!r}", expected, claim.unit, units)
        for name in (*claim.controls, *claim.positive_controls):
            if not self.sources.says(name):
                expected = "a control that some finding of the paper's code offers by this name"
                yield _fault(f"{where}: unknown control {name!r}", expected, name, self.sources.texts)

    def _of_the_folder(self) -> Iterator[str]:
        folder, name = self.paper.folder, self.paper.id
        if folder.name != name:
            yield _fault(f"{self._toml}: the id {name!r}", f"the folder's name, {folder.name}", name)
        for one in self.sources.missing_imports:
            where = f"{_shown(one.file)}:{one.line}: imports {one.name!r}"
            yield _fault(
                where, "a file beside it, or a name that is in that file", "neither", one.there_are, word=one.name
            )

    def _of_its_functions(self) -> Iterator[str]:
        """Functions that the contribution gives as "module:function" are there: a run imports each when it needs it."""
        if self._traits[1]:
            return
        made = contribution_of(self.paper)
        given = [one.has for one in made.traits.values()] + [one.missing for one in made.presuppositions.values()]
        given += [named for one in made.subject_kinds.values() for named in (one.open, one.state)]
        given += [*made.commands.values(), *made.figures.values(), made.card, *(one.check for one in made.options)]
        for named in dict.fromkeys(name for name in given if isinstance(name, str)):
            try:
                function_of(self.paper, named)
            except ClaimsError as error:
                yield str(error)

    def _without_test(self) -> Iterator[str]:
        if trouble := self._traits[1]:
            yield trouble
        tested = {name for test in self.sources.tests for name in test.ids}
        for name in self._ids:
            if name not in tested:
                yield _fault(
                    f"{self._toml}: {name} has no test", f'@claim("{name}") over a test in {_shown(self.paper.folder)}',
                    "none", tested, word=name,
                )  # fmt: skip

    def _of_test(self, test: ClaimTest, known: _Known) -> Iterator[str]:
        where = f"{_shown(test.file)}:{test.line}: {test.name}"
        if not test.readable:
            yield _fault(where, "ids of claims written out, in @claim and in judge", "one that is computed")
            return
        for name in test.ids:
            if name not in self._ids:
                yield _fault(f"{where}: no claim {name}", f"a claim of {self._toml}", name, self._ids)
            elif name not in test.judged and not test.handed_on:
                yield _fault(f"{where}: {name} is not judged", f'judge("{name}", finding)', "none", test.judged)
        for name in test.judged:
            if name not in test.ids:
                yield _fault(f"{where}: judges {name}", f'@claim("{name}") over the test', f"{test.ids}", test.ids)
        for name in ("subject", "judge"):
            if name not in test.arguments:
                yield _fault(f"{where}: has no argument {name!r}", "a test with `subject` and `judge`", "none of it")
        if TEXT in test.arguments:
            yield from self._of_its_texts(test, known, where)

    def _of_its_texts(self, test: ClaimTest, known: _Known, where: str) -> Iterator[str]:
        texts = {claim.text: claim.id for claim in self.paper.claims if claim.id in test.ids}
        if len(texts) > 1:
            found = ", ".join(f"{text!r} of {name}" for text, name in texts.items())
            yield _fault(f"{where}: two texts in one test", "claims of one text for the argument `text`", found)
        for text, name in texts.items():
            # Unknown names of one word, "none" apart, are told of the claim itself.
            if text not in known.texts and (text == "none" or " " in text):
                expected = "a name of `claims list --texts`, as the test has the argument `text`"
                yield _fault(f"{where}: unknown text {text!r} of {name}", expected, text, known.texts)

    def _of_deviations(self, known: _Known) -> Iterator[str]:
        path = self.paper.folder / "deviations.toml"
        try:
            listed = load_deviations(path)
        except ClaimsError as error:
            yield str(error)
            return
        for one in listed:
            if one.claim not in self._ids:
                yield _fault(f"{_shown(path)}: no claim {one.claim}", f"a claim of {self._toml}", one.claim, self._ids)
            if not _is_subject(one.subject, known):
                expected = "a name of `claims list --subjects`"
                yield _fault(f"{_shown(path)}: unknown subject", expected, one.subject, known.subjects)


def _of_evidence(call: EvidenceCall) -> Iterator[str]:
    kind = _evidence_types().get(call.kind)
    if kind is None:
        return
    where = f"{_shown(call.file)}:{call.line}: {call.kind}"
    for name in call.fields:
        if name not in kind.model_fields:
            expected = f"one of {', '.join(kind.model_fields)}"
            yield _fault(f"{where}: no such field {name!r}", expected, name, kind.model_fields)
    if call.positional:
        yield _fault(where, "every field by its name", f"{call.positional} without one")
    missing = [name for name, one in kind.model_fields.items() if one.is_required() and name not in call.fields]
    if missing and not call.open and not call.positional:
        yield _fault(f"{where}: a field is missing", ", ".join(missing), ", ".join(call.fields) or "none")


def _evidence_types() -> Mapping[str, type[evidence.Part]]:
    found = {name: kind for name, kind in vars(evidence).items() if isinstance(kind, type)}
    abstract = (evidence.Part, evidence.Evidence)
    return {name: kind for name, kind in found.items() if issubclass(kind, evidence.Part) and kind not in abstract}


def _is_subject(name: str, known: _Known) -> bool:
    return name.partition("@")[0] in known.subjects or Path(name).exists()


def _fault(what: str, expected: str, found: str, known: Iterable[str] = (), *, word: str = "") -> str:
    near = difflib.get_close_matches(word or found, list(known), n=3, cutoff=0.5)
    lines = [what, f"  expected  {expected}", f"  found     {found}"]
    return "\n".join([*lines, *([f"  nearest   {', '.join(near)}"] if near else [])])


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
