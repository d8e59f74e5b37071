"""Behaviours of many cases at once, for any dealing out of target tokens to cases: what shuffles are labelled by.

Whether a target stands in a relation to an attended token hangs on the token's string, on whether it stands alone and
on the initials that begin there. Each pair of strings is looked at once; a shuffle then only looks labels up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from circuit_claims.papers.successor_heads.natural_text.behaviours import (
    BEHAVIOURS,
    LONGEST_ACRONYM,
    OTHER,
    Line,
    bare,
    is_greater,
    is_successor,
    places,
    stands_alone,
)

if TYPE_CHECKING:
    # Costs what collecting the claims should not.
    from jaxtyping import Bool, Int

SUCCESSOR, ACRONYM, GREATER, COPY = (BEHAVIOURS.index(name) for name in BEHAVIOURS[:OTHER])
PairPlaces = Sequence[tuple[Line, Sequence[int]]]


@dataclass(frozen=True)
class Pairing:
    """The tokens that each case looks at, and how every target stands to them.

    `token` numbers the strings looked at, the most attended first, -1 for none; `relation` and `acronym` are looked up
    by that number (by that of the initials that begin there) and by the number of a target.
    """

    token: Int[np.ndarray, "case top"]
    alone: Bool[np.ndarray, "case top"]
    initials: Int[np.ndarray, "case top"]
    relation: Int[np.ndarray, "token target"]
    acronym: Bool[np.ndarray, "initials target"]

    def labels(self, targets: Int[np.ndarray, " case"], top: int) -> Int[np.ndarray, " case"]:
        """The behaviour of each case, as an index into `BEHAVIOURS`, by the number of its target.

        The first `top` of the tokens looked at count, as in `behaviours.behaviour_of`.
        """
        token, alone, initials = (part[:, :top] for part in (self.token, self.alone, self.initials))
        found = self.relation[token, targets[:, None]]
        found = np.where((found == SUCCESSOR) & ~alone, OTHER, found)
        weak = (found == OTHER) | (found == GREATER)
        found = np.where(weak & self.acronym[initials, targets[:, None]], ACRONYM, found)
        found = np.where(token < 0, OTHER, found)
        first = (found != OTHER).argmax(1)
        return found[np.arange(len(found)), first].astype(np.int8)


def pair(looked_at: PairPlaces, targets: Sequence[str], top: int) -> Pairing:
    """The pairing of cases with `targets`: each case a line and its attended positions, the most attended first.

    Position 0 and -1 are passed over, and no more than `top` of the others are kept.
    """
    strings: dict[str, int] = {}
    beginnings: dict[str, int] = {"": 0}
    shape = (len(looked_at), top)
    token, alone = np.full(shape, -1), np.zeros(shape, dtype=bool)
    initials = np.zeros(shape, dtype=np.int64)
    known: dict[tuple[int, int], tuple[int, bool, int]] = {}
    for row, (line, attended) in enumerate(looked_at):
        kept = [position for position in attended if position > 0][:top]
        for column, position in enumerate(kept):
            key = (id(line), position)
            if key not in known:
                begins = beginnings.setdefault(line.initials(position), len(beginnings))
                number = strings.setdefault(line.tokens[position], len(strings))
                known[key] = (number, stands_alone(line.tokens, position), begins)
            token[row, column], alone[row, column], initials[row, column] = known[key]
    return Pairing(token, alone, initials, _relations(strings, targets), _acronyms(beginnings, targets))


def _relations(strings: Iterable[str], targets: Sequence[str]) -> np.ndarray:
    """Successor, copy, greater or other of every string and target; which of them holds does not hang on the place."""
    tokens = list(strings)
    found = np.full((max(1, len(tokens)), len(targets)), OTHER, dtype=np.int8)
    same: dict[tuple[str, str], list[int]] = {}
    for column, target in enumerate(targets):
        same.setdefault(_copied(target), []).append(column)
    listed = [column for column, target in enumerate(targets) if places(target)]
    for row, token in enumerate(tokens):
        if places(token):
            for column in listed:
                if is_successor(token, targets[column]):
                    found[row, column] = SUCCESSOR
                elif is_greater(token, targets[column]):
                    found[row, column] = GREATER
        columns = same.get(_copied(token), [])
        found[row, columns] = np.where(found[row, columns] == SUCCESSOR, SUCCESSOR, COPY)
    return found


def _copied(token: str) -> tuple[str, str]:
    """What tokens have in common that are copies of each other."""
    text = bare(token)
    return ("text", text.casefold()) if text else ("space", token)


def _acronyms(beginnings: Iterable[str], targets: Sequence[str]) -> np.ndarray:
    capitals = [bare(target) for target in targets]
    able = [
        column
        for column, text in enumerate(capitals)
        if text.isascii() and text.isalpha() and text.isupper() and len(text) <= LONGEST_ACRONYM
    ]
    initials = list(beginnings)
    found = np.zeros((len(initials), len(targets)), dtype=bool)
    for row, text in enumerate(initials):
        if text:
            found[row, able] = [text.startswith(capitals[column]) for column in able]
    return found
