"""Numbered lists cut from real text: prompts after which the next token is the next number (SH-23)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from circuit_claims.texts import Document

if TYPE_CHECKING:
    # Costs what collecting the claims should not.
    from jaxtyping import Int

LENGTH = 112
WANTED = 64
PER_DOCUMENT = 8
# Characters tokenised before and behind a number: enough for `LENGTH` tokens of most texts.
REACH = 6 * LENGTH
# Prompts that end in so many equal tokens are one prompt.
REPEATED = 32
_ITEM = re.compile(r"^[ \t]*(?:#|//|\*)?[ \t]*\(?([0-9]{1,3})[.)](?=[ \t])", re.MULTILINE)


class SpanEncoder(Protocol):
    """A tokenizer: ids of a text, and the token the model expects in front of every text, if any."""

    bos_id: int | None

    def encode(self, text: str) -> list[int]:
        """The ids of `text` and of nothing else."""
        ...

    def spans(self, text: str) -> list[tuple[int, int]]:
        """For each id the characters it stands for."""
        ...


@dataclass(frozen=True)
class Listings:
    """Windows of equal length; in each, case `cases[i]` is the prompt of a listing and the correct token its number.

    `numbers[i]` is that number, `documents[i]` where the listing was found. What follows the number in the window is
    never seen by the case.
    """

    tokens: Int[np.ndarray, "prompt pos"]
    cases: Int[np.ndarray, " prompt"]
    numbers: tuple[int, ...]
    documents: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def digest(self) -> str:
        """sha256 over the token ids and the cases."""
        data = np.ascontiguousarray(np.column_stack([self.tokens, self.cases]), dtype="<i8").tobytes() if self else b""
        return hashlib.sha256(data).hexdigest()

    @property
    def clusters(self) -> Int[np.ndarray, " prompt"]:
        """For each prompt the number of its document: the unit of the bootstrap."""
        order = {name: index for index, name in enumerate(dict.fromkeys(self.documents))}
        return np.array([order[name] for name in self.documents], dtype=np.int64)


def numbered_items(text: str) -> Iterator[tuple[int, int, int]]:
    """Items of numbered lists from the third on, as (number, where its digits begin, where the item two before does).

    An item is a line that begins with a number and a full stop or bracket; three in a row count up by one.
    """
    found = [(int(match[1]), match.start(1)) for match in _ITEM.finditer(text)]
    for (first, begin), (second, _), (third, at) in zip(found, found[1:], found[2:], strict=False):
        if (second, third) == (first + 1, first + 2):
            yield third, at, begin


def cut_listings(
    documents: Sequence[Document], tokens: SpanEncoder, *, wanted: int = WANTED, length: int = LENGTH, seed: int = 0
) -> Listings:
    """Up to `wanted` listings in windows of `length` tokens, at most `PER_DOCUMENT` of one document, drawn with `seed`.

    Kept are those whose number is one token of its own behind the prompt, with both items before it in the window.
    Fewer come back where the documents have no more; a smaller draw is the beginning of a larger one.
    """
    generator = np.random.default_rng(seed)
    pool: list[tuple[str, int, int, list[int]]] = []
    known: set[tuple[int, ...]] = set()
    for document in documents:
        items = list(numbered_items(document.text))
        made = ((number, _window(document.text, at, begin, str(number), tokens, length)) for number, at, begin in items)
        cut = [(document.name, number, *window) for number, window in made if window is not None]
        kept = [cut[place] for place in sorted(generator.permutation(len(cut))[:PER_DOCUMENT])]
        # One list may stand in two documents: its prompts count once.
        ends = {tuple(ids[: case + 1][-REPEATED:]): place for place, (_, _, case, ids) in enumerate(kept)}
        pool += [kept[place] for end, place in ends.items() if end not in known]
        known |= set(ends)
    chosen = [pool[place] for place in generator.permutation(len(pool))[:wanted]]
    return Listings(
        tokens=np.array([ids for *_, ids in chosen], dtype=np.int64).reshape(len(chosen), length),
        cases=np.array([case for _, _, case, _ in chosen], dtype=np.int64),
        numbers=tuple(number for _, number, _, _ in chosen),
        documents=tuple(name for name, *_ in chosen),
    )


def _window(
    text: str, at: int, begin: int, number: str, tokens: SpanEncoder, length: int
) -> tuple[int, list[int]] | None:
    """The case and the ids of a window of `length` tokens around the number at character `at`; None if it has none."""
    low = max(0, at - REACH)
    part = text[low : at + REACH]
    ids, spans = tokens.encode(part), tokens.spans(part)
    # The number must be one token of the running text, or the case would not be "what comes next".
    place = next((index for index, span in enumerate(spans) if span == (at - low, at - low + len(number))), None)
    if place is None:
        return None
    front = [] if tokens.bos_id is None else [tokens.bos_id]
    room = length - len(front)
    start = max(0, place + 1 - room)
    if len(ids) - start < room or spans[start][0] > begin - low:
        return None
    return len(front) + place - start - 1, [*front, *ids[start : start + room]]
