"""Cases that involve succession, the ones matched to them, and numbered lists, on texts where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from circuit_claims.papers.successor_heads.natural_text.cases import NEITHER, find_examples, matched_cases
from circuit_claims.papers.successor_heads.natural_text.listings import PER_DOCUMENT, cut_listings, numbered_items
from circuit_claims.texts import Document
from hypothesis import given
from hypothesis import strategies as st


def examples(text: list[str]):
    kinds: dict[str, int] = {}
    return find_examples(text, kinds), kinds


def succession(text: list[str]) -> list[str]:
    """The correct tokens of the succession cases."""
    found, _ = examples(text)
    return [text[case + 1] for case in np.flatnonzero(found.succession)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (["\n", "1", ".", " old", "\n", "2", ".", " new", "\n", "3"], ["2", "3"]),
        ([" Monday", ",", " Tuesday", " and", " Wednesday"], [" Tuesday", " Wednesday"]),
        ([" one", " two", " three"], [" two", " three"]),
        (["(", "a", ")", " old", "(", "b", ")"], ["b"]),
        (["1", "2", "3"], []),
        ([" in", " 1", "9", "9", "8", " and", " 1", "9", "9", "9"], ["9"]),
        (["2", ".", "\n", "1"], []),
        ([" May", " he", " June"], []),
        (["old"], []),
    ],
)
def test_succession_is_told_by_the_slot_a_token_stands_in(text, expected):
    assert succession(text) == expected


def test_matched_cases_have_no_predecessor_before_them():
    text = [" old", "5", " new", " July", " and", "6", " on", " Friday"]
    found, kinds = examples(text)
    names = {number: name for name, number in kinds.items()}
    matched = {
        text[case + 1]: names[found.kind[case]] for case in np.flatnonzero((found.kind >= 0) & ~found.succession)
    }
    assert matched == {"5": "numbers", " July": "months", " Friday": "days"}
    assert found.kind[4] == NEITHER, "6 comes after a 5 that stood elsewhere: neither one nor the other"


@given(st.lists(st.sampled_from(["1", "2", "3", ",", "\n", " b", " c", " x"]), min_size=2, max_size=14))
def test_a_case_sees_its_own_prefix_only(tokens):
    whole, _ = examples([*tokens, "2", "\n", "3"])
    part, _ = examples(tokens)
    assert whole.succession[: len(tokens) - 1].tolist() == part.succession.tolist()
    assert (whole.predecessor[: len(tokens) - 1] < np.arange(1, len(tokens))).all()


def test_means_are_compared_kind_by_kind_in_the_same_proportions():
    """Months cost more than numbers whatever the head does: only unmatched means would show a difference."""
    kind = np.array([[0, 0, 1, 1, 1, 1, 1, -1]])
    marks = np.array([[True, True, True, False, False, False, False, False]])
    kind = np.concatenate([kind, [[0, -1, -1, -1, -1, -1, -1, -1]]])
    marks = np.concatenate([marks, np.zeros((1, 8), dtype=bool)])
    values = np.where(kind == 0, 5.0, 1.0)
    found = matched_cases(values, kind, marks, np.array([0, 1]), (2, 2))
    own, matched = found.means(np.array([[1, 1], [1, 0], [0, 1]]))
    assert own[0] == pytest.approx((2 * 5 + 1) / 3)
    assert matched[0] == pytest.approx(own[0])
    assert own[1] == matched[1] == 1.0, "without the second document numbers have no match and are left out"
    assert np.isnan([own[2], matched[2]]).all()


# Numbered lists.


class Letters:
    """A tokenizer that gives every character its code."""

    bos_id = None

    def encode(self, text):
        return [ord(letter) for letter in text]

    def spans(self, text):
        return [(place, place + 1) for place in range(len(text))]


class Opened(Letters):
    """The same with a first token that the model expects."""

    bos_id = 7


def listing(word: str) -> str:
    """A numbered list of twelve items, each with words of its own."""
    items = "".join(f"{number}. {word} {chr(96 + number) * 3} of the list\n" for number in range(1, 13))
    return "Some words come first, enough of them.\n" + items


LIST = listing("item")


def test_items_count_from_the_third_on_and_only_in_order():
    assert [number for number, *_ in numbered_items(LIST)] == list(range(3, 13))
    assert [LIST[at:].split(".")[0] for _, at, _ in numbered_items(LIST)] == [str(n) for n in range(3, 13)]
    for text in ("1. a\n2. b\n4. c\n5. d\n", "3. a\n2. b\n1. c\n", "1 a\n2 b\n3 c\n", "1.5\n2.5\n3.5\n"):
        assert list(numbered_items(text)) == []
    assert [number for number, *_ in numbered_items("  # (4) a\n  # (5) b\n  # (6) c\n")] == [6]


@pytest.mark.parametrize("tokens", [Letters(), Opened()])
def test_a_prompt_ends_where_its_number_comes_next(tokens):
    found = cut_listings([Document("d", "".join(map(listing, ("one", "two", "three"))))], tokens, wanted=99, length=100)
    assert len(found) == PER_DOCUMENT
    for row, case, number in zip(found.tokens, found.cases, found.numbers, strict=True):
        assert row[case + 1] == ord(str(number)), "numbers of two digits are two tokens here and left out"
        text = "".join(map(chr, row[: case + 1]))
        assert text.endswith("\n")
        assert f"\n{number - 1}." in text
        assert f"\n{number - 2}." in text or text.lstrip("\x07").startswith(f"{number - 2}.")
    assert found.tokens.shape[1] == 100
    assert (found.tokens[:, 0] == 7).all() == (tokens.bos_id == 7)


def test_a_smaller_draw_of_listings_is_the_beginning_of_a_larger_one():
    documents = [Document(f"d{place}", listing(f"w{place}")) for place in range(6)]
    large, small = (cut_listings(documents, Letters(), wanted=wanted, length=64) for wanted in (20, 5))
    assert (large.tokens[:5] == small.tokens).all()
    assert len(large) == 20
    assert len(set(large.documents)) > 2
    assert large.digest != small.digest
    assert len(cut_listings([Document("none", "no list here " * 40)], Letters())) == 0


def test_a_list_that_stands_in_two_documents_counts_once():
    twice = [Document("a", LIST), Document("b", f"Before. {LIST} After.")]
    assert len(cut_listings(twice, Letters(), length=64)) == len(cut_listings(twice[:1], Letters(), length=64))
