"""The shipped cells of a live run: where they lie, that they are of its weights, and a few measured anew each time."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from circuit_claims.api import CellStore, Measurement, kept
from circuit_claims.heads.head_types import all_heads
from circuit_claims.llc.losses import DivergenceFrom, Loss, NextToken
from circuit_claims.papers.refined_llc.curves.roles import NEXT_TOKEN, REFERENCE, STANDARD, record_command, text_for
from circuit_claims.papers.refined_llc.recording.cells import CellsError, CellTable, load_cells, seconds_each
from circuit_claims.papers.refined_llc.recording.coefficients import Ingredients, SweepPart, measure_cells, rows_digest
from circuit_claims.papers.refined_llc.recording.compare import CellComparison, compare_cells, refuse_differences
from circuit_claims.papers.refined_llc.recording.rows import comparable
from circuit_claims.papers.refined_llc.recording.texts import rows_here
from circuit_claims.papers.refined_llc.runs.training_run import RunNotAvailable
from circuit_claims.toy.checkpoints import RunFolder
from circuit_claims.toy.model import AttentionOnly

if TYPE_CHECKING:
    from circuit_claims.papers.refined_llc.runs.live import LiveRun

HERE = Path(__file__).parent
FOLDER, ONE_LAYER, UNTRAINED = "recorded_cells", "one_layer", "untrained"


def cells_folder(run: LiveRun) -> Path:
    """Where the cells of a run lie: in `recorded_cells` beside the run's folder, under the run's name."""
    return run.run.folder.parent / FOLDER / run.run.folder.name


def open_cells(run: LiveRun) -> CellTable:
    """The recorded cells of a run, checked to be of its weights.

    Raises `RunNotAvailable` where there are none and `CellsError` where they are damaged or of other weights.
    """
    folder = cells_folder(run)
    if not folder.is_dir():
        raise RunNotAvailable(
            run.name,
            "its refined coefficients were not recorded, and measuring them takes hours",
            record_command(run),
        )
    table = load_cells(folder)
    for step in run.steps:
        expected = table.checkpoints.get(str(step))
        if expected is not None and expected != run.run.digest(step):
            raise CellsError(
                f"recorded cells in {folder}\n  expected  cells of checkpoint {step} with sha256 "
                f"{run.run.digest(step)[:16]}...\n  found     {expected[:16]}...: they were measured on other weights\n"
                "  Record them anew: claims record-cells"
            )
    return table


def untrained(run: LiveRun) -> AttentionOnly:
    """The run's own initialisation: its checkpoint of step 0, or one drawn by the seed on its card (else 1)."""
    if 0 in run.steps:
        return run.model(0)
    seed = run.run.card.get("recipe", {}).get("seed", 1)
    return AttentionOnly(run.run.config).initialise(int(seed)).eval()


def model_at(run: LiveRun, checkpoint: str) -> AttentionOnly:
    """The weights that a cell's checkpoint names."""
    return untrained(run) if checkpoint == UNTRAINED else run.model(int(checkpoint))


def losses_of(run: LiveRun) -> dict[str, Loss]:
    """The losses that cells may name: next tokens, and the divergence from the one-layer run beside this one."""
    losses: dict[str, Loss] = {NEXT_TOKEN: NextToken()}
    folder = run.run.folder.parent / ONE_LAYER
    if folder.is_dir():
        one = RunFolder.open(folder)
        losses[REFERENCE] = DivergenceFrom(one.model(one.steps[-1]))
    return losses


def measure_again(
    run: LiveRun,
    table: CellTable,
    generator: np.random.Generator,
    *,
    count: int = 2,
    device: str = "cpu",
    store: CellStore | None = None,
) -> tuple[CellComparison, ...]:
    """Measure `count` randomly chosen cells live, with other random numbers, and compare; `store` may have them.

    Only cells on texts that are here, with the rows of the recording, can be compared: nothing comes back where there
    are none (another Python has other standard texts). Raises `RecordedCellDiffers` naming every cell that differs.
    """
    rows = rows_here(run, table.texts)
    same = comparable(rows, table.texts)
    at_hand = [key for key in sorted(table.cells) if key.text in same and key.loss == NEXT_TOKEN and ":" in key.weights]
    if not at_hand:
        return ()
    picks = generator.permutation(len(at_hand))[:count]
    seed = int(generator.integers(1, 2**31))
    given = Ingredients(
        models=lambda checkpoint: model_at(run, checkpoint),
        texts=rows,
        losses={NEXT_TOKEN: NextToken()},
        settings={name: replace(chosen, seed=seed) for name, chosen in table.settings.items()},
        device=device,
    )
    live = measure_cells([at_hand[pick] for pick in sorted(picks)], given, store)
    found = tuple(compare_cells(table.cells[cell.key], cell, table.settings[cell.key.setting]) for cell in live)
    refuse_differences(found)
    return found


def comparison_seed(run: LiveRun, table: CellTable) -> int:
    """The seed of this machine's comparison with live cells, drawn at random where there was none.

    Once this code has measured some of these cells anew on this store it need not again: other code, other recorded
    cells or another kind of device draw another seed.
    """
    device = run.context.device.partition(":")[0]
    return int(kept(run.context.store, _random_seed, measure_again, table.cells, table.settings, device).facts["seed"])


def _random_seed(*told_apart_by: Any) -> Measurement:
    del told_apart_by
    return Measurement("seed of a comparison", None, facts={"seed": int(np.random.default_rng().integers(2**31))})


def remeasure(run: LiveRun, table: CellTable, tell: Any = None, *, device: str = "cpu") -> CellTable:
    """Every cell whose text is at hand measured live, the others left out; `tell(line)` hears first how long it takes.

    Raises `RecordedCellDiffers` as `measure_again` does, after all were measured.
    """
    rows = rows_here(run, table.texts)
    losses = losses_of(run)
    keys = [key for key in sorted(table.cells) if key.text in rows and key.loss in losses]
    if tell is not None:
        hours = len(keys) * seconds_each(table.cells[key] for key in keys) / 3600
        missing = len(table.cells) - len(keys)
        tell(f"{len(keys):,} cells are measured anew: about {hours:.1f} hours as on the recording's machine")
        words = "recorded cells are on texts that are not here (give them with --texts FOLDER) and are left out"
        if missing:
            tell(f"{missing:,} {words}")
    given = Ingredients(lambda checkpoint: model_at(run, checkpoint), rows, losses, table.settings, device)
    live = {cell.key: cell for cell in measure_cells(keys, given, run.context.store)}
    same = comparable(rows, table.texts)
    # The same seeds on the same rows: what differs beyond Monte Carlo error, differs for another reason.
    refuse_differences(
        [
            compare_cells(table.cells[key], cell, table.settings[key.setting])
            for key, cell in live.items()
            if key.text in same
        ]
    )
    texts = {name: rows_digest(each) for name, each in rows.items()}
    return replace(table, cells=live, texts=texts, recordings=(recording_facts(),))


def recording_facts() -> dict[str, Any]:
    """On what machine, when and at which commit cells are being measured: what the report shows beside them."""
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True)
    return {
        "hardware": f"{_processor()}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": asked.stdout.strip() or "not in a repository",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def plan(run: LiveRun, texts: Sequence[str], losses: Mapping[str, Loss]) -> list[SweepPart]:
    """What is recorded of a run, what claims need most first: a recording that is stopped early has those.

    Every head at the end and before training on the training mixture and on code (their stand-ins where they are not
    given); layer 1 at the end on texts that every machine has, which runs measure again; every head over training on
    the mixture; layer 1 on code and the reference loss at every other checkpoint; the second setting and all weights at
    the end; layer 1 and the reference loss at the checkpoints between; every head at the end on every other text.
    """
    steps = [str(step) for step in run.steps if step > 0]
    heads = all_heads(run.run.config.n_layers, run.run.config.n_heads)
    second = [head for head in heads if head.startswith("1:")]
    mixture, code = text_for("training mixture", texts), text_for("code", texts)
    both, end = list(dict.fromkeys([mixture, code])), steps[-1:]
    often, between = steps[-3::-2], steps[-2::-2]  # the last checkpoint has its place among the first parts
    reference = [mixture] if REFERENCE in losses else []
    return [
        SweepPart([*end, UNTRAINED], heads, both),
        SweepPart(end, second, [name for name in STANDARD if name in texts and name not in both]),
        SweepPart(steps[:-1], heads, [mixture]),
        SweepPart(often, second, [code]),
        SweepPart(end, heads, both, setting="second"),
        SweepPart([*end, *often], heads, reference, loss=REFERENCE),
        SweepPart(end, ["all"], list(texts)),
        SweepPart(between, second, [code]),
        SweepPart(between, heads, reference, loss=REFERENCE),
        SweepPart(end, heads, [name for name in texts if name not in both]),
    ]
