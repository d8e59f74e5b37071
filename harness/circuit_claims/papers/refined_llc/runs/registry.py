"""The runs that claims can be asked of, by name: what they are, where they lie, and how each is opened.

Light: torch and the recorded numbers are read when a run is opened, not when claims are collected.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from circuit_claims.models.cache import default_cache
from circuit_claims.models.rows import load_rows
from circuit_claims.places import FIXTURES

if TYPE_CHECKING:
    from circuit_claims.papers.refined_llc.runs.training_run import TrainingRun
    from circuit_claims.running.run import Run

Text = Annotated[str, Field(min_length=1)]


class RunRow(BaseModel):
    """One run of fixtures/runs.toml. `source` is a repository, or for this project's own run a folder of fixtures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    kind: Literal["recorded", "own", "published"]
    title: Text
    licence: Text
    source: Text

    @property
    def in_paper(self) -> bool:
        """Whether this is the paper's own model: `--subjects paper` asks those."""
        return self.kind == "published"


RUN = TypeAdapter(RunRow)


def load_runs(*paths: Path) -> Mapping[str, RunRow]:
    """The runs by name, of the files at `paths` or of the project's own. Raises `RegistryError`, see `load_rows`."""
    return load_rows(RUN, "run", *(paths or (FIXTURES / "runs.toml",)))


def published_folder(name: str, cache_dir: Path | None = None) -> Path:
    """Where converted checkpoints of a published run are kept."""
    return (cache_dir or default_cache()) / "runs" / name


def open_run(name: str, run: Run) -> TrainingRun:
    """The run called `name` for the claims of one session.

    Raises `RunNotAvailable` where it is not here, with the reason and what to type, and `RunError` or
    `RecordedDataError` where what is here is damaged.
    """
    row = load_runs()[name]
    if row.kind == "recorded":
        from circuit_claims.papers.refined_llc.runs.recorded import open_recorded

        return open_recorded(run.recorded, run.context)
    return _open_live(row, run)


def _open_live(row: RunRow, run: Run) -> TrainingRun:
    from circuit_claims.papers.refined_llc.runs.training_run import RunNotAvailable
    from circuit_claims.toy.checkpoints import CARD

    own = run.own_run or FIXTURES / row.source
    folder = own if row.kind == "own" else published_folder(row.name)
    if row.kind == "own" and not (folder / CARD).is_file():
        reason = f"no training run of this project's own in {folder.name}"
        raise RunNotAvailable(row.name, reason, "claims train --help, then pytest claims/refined_llc --own-run DIR")
    if not folder.is_dir():
        reason = f"the authors publish these checkpoints as pickles (hub: {row.source}), which are not opened unasked"
        raise RunNotAvailable(row.name, reason, f"claims convert-checkpoint {row.name} FILE.pth ...")
    from circuit_claims.papers.refined_llc.runs.live import open_live

    return open_live(row, folder, run.context, run.texts_dir)
