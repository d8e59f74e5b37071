"""What `claims record-cells` does: measure every cell of a run, resumably, and write the table that ships with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from circuit_claims.api import CellStore, Context, MemoryStore, Progress
from circuit_claims.llc.losses import NextToken
from circuit_claims.llc.sgld import SGLDSettings
from circuit_claims.llc.slices import digest
from circuit_claims.papers.refined_llc.curves.roles import NEXT_TOKEN, REFERENCE, text_for
from circuit_claims.papers.refined_llc.recording.cells import (
    Cell,
    CellKey,
    CellsError,
    CellTable,
    load_cells,
    save_cells,
)
from circuit_claims.papers.refined_llc.recording.coefficients import (
    PAPER,
    Ingredients,
    measure_cells,
    rows_digest,
)
from circuit_claims.papers.refined_llc.recording.recorded import (
    ONE_LAYER,
    UNTRAINED,
    cells_folder,
    losses_of,
    model_at,
    plan,
    recording_facts,
)
from circuit_claims.papers.refined_llc.recording.rows import given_rows, tokenizer_of
from circuit_claims.papers.refined_llc.recording.texts import rows_here
from circuit_claims.papers.refined_llc.runs.live import BOS, LiveRun
from circuit_claims.toy.checkpoints import RunFolder

SAVED_EVERY = 600.0
# The paper's own setting is not among them: what is reported beside it is to be another one.
GRID = tuple(product((50.0, 100.0, 400.0), (3e-4, 1e-3, 3e-3)))
TRIED_ON = "0:0"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
GUESS = 45.0  # seconds a cell before one was measured: on one core some 75 in layer 0, some 20 in layer 1


@dataclass(frozen=True)
class Recorded:
    """What came of recording: the table's folder, its cells, how many of the plan are still missing."""

    folder: Path
    cells: int
    missing: int


def record_cells(
    folder: Path,
    given: Mapping[str, Path],
    store: CellStore,
    *,
    folders: Sequence[Path] = (),
    into: Path | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    hours: float | None = None,
    tell: Callable[[str], None] = lambda line: None,
    progress: Callable[[Progress], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Recorded:
    """Measure the cells of the run in `folder`, most needed first, and write them to `into` (beside the run).

    `given` maps names of texts ("training-mixture", "code", ...) to files of token rows or documents. Beside them stand
    the texts of the registry and the run's held-out rows as far as they lie in `folders`, and the standard texts.
    Finished cells are kept in `store`, those of the table stay: an interrupted recording goes on. After `hours` it
    stops with what it has. With `precision` "bf16" a head's products with the vocabulary are rounded, and what that
    does to one cell is recorded. Raises `RunError` or `CellsError` for what does not fit.
    """
    readout = _readout(precision)
    run = LiveRun(RunFolder.open(folder), Context(MemoryStore()), folder.name, "own", texts_dirs=tuple(folders))
    texts = {**rows_here(run), **{name: given_rows(path, tokenizer_of(run), BOS) for name, path in given.items()}}
    losses, target = losses_of(run), into or cells_folder(run)
    before = load_cells(target) if target.is_dir() else None
    settings = _settings(run, texts, before, store, device, tell)
    parts = plan(run, list(texts), losses)
    missing = _missing([key for part in parts for key in part.cells() if key.setting in settings], before, tell)
    ingredients = Ingredients(lambda step: model_at(run, step), texts, losses, settings, device, readout=readout)
    made = {**recording_facts(), **rounding(missing, ingredients, store)}
    fresh, cells, saved = _fresh_table(run, texts, losses, settings, made), dict[CellKey, Cell](), clock()
    for cell in _within(hours, measure_cells(missing, ingredients, store, progress), clock):
        cells[cell.key] = cell
        if clock() - saved > SAVED_EVERY:
            saved = clock()
            save_cells(target, _joined(before, replace(fresh, cells=cells)))
    save_cells(target, table := _joined(before, replace(fresh, cells=cells)))
    return Recorded(target, len(table.cells), len(missing) - len(cells))


def _readout(precision: str) -> torch.dtype:
    if precision not in PRECISIONS:
        raise CellsError(f"--precision {precision}: expected {' or '.join(PRECISIONS)}\n  Type: --precision bf16")
    return PRECISIONS[precision]


def _missing(wanted: Sequence[CellKey], before: CellTable | None, tell: Callable[[str], None]) -> list[CellKey]:
    missing = [key for key in dict.fromkeys(wanted) if before is None or key not in before.cells]
    tell(f"{len(missing):,} of {len(wanted):,} cells to measure, about {_hours(missing, before):.1f} hours on one core")
    return missing


def _within(hours: float | None, cells: Iterator[Cell], clock: Callable[[], float]) -> Iterator[Cell]:
    """The cells that come until `hours` are over, and the one that is being measured then."""
    began = clock()
    for cell in cells:
        yield cell
        if hours is not None and clock() - began > 3600 * hours:
            return


def rounding(keys: Sequence[CellKey], given: Ingredients, store: CellStore | None) -> dict[str, str]:
    """What the dtype of the readout does to the first head among `keys`, its random numbers the same: in words."""
    first = next((key for key in keys if ":" in key.weights), None)
    if given.readout == torch.float32 or first is None:
        return {}
    rounded, exact = (
        next(measure_cells([first], replace(given, readout=dtype), store)) for dtype in (given.readout, torch.float32)
    )
    kind = str(given.readout).removeprefix("torch.")
    told = f"{first}: {rounded.mean:.4g}, in float32 {exact.mean:.4g}, Monte Carlo error {exact.error:.2g}"
    return {"readout": kind, "what rounding does": told}


def _hours(keys: Sequence[CellKey], before: CellTable | None) -> float:
    known = before.seconds / len(before.cells) if before is not None and before.cells else GUESS
    return sum(known * (12 if key.weights == "all" else 1) for key in keys) / 3600


def _joined(before: CellTable | None, fresh: CellTable) -> CellTable:
    """Everything, cells of checkpoints and texts that are no longer the run's left out by raising."""
    return fresh if before is None else before.merged(fresh)


def _fresh_table(
    run: LiveRun,
    texts: Mapping[str, Int[Tensor, "row pos"]],
    losses: Mapping[str, Any],
    settings: Mapping[str, Any],
    made: Mapping[str, Any],
) -> CellTable:
    checkpoints = {str(step): run.run.digest(step) for step in run.steps} | {
        UNTRAINED: digest(model_at(run, UNTRAINED))
    }
    references = {REFERENCE: digest(losses[REFERENCE].reference)} if REFERENCE in losses else {}
    digests = {name: rows_digest(rows) for name, rows in texts.items()}
    return CellTable({}, checkpoints, digests, dict(settings), references, (made,))


def _settings(
    run: LiveRun,
    texts: Mapping[str, Int[Tensor, "row pos"]],
    before: CellTable | None,
    store: CellStore,
    device: str,
    tell: Callable[[str], None],
) -> dict[str, SGLDSettings]:
    """The paper's setting and a second: the table's own, or chosen on the one-layer run, which no claim measures."""
    if before is not None and "second" in before.settings:
        return {"paper": PAPER, "second": before.settings["second"]}
    folder = run.run.folder.parent / ONE_LAYER
    if not folder.is_dir():
        tell(f"no one-layer run beside {run.run.folder.name}: the second setting and the reference loss are left out")
        return {"paper": PAPER}
    rows = texts[text_for("training mixture", list(texts))]
    second = choose_second(RunFolder.open(folder), rows, store, device, tell)
    return {"paper": PAPER} | ({"second": second} if second else {})


def choose_second(
    one_layer: RunFolder,
    rows: Int[Tensor, "row pos"],
    store: CellStore | None,
    device: str,
    tell: Callable[[str], None],
) -> SGLDSettings | None:
    """Among `GRID` (gamma, eps) the setting that passes the gate with the most independent draws.

    Tried on head `TRIED_ON` of the one-layer run's last checkpoint. None where no setting passes.
    """
    tried = {f"{gamma:g}/{eps:g}": replace(PAPER, gamma=gamma, eps=eps) for gamma, eps in GRID}
    given = Ingredients(
        models=lambda checkpoint: one_layer.model(int(checkpoint)),
        texts={"rows": rows},
        losses={NEXT_TOKEN: NextToken()},
        settings=tried,
        device=device,
    )
    keys = [CellKey(str(one_layer.steps[-1]), TRIED_ON, "rows", NEXT_TOKEN, name) for name in tried]
    passed = {}
    for cell in measure_cells(keys, given, store):
        chosen = tried[cell.key.setting]
        tell(f"gamma {chosen.gamma:g}, eps {chosen.eps:g}: {cell.status}, ESS {cell.numbers['ess']:.0f}")
        if cell.status == "complete":
            passed[cell.key.setting] = cell.numbers["ess"]
    return tried[max(passed, key=lambda name: passed[name])] if passed else None


def parse_rows(items: Sequence[str]) -> dict[str, Path]:
    """NAME=FILE pairs. Raises `CellsError` for anything else.

    >>> parse_rows(["code=rows.npy"])["code"].name
    'rows.npy'
    """
    found = {}
    for item in items:
        name, equals, path = item.partition("=")
        if not (name and equals and path):
            raise CellsError(f"--rows {item!r}: expected NAME=FILE, such as training-mixture=test.npy")
        found[name] = Path(path)
    return found
