"""The registry of texts, fixtures/texts.toml: what each text is, and every place it can come from.

Importing this module costs neither torch nor a network: claims are collected with it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from circuit_claims.models.errors import RegistryError, UnsafeFile
from circuit_claims.models.files.safe_files import inside
from circuit_claims.models.registry import Count, Sha256
from circuit_claims.models.rows import load_rows
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
    """The identity of a published text: the digest of its first documents, see `texts.sources.documents_digest`."""

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


TEXT = TypeAdapter(TextRow)


def load_texts(*paths: Path) -> Mapping[str, TextRow]:
    """All rows by name, of the files at `paths` or of the project's own. Raises `RegistryError`, see `load_rows`."""
    rows = load_rows(TEXT, "text", *(paths or (TEXTS,)))
    libraries = {row.name for row in rows.values() if row.kind == "library"}
    if strangers := sorted({name for row in rows.values() for name in row.stand_ins} - libraries):
        raise RegistryError(f"stand-ins are texts of kind library, found {', '.join(strangers)}")
    return rows


def find_text(name: str, rows: Mapping[str, TextRow] | None = None) -> TextRow:
    """The row called `name` among `rows` (the general ones); raises `RegistryError` for one that is not there.

    >>> find_text("pile").stand_ins
    ('python-docs', 'stdlib-source')
    """
    rows = load_texts() if rows is None else rows
    if name not in rows:
        close = difflib.get_close_matches(name, rows, n=2, cutoff=0.6)
        hint = f" (nearest: {', '.join(close)})" if close else ""
        raise RegistryError(f"no text named {name!r}{hint}: expected one of {', '.join(rows)}")
    return rows[name]
