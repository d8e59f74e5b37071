"""What the sub-commands of `claims` share, the papers' among them: two consoles, common arguments, where results go.

A paper's contribution names its commands, which are functions for typer; `out` is what is asked for, `err` all else.

>>> from circuit_claims.running import console
>>> def heads(model: console.ModelName, offline: console.Offline = False) -> None:
...     console.out.print(f"{model}: 144 heads")
>>> heads("gpt2")
gpt2: 144 heads
"""

from __future__ import annotations

import configparser
import shlex
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from circuit_claims.errors import InputError

if TYPE_CHECKING:
    from circuit_claims.keeping.measure import Context

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

ModelName = Annotated[str, typer.Argument(help="A registry name, a GGUF file or a Hugging Face folder.")]
Offline = Annotated[bool, typer.Option("--offline", help="Fetch nothing from anywhere.")]


def _models_dir(path: Path | None) -> Path | None:
    if path is None:
        return None
    from circuit_claims.running.options import refuse_missing

    return refuse_missing("--models-dir", path)


ModelsDir = Annotated[
    Path | None,
    typer.Option("--models-dir", callback=_models_dir, help="A folder with model files, looked at first."),
]


def claims_dir_of_pytest(given: Path | None = None) -> Path | None:
    """`given`, else the --claims-dir in pytest's `addopts` of the current folder: said once, it holds for both."""
    if given is not None:
        return given
    words = _addopts(Path.cwd())
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--claims-dir" and (equals or words[at + 1 :]):
            given = Path(value if equals else words[at + 1])
    return given


def _addopts(folder: Path) -> list[str]:
    """The words of pytest's `addopts` in a folder; a file that cannot be read has none, and pytest says why."""
    ini, project = folder / "pytest.ini", folder / "pyproject.toml"
    try:
        if ini.is_file():  # comes before a pyproject.toml for pytest too, even where it is empty
            parser = configparser.RawConfigParser()
            parser.read_string(ini.read_text(encoding="utf-8"))
            return shlex.split(parser.get("pytest", "addopts", fallback=""))
        if project.is_file():
            tools = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]
            found = tools["pytest"]["ini_options"]["addopts"]
            return shlex.split(found) if isinstance(found, str) else [str(word) for word in found]
    except (OSError, ValueError, KeyError, TypeError, configparser.Error):
        return []  # pytest itself says what is wrong with the file
    return []


ClaimsDir = Annotated[
    Path | None,
    typer.Option(
        "--claims-dir",
        callback=claims_dir_of_pytest,
        help="The folder with the papers (pytest's addopts here say it, or claims/ here, or what ships, unless given).",
    ),
]


def command_context(device: str = "auto") -> Context:
    """The context of a command: the store that `pytest claims/` keeps measurements in, and the `device` chosen.

    Raises `InputError` for a device that is not here.
    """
    from circuit_claims.keeping.measure import Context
    from circuit_claims.keeping.store import Store
    from circuit_claims.running.machine import choose_device
    from circuit_claims.running.run import default_store

    return Context(Store(default_store()), choose_device(device))


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
