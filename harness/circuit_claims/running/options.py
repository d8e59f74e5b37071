"""What pytest is told of claims: options (`--claims-NAME`, `--NAME` where no other plugin has it), and tests' marks."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from circuit_claims.errors import InputError

SHORT = pytest.StashKey[frozenset[str]]()
GROUP = "claims"
SUBJECT_ARGUMENT = "subject"


def claim_ids(item: Any) -> tuple[str, ...]:
    """The claims that a test is marked with."""
    return tuple(name for mark in item.iter_markers("claim") for name in mark.args)


def home_of(config: pytest.Config) -> Path:
    """The folder a run belongs to: pytest's root where a file makes it one, else where pytest was started.

    Without such a file pytest takes a common ancestor of all it was given, the value of `--subjects` among them.
    """
    root, here = config.rootpath, config.invocation_params.dir
    known = getattr(config, "known_args_namespace", config.option)
    made = config.inipath or getattr(known, "rootdir", None) or (root / "setup.py").exists()
    return root if made or not here.is_relative_to(root) else here


@dataclass(frozen=True)
class ClaimsOption:
    """One option; a `flag` takes no value. `passed_on`: it changes what is measured, so a re-run line repeats it.

    `check(typed, given)` is asked once, before anything is measured, what an option that a paper brings is kept as in
    `run.options[name]`: a function, or "module:function". It raises `InputError` with words for the user; without it
    the text is kept as it was typed. `typed` is how the option is spelled.

    >>> ClaimsOption("rows", "how many rows of the text are read", default="64", passed_on=True).destination
    'claims_rows'
    """

    name: str
    help: str
    default: Any = None
    choices: tuple[str, ...] | None = None
    flag: bool = False
    passed_on: bool = False
    short: bool = True
    check: str | Callable[[str, str], Any] | None = None

    @property
    def plain(self) -> str:
        """Its name in Python: `models_dir`."""
        return self.name.replace("-", "_")

    @property
    def destination(self) -> str:
        """Where pytest keeps its value: `claims_models_dir`, which no other plugin has."""
        return f"claims_{self.plain}"

    def settings(self) -> dict[str, Any]:
        """What argparse is told of it."""
        if self.flag:
            return {"action": "store_true", "dest": self.destination, "default": False}
        choices = {"choices": self.choices} if self.choices else {}
        return {"dest": self.destination, "default": self.default, **choices}


def refuse_missing(option: str, given: str | Path | None, *, file_too: bool = False) -> Path | None:
    """The path an option names, None for none: what the `check` of a `ClaimsOption` for a path returns.

    Raises `InputError` for a folder (with `file_too` also a file) that is not there: it would be passed over.

    >>> refuse_missing("--my-run", ".") == Path(".")
    True
    """
    if given is None or not str(given):
        return None
    path = Path(given)
    if path.is_dir() or (file_too and path.is_file()):
        return path
    found = "a file" if path.exists() else "nothing of that name"
    wanted = "a folder or a file" if file_too else "a folder"
    raise InputError(
        f"{option} {given}\n  expected  {wanted} that is there\n  found     {found}, looked for from {Path.cwd()}\n"
        f"  Type: {option} with the right path, or leave the option out."
    )


OPTIONS = (
    ClaimsOption("dir", "the folder with the papers (default: claims/, or what ships)", passed_on=True, short=False),
    ClaimsOption("subjects", "names, paths, default, paper, runs or all; commas between", "", passed_on=True),
    ClaimsOption("models-dir", "a folder with model files, looked at before the hub", passed_on=True),
    ClaimsOption("texts", "a folder with text files (jsonl, jsonl.zst, parquet), asked first", passed_on=True),
    ClaimsOption("device", "auto, cpu, cuda, cuda:N or mps", "auto", passed_on=True),
    ClaimsOption("profile", "how much is measured", "standard", ("full", "quick", "standard"), passed_on=True),
    ClaimsOption("report", "folder of this run's report (default: reports/<time>)"),
    ClaimsOption("store", "folder of stored measurements (default: the user's cache)", passed_on=True),
    ClaimsOption("remeasure", "measure everything anew, stored or not", flag=True),
    ClaimsOption("offline", "fetch nothing from anywhere", flag=True),
    ClaimsOption("allow-tf32", "let the accelerator round matrix products to tf32", flag=True),
)


def add_options(parser: pytest.Parser, options: Iterable[ClaimsOption] = OPTIONS) -> None:
    """Add each option under its full name, which is this plugin's own."""
    group = parser.getgroup(GROUP, "reproducibility of papers' claims")
    for option in options:
        words = f"{option.help}; also --{option.name}" if option.short else option.help
        group.addoption(f"--claims-{option.name}", help=words, **option.settings())


def add_short_names(parser: pytest.Parser, options: Iterable[ClaimsOption] = OPTIONS) -> frozenset[str]:
    """Add the short names that are still free, and say which; called when every other plugin has added its own."""
    group, added = parser.getgroup(GROUP), set()
    for option in options:
        if not option.short or f"--{option.name}" in _taken(parser):
            continue
        try:
            group.addoption(f"--{option.name}", help=argparse.SUPPRESS, **option.settings())
        except (ValueError, argparse.ArgumentError):
            continue
        added.add(option.plain)
    return frozenset(added)


def _taken(parser: pytest.Parser) -> set[str]:
    groups = [parser._anonymous, *parser._groups]
    return {name for group in groups for option in group.options for name in option.names()}


def chosen(config: pytest.Config, options: Iterable[ClaimsOption] = OPTIONS) -> argparse.Namespace:
    """All options of this session, those of the claims by their plain names; `short` are the short names that work."""
    plain = {option.plain: getattr(config.option, option.destination) for option in options}
    return argparse.Namespace(**{**vars(config.option), **plain, "short": config.stash.get(SHORT, frozenset())})


def options_line(option: Any, options: Iterable[ClaimsOption] = OPTIONS) -> str:
    """The options that change what is measured, as they would be typed again; empty for a plain run."""
    words = []
    for one in options:
        value = getattr(option, one.plain, one.default)
        if one.passed_on and value != one.default:
            words += [spelled(one.plain, option), *([] if one.flag else [shlex.quote(str(value))])]
    return " ".join(words)


def spelled(plain: str, option: Any) -> str:
    """How an option is typed in this session: `--profile`, or `--claims-profile` where another plugin has the first."""
    return f"--{'' if plain in option.short else 'claims-'}{plain.replace('_', '-')}"
