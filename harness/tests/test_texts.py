"""The standard texts: there, of a useful size, the same each time, and refused by name otherwise."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from harness.texts import STANDARD_TEXTS, standard_text, text_digest, text_label


@pytest.mark.parametrize("name", STANDARD_TEXTS)
def test_a_standard_text_is_the_same_in_a_new_process(name):
    line = f"from harness.texts import text_digest; print(text_digest({name!r}))"
    fresh = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout.strip()
    assert fresh == text_digest(name) == hashlib.sha256(standard_text(name).encode()).hexdigest()


@pytest.mark.parametrize(("name", "phrase"), [("python-docs", '"if" statement'), ("stdlib-source", "\ndef ")])
def test_a_standard_text_is_long_and_what_it_says_it_is(name, phrase):
    assert len(standard_text(name)) > 400_000
    assert phrase in standard_text(name)
    assert name in text_label(name)
    assert "standing in" in text_label(name)


def test_the_texts_differ():
    assert len({text_digest(name) for name in STANDARD_TEXTS}) == len(STANDARD_TEXTS) == 2


def test_an_unknown_text_is_named_with_the_known_ones():
    with pytest.raises(KeyError, match="expected one of python-docs, stdlib-source"):
        standard_text("the pile")
