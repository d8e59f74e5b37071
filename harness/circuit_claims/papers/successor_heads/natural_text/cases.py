"""Cases that involve succession by the text alone, and cases to hold them against; no head has a say in either.

A case is *succession* if its correct token follows, in an ordered list, an earlier token that stood in the same slot:
behind the same token ("\\n1. ... \\n2."), or directly before, with at most a separator between ("Monday, Tuesday").
A case is *matched* to these if its correct token is in an ordered list of the same kind, and nothing before it in the
context is what it follows. Kinds are compared one by one, in the proportions the succession cases have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from circuit_claims.papers.successor_heads.natural_text.behaviours import (
    BEHAVIOURS,
    Line,
    bare,
    is_successor,
    places,
    stands_alone,
)

if TYPE_CHECKING:
    # Costs what collecting the claims should not.
    from jaxtyping import Bool

SEPARATORS = frozenset({",", "-", "–", "—", "/", "|", ";", ":", "and", "or", "to", "through"})
NEITHER = -1


@dataclass(frozen=True)
class Examples:
    """For each case of one context: the kind of its correct token, or `NEITHER`, and whether it is succession.

    `kind[t]` is the number of an ordered list; a case that is neither succession nor free of its predecessor has
    `NEITHER`, as have cases whose correct token is in no list.
    `predecessor[t]` is the position of the token that the correct one follows, -1 where there is none in its slot.
    `follows[t]`: the correct token follows one that stands anywhere before it.
    """

    kind: np.ndarray
    succession: np.ndarray
    predecessor: np.ndarray
    follows: np.ndarray


def kinds_of(token: str) -> tuple[str, ...]:
    """The ordered lists a token is in, small and capital letters apart."""
    return tuple(dict.fromkeys(place.order for place in places(token)))


def find_examples(tokens: Sequence[str], kinds: dict[str, int]) -> Examples:
    """Succession and matched cases among the prefixes of one context of token strings.

    `kinds` numbers the ordered lists and grows as new ones are met; share it among contexts.
    """
    cases = len(tokens) - 1
    kind, predecessor, follows = np.full(cases, NEITHER), np.full(cases, -1), np.zeros(cases, dtype=bool)
    by_order: dict[str, list[int]] = {}
    for case in range(cases):
        # Positions are entered as the cases reach them: a case sees its own prefix only.
        for order in kinds_of(tokens[case]) if stands_alone(tokens, case) else ():
            by_order.setdefault(order, []).append(case)
        target = tokens[case + 1]
        orders = kinds_of(target)
        if not orders:
            continue
        earlier = sorted({place for order in orders for place in by_order.get(order, ())})
        before = [place for place in earlier if is_successor(tokens[place], target)]
        follows[case] = bool(before)
        in_slot = [place for place in before if _same_slot(tokens, place, case)]
        if in_slot:
            predecessor[case] = in_slot[-1]
            kind[case] = kinds.setdefault(_shared(tokens[in_slot[-1]], orders), len(kinds))
        elif not before:
            kind[case] = kinds.setdefault(orders[0], len(kinds))
    return Examples(kind, predecessor >= 0, predecessor, follows)


def _shared(token: str, orders: tuple[str, ...]) -> str:
    return next(order for order in orders if order in kinds_of(token))


def _same_slot(tokens: Sequence[str], place: int, case: int) -> bool:
    """Whether the token at `place` stood where the correct token of `case` stands."""
    # Digits of one number stand side by side without following one another.
    if place == case:
        return not bare(tokens[place]).isdigit()
    if place == case - 1 and bare(tokens[case]).casefold() in SEPARATORS:
        return True
    return place > 0 and _front(tokens, place) == _front(tokens, case + 1)


def _front(tokens: Sequence[str], place: int) -> tuple[str, ...]:
    """What stands before a token: the digits of the same number if there are any, else the one token before it."""
    start = place
    while start > 0 and tokens[start - 1].isdigit():
        start -= 1
    # The first digit of a number may carry the space before it.
    start -= start > 0 and start < place and bare(tokens[start - 1]).isdigit()
    return tuple(map(bare, tokens[start:place])) if start < place else (tokens[place - 1],)


def possible(line: Line) -> Bool[np.ndarray, "behaviour case"]:
    """Which behaviours a head could show in each case by what it promotes: is there a token that one can follow, ...?

    Position 0 counts for nothing, as in the rules; every case after the first can be a copy. `other` always can.
    """
    tokens, cases = line.tokens, len(line.tokens) - 1
    found = np.zeros((len(BEHAVIOURS), cases), dtype=bool)
    for position in range(1, cases):
        standing = places(tokens[position]) if stands_alone(tokens, position) else []
        found[BEHAVIOURS.index("successorship"), position] = any(
            place.cyclic or place.index + 1 < place.length for place in standing
        )
        found[BEHAVIOURS.index("greater-than"), position] = bare(tokens[position]).isdigit()
        found[BEHAVIOURS.index("acronym"), position] = bool(line.initials(position))
        found[BEHAVIOURS.index("copying"), position] = True
    found[BEHAVIOURS.index("other")] = True
    return np.logical_or.accumulate(found, axis=1)


@dataclass(frozen=True)
class Compared:
    """Succession and matched cases of each document and kind: how many, and the sum of a value over them."""

    count: np.ndarray
    total: np.ndarray
    others: np.ndarray
    other_total: np.ndarray

    @property
    def documents(self) -> int:
        """Documents with a succession case of a kind that something is matched to."""
        kinds = self.others.sum(0) > 0
        return int((self.count[:, kinds].sum(1) > 0).sum())

    def means(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean value over succession cases, and over matched cases in the same proportions of kinds, a draw.

        `weights` (draw, document) counts how often each document is drawn. nan where a draw has no succession case
        with a match; kinds without both sides are left out of both means.
        """
        count, total, others, other_total = (
            weights @ part for part in (self.count, self.total, self.others, self.other_total)
        )
        usable = np.where((count > 0) & (others > 0), count, 0.0)
        share = usable / np.maximum(usable.sum(1, keepdims=True), 1e-300)
        own, matched = (share * _ratio(total, count)).sum(1), (share * _ratio(other_total, others)).sum(1)
        none = usable.sum(1) == 0
        own[none], matched[none] = np.nan, np.nan
        return own, matched


def matched_cases(
    values: np.ndarray, kind: np.ndarray, succession: np.ndarray, cluster: np.ndarray, shape: tuple[int, int]
) -> Compared:
    """Gather `values` (context, case) of succession and matched cases by document and kind, as many as `shape` says.

    `cluster` holds the document of each context.
    """
    documents = np.broadcast_to(cluster[:, None], values.shape)

    def gathered(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count, total = np.zeros(shape), np.zeros(shape)
        places = (documents[chosen], kind[chosen].astype(np.int64))
        np.add.at(count, places, 1.0)
        np.add.at(total, places, values[chosen].astype(np.float64))
        return count, total

    known = kind >= 0
    return Compared(*gathered(known & succession), *gathered(known & ~succession))


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(total, count, out=np.zeros_like(total), where=count > 0)
