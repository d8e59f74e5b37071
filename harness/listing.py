"""What the command line prints: tables of claims and subjects, the doctor's findings, a sweep's best heads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from harness.atomic import write_text_atomically
from harness.claims import TRUST_WORDS, load_papers
from harness.messages import PHRASES
from harness.models.registry import ModelRow, load_registry
from harness.run import ROOT

CLAIMS = ROOT / "claims"


def claims_table() -> Table:
    """Every claim of every paper: id, sentence, expected value, trust, where it stands."""
    table = Table("id", "claim", "expected", "trust", "where", title="Claims", title_justify="left")
    for paper in load_papers(CLAIMS):
        for claim in paper.claims:
            expected = " > ".join(claim.expected) if isinstance(claim.expected, tuple) else str(claim.expected)
            said = f"{PHRASES[claim.kind]}{expected}"
            table.add_row(claim.id, claim.title, said, TRUST_WORDS[claim.trust], claim.locus)
    return table


def subjects_table() -> Table:
    """Every model of the registry: size, architecture, traits, licence."""
    table = Table("name", "parameters", "architecture", "numbers", "licence", "", title="Models", title_justify="left")
    for name, row in load_registry().items():
        numbers = "whole" if row.traits.multi_digit_numbers else "split into digits"
        marks = ["default"] * row.default + ["in the paper"] * row.in_paper + ["gated"] * row.traits.gated
        table.add_row(name, f"{row.parameters:,}", row.architecture, numbers, row.licence, ", ".join(marks))
    return table


def doctor_lines(models_dir: Path | None) -> Iterator[str]:
    """What this machine has, which models are on disk, and what to type for the others."""
    import psutil

    memory = psutil.virtual_memory()
    yield f"memory   {memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f} GiB"
    yield f"device   {_device()}"
    for name, row in load_registry().items():
        yield f"{name:<28} {_model_state(name, row, models_dir, memory.available)}"
    yield "The claims on what is here run with: pytest claims/"


def _device() -> str:
    from harness.devices import choose_device

    chosen = choose_device("auto")
    return chosen if chosen != "cpu" else "cpu (no accelerator is visible; every present claim runs on a CPU)"


def _model_state(name: str, row: ModelRow, models_dir: Path | None, free: int) -> str:
    from harness.models.errors import ModelNotAvailable
    from harness.models.resolve import resolve

    try:
        model = resolve(name, models_dir=models_dir, offline=True, fetch=False)
    except ModelNotAvailable as error:
        fits = "" if row.memory_bytes < free else f"; needs {row.memory_bytes / 2**30:.1f} GiB to be booted whole"
        return f"not here{fits}. Type: {error.command}"
    return f"here, {model.folder}"


def sweep_table(result: Any, top: int) -> Table:
    """The best heads of a sweep with intervals and copy scores, and the null of the maximum in the caption."""
    found = result.to_json("")
    band = found["null"]["macro_score"]["band"]
    title = f"Best {min(top, len(found['heads']))} of {len(found['heads'])} heads, input path {found['path']}"
    caption = (
        f"Mean over tasks, 90 % interval over tokens. Shuffled successor maps put the best head between "
        f"{band[0]:.3f} and {band[1]:.3f}; p = {found['null']['macro_score']['p_value']:.2g}."
    )
    columns = ("head", "mean over tasks", "interval", "paper's weighting", "copy score")
    table = Table(*columns, title=title, caption=caption)
    for head in found["heads"][:top]:
        low, high = head["interval"]
        cells = [f"{head[name]:.3f}" for name in ("macro_score", "score", "copy_score")]
        table.add_row(f"L{head['layer']}H{head['head']}", cells[0], f"[{low:.3f}, {high:.3f}]", *cells[1:])
    return table


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON, whole or not at all."""
    write_text_atomically(path, json.dumps(data, indent=1, allow_nan=False) + "\n")
