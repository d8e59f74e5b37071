"""Where a paper lies that nobody named: what a search takes for one of ours. Light: every session of pytest asks this.

Others call files `paper.toml` too: one is ours if it has a [paper] or a [[claim]], whatever else is wrong with it.
"""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

FILE = "paper.toml"
# The same two tables in a file that is not TOML further down.
TABLES = re.compile(r"^\s*(\[\s*paper\s*[\].]|\[\[\s*claim\s*\]\])", re.MULTILINE)


def holds_paper(folder: Path) -> bool:
    """Whether the `paper.toml` in `folder` is one of a paper with claims; False where there is none."""
    try:
        text = (folder / FILE).read_bytes().decode(errors="replace")
    except OSError:
        return False
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return TABLES.search(text) is not None
    return isinstance(raw.get("paper"), dict) or isinstance(raw.get("claim"), list)


def folders_with_paper(place: Path) -> tuple[Path, ...]:
    """The folders of papers that a search of `place` finds: itself, or those in it, in the order of their names."""
    if holds_paper(place):
        return (place,)
    return tuple(sorted(path.parent for path in place.glob(f"*/{FILE}") if holds_paper(path.parent)))


def has_paper(path: Path, root: Path) -> bool:
    """Whether a paper lies at `path`, above it as far as `root`, or at most two folders below it."""
    folder = path if path.is_dir() else path.parent
    above = [place for place in (folder, *folder.parents) if place == folder or root in (place, *place.parents)]
    if any(map(holds_paper, above)):
        return True
    below = (file.parent for depth in ("*", "*/*") for file in path.glob(f"{depth}/{FILE}"))
    return path.is_dir() and any(map(holds_paper, below))


def place_of(word: str, here: Path, pyargs: bool) -> tuple[Path, Path | None] | None:
    """Where what pytest was told to run lies, and with `--pyargs` the folder of its top package; None for nowhere.

    Of a package only the top one is looked up, the rest is taken for folders: finding `theirs.tests.test_a` the usual
    way would import `theirs.tests`.
    """
    path = here / word
    if path.exists() or not pyargs:
        return (path, None) if path.exists() else None
    top, *below = word.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations is None:
        file = Path(spec.origin or "")
        return (file, file.parent) if not below and file.is_file() else None
    for place in map(Path, spec.submodule_search_locations):
        at = place.joinpath(*below)
        found = next((one for one in (at, at.with_name(f"{at.name}.py")) if one.exists()), None)
        if found is not None:
            return found, place
    return None
