"""Which of the paper's four behaviours a case shows: rules written as code (Gould et al. 2024, on natural text).

The paper gives four behaviours and no rules. These are the project's: a case shows a behaviour if the token that the
head promotes most stands in that behaviour's relation to one of the tokens that the head attends to most. (Judged by
the correct next token in its place, a head that is right in one case of fifty shows next to nothing, whatever it does;
that rule is kept as a setting.) The attended tokens are gone through from the most attended on, and at each one the
relations are tried in the order successorship, copying, acronym, greater-than; the first that holds decides, and a case
without any is *other*. Two variants look at the top 5 and at the top 1 attended tokens. A context's first token is
passed over: most heads rest there when they have nothing to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from circuit_claims.papers.successor_heads.dataset import PAPER_TASKS, ROMAN

Behaviour = Literal["successorship", "acronym", "greater-than", "copying", "other"]
BEHAVIOURS: tuple[Behaviour, ...] = ("successorship", "acronym", "greater-than", "copying", "other")
OTHER = BEHAVIOURS.index("other")
NAMED = BEHAVIOURS[:OTHER]
VARIANTS: dict[str, int] = {"top 5 attended": 5, "top 1 attended": 1}
LONGEST_NUMBER = 6
LONGEST_ACRONYM = 6
_NUMBER = re.compile(r"[0-9]+")
_CAPITALS = re.compile(r"[A-Z]+")


@dataclass(frozen=True)
class ListPlace:
    """Where a string stands in one of the ordered lists: which list, at which index, of how many, cyclic or not."""

    order: str
    index: int
    length: int
    cyclic: bool

    def comes_before(self, other: ListPlace) -> bool:
        """Whether `other` is the next of the same list."""
        following = (self.index + 1) % self.length if self.cyclic else self.index + 1
        return self.order == other.order and other.index == following


def _lists() -> dict[str, list[ListPlace]]:
    """Every string of the ordered lists (but the numbers) as `bare` gives it, with its places."""
    found: dict[str, list[ListPlace]] = {}
    for task in (*PAPER_TASKS, ROMAN):
        if task.name == "numbers":
            continue
        # Single letters and Roman numerals mean what they mean in one case; words keep their meaning in both.
        folds = (str, str.lower) if task.name in ("letters", "roman numerals") else (str.casefold,)
        for fold in folds:
            name = f"{task.name}, small" if fold is str.lower else task.name
            for index, item in enumerate(task.items):
                found.setdefault(fold(item), []).append(ListPlace(name, index, len(task.items), task.cyclic))
    return found


LISTS = _lists()


def bare(token: str) -> str:
    """A token as it is compared: without white space around it."""
    return token.strip()


def places(token: str) -> list[ListPlace]:
    """Where a token stands in the ordered lists; a number stands in the list of all numbers.

    >>> [place.order for place in places(" Tuesday")]
    ['days']
    """
    text = bare(token)
    if _NUMBER.fullmatch(text) and len(text) <= LONGEST_NUMBER:
        return [ListPlace("numbers", int(text), 10**LONGEST_NUMBER + 1, False)]
    return LISTS.get(text, []) or LISTS.get(text.casefold() if len(text) > 1 else text, [])


def is_successor(token: str, target: str) -> bool:
    """Whether `target` follows `token` in an ordered list: numbers, number words, ordinals, days, months, letters, ...

    Numbers with a leading zero keep their width.

    >>> is_successor(" Monday", "Tuesday"), is_successor("9", "10"), is_successor("09", "1"), is_successor("b", "a")
    (True, True, False, False)
    """
    first, second = bare(token), bare(target)
    if "0" in (first[:1], second[:1]) and len(first) != len(second):
        return False
    return any(one.comes_before(other) for one in places(first) for other in places(second))


def is_greater(token: str, target: str) -> bool:
    """Whether both are numbers of one width and `target` is greater, but not the next one.

    >>> is_greater("74", "82"), is_greater("74", "75"), is_greater("74", "9")
    (True, False, False)
    """
    first, second = bare(token), bare(target)
    numbers = _NUMBER.fullmatch(first) and _NUMBER.fullmatch(second)
    return bool(numbers) and len(first) == len(second) <= LONGEST_NUMBER and int(second) > int(first) + 1


def is_copy(token: str, target: str) -> bool:
    """Whether both are the same but for case and white space around; of white space alone, exactly the same."""
    first, second = bare(token), bare(target)
    return first.casefold() == second.casefold() if first and second else token == target


@dataclass(frozen=True)
class Line:
    """A context as the rules read it: its tokens' strings, with the words they make."""

    tokens: tuple[str, ...]

    @cached_property
    def begins(self) -> tuple[bool, ...]:
        """Whether each token begins a word: letters behind white space or behind something that is no letter."""
        before = ["", *self.tokens[:-1]]
        return tuple(
            token.lstrip()[:1].isalpha() and (token[:1].isspace() or not last[-1:].isalnum())
            for token, last in zip(self.tokens, before, strict=True)
        )

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Positions of the tokens that begin a word."""
        return tuple(position for position, begins in enumerate(self.begins) if begins)

    def word(self, position: int) -> str:
        """The letters and digits from this token on, up to whatever ends the word."""
        text = self.tokens[position].lstrip()
        following = position + 1
        while text.isalnum() and following < len(self.tokens) and self.tokens[following][:1].isalnum():
            text += self.tokens[following]
            following += 1
        found = re.match(r"[^\W_]*", text)
        return found.group() if found else ""

    def initials(self, position: int) -> str:
        """Capital initials of the word that begins here and of those that follow it; "" where none begins.

        A word that is itself all capitals is an acronym already and has none.
        """
        if not self.begins[position]:
            return ""
        word = self.word(position)
        if len(word) < 2 or word.isupper():
            return ""
        at = self.starts.index(position)
        first = (self.tokens[start].lstrip()[0].upper() for start in self.starts[at : at + LONGEST_ACRONYM])
        return "".join(first)


def is_acronym(line: Line, position: int, target: str, word: str = "") -> bool:
    """Whether `target` is capitals that begin the initials of the word at `position` and those after it.

    `word` is the whole word that `target` begins or goes on in, where it is known: "Timer" is no acronym of "the".
    """
    capitals = bare(target)
    if not _CAPITALS.fullmatch(capitals) or len(capitals) > LONGEST_ACRONYM or any(map(str.islower, word)):
        return False
    return line.initials(position).startswith(capitals)


def stands_alone(tokens: Sequence[str], position: int) -> bool:
    """Whether a token that is a single letter is a word of its own; other tokens always are.

    The "n" that "not" begins with is not followed by "o" as a list is.
    """
    token = tokens[position]
    if len(bare(token)) != 1 or not bare(token).isalpha():
        return True
    before, after = tokens[position - 1 : position], tokens[position + 1 : position + 2]
    joined = token[:1].isalpha() and before and before[0][-1:].isalnum()
    return not joined and not (token[-1:].isalpha() and after and after[0][:1].isalnum())


def behaviour_at(line: Line, position: int, target: str, word: str = "") -> Behaviour:
    """The relation in which `target` stands to the token at `position`, tried in the module's order."""
    token = line.tokens[position]
    if is_successor(token, target) and stands_alone(line.tokens, position):
        return "successorship"
    if is_copy(token, target):
        return "copying"
    if is_acronym(line, position, target, word):
        return "acronym"
    return "greater-than" if is_greater(token, target) else "other"


def behaviour_of(line: Line, attended: Sequence[int], target: str, top: int, word: str = "") -> Behaviour:
    """The behaviour of one case: `attended` are positions, most attended first; -1 and position 0 are passed over."""
    looked_at = [position for position in attended if position > 0][:top]
    for position in looked_at:
        found = behaviour_at(line, position, target, word)
        if found != "other":
            return found
    return "other"


def label_cases(
    line: Line,
    attended: np.ndarray,
    cases: Sequence[int] | np.ndarray,
    top: int,
    targets: Sequence[str] | Mapping[int, str] | None = None,
) -> np.ndarray:
    """Behaviours, as indices into `BEHAVIOURS`, of the cases named: case t has the correct token t + 1.

    `attended[t]` are the positions that the head looks at most in case t, the most first. With `targets`, case t is
    judged by `targets[t]`, the token promoted, in place of the correct token.
    """
    labels = np.full(len(cases), OTHER, dtype=np.int64)
    for place, case in enumerate(cases):
        looked_at = attended[case].tolist()
        if targets is None:
            found = behaviour_of(line, looked_at, line.tokens[case + 1], top, line.word(case + 1))
        else:
            found = behaviour_of(line, looked_at, targets[case], top)
        labels[place] = BEHAVIOURS.index(found)
    return labels


def variant_agreement(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The share of cases with the same label under two variants, and Cohen's kappa (1: always, 0: as by chance).

    Both nan for no case; kappa is nan where one label is all there is.
    """
    if len(one) == 0:
        return float("nan"), float("nan")
    same = float(np.mean(one == other))
    shares = [np.bincount(labels, minlength=len(BEHAVIOURS)) / len(labels) for labels in (one, other)]
    chance = float(shares[0] @ shares[1])
    return same, (same - chance) / (1 - chance) if chance < 1 else float("nan")


def effective_number(shares: np.ndarray) -> np.ndarray:
    """How many behaviours a head spreads over: e to the entropy of its shares (last axis); 1 for one behaviour alone.

    >>> float(effective_number(np.array([0.5, 0.5, 0.0])))
    2.0
    """
    shares = np.asarray(shares, dtype=np.float64)
    logs = np.log(np.where(shares > 0, shares, 1.0))
    return np.exp(-(shares * logs).sum(-1))
