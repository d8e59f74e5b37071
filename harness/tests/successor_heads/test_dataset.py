"""The succession dataset: the paper's counts with its tokenizer, and what must hold with any other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from circuit_claims.papers.successor_heads.dataset import (
    FORMS,
    SuccessionDataset,
    assemble_dataset,
    roman_dataset,
    spell,
    succession,
)
from circuit_claims.papers.successor_heads.dataset import Task as DatasetTask
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.successor_heads.toy import ALL_TEXTS, Words, plain_pairs, small_words

TOKENIZER = "20B_tokenizer.json"
FOLDER_VARIABLE = "CLAIMS_TOKENIZERS"

PAPER_TABLE = {
    "numbers": (200, 200, 200, 200),
    "number words": (10, 20, 10, 13),
    "ordinal words": (4, 10, 4, 10),
    "days": (7, 7, 0, 0),
    "day prefixes": (7, 7, 4, 5),
    "months": (12, 12, 1, 2),
    "month prefixes": (12, 12, 10, 10),
    "letters": (26, 26),
}


class NeoX:
    def __init__(self, path: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(path))

    def single_token(self, text: str) -> int | None:
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids[0] if len(ids) == 1 else None


@pytest.fixture(scope="module")
def neox() -> NeoX:
    beside = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "tokenizers"
    folder = Path(os.environ.get(FOLDER_VARIABLE, beside))
    if not (folder / TOKENIZER).is_file():
        pytest.skip(
            f"no GPT-NeoX tokenizer: expected {TOKENIZER} in {folder}; get tokenizer.json of EleutherAI/pythia-1.4b, "
            f"save it there under that name or set {FOLDER_VARIABLE} to its folder"
        )
    return NeoX(folder / TOKENIZER)


def test_the_papers_dataset_is_rebuilt_with_its_tokenizer(neox):
    """SH-01 and the table of section 2."""
    dataset = succession(neox)
    assert len(dataset.entries) == 1041
    assert dataset.distinct_tokens == 637
    assert {task: tuple(forms.values()) for task, forms in dataset.table().items()} == PAPER_TABLE
    assert dataset.not_applicable == ()


def test_pairs_with_and_without_wraps(neox):
    assert succession(neox, wraps=False).pair_count == 1001
    assert succession(neox, wraps=True).pair_count == 1013


def test_digits_dominate_the_entries(neox):
    """SH-26: 800 of 1,041."""
    assert succession(neox).share("numbers") == pytest.approx(0.768, abs=5e-4)


def test_each_distinct_comparison_is_laid_out_once(neox):
    dataset = succession(neox)
    assert len(dataset.columns.token) == 641  # 637 ids, and "May" in four spellings is both a month and a prefix
    assert dataset.columns.weight.sum() == 1041
    assert dataset.pairs.weight.sum() == 1013
    assert len(dataset.pairs.column) == 1013 - 2 * 199


def test_roman_numerals_are_held_out(neox):
    roman = roman_dataset(neox)
    assert roman.table() == {"roman numerals": {"plain": 12, "space": 15}}
    assert not any(task.in_paper for task in roman.tasks)
    assert "roman numerals" not in succession(neox).task_names


def test_a_tokenizer_that_splits_numbers_has_one_to_nine_and_digits_where_asked():
    words = Words([*"0123456789", *ALL_TEXTS])
    words.ids = {text: place for text, place in words.ids.items() if not text.strip().isdigit() or len(text) == 1}
    literal = succession(words)
    assert literal.tasks[0].name == "numbers"
    assert not literal.not_applicable
    assert literal.table()["numbers"] == {"plain": 9, "space": 0, "inverted": 9, "inverted+space": 0}
    dataset = succession(words, digits=True)
    assert [task.name for task in dataset.not_applicable] == ["numbers"]
    assert dataset.tasks[0].name == "digits"
    assert not dataset.tasks[0].in_paper
    assert dataset.table()["digits"] == {"plain": 10, "space": 0}
    assert dataset.table()["numbers"] == {"plain": 9, "space": 0, "inverted": 9, "inverted+space": 0}


def test_one_number_of_two_digits_keeps_the_numbers_even_with_id_zero():
    assert "numbers" in succession(Words(["10", "9", "8"])).task_names
    assert "digits" not in succession(Words(["10", "9", "8"])).task_names


def test_a_missing_string_breaks_the_chain_and_the_wrap():
    seasons = DatasetTask("seasons", ("spring", "summer", "autumn", "winter"), cyclic=True)
    dataset = assemble_dataset(Words(["spring", "summer", "winter"]), [seasons])
    assert [(a.text, b.text) for a, b in plain_pairs(dataset)] == [("spring", "summer"), ("winter", "spring")]
    assert dataset.strands[0].links == ((0, 1), (2, 0))
    assert assemble_dataset(Words(["spring", "summer", "winter"]), [seasons], wraps=False).strands[0].links == ((0, 1),)


def test_a_vocabulary_without_the_strings_gives_an_empty_dataset():
    dataset = succession(Words(["nothing", "here"]))
    assert dataset.entries == ()
    assert dataset.pair_count == 0
    assert len(dataset.pairs.column) == 0


def test_an_unknown_task_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"expected one of .*days"):
        succession(small_words()).share("Roman")


def test_a_tokenizer_that_splits_numbers_says_so_where_their_share_is_asked():
    dataset = succession(Words([*"0123456789", "Monday", "Tuesday"]), digits=True)
    assert "digits" in dataset.task_names
    with pytest.raises(ValueError, match="It splits numbers into digits"):
        dataset.share("numbers")


@pytest.mark.parametrize(
    ("form", "text"), list(zip(FORMS, ["Monday", " Monday", "monday", " monday"], strict=True)), ids=str
)
def test_forms_are_spelt_as_in_the_paper(form, text):
    assert spell("Monday", form) == text
    assert spell("7", form).strip() == "7"


@settings(max_examples=40, deadline=None)
@given(kept=st.sets(st.sampled_from(ALL_TEXTS)), wraps=st.booleans(), mixed=st.booleans())
def test_weights_and_pairs_agree_with_plain_counting(kept, wraps, mixed):
    """For any vocabulary: the compact layout stands for exactly the entries and pairs that plain counting finds."""
    dataset = succession(Words([text for text in ALL_TEXTS if text in kept]), wraps=wraps, mixed_forms=mixed)
    pairs = plain_pairs(dataset)
    assert dataset.columns.weight.sum() == len(dataset.entries)
    assert dataset.pairs.weight.sum() == len(pairs) == dataset.pair_count
    assert expanded(dataset) == sorted((entry.task, entry.token, successor.token) for entry, successor in pairs)


def expanded(dataset: SuccessionDataset) -> list[tuple[str, int, int]]:
    found = []
    pairs, columns = dataset.pairs, dataset.columns
    for row, column in enumerate(pairs.column):
        target = dataset.groups[columns.group[column]].candidates[pairs.target[row]]
        pair = (dataset.task_names[pairs.task[row]], int(pairs.token[row]), target)
        found += [pair] * int(pairs.weight[row])
    return sorted(found)
