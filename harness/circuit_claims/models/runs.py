"""Subjects that are no model of the registry: rows of the `runs.toml` beside a paper's `paper.toml`. Light."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from circuit_claims.models.rows import load_rows

NonEmptyText = Annotated[str, Field(min_length=1)]


class RunRow(BaseModel):
    """One row: a training run, or the authors' recorded numbers.

    `kind` says who opens it (`subject_kinds` of the paper's contribution), `source` where it comes from; `settings`
    are the kind's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: NonEmptyText
    kind: NonEmptyText
    title: NonEmptyText
    licence: NonEmptyText
    source: NonEmptyText
    settings: dict[str, Any] = {}


RUN = TypeAdapter(RunRow)


def load_runs(*paths: Path) -> Mapping[str, RunRow]:
    """The rows of these files by name. Raises `RegistryError`, see `load_rows`."""
    return load_rows(RUN, "run", *paths)
