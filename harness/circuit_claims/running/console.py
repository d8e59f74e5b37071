"""What the sub-commands of `claims` share, the papers' among them: two consoles, common arguments, one error."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from circuit_claims.errors import InputError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

ModelName = Annotated[str, typer.Argument(help="A registry name, a GGUF file or a Hugging Face folder.")]
Offline = Annotated[bool, typer.Option("--offline", help="Fetch nothing from anywhere.")]


def _models_dir(path: Path | None) -> Path | None:
    if path is None:
        return None
    from circuit_claims.running.run import refuse_missing

    return refuse_missing("--models-dir", path)


ModelsDir = Annotated[
    Path | None,
    typer.Option("--models-dir", callback=_models_dir, help="A folder with model files, looked at first."),
]
ClaimsDir = Annotated[
    Path | None,
    typer.Option("--claims-dir", help="The folder with the papers (claims/ here, or what ships, unless given)."),
]


def refuse_unwritable(path: Path | None) -> None:
    """Say so before minutes of work are spent on a result that could not be kept. Raises `InputError`."""
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                fine = not path.is_dir()
            if not fine:
                raise IsADirectoryError("it is a folder")
    except OSError as error:
        raise InputError(
            f"cannot write {path}\n  expected a file in a folder that can be written\n  found    {error}\n"
            "  Type the same command with another file."
        ) from None
