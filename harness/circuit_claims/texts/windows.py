"""Contexts of equal length drawn from a text's documents with a seed (Gould et al. 2024: 128 of 512)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from circuit_claims.errors import InputError
from circuit_claims.texts.sources import Text

if TYPE_CHECKING:
    # Costs what collecting the claims should not.
    from jaxtyping import Int

LENGTH = 512
PER_DOCUMENT = 3
# Documents are tokenised in the drawn order until this many windows wait to be chosen from, and not beyond.
POOL = 512
# Of a longer document one stretch of so many characters is drawn: a book need not be tokenised for three windows.
STRETCH = 16_000


class Encoder(Protocol):
    """A tokenizer: ids of a text, and the token the model expects in front of every text, if any."""

    @property
    def bos_id(self) -> int | None:
        """The token in front of every text, None for a model without."""
        ...

    def encode(self, text: str) -> list[int]:
        """The ids of `text` and of nothing else."""
        ...


@dataclass(frozen=True)
class Contexts:
    """`tokens[c]` is one context, cut from document `documents[c]`; `places[c]` says where in it, for a person."""

    tokens: Int[np.ndarray, "context pos"]
    documents: tuple[str, ...]
    places: tuple[str, ...]
    text: str
    seed: int

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def digest(self) -> str:
        """sha256 over the token ids: equal for equal contexts, whatever text and tokenizer gave them."""
        return hashlib.sha256(np.ascontiguousarray(self.tokens, dtype="<i8").tobytes()).hexdigest()

    @property
    def clusters(self) -> Int[np.ndarray, " context"]:
        """For each context the number of its document, counted in order of appearance: the unit of the bootstrap."""
        order = {name: index for index, name in enumerate(dict.fromkeys(self.documents))}
        return np.array([order[name] for name in self.documents], dtype=np.int64)


def draw_contexts(
    text: Text,
    tokens: Encoder,
    *,
    count: int = 128,
    length: int = LENGTH,
    seed: int = 0,
    per_document: int = PER_DOCUMENT,
) -> Contexts:
    """`count` windows of `length` tokens inside single documents, at most `per_document` from one, drawn with `seed`.

    Where the model expects a first token, it is the first of the `length`. The first n of a larger draw are the draw
    of n: a smaller profile measures a part of what a larger one does. Fewer come back where the text has no more.
    Raises ValueError for a text without one document long enough.
    """
    generator = np.random.default_rng(seed)
    front = [] if tokens.bos_id is None else [tokens.bos_id]
    pool = list(_pool(text, tokens, length - len(front), per_document, generator))
    if not pool:
        raise InputError(
            f"contexts of {length} tokens from {text.label}: expected a document at least that long, found none among "
            f"{len(text.documents)}\n  Give a text with longer documents: --texts FOLDER"
        )
    chosen = [pool[place] for place in generator.permutation(len(pool))[:count]]
    return Contexts(
        tokens=np.array([[*front, *ids] for _, _, ids in chosen], dtype=np.int64),
        documents=tuple(name for name, _, _ in chosen),
        places=tuple(place for _, place, _ in chosen),
        text=text.label,
        seed=seed,
    )


def _pool(
    text: Text, tokens: Encoder, length: int, per_document: int, generator: np.random.Generator
) -> Iterator[tuple[str, str, list[int]]]:
    """Windows (document, place, ids) of documents in a drawn order, until there are enough to choose from."""
    found = 0
    for number in generator.permutation(len(text.documents)):
        document = text.documents[number]
        begin = _stretch(document.text, generator)
        ids = tokens.encode(document.text[begin : begin + STRETCH])
        whole = len(ids) // length
        # Windows lie end to end from a drawn offset, so that no place in a document is out of reach.
        offset = int(generator.integers(len(ids) - whole * length + 1))
        for index in sorted(generator.permutation(whole)[:per_document]):
            start = offset + int(index) * length
            found += 1
            yield document.name, f"token {start:,} after character {begin:,}", ids[start : start + length]
        if found >= POOL:
            return


def _stretch(text: str, generator: np.random.Generator) -> int:
    """Where the stretch of a document begins: at the start of a line, where one is near."""
    if len(text) <= STRETCH:
        return 0
    begin = int(generator.integers(len(text) - STRETCH + 1))
    line = text.rfind("\n", max(0, begin - 1_000), begin)
    return begin if line < 0 else line + 1
