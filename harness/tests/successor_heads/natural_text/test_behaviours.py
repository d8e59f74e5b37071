"""The rules by which behaviours are told, on sentences where a person knows the answer, and what must always hold."""

from __future__ import annotations

import numpy as np
import pytest
from circuit_claims.papers.successor_heads.dataset import PAPER_TASKS, ROMAN
from circuit_claims.papers.successor_heads.natural_text.behaviours import (
    BEHAVIOURS,
    OTHER,
    Line,
    behaviour_of,
    effective_number,
    is_acronym,
    is_copy,
    is_greater,
    is_successor,
    label_cases,
    variant_agreement,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("token", "target"),
    [(" Monday", " Tuesday"), ("Sunday", " monday"), ("December", "January"), (" Dec", "Jan"), ("1", " 2"), ("9", "10"),
     ("199", "200"), ("09", "10"), (" a", "b"), ("Y", " Z"), (" II", " III"), ("ii", "iii"), (" first", "Second"),
     ("Nineteen", "twenty")],
)  # fmt: skip
def test_successors_are_known_in_any_form(token, target):
    assert is_successor(token, target)
    assert not is_successor(target, token) or token.strip().casefold() in ("december", "sunday", "dec")


@pytest.mark.parametrize(
    ("token", "target"),
    [("Tuesday", "Monday"), ("Z", "A"), ("twenty", "twenty-one"), ("a", "B"), ("1", "3"), ("9", "1"), ("09", "1"),
     ("Monday", "Tue"), ("second", "3"), ("", ""), (" ", " "), ("9999999", "10000000"), ("²", "3"), ("the", "and")],
)  # fmt: skip
def test_what_is_no_successor_is_not_taken_for_one(token, target):
    assert not is_successor(token, target)


def test_every_pair_of_the_dataset_is_a_succession():
    for task in (*PAPER_TASKS, ROMAN):
        for first, second in zip(task.items, task.items[1:], strict=False):
            assert is_successor(first, f" {second}"), (first, second)
        assert is_successor(task.items[-1], task.items[0]) == task.cyclic


@given(st.integers(0, 200), st.integers(0, 200))
def test_numbers_succeed_are_greater_or_neither(first, second):
    token, target = str(first), f" {second}"
    assert is_successor(token, target) == (second == first + 1)
    assert is_greater(token, target) == (second > first + 1 and len(str(first)) == len(str(second)))


@given(st.text(max_size=4), st.text(max_size=4))
def test_copying_looks_past_case_and_white_space_only(one, other):
    assert is_copy(one, other) == is_copy(other, one)
    assert is_copy(one, one)
    if one.strip() and other.strip():
        assert is_copy(one, other) == (one.strip().casefold() == other.strip().casefold())
    else:
        assert is_copy(one, other) == (one == other)


AGENCY = Line((" the", " Cray", " Model", "ing", " Agency", " (", "C", "MA", ")", " says", " THE", " Tim", "er"))


@pytest.mark.parametrize(
    ("position", "target", "word", "right"),
    [(1, "C", "CMA", True), (1, "CM", "CMA", True), (1, "CMA", "CMA", True), (2, "MA", "MA", True),
     (4, " A", "A", True), (3, "I", "", False), (1, "M", "", False), (1, "c", "", False), (0, "T", "Timer", False),
     (0, "T", "TCMA", True), (10, "T", "", False), (6, "C", "", False), (1, "CMAX", "", False), (5, "(", "", False)],
)  # fmt: skip
def test_acronyms_are_initials_of_whole_words(position, target, word, right):
    assert is_acronym(AGENCY, position, target, word) is right


def test_the_most_attended_relation_decides_and_the_first_token_is_passed_over():
    line = Line(("2", " 1", " and", " 2", " or", " 3", "3"))
    assert behaviour_of(line, [3, 5], "3", 5) == "successorship"
    assert behaviour_of(line, [5, 3], "3", 5) == "copying"
    assert behaviour_of(line, [1, 5], "3", 5) == "greater-than"
    assert behaviour_of(line, [4, 2, 3], "3", 5) == "successorship"
    assert behaviour_of(line, [4, 2, 3], "3", 1) == "other"
    assert behaviour_of(line, [0, 4], "3", 5) == "other"
    assert behaviour_of(line, [-1, -1], "3", 5) == "other"
    assert behaviour_of(line, [0, 3], "3", 1) == "successorship", "top 1 is the first that is not passed over"


def test_a_letter_counts_on_only_where_it_is_a_word():
    line = Line((".", " n", "o", "t", " a", ")", " b", "c", "x", "(b"))
    assert behaviour_of(line, [1], "o", 5) == "other"
    assert behaviour_of(line, [4], " b", 5) == "successorship"
    assert behaviour_of(line, [7], " d", 5) == "other"


def test_cases_are_labelled_by_the_token_that_came_next_or_by_another():
    line = Line((" x", " Monday", ",", " Tuesday", ",", " Monday", "."))
    attended = np.array([[0, -1], [1, 0], [1, 2], [3, 1], [3, 1], [5, 0]])
    found = label_cases(line, attended, range(6), 5)
    assert [BEHAVIOURS[label] for label in found] == ["other", "other", "successorship", "other", "copying", "other"]
    other = label_cases(line, attended, range(6), 5, [" Tuesday"] * 6)
    assert [BEHAVIOURS[label] for label in other[1:4]] == ["successorship", "successorship", "copying"]


@given(st.lists(st.sampled_from(["1", "2", " a", " b", "B", ".", " The", "\n"]), min_size=2, max_size=9), st.data())
def test_a_label_never_hangs_on_what_comes_later(tokens, data):
    """The first cases of a longer line have the same labels, but for the word that a target begins."""
    attended = np.array([[data.draw(st.integers(0, case)), -1] for case in range(len(tokens) - 1)])
    whole = label_cases(Line(tuple(tokens)), attended, range(len(tokens) - 1), 5)
    part = label_cases(Line((*tokens, " and")), attended, range(len(tokens) - 1), 5)
    assert whole.tolist() == part.tolist()


def test_agreement_is_one_for_the_same_and_kappa_nought_for_chance():
    labels = np.array([0, 0, 1, 1, 4, 4, 4, 4])
    assert variant_agreement(labels, labels) == (1.0, 1.0)
    same, kappa = variant_agreement(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    assert (same, kappa) == (0.5, 0.0)
    assert np.isnan(variant_agreement(labels[:0], labels[:0])).all()
    assert np.isnan(variant_agreement(np.full(3, OTHER), np.full(3, OTHER))[1])


@given(st.lists(st.floats(0.01, 1), min_size=5, max_size=5))
def test_the_effective_number_lies_between_one_and_all(parts):
    shares = np.array(parts) / sum(parts)
    assert 1 - 1e-9 <= effective_number(shares) <= 5 + 1e-9
    assert effective_number(np.full(5, 0.2)) == pytest.approx(5)
    assert effective_number(np.eye(5)[0]) == 1
