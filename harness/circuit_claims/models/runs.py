"""Subjects that are no model of the registry: rows of the `runs.toml` beside a paper's `paper.toml`. Light."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from circuit_claims.models.errors import RegistryError

Text = Annotated[str, Field(min_length=1)]


class RunRow(BaseModel):
    """One row: a training run, or the authors' recorded numbers.

    `kind` says who opens it (`subject_kinds` of the paper's contribution), `source` where it comes from; `settings`
    are the kind's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    kind: Text
    title: Text
    licence: Text
    source: Text
    settings: dict[str, Any] = {}


def load_runs(*paths: Path) -> dict[str, RunRow]:
    """The rows of these files by name. Raises `RegistryError` for a file that does not say what it must, and where a
    name is given twice."""
    rows: dict[str, RunRow] = {}
    places: dict[str, Path] = {}
    for path in paths:
        try:
            found = [RunRow.model_validate(row) for row in tomllib.loads(path.read_text(encoding="utf-8"))["run"]]
        except (OSError, KeyError, ValidationError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise RegistryError(f"{path} cannot be used\n  expected tables [[run]]\n  found    {error}") from None
        for row in found:
            add_row(rows, places, row.name, row, path)
    return rows


def add_row(rows: dict[str, Any], places: dict[str, Path], name: str, row: Any, path: Path) -> None:
    """Put `row` of the file `path` among `rows`. Raises `RegistryError` that names both files for a doubled name."""
    if name in rows:
        raise RegistryError(
            f"{path}: the name {name} is given twice\n  expected every row to have its own\n"
            f"  found    {name} in {places[name]}\n  and      {name} in {path}"
        )
    rows[name], places[name] = row, path
