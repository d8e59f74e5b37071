"""Hostile text becomes visible text, numbers keep what matters, ids never clash."""

from __future__ import annotations

import random
import unicodedata

import html5lib
import pytest
from circuit_claims.judging.numbers import number
from circuit_claims.report.text import duration, expected_words, natural, one_line, size, slug, visible
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

ANY = st.text(st.characters())


@given(ANY)
def test_visible_text_survives_a_page_unchanged(text: str) -> None:
    shown = visible(text)
    parsed = html5lib.parseFragment(f"<p>{escape(shown)}</p>", treebuilder="etree", namespaceHTMLElements=False)
    assert "".join(parsed.itertext()) == shown


@given(ANY)
def test_visible_is_a_projection_and_leaves_no_character_that_hides_or_reorders(text: str) -> None:
    shown = visible(text)
    assert visible(shown) == shown
    left = [char for char in shown if unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"]
    assert not left
    assert not set(shown) & set("\u202a\u202e\u2066\u2069\u200b\u200e\ufeff\u2028\ufffe\uffff")


@given(ANY)
def test_visible_changes_each_character_by_itself_or_not_at_all(text: str) -> None:
    assert visible(text) == "".join(visible(char) for char in text)
    for char in text:
        escaped = visible(char)
        assert escaped == char or chr(int(escaped[2:], 16)) == char


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="\\")))
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert visible(text) == text


@given(ANY)
def test_a_label_is_one_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.98765, "0.988"), (8.0, "8"), (1041.0, "1,041"), (1234.5, "1,234"), (float("-inf"), "−∞"), ("Infinity", "∞"),
     (float("nan"), "not a number"), (None, "none"), (True, "True"), ("L12H0", "L12H0"), (-0.5, "-0.5")],
)  # fmt: skip
def test_numbers_as_words(value: object, words: str) -> None:
    assert number(value) == words


def test_expected_values_as_words() -> None:
    assert expected_words("at_least", 8.0, "ratio") == "at least 8 ratio"
    assert expected_words("order", ["a", "b"]) == "a > b"
    assert expected_words("curve", [[1.0, 0.5]]) == "(1, 0.5)"
    assert expected_words("value", None) == "not given"


def test_durations_and_sizes() -> None:
    assert [duration(s) for s in (0.44, 59.7, 200, 7500, None)] == ["0.44 s", "60 s", "3 min 20 s", "2 h 5 min",
                                                                   "not recorded"]  # fmt: skip
    assert [size(b) for b in (812 << 20, 1 << 30, 5, 0)] == ["812 MiB", "1 GiB", "5 bytes", "not recorded"]


@given(st.lists(ANY, min_size=1, max_size=3), st.lists(ANY, min_size=1, max_size=3))
def test_different_parts_have_different_ids(one: list[str], other: list[str]) -> None:
    assert (slug(*one) == slug(*other)) == (one == other)
    assert all(char.isascii() and (char.isalnum() or char == "-") for char in slug(*one))
    assert not slug(*one)[0].isdigit()


@given(st.lists(ANY), st.randoms(use_true_random=False))
def test_natural_order_does_not_depend_on_where_texts_came_from(texts: list[str], order: random.Random) -> None:
    shuffled = order.sample(texts, len(texts))
    assert list(map(natural, sorted(texts, key=natural))) == list(map(natural, sorted(shuffled, key=natural)))
    assert sorted(["SH-10", "SH-4"], key=natural) == ["SH-4", "SH-10"]
