"""Texts: what every Python has, files that others wrote, the chain of sources, and windows drawn from documents."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from circuit_claims.models.errors import RegistryError
from circuit_claims.texts import (
    STANDARD_TEXTS,
    Document,
    Text,
    TextNotAvailable,
    find_text,
    load_texts,
    open_text,
    sources,
    standard_text,
    text_digest,
    text_label,
)
from circuit_claims.texts.files import TextDamaged, read_documents
from circuit_claims.texts.registry import FirstDocuments, TextRow
from circuit_claims.texts.sources import documents_digest
from circuit_claims.texts.windows import draw_contexts
from hypothesis import given, settings
from hypothesis import strategies as st

SHORT = ("python-docs", "stdlib-source")


@pytest.mark.parametrize("name", SHORT)
def test_a_standard_text_is_the_same_in_a_new_process(name):
    line = f"from circuit_claims.texts import text_digest; print(text_digest({name!r}))"
    fresh = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout.strip()
    assert fresh == text_digest(name) == hashlib.sha256(standard_text(name).encode()).hexdigest()


@pytest.mark.parametrize(("name", "phrase"), [("python-docs", '"if" statement'), ("stdlib-source", "\ndef ")])
def test_a_standard_text_is_long_and_what_it_says_it_is(name, phrase):
    assert len(standard_text(name)) > 400_000
    assert phrase in standard_text(name)
    assert name in text_label(name)
    assert "standing in" in text_label(name)


def test_the_texts_differ():
    assert len({text_digest(name) for name in STANDARD_TEXTS}) == len(STANDARD_TEXTS) == 3


def test_the_whole_library_is_larger_and_holds_no_tests():
    names = {document.name for document in open_text("stdlib-complete").documents}
    assert {document.name for document in open_text("stdlib-source").documents} <= names
    assert not any(part in name.split("/") for name in names for part in ("test", "tests", "site-packages"))


def test_an_unknown_text_is_named_with_the_known_ones():
    with pytest.raises(RegistryError, match=r"nearest: pile.*expected one of pile, python-docs"):
        standard_text("the pile")


def test_collecting_claims_with_the_texts_imports_nothing_heavy():
    script = "import sys, circuit_claims.texts, circuit_claims.running.fixtures\n"
    script += "print([m for m in ('torch', 'pyarrow') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


# The registry.


def test_every_text_has_a_licence_and_stand_ins_that_python_carries():
    rows = load_texts()
    assert {"pile", "code-by-language", "tinystories", "wikitext", *STANDARD_TEXTS} <= set(rows)
    assert all(row.licence and row.title for row in rows.values())
    assert find_text("pile").stand_ins == SHORT


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('files = ["../secrets.jsonl"]', "climbs out"),
        ("", "expected `files`"),
        ('files = ["a.jsonl"]\nstand_ins = ["elsewhere"]', "stand-ins are texts of kind library"),
        ('files = ["a.jsonl"]\ncolour = "red"', "colour"),
    ],
)
def test_a_registry_that_does_not_hold_together_is_refused(tmp_path, line, complaint):
    path = tmp_path / "texts.toml"
    path.write_text(
        f'schema = 1\n[[text]]\nname = "a"\ntitle = "a"\nkind = "documents"\nlicence = "none"\n{line}\n',
        encoding="utf-8",
    )
    with pytest.raises(RegistryError, match=complaint):
        load_texts(path)


# Files that others wrote.

ROWS = [{"text": "one\ntwo", "meta": {"pile_set_name": "Github"}}, {"text": "Ünïcode"}, {"text": "", "meta": 3}]


def save(path, rows=ROWS, extra=""):
    data = ("\n".join(json.dumps(row) for row in rows) + "\n" + extra).encode()
    if path.suffix == ".zst":
        import zstandard

        data = zstandard.ZstdCompressor().compress(data)
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        buffer = io.BytesIO()
        parquet.write_table(pyarrow.table({"text": [row["text"] for row in rows]}), buffer)
        data = buffer.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst", "a.parquet"])
def test_documents_come_out_as_they_went_in(tmp_path, name):
    found = list(read_documents(save(tmp_path / name)))
    assert [text for text, _ in found] == [row["text"] for row in ROWS]
    assert found[0][1] == ({} if name.endswith("parquet") else ROWS[0]["meta"])


@pytest.mark.parametrize("line", ["{", "[1]", '{"text": 3}', '{"words": "a"}', "null"])
def test_a_line_that_is_no_document_is_named(tmp_path, line):
    with pytest.raises(TextDamaged, match=r"a\.jsonl, line 4: expected an object"):
        list(read_documents(save(tmp_path / "a.jsonl", extra=line)))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst", "a.parquet", "a.txt"])
def test_bytes_that_are_something_else_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xfe\x00 not what the name says")
    with pytest.raises(TextDamaged, match=r"^a\."):
        list(read_documents(tmp_path / name))


def test_a_file_cut_short_is_refused(tmp_path):
    whole = save(tmp_path / "a.jsonl.zst", [{"text": "word " * 20_000 + str(n)} for n in range(40)])
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(TextDamaged):
        list(read_documents(whole))


def test_a_missing_reader_is_named_with_what_to_type(tmp_path, monkeypatch):
    path = save(tmp_path / "a.jsonl.zst")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(TextDamaged, match="Type: pip install zstandard"):
        list(read_documents(path))


# The chain of sources.


@pytest.fixture
def alone(monkeypatch):
    """No hub and nothing of it on this machine, whatever this machine has."""
    monkeypatch.setattr(sources, "_hub_cached", sources._hub_not_asked)
    monkeypatch.setattr(sources, "_hub_download", sources._hub_not_asked)


def test_a_folder_gives_the_text_and_an_unknown_one_is_said_to_be(tmp_path, alone):
    save(tmp_path / "pile.jsonl.zst")
    found = open_text("pile", texts_dir=tmp_path)
    assert [document.text for document in found.documents] == [row["text"] for row in ROWS]
    assert [document.group for document in found.documents] == ["Github", "", ""]
    assert found.source == {"from": "local folder", "files": "pile.jsonl.zst"}
    assert found.stands_for == "pile"
    assert "unchecked" in found.label


def test_the_published_text_is_known_by_its_first_documents_in_any_container(tmp_path, alone, monkeypatch):
    first = FirstDocuments(2, documents_digest(row["text"] for row in ROWS[:2]))
    row = TextRow("pile", "the Pile", "documents", "none", files=("*.jsonl", "*.parquet"), first=first)
    monkeypatch.setattr(sources, "find_text", lambda name: row)
    for name in ("a.jsonl", "b.parquet"):
        save(tmp_path / name / name)
        found = open_text("pile", texts_dir=tmp_path / name)
        assert (found.stands_for, found.label) == ("", "the Pile (3 documents)")
    save(tmp_path / "c" / "c.jsonl", ROWS[::-1])
    assert open_text("pile", texts_dir=tmp_path / "c").stands_for == "pile"


def test_a_text_that_cannot_be_had_says_what_was_asked_and_what_to_type(tmp_path, alone):
    with pytest.raises(TextNotAvailable) as caught:
        open_text("pile", texts_dir=tmp_path)
    assert caught.value.command == "claims fetch pile"
    assert [attempt.source for attempt in caught.value.tried] == [
        "local folder",
        "hub's cache",
        "hub NeelNanda/pile-10k",
    ]
    with pytest.raises(TextNotAvailable, match="Type: pytest --texts FOLDER"):
        open_text("languages")


def test_what_stands_in_is_labelled_so_and_a_damaged_file_is_not_silently_replaced(tmp_path, alone):
    found = open_text("pile", stand_in=True)
    assert found.stands_for == "pile"
    assert "standing in for the Pile" in found.label
    assert {document.group for document in found.documents} == set(SHORT)
    (tmp_path / "pile.jsonl").write_text("{")
    with pytest.raises(TextNotAvailable, match=r"pile\.jsonl, line 1"):
        open_text("pile", texts_dir=tmp_path, stand_in=True)


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_the_digest_tells_documents_apart_however_they_are_cut(one, other):
    assert (documents_digest(one) == documents_digest(other)) == (one == other)


# Windows.


@dataclass(frozen=True)
class Letters:
    """A tokenizer that gives every character its code."""

    bos_id: int | None = None

    def encode(self, text):
        return [ord(letter) for letter in text]


def text_of(lengths) -> Text:
    documents = tuple(Document(f"d{place}", chr(0x100 + place) * length) for place, length in enumerate(lengths))
    return Text("t", "a made-up text", documents, {})


@given(st.lists(st.integers(0, 60), min_size=1, max_size=12), st.integers(1, 9), st.integers(0, 3), st.booleans())
@settings(max_examples=80, deadline=None)
def test_windows_lie_in_one_document_and_at_most_three_in_each(lengths, length, seed, bos):
    tokens = Letters(7) if bos else Letters()
    inside = length - bos
    fitting = sum(min(3, size // inside) for size in lengths) if inside else 0
    if not inside or fitting == 0:
        if inside:
            with pytest.raises(ValueError, match="expected a document at least that long"):
                draw_contexts(text_of(lengths), tokens, count=5, length=length, seed=seed)
        return
    found = draw_contexts(text_of(lengths), tokens, count=5, length=length, seed=seed)
    assert found.tokens.shape == (min(5, fitting), length)
    assert all(list(row[:1]) == [7] for row in found.tokens) or not bos
    codes = found.tokens[:, int(bos) :]
    assert (codes == codes[:, :1]).all(), "a window holds tokens of two documents"
    assert [f"d{code - 0x100}" for code in codes[:, 0]] == list(found.documents)
    assert np.bincount(found.clusters).max() <= 3
    assert len(set(zip(found.documents, found.places, strict=True))) == len(found)


def test_a_smaller_draw_is_the_beginning_of_a_larger_one_and_a_seed_is_its_name():
    text = open_text("python-docs")
    large, small = (draw_contexts(text, Letters(), count=count, length=64) for count in (40, 10))
    assert (large.tokens[:10] == small.tokens).all()
    assert large.places[:10] == small.places
    assert draw_contexts(text, Letters(), count=10, length=64).digest == small.digest
    assert draw_contexts(text, Letters(), count=10, length=64, seed=1).digest != small.digest


def test_windows_are_where_they_say_they_are():
    text = open_text("stdlib-source")
    found = draw_contexts(text, Letters(), count=20, length=100, seed=3)
    whole = {document.name: document.text for document in text.documents}
    for row, name, place in zip(found.tokens, found.documents, found.places, strict=True):
        start, begin = (int(word.replace(",", "")) for word in place.split() if word[0].isdigit())
        assert "".join(map(chr, row)) == whole[name][begin + start : begin + start + 100]


def test_documents_that_stand_inside_another_are_left_out():
    text = Text("t", "made up", tuple(Document(name, words) for name, words in
                [("a", "one two"), ("b", "zero one two three"), ("c", "four"), ("d", "four")]), {})  # fmt: skip
    assert [document.name for document in sources.without_repeats(text).documents] == ["b", "c"]


def test_the_command_line_lists_the_texts_with_their_sources(monkeypatch):
    from circuit_claims.running import command_line as cli
    from rich.console import Console
    from typer.testing import CliRunner

    # The width of the terminal is read when the module is first imported, which another test may have done.
    monkeypatch.setattr(cli, "out", Console(width=200, highlight=False))
    shown = CliRunner().invoke(cli.app, ["list", "--texts"]).output
    assert "NeelNanda/pile-10k" in shown
    assert "comes with Python" in shown
    assert all(name in shown for name in load_texts())
