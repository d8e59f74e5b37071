"""What the command line prints: tables of claims and subjects, the doctor's findings, a sweep's best heads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from circuit_claims.judging.claims import SCOPES_OF_RUNS, load_papers, trust_words
from circuit_claims.judging.messages import PHRASES, expected_value
from circuit_claims.keeping.atomic import write_text_atomically
from circuit_claims.models.registry import ModelRow, load_registry
from circuit_claims.papers.refined_llc.runs.registry import RunRow, load_runs, published_folder
from circuit_claims.places import CLAIMS, FIXTURES


def claims_table() -> Table:
    """Every claim of every paper: id, sentence, expected value, trust, where it stands."""
    table = _table("Claims", "id", "claim", "expected", "trust", "where")
    for paper in load_papers(CLAIMS):
        for claim in paper.claims:
            said = f"{PHRASES[claim.kind]}{expected_value(claim)}"
            table.add_row(claim.id, claim.title, said, trust_words(claim.trust), claim.locus)
    return table


def subjects_table() -> Table:
    """Every model of the registry: size, architecture, traits, licence."""
    table = _table("Models", "name", "parameters", "architecture", "numbers", "licence", "")
    for name, row in load_registry().items():
        numbers = "whole" if row.traits.multi_digit_numbers else "digits"
        marks = ["default"] * row.default + ["in the paper"] * row.in_paper + ["gated"] * row.traits.gated
        table.add_row(name, f"{row.parameters / 1e6:,.0f}M", row.architecture, numbers, row.licence, ", ".join(marks))
    return table


def runs_table() -> Table:
    """The training runs that the second paper's claims are asked of."""
    table = _table("Training runs", "name", "what", "counts as", "source")
    for name, run in load_runs().items():
        table.add_row(name, run.title, SCOPES_OF_RUNS.get(name, "reproduction"), run.source)
    return table


def texts_table() -> Table:
    """Every text of the registry: where it comes from, what stands in for it, its licence."""
    from circuit_claims.texts import load_texts

    table = _table("Texts", "name", "what", "from", "stand-ins", "licence")
    for name, row in load_texts().items():
        source = "comes with Python" if row.kind == "library" else "--texts FOLDER"
        source += f", or the hub: {row.hub.repo}" if row.hub else ""
        table.add_row(name, row.title, source, ", ".join(row.stand_ins), row.licence)
    return table


def _table(title: str, first: str, *others: str) -> Table:
    """A table whose first column, which is there to be typed again, is never cut short; the others wrap."""
    table = Table(title=title, title_justify="left")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, overflow="fold")
    return table


def doctor_lines(models_dir: Path | None) -> Iterator[str]:
    """What this machine has, which models are on disk, and what to type for the others."""
    import psutil

    memory = psutil.virtual_memory()
    yield f"memory   {memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f} GiB"
    yield f"device   {_device()}"
    for name, row in load_registry().items():
        yield f"{name:<24} {_model_state(name, row, models_dir, memory.available)}"
    for name, run in load_runs().items():
        yield f"{name:<24} {_run_state(run)}"
    yield "The claims on what is here run with: pytest claims/"


def _device() -> str:
    from circuit_claims.running.devices import choose_device

    chosen = choose_device("auto")
    return chosen if chosen != "cpu" else "cpu (no accelerator is visible; every present claim runs on a CPU)"


def _model_state(name: str, row: ModelRow, models_dir: Path | None, free: int) -> str:
    from circuit_claims.models.resolve import present

    found = present(name, models_dir=models_dir)
    if found is not None:
        return f"here, {found}"
    fits = "" if row.memory_bytes < free else f"; needs {row.memory_bytes / 2**30:.1f} GiB to be booted whole"
    return f"not here{fits}. Type: claims fetch {name}"


def _run_state(row: RunRow) -> str:
    if row.kind == "recorded":
        return f"numbers of {row.source}. Type: pytest claims/refined_llc --recorded DIR"
    if row.kind == "own":
        here = (FIXTURES / row.source).is_dir()
        return "here, shipped with the project" if here else "not here. Type: claims train --help"
    folder = published_folder(row.name)
    return (
        f"here, {folder}" if folder.is_dir() else f"not here. Type: claims convert-checkpoint {row.name} FILE.pth ..."
    )


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


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON, whole or not at all."""
    write_text_atomically(path, json.dumps(data, indent=1, allow_nan=False) + "\n")
