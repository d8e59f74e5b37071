"""What the words "training mixture" and "code" of a claim stand for, and how a report names the text that was used.

Light: names alone. The rows behind them are cut in `curves_texts`.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from circuit_claims.api import TextUse, shipped

if TYPE_CHECKING:
    from circuit_claims.papers.refined_llc.runs.live import LiveRun

HELD_OUT = "training-mixture"
NEXT_TOKEN, REFERENCE = "next token", "one-layer reference"  # the losses
# On every machine with Python: code, and prose about code.
STANDARD = ("python-docs", "stdlib-source")
STANDS_FOR: Mapping[str, tuple[str, ...]] = {
    "training mixture": ("training-mixture", "pile", "python-docs"),
    "code": ("code", "code-by-language", "stdlib-source"),
}
# What a claim's words mean, the best first: any other text that is here only stands in, and the verdict generalises.
MEANT: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "training mixture": {"own": (HELD_OUT,), "published": (HELD_OUT, "pile")},
    "code": {"own": ("code", "code-by-language"), "published": ("code",)},
}
# What to put into the folder of --texts for it.
TO_GIVE: Mapping[str, Mapping[str, str]] = {
    "training mixture": {"own": "corpus.json and test.npy of its training", "published": "pile.jsonl"},
    "code": {"own": "code_by_language.jsonl", "published": "code_by_language.jsonl"},
}
ROLE_WORDS = {"training mixture": "the run's held-out training mixture", "code": "code from many projects"}


def text_for(role: str, at_hand: Sequence[str]) -> str:
    """The text among those `at_hand` that serves as "training mixture" or "code", the best stand-in first.

    Raises LookupError where none does.

    >>> text_for("code", ["python-docs", "stdlib-source"])
    'stdlib-source'
    """
    for name in STANDS_FOR[role]:
        if name in at_hand:
            return name
    raise LookupError(f"cells on {role}: expected one of {', '.join(STANDS_FOR[role])}, found {', '.join(at_hand)}")


def use_of(run: LiveRun, role: str, names: Collection[str], where: str = "") -> TextUse:
    """How a report names the texts `names` that serve as `role`, and whether they only stand in for what is meant.

    `where` says which Python standard texts are of, "of Python 3.11.9"; this one's unless given.
    """
    stand_in = not set(names) <= set(MEANT[role][run.kind])
    label = words_for(names, where)
    if not stand_in:
        return TextUse(label, stand_in=False)
    give = f"--texts FOLDER with {TO_GIVE[role][run.kind]}"
    return TextUse(f"{label}, standing in for {ROLE_WORDS[role]} (to be given: {give})", stand_in=True)


def both_texts(*uses: TextUse) -> TextUse:
    """Several texts that one claim is measured on, as one; it stands in where one of them does."""
    return TextUse("; ".join(dict.fromkeys(use.label for use in uses)), any(use.stand_in for use in uses))


def words_for(names: Collection[str], where: str = "") -> str:
    """Texts' names in a sentence; `where` says which Python's the standard ones are, this one's unless given."""
    import platform

    from circuit_claims.texts import load_texts

    rows = load_texts()
    named = [ROLE_WORDS["training mixture"]] if HELD_OUT in names else []
    named += [rows[name].title if name in rows else name for name in names if name not in (HELD_OUT, *STANDARD)]
    if standard := " and ".join(name for name in names if name in STANDARD):
        named.append(f"{standard} {where or f'of Python {platform.python_version()}'}")
    return ", ".join(named)


def record_command(run: LiveRun, more: str = "") -> str:
    """What records this run's cells, as it would be typed."""
    folder = run.run.folder
    own = folder.resolve().is_relative_to(shipped("fixtures"))
    return " ".join(filter(None, ["claims record-cells", "" if own else shlex.quote(str(folder)), more]))
