"""`claims sweep`: every head of a model scored as a successor head."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from circuit_claims.api import console, write_text_atomically


def sweep(
    model: console.ModelName,
    path: Annotated[str, typer.Option(help="Input path: mlp0, embed+mlp0, block0, residual or embed.")] = "mlp0",
    exclude_self: Annotated[bool, typer.Option(help="Leave the input token itself out of the comparison.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the whole result here.")] = None,
    models_dir: console.ModelsDir = None,
    offline: console.Offline = False,
    top: Annotated[int, typer.Option(min=1, help="How many heads to print.")] = 10,
) -> None:
    """Score every head of a model as a successor head. Ask this of any model: does it have one?"""
    from circuit_claims.models.resolve import resolve
    from circuit_claims.papers.successor_heads.succession.measures import sweep_model

    console.refuse_unwritable(json_file)
    local = resolve(model, models_dir=models_dir, offline=offline)
    with console.err.status(f"scoring every head of {escape(local.name)}"):
        found = sweep_model(local, path=path, exclude_self=exclude_self).to_json(model)
    if json_file is not None:
        write_text_atomically(json_file, json.dumps(found, indent=1, allow_nan=False) + "\n")
    console.out.print(sweep_table(found, top))


def sweep_table(found: Mapping[str, Any], top: int) -> Table:
    """The best heads of a sweep's JSON with intervals and copy scores; the null of the maximum in the caption."""
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
