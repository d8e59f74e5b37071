"""The runs this paper's claims are asked of: where each lies, how it is opened, and the options that say otherwise.

Light: torch and the recorded numbers are read when a run is opened, not when claims are collected.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from circuit_claims.api import InputError, refuse_missing, shipped
from circuit_claims.models.cache import default_cache
from circuit_claims.models.runs import RunRow, load_runs
from circuit_claims.papers.refined_llc.runs.how_to_give import GIVE_OWN, GIVE_RECORDED

if TYPE_CHECKING:
    from circuit_claims.api import Run
    from circuit_claims.papers.refined_llc.runs.training_run import RunKind, TrainingRun


def published_runs() -> tuple[str, ...]:
    """The names of the authors' published runs."""
    rows = load_runs(shipped("claims", "refined_llc", "runs.toml"))
    return tuple(row.name for row in rows.values() if row.kind == "published")


def published_folder(name: str, cache_dir: Path | None = None) -> Path:
    """Where converted checkpoints of a published run are kept."""
    return (cache_dir or default_cache()) / "runs" / name


def recorded_numbers(option: str, given: str) -> Path:
    """Where `--claims-recorded` points; `InputError` for what is not the authors' file: no test could use it."""
    from circuit_claims.papers.refined_llc.runs.recorded import RecordedData, RecordedDataError, find_recorded

    place = refuse_missing(option, given, file_too=True)
    try:
        _ = RecordedData(find_recorded(place)).labels
    except RecordedDataError as error:
        raise InputError(f"{option} {given}: {error}") from None
    assert place is not None
    return place


def own_folder(option: str, given: str) -> Path | None:
    """Where `--claims-own-run` points; `InputError` for a folder that is not there."""
    return refuse_missing(option, given)


def open_recorded(row: RunRow, run: Run) -> TrainingRun:
    """The authors' recorded numbers. Raises `RunNotAvailable` or `RecordedDataError`."""
    from circuit_claims.papers.refined_llc.runs import recorded

    del row
    return recorded.run_of_file(run.options.get("recorded"), run.context)


def open_own(row: RunRow, run: Run) -> TrainingRun:
    """This project's training run, or the one in its place. Raises `RunNotAvailable`, or `RunError` if damaged."""
    from circuit_claims.papers.refined_llc.runs.training_run import RunNotAvailable
    from circuit_claims.toy.checkpoints import CARD

    folder = run.options.get("own-run") or shipped("fixtures", row.source)
    if not (folder / CARD).is_file() or not _has_checkpoints(folder):
        raise RunNotAvailable(row.name, f"no checkpoints in {folder.name}: they come with the repository", GIVE_OWN)
    return _open_live(row, "own", folder, run)


def open_published(row: RunRow, run: Run) -> TrainingRun:
    """The authors' checkpoints, once they are converted. Raises `RunNotAvailable`, or `RunError` if damaged."""
    from circuit_claims.papers.refined_llc.runs.training_run import RunNotAvailable

    folder = published_folder(row.name)
    if not folder.is_dir():
        reason = f"the authors publish these checkpoints as pickles (hub: {row.source}), which are not opened unasked"
        raise RunNotAvailable(row.name, reason, f"claims convert-checkpoint {row.name} FILE.pth ...")
    return _open_live(row, "published", folder, run)


def _open_live(row: RunRow, kind: RunKind, folder: Path, run: Run) -> TrainingRun:
    from circuit_claims.papers.refined_llc.runs.live import open_live

    return open_live(row, kind, folder, run.context, run.texts_dir)


def recorded_state(row: RunRow) -> str:
    """For `claims doctor`: whose numbers, and how to give them."""
    return f"numbers of {row.source}. Type: {GIVE_RECORDED}"


def own_state(row: RunRow) -> str:
    """For `claims doctor`: whether the project's own run is here."""
    if _has_checkpoints(shipped("fixtures", row.source)):
        return "here, shipped with the project"
    return f"not here: its checkpoints come with the project's repository. Type: {GIVE_OWN}"


def _has_checkpoints(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def published_state(row: RunRow) -> str:
    """For `claims doctor`: whether the authors' checkpoints were converted."""
    folder = published_folder(row.name)
    return (
        f"here, {folder}" if folder.is_dir() else f"not here. Type: claims convert-checkpoint {row.name} FILE.pth ..."
    )
