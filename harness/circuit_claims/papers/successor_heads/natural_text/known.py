"""Data of which the answer is known, on a table's own text, cases and sizes: what the rules of SH-21 to SH-23 are
calibrated on.

False: the tokens that the head promotes dealt out anew among its cases (so that none has to do with what the head
attends to there); the four behaviours' names exchanged at random within each document (so that none leads but by
chance); a random head in the head's place; the marks of succession dealt out anew among cases of a kind.

True: a head that shows the paper's shares on these cases, as far as the text lets even a perfect head; one that deals
its cases out evenly over the behaviours; one that saves a nat wherever there is succession, and nothing elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from circuit_claims.papers.successor_heads.natural_text.behaviours import BEHAVIOURS, OTHER, VARIANTS, Line
from circuit_claims.papers.successor_heads.natural_text.pairing import Pairing, pair
from circuit_claims.papers.successor_heads.natural_text.quantities import BehaviourCounts, count, own_cases

if TYPE_CHECKING:
    # Costs what collecting the claims should not.
    from collections.abc import Callable

    from jaxtyping import Bool, Float, Int

    from circuit_claims.api import Measurement

SAVED_NATS = 1.0
SUCCESSION = BEHAVIOURS.index("successorship")
RowOfEach = Sequence[int | None]


@dataclass(frozen=True)
class Redealt:
    """The head's cases of some rows (None: winning), ready for their promoted tokens to be dealt out anew."""

    table: Measurement
    chosen: tuple[Bool[np.ndarray, "context case"], ...]
    any_row: Bool[np.ndarray, "context case"]
    targets: Int[np.ndarray, " case"]
    pairing: Pairing

    @classmethod
    def of(cls, table: Measurement, strings: Callable[[Sequence[int]], tuple[str, ...]], rows: RowOfEach) -> Redealt:
        """The cases of these rows of one table, winning ones or loss-reducing ones; `strings` gives tokens' strings."""
        chosen = tuple(own_cases(table, row) for row in rows)
        any_row = np.logical_or.reduce(chosen)
        lines = [Line(strings(row.tolist())) for row in table.arrays["tokens"][: len(any_row)]]
        attended = table.arrays["attended"][0]
        places = [(lines[context], attended[context, case].tolist()) for context, case in np.argwhere(any_row)]
        raised, targets = np.unique(table.arrays["promoted"][: len(any_row), :, 0][any_row], return_inverse=True)
        top = max(VARIANTS.values())
        return cls(table, chosen, any_row, targets, pair(places, strings(raised.tolist()), top))

    def counted(self, targets: Int[np.ndarray, " case"]) -> list[BehaviourCounts]:
        """The cases of each row, were these the tokens that the head promotes in them."""
        labels = np.full(self.any_row.shape, OTHER, dtype=np.int8)
        labels[self.any_row] = self.pairing.labels(targets, max(VARIANTS.values()))
        return [count(self.table, chosen, labels) for chosen in self.chosen]

    def draw(self, generator: np.random.Generator) -> list[BehaviourCounts]:
        """The cases of each row with the promoted tokens dealt out anew among them."""
        return self.counted(generator.permutation(self.targets))


def renamed(rows: Sequence[BehaviourCounts], generator: np.random.Generator) -> list[BehaviourCounts]:
    """The four behaviours' names exchanged at random within each document, alike in all rows."""
    documents = len(rows[0].counts)
    order = generator.permuted(np.tile(np.arange(OTHER), (documents, 1)), axis=1)
    order = np.concatenate([order, np.full((documents, 1), OTHER)], axis=1)
    return [BehaviourCounts(np.take_along_axis(row.counts, order, axis=1)) for row in rows]


def planted(table: Measurement, row: int | None, shares: Mapping[str, float], seed: int = 0) -> BehaviourCounts:
    """Cases of a head that shows `shares` of the behaviours, on the table's cases, as far as the text allows.

    Loss-reducing cases (a `row` of effects) stay those of the table: a perfect head shows a behaviour, by what it
    promotes, wherever a token before has one. Of the winning cases (row None) those of succession are ones in which
    the correct token does follow one before it: elsewhere the token that a perfect head promotes wins it nothing.
    """
    generator = np.random.default_rng(seed)
    chosen = own_cases(table, row)
    possible = table.arrays["possible"][:, : len(chosen)]
    labels, n = np.full(chosen.shape, OTHER, dtype=np.int8), int(chosen.sum())
    free = chosen.copy()
    if row is None:
        wanted = round(shares.get("successorship", 0.0) * n)
        won = _drawn(table.arrays["follows"], wanted, generator)
        kept = _drawn(chosen & ~won, n - int(won.sum()), generator)
        chosen, free = won | kept, kept
        labels[won] = SUCCESSION
    for name in sorted((name for name in shares if name in BEHAVIOURS[:OTHER]), key=BEHAVIOURS.index):
        if row is None and name == "successorship":
            continue
        taken = _drawn(free & possible[BEHAVIOURS.index(name)], round(shares[name] * n), generator)
        labels[taken] = BEHAVIOURS.index(name)
        free = free & ~taken
    return count(table, chosen, labels)


def ceiling(table: Measurement, row: int | None, behaviour: str, by_correct: bool = False) -> float:
    """The largest share of the head's cases of a row in which any head could show `behaviour` on this text.

    By what it promotes: a token before is one that it could follow. `by_correct`, of successorship alone: the correct
    token does follow one before. nan without a case.
    """
    chosen = own_cases(table, row)
    able = table.arrays["follows"] if by_correct else table.arrays["possible"][BEHAVIOURS.index(behaviour)]
    return float(able[: len(chosen)][chosen].mean()) if chosen.any() else float("nan")


def _drawn(able: Bool[np.ndarray, "context case"], wanted: int, generator: np.random.Generator) -> np.ndarray:
    """So many of the cases that are able, at random, as a mask; all of them where there are no more."""
    places = np.flatnonzero(able)
    found = np.zeros(able.shape, dtype=bool)
    found.ravel()[generator.permutation(places)[: max(wanted, 0)]] = True
    return found


def in_its_place(
    counts: Int[np.ndarray, "head document behaviour"], fewest: int, generator: np.random.Generator
) -> Int[np.ndarray, "head document behaviour"]:
    """A random head in the first one's place, the others beside it, on documents drawn anew.

    Where no other has `fewest` cases any of them takes the place.
    """
    able = 1 + np.flatnonzero(counts[1:].sum((1, 2)) >= fewest)
    pool = able if len(able) else np.arange(1, len(counts))
    chosen = int(pool[generator.integers(len(pool))])
    rest = [head for head in range(1, len(counts)) if head != chosen]
    documents = generator.integers(counts.shape[1], size=counts.shape[1])
    return counts[[chosen, *rest]][:, documents]


def even(
    counts: Int[np.ndarray, "head document behaviour"], seed: int = 0
) -> Int[np.ndarray, "head document behaviour"]:
    """The first head's cases dealt out over the four behaviours at random, with equal chances; other heads as they
    are."""
    generator = np.random.default_rng(seed)
    dealt = generator.multinomial(counts[0].sum(1), np.full(OTHER, 1 / OTHER))
    return np.concatenate([dealt[None], counts[1:]])


def marks_dealt(table: Measurement, generator: np.random.Generator) -> Bool[np.ndarray, "context case"]:
    """The marks of succession dealt out anew among the cases of each kind, in the contexts whose losses are known."""
    here = table.arrays["change"].shape[1]
    kind, marks = table.arrays["kind"][:here], table.arrays["succession"][:here].copy()
    for one in np.unique(kind):
        cases = kind == one
        marks[cases] = generator.permutation(marks[cases])
    return marks


def saves_only_there(table: Measurement) -> Float[np.ndarray, "context case"]:
    """The loss that a perfect head saves: `SAVED_NATS` wherever there is succession, and nothing elsewhere."""
    here = table.arrays["change"].shape[1]
    return SAVED_NATS * table.arrays["succession"][:here].astype(np.float64)


def winners_dealt(table: Measurement, generator: np.random.Generator) -> Float[np.ndarray, " prompt"]:
    """Which listings a head wins if the winner of each is drawn from all heads alike."""
    drop = table.arrays["drop"]
    return (generator.integers(drop.shape[1], size=len(drop)) == 0).astype(np.float64)
