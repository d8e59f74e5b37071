"""The shipped cells of a live run: where they lie, that they are of its weights, and a few measured anew each time."""

from __future__ import annotations

import math
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.attention_only.checkpoints import Run
from harness.attention_only.curves import Ingredients, Part, measure_cells, rows_digest
from harness.attention_only.curves_cells import Cell, CellKey, CellsError, CellTable, load_cells, seconds_each
from harness.attention_only.curves_rows import all_standard_rows, comparable, text_for, tokenizer_of
from harness.attention_only.head_types import all_heads
from harness.attention_only.model import AttentionOnly
from harness.attention_only.subjects import RunNotAvailable
from harness.llc.losses import DivergenceFrom, Loss, NextToken

if TYPE_CHECKING:
    from harness.attention_only.live import LiveRun

FOLDER, ONE_LAYER, UNTRAINED = "recorded_cells", "one_layer", "untrained"
NEXT_TOKEN, REFERENCE = "next token", "one-layer reference"
# Two-sided, each comparison: two of them in a run raise a false alarm once in 5,000 runs.
FALSE_ALARM = 1e-4


class RecordedCellDiffers(AssertionError):
    """A cell measured again lies outside both measurements' Monte Carlo error: engine, weights or text changed."""


@dataclass(frozen=True)
class Comparison:
    """One cell measured again with other random numbers: the recorded value, the live one, how far apart is allowed."""

    key: CellKey
    recorded: float
    live: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is within what Monte Carlo errors allow."""
        return abs(self.recorded - self.live) <= self.allowed


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
            f"claims record-cells {run.run.folder.name}",
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
        one = Run.open(folder)
        losses[REFERENCE] = DivergenceFrom(one.model(one.steps[-1]))
    return losses


def measure_again(
    run: LiveRun, table: CellTable, generator: np.random.Generator, *, count: int = 2, device: str = "cpu"
) -> tuple[Comparison, ...]:
    """Measure `count` randomly chosen cells live, with other random numbers, and compare.

    Only cells on standard texts whose rows here are those of the recording can be compared: nothing comes back where
    there are none (another Python has other texts). Raises `RecordedCellDiffers` naming every cell that differs.
    """
    rows = all_standard_rows(tokenizer_of(run), run.probes.bos)
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
    live = measure_cells([at_hand[pick] for pick in sorted(picks)], given)
    found = tuple(compare(table.cells[cell.key], cell) for cell in live)
    if wrong := [each for each in found if not each.agrees]:
        raise RecordedCellDiffers(_differs(wrong))
    return found


def compare(recorded: Cell, live: Cell, false_alarm: float = FALSE_ALARM) -> Comparison:
    """Two measurements of one cell with independent random numbers.

    Student's t with the chains of both, less two, as degrees of freedom: four chains' spread is itself uncertain.
    """
    from scipy.stats import t

    freedom = int(np.isfinite(recorded.per_chain).sum() + np.isfinite(live.per_chain).sum()) - 2
    half = float(t.ppf(1 - false_alarm / 2, max(freedom, 1))) * math.hypot(recorded.error, live.error)
    return Comparison(recorded.key, recorded.mean, live.mean, half)


def _differs(wrong: Sequence[Comparison]) -> str:
    lines = [
        f"  {each.key}\n    expected  {each.recorded:.4g} as recorded, within {each.allowed:.2g}\n"
        f"    found     {each.live:.4g} live"
        for each in wrong
    ]
    return "\n".join(
        [
            f"{len(wrong)} recorded cell{'s differ' if len(wrong) > 1 else ' differs'} from what is measured here",
            *lines,
            "  The engine, the weights or the text changed since. Measure all anew: pytest claims/refined_llc "
            "--remeasure, and if that stands: claims record-cells",
        ]
    )


def remeasure(run: LiveRun, table: CellTable, tell: Any = None, *, device: str = "cpu") -> CellTable:
    """Every cell whose text is at hand measured live, the others left out; `tell(line)` hears first how long it takes.

    Raises `RecordedCellDiffers` as `measure_again` does, after all were measured.
    """
    rows = all_standard_rows(tokenizer_of(run), run.probes.bos)
    losses = losses_of(run)
    keys = [key for key in sorted(table.cells) if key.text in rows and key.loss in losses]
    if tell is not None:
        hours = len(keys) * seconds_each(table.cells[key] for key in keys) / 3600
        missing = len(table.cells) - len(keys)
        tell(f"{len(keys):,} cells are measured anew: about {hours:.1f} hours as on the recording's machine")
        tell(f"{missing:,} recorded cells are on texts that are not at hand and are left out" if missing else "")
    given = Ingredients(lambda checkpoint: model_at(run, checkpoint), rows, losses, table.settings, device)
    live = {cell.key: cell for cell in measure_cells(keys, given, run.context.store)}
    same = comparable(rows, table.texts)
    compared = [compare(table.cells[key], cell) for key, cell in live.items() if key.text in same]
    # The same seeds on the same rows: what differs beyond Monte Carlo error, differs for another reason.
    if wrong := [each for each in compared if not each.agrees]:
        raise RecordedCellDiffers(_differs(wrong))
    texts = {name: rows_digest(each) for name, each in rows.items()}
    return replace(table, cells=live, texts=texts, recordings=(recording(),))


def recording() -> dict[str, Any]:
    """On what machine, when and at which commit cells are being measured: what the report shows beside them."""
    root = Path(__file__).resolve().parents[2]
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
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


def plan(run: LiveRun, texts: Sequence[str], losses: Mapping[str, Loss]) -> list[Part]:
    """What is recorded of a run, what claims need most first.

    Every head at every checkpoint on the training mixture (its stand-in where it is not given); at the end and before
    training on every text; layer 1 over training on code; the reference loss; the second setting at the end; and the
    data-refined coefficient of all weights at the end.
    """
    steps, heads = (
        [str(step) for step in run.steps if step > 0],
        all_heads(run.run.config.n_layers, run.run.config.n_heads),
    )

    mixture, code = text_for("training mixture", texts), text_for("code", texts)
    ends, second = [steps[-1], UNTRAINED], [head for head in heads if head.startswith("1:")]
    parts = [
        Part(ends, heads, list(dict.fromkeys([mixture, code]))),
        Part([*steps[:-1]], heads, [mixture]),
        Part(steps[-1:], heads, [name for name in texts if name not in (mixture, code)]),
        Part(steps[:-1], second, [code]),
    ]
    if REFERENCE in losses:
        parts.append(Part(steps, heads, [mixture], loss=REFERENCE))
    parts.append(Part(steps[-1:], heads, list(dict.fromkeys([mixture, code])), setting="second"))
    parts.append(Part(steps[-1:], ["all"], list(texts)))
    return parts
