"""Claims as data: what one checkable sentence of a paper says, read from `paper.toml` and refused when incomplete."""

from __future__ import annotations

import datetime
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from circuit_claims.errors import ClaimsError

Kind = Literal["value", "at_least", "at_most", "order", "identity", "existence", "absence", "correlation", "curve"]
Trust = Annotated[str, Field(pattern=r"^[PFCNSRD?](, [PFCNSRD?])*$")]
Scope = Literal["reproduction", "reanalysis", "replication", "generalisation", "self-check", "control"]
AskedScope = Literal["reproduction", "reanalysis", "replication", "generalisation", "self-check"]
Origin = Literal["paper", "derived", "adapted", "later work"]
CostClass = Literal["seconds", "minutes", "hours", "gpu hours"]

TRUST_WORDS: Mapping[str, str] = {
    "P": "stated in the paper",
    "F": "read off a figure by an auditor of the paper",
    "C": "the authors' published configuration or code",
    "N": "the authors' published numbers",
    "S": "from reviews or reading notes only",
    "R": "from the reproducibility record",
    "D": "derived or checked by computation",
    "?": "not given by the paper",
}
CLAIM_ID = r"^[A-Z]{2,6}-\d{2,3}[a-z]?$"
NUMERIC_KINDS = ("value", "at_least", "at_most", "existence", "absence", "correlation")
LABEL_KINDS = ("identity", "order")
Finite = Annotated[float, Field(allow_inf_nan=False)]
FilledText = Annotated[str, Field(min_length=1)]
Named = dict[AskedScope, tuple[FilledText, ...]]


def trust_words(marks: str) -> str:
    """Trust marks in words.

    >>> trust_words("P, ?")
    'stated in the paper; its value not given by the paper'
    """
    words = [TRUST_WORDS.get(mark, mark) for mark in marks.split(", ")]
    return "; ".join(f"its value {word}" if word == TRUST_WORDS["?"] and len(words) > 1 else word for word in words)


class ClaimError(ClaimsError, ValueError):
    """A claim file that cannot be used; the text says what was expected, what was found, what to type next."""


class Claim(BaseModel):
    """One checkable sentence of a paper, with everything needed to judge it.

    `expected` is a number (in `unit`) for numeric kinds, a label for `identity`, labels from first to last for
    `order`, and `[x, y]` points for `curve`. `margin` is in the unit of `expected`; for `identity` and `order` it is
    the share of resamples in which another label may come first. `controls` must fail the claim's own rule,
    `positive_controls` must pass it.

    `subjects` says by scope what the claim is asked of, whoever else is asked: `{ reproduction = ["gpt2"] }`, or a
    plain list of the subjects that reproduce; it may be empty. With `others` the models of a run that are not listed
    are asked too, as a generalisation. `origin` says whose sentence it is: the paper's, derived from its numbers,
    adapted to other subjects, or of later work. Under the scope `self-check` stand the subjects that the expected
    value was read off: there it is tested on the very data it comes from. A claim that is `adapted` is the project's
    own, and a self-check wherever it is asked.

    `over` names what is redrawn to judge it, which is what the sentence generalises over: strings, documents, heads,
    runs. "chains" among them is the sampler's own noise. `presupposes` names what a model beyond the listed ones must
    have for the claim to be about anything; `family` groups claims whose false discoveries are counted together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=CLAIM_ID)]
    paper: FilledText
    title: FilledText
    locus: FilledText
    kind: Kind
    quantity: FilledText
    unit: FilledText
    expected: Finite | str | tuple[str, ...] | tuple[tuple[Finite, Finite], ...]
    trust: Trust
    margin: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    margin_reason: FilledText
    subjects: Named
    text: FilledText
    controls: Annotated[tuple[str, ...], Field(min_length=1)]
    positive_controls: tuple[str, ...] = ()
    cost: CostClass
    others: bool = True
    origin: Origin = "paper"
    over: tuple[FilledText, ...] = ()
    presupposes: tuple[FilledText, ...] = ()
    family: str = ""
    requires: tuple[str, ...] = ()
    note: str = ""

    @field_validator("subjects", mode="before")
    @classmethod
    def _a_plain_list_reproduces(cls, given: Any) -> Any:
        return _by_scope(given)

    @model_validator(mode="after")
    def _somebody_is_asked_once(self) -> Claim:
        listed = [name for names in self.subjects.values() for name in names]
        if twice := sorted({name for name in listed if listed.count(name) > 1}):
            raise ValueError(f"`subjects` must name each under one scope, found twice: {', '.join(twice)}")
        if not listed and not self.others:
            raise ValueError("`subjects` names none and `others` is false: nobody would be asked")
        return self

    @model_validator(mode="after")
    def _expected_fits_the_kind(self) -> Claim:
        wanted, fits = _expected_form(self.kind, self.expected)
        if not fits:
            raise ValueError(f"`expected` of kind {self.kind!r} must be {wanted}, found {self.expected!r}")
        if self.kind in LABEL_KINDS and not 0.0 < self.margin < 0.5:
            raise ValueError(f"`margin` of kind {self.kind!r} is a share of resamples in (0, 0.5), found {self.margin}")
        return self

    @property
    def listed(self) -> tuple[str, ...]:
        """The subjects the claim names, in its own order."""
        return tuple(name for names in self.subjects.values() for name in names)

    @property
    def family_name(self) -> str:
        """The family its false discoveries are counted in: its own word, or its id without the letter at the end."""
        return self.family or self.id.rstrip("abcdefghijklmnopqrstuvwxyz")

    def scope_of(self, subject: str) -> AskedScope:
        """Under which scope a verdict on `subject` counts: the one that lists it, generalisation for any other."""
        if self.origin == "adapted":
            return "self-check"
        for scope, names in self.subjects.items():
            if subject in names:
                return scope
        return "generalisation"


def _by_scope(given: Any) -> Any:
    return {"reproduction": given} if isinstance(given, list | tuple) else given


def _expected_form(kind: str, expected: Any) -> tuple[str, bool]:
    if kind in NUMERIC_KINDS:
        return "a number", isinstance(expected, float)
    if kind == "identity":
        return "a label such as 'L12H0'", isinstance(expected, str)
    if kind == "order":
        labels = isinstance(expected, tuple) and len(expected) > 1 and all(isinstance(item, str) for item in expected)
        return "two or more labels, first to last", labels
    points = isinstance(expected, tuple) and expected and all(isinstance(item, tuple) for item in expected)
    return "a list of [x, y] points", bool(points)


class Paper(BaseModel):
    """A paper's citation and its claims, as `paper.toml` holds them.

    `contribution` names what the paper brings beside its claims (`circuit_claims.running.contributions`), `units` are
    those of its claims that no other paper has, `folder` is where its `paper.toml` lies.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    title: FilledText
    authors: Annotated[tuple[str, ...], Field(min_length=1)]
    venue: FilledText
    year: int
    url: FilledText
    contribution: str = ""
    units: tuple[FilledText, ...] = ()
    claims: tuple[Claim, ...]
    folder: Annotated[Path, Field(exclude=True)]

    def claim(self, claim_id: str) -> Claim:
        """The claim called `claim_id`; raises `ClaimError` naming the ones there are."""
        for claim in self.claims:
            if claim.id == claim_id:
                return claim
        known = ", ".join(claim.id for claim in self.claims)
        raise ClaimError(f"no claim {claim_id} in {self.id}\n  expected one of {known}\n  Type: claims list")


class Deviation(BaseModel):
    """A contradiction that is known: the claim and subject that are expected to fail, why, and since when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: Annotated[str, Field(pattern=CLAIM_ID)]
    subject: FilledText
    reason: FilledText
    date: datetime.date


def load_paper(path: Path) -> Paper:
    """Read one `paper.toml`. Raises `ClaimError` for missing, unknown or ill-formed fields, naming all of them.

    `[paper.subjects]` and `others` in `[paper]` hold for every claim that does not say otherwise.
    """
    raw = _read_toml(path)
    citation, entries = dict(raw.get("paper", {})), raw.get("claim", [])
    unknown = set(raw) - {"paper", "claim"}
    if unknown:
        raise ClaimError(f"{path}: expected tables [paper] and [[claim]], found {', '.join(sorted(unknown))}")
    usual = {name: citation.pop(name) for name in ("subjects", "others") if name in citation} | {
        "paper": citation.get("id", "")
    }
    claims, faults = [], []
    for entry in entries:
        try:
            claims.append(_parse(Claim, {**usual, **entry}, path, _name(entry)))
        except ClaimError as error:
            faults.append(str(error))
    if faults:
        raise ClaimError("\n".join(faults))
    _refuse_doubles((claim.id, path) for claim in claims)
    return _parse(Paper, {**citation, "claims": claims, "folder": path.parent}, path, "[paper]")


def load_deviations(path: Path) -> tuple[Deviation, ...]:
    """Read `deviations.toml`; a missing file means none. Raises `ClaimError` as `load_paper` does."""
    if not path.exists():
        return ()
    raw = _read_toml(path)
    entries = raw.get("deviation", [])
    return tuple(_parse(Deviation, entry, path, f"deviation {_name(entry, 'claim')}") for entry in entries)


def paper_folders(place: Path) -> tuple[Path, ...]:
    """The folders with a `paper.toml`: `place` itself, or those in it, in the order of their names."""
    if (place / "paper.toml").is_file():
        return (place,)
    return tuple(sorted(path.parent for path in place.glob("*/paper.toml")))


def load_papers(*places: Path) -> tuple[Paper, ...]:
    """The papers of these folders or of the folders in them. Ids of papers and of claims must be unique over all.

    Raises `ClaimError` that names both files where two papers or two claims have one id.
    """
    folders = dict.fromkeys(folder.resolve() for place in places for folder in paper_folders(place))
    papers = tuple(load_paper(folder / "paper.toml") for folder in folders)
    _refuse_doubles((paper.id, paper.folder / "paper.toml") for paper in papers)
    _refuse_doubles((claim.id, paper.folder / "paper.toml") for paper in papers for claim in paper.claims)
    return papers


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ClaimError(f"no claim file\n  expected {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ClaimError(f"{path} is not TOML\n  found    {error}\n  Mend that line and run again.") from None


def _name(entry: Any, key: str = "id") -> str:
    return str(entry.get(key, f"without {key}")) if isinstance(entry, dict) else "that is not a table"


def _parse(model: type[BaseModel], data: Any, path: Path, name: str) -> Any:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        fields = tuple(model.model_fields)
        lines = [f"  {_field(item['loc'])}: {_complaint(item, fields)}" for item in error.errors(include_url=False)]
        raise ClaimError("\n".join([f"{path}: {name} cannot be used", *lines])) from None


def _field(loc: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in loc[:2]) or "as a whole"


def _complaint(item: Mapping[str, Any], fields: tuple[str, ...]) -> str:
    if item["type"] == "missing":
        return "expected this field, found none"
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(item["loc"][-1]), fields, n=1, cutoff=0.5)
        return "is not a field of this table" + (f", nearest {near[0]}" if near else "")
    return f"{item['msg']}, found {item['input']!r}"


def _refuse_doubles(named: Iterable[tuple[str, Path]]) -> None:
    seen: dict[str, Path] = {}
    for name, path in named:
        if name in seen:
            where = f"{path}: the id {name} is given twice" if seen[name] == path else f"the id {name} is given twice"
            found = "" if seen[name] == path else f"\n  found    {seen[name]}\n  and      {path}"
            raise ClaimError(f"{where}\n  expected every paper and every claim to have its own{found}")
        seen[name] = path
