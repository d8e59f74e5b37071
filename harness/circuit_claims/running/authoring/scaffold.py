"""`claims new NAME`: a folder for a paper that is complete as it stands, to be changed line by line."""

from __future__ import annotations

import keyword
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from circuit_claims.errors import ClaimsError, InputError

TEMPLATES = Path(__file__).parent / "templates" / "new_paper"
SUFFIX = ".template"
NAME, PREFIX = "new_paper", "NP-"  # what stands in the templates for the paper's own
PAPER_ID = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class WrittenFolder:
    """The folder that was written, its files, and the lines to type next."""

    folder: Path
    files: tuple[Path, ...]
    next_lines: tuple[str, ...]


def new_paper(name: str, root: Path, into: Path = Path("claims")) -> WrittenFolder:
    """Write `into`/`name` below `root`: a paper.toml, a measure with controls, tests of both, an empty deviations.toml.

    The folder appears whole or not at all. Raises `InputError` for a name that is no identifier or is taken, for a
    folder that is there already, and for one outside `root`.
    """
    _refuse_name(name)
    parent = (root / into).resolve()
    if not parent.is_relative_to(root.resolve()):
        raise InputError(
            f"--into {into}\n  expected  a folder below {root}\n  found     {parent}\n"
            "  Go to the folder that should hold it, and type the line again there."
        )
    folder = parent / name
    _refuse_place(folder, into)
    taken_names, taken_ids = _taken(root, parent)
    if name in taken_names:
        raise InputError(
            f"claims new {name}\n  expected  a name that no paper of this run has\n"
            f"  found     one of {', '.join(sorted(taken_names))}\n  Type: claims new ANOTHER_NAME"
        )
    prefix = id_prefix(name, taken_ids)
    files = _write(folder, {NAME: name, PREFIX: f"{prefix}-"})
    shown = os.path.relpath(folder, root)
    return WrittenFolder(folder, tuple(folder / file for file in files), (f"pytest {shown}", f"claims check {shown}"))


def id_prefix(name: str, taken: Collection[str] = ()) -> str:
    """Two to six capitals for the ids of a paper's claims, none of those that begin the ids `taken`.

    >>> id_prefix("induction_trial"), id_prefix("induction_trial", ["IT-01"]), id_prefix("olsson2022")
    ('IT', 'IND', 'OLS')
    """
    used = {one.partition("-")[0] for one in taken}
    free = (candidate for candidate in _prefixes(name) if candidate not in used)
    found = next(free, "")
    if not found:
        raise InputError(f"claims new {name}\n  expected  a free prefix for its ids\n  found     all of them taken")
    return found


def _prefixes(name: str) -> Iterator[str]:
    words = [letters for word in name.split("_") if (letters := re.sub("[^a-z]", "", word).upper())]
    initials, joined = "".join(word[0] for word in words), f"{''.join(words)}XX"
    if len(words) > 1:
        yield initials[:6]
    yield from (joined[:length] for length in range(3, 7))
    yield from (f"{joined[:2]}{chr(letter)}" for letter in range(ord("A"), ord("Z") + 1))


def _refuse_name(name: str) -> None:
    if PAPER_ID.fullmatch(name) and not keyword.iskeyword(name):
        return
    plain = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_").lstrip("0123456789_")
    better = plain if plain and not keyword.iskeyword(plain) else "my_paper"
    raise InputError(
        f"claims new {name}\n  expected  lower-case letters, digits and _, a letter first, no word of Python\n"
        f"  found     {name!r}\n  Type: claims new {better}"
    )


def _refuse_place(folder: Path, into: Path) -> None:
    if folder.exists() or folder.is_symlink():
        raise InputError(
            f"{folder} is there already\n  expected  a folder that is not there, so that nothing is overwritten\n"
            f"  Type: claims check {into / folder.name}, or claims new with another name."
        )
    holding = next((place for place in folder.parents if (place / "paper.toml").is_file()), None)
    if holding is not None:
        raise InputError(
            f"--into {into}\n  expected  a folder that holds papers\n  found     {holding}, which is a paper itself\n"
            "  Type: claims new with --into the folder above it."
        )


def _taken(root: Path, parent: Path) -> tuple[set[str], set[str]]:
    """Names of papers and ids of claims that the new one will be run beside, as far as these can be read."""
    from circuit_claims.judging.claims import Paper, load_paper, paper_folders
    from circuit_claims.running.papers import find_papers, shipped_papers

    papers: list[Paper] = []
    for folder in paper_folders(parent):
        with suppress(ClaimsError):
            papers.append(load_paper(folder / "paper.toml"))
    for read in (lambda: find_papers(root), shipped_papers):
        with suppress(ClaimsError):
            papers += read().papers
    return {paper.id for paper in papers}, {claim.id for paper in papers for claim in paper.claims}


def _write(folder: Path, words: dict[str, str]) -> list[str]:
    """The templates with `words` put in, written beside the folder first; returns the names of the files."""
    texts = {path.name.removesuffix(SUFFIX): path.read_text("utf-8") for path in sorted(TEMPLATES.glob(f"*{SUFFIX}"))}
    started = folder.with_name(f".{folder.name}.{os.getpid()}")
    started.mkdir(parents=True)
    try:
        for name, text in texts.items():
            for old, new in words.items():
                text = text.replace(old, new)
            (started / name).write_text(text, "utf-8")
        started.rename(folder)
    except BaseException:
        shutil.rmtree(started, ignore_errors=True)
        raise
    return list(texts)
