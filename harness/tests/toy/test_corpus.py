"""Training text: what is read, what is held out, how rows are packed, and what happens with files that are wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from circuit_claims.toy.corpus import (
    CorpusError,
    Source,
    documents,
    load_mixture,
    open_corpus,
    pack,
    prepare,
    read_texts,
    split_held_out,
)
from circuit_claims.toy.tokenizer import BOS, BOS_TEXT, SPACE, TokenizerError, open_tokenizer, train_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from tests.toy.text_folder import write_texts


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def tokenizer(texts):
    return train_tokenizer(text for name in ("one.jsonl", "two.jsonl.zst") for text in read_texts(texts / name))


@given(st.lists(st.lists(st.integers(0, 4998), max_size=30), max_size=12), st.integers(2, 9))
def test_packing_keeps_the_stream_in_order(ids, n_ctx):
    rows = pack([np.array(document, dtype=np.uint16) for document in ids], n_ctx)
    stream = [token for document in ids for token in [*document, BOS]]
    assert rows.shape == (len(stream) // (n_ctx - 1), n_ctx)
    assert (rows[:, 0] == BOS).all()
    assert rows[:, 1:].ravel().tolist() == stream[: rows[:, 1:].size]


def test_a_context_of_one_token_is_refused():
    with pytest.raises(CorpusError, match="at least 2 tokens"):
        pack([], 1)


@given(st.integers(0, 50), st.floats(0.01, 0.49))
def test_nothing_is_both_held_out_and_trained_on(count, share):
    train, held = split_held_out([str(index) for index in range(count)], share)
    assert train + held == [str(index) for index in range(count)]
    assert (len(held) >= 1) == (count > 1)


def test_documents_are_drawn_whole_up_to_the_cap_and_alike_each_time(texts):
    source = Source(file="one.jsonl", stands_for="words", licence="CC0", megabytes=0.02)
    drawn, everything = documents(texts, source, seed=1), set(read_texts(texts / "one.jsonl"))
    assert drawn == documents(texts, source, seed=1)
    assert drawn != documents(texts, source, seed=2)
    assert set(drawn) <= everything
    assert sum(map(len, drawn)) <= 20_000 < sum(map(len, everything))


def test_the_tokenizer_has_space_and_bos_where_the_paper_has_them(tokenizer):
    assert tokenizer.size == 5000
    assert tokenizer.encode(" ").tolist() == [SPACE]
    assert tokenizer.decode([BOS]) == BOS_TEXT
    assert BOS not in tokenizer.encode(f"a {BOS_TEXT} written in a text").tolist()


@given(st.text(max_size=60))
def test_any_text_comes_back_from_its_tokens(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_too_little_text_for_a_tokenizer_says_so():
    with pytest.raises(TokenizerError, match="Give more text"):
        train_tokenizer(["a few words"])


def test_another_tokenizer_is_refused(tmp_path, tokenizer):
    definition = json.loads(tokenizer.definition)
    definition["added_tokens"][0]["content"] = "<other>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(TokenizerError, match="the space as id 220"):
        open_tokenizer(tmp_path / "tokenizer.json")


def test_a_prepared_corpus_opens_again_and_a_changed_one_does_not(texts, tokenizer, tmp_path):
    made = prepare(texts, load_mixture(texts / "mixture.toml"), tokenizer, 32, tmp_path)
    again = open_corpus(tmp_path)
    assert np.array_equal(again.train, made.train)
    assert again.card == made.card
    assert sum(source["share"] for source in made.card["sources"]) == pytest.approx(1, abs=1e-3)
    rows = np.load(tmp_path / "test.npy")
    rows[0, 3] ^= 1
    np.save(tmp_path / "test.npy", rows)
    with pytest.raises(CorpusError, match="changed or damaged"):
        open_corpus(tmp_path)


def test_held_out_rows_are_of_other_documents(texts, tokenizer, tmp_path):
    made = prepare(texts, load_mixture(texts / "mixture.toml"), tokenizer, 32, tmp_path)
    seen = {tuple(row[1:9].tolist()) for row in made.train}
    assert not any(tuple(row[1:9].tolist()) in seen for row in made.test)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"text": "fine"}\n{"txt": "no"}\n', "line 2"),
        (b'{"text": 5}\n', "expected  text"),
        (b"not json\n", "line 1"),
        (b'{"text": "\xff"}\n', "training text"),
    ],
)
def test_a_damaged_file_names_its_line(tmp_path, content, said):
    (tmp_path / "bad.jsonl").write_bytes(content)
    with pytest.raises(CorpusError, match=said):
        list(read_texts(tmp_path / "bad.jsonl"))


def test_a_source_cannot_climb_out_of_its_folder(tmp_path):
    (tmp_path / "mixture.toml").write_text(
        'seed = 1\nheld_out = 0.1\n[[source]]\nfile = "../secret.jsonl"\nstands_for = ""\nlicence = ""\nmegabytes = 1\n'
    )
    with pytest.raises(CorpusError, match="file"):
        load_mixture(tmp_path / "mixture.toml")
