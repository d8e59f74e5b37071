"""The registry of texts, fixtures/texts.toml: what each text is, and every place it can come from.

Importing this module costs neither torch nor a network: claims are collected with it.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from circuit_claims.models.errors import RegistryError, UnsafeFile
from circuit_claims.models.files.safe_files import inside
from circuit_claims.models.registry import Count, Sha256
from circuit_claims.models.runs import add_row
from circuit_claims.places import FIXTURES
from circuit_claims.texts.library import STANDARD_TEXTS

TEXTS = FIXTURES / "texts.toml"
STRICT = ConfigDict(extra="forbid")


def _stays_inside(pattern: str) -> str:
    try:
        inside(Path("folder"), pattern)
    except UnsafeFile as error:
        raise ValueError(str(error).splitlines()[0]) from None
    return pattern


Pattern = Annotated[str, Field(min_length=1), AfterValidator(_stays_inside)]


@dataclass(frozen=True, config=STRICT)
class HubText:
    """Files of a data set on the Hugging Face hub, with the name of the column that holds the text."""

    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: str
    files: Annotated[tuple[Pattern, ...], Field(min_length=1)]
    column: str = "text"


@dataclass(frozen=True, config=STRICT)
class FirstDocuments:
    """The identity of a published text: the digest of its first documents, see `texts.sources.digest_of`."""

    documents: Count
    sha256: Sha256


@dataclass(frozen=True, config=STRICT)
class TextRow:
    """One text of the registry.

    `library` texts come with Python. `files` are patterns in the folder of `--texts`, the first that matches counts;
    `group` is the entry of a document's `meta` that says which part of the text it belongs to. `stand_ins` name the
    texts taken together in this one's place where it cannot be had.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: Annotated[str, Field(min_length=1)]
    kind: Literal["library", "documents"]
    licence: Annotated[str, Field(min_length=1)]
    note: str = ""
    files: tuple[Pattern, ...] = ()
    hub: HubText | None = None
    first: FirstDocuments | None = None
    group: str = ""
    stand_ins: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _sources_make_sense(self) -> TextRow:
        if self.kind == "library" and (self.files or self.hub or self.name not in STANDARD_TEXTS):
            raise ValueError(f"a library text is one of {', '.join(STANDARD_TEXTS)}, without `files` or `hub`")
        if self.kind == "documents" and not self.files:
            raise ValueError("expected `files`: the patterns under which a folder given with --texts may hold it")
        return self


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")
    schema_: Literal[1] = Field(alias="schema")
    text: list[TextRow] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_known(self) -> _Document:
        names = [row.name for row in self.text]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"expected every name once, found twice: {', '.join(twice)}")
        return self


def load_texts(*paths: Path) -> Mapping[str, TextRow]:
    """All rows of these files by name, in their order; of fixtures/texts.toml where none is given.

    Raises `RegistryError` that names what is wrong, or both files where a name is given twice.
    """
    rows: dict[str, TextRow] = {}
    places: dict[str, Path] = {}
    for path in paths or (TEXTS,):
        for name, row in _load(path).items():
            add_row(rows, places, name, row, path)
    libraries = {name for name, row in rows.items() if row.kind == "library"}
    strangers = sorted({name for row in rows.values() for name in row.stand_ins} - libraries)
    if strangers:
        where = ", ".join(map(str, paths or (TEXTS,)))
        raise RegistryError(f"{where}: stand-ins are texts of kind library, found {', '.join(strangers)}")
    return MappingProxyType(rows)


@cache
def _load(path: Path) -> Mapping[str, TextRow]:
    try:
        rows = _Document.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).text
    except OSError as error:
        raise RegistryError(f"the registry of texts cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise RegistryError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        faults = [f"  {'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_url=False)]
        raise RegistryError("\n".join([f"{path} has {len(faults)} fault(s)", *faults])) from error
    return MappingProxyType({row.name: row for row in rows})


def find_text(name: str, rows: Mapping[str, TextRow] | None = None) -> TextRow:
    """The row called `name` among `rows` (the general ones); raises KeyError with the known names for no such row.

    >>> find_text("pile").hub.repo
    'NeelNanda/pile-10k'
    """
    rows = load_texts() if rows is None else rows
    if name not in rows:
        close = difflib.get_close_matches(name, rows, n=2, cutoff=0.6)
        hint = f" (nearest: {', '.join(close)})" if close else ""
        raise KeyError(f"no text named {name!r}{hint}: expected one of {', '.join(rows)}")
    return rows[name]
