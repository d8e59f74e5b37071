"""Recorded cells: refined coefficients measured once, in hours, shipped with the project, and compared in every run.

A cell is one estimate: a checkpoint, the sampled weights, a text, a loss and a setting. A file of cells is a table
(`cells.safetensors`: one row a cell, per-chain means and block means of the traces) beside a header (`cells.json`:
digests of weights and texts, settings, machine, date, commit) that carries the table's sha256.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from circuit_claims.api import ClaimsError, write_bytes_atomically, write_text_atomically
from circuit_claims.llc.estimate import LLCEstimate
from circuit_claims.llc.sgld import SGLDSettings

FORMAT = 1
HEADER, TABLE = "cells.json", "cells.safetensors"
BLOCKS = 25
NUMBERS = (
    "mean", "mcse", "ess", "r_hat", "mean_loss", "start_loss", "displacement", "start_norm",
    "control_llc", "control_displacement", "noise_llc", "hessian_trace", "hessian_error", "seconds",
)  # fmt: skip


class CellsError(ClaimsError, ValueError):
    """A file of recorded cells that cannot be used; the text says what to type."""


@dataclass(frozen=True, order=True)
class CellKey:
    """One estimate's place: `checkpoint` is a step or "untrained", `setting` a name such as "paper"."""

    checkpoint: str
    weights: str
    text: str
    loss: str = "next token"
    setting: str = "paper"

    def __str__(self) -> str:
        return f"{self.weights} at {self.checkpoint} on {self.text} ({self.loss}, {self.setting} setting)"


@dataclass(frozen=True)
class Cell:
    """One recorded estimate: the numbers of `NUMBERS`, per-chain means, block means of n_beta times the excess loss.

    `status` is the gate's word; `seed` that of the chains; `origin` an index into the header's list of recordings.
    """

    key: CellKey
    numbers: Mapping[str, float]
    per_chain: Float[np.ndarray, " chain"]
    trace: Float[np.ndarray, "chain block"]
    status: str
    seed: int
    origin: int = 0

    @property
    def mean(self) -> float:
        """The coefficient."""
        return self.numbers["mean"]

    @property
    def error(self) -> float:
        """Its Monte Carlo standard error: the larger of what the draws and what the chains' spread say.

        No burn-in is left out, so draws alone can make the error of a mean over few chains look too small.
        """
        sound = self.per_chain[np.isfinite(self.per_chain)]
        spread = float(sound.std(ddof=1) / math.sqrt(len(sound))) if len(sound) > 1 else math.inf
        own = self.numbers["mcse"]
        return max(own, spread) if math.isfinite(own) else spread


def cell_of(key: CellKey, found: LLCEstimate, noise_llc: float, seed: int) -> Cell:
    """An estimate as a cell; `noise_llc` is that of Gaussian noise with the chains' own displacement."""
    around = found.surroundings
    start = found.traces.start_loss[found.traces.sound]
    given = {
        "mean": found.mean, "mcse": found.mcse, "ess": found.diagnostics.ess_bulk, "r_hat": found.diagnostics.r_hat,
        "mean_loss": found.mean_loss, "start_loss": float(start.mean()) if start.size else math.nan,
        "displacement": found.mean_displacement, "start_norm": around.start_norm,
        "control_llc": around.control_llc, "control_displacement": around.control_displacement,
        "noise_llc": noise_llc, "hessian_trace": _number(around.hessian_trace),
        "hessian_error": _number(around.hessian_error), "seconds": found.cost.seconds,
    }  # fmt: skip
    draws = found.settings.n_beta * (found.traces.loss - found.traces.start_loss)
    trace = np.stack([part.mean(1) for part in np.array_split(draws, min(BLOCKS, draws.shape[1]), axis=1)], 1)
    return Cell(key, given, found.per_chain, trace, found.status, seed)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


@dataclass(frozen=True)
class CellTable:
    """All cells of a run with what they were made from.

    `checkpoints` and `texts` map names to sha256 digests of weights and of token rows, `settings` names to SGLD
    settings, `references` loss names to the digest of the model in them, `recordings` say on what machine, when and
    at which commit cells were measured.
    """

    cells: Mapping[CellKey, Cell]
    checkpoints: Mapping[str, str]
    texts: Mapping[str, str]
    settings: Mapping[str, SGLDSettings]
    references: Mapping[str, str] = field(default_factory=dict)
    recordings: tuple[Mapping[str, Any], ...] = ()

    @cached_property
    def seconds(self) -> float:
        """What measuring all of them took, in seconds of one process."""
        return float(np.nansum([cell.numbers["seconds"] for cell in self.cells.values()]))

    def select(self, **wanted: str) -> dict[CellKey, Cell]:
        """The cells whose key has these values.

        >>> CellTable({}, {}, {}, {}).select(text="code")
        {}
        """
        return {
            key: cell
            for key, cell in self.cells.items()
            if all(getattr(key, name) == value for name, value in wanted.items())
        }

    def merged(self, other: CellTable) -> CellTable:
        """Both tables' cells, the other's first where both have one.

        Raises `CellsError` where they are of different weights or rows under one name.
        """
        for what in ("checkpoints", "texts", "references", "settings"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if clash := [name for name in mine if name in theirs and mine[name] != theirs[name]]:
                raise CellsError(
                    f"recorded cells: two tables disagree on {what} {', '.join(clash)}\n"
                    "  expected  the same weights, rows and settings under one name\n"
                    "  Record anew into an empty folder: claims record-cells --into FOLDER"
                )
        moved = {key: replace(cell, origin=cell.origin + len(self.recordings)) for key, cell in other.cells.items()}
        return CellTable(
            cells={**self.cells, **moved},
            checkpoints={**self.checkpoints, **other.checkpoints},
            texts={**self.texts, **other.texts},
            settings={**self.settings, **other.settings},
            references={**self.references, **other.references},
            recordings=(*self.recordings, *other.recordings),
        )


def save_cells(folder: Path, table: CellTable) -> None:
    """Write the table and its header; the header, written last, makes the pair valid."""
    from safetensors.numpy import save

    cells = [table.cells[key] for key in sorted(table.cells)]
    chains = max((len(cell.per_chain) for cell in cells), default=0)
    arrays: dict[str, np.ndarray] = {
        name: np.array([cell.numbers[name] for cell in cells], dtype=np.float32) for name in NUMBERS
    }
    arrays["per_chain"] = _padded([cell.per_chain for cell in cells], (chains,)).astype(np.float32)
    arrays["trace"] = _padded([cell.trace for cell in cells], (chains, BLOCKS)).astype(np.float16)
    blob = save(arrays)
    body = {
        "checkpoints": dict(table.checkpoints),
        "texts": dict(table.texts),
        "references": dict(table.references),
        "settings": {name: asdict(chosen) for name, chosen in table.settings.items()},
        "recordings": [dict(each) for each in table.recordings],
        "cells": [[*asdict(cell.key).values(), cell.status, cell.seed, cell.origin] for cell in cells],
        "table_sha256": hashlib.sha256(blob).hexdigest(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(folder / TABLE, blob)
    header = {"format": FORMAT, "sha256": _digest(body), "body": body}
    write_text_atomically(folder / HEADER, json.dumps(header, indent=0, allow_nan=False) + "\n")


def _padded(rows: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    table = np.full((len(rows), *shape), np.nan)
    for row, values in zip(table, rows, strict=True):
        row[tuple(slice(size) for size in values.shape)] = values
    return table


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, allow_nan=False).encode()).hexdigest()


def load_cells(folder: Path) -> CellTable:
    """Read and verify a table. Raises `CellsError` where it is missing, damaged, or of another format."""
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        blob = (folder / TABLE).read_bytes()
        body = header["body"]
        sound = header["format"] == FORMAT and header["sha256"] == _digest(body)
        sound = sound and body["table_sha256"] == hashlib.sha256(blob).hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unusable(folder, f"{type(error).__name__}: {error}") from None
    if not sound:
        raise _unusable(folder, "header and table do not match their sha256: one of them was changed or damaged")
    from safetensors.numpy import load

    arrays = load(blob)
    cells = [_row(arrays, index, row) for index, row in enumerate(body["cells"])]
    return CellTable(
        cells={cell.key: cell for cell in cells},
        checkpoints=body["checkpoints"],
        texts=body["texts"],
        settings={name: _settings(values) for name, values in body["settings"].items()},
        references=body["references"],
        recordings=tuple(body["recordings"]),
    )


def _row(arrays: Mapping[str, np.ndarray], index: int, row: Sequence[Any]) -> Cell:
    *place, status, seed, origin = row
    numbers = {name: float(arrays[name][index]) for name in NUMBERS}
    per_chain, trace = arrays["per_chain"][index].astype(float), arrays["trace"][index].astype(float)
    return Cell(CellKey(*place), numbers, per_chain, trace, status, seed, origin)


def _settings(values: Mapping[str, Any]) -> SGLDSettings:
    from circuit_claims.llc.sgld import RMSProp

    rmsprop = values.get("rmsprop")
    return SGLDSettings(**{**values, "rmsprop": None if rmsprop is None else RMSProp(**rmsprop)})


def _unusable(folder: Path, found: str) -> CellsError:
    return CellsError(
        f"recorded cells in {folder}\n  expected  {HEADER} and {TABLE} as written by `claims record-cells`\n"
        f"  found     {found}\n  Restore the folder from the repository, or type: claims record-cells"
    )


def seconds_each(cells: Iterable[Cell]) -> float:
    """Mean seconds a cell took, 0 where there are none."""
    known = [cell.numbers["seconds"] for cell in cells if math.isfinite(cell.numbers["seconds"])]
    return float(np.mean(known)) if known else 0.0
