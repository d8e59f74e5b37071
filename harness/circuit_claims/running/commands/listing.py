"""What the command line prints: tables of claims, subjects and texts, and the doctor's findings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from circuit_claims.judging.claims import trust_words
from circuit_claims.judging.messages import PHRASES, expected_value
from circuit_claims.models.registry import ModelRow
from circuit_claims.models.runs import RunRow
from circuit_claims.running.contributions import function_of
from circuit_claims.running.papers import Papers


def claims_table(papers: Papers) -> Table:
    """Every claim of every paper: id, sentence, expected value, trust, where it stands."""
    table = _table("Claims", "id", "claim", "expected", "trust", "where")
    for claim in papers.claims.values():
        said = f"{PHRASES[claim.kind]}{expected_value(claim)}"
        table.add_row(claim.id, claim.title, said, trust_words(claim.trust), claim.locus)
    return table


def subjects_table(papers: Papers) -> Table:
    """Every model of the registry and of the papers: size, architecture, traits, licence."""
    table = _table("Models", "name", "parameters", "architecture", "numbers", "licence", "")
    for name, row in papers.models.items():
        numbers = {True: "whole", False: "digits", None: "?"}[row.traits.multi_digit_numbers]
        marks = ["default"] * row.default + ["in a paper"] * (name in papers.own_subjects)
        marks += ["gated"] * row.traits.gated
        table.add_row(name, f"{row.parameters / 1e6:,.0f}M", row.architecture, numbers, row.licence, ", ".join(marks))
    return table


def runs_table(papers: Papers) -> Table:
    """What claims are asked of beside models, and the scopes under which claims list it."""
    table = _table("Training runs", "name", "what", "counts as", "source")
    for name, run in papers.runs.items():
        scopes = dict.fromkeys(claim.scope_of(name) for claim in papers.claims.values() if name in claim.listed)
        table.add_row(name, run.title, ", ".join(scopes), run.source)
    return table


def texts_table(papers: Papers) -> Table:
    """Every text of the registry and of the papers: where it comes from, what stands in for it, its licence."""
    table = _table("Texts", "name", "what", "from", "stand-ins", "licence")
    for name, row in papers.texts.items():
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


def doctor_lines(papers: Papers, models_dir: Path | None) -> Iterator[str]:
    """What this machine has, which models are on disk, and what to type for the others."""
    import psutil

    memory = psutil.virtual_memory()
    yield f"memory   {memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f} GiB"
    yield f"device   {_device()}"
    for name, row in papers.models.items():
        yield f"{name:<24} {_model_state(name, row, papers, models_dir, memory.available)}"
    for name, run in papers.runs.items():
        yield f"{name:<24} {_run_state(run, papers)}"
    yield f"The claims on what is here run with: pytest {papers.typed}"


def _device() -> str:
    from circuit_claims.running.machine import choose_device

    chosen = choose_device("auto")
    return chosen if chosen != "cpu" else "cpu (no accelerator is visible; every present claim runs on a CPU)"


def _model_state(name: str, row: ModelRow, papers: Papers, models_dir: Path | None, free: int) -> str:
    from circuit_claims.models.resolve import present

    found = present(name, models_dir=models_dir, registry=papers.models)
    if found is not None:
        return f"here, {found}"
    fits = "" if row.memory_bytes < free else f"; needs {row.memory_bytes / 2**30:.1f} GiB to be booted whole"
    return f"not here{fits}. Type: claims fetch {name}"


def _run_state(row: RunRow, papers: Papers) -> str:
    paper, kind = papers.subject_kind(row)
    return str(function_of(paper, kind.state)(row)) if kind.state else row.source
