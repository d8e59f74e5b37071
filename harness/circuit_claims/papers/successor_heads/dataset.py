"""The succession dataset of Gould et al. (2024, section 2), rebuilt for any tokenizer, with its comparison sets.

Eight tasks (numbers, number words, ...), each string in up to four surface forms; a string is kept where the
tokenizer has it as one token. With the GPT-NeoX tokenizer this gives the paper's 1,041 entries. Numbers read the same
with their first letter's case inverted, so each stands in the dataset four times as two ids: the paper's weighting
counts entries, and here each distinct comparison is laid out once and carries its weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from circuit_claims.api import InputError
from circuit_claims.heads.groups import Group

Form = Literal["plain", "space", "inverted", "inverted+space"]
FORMS: tuple[Form, ...] = ("plain", "space", "inverted", "inverted+space")
NO_INVERSION: tuple[Form, ...] = ("plain", "space")

_WORDS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth"
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
_MONTHS = "January February March April May June July August September October November December"
_ROMAN = "I II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI XVII XVIII XIX XX"


@runtime_checkable
class Vocabulary(Protocol):
    """Anything that says whether a text is exactly one token (a `TokenTable` is one)."""

    def single_token(self, text: str) -> int | None:
        """The id of `text` if it is a single token, else None."""
        ...


@dataclass(frozen=True)
class Task:
    """One ordered list of strings. `cyclic`: the last is followed by the first. `in_paper`: one of the eight."""

    name: str
    items: tuple[str, ...]
    cyclic: bool = False
    forms: tuple[Form, ...] = FORMS
    in_paper: bool = True


NUMBERS = Task("numbers", tuple(str(number) for number in range(1, 201)))
PAPER_TASKS: tuple[Task, ...] = (
    NUMBERS,
    Task("number words", tuple(_WORDS.split())),
    Task("ordinal words", tuple(_ORDINALS.split())),
    Task("days", tuple(_DAYS.split()), cyclic=True),
    Task("day prefixes", tuple(day[:3] for day in _DAYS.split()), cyclic=True),
    Task("months", tuple(_MONTHS.split()), cyclic=True),
    Task("month prefixes", tuple(month[:3] for month in _MONTHS.split()), cyclic=True),
    Task("letters", tuple(chr(ord("A") + place) for place in range(26)), forms=NO_INVERSION),
)
DIGITS = Task("digits", tuple("0123456789"), forms=NO_INVERSION, in_paper=False)
ROMAN = Task("roman numerals", tuple(_ROMAN.split()), forms=NO_INVERSION, in_paper=False)


@dataclass(frozen=True)
class Entry:
    """One token of the dataset: the `order`-th string of `task` in `form`, spelt `text`, of vocabulary id `token`."""

    task: str
    form: Form
    order: int
    text: str
    token: int


@dataclass(frozen=True)
class Strand:
    """The single-token strings of one task in one form, in order, as places in their comparison set.

    `places[i]` is the place in `groups[group]` (as input and as candidate) of the string of order `orders[i]`;
    `links` are the pairs (i, j) for which string j succeeds string i. `weight` counts the forms it stands for.
    """

    task: int
    group: int
    forms: tuple[Form, ...]
    places: tuple[int, ...]
    orders: tuple[int, ...]
    links: tuple[tuple[int, int], ...]

    @property
    def weight(self) -> int:
        """How many forms of the dataset spell exactly this strand."""
        return len(self.forms)


@dataclass(frozen=True)
class Availability:
    """How many of a task's strings (`wanted`) the tokenizer has as one token (`single`) in one form."""

    task: str
    form: Form
    single: int
    wanted: int


@dataclass(frozen=True)
class Columns:
    """Every distinct comparison column: an input token within its comparison set. Arrays of one row a column.

    `task` and `group` are indices, `place` the token's place in its group, `token` its id, `weight` its entries;
    `string` numbers what it spells whatever its form: "May", " may" and the prefix " May" are one.
    """

    task: np.ndarray
    group: np.ndarray
    place: np.ndarray
    token: np.ndarray
    weight: np.ndarray
    string: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """Every distinct (token, successor) pair: `column` indexes Columns, `target` is a place in the column's group.

    `weight` counts the dataset's pairs it stands for, `rivals` the candidates beside successor and token itself;
    `token` and `string` are those that the pair starts from.
    """

    column: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    rivals: np.ndarray
    task: np.ndarray
    token: np.ndarray
    string: np.ndarray


@dataclass(frozen=True)
class SuccessionDataset:
    """The dataset for one tokenizer, and the comparison sets in which a head is judged.

    `tasks` are those that apply to the tokenizer; `not_applicable` those of the paper that do not. `groups` are the
    distinct comparison sets: one for each task and form, or one for each task with `mixed_forms`. `wraps` says
    whether the last day or month has the first as its successor.
    """

    tasks: tuple[Task, ...]
    not_applicable: tuple[Task, ...]
    entries: tuple[Entry, ...]
    groups: tuple[Group, ...]
    strands: tuple[Strand, ...]
    availability: tuple[Availability, ...]
    wraps: bool
    mixed_forms: bool

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of every per-task array."""
        return tuple(task.name for task in self.tasks)

    @property
    def distinct_tokens(self) -> int:
        """How many different vocabulary ids the entries hold."""
        return len({entry.token for entry in self.entries})

    @property
    def pair_count(self) -> int:
        """Pairs with both members single tokens, as the paper's weighting counts them (numbers four times)."""
        return sum(strand.weight * len(strand.links) for strand in self.strands)

    def share(self, task: str) -> float:
        """Share of the entries that belong to `task` (SH-26: 76.8 % for numbers with the GPT-NeoX tokenizer).

        Raises ValueError where the tokenizer's dataset has no such task, and says why for numbers.
        """
        if task not in self.task_names:
            why = " It splits numbers into digits." if task == NUMBERS.name and DIGITS.name in self.task_names else ""
            names = ", ".join(self.task_names)
            raise InputError(f"no task named {task!r} for this tokenizer: expected one of {names}.{why}")
        return sum(entry.task == task for entry in self.entries) / len(self.entries)

    def table(self) -> dict[str, dict[str, int]]:
        """Single-token strings per task and form: the table of section 2, for this tokenizer."""
        rows: dict[str, dict[str, int]] = {}
        for cell in self.availability:
            rows.setdefault(cell.task, {})[cell.form] = cell.single
        return rows

    @cached_property
    def columns(self) -> Columns:
        """The distinct comparison columns, group by group; a group's inputs are consecutive rows."""
        weight: dict[tuple[int, int], int] = {}
        task_of = {strand.group: strand.task for strand in self.strands}
        for strand in self.strands:
            for place in strand.places:
                weight[strand.group, place] = weight.get((strand.group, place), 0) + strand.weight
        keys = sorted(weight)
        spelt = {(entry.task, entry.token): entry.text.strip().lower() for entry in self.entries}
        number: dict[str, int] = {}
        texts = [spelt[self.task_names[task_of[group]], self.groups[group].inputs[place]] for group, place in keys]
        return Columns(
            task=_integers(task_of[group] for group, _ in keys),
            group=_integers(group for group, _ in keys),
            place=_integers(place for _, place in keys),
            token=_integers(self.groups[group].inputs[place] for group, place in keys),
            weight=_integers(weight[key] for key in keys),
            string=_integers(number.setdefault(text, len(number)) for text in texts),
        )

    @cached_property
    def group_starts(self) -> np.ndarray:
        """First row in `columns` of each group, shape (n_groups,)."""
        sizes = [len(group.inputs) for group in self.groups]
        return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])[:-1].astype(np.int64)

    @cached_property
    def pairs(self) -> Pairs:
        """The distinct (token, successor) pairs with their weights."""
        weight: dict[tuple[int, int], int] = {}
        for strand in self.strands:
            start = int(self.group_starts[strand.group])
            for first, second in strand.links:
                key = (start + strand.places[first], strand.places[second])
                weight[key] = weight.get(key, 0) + strand.weight
        column = _integers(column for column, _ in sorted(weight))
        sizes = _integers(len(group.candidates) for group in self.groups)
        return Pairs(
            column=column,
            target=_integers(target for _, target in sorted(weight)),
            weight=_integers(weight[key] for key in sorted(weight)),
            rivals=sizes[self.columns.group[column]] - 2,
            task=self.columns.task[column],
            token=self.columns.token[column],
            string=self.columns.string[column],
        )


def spell(item: str, form: Form) -> str:
    """The surface form of a string.

    >>> spell("Monday", "inverted+space")
    ' monday'
    """
    text = item[0].swapcase() + item[1:] if form.startswith("inverted") else item
    return " " + text if form.endswith("space") else text


def splits_numbers(tokens: Vocabulary) -> bool:
    """Whether the tokenizer has no number of two or three digits up to 200 as one token, plain or after a space."""
    return all(tokens.single_token(spell(item, form)) is None for item in NUMBERS.items[9:] for form in NO_INVERSION)


def succession(
    tokens: Vocabulary, *, wraps: bool = True, mixed_forms: bool = False, digits: bool = False
) -> SuccessionDataset:
    """The paper's eight tasks for a tokenizer (Gould et al. 2024, section 2; SH-01, SH-26).

    Of the numbers a tokenizer that splits them has 1 to 9 alone, in the forms and with the weight of the paper's. With
    `digits` such a tokenizer gets the digits 0 to 9 once in their place, a task that the paper does not have. `wraps`
    and `mixed_forms` are the two choices that the paper leaves open.
    """
    tasks = PAPER_TASKS
    if digits and splits_numbers(tokens):
        tasks = (DIGITS, *(task for task in PAPER_TASKS if task is not NUMBERS))
    left_out = tuple(task for task in PAPER_TASKS if task not in tasks)
    return assemble_dataset(tokens, tasks, not_applicable=left_out, wraps=wraps, mixed_forms=mixed_forms)


def roman_dataset(tokens: Vocabulary, *, mixed_forms: bool = False) -> SuccessionDataset:
    """The held-out task: Roman numerals I to XX, plain and after a space (SH-24). The paper gives no list."""
    return assemble_dataset(tokens, (ROMAN,), mixed_forms=mixed_forms)


def assemble_dataset(
    tokens: Vocabulary,
    tasks: Sequence[Task],
    *,
    not_applicable: Sequence[Task] = (),
    wraps: bool = True,
    mixed_forms: bool = False,
) -> SuccessionDataset:
    """A dataset of any tasks: entries, comparison sets and strands, in the order given. Tasks without entries go."""
    found = {task.name: _entries(tokens, task) for task in tasks}
    kept = tuple(task for task in tasks if found[task.name])
    groups: list[Group] = []
    strands: list[Strand] = []
    for index, task in enumerate(kept):
        forms = _distinct_forms(found[task.name])
        for members in [list(forms)] if mixed_forms else [[ids] for ids in forms]:
            places = tuple(dict.fromkeys(token for ids in members for token in ids))
            for ids in members:
                names, orders = forms[ids]
                links = _links(orders, len(task.items), wraps and task.cyclic)
                strands.append(Strand(index, len(groups), names, tuple(map(places.index, ids)), orders, links))
            groups.append(Group(places, places))
    return SuccessionDataset(
        tasks=kept,
        not_applicable=tuple(not_applicable),
        entries=tuple(entry for task in kept for entry in found[task.name]),
        groups=tuple(groups),
        strands=tuple(strands),
        availability=tuple(_availability(found, [*tasks, *not_applicable], tokens)),
        wraps=wraps,
        mixed_forms=mixed_forms,
    )


def _entries(tokens: Vocabulary, task: Task) -> list[Entry]:
    return [
        Entry(task.name, form, order, spell(item, form), token)
        for form in task.forms
        for order, item in enumerate(task.items)
        if (token := tokens.single_token(spell(item, form))) is not None
    ]


def _distinct_forms(entries: Iterable[Entry]) -> dict[tuple[int, ...], tuple[tuple[Form, ...], tuple[int, ...]]]:
    """The forms of a task, joined where they hold the same ids: ids -> (form names, orders of the strings)."""
    by_form: dict[Form, list[Entry]] = {}
    for entry in entries:
        by_form.setdefault(entry.form, []).append(entry)
    joined: dict[tuple[int, ...], tuple[tuple[Form, ...], tuple[int, ...]]] = {}
    for form, members in by_form.items():
        ids = tuple(entry.token for entry in members)
        names = joined[ids][0] if ids in joined else ()
        joined[ids] = ((*names, form), tuple(entry.order for entry in members))
    return joined


def _links(orders: tuple[int, ...], items: int, cyclic: bool) -> tuple[tuple[int, int], ...]:
    """Pairs (i, j) of positions in `orders` whose strings follow one another in the task."""
    position = {order: index for index, order in enumerate(orders)}
    after = [(order, (order + 1) % items if cyclic else order + 1) for order in orders]
    return tuple((position[first], position[second]) for first, second in after if second in position)


def _availability(found: dict[str, list[Entry]], tasks: Sequence[Task], tokens: Vocabulary) -> Iterable[Availability]:
    for task in tasks:
        entries = found.get(task.name) or _entries(tokens, task)
        for form in task.forms:
            single = sum(entry.form == form for entry in entries)
            yield Availability(task.name, form, single, len(task.items))


def _integers(values: Iterable[int]) -> np.ndarray:
    return np.fromiter(values, dtype=np.int64)
