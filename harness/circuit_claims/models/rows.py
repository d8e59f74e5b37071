"""The one reader of registries (models.toml, texts.toml, runs.toml): tables of rows with a name each, checked strictly.

Importing this module costs neither torch nor a network: claims are collected with it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from circuit_claims.models.errors import RegistryError

SCHEMA = 1


class NamedRow(Protocol):
    """What a row must have: the name it is asked for by."""

    @property
    def name(self) -> str:
        """The row's name, one of a kind over all files of a registry."""
        ...


RegistryRow = TypeVar("RegistryRow", bound=NamedRow)
Stamp = tuple[int, int] | None


def load_rows(rows: TypeAdapter[RegistryRow], table: str, *paths: Path) -> Mapping[str, RegistryRow]:
    """All rows of the `[[table]]`s in the files at `paths`, by name, in the order of the files.

    `rows` says what a row must be. A file that has not changed is not read a second time. Raises `RegistryError`, a
    line for each fault with its file, row and field, what was expected and what was found; for a name that is given
    twice, with both files.

    >>> from circuit_claims.models.registry import MODEL, REGISTRY
    >>> load_rows(MODEL, "model", REGISTRY)["gpt2"].format
    'hf'
    """
    loaded: dict[str, RegistryRow] = {}
    places: dict[str, Path] = {}
    for path in paths:
        for row in cast("tuple[RegistryRow, ...]", _read(path, _stamp(path), table, rows)):
            if row.name in loaded:
                first = "" if places[row.name] == path else f", first in {places[row.name]}"
                raise RegistryError(f"{path}: expected every name once, found twice: {row.name}{first}")
            loaded[row.name], places[row.name] = row, path
    return MappingProxyType(loaded)


def _stamp(path: Path) -> Stamp:
    if not path.exists():
        return None
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


@cache
def _read(path: Path, _stamp: Stamp, table: str, rows: TypeAdapter[Any]) -> tuple[Any, ...]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RegistryError(f"the registry {path.name} cannot be read: {error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RegistryError(f"{path} is not TOML: {error}") from error
    if faults := _faults_of_the_whole(document, table):
        raise RegistryError("\n".join([f"{path} has {len(faults)} fault(s)", *faults]))
    good, faults = [], []
    for number, entry in enumerate(document[table], start=1):
        try:
            good.append(rows.validate_python(entry))
        except ValidationError as error:
            faults += _explain(error, entry, table, number)
    if faults:
        raise RegistryError("\n".join([f"{path} has {len(faults)} fault(s)", *faults]))
    return tuple(good)


def _faults_of_the_whole(document: Mapping[str, Any], table: str) -> list[str]:
    faults = [f"  {key}: expected schema and [[{table}]] alone" for key in document if key not in ("schema", table)]
    if document.get("schema") != SCHEMA:
        faults.append(f"  schema: expected {SCHEMA}, found {document.get('schema')!r}")
    if not isinstance(document.get(table), list) or not document[table]:
        faults.append(f"  {table}: expected at least one table [[{table}]], found none")
    return faults


def _explain(error: ValidationError, entry: Any, table: str, number: int) -> list[str]:
    """One line for each fault: the row it is in, the field, what was expected and what was found."""
    name = entry.get("name", f"number {number}") if isinstance(entry, dict) else f"number {number}"
    lines = []
    for fault in error.errors(include_url=False):
        # For kinds of rows told apart by a field, pydantic puts that field's value in front of the place.
        where = [part for i, part in enumerate(fault["loc"]) if i or not _is_kind(part, entry)]
        place = " / ".join([f"{table} {name}", *map(str, where)])
        found = "" if fault["type"] == "missing" or isinstance(fault["input"], dict) else f" (found {fault['input']!r})"
        lines.append(f"  {place}: {fault['msg'].removeprefix('Value error, ')}{found}")
    return lines


def _is_kind(part: Any, entry: Any) -> bool:
    return isinstance(entry, dict) and part not in entry and part in [v for v in entry.values() if isinstance(v, str)]
