"""Passages of text with the tokens marked that a head looked at, and the one that came next, for a person to check."""

from __future__ import annotations

from dataclasses import dataclass

from circuit_claims.judging.evidence import PassageExample, Passages
from circuit_claims.judging.numbers import number

MOST_PASSAGES = 24
BLANKS = {"\n": "↵", "\t": "⇥", " ": "␣", "\r": "␍"}


@dataclass(frozen=True)
class MarkedPiece:
    """A stretch of text; `rank` is 0 for plain text, n for the n-th most attended token, with `share` in words."""

    text: str
    rank: int = 0
    share: str = ""


@dataclass(frozen=True)
class Passage:
    """The end of one prefix: its pieces, the token that came next, what the head promoted, and what is said of it."""

    label: str
    note: str
    pieces: tuple[MarkedPiece, ...]
    following: str
    promoted: tuple[tuple[str, str], ...]


def passages_of(evidence: Passages) -> tuple[Passage, ...]:
    """The passages as pieces of text, at most `MOST_PASSAGES`."""
    return tuple(_passage(item) for item in list(evidence.examples)[:MOST_PASSAGES])


def _passage(item: PassageExample) -> Passage:
    pieces: list[MarkedPiece] = []
    for token in item.tokens:
        rank = token.rank
        if rank:
            share = token.share
            words = f"{100 * share:.0f} %" if share is not None and share == share else ""
            pieces += _marked(token.text, rank, words)
        elif pieces and not pieces[-1].rank:
            pieces[-1] = MarkedPiece(pieces[-1].text + token.text)
        else:
            pieces.append(MarkedPiece(token.text))
    promoted = tuple((seen(text), number(value)) for text, value in item.promoted)
    return Passage(
        label=item.label,
        note=item.note,
        pieces=tuple(pieces),
        following=seen(item.next),
        promoted=promoted,
    )


def _marked(token: str, rank: int, share: str) -> list[MarkedPiece]:
    """A marked token by its signs, its line breaks kept: a reader has to see the text as it was written."""
    body = token.removesuffix("\n")
    shown = "\n".join(seen(line + "\n") for line in body.split("\n")[:-1]) if "\n" in body else ""
    last = seen(body.split("\n")[-1] + token[len(body) :])
    piece = MarkedPiece("\n".join(filter(None, [shown, last])), rank, share)
    return [piece, MarkedPiece("\n")] if body != token else [piece]


def seen(token: str) -> str:
    """A single token as a person can see it: white space at either end, or all of it, by signs.

    >>> seen(" Monday"), seen("\\n")
    ('␣Monday', '↵')
    """
    body = token.strip(" \n\t\r")
    start = token.find(body) if body else len(token)
    front, back = token[:start], token[start + len(body) :]
    return "".join(BLANKS[letter] for letter in front) + body + "".join(BLANKS[letter] for letter in back)
