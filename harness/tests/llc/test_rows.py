"""Rows of tokens from files and names, and what is said of those that cannot be used."""

import re

import numpy as np
import pytest
from circuit_claims.llc.rows import cut_rows, read_text

from tests.toy.test_potentials import small_model


def letters(text: str) -> list[int]:
    """A tokenizer: one token a letter."""
    return [ord(letter) % 31 for letter in text]


def cut(found, encode=None, **changes):
    return cut_rows(found, small_model(), encode, **{"text": "T", "length": 12, **changes})


@pytest.mark.parametrize("kind", ["int16", "uint16", "int64", "uint64"])
def test_a_table_of_ids_is_taken_as_it_is(kind, tmp_path):
    rows = np.random.default_rng(0).integers(0, 31, (20, 14)).astype(kind)
    np.save(tmp_path / "rows.npy", rows)
    found = cut(read_text(str(tmp_path / "rows.npy")), most=7)
    np.testing.assert_array_equal(found.numpy(), rows[:7, :12].astype(np.int64))


def test_a_text_file_is_cut_into_windows_end_to_end(tmp_path):
    words = "the quick brown fox jumps over the lazy dog"
    (tmp_path / "words.txt").write_text(words)
    found = cut(read_text(str(tmp_path / "words.txt")), letters, most=2)
    assert found.tolist() == [letters(words[:12]), letters(words[12:24])]


def test_a_standard_text_is_known_by_name():
    assert len(read_text("python-docs")) > 100_000


def test_a_name_that_is_nothing_is_told_everything_that_would_do():
    with pytest.raises(ValueError, match=r"expected  a standard text, a text file, or an \.npy file") as caught:
        read_text("no-such-text")
    assert "python-docs" in str(caught.value)
    assert "Type for example: --text python-docs" in str(caught.value)


def write(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        with path.open("wb") as handle:
            np.savez(handle, **content)
    else:
        np.save(path, content, allow_pickle=True)


@pytest.mark.parametrize(("content", "words"), [
    (b"not an array", "no whole array of numbers"), (b"", "no whole array of numbers"),
    (b"\x93NUMPY\x01\x00torn", "no whole array of numbers"),
    (np.array([[{}]], dtype=object), "no whole array of numbers"), ({"a": np.zeros((2, 2), int)}, "an archive"),
    (np.zeros(7, int), r"shape \(7,\): a table"), (np.zeros((0, 12), int), r"shape \(0, 12\)"),
    (np.zeros((2, 12)), "numbers of type float64: token ids are integers"),
    (np.zeros((2, 12), bool), "numbers of type bool"), (np.array([["a"]]), "numbers of type <U1")],
    ids=["text", "empty", "torn", "objects", "archive", "flat", "no rows", "floats", "bools", "strings"])  # fmt: skip
def test_an_npy_that_is_no_table_of_ids_is_refused(content, words, tmp_path):
    write(tmp_path / "rows.npy", content)
    with pytest.raises(ValueError, match=words) as caught:
        read_text(str(tmp_path / "rows.npy"))
    assert "Type for example" in str(caught.value)


def test_folders_missing_files_and_other_encodings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="found     a folder"):
        read_text(str(tmp_path))
    with pytest.raises(ValueError, match="no file of that name"):
        read_text(str(tmp_path / "none.npy"))
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        read_text(str(tmp_path / "latin.txt"))


@pytest.mark.parametrize("bad", [-1, 31, 4999])
def test_ids_outside_the_vocabulary_are_refused(bad):
    rows = np.full((8, 12), 3)
    rows[2, 5] = bad
    with pytest.raises(ValueError, match="expected token ids from 0 to 30, the model's vocabulary"):
        cut(rows)


@pytest.mark.parametrize(("shape", "changes", "words"), [
    ((8, 11), {}, "Type: --length 11"), ((3, 12), {"batch": 4}, "Type: --batch 3"),
    ((8, 40), {"length": 14}, "expected at most 13 tokens, what the model reads and one to predict, found 14"),
])  # fmt: skip
def test_tables_of_another_size_are_refused_with_what_to_type(shape, changes, words):
    with pytest.raises(ValueError, match=words):
        cut(np.zeros(shape, int), **changes)


def test_a_text_too_short_or_without_a_tokenizer_is_refused():
    with pytest.raises(ValueError, match=re.escape("expected at least 12 tokens, found 5")):
        cut("words", letters)
    with pytest.raises(ValueError, match=r"no tokenizer\.json lies beside the model"):
        cut("many words that would be enough")
