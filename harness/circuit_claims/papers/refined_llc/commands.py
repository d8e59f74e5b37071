"""`claims record-cells` and `claims convert-checkpoint`: what ships of this paper's runs, what its authors publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from circuit_claims.api import console, shipped


def record_cells_command(
    folder: Annotated[Path | None, typer.Argument(help="A run's folder; this project's own unless given.")] = None,
    rows: Annotated[list[str] | None, typer.Option(help="NAME=FILE of token rows or documents; repeatable.")] = None,
    texts: Annotated[list[Path] | None, typer.Option(help="A folder of texts or the run's corpus; repeatable.")] = None,
    into: Annotated[Path | None, typer.Option(help="Where the table is written (beside the run unless given).")] = None,
    precision: Annotated[str, typer.Option(help="fp32, or bf16 for the products with the vocabulary.")] = "fp32",
    hours: Annotated[float | None, typer.Option(min=0.0, help="Stop after so long; the same command goes on.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Measure the refined coefficients of a run's heads that ship with it; a killed recording goes on."""
    from circuit_claims.papers.refined_llc.recording.record import parse_rows, record_cells

    context = console.command_context(device)
    found = record_cells(
        folder or shipped("fixtures", "attention_only", "two_layer"), parse_rows(rows or []), context.store, into=into,
        folders=texts or [], device=context.device, precision=precision, hours=hours,
        tell=lambda line: console.err.print(line, markup=False),
        progress=lambda step: console.err.print(
            f"{step.done} of {step.total}: {step.cell}; about {step.seconds_left / 3600:.1f} h left", markup=False
        ),
    )  # fmt: skip
    console.out.print(
        f"{found.cells} cells in {found.folder}, {found.missing} still to measure", markup=False, soft_wrap=True
    )


def convert_checkpoint(
    name: Annotated[str, typer.Argument(help="The published run: L2W256-3m-rr or L2W256-s-3.")],
    files: Annotated[list[Path], typer.Argument(help="The authors' files, named as they name them.")],
) -> None:
    """Turn the authors' .pth checkpoints, which are pickles, into safetensors: tensors only, no code is run."""
    from circuit_claims.papers.refined_llc.runs.published import convert_checkpoints

    with console.err.status("reading tensors, nothing else"):
        written = convert_checkpoints(name, files)
    for path in written:
        console.out.print(f"{name}: {path}", markup=False, soft_wrap=True)
